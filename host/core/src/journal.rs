//! What the core and the file of a sink's queue say to each other (G7, SEMANTICS 8). Plain data; the file is the edge's.
//!
//! The file is the authority over what is kept and over the ledger: the core sends what happened, the file answers with
//! absolute figures that are on disk. So the equation holds after any crash, and a record that the file dropped by size
//! or age is never counted twice.
//!
//! Numbers: a record has one number for the whole life of the file, also over restarts. Names: within the file a record
//! names its point by an entry of the file's dictionary, because point numbers live only as long as a process; the core
//! introduces a point once per run ([`Transaction::names`]) and learns the entries of what it reads back
//! ([`Loaded::names`]).

use std::{collections::BTreeMap, sync::Arc};

use busbar_contract::Sample;

/// Absolute figures of one queue, all on disk. `accepted = delivered + pending + parked + dropped`, always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records taken.
    pub accepted: u64,
    /// Confirmed by the far side.
    pub delivered: u64,
    /// Not yet ended.
    pub pending: u64,
    /// Refused by the far side and kept, by reason.
    pub parked: BTreeMap<String, u64>,
    /// Given up, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Ledger {
    /// Sum over `parked`.
    #[must_use]
    pub fn parked_total(&self) -> u64 {
        self.parked.values().sum()
    }

    /// Sum over `dropped`.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// The equation of G7.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let ended: u64 = self.parked.values().chain(self.dropped.values()).sum();
        self.accepted == self.delivered + self.pending + ended
    }
}

/// What a record in the file is about, in the words of its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Device, or `@host`, `@sink/NAME`.
    pub device: String,
    /// Point within the device.
    pub point: String,
    /// Unit label.
    pub unit: String,
}

/// Why a record is on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The newest per point wins.
    State,
    /// Kept all, in order.
    Event,
    /// From the device's own memory.
    History,
}

/// One record as the file keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// `point` is the core's number towards the file, the dictionary's number on the way back. Of texts and bytes
    /// `bits` is the length and `blob` the content.
    pub sample: Sample,
    /// Source time of the value, nanoseconds UTC.
    pub value_ts_ns: i64,
    /// Text or bytes.
    pub blob: Option<Arc<[u8]>>,
    /// Its class.
    pub kept: Kept,
    /// SNAPSHOT, RESYNC, BLOCK of the batch it must travel in.
    pub flags: u8,
}

/// Records of one poll of one device that still wait: one row of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When they were accepted, monotonic nanoseconds of this run.
    pub accepted_ns: u64,
    /// In order of their numbers; never empty.
    pub entries: Vec<Entry>,
}

/// How records ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The far side confirmed them.
    Delivered,
    /// The far side refused them: kept aside with the reason.
    Parked(String),
    /// Given up by the core, with the reason.
    Dropped(String),
}

/// Records `first..first + count` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// First number.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How.
    pub end: End,
}

/// One transaction: what was accepted and what ended since the last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transaction {
    /// Counts up; the answer names it.
    pub number: u64,
    /// Points that rows name for the first time in this run, or whose unit is another since: from here on the core's
    /// number means this name.
    pub names: Vec<(u32, Name)>,
    /// New rows, in order of their numbers.
    pub rows: Vec<Row>,
    /// Ends of records that are in the file, or in `rows` of this transaction. A number that is in neither has ended
    /// before and is not counted again.
    pub settled: Vec<Settled>,
    /// Records that were accepted and confirmed without ever being written.
    pub delivered_unwritten: u64,
    /// Records that were accepted and given up without ever being written, by reason.
    pub dropped_unwritten: BTreeMap<String, u64>,
    /// Where a later run begins to number ([`Recovered::next`]). It never goes back and lies above every number given so
    /// far, also those never written; while the gateway runs it is reserved far ahead, so that a number which the far
    /// side has seen never comes back with another record.
    pub next: u64,
    /// Monotonic nanoseconds of this run, for the age of rows.
    pub now_ns: u64,
}

/// A transaction is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Absolute figures.
    pub ledger: Ledger,
    /// Everything below has ended: the file dropped its oldest rows by size or age, and counted them. The file's `next`
    /// when nothing waits.
    pub oldest: u64,
    /// Bytes that waiting rows take in the file.
    pub bytes: u64,
    /// Age of the oldest waiting record, nanoseconds, on the clock that `max_age` counts on; 0 when nothing waits.
    pub oldest_age_ns: u64,
}

/// A transaction is not on disk; nothing of it is. The core offers its content again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCommitted {
    /// The disk is full (or a quota).
    pub full: bool,
    /// For the operator.
    pub text: String,
}

/// Facts found when the file was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Number that the next record gets.
    pub next: u64,
    /// Number of the oldest waiting record; `next` when there is none.
    pub oldest: u64,
    /// Absolute figures.
    pub ledger: Ledger,
    /// Bytes that waiting rows take in the file.
    pub bytes: u64,
    /// Age of the oldest waiting record, nanoseconds, on the clock that `max_age` counts on; 0 when nothing waits.
    pub oldest_age_ns: u64,
    /// What was found and done, for the operator: a damaged file kept aside, rows salvaged.
    pub notes: Vec<String>,
}

/// Waiting records read back, in order of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// From where was asked.
    pub from: u64,
    /// Rows; `accepted_ns` is in this run's clock and saturates at 0 for rows of earlier runs.
    pub rows: Vec<Row>,
    /// Dictionary entries that no [`Loaded`] of this run has told yet (also of points that this run introduced).
    pub names: Vec<(u32, Name)>,
    /// Where to go on: everything waiting from `from` up to below `next` is in `rows`. At the end of the file it is the
    /// file's `next`.
    pub next: u64,
}
