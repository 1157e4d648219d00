//! A driver and a sink replaced in the running gateway by dropping a file: nobody notices a good version, and a bad one is
//! taken back by itself.

mod killed;
mod sinks;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::gateway::HOST;
use busbar_tests::wait::{PATIENCE, until};
use busbar_tests::{Broker, Gateway, Observer, built};
use serde_json::Value;

use crate::shared::{mqtt_sink, plugin, quality};

/// Of every meter in these stories.
const POLL: Duration = Duration::from_millis(200);
/// The shortest that a trial may be here: long enough for all to move on a busy machine, and watched for a while.
const TRIAL: Duration = Duration::from_secs(8);

/// A folder with plugins of its own, in which files can be replaced.
struct Plugins(PathBuf);

const MODBUS: &str = "libbusbar_driver_modbus.so";
const MQTT: &str = "libbusbar_sink_mqtt.so";
const FAKE: &str = "libbusbar_driver_fake.so";

impl Plugins {
    fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let plugins = Self(folder.to_path_buf());
        for name in [MODBUS, MQTT, FAKE] {
            plugins.install(name, &fs::read(built::folder().join(name)).unwrap());
        }
        plugins
    }

    /// As an operator or a package manager would: beside it, then renamed over it.
    fn install(&self, name: &str, bytes: &[u8]) {
        let temporary = self.0.join(".incoming");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, self.0.join(name)).unwrap();
    }

    /// The built plugin with other bytes at its end: the same code as another version.
    fn variant(name: &str, number: usize) -> Vec<u8> {
        let mut bytes = fs::read(built::folder().join(name)).unwrap();
        if number > 0 {
            bytes.extend_from_slice(format!("variant {number}").as_bytes());
        }
        bytes
    }
}

/// Twenty meters at 200 ms, one device of another driver, one broker.
struct Plant {
    gateway: Gateway,
    plugins: Plugins,
    observer: Observer,
    devices: Devices,
    _broker: Broker,
}

impl Plant {
    fn start(meters: usize, isolation: &str, trial: Duration) -> Self {
        Self::start_with(meters, isolation, trial, &[])
    }

    fn start_with(meters: usize, isolation: &str, trial: Duration, env: &[(&str, &str)]) -> Self {
        let devices = Devices::start(&vec![Manner::Counting; meters]);
        let broker = Broker::start();
        let observer = Observer::start(&broker);
        let mut body = String::new();
        for (number, device) in devices.list.iter().enumerate() {
            let port = device.address.port();
            body += &format!(
                "[[device]]\nname = \"m{number:02}\"\ndriver = \"modbus\"\npoll_interval = \"200ms\"\n\
                 connection = {{ transport = \"tcp\", host = \"127.0.0.1\", port = {port}, unit_id = 1 }}\npoints = [\n  \
                 {{ name = \"a\", address = \"holding:0\", type = \"float32\" }},\n  \
                 {{ name = \"b\", address = \"holding:2\", type = \"float32\" }},\n]\n\n"
            );
        }
        body += "[[device]]\nname = \"other\"\ndriver = \"fake\"\npoll_interval = \"200ms\"\nconnection = { endpoint = \"other\" }\n\
                 points = [ { name = \"n\", address = \"counter\", type = \"uint64\" } ]\n\n";
        body += &format!("[plugins.modbus]\nisolation = \"{isolation}\"\n\n");
        body += &mqtt_sink(&broker.url());
        let site = busbar_tests::gateway::Site::new("");
        let plugins = Plugins::new(&site.dir.path().join("plugins"));
        let text = format!(
            "[host]\nname = \"{HOST}\"\ndata_dir = \"data\"\nplugin_dirs = [\"plugins\"]\nupgrade_timeout = \"{}ms\"\n\n\
             [host.admin]\nlisten = \"{}\"\n\n{body}",
            trial.as_millis(),
            site.admin
        );
        fs::write(site.config(), text).unwrap();
        let gateway = Gateway::start_site_env(site, env);
        let plant = Self { gateway, plugins, observer, devices, _broker: broker };
        until("every device to be online", PATIENCE, || {
            let devices = plant.gateway.api("/api/v1/devices");
            devices.as_array().unwrap().iter().all(|device| device["state"] == "online").then_some(())
        });
        // What was published before the first values has arrived too.
        let points = (0..meters).flat_map(|number| [format!("m{number:02}/a"), format!("m{number:02}/b")]);
        let topics: Vec<String> = points.map(|point| format!("busbar/{HOST}/{point}")).collect();
        plant.observer.wait_all("a good value of every point", PATIENCE, |messages| {
            let good = |topic: &String| {
                messages.iter().any(|message| message.topic == *topic && quality(&message.payload) == "good")
            };
            topics.iter().all(good).then_some(())
        });
        plant
    }

