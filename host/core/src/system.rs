//! System points (SEMANTICS 9), the clock, and what happens once a second.
//!
//! `@host/{clock_synced, config_version, commands_locked}`, `@sink/NAME/{connected, pending, oldest_age, overflow,
//! parked}`, `DEVICE/@online`, `DEVICE/@gap`, `DEVICE/@latency`: points like any other, made by the host, always good.

use std::sync::Arc;

use busbar_contract::{
    Cause, Flags, Quality, Value,
    event::{Fault, Metadata, Metric},
};
use serde_json::Value as Json;

use crate::{
    Core,
    arena::{ChannelId, DeviceId, Id, PointId, SinkId},
    channel::STOP_DEADLINE_NS,
    device::clipped,
    durable::LAST_NS,
    model::Site,
    output::LogLevel,
    request::GRACE_NS,
    route::Outgoing,
    sink::SinkPhase,
    state::{ChannelPhase, Owner},
    table::{Cell, Point, Stamp},
    time::SECOND,
    timers::Timer,
};

/// Numbers of the system points.
#[derive(Debug, Default)]
pub(crate) struct SystemPoints {
    clock_synced: Option<PointId>,
    config_version: Option<PointId>,
    commands_locked: Option<PointId>,
    sinks: Vec<SinkPoints>,
}

#[derive(Debug, Clone, Copy)]
struct SinkPoints {
    connected: PointId,
    pending: PointId,
    oldest_age: PointId,
    overflow: PointId,
    parked: PointId,
}

/// At the end of the gateway a sink may take this long to deliver what it has.
const DRAIN_NS: u64 = 3 * SECOND;
/// Counters that one plugin may report by METRIC (G9).
const MAX_REPORTED: usize = 1024;

impl Core {
    /// Numbers all system points; they follow the points of the devices.
    pub(crate) fn add_system_points(&mut self, site: &Site) {
        self.system.clock_synced = Some(self.system_point("@host", "clock_synced", Value::Bool(true)));
        self.system.config_version = Some(self.system_point("@host", "config_version", Value::Uint(1)));
        let locked = self.switches.locked.unwrap_or(site.host.commands == crate::model::CommandMode::Locked);
        self.system.commands_locked =
            Some(self.system_point("@host", "commands_locked", Value::Bool(locked)));
        for (device, config) in self.devices.ids().zip(&site.devices) {
            self.add_device_points(device, &config.name);
        }
        for sink in &site.sinks {
            self.add_sink_points(&sink.name);
        }
    }

    pub(crate) fn add_device_points(&mut self, device: DeviceId, name: &str) {
        let online = self.system_point(name, "@online", Value::Bool(false));
        let gap = self.system_point(name, "@gap", Value::Uint(0));
        let latency = self.system_point(name, "@latency", Value::Float64(0.0));
        self.points[gap].event = true;
        let state = &mut self.devices[device];
        (state.online_point, state.gap_point, state.latency_point) = (online, gap, latency);
    }

    /// Of the next sink: they are numbered as the sinks are.
    pub(crate) fn add_sink_points(&mut self, name: &str) {
        let name = format!("@sink/{name}");
        let points = SinkPoints {
            connected: self.system_point(&name, "connected", Value::Bool(false)),
            pending: self.system_point(&name, "pending", Value::Uint(0)),
            oldest_age: self.system_point(&name, "oldest_age", Value::Float64(0.0)),
            overflow: self.system_point(&name, "overflow", Value::Bool(false)),
            parked: self.system_point(&name, "parked", Value::Uint(0)),
        };
        self.system.sinks.push(points);
    }

    /// System points of a sink.
    pub(crate) fn points_of_sink(&self, sink: SinkId) -> Vec<PointId> {
        let points = self.system.sinks.get(sink.number() as usize);
        points
            .map_or_else(Vec::new, |of| vec![of.connected, of.pending, of.oldest_age, of.overflow, of.parked])
    }

    /// The number of the configuration in force.
    pub(crate) fn set_config_version(&mut self) {
        let version = Value::Uint(self.config_version);
        if let Some(point) = self.system.config_version {
            self.set_system(point, &version, false);
        }
    }

