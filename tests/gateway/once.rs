//! `busbar run --once`: one cycle, then the end, whatever is missing.

use std::time::{Duration, Instant};

use busbar_tests::device::refusing;
use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, Place};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

fn points() -> [String; 2] {
    [
        "{ name = \"p\", address = \"holding:0\", type = \"uint16\", unit = \"V\" }".to_owned(),
        "{ name = \"q\", address = \"holding:1\", type = \"uint16\" }".to_owned(),
    ]
}

fn peer() -> Peer {
    Peer::single("tcp", &json!({ "holding": { "0": [7, 8] } }))
}

fn missing(name: &str) -> String {
    device(name, &Place::Tcp(refusing()).connection("tcp", 1), "response_timeout = \"1s\"", &points())
}

fn row<'a>(document: &'a Value, point: &str) -> &'a Value {
    document["points"].as_array().unwrap().iter().find(|row| row["point"] == point).unwrap()
}

#[test]
fn one_cycle_reads_delivers_prints_and_ends() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let body = device("m", &peer.place(0).connection("tcp", 1), "", &points()) + &mqtt_sink(&broker.url());
    let site = Site::new(&body);
    let done = site.cli(&["run", "--once"]).expect(0);
    assert!(done.out.contains("m/p") && done.out.contains('7') && done.out.contains("good"), "{done:?}");
    for (point, value) in [("p", 7), ("q", 8)] {
        let message = observer
            .wait_for("the value", 0, &topic("m", point), PATIENCE, |m| quality(&m.payload) == "good");
        assert_eq!(message.payload["value"], json!(value));
    }
    // Nothing is left: the folder is free, and a second cycle works.
    let document = site.cli(&["run", "--once", "--json"]).expect(0).json();
    assert_eq!(row(&document, "m/q")["value"], json!(8), "{document}");
    assert_eq!(document["failed"], json!([]));
}

#[test]
fn what_is_missing_is_named_and_nothing_hangs() {
    let peer = peer();
    let nobody = refusing();
    let body = device("there", &peer.place(0).connection("tcp", 1), "", &points())
        + &missing("gone")
        + &mqtt_sink(&format!("mqtt://{nobody}"));
    let site = Site::new(&body);
    let begin = Instant::now();
    let done = site.cli(&["run", "--once", "--json", "--timeout", "20"]).expect(2);
    // Its own limit, then the stop (at most about ten seconds).
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    let document = done.json();
    assert_eq!(
        (quality(row(&document, "there/p")), &row(&document, "there/p")["value"]),
        ("good", &json!(7))
    );
    assert_eq!(quality(row(&document, "gone/p")), "invalid|comm_lost");
    let failed: Vec<&str> =
        document["failed"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(failed, ["gone", "broker"], "{document}");
    assert!(document["failed"][0]["reason"].as_str().unwrap().contains("refused"), "{document}");

    // One device alone, by name: nothing of the other is tried.
    let broker = Broker::start();
    site.write("", &body.replace(&nobody.to_string(), &format!("127.0.0.1:{}", broker.port)));
    let document = site.cli(&["run", "--once", "--device", "there", "--json"]).expect(0).json();
    assert_eq!(document["points"].as_array().unwrap().len(), 2, "{document}");
    let unknown = site.cli(&["run", "--once", "--device", "nobody"]).expect(1);
    assert!(unknown.err.contains("there") && unknown.err.contains("gone"), "{unknown:?}");
}

#[test]
fn beside_a_running_gateway_it_says_what_to_use() {
    let gateway = Gateway::start(&missing("gone"));
    let refused = gateway.cli(&["run", "--once"]).expect(1);
    assert!(refused.err.contains("busbar read") && refused.err.contains("pid"), "{refused:?}");
}

/// `busbar health`, for container engines and scripts.
#[test]
fn health_is_an_exit_code() {
    let site = Site::new(&missing("gone"));
    let down = site.cli(&["health"]).expect(2);
    assert!(down.err.contains("no gateway answers"), "{down:?}");
    let gateway = Gateway::start_site(site);
    assert_eq!(gateway.cli(&["health"]).expect(0).out, "ready\n");
    assert_eq!(gateway.cli(&["health", "--json"]).expect(0).json(), json!({ "ready": true }));
}
