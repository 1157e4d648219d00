//! A device that falls silent without closing its connection (SIGSTOP), and comes back (G1, G2).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

const POLL: Duration = Duration::from_millis(500);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
const POINTS: u16 = 12;

/// G1: from detection to every sink.
const G1: Duration = Duration::from_secs(1);

/// SEMANTICS.md section 5: min(poll_interval, probe_interval) + (retries + 1) x response_timeout.
fn detection(retries: u32) -> Duration {
    POLL + (retries + 1) * RESPONSE_TIMEOUT
}

fn silent_and_back(transport: &str, default_retries: u32) {
    let values: Vec<u16> = (0..POINTS).map(|i| 1000 + i).collect();
    let mut peer = Peer::single(transport, &json!({ "holding": { "0": values } }));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points: Vec<String> = (0..POINTS)
        .map(|i| format!("{{ name = \"p{i}\", address = \"holding:{i}\", type = \"uint16\" }}"))
        .collect();
    let keys = "poll_interval = \"500ms\"\nresponse_timeout = \"1s\"\nreconnect = { initial = \"500ms\", max = \"2s\" }";
    let meter = device("meter", &peer.place(0).connection(transport, 1), keys, &points);
    let _gateway = Gateway::start(&(meter + &mqtt_sink(&broker.url())));
    let names: Vec<String> = (0..POINTS).map(|i| format!("p{i}")).collect();
    every(&observer, &names, 0, "good at first", PATIENCE, |sample| quality(sample) == "good");

    let stopped = Instant::now();
    let mark = observer.mark();
    peer.process.stop();
    let limit = detection(default_retries) + G1;
    let lost =
        every(&observer, &names, mark, "invalid|comm_lost", limit, |s| quality(s) == "invalid|comm_lost");
    for (i, name) in (0..POINTS).zip(&names) {
        let (sample, at) = &lost[name];
        assert_eq!(sample["value"], json!(1000 + i), "{name}: the last value is kept: {sample}");
        assert_eq!(sample["gateway_time"], json!(true), "{name}: the gateway stamped the loss: {sample}");
        assert!(
            at.duration_since(stopped) <= limit,
            "{name} after {:?}, bound {limit:?}",
            at.duration_since(stopped)
        );
    }
    observer.wait_for("offline", mark, &topic("meter", "status"), G1, |m| m.payload == json!("offline"));

    // While it is silent nothing turns good: nobody can have read it.
    let silent = observer.mark();
    let pause = Instant::now();
    busbar_tests::until("four seconds of silence", PATIENCE, || {
        (pause.elapsed() > 2 * RECONNECT_MAX).then_some(())
    });
    for message in &observer.all()[silent..] {
        assert_ne!(quality(&message.payload), "good", "a silent device has no good value: {message:?}");
    }

    let resumed = Instant::now();
    let mark = observer.mark();
    peer.process.resume();
    let limit = RECONNECT_MAX.mul_f64(1.2) + POLL + Duration::from_secs(1);
    let back = every(&observer, &names, mark, "good again", limit, |sample| quality(sample) == "good");
    for (i, name) in (0..POINTS).zip(&names) {
        let (sample, at) = &back[name];
        assert_eq!(sample["value"], json!(1000 + i), "{name}: sent again although unchanged");
        assert!(
            at.duration_since(resumed) <= limit,
            "{name} after {:?}, bound {limit:?}",
            at.duration_since(resumed)
        );
    }
    observer.wait_for("online", mark, &topic("meter", "status"), PATIENCE, |m| m.payload == json!("online"));
}

/// Waits until every point has a message after the mark for which `accept` holds; the first such of each.
fn every(
    observer: &Observer,
    names: &[String],
    mark: usize,
    what: &str,
    limit: Duration,
    accept: impl Fn(&Value) -> bool,
) -> HashMap<String, (Value, Instant)> {
    observer.wait_all(&format!("every point {what}"), limit, |messages| {
        let mut found = HashMap::new();
        for name in names {
            let topic = topic("meter", name);
            let message = messages[mark..].iter().find(|m| m.topic == topic && accept(&m.payload))?;
            found.insert(name.clone(), (message.payload.clone(), message.at));
        }
        Some(found)
    })
}

#[test]
fn over_tcp() {
    silent_and_back("tcp", 0);
}

#[test]
fn over_rtu_in_tcp() {
    silent_and_back("rtu-over-tcp", 0);
}

/// The default of two retries on a serial line is part of the bound.
#[test]
fn over_a_serial_line() {
    silent_and_back("rtu", 2);
}

/// A device whose process dies: the connection closes, which is seen at once, not after a time-out.
#[test]
fn a_closed_connection_is_seen_at_once() {
    let mut peer = Peer::single("tcp", &json!({ "holding": { "0": [5] } }));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let points = ["{ name = \"p0\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    let keys = "poll_interval = \"500ms\"\nresponse_timeout = \"10s\"";
    let meter = device("meter", &peer.place(0).connection("tcp", 1), keys, &points);
    let _gateway = Gateway::start(&(meter + &mqtt_sink(&broker.url())));
    let names = ["p0".to_owned()];
    every(&observer, &names, 0, "good", PATIENCE, |sample| quality(sample) == "good");
    let mark = observer.mark();
    peer.process.kill();
    let lost = every(&observer, &names, mark, "lost", POLL + G1, |s| quality(s) == "invalid|comm_lost");
    assert_eq!(lost["p0"].0["value"], json!(5));
}
