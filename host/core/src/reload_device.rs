//! Reload, the part of the devices: what applies in place, by BIND, or by attaching the device anew; what goes and comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use busbar_contract::{Answer, Endpoint, Reason, Request, request::OfDevice};
use serde_json::Value as Json;

use crate::{
    Core,
    arena::{ChannelId, DeviceId, GroupId, Id, PointId, SinkId},
    convert::Conversion,
    hours::Hours,
    model::{Device, Point},
    reload::Touched,
    reload_diff::{attach_differs, same_point},
    schedule::Due,
    state::{ChannelPhase, CommandPhase, Deed, Pending, Phase, PluginStatus, Work},
    table,
    time::{MS, SECOND, ns},
};

/// Time limit of DETACH.
const DETACH_MS: u64 = 5 * SECOND / MS;
const CHANGED: &str = "the configuration was changed";

type Endpoints = BTreeMap<String, Result<Endpoint, String>>;

impl Core {
    pub(crate) fn apply_devices(
        &mut self,
        devices: Vec<Device>,
        endpoints: &Endpoints,
        touched: &mut Touched,
    ) {
        let drivers: HashMap<&str, &str> =
            devices.iter().map(|device| (device.name.as_str(), device.driver.as_str())).collect();
        let mut known = HashMap::new();
        for id in self.order.clone() {
            let Some(config) = self.site.devices.get(id.number() as usize) else { continue };
            if drivers.get(config.name.as_str()) == Some(&config.driver.as_str()) {
                known.insert(config.name.clone(), id);
            } else {
                self.remove_device(id, touched);
            }
        }
        let mut order = Vec::with_capacity(devices.len());
        for config in devices {
            let endpoint = endpoints.get(&config.name);
            let id = match known.get(&config.name) {
                Some(id) => {
                    self.change_device(*id, config, endpoint, touched);
                    *id
                }
                None => match self.aside.device(&config) {
                    Some(id) => {
                        self.device_returns(id, config, endpoint, touched);
                        id
                    }
                    None => self.new_device(config, endpoint, touched),
                },
            };
            order.push(id);
        }
        touched.moved |= self.order != order;
        self.order = order;
    }

    fn new_device(
        &mut self,
        config: Device,
        endpoint: Option<&Result<Endpoint, String>>,
        touched: &mut Touched,
    ) -> DeviceId {
        let id = self.add_device(&config);
        self.add_device_points(id, &config.name);
        let name = config.name.clone();
        self.site.devices.push(config);
        for group in self.devices[id].groups.clone() {
            self.watch_group(group);
        }
        for point in self.point_ids(id) {
            let name = self.full_name(point);
            self.cover_again(&name, point);
        }
        self.first_switches(id);
        self.join(id, endpoint, touched);
        touched.devices.push(id);
        self.log(
            crate::output::LogLevel::Info,
            ("added", u64::from(id.number())),
            vec![("device", name)],
            "added to the configuration",
        );
        id
    }

    /// The device gets the channel of its endpoint, or learns why it cannot.
    pub(crate) fn join(
        &mut self,
        id: DeviceId,
        endpoint: Option<&Result<Endpoint, String>>,
        touched: &mut Touched,
    ) {
        touched.attached.insert(id);
        let Some(plugin) = self.devices[id].plugin else { return };
        match (self.plugins[plugin].status, endpoint) {
            // PLUGIN READY brings it.
            (PluginStatus::Declared | PluginStatus::Retired, _) => {}
            (PluginStatus::Failed, _) => {
                let reason = self.plugins[plugin].reason.clone();
                self.fail_device(id, &reason);
            }
            (PluginStatus::Ready, Some(Ok(endpoint))) => {
                let specs = &mut self.plugins[plugin].specs;
                specs.retain(|(of, _)| *of != id.number() as usize);
                specs.push((id.number() as usize, Ok(endpoint.clone())));
                self.join_endpoint(plugin, id, endpoint);
                touched.channels.extend(self.devices[id].channel);
            }
            (PluginStatus::Ready, Some(Err(reason))) => self.fail_device(id, reason),
            (PluginStatus::Ready, None) => {
                self.fail_device(id, "the plugin named no endpoint for this connection");
            }
        }
    }

