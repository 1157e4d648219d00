//! Devices that are off on purpose: no fault, no alarm.
//!
//! | what | who says so | session | its points |
//! |---|---|---|---|
//! | maintenance | operator, `maintenance = true` | ended | `invalid\|operator_blocked` |
//! | disabled | `enabled = false` | ended | `invalid\|operator_blocked` |
//! | inactive | `active = { .. }`: outside its hours | ended | `questionable\|operator_blocked`, last value kept |
//! | paused | operator, `read = false` | kept, watched by probes | `invalid\|operator_blocked` |
//!
//! Silence by the clock is routine: it comes every day, nobody is to be alarmed, and the last value says what it says.
//! IEC 61850 calls that "blocked from further update", IEC 60870-5-101 7.2.6.3 "the value remains as it was acquired
//! before it was blocked". So it is questionable, not invalid. A point that was never read has no value to keep and is
//! invalid. None of them becomes stale or lost meanwhile.
//!
//! What an operator switched holds until it is switched back, over restarts too, or until the same key is changed in the
//! configuration: the later decision wins.

use busbar_contract::{Kind, Quality, Request, request::OfDevice};

use crate::{
    Core,
    arena::{DeviceId, Id},
    state::{ChannelPhase, Off, Phase, PluginStatus, Work},
    table::{BLOCKED, LOST, Stamp},
};

/// Host bits of a point outside the active hours of its device.
const PLANNED: Quality = Quality(Quality::QUESTIONABLE.0 | Quality::OPERATOR_BLOCKED.0);

impl Off {
    const fn reason(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Maintenance => "switched to maintenance",
            Self::Disabled => "disabled: enabled = false",
            Self::Hours => "outside its active hours",
        }
    }
}

impl Core {
    /// Whether the device is to be off now, and why.
    pub(crate) fn wanted_off(&mut self, device: DeviceId) -> Off {
        let Some(config) = self.site.devices.get(device.number() as usize) else { return Off::No };
        match self.switches.maintenance.get(&config.name) {
            Some(true) => return Off::Maintenance,
            None if config.maintenance => return Off::Maintenance,
            None if !config.enabled => return Off::Disabled,
            _ => {}
        }
        let wall_ns = self.now.wall_ns;
        let open = self.devices[device].hours.as_mut().is_none_or(|hours| hours.is_open(wall_ns));
        if open { Off::No } else { Off::Hours }
    }

    fn wanted_pause(&self, device: DeviceId) -> bool {
        let config = self.site.devices.get(device.number() as usize);
        config.is_some_and(|config| self.switches.paused.get(&config.name).copied().unwrap_or(config.paused))
    }

    /// The switches of a device that does not run yet.
    pub(crate) fn first_switches(&mut self, device: DeviceId) {
        self.devices[device].paused = self.wanted_pause(device);
        let off = self.wanted_off(device);
        if off != Off::No {
            self.devices[device].phase = Phase::Maintenance;
            self.devices[device].off = off;
            self.set_reason(device, off.reason());
        }
        if off != Off::No || self.devices[device].paused {
            for point in self.point_ids(device) {
                self.points[point].host_quality = BLOCKED;
            }
        }
    }

    /// Brings the device to where switches and clock want it.
    pub(crate) fn judge_switches(&mut self, device: DeviceId) {
        let off = self.wanted_off(device);
        self.set_off(device, off);
        let paused = self.wanted_pause(device);
        self.set_paused(device, paused);
    }

    /// Once a second: devices with active hours.
    pub(crate) fn check_hours(&mut self) {
        for device in self.order.clone() {
            if self.devices[device].hours.is_some() {
                let off = self.wanted_off(device);
                self.set_off(device, off);
            }
        }
    }

