//! Upgrades of plugins while the gateway runs (ARCHITECTURE.md, "Upgrade of a plugin"): one thread that may wait for
//! files, probes and hand-overs. It watches the deployed files, takes the requests of operators, runs one upgrade at a
//! time ([`procedure`]), and is the only writer of `active.toml` and of the history of versions.

pub mod active;
pub mod begin;
pub mod board;
pub(crate) mod bridge;
mod check;
mod failure;
pub mod history;
mod procedure;
mod watch;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use busbar_core::model;
use busbar_loader::{Launcher, Probed};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::mpsc;

pub use self::board::{Board, Trial, Versions};
use self::{
    active::{Active, key},
    begin::Beginning,
    bridge::Bridge,
    history::{Event, History},
    procedure::Upgrader,
    watch::LOOK_EVERY,
};

/// Requests of operators that may wait (G9).
const MAX_REQUESTS: usize = 8;
/// Lines of progress that an operator may leave unread.
const MAX_PROGRESS: usize = 4_096;
/// A host that lived so long with a promoted version has not died of it.
const SURVIVED: Duration = Duration::from_secs(60);
/// After the start the devices get this long to come online before deployed files are looked at: a trial proves the more
/// the more is good when it begins.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// What the thread works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Locked by the caller.
    pub data_dir: PathBuf,
    /// Private copies of plugins.
    pub stage_dir: PathBuf,
    /// Where new versions appear.
    pub plugin_dirs: Vec<PathBuf>,
    /// New files are tried by themselves.
    pub watch: bool,
    /// Length of a trial.
    pub timeout: Duration,
    /// How probes are started.
    pub launcher: Launcher,
}

/// What an operator asks.
pub(crate) enum What {
    /// Try this file.
    File(PathBuf),
    /// Back to the version before.
    Previous,
}

pub(crate) struct Request {
    key: String,
    what: What,
    who: String,
    progress: mpsc::Sender<Progress>,
}

/// What an operator hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step.
    Step(String),
    /// The end: what runs now, or why it is as before.
    End(Result<String, String>),
}

/// The way to the thread; cheap to clone.
#[derive(Clone)]
pub struct Upgrades {
    requests: Sender<Request>,
    /// What is known.
    pub board: Arc<Board>,
}

impl Upgrades {
    pub(crate) fn new() -> (Self, Receiver<Request>) {
        let (requests, taken) = bounded(MAX_REQUESTS);
        (Self { requests, board: Arc::default() }, taken)
    }

    pub(crate) fn ask(
        &self,
        plugin: &model::Plugin,
        what: What,
        who: &str,
    ) -> Result<mpsc::Receiver<Progress>, String> {
        let (progress, steps) = mpsc::channel(MAX_PROGRESS);
        let key = key(plugin.kind, &plugin.name);
        match self.requests.try_send(Request { key, what, who: who.to_owned(), progress }) {
            Ok(()) => Ok(steps),
            Err(TrySendError::Full(_)) => {
                Err(format!("expected at most {MAX_REQUESTS} upgrades to wait: try again later"))
            }
            Err(TrySendError::Disconnected(_)) => Err("upgrades are not possible here".into()),
        }
    }
}

/// The running thread.
pub struct Service {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Writes what the start decided, and begins to watch. To be called before any plugin is loaded: the death of a host
    /// that a promoted version kills while it loads must have been announced on disk.
    pub(crate) fn start(
        settings: Settings,
        beginning: Beginning,
        (plugins, probed): (&[model::Plugin], &[Result<Probed, String>]),
        bridge: Bridge,
        board: Arc<Board>,
        requests: Receiver<Request>,
    ) -> Result<Self, String> {
        let mut history = History::open(&settings.data_dir);
        let mut active = beginning.active;
        for note in &beginning.notes {
            tracing::warn!("{note}");
        }
        complete(&active, &mut history);
        for event in beginning.events {
            tracing::error!(plugin = event.plugin, version = event.version, "{}", event.reason);
            history.add(event);
        }
        first_time(&mut active, &mut history, &beginning.copies, plugins, probed);
        if let Err(error) = active.write(&settings.data_dir) {
            tracing::error!("{error}");
        }
        board.show(&active, &history);
        let (stop, stopped) = bounded(0);
        let upgrader = Upgrader::new(settings, active, history, board, Box::new(bridge), stopped.clone());
        let thread = std::thread::Builder::new()
            .name("busbar-upgrade".into())
            .spawn(move || {
                Thread { upgrader, requests, stopped, next_look: Instant::now() + FIRST_LOOK }.run()
            })
            .map_err(|error| format!("the upgrade thread could not be started: {error}"))?;
        Ok(Self { stop, thread })
    }

