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
    sync::{Arc, Mutex, PoisonError},
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
use super::threads::join_or_tell;

/// Requests of operators that may wait (G9).
const MAX_REQUESTS: usize = 8;
/// Lines of progress that an operator may leave unread.
const MAX_PROGRESS: usize = 4_096;
/// A host that lived so long with a promoted version has not died of it.
const SURVIVED: Duration = Duration::from_secs(60);
/// After the start the devices get this long to come online before deployed files are looked at: a trial proves the more
/// the more is good when it begins.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// At the stop the thread gets this long: a probe that it waits for has a time limit of its own.
const END_TIME: Duration = Duration::from_secs(10);

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

/// What runs of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    /// See [`active::key`].
    pub(crate) key: String,
    pub(crate) sha256: String,
    /// As it calls itself.
    pub(crate) version: String,
    /// The deployed file.
    pub(crate) file: PathBuf,
}

impl Runs {
    pub(crate) fn of(plugin: &model::Plugin, probed: &Probed) -> Self {
        Self {
            key: key(plugin.kind, &plugin.name),
            sha256: probed.staged.sha256.clone(),
            version: probed.describe.version.clone(),
            file: probed.staged.source.clone(),
        }
    }
}

/// What a reload changed for the thread.
#[derive(Debug, Default)]
pub(crate) struct Reloaded {
    /// `[host] watch_plugins`.
    pub(crate) watch: bool,
    /// `[host] upgrade_timeout`.
    pub(crate) timeout: Duration,
    /// Plugins that it brought; as many as are configured at most.
    pub(crate) brought: Vec<Runs>,
    /// Accepted versions that were to be used for them, by key.
    pub(crate) copies: BTreeMap<String, String>,
}

/// What reaches the thread.
pub(crate) struct Orders {
    requests: Receiver<Request>,
    told: Receiver<()>,
    reloaded: Arc<Mutex<Option<Reloaded>>>,
}

/// The way to the thread; cheap to clone.
#[derive(Clone)]
pub struct Upgrades {
    requests: Sender<Request>,
    /// A place for one: what is told lies in `reloaded`.
    tell: Sender<()>,
    reloaded: Arc<Mutex<Option<Reloaded>>>,
    /// What is known.
    pub board: Arc<Board>,
}

impl Upgrades {
    pub(crate) fn new() -> (Self, Orders) {
        let (requests, taken) = bounded(MAX_REQUESTS);
        let (tell, told) = bounded(1);
        let reloaded: Arc<Mutex<Option<Reloaded>>> = Arc::default();
        let orders = Orders { requests: taken, told, reloaded: Arc::clone(&reloaded) };
        (Self { requests, tell, reloaded, board: Arc::default() }, orders)
    }

    /// Another configuration is in force. Does not wait; the thread hears of it when its upgrade is over.
    pub(crate) fn reloaded(&self, news: Reloaded) {
        let mut slot = self.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slot.get_or_insert_default();
        (known.watch, known.timeout) = (news.watch, news.timeout);
        known.brought.retain(|runs| news.brought.iter().all(|new| new.key != runs.key));
        known.brought.extend(news.brought);
        known.copies.extend(news.copies);
        drop(slot);
        // Full: it was told already and did not look yet.
        let _ = self.tell.try_send(());
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
        orders: Orders,
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
        let runs = plugins.iter().zip(probed);
        let runs = runs.filter_map(|(plugin, probed)| Some(Runs::of(plugin, probed.as_ref().ok()?)));
        for runs in runs {
            first_time(&mut active, &mut history, &beginning.copies, &runs);
        }
        if let Err(error) = active.write(&settings.data_dir) {
            tracing::error!("{error}");
        }
        board.show(&active, &history);
        let (stop, stopped) = bounded(0);
        let upgrader = Upgrader::new(settings, active, history, board, Box::new(bridge), stopped.clone());
        let thread = std::thread::Builder::new()
            .name("busbar-upgrade".into())
            .spawn(move || Thread { upgrader, orders, stopped, next_look: Instant::now() + FIRST_LOOK }.run())
            .map_err(|error| format!("the upgrade thread could not be started: {error}"))?;
        Ok(Self { stop, thread })
    }

    /// After the core thread has ended. Waits at most [`END_TIME`].
    pub(crate) fn finish(self) {
        drop(self.stop);
        join_or_tell("the upgrade thread", self.thread, Instant::now() + END_TIME);
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

/// What runs without having been accepted before is accepted: the first start with a plugin, or the reload that brought
/// it, a file that replaced the copy of the accepted version that is gone, a pinned version. True when that was news.
fn first_time(
    active: &mut Active,
    history: &mut History,
    copies: &BTreeMap<String, String>,
    runs: &Runs,
) -> bool {
    let Runs { key, sha256, version, file } = runs;
    let record = active.plugin.entry(key.clone()).or_default();
    if record.accepted.sha256 == *sha256 {
        return false;
    }
    let version = active::Version { sha256: sha256.clone(), version: version.clone(), since: history::now() };
    let reason = if copies.contains_key(key) {
        let before = &record.accepted;
        format!(
            "the private copy of version {} ({}) cannot be used; {} is used instead",
            before.version,
            before.sha256,
            file.display()
        )
    } else {
        String::new()
    };
    if !reason.is_empty() {
        tracing::error!(plugin = key, "{reason}");
    }
    history.add(Event::new(key, "first", &version.version, sha256, &reason));
    record.fresh = None;
    record.deployed.clone_from(sha256);
    record.accept(version);
    true
}

struct Thread {
    upgrader: Upgrader,
    orders: Orders,
    stopped: Receiver<()>,
    next_look: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            let until = if self.upgrader.is_awake() { self.next_look } else { Instant::now() + SURVIVED };
            crossbeam_channel::select! {
                recv(self.orders.requests) -> request => match request {
                    Ok(request) => self.serve(request),
                    Err(_) => break,
                },
                recv(self.orders.told) -> _ => self.hear(),
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

    fn hear(&mut self) {
        let news = self.orders.reloaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(news) = news {
            self.upgrader.reloaded(news);
        }
    }

    fn look(&mut self) {
        if Instant::now() >= self.next_look {
            self.upgrader.look();
            self.next_look = Instant::now() + LOOK_EVERY;
        }
    }
}