    fn system_point(&mut self, device: &str, name: &str, value: Value) -> PointId {
        let wall_ns = self.now.wall_ns;
        let id = self.points.push(Point {
            cell: Cell::of(&value),
            ts_ns: wall_ns,
            value_ts_ns: wall_ns,
            marks: Flags::GATEWAY_TIME,
            ..Point::default()
        });
        self.names.insert(format!("{device}/{name}"), id);
        self.fixed_names.insert(id, (device.to_owned(), name.to_owned()));
        id
    }

    /// Sets a system point; a change goes to the sinks.
    fn set_system(&mut self, id: PointId, value: &Value, event: bool) {
        let cell = Cell::of(value);
        let (wall_ns, now_ns) = (self.now.wall_ns, self.now.mono_ns);
        let unsynced = if self.clock_synced { Quality::GOOD } else { Quality::CLOCK_UNSYNCED };
        let point = &mut self.points[id];
        if point.cell.same(&cell) {
            return;
        }
        point.cell = cell;
        (point.ts_ns, point.value_ts_ns) = (wall_ns, wall_ns);
        point.refreshed_ns = now_ns;
        point.host_quality = unsynced;
        let cause = if event { Cause::DataChange } else { Cause::Host };
        let out = Outgoing::from_point(id, &self.points[id], cause, event, 0, 0);
        self.emit(id, &out);
    }

    pub(crate) fn set_online(&mut self, device: DeviceId, online: bool) {
        let point = self.devices[device].online_point;
        self.set_system(point, &Value::Bool(online), false);
        self.end_of_poll();
    }

    /// Samples of a device were lost: one event, never silent.
    pub(crate) fn gap_event(&mut self, device: DeviceId, reason: &str) {
        let point = self.devices[device].gap_point;
        let count = match self.points[point].cell.value() {
            Value::Uint(count) => count + 1,
            _ => 1,
        };
        self.set_system(point, &Value::Uint(count), true);
        self.end_of_poll();
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        let text = format!("samples were lost on the way: {}", clipped(reason.to_owned()));
        self.log(LogLevel::Warn, ("gap", u64::from(device.number())), vec![("device", name)], text);
    }

    pub(crate) fn set_locked_point(&mut self) {
        let locked = self.commands_locked();
        if let Some(point) = self.system.commands_locked {
            self.set_system(point, &Value::Bool(locked), false);
        }
    }

    pub(crate) fn set_sink_connected(&mut self, sink: SinkId, connected: bool) {
        if let Some(points) = self.system.sinks.get(sink.number() as usize).copied() {
            self.set_system(points.connected, &Value::Bool(connected), false);
            self.end_of_poll();
        }
    }

    pub(crate) fn clock_state(&mut self, synchronised: bool) {
        let first = !std::mem::replace(&mut self.clock_known, true);
        if std::mem::replace(&mut self.clock_synced, synchronised) == synchronised {
            return;
        }
        if first {
            // What was stamped before anybody knew, above all the points as they were at the start.
            let stamp = Stamp::new(self.now.wall_ns, synchronised);
            for point in self.points.values_mut().filter(|point| Flags(point.marks).gateway_time()) {
                point.host_quality = stamp.mark(point.host_quality);
            }
        }
        if let Some(point) = self.system.clock_synced {
            self.set_system(point, &Value::Bool(synchronised), false);
        }
        let (level, text) = if synchronised {
            (LogLevel::Info, "the system clock is synchronised")
        } else {
            (LogLevel::Warn, "the system clock is not synchronised: gateway times carry clock_unsynced")
        };
        self.log(level, ("clock", u64::from(synchronised)), vec![], text);
    }

    /// Once a second: ages, expiry, slow system points.
    pub(crate) fn housekeeping(&mut self) {
        self.timers.arm(self.now.mono_ns + SECOND, Timer::Housekeeping);
        self.release_answers();
        self.check_hours();
        self.retire_plugins();
        for sink in self.sink_order.clone() {
            self.expire(sink);
            self.tend_idle(sink);
            self.watch_disk(sink);
            self.slow_sink_points(sink);
            self.settle_leaving(sink);
        }
        let closing = |sink: &SinkId| self.sinks[*sink].gone && self.sinks[*sink].journal.is_some();
        for sink in self.sinks.ids().filter(closing).collect::<Vec<_>>() {
            self.close_journal(sink);
        }
        for device in self.order.clone() {
            let point = self.devices[device].latency_point;
            if !self.points[point].routes.is_empty() {
                let seconds = self.devices[device].latency_ns as f64 / 1e9;
                self.set_system(point, &Value::Float64(seconds), false);
            }
        }
        self.end_of_poll();
    }

