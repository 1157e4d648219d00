//! The late-answer regression: answers that come after the time-out must never be taken for the answer to the next
//! request. A known trap of Modbus clients, also of the library below ours: after one time-out each answer is shifted.

use std::time::Duration;

use busbar_tests::{Broker, Gateway, Message, Observer, Peer, until};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

/// Devices at once, so that the reads do not take for ever.
const DEVICES: usize = 20;
/// Addresses too far apart to be read together: four equal requests per poll, each with another true answer.
const ADDRESSES: [u16; 4] = [0, 300, 600, 900];
/// Delayed reads to be survived: one in twenty of them is back just in time, so that the edge is tried too.
const LATE: u64 = 1_200;
/// Generous: some 20 late answers per second are expected.
const LIMIT: Duration = Duration::from_secs(200);

/// What register `address` of device `index` holds, and nothing else does.
fn truth(index: usize, address: u16) -> u16 {
    u16::try_from(index).unwrap() * 1000 + address + 1
}

/// Device and register of a topic; `None` for status topics.
fn source(topic: &str) -> Option<(usize, u16)> {
    let (device, point) = topic.strip_prefix("busbar/site/d")?.split_once("/r")?;
    Some((device.parse().ok()?, point.parse().ok()?))
}

/// What the broker got of this device around a message, for the report of a failure.
fn neighbours(messages: &[Message], position: usize, index: usize) -> String {
    let prefix = topic(&format!("d{index}"), "");
    let near = &messages[position.saturating_sub(800)..messages.len().min(position + 400)];
    let of_device = near.iter().filter(|message| message.topic.starts_with(&prefix));
    of_device
        .map(|message| format!("  {} {} at {:?}\n", message.topic, message.payload, message.at))
        .collect()
}

fn never_a_foreign_value(transport: &str) {
    let servers: Vec<Value> = (0..DEVICES)
        .map(|index| {
            let cells: serde_json::Map<String, Value> = ADDRESSES
                .iter()
                .map(|address| (address.to_string(), json!([truth(index, *address)])))
                .collect();
            json!({ "transport": transport, "units": { "1": { "holding": cells } } })
        })
        .collect();
    let mut peer = Peer::start(&json!(servers));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut body = String::new();
    for index in 0..DEVICES {
        let points: Vec<String> = ADDRESSES
            .iter()
            .map(|address| {
                format!("{{ name = \"r{address}\", address = \"holding:{address}\", type = \"uint16\" }}")
            })
            .collect();
        let keys = "poll_interval = \"100ms\"\nresponse_timeout = \"100ms\"\n\
                    reconnect = { initial = \"50ms\", max = \"200ms\" }";
        body += &device(&format!("d{index}"), &peer.place(index).connection(transport, 1), keys, &points);
        // From just below the time-out to several times it; most answers are in time, so that reading goes on.
        peer.behave(index, json!({ "delay": [0.08, 0.5], "share": 0.2 }));
    }
    let _gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    until("the late answers", LIMIT, || {
        let late: u64 = (0..DEVICES).map(|index| peer.stats(index)["delayed"].as_u64().unwrap()).sum();
        (late >= LATE).then_some(())
    });

    let messages = observer.all();
    let mut right = 0_u64;
    for (position, message) in messages.iter().enumerate() {
        let Some((index, address)) = source(&message.topic) else { continue };
        let value = &message.payload["value"];
        if value.is_null() {
            assert_ne!(quality(&message.payload), "good", "{message:?}");
            continue;
        }
        let around = || neighbours(&messages, position, index);
        assert_eq!(
            *value,
            json!(truth(index, address)),
            "a value of another register on {}:\n{}",
            message.topic,
            around()
        );
        right += u64::from(quality(&message.payload) == "good");
    }
    assert!(right >= LATE, "only {right} good values: the test has shown nothing");
}

#[test]
fn over_tcp() {
    never_a_foreign_value("tcp");
}

#[test]
fn over_rtu_in_tcp() {
    never_a_foreign_value("rtu-over-tcp");
}
