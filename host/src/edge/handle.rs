//! The way from the outside (API, control socket, command line) to the core thread. Every wait is bounded.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use busbar_contract::Origin;
use busbar_core::{Core, Now, input::Ask, output::Reply};
use busbar_loader::BoundaryStats;
use busbar_queue::File;
use tokio::sync::{mpsc, oneshot};

use crate::reload::{Answer, Wish};

use super::{
    core_thread::Turns,
    frames::Frame,
    inbox::{Inbox, Item},
    journal::{Decision, Journals},
    names::Names,
    operators::{Asked, MAX_UNREAD},
    plugins::{News, Registry},
    reload::{NewConfig, Wanted},
    upgrade::{Board, Progress, Reloaded, Upgrades, What},
};

/// Longest wait for the core thread to answer a question; it answers within a turn, so this means that it hangs.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Longest wait for a queue file: a slow disk may be busy with a large transaction.
const QUEUE_TIME: Duration = Duration::from_secs(20);

/// Parked records of one transaction of an operator's decision.
const DECIDED_AT_ONCE: usize = 500;

/// The core thread did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the core did not answer within {} s: the host is overloaded or hangs", ANSWER_TIME.as_secs())]
pub struct NotAnswered;

/// Facts about a plugin that the core does not know.
#[derive(Debug, Clone, Default)]
pub struct PluginFacts {
    /// The deployed file.
    pub file: PathBuf,
    /// Its hash; empty while unknown.
    pub sha256: String,
    /// Version of waist and protocol.
    pub abi: String,
    /// One sentence of its maker.
    pub description: String,
    /// Pid of its worker process.
    pub worker_pid: Option<u32>,
    /// Resident memory of its worker process, bytes.
    pub worker_memory: Option<u64>,
    /// Private memory that its worker may have, bytes; `None`: it runs in the host's process.
    pub memory_limit: Option<u64>,
    /// Times its worker was started again.
    pub restarts: u64,
    /// When its worker died last, seconds since 1970 UTC, and why.
    pub last_death: Option<(i64, String)>,
    /// What was wrong with what it said.
    pub boundary: BoundaryStats,
}

/// Figures of the core thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct TurnFigures {
    /// Wake-ups.
    pub turns: u64,
    /// Inputs taken.
    pub inputs: u64,
    /// Longest turn, seconds.
    pub longest_seconds: f64,
    /// Inputs waiting now.
    pub waiting: usize,
}

/// The way to the core; cheap to clone.
#[derive(Clone)]
pub struct CoreHandle {
    inbox: Arc<Inbox>,
    registry: Arc<Registry>,
    turns: Arc<Turns>,
    names: Arc<Names>,
    journals: Arc<Journals>,
    upgrades: Upgrades,
    wishes: mpsc::Sender<Wish>,
}

/// The frames of one device while this lives; then the driver's switch is as it was.
pub struct FrameWatch {
    core: CoreHandle,
    device: String,
    id: u64,
    frames: mpsc::Receiver<Frame>,
}

impl FrameWatch {
    /// The next frame.
    pub async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }
}

impl Drop for FrameWatch {
    fn drop(&mut self) {
        self.core.names.frames.unwatch(self.id);
        // A host that is so full that it takes no request has worse troubles than a few log records.
        let _ = self.core.switch_frames(&self.device);
    }
}

/// Answers to one request.
pub struct Replies(mpsc::Receiver<Reply>);

impl Replies {
    /// The next answer; `None` when there will be no further one.
    pub async fn next(&mut self) -> Option<Reply> {
        self.0.recv().await
    }

    /// The same for a thread without a runtime.
    pub fn next_blocking(&mut self) -> Option<Reply> {
        self.0.blocking_recv()
    }
}

