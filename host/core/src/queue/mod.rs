//! The records of one sink that are in memory, in order of their numbers: what waits, what is on its way, what ended and
//! only keeps its place.
//!
//! Memory form: everything from the oldest unconfirmed record to the newest. Disk form: the window. What waits below
//! [`Queue::reach`] is here and may be delivered; from `reach` on there is a gap, records are only in the file, and
//! those that are here as well are here because they are not in the file yet. Which records are in the file is known to
//! `journaling.rs`.
//!
//! Invariants:
//! * Numbers grow and never come back; entries are in order of their numbers, with holes where records are elsewhere or
//!   have ended.
//! * Every record ends exactly once: delivered, parked or dropped. What is `Settled` keeps its place for a while, and
//!   counts against the bounds until then.
//! * Order per device: a device is sent from its oldest waiting record on; `rewind` starts again from the front.

mod change;
mod pick;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, VecDeque};

use busbar_contract::Sample;

pub(crate) use pick::{Delivery, Limits, Side};

use crate::{model::RECORD_OVERHEAD, table::Blob};

/// Why a record is on the stream; decides what may replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The newest per point wins.
    State,
    /// Kept all, in order.
    Event,
    /// From the device's own memory.
    History,
}

/// One record for one sink.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Of texts, `bits` is the length.
    pub(crate) sample: Sample,
    pub(crate) value_ts_ns: i64,
    pub(crate) blob: Blob,
    /// When it was accepted, monotonic.
    pub(crate) accepted_ns: u64,
    /// Number of its device; `u32::MAX` for system points.
    pub(crate) device: u32,
    /// Batch that waits for its confirmation, 0 = none.
    pub(crate) commit: u32,
    pub(crate) class: Class,
    /// SNAPSHOT, RESYNC, BLOCK of the batch it must travel in.
    pub(crate) flags: u8,
    /// Last record of one poll of one device: a delivery may end here.
    pub(crate) end: bool,
    /// Made from the table, can be made again: never written, in no ledger.
    pub(crate) transient: bool,
}

impl Record {
    /// Bytes it counts for.
    pub(crate) fn cost(&self) -> u64 {
        size_of::<Sample>() as u64 + RECORD_OVERHEAD + self.blob.as_ref().map_or(0, |blob| blob.len() as u64)
    }
}

/// How far a record got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Waiting,
    InFlight,
    Settled,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    status: Status,
    /// It was sent as part of the backlog.
    replay: bool,
    /// The delivery it was sent with.
    turn: u32,
    record: Record,
}

/// What became known about a record that was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) device: u32,
    pub(crate) point: u32,
    pub(crate) commit: u32,
    pub(crate) class: Class,
    pub(crate) transient: bool,
    /// It was not on its way: not sent yet, or to be sent again.
    pub(crate) waiting: bool,
}

impl Settled {
    fn of(record: &Record, waiting: bool) -> Self {
        Self {
            device: record.device,
            point: record.sample.point,
            commit: record.commit,
            class: record.class,
            transient: record.transient,
            waiting,
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    /// Number the next record will get.
    next: u64,
    /// Next records to look at for sending: of everything or the backlog, of the live records.
    cursor: u64,
    live_cursor: u64,
    /// From here on records may be missing: not delivered before they are loaded. `u64::MAX` = none is missing.
    reach: u64,
    /// From here on records are live and go at once (`order = "live-first"`); `u64::MAX` = one order for all.
    live_from: u64,
    /// Records below this number were accepted before the last connect: the backlog.
    replay_below: u64,
    waiting: usize,
    in_flight: usize,
    in_flight_replay: usize,
    settled: usize,
    /// Deliveries made, wrapping.
    turns: u32,
    /// Of those not settled.
    transient: usize,
    bytes: u64,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self::starting_at(1)
    }

    /// Numbers begin at `next`.
    pub(crate) const fn starting_at(next: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            next,
            cursor: 0,
            live_cursor: 0,
            reach: u64::MAX,
            live_from: u64::MAX,
            replay_below: 0,
            waiting: 0,
            in_flight: 0,
            in_flight_replay: 0,
            settled: 0,
            turns: 0,
            transient: 0,
            bytes: 0,
        }
    }

