//! The file of a sink's queue, seen from the core: opened, written one transaction at a time, asked again after a failure
//! (G7). What is gathered in between is in `journaling.rs`, what is read back in `backlog.rs`.
//!
//! When a transaction leaves: `flush.every` after the oldest record that is neither confirmed nor on disk was accepted, or
//! with `flush.records` such records, or as soon as the one before it is answered. While the far side confirms faster than
//! that, nothing is ever written but counters, once a second.
//!
//! Numbers: the file says where they begin, and the first transaction reserves them before anything is delivered, so that
//! a number never comes back with another record, whatever crashes. Until the file is open records wait; if it cannot be
//! opened they are delivered from memory under numbers of their own, and get their place in the file when it can.

use busbar_contract::value::rfc3339;

use crate::{
    Core, Output,
    arena::{Id, SinkId},
    backoff,
    device::clipped,
    journal::{Committed, Name, NotCommitted, Recovered},
    journaling::{COUNTERS_NS, Journal, Phase},
    model::Backoff,
    output::LogLevel,
    queue::Record,
    rows::rows,
    sink::{Sink, SinkPhase},
    time::{MS, SECOND, ns},
    timers::Timer,
};

/// Pauses between attempts to open the file.
const REOPEN: Backoff =
    Backoff { initial: std::time::Duration::from_secs(1), max: std::time::Duration::from_secs(30) };
/// Nothing is delivered before the file is open, for at most so long.
const PATIENCE_NS: u64 = 10 * SECOND;
/// Pauses after a transaction that failed: the first, the longest.
const PAUSE_NS: u64 = 100 * MS;
const MAX_PAUSE_NS: u64 = 5 * SECOND;
/// A disk that answers nothing for so long does not answer. Longer than any sync that ends.
const SILENT_NS: u64 = 10 * SECOND;
/// While something waits in the file it hears of the time that passes.
const IDLE_NS: u64 = 10 * SECOND;
/// The last transactions of a removed sink may take so long, its stop included.
const CLOSE_NS: u64 = 15 * SECOND;
/// The last transactions of a stopping gateway may take so long.
pub(crate) const LAST_NS: u64 = 3 * SECOND;

impl Core {
    pub(crate) fn start_journals(&mut self) {
        for sink in self.sinks.ids() {
            self.wake_journal(sink, self.now.mono_ns);
        }
    }

    pub(crate) fn wake_journal(&mut self, sink: SinkId, at_ns: u64) {
        let Some(journal) = &mut self.sinks[sink].journal else { return };
        if journal.timer_ns == 0 || at_ns < journal.timer_ns {
            journal.timer_ns = self.timers.arm(at_ns.max(1), Timer::Journal(sink));
        }
    }

    pub(crate) fn journal_timer(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let Some(journal) = &mut self.sinks[sink].journal else { return };
        if journal.timer_ns == 0 || journal.timer_ns > now_ns {
            return;
        }
        journal.timer_ns = 0;
        if journal.wake_ns <= now_ns {
            match journal.phase {
                Phase::Closed => self.open_journal(sink),
                Phase::Opening | Phase::Reserving => journal.meanwhile = true,
                Phase::Open => {}
            }
        }
        self.mark_sink(sink);
    }

    fn open_journal(&mut self, sink: SinkId) {
        if self.has_predecessor(sink) {
            // One owner per file: a sink of this name that a reload removed is still writing its last transaction.
            let at_ns = self.now.mono_ns + SECOND;
            if let Some(journal) = &mut self.sinks[sink].journal {
                journal.wake_ns = at_ns;
            }
            return self.wake_journal(sink, at_ns);
        }
        if let Some(journal) = &mut self.sinks[sink].journal {
            journal.phase = Phase::Opening;
            journal.opening_ns = self.now.mono_ns;
            journal.wake_ns = self.now.mono_ns + PATIENCE_NS;
            self.out.push(Output::JournalOpen { sink: sink.number() as usize });
        }
    }

    pub(crate) fn journal_opened(&mut self, sink: usize, result: Result<Recovered, String>) {
        let Some(sink) = self.sinks.at(sink) else { return };
        let waits = self.sinks[sink].journal.as_ref().is_some_and(|journal| journal.phase == Phase::Opening);
        if !waits {
            self.oddities.unexpected += 1;
            return;
        }
        self.disk_answered(sink);
        match result {
            Ok(recovered) => self.journal_is_open(sink, &recovered),
            Err(text) => self.journal_not_opened(sink, text),
        }
        self.mark_sink(sink);
    }

