//! Resync (G2): after a connect every point is read and passed on once, also when its value did not change; only when
//! every point has an answer (a value, or the device's refusal) is the device online. A point not yet read keeps
//! `comm_lost`. Subscribed points come by interrogation; what did not come in time is read.

use busbar_contract::{Cause, FailureKind};

use crate::{
    Core,
    arena::{DeviceId, GroupId, Id, PointId},
    device::REFUSED_PAUSE_NS,
    output::LogLevel,
    schedule::{self, Due},
    state::{Outcome, Pending, Phase, Work},
    table::{MISSING, Stamp},
    timers::Timer,
};

impl Core {
    pub(crate) fn start_resync_reads(&mut self, device: DeviceId) {
        let mut reads = 0;
        for group in self.devices[device].groups.clone() {
            self.groups[group].refused_until_ns = 0;
            if !self.groups[group].subscribed {
                reads += 1;
                self.resync_read(device, group);
            }
        }
        self.devices[device].reads_left = reads;
        if reads == 0 && self.devices[device].unanswered > 0 {
            self.wait_for_interrogation(device);
        }
        self.maybe_online(device);
    }

    fn resync_read(&mut self, device: DeviceId, group: GroupId) {
        self.groups[group].busy = true;
        self.ask(device, Work::Read { group, cause: Cause::Resync, due_ns: 0 });
    }

    fn wait_for_interrogation(&mut self, device: DeviceId) {
        let span_ns = self.exchange_ns(device);
        let at = self.timers.arm(self.now.mono_ns + span_ns, Timer::Device(device));
        self.devices[device].wake_ns = at;
    }

    /// Subscribed points that did not come by themselves are read.
    pub(crate) fn interrogation_over(&mut self, device: DeviceId) {
        self.devices[device].interrogated = true;
        let session = self.devices[device].session;
        let mut reads = 0;
        for group in self.devices[device].groups.clone() {
            let open = self.groups[group].points.iter().any(|point| self.points[*point].session != session);
            if open && !self.groups[group].busy {
                reads += 1;
                self.resync_read(device, group);
            }
        }
        self.devices[device].reads_left += reads;
        self.maybe_online(device);
    }

    /// A point has an answer in this session.
    pub(crate) fn answered(&mut self, id: PointId) {
        let Some(device) = self.points[id].device else { return };
        let session = self.devices[device].session;
        self.points[id].added = false;
        if self.points[id].session != session {
            self.points[id].session = session;
            let left = &mut self.devices[device].unanswered;
            *left = left.saturating_sub(1);
        }
    }

    /// A read came to its end.
    pub(crate) fn read_finished(
        &mut self,
        group: GroupId,
        cause: Cause,
        pending: &Pending,
        outcome: Outcome,
    ) {
        let device = self.groups[group].device;
        self.groups[group].busy = false;
        self.groups[group].scheduled = false;
        if self.groups[group].gone {
            return;
        }
        match outcome {
            Outcome::Samples | Outcome::Done(_) => {
                self.exchanged(device);
                self.observe_poll(device, pending);
                self.count_missing(device, group, cause, pending.number);
            }
            Outcome::NotTaken { unsupported: true } => {
                return self.consequence(device, FailureKind::Unsupported, "the driver cannot read");
            }
            Outcome::NotTaken { .. } => {
                return self.read_cancelled(device, cause, "the driver's queue is full");
            }
            Outcome::Failed(failure) => {
                self.devices[device].counters.polls_failed += 1;
                match failure.kind {
                    FailureKind::Refused => self.group_refused(device, group, cause, &failure.text),
                    FailureKind::Cancelled => return self.read_cancelled(device, cause, &failure.text),
                    kind => return self.consequence(device, kind, &failure.text),
                }
            }
        }
        self.after_read(device, group, cause);
    }

    fn read_cancelled(&mut self, device: DeviceId, cause: Cause, text: &str) {
        if cause == Cause::Resync {
            self.lose_device(device, text);
        }
    }

