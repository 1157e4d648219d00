//! A queue on disk that is longer than memory: what is held in the window, what is only in the file, what is read back.
//!
//! While the window has room every record is in it (`Queue::is_whole`). When it is full a gap opens: new records only go
//! to the file, and leave memory as soon as they are there. When half of what was in the window is gone, the next records
//! are read back in order of their numbers, until everything from there on is in memory again and the gap is closed.
//!
//! `order = "live-first"`: from a connect on new records are live and go at once, what is older is the backlog. Live
//! records have half of the window; when they do not fit, those not yet sent become part of the backlog.
//!
//! A device that the far side holds up (`retry`) must not fill the window: then the rest of its records is set aside. They
//! are only in the file, are passed over, and are read back when those before them are through. So order per device
//! holds, and others flow.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Core, Output,
    arena::{Id, SinkId},
    books::Drop,
    journal::{Ledger, Loaded, Name, Row},
    journaling::{Journal, Loading, MAX_SETTLED},
    model::{Order, Queue},
    output::LogLevel,
    queue::Record,
    rows::{Known, record_of},
    sink::Sink,
    time::SECOND,
};

/// Most bytes of the window.
const MAX_WINDOW_BYTES: u64 = 32 << 20;
/// Bytes of these.
const MAX_GATHER_BYTES: u64 = 16 << 20;
/// Memory that replaces a file which cannot be opened.
const MAX_WITHOUT_FILE: u64 = 16 << 20;
/// Most records, and bytes, read back at once.
const LOAD_RECORDS: usize = 5_000;
const LOAD_BYTES: usize = 4 << 20;
/// How often the window is walked for devices that are held up.
const LOOK_NS: u64 = SECOND / 50;
/// Pauses after a failed reading: the first, the longest.
const LOAD_PAUSE_NS: u64 = SECOND / 2;
const MAX_LOAD_PAUSE_NS: u64 = 30 * SECOND;

impl Queue {
    /// Most records of one sink in memory: the window, live records beside it, what is on its way, and what waits for the
    /// disk, twenty times `flush.records`.
    pub(crate) fn most_in_memory(&self) -> usize {
        2 * self.window.max(1) + self.in_flight.max(1) + 20 * self.flush_records.max(1)
    }
}

impl Sink {
    /// Takes a record of the ledger into a queue on disk.
    pub(crate) fn accept_on_disk(&mut self, slot: u32, record: Record) {
        let window = self.limits.window.max(1);
        let full = self.queue.pending() >= window || self.queue.bytes() >= MAX_WINDOW_BYTES;
        if full && !self.make_room() {
            return self.refuse(&record);
        }
        if let Some(journal) = &mut self.journal {
            journal.accept();
        }
        self.enqueue(slot, record);
        if self.journal.as_ref().is_some_and(|journal| !journal.is_open()) {
            self.keep_bounds(self.limits.max_bytes.min(MAX_WITHOUT_FILE));
        }
    }

    /// The window is full. False: there is no place for another record at all.
    fn make_room(&mut self) -> bool {
        let Some(journal) = &self.journal else { return true };
        if !journal.is_open() {
            return true;
        }
        let window = self.limits.window.max(1);
        if self.queue.is_in_poll() && self.queue.pending() < 2 * window {
            // A poll is not torn: the gap begins after it.
            return true;
        }
        let live = self.queue.live_from() != u64::MAX;
        if live && (self.queue.live_len() >= (window / 2).max(1) || self.queue.bytes() >= MAX_WINDOW_BYTES) {
            self.live_becomes_backlog();
        }
        // What was on its way when the connection ended may be more than a window.
        let beyond = self.queue.poll_from(window).filter(|number| *number < self.queue.live_from());
        if self.queue.is_whole() && (beyond.is_some() || !live) {
            self.queue.set_reach(beyond.unwrap_or(self.queue.next_number()));
            self.queue.rewind();
            self.leave_memory();
        }
        let most = self.limits.most_in_memory();
        self.queue.pending() < most && self.queue.bytes() < 2 * MAX_WINDOW_BYTES + MAX_GATHER_BYTES
    }