    /// The device leaves its endpoint; what is asked of it ends.
    fn leave(&mut self, id: DeviceId, touched: &mut Touched) {
        let Some(channel) = self.devices[id].channel.take() else { return };
        let instance = self.channels[channel].instance;
        let attaching = |pending: &Pending| {
            pending.device == Some(id) && pending.instance == instance && pending.work == Work::Attach
        };
        if self.devices[id].attached || self.requests.values().any(attaching) {
            self.detach(channel, id);
        }
        self.devices[id].attached = false;
        self.devices[id].bound = false;
        self.channels[channel].devices.retain(|other| *other != id);
        touched.channels.insert(channel);
    }

    fn detach(&mut self, channel: ChannelId, id: DeviceId) {
        let body = OfDevice { device: Some(id.number()), deadline_ms: DETACH_MS };
        self.devices[id].detached = self.next_request;
        self.tell(self.channels[channel].instance, 0, Request::Detach(body));
    }

    fn remove_device(&mut self, id: DeviceId, touched: &mut Touched) {
        let phase = self.devices[id].phase;
        self.end_session(id, phase);
        self.set_online(id, false);
        self.leave(id, touched);
        let state = &mut self.devices[id];
        (state.gone, state.phase, state.hours, state.keep_ns) = (true, Phase::Failed, None, 0);
        let system = [state.online_point, state.gap_point, state.latency_point];
        let (points, groups) = (std::mem::take(&mut state.points), std::mem::take(&mut state.groups));
        for point in points.into_iter().chain(system) {
            self.retire_point(point);
        }
        for group in groups {
            (self.groups[group].gone, self.groups[group].points) = (true, Vec::new());
        }
        if let Some(plugin) = self.devices[id].plugin {
            self.plugins[plugin].devices.retain(|other| *other != id);
            self.plugins[plugin].specs.retain(|(of, _)| *of != id.number() as usize);
            self.plugins[plugin].reported.retain(|(device, _), _| *device != id.number());
        }
        if let Some(config) = self.site.devices.get_mut(id.number() as usize) {
            let config = std::mem::take(config);
            self.aside.keep_device(id, &config);
        }
    }

    /// A point leaves the configuration: its number is never used again, its name stays known while something waits.
    pub(crate) fn retire_point(&mut self, id: PointId) {
        let (device, name) = self.name_parts(id);
        let (device, name) = (device.to_owned(), name.to_owned());
        let routes = std::mem::take(&mut self.points[id].routes);
        for (sink, slot) in routes {
            self.unroute(sink, slot);
        }
        self.end_selection(id, CHANGED);
        let full = format!("{device}/{name}");
        if self.names.get(&full) == Some(&id) {
            self.names.remove(&full);
        }
        self.fixed_names.insert(id, (device, name));
        self.take_point(id, full);
    }

    fn change_device(
        &mut self,
        id: DeviceId,
        new: Device,
        endpoint: Option<&Result<Endpoint, String>>,
        touched: &mut Touched,
    ) {
        let place = self.site.devices.get_mut(id.number() as usize);
        // A copy of every device of a large site would cost more than all the rest.
        let Some(old) = place.filter(|old| **old != new).map(|old| old.clone()) else { return };
        let switches = |device: &Device| (device.enabled, device.maintenance, device.paused);
        let switched = switches(&old) != switches(&new) || old.active != new.active;
        let (attach, integrity) = (attach_differs(&old, &new), old.integrity != new.integrity);
        self.overrule_switches(&old, &new, touched);
        if old.active != new.active {
            self.devices[id].hours = new.active.as_ref().map(Hours::new);
        }
        if old.frame_log != new.frame_log {
            self.devices[id].frame_log = new.frame_log;
            self.tell_frame_log(id);
        }
        if old.blocks != new.blocks {
            self.end_waiting_blocks(id);
        }
        let (new_groups, mut bind) = self.change_points(id, &old, new, touched);
        bind |= integrity && self.has_subscription(id);
        if attach {
            self.attach_anew(id, endpoint, touched);
        } else if bind {
            self.bind_anew(id, &new_groups);
        }
        if attach || bind || switched {
            touched.devices.push(id);
        }
        self.judge_switches(id);
    }

