//! kill -9 of the host at every step of an upgrade, and at random moments: it starts on an accepted version, everything is
//! good again, no file is half-written, and the history says what happened.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use busbar_tests::built;
use busbar_tests::proc::Process;
use busbar_tests::wait::{PATIENCE, load_for, until};
use serde_json::Value;

use super::{MODBUS, Plant, Plugins};
use crate::shared::plugin;

/// Of every trial here: some polls.
const TRIAL: Duration = Duration::from_secs(2);
/// Random moments; an upgrade takes about six seconds.
const MOMENTS: usize = 6;

/// When the host is killed.
enum Moment {
    /// As soon as the command says this, for the so-many-th time.
    Said(&'static str, usize),
    /// As soon as a file of this version lies among the private copies, whole or not.
    Staged,
    /// As soon as `active.toml` has a trial.
    Trial,
    /// As soon as `active.toml` accepts the new version.
    Accepted,
    /// So long after the command began.
    After(Duration),
    /// So long after the trial began.
    OnTrial(Duration),
}

impl Plant {
    fn folder(&self) -> PathBuf {
        self.gateway.site.dir.path().join("data/plugins")
    }

    /// What `active.toml` says of modbus; it can be read at any moment.
    fn on_disk(&self) -> toml::Value {
        let text = fs::read_to_string(self.folder().join("active.toml")).unwrap();
        let whole: toml::Value = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        whole["plugin"]["driver/modbus"].clone()
    }

    fn accepted_on_disk(&self) -> String {
        self.on_disk()["accepted"]["sha256"].as_str().unwrap().to_owned()
    }

