//! Due reads and liveness probes. A read that is due while the previous one still runs is skipped and counted, never
//! queued twice; what a host that was late missed is counted too.

use busbar_contract::{Cause, op};

use crate::{
    Core,
    arena::DeviceId,
    schedule::Due,
    state::{Pending, Phase, Work},
    timers::Timer,
};

impl Core {
    pub(crate) fn poll_due(&mut self, due: Due) {
        let group = due.group;
        let device = self.groups[group].device;
        let state = &self.devices[device];
        if self.groups[group].gone {
            return;
        }
        if state.session != due.session || state.phase != Phase::Online || self.groups[group].subscribed {
            return;
        }
        let next_ns = self.next_due(group);
        self.schedule.add(Due { at_ns: next_ns, ..due });
        if self.groups[group].refused_until_ns > self.now.mono_ns {
            return;
        }
        let interval_ns = self.schedule.ticks(self.groups[group].interval_ns) * self.tick_ns();
        // Turns between this one and the next that the host was too late for.
        let turns = (next_ns - due.at_ns) / interval_ns.max(1);
        let missed = turns.saturating_sub(1);
        let counters = &mut self.devices[device].counters;
        counters.polls_due += 1 + missed;
        counters.polls_skipped += missed;
        if self.groups[group].busy {
            // A fresh read that somebody asked for serves this turn too.
            let unscheduled = !std::mem::replace(&mut self.groups[group].scheduled, true);
            if unscheduled {
                counters.polls_started += 1;
            } else {
                counters.polls_skipped += 1;
            }
            return;
        }
        self.groups[group].busy = true;
        self.groups[group].scheduled = true;
        self.ask(device, Work::Read { group, cause: Cause::Poll, due_ns: due.at_ns });
    }

    pub(crate) fn tick_ns(&self) -> u64 {
        crate::time::ns(self.site.host.tick).max(1)
    }

    /// A scheduled read was answered.
    pub(crate) fn observe_poll(&mut self, device: DeviceId, pending: &Pending) {
        if !matches!(pending.work, Work::Read { cause: Cause::Poll, .. }) {
            return;
        }
        let took_ns = self.now.mono_ns.saturating_sub(pending.submitted_ns);
        self.devices[device].counters.polls_done += 1;
        self.devices[device].poll_duration.observe_ns(took_ns);
        self.devices[device].latency_ns = took_ns;
        if let Some(plugin) = self.devices[device].plugin {
            self.plugins[plugin].poll_duration.observe_ns(took_ns);
        }
    }

    /// Watches that a device online is heard of at least every `probe_interval`.
    pub(crate) fn arm_probe(&mut self, device: DeviceId) {
        if !std::mem::replace(&mut self.devices[device].probe_armed, true) {
            let at_ns = self.quiet_since(device) + self.probe_interval_ns(device);
            self.timers.arm(at_ns.max(self.now.mono_ns + 1), Timer::Probe(device));
        }
    }

    /// Since when nothing proved that the device lives. Where only a probe proves that a subscription lives, polls do not
    /// count.
    fn quiet_since(&self, device: DeviceId) -> u64 {
        let state = &self.devices[device];
        if state.needs_probes { state.last_probe_ns } else { state.last_exchange_ns }
    }

    pub(crate) fn probe_timer(&mut self, device: DeviceId) {
        self.devices[device].probe_armed = false;
        if !matches!(self.devices[device].phase, Phase::Online | Phase::Paused) {
            return;
        }
        let interval_ns = self.probe_interval_ns(device);
        let state = &self.devices[device];
        if self.now.mono_ns.saturating_sub(self.quiet_since(device)) < interval_ns {
            return self.arm_probe(device);
        }
        // A running read shows within its deadline whether the device lives.
        let reading = !state.needs_probes && state.groups.iter().any(|group| self.groups[*group].busy);
        if !state.probing && !reading {
            self.probe(device);
        }
        self.devices[device].probe_armed = true;
        self.timers.arm(self.now.mono_ns + interval_ns, Timer::Probe(device));
    }

    fn probe(&mut self, device: DeviceId) {
        let known = self.devices[device].plugin.is_some_and(|id| self.plugin_knows(id, op::request::PROBE));
        if self.devices[device].can_probe && known {
            self.devices[device].probing = true;
            return self.ask(device, Work::Probe);
        }
        // Without a probe a read shows that the device lives: of what is subscribed, else the smallest.
        self.devices[device].last_probe_ns = self.now.mono_ns;
        let groups = self.devices[device].groups.clone();
        if self.devices[device].needs_probes {
            for group in groups {
                if self.groups[group].points.iter().any(|point| self.points[*point].subscribed) {
                    self.read_now(group);
                }
            }
        } else if let Some(group) = groups.into_iter().min_by_key(|group| self.groups[*group].points.len()) {
            self.read_now(group);
        }
    }

    pub(crate) fn probed(&mut self, device: DeviceId) {
        self.devices[device].probing = false;
        self.devices[device].last_probe_ns = self.now.mono_ns;
        self.exchanged(device);
        // Without integrity the probe is the proof that the subscription lives.
        if self.devices[device].integrity_ns == 0 {
            for point in self.point_ids(device) {
                if self.points[point].subscribed && !self.points[point].is_lost() {
                    self.points[point].refreshed_ns = self.now.mono_ns;
                    self.fresh_again(point);
                }
            }
            self.end_of_poll();
        }
    }

    pub(crate) fn cannot_probe(&mut self, device: DeviceId) {
        self.devices[device].probing = false;
        self.devices[device].can_probe = false;
        if self.is_online(device) {
            self.probe(device);
        }
    }
}