    /// The points of the device become those of `new`; returns the new groups, and whether the driver must be told.
    fn change_points(
        &mut self,
        id: DeviceId,
        old: &Device,
        new: Device,
        touched: &mut Touched,
    ) -> (Vec<GroupId>, bool) {
        let before: HashMap<&str, (PointId, &Point)> = old
            .points
            .iter()
            .zip(&self.devices[id].points)
            .map(|(point, number)| (point.name.as_str(), (*number, point)))
            .collect();
        let kept: Vec<Option<(PointId, &Point)>> = new
            .points
            .iter()
            .map(|point| {
                before.get(point.name.as_str()).copied().filter(|(_, known)| same_point(known, point))
            })
            .collect();
        let stays: BTreeSet<PointId> = kept.iter().flatten().map(|(number, _)| *number).collect();
        let leaves: Vec<PointId> =
            self.devices[id].points.iter().copied().filter(|point| !stays.contains(point)).collect();
        self.end_what_uses(id, &leaves);
        for point in &leaves {
            self.retire_point(*point);
        }
        let mut bind = !leaves.is_empty();
        let online = self.devices[id].phase == Phase::Online;
        let mut points = Vec::with_capacity(new.points.len());
        for (index, (point, known)) in new.points.iter().zip(kept).enumerate() {
            match known {
                Some((number, known)) => {
                    bind |= known.writable != point.writable;
                    self.change_point(number, index, known, point, touched);
                    points.push(number);
                }
                None => {
                    let full = format!("{}/{}", new.name, point.name);
                    let number = self.point_returns(&full, index).unwrap_or_else(|| {
                        let number = self.add_point(id, &new, index, point);
                        self.points[number].added = online;
                        number
                    });
                    points.push(number);
                    bind = true;
                }
            }
        }
        touched.moved |= self.devices[id].points != points;
        self.devices[id].points = points;
        if let Some(config) = self.site.devices.get_mut(id.number() as usize) {
            *config = new;
        }
        let groups = self.regroup(id);
        for point in self.point_ids(id).filter(|point| !stays.contains(point)).collect::<Vec<_>>() {
            let name = self.full_name(point);
            self.cover_again(&name, point);
            if self.devices[id].off != crate::state::Off::No || self.devices[id].paused {
                self.points[point].host_quality = table::BLOCKED;
            }
        }
        (groups.clone(), bind || !groups.is_empty())
    }

