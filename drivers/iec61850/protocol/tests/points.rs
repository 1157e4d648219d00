//! Value, quality and time of every common data class, read whole and from every kind of data set member.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use busbar_iec61850::kind::{Kind, Member};
use busbar_iec61850::model::{Group, LogicalDevice, LogicalNode, Model, Signature};
use busbar_iec61850::point::{Cdc, Point, Scalar, Update, resolve};
use busbar_iec61850::quality::Quality;
use busbar_iec61850::request::Identity;
use busbar_iec61850::{Address, Fc, Name, Value};
use iec61850_rs::{TimeQuality, UtcTime};

fn s(members: &[(&str, Kind)]) -> Kind {
    let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
    Kind::Structure(members.iter().map(member).collect())
}

const Q: Kind = Kind::Bits(-13);
const T: Kind = Kind::Time;

fn with_qt(value: &[(&str, Kind)]) -> Kind {
    s(&[value, &[("q", Q), ("t", T)]].concat())
}

fn analogue() -> Kind {
    s(&[("f", Kind::Float32)])
}

fn vector() -> Kind {
    s(&[("mag", analogue()), ("ang", analogue())])
}

fn cmv() -> Kind {
    with_qt(&[("instCVal", vector()), ("cVal", vector()), ("range", Kind::Integer(8))])
}

/// Origin and ctlNum before the state, as controllable classes have them.
fn controlled(state: Kind) -> Kind {
    let origin = s(&[("orCat", Kind::Integer(8)), ("orIdent", Kind::Octets(-64))]);
    with_qt(&[("origin", origin), ("ctlNum", Kind::Unsigned(8)), ("stVal", state)])
}

fn oper(value: Kind) -> Kind {
    s(&[("Oper", s(&[("ctlVal", value)]))])
}

fn model() -> Model {
    let wye = s(&[("phsA", cmv()), ("phsB", cmv()), ("phsC", cmv())]);
    let tap = s(&[("posVal", Kind::Integer(8)), ("transInd", Kind::Boolean)]);
    let st = s(&[
        ("Ind1", with_qt(&[("stVal", Kind::Boolean)])),
        ("Ind10", with_qt(&[("stVal", Kind::Boolean)])),
        ("Dps", with_qt(&[("stVal", Kind::Bits(2))])),
        ("Ins", with_qt(&[("stVal", Kind::Integer(32))])),
        ("Ens", with_qt(&[("stVal", Kind::Integer(8))])),
        ("Act", with_qt(&[("general", Kind::Boolean), ("phsA", Kind::Boolean)])),
        ("Acd", with_qt(&[("general", Kind::Boolean), ("dirGeneral", Kind::Integer(8))])),
        (
            "Bcr",
            s(&[
                ("actVal", Kind::Integer(64)),
                ("frVal", Kind::Integer(64)),
                ("frTm", T),
                ("q", Q),
                ("t", T),
            ]),
        ),
        ("Tap", with_qt(&[("valWTr", tap.clone())])),
        ("Isc", with_qt(&[("valWTr", tap)])),
        ("Spc", controlled(Kind::Boolean)),
        ("Pos", controlled(Kind::Bits(2))),
        ("Inc", controlled(Kind::Integer(32))),
        ("Enc", controlled(Kind::Integer(8))),
    ]);
    let mx = s(&[
        ("TotW", with_qt(&[("instMag", analogue()), ("mag", analogue())])),
        ("Raw", with_qt(&[("mag", s(&[("i", Kind::Integer(32))]))])),
        ("Cmv", cmv()),
        ("A", wye),
        ("PPV", s(&[("phsAB", cmv())])),
        ("Apc", with_qt(&[("mxVal", analogue())])),
        ("Bac", with_qt(&[("mxVal", analogue())])),
        ("Seq", s(&[("c1", cmv()), ("c2", cmv()), ("c3", cmv())])),
    ]);
    let cf = s(&[
        ("TotW", s(&[("units", s(&[("SIUnit", Kind::Integer(8)), ("multiplier", Kind::Integer(8))]))])),
        ("Raw", s(&[("sVC", s(&[("scaleFactor", Kind::Float32), ("offset", Kind::Float32)]))])),
        ("Apc", s(&[("ctlModel", Kind::Integer(8))])),
        ("Bac", s(&[("persistent", Kind::Boolean)])),
    ]);
    let co = s(&[
        ("Spc", oper(Kind::Boolean)),
        ("Pos", oper(Kind::Boolean)),
        ("Inc", oper(Kind::Integer(32))),
        ("Enc", oper(Kind::Integer(8))),
        ("Tap", oper(Kind::Bits(2))),
        ("Isc", oper(Kind::Integer(8))),
    ]);
    let sp = s(&[("Set", s(&[("setMag", analogue())]))]);
    let dc = s(&[("Ind1", s(&[("d", Kind::Text(-255))]))]);
    let group = |fc, objects| Group { fc, objects };
    let groups = vec![
        group(Fc::CF, cf),
        group(Fc::ST, st),
        group(Fc::MX, mx),
        group(Fc::CO, co),
        group(Fc::SP, sp),
        group(Fc::DC, dc),
    ];
    let node = LogicalNode { name: "X1".into(), groups };
    let device = LogicalDevice { name: "LD".into(), nodes: vec![node], data_sets: vec![] };
    Model { signature: Signature("0".into()), identity: Identity::default(), devices: vec![device] }
}

