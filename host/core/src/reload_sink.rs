//! Reload, the part of the sinks: routes change on the running stream by a difference of the point list, `settings` and
//! `map` by opening the sink anew, which goes on from its unconfirmed records.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    Core,
    arena::{Id, PointId, SinkId},
    books::Drop,
    model,
    output::LogLevel,
    reload::Touched,
    reload_diff::open_differs,
    sink::{Lasting, SinkPhase},
    state::PluginStatus,
};

impl Core {
    pub(crate) fn apply_sinks(&mut self, sinks: Vec<model::Sink>, touched: &mut Touched) {
        let wanted: HashSet<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let mut known = BTreeMap::new();
        for id in self.sink_order.clone() {
            let name = self.site.sinks.get(id.number() as usize).map(|config| config.name.clone());
            let name = name.unwrap_or_default();
            if wanted.contains(name.as_str()) {
                known.insert(name, id);
            } else {
                self.remove_sink(id, &name, touched);
            }
        }
        // All of them first: a route may name a system point of any.
        let mut returned = BTreeSet::new();
        let order: Vec<SinkId> = sinks
            .iter()
            .map(|config| match known.get(&config.name) {
                Some(id) => *id,
                None => match self.aside.sink(&config.name) {
                    Some(id) => {
                        self.sink_returns(id, &config.name);
                        returned.insert(id);
                        id
                    }
                    None => self.place_sink(config),
                },
            })
            .collect();
        touched.systems |= self.sink_order != order;
        self.sink_order.clone_from(&order);
        for (id, config) in order.into_iter().zip(sinks) {
            if returned.contains(&id) {
                self.routes_return(id);
                self.change_sink(id, config, touched);
                touched.sinks.push(id);
                self.open_anew(id);
            } else if known.contains_key(&config.name) {
                self.change_sink(id, config, touched);
            } else {
                self.begin_sink(id, config, touched);
            }
        }
    }

    fn place_sink(&mut self, config: &model::Sink) -> SinkId {
        let id = self.add_sink(config);
        self.add_sink_points(&config.name);
        self.site.sinks.push(model::Sink { name: config.name.clone(), ..model::Sink::default() });
        id
    }

    fn begin_sink(&mut self, id: SinkId, config: model::Sink, touched: &mut Touched) {
        for (point, map) in self.wanted_routes(&config) {
            self.route(id, point, map);
        }
        self.put_sink(id, config);
        self.arm_interval(id);
        self.wake_journal(id, self.now.mono_ns);
        self.start_sink(id);
        touched.sinks.push(id);
    }

    fn put_sink(&mut self, id: SinkId, config: model::Sink) {
        if let Some(place) = self.site.sinks.get_mut(id.number() as usize) {
            *place = config;
        }
    }

    /// Opens as soon as its plugin is there.
    fn start_sink(&mut self, id: SinkId) {
        let Some(plugin) = self.sinks[id].plugin else { return };
        match self.plugins[plugin].status {
            PluginStatus::Ready => self.sink_plugin_ready(id),
            PluginStatus::Failed => {
                let reason = self.plugins[plugin].reason.clone();
                self.sink_absent(id, &reason);
            }
            PluginStatus::Declared | PluginStatus::Retired => self.sinks[id].phase = SinkPhase::Closed,
        }
    }

    fn remove_sink(&mut self, id: SinkId, name: &str, touched: &mut Touched) {
        let routed: Vec<PointId> = self.sinks[id].live().map(|(_, routed)| routed.point).collect();
        for point in routed {
            self.points[point].routes.retain(|(sink, _)| *sink != id);
        }
        self.sinks[id].gone = true;
        self.stop_sink_for(id, "removed from the configuration");
        let on_disk = self.sinks[id].journal.is_some();
        self.sinks[id].closing_ns = self.now.mono_ns;
        // What waits in memory is given up when the configuration is accepted.
        let kept = !on_disk && self.aside.keep_sink(id, name);
        let left = if on_disk { self.sinks[id].pending() } else { 0 };
        if left > 0 {
            touched.notes.push(format!(
                "sink {name}: {left} records were not delivered; they stay in its queue file and go out when a sink of this name comes back"
            ));
        }
        if !on_disk && !kept {
            self.sinks[id].drop_all();
        }
        self.mark_sink(id);
        for point in self.points_of_sink(id) {
            self.retire_point(point);
        }
        if let Some(plugin) = self.sinks[id].plugin {
            self.plugins[plugin].sinks.retain(|other| *other != id);
        }
        if !on_disk && !kept {
            self.put_sink(id, model::Sink::default());
        }
    }

