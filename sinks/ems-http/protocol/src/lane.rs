//! Which records go out together, and what an answer settles. A pure state machine: no I/O, no clock.
//!
//! Records leave in the order in which they came, one batch at a time, so that order per device needs no further care.
//!
//! Invariants:
//! * Every record is settled exactly once: accepted or rejected.
//! * A batch that was begun keeps its records until an answer decides about it: what is sent again is the same batch with
//!   the same key, however many records have arrived meanwhile.
//! * A record is rejected only when the far side named it, or when it was refused alone.
//!
//! Bisecting: a batch that is refused as a whole, without saying which record is wrong, is halved until a record is refused
//! alone. `suspect` is the number of leading records among which there is a bad one: half of them are sent next. When a
//! half is accepted, the bad one is in the rest.

use std::collections::VecDeque;

use crate::answer::{Answer, Rejections};
use crate::body::Record;

/// What a batch may hold. It is a function of the records alone, not of when they came, so that a full batch that is
/// built again after a restart is the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Samples, unless a single record has more.
    pub samples: u64,
    /// Bytes of the records, unless a single record has more.
    pub bytes: usize,
}

/// Why a record will never be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Named in an answer that accepted the rest.
    Refused,
    /// Refused as invalid.
    Invalid,
    /// Too large for the far side, alone.
    TooLarge,
}

/// How a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Confirmed.
    Accepted,
    /// Refused for ever, with the far side's words.
    Rejected(Why, String),
}

/// One settled record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The record.
    pub record: Record,
    /// How it ended.
    pub end: End,
}

/// The records on their way to the far side.
#[derive(Debug)]
pub struct Lane {
    waiting: VecDeque<Record>,
    limits: Limits,
    /// Learned from "too large"; remembered until [`Lane::reconnected`].
    narrow: usize,
    /// So many leading records hold a bad one; 0 = none known.
    suspect: usize,
    /// Records of the batch that was begun; 0 = none.
    attempt: usize,
    /// A batch ends before this number (see [`Lane::cut_at`]).
    cut: Option<u64>,
}