/// A value of the type, in which every leaf differs: `seed` counts up.
fn sample(kind: &Kind, seed: &mut i64) -> Value {
    *seed += 1;
    let number = *seed;
    match kind {
        Kind::Structure(members) => {
            Value::Structure(members.iter().map(|member| sample(&member.kind, seed)).collect())
        }
        Kind::Boolean => Value::Boolean(true),
        Kind::Bits(2) => Value::BitString { unused: 6, bytes: vec![0x80] },
        // Quality: test set in every second one, so that a wrong one is seen.
        Kind::Bits(_) => {
            Value::BitString { unused: 3, bytes: vec![0, if number % 2 == 0 { 0x10 } else { 0 }] }
        }
        Kind::Integer(_) => Value::Integer(number),
        Kind::Unsigned(_) => Value::Unsigned(number.unsigned_abs()),
        Kind::Float32 => Value::Float32(number as f32),
        Kind::Octets(_) => Value::OctetString(vec![]),
        Kind::Time => {
            Value::UtcTime(UtcTime::from_unix(u32::try_from(number).unwrap(), 0, TimeQuality::SYNCHRONIZED))
        }
        Kind::Text(_) => Value::VisibleString(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn point(address: &str) -> Point {
    resolve(&model(), &Address::parse(address).unwrap(), None).unwrap()
}

fn refusal(address: &str) -> String {
    resolve(&model(), &Address::parse(address).unwrap(), None).unwrap_err()
}

#[test]
fn every_class_gives_value_quality_and_time_of_its_own() {
    let model = model();
    for (address, cdc, value, quality, time) in [
        ("Ind1", Cdc::Sps, "stVal", "q", "t"),
        ("Dps", Cdc::Dps, "stVal", "q", "t"),
        ("Ins", Cdc::Ins, "stVal", "q", "t"),
        ("Ens", Cdc::Ens, "stVal", "q", "t"),
        ("Act", Cdc::Act, "general", "q", "t"),
        ("Act.phsA", Cdc::Act, "phsA", "q", "t"),
        ("Acd", Cdc::Acd, "general", "q", "t"),
        ("Acd.dirGeneral", Cdc::Acd, "dirGeneral", "q", "t"),
        ("Bcr", Cdc::Bcr, "actVal", "q", "t"),
        ("Bcr.frVal", Cdc::Bcr, "frVal", "q", "frTm"),
        ("Tap", Cdc::Bsc, "valWTr$posVal", "q", "t"),
        ("Spc", Cdc::Spc, "stVal", "q", "t"),
        ("Pos", Cdc::Dpc, "stVal", "q", "t"),
        ("Inc", Cdc::Inc, "stVal", "q", "t"),
        ("Enc", Cdc::Enc, "stVal", "q", "t"),
        ("TotW", Cdc::Mv, "mag$f", "q", "t"),
        ("TotW.instMag", Cdc::Mv, "instMag$f", "q", "t"),
        ("Raw", Cdc::Mv, "mag$i", "q", "t"),
        ("Cmv", Cdc::Cmv, "cVal$mag$f", "q", "t"),
        ("Cmv.cVal.ang.f", Cdc::Cmv, "cVal$ang$f", "q", "t"),
        ("A.phsB", Cdc::Cmv, "phsB$cVal$mag$f", "phsB$q", "phsB$t"),
        ("A.phsC.cVal.ang", Cdc::Cmv, "phsC$cVal$ang$f", "phsC$q", "phsC$t"),
        ("PPV.phsAB", Cdc::Cmv, "phsAB$cVal$mag$f", "phsAB$q", "phsAB$t"),
        ("Apc", Cdc::Apc, "mxVal$f", "q", "t"),
        ("Bac", Cdc::Bac, "mxVal$f", "q", "t"),
        ("Isc", Cdc::Isc, "valWTr$posVal", "q", "t"),
        ("Seq.c2", Cdc::Cmv, "c2$cVal$mag$f", "c2$q", "c2$t"),
    ] {
        let point = point(&format!("LD/X1.{address}"));
        let full = |part: &str| format!("{}${part}", point.object.item);
        assert_eq!(point.cdc, cdc, "{address}");
        assert_eq!(point.value.name.item, full(value), "{address}");
        assert_eq!(point.quality.as_ref().unwrap().name.item, full(quality), "{address}");
        assert_eq!(point.time.as_ref().unwrap().name.item, full(time), "{address}");

        // Whole object, every way a data set can hold it: one reading for all.
        let object = sample(model.kind(&point.object).unwrap(), &mut 0);
        let whole = point.read(&object);
        assert!(whole.value.is_some(), "{address}");
        let mut by_fcd = Update::default();
        assert!(by_fcd.take(&point, &point.object, &object));
        assert_eq!(by_fcd.finish(&point).as_ref(), Some(&whole), "{address}");
        let mut by_fcda = Update::default();
        for part in
            [Some(&point.value), point.quality.as_ref(), point.time.as_ref(), point.transient.as_ref()]
        {
            let Some(part) = part else { continue };
            let member = part.places.iter().try_fold(&object, |value, place| value.member(*place)).unwrap();
            assert!(by_fcda.take(&point, &part.name, member));
        }
        assert_eq!(by_fcda.finish(&point).as_ref(), Some(&whole), "{address}");
    }
}

#[test]
fn a_state_behind_origin_is_the_state() {
    let point = point("LD/X1.Pos");
    let origin = Value::Structure(vec![Value::Integer(3), Value::OctetString(b"x".to_vec())]);
    for (wire, state) in [(0x00, 0), (0x40, 1), (0x80, 2), (0xc0, 3)] {
        let object = Value::Structure(vec![
            origin.clone(),
            Value::Unsigned(7),
            Value::BitString { unused: 6, bytes: vec![wire] },
            Value::BitString { unused: 3, bytes: vec![0, 0] },
            Value::UtcTime(UtcTime::from_unix(9, 500_000_000, TimeQuality::UNSYNCHRONIZED)),
        ]);
        let reading = point.read(&object);
        assert_eq!(reading.value, Some(Scalar::DoublePoint(state)));
        assert_eq!(reading.quality, Quality(Quality::CLOCK_UNSYNCED));
        assert_eq!(reading.time.unwrap().unix_ns, 9_500_000_000);
    }
}

#[test]
fn names_match_exactly() {
    let (one, ten) = (point("LD/X1.Ind1"), point("LD/X1.Ind10"));
    let value = Value::Structure(vec![
        Value::Boolean(true),
        Value::BitString { unused: 3, bytes: vec![0, 0] },
        Value::UtcTime(UtcTime::from_unix(1, 0, TimeQuality::SYNCHRONIZED)),
    ]);
    let (mut of_one, mut of_ten) = (Update::default(), Update::default());
    let member = Name::new("LD", "X1$ST$Ind1");
    assert!(of_one.take(&one, &member, &value));
    assert!(!of_ten.take(&ten, &member, &value));
    assert_eq!(of_ten.finish(&ten), None);
    let other = Name::new("LD2", "X1$ST$Ind1");
    assert!(!of_one.take(&one, &other, &value), "the same name of another logical device");
}

#[test]
fn quality_alone_is_an_event_and_time_alone_is_none() {
    let point = point("LD/X1.Ind1");
    let mut update = Update::default();
    let name = |part: &str| Name::new("LD", format!("X1$ST$Ind1${part}"));
    let quality = |octet| Value::BitString { unused: 3, bytes: vec![octet, 0] };
    update.take(&point, &name("stVal"), &Value::Boolean(true));
    assert_eq!(update.clone().finish(&point), None, "a quality that was never brought is not good");
    update.take(&point, &name("q"), &quality(0));
    assert_eq!(update.finish(&point).unwrap().quality, Quality::GOOD);
    update.take(&point, &name("t"), &Value::UtcTime(UtcTime::from_unix(5, 0, TimeQuality::SYNCHRONIZED)));
    assert_eq!(update.finish(&point), None);
    update.take(&point, &name("q"), &quality(0x40));
    let reading = update.finish(&point).unwrap();
    assert_eq!((reading.value, reading.quality), (Some(Scalar::Bool(true)), Quality(1)));
    assert_eq!(reading.time.unwrap().unix_ns, 5_000_000_000);
    update.fail();
    let reading = update.finish(&point).unwrap();
    assert_eq!((reading.value, reading.quality), (None, Quality::FAILURE));
}

#[test]
fn tap_positions_carry_their_transient() {
    let point = point("LD/X1.Tap");
    let tap = |position, transient| {
        Value::Structure(vec![
            Value::Structure(vec![Value::Integer(position), Value::Boolean(transient)]),
            Value::BitString { unused: 3, bytes: vec![0, 0] },
            Value::UtcTime(UtcTime::from_unix(1, 0, TimeQuality::SYNCHRONIZED)),
        ])
    };
    let reading = point.read(&tap(-5, true));
    assert_eq!((reading.value, reading.transient), (Some(Scalar::Step(-5)), true));
    let reading = point.read(&tap(64, false));
    assert_eq!((reading.value, reading.quality), (None, Quality::FAILURE));
}

#[test]
fn scaling_and_units_are_found() {
    assert_eq!(point("LD/X1.Raw").scaling, Some(Name::new("LD", "X1$CF$Raw$sVC")));
    assert_eq!(point("LD/X1.TotW").scaling, None);
    assert_eq!(point("LD/X1.TotW").units, Some(Name::new("LD", "X1$CF$TotW$units")));
}

#[test]
fn all_notations_and_constraints_resolve() {
    assert_eq!(point("LD/X1$ST$Ind1$stVal"), point("LD/X1.Ind1"));
    assert_eq!(point("LD/X1.Ind1.d").fc, Fc::DC);
    assert_eq!(point("LD/X1.Set").cdc, Cdc::Asg);
    assert_eq!(point("LD/X1.Set").quality, None);
    let ctl_model = point("LD/X1$CF$Apc$ctlModel");
    assert_eq!((ctl_model.fc, ctl_model.object.item.as_str()), (Fc::CF, "X1$CF$Apc"));
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    for (address, sentence) in [
        ("LX/X1.Ind1", "LX/X1.Ind1: the device has no logical device LX; it has LD"),
        ("LD/X2.Ind1", "LD/X2.Ind1: LD has no logical node X2; it has X1"),
        ("LD/X1.A", "LD/X1.A: class WYE has several values; name one of phsA, phsB, phsC"),
        ("LD/X1.Ind1.val", "LD/X1.Ind1.val: X1.Ind1 has no val; it has d, q, stVal, t"),
        ("LD/X1$MX$Ind1", "LD/X1$MX$Ind1: X1 has no Ind1; it has A, Apc, Bac, Cmv, PPV, Raw, Seq, TotW"),
    ] {
        assert_eq!(refusal(address), sentence);
    }
    let error = resolve(&model(), &Address::parse("LD/X1.Pos").unwrap(), Some(Cdc::Sps)).unwrap_err();
    assert_eq!(error, "LD/X1.Pos: expected class SPS, the device has DPC");
    assert!(resolve(&model(), &Address::parse("LD/X1.Ins").unwrap(), Some(Cdc::Ens)).is_ok());
}
