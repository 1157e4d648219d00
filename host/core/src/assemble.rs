//! From the resolved configuration to the parts of the core.

use std::collections::BTreeMap;

use busbar_contract::{Flags, Kind, describe::PluginKind};

use crate::{
    Core, Now, Switches,
    arena::{Arena, DeviceId, GroupId, Id, PluginId, PointId, SinkId},
    convert::Conversion,
    log::Limiter,
    model::{self, Site},
    rng::Rng,
    schedule::Schedule,
    select::Selections,
    sink::Sink,
    stale::StaleHeap,
    state::{Device, Group, Oddities, Phase, Plugin, PluginStatus},
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
            names: BTreeMap::new(),
            system_names: Vec::new(),
            system: SystemPoints::default(),
            metadata: BTreeMap::new(),
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
        core.site = site;
        core.set_first_times();
        core.apply_switches();
        core.start_timers();
        core
    }

    fn add_device(&mut self, config: &model::Device) {
        let id = DeviceId::new(self.devices.len() as u32);
        let first = self.points.len() as u32;
        for (index, point) in config.points.iter().enumerate() {
            self.add_point(id, config, index, point);
        }
        let groups = self.add_groups(id, config, first);
        let plugin = self.plugin_named(&config.driver, PluginKind::Driver);
        if let Some(plugin) = plugin {
            self.plugins[plugin].devices.push(id);
        }
        let none = PointId::new(0);
        self.devices.push(Device {
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
            first,
            count: self.points.len() as u32 - first,
            groups,
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
    }

    fn add_point(&mut self, device: DeviceId, config: &model::Device, index: usize, point: &model::Point) {
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
            ..Point::default()
        });
        self.names.insert(format!("{}/{}", config.name, point.name), id);
    }

    /// Points with equal intervals are read together.
    fn add_groups(&mut self, device: DeviceId, config: &model::Device, first: u32) -> Vec<GroupId> {
        let mut by_interval: BTreeMap<u64, Vec<PointId>> = BTreeMap::new();
        for (point, number) in config.points.iter().zip(first..) {
            by_interval.entry(ns(point.poll_interval)).or_default().push(PointId::new(number));
        }
        let mut groups = Vec::new();
        for (interval_ns, points) in by_interval {
            let min_stale_ns =
                points.iter().map(|point| self.points[*point].stale_ns).min().unwrap_or(SECOND);
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
                min_stale_ns,
                stale_at_ns: 0,
            });
            for point in points {
                self.points[point].group = Some(group);
            }
            groups.push(group);
        }
        groups
    }

    fn add_sink(&mut self, config: &model::Sink) {
        let id = SinkId::new(self.sinks.len() as u32);
        let plugin = self.plugin_named(&config.plugin, PluginKind::Sink);
        if let Some(plugin) = plugin {
            self.plugins[plugin].sinks.push(id);
        }
        let mut sink = Sink::new(config, plugin, self.now);
        for route in &config.routes {
            if let Some(device) = self.devices.at(route.device).map(|device| &self.devices[device])
                && (route.point as u64) < u64::from(device.count)
            {
                sink.add_point(PointId::new(device.first + route.point as u32), route.map.clone());
            }
        }
        for system in &config.system {
            if let Some(point) = self.names.get(&system.name) {
                sink.add_point(*point, system.map.clone());
            }
        }
        sink.finish_points();
        for (slot, routed) in (0u32..).zip(&sink.routed) {
            let point = &mut self.points[routed.point];
            point.routes.push((id, slot));
            sink.feed.set_deadband(slot, point.deadband);
        }
        self.sinks.push(sink);
    }

    /// What operators switched before the last stop holds again.
    fn apply_switches(&mut self) {
        let switches = self.switches.clone();
        for name in &switches.blocked {
            if let Some(point) = self.names.get(name) {
                self.points[*point].block(Stamp::new(self.now.wall_ns, self.clock_synced));
            }
        }
        for (name, json) in &switches.substituted {
            if let Some(point) = self.names.get(name).copied() {
                let kind = switches.substituted_kinds.get(name).and_then(|kind| Kind::from_name(kind));
                let value = crate::operator::substitute_value(kind, json);
                self.points[point].substitute(&value, Stamp::new(self.now.wall_ns, self.clock_synced));
            }
        }
        for device in self.devices.ids() {
            let config = self.site.devices.get(device.number() as usize);
            let wanted = config.is_some_and(|config| {
                switches.maintenance.get(&config.name).copied().unwrap_or(config.maintenance)
            });
            if wanted {
                self.devices[device].phase = Phase::Maintenance;
                for point in self.point_ids(device) {
                    self.points[point].host_quality = crate::table::BLOCKED;
                }
            }
        }
    }

    fn start_timers(&mut self) {
        let now_ns = self.now.mono_ns;
        self.timers.arm(now_ns + SECOND, Timer::Housekeeping);
        for group in self.groups.ids() {
            let at = self.stale.add(now_ns + self.groups[group].min_stale_ns, group);
            self.groups[group].stale_at_ns = at;
        }
        for sink in self.sinks.ids() {
            self.arm_interval(sink);
        }
        self.start_journals();
    }

    /// Never read: no value, `invalid|comm_lost`, the host's time.
    fn set_first_times(&mut self) {
        for point in self.points.ids() {
            self.points[point].ts_ns = self.now.wall_ns;
            self.points[point].marks = Flags::GATEWAY_TIME;
        }
    }

    /// The points of a device.
    pub(crate) fn point_ids(&self, device: DeviceId) -> impl Iterator<Item = PointId> + use<> {
        let device = &self.devices[device];
        (device.first..device.first + device.count).map(PointId::new)
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