    /// Groups by interval; reads that wait for a group that is no more are forgotten.
    fn regroup(&mut self, id: DeviceId) -> Vec<GroupId> {
        let Some(config) = self.site.devices.get_mut(id.number() as usize).map(std::mem::take) else {
            return Vec::new();
        };
        let new = self.group_points(id, &config);
        if let Some(place) = self.site.devices.get_mut(id.number() as usize) {
            *place = config;
        }
        for group in &new {
            self.watch_group(*group);
        }
        for group in self.devices[id].groups.clone() {
            self.rearm_stale(group);
        }
        if let Some(channel) = self.devices[id].channel {
            let groups = &self.groups;
            self.endpoints[self.channels[channel].endpoint]
                .queue
                .retain(|queued| !matches!(queued.work, Work::Read { group, .. } if groups[group].gone));
        }
        let groups = &self.groups;
        let stranded: Vec<u64> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.groups.iter().any(|group| groups[*group].gone))
            .map(|(fetch, _)| *fetch)
            .collect();
        for fetch in stranded {
            self.fetch_failed(fetch, CHANGED);
        }
        new
    }

    /// Keys of the host, in place.
    fn change_point(&mut self, id: PointId, index: usize, old: &Point, new: &Point, touched: &mut Touched) {
        let point = &mut self.points[id];
        point.index = index;
        if old == new {
            return;
        }
        point.conversion = Conversion::new(new);
        point.event = new.event;
        point.writable = new.writable;
        point.deadband = new.deadband;
        if !point.subscribed {
            point.stale_ns = ns(new.stale_after);
            point.invalid_ns = ns(new.invalid_after).max(ns(new.stale_after));
        }
        for (sink, slot) in &point.routes {
            self.sinks[*sink].feed.set_deadband(*slot, new.deadband);
        }
        if old.metadata != new.metadata
            && let Some(learned) = self.metadata.get_mut(&id)
        {
            *learned = self.pool.share(relearned(learned, &old.metadata, &new.metadata));
        }
        if old.unit != new.unit {
            self.name_changed(id);
        }
        if old.metadata != new.metadata || old.unit != new.unit || old.writable != new.writable {
            touched.points.push(id);
        }
    }

    /// Commands and fresh reads of points that go are answered now.
    fn end_what_uses(&mut self, id: DeviceId, leaves: &[PointId]) {
        let leaves: BTreeSet<PointId> = leaves.iter().copied().collect();
        let commands: Vec<u64> = self
            .commands
            .iter()
            .filter(|(_, command)| command.points.iter().any(|point| leaves.contains(point)))
            .map(|(command, _)| *command)
            .collect();
        for command in commands {
            self.end_changed(command);
        }
        let fetches: Vec<u64> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| {
                fetch.device == id && fetch.points.iter().any(|point| leaves.contains(point))
            })
            .map(|(fetch, _)| *fetch)
            .collect();
        for fetch in fetches {
            self.fetch_failed(fetch, CHANGED);
        }
    }

    /// Block writes that have not left name their block by its place in a list that changes.
    fn end_waiting_blocks(&mut self, id: DeviceId) {
        let waiting: Vec<u64> = self
            .commands
            .iter()
            .filter(|(_, command)| {
                command.device == id
                    && matches!(command.deed, Deed::Block { .. })
                    && command.phase != CommandPhase::Submitted
            })
            .map(|(command, _)| *command)
            .collect();
        for command in waiting {
            self.end_changed(command);
        }
    }

    fn end_changed(&mut self, command: u64) {
        let left = self.commands.get(&command).is_some_and(|state| state.phase == CommandPhase::Submitted);
        let answer = if left {
            Answer::unknown(Reason::Handover, CHANGED)
        } else {
            Answer::refused(Reason::Handover, CHANGED)
        };
        self.end_command(command, answer);
    }

    /// Another connection, or what the driver learns with ATTACH.
    fn attach_anew(
        &mut self,
        id: DeviceId,
        endpoint: Option<&Result<Endpoint, String>>,
        touched: &mut Touched,
    ) {
        self.devices[id].keep_ns = 0;
        self.lose_device(id, "its connection was changed");
        self.leave(id, touched);
        let state = &mut self.devices[id];
        state.attempts = 0;
        state.wake_ns = 0;
        state.can_probe = true;
        state.rebinding = false;
        if state.phase != Phase::Maintenance {
            state.phase = Phase::Idle;
        }
        self.join(id, endpoint, touched);
    }

    /// Other points or groups: BIND, on the living session where there is one.
    fn bind_anew(&mut self, id: DeviceId, new_groups: &[GroupId]) {
        let phase = self.devices[id].phase;
        match phase {
            Phase::Online | Phase::Paused => {
                self.devices[id].rebinding = true;
                self.ask(id, Work::Bind);
                if phase == Phase::Online {
                    self.begin_groups(id, new_groups);
                }
            }
            Phase::Maintenance | Phase::Idle | Phase::Backoff | Phase::Attaching => {
                self.devices[id].bound = false;
            }
            Phase::Failed => self.try_failed(id),
            Phase::Binding | Phase::Connecting | Phase::WaitTurn | Phase::Subscribing | Phase::Resync => {
                self.end_session(id, phase);
                self.devices[id].bound = false;
                let quality = self.away_quality(id);
                self.invalidate(id, quality);
                self.advance(id);
            }
        }
    }

    /// What made it fail may be gone with the old configuration.
    fn try_failed(&mut self, id: DeviceId) {
        let plugin = self.devices[id].plugin;
        if plugin.is_none_or(|plugin| self.plugins[plugin].status != PluginStatus::Ready) {
            return;
        }
        let state = &mut self.devices[id];
        (state.phase, state.attempts, state.bound) = (Phase::Idle, 0, false);
        state.reason.clear();
        match state.channel.map(|channel| (channel, self.channels[channel].phase)) {
            Some((_, ChannelPhase::Open)) => self.advance(id),
            Some((channel, ChannelPhase::Closed)) => self.open_channel(channel),
            _ => {}
        }
    }

    /// New groups of a device that is online are read at once, behind the BIND, and then in their turn.
    fn begin_groups(&mut self, id: DeviceId, groups: &[GroupId]) {
        let session = self.devices[id].session;
        for group in groups.iter().copied() {
            self.read_now(group);
            let at_ns = self.next_due(group);
            self.schedule.add(Due { group, session, at_ns });
        }
    }

    pub(crate) fn has_subscription(&self, id: DeviceId) -> bool {
        self.devices[id].points.iter().any(|point| self.points[*point].subscribed)
    }

    /// BIND on a living session was answered: a device that reports by itself is asked for its new points too. The session
    /// stays, what was read stays read, a new SUBSCRIBE takes the place of the old one.
    pub(crate) fn bound_anew(&mut self, id: DeviceId) {
        if !std::mem::take(&mut self.devices[id].rebinding) || !self.has_subscription(id) {
            return;
        }
        let Some(plugin) = self.devices[id].plugin.filter(|_| self.is_online(id)) else { return };
        let before = self.devices[id].session;
        let session = before.wrapping_add(1);
        let mut open = 0;
        for point in self.point_ids(id) {
            let state = &mut self.points[point];
            if state.session == before {
                state.session = session;
            } else {
                open += 1;
            }
        }
        self.forget_reads(id);
        if let Some(channel) = self.devices[id].channel {
            let endpoint = &mut self.endpoints[self.channels[channel].endpoint];
            let read = |work: &Work| matches!(work, Work::Read { .. } | Work::Probe);
            endpoint.queue.retain(|queued| queued.device != id || !read(&queued.work));
            for queued in endpoint.commands.iter_mut().chain(&mut endpoint.queue) {
                if queued.device == id {
                    queued.session = session;
                }
            }
        }
        let state = &mut self.devices[id];
        (state.session, state.unanswered, state.probing) = (session, open, false);
        state.phase = Phase::WaitTurn;
        self.plugins[plugin].waiting.push(id);
        self.next_resync(plugin);
    }

    /// The sink gets the point no more; what waits of it is still delivered under its name.
    pub(crate) fn unroute(&mut self, sink: SinkId, slot: u32) {
        let Some(said) = self.sink_point(sink, slot) else { return };
        if let Some(point) = self.points.find(said.point).filter(|_| self.sinks[sink].journal.is_some()) {
            // What waits on disk goes on under the name of its time.
            if !self.sinks[sink].queue.waits_for(&[said.point].into()).is_empty() {
                self.point_leaves(sink, point);
            } else if let Some(journal) = &mut self.sinks[sink].journal {
                journal.dictionary.clear();
            }
        }
        let state = &mut self.sinks[sink];
        state.echo.remove(&slot);
        state.feed.forget(slot);
        if let Some(routed) = state.routed.get_mut(slot as usize) {
            routed.lasting = crate::sink::Lasting::Leaving(Box::new(said));
            routed.map = Vec::new();
            state.leaving.insert(slot);
        }
    }
}

/// What the device said, under what is configured now instead of what was.
fn relearned(learned: &Json, old: &Json, new: &Json) -> Json {
    let mut learned = learned.clone();
    let Json::Object(facts) = &mut learned else { return learned };
    if let Json::Object(old) = old {
        facts.retain(|key, _| !old.contains_key(key));
    }
    if let Json::Object(new) = new {
        facts.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    learned
}
