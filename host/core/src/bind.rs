//! BIND and SUBSCRIBE: what each group costs, what the device reports by itself, and what it does not know.

use busbar_contract::{
    Cause, Quality,
    event::{Done, Rejected},
};

use crate::{
    Core,
    arena::{DeviceId, PointId},
    device::REFUSED_PAUSE_NS,
    output::LogLevel,
    state::{Phase, Work},
    table::{REFUSED, Stamp},
    time::{MS, SECOND},
    timers::Timer,
};

/// Subscribed points become stale after three missed integrity periods, or probes (SEMANTICS 4).
const MISSED_PERIODS: u64 = 3;
/// `invalid_after` in multiples of `stale_after`.
const INVALID_FACTOR: u64 = 10;
/// Most exchanges that a driver may claim for one group (G9).
const MAX_EXCHANGES: u32 = 10_000;

impl Core {
    /// BIND was answered.
    pub(crate) fn bound(&mut self, device: DeviceId, done: &Done) {
        for bound in &done.groups {
            match self.groups.find(bound.group).filter(|group| self.groups[*group].device == device) {
                Some(group) => self.groups[group].exchanges = bound.exchanges.clamp(1, MAX_EXCHANGES),
                None => self.oddities.foreign += 1,
            }
        }
        let first_time = !self.devices[device].bound;
        self.devices[device].bound = true;
        for point in self.point_ids(device) {
            self.points[point].rejected = false;
        }
        self.reject(device, &done.rejected);
        if first_time {
            self.advance(device);
        } else {
            self.bound_anew(device);
        }
    }

    /// Points that the driver or the device cannot serve: `invalid|bad_reference`, asked for again later.
    fn reject(&mut self, device: DeviceId, rejected: &[Rejected]) {
        for entry in rejected {
            let Some(point) = self.point_of(device, entry.point) else {
                self.oddities.foreign += 1;
                continue;
            };
            self.points[point].rejected = true;
            let fields = vec![("point", self.full_name(point))];
            self.log(
                LogLevel::Warn,
                ("rejected", u64::from(entry.point)),
                fields,
                format!("the device does not serve this point: {}", entry.reason),
            );
        }
        if !rejected.is_empty() {
            let at = self.timers.arm(self.now.mono_ns + REFUSED_PAUSE_NS, Timer::Rebind(device));
            self.devices[device].rebind_ns = at;
        }
    }

    /// A point number of a plugin, checked to belong to the device (G4).
    pub(crate) fn point_of(&self, device: DeviceId, number: u32) -> Option<PointId> {
        self.points.find(number).filter(|point| self.points[*point].device == Some(device))
    }

    pub(crate) fn rebind_timer(&mut self, device: DeviceId) {
        let state = &self.devices[device];
        if state.rebind_ns == 0 || state.rebind_ns > self.now.mono_ns {
            return;
        }
        self.devices[device].rebind_ns = 0;
        if self.is_online(device) {
            self.ask(device, Work::Bind);
        }
    }

    /// SUBSCRIBE was answered: the rest is read.
    pub(crate) fn subscribed(&mut self, device: DeviceId, done: &Done) {
        self.devices[device].phase = Phase::Resync;
        self.devices[device].interrogated = false;
        self.devices[device].integrity_ns = done.integrity_ms.saturating_mul(MS);
        for point in self.point_ids(device) {
            self.points[point].subscribed = false;
        }
        for number in &done.subscribed {
            match self.point_of(device, *number) {
                Some(point) => self.points[point].subscribed = true,
                None => self.oddities.foreign += 1,
            }
        }
        self.devices[device].needs_probes = !done.subscribed.is_empty() && done.integrity_ms == 0;
        self.devices[device].last_probe_ns = self.now.mono_ns;
        self.reject(device, &done.rejected);
        self.subscription_clocks(device, !done.subscribed.is_empty());
        for point in self.point_ids(device) {
            if self.points[point].rejected {
                self.refuse_point(point, Cause::Resync);
            }
        }
        self.end_of_poll();
        self.start_resync_reads(device);
    }

    /// Subscribed points age by the integrity period, or by the probe where there is none.
    fn subscription_clocks(&mut self, device: DeviceId, any: bool) {
        if !any && self.devices[device].groups.iter().all(|group| !self.groups[*group].subscribed) {
            return;
        }
        let integrity_ns = self.devices[device].integrity_ns;
        let period_ns = if integrity_ns > 0 { integrity_ns } else { self.probe_interval_ns(device) };
        let stale_ns = period_ns.saturating_mul(MISSED_PERIODS).max(3 * SECOND);
        for point in self.point_ids(device) {
            if self.points[point].subscribed {
                self.points[point].stale_ns = stale_ns;
                self.points[point].invalid_ns = stale_ns.saturating_mul(INVALID_FACTOR);
            } else {
                self.configured_clock(device, point);
            }
        }
        for group in self.devices[device].groups.clone() {
            self.groups[group].subscribed =
                self.groups[group].points.iter().all(|point| self.points[*point].subscribed);
            self.rearm_stale(group);
        }
    }

    fn configured_clock(&mut self, device: DeviceId, point: PointId) {
        use crate::{arena::Id, time::ns};
        let index = self.points[point].index;
        let config =
            self.site.devices.get(device.number() as usize).and_then(|config| config.points.get(index));
        if let Some(config) = config {
            self.points[point].stale_ns = ns(config.stale_after);
            self.points[point].invalid_ns = ns(config.invalid_after).max(ns(config.stale_after));
        }
    }

    /// The device's refusal is an answer: it counts as read, with the device's own bits.
    pub(crate) fn refuse_point(&mut self, id: PointId, cause: Cause) {
        self.answered(id);
        let stamp = Stamp::new(self.now.wall_ns, self.clock_synced);
        let now_ns = self.now.mono_ns;
        let point = &mut self.points[id];
        let before = point.underlying();
        point.device_quality = REFUSED;
        point.refreshed_ns = now_ns;
        // A point that stays refused keeps its stamp, and what was said about that stamp.
        point.host_quality = Quality(before.0 & Quality::CLOCK_UNSYNCED.0);
        if before != point.underlying() || cause == Cause::Resync {
            point.stamp(stamp);
            self.emit_state(id, cause);
        }
    }
}
