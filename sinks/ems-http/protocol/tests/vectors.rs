//! Bodies byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

use std::sync::Arc;

use busbar_ems_http::body::Skeleton;
use busbar_ems_http::{Body, Head, Measurement, Record, Shown};
use busbar_kit::json::Value;
use serde_json::json;

const TS: i64 = 1_767_268_800_000_000_000;

fn measurement<'a>(key: &'a str, value: Value<'a>, quality: &'a [u8], shown: Shown) -> Measurement<'a> {
    Measurement { key, point: key, value, shown, unit: "V", quality, quality_text: "good" }
}

fn record(body: &Body, device: &str, first: u64, list: &[Measurement<'_>]) -> Record {
    let device: Arc<str> = device.into();
    let labels = [("site".to_owned(), "north".to_owned())];
    let head = Head { gateway: "gw", device: &device, labels: &labels, ts_ns: TS, first, history: false };
    let mut open = body.begin(&head);
    list.iter().for_each(|measurement| body.add(&mut open, measurement));
    assert_eq!(open.next(), first + list.len() as u64);
    let (record, shows) = body.end(open);
    assert!(shows);
    record
}

/// The proposal of the EMS contract, exactly.
#[test]
fn the_default_body() {
    let body = Body::new(&Skeleton::default()).unwrap();
    let good = measurement("Voltage_L1", Value::Float32(231.4), b"\"GOOD\"", Shown::Value);
    let bad = measurement("Voltage_L2", Value::Float32(999.0), b"\"BAD_RANGE\"", Shown::Null);
    let omitted = measurement("Voltage_L3", Value::None, b"\"BAD_COMM\"", Shown::Omitted);
    let records =
        [record(&body, "Energy_Meter_01", 123, &[good, bad, omitted]), record(&body, "m\"2", 126, &[good])];
    assert_eq!(records[0].count, 3);
    let text = String::from_utf8(body.batch("site-7", "0b7e", &records)).unwrap();
    let expected = concat!(
        r#"{"gateway_id":"site-7","batch_id":"0b7e","records":["#,
        r#"{"device_id":"Energy_Meter_01","timestamp":"2026-01-01T12:00:00.000Z","seq":123,"measurements":{"#,
        r#""Voltage_L1":{"value":231.4,"unit":"V","quality":"GOOD"},"#,
        r#""Voltage_L2":{"value":null,"unit":"V","quality":"BAD_RANGE"},"#,
        r#""Voltage_L3":{"unit":"V","quality":"BAD_COMM"}}},"#,
        r#"{"device_id":"m\"2","timestamp":"2026-01-01T12:00:00.000Z","seq":126,"measurements":{"#,
        r#""Voltage_L1":{"value":231.4,"unit":"V","quality":"GOOD"}}}]}"#,
    );
    assert_eq!(text, expected);
}

/// Another EMS: a bare list of records, times as numbers, measurements as a list, words and labels in longer texts.
#[test]
fn another_ems() {
    let body = Body::new(&Skeleton {
        batch: json!("{records}"),
        record: json!({
            "asset": "{label:site}/{device}", "ms": "{timestamp_ms}", "s": "{timestamp_s}", "gw": "{gateway_id}",
            "values": "{measurements}", "none": "{label:absent}", "h": "{history}", "fixed": { "v": 2 }
        }),
        measurement: json!(["{key}", "{value}"]),
        list: true,
    })
    .unwrap();
    let one = measurement("u", Value::Bool(true), b"0", Shown::Value);
    let gone = measurement("i", Value::None, b"1", Shown::Omitted);
    let records = [record(&body, "m1", 1, &[gone, one, gone])];
    assert_eq!(records[0].count, 3, "a measurement that is left out still ends with its record");
    let text = String::from_utf8(body.batch("x", "y", &records)).unwrap();
    let expected = concat!(
        r#"[{"asset":"north/m1","ms":1767268800000,"s":1767268800,"gw":"gw","values":[["u",true]],"#,
        r#""none":null,"h":false,"fixed":{"v":2}}]"#,
    );
    assert_eq!(text, expected);
}

#[test]
fn a_record_that_shows_nothing_says_so() {
    let body = Body::new(&Skeleton { measurement: json!("{value}"), ..Skeleton::default() }).unwrap();
    let device: Arc<str> = "m".into();
    let head = Head { gateway: "g", device: &device, labels: &[], ts_ns: 0, first: 7, history: true };
    let mut open = body.begin(&head);
    body.add(&mut open, &measurement("u", Value::None, b"0", Shown::Omitted));
    open.skip();
    let (record, shows) = body.end(open);
    assert_eq!((shows, record.first, record.count), (false, 7, 2));
}

#[test]
fn a_count_in_the_head() {
    let batch = json!({ "n": "{count}", "id": "batch {batch_id}", "data": { "r": "{records}" }, "gw": "{gateway_id}" });
    let body = Body::new(&Skeleton { batch, ..Skeleton::default() }).unwrap();
    let text = String::from_utf8(body.batch("g", "k", &[])).unwrap();
    assert_eq!(text, r#"{"n":0,"id":"batch k","data":{"r":[]},"gw":"g"}"#);
}

#[test]
fn wrong_skeletons_name_their_place() {
    let problems = Body::new(&Skeleton {
        batch: json!({}),
        record: json!({ "a": ["{devcie}"], "m": "{measurements}" }),
        measurement: json!({ "v": "{value}" }),
        list: true,
    })
    .unwrap_err();
    let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(places, ["/batch", "/record/a/0", "/measurement"]);
}
