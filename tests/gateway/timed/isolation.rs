//! `isolation = "process"`: a driver that breaks memory, aborts, allocates without end or never returns is a lost device
//! that comes back; the host and everything else do not notice (G1, G5, G6).

use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};
use serde_json::Value;

use crate::shared::{crashing, device, mqtt_sink, plugin, quality, topic};

const POLL: Duration = Duration::from_millis(200);
/// G1: from detection to every sink.
const G1: Duration = Duration::from_secs(1);
/// A plugin whose heartbeat stops is stalled after a second, looked at every 100 ms.
const STALL: Duration = Duration::from_millis(1100);
/// The reads of other devices may be as far apart.
const LONGEST_GAP: Duration = POLL.saturating_mul(2);

struct Site {
    devices: Devices,
    observer: Observer,
    gateway: Gateway,
    _broker: Broker,
}

/// One device of the driver under test in a worker, two of another driver in the host.
fn site() -> Site {
    let devices = Devices::start(&[Manner::Counting; 2]);
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut body = "[plugins.fake]\nisolation = \"process\"\nmemory_limit = \"64MiB\"\n\n".to_owned();
    body += &crashing("crashing", "");
    for (i, simulated) in devices.list.iter().enumerate() {
        let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
        let place = Place::Tcp(simulated.address).connection("tcp", 1);
        body += &device(&format!("other{i}"), &place, "poll_interval = \"200ms\"", &points);
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    for name in ["crashing", "other0", "other1"] {
        observer.wait_for("a first value", 0, &topic(name, "n"), PATIENCE, good);
    }
    Site { devices, observer, gateway, _broker: broker }
}

fn good(message: &busbar_tests::observer::Message) -> bool {
    quality(&message.payload) == "good"
}

fn lost(message: &busbar_tests::observer::Message) -> bool {
    quality(&message.payload) == "invalid|comm_lost"
}

impl Site {
    fn command(&self, point: &str, value: &str) -> busbar_tests::cli::Done {
        self.gateway.cli(&["write", &format!("crashing/{point}"), value, "--yes"])
    }

    /// The other devices were read on time since `begin`, and none of their points left good.
    fn others_did_not_notice(&self, begin: Instant, mark: usize) {
        for (i, simulated) in self.devices.list.iter().enumerate() {
            let times: Vec<Instant> =
                simulated.seen.times().into_iter().filter(|time| *time >= begin).collect();
            let longest = times.windows(2).map(|pair| pair[1].duration_since(pair[0])).max();
            assert!(longest.is_none_or(|gap| gap <= LONGEST_GAP), "other{i} waited {longest:?}");
            for message in self.observer.since(mark, &topic(&format!("other{i}"), "n")) {
                assert!(good(&message), "{message:?}");
            }
        }
    }

    fn worker(&self) -> Value {
        plugin(&self.gateway, "fake")
    }
}

#[test]
fn a_driver_that_takes_its_process_along_is_a_lost_device_that_comes_back() {
    let site = site();
    for (act, words) in [
        ("null_pointer", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("exhaust", "probably reached its memory_limit of 64 MiB"),
    ] {
        let before = site.worker();
        let (begin, mark) = (Instant::now(), site.observer.mark());
        let _ = site.command("read_act", act).expect(0);
        let fell = Instant::now();
        let message = site.observer.wait_for(
            &format!("the loss by {act}"),
            mark,
            &topic("crashing", "n"),
            PATIENCE,
            lost,
        );
        let took = message.at.saturating_duration_since(fell);
        assert!(took <= POLL + G1, "{act}: invalid at the broker after {took:?}");
        let after = site.observer.mark();
        site.observer.wait_for("a value again", after, &topic("crashing", "n"), PATIENCE, good);
        let now = site.worker();
        assert_ne!(now["worker_pid"], before["worker_pid"], "{act}");
        assert_eq!(now["restarts"].as_u64(), before["restarts"].as_u64().map(|n| n + 1), "{act}: {now}");
        assert_eq!(now["state"], "running", "{now}");
        let death = now["last_death"]["reason"].as_str().unwrap();
        assert!(death.contains(words), "{act}: expected {words} in: {death}");
        assert!(site.gateway.log().contains(death), "{act}: every death is in the log");
        site.others_did_not_notice(begin, mark);
    }
    assert_eq!(site.gateway.get("/healthz").unwrap().status, 200);
    let metrics = site.gateway.metrics();
    assert_eq!(metrics.sum("busbar_plugin_restarts_total", &[("plugin", "fake")]), 3.0);
    assert_eq!(
        metrics.sum("busbar_plugin_memory_limit_bytes", &[("plugin", "fake")]),
        f64::from(64 * 1024 * 1024)
    );
    assert!(metrics.sum("busbar_plugin_memory_bytes", &[("plugin", "fake")]) > 1e6);
}

/// A command that kills its driver is never confirmed.
#[test]
fn a_command_under_which_the_driver_dies_is_not_confirmed() {
    let site = site();
    let _ = site.command("command_act", "null_pointer").expect(0);
    let mark = site.observer.mark();
    let done = site.command("set", "7").expect(2);
    assert!(done.text().contains("nobody knows whether it was executed"), "{done:?}");
    site.observer.wait_for("the loss", mark, &topic("crashing", "n"), PATIENCE, lost);
    let after = site.observer.mark();
    site.observer.wait_for("a value again", after, &topic("crashing", "n"), PATIENCE, good);
    assert!(site.gateway.audit().iter().any(|line| line.contains("\"stage\":\"unknown\"")));
}

/// A driver that never gives its thread back: its heartbeat stops, its device is lost; it is given up and started again.
#[test]
fn a_driver_that_spins_is_ended_and_started_again() {
    let site = site();
    let before = site.worker();
    let (begin, mark) = (Instant::now(), site.observer.mark());
    let _ = site.command("read_act", "spin").expect(0);
    let fell = Instant::now();
    let message = site.observer.wait_for("the loss", mark, &topic("crashing", "n"), PATIENCE, lost);
    let took = message.at.saturating_duration_since(fell);
    assert!(took <= POLL + STALL + G1, "invalid at the broker after {took:?}");
    let limit = 2 * PATIENCE;
    let now = until("another worker", limit, || {
        Some(site.worker())
            .filter(|now| now["worker_pid"].is_u64() && now["worker_pid"] != before["worker_pid"])
    });
    assert_eq!(now["restarts"], 1, "{now}");
    let after = site.observer.mark();
    site.observer.wait_for("a value again", after, &topic("crashing", "n"), PATIENCE, good);
    site.others_did_not_notice(begin, mark);
}
