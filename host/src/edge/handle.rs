//! The way from the outside (API, control socket, command line) to the core thread. Every wait is bounded.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use busbar_core::{Core, Now, input::Ask, output::Reply};
use busbar_loader::BoundaryStats;
use tokio::sync::{mpsc, oneshot};

use super::{
    core_thread::Turns,
    inbox::{Inbox, Item},
    operators::{Asked, MAX_UNREAD},
    plugins::Registry,
};

/// Longest wait for the core thread to answer a question; it answers within a turn, so this means that it hangs.
const ANSWER_TIME: Duration = Duration::from_secs(2);

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
    pub(crate) fn new(inbox: Arc<Inbox>, registry: Arc<Registry>, turns: Arc<Turns>) -> Self {
        Self { inbox, registry, turns }
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
