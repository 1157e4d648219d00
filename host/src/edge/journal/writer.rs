//! The thread of one file.

use std::{path::PathBuf, time::Instant};

use busbar_core::{
    Input,
    journal::{Committed, Loaded, NotCommitted, Recovered, Transaction},
    model::Queue,
};
use busbar_queue::{File, Limits, Now, Options};
use crossbeam_channel::Receiver;

use super::{Answer, Decision, Job};
use crate::edge::clock::{Clock, synchronised};

/// What the thread owns.
pub(super) struct Work {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) clock: Clock,
    pub(super) answer: Answer,
    pub(super) file: Option<File>,
    /// The number under which the core asked last.
    pub(super) sink: usize,
}

impl Work {
    /// Works until nobody can ask any more, then closes the file.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        for job in jobs {
            self.work(job);
        }
        self.close();
    }

    fn work(&mut self, job: Job) {
        if let Job::Open { sink, .. } | Job::Commit { sink, .. } | Job::Load { sink, .. } = &job {
            self.sink = *sink;
        }
        let input = match job {
            Job::Open { sink, queue } => Input::JournalOpened { sink, result: self.open(&queue) },
            Job::Commit { sink, transaction, limits } => {
                let number = transaction.number;
                Input::Journaled { sink, number, result: self.commit(&transaction, limits) }
            }
            Job::Load { sink, from, records, bytes } => {
                Input::JournalLoaded { sink, result: self.load(from, records, bytes) }
            }
            Job::Ask(ask) => {
                ask(self.file.as_mut());
                return self.tell_notes();
            }
            Job::Decide { numbers, decision, answer } => {
                let decided = self.decide(&numbers, decision);
                self.tell_notes();
                // Whoever asked may be gone.
                let _ = answer.send(decided);
                return;
            }
        };
        self.tell_notes();
        (self.answer)(input);
    }

    /// A file that is open is closed first: the core begins anew with it.
    fn open(&mut self, queue: &Queue) -> Result<Recovered, String> {
        self.close();
        let limits = Limits { max_bytes: queue.max_bytes, max_age: queue.max_age };
        let options = Options { limits, sync: queue.sync, now: self.now() };
        let begun = Instant::now();
        let (file, recovered) = File::open(&self.path, &options).map_err(|refused| refused.text)?;
        self.file = Some(file);
        tracing::info!(
            sink = self.name,
            waiting = recovered.ledger.pending,
            parked = recovered.ledger.parked.values().sum::<u64>(),
            "queue {} opened in {} ms",
            self.path.display(),
            begun.elapsed().as_millis()
        );
        Ok(recovered)
    }

    fn commit(&mut self, transaction: &Transaction, limits: Limits) -> Result<Committed, NotCommitted> {
        let now = self.now();
        let file = self.file.as_mut().ok_or_else(|| NotCommitted { full: false, text: not_open() })?;
        file.set_limits(limits);
        file.set_wall(now.wall_ns, now.synchronised);
        file.commit(transaction)
    }

    fn load(&mut self, from: u64, records: usize, bytes: usize) -> Result<Loaded, String> {
        self.file.as_mut().ok_or_else(not_open)?.load(from, records, bytes)
    }

    fn decide(&mut self, numbers: &[u64], decision: Decision) -> Result<u64, String> {
        let file = self.file.as_mut().ok_or_else(not_open)?;
        if decision == Decision::Discard {
            return file.discard_parked(numbers).map(|(count, _)| count).map_err(|refused| refused.text);
        }
        let (again, committed) = file.retry_parked(numbers).map_err(|refused| refused.text)?;
        let count = again.rows.len() as u64;
        // In the order in which the file did it: the core's own answers come before and after.
        (self.answer)(Input::JournalAgain { sink: self.sink, ledger: committed.ledger, again });
        Ok(count)
    }

    fn close(&mut self) {
        if let Some(Err(error)) = self.file.take().map(File::close) {
            tracing::warn!(sink = self.name, "{error}");
        }
    }

    /// What a salvage at run time has to say; at an opening the core tells it.
    fn tell_notes(&mut self) {
        for note in self.file.iter_mut().flat_map(File::take_notes) {
            tracing::error!(sink = self.name, "{note}");
        }
    }

    fn now(&self) -> Now {
        let now = self.clock.now();
        Now { mono_ns: now.mono_ns, wall_ns: now.wall_ns, synchronised: synchronised() }
    }
}

fn not_open() -> String {
    "the queue file is not open".to_owned()
}
