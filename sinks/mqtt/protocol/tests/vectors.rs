//! Value, quality, time -> the exact bytes on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use busbar_kit::json::{BadValue, Value};
use busbar_mqtt::payload::{Group, Marks, Point, Stamp, name_fragment, unit_fragment, write_point};

const TS: i64 = 1_767_225_600_123_999_999;

fn point(value: Value<'_>) -> Point<'_> {
    let stamp = Stamp { ts_ns: TS, gateway: false };
    Point { stamp, value_ts_ns: None, value, quality: "good", good: true, unit: &[] }
}

fn written(point: &Point<'_>, marks: Marks, bad: BadValue) -> String {
    let mut out = Vec::new();
    write_point(&mut out, point, marks, bad);
    let text = String::from_utf8(out).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    text
}

#[test]
fn the_documented_message() {
    let unit = unit_fragment("V");
    let good = Point { unit: &unit, ..point(Value::Float32(231.4)) };
    assert_eq!(
        written(&good, Marks::default(), BadValue::Last),
        r#"{"ts":1767225600123,"value":231.4,"quality":"good","unit":"V"}"#
    );
    let gateway = Stamp { ts_ns: TS, gateway: true };
    assert_eq!(
        written(&Point { stamp: gateway, ..good }, Marks { history: true, replayed: true }, BadValue::Last),
        r#"{"ts":1767225600123,"gateway_time":true,"value":231.4,"quality":"good","unit":"V","history":true,"replayed":true}"#
    );
    let strange = unit_fragment("°C\"\\");
    assert_eq!(
        written(&Point { unit: &strange, ..good }, Marks::default(), BadValue::Last),
        r#"{"ts":1767225600123,"value":231.4,"quality":"good","unit":"°C\"\\"}"#
    );
}

#[test]
fn bad_values() {
    let lost = Point {
        quality: "invalid|comm_lost",
        good: false,
        value_ts_ns: Some(TS - 5_000_000_000),
        stamp: Stamp { ts_ns: TS, gateway: true },
        ..point(Value::Int(7))
    };
    for (bad, expected) in
        [(BadValue::Last, r#""value":7,"#), (BadValue::Null, r#""value":null,"#), (BadValue::Omit, "")]
    {
        assert_eq!(
            written(&lost, Marks::default(), bad),
            format!(
                r#"{{"ts":1767225600123,"gateway_time":true,{expected}"quality":"invalid|comm_lost","value_ts":1767225595123}}"#
            )
        );
    }
}

#[test]
fn times_before_1970_round_down() {
    let early = Point { stamp: Stamp { ts_ns: -1, gateway: false }, ..point(Value::None) };
    assert_eq!(
        written(&early, Marks::default(), BadValue::Last),
        r#"{"ts":-1,"value":null,"quality":"good"}"#
    );
}

#[test]
fn groups() {
    let stamp = Stamp { ts_ns: TS, gateway: false };
    let unit = unit_fragment("V");
    let mut out = Vec::new();
    let mut group = Group::begin(&mut out, stamp, Marks::default());
    let first = Point { unit: &unit, ..point(Value::Float32(231.4)) };
    group.add(&mut out, &name_fragment("voltage_l1"), &first, BadValue::Last);
    let same_ms = Point { stamp: Stamp { ts_ns: TS - 900_000, gateway: false }, ..point(Value::Bool(true)) };
    group.add(&mut out, &name_fragment("on"), &same_ms, BadValue::Last);
    let other = Point {
        stamp: Stamp { ts_ns: TS + 2_000_000, gateway: true },
        quality: "invalid|comm_lost",
        good: false,
        ..point(Value::Int(3))
    };
    group.add(&mut out, &name_fragment("late"), &other, BadValue::Null);
    group.end(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"ts":1767225600123,"points":{"voltage_l1":{"value":231.4,"quality":"good","unit":"V"},"on":{"value":true,"quality":"good"},"late":{"ts":1767225600125,"gateway_time":true,"value":null,"quality":"invalid|comm_lost"}}}"#
    );
}

#[test]
fn a_group_stamped_by_the_gateway_says_so_once() {
    let stamp = Stamp { ts_ns: TS, gateway: true };
    let mut out = Vec::new();
    let mut group = Group::begin(&mut out, stamp, Marks { replayed: true, history: false });
    group.add(&mut out, &name_fragment("a"), &Point { stamp, ..point(Value::Int(1)) }, BadValue::Last);
    let device_time = Point { stamp: Stamp { gateway: false, ..stamp }, ..point(Value::Int(2)) };
    group.add(&mut out, &name_fragment("b"), &device_time, BadValue::Last);
    group.end(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"ts":1767225600123,"gateway_time":true,"replayed":true,"points":{"a":{"value":1,"quality":"good"},"b":{"ts":1767225600123,"value":2,"quality":"good"}}}"#
    );
}