    /// Memory is full and the disk does not take it: the newest goes, counted and shown.
    fn refuse(&mut self, record: &Record) {
        let Some(journal) = &mut self.journal else { return };
        let why = journal.why_not_written();
        debug_assert!(matches!(why, Drop::DiskFull | Drop::DiskSlow));
        journal.refuse(why);
        self.overflow = true;
        self.lost(record.sample.point, record.commit);
    }

    /// The far side is up: with `live-first` what comes from now on goes at once.
    pub(crate) fn begin_live(&mut self) {
        if self.limits.order != Order::LiveFirst || self.journal.is_none() {
            return;
        }
        self.queue.set_live_from(self.queue.next_number());
        // What waits comes after the live records: the latest state of its points is sent last.
        let points: BTreeSet<u32> = self.queue.open_from(0).map(|(_, record)| record.sample.point).collect();
        self.echo.extend(points.iter().filter_map(|point| self.slot_of.get(point)));
    }

    /// The far side is gone: there are no live records any more.
    pub(crate) fn end_live(&mut self) {
        self.queue.set_live_from(u64::MAX);
        self.leave_memory();
    }

    fn live_becomes_backlog(&mut self) {
        let from = self.queue.live_from();
        for (number, point) in self.queue.transient_from(from) {
            self.give_up(number, Drop::Superseded);
            self.echo.extend(self.slot_of.get(&point));
        }
        let Some(first) = self.queue.first_waiting(from) else { return };
        let points: BTreeSet<u32> =
            self.queue.open_from(first).map(|(_, record)| record.sample.point).collect();
        self.echo.extend(points.iter().filter_map(|point| self.slot_of.get(point)));
        if self.queue.is_whole() {
            self.queue.set_reach(first);
        }
        self.queue.set_live_from(self.queue.next_number());
        self.leave_memory();
    }

    /// What is on disk and cannot be delivered next leaves memory.
    pub(crate) fn leave_memory(&mut self) {
        let Some(journal) = &self.journal else { return };
        if !self.queue.is_whole() {
            let to = journal.committed.min(self.queue.live_from());
            self.queue.leave(self.queue.reach(), to, |_, _| true);
        }
        if let Some(from) = journal.aside.values().min() {
            let aside = &journal.aside;
            self.queue.leave(*from, journal.committed, |number, record| {
                aside.get(&record.device).is_some_and(|from| number >= *from)
            });
        }
    }

