//! The thread that owns the disk: audit log and durable state.
//!
//! The core never waits for a disk. It queues a job without blocking and gets the outcome as an input; a full queue is
//! an outcome too (commands are then refused, state puts fail), so a hanging disk stops neither acquisition nor sinks.
//! Audit lines that wait together are written and synced together.

use std::{path::Path, thread::JoinHandle, time::Instant};

use busbar_core::{Input, output::StoreAction};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::{
    audit::AuditLog,
    journal::CLOSE_TIME,
    store::Store,
    threads::{End, join_until},
};

/// Jobs waiting for the disk.
const QUEUED_JOBS: usize = 1024;
/// Audit lines written with one sync.
const LINES_PER_SYNC: usize = 256;

/// Something to do on disk.
#[derive(Debug)]
pub(crate) enum Job {
    /// Write one audit line.
    Audit { audit: u64, line: Json },
    /// Work on the durable state.
    Store { store: u64, owner: String, key: String, action: StoreAction },
    /// Remove everything of an owner, for an operator; the answer is how many entries there were.
    Clear { owner: String, answer: oneshot::Sender<Result<usize, String>> },
}

/// The disk thread. Dropping the handle ends it after the jobs already queued.
#[derive(Debug)]
pub(crate) struct Disk {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts the thread; `answer` carries outcomes back and may block.
    pub(crate) fn start(
        data_dir: &Path,
        store: Store,
        answer: impl FnMut(Input) + Send + 'static,
    ) -> Result<Self, String> {
        let (jobs, queue) = bounded(QUEUED_JOBS);
        let audit = AuditLog::new(data_dir);
        let thread = std::thread::Builder::new()
            .name("busbar-disk".into())
            .spawn(move || work(&queue, audit, store, answer))
            .map_err(|error| format!("the disk thread could not be started: {error}"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job; gives back the outcome at once when it cannot be queued.
    pub(crate) fn submit(&self, job: Job) -> Option<Input> {
        let refused = self.jobs.as_ref().map(|jobs| jobs.try_send(job))?;
        let (job, why) = match refused {
            Ok(()) => return None,
            Err(TrySendError::Full(job)) => (job, "the disk is too slow: its queue is full"),
            Err(TrySendError::Disconnected(job)) => (job, "the disk thread has ended"),
        };
        match job {
            Job::Audit { audit, .. } => Some(Input::Audited { audit, error: why.to_owned() }),
            Job::Store { store, .. } => Some(Input::Stored { store, result: Err(why.to_owned()) }),
            Job::Clear { answer, .. } => {
                let _ = answer.send(Err(why.to_owned()));
                None
            }
        }
    }

    /// Waits until every queued job is done, for a bounded time; false when the disk does not answer.
    pub(crate) fn finish(mut self) -> bool {
        self.jobs = None;
        self.thread.take().is_none_or(|thread| join_until(thread, Instant::now() + CLOSE_TIME) != End::Hangs)
    }
}

fn work(queue: &Receiver<Job>, mut audit: AuditLog, mut store: Store, mut answer: impl FnMut(Input)) {
    let mut next = queue.recv().ok();
    while let Some(job) = next.take() {
        match job {
            Job::Audit { audit: number, line } => {
                next = write_lines(queue, &mut audit, (number, line), &mut answer);
            }
            Job::Store { store: number, owner, key, action } => {
                let result = match action {
                    StoreAction::Put(value) => store.put(&owner, &key, &value).map(|()| None),
                    StoreAction::Get => store.get(&owner, &key),
                    StoreAction::Delete => store.delete(&owner, &key).map(|()| None),
                };
                reply_unless_nobody(number, &mut answer, |store| Input::Stored { store, result });
            }
            Job::Clear { owner, answer } => {
                let _ = answer.send(store.clear(&owner));
            }
        }
        if next.is_none() {
            next = queue.recv().ok();
        }
    }
    store.close();
}

/// Writes `first` and the audit lines right behind it; gives back the job that ended the row.
fn write_lines(
    queue: &Receiver<Job>,
    audit: &mut AuditLog,
    first: (u64, Json),
    answer: &mut impl FnMut(Input),
) -> Option<Job> {
    let (mut numbers, mut lines) = (vec![first.0], vec![first.1]);
    let mut other = None;
    while other.is_none() && lines.len() < LINES_PER_SYNC {
        match queue.try_recv() {
            Ok(Job::Audit { audit, line }) => {
                numbers.push(audit);
                lines.push(line);
            }
            Ok(job) => other = Some(job),
            Err(_) => break,
        }
    }
    let error = audit.append(&lines).err().unwrap_or_default();
    if !error.is_empty() {
        tracing::error!("{error}; commands are refused until it can be written");
    }
    for number in numbers {
        reply_unless_nobody(number, answer, |audit| Input::Audited { audit, error: error.clone() });
    }
    other
}

/// Number 0 means that nobody waits.
fn reply_unless_nobody(number: u64, answer: &mut impl FnMut(Input), input: impl FnOnce(u64) -> Input) {
    if number != 0 {
        answer(input(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn outcomes_come_back_in_order_and_nothing_is_lost_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, outcomes) = sync_channel(QUEUED_JOBS);
        let disk = Disk::start(dir.path(), Store::new(dir.path()), move |input| sender.send(input).unwrap())
            .unwrap();
        let put = |store, action| Job::Store { store, owner: "host".into(), key: "k".into(), action };
        for job in [
            Job::Audit { audit: 1, line: json!({"n": 1}) },
            Job::Audit { audit: 0, line: json!({"n": 2}) },
            put(2, StoreAction::Put(b"v".to_vec())),
            put(3, StoreAction::Get),
            Job::Audit { audit: 4, line: json!({"n": 3}) },
            put(5, StoreAction::Delete),
            put(6, StoreAction::Get),
        ] {
            assert!(disk.submit(job).is_none());
        }
        disk.finish();
        let text: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
        assert_eq!(
            text,
            [
                "Audited { audit: 1, error: \"\" }",
                "Stored { store: 2, result: Ok(None) }",
                "Stored { store: 3, result: Ok(Some([118])) }",
                "Audited { audit: 4, error: \"\" }",
                "Stored { store: 5, result: Ok(None) }",
                "Stored { store: 6, result: Ok(None) }",
            ]
        );
        let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
        assert_eq!(log, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    }

    #[test]
    fn a_hanging_disk_is_an_outcome_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, open) = sync_channel::<()>(0);
        let disk = Disk::start(dir.path(), Store::new(dir.path()), move |_| {
            let _ = open.recv();
        })
        .unwrap();
        let refused = (1..).find_map(|audit| disk.submit(Job::Audit { audit, line: json!({}) }));
        assert!(matches!(refused, Some(Input::Audited { error, .. }) if error.contains("queue is full")));
        assert!(!disk.finish(), "left behind, and nobody waits for ever");
        drop(gate);
    }
}
