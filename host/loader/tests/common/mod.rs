//! What the loader's tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod artifacts;
#[path = "../../../../driver-api/tests/common/build.rs"]
pub mod build;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use busbar_contract::{
    Cause, Event, Request,
    binary::Read,
    describe::{InitOptions, Open},
};
use busbar_loader::{
    Admission, Arrival, Expect, HostCallbacks, Instance, Isolation, Launcher, LoadError, LogEntry, Plugin,
    Probed, Push, Pushed, Staged, probe, stage,
};
use tempfile::TempDir;

pub use artifacts::bad_plugin;

/// Far beyond anything that should happen; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn launcher() -> Launcher {
    Launcher::program(artifacts::loader_child())
}

pub fn stage_dir() -> TempDir {
    tempfile::Builder::new().prefix("busbar-stage-").tempdir().unwrap()
}

/// Stages and probes a file.
pub fn stage_and_probe(dir: &TempDir, name: &str, file: &Path) -> Result<Probed, LoadError> {
    let staged: Staged = stage(dir.path(), name, file, None)?;
    probe(&launcher(), &staged, Expect::default())
}

/// A loaded plugin with the directory its copy lives in.
pub fn load(name: &str, isolation: Isolation) -> (Plugin, TempDir) {
    let dir = stage_dir();
    let probed = stage_and_probe(&dir, name, &bad_plugin(name)).unwrap_or_else(|error| panic!("{error}"));
    let plugin = Plugin::load(&probed, isolation, &launcher()).unwrap_or_else(|error| panic!("{error}"));
    (plugin, dir)
}

/// What a refusal must look like: one short line that names the file.
#[track_caller]
pub fn assert_sentence(error: &LoadError, file: &Path, words: &[&str]) {
    let text = error.to_string();
    assert!(text.len() < 200, "{} bytes: {text}", text.len());
    assert!(!text.contains('\n') && !text.contains(char::is_control), "{text:?}");
    let name = file.file_name().unwrap().to_string_lossy();
    assert!(text.starts_with(&*name), "does not name {name}: {text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// What the host heard, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Push(u64, Push),
    Event(u64, u64, Arrival),
    Log(u64, LogEntry),
    Down(String),
}

/// A host that remembers.
#[derive(Default)]
pub struct Recorder {
    heard: Mutex<VecDeque<Heard>>,
    changed: Condvar,
    refuse: AtomicBool,
    congested: AtomicBool,
    panic: AtomicBool,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses batches from now on.
    pub fn refuse(&self, on: bool) {
        self.refuse.store(on, Ordering::SeqCst);
    }

    /// Asks to slow down from now on.
    pub fn congested(&self, on: bool) {
        self.congested.store(on, Ordering::SeqCst);
    }

    /// Panics in every callback from now on.
    pub fn panic(&self, on: bool) {
        self.panic.store(on, Ordering::SeqCst);
    }

    fn note(&self, heard: Heard) {
        assert!(!self.panic.load(Ordering::SeqCst), "the host's own bug");
        self.heard.lock().unwrap().push_back(heard);
        self.changed.notify_all();
    }

    /// Waits for something; what came before it is forgotten.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut heard = self.heard.lock().unwrap();
        let mut passed = Vec::new();
        loop {
            while let Some(next) = heard.pop_front() {
                if let Some(found) = wanted(&next) {
                    return found;
                }
                passed.push(next);
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what}; heard {passed:#?}");
            heard = self.changed.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// Waits for the completion of a request, or another event with its number.
    #[track_caller]
    pub fn answer(&self, inst: u64, req: u64) -> Arrival {
        self.wait("answer", |heard| match heard {
            Heard::Event(i, r, arrival) if (*i, *r) == (inst, req) => Some(arrival.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub fn event(&self, inst: u64, wanted: &Event) {
        self.wait("event", |heard| match heard {
            Heard::Event(i, _, Arrival::Event(event)) => (*i == inst && event == wanted).then_some(()),
            _ => None,
        });
    }

    #[track_caller]
    pub fn push(&self, inst: u64, id: u64) -> Push {
        self.wait("push", |heard| match heard {
            Heard::Push(i, push) if (*i, push.id) == (inst, id) => Some(push.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub fn down(&self) -> String {
        self.wait("down", |heard| match heard {
            Heard::Down(reason) => Some(reason.clone()),
            _ => None,
        })
    }
}

impl HostCallbacks for Recorder {
    fn push(&self, inst: u64, push: Push) -> Pushed {
        if self.refuse.load(Ordering::SeqCst) {
            return Pushed::Refused(push);
        }
        self.note(Heard::Push(inst, push));
        if self.congested.load(Ordering::SeqCst) { Pushed::Congested } else { Pushed::Accepted }
    }

    fn event(&self, inst: u64, req: u64, arrival: Arrival) -> Admission {
        self.note(Heard::Event(inst, req, arrival));
        Admission::Accepted
    }

    fn log(&self, inst: u64, entry: LogEntry) {
        self.note(Heard::Log(inst, entry));
    }

    fn down(&self, reason: &str) {
        self.note(Heard::Down(reason.to_owned()));
    }
}

pub fn start(plugin: &Plugin) -> Arc<Recorder> {
    let host = Recorder::new();
    let started = plugin.init(Arc::<Recorder>::clone(&host), &InitOptions::default());
    started.unwrap_or_else(|error| panic!("{error}"));
    host
}

pub fn endpoint(name: &str) -> Open {
    Open::Driver { endpoint: name.into(), connection: serde_json::Value::Null }
}

/// Opens an instance and waits for OPENED.
#[track_caller]
pub fn open(plugin: &Plugin, host: &Recorder, inst: u64) -> Instance {
    let instance = plugin.open(inst, &endpoint("x")).unwrap_or_else(|error| panic!("{error}"));
    host.event(inst, &Event::Opened);
    instance
}

pub fn read(group: u32) -> Request {
    Request::Read(Read { group, deadline_ms: 1000, cause: Cause::Poll })
}
