//! Vectors per type, computed by hand from the layout of the standard, and round trips.

use super::*;

fn cause(reason: Reason) -> Cause {
    Cause::new(reason, 0)
}

/// 2026-02-28 23:59:58.123 UTC, see the tests of `time`.
const TIME: [u8; 7] = [0x0b, 0xe3, 59, 23, 0xdc, 2, 26];
const SHORT: [u8; 3] = [0x0b, 0xe3, 59];

fn command(value: CommandValue, qualifier: u8, select: bool) -> Element {
    Element::Command(Command { value, qualifier, select })
}

/// Type, element, octets of the element.
fn vectors() -> Vec<(u8, Element, Vec<u8>)> {
    let all =
        Qds::OVERFLOW.with(Qds::BLOCKED).with(Qds::SUBSTITUTED).with(Qds::NOT_TOPICAL).with(Qds::INVALID);
    let counter = Counter { value: -2, sequence: 31, carry: true, adjusted: true, invalid: true };
    let plain = Counter { value: 0x0102_0304, sequence: 5, ..Counter::default() };
    let qcc = Qcc { request: 5, freeze: Freeze::FreezeReset };
    let mut out = vec![
        (1, Element::Single(true, Qds::INVALID), vec![0x81]),
        (1, Element::Single(false, Qds::NOT_TOPICAL.with(Qds::BLOCKED)), vec![0x50]),
        (3, Element::Double(0, Qds::GOOD), vec![0x00]),
        (3, Element::Double(1, Qds::GOOD), vec![0x01]),
        (3, Element::Double(2, Qds::SUBSTITUTED), vec![0x22]),
        (3, Element::Double(3, Qds::INVALID.with(Qds::NOT_TOPICAL)), vec![0xc3]),
        (5, Element::Step(-64, true, Qds::GOOD), vec![0xc0, 0]),
        (5, Element::Step(-1, false, Qds::OVERFLOW), vec![0x7f, 1]),
        (5, Element::Step(63, false, all), vec![0x3f, 0xf1]),
        (7, Element::Bits(0x8000_0001, Qds::GOOD), vec![1, 0, 0, 0x80, 0]),
        (9, Element::Normalised(-32_768, Qds::OVERFLOW), vec![0, 0x80, 1]),
        (9, Element::Normalised(0x4000, Qds::GOOD), vec![0, 0x40, 0]),
        (11, Element::Scaled(-2, Qds::GOOD), vec![0xfe, 0xff, 0]),
        (13, Element::Float(1.5, Qds::INVALID), vec![0, 0, 0xc0, 0x3f, 0x80]),
        (15, Element::Counter(counter), vec![0xfe, 0xff, 0xff, 0xff, 0xff]),
        (15, Element::Counter(plain), vec![4, 3, 2, 1, 5]),
        (45, command(CommandValue::Single(true), 1, false), vec![0x05]),
        (45, command(CommandValue::Single(false), 31, true), vec![0xfc]),
        (46, command(CommandValue::Double(2), 0, true), vec![0x82]),
        (46, command(CommandValue::Double(1), 3, false), vec![0x0d]),
        (47, command(CommandValue::Step(1), 0, false), vec![0x01]),
        (48, command(CommandValue::Normalised(-1), 0, true), vec![0xff, 0xff, 0x80]),
        (49, command(CommandValue::Scaled(300), 1, false), vec![0x2c, 1, 1]),
        (50, command(CommandValue::Float(-2.0), 127, true), vec![0, 0, 0, 0xc0, 0xff]),
        (51, command(CommandValue::Bits(0xdead_beef), 0, false), vec![0xef, 0xbe, 0xad, 0xde]),
        (70, Element::Initialised(2), vec![2]),
        (100, Element::Interrogation(20), vec![20]),
        (101, Element::CounterInterrogation(qcc), vec![0x85]),
        (102, Element::Nothing, vec![]),
        (103, Element::Nothing, vec![]),
        (104, Element::Test(0x55aa), vec![0xaa, 0x55]),
        (105, Element::Reset(1), vec![1]),
        (106, Element::Delay(500), vec![0xf4, 1]),
        (107, Element::TestCounter(0x1234), vec![0x34, 0x12]),
    ];
    // The types with a time tag carry the same elements.
    for (type_id, element, octets) in out.clone() {
        match type_id {
            1..=15 => {
                out.push((type_id + 1, element, octets.clone()));
                out.push((30 + type_id / 2, element, octets));
            }
            45..=51 => out.push((type_id + 13, element, octets)),
            _ => {}
        }
    }
    out
}

#[test]
fn every_type_has_its_octets_both_ways() {
    let mut seen = std::collections::BTreeSet::new();
    for (type_id, element, octets) in vectors() {
        seen.insert(type_id);
        let type_id = TypeId(type_id);
        let (_, time) = type_id.layout().unwrap();
        let (tag, time) = match time {
            TimeKind::None => (Tag::None, &[][..]),
            TimeKind::Cp24 => (Tag::Cp24(Cp24Time2a::decode(SHORT)), &SHORT[..]),
            TimeKind::Cp56 => (Tag::Cp56(Cp56Time2a::decode(TIME)), &TIME[..]),
        };
        let cause = Cause { reason: Reason::SPONTANEOUS, negative: true, test: true, originator: 9 };
        let mut expected = vec![type_id.0, 1, 0xc3, 9, 0x02, 0x01, 0x03, 0x02, 0x01];
        expected.extend_from_slice(&octets);
        expected.extend_from_slice(time);
        let object = Object { ioa: 0x01_0203, element, tag };
        assert_eq!(Asdu::single(type_id, cause, 0x0102, object).unwrap(), expected, "{type_id}");
        let asdu = Asdu::decode(&expected).unwrap();
        assert_eq!(asdu.objects, [object], "{type_id}");
        assert_eq!(asdu.header.cause, cause);
        assert_eq!((asdu.header.common_address, asdu.header.count), (0x0102, 1));
    }
    let all: Vec<u8> = TypeId::ALL.iter().map(|id| id.0).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all, "every known type has a vector");
}

