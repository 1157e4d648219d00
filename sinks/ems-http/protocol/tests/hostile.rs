//! Whatever comes from the network or from names: nothing panics, nothing breaks out of its place.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::Arc;

use busbar_ems_http::answer::{Reply, classify};
use busbar_ems_http::body::Skeleton;
use busbar_ems_http::time::{MAX_RETRY_AFTER, MIN_RETRY_AFTER, retry_after};
use busbar_ems_http::{Answer, AnswerForm, Body, Head, Measurement, Shown};
use busbar_kit::json::Value;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// JSON of any shape, with the names an answer would have.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (0_u64..200).prop_map(Json::from),
        ".{0,20}".prop_map(Json::from),
    ];
    let name = prop_oneof![Just("rejected"), Just("index"), Just("reason"), Just("accepted"), Just("x")];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            proptest::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Json>()),
        ]
    })
}

/// Texts in which placeholders, braces and quotes are likely.
fn template_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{value}".to_owned()),
        Just("{quality}".to_owned()),
        Just("{unit}".to_owned()),
        Just("{key}".to_owned()),
        Just("{{".to_owned()),
        Just("}".to_owned()),
        Just("\"\\\n".to_owned()),
        ".{0,5}",
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = (u8, i64, f64, String, Json)> {
    (0_u8..9, any::<i64>(), any::<f64>(), ".{0,20}", any_json())
}

fn as_value((kind, whole, real, text, json): &(u8, i64, f64, String, Json)) -> Value<'_> {
    match kind {
        0 => Value::None,
        1 => Value::Bool(*whole > 0),
        2 => Value::Int(*whole),
        3 => Value::Uint(whole.unsigned_abs()),
        4 => Value::Float64(*real),
        5 => Value::Text(text),
        6 => Value::Bytes(text.as_bytes()),
        7 => Value::Time(*whole),
        _ => Value::Json(json),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_read(
        status in any::<u16>(),
        body in prop_oneof![any_json().prop_map(|json| json.to_string().into_bytes()), any::<Vec<u8>>()],
        header in proptest::option::of(".{0,40}"),
        overflow in any::<bool>(),
        first_index in 0_u64..3,
        now in any::<i64>(),
    ) {
        let form = AnswerForm { first_index, ..AnswerForm::default() };
        let reply = Reply { status, retry_after: header, location: None, body, overflow };
        match classify(&reply, &form, now) {
            Answer::Accepted(_) => prop_assert!((200..300).contains(&status)),
            Answer::Seen(_) => prop_assert_eq!(status, 409),
            Answer::Bad { text, .. } => {
                prop_assert!(matches!(status, 400 | 422));
                prop_assert!(text.len() < 2000 && !text.chars().any(char::is_control));
            }
            Answer::Failed(text) => prop_assert!(text.len() < 2000 && !text.chars().any(char::is_control)),
            Answer::Wait { after } => prop_assert!(after.is_none_or(|after| after <= MAX_RETRY_AFTER)),
            Answer::TooLarge | Answer::Unauthorized => {}
        }
    }

    #[test]
    fn any_retry_after_is_bounded(text in ".{0,60}", seconds in any::<u64>(), now in any::<i64>()) {
        for text in [text, seconds.to_string(), format!("-{seconds}")] {
            if let Some(after) = retry_after(&text, now) {
                prop_assert!((MIN_RETRY_AFTER..=MAX_RETRY_AFTER).contains(&after));
            }
        }
    }

    /// A skeleton that is accepted renders to JSON of the same shape, whatever names and values are put in.
    #[test]
    fn nothing_breaks_out_of_a_body(
        texts in proptest::collection::vec(template_text(), 1..4),
        name in ".{0,20}",
        unit in ".{0,20}",
        value in value(),
        shown in prop_oneof![Just(Shown::Value), Just(Shown::Null), Just(Shown::Omitted)],
    ) {
        let members: Json = texts.iter().enumerate().map(|(at, text)| (format!("m{at}"), json!(text))).collect();
        let skeleton = Skeleton {
            record: json!({ "d": "{device}", "l": "{label:a}/{gateway_id}", "m": "{measurements}" }),
            measurement: members,
            ..Skeleton::default()
        };
        let Ok(body) = Body::new(&skeleton) else { return Ok(()) };
        let device: Arc<str> = name.as_str().into();
        let labels = [("a".to_owned(), unit.clone())];
        let head = Head { gateway: &name, device: &device, labels: &labels, ts_ns: 0, first: 1, history: false };
        let mut open = body.begin(&head);
        let measurement = Measurement {
            key: "k",
            point: &name,
            value: as_value(&value),
            shown,
            unit: &unit,
            quality: b"\"GOOD\"",
            quality_text: "good",
        };
        body.add(&mut open, &measurement);
        let (record, shows) = body.end(open);
        let text = body.batch(&name, "id", &[record]);
        let read: Json = serde_json::from_slice(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text:?}")))?;
        prop_assert_eq!(&read["gateway_id"], &json!(name));
        let records = read["records"].as_array().unwrap();
        prop_assert_eq!(records.len(), 1);
        prop_assert_eq!(&records[0]["d"], &json!(name));
        prop_assert_eq!(&records[0]["l"], &json!(format!("{unit}/{name}")));
        let measurements = records[0]["m"].as_object().unwrap();
        prop_assert_eq!(measurements.len(), usize::from(shows));
        if shown != Shown::Omitted {
            let names: Vec<&str> = measurements["k"].as_object().unwrap().keys().map(String::as_str).collect();
            let expected: Vec<String> = (0..texts.len()).map(|at| format!("m{at}")).collect();
            prop_assert_eq!(names, expected);
        }
    }
}