    /// Records here not yet settled, those made from the table too.
    pub(crate) const fn pending(&self) -> usize {
        self.waiting + self.in_flight
    }

    /// Records here not yet settled that are in the ledger.
    pub(crate) const fn pending_real(&self) -> usize {
        self.waiting + self.in_flight - self.transient
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Places taken, settled ones included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held, settled places included.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number the next record will get.
    pub(crate) const fn next_number(&self) -> u64 {
        self.next
    }

    pub(crate) const fn reach(&self) -> u64 {
        self.reach
    }

    /// Nothing is missing here.
    pub(crate) const fn is_whole(&self) -> bool {
        self.reach == u64::MAX
    }

    pub(crate) const fn set_reach(&mut self, reach: u64) {
        self.reach = reach;
    }

    pub(crate) const fn live_from(&self) -> u64 {
        self.live_from
    }

    /// Records below this number are the backlog.
    pub(crate) const fn replay_below(&self) -> u64 {
        self.replay_below
    }

    /// Live records go at once from `number` on; what is older is the backlog.
    pub(crate) const fn set_live_from(&mut self, number: u64) {
        self.live_from = number;
        if number != u64::MAX {
            self.replay_below = number;
        }
    }

    /// Places of live records beside a backlog.
    pub(crate) fn live_len(&self) -> usize {
        self.entries.len() - self.position(self.live_from)
    }

    /// Places of records below `number`.
    pub(crate) fn len_below(&self, number: u64) -> usize {
        self.position(number)
    }

    /// Number of the first record at a place or behind it with which a poll begins.
    pub(crate) fn poll_from(&self, place: usize) -> Option<u64> {
        let places = place.min(self.entries.len())..;
        let mut here =
            self.entries.range(places.clone()).zip(self.entries.iter().skip(places.start.saturating_sub(1)));
        here.find(|(_, before)| before.record.end).map(|(entry, _)| entry.number)
    }

    /// The newest record is not the last of its poll: more of it is coming.
    pub(crate) fn is_in_poll(&self) -> bool {
        self.entries.back().is_some_and(|entry| !entry.record.end)
    }

    /// Waiting records made from the table, from `number` on: number and point.
    pub(crate) fn transient_from(&self, number: u64) -> Vec<(u64, u32)> {
        self.entries
            .range(self.position(number)..)
            .filter(|entry| entry.status == Status::Waiting && entry.record.transient)
            .map(|entry| (entry.number, entry.record.sample.point))
            .collect()
    }

    /// The first waiting record from `number` on.
    pub(crate) fn first_waiting(&self, number: u64) -> Option<u64> {
        let mut later = self.entries.range(self.position(number)..);
        later.find(|entry| entry.status == Status::Waiting).map(|entry| entry.number)
    }

    /// Index of the first entry with this number or a higher one. Without holes it is where arithmetic says.
    fn position(&self, number: u64) -> usize {
        let Some(front) = self.entries.front() else { return 0 };
        let Some(ahead) = number.checked_sub(front.number) else { return 0 };
        let at = usize::try_from(ahead).unwrap_or(usize::MAX).min(self.entries.len());
        let before = at.checked_sub(1).and_then(|before| self.entries.get(before));
        if before.is_none_or(|entry| entry.number < number) {
            return at;
        }
        self.entries.partition_point(|entry| entry.number < number)
    }

    fn find(&self, number: u64) -> Option<usize> {
        let at = self.position(number);
        self.entries.get(at).filter(|entry| entry.number == number).map(|_| at)
    }

    /// The first number known here from `number` on, below `end`.
    pub(crate) fn known_from(&self, number: u64, end: u64) -> Option<u64> {
        let entry = self.entries.get(self.position(number))?;
        (entry.number < end).then_some(entry.number)
    }

    /// Appends; returns the record's number.
    pub(crate) fn push(&mut self, record: Record) -> u64 {
        let number = self.next;
        self.next += 1;
        self.count_in(&record);
        self.entries.push_back(Entry { number, status: Status::Waiting, replay: false, turn: 0, record });
        number
    }

    fn count_in(&mut self, record: &Record) {
        self.bytes += record.cost();
        self.waiting += 1;
        self.transient += usize::from(record.transient);
    }

    /// A delivery may end after the newest record.
    pub(crate) fn end_of_poll(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            entry.record.end = true;
        }
    }