impl Lane {
    /// An empty lane.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { waiting: VecDeque::new(), limits, narrow: usize::MAX, suspect: 0, attempt: 0, cut: None }
    }

    /// A batch that was begun by an earlier process ended before record `number`: the first batch ends there too, so that
    /// it is the same batch with the same key.
    pub const fn cut_at(&mut self, number: u64) {
        self.cut = Some(number);
    }

    /// Takes a record.
    pub fn push(&mut self, record: Record) {
        self.waiting.push_back(record);
    }

    /// Records not settled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A batch was begun and no answer has decided about it.
    #[must_use]
    pub const fn is_begun(&self) -> bool {
        self.attempt > 0
    }

    /// Waiting for more would not make the next batch larger.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let next = self.size();
        next > 0 && (next < self.waiting.len() || next >= self.most() || self.is_cut(next))
    }

    fn is_cut(&self, size: usize) -> bool {
        let last = size.checked_sub(1).and_then(|at| self.waiting.get(at));
        matches!((self.ahead(), last), (Some(cut), Some(last)) if last.first + u64::from(last.count) >= cut)
    }

    /// The cut, where it is ahead: numbers of a queue in memory begin again, and then an old cut says nothing.
    fn ahead(&self) -> Option<u64> {
        self.cut.filter(|cut| self.waiting.front().is_some_and(|record| record.first < *cut))
    }

    /// Most records of the next batch.
    fn most(&self) -> usize {
        let half = if self.suspect == 0 { usize::MAX } else { self.suspect.div_ceil(2) };
        self.limits.records.min(self.narrow).min(half).max(1)
    }

    /// Records of the next batch.
    fn size(&self) -> usize {
        if self.attempt > 0 {
            return self.attempt.min(self.waiting.len());
        }
        let (mut samples, mut bytes) = (0_u64, 0_usize);
        let cut = self.ahead();
        let fits = self.waiting.iter().take(self.most()).take_while(|record| {
            samples += u64::from(record.count);
            bytes += record.body.len();
            samples <= self.limits.samples
                && bytes <= self.limits.bytes
                && cut.is_none_or(|cut| record.first < cut)
        });
        fits.count().max(usize::from(!self.waiting.is_empty()))
    }

    /// Begins the next batch, or gives again the one that was begun. Empty when nothing is waiting.
    pub fn begin(&mut self) -> &[Record] {
        self.attempt = self.size();
        self.waiting.make_contiguous().get(..self.attempt).unwrap_or_default()
    }

    /// Takes what an answer says about the batch that was begun. Answers that decide nothing (wait, unauthorised, failed)
    /// settle nothing: the same batch comes again.
    pub fn answered(&mut self, answer: &Answer) -> Vec<Settled> {
        match answer {
            Answer::Accepted(rejections) | Answer::Seen(rejections) => self.accepted(rejections),
            Answer::Bad { rejections, text } => self.bad(rejections, text),
            Answer::TooLarge => self.too_large(),
            Answer::Wait { .. } | Answer::Unauthorized | Answer::Failed(_) => Vec::new(),
        }
    }

    fn accepted(&mut self, rejections: &Rejections) -> Vec<Settled> {
        let size = self.attempt;
        if rejections.is_unclear(size) {
            // Something was refused and it is not known what: the halves will tell.
            return self.halve("not said which record");
        }
        self.attempt = 0;
        self.suspect = self.suspect.saturating_sub(size);
        self.drop_cut();
        let settle = |(at, record): (usize, Record)| Settled {
            end: match rejections.reason(at) {
                Some(text) => End::Rejected(Why::Refused, text.to_owned()),
                None => End::Accepted,
            },
            record,
        };
        self.waiting.drain(..size.min(self.waiting.len())).enumerate().map(settle).collect()
    }

    fn bad(&mut self, rejections: &Rejections, text: &str) -> Vec<Settled> {
        let size = self.attempt;
        if !rejections.names_any(size) {
            return self.halve(text);
        }
        self.attempt = 0;
        self.suspect = 0;
        self.drop_cut();
        let batch: Vec<Record> = self.waiting.drain(..size.min(self.waiting.len())).collect();
        let mut settled = Vec::new();
        let mut rest = Vec::new();
        for (at, record) in batch.into_iter().enumerate() {
            match rejections.reason(at) {
                Some(text) => {
                    settled.push(Settled { record, end: End::Rejected(Why::Invalid, text.to_owned()) })
                }
                None => rest.push(record),
            }
        }
        for record in rest.into_iter().rev() {
            self.waiting.push_front(record);
        }
        settled
    }

    /// The batch holds a bad record: half of it comes next, or the record is found.
    fn halve(&mut self, text: &str) -> Vec<Settled> {
        let size = std::mem::take(&mut self.attempt);
        if size > 1 {
            self.suspect = size;
            return Vec::new();
        }
        self.suspect = 0;
        self.reject_first(Why::Invalid, text)
    }

    fn too_large(&mut self) -> Vec<Settled> {
        let size = std::mem::take(&mut self.attempt);
        if size > 1 {
            self.narrow = size / 2;
            return Vec::new();
        }
        self.reject_first(Why::TooLarge, "too large, alone")
    }

    fn reject_first(&mut self, why: Why, text: &str) -> Vec<Settled> {
        self.drop_cut();
        let end = End::Rejected(why, text.to_owned());
        self.waiting.pop_front().map(|record| Settled { record, end }).into_iter().collect()
    }

    /// The cut belongs to the first batch that is decided about.
    const fn drop_cut(&mut self) {
        self.cut = None;
    }

    /// A new connection, perhaps to another server: what was learned about sizes is forgotten.
    pub const fn reconnected(&mut self) {
        self.narrow = usize::MAX;
    }

    /// The oldest record that is not settled.
    #[must_use]
    pub fn front(&self) -> Option<&Record> {
        self.waiting.front()
    }

    /// Forgets every record behind the batch that was begun: the host delivers them again.
    pub fn keep_begun(&mut self) {
        self.waiting.truncate(self.attempt);
    }

    /// Forgets every record: the host delivers them again. What is known about the leading ones stays as a hint for sizes.
    pub fn forget(&mut self) {
        self.waiting.clear();
        self.attempt = 0;
    }
}