    /// After the core thread has ended.
    pub(crate) fn finish(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// A host that died between the two writes of an acceptance: `active.toml` has it, the history ends with the trial.
fn complete(active: &Active, history: &mut History) {
    for (key, record) in &active.plugin {
        let version = &record.accepted;
        let last = history
            .of(key)
            .rfind(|event| {
                event.sha256 == version.sha256
                    && ["first", "trial", "accepted"].contains(&event.event.as_str())
            })
            .map(|event| event.event == "trial");
        if last == Some(true) {
            let reason = "written at the start: the host ended right after it had accepted this version";
            history.add(Event::new(key, "accepted", &version.version, &version.sha256, reason));
        }
    }
}

/// What runs without having been accepted before is accepted: the first start with a plugin, a file that replaced the
/// copy of the accepted version that is gone, a pinned version.
fn first_time(
    active: &mut Active,
    history: &mut History,
    copies: &BTreeMap<String, String>,
    plugins: &[model::Plugin],
    probed: &[Result<Probed, String>],
) {
    for (plugin, probed) in plugins.iter().zip(probed) {
        let Ok(probed) = probed else { continue };
        let key = key(plugin.kind, &plugin.name);
        let record = active.plugin.entry(key.clone()).or_default();
        let sha256 = &probed.staged.sha256;
        if record.accepted.sha256 == *sha256 {
            continue;
        }
        let version = active::Version {
            sha256: sha256.clone(),
            version: probed.describe.version.clone(),
            since: history::now(),
        };
        let reason = if copies.contains_key(&key) {
            let file = probed.staged.source.display();
            let before = &record.accepted;
            format!(
                "the private copy of version {} ({}) cannot be used; {file} is used instead",
                before.version, before.sha256
            )
        } else {
            String::new()
        };
        if !reason.is_empty() {
            tracing::error!(plugin = key, "{reason}");
        }
        history.add(Event::new(&key, "first", &version.version, sha256, &reason));
        record.fresh = None;
        record.deployed.clone_from(sha256);
        record.accept(version);
    }
}

struct Thread {
    upgrader: Upgrader,
    requests: Receiver<Request>,
    stopped: Receiver<()>,
    next_look: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            let until = if self.upgrader.is_awake() { self.next_look } else { Instant::now() + SURVIVED };
            crossbeam_channel::select! {
                recv(self.requests) -> request => match request {
                    Ok(request) => self.serve(request),
                    Err(_) => break,
                },
                recv(self.stopped) -> _ => break,
                default(until.saturating_duration_since(Instant::now())) => {}
            }
            self.look();
        }
        self.upgrader.end();
    }

    fn serve(&mut self, request: Request) {
        let Request { key, what, who, progress } = request;
        let said = progress.clone();
        let say = move |text: &str| {
            // Whoever does not read misses a line.
            let _ = said.try_send(Progress::Step(text.to_owned()));
        };
        let result = match what {
            What::File(file) => self.upgrader.try_file(&key, &file, &who, &say),
            What::Previous => self.upgrader.try_previous(&key, &who, &say),
        };
        let _ = progress.try_send(Progress::End(result.map_err(|failure| failure.to_string())));
    }

    fn look(&mut self) {
        if Instant::now() >= self.next_look {
            self.upgrader.look();
            self.next_look = Instant::now() + LOOK_EVERY;
        }
    }
}
