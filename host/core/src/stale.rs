//! Staleness (G3): a point not refreshed within `stale_after` becomes `questionable|old_data`, within `invalid_after`
//! `invalid|old_data`, whatever its driver does.
//!
//! One check per read group is pending, not one timer per point: a check looks at the points of its group and comes
//! again when the next of them can become stale, at the latest after the shortest `stale_after` of the group. A point
//! refreshed after a check becomes stale after that check's successor, so no check comes too late.

use std::{cmp::Reverse, collections::BinaryHeap};

use busbar_contract::Quality;

use crate::{
    Core,
    arena::{GroupId, PointId},
    table::{EXPIRED, STALE, Stamp},
    time::on_grid,
};

/// The pending checks.
#[derive(Debug)]
pub(crate) struct StaleHeap {
    tick_ns: u64,
    heap: BinaryHeap<Reverse<(u64, GroupId)>>,
}

impl StaleHeap {
    pub(crate) const fn new(tick_ns: u64) -> Self {
        Self { tick_ns, heap: BinaryHeap::new() }
    }

    pub(crate) fn add(&mut self, at_ns: u64, group: GroupId) -> u64 {
        let at_ns = on_grid(at_ns, self.tick_ns);
        self.heap.push(Reverse((at_ns, group)));
        at_ns
    }

    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<GroupId> {
        if self.next()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((_, group))| group)
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

impl Core {
    /// The check of one group is due.
    pub(crate) fn check_stale(&mut self, group: GroupId) {
        let now_ns = self.now.mono_ns;
        if self.groups[group].stale_at_ns > now_ns || self.groups[group].gone {
            return;
        }
        let mut next_ns = now_ns + self.groups[group].min_stale_ns.max(1);
        let points = std::mem::take(&mut self.groups[group].points);
        for point in &points {
            if let Some(at_ns) = self.check_stale_point(*point) {
                next_ns = next_ns.min(at_ns);
            }
        }
        self.groups[group].points = points;
        let at = self.stale.add(next_ns.max(now_ns + 1), group);
        self.groups[group].stale_at_ns = at;
    }

    /// Marks one point; returns when it is next to be looked at.
    fn check_stale_point(&mut self, id: PointId) -> Option<u64> {
        let now_ns = self.now.mono_ns;
        let point = &mut self.points[id];
        // Lost and blocked points say more than old_data; a refused one is asked again on its own clock.
        if point.is_lost() || point.host_quality.contains(Quality::OPERATOR_BLOCKED) || point.is_refused() {
            return None;
        }
        let stale_at = point.refreshed_ns.saturating_add(point.stale_ns);
        let invalid_at = point.refreshed_ns.saturating_add(point.invalid_ns);
        let (bits, next) = if now_ns >= invalid_at {
            (EXPIRED, None)
        } else if now_ns >= stale_at {
            (STALE, Some(invalid_at))
        } else {
            return Some(stale_at);
        };
        let base = point.host_quality.without_detail(Quality::OLD_DATA);
        let quality = base.worst(bits);
        if point.set_host(quality, Stamp::new(self.now.wall_ns, self.clock_synced)) {
            self.emit_host(id);
        }
        next
    }

    /// The staleness clock of a point changed: look at it in time.
    pub(crate) fn rearm_stale(&mut self, group: GroupId) {
        let shortest = self.groups[group].points.iter().map(|point| self.points[*point].stale_ns).min();
        if let Some(shortest) = shortest {
            self.groups[group].min_stale_ns = shortest;
            let at = self.now.mono_ns + shortest;
            if at < self.groups[group].stale_at_ns {
                self.groups[group].stale_at_ns = self.stale.add(at, group);
            }
        }
    }
}
