//! One serial port, two gateways: the second says which process has the port, and takes over when it is free.

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Peer, until};
use serde_json::{Value, json};

use crate::shared::{device, quality};

fn meter(gateway: &Gateway) -> Value {
    gateway.api("/api/v1/devices")[0].clone()
}

#[test]
fn a_port_in_use_names_the_process_that_has_it() {
    let peer = Peer::single("rtu", &json!({ "holding": { "0": [7] } }));
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    let keys = "poll_interval = \"300ms\"\nreconnect = { initial = \"200ms\", max = \"500ms\" }";
    let meter_of = |name: &str| device(name, &peer.place(0).connection("rtu", 1), keys, &points);
    let mut first = Gateway::start(&meter_of("first"));
    first.point_until("first/p", "to be read", PATIENCE, |point| quality(point) == "good");

    let second = Gateway::start(&meter_of("second"));
    let reason = until("the second to be told", PATIENCE, || {
        let device = meter(&second);
        device["reason"].as_str().filter(|reason| reason.contains("in use")).map(str::to_owned)
    });
    assert!(reason.contains(&format!("process {} (busbar)", first.process.id())), "{reason}");
    assert!(second.log().contains(&format!("process {}", first.process.id())), "it is in the log too");
    let point = second.point("second/p").unwrap();
    assert_eq!(quality(&point), "invalid|comm_lost");
    // The first did not notice.
    let begin = first.point("first/p").unwrap()["ts"].as_i64().unwrap();
    first.point_until("first/p", "to be read again", PATIENCE, |point| {
        quality(point) == "good" && point["ts"].as_i64().unwrap() > begin
    });

    first.process.kill();
    second.point_until("second/p", "to be read", PATIENCE, |point| quality(point) == "good");
}

/// A one-shot command beside the running gateway goes through it, so it needs no port of its own.
#[test]
fn a_read_goes_through_the_gateway_that_has_the_port() {
    let peer = Peer::single("rtu", &json!({ "holding": { "0": [7] } }));
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    let gateway = Gateway::start(&device("m", &peer.place(0).connection("rtu", 1), "", &points));
    gateway.point_until("m/p", "to be read", PATIENCE, |point| quality(point) == "good");
    let rows = gateway.cli(&["read", "m", "--json"]).expect(0).json();
    assert_eq!(rows[0]["value"], json!(7), "{rows}");
}
