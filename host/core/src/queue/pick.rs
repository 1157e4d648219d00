//! What is sent next: whole polls, one backlog or live, never both in one delivery.

use busbar_contract::{Samples, batch};

use super::{Queue, Status};

/// Most records of one delivery.
pub(crate) const MAX_DELIVERY: usize = 5_000;
/// Most blob bytes of one delivery.
pub(crate) const MAX_DELIVERY_BLOB: usize = 4 << 20;

/// A delivery, ready to be sent.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) first: u64,
    pub(crate) flags: u32,
    pub(crate) samples: Samples,
}

/// Which records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Older than the live ones; without `live-first` everything.
    Older,
    /// Live records beside a backlog.
    Live,
}

/// How much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Records that may be on their way.
    pub(crate) window: usize,
    /// Of these, records of the backlog.
    pub(crate) replay_window: usize,
    /// Records of the backlog in this delivery; it ends with the poll in which they are reached.
    pub(crate) replay: usize,
}

impl Limits {
    pub(crate) const fn window(window: usize) -> Self {
        Self { window, replay_window: window, replay: usize::MAX }
    }
}

impl Queue {
    /// The next delivery: consecutive waiting records that are not `blocked` (device, number), with equal flags. It ends
    /// at the end of a poll where it can, so that a poll is not torn; a poll that does not fit waits for an empty window,
    /// unless it is larger than the window.
    pub(crate) fn next_delivery(
        &mut self,
        side: Side,
        limits: Limits,
        blocked: impl Fn(u32, u64) -> bool,
    ) -> Option<Delivery> {
        let start = self.skip_to_waiting(side, &blocked)?;
        let first = self.entries.get(start)?.number;
        let replay = first < self.replay_below;
        if replay && limits.replay == 0 {
            return None;
        }
        let mut room = limits.window.saturating_sub(self.in_flight).min(MAX_DELIVERY);
        if replay {
            room = room.min(limits.replay_window.saturating_sub(self.in_flight_replay));
        }
        let most = if replay { limits.replay } else { usize::MAX };
        let count = self.measure(start, room, most, &blocked)?;
        Some(self.send(start, count, replay))
    }

    fn send(&mut self, start: usize, count: usize, replay: bool) -> Delivery {
        let mut times = Vec::new();
        let mut samples = Samples::with_capacity(count);
        let (mut flags, mut first) = (0, 0);
        self.turns = self.turns.wrapping_add(1);
        for (index, entry) in self.entries.range_mut(start..start + count).enumerate() {
            entry.status = Status::InFlight;
            entry.replay = replay;
            entry.turn = self.turns;
            let record = &entry.record;
            let mut sample = record.sample;
            if let Some(blob) = &record.blob {
                sample.bits = ((samples.blob.len() as u64) << 32) | blob.len() as u64;
                samples.blob.extend_from_slice(blob);
            }
            if record.value_ts_ns != sample.ts_ns {
                times.push((index as u32, record.value_ts_ns));
            }
            if index == 0 {
                (flags, first) = (u32::from(record.flags), entry.number);
            }
            samples.samples.push(sample);
        }
        if replay {
            flags |= batch::REPLAY;
            self.in_flight_replay += count;
        }
        if !times.is_empty() {
            flags |= batch::TIMES;
            samples.append_times(&times);
        }
        self.waiting -= count;
        self.in_flight += count;
        let sent = first + count as u64;
        if first >= self.live_from {
            self.live_cursor = sent;
        } else {
            self.cursor = sent;
        }
        Delivery { first, flags, samples }
    }

    /// Index of the next waiting record of `side`.
    fn skip_to_waiting(&mut self, side: Side, blocked: &impl Fn(u32, u64) -> bool) -> Option<usize> {
        if self.waiting == 0 {
            return None;
        }
        let (from, to) = match side {
            Side::Older => (self.cursor, self.reach.min(self.live_from)),
            Side::Live => (self.live_cursor.max(self.live_from), u64::MAX),
        };
        let start = self.position(from);
        let mut found = None;
        for (at, entry) in (start..).zip(self.entries.range(start..)) {
            if entry.number >= to {
                break;
            }
            if entry.status == Status::Waiting && !blocked(entry.record.device, entry.number) {
                found = Some((at, entry.number));
                break;
            }
        }
        let reached = found.map_or_else(|| to.min(self.next), |(_, number)| number);
        match side {
            Side::Older => self.cursor = self.cursor.max(reached),
            Side::Live => self.live_cursor = self.live_cursor.max(reached),
        }
        found.map(|(at, _)| at)
    }

    /// How many records from index `start` on may go out together: at most `room`, and not beyond the poll in which
    /// `most` is reached.
    fn measure(
        &self,
        start: usize,
        room: usize,
        most: usize,
        blocked: &impl Fn(u32, u64) -> bool,
    ) -> Option<usize> {
        let head = self.entries.get(start)?;
        let end = if head.number >= self.live_from { u64::MAX } else { self.reach.min(self.live_from) };
        let (mut count, mut whole, mut blob) = (0, 0, 0);
        for (number, entry) in (head.number..).zip(self.entries.range(start..)) {
            let record = &entry.record;
            let fits = count < room && blob <= MAX_DELIVERY_BLOB;
            let same = entry.number == number
                && number < end
                && entry.status == Status::Waiting
                && record.flags == head.record.flags
                && (number < self.replay_below) == (head.number < self.replay_below)
                && !blocked(record.device, number);
            if !same {
                whole = count;
                break;
            }
            if !fits || (whole >= most && whole > 0) {
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
        // Torn only where nothing of its side is on its way: then it is larger than what may be.
        let idle = if head.number < self.replay_below {
            self.in_flight_replay == 0
        } else {
            self.in_flight == self.in_flight_replay
        };
        (idle && count > 0).then_some(count)
    }
}
