//! What one sink with a queue on disk knows of its file: how far it is open, what is on disk, what is on its way there,
//! what was gathered since.
//!
//! Invariants, checked by the simulation after every step:
//! * Every record below `committed` is on disk or has ended; every record from there on that has not ended is in memory.
//! * One transaction is on its way at most. A record below `told` is on disk or in that transaction, so its end must be
//!   told to the file; from `told` on, an end is only counted (`delivered_unwritten`, `dropped_unwritten`), except that
//!   of a record the far side refused: it is kept until it is on disk, because its row stays.
//! * committed ledger + what is on its way + what was gathered = the live ledger.
//!
//! A transaction that failed goes back into what was gathered: what ended meanwhile was never written.

mod figures;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::Drop,
    gathered::{Gathered, add},
    ghosts::FIRST_GHOST,
    journal::{Committed, End, Ledger, Name, Recovered, Row, Transaction},
    queue::Record,
    rows::Known,
    settlements::Settlements,
    time::SECOND,
};

/// While no file is open numbers come from here on, with the wall clock in the lower bits: they never meet those of the
/// file, and are not those of another run.
pub(crate) const FIRST_WITHOUT_FILE: u64 = 1 << 63;
/// Numbers reserved ahead of the newest.
const RESERVE: u64 = 1 << 32;
/// Counters alone wait at most so long.
pub(crate) const COUNTERS_NS: u64 = SECOND;
/// Ranges of ends that may wait for a disk that cannot be written; beyond, nothing more is read back (G9).
pub(crate) const MAX_SETTLED: usize = 100_000;
/// Refused records that may wait for a disk that cannot be written (G9).
const MAX_KEPT: usize = 10_000;
/// Reasons of the far side that are told apart (G9).
const MAX_REASONS: usize = 64;

/// How far the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not open; `wake_ns` says when it is tried.
    Closed,
    /// Asked to open.
    Opening,
    /// Open; the first transaction, which reserves numbers, is not answered yet.
    Reserving,
    /// Open.
    Open,
}

/// A transaction on its way.
#[derive(Debug)]
struct Offered {
    number: u64,
    upto: u64,
    /// It carries records, not only ends and counters.
    rows: bool,
    content: Gathered,
}

/// What is being read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loading {
    pub(crate) from: u64,
    /// Only records of this device are wanted.
    pub(crate) device: Option<u32>,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) phase: Phase,
    /// Why records are not on disk; empty = they are.
    pub(crate) reason: String,
    /// First number without a file; what began there has other numbers since the file is open.
    pub(crate) temporary_from: u64,
    /// Where the number `temporary_from` went when the file was opened.
    pub(crate) opened_at: Option<u64>,
    /// Figures on disk.
    ledger: Ledger,
    pub(crate) bytes: u64,
    /// Age of the oldest record on disk, and when that was said.
    oldest_age_ns: (u64, u64),
    pub(crate) committed: u64,
    offered: Option<Offered>,
    gathered: Gathered,
    /// Records from `told` on that have not ended.
    pub(crate) fresh: usize,
    /// Refused records that are not on disk yet, by number.
    kept: BTreeMap<u64, Record>,
    last_transaction: u64,
    pub(crate) offered_ns: u64,
    /// When content, and when counters, must leave.
    pub(crate) content_at_ns: Option<u64>,
    pub(crate) counters_at_ns: Option<u64>,
    pub(crate) paused_until_ns: u64,
    pub(crate) failures: u32,
    /// The disk said that it is full.
    pub(crate) full: bool,
    named: Vec<bool>,
    named_ghosts: BTreeSet<u32>,
    /// Dictionary of the file, as far as it was told, and what its entries are today.
    pub(crate) names: BTreeMap<u32, Name>,
    pub(crate) dictionary: BTreeMap<u32, Known>,
    reasons: BTreeSet<String>,
    pub(crate) loading: Option<Loading>,
    /// When the opening, and the reading under way, were asked for.
    pub(crate) opening_ns: u64,
    pub(crate) loading_ns: u64,
    /// The disk does not answer: since when (monotonic), and that in words.
    pub(crate) silent: Option<(u64, String)>,
    pub(crate) load_at_ns: u64,
    pub(crate) load_failures: u32,
    /// Devices of which records from this number on are only in the file, because the far side holds them up.
    pub(crate) aside: BTreeMap<u32, u64>,
    /// The one of them that is read back next, and when that is looked at again.
    pub(crate) through: Option<(u32, u64)>,
    pub(crate) look_at_ns: u64,
    /// The file is not there (yet), and what is in memory is delivered all the same.
    pub(crate) meanwhile: bool,
    /// Next attempt to open, or the end of waiting for the file.
    pub(crate) wake_ns: u64,
    pub(crate) attempts: u32,
    /// The timer that counts.
    pub(crate) timer_ns: u64,
}

