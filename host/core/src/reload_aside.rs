//! Reload, what a configuration on trial took away: kept aside until it is accepted, so that a roll-back leaves no trace.
//!
//! A point, device or sink that goes leaves its place at once, because what comes may need its name or its endpoint. But what
//! it was is kept here under its name: its number, value and quality, what waits in the memory of a sink, the switches
//! that a changed key overruled. Sinks are not told `removed` and bounds of queues are not changed before the end. Accepted:
//! all of it is let go, and what was still to be delivered is counted. Rolled back: everything returns under its old
//! number. What cannot return is a session that was ended: its device is connected anew, and its points say so meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use busbar_contract::Endpoint;
use serde_json::Value as Json;

use crate::{
    Core,
    arena::{DeviceId, Id, PointId, SinkId},
    hours::Hours,
    model,
    output::LogLevel,
    reload::Touched,
    sink::Lasting,
    state::{Off, Phase},
    table::{Point, Stamp},
};

/// See the head of this file. As large as the configuration before at most.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// A configuration is on trial: what goes is kept.
    pub(crate) keeping: bool,
    /// It is being rolled back: what is here returns.
    pub(crate) returning: bool,
    points: BTreeMap<String, Away>,
    /// Names of devices and their drivers.
    devices: BTreeMap<(String, String), DeviceId>,
    sinks: BTreeMap<String, SinkId>,
    /// Sinks whose queues get other bounds.
    pub(crate) limits: BTreeSet<SinkId>,
    maintenance: BTreeMap<String, bool>,
    paused: BTreeMap<String, bool>,
}

#[derive(Debug)]
struct Away {
    id: PointId,
    point: Point,
    metadata: Option<Arc<Json>>,
}

impl Aside {
    pub(crate) fn keep_device(&mut self, id: DeviceId, config: &model::Device) {
        if self.keeping {
            self.devices.insert((config.name.clone(), config.driver.clone()), id);
        }
    }

    /// True when its records are kept, too.
    pub(crate) fn keep_sink(&mut self, id: SinkId, name: &str) -> bool {
        if self.keeping {
            self.sinks.insert(name.to_owned(), id);
        }
        self.keeping
    }

    pub(crate) fn device(&mut self, config: &model::Device) -> Option<DeviceId> {
        if !self.returning {
            return None;
        }
        self.devices.remove(&(config.name.clone(), config.driver.clone()))
    }

    pub(crate) fn sink(&mut self, name: &str) -> Option<SinkId> {
        if self.returning { self.sinks.remove(name) } else { None }
    }
}

impl Core {
    /// A point leaves its place; what it was is kept while that may be wanted again.
    pub(crate) fn take_point(&mut self, id: PointId, full: String) {
        let gone = Point { gone: true, ..Point::default() };
        let (point, metadata) = (std::mem::replace(&mut self.points[id], gone), self.metadata.remove(&id));
        if self.aside.keeping {
            self.aside.points.insert(full, Away { id, point, metadata });
        }
    }

    /// A point returns to its place, with its value; without routes and groups. The quality is that of its device's
    /// session, where this is still the one that it was read in.
    pub(crate) fn point_returns(&mut self, full: &str, index: usize) -> Option<PointId> {
        if !self.aside.returning {
            return None;
        }
        let Away { id, mut point, metadata } = self.aside.points.remove(full)?;
        (point.index, point.group) = (index, None);
        if let Some(device) = point.device {
            self.fixed_names.remove(&id);
            let state = &self.devices[device];
            let same = state.phase.has_session() && state.session == point.session;
            if !same {
                point.set_host(self.away_quality(device), Stamp::new(self.now.wall_ns, self.clock_synced));
                point.added = state.phase == Phase::Online;
            }
        }
        self.points[id] = point;
        self.metadata.extend(metadata.map(|facts| (id, facts)));
        self.names.insert(full.to_owned(), id);
        Some(id)
    }