    fn versions(&self, name: &str) -> Value {
        plugin(&self.gateway, name)["versions"].clone()
    }

    fn accepted(&self, name: &str) -> String {
        self.versions(name)["accepted"]["sha256"].as_str().unwrap_or_default().to_owned()
    }

    /// Drops a file and waits until another version is accepted.
    fn replace(&self, name: &str, file: &str, bytes: &[u8], limit: Duration) {
        let before = self.accepted(name);
        self.plugins.install(file, bytes);
        until(&format!("another version of {name} to be accepted"), limit, || {
            let versions = self.versions(name);
            assert!(versions["failed"].is_null(), "{versions}");
            (versions["trial"].is_null() && versions["accepted"]["sha256"] != before).then_some(())
        });
    }

    /// Waits until the last version tried has failed; the reason.
    fn failure(&self, name: &str, limit: Duration) -> String {
        until(&format!("a version of {name} to fail"), limit, || {
            let versions = self.versions(name);
            let over = versions["trial"].is_null();
            versions["failed"]["reason"].as_str().filter(|_| over).map(str::to_owned)
        })
    }

    /// Everything is good again.
    fn is_well(&self) {
        until("every point to be good", PATIENCE, || {
            let points = self.gateway.api("/api/v1/points");
            let mut own = points
                .as_array()
                .unwrap()
                .iter()
                .filter(|point| point["point"].as_str().is_some_and(|name| !name.contains('@')));
            own.all(|point| quality(point) == "good").then_some(())
        });
    }

    /// No point of these devices was anything but good since the mark.
    fn nobody_noticed(&self, mark: usize, devices: &str) {
        for message in &self.observer.all()[mark..] {
            if !message.topic.starts_with(&format!("busbar/{HOST}/{devices}")) {
                continue;
            }
            if message.topic.ends_with("/status") {
                assert_eq!(message.payload, "online", "{message:?}");
            } else {
                assert_eq!(quality(&message.payload), "good", "{message:?}");
            }
        }
    }

    /// Longest pause between two messages of each point of this name since then, and when it ended.
    fn gaps(&self, mark: usize, point: &str) -> HashMap<String, (Duration, Instant)> {
        let (mut last, mut longest) = (HashMap::new(), HashMap::new());
        let messages = self.observer.all();
        for message in messages[mark..].iter().filter(|message| message.topic.ends_with(point)) {
            if let Some(before) = last.insert(message.topic.clone(), message.at) {
                let gap = message.at.duration_since(before);
                let entry = longest.entry(message.topic.clone()).or_insert((gap, message.at));
                *entry = (*entry).max((gap, message.at));
            }
        }
        longest
    }

    /// The longest of them.
    fn longest_gap(&self, mark: usize, point: &str) -> (Duration, String, SystemTime) {
        let gaps = self.gaps(mark, point).into_iter();
        let (topic, (gap, at)) = gaps.max_by_key(|(_, (gap, _))| *gap).unwrap();
        (gap, topic, SystemTime::now() - at.elapsed())
    }
}

/// v1 -> v2 -> v1 by dropped files, in the host's process. The gap is stated under `timed`.
#[test]
fn a_dropped_file_replaces_the_driver_and_nobody_notices() {
    let plant = Plant::start(5, "in-process", TRIAL);
    let first = plant.accepted("modbus");
    let mark = plant.observer.mark();
    plant.replace("modbus", MODBUS, &Plugins::variant(MODBUS, 1), PATIENCE * 3);
    plant.nobody_noticed(mark, "");
    let row = plugin(&plant.gateway, "modbus");
    assert_eq!(row["isolation"], "in-process", "{row}");
    assert!(row["worker_pid"].is_null(), "{row}");
    assert_eq!(row["versions"]["previous"]["sha256"], first, "{row}");

    // Back on the operator's word; the same bytes are no news for the watch.
    let back = plant.gateway.cli(&["plugin", "rollback", "modbus"]);
    assert_eq!(back.code, Some(0), "{back:?}");
    assert!(back.out.contains("accepted"), "{back:?}");
    assert_eq!(plant.accepted("modbus"), first);
    plant.nobody_noticed(mark, "");
    plant.is_well();
    let history = plant.gateway.cli(&["plugins", "--history", "modbus", "--json"]);
    let events: Value = serde_json::from_str(&history.out).unwrap();
    let words: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["first", "trial", "accepted", "trial", "accepted"], "{history:?}");

    // What is accepted is what starts, not what lies in the folder.
    let mut plant = plant;
    plant.gateway.restart();
    assert_eq!(plant.accepted("modbus"), first);
    let row = plugin(&plant.gateway, "modbus");
    assert_eq!(row["sha256"], first, "{row}");
}