    fn journal_is_open(&mut self, sink: SinkId, recovered: &Recovered) {
        let now_ns = self.now.mono_ns;
        self.sinks[sink].adopt(recovered, now_ns);
        if let Some(journal) = &mut self.sinks[sink].journal {
            journal.wake_ns = now_ns + PATIENCE_NS;
        }
        for note in &recovered.notes {
            self.queue_log(sink, LogLevel::Warn, note);
        }
        if recovered.ledger.pending > 0 {
            let text = format!("{} records wait on disk to be delivered", recovered.ledger.pending);
            self.queue_log(sink, LogLevel::Info, &text);
        }
        self.offer(sink, true);
    }

    fn journal_not_opened(&mut self, sink: SinkId, text: String) {
        let attempts = self.sinks[sink].journal.as_ref().map_or(0, |journal| journal.attempts);
        let pause_ns = backoff::pause(&REOPEN, attempts, &mut self.rng);
        if let Some(journal) = &mut self.sinks[sink].journal {
            journal.phase = Phase::Closed;
            journal.meanwhile = true;
            journal.attempts = attempts.saturating_add(1);
            journal.wake_ns = self.now.mono_ns + pause_ns;
            journal.reason = clipped(format!("the queue is in memory only: {text}"));
        }
        let text = format!("its queue's file cannot be opened, records wait in memory only: {text}");
        self.queue_log(sink, LogLevel::Error, &text);
    }

    /// What a queue on disk needs after each step: records read back, a transaction sent, a wake-up.
    pub(crate) fn tend(&mut self, sink: SinkId) {
        if self.sinks[sink].journal.is_none() {
            return;
        }
        self.load(sink);
        let now_ns = self.now.mono_ns;
        match self.sinks[sink].flush_due(now_ns) {
            Some(due) if due.at_ns <= now_ns => self.offer(sink, due.records),
            _ => {}
        }
        if let Some(at_ns) = self.sinks[sink].journal_wake(now_ns) {
            self.wake_journal(sink, at_ns);
        }
    }

    /// Sends a transaction: all records not on disk, or only ends and counters.
    fn offer(&mut self, sink: SinkId, records: bool) {
        let state = &self.sinks[sink];
        let Some(journal) = &state.journal else { return };
        let next = state.queue.next_number();
        let mut open: Vec<(u64, &Record)> = Vec::new();
        let mut upto = next;
        if records {
            open.extend(state.queue.open_from(journal.committed));
            let fresh = open.len();
            open.extend(journal.kept());
            if open.len() > fresh {
                open.sort_unstable_by_key(|(number, _)| *number);
            }
        } else if let Some((first, _)) = state.queue.first_open(journal.committed) {
            upto = first;
        }
        let rows = rows(&open);
        let unnamed = journal.unnamed(&open);
        let names: Vec<(u32, Name)> =
            unnamed.into_iter().map(|point| (point, self.journal_name(sink, point))).collect();
        let now_ns = self.now.mono_ns;
        if let Some(journal) = &mut self.sinks[sink].journal {
            let transaction = journal.offer(rows, names, (upto, next), now_ns);
            if records {
                journal.fresh = 0;
            }
            self.out
                .push(Output::Journal { sink: sink.number() as usize, transaction: Box::new(transaction) });
        }
    }

    pub(crate) fn journaled(&mut self, sink: usize, number: u64, result: Result<Committed, NotCommitted>) {
        let Some(sink) = self.sinks.at(sink) else { return };
        self.disk_answered(sink);
        let known = match result {
            Ok(committed) => self.sinks[sink].take_commit(number, committed, self.now.mono_ns),
            Err(error) => self.not_committed(sink, number, &error),
        };
        if !known {
            self.oddities.unexpected += 1;
            return;
        }
        if let Some(journal) =
            self.sinks[sink].journal.as_mut().filter(|journal| journal.phase == Phase::Reserving)
        {
            journal.phase = Phase::Open;
            journal.meanwhile = false;
        }
        self.mark_sink(sink);
    }