    /// Begins an upgrade, and kills the host at this moment, or at the end where the moment never comes.
    fn killed_at(&mut self, moment: &Moment, bytes: &[u8]) {
        let file = self.gateway.site.dir.path().join("next.so");
        fs::write(&file, bytes).unwrap();
        let (before, copies) = (self.accepted_on_disk(), self.copies());
        let mut child = Command::new(built::gateway())
            .args(["plugin", "upgrade", "modbus", "next.so"])
            .current_dir(self.gateway.site.dir.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut command = Process::new("plugin upgrade", child);
        let begin = Instant::now();
        let mut goes_on = || command.ended().is_none() && begin.elapsed() < PATIENCE;
        match moment {
            Moment::Said(word, times) => {
                let mut left = *times;
                let mut said = Vec::new();
                for line in lines {
                    left -= usize::from(line.contains(word));
                    said.push(line);
                    if left == 0 {
                        break;
                    }
                }
                assert_eq!(left, 0, "{word:?} was not said: {said:#?}");
            }
            Moment::Staged => while self.copies() == copies && goes_on() {},
            Moment::Trial => while self.on_disk().get("trial").is_none() && goes_on() {},
            Moment::Accepted => while self.accepted_on_disk() == before && goes_on() {},
            Moment::After(span) => load_for(*span),
            Moment::OnTrial(span) => {
                while self.on_disk().get("trial").is_none() && goes_on() {}
                load_for(*span);
            }
        }
        self.gateway.process.kill();
    }

    /// Names in the folder of private copies.
    fn copies(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.folder().join("modbus")) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Every file that has its final name is whole.
    fn files_are_whole(&self) {
        for name in self.copies() {
            let Some(sha256) = name.strip_suffix(".so").filter(|_| !name.starts_with('.')) else { continue };
            let path = self.folder().join("modbus").join(&name);
            let output = Command::new("sha256sum").arg(path).output().unwrap();
            let sum = String::from_utf8(output.stdout).unwrap();
            assert!(sum.starts_with(sha256), "{name} is not what its name says: {sum}");
        }
        let _ = self.on_disk();
        let history = fs::read_to_string(self.folder().join("history.jsonl")).unwrap();
        for line in history.lines() {
            let _: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }

    /// After a kill: the host starts on what is accepted on disk, everything is good again, the history knows.
    fn recovers(&mut self, what: &str) {
        self.files_are_whole();
        let disk = self.on_disk();
        let text = |version: &toml::Value| version["sha256"].as_str().unwrap().to_owned();
        let trial = disk.get("trial").map(text);
        // The second death within a minute of a promotion means the version before it.
        let died_twice = disk.get("fresh").is_some_and(|fresh| fresh["deaths"].as_integer() == Some(1));
        let accepted = text(&disk[if died_twice { "previous" } else { "accepted" }]);
        self.gateway.restart();
        self.is_well();
        assert_eq!(self.accepted("modbus"), accepted, "{what}");
        assert_eq!(plugin(&self.gateway, "modbus")["sha256"], accepted, "{what}: what is accepted runs");
        self.files_are_whole();
        let history = self.gateway.cli(&["plugins", "--history", "modbus", "--json"]).expect(0).json();
        let events = history.as_array().unwrap();
        let has = |event: &str, sha256: &str, word: &str| {
            let text = |found: &Value, key: &str| found[key].as_str().unwrap_or_default().to_owned();
            events.iter().any(|found| {
                text(found, "event") == event
                    && text(found, "sha256") == sha256
                    && text(found, "reason").contains(word)
            })
        };
        if let Some(trial) = trial {
            assert!(has("previous", &trial, "middle of its trial"), "{what}: {history}");
            assert!(self.on_disk().get("trial").is_none(), "{what}: the trial is over");
        }
        if died_twice {
            assert!(has("previous", &text(&disk["accepted"]), "died 2 times"), "{what}: {history}");
        }
        let came = has("first", &accepted, "") || has("accepted", &accepted, "");
        assert!(came, "{what}: how the accepted version came: {history}");
    }

    /// What was being copied when the host was killed is gone after the next upgrade.
    fn leaves_nothing_behind(&mut self, bytes: &[u8]) {
        self.killed_at(&Moment::Said("accepted", 1), bytes);
        self.recovers("one more");
        let left: Vec<String> = self.copies().into_iter().filter(|name| !name.ends_with(".so")).collect();
        assert!(left.is_empty(), "{left:?} is left behind");
    }
}

#[test]
fn a_host_killed_at_any_step_of_an_upgrade_starts_on_an_accepted_version() {
    let mut plant = Plant::start(3, "in-process", TRIAL);
    let said = Moment::Said;
    let steps = [
        ("being staged", Moment::Staged),
        ("probed", said("sha256", 1)),
        ("checked", said("accepts the configuration", 1)),
        ("the trial is on disk", Moment::Trial),
        ("the trial runs in a worker", said("trial in a worker", 1)),
        ("the canary moved", said("(1 of 3)", 1)),
        ("the second endpoint moved", said("(2 of 3)", 1)),
        ("everything moved", said("(3 of 3)", 1)),
        ("the move into the host begins", said("moves into the host", 1)),
        ("the first endpoint is in the host", said("(1 of 3)", 2)),
        ("everything is in the host", said("(3 of 3)", 2)),
        ("acceptance is on disk", Moment::Accepted),
        ("accepted", said("accepted", 1)),
    ];
    for (number, (what, moment)) in steps.iter().enumerate() {
        plant.killed_at(moment, &Plugins::variant(MODBUS, 100 + number));
        plant.recovers(what);
    }
    plant.leaves_nothing_behind(&Plugins::variant(MODBUS, 99));
}

#[allow(clippy::print_stdout, reason = "the seed of a run")]
#[test]
fn a_host_killed_at_random_moments_of_upgrades_and_rollbacks() {
    let seed = std::env::var("BUSBAR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let mut seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("BUSBAR_TEST_SEED={seed}");
    let mut plant = Plant::start_with(3, "in-process", TRIAL, &[("BUSBAR_TEST_FAULT", "wrong")]);
    let bad = fs::read(built::folder().join("libbusbar_driver_bad_version.so")).unwrap();
    for number in 0..MOMENTS {
        // Knuth's linear congruential generator.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let span = Duration::from_millis((seed >> 33) % 6000);
        if number % 2 == 0 {
            plant.killed_at(&Moment::After(span), &Plugins::variant(MODBUS, 200 + number));
        } else {
            // The bad version is found out after some polls; then everything returns.
            let bytes = [bad.as_slice(), format!("variant {number}").as_bytes()].concat();
            plant.killed_at(&Moment::OnTrial(span / 2), &bytes);
        }
        plant.recovers(&format!("moment {number}, {span:?}"));
    }
}

/// A version that is good until it is accepted, and then kills the host: once is no pattern, twice means the version before.
#[test]
fn a_version_that_kills_the_host_twice_after_its_promotion_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("now");
    let fault = format!("late:{}", file.display());
    let mut plant = Plant::start_with(2, "in-process", TRIAL, &[("BUSBAR_TEST_FAULT", &fault)]);
    let first = plant.accepted("modbus");
    let next = built::folder().join("libbusbar_driver_bad_version.so");
    let done = plant.gateway.cli(&["plugin", "upgrade", "modbus", next.to_str().unwrap()]).expect(0);
    let second = plant.accepted("modbus");
    assert_ne!(first, second, "{done:?}");

    fs::write(&file, "").unwrap();
    let death = |plant: &mut Plant| {
        until("the host to die of it", PATIENCE, || plant.gateway.process.ended()).to_string()
    };
    assert!(death(&mut plant).contains("SIGSEGV"));
    plant.gateway.relaunch();
    assert!(
        death(&mut plant).contains("SIGSEGV"),
        "once is no pattern: the accepted version is started again"
    );
    assert_eq!(plant.accepted_on_disk(), second);
    plant.gateway.restart();
    plant.is_well();
    assert_eq!(plant.accepted("modbus"), first);
    let versions = plant.versions("modbus");
    assert!(versions["failed"]["reason"].as_str().unwrap().contains("died 2 times"), "{versions}");
    let history = plant.gateway.cli(&["plugins", "--history", "modbus", "--json"]).expect(0).json();
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["event"].as_str(), last["sha256"].as_str()),
        (Some("previous"), Some(second.as_str())),
        "{last}"
    );
}
