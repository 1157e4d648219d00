//! Fixed-rate polling on a tick grid.
//!
//! A group is due at `phase + k x interval`, whatever happened before: a late or skipped read does not shift the next.
//! Phases spread the devices evenly over an interval, by the golden ratio, but not one by one: a wake-up of host, plugin
//! and sink costs as much as several requests, so a turn is shared by about [`DEVICES_PER_TURN`] devices while there are
//! free ticks. The groups of one device share its phase, so that its intervals coincide where they can. A group whose
//! turn passed (host late) is due once and counted for the rest: reads never pile up.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::arena::GroupId;

/// A due read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) group: GroupId,
    /// Session of the device for which it was scheduled; another means forget it.
    pub(crate) session: u32,
    /// The instant on the grid, nanoseconds.
    pub(crate) at_ns: u64,
}

/// The heap of due reads.
#[derive(Debug)]
pub(crate) struct Schedule {
    tick_ns: u64,
    heap: BinaryHeap<Reverse<(u64, GroupId, u32)>>,
}

/// 2^64 / golden ratio: the most evenly spreading multiplier (D. Knuth, TAOCP 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Devices that share a turn as long as there are more ticks than turns.
const DEVICES_PER_TURN: u64 = 12;

/// Phase of device number `device` out of `devices` for `interval_ticks`, ticks.
pub(crate) fn phase(device: u32, devices: usize, interval_ticks: u64) -> u64 {
    let turns = (devices as u64).div_ceil(DEVICES_PER_TURN).clamp(1, interval_ticks.max(1));
    let fraction = u64::from(device).wrapping_mul(GOLDEN);
    let turn = (u128::from(fraction) * u128::from(turns)) >> 64;
    (turn * u128::from(interval_ticks) / u128::from(turns)) as u64
}

impl Schedule {
    pub(crate) fn new(tick_ns: u64) -> Self {
        Self { tick_ns: tick_ns.max(1), heap: BinaryHeap::new() }
    }

    /// An interval in ticks, at least 1.
    pub(crate) fn ticks(&self, interval_ns: u64) -> u64 {
        ((interval_ns + self.tick_ns / 2) / self.tick_ns).max(1)
    }

    /// First grid point of the group strictly after `now_ns`.
    pub(crate) fn next_after(&self, now_ns: u64, phase: u64, interval_ticks: u64) -> u64 {
        let interval = interval_ticks.max(1);
        let tick = now_ns / self.tick_ns + 1;
        let turns = tick.saturating_sub(phase).div_ceil(interval);
        (phase + turns * interval) * self.tick_ns
    }

    pub(crate) fn add(&mut self, due: Due) {
        self.heap.push(Reverse((due.at_ns, due.group, due.session)));
    }

    /// The next read due at `now_ns`.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<Due> {
        if self.next()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((at_ns, group, session))| Due { group, session, at_ns })
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Id;

    #[test]
    fn due_times_stay_on_the_grid_whatever_the_host_does() {
        let schedule = Schedule::new(20);
        assert_eq!(schedule.next_after(0, 3, 50), 60);
        assert_eq!(schedule.next_after(60, 3, 50), 1060);
        assert_eq!(schedule.next_after(5555, 3, 50), 6060);
        assert_eq!(schedule.next_after(0, 0, 1), 20);
    }

    #[test]
    fn phases_spread_evenly() {
        let mut ticks = [0u32; 50];
        for device in 0..1_000 {
            ticks[phase(device, 1_000, 50) as usize] += 1;
        }
        assert!(ticks.iter().all(|count| (18..=22).contains(count)), "{ticks:?}");
    }

    #[test]
    fn few_devices_share_turns_that_are_far_apart() {
        let mut ticks = [0u32; 50];
        for device in 0..100 {
            ticks[phase(device, 100, 50) as usize] += 1;
        }
        let turns: Vec<_> = ticks.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(turns.len(), 9, "{turns:?}");
        assert!(turns.iter().all(|(_, count)| (10..=13).contains(*count)), "{turns:?}");
        assert!(turns.windows(2).all(|two| two[1].0 - two[0].0 >= 5), "{turns:?}");
        assert_eq!(phase(7, 8, 50), 0);
        assert_eq!(phase(3, 1_000, 1), 0);
    }

    #[test]
    fn entries_pop_in_order() {
        let mut schedule = Schedule::new(20);
        schedule.add(Due { group: GroupId::new(1), session: 1, at_ns: 40 });
        schedule.add(Due { group: GroupId::new(0), session: 1, at_ns: 20 });
        assert_eq!(schedule.next(), Some(20));
        assert_eq!(schedule.pop(10), None);
        assert_eq!(schedule.pop(40).map(|due| due.group), Some(GroupId::new(0)));
        assert_eq!(schedule.pop(40).map(|due| due.group), Some(GroupId::new(1)));
        assert_eq!(schedule.len(), 0);
    }
}
