//! Everything else a master may ask, and what it may not.

use busbar_iec104::apci::{Seq, information};
use busbar_iec104::asdu::{Asdu, Cp56Time2a};
use busbar_iec104::asdu::{BROADCAST, Element, Qds, Reason, Stamp, Tag, TypeId};
use busbar_iec104::station::{Answer, CloseReason, Config, ConnectionId, Note, Output};

use crate::bench::{Bench, UTC, answered, asdu, command, config, good, objects, point, tagged};

fn bench() -> Bench {
    let mut config = config(1);
    config.points = vec![point(100, TypeId::M_ME_TF_1), point(101, TypeId::M_SP_TB_1)];
    config.commands = vec![command(200, TypeId::C_SC_NA_1)];
    Bench::started(config)
}

#[test]
fn a_read_is_answered_from_the_image() {
    let mut bench = bench();
    bench.update(0, Element::Float(4.5, Qds::GOOD));
    let read = |ioa| asdu(TypeId::C_RD_NA_1, Reason::REQUEST, 1, ioa, Element::Nothing);
    let answers = bench.ask(1, &read(100));
    let [(type_id, reason, object)] = objects(&answers)[..] else { panic!("{answers:?}") };
    assert_eq!((type_id, reason), (TypeId::M_ME_NC_1, Reason::REQUEST));
    assert_eq!((object.ioa, object.element), (100, Element::Float(4.5, Qds::GOOD)));
    for unknown in [99, 200, 0] {
        let request = read(unknown);
        assert_eq!(bench.ask(1, &request), [answered(&request, Reason::UNKNOWN_OBJECT, true)]);
    }
}

#[test]
fn the_unknown_comes_back_as_it_came_with_44_to_47_and_the_negative_bit() {
    let mut bench = bench();
    let single = Element::Command(busbar_iec104::asdu::Command {
        value: busbar_iec104::asdu::CommandValue::Single(true),
        qualifier: 0,
        select: false,
    });
    let command = |reason, ca, ioa| asdu(TypeId::C_SC_NA_1, reason, ca, ioa, single);
    let gi = |reason, ca, ioa| asdu(TypeId::C_IC_NA_1, reason, ca, ioa, Element::Interrogation(20));
    for (request, reason) in [
        (vec![200, 1, 6, 7, 1, 0, 1, 2, 3, 4, 5], Reason::UNKNOWN_TYPE),
        (vec![127, 0, 6, 7, 1, 0], Reason::UNKNOWN_TYPE),
        (asdu(TypeId::M_SP_NA_1, Reason::SPONTANEOUS, 1, 101, good(true)), Reason::UNKNOWN_TYPE),
        (asdu(TypeId::M_EI_NA_1, Reason::INITIALISED, 1, 0, Element::Initialised(0)), Reason::UNKNOWN_TYPE),
        (gi(Reason::SPONTANEOUS, 1, 0), Reason::UNKNOWN_CAUSE),
        (command(Reason::REQUEST, 1, 200), Reason::UNKNOWN_CAUSE),
        (asdu(TypeId::C_RD_NA_1, Reason::ACTIVATION, 1, 100, Element::Nothing), Reason::UNKNOWN_CAUSE),
        (gi(Reason::ACTIVATION, 2, 0), Reason::UNKNOWN_COMMON_ADDRESS),
        (command(Reason::ACTIVATION, 2, 200), Reason::UNKNOWN_COMMON_ADDRESS),
        (command(Reason::ACTIVATION, BROADCAST, 200), Reason::UNKNOWN_COMMON_ADDRESS),
        (command(Reason::ACTIVATION, 1, 201), Reason::UNKNOWN_OBJECT),
        (gi(Reason::ACTIVATION, 1, 5), Reason::UNKNOWN_OBJECT),
    ] {
        bench.host.clear();
        assert_eq!(bench.ask(1, &request), [answered(&request, reason, true)]);
        let [Output::Note { note: Note::Unknown { reason: told, .. }, .. }] = bench.host[..] else {
            panic!("{:?}", bench.host)
        };
        assert_eq!(told, reason);
    }
    // A type that is known, but is not this object's.
    let step = [47, 1, 6, 7, 1, 0, 200, 0, 0, 1];
    assert_eq!(bench.ask(1, &step), [answered(&step, Reason::UNKNOWN_TYPE, true)]);
}

fn clock(ca: u16, utc: i64) -> Vec<u8> {
    let tag = Tag::Cp56(Cp56Time2a::new(Stamp::utc(utc)));
    tagged(TypeId::C_CS_NA_1, Reason::ACTIVATION, ca, 0, Element::Nothing, tag)
}