    fn slow_sink_points(&mut self, sink: SinkId) {
        let Some(points) = self.system.sinks.get(sink.number() as usize).copied() else { return };
        let state = &mut self.sinks[sink];
        if state.overflow && state.pending() == 0 {
            // Everything that survived is delivered; the image at the far side is whole again.
            state.overflow = false;
        }
        let state = &self.sinks[sink];
        let age_ns = state.oldest_age_ns(self.now.mono_ns);
        let (pending, parked, overflow) = (state.pending(), state.parked_total(), state.overflow);
        self.set_system(points.overflow, &Value::Bool(overflow), false);
        // A sink that gets its own fill level must not fill itself with it: whole seconds only.
        for (point, value) in [
            (points.pending, Value::Uint(pending)),
            (points.oldest_age, Value::Float64((age_ns / SECOND) as f64)),
            (points.parked, Value::Uint(parked)),
        ] {
            if !self.points[point].routes.is_empty() {
                self.set_system(point, &value, false);
            }
        }
    }

    /// METADATA of points: kept, and passed on as a difference of the point list.
    pub(crate) fn take_metadata(&mut self, channel: ChannelId, metadata: Metadata) {
        let mut changed: Vec<PointId> = Vec::new();
        for (number, facts) in metadata.points {
            let device = self.points.find(number).and_then(|point| self.points[point].device);
            let Some(device) = device.filter(|device| self.devices[*device].channel == Some(channel)) else {
                self.oddities.foreign += 1;
                continue;
            };
            if let Some(point) = self.point_of(device, number)
                && self.learn(device, point, facts)
            {
                changed.push(point);
            }
        }
        self.tell_points(&changed);
    }

    fn learn(&mut self, device: DeviceId, point: PointId, facts: Json) -> bool {
        let index = self.points[point].index;
        let config =
            self.site.devices.get(device.number() as usize).and_then(|config| config.points.get(index));
        let Some((config, Json::Object(facts))) = config.cloned().zip(Some(facts)) else {
            return false;
        };
        if let Some(unit) = facts.get("unit").and_then(Json::as_str)
            && !config.unit.is_empty()
            && config.unit != unit
            && config.scale.is_one()
        {
            let fields = vec![("point", self.full_name(point))];
            let text = format!(
                "configured unit {} differs from the device's {unit} and there is no scale",
                config.unit
            );
            self.log(LogLevel::Warn, ("unit", u64::from(point.number())), fields, text);
        }
        // What is configured wins over what the device says.
        let mut merged = facts;
        if let Json::Object(configured) = &*config.metadata {
            merged.extend(configured.clone());
        }
        let merged = self.pool.share(Json::Object(merged));
        let changed = self.metadata.insert(point, Arc::clone(&merged)) != Some(merged);
        if changed {
            self.name_changed(point);
        }
        changed
    }

    /// Kind that the driver named in its metadata.
    pub(crate) fn learned_kind(&self, point: PointId) -> Option<busbar_contract::Kind> {
        busbar_contract::Kind::from_name(self.metadata.get(&point)?.get("kind")?.as_str()?)
    }

    /// The difference of the point list, to every sink that has one.
    pub(crate) fn tell_points(&mut self, changed: &[PointId]) {
        for sink in self.sinks.ids() {
            let state = &self.sinks[sink];
            if !matches!(state.phase, SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up) {
                continue;
            }
            let instance = state.instance;
            let slots: Vec<u32> =
                changed.iter().filter_map(|point| state.slot_of.get(&point.number()).copied()).collect();
            let points: Vec<_> = slots.into_iter().filter_map(|slot| self.sink_point(sink, slot)).collect();
            if !points.is_empty() {
                self.tell_sink_points(instance, points, Vec::new());
            }
        }
    }