    fn change_sink(&mut self, id: SinkId, mut new: model::Sink, touched: &mut Touched) {
        let same = self.site.sinks.get(id.number() as usize) == Some(&new);
        if same && !touched.moved && !touched.systems {
            return self.tell_difference(id, &[], &touched.points);
        }
        let old = self.site.sinks.get(id.number() as usize).cloned().unwrap_or_default();
        if old.queue.on_disk != new.queue.on_disk {
            // A queue does not change its form while it holds records.
            new.queue.on_disk = old.queue.on_disk;
            touched
                .notes
                .push(format!("sink {}: its queue changes between memory and disk at a restart", old.name));
        }
        let (added, mapped) = self.change_routes(id, &new);
        self.change_rules(id, &old, &new);
        if old.plugin != new.plugin {
            self.change_plugin(id, &new);
        }
        let reopen = mapped || open_differs(&old, &new);
        self.put_sink(id, new);
        if reopen {
            touched.sinks.push(id);
            return self.open_anew(id);
        }
        self.tell_difference(id, &added, &touched.points);
    }

    /// What applies in place.
    fn change_rules(&mut self, id: SinkId, old: &model::Sink, new: &model::Sink) {
        if old.queue != new.queue && self.aside.keeping {
            // What tighter bounds would drop could not come back.
            self.aside.limits.insert(id);
        } else {
            self.sinks[id].limits = new.queue;
        }
        let state = &mut self.sinks[id];
        state.commands = new.commands;
        let rule = |sink: &model::Sink| (sink.send, sink.timestamp, sink.history, sink.max_silence);
        if rule(old) != rule(new) {
            state.feed.set_rule(new);
            self.arm_interval(id);
        }
    }

    fn change_plugin(&mut self, id: SinkId, new: &model::Sink) {
        if let Some(plugin) = self.sinks[id].plugin {
            self.plugins[plugin].sinks.retain(|other| *other != id);
        }
        let plugin = self.plugin_named(&new.plugin, model::PluginKind::Sink);
        self.sinks[id].plugin = plugin;
        self.sinks[id].ran = false;
        if let Some(plugin) = plugin {
            self.plugins[plugin].sinks.push(id);
        }
    }

    /// Slots that are new, and whether the map entries of a point that stays are others.
    fn change_routes(&mut self, id: SinkId, new: &model::Sink) -> (Vec<u32>, bool) {
        let wanted = self.wanted_routes(new);
        let mut points = vec![false; self.points.len()];
        for (point, _) in &wanted {
            if let Some(here) = points.get_mut(point.number() as usize) {
                *here = true;
            }
        }
        let ended: Vec<(u32, PointId)> = self.sinks[id]
            .live()
            .filter(|(_, routed)| points.get(routed.point.number() as usize) != Some(&true))
            .map(|(slot, routed)| (slot, routed.point))
            .collect();
        for (slot, point) in ended {
            self.points[point].routes.retain(|(sink, _)| *sink != id);
            self.unroute(id, slot);
        }
        let (mut added, mut mapped) = (Vec::new(), false);
        for (point, map) in wanted {
            let slot = self.sinks[id].slot_of.get(&point.number()).copied();
            let routed = slot.and_then(|slot| self.sinks[id].routed.get_mut(slot as usize));
            match (slot, routed) {
                (Some(_), Some(routed)) if routed.lasting == Lasting::Live => {
                    mapped |= routed.map != map;
                    routed.map = map;
                }
                (Some(slot), Some(routed)) => {
                    // It was leaving and comes back.
                    (routed.lasting, routed.map) = (Lasting::Live, map);
                    self.sinks[id].leaving.remove(&slot);
                    self.points[point].routes.push((id, slot));
                    added.push(slot);
                }
                _ => {
                    self.route(id, point, map);
                    added.extend(self.sinks[id].slot_of.get(&point.number()).copied());
                }
            }
        }
        (added, mapped)
    }

    /// The plugin has a point list to which a difference can be told.
    fn has_list(&self, id: SinkId) -> bool {
        let phase = self.sinks[id].phase;
        matches!(phase, SinkPhase::Points | SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up)
    }