impl Journal {
    pub(crate) fn new(wall_ns: i64) -> Self {
        let temporary_from = FIRST_WITHOUT_FILE | (wall_ns.unsigned_abs() >> 1);
        Self {
            phase: Phase::Closed,
            reason: "the file of the queue is being opened".into(),
            temporary_from,
            opened_at: None,
            ledger: Ledger::default(),
            bytes: 0,
            oldest_age_ns: (0, 0),
            committed: temporary_from,
            offered: None,
            gathered: Gathered::default(),
            fresh: 0,
            kept: BTreeMap::new(),
            last_transaction: 0,
            offered_ns: 0,
            content_at_ns: None,
            counters_at_ns: None,
            paused_until_ns: 0,
            failures: 0,
            full: false,
            named: Vec::new(),
            named_ghosts: BTreeSet::new(),
            names: BTreeMap::new(),
            dictionary: BTreeMap::new(),
            reasons: BTreeSet::new(),
            loading: None,
            opening_ns: 0,
            loading_ns: 0,
            silent: None,
            load_at_ns: 0,
            load_failures: 0,
            aside: BTreeMap::new(),
            through: None,
            look_at_ns: 0,
            meanwhile: false,
            wake_ns: 0,
            attempts: 0,
            timer_ns: 0,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Reserving | Phase::Open)
    }