    /// Switches a device off or on: off means no session and no polling.
    pub(crate) fn set_off(&mut self, device: DeviceId, off: Off) {
        let phase = self.devices[device].phase;
        if off == self.devices[device].off {
            return;
        }
        self.devices[device].off = off;
        self.devices[device].since_wall_ns = self.now.wall_ns;
        self.devices[device].lost = false;
        self.devices[device].keep_ns = 0;
        self.set_reason(device, off.reason());
        if off == Off::No {
            self.devices[device].phase = Phase::Idle;
            self.devices[device].attempts = 0;
            let quality = self.away_quality(device);
            self.invalidate(device, quality);
            return self.after_maintenance(device);
        }
        if phase != Phase::Maintenance {
            let connected = phase.has_session();
            self.end_session(device, phase);
            if connected {
                self.ask(device, Work::Disconnect);
            }
            self.devices[device].phase = Phase::Maintenance;
            self.set_online(device, false);
        }
        match off {
            Off::Hours => self.plan_silence(device),
            _ => self.invalidate(device, BLOCKED),
        }
    }

    fn plan_silence(&mut self, device: DeviceId) {
        let stamp = Stamp::new(self.now.wall_ns, self.clock_synced);
        for id in self.point_ids(device) {
            let quality = if self.points[id].cell.kind == Kind::None { BLOCKED } else { PLANNED };
            if self.points[id].set_host(quality, stamp) {
                self.emit_host(id);
            }
        }
        self.end_of_poll();
    }

    /// Host bits of the points of a device that is not there.
    pub(crate) fn away_quality(&self, device: DeviceId) -> Quality {
        if self.devices[device].paused { BLOCKED } else { LOST }
    }

    /// Connected, but nothing is read; or read again.
    pub(crate) fn set_paused(&mut self, device: DeviceId, on: bool) {
        if std::mem::replace(&mut self.devices[device].paused, on) == on {
            return;
        }
        let phase = self.devices[device].phase;
        match (phase, on) {
            (Phase::Failed | Phase::Maintenance, _) => {}
            (_, true) if phase.has_session() => {
                self.end_session(device, phase);
                self.end_subscription(device);
                if self.devices[device].bound {
                    self.begin_pause(device);
                } else {
                    // A BIND was on its way: it comes first.
                    self.invalidate(device, BLOCKED);
                    self.advance(device);
                }
            }
            (Phase::Paused, false) => {
                self.invalidate(device, LOST);
                self.connected(device);
            }
            _ => {
                let quality = self.away_quality(device);
                self.invalidate(device, quality);
            }
        }
    }

    /// The session stays; only probes keep an eye on it.
    pub(crate) fn begin_pause(&mut self, device: DeviceId) {
        let state = &mut self.devices[device];
        state.phase = Phase::Paused;
        state.attempts = 0;
        state.lost = false;
        state.since_wall_ns = self.now.wall_ns;
        self.set_reason(device, "paused: connected, not polled");
        self.set_online(device, false);
        self.invalidate(device, BLOCKED);
        self.exchanged(device);
        self.arm_probe(device);
    }

    /// What the device reports by itself is not wanted for now.
    fn end_subscription(&mut self, device: DeviceId) {
        let mut any = false;
        for point in self.point_ids(device) {
            any |= std::mem::take(&mut self.points[point].subscribed);
        }
        for group in self.devices[device].groups.clone() {
            self.groups[group].subscribed = false;
        }
        self.devices[device].needs_probes = false;
        if let Some(channel) = self.devices[device].channel.filter(|_| any) {
            let deadline_ms = crate::time::ms(self.exchange_ns(device));
            let body = OfDevice { device: Some(device.number()), deadline_ms };
            self.tell(self.channels[channel].instance, 0, Request::Unsubscribe(body));
        }
    }

    pub(crate) fn after_maintenance(&mut self, device: DeviceId) {
        let Some(channel) = self.devices[device].channel else {
            let plugin = self.devices[device].plugin;
            let reason = plugin
                .map_or_else(|| "its plugin is absent".to_owned(), |id| self.plugins[id].reason.clone());
            if plugin.is_none_or(|id| self.plugins[id].status == PluginStatus::Failed) {
                self.fail_device(device, &reason);
            }
            return;
        };
        if self.channels[channel].phase == ChannelPhase::Open {
            self.start_device(device);
        } else {
            self.open_channel(channel);
        }
    }
}