    fn after_read(&mut self, device: DeviceId, group: GroupId, cause: Cause) {
        self.fetch_group_read(device, group);
        if cause == Cause::Resync {
            let left = &mut self.devices[device].reads_left;
            *left = left.saturating_sub(1);
            if *left == 0 && self.devices[device].unanswered > 0 && !self.devices[device].interrogated {
                self.wait_for_interrogation(device);
            }
            self.maybe_online(device);
        }
        if std::mem::take(&mut self.groups[group].again) {
            self.read_now(group);
        }
    }

    fn group_refused(&mut self, device: DeviceId, group: GroupId, cause: Cause, text: &str) {
        self.exchanged(device);
        self.groups[group].refused_until_ns = self.now.mono_ns + REFUSED_PAUSE_NS;
        for point in self.groups[group].points.clone() {
            self.refuse_point(point, cause);
        }
        self.end_of_poll();
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        self.log(
            LogLevel::Warn,
            ("refused", u64::from(group.number())),
            vec![("device", name)],
            format!("the device refuses a read; asked again in ten minutes: {text}"),
        );
    }

    /// Points that an answer left out: counted; in a resync they are answered by `invalid|failure`, otherwise their
    /// staleness clock runs on.
    fn count_missing(&mut self, device: DeviceId, group: GroupId, cause: Cause, request: u64) {
        if self.groups[group].points.iter().all(|point| self.points[*point].request == request) {
            return;
        }
        let session = self.devices[device].session;
        let interrogated = self.devices[device].interrogated;
        for id in self.groups[group].points.clone() {
            let point = &self.points[id];
            if point.rejected || point.request == request {
                continue;
            }
            if point.subscribed && !interrogated {
                continue;
            }
            self.devices[device].counters.missing_samples += 1;
            if (cause == Cause::Resync || self.points[id].added) && self.points[id].session != session {
                self.answered(id);
                self.points[id].refreshed_ns = self.now.mono_ns;
                if self.points[id].set_host(MISSING, Stamp::new(self.now.wall_ns, self.clock_synced)) {
                    self.emit_host(id);
                }
            }
        }
        self.end_of_poll();
    }

    /// Every point has an answer: the device is online.
    pub(crate) fn maybe_online(&mut self, device: DeviceId) {
        let state = &self.devices[device];
        if state.phase != Phase::Resync || state.unanswered > 0 {
            return;
        }
        let state = &mut self.devices[device];
        state.phase = Phase::Online;
        state.attempts = 0;
        state.lost = false;
        state.keep_ns = 0;
        state.wake_ns = 0;
        state.reason.clear();
        state.since_wall_ns = self.now.wall_ns;
        state.counters.connects += 1;
        if let Some(channel) = state.channel {
            self.channels[channel].attempts = 0;
            self.channels[channel].zombies = 0;
        }
        self.end_turn(device, Phase::Resync);
        self.set_online(device, true);
        self.start_polls(device);
        self.arm_probe(device);
        self.rearm_rebind(device);
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        self.log(LogLevel::Info, ("online", u64::from(device.number())), vec![("device", name)], "online");
    }

    fn start_polls(&mut self, device: DeviceId) {
        let session = self.devices[device].session;
        for group in self.devices[device].groups.clone() {
            if !self.groups[group].subscribed {
                let at_ns = self.next_due(group);
                self.schedule.add(Due { group, session, at_ns });
            }
        }
    }

    /// The next turn of a group on the grid.
    pub(crate) fn next_due(&self, group: GroupId) -> u64 {
        let state = &self.groups[group];
        let ticks = self.schedule.ticks(state.interval_ns);
        let phase = schedule::phase(state.device.number(), self.site.devices.len(), ticks);
        let from_ns = self.now.mono_ns.max(state.refused_until_ns);
        self.schedule.next_after(from_ns, phase, ticks)
    }

    fn rearm_rebind(&mut self, device: DeviceId) {
        let due_ns = self.devices[device].rebind_ns;
        if due_ns > 0 {
            let at = self.timers.arm(due_ns.max(self.now.mono_ns), Timer::Rebind(device));
            self.devices[device].rebind_ns = at;
        }
    }
}