    /// What could not be read back has ended by age or size: no attempt follows that would say so.
    fn nothing_to_read(&mut self) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.load_failures > 0) else { return };
        if journal.aside.is_empty() {
            journal.load_failures = 0;
            if journal.failures == 0 {
                journal.reason.clear();
            }
        }
    }

    /// Closes the gap when everything beyond it is in memory.
    pub(crate) fn close_gap(&mut self) {
        let Some(journal) = &self.journal else { return };
        let live_from = self.queue.live_from();
        let all = self.queue.reach() >= journal.committed.min(live_from);
        let fits = live_from != u64::MAX || self.queue.pending() < self.limits.window.max(1);
        if !self.queue.is_whole() && all && fits {
            self.queue.set_reach(u64::MAX);
            self.nothing_to_read();
        } else if !self.queue.is_whole()
            && all
            && (journal.failures > 0 || journal.silent.is_some())
            && let Some(number) = self.queue.poll_from(self.limits.window.max(1))
            && number > self.queue.reach()
        {
            // The file has no room for what waits here, and nothing before it: it is delivered from memory.
            self.queue.set_reach(number);
        }
    }

    /// Walks the window for devices that are held up, not at every step.
    fn look_at_held(&mut self, now_ns: u64) {
        let Some(journal) = &mut self.journal else { return };
        let quiet = self.held.is_empty() && journal.aside.is_empty();
        if quiet || !journal.is_open() || now_ns < journal.look_at_ns {
            return;
        }
        journal.look_at_ns = now_ns + LOOK_NS;
        self.set_aside();
        let through = self.journal.as_ref().and_then(|journal| self.through(journal));
        if let Some(journal) = &mut self.journal {
            journal.through = through;
        }
    }

    /// Devices that are held up and take more than their share of a window that is nearly full.
    pub(crate) fn set_aside(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let window = self.limits.window.max(1);
        if self.held.is_empty() || self.queue.pending() < window / 4 * 3 {
            return;
        }
        let share = (window / 4 / self.held.len()).max(1);
        let mut seen: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
        let mut any = false;
        for (number, record) in self.queue.open_from(0) {
            if !self.held.contains_key(&record.device) {
                continue;
            }
            let (count, ended) = seen.entry(record.device).or_default();
            if *count >= share
                && (*ended || *count >= 2 * share)
                && !journal.aside.contains_key(&record.device)
            {
                journal.aside.insert(record.device, number);
                any = true;
            }
            *count += 1;
            *ended = record.end;
        }
        if any {
            self.leave_memory();
        }
    }

    /// What should be read back next.
    fn wanted(&self) -> Option<(Loading, usize)> {
        let journal = self.journal.as_ref()?;
        if !self.is_up() || !journal.is_open() || journal.loading.is_some() || journal.settled() > MAX_SETTLED
        {
            return None;
        }
        let window = self.limits.window.max(1);
        if let Some((device, from)) = journal.through {
            let records = (window / 4 / self.held.len().max(1)).clamp(1, LOAD_RECORDS);
            return Some((Loading { from, device: Some(device) }, records));
        }
        if self.queue.is_whole() || self.queue.reach() >= journal.committed.min(self.queue.live_from()) {
            return None;
        }
        let live = self.queue.live_from() != u64::MAX;
        let target = if live { (window / 2).max(1) } else { window };
        let here = self.queue.len_below(self.queue.reach().min(self.queue.live_from()));
        let wanted = here < target.div_ceil(2) && self.queue.bytes() < MAX_WINDOW_BYTES / 2;
        let records = target.saturating_sub(here).min(LOAD_RECORDS);
        wanted.then_some((Loading { from: self.queue.reach(), device: None }, records))
    }

    /// A device set aside whose records before that are through.
    fn through(&self, journal: &Journal) -> Option<(u32, u64)> {
        if journal.aside.is_empty() {
            return None;
        }
        let busy: BTreeSet<u32> = self
            .queue
            .open_from(0)
            .filter(|(number, record)| journal.aside.get(&record.device).is_some_and(|from| number < from))
            .map(|(_, record)| record.device)
            .collect();
        journal
            .aside
            .iter()
            .find(|(device, _)| {
                !busy.contains(device) && self.held.get(device).is_none_or(|(until, _)| *until == 0)
            })
            .map(|(device, from)| (*device, *from))
    }

    /// What was read back takes its place. `rows` is in the words of this run; `next` is where to go on.
    fn take_back(&mut self, loading: Loading, next: u64, rows: Vec<Vec<(u64, Record)>>) {
        let Some(journal) = &self.journal else { return };
        let mut back = Vec::new();
        for row in rows {
            let begin = back.len();
            back.extend(row.into_iter().filter(|(number, record)| {
                let wanted = match loading.device {
                    Some(device) => record.device == device,
                    None => journal.aside.get(&record.device).is_none_or(|from| number < from),
                };
                (loading.from..next).contains(number) && wanted && !journal.has_ended(*number)
            }));
            if back.len() > begin
                && let Some((_, last)) = back.last_mut()
            {
                last.end = true;
            }
        }
        if self.queue.live_from() != u64::MAX {
            // Live records are before these: the latest state comes last.
            let points: BTreeSet<u32> = back.iter().map(|(_, record)| record.sample.point).collect();
            self.echo.extend(points.iter().filter_map(|point| self.slot_of.get(point)));
        }
        self.queue.take_back(back);
        match loading.device {
            None => self.queue.set_reach(next),
            Some(device) => self.caught_up(device, next),
        }
        self.close_gap();
    }

    /// Refused records that wait again. Those in the gap, and of a device from where it was set aside, are read back in
    /// their turn.
    fn take_again(&mut self, rows: Vec<Vec<(u64, Record)>>) {
        let Some(journal) = &self.journal else { return };
        let gap = self.queue.reach()..self.queue.live_from();
        for (number, mut record) in rows.into_iter().flatten() {
            self.queue.forget_end(number);
            // It comes behind newer ones: the latest state of its point is sent after it.
            self.echo.extend(self.slot_of.get(&record.sample.point));
            let elsewhere = journal.aside.get(&record.device).is_some_and(|from| number >= *from);
            if number < journal.committed && !gap.contains(&number) && !elsewhere {
                record.end = true;
                self.queue.take_back(vec![(number, record)]);
            }
        }
        self.queue.rewind();
    }

    /// Records of a device below `next` that were set aside are in memory again.
    fn caught_up(&mut self, device: u32, next: u64) {
        if let Some(journal) = &mut self.journal {
            journal.through = None;
        }
        // The rest comes with what is read back for all, unless that ends where the live records begin.
        let live = self.queue.live_from() != u64::MAX;
        let reach = if live { u64::MAX } else { self.queue.reach() };
        if let Some(journal) = &mut self.journal {
            if next >= reach.min(journal.committed) {
                journal.aside.remove(&device);
            } else {
                journal.aside.insert(device, next);
            }
        }
        self.queue.rewind();
    }
}

