//! Value, quality, time -> the exact bytes on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use busbar_mqtt::payload::{BadValue, Group, Marks, Point, Stamp, name_fragment, unit_fragment, write_point};
use busbar_mqtt::value::Value;

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
fn values() {
    let vectors: [(Value<'_>, &str); 36] = [
        (Value::None, "null"),
        (Value::Bool(true), "true"),
        (Value::Bool(false), "false"),
        (Value::Int(0), "0"),
        (Value::Int(-5), "-5"),
        (Value::Int(9_007_199_254_740_992), "9007199254740992"),
        (Value::Int(9_007_199_254_740_993), "\"9007199254740993\""),
        (Value::Int(-9_007_199_254_740_993), "\"-9007199254740993\""),
        (Value::Int(i64::MIN), "\"-9223372036854775808\""),
        (Value::Uint(9_007_199_254_740_992), "9007199254740992"),
        (Value::Uint(u64::MAX), "\"18446744073709551615\""),
        (Value::Float32(231.4), "231.4"),
        (Value::Float32(0.1), "0.1"),
        (Value::Float32(-0.0), "-0.0"),
        (Value::Float32(f32::NAN), "null"),
        (Value::Float32(f32::INFINITY), "null"),
        (Value::Float64(231.4), "231.4"),
        (Value::Float64(0.1 + 0.2), "0.30000000000000004"),
        (Value::Float64(50.0), "50.0"),
        (Value::Float64(f64::NAN), "null"),
        (Value::Float64(f64::NEG_INFINITY), "null"),
        (Value::DoublePoint(0), "\"intermediate\""),
        (Value::DoublePoint(1), "\"off\""),
        (Value::DoublePoint(2), "\"on\""),
        (Value::DoublePoint(3), "\"bad\""),
        (Value::DoublePoint(4), "null"),
        (Value::Text("Überspannung"), "\"Überspannung\""),
        (Value::Text("a\"b\\c\n\r\t\u{1}\u{1f}"), r#""a\"b\\c\n\r\t\u0001\u001f""#),
        (Value::Text(""), "\"\""),
        (Value::Bytes(&[0, 0xab, 0xff]), "\"00abff\""),
        (Value::Bytes(&[]), "\"\""),
        (Value::Time(1_767_225_600_123_000_000), "\"2026-01-01T00:00:00.123Z\""),
        (Value::Time(-1), "\"1969-12-31T23:59:59.999999999Z\""),
        (Value::Json(br#"{"a":[1,null]}"#), r#"{"a":[1,null]}"#),
        (Value::Json(br#"{"a":1},"injected":2"#), "null"),
        (Value::Json(b""), "null"),
    ];
    for (value, json) in vectors {
        let expected = format!("{{\"ts\":1767225600123,\"value\":{json},\"quality\":\"good\"}}");
        assert_eq!(written(&point(value), Marks::default(), BadValue::Last), expected);
    }
}

#[test]
fn shortest_forms_are_exact() {
    let mut bits = 1_u32;
    for _ in 0..100_000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = f32::from_bits(bits);
        if number.is_finite() {
            let mut out = Vec::new();
            Value::Float32(number).write(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits, "{text}");
            serde_json::from_str::<f64>(&text).unwrap();
        }
    }
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
    assert_eq!(BadValue::parse("omit"), Some(BadValue::Omit));
    assert_eq!(BadValue::parse("null"), Some(BadValue::Null));
    assert_eq!(BadValue::parse("last"), Some(BadValue::Last));
    assert_eq!(BadValue::parse("LAST"), None);
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