    fn not_committed(&mut self, sink: SinkId, number: u64, error: &NotCommitted) -> bool {
        let now_ns = self.now.mono_ns;
        let state = &mut self.sinks[sink];
        let Some(journal) = &mut state.journal else { return false };
        if !journal.fail(number) {
            return false;
        }
        journal.fresh = state.queue.open_from(journal.committed).count();
        let pause_ns = (PAUSE_NS << (journal.failures - 1).min(10)).min(MAX_PAUSE_NS);
        journal.paused_until_ns = now_ns + pause_ns;
        journal.full = error.full;
        let text = if error.full { "the disk is full" } else { "the queue's file cannot be written" };
        journal.reason = clipped(format!("records wait in memory only: {text}: {}", error.text));
        let text = format!("{text}, records wait in memory and it is tried again: {}", error.text);
        self.queue_log(sink, LogLevel::Error, &text);
        true
    }

    pub(crate) fn queue_log(&mut self, sink: SinkId, level: LogLevel, text: &str) {
        let code = if level == LogLevel::Error { "queue" } else { "queue note" };
        self.queue_log_as(sink, level, code, text);
    }

    /// `code`: what is left out when it comes too often, together.
    pub(crate) fn queue_log_as(&mut self, sink: SinkId, level: LogLevel, code: &'static str, text: &str) {
        let name =
            self.site.sinks.get(sink.number() as usize).map(|config| config.name.clone()).unwrap_or_default();
        self.log(level, (code, u64::from(sink.number())), vec![("sink", name)], text);
    }

    /// Once a second: a file in which something waits hears of the time that passes, and drops what is too old.
    pub(crate) fn tend_idle(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let idle = self.sinks[sink].journal.as_ref().is_some_and(|journal| {
            journal.phase == Phase::Open
                && !journal.is_busy()
                && journal.pending_on_disk() > 0
                && now_ns >= journal.paused_until_ns.max(journal.offered_ns + IDLE_NS)
        });
        if idle {
            self.offer(sink, true);
        }
    }

    /// Once a second: a write, a sync or a read that does not return is a state, not a wait. Records go on from memory within
    /// its bounds; what does not fit is dropped and counted as `disk_slow`.
    pub(crate) fn watch_disk(&mut self, sink: SinkId) {
        let now = self.now;
        let Some(journal) = self.sinks[sink].journal.as_mut().filter(|journal| journal.silent.is_none())
        else {
            return;
        };
        let Some(since_ns) = journal.waits_since().filter(|since_ns| now.mono_ns >= since_ns + SILENT_NS)
        else {
            return;
        };
        let ago_ns = i64::try_from(now.mono_ns - since_ns).unwrap_or(i64::MAX);
        let since = rfc3339(now.wall_ns.saturating_sub(ago_ns));
        let text = format!("the disk does not answer since {since}; records wait in memory only");
        journal.silent = Some((since_ns, text.clone()));
        self.queue_log_as(sink, LogLevel::Error, "queue silent", &text);
        // What waits behind the file goes out from memory where nothing is before it.
        self.mark_sink(sink);
    }

    /// Something came back from the disk.
    pub(crate) fn disk_answered(&mut self, sink: SinkId) {
        let silent = self.sinks[sink].journal.as_mut().and_then(|journal| journal.silent.take());
        if let Some((since_ns, _)) = silent {
            let seconds = self.now.mono_ns.saturating_sub(since_ns) / SECOND;
            let text = format!("the disk answers again, after {seconds} s");
            self.queue_log_as(sink, LogLevel::Warn, "queue answers", &text);
        }
    }

    fn has_predecessor(&self, sink: SinkId) -> bool {
        let name = |id: SinkId| self.site.sinks.get(id.number() as usize).map(|config| config.name.as_str());
        self.sinks.iter().any(|(other, state)| {
            other != sink && state.gone && state.journal.is_some() && name(other) == name(sink)
        })
    }

