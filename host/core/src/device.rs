//! The life of a device: attach, bind, connect, resync, online, lost, and again, for ever.
//!
//! `session` grows with every loss; requests, queued work and due reads carry it, so nothing of an older session can
//! touch a newer one.

use busbar_contract::{FailureKind, event::Done, op};

use crate::{
    Core,
    arena::{DeviceId, Id},
    backoff,
    output::LogLevel,
    state::{ChannelPhase, Off, Outcome, Pending, Phase, Work},
    table::{LOST, Stamp},
    time::{SECOND, ns},
    timers::Timer,
    view::DeviceState,
};

/// Points refused by the device are asked for again after (SEMANTICS 5).
pub(crate) const REFUSED_PAUSE_NS: u64 = 600 * SECOND;
/// While its driver is being replaced, a device is tried again so soon: it may need a moment to let go of the old
/// connection.
const KEPT_PAUSE_NS: u64 = SECOND / 4;

impl Core {
    /// The channel is open: the device joins it.
    pub(crate) fn start_device(&mut self, device: DeviceId) {
        if matches!(self.devices[device].phase, Phase::Failed) {
            return;
        }
        if self.devices[device].phase == Phase::Maintenance {
            return;
        }
        self.devices[device].phase = Phase::Idle;
        self.advance(device);
    }

    /// The next step towards a connection.
    pub(crate) fn advance(&mut self, device: DeviceId) {
        let state = &self.devices[device];
        let open = state.channel.is_some_and(|channel| self.channels[channel].phase == ChannelPhase::Open);
        if !open || matches!(state.phase, Phase::Failed | Phase::Maintenance) {
            return;
        }
        let (phase, work) = if !state.attached {
            (Phase::Attaching, Work::Attach)
        } else if !state.bound {
            (Phase::Binding, Work::Bind)
        } else {
            (Phase::Connecting, Work::Connect)
        };
        self.devices[device].phase = phase;
        self.ask(device, work);
    }

    /// Without an open instance nothing can be asked.
    pub(crate) fn device_idle(&mut self, device: DeviceId) {
        if !matches!(self.devices[device].phase, Phase::Failed | Phase::Maintenance) {
            self.devices[device].phase = Phase::Idle;
        }
    }

    /// A device whose plugin came back.
    pub(crate) fn revive_device(&mut self, device: DeviceId) {
        let state = &mut self.devices[device];
        state.attached = false;
        state.bound = false;
        state.attempts = 0;
        if state.phase != Phase::Maintenance {
            state.phase = Phase::Idle;
            state.reason.clear();
        }
    }

    pub(crate) fn device_timer(&mut self, device: DeviceId) {
        let state = &self.devices[device];
        if state.wake_ns == 0 || state.wake_ns > self.now.mono_ns {
            return;
        }
        self.devices[device].wake_ns = 0;
        match self.devices[device].phase {
            Phase::Backoff => self.try_again(device),
            Phase::Resync => self.interrogation_over(device),
            _ => {}
        }
    }

    fn try_again(&mut self, device: DeviceId) {
        let usable = self.devices[device].channel.is_some_and(|channel| {
            let channel = &self.channels[channel];
            self.plugin_usable(channel.plugin)
                && self.instances.get(&channel.instance).is_some_and(|state| state.stalled_ns.is_none())
        });
        if usable {
            self.advance(device);
        } else {
            let attempts = self.devices[device].attempts.saturating_sub(1);
            self.back_off(device, attempts);
        }
    }

    /// The driver says that the device is there again.
    pub(crate) fn connect_soon(&mut self, device: DeviceId) {
        if self.devices[device].phase == Phase::Backoff {
            self.devices[device].wake_ns = 0;
            self.try_again(device);
        }
    }

    pub(crate) fn back_off(&mut self, device: DeviceId, attempts: u32) {
        let Some(config) = self.site.devices.get(device.number() as usize) else { return };
        let mut pause_ns = backoff::pause(&config.reconnect, attempts, &mut self.rng);
        if self.devices[device].keep_ns != 0 {
            pause_ns = pause_ns.min(KEPT_PAUSE_NS);
        }
        let at = self.timers.arm(self.now.mono_ns + pause_ns, Timer::Device(device));
        let state = &mut self.devices[device];
        state.wake_ns = at;
        state.phase = Phase::Backoff;
    }