    /// New points, and points in other words; then what the table shows of the new ones. What left is told when nothing of
    /// it waits any more.
    fn tell_difference(&mut self, id: SinkId, added: &[u32], changed: &[PointId]) {
        let slot_of = &self.sinks[id].slot_of;
        let changed = changed.iter().filter_map(|point| slot_of.get(&point.number()).copied());
        let mut slots: Vec<u32> = added.iter().copied().chain(changed).collect();
        slots.sort_unstable();
        slots.dedup();
        if self.has_list(id) && !slots.is_empty() {
            let points = slots.into_iter().filter_map(|slot| self.sink_point(id, slot)).collect();
            let instance = self.sinks[id].instance;
            self.tell_sink_points(instance, points, Vec::new());
        }
        if self.sinks[id].is_up() && !added.is_empty() {
            if self.sinks[id].journal.is_some() {
                // In their turn, behind the backlog.
                self.sinks[id].echo.extend(added);
            } else {
                for slot in added {
                    self.send_state(id, *slot, busbar_contract::batch::SNAPSHOT as u8);
                }
            }
            self.sinks[id].queue.end_of_poll();
            self.mark_sink(id);
        }
        self.settle_leaving(id);
    }

    /// Points that leave and of which nothing waits any more are gone.
    pub(crate) fn settle_leaving(&mut self, id: SinkId) {
        let mut removed = self.gone_slots(id);
        removed.extend(self.gone_ghosts(id));
        let instance = self.sinks[id].instance;
        if !removed.is_empty() && self.has_list(id) {
            self.tell_sink_points(instance, Vec::new(), removed);
        }
    }

    /// Points of another time of which nothing waits any more, in memory or in the file.
    fn gone_ghosts(&mut self, id: SinkId) -> Vec<u32> {
        let state = &mut self.sinks[id];
        if state.ghosts.is_empty() || state.announcing > 0 || !state.is_whole() {
            return Vec::new();
        }
        let ghosts: BTreeSet<u32> = state.ghosts.keys().copied().collect();
        let mut waits = state.queue.waits_for(&ghosts);
        if let Some(journal) = &mut state.journal {
            waits.extend(journal.kept().map(|(_, record)| record.sample.point));
            journal.dictionary.clear();
        }
        let gone: Vec<u32> = ghosts.difference(&waits).copied().collect();
        for ghost in &gone {
            state.ghosts.remove(ghost);
        }
        gone
    }

    fn gone_slots(&mut self, id: SinkId) -> Vec<u32> {
        let state = &mut self.sinks[id];
        if state.leaving.is_empty() || self.aside.keeping {
            return Vec::new();
        }
        let number =
            |slot: &u32| state.routed.get(*slot as usize).map_or(u32::MAX, |routed| routed.point.number());
        let points: BTreeSet<u32> = state.leaving.iter().map(number).collect();
        let mut waits = state.queue.waits_for(&points);
        waits.extend(state.slots.waits_for(&points));
        let done: Vec<u32> =
            state.leaving.iter().copied().filter(|slot| !waits.contains(&number(slot))).collect();
        let mut removed = Vec::with_capacity(done.len());
        for slot in done {
            state.leaving.remove(&slot);
            if let Some(routed) = state.routed.get_mut(slot as usize) {
                routed.lasting = Lasting::Gone;
                state.slot_of.remove(&routed.point.number());
                removed.push(routed.point.number());
            }
        }
        removed
    }

    /// The sink is opened with its new configuration, without a pause.
    fn open_anew(&mut self, id: SinkId) {
        let state = &mut self.sinks[id];
        state.reopen = true;
        match state.phase {
            SinkPhase::Closed | SinkPhase::Failed => {
                state.wake_ns = 0;
                self.start_sink(id);
            }
            // It fails no more when it has stopped.
            SinkPhase::Stopping if state.zombies == u32::MAX => state.zombies = 0,
            SinkPhase::Stopping => {}
            _ => {
                self.stop_sink_for(id, "its configuration was changed; it is opened again");
            }
        }
        let name = self.site.sinks.get(id.number() as usize).map(|config| config.name.clone());
        let fields = vec![("sink", name.unwrap_or_default())];
        self.log(
            LogLevel::Info,
            ("reopen", u64::from(id.number())),
            fields,
            "opened with a new configuration",
        );
    }
}

impl crate::sink::Sink {
    /// Everything that waits is given up, counted; returns how much that was.
    pub(crate) fn drop_all(&mut self) -> u64 {
        let left = self.pending();
        while let Some((number, _)) = self.queue.oldest() {
            self.give_up(number, Drop::Removed);
        }
        while let Some(record) = self.slots.pop() {
            self.books.dropped(Drop::Removed);
            self.lost(record.sample.point, record.commit);
        }
        left
    }
}