#[test]
fn names_and_untimed_forms() {
    for id in TypeId::ALL {
        assert_eq!(TypeId::of_name(&id.to_string()), Some(*id));
        let bare = id.without_time();
        assert_eq!(bare.layout().map(|l| l.0), id.layout().map(|l| l.0), "{id}");
        if id.is_monitor() || id.is_command() {
            assert_eq!(bare.layout().map(|l| l.1), Some(TimeKind::None), "{id}");
        }
    }
    assert_eq!(TypeId::of_name("M_XX_NA_1"), None);
    assert_eq!(TypeId(40).to_string(), "type 40");
}

#[test]
fn a_sequence_has_one_address() {
    let mut packer = Packer::new(TypeId::M_ME_NB_1, cause(Reason::INTERROGATED), 1, true);
    for n in 0..3_u8 {
        assert_eq!(packer.push_untimed(700 + u32::from(n), Element::Scaled(n.into(), Qds::GOOD)), Ok(true));
    }
    assert_eq!(packer.push_untimed(704, Element::Scaled(0, Qds::GOOD)), Ok(false), "703 is missing");
    let octets = packer.finish();
    assert_eq!(octets, [11, 0x83, 20, 0, 1, 0, 0xbc, 2, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0]);
    let asdu = Asdu::decode(&octets).unwrap();
    assert_eq!(asdu.objects.iter().map(|o| o.ioa).collect::<Vec<_>>(), [700, 701, 702]);
}

#[test]
fn an_asdu_is_filled_to_its_bounds() {
    // (249 - 6) / (3 + 1) single points, (249 - 6) / (3 + 5 + 7) floats with time, 127 single points in a sequence.
    for (type_id, sequence, most) in [
        (TypeId::M_SP_NA_1, false, 60),
        (TypeId::M_ME_TF_1, false, 16),
        (TypeId::M_SP_NA_1, true, 127),
        (TypeId::M_ME_NC_1, true, 48),
    ] {
        let mut packer = Packer::new(type_id, cause(Reason::SPONTANEOUS), 1, sequence);
        let element = match type_id {
            TypeId::M_SP_NA_1 => Element::Single(true, Qds::GOOD),
            _ => Element::Float(0.0, Qds::GOOD),
        };
        let tag = Tag::Cp56(Cp56Time2a::decode(TIME));
        let mut count = 0_u32;
        while packer.push(Object { ioa: count, element, tag }).unwrap() {
            count += 1;
        }
        assert_eq!((count, u32::from(packer.count())), (most, most));
        let octets = packer.finish();
        assert!(octets.len() <= crate::apci::MAX_ASDU);
        assert_eq!(Asdu::decode(&octets).unwrap().objects.len(), most as usize);
    }
}

#[test]
fn what_does_not_belong_together_is_not_packed() {
    let mut packer = Packer::new(TypeId::M_SP_TB_1, cause(Reason::SPONTANEOUS), 1, false);
    assert!(packer.push_untimed(1, Element::Single(true, Qds::GOOD)).is_err(), "no time tag");
    let tag = Tag::Cp56(Cp56Time2a::decode(TIME));
    assert!(packer.push(Object { ioa: 1, element: Element::Double(1, Qds::GOOD), tag }).is_err());
    assert!(packer.push(Object { ioa: 1 << 24, element: Element::Single(true, Qds::GOOD), tag }).is_err());
    assert_eq!(packer.finish(), [30, 0, 3, 0, 1, 0], "nothing was left behind");
}

#[test]
fn damaged_asdus_are_told_by_what_is_wrong() {
    assert_eq!(Asdu::decode(&[1, 1, 3, 0, 1]), Err(AsduError::Header(5)));
    assert_eq!(Asdu::decode(&[200, 1, 3, 0, 1, 0, 9]), Err(AsduError::UnknownType(200)));
    assert_eq!(Asdu::decode(&[1, 0, 3, 0, 1, 0]), Err(AsduError::Empty(TypeId(1))));
    let length = |count, expected, found| AsduError::Length { type_id: TypeId(1), count, expected, found };
    assert_eq!(Asdu::decode(&[1, 2, 3, 0, 1, 0, 1, 0, 0, 1]), Err(length(2, 8, 4)));
    assert_eq!(Asdu::decode(&[1, 1, 3, 0, 1, 0, 1, 0, 0, 1, 7]), Err(length(1, 4, 5)));
    let sequence = [1, 0x82, 3, 0, 1, 0, 0xff, 0xff, 0xff, 0, 1];
    assert_eq!(Asdu::decode(&sequence), Err(AsduError::Address { first: MAX_IOA, count: 2 }));
}

#[test]
fn a_mirror_changes_the_cause_alone() {
    let request = [200, 1, 0x86, 7, 1, 0, 9, 8, 7, 6];
    assert_eq!(mirror(&request, Reason::UNKNOWN_TYPE, true), [200, 1, 0xec, 7, 1, 0, 9, 8, 7, 6]);
    assert_eq!(mirror(&request[..4], Reason::UNKNOWN_TYPE, true), [0; 0]);
}
