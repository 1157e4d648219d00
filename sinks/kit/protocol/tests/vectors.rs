//! Value -> the exact bytes on the wire.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use busbar_kit::json::{BadValue, Value};
use serde_json::{Value as Json, json};

fn written(value: Value<'_>) -> String {
    let mut out = Vec::new();
    value.write(&mut out);
    let text = String::from_utf8(out).unwrap();
    serde_json::from_str::<Json>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    text
}

#[test]
fn values() {
    let structure = json!({ "a": [1, null], "b\"": "\u{1}" });
    let vectors = [
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
        (Value::Json(&structure), r#"{"a":[1,null],"b\"":"\u0001"}"#),
        (Value::Json(&Json::Null), "null"),
    ];
    for (value, json) in vectors {
        assert_eq!(written(value), json);
    }
}

#[test]
fn shortest_forms_are_exact() {
    let mut bits = 1_u32;
    for _ in 0..100_000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = f32::from_bits(bits);
        if number.is_finite() {
            let text = written(Value::Float32(number));
            assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits, "{text}");
            serde_json::from_str::<f64>(&text).unwrap();
        }
    }
}

#[test]
fn words_for_what_is_not_good() {
    assert_eq!(BadValue::parse("omit"), Some(BadValue::Omit));
    assert_eq!(BadValue::parse("null"), Some(BadValue::Null));
    assert_eq!(BadValue::parse("last"), Some(BadValue::Last));
    assert_eq!(BadValue::parse("LAST"), None);
}