#[test]
fn clock_synchronisation_is_confirmed_with_our_time_and_told() {
    let mut bench = bench();
    for ca in [1, BROADCAST] {
        let answers = bench.ask(1, &clock(ca, UTC + 2_000_000_000));
        let own = answered(&clock(1, UTC), Reason::ACTIVATION_CON, false);
        assert_eq!(answers, [own]);
        let Some(Output::Clock { ahead_ns: 2_000_000_000, .. }) = bench.host.pop() else {
            panic!("{:?}", bench.host)
        };
    }
    let mut impossible = clock(1, UTC);
    impossible[14] = 13;
    assert_eq!(bench.ask(1, &impossible), [answered(&impossible, Reason::ACTIVATION_CON, true)]);
    let mut bench = Bench::started(Config { clock: Answer::Refuse, ..config(1) });
    let request = clock(1, UTC);
    assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
}

#[test]
fn tests_and_delays_are_mirrored() {
    let mut bench = bench();
    let tag = Tag::Cp56(Cp56Time2a::new(Stamp::utc(UTC)));
    for request in [
        asdu(TypeId::C_TS_NA_1, Reason::ACTIVATION, 1, 0, Element::Test(0x55aa)),
        asdu(TypeId::C_CD_NA_1, Reason::ACTIVATION, 1, 0, Element::Delay(20)),
        tagged(TypeId::C_TS_TA_1, Reason::ACTIVATION, 1, 0, Element::TestCounter(77), tag),
    ] {
        assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, false)]);
    }
    let wrong = asdu(TypeId::C_TS_NA_1, Reason::ACTIVATION, 1, 0, Element::Test(0xaa55));
    assert_eq!(bench.ask(1, &wrong), [answered(&wrong, Reason::ACTIVATION_CON, true)]);
}

#[test]
fn a_reset_is_refused_unless_allowed() {
    let request = asdu(TypeId::C_RP_NA_1, Reason::ACTIVATION, 1, 0, Element::Reset(1));
    assert_eq!(bench().ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
    let mut bench = Bench::started(Config { reset: Answer::Confirm, ..config(1) });
    assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, false)]);
    assert!(matches!(bench.host[..], [Output::Reset { qualifier: 1, .. }]), "{:?}", bench.host);
}

#[test]
fn the_end_of_initialisation_is_told_once_per_lane() {
    let mut config = config(2);
    config.end_of_initialisation = true;
    let mut bench = Bench::new(config);
    for (id, lane, expected) in [(1, 0, 1), (2, 0, 0), (3, 1, 1)] {
        bench.open(id, lane);
        bench.start(id);
        let asdus = bench.take(id);
        assert_eq!(asdus.len(), expected, "connection {id}");
        assert!(asdus.iter().all(|a| *a == [70, 1, 4, 0, 1, 0, 0, 0, 0, 0]));
    }
}

#[test]
fn what_cannot_be_read_ends_the_connection_with_its_reason() {
    for (frame, text) in [
        (&[0x68, 8, 0, 0, 0, 0, 100, 1, 6, 0][..], "an ASDU begins with 6 octets, found 4"),
        (
            &[0x68, 13, 0, 0, 0, 0, 100, 1, 6, 0, 1, 0, 0, 0, 0],
            "C_IC_NA_1 with 1 objects has 4 octets, found 3",
        ),
        (&[0x16], "a frame begins with 0x68, found 0x16; is the peer an IEC 60870-5-104 station?"),
        (&[0x68, 4, 1, 0, 2, 0], "N(R) 1 is outside 0 to 0"),
    ] {
        let mut bench = bench();
        bench.raw(1, frame);
        let Some(Output::Close { reason, .. }) = bench.host.last() else { panic!("{:?}", bench.host) };
        assert_eq!(reason.to_string(), text);
        assert_eq!(bench.station.started(0), None);
        bench.raw(1, frame);
        assert_eq!(bench.host.len(), 1, "it is forgotten");
    }
}

#[test]
fn frames_may_come_in_any_pieces() {
    let mut whole = bench();
    let request = asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, 1, 0, Element::Interrogation(20));
    let expected = whole.ask(1, &request);
    let mut bench = bench();
    let frame = bench.frame(1, &request);
    for octet in frame {
        bench.raw(1, &[octet]);
    }
    assert_eq!(bench.take(1), expected);
    assert!(expected.iter().all(|octets| Asdu::decode(octets).is_ok()));
}

#[test]
fn requests_without_acknowledgements_are_cut_off() {
    let mut bench = Bench::new(bench().station.config().clone());
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    let request = asdu(TypeId::C_TS_NA_1, Reason::ACTIVATION, 1, 0, Element::Test(0x55aa));
    for number in 0..2_000 {
        let frame = information(Seq::new(number), Seq::default(), &request).unwrap();
        bench.station.received(bench.now(), ConnectionId(1), &frame, &mut bench.host);
    }
    let transmitted = bench.host.iter().filter(|o| matches!(o, Output::Transmit { .. })).count();
    assert!(transmitted < 12 + 2_000 / 8, "the window, and acknowledgements: {transmitted}");
    let last = bench.host.last();
    assert!(matches!(last, Some(Output::Close { reason: CloseReason::Flood, .. })), "{last:?}");
}
