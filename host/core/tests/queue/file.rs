//! A model of the file of a queue: what `busbar_core::journal` promises, in memory. It checks what it is told.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::Cause;
use busbar_core::journal::{
    Committed, End, Entry, Ledger, Loaded, Name, NotCommitted, Recovered, Row, Transaction,
};

/// Records that come once: reported by the device. Others repeat values.
pub(crate) fn is_tracked(flags: u8) -> bool {
    matches!(Cause::of(flags), Cause::DataUpdate | Cause::History)
}

#[derive(Debug, Clone)]
struct Stored {
    row: u64,
    accepted_ns: i64,
    /// `sample.point` is the dictionary's.
    entry: Entry,
}

/// What became of a record, by its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Waiting,
    Delivered,
    Parked,
    Dropped,
}

#[derive(Debug, Default)]
pub(crate) struct File {
    next: u64,
    waiting: BTreeMap<u64, Stored>,
    parked: BTreeMap<u64, (String, Stored)>,
    ledger: Ledger,
    dictionary: BTreeMap<Name, u32>,
    /// What this run introduced, and what it was told.
    introduced: BTreeMap<u32, u32>,
    told: BTreeSet<u32>,
    /// Value behind every number ever written.
    numbers: BTreeMap<u64, u64>,
    /// In this run.
    is_open: bool,
    /// By value.
    pub(crate) fates: BTreeMap<u64, Fate>,
    pub(crate) max_records: usize,
    pub(crate) max_age_ns: u64,
    /// Nanoseconds of earlier runs.
    before_ns: i64,
    pub(crate) full: bool,
    pub(crate) transactions: u64,
    pub(crate) rows_written: u64,
}

impl File {
    pub(crate) fn new(max_records: usize, max_age_ns: u64) -> Self {
        Self { next: 1, max_records, max_age_ns, ..Self::default() }
    }