    /// The difference of a sink's point list.
    pub(crate) fn tell_sink_points(
        &mut self,
        instance: u64,
        points: Vec<busbar_contract::request::SinkPoint>,
        removed: Vec<u32>,
    ) {
        let body = busbar_contract::request::Points { replace: false, points, removed };
        let deadline_ns = self.now.mono_ns + crate::request::LOCAL_DEADLINE_NS;
        self.submit(
            crate::state::Pending {
                number: 0,
                instance,
                endpoint: None,
                device: None,
                session: 0,
                work: crate::state::Work::SinkPoints,
                submitted_ns: self.now.mono_ns,
                deadline_ns,
            },
            busbar_contract::Request::Points(body),
        );
    }

    pub(crate) fn take_metric(&mut self, instance: u64, metric: Metric) {
        let Some(plugin) = self.instances.get(&instance).map(|state| state.plugin) else { return };
        let device = metric.device.unwrap_or(u32::MAX);
        for (name, value) in metric.values {
            let reported = &mut self.plugins[plugin].reported;
            let key = (device, clipped(name));
            if reported.len() < MAX_REPORTED || reported.contains_key(&key) {
                reported.insert(key, value);
            }
        }
    }

    pub(crate) fn take_fault(&mut self, instance: u64, fault: Fault) {
        let Some(state) = self.instances.get(&instance) else { return };
        let (plugin, owner) = (state.plugin, state.owner);
        let mut fields = vec![("plugin", self.plugins[plugin].name.clone()), ("code", clipped(fault.code))];
        match owner {
            Owner::Sink(sink) => {
                let name = self.site.sinks.get(sink.number() as usize).map(|config| config.name.clone());
                fields.push(("sink", name.unwrap_or_default()));
            }
            Owner::Channel(_) => {
                if let Some(name) = fault.device.and_then(|number| self.device_name(number)) {
                    fields.push(("device", name.to_owned()));
                }
            }
        }
        self.log(LogLevel::Warn, ("fault", instance), fields, clipped(fault.text));
    }

    /// Drivers stop first; sinks when the last driver instance is gone, so that what was read is still delivered.
    pub(crate) fn shutdown(&mut self) {
        self.stopping = true;
        self.drop_handover();
        self.hurry_journals();
        for channel in self.channels.ids() {
            self.stop_channel(channel);
        }
        self.stop_sinks_when_drivers_are_gone();
    }

    /// What the drivers' end brought is still delivered: a sink whose far side is up is stopped when its records are
    /// confirmed, or when [`DRAIN_NS`] is over.
    pub(crate) fn stop_sinks_when_drivers_are_gone(&mut self) {
        let running = self.channels.values().any(|channel| channel.phase != ChannelPhase::Closed);
        if self.stopping && !running && self.drain_until_ns.is_none() {
            self.drain_until_ns = Some(self.timers.arm(self.now.mono_ns + DRAIN_NS, Timer::Drain));
            for sink in self.sinks.ids() {
                self.mark_sink(sink);
            }
        }
    }

    /// Stops the sinks that have nothing left to deliver.
    pub(crate) fn stop_drained_sinks(&mut self) {
        let Some(until_ns) = self.drain_until_ns else { return };
        for sink in self.sinks.ids() {
            let state = &self.sinks[sink];
            if !state.is_up() || state.is_drained() || self.now.mono_ns >= until_ns {
                self.stop_sink_for(sink, "the gateway stops");
            }
        }
    }

    /// Every instance is stopped after `Input::Shutdown`, and what queues on disk hold is written: the process may end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let channels = self.channels.values().all(|channel| channel.phase == ChannelPhase::Closed);
        let sinks =
            self.sinks.values().all(|sink| matches!(sink.phase, SinkPhase::Closed | SinkPhase::Failed));
        self.stopping && channels && sinks && self.journals_are_settled()
    }

    /// Longest time that a shutdown can take, nanoseconds: drivers stop, what they brought is delivered, sinks stop, the
    /// last transactions reach the disk.
    #[must_use]
    pub const fn longest_shutdown_ns() -> u64 {
        2 * (STOP_DEADLINE_NS + GRACE_NS) + DRAIN_NS + LAST_NS
    }
}
