//! From the resolved configuration to the parts of the core.

use std::collections::BTreeMap;

use busbar_contract::{Flags, Kind, describe::PluginKind};
use serde_json::Value as Json;

use crate::{
    Core, Now, Switches,
    arena::{Arena, DeviceId, GroupId, Id, PluginId, PointId, SinkId},
    convert::Conversion,
    hours::Hours,
    log::Limiter,
    model::{self, Site},
    pool::Pool,
    rng::Rng,
    schedule::Schedule,
    select::Selections,
    sink::Sink,
    stale::StaleHeap,
    state::{Device, Group, Oddities, Off, Phase, Plugin, PluginStatus},
    system::SystemPoints,
    table::{LOST, Point, Stamp},
    time::{SECOND, ns},
    timers::{Timer, Timers},
    view::DeviceCounters,
};

/// Request numbers of the host begin here, far from those that plugins give to their own requests.
const FIRST_REQUEST: u64 = 1 << 32;

impl Core {
    /// A core for `site`, with the persisted operator `switches`. `seed` feeds the jitter of back-off: equal seeds and
    /// inputs give equal outputs.
    #[must_use]
    pub fn new(site: Site, switches: Switches, seed: u64, now: Now) -> Self {
        let tick_ns = ns(site.host.tick).max(1);
        let mut core = Self {
            site: Site::default(),
            switches,
            now,
            out: Vec::new(),
            rng: Rng::new(seed),
            timers: Timers::new(tick_ns),
            schedule: Schedule::new(tick_ns),
            stale: StaleHeap::new(tick_ns),
            limiter: Limiter::default(),
            plugins: Arena::new(),
            endpoints: Arena::new(),
            channels: Arena::new(),
            devices: Arena::new(),
            groups: Arena::new(),
            points: Arena::new(),
            sinks: Arena::new(),
            order: Vec::new(),
            sink_order: Vec::new(),
            config_version: 1,
            attempt: None,
            aside: crate::reload_aside::Aside::default(),
            names: BTreeMap::new(),
            fixed_names: BTreeMap::new(),
            system: SystemPoints::default(),
            metadata: BTreeMap::new(),
            pool: Pool::default(),
            instances: BTreeMap::new(),
            next_instance: 1,
            requests: BTreeMap::new(),
            next_request: FIRST_REQUEST,
            commands: BTreeMap::new(),
            next_command: 1,
            busy: BTreeMap::new(),
            selections: Selections::default(),
            audits: BTreeMap::new(),
            answers: BTreeMap::new(),
            fetches: BTreeMap::new(),
            stores: BTreeMap::new(),
            lost_state: BTreeMap::new(),
            lost_state_total: 0,
            commits: BTreeMap::new(),
            next_commit: 1,
            dirty_endpoints: Vec::new(),
            touched_sinks: Vec::new(),
            settled_commits: Vec::new(),
            clock_synced: true,
            clock_known: false,
            cancels: BTreeMap::new(),
            unlocking: None,
            handover: None,
            trial: None,
            keeping: Vec::new(),
            looking: false,
            stopping: false,
            drain_until_ns: None,
            journals_until_ns: None,
            ghosts: crate::ghosts::Ghosts::default(),
            oddities: Oddities::default(),
        };
        for plugin in &site.plugins {
            let id = PluginId::new(core.plugins.len() as u32);
            core.plugins.push(Plugin { base: id, serving: id, ..new_plugin(plugin) });
        }
        for device in &site.devices {
            core.add_device(device);
        }
        core.add_system_points(&site);
        for sink in &site.sinks {
            core.add_sink(sink);
        }
        core.order = core.devices.ids().collect();
        core.sink_order = core.sinks.ids().collect();
        core.route_all(&site);
        core.site = site;
        core.apply_switches();
        core.start_timers();
        core
    }

