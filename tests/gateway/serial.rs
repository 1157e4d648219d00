//! One line, several units: one owner, strictly one after the other; a dead unit costs the others one time-out a cycle.

use std::time::Duration;

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, until};
use serde_json::json;

use crate::shared::{device, mqtt_sink, quality, topic};

fn point() -> [String; 1] {
    ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()]
}

#[test]
fn units_on_one_line_keep_apart() {
    for transport in ["rtu", "rtu-over-tcp"] {
        let units: serde_json::Map<String, serde_json::Value> =
            (1..=4).map(|unit| (unit.to_string(), json!({ "holding": { "0": [unit * 11] } }))).collect();
        let mut peer = Peer::start(&json!([{ "transport": transport, "units": units }]));
        let broker = Broker::start();
        let observer = Observer::start(&broker);
        let mut body = String::new();
        // Unit 5 is not there: nobody answers for it.
        for unit in 1..=5 {
            let keys = "poll_interval = \"500ms\"\nresponse_timeout = \"300ms\"\nretries = 0";
            body += &device(&format!("m{unit}"), &peer.place(0).connection(transport, unit), keys, &point());
        }
        let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
        for unit in 1..=4 {
            let topic = topic(&format!("m{unit}"), "p");
            observer.wait_for("a good value", 0, &topic, PATIENCE, |m| quality(&m.payload) == "good");
        }
        gateway.point_until("m5/p", "to be lost", PATIENCE, |p| quality(p) == "invalid|comm_lost");
        // The dead unit stays dead and the others good, for many cycles.
        let mark = observer.mark();
        let before = peer.requests(0);
        until("forty exchanges", PATIENCE, || (peer.requests(0) > before + 40).then_some(()));
        for message in &observer.all()[mark..] {
            for unit in 1..=4 {
                if message.topic == topic(&format!("m{unit}"), "p") {
                    assert_eq!(quality(&message.payload), "good", "{transport}: {message:?}");
                    assert_eq!(message.payload["value"], json!(unit * 11), "{transport}: {message:?}");
                }
            }
        }
    }
}

/// A dead unit may cost at most one time-out per cycle of the line (SEMANTICS.md section 5).
#[test]
fn a_dead_unit_does_not_starve_the_line() {
    let mut peer =
        Peer::start(&json!([{ "transport": "rtu", "units": { "1": { "holding": { "0": [1] } } } }]));
    let broker = Broker::start();
    let mut body = String::new();
    for unit in 1..=4 {
        let keys = "poll_interval = \"1s\"\nresponse_timeout = \"300ms\"\nreconnect = { initial = \"1s\", max = \"10s\" }";
        body += &device(&format!("m{unit}"), &peer.place(0).connection("rtu", unit), keys, &point());
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    gateway.point_until("m1/p", "to be good", PATIENCE, |p| quality(p) == "good");
    for unit in 2..=4 {
        gateway.point_until(&format!("m{unit}/p"), "to be lost", PATIENCE, |p| {
            quality(p) == "invalid|comm_lost"
        });
    }
    // Three dead units in back-off: the living one is read at least every other second, never old.
    let before = peer.requests(0);
    let begin = std::time::Instant::now();
    until("ten seconds", PATIENCE, || {
        let point = gateway.point("m1/p").unwrap();
        assert_eq!(quality(&point), "good", "{point}");
        (begin.elapsed() > Duration::from_secs(10)).then_some(())
    });
    let polls = peer.requests(0) - before;
    assert!(polls >= 5, "only {polls} requests in ten seconds");
}