/// The same in a worker process, by command.
#[test]
fn a_command_replaces_a_driver_in_a_worker() {
    let plant = Plant::start(3, "process", TRIAL);
    let mark = plant.observer.mark();
    let file = plant.gateway.site.dir.path().join("new.so");
    fs::write(&file, Plugins::variant(MODBUS, 7)).unwrap();
    let done = plant.gateway.cli(&["plugin", "upgrade", "modbus", file.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("device m00 is good"), "{done:?}");
    plant.nobody_noticed(mark, "");
    let row = plugin(&plant.gateway, "modbus");
    assert_eq!(row["isolation"], "process", "{row}");
    assert!(row["worker_pid"].is_number(), "{row}");

    let again = plant.gateway.cli(&["plugin", "upgrade", "modbus", file.to_str().unwrap()]);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.err.contains("runs already"), "{again:?}");
    let wrong = plant.gateway.cli(&["plugin", "upgrade", "mqtt", file.to_str().unwrap()]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.err.contains("refused, nothing was moved"), "{wrong:?}");
    let nobody = plant.gateway.cli(&["plugin", "upgrade", "dlms", file.to_str().unwrap()]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    plant.is_well();
}

fn bad_version(fault: &str, isolation: &str, word: &str) -> (Plant, String) {
    let plant = Plant::start_with(4, isolation, TRIAL, &[("BUSBAR_TEST_FAULT", fault)]);
    let pid = plant.gateway.process.id();
    let first = plant.accepted("modbus");
    let mark = plant.observer.mark();
    plant
        .plugins
        .install(MODBUS, &fs::read(built::folder().join("libbusbar_driver_bad_version.so")).unwrap());
    let reason = plant.failure("modbus", PATIENCE * 3);
    assert!(reason.contains(word), "{fault}: {reason}");
    plant.is_well();
    assert_eq!(plant.accepted("modbus"), first);
    assert_eq!(plant.gateway.process.id(), pid, "the host never stopped");
    plant.nobody_noticed(mark, "other/");
    assert_eq!(plugin(&plant.gateway, "modbus")["state"], "running");
    let shown = plant.gateway.cli(&["plugins"]);
    assert!(shown.out.contains("failed at"), "{shown:?}");
    (plant, reason)
}

#[test]
fn a_version_that_answers_wrongly_is_taken_back() {
    let (plant, reason) = bad_version("wrong", "in-process", "/b");
    assert!(reason.contains("invalid|failure"), "{reason}");
    // The same bytes are not tried again by themselves.
    let tried = plant.gateway.log().matches("trial begins").count();
    plant
        .plugins
        .install(MODBUS, &fs::read(built::folder().join("libbusbar_driver_bad_version.so")).unwrap());
    until("the watch to see the file", PATIENCE, || {
        plant.gateway.log().contains("is not tried again").then_some(())
    });
    assert_eq!(plant.gateway.log().matches("trial begins").count(), tried);
}

#[test]
fn a_version_that_crashes_is_taken_back() {
    bad_version("crash", "process", "SIGSEGV");
}

/// The same with the default isolation: the trial runs in a worker, so the host does not feel it.
#[test]
fn a_version_that_crashes_in_its_trial_never_gets_into_the_host() {
    let (plant, _) = bad_version("crash", "in-process", "SIGSEGV");
    let row = plugin(&plant.gateway, "modbus");
    assert_eq!((row["isolation"].as_str(), row["worker_pid"].is_null()), (Some("in-process"), true), "{row}");
}

#[test]
fn a_version_that_hangs_in_its_stop_is_found_out_with_the_canary() {
    let (plant, _) = bad_version("stuck", "in-process", "");
    // One device met it; the others never moved.
    let log = plant.gateway.log();
    assert!(log.contains("(1 of 4)"), "the canary moved");
    assert!(!log.contains("(2 of 4)"), "nobody followed it");
}

#[test]
fn a_version_that_refuses_the_configuration_moves_nothing() {
    let plant = Plant::start_with(2, "in-process", TRIAL, &[("BUSBAR_TEST_FAULT", "check")]);
    let mark = plant.observer.mark();
    let file = built::folder().join("libbusbar_driver_bad_version.so");
    let done = plant.gateway.cli(&["plugin", "upgrade", "modbus", file.to_str().unwrap()]);
    assert_eq!(done.code, Some(2), "{done:?}");
    for part in
        ["refused, nothing was moved", "device m00", "device m01", "/points/1/address", "of the new kind"]
    {
        assert!(done.err.contains(part), "{part}: {done:?}");
    }
    assert!(!plant.gateway.log().contains("trial begins"));
    plant.nobody_noticed(mark, "");
}

/// kill -9 of the host in the middle of a trial: it starts on the accepted version and says so.
#[test]
fn a_host_killed_during_a_trial_starts_the_version_before() {
    let mut plant = Plant::start(4, "in-process", Duration::from_secs(20));
    let first = plant.accepted("modbus");
    plant.plugins.install(MODBUS, &Plugins::variant(MODBUS, 3));
    until("a device to move", PATIENCE * 2, || plant.gateway.log().contains("is good (").then_some(()));
    plant.gateway.restart();
    plant.is_well();
    assert_eq!(plant.accepted("modbus"), first);
    assert_eq!(plugin(&plant.gateway, "modbus")["sha256"], first);
    let versions = plant.versions("modbus");
    let said = versions["failed"]["reason"].as_str().unwrap();
    assert!(said.contains("middle of its trial"), "{versions}");
    assert!(plant.gateway.log().contains("the version before it is started"));
}

/// While the host was down somebody put another file there: the accepted version starts, the file is tried afterwards.
#[test]
fn a_file_that_changed_while_the_host_was_down_is_tried_after_the_start() {
    let mut plant = Plant::start(2, "process", Duration::from_secs(2));
    let first = plant.accepted("modbus");
    let none = plant.gateway.cli(&["plugin", "rollback", "modbus"]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.err.contains("no version before"), "{none:?}");
    plant.gateway.process.kill();
    plant.plugins.install(MODBUS, &Plugins::variant(MODBUS, 5));
    plant.gateway.restart();
    assert_eq!(plugin(&plant.gateway, "modbus")["sha256"], first, "what is accepted starts");
    let mark = plant.observer.mark();
    until("the file to be tried and accepted", PATIENCE * 2, || {
        let versions = plant.versions("modbus");
        (versions["previous"]["sha256"] == first && versions["trial"].is_null()).then_some(())
    });
    plant.is_well();
    plant.nobody_noticed(mark, "other/n");

    // A private copy that is gone: the deployed file, with a clear line.
    let second = plant.accepted("modbus");
    plant.gateway.process.kill();
    let copy = plant.gateway.site.dir.path().join(format!("data/plugins/modbus/{second}.so"));
    fs::remove_file(copy).unwrap();
    plant.plugins.install(MODBUS, &Plugins::variant(MODBUS, 6));
    plant.gateway.restart();
    plant.is_well();
    assert!(plant.gateway.log().contains("cannot be used"), "it is said");
    assert_ne!(plant.accepted("modbus"), second);
}

/// A driver that could not be loaded at the start is repaired by a file.
#[test]
fn a_driver_that_was_refused_at_the_start_is_repaired_by_a_file() {
    let mut plant = Plant::start(2, "in-process", Duration::from_secs(2));
    plant.gateway.process.kill();
    fs::remove_dir_all(plant.gateway.site.dir.path().join("data/plugins")).unwrap();
    plant.plugins.install(MODBUS, b"not a plugin");
    plant.gateway.restart();
    assert_eq!(plugin(&plant.gateway, "modbus")["state"], "failed");
    let mark = plant.observer.mark();
    plant.plugins.install(MODBUS, &Plugins::variant(MODBUS, 0));
    until("the good file to be accepted", PATIENCE * 2, || {
        (!plant.accepted("modbus").is_empty()).then_some(())
    });
    plant.is_well();
    plant.nobody_noticed(mark, "other/n");
    assert_eq!(plugin(&plant.gateway, "modbus")["state"], "running");
}

/// A sink under load: every value that the devices served arrives, in order.
#[test]
fn a_sink_is_replaced_without_loss() {
    let plant = Plant::start(5, "in-process", TRIAL);
    let mark = plant.observer.mark();
    plant.replace("mqtt", MQTT, &Plugins::variant(MQTT, 1), PATIENCE * 3);
    let row = plugin(&plant.gateway, "mqtt");
    assert_eq!(row["isolation"], "in-process", "{row}");
    // Let what is under way arrive.
    let end = plant.observer.mark();
    plant.observer.wait_all("more values", PATIENCE, |messages| (messages.len() > end + 200).then_some(()));
    for number in 0..5 {
        let topic = format!("busbar/{HOST}/m{number:02}/a");
        let values: Vec<u64> = plant
            .observer
            .since(mark, &topic)
            .iter()
            .map(|message| message.payload["value"].as_f64().unwrap() as u64)
            .collect();
        let mut seen = values.clone();
        seen.sort_unstable();
        seen.dedup();
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        assert_eq!(seen.len() as u64, last - first + 1, "{topic}: every request's value arrives: {values:?}");
    }
    plant.nobody_noticed(mark, "m");
    plant.nobody_noticed(mark, "other");
}

/// Rounds of v1 -> v2 -> v1 with twenty meters: no gap longer than two intervals (and one tick of the busy machine).
#[allow(clippy::print_stdout, reason = "the figures are what the long form is run for")]
pub(crate) fn rounds(count: usize) {
    let plant = Plant::start(20, "in-process", Duration::from_secs(4));
    let memory = || {
        let kib = |key| plant.gateway.process.status(key);
        format!("{} kB ({} anonymous)", kib("VmRSS"), kib("RssAnon"))
    };
    let before = memory();
    let mark = plant.observer.mark();
    for round in 0..count {
        // Forth and back; the long form takes a new file each time, which is what stays in memory.
        let number = if count > MANY { round } else { round % 2 };
        plant.replace("modbus", MODBUS, &Plugins::variant(MODBUS, 1 + number), PATIENCE * 4);
    }
    plant.nobody_noticed(mark, "");
    plant.is_well();
    let (gap, topic, at) = plant.longest_gap(mark, "/a");
    // What the machine itself did meanwhile shows at the device that nobody moved.
    let (other, _, _) = plant.longest_gap(mark, "/n");
    let after = memory();
    let time = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() % 86_400.0;
    println!(
        "{count} upgrades, longest gap {gap:?} of {topic} at {:02}:{:02}:{:06.3}, of the untouched device {other:?}, \
         memory {before} -> {after}",
        time as u32 / 3600,
        time as u32 / 60 % 60,
        time % 60.0
    );
    assert!(gap <= POLL * 2 + other.saturating_sub(POLL).max(ALLOWANCE), "longest gap {gap:?} of {topic}");
    let devices = plant.gateway.api("/api/v1/devices");
    for device in devices.as_array().unwrap() {
        assert_eq!(device["counters"]["losses"], 0, "{device}");
    }
}

/// Distinct files that one process loads (ARCHITECTURE.md, "Upgrade of a plugin"); three of them are there at the start.
const LOADS: usize = 64;

/// So many versions of one driver, one after another, in the host's process as long as there is room.
pub(crate) fn fill(count: usize) {
    let plant = Plant::start(1, "in-process", Duration::from_secs(1));
    let pid = plant.gateway.process.id();
    let file = plant.gateway.site.dir.path().join("next.so");
    for number in 1..=count {
        fs::write(&file, Plugins::variant(MODBUS, 1000 + number)).unwrap();
        let done = plant.gateway.cli(&["plugin", "upgrade", "modbus", "next.so"]).expect(0);
        let row = plugin(&plant.gateway, "modbus");
        let fits = 3 + number <= LOADS;
        assert_eq!(row["worker_pid"].is_null(), fits, "version {number}: {row}");
        let said = done.text().contains("64 plugin versions are loaded in this process");
        assert_eq!(said, !fits, "version {number}: {done:?}");
        plant.is_well();
    }
    assert_eq!(plant.gateway.process.id(), pid);
}

/// More upgrades than these are run to see what they cost in memory.
const MANY: usize = 20;

/// What a message may be late on a machine that compiles beside the test.
const ALLOWANCE: Duration = Duration::from_millis(200);
