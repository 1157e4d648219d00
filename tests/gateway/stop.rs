//! An orderly stop (SIGTERM, as `systemctl stop` and container engines send it) delivers what waits.

use std::collections::BTreeSet;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};

use crate::shared::{device, mqtt_sink, quality, topic};

/// Records that wait when the stop begins.
const WAITING: f64 = 30.0;

#[test]
fn what_waits_is_delivered_before_the_end() {
    let devices = Devices::start(&[Manner::Counting]);
    let mut broker = Broker::start();
    let observer = Observer::start(&broker);
    let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
    let place = Place::Tcp(devices.list[0].address).connection("tcp", 1);
    let body = device("d", &place, "poll_interval = \"50ms\"", &points) + &mqtt_sink(&broker.url());
    let mut gateway = Gateway::start(&body);
    let name = topic("d", "n");
    observer.wait_for("a first value", 0, &name, PATIENCE, |m| quality(&m.payload) == "good");

    // The far side falls silent; values wait.
    broker.process().stop();
    until("values to wait", PATIENCE, || {
        (gateway.metrics().sum("busbar_sink_pending_records", &[("sink", "broker")]) > WAITING).then_some(())
    });
    let served = devices.list[0].seen.requests();
    broker.process().resume();
    let status = gateway.process.terminate(PATIENCE);
    assert!(status.success(), "{status}");

    #[allow(clippy::cast_precision_loss, reason = "request numbers stay far below 2^24")]
    observer.wait_for("what was served before the stop", 0, &name, PATIENCE, |message| {
        message.payload["value"].as_f64().is_some_and(|number| number >= served as f64)
    });
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a request number")]
    let seen: BTreeSet<u64> = observer
        .since(0, &name)
        .iter()
        .filter(|message| quality(&message.payload) == "good")
        .filter_map(|message| Some(message.payload["value"].as_f64()? as u64))
        .collect();
    let missing: Vec<u64> = (*seen.first().unwrap()..=served).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // The last word about a device that nobody reads any more.
    observer.wait_for("the end", 0, &name, PATIENCE, |m| quality(&m.payload) == "invalid|comm_lost");
}
