//! The events of one lane: a master, or a redundancy group.
//!
//! One queue in the order in which the host gave the events. Its head is under way on the started connection; it leaves
//! by acknowledgement only. When that connection ends or another one of the group is started, the head is sent again
//! from its first event: at least once, in order. On overflow the oldest event that is not under way goes, and is told.
//!
//! One record of the host may be several events (a point with several addresses); it is confirmed with the last one.

use std::collections::VecDeque;

use super::ConnectionId;
use crate::asdu::{Cause, Cp56Time2a, Object, Packer, Reason, Stamp, Tag, TimeKind, TypeId};

/// An event as it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) record: u64,
    pub(super) type_id: TypeId,
    pub(super) common_address: u16,
    pub(super) object: Object,
    pub(super) reason: Reason,
    pub(super) test: bool,
}

impl Entry {
    fn travels_with(&self, other: &Self) -> bool {
        (self.type_id, self.common_address, self.reason, self.test)
            == (other.type_id, other.common_address, other.reason, other.test)
    }
}

/// The time tag that a type carries.
pub(super) fn tag(type_id: TypeId, stamp: Stamp) -> Tag {
    match type_id.layout() {
        Some((_, TimeKind::Cp56)) => Tag::Cp56(Cp56Time2a::new(stamp)),
        _ => Tag::None,
    }
}

/// Events of a lane.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Entry>,
    /// Events at the head that are under way.
    sent: usize,
    capacity: usize,
    /// The started connection.
    pub(super) started: Option<ConnectionId>,
    /// Events dropped since the station was made.
    pub(super) dropped: u64,
    /// M_EI_NA_1 was sent.
    pub(super) initialised: bool,
}

impl Events {
    pub(super) fn new(capacity: usize) -> Self {
        Self { queue: VecDeque::new(), sent: 0, capacity, started: None, dropped: 0, initialised: false }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.queue.len())
    }

    /// Appends an event; the record that had to go for it.
    pub(super) fn push(&mut self, entry: Entry) -> Option<u64> {
        let mut gone = None;
        if self.queue.len() >= self.capacity {
            self.dropped += 1;
            match self.queue.remove(self.sent) {
                Some(oldest) => gone = Some(oldest.record),
                // Everything is under way: the buffer is smaller than the window.
                None => return Some(entry.record),
            }
        }
        self.queue.push_back(entry);
        gone
    }

    /// The next ASDU and how many events it holds. Only neighbours travel together: order is kept across types.
    pub(super) fn next(&mut self, originator: u8) -> Option<(Vec<u8>, usize)> {
        let first = *self.queue.get(self.sent)?;
        let cause = Cause { test: first.test, ..Cause::new(first.reason, originator) };
        let mut packer = Packer::new(first.type_id, cause, first.common_address, false);
        let mut count = 0;
        for entry in self.queue.range(self.sent..).take_while(|entry| entry.travels_with(&first)) {
            // What does not fit its type was refused by `Station::event`.
            if packer.push(entry.object) != Ok(true) {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return None;
        }
        self.sent += count;
        Some((packer.finish(), count))
    }

    /// The first `count` events are acknowledged; the newest record that is complete with them.
    pub(super) fn confirm(&mut self, count: usize) -> Option<u64> {
        let count = count.min(self.sent);
        let mut complete = None;
        for _ in 0..count {
            let Some(entry) = self.queue.pop_front() else { break };
            if self.queue.front().is_none_or(|next| next.record != entry.record) {
                complete = Some(entry.record);
            }
        }
        self.sent -= count;
        complete
    }

    /// What is under way will have to be sent again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.started = None;
    }
}
