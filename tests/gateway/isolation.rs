//! Workers that die again and again, and a sink in a worker: nothing is lost, and an operator has the last word.

use std::collections::BTreeSet;
use std::process::Command;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};

use crate::shared::{crashing, device, mqtt_sink, plugin, quality, topic};

fn kill(pid: u64) {
    // It may have died by itself meanwhile.
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output().unwrap();
}

#[test]
fn a_crash_loop_ends_in_failed_and_an_operator_starts_it_again() {
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let body = "[plugins.fake]\nisolation = \"process\"\n\n".to_owned() + &crashing("crashing", "");
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    let value = topic("crashing", "n");
    let good = |message: &busbar_tests::observer::Message| quality(&message.payload) == "good";
    observer.wait_for("a first value", 0, &value, PATIENCE, good);
    let failed = until("the plugin to stay down", PATIENCE, || {
        let now = plugin(&gateway, "fake");
        if let Some(pid) = now["worker_pid"].as_u64() {
            kill(pid);
        }
        now["reason"].as_str().is_some_and(|reason| reason.contains("stays down")).then_some(now)
    });
    assert_eq!((&failed["state"], &failed["restarts"]), (&"failed".into(), &4.into()), "{failed}");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("SIGKILL") && reason.contains("busbar plugin restart fake"), "{reason}");
    let shown = gateway.cli(&["plugins", "--json"]).expect(0).json();
    let shown = shown.as_array().unwrap().iter().find(|row| row["name"] == "fake").unwrap();
    assert_eq!((&shown["state"], &shown["reason"]), (&failed["state"], &failed["reason"]));
    let devices = gateway.api("/api/v1/devices");
    assert_eq!(devices[0]["state"], "failed", "{devices}");

    let mark = observer.mark();
    let refused = gateway.cli(&["plugin", "restart", "mqtt", "--yes"]).expect(1);
    assert!(refused.text().contains("in the host's own process"), "{refused:?}");
    let _ = gateway.cli(&["plugin", "restart", "nothing", "--yes"]).expect(1);
    let _ = gateway.cli(&["plugin", "restart", "fake", "--yes"]).expect(0);
    observer.wait_for("a value again", mark, &value, PATIENCE, good);
    assert_eq!(plugin(&gateway, "fake")["state"], "running");
    let audit = gateway.audit();
    assert_eq!(audit.iter().filter(|line| line.contains("plugin_restart")).count(), 1, "{audit:?}");
    // Earlier deaths are forgiven: the next one is the first.
    let worker = plugin(&gateway, "fake")["worker_pid"].as_u64().unwrap();
    let mark = observer.mark();
    kill(worker);
    observer.wait_for("the loss", mark, &value, PATIENCE, |message| !good(message));
    let lost = observer.mark();
    observer.wait_for("a value after another death", lost, &value, PATIENCE, good);
}

/// The driver dies at every start by itself.
#[test]
fn a_driver_that_never_lives_long_is_given_up() {
    let body = "[plugins.fake]\nisolation = \"process\"\n\n".to_owned()
        + &crashing("crashing", "acts = { read = \"abort\" }");
    let gateway = Gateway::start(&body);
    let failed = until("the plugin to stay down", PATIENCE, || {
        let now = plugin(&gateway, "fake");
        now["reason"].as_str().is_some_and(|reason| reason.contains("stays down")).then_some(now)
    });
    assert!(failed["reason"].as_str().unwrap().contains("SIGABRT"), "{failed}");
    assert_eq!(gateway.get("/healthz").unwrap().status, 200);
    assert_eq!(gateway.get("/readyz").unwrap().status, 200);
    assert_eq!(gateway.get("/readyz?strict").unwrap().status, 503);
}

/// The worker of the MQTT sink is killed again and again: every value that a device served arrives, in order, and the
/// ledger agrees.
#[test]
fn a_sink_whose_worker_is_killed_loses_nothing() {
    const KILLS: usize = 3;
    let devices = Devices::start(&[Manner::Counting; 3]);
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut body = "[plugins.mqtt]\nisolation = \"process\"\n\n".to_owned();
    for (i, simulated) in devices.list.iter().enumerate() {
        let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
        let place = Place::Tcp(simulated.address).connection("tcp", 1);
        body += &device(&format!("d{i}"), &place, "poll_interval = \"100ms\"", &points);
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    for _ in 0..KILLS {
        let mark = observer.mark();
        observer.wait_for("values through the worker", mark, &topic("d0", "n"), PATIENCE, |m| {
            quality(&m.payload) == "good"
        });
        let worker = until("a worker", PATIENCE, || plugin(&gateway, "mqtt")["worker_pid"].as_u64());
        kill(worker);
        until("another worker", PATIENCE, || {
            plugin(&gateway, "mqtt")["worker_pid"].as_u64().filter(|pid| *pid != worker)
        });
    }
    // What was served until now must arrive.
    for (i, simulated) in devices.list.iter().enumerate() {
        let last = simulated.seen.requests();
        let name = topic(&format!("d{i}"), "n");
        let number = |message: &busbar_tests::observer::Message| {
            message.payload["value"].as_f64().filter(|_| quality(&message.payload) == "good")
        };
        #[allow(clippy::cast_precision_loss, reason = "request numbers stay far below 2^24")]
        observer.wait_for("what was served last", 0, &name, PATIENCE, |message| {
            number(message).is_some_and(|number| number >= last as f64)
        });
        let mut seen = BTreeSet::new();
        let mut newest = 0;
        for message in observer.since(0, &name) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a request number")]
            let Some(number) = number(&message).map(|number| number as u64) else { continue };
            if seen.insert(number) {
                assert!(number > newest, "d{i}: {number} came first after {newest}");
                newest = number;
            }
        }
        let first = *seen.first().unwrap();
        let missing: Vec<u64> = (first..=last).filter(|number| !seen.contains(number)).collect();
        assert!(missing.is_empty(), "d{i}: of {first} to {last} are missing: {missing:?}");
    }
    let metrics = gateway.metrics();
    let of = |name: &str| metrics.sum(name, &[("sink", "broker")]);
    let accounted = of("busbar_sink_delivered_total")
        + of("busbar_sink_pending_records")
        + of("busbar_sink_parked_total")
        + of("busbar_sink_dropped_total");
    assert!((of("busbar_sink_accepted_total") - accounted).abs() < 0.5, "the ledger does not balance");
    let dropped: Vec<(String, f64)> = metrics
        .of("busbar_sink_dropped_total", &[("sink", "broker")])
        // A snapshot that was on its way is superseded by that of the next start; the values were delivered, see above.
        .filter(|series| series.value > 0.0 && series.labels["reason"] != "superseded")
        .map(|series| (series.labels["reason"].clone(), series.value))
        .collect();
    assert!(dropped.is_empty(), "given up: {dropped:?}");
    assert_eq!(metrics.sum("busbar_plugin_restarts_total", &[("plugin", "mqtt")]), 3.0);
    assert_eq!(gateway.get("/healthz").unwrap().status, 200);
}