    /// The record is here, and was not sent yet or will be sent again.
    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.find(number)
            .and_then(|at| self.entries.get(at))
            .is_some_and(|entry| entry.status == Status::Waiting)
    }

    /// The record is here, ended or not.
    pub(crate) fn knows(&self, number: u64) -> bool {
        self.find(number).is_some()
    }

    /// The far side is up: what waits now is the backlog.
    pub(crate) const fn begin_replay(&mut self) {
        self.replay_below = self.next;
    }

    /// Looks for waiting records from the front again.
    pub(crate) const fn rewind(&mut self) {
        self.cursor = 0;
        self.live_cursor = 0;
    }

    /// Number and time of acceptance of the oldest record of the ledger that is here and not settled.
    pub(crate) fn oldest(&self) -> Option<(u64, u64)> {
        self.first_open(0)
    }

    /// The same from `number` on.
    pub(crate) fn first_open(&self, number: u64) -> Option<(u64, u64)> {
        self.entries
            .range(self.position(number)..)
            .find(|entry| entry.status != Status::Settled && !entry.record.transient)
            .map(|entry| (entry.number, entry.record.accepted_ns))
    }

    /// Numbers of the waiting records that `which` accepts.
    pub(crate) fn waiting_where(&self, which: impl Fn(&Record) -> bool) -> Vec<u64> {
        self.entries
            .iter()
            .filter(|entry| entry.status == Status::Waiting && which(&entry.record))
            .map(|entry| entry.number)
            .collect()
    }

    /// Records of the ledger from `number` on that have not ended, with their numbers.
    pub(crate) fn open_from(&self, number: u64) -> impl Iterator<Item = (u64, &Record)> {
        self.entries
            .range(self.position(number)..)
            .filter(|entry| entry.status != Status::Settled && !entry.record.transient)
            .map(|entry| (entry.number, &entry.record))
    }

    /// The same, to be changed.
    pub(crate) fn open_from_mut(&mut self, number: u64) -> impl Iterator<Item = (u64, &mut Record)> {
        let at = self.position(number);
        self.entries
            .range_mut(at..)
            .filter(|entry| entry.status != Status::Settled && !entry.record.transient)
            .map(|entry| (entry.number, &mut entry.record))
    }

    /// Which of these points have records that wait or are on their way.
    pub(crate) fn waits_for(&self, points: &BTreeSet<u32>) -> BTreeSet<u32> {
        self.open_from(0)
            .map(|(_, record)| record.sample.point)
            .filter(|point| points.contains(point))
            .collect()
    }

    /// All counters agree with the entries (tests and the simulation).
    pub(crate) fn is_consistent(&self) -> bool {
        let count = |status| self.entries.iter().filter(|entry| entry.status == status).count();
        let replay = |entry: &&Entry| entry.status == Status::InFlight && entry.replay;
        let transient = |entry: &&Entry| entry.status != Status::Settled && entry.record.transient;
        let bytes: u64 = self.entries.iter().map(|entry| entry.record.cost()).sum();
        let ordered = self.entries.iter().zip(self.entries.iter().skip(1)).all(|(a, b)| a.number < b.number);
        count(Status::Waiting) == self.waiting
            && count(Status::InFlight) == self.in_flight
            && count(Status::Settled) == self.settled
            && self.entries.iter().filter(replay).count() == self.in_flight_replay
            && self.entries.iter().filter(transient).count() == self.transient
            && bytes == self.bytes
            && ordered
            && self.entries.back().is_none_or(|entry| entry.number < self.next)
    }
}