    /// A device that the configuration on trial had removed.
    pub(crate) fn device_returns(
        &mut self,
        id: DeviceId,
        config: model::Device,
        endpoint: Option<&Result<Endpoint, String>>,
        touched: &mut Touched,
    ) {
        let plugin = self.devices[id].plugin;
        let state = &mut self.devices[id];
        (state.gone, state.off, state.attempts, state.wake_ns) = (false, Off::No, 0, 0);
        (state.bound, state.rebinding, state.can_probe) = (false, false, true);
        state.phase = if plugin.is_some() { Phase::Idle } else { Phase::Failed };
        state.hours = config.active.as_ref().map(Hours::new);
        if let Some(plugin) = plugin {
            self.plugins[plugin].devices.push(id);
        }
        for name in ["@online", "@gap", "@latency"] {
            self.point_returns(&format!("{}/{name}", config.name), 0);
        }
        let mut points = Vec::with_capacity(config.points.len());
        for (index, point) in config.points.iter().enumerate() {
            let full = format!("{}/{}", config.name, point.name);
            let known = self.point_returns(&full, index);
            points.push(known.unwrap_or_else(|| self.add_point(id, &config, index, point)));
        }
        self.devices[id].points = points;
        for group in self.group_points(id, &config) {
            self.watch_group(group);
        }
        let name = config.name.clone();
        if let Some(place) = self.site.devices.get_mut(id.number() as usize) {
            *place = config;
        }
        self.first_switches(id);
        self.join(id, endpoint, touched);
        touched.devices.push(id);
        let fields = vec![("device", name)];
        self.log(LogLevel::Info, ("added", u64::from(id.number())), fields, "back in the configuration");
    }

    /// A sink that the configuration on trial had removed, with what waits in it: its place and its system points. Routes
    /// follow when all points are there.
    pub(crate) fn sink_returns(&mut self, id: SinkId, name: &str) {
        self.sinks[id].gone = false;
        for point in ["connected", "pending", "oldest_age", "overflow", "parked"] {
            self.point_returns(&format!("@sink/{name}/{point}"), 0);
        }
        if let Some(plugin) = self.sinks[id].plugin {
            self.plugins[plugin].sinks.push(id);
        }
        self.arm_interval(id);
    }

    /// Its points send to it again.
    pub(crate) fn routes_return(&mut self, id: SinkId) {
        let live: Vec<(u32, PointId)> =
            self.sinks[id].live().map(|(slot, routed)| (slot, routed.point)).collect();
        for (slot, point) in live {
            if self.points[point].gone {
                let state = &mut self.sinks[id];
                state.slot_of.remove(&point.number());
                if let Some(routed) = state.routed.get_mut(slot as usize) {
                    routed.lasting = Lasting::Gone;
                }
            } else {
                self.points[point].routes.push((id, slot));
            }
        }
    }

    /// The later decision wins: a key that was changed in the file overrules what an operator switched before.
    pub(crate) fn overrule_switches(
        &mut self,
        old: &model::Device,
        new: &model::Device,
        touched: &mut Touched,
    ) {
        if self.aside.returning {
            return;
        }
        if (old.maintenance, old.enabled) != (new.maintenance, new.enabled)
            && let Some(on) = self.switches.maintenance.remove(&new.name)
        {
            touched.switches = true;
            self.aside.maintenance.insert(new.name.clone(), on);
        }
        if old.paused != new.paused
            && let Some(on) = self.switches.paused.remove(&new.name)
        {
            touched.switches = true;
            self.aside.paused.insert(new.name.clone(), on);
        }
    }

    /// Before the configuration before is applied again. True when switches must be stored.
    pub(crate) fn return_switches(&mut self) -> bool {
        (self.aside.keeping, self.aside.returning) = (false, true);
        let maintenance = std::mem::take(&mut self.aside.maintenance);
        let paused = std::mem::take(&mut self.aside.paused);
        let some = !maintenance.is_empty() || !paused.is_empty();
        // What an operator switched meanwhile is the later decision.
        for (name, on) in maintenance {
            self.switches.maintenance.entry(name).or_insert(on);
        }
        for (name, on) in paused {
            self.switches.paused.entry(name).or_insert(on);
        }
        some
    }

    /// Nothing returns any more: what waits in sinks that went is given up, counted; the notes about it. Bounds of queues
    /// hold from now on, and sinks hear of points that left.
    pub(crate) fn let_go(&mut self) -> Vec<String> {
        let Aside { sinks, limits, .. } = std::mem::take(&mut self.aside);
        let mut notes = Vec::new();
        for (name, id) in sinks {
            let left = self.sinks[id].drop_all();
            if left > 0 {
                notes.push(format!("sink {name}: {left} records were not delivered and are given up"));
            }
            if let Some(place) = self.site.sinks.get_mut(id.number() as usize) {
                *place = model::Sink::default();
            }
            self.mark_sink(id);
        }
        for id in limits {
            if let Some(config) = self.site.sinks.get(id.number() as usize) {
                self.sinks[id].limits = config.queue;
                self.mark_sink(id);
            }
        }
        for id in self.sink_order.clone() {
            self.settle_leaving(id);
        }
        notes
    }
}