    /// A device with its points and groups; its place in `Site::devices` is the caller's.
    pub(crate) fn add_device(&mut self, config: &model::Device) -> DeviceId {
        let plugin = self.plugin_named(&config.driver, PluginKind::Driver);
        let none = PointId::new(0);
        let id = self.devices.push(Device {
            plugin,
            channel: None,
            phase: if plugin.is_some() { Phase::Idle } else { Phase::Failed },
            reason: if plugin.is_some() {
                String::new()
            } else {
                format!("no plugin named {}", config.driver)
            },
            since_wall_ns: self.now.wall_ns,
            lost: false,
            attached: false,
            bound: false,
            session: 1,
            attempts: 0,
            wake_ns: 0,
            keep_ns: 0,
            quiet: false,
            points: Vec::new(),
            groups: Vec::new(),
            gone: false,
            rebinding: false,
            detached: 0,
            paused: config.paused,
            off: Off::No,
            hours: config.active.as_ref().map(Hours::new),
            unanswered: 0,
            reads_left: 0,
            interrogated: false,
            integrity_ns: 0,
            last_exchange_ns: 0,
            last_probe_ns: 0,
            needs_probes: false,
            probing: false,
            can_probe: true,
            probe_armed: false,
            rebind_ns: 0,
            frame_log: config.frame_log,
            peer: String::new(),
            counters: DeviceCounters::default(),
            poll_duration: crate::metrics::Histogram::default(),
            errors: crate::metrics::Errors::default(),
            online_point: none,
            gap_point: none,
            latency_point: none,
            latency_ns: 0,
            commits: std::collections::VecDeque::new(),
        });
        if let Some(plugin) = plugin {
            self.plugins[plugin].devices.push(id);
        }
        let points = config.points.iter().enumerate();
        self.devices[id].points =
            points.map(|(index, point)| self.add_point(id, config, index, point)).collect();
        self.group_points(id, config);
        id
    }

    /// A point with a number of its own: never read, no value, `invalid|comm_lost`, the host's time.
    pub(crate) fn add_point(
        &mut self,
        device: DeviceId,
        config: &model::Device,
        index: usize,
        point: &model::Point,
    ) -> PointId {
        let id = self.points.push(Point {
            device: Some(device),
            index,
            conversion: Conversion::new(point),
            event: point.event,
            deadband: point.deadband,
            writable: point.writable,
            stale_ns: ns(point.stale_after),
            invalid_ns: ns(point.invalid_after).max(ns(point.stale_after)),
            host_quality: LOST,
            ts_ns: self.now.wall_ns,
            marks: Flags::GATEWAY_TIME,
            ..Point::default()
        });
        self.names.insert(format!("{}/{}", config.name, point.name), id);
        id
    }

    /// Points with equal intervals are read together. Groups that stay as they are keep their number; returns those that
    /// are new.
    pub(crate) fn group_points(&mut self, device: DeviceId, config: &model::Device) -> Vec<GroupId> {
        let mut by_interval: BTreeMap<u64, Vec<PointId>> = BTreeMap::new();
        for (point, id) in config.points.iter().zip(&self.devices[device].points) {
            by_interval.entry(ns(point.poll_interval)).or_default().push(*id);
        }
        let before = std::mem::take(&mut self.devices[device].groups);
        let mut new = Vec::new();
        for (interval_ns, points) in by_interval {
            let known = before.iter().copied().find(|group| {
                self.groups[*group].interval_ns == interval_ns && self.groups[*group].points == points
            });
            let group = known.unwrap_or_else(|| {
                let group = self.add_group(device, interval_ns, points);
                new.push(group);
                group
            });
            self.devices[device].groups.push(group);
        }
        for group in before {
            if !self.devices[device].groups.contains(&group) {
                let old = &mut self.groups[group];
                (old.gone, old.points) = (true, Vec::new());
            }
        }
        new
    }

    fn add_group(&mut self, device: DeviceId, interval_ns: u64, points: Vec<PointId>) -> GroupId {
        let min_stale_ns = points.iter().map(|point| self.points[*point].stale_ns).min().unwrap_or(SECOND);
        let group = self.groups.push(Group {
            device,
            points: points.clone(),
            interval_ns,
            exchanges: 1,
            busy: false,
            scheduled: false,
            again: false,
            refused_until_ns: 0,
            subscribed: false,
            gone: false,
            min_stale_ns,
            stale_at_ns: 0,
        });
        for point in points {
            self.points[point].group = Some(group);
        }
        group
    }

    /// A sink without points; [`Core::route_all`] routes.
    pub(crate) fn add_sink(&mut self, config: &model::Sink) -> SinkId {
        let plugin = self.plugin_named(&config.plugin, PluginKind::Sink);
        let id = self.sinks.push(Sink::new(config, plugin, self.now));
        if let Some(plugin) = plugin {
            self.plugins[plugin].sinks.push(id);
        }
        id
    }

