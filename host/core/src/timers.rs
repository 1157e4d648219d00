//! One heap of wake-ups for everything that is not a poll or a staleness check.
//!
//! Entries are never removed: the owner remembers the instant it waits for, and an entry that pops at another instant
//! is ignored. Owners re-arm lazily (a deadline timer looks at what is really due), so the heap holds a few entries per
//! owner. Instants are rounded up to the tick grid: one wake serves all.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    arena::{ChannelId, DeviceId, PluginId, PointId, SinkId},
    time::on_grid,
};

/// Whose wake-up it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// System points, ages, expiry: once a second.
    Housekeeping,
    /// End of the time that sinks get to deliver their rest.
    Drain,
    /// A hand-over, and points that keep their quality during one.
    Handover,
    /// Heartbeat.
    Plugin(PluginId),
    /// Open and stop deadlines, back-off.
    Channel(ChannelId),
    /// Deadlines of the requests of an instance.
    Instance(u64),
    /// Back-off, waiting for an interrogation.
    Device(DeviceId),
    /// Liveness.
    Probe(DeviceId),
    /// Points that could not be bound are asked for again.
    Rebind(DeviceId),
    /// Deadline of a command.
    Command(u64),
    /// Deadline of a fetch or browse.
    Fetch(u64),
    /// End of a selection.
    Select(PointId),
    /// Open, back-off.
    Sink(SinkId),
    /// A device that a sink asked to retry.
    Retry(SinkId),
    /// `send = "interval"`.
    Interval(SinkId),
    /// A reload must have proved that it can run.
    Reload,
    /// The file of a queue: open, flush, read back.
    Journal(SinkId),
}

/// The heap.
#[derive(Debug)]
pub(crate) struct Timers {
    tick_ns: u64,
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
}

impl Timers {
    pub(crate) const fn new(tick_ns: u64) -> Self {
        Self { tick_ns, heap: BinaryHeap::new() }
    }

    /// Wakes `timer` at the first tick at or after `at_ns`; returns that instant.
    pub(crate) fn arm(&mut self, at_ns: u64, timer: Timer) -> u64 {
        let at_ns = on_grid(at_ns, self.tick_ns);
        self.heap.push(Reverse((at_ns, timer)));
        at_ns
    }

    /// The next entry due at `now_ns`.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<Timer> {
        if self.next()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_pop_in_order_on_the_grid() {
        let mut timers = Timers::new(20);
        timers.arm(41, Timer::Housekeeping);
        timers.arm(5, Timer::Command(1));
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop(19), None);
        assert_eq!(timers.pop(60), Some(Timer::Command(1)));
        assert_eq!(timers.pop(60), Some(Timer::Housekeeping));
        assert_eq!(timers.pop(60), None);
    }
}