impl Core {
    /// Asks for what should be read back.
    pub(crate) fn load(&mut self, sink: SinkId) {
        let now_ns = self.now.mono_ns;
        let state = &mut self.sinks[sink];
        state.close_gap();
        state.look_at_held(now_ns);
        let Some((loading, records)) = state.wanted() else { return };
        let Some(journal) = state.journal.as_mut().filter(|journal| journal.load_at_ns <= now_ns) else {
            return;
        };
        journal.loading = Some(loading);
        journal.loading_ns = now_ns;
        self.out.push(Output::JournalLoad {
            sink: sink.number() as usize,
            from: loading.from,
            records,
            bytes: LOAD_BYTES,
        });
    }

    pub(crate) fn journal_loaded(&mut self, sink: usize, result: Result<Loaded, String>) {
        let Some(sink) = self.sinks.at(sink) else { return };
        self.disk_answered(sink);
        let loading = self.sinks[sink].journal.as_mut().and_then(|journal| journal.loading.take());
        let Some(loading) = loading else {
            self.oddities.unexpected += 1;
            return;
        };
        let bound = self.load_bound(sink, loading);
        match result {
            Ok(loaded)
                if loaded.from == loading.from && loaded.next > loading.from.min(bound.saturating_sub(1)) =>
            {
                self.take_loaded(sink, loading, bound, loaded);
            }
            Ok(loaded) => {
                let text = format!("asked from record {}, answered up to {}", loading.from, loaded.next);
                self.load_failed(sink, &text);
            }
            Err(text) => self.load_failed(sink, &text),
        }
        self.mark_sink(sink);
    }

    /// Refused records wait in the file again: what would not be read back by itself takes its place in memory. The
    /// answer to a transaction that is on its way brings its own figures later, because the file works in order.
    pub(crate) fn journal_again(&mut self, sink: usize, ledger: Ledger, again: Loaded) {
        let Some(sink) = self.sinks.at(sink) else { return };
        let Some(journal) = self.sinks[sink].journal.as_mut().filter(|journal| journal.is_open()) else {
            return;
        };
        journal.set_ledger(ledger);
        let new = self.learn_names(sink, again.names);
        let rows = again.rows.into_iter().map(|row| self.row_of(sink, row)).collect();
        self.sinks[sink].take_again(rows);
        self.announce(sink, &new);
        self.mark_sink(sink);
    }