    /// The first routes of every sink of `site`.
    fn route_all(&mut self, site: &Site) {
        for (sink, config) in self.sinks.ids().zip(&site.sinks) {
            for (point, map) in self.wanted_routes(config) {
                self.route(sink, point, map);
            }
        }
    }

    /// The points that a sink is to get, with their map entries; a point named twice once, with the entries of both.
    pub(crate) fn wanted_routes(&self, config: &model::Sink) -> Vec<(PointId, Vec<Json>)> {
        let of_devices = config.routes.iter().filter_map(|route| {
            let device = self.order.get(route.device)?;
            Some((*self.devices[*device].points.get(route.point)?, &route.map))
        });
        let of_system =
            config.system.iter().filter_map(|system| Some((self.named(&system.name)?, &system.map)));
        let mut wanted: Vec<(PointId, Vec<Json>)> = Vec::with_capacity(config.routes.len());
        // By number of the point: the place in `wanted`, from 1.
        let mut places = vec![0_usize; self.points.len()];
        for (point, map) in of_devices.chain(of_system) {
            let Some(place) = places.get_mut(point.number() as usize) else { continue };
            if *place == 0 {
                wanted.push((point, Vec::new()));
                *place = wanted.len();
            }
            let place = *place - 1;
            if let Some((_, entries)) = wanted.get_mut(place) {
                entries.extend(map.iter().cloned());
            }
        }
        wanted
    }

    /// A point goes to a sink from now on.
    pub(crate) fn route(&mut self, sink: SinkId, point: PointId, map: Vec<Json>) {
        let slot = self.sinks[sink].add_point(point, map);
        let state = &mut self.points[point];
        state.routes.push((sink, slot));
        self.sinks[sink].feed.set_deadband(slot, state.deadband);
    }

    /// What operators switched before the last stop holds again, and the active hours of this moment.
    fn apply_switches(&mut self) {
        let names: Vec<(String, PointId)> = self.names.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, point) in names {
            self.cover_again(&name, point);
        }
        for device in self.devices.ids() {
            self.first_switches(device);
        }
    }

    /// An operator blocked or substituted the point of this name.
    pub(crate) fn cover_again(&mut self, name: &str, point: PointId) {
        let stamp = Stamp::new(self.now.wall_ns, self.clock_synced);
        if self.switches.blocked.contains(name) {
            self.points[point].block(stamp);
        }
        if let Some(json) = self.switches.substituted.get(name) {
            let kind = self.switches.substituted_kinds.get(name).and_then(|kind| Kind::from_name(kind));
            let value = crate::operator::substitute_value(kind, json);
            self.points[point].substitute(&value, stamp);
        }
    }

    fn start_timers(&mut self) {
        let now_ns = self.now.mono_ns;
        self.timers.arm(now_ns + SECOND, Timer::Housekeeping);
        for group in self.groups.ids() {
            self.watch_group(group);
        }
        for sink in self.sinks.ids() {
            self.arm_interval(sink);
        }
        self.start_journals();
    }

    /// The first staleness check of a group.
    pub(crate) fn watch_group(&mut self, group: GroupId) {
        let at = self.stale.add(self.now.mono_ns + self.groups[group].min_stale_ns, group);
        self.groups[group].stale_at_ns = at;
    }

    /// The points of a device.
    pub(crate) fn point_ids(&self, device: DeviceId) -> impl Iterator<Item = PointId> + use<> {
        self.devices[device].points.clone().into_iter()
    }
}

/// A plugin or a version of one; the caller says of which.
pub(crate) fn new_plugin(config: &model::Plugin) -> Plugin {
    Plugin {
        name: config.name.clone(),
        kind: config.kind,
        base: PluginId::new(0),
        serving: PluginId::new(0),
        specs: Vec::new(),
        killed: false,
        isolation: config.isolation,
        status: PluginStatus::Declared,
        reason: String::new(),
        describe: None,
        last_beat_ns: 0,
        stalled: false,
        gone: false,
        leaving: false,
        channels: Vec::new(),
        devices: Vec::new(),
        sinks: Vec::new(),
        resyncing: 0,
        waiting: Vec::new(),
        poll_duration: crate::metrics::Histogram::default(),
        start_delay: crate::metrics::Histogram::default(),
        malformed: 0,
        unknown_flags: 0,
        reported: BTreeMap::new(),
    }
}