    /// The sink was removed: what it has goes to disk, then its file is left alone. The file stays.
    pub(crate) fn close_journal(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let stopped = matches!(self.sinks[sink].phase, SinkPhase::Closed | SinkPhase::Failed);
        let state = &self.sinks[sink];
        let Some(journal) = state.journal.as_ref().filter(|_| state.gone) else { return };
        let over = now_ns >= state.closing_ns + CLOSE_NS;
        if over || (stopped && journal.is_open() && journal.is_settled()) || (stopped && !journal.is_open()) {
            if over {
                self.queue_log(sink, LogLevel::Error, "removed before all of its records were on disk");
            }
            self.sinks[sink].journal = None;
            self.sinks[sink].queue = crate::queue::Queue::new();
            if let Some(place) = self.site.sinks.get_mut(sink.number() as usize) {
                *place = crate::model::Sink::default();
            }
        } else if stopped && !journal.is_busy() && journal.failures == 0 {
            self.offer(sink, true);
        }
    }

    /// The gateway stops: what is gathered goes to disk at once.
    pub(crate) fn hurry_journals(&mut self) {
        for sink in self.sinks.ids() {
            if let Some(journal) = &mut self.sinks[sink].journal {
                journal.paused_until_ns = 0;
                journal.content_at_ns = journal.has_content().then_some(0).or(journal.content_at_ns);
                self.mark_sink(sink);
            }
        }
    }

    /// Everything else is stopped: the last transactions leave without pause, for at most [`LAST_NS`].
    pub(crate) fn finish_journals(&mut self) {
        let done =
            self.sinks.values().all(|sink| matches!(sink.phase, SinkPhase::Closed | SinkPhase::Failed));
        if self.drain_until_ns.is_none() || !done {
            return;
        }
        let now_ns = self.now.mono_ns;
        if self.journals_until_ns.is_none() {
            self.journals_until_ns = Some(self.timers.arm(now_ns + LAST_NS, Timer::Drain));
            self.say_what_is_lost(|journal| journal.phase == Phase::Closed || journal.silent.is_some());
        } else if self.journals_until_ns.is_some_and(|until_ns| now_ns >= until_ns) {
            return self
                .say_what_is_lost(|journal| journal.phase != Phase::Closed && journal.silent.is_none());
        }
        for sink in self.sinks.ids() {
            let due = self.sinks[sink].journal.as_ref().is_some_and(|journal| {
                journal.is_open() && !journal.is_busy() && !journal.is_settled() && journal.failures == 0
            });
            if due {
                self.offer(sink, true);
            }
        }
    }

    /// The end has come, and not everything is on disk.
    fn say_what_is_lost(&mut self, which: impl Fn(&Journal) -> bool) {
        for sink in self.sinks.ids() {
            let journal = self.sinks[sink].journal.as_ref().filter(|journal| which(journal));
            let count = journal.map_or(0, |journal| journal.records_at_risk());
            if count > 0 {
                let fields = vec![(
                    "sink",
                    self.site
                        .sinks
                        .get(sink.number() as usize)
                        .map_or_else(String::new, |config| config.name.clone()),
                )];
                let text = format!("{count} records are in memory only and are lost with this stop");
                self.log(LogLevel::Error, ("queue lost", u64::from(sink.number())), fields, text);
            }
        }
    }

    /// Everything that can be on disk is.
    pub(crate) fn journals_are_settled(&self) -> bool {
        // A disk that did not answer before holds up nobody's stop.
        let done = |journal: &Journal| journal.is_settled() || journal.silent.is_some();
        let settled = self.sinks.values().all(|sink| sink.journal.as_deref().is_none_or(done));
        settled || self.journals_until_ns.is_some_and(|until_ns| self.now.mono_ns >= until_ns)
    }
}

/// When a transaction must leave, and whether it carries records.
struct Due {
    at_ns: u64,
    records: bool,
}