    /// What is known to be in the file, and only there.
    fn load_bound(&self, sink: SinkId, loading: Loading) -> u64 {
        let state = &self.sinks[sink];
        let committed = state.journal.as_ref().map_or(0, |journal| journal.committed);
        if loading.device.is_some() { committed } else { committed.min(state.queue.live_from()) }
    }

    fn take_loaded(&mut self, sink: SinkId, loading: Loading, bound: u64, loaded: Loaded) {
        let new = self.learn_names(sink, loaded.names);
        let rows = loaded.rows.into_iter().map(|row| self.row_of(sink, row)).collect();
        let state = &mut self.sinks[sink];
        if let Some(journal) = &mut state.journal {
            journal.load_failures = 0;
            if journal.failures == 0 {
                journal.reason.clear();
            }
        }
        if loading.device.is_some() || state.queue.reach() == loading.from {
            state.take_back(loading, loaded.next.min(bound), rows);
        }
        self.announce(sink, &new);
    }

    /// Entries of the file's dictionary; returns the ghosts that are new to the sink.
    fn learn_names(&mut self, sink: SinkId, names: Vec<(u32, Name)>) -> Vec<u32> {
        let mut ghosts = Vec::new();
        for (entry, name) in names {
            let (known, new) = self.known(sink, &name);
            if new {
                ghosts.push(known.point);
            }
            if let Some(journal) = &mut self.sinks[sink].journal {
                journal.dictionary.insert(entry, known);
                journal.names.insert(entry, name);
            }
        }
        ghosts
    }

    fn row_of(&mut self, sink: SinkId, row: Row) -> Vec<(u64, Record)> {
        let accepted_ns = row.accepted_ns;
        row.entries
            .into_iter()
            .map(|entry| {
                let known = self.dictionary_entry(sink, entry.sample.point);
                (entry.number, record_of(entry, known, accepted_ns))
            })
            .collect()
    }

    fn dictionary_entry(&mut self, sink: SinkId, entry: u32) -> Known {
        let journal = self.sinks[sink].journal.as_ref();
        if let Some(known) = journal.and_then(|journal| journal.dictionary.get(&entry)) {
            return *known;
        }
        let name = journal.and_then(|journal| journal.names.get(&entry)).cloned();
        // A file that names no point for a record is delivered as what it is: nothing may get lost.
        let name = name.unwrap_or_else(|| Name {
            device: "@unknown".into(),
            point: format!("entry-{entry}"),
            unit: String::new(),
        });
        for ghost in self.learn_names(sink, vec![(entry, name)]) {
            self.announce(sink, &[ghost]);
        }
        let journal = self.sinks[sink].journal.as_ref();
        let known = journal.and_then(|journal| journal.dictionary.get(&entry)).copied();
        known.unwrap_or(Known { point: u32::MAX, device: u32::MAX })
    }

    fn load_failed(&mut self, sink: SinkId, text: &str) {
        let now_ns = self.now.mono_ns;
        if let Some(journal) = &mut self.sinks[sink].journal {
            let pause_ns = (LOAD_PAUSE_NS << journal.load_failures.min(10)).min(MAX_LOAD_PAUSE_NS);
            journal.load_failures = journal.load_failures.saturating_add(1);
            journal.load_at_ns = now_ns + pause_ns;
            journal.reason = format!("the backlog cannot be read from the queue's file: {text}");
        }
        let text = format!("the backlog cannot be read from the queue's file, tried again: {text}");
        self.queue_log_as(sink, LogLevel::Error, "queue read", &text);
    }
}