impl CoreHandle {
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        registry: Arc<Registry>,
        turns: Arc<Turns>,
        names: Arc<Names>,
        journals: Arc<Journals>,
        upgrades: Upgrades,
        wishes: mpsc::Sender<Wish>,
    ) -> Self {
        Self { inbox, registry, turns, names, journals, upgrades, wishes }
    }

    /// Reads the files again and applies what differs, or only tells it. Takes as long as it takes.
    pub async fn wish_reload(&self, dry_run: bool, origin: Origin) -> Answer {
        let refused = |error: &str| Answer { error: error.to_owned(), dry_run, ..Answer::default() };
        let (answer, answered) = oneshot::channel();
        match self.wishes.try_send(Wish { dry_run, origin, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| refused("the host is stopping")),
            Err(mpsc::error::TrySendError::Full(_)) => {
                refused("too many reloads wait already: try again later")
            }
            Err(mpsc::error::TrySendError::Closed(_)) => refused("this process takes no reload"),
        }
    }

    /// Gives a checked configuration to the core.
    pub(crate) fn reload(&self, config: NewConfig) -> Result<Replies, NotAnswered> {
        let (replies, answers) = mpsc::channel(MAX_UNREAD);
        if self.inbox.try_send(Item::Reload(Box::new(Wanted { config, replies }))).is_some() {
            return Err(NotAnswered);
        }
        Ok(Replies(answers))
    }

    /// Log level of all plugins, now and when they start again.
    pub(crate) fn set_log_level(&self, level: &str) {
        let news = News::LogLevel { level: level.to_owned() };
        // A host that is so full that it takes no request has worse troubles than its log level.
        let _ = self.inbox.try_send(Item::News(Box::new(news)));
    }

    /// Tells the upgrade thread what a reload changed for it.
    pub(crate) fn tell_upgrades(&self, news: Reloaded) {
        self.upgrades.reloaded(news);
    }

    /// Versions of plugins.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.upgrades.board)
    }

    /// Tries another version of a plugin: a file, or without one the version before. `Err` is for the operator.
    pub fn upgrade(
        &self,
        plugin: &busbar_core::model::Plugin,
        file: Option<PathBuf>,
        who: &str,
    ) -> Result<mpsc::Receiver<Progress>, String> {
        self.upgrades.ask(plugin, file.map_or(What::Previous, What::File), who)
    }

    /// Logs the frames of a device, or no longer. The device is known.
    pub fn log_frames(&self, device: &str, on: bool) -> Result<Replies, NotAnswered> {
        self.names.frames.log(device, on);
        self.switch_frames(device)
    }

    /// Watches the frames of a device; `Err` is for the operator. The device is known.
    pub fn watch_frames(&self, device: &str) -> Result<FrameWatch, String> {
        let Some((id, frames)) = self.names.frames.watch(device) else {
            return Err("too many people watch frames already: end one of them".to_owned());
        };
        let watch = FrameWatch { core: self.clone(), device: device.to_owned(), id, frames };
        self.switch_frames(device).map(|_| watch).map_err(|error| error.to_string())
    }

    fn switch_frames(&self, device: &str) -> Result<Replies, NotAnswered> {
        self.ask(Ask::FrameLog(device.to_owned(), self.names.frames.wanted(device)))
    }

    /// Starts the worker of a plugin again; `Err` is for the operator.
    pub async fn restart_plugin(&self, plugin: usize, origin: Origin) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let news = News::Restart { plugin, origin: Box::new(origin), answer };
        if self.inbox.try_send(Item::News(Box::new(news))).is_some() {
            return Err(NotAnswered.to_string());
        }
        match tokio::time::timeout(ANSWER_TIME, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(NotAnswered.to_string()),
        }
    }

    /// Asks the queue file of the sink `sink`, in turn with the core's own work on it.
    pub async fn ask_queue<T: Send + 'static>(
        &self,
        sink: &str,
        ask: impl FnOnce(&mut File) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (sender, answer) = oneshot::channel();
        self.journals.ask(
            sink,
            Box::new(move |file| {
                let _ = sender.send(file.map(ask));
            }),
        )?;
        match tokio::time::timeout(QUEUE_TIME, answer).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(_) => Err(format!("the queue file of {sink} is not open")),
            Err(_) => Err(format!("the disk did not answer within {} s", QUEUE_TIME.as_secs())),
        }
    }

    /// Sinks in the order of the configuration, then the queue files that no sink owns.
    pub async fn sinks(&self) -> Result<Vec<serde_json::Value>, NotAnswered> {
        let asked = self.query(|core, _| {
            let names = core.site().sinks.iter().map(|sink| sink.name.clone());
            (crate::rows::sinks(core), names.collect::<Vec<String>>())
        });
        let (mut rows, names) = asked.await?;
        let journals = Arc::clone(&self.journals);
        let left = tokio::task::spawn_blocking(move || journals.left(&names));
        // A disk that does not answer must not hide what is known.
        if let Ok(Ok(left)) = tokio::time::timeout(QUEUE_TIME, left).await {
            rows.extend(left.iter().map(crate::rows::left_queue));
        }
        Ok(rows)
    }

    /// Carries out an operator's decision about all records that are parked now at the sink `sink`; audited. Gives back
    /// how many there were.
    pub async fn decide_parked(&self, sink: &str, decision: Decision, origin: Origin) -> Result<u64, String> {
        let event = match decision {
            Decision::Retry => "parked_retry",
            Decision::Discard => "parked_discard",
        };
        self.audit(event, sink, origin)?;
        let (mut from, mut count) = (0, 0);
        loop {
            let parked = self.ask_queue(sink, move |file| file.parked(from, DECIDED_AT_ONCE)).await??;
            let numbers: Vec<u64> = parked.iter().map(|record| record.number).collect();
            let Some(last) = numbers.last() else { return Ok(count) };
            // A record that is refused again keeps its number: it is not met twice.
            from = last.saturating_add(1);
            let (sender, answer) = oneshot::channel();
            self.journals.decide(sink, numbers, decision, sender)?;
            count += match tokio::time::timeout(QUEUE_TIME, answer).await {
                Ok(Ok(decided)) => decided?,
                Ok(Err(_)) => return Err("the host is stopping".to_owned()),
                Err(_) => return Err(format!("the disk did not answer within {} s", QUEUE_TIME.as_secs())),
            };
        }
    }

    /// Forgets the stored state of `owner`; audited. Gives back how many entries there were.
    pub async fn clear_state(&self, owner: &str, origin: Origin) -> Result<usize, String> {
        self.audit("state_clear", owner, origin)?;
        let (answer, answered) = oneshot::channel();
        let news = News::ClearState { owner: owner.to_owned(), answer };
        if self.inbox.try_send(Item::News(Box::new(news))).is_some() {
            return Err(NotAnswered.to_string());
        }
        match tokio::time::timeout(QUEUE_TIME, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(format!("the disk did not answer within {} s", QUEUE_TIME.as_secs())),
        }
    }

    fn audit(&self, event: &'static str, about: &str, origin: Origin) -> Result<(), String> {
        let news = News::Audit { event, about: about.to_owned(), origin: Box::new(origin) };
        let refused = self.inbox.try_send(Item::News(Box::new(news)));
        if refused.is_some() { Err(NotAnswered.to_string()) } else { Ok(()) }
    }

    /// Looks at the core between two steps. `look` must be short: acquisition waits for it.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, Now) -> T + Send + 'static,
    ) -> Result<T, NotAnswered> {
        let answer = self.post(look)?;
        match tokio::time::timeout(ANSWER_TIME, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(NotAnswered),
        }
    }

    /// The same for a thread without a runtime.
    pub fn query_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, Now) -> T + Send + 'static,
    ) -> Result<T, NotAnswered> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        let look = Box::new(move |core: &Core, now| {
            let _ = sender.send(look(core, now));
        });
        if self.inbox.try_send(Item::Query(look)).is_some() {
            return Err(NotAnswered);
        }
        answer.recv_timeout(ANSWER_TIME).map_err(|_| NotAnswered)
    }

    fn post<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core, Now) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, NotAnswered> {
        let (sender, answer) = oneshot::channel();
        let look = Box::new(move |core: &Core, now| {
            // The one who asked may have given up.
            let _ = sender.send(look(core, now));
        });
        if self.inbox.try_send(Item::Query(look)).is_some() {
            return Err(NotAnswered);
        }
        Ok(answer)
    }

    /// Sends a request of an operator.
    pub fn ask(&self, ask: Ask) -> Result<Replies, NotAnswered> {
        let (replies, answers) = mpsc::channel(MAX_UNREAD);
        if self.inbox.try_send(Item::Ask(Box::new(Asked { ask, replies }))).is_some() {
            return Err(NotAnswered);
        }
        Ok(Replies(answers))
    }

    /// Facts by plugin index.
    #[must_use]
    pub fn plugin_facts(&self) -> Vec<PluginFacts> {
        self.registry.facts()
    }

    /// Figures of the core thread.
    #[must_use]
    pub fn turns(&self) -> TurnFigures {
        TurnFigures {
            turns: self.turns.turns.load(Ordering::Relaxed),
            inputs: self.turns.inputs.load(Ordering::Relaxed),
            longest_seconds: self.turns.longest_ns.load(Ordering::Relaxed) as f64 / 1e9,
            waiting: self.inbox.depth(),
        }
    }

    pub(crate) fn send(&self, item: Item) {
        self.inbox.send(item);
    }
}