    pub(crate) fn device_request_finished(&mut self, device: DeviceId, pending: Pending, outcome: Outcome) {
        let current = pending.session == self.devices[device].session;
        if let Outcome::Failed(failure) = &outcome {
            self.devices[device].errors.count(failure.kind);
        }
        match pending.work {
            Work::Command(command) => return self.command_finished(command, outcome),
            Work::Fetch(fetch) => return self.fetch_finished(fetch, outcome),
            Work::Browse(fetch) => return self.browse_finished(fetch, outcome),
            Work::CancelSelection { .. } | Work::Disconnect => return,
            Work::Attach if !current => return self.attached_late(device, &pending, &outcome),
            _ if !current => return,
            Work::Read { group, cause, .. } => return self.read_finished(group, cause, &pending, outcome),
            _ => {}
        }
        match outcome {
            Outcome::Done(done) => self.step_done(device, &pending.work, done),
            Outcome::Samples => self.step_done(device, &pending.work, Done::default()),
            Outcome::NotTaken { unsupported } => {
                let kind = if unsupported { FailureKind::Unsupported } else { FailureKind::Cancelled };
                self.step_failed(device, &pending.work, kind, "the plugin did not take the request");
            }
            Outcome::Failed(failure) => self.step_failed(device, &pending.work, failure.kind, &failure.text),
        }
    }

    /// The device was lost while it was being attached: it is attached all the same, unless it was detached since.
    fn attached_late(&mut self, device: DeviceId, pending: &Pending, outcome: &Outcome) {
        let state = &self.devices[device];
        let here = state.channel.is_some_and(|channel| self.channels[channel].instance == pending.instance);
        if here && pending.number >= state.detached && matches!(outcome, Outcome::Done(_)) {
            self.devices[device].attached = true;
        }
    }

    fn step_done(&mut self, device: DeviceId, work: &Work, done: Done) {
        match work {
            Work::Attach => {
                self.devices[device].attached = true;
                if self.devices[device].frame_log {
                    self.tell_frame_log(device);
                }
                self.advance(device);
            }
            Work::Bind => self.bound(device, &done),
            Work::Connect => {
                self.devices[device].peer = clipped(done.peer);
                self.exchanged(device);
                self.connected(device);
            }
            Work::Subscribe => self.subscribed(device, &done),
            Work::Probe => self.probed(device),
            _ => {}
        }
    }

    fn step_failed(&mut self, device: DeviceId, work: &Work, kind: FailureKind, text: &str) {
        match (work, kind) {
            (Work::Probe, FailureKind::Unsupported) => self.cannot_probe(device),
            (Work::Probe, FailureKind::Refused) => self.probed(device),
            // Nothing was asked of the device, so nothing proves that it lives.
            (Work::Probe, FailureKind::Cancelled) => self.devices[device].probing = false,
            (Work::Subscribe, FailureKind::Unsupported) => self.subscribed(device, &Done::default()),
            _ => self.consequence(device, kind, text),
        }
    }

    /// What a failure means for the device, and for those that share its endpoint (one place for all requests).
    pub(crate) fn consequence(&mut self, device: DeviceId, kind: FailureKind, text: &str) {
        match kind {
            // The session of the whole endpoint is over: a driver drops it after a missed deadline and after a bug too.
            FailureKind::Session | FailureKind::Deadline | FailureKind::Bug => {
                if let (FailureKind::Bug, Some(plugin)) = (kind, self.devices[device].plugin) {
                    self.trial_trouble(plugin, text);
                }
                match self.devices[device].channel {
                    Some(channel) => self.lose_channel(channel, text),
                    None => self.lose_device(device, text),
                }
            }
            FailureKind::Configuration | FailureKind::Unsupported => self.fail_device(device, text),
            FailureKind::Refused | FailureKind::NoAnswer | FailureKind::Cancelled => {
                self.lose_device(device, text);
            }
        }
    }

