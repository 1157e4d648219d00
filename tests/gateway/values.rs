//! Values arrive with value, quality, unit and time, over each transport, from servers nobody here wrote.

use std::time::Duration;

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer};
use serde_json::{Value, json};

use crate::shared::{device, float, mqtt_sink, now_ms, quality, topic};

/// Clocks of two processes of one machine agree; rounding to a millisecond does not.
const ROUNDING_MS: i64 = 2;

fn tables() -> Value {
    let voltage = float(231.4);
    let high = float(400.0);
    let nan = float(f32::NAN);
    let [a, b] = float(220.5);
    // 1234567 = 0x0012D687
    json!({
        "holding": {
            "8198": voltage, "8200": high, "8202": nan,
            "0": [b, a],                         // CDAB
            "2": [a.swap_bytes(), b.swap_bytes()], // BADC
            "4": [b.swap_bytes(), a.swap_bytes()], // DCBA
            "10": [0x0012, 0xD687],
            "20": [0, 0, 0, 42],
            "30": [0x4142, 0x4300],              // "ABC"
            "40": [0b0000_0100],
        },
        "input": { "0": [0xFFF4], "5": [0xFFFF] },
        "coil": { "3": [1] },
        "discrete": { "7": [0], "10008": [1] },
    })
}

/// Point, its address and keys, then the expected value, quality and unit.
fn expectations() -> Vec<(&'static str, &'static str, Value, &'static str, &'static str)> {
    vec![
        ("voltage", r#"address = "holding:0x2006", type = "float32", unit = "V""#, json!(231.4), "good", "V"),
        ("cdab", r#"address = "holding:0", type = "float32", order = "CDAB""#, json!(220.5), "good", ""),
        ("badc", r#"address = "holding:2", type = "float32", order = "BADC""#, json!(220.5), "good", ""),
        ("dcba", r#"address = "holding:4", type = "float32", order = "DCBA""#, json!(220.5), "good", ""),
        (
            "energy",
            r#"address = "400011", type = "uint32", scale = 0.1, unit = "kWh""#,
            json!(123_456.7),
            "good",
            "kWh",
        ),
        ("big", r#"address = "holding:20", type = "uint64""#, json!(42), "good", ""),
        ("label", r#"address = "holding:30", type = "string", length = 2"#, json!("ABC"), "good", ""),
        ("bit", r#"address = "holding:40", type = "bool", bit = 2"#, json!(true), "good", ""),
        (
            "temperature",
            r#"address = "30001", type = "int16", scale = 0.1, offset = 20.0, unit = "degC""#,
            json!(18.8),
            "good",
            "degC",
        ),
        ("raw", r#"address = "input:5", type = "uint16""#, json!(65535), "good", ""),
        ("breaker", r#"address = "coil:3", type = "bool""#, json!(true), "good", ""),
        ("alarm", r#"address = "discrete:7", type = "bool", invert = true"#, json!(true), "good", ""),
        (
            "too_high",
            r#"address = "holding:0x2008", type = "float32", unit = "V", range = [0, 300]"#,
            json!(400),
            "questionable|out_of_range",
            "V",
        ),
        ("nan", r#"address = "holding:0x200A", type = "float32""#, Value::Null, "invalid|failure", ""),
        ("absent", r#"address = "holding:9000", type = "uint16""#, Value::Null, "invalid|bad_reference", ""),
    ]
}

fn arrive(transport: &str) {
    let begin = now_ms();
    let peer = Peer::single(transport, &tables());
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points: Vec<String> =
        expectations().iter().map(|(name, keys, ..)| format!("{{ name = \"{name}\", {keys} }}")).collect();
    let meter = device("meter", &peer.place(0).connection(transport, 1), "poll_interval = \"1s\"", &points);
    let gateway = Gateway::start(&(meter + &mqtt_sink(&broker.url())));

    for (name, _, value, expected, unit) in expectations() {
        let what = format!("{name} = {value} {expected}");
        let message = observer.wait_for(&what, 0, &topic("meter", name), PATIENCE, |message| {
            quality(&message.payload) == expected
        });
        assert!(same(&message.payload["value"], &value), "{what}: {}", message.payload);
        assert_eq!(message.payload["unit"].as_str().unwrap_or_default(), unit, "{name}");
        assert_eq!(message.qos, 1, "{name}");
        assert!(!message.retain, "{name}: only status is retained by default");
        let ts = message.payload["ts"].as_i64().unwrap();
        assert!(
            (begin - ROUNDING_MS..=now_ms() + ROUNDING_MS).contains(&ts),
            "{name}: ts {ts}, now {}",
            now_ms()
        );
        assert_eq!(message.payload["gateway_time"], json!(true), "{name}: Modbus has no time of its own");

        let point = gateway.point(&format!("meter/{name}")).unwrap();
        assert!(same(&point["value"], &value), "{what}: API {point}");
        assert_eq!(quality(&point), expected, "{name}: API");
    }

    // Status topics: retained, so that a client that comes later knows.
    let late = Observer::start(&broker);
    for status in ["busbar/site/status".to_owned(), topic("meter", "status")] {
        let message = late.wait_for(&status, 0, &status, PATIENCE, |_| true);
        assert_eq!((message.payload, message.retain), (json!("online"), true), "{status}");
    }
}

/// Numbers as numbers: 400 and 400.0 are one value.
fn same(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => found == expected,
        _ => found == expected,
    }
}

#[test]
fn over_tcp() {
    arrive("tcp");
}

#[test]
fn over_a_serial_line() {
    arrive("rtu");
}

#[test]
fn over_rtu_in_tcp() {
    arrive("rtu-over-tcp");
}

/// One message per device and poll when the topic has no `{point}`.
#[test]
fn grouped() {
    let mut peer = Peer::single("tcp", &json!({ "holding": { "0": [1, 2, 3] } }));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points: Vec<String> = (0..3)
        .map(|i| format!("{{ name = \"p{i}\", address = \"holding:{i}\", type = \"uint16\", unit = \"A\" }}"))
        .collect();
    let meter = device("meter", &peer.place(0).connection("tcp", 1), "poll_interval = \"500ms\"", &points);
    let url = broker.url();
    let sink = format!(
        "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nsettings = {{ url = \"{url}\", topic = \"plant/{{host}}/{{device}}\" }}\n"
    );
    let _gateway = Gateway::start(&(meter + &sink));
    let all = |message: &busbar_tests::Message, wanted: [u64; 3]| {
        (0..3).all(|i| {
            let point = &message.payload["points"][format!("p{i}")];
            point["value"] == json!(wanted[i]) && quality(point) == "good" && point["unit"] == "A"
        })
    };
    observer
        .wait_for("all three points in one message", 0, "plant/site/meter", PATIENCE, |m| all(m, [1, 2, 3]));
    let mark = observer.mark();
    peer.set("holding", 1, &[20]);
    observer.wait_for("the changed point with the others", mark, "plant/site/meter", PATIENCE, |m| {
        all(m, [1, 20, 3])
    });
}

/// A block that the device refuses spoils exactly its own points, and the gateway goes on asking for the others.
#[test]
fn a_refused_block_spoils_only_its_points() {
    let mut peer = Peer::single("tcp", &json!({ "holding": { "0": vec![7; 300] } }));
    peer.behave(0, json!({ "refuse": [{ "table": "holding", "from": 120, "to": 129, "code": 2 }] }));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points: Vec<String> = (0..300)
        .step_by(10)
        .map(|a| format!("{{ name = \"r{a}\", address = \"holding:{a}\", type = \"uint16\" }}"))
        .collect();
    let meter = device("meter", &peer.place(0).connection("tcp", 1), "poll_interval = \"300ms\"", &points);
    let _gateway = Gateway::start(&(meter + &mqtt_sink(&broker.url())));
    for a in (0..300).step_by(10) {
        let expected = if a == 120 { "invalid|bad_reference" } else { "good" };
        let topic = topic("meter", &format!("r{a}"));
        let message = observer
            .wait_for(&format!("r{a} {expected}"), 0, &topic, PATIENCE, |m| quality(&m.payload) == expected);
        assert_eq!(message.payload["value"], if a == 120 { Value::Null } else { json!(7) });
    }
    let mark = observer.mark();
    let neighbour = topic("meter", "r130");
    observer.wait_for("the neighbour again", mark, &neighbour, Duration::from_secs(5), |m| {
        quality(&m.payload) == "good"
    });
}
