//! The queue of one sink, memory form: numbered records from the oldest unconfirmed one to the newest.
//!
//! Invariants:
//! * Record numbers grow by one and never come back; entry `i` is record `base + i`.
//! * Every record ends exactly once: delivered, parked or dropped. What is `Settled` only keeps its place until
//!   everything before it is settled too, and counts against the bound until then.
//! * Order per device: a device is sent from its oldest waiting record on; `rewind` starts again from the front.

use std::collections::{BTreeSet, VecDeque};

use busbar_contract::{Sample, Samples};

use crate::{model::RECORD_OVERHEAD, table::Blob};

/// Most records of one delivery.
pub(crate) const MAX_DELIVERY: usize = 5_000;
/// Most blob bytes of one delivery.
pub(crate) const MAX_DELIVERY_BLOB: usize = 4 << 20;

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
    status: Status,
    record: Record,
}

/// What became known about a record that was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) device: u32,
    pub(crate) point: u32,
    pub(crate) commit: u32,
    pub(crate) class: Class,
    /// It was not on its way: not sent yet, or to be sent again.
    pub(crate) waiting: bool,
}

/// A delivery, ready to be sent.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) first: u64,
    pub(crate) flags: u32,
    pub(crate) samples: Samples,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Number of the first entry; record numbers begin at 1.
    base: u64,
    entries: VecDeque<Entry>,
    /// Next record to look at for sending.
    cursor: u64,
    waiting: usize,
    in_flight: usize,
    bytes: u64,
    /// Records below this number were accepted before the last connect: the backlog.
    replay_below: u64,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            base: 1,
            entries: VecDeque::new(),
            cursor: 1,
            waiting: 0,
            in_flight: 0,
            bytes: 0,
            replay_below: 0,
        }
    }

    /// Records not yet settled.
    pub(crate) const fn pending(&self) -> usize {
        self.waiting + self.in_flight
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes held, settled places included.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number the next record will get.
    pub(crate) fn next_number(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Numbers that the queue knows: from, to (exclusive).
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.base, self.next_number())
    }

    /// Appends; returns the record's number.
    pub(crate) fn push(&mut self, record: Record) -> u64 {
        let number = self.next_number();
        self.bytes += record.cost();
        self.waiting += 1;
        self.entries.push_back(Entry { status: Status::Waiting, record });
        number
    }

    /// A delivery may end after the newest record.
    pub(crate) fn end_of_poll(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            entry.record.end = true;
        }
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    /// Ends a record; `None` if it is unknown or already ended.
    pub(crate) fn settle(&mut self, number: u64) -> Option<Settled> {
        let entry = self.entry(number)?;
        let was = entry.status;
        let record = &mut entry.record;
        let settled = Settled {
            device: record.device,
            point: record.sample.point,
            commit: record.commit,
            class: record.class,
            waiting: was == Status::Waiting,
        };
        let freed = record.blob.take().map_or(0, |blob| blob.len() as u64);
        match was {
            Status::Settled => return None,
            Status::Waiting => self.waiting -= 1,
            Status::InFlight => self.in_flight -= 1,
        }
        if let Some(entry) = self.entry(number) {
            entry.status = Status::Settled;
        }
        self.bytes -= freed;
        self.trim();
        Some(settled)
    }

    /// A record that was sent must be sent again. `None` if it is not on its way.
    pub(crate) fn send_again(&mut self, number: u64) -> Option<Settled> {
        let entry = self.entry(number)?;
        if entry.status != Status::InFlight {
            return None;
        }
        entry.status = Status::Waiting;
        let record = &entry.record;
        let again = Settled {
            device: record.device,
            point: record.sample.point,
            commit: record.commit,
            class: record.class,
            waiting: true,
        };
        self.in_flight -= 1;
        self.waiting += 1;
        Some(again)
    }

    /// The record was not sent yet, or will be sent again.
    pub(crate) fn is_waiting(&mut self, number: u64) -> bool {
        self.entry(number).is_some_and(|entry| entry.status == Status::Waiting)
    }

    /// Everything on its way must be sent again, from the oldest on. Returns what that is.
    pub(crate) fn send_all_again(&mut self) -> Vec<(u64, Settled)> {
        self.again_from(self.base)
    }

    /// The far side is up: what waits now is the backlog.
    pub(crate) fn begin_replay(&mut self) {
        self.replay_below = self.next_number();
    }

    /// A delivery that began with `first` was not taken: it and what was sent after it must be sent again.
    pub(crate) fn not_taken(&mut self, first: u64) -> Vec<(u64, Settled)> {
        self.again_from(first)
    }

    fn again_from(&mut self, first: u64) -> Vec<(u64, Settled)> {
        let sent: Vec<u64> = (self.base..)
            .zip(&self.entries)
            .filter(|(number, entry)| *number >= first && entry.status == Status::InFlight)
            .map(|(number, _)| number)
            .collect();
        self.rewind();
        sent.into_iter().filter_map(|number| Some((number, self.send_again(number)?))).collect()
    }

    /// Looks for waiting records from the front again.
    pub(crate) const fn rewind(&mut self) {
        self.cursor = self.base;
    }

    /// Number and time of acceptance of the oldest record not settled.
    pub(crate) fn oldest(&self) -> Option<(u64, u64)> {
        let at = self.entries.iter().position(|entry| entry.status != Status::Settled)?;
        self.entries.get(at).map(|entry| (self.base + at as u64, entry.record.accepted_ns))
    }

    /// Numbers of the waiting records that `which` accepts.
    pub(crate) fn waiting_where(&self, which: impl Fn(&Record) -> bool) -> Vec<u64> {
        (self.base..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.status == Status::Waiting && which(&entry.record))
            .map(|(number, _)| number)
            .collect()
    }

    fn trim(&mut self) {
        while let Some(entry) = self.entries.front()
            && entry.status == Status::Settled
        {
            self.bytes -= entry.record.cost();
            self.entries.pop_front();
            self.base += 1;
        }
        self.cursor = self.cursor.max(self.base);
    }

    /// The next delivery: consecutive waiting records, of devices that are not `blocked`, with equal flags. It ends at
    /// the end of a poll where it can, so that a poll is not torn; a poll that does not fit waits for an empty window,
    /// unless it is larger than the window.
    pub(crate) fn next_delivery(&mut self, window: usize, blocked: impl Fn(u32) -> bool) -> Option<Delivery> {
        let room = window.saturating_sub(self.in_flight).min(MAX_DELIVERY);
        let first = self.skip_to_waiting(&blocked)?;
        let count = self.measure(first, room, &blocked)?;
        let start = usize::try_from(first - self.base).ok()?;
        let mut times = Vec::new();
        let mut samples = Samples::with_capacity(count);
        let mut flags = 0;
        for (index, entry) in self.entries.range_mut(start..start + count).enumerate() {
            entry.status = Status::InFlight;
            let record = &entry.record;
            let mut sample = record.sample;
            if let Some(blob) = &record.blob {
                sample.bits = ((samples.blob.len() as u64) << 32) | blob.len() as u64;
                samples.blob.extend_from_slice(blob);
            }
            if record.value_ts_ns != sample.ts_ns {
                times.push((index as u32, record.value_ts_ns));
            }
            flags = u32::from(record.flags);
            samples.samples.push(sample);
        }
        if first < self.replay_below {
            flags |= busbar_contract::batch::REPLAY;
        }
        if !times.is_empty() {
            flags |= busbar_contract::batch::TIMES;
            samples.append_times(&times);
        }
        self.waiting -= count;
        self.in_flight += count;
        self.cursor = first + count as u64;
        Some(Delivery { first, flags, samples })
    }

    fn skip_to_waiting(&mut self, blocked: &impl Fn(u32) -> bool) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        let start = usize::try_from(self.cursor.checked_sub(self.base)?).ok()?;
        let skipped = self
            .entries
            .range(start.min(self.entries.len())..)
            .position(|entry| entry.status == Status::Waiting && !blocked(entry.record.device));
        self.cursor += skipped.unwrap_or_else(|| self.entries.len().saturating_sub(start)) as u64;
        skipped.map(|_| self.cursor)
    }

    /// How many records from `first` on may go out together.
    fn measure(&self, first: u64, room: usize, blocked: &impl Fn(u32) -> bool) -> Option<usize> {
        let start = usize::try_from(first - self.base).ok()?;
        let head = &self.entries.get(start)?.record;
        let (mut count, mut whole, mut blob) = (0, 0, 0);
        for (number, entry) in (first..).zip(self.entries.range(start..)) {
            let record = &entry.record;
            let fits = count < room && blob <= MAX_DELIVERY_BLOB;
            let same = entry.status == Status::Waiting
                && record.flags == head.flags
                && (number < self.replay_below) == (first < self.replay_below)
                && !blocked(record.device);
            if !same {
                whole = count;
                break;
            }
            if !fits {
                break;
            }
            count += 1;
            blob += record.blob.as_ref().map_or(0, |blob| blob.len());
            if record.end || start + count == self.entries.len() {
                whole = count;
            }
        }
        if whole > 0 {
            return Some(whole);
        }
        (self.in_flight == 0 && count > 0).then_some(count)
    }

    /// Which of these points have records that are not settled.
    pub(crate) fn waits_for(&self, points: &BTreeSet<u32>) -> BTreeSet<u32> {
        let open = self.entries.iter().filter(|entry| entry.status != Status::Settled);
        open.map(|entry| entry.record.sample.point).filter(|point| points.contains(point)).collect()
    }

    /// All counters agree with the entries (tests and the simulation).
    pub(crate) fn is_consistent(&self) -> bool {
        let count = |status| self.entries.iter().filter(|entry| entry.status == status).count();
        let bytes: u64 = self.entries.iter().map(|entry| entry.record.cost()).sum();
        count(Status::Waiting) == self.waiting
            && count(Status::InFlight) == self.in_flight
            && bytes == self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(device: u32, point: u32, value: u64) -> Record {
        Record {
            sample: Sample { ts_ns: 1, bits: value, point, quality: 0, kind: 2, flags: 0 },
            value_ts_ns: 1,
            blob: None,
            accepted_ns: 0,
            device,
            commit: 0,
            class: Class::State,
            flags: 0,
            end: false,
        }
    }

    fn numbers(delivery: &Delivery) -> (u64, Vec<u64>) {
        (delivery.first, delivery.samples.samples.iter().map(|sample| sample.bits).collect())
    }

    #[test]
    fn numbers_grow_and_never_come_back() {
        let mut queue = Queue::new();
        for value in 0..3 {
            queue.push(record(0, 0, value));
        }
        queue.end_of_poll();
        let delivery = queue.next_delivery(10, |_| false).unwrap();
        assert_eq!(numbers(&delivery), (1, vec![0, 1, 2]));
        for number in 1..4 {
            assert!(queue.settle(number).is_some());
            assert_eq!(queue.settle(number), None, "a duplicate confirmation counts nothing");
        }
        assert_eq!(queue.push(record(0, 0, 9)), 4);
        assert!(queue.is_consistent());
        assert_eq!(queue.bytes(), 48);
    }

    #[test]
    fn a_poll_is_not_torn_by_the_window() {
        let mut queue = Queue::new();
        for poll in 0..2 {
            for value in 0..3 {
                queue.push(record(poll, value as u32, value));
            }
            queue.end_of_poll();
        }
        let delivery = queue.next_delivery(4, |_| false).unwrap();
        assert_eq!(delivery.samples.samples.len(), 3);
        assert!(queue.next_delivery(4, |_| false).is_none(), "the second poll waits for room");
        queue.settle(1);
        queue.settle(2);
        assert_eq!(queue.next_delivery(4, |_| false).unwrap().first, 4);
    }

    #[test]
    fn a_poll_larger_than_the_window_goes_out_in_parts() {
        let mut queue = Queue::new();
        for value in 0..5 {
            queue.push(record(0, 0, value));
        }
        queue.end_of_poll();
        assert_eq!(numbers(&queue.next_delivery(2, |_| false).unwrap()), (1, vec![0, 1]));
        assert!(queue.next_delivery(2, |_| false).is_none());
    }

    #[test]
    fn a_retry_blocks_only_its_own_device() {
        let mut queue = Queue::new();
        for value in 0..4 {
            queue.push(record((value % 2) as u32, 0, value));
            queue.end_of_poll();
        }
        while queue.next_delivery(10, |_| false).is_some() {}
        assert_eq!(queue.send_again(1).map(|again| again.device), Some(0));
        assert_eq!(queue.send_again(1), None, "only what is on its way");
        queue.push(record(0, 0, 4));
        queue.push(record(1, 0, 5));
        queue.end_of_poll();
        queue.rewind();
        assert_eq!(numbers(&queue.next_delivery(10, |device| device == 0).unwrap()), (6, vec![5]));
        assert!(queue.next_delivery(10, |device| device == 0).is_none());
        queue.rewind();
        assert_eq!(numbers(&queue.next_delivery(10, |_| false).unwrap()), (1, vec![0]));
        assert_eq!(numbers(&queue.next_delivery(10, |_| false).unwrap()), (5, vec![4]));
        assert!(queue.is_consistent());
    }

    #[test]
    fn after_a_reconnect_everything_unconfirmed_comes_again_as_replay() {
        let mut queue = Queue::new();
        for value in 0..3 {
            queue.push(record(0, 0, value));
        }
        queue.next_delivery(10, |_| false);
        queue.settle(2);
        queue.send_all_again();
        queue.begin_replay();
        let delivery = queue.next_delivery(10, |_| false).unwrap();
        assert_eq!(numbers(&delivery), (1, vec![0]));
        assert_eq!(delivery.flags, busbar_contract::batch::REPLAY);
        assert_eq!(numbers(&queue.next_delivery(10, |_| false).unwrap()), (3, vec![2]));
        assert_eq!(queue.pending(), 2);
    }

    #[test]
    fn texts_travel_in_the_blob_and_other_times_in_the_trailer() {
        let mut queue = Queue::new();
        let mut text = record(0, 0, 2);
        text.sample.kind = 9;
        text.blob = Some(b"ab"[..].into());
        text.value_ts_ns = -5;
        queue.push(record(0, 1, 7));
        queue.push(text);
        let mut delivery = queue.next_delivery(10, |_| false).unwrap();
        assert_eq!(delivery.flags, busbar_contract::batch::TIMES);
        assert_eq!(delivery.samples.take_times(), Ok(vec![(1, -5)]));
        let sample = delivery.samples.samples[1];
        assert_eq!(delivery.samples.value(&sample), Ok(busbar_contract::Value::Text("ab".into())));
    }
}
