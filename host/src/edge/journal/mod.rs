//! Queues on disk: one writer thread per sink, the only owner of its file.
//!
//! ```text
//!  core thread --JournalOpen, Journal, JournalLoad--> [ jobs, bounded ] --> writer thread --> data_dir/queue/SINK.db
//!                      ^                                                        |
//!                      +----- JournalOpened, Journaled, JournalLoaded ----------+
//! ```
//!
//! The core asks for one transaction and one load at a time, so the jobs are few and the core thread never waits: what
//! does not fit is refused at once and the core offers it again. Operators' questions go the same way, in turn.
//!
//! A file is known by the name of its sink, not by a number: after a reload the same sink may have another number, and
//! the answer goes to the number that asked.

pub(crate) mod left;
mod writer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use busbar_core::{
    Input,
    journal::{NotCommitted, Transaction},
    model::{Queue, Sink, Site},
};
use busbar_queue::{File, Limits};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use super::{
    clock::Clock,
    threads::{End, join_until},
};

/// Jobs waiting for one writer: the core's three, and operators' questions.
const QUEUED_JOBS: usize = 16;
/// Longest wait for files to close at the stop.
pub(crate) const CLOSE_TIME: Duration = Duration::from_secs(3);
/// Directory of the files within `data_dir`.
const DIR: &str = "queue";

/// Something to do with a file.
pub(crate) enum Job {
    /// Open or make it, or open it anew.
    Open { sink: usize, queue: Queue },
    /// Write one transaction.
    Commit { sink: usize, transaction: Box<Transaction>, limits: Limits },
    /// Read waiting records.
    Load { sink: usize, from: u64, records: usize, bytes: usize },
    /// A question of an operator; `None`: the file is not open.
    Ask(Asked),
    /// What an operator decided about parked records; the answer is how many there were.
    Decide { numbers: Vec<u64>, decision: Decision, answer: oneshot::Sender<Result<u64, String>> },
}

/// What becomes of parked records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They wait again.
    Retry,
    /// They are given up, and counted as discarded.
    Discard,
}

/// What an operator wants to know.
pub(crate) type Asked = Box<dyn FnOnce(Option<&mut File>) + Send>;

/// What the core asks of a file.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// `Output::JournalOpen`.
    Open,
    /// `Output::Journal`.
    Commit(Box<Transaction>),
    /// `Output::JournalLoad`.
    Load {
        /// First number.
        from: u64,
        /// About so many records.
        records: usize,
        /// About so many bytes.
        bytes: usize,
    },
}

/// Where the answers go.
type Answer = Arc<dyn Fn(Input) + Send + Sync>;

/// The writers of all sinks; shared with whoever asks for operators.
pub(crate) struct Journals {
    dir: PathBuf,
    clock: Clock,
    answer: Answer,
    writers: Mutex<HashMap<String, Writer>>,
    /// One look at files that nobody owns at a time.
    looking: Mutex<()>,
}