impl Sink {
    fn flush_due(&mut self, now_ns: u64) -> Option<Due> {
        let flush_ns = ns(self.limits.flush_every);
        let most = self.limits.flush_records.max(1);
        let journal = self.journal.as_mut().filter(|journal| journal.is_open() && !journal.is_busy())?;
        if journal.has_content() && journal.content_at_ns.is_none() {
            let oldest =
                self.queue.first_open(journal.committed).map(|(_, accepted_ns)| accepted_ns + flush_ns);
            let ends = journal.has_ends().then_some(now_ns + flush_ns);
            journal.content_at_ns = [oldest, ends].into_iter().flatten().min();
        }
        if journal.has_counters() {
            journal.counters_at_ns.get_or_insert(now_ns + COUNTERS_NS);
        }
        if journal.paused_until_ns > now_ns {
            let paused = Due { at_ns: journal.paused_until_ns, records: true };
            // A full disk takes ends and counters: they show what is given up while it lasts, and free the room that ends
            // it. A refused record that is not on disk goes with its end only.
            let takes = journal.full && (journal.has_ends() || journal.has_counters());
            let at_ns = (journal.offered_ns + COUNTERS_NS).max(now_ns);
            if takes && at_ns < paused.at_ns && journal.kept().next().is_none() {
                return Some(Due { at_ns, records: false });
            }
            return Some(paused);
        }
        if journal.fresh >= most {
            return Some(Due { at_ns: now_ns, records: true });
        }
        if journal.content_at_ns.is_some_and(|at_ns| at_ns <= now_ns) && !journal.has_ends() {
            // What was first is confirmed meanwhile, perhaps: the oldest that is not counts.
            let oldest = self.queue.first_open(journal.committed);
            journal.content_at_ns = oldest.map(|(_, accepted_ns)| accepted_ns + flush_ns);
        }
        // A refused record that is not on disk goes with its end.
        let records = journal.has_ends();
        match (journal.content_at_ns, journal.counters_at_ns) {
            (Some(content), Some(counters)) if counters < content => Some(Due { at_ns: counters, records }),
            (Some(at_ns), _) => Some(Due { at_ns, records: true }),
            (None, counters) => counters.map(|at_ns| Due { at_ns, records }),
        }
    }

    /// When the queue on disk wants to be looked at again.
    fn journal_wake(&mut self, now_ns: u64) -> Option<u64> {
        let flush = self.flush_due(now_ns).map(|due| due.at_ns);
        let journal = self.journal.as_ref()?;
        let wake = match journal.phase {
            Phase::Closed => Some(journal.wake_ns),
            Phase::Opening | Phase::Reserving => (!journal.meanwhile).then_some(journal.wake_ns),
            Phase::Open => None,
        };
        let load = (journal.load_at_ns > now_ns).then_some(journal.load_at_ns);
        let paced = (self.paced_until_ns > now_ns).then_some(self.paced_until_ns);
        let part = self.has_part_due().then_some(now_ns + 1);
        let look = (!journal.aside.is_empty()).then_some(journal.look_at_ns);
        [flush, wake, load, paced, part, look].into_iter().flatten().min()
    }

    /// The file is open: numbers and figures are its own from now on.
    fn adopt(&mut self, recovered: &Recovered, now_ns: u64) {
        let Some(journal) = &mut self.journal else { return };
        let from = journal.temporary_from;
        self.queue.renumber(from, recovered.next);
        for number in self.newest.iter_mut().chain(&mut self.sent).filter(|number| **number >= from) {
            *number = *number - from + recovered.next;
        }
        journal.opened(recovered, now_ns);
        if recovered.ledger.pending > 0 && recovered.oldest < recovered.next {
            // What comes back is older than anything here.
            self.queue.set_reach(recovered.oldest);
        } else if let Some(number) = self.queue.poll_from(self.limits.window.max(1)) {
            self.queue.set_reach(number);
        }
    }

    fn take_commit(&mut self, number: u64, committed: Committed, now_ns: u64) -> bool {
        let oldest = committed.oldest;
        let Some(journal) = &mut self.journal else { return false };
        let Some((before, tokens)) = journal.commit(number, committed, now_ns) else { return false };
        if journal.load_failures == 0 && journal.failures == 0 {
            journal.reason.clear();
        }
        let upto = journal.committed;
        self.ended_commits.extend(tokens.into_iter().map(|commit| (commit, true)));
        for (_, gone) in self.queue.forget_below(oldest.min(upto)) {
            self.overflow = true;
            self.lost(gone.point, gone.commit);
        }
        for (_, record) in self.queue.open_from_mut(before).take_while(|(number, _)| *number < upto) {
            if record.commit != 0 {
                self.ended_commits.push((std::mem::take(&mut record.commit), true));
            }
        }
        if self.queue.reach() < oldest.min(upto) {
            self.queue.set_reach(oldest.min(upto));
        }
        self.leave_memory();
        true
    }
}