    /// Connected: it resynchronises as soon as it is its turn.
    pub(crate) fn connected(&mut self, device: DeviceId) {
        let Some(plugin) = self.devices[device].plugin else { return };
        if self.devices[device].paused {
            self.devices[device].counters.connects += 1;
            return self.begin_pause(device);
        }
        self.devices[device].phase = Phase::WaitTurn;
        // From here on: what the device reports while it waits for its turn counts.
        self.devices[device].unanswered = self.devices[device].points.len() as u32;
        self.plugins[plugin].waiting.push(device);
        self.next_resync(plugin);
    }

    /// Begins the next resyncs that `resync_parallel` allows; those that failed least come first, so that devices which
    /// connect but never answer do not keep the others waiting (G5).
    pub(crate) fn next_resync(&mut self, plugin: crate::arena::PluginId) {
        while self.plugins[plugin].resyncing < self.site.host.resync_parallel.max(1) {
            let waiting = &self.plugins[plugin].waiting;
            let best = waiting
                .iter()
                .enumerate()
                .min_by_key(|(place, device)| (self.devices[**device].attempts, *place))
                .map(|(place, _)| place);
            let Some(place) = best else { return };
            let device = self.plugins[plugin].waiting.remove(place);
            self.plugins[plugin].resyncing += 1;
            self.begin_resync(device);
        }
    }

    /// The turn to resync is free again.
    pub(crate) fn end_turn(&mut self, device: DeviceId, phase: Phase) {
        let Some(plugin) = self.devices[device].plugin else { return };
        match phase {
            Phase::Subscribing | Phase::Resync => {
                self.plugins[plugin].resyncing = self.plugins[plugin].resyncing.saturating_sub(1);
                self.next_resync(plugin);
            }
            Phase::WaitTurn => self.plugins[plugin].waiting.retain(|other| *other != device),
            _ => {}
        }
    }

    fn begin_resync(&mut self, device: DeviceId) {
        let plugin = self.devices[device].plugin;
        if plugin.is_some_and(|plugin| self.plugin_knows(plugin, op::request::SUBSCRIBE))
            && !self.devices[device].points.is_empty()
        {
            self.devices[device].phase = Phase::Subscribing;
            self.ask(device, Work::Subscribe);
        } else {
            self.subscribed(device, &Done::default());
        }
    }

    /// The device is lost: every point `invalid|comm_lost` at once (G1), value and its time kept; what was asked of it
    /// ends; it is tried again for ever.
    pub(crate) fn lose_device(&mut self, device: DeviceId, reason: &str) {
        let phase = self.devices[device].phase;
        if matches!(phase, Phase::Failed | Phase::Maintenance) {
            return;
        }
        if matches!(phase, Phase::Idle | Phase::Backoff) {
            return self.set_reason(device, reason);
        }
        if self.devices[device].keep_ns != 0 {
            return self.lose_kept(device, reason);
        }
        self.end_session(device, phase);
        let attempts = self.devices[device].attempts;
        self.devices[device].attempts = attempts.saturating_add(1);
        self.back_off(device, attempts);
        self.mark_lost(device, reason);
        let quality = self.away_quality(device);
        self.invalidate(device, quality);
    }

    /// Requests, selections, commands and tokens of the session end.
    pub(crate) fn end_session(&mut self, device: DeviceId, phase: Phase) {
        self.devices[device].session = self.devices[device].session.wrapping_add(1);
        self.devices[device].phase = Phase::Idle;
        self.devices[device].probing = false;
        self.devices[device].wake_ns = 0;
        if std::mem::take(&mut self.devices[device].rebinding) {
            // Nobody knows whether the driver took the new points.
            self.devices[device].bound = false;
        }
        self.end_commands_of(device);
        self.end_fetches_of(device);
        self.forget_reads(device);
        self.forget_queued(device);
        self.drop_commits_of_device(device);
        self.end_turn(device, phase);
    }

