//! Replays `vectors/values.json` in both directions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use busbar_modbus::{Address, Field, FieldSpec, Order, Table, Value};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    source: String,
    vectors: Vec<Vector>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Vector {
    r#type: String,
    order: Option<String>,
    bit: Option<u8>,
    length: Option<u16>,
    words: String,
    value: serde_json::Value,
    /// Where encoding cannot give the same words back (padding, other bits of the register).
    encode: Option<String>,
}

fn words(text: &str) -> Vec<u16> {
    text.split_whitespace().map(|word| u16::from_str_radix(word, 16).unwrap()).collect()
}

fn matches(found: &Value, expected: &serde_json::Value) -> bool {
    match found {
        Value::Bool(found) => expected.as_bool() == Some(*found),
        Value::Int(found) => expected.as_i64() == Some(*found),
        Value::UInt(found) => expected.as_u64() == Some(*found),
        Value::Float32(found) => expected.as_f64().map(|value| value as f32) == Some(*found),
        Value::Float64(found) => expected.as_f64() == Some(*found),
        Value::Text(found) => expected.as_str() == Some(found),
    }
}

#[test]
fn vectors_both_directions() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/values.json")).unwrap();
    let file: File = serde_json::from_str(&text).unwrap();
    assert!(!file.source.is_empty());
    assert!(file.vectors.len() >= 48);
    for vector in &file.vectors {
        let field = Field::new(&FieldSpec {
            address: Address { table: Table::Holding, offset: 0 },
            kind: Some(vector.r#type.parse().unwrap()),
            order: vector.order.as_ref().map(|order| order.parse::<Order>().unwrap()),
            bit: vector.bit,
            length: vector.length,
        })
        .unwrap();
        let value = field.decode_words(&words(&vector.words)).unwrap();
        assert!(matches(&value, &vector.value), "{vector:?}: decoded {value:?}");
        let encoded = field.encode_words(&value).unwrap();
        assert_eq!(encoded, words(vector.encode.as_ref().unwrap_or(&vector.words)), "{vector:?}");
    }
}