    /// It is known what waits, or nobody can know.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Open) || self.meanwhile
    }

    /// Everything is on disk that can be.
    pub(crate) fn is_settled(&self) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Opening => self.gathered.accepted == 0,
            Phase::Reserving | Phase::Open => {
                self.offered.is_none() && !self.has_content() && !self.has_counters()
            }
        }
    }

    pub(crate) const fn is_busy(&self) -> bool {
        self.offered.is_some()
    }

    /// Records from here on are in no transaction.
    pub(crate) fn told(&self) -> u64 {
        self.offered.as_ref().map_or(self.committed, |offered| offered.upto)
    }

    /// Number under which a record is known here that the plugin knows from before the file was open.
    pub(crate) fn number_now(&self, number: u64) -> u64 {
        match self.opened_at {
            Some(at) if number >= self.temporary_from => number - self.temporary_from + at,
            _ => number,
        }
    }

    pub(crate) const fn accept(&mut self) {
        self.gathered.accepted += 1;
        self.fresh += 1;
    }

    /// Taken and given up at once.
    pub(crate) fn refuse(&mut self, why: Drop) {
        self.gathered.accepted += 1;
        self.gathered.count(&End::Dropped(why.as_str().to_owned()), 1);
        add(&mut self.gathered.dropped_unwritten, why.as_str(), 1);
    }

    /// A record of the ledger was confirmed.
    pub(crate) fn delivered(&mut self, number: u64) {
        self.gathered.delivered += 1;
        if number >= self.told() {
            self.fresh -= 1;
            self.gathered.delivered_unwritten += 1;
        } else {
            self.gathered.settled.add(number, End::Delivered);
        }
    }

    /// A record of the ledger was given up.
    pub(crate) fn dropped(&mut self, number: u64, why: Drop) {
        let end = End::Dropped(why.as_str().to_owned());
        self.gathered.count(&end, 1);
        if number >= self.told() {
            self.fresh -= 1;
            self.gathered.unwritten(&end, 1);
        } else {
            self.gathered.settled.add(number, end);
        }
    }

    /// A record of the ledger was refused by the far side; true if it is kept, false if there is no room to keep it.
    pub(crate) fn parked_as(&mut self, number: u64, record: Record, reason: &str) -> bool {
        let written = number < self.committed;
        if !written && self.kept.len() >= MAX_KEPT {
            self.dropped(number, self.why_not_written());
            return false;
        }
        let known = self.reasons.contains(reason) || self.reasons.len() < MAX_REASONS;
        let reason = if known { reason } else { "other" };
        self.reasons.insert(reason.to_owned());
        let end = End::Parked(reason.to_owned());
        self.gathered.count(&end, 1);
        if number >= self.told() {
            self.fresh -= 1;
        }
        self.gathered.settled.add(number, end);
        if !written {
            self.kept.insert(number, record);
        }
        true
    }

    /// Why new records cannot be kept.
    pub(crate) const fn why_not_written(&self) -> Drop {
        if self.full && self.silent.is_none() { Drop::DiskFull } else { Drop::DiskSlow }
    }

    /// Since when the oldest question waits for the disk.
    pub(crate) fn waits_since(&self) -> Option<u64> {
        let opening = matches!(self.phase, Phase::Opening).then_some(self.opening_ns);
        let writing = self.offered.as_ref().map(|_| self.offered_ns);
        let reading = self.loading.map(|_| self.loading_ns);
        [opening, writing, reading].into_iter().flatten().min()
    }

    /// What an operator must know of the file; empty: all is well.
    pub(crate) fn trouble(&self) -> &str {
        self.silent.as_ref().map_or(self.reason.as_str(), |(_, text)| text)
    }

    /// There is something that must be on disk soon.
    pub(crate) fn has_content(&self) -> bool {
        self.fresh > 0 || !self.gathered.settled.is_empty()
    }

    /// Ends of records on disk wait to be told.
    pub(crate) fn has_ends(&self) -> bool {
        !self.gathered.settled.is_empty()
    }

    pub(crate) fn has_counters(&self) -> bool {
        self.gathered.has_counters()
    }

    /// Ends that wait to be told.
    pub(crate) fn settled(&self) -> usize {
        self.gathered.settled.len() + self.offered.as_ref().map_or(0, |offered| offered.content.settled.len())
    }

    /// The record ended, and the file was not told or did not answer yet.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.gathered.settled.contains(number)
            || self.offered.as_ref().is_some_and(|offered| offered.content.settled.contains(number))
    }

    /// Points that rows will name and the file does not know.
    pub(crate) fn unnamed(&self, records: &[(u64, &Record)]) -> BTreeSet<u32> {
        let known = |point: u32| match self.named.get(point as usize) {
            Some(named) => *named,
            None => self.named_ghosts.contains(&point),
        };
        records.iter().map(|(_, record)| record.sample.point).filter(|point| !known(*point)).collect()
    }

    /// The name of a point changed: it is introduced again.
    pub(crate) fn forget_name(&mut self, point: u32) {
        if let Some(named) = self.named.get_mut(point as usize) {
            *named = false;
        }
    }

    fn set_named(&mut self, point: u32) {
        if point >= FIRST_GHOST {
            self.named_ghosts.insert(point);
            return;
        }
        let at = point as usize;
        if self.named.len() <= at {
            self.named.resize(at + 1, false);
        }
        if let Some(named) = self.named.get_mut(at) {
            *named = true;
        }
    }

    /// The refused records that are not on disk.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.kept.iter().map(|(number, record)| (*number, record))
    }

    /// The next transaction: rows of everything open below `upto`, and all ends. `next` is the number of the next record.
    pub(crate) fn offer(
        &mut self,
        rows: Vec<Row>,
        names: Vec<(u32, Name)>,
        (upto, next): (u64, u64),
        now_ns: u64,
    ) -> Transaction {
        let written: u64 = rows.iter().map(|row| row.entries.len() as u64).sum();
        let mut content = std::mem::take(&mut self.gathered);
        let unwritten = content.delivered_unwritten + content.dropped_unwritten.values().sum::<u64>();
        self.gathered.accepted = content.accepted.saturating_sub(written + unwritten);
        content.accepted -= self.gathered.accepted;
        content.names.clone_from(&names);
        self.last_transaction += 1;
        let carries_rows = !rows.is_empty();
        let transaction = Transaction {
            number: self.last_transaction,
            names,
            rows,
            settled: content.settled.iter().collect(),
            delivered_unwritten: content.delivered_unwritten,
            dropped_unwritten: content.dropped_unwritten.clone(),
            next: next.saturating_add(RESERVE),
            now_ns,
        };
        self.offered = Some(Offered { number: self.last_transaction, upto, rows: carries_rows, content });
        self.offered_ns = now_ns;
        (self.content_at_ns, self.counters_at_ns) = (None, None);
        transaction
    }

    /// The transaction is on disk. Returns the first number that was not on disk before, and the tokens of refused
    /// records that are now. `None`: it is not the one on its way.
    pub(crate) fn commit(
        &mut self,
        number: u64,
        committed: Committed,
        now_ns: u64,
    ) -> Option<(u64, Vec<u32>)> {
        let offered = self.offered.take_if(|offered| offered.number == number)?;
        for (point, _) in &offered.content.names {
            self.set_named(*point);
        }
        let before = std::mem::replace(&mut self.committed, offered.upto);
        self.ledger = committed.ledger;
        self.bytes = committed.bytes;
        self.oldest_age_ns = (committed.oldest_age_ns, now_ns);
        for settled in self.gathered.settled.take_below(committed.oldest.min(offered.upto)).iter() {
            // The file gave them up before it heard how they ended.
            self.gathered.uncount(&settled.end, settled.count);
        }
        let kept = self.kept.split_off(&offered.upto);
        let kept = std::mem::replace(&mut self.kept, kept);
        // Counters that a full disk took do not say that it takes records again.
        if offered.rows || (self.fresh == 0 && self.kept.is_empty()) {
            (self.failures, self.paused_until_ns, self.full) = (0, 0, false);
        }
        Some((before, kept.into_values().map(|record| record.commit).filter(|commit| *commit != 0).collect()))
    }

    /// Nothing of the transaction is on disk. False: it is not the one on its way.
    pub(crate) fn fail(&mut self, number: u64) -> bool {
        let Some(mut offered) = self.offered.take_if(|offered| offered.number == number) else {
            return false;
        };
        let unwritten = self.gathered.settled.take_from(self.committed);
        for settled in unwritten.iter() {
            if matches!(settled.end, End::Parked(_)) {
                (settled.first..settled.first + settled.count)
                    .for_each(|number| self.gathered.settled.add(number, settled.end.clone()));
            } else {
                self.gathered.unwritten(&settled.end, settled.count);
            }
        }
        offered.content.absorb(std::mem::take(&mut self.gathered));
        self.gathered = offered.content;
        self.failures = self.failures.saturating_add(1);
        true
    }

    /// The file is open: its numbers and figures hold.
    pub(crate) fn opened(&mut self, recovered: &Recovered, now_ns: u64) {
        self.phase = Phase::Reserving;
        self.reason.clear();
        self.opened_at = Some(recovered.next);
        self.meanwhile = false;
        self.committed = recovered.next;
        self.ledger = recovered.ledger.clone();
        self.bytes = recovered.bytes;
        self.oldest_age_ns = (recovered.oldest_age_ns, now_ns);
        self.attempts = 0;
        let (from, to) = (self.temporary_from, recovered.next);
        let kept = std::mem::take(&mut self.kept);
        self.kept = kept.into_iter().map(|(number, record)| (number - from + to, record)).collect();
        let mut settled = Settlements::default();
        for range in self.gathered.settled.iter() {
            (range.first..range.first + range.count)
                .for_each(|number| settled.add(number - from + to, range.end.clone()));
        }
        self.gathered.settled = settled;
    }

    /// Figures and order of the state agree (tests and the simulation).
    pub(crate) fn is_consistent(&self) -> bool {
        self.ledger.is_balanced()
            && self.live_ledger().is_balanced()
            && self.kept.keys().all(|number| *number >= self.committed)
            && self.told() >= self.committed
    }
}