    pub(crate) fn forget_reads(&mut self, device: DeviceId) {
        for group in self.devices[device].groups.clone() {
            self.groups[group].busy = false;
            self.groups[group].scheduled = false;
            self.groups[group].again = false;
        }
    }

    pub(crate) fn mark_lost(&mut self, device: DeviceId, reason: &str) {
        let was_lost = self.devices[device].lost;
        self.set_reason(device, reason);
        if !was_lost {
            self.devices[device].lost = true;
            self.devices[device].since_wall_ns = self.now.wall_ns;
            self.devices[device].counters.losses += 1;
        }
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        self.log(
            LogLevel::Warn,
            ("lost", u64::from(device.number())),
            vec![("device", name)],
            format!("lost: {reason}"),
        );
        self.set_online(device, false);
    }

    /// Host bits of every point of the device.
    pub(crate) fn invalidate(&mut self, device: DeviceId, quality: busbar_contract::Quality) {
        for point in self.point_ids(device) {
            if self.points[point].set_host(quality, Stamp::new(self.now.wall_ns, self.clock_synced)) {
                self.emit_host(point);
            }
        }
        self.end_of_poll();
    }

    pub(crate) fn set_reason(&mut self, device: DeviceId, reason: &str) {
        self.devices[device].reason = clipped(reason.to_owned());
    }

    /// Why a device that tries to run cannot; one that failed or is switched off keeps its own reason.
    pub(crate) fn set_trouble(&mut self, device: DeviceId, reason: &str) {
        if !matches!(self.devices[device].phase, Phase::Failed | Phase::Maintenance) {
            self.set_reason(device, reason);
        }
    }

    /// The device cannot run until something is changed.
    pub(crate) fn fail_device(&mut self, device: DeviceId, reason: &str) {
        let phase = self.devices[device].phase;
        if phase == Phase::Maintenance || self.trial_device_failed(device, reason) {
            return;
        }
        self.devices[device].keep_ns = 0;
        if phase != Phase::Failed {
            let connected = phase.has_session();
            self.end_session(device, phase);
            if connected {
                self.ask(device, Work::Disconnect);
            }
            self.devices[device].since_wall_ns = self.now.wall_ns;
        }
        self.devices[device].phase = Phase::Failed;
        self.devices[device].lost = false;
        self.set_reason(device, reason);
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        self.log(
            LogLevel::Error,
            ("failed", u64::from(device.number())),
            vec![("device", name)],
            format!("failed: {reason}"),
        );
        self.set_online(device, false);
        self.invalidate(device, LOST);
    }

    /// Something came from the device.
    pub(crate) fn exchanged(&mut self, device: DeviceId) {
        self.devices[device].last_exchange_ns = self.now.mono_ns;
    }

    /// The word of the API.
    pub(crate) fn device_state(&self, device: DeviceId) -> DeviceState {
        let state = &self.devices[device];
        match state.phase {
            Phase::Failed => DeviceState::Failed,
            Phase::Maintenance => match state.off {
                Off::Disabled => DeviceState::Disabled,
                Off::Hours => DeviceState::Inactive,
                Off::No | Off::Maintenance => DeviceState::Maintenance,
            },
            Phase::Paused => DeviceState::Paused,
            Phase::Online => DeviceState::Online,
            _ if state.keep_ns != 0 => DeviceState::Handover,
            Phase::Resync | Phase::Subscribing | Phase::WaitTurn => DeviceState::Resync,
            _ if state.lost => DeviceState::Lost,
            _ => DeviceState::Connecting,
        }
    }

    /// The interval between liveness probes.
    pub(crate) fn probe_interval_ns(&self, device: DeviceId) -> u64 {
        self.site
            .devices
            .get(device.number() as usize)
            .map_or(SECOND, |config| ns(config.probe_interval).max(1))
    }
}

/// Longest text kept of a peer or a reason, bytes (G9).
const MAX_TEXT: usize = 1024;

/// Texts from outside are bounded.
pub(crate) fn clipped(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