    /// A new run; the one before ended at `ended_ns` of its clock.
    pub(crate) fn crash(&mut self, ended_ns: u64) {
        self.is_open = false;
        self.introduced.clear();
        self.told.clear();
        self.before_ns += ended_ns as i64;
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn oldest(&self) -> u64 {
        self.waiting.keys().next().copied().unwrap_or(self.next)
    }

    fn oldest_age_ns(&self, now_ns: u64) -> u64 {
        let oldest = self.waiting.values().next();
        oldest.map_or(0, |stored| (self.before_ns + now_ns as i64 - stored.accepted_ns).max(0) as u64)
    }

    pub(crate) fn open(&mut self) -> Recovered {
        self.is_open = true;
        Recovered {
            next: self.next,
            oldest: self.oldest(),
            ledger: self.ledger.clone(),
            bytes: self.waiting.len() as u64 * 40,
            oldest_age_ns: self.oldest_age_ns(0),
            notes: Vec::new(),
        }
    }

    pub(crate) fn write(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Result<Committed, NotCommitted>, String> {
        if self.full {
            return Ok(Err(NotCommitted { full: true, text: "no space left on device".into() }));
        }
        self.transactions += 1;
        for (point, name) in &transaction.names {
            let next = self.dictionary.len() as u32 + 1000;
            let entry = *self.dictionary.entry(name.clone()).or_insert(next);
            self.introduced.insert(*point, entry);
        }
        let mut last = 0;
        for row in &transaction.rows {
            self.rows_written += 1;
            let first = row.entries.first().ok_or("a row without entries")?.number;
            for entry in &row.entries {
                if entry.number <= last {
                    return Err(format!("record {} comes after {last}", entry.number));
                }
                last = entry.number;
                self.append(first, row.accepted_ns, entry)?;
            }
        }
        if last >= transaction.next {
            return Err(format!("record {last} is not below next {}", transaction.next));
        }
        if transaction.next < self.next {
            return Err(format!("next goes back from {} to {}", self.next, transaction.next));
        }
        self.next = transaction.next;
        self.count(transaction);
        for settled in &transaction.settled {
            for number in settled.first..settled.first + settled.count {
                self.settle(number, &settled.end);
            }
        }
        self.enforce(transaction.now_ns);
        if !self.ledger.is_balanced() {
            return Err(format!("G7: the file's ledger does not balance: {:?}", self.ledger));
        }
        Ok(Ok(Committed {
            ledger: self.ledger.clone(),
            oldest: self.oldest(),
            bytes: self.waiting.len() as u64 * 40,
            oldest_age_ns: self.oldest_age_ns(transaction.now_ns),
        }))
    }

    fn append(&mut self, row: u64, accepted_ns: u64, entry: &Entry) -> Result<(), String> {
        let point = *self
            .introduced
            .get(&entry.sample.point)
            .ok_or(format!("point {} was never introduced", entry.sample.point))?;
        let value = entry.sample.bits;
        if self.numbers.insert(entry.number, value).is_some() {
            return Err(format!("number {} is used twice", entry.number));
        }
        let mut entry = entry.clone();
        entry.sample.point = point;
        let accepted_ns = self.before_ns + accepted_ns as i64;
        let (number, entry_flags) = (entry.number, entry.sample.flags);
        self.waiting.insert(number, Stored { row, accepted_ns, entry });
        self.ledger.accepted += 1;
        self.ledger.pending += 1;
        if is_tracked(entry_flags) {
            self.fates.insert(value, Fate::Waiting);
        }
        Ok(())
    }

    fn count(&mut self, transaction: &Transaction) {
        self.ledger.accepted += transaction.delivered_unwritten;
        self.ledger.delivered += transaction.delivered_unwritten;
        for (reason, count) in &transaction.dropped_unwritten {
            self.ledger.accepted += count;
            *self.ledger.dropped.entry(reason.clone()).or_default() += count;
        }
    }

    fn settle(&mut self, number: u64, end: &End) {
        let Some(stored) = self.waiting.remove(&number) else { return };
        self.ledger.pending -= 1;
        let fate = match end {
            End::Delivered => {
                self.ledger.delivered += 1;
                Fate::Delivered
            }
            End::Parked(reason) => {
                *self.ledger.parked.entry(reason.clone()).or_default() += 1;
                self.parked.insert(number, (reason.clone(), stored.clone()));
                Fate::Parked
            }
            End::Dropped(reason) => {
                *self.ledger.dropped.entry(reason.clone()).or_default() += 1;
                Fate::Dropped
            }
        };
        if is_tracked(stored.entry.sample.flags) {
            self.fates.insert(stored.entry.sample.bits, fate);
        }
    }

    /// An operator wants refused records tried again: every other one.
    pub(crate) fn again(&mut self) -> Option<(Ledger, Loaded)> {
        if !self.is_open {
            return None;
        }
        let numbers: Vec<u64> = self.parked.keys().step_by(2).copied().collect();
        let mut again = Loaded { from: *numbers.first()?, next: self.next, ..Loaded::default() };
        for number in numbers {
            let Some((reason, stored)) = self.parked.remove(&number) else { continue };
            if let Some(count) = self.ledger.parked.get_mut(&reason) {
                *count -= 1;
            }
            self.ledger.pending += 1;
            if is_tracked(stored.entry.sample.flags) {
                self.fates.insert(stored.entry.sample.bits, Fate::Waiting);
            }
            self.waiting.insert(number, stored);
            let loaded = self.load(number, 1);
            again.names.extend(loaded.names);
            let of_row = loaded.rows.into_iter().map(|row| Row {
                entries: row.entries.into_iter().filter(|entry| entry.number == number).collect(),
                ..row
            });
            again.rows.extend(of_row);
        }
        Some((self.ledger.clone(), again))
    }

    fn enforce(&mut self, now_ns: u64) {
        let now_ns = self.before_ns + now_ns as i64;
        while let Some((number, stored)) = self.waiting.first_key_value() {
            let old = now_ns - stored.accepted_ns > self.max_age_ns as i64;
            let reason = match (old, self.waiting.len() > self.max_records) {
                (true, _) => "expired",
                (_, true) => "overflow",
                _ => return,
            };
            let number = *number;
            self.settle(number, &End::Dropped(reason.into()));
        }
    }

    pub(crate) fn load(&mut self, from: u64, records: usize) -> Loaded {
        let mut rows: Vec<Row> = Vec::new();
        let mut names = Vec::new();
        let (mut count, mut row) = (0, None);
        let mut next = self.next;
        for (number, stored) in self.waiting.range(from..) {
            if row != Some(stored.row) {
                if count >= records {
                    next = *number;
                    break;
                }
                row = Some(stored.row);
                let accepted_ns = (stored.accepted_ns - self.before_ns).max(0) as u64;
                rows.push(Row { accepted_ns, entries: Vec::new() });
            }
            count += 1;
            let entry = stored.entry.sample.point;
            if self.told.insert(entry)
                && let Some((name, _)) = self.dictionary.iter().find(|(_, known)| **known == entry)
            {
                names.push((entry, name.clone()));
            }
            if let Some(row) = rows.last_mut() {
                row.entries.push(stored.entry.clone());
            }
        }
        Loaded { from, rows, names, next }
    }
}
