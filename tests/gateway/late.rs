//! The late-answer regression: answers that come after the time-out must never be taken for the answer to the next
//! request. A known trap of Modbus clients, also of the library below ours: after one time-out each answer is shifted.

use std::time::Duration;

use busbar_tests::{Broker, Gateway, Observer, Peer, until};
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
    for index in 0..DEVICES {
        for address in ADDRESSES {
            let topic = topic(&format!("d{index}"), &format!("r{address}"));
            for message in messages.iter().filter(|message| message.topic == topic) {
                let value = &message.payload["value"];
                if value.is_null() {
                    assert_ne!(quality(&message.payload), "good", "{message:?}");
                    continue;
                }
                assert_eq!(*value, json!(truth(index, address)), "a value of another register: {message:?}");
                right += u64::from(quality(&message.payload) == "good");
            }
        }
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