struct Writer {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Journals {
    /// No thread and no file before the core asks.
    pub(crate) fn new(
        data_dir: &Path,
        clock: Clock,
        answer: impl Fn(Input) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            dir: data_dir.join(DIR),
            clock,
            answer: Arc::new(answer),
            writers: Mutex::default(),
            looking: Mutex::default(),
        })
    }

    /// Hands what the core wants to the writer of `config`; gives back the outcome at once when that is not possible.
    pub(crate) fn submit(&self, sink: usize, config: &Sink, wanted: Wanted) -> Option<Input> {
        let queue = config.queue;
        let limits = Limits { max_bytes: queue.max_bytes, max_age: queue.max_age };
        let number = if let Wanted::Commit(transaction) = &wanted { transaction.number } else { 0 };
        let (open, load) = (matches!(wanted, Wanted::Open), matches!(wanted, Wanted::Load { .. }));
        let job = match wanted {
            Wanted::Open => Job::Open { sink, queue },
            Wanted::Commit(transaction) => Job::Commit { sink, transaction, limits },
            Wanted::Load { from, records, bytes } => Job::Load { sink, from, records, bytes },
        };
        let text = self.send(&config.name, job, open).err()?;
        Some(if open {
            Input::JournalOpened { sink, result: Err(text) }
        } else if load {
            Input::JournalLoaded { sink, result: Err(text) }
        } else {
            Input::Journaled { sink, number, result: Err(NotCommitted { full: false, text }) }
        })
    }

    /// Asks the writer of the sink `name`; an error when it has no queue on disk.
    pub(crate) fn ask(&self, name: &str, ask: Asked) -> Result<(), String> {
        self.send(name, Job::Ask(ask), false)
    }

    /// Files that none of the sinks `configured` owns. Reads the disk.
    pub(crate) fn left(&self, configured: &[String]) -> Vec<left::Left> {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        // A sink that a reload removed may still write its last records.
        let busy: Vec<String> =
            self.writers.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        left::left(&self.dir, configured, &busy)
    }

    /// Has the writer of the sink `name` carry out a decision.
    pub(crate) fn decide(
        &self,
        name: &str,
        numbers: Vec<u64>,
        decision: Decision,
        answer: oneshot::Sender<Result<u64, String>>,
    ) -> Result<(), String> {
        self.send(name, Job::Decide { numbers, decision, answer }, false)
    }

    fn send(&self, name: &str, job: Job, start: bool) -> Result<(), String> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread that ended left its file closed: a new one may open it.
        if writers.get(name).is_some_and(|writer| writer.thread.is_finished()) {
            writers.remove(name);
        }
        if start && !writers.contains_key(name) {
            writers.insert(name.to_owned(), self.start(name)?);
        }
        let Some(writer) = writers.get(name) else {
            return Err(format!("the sink {name} has no queue on disk"));
        };
        writer.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                format!("the disk is too slow: the queue file of {name} has too much to do")
            }
            TrySendError::Disconnected(_) => format!("the thread of the queue file of {name} has ended"),
        })
    }

    fn start(&self, name: &str) -> Result<Writer, String> {
        let (jobs, queue): (_, Receiver<Job>) = bounded(QUEUED_JOBS);
        let writer = writer::Work {
            name: name.to_owned(),
            path: file_of(&self.dir, name),
            clock: self.clock,
            answer: Arc::clone(&self.answer),
            file: None,
            sink: 0,
        };
        let thread = std::thread::Builder::new()
            .name(format!("queue-{name}"))
            .spawn(move || writer.run(&queue))
            .map_err(|error| {
                format!("the thread of the queue file of {name} could not be started: {error}")
            })?;
        Ok(Writer { jobs, thread })
    }

    /// Waits until every job is done and every file is closed, for at most [`CLOSE_TIME`]: a disk that does not answer holds
    /// up no stop. Gives back the sinks whose files were left as they are; what was not answered may or may not be in them.
    pub(crate) fn finish(&self) -> Vec<String> {
        let writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        let threads: Vec<(String, JoinHandle<()>)> =
            writers.into_iter().map(|(name, writer)| (name, writer.thread)).collect();
        let until = Instant::now() + CLOSE_TIME;
        threads
            .into_iter()
            .filter_map(|(name, thread)| (join_until(thread, until) == End::Hangs).then_some(name))
            .collect()
    }
}

fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.db"))
}

/// Decides which queues are on disk: where the plugin's sink is durable, where `queue` is configured, and where a file is
/// left from before, so that nothing in it is forgotten. `durable` answers by the name of a plugin, as far as it is known.
pub(crate) fn place(site: &mut Site, data_dir: &Path, durable: impl Fn(&str) -> bool) {
    for sink in &mut site.sinks {
        let left = file_of(&data_dir.join(DIR), &sink.name).exists();
        sink.queue.on_disk = sink.queue.on_disk || left || durable(&sink.plugin);
    }
}

#[cfg(test)]
mod tests;
