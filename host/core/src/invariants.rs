//! What must hold after every step, whatever happened: checked by the simulation, cheap enough to ask at run time.

use crate::{
    Core,
    arena::{Id, SinkId},
    state::CommandPhase,
};

/// Entries of the timer heaps per thing that can wait (G9).
const TIMERS_PER_THING: usize = 64;

impl Core {
    /// The internal books agree; the error names the first that does not.
    pub fn check_invariants(&self) -> Result<(), String> {
        for sink in self.sinks.ids() {
            let ledger = self.ledger(sink);
            if !ledger.is_balanced() {
                return Err(format!("G7: ledger of sink {} does not balance: {ledger:?}", sink.number()));
            }
            let state = &self.sinks[sink];
            if !state.queue.is_consistent() || !state.slots.is_consistent() {
                return Err(format!("queue of sink {} is not consistent", sink.number()));
            }
            self.check_journal(sink)?;
            let bytes = state.queue.bytes() + state.slots.event_bytes();
            if state.journal.is_none() && bytes > state.limits.max_bytes + (64 << 10) {
                return Err(format!("G9: sink {} holds {bytes} bytes", sink.number()));
            }
            if state.queue.in_flight() > state.limits.in_flight.max(1) {
                return Err(format!(
                    "G9: sink {} has {} records in flight",
                    sink.number(),
                    state.queue.in_flight()
                ));
            }
        }
        self.check_requests()?;
        self.check_places()?;
        self.check_routes()?;
        self.check_devices()?;
        self.check_commands()?;
        self.check_timers()
    }

    /// G7 of a queue on disk: what is in memory, on its way and on disk is one ledger, and memory is bounded.
    fn check_journal(&self, sink: SinkId) -> Result<(), String> {
        let state = &self.sinks[sink];
        let Some(journal) = &state.journal else { return Ok(()) };
        if !journal.is_consistent() {
            return Err(format!("G7: journal of sink {} is not consistent: {journal:?}", sink.number()));
        }
        let (here, pending) = (state.queue.pending_real() as u64, journal.pending());
        if state.is_whole() && here != pending {
            let text = format!("G7: sink {} holds {here} records, {pending} are pending", sink.number());
            return Err(text);
        }
        if here > pending {
            return Err(format!("G7: sink {} holds {here} records of {pending}", sink.number()));
        }
        let fresh = state.queue.open_from(journal.told()).count();
        if fresh != journal.fresh {
            return Err(format!(
                "G7: sink {} counts {} unwritten records of {fresh}",
                sink.number(),
                journal.fresh
            ));
        }
        let most = state.limits.most_in_memory() + state.limits.window + 300;
        // What waited for a file that could not be opened is in memory until the first transaction is on disk.
        let adopted = journal.opened_at.is_some_and(|first| journal.committed > first);
        if adopted && state.queue.len() > 2 * most {
            return Err(format!("G9: sink {} holds {} records in memory", sink.number(), state.queue.len()));
        }
        Ok(())
    }

    /// R4 bookkeeping: every open request belongs to an instance, every turn to a request.
    fn check_requests(&self) -> Result<(), String> {
        let mut listed = 0;
        for (number, instance) in &self.instances {
            listed += instance.pending.len();
            if instance
                .pending
                .iter()
                .any(|request| self.requests.get(request).is_none_or(|pending| pending.instance != *number))
            {
                return Err(format!("R4: instance {number} lists a request that is not open"));
            }
        }
        if listed != self.requests.len() {
            return Err(format!("R4: {} requests are open, {listed} are listed", self.requests.len()));
        }
        for (id, endpoint) in self.endpoints.iter() {
            let turns = self.requests.values().filter(|pending| pending.endpoint == Some(id)).count();
            // A second plugin may have lowered `parallel` while more was on its way: not checked here.
            if turns != endpoint.in_flight as usize {
                return Err(format!(
                    "R4: endpoint {} counts {} turns, {turns} are taken",
                    endpoint.key, endpoint.in_flight
                ));
            }
            let devices: usize =
                endpoint.channels.iter().map(|channel| self.channels[*channel].devices.len()).sum();
            let groups: usize = endpoint
                .channels
                .iter()
                .flat_map(|channel| &self.channels[*channel].devices)
                .map(|device| self.devices[*device].groups.len())
                .sum();
            let bound = 8 * devices
                + 2 * groups
                + self.commands.len()
                + self.fetches.len()
                + self.selections.len()
                + 64;
            if endpoint.queue.len() + endpoint.commands.len() > bound {
                return Err(format!(
                    "G9: endpoint {} queues {} requests",
                    endpoint.key,
                    endpoint.queue.len()
                ));
            }
        }
        Ok(())
    }

    /// Every number has its place in the configuration; what is gone is in no order and no name leads to it.
    fn check_places(&self) -> Result<(), String> {
        let places = (self.site.plugins.len(), self.site.devices.len(), self.site.sinks.len());
        let parts = (self.plugins.len(), self.devices.len(), self.sinks.len());
        if places.0 > parts.0 || places.1 != parts.1 || places.2 != parts.2 {
            return Err(format!("reload: {parts:?} parts have {places:?} places"));
        }
        let live = self.devices.values().filter(|device| !device.gone).count();
        if self.order.len() != live || self.order.iter().any(|device| self.devices[*device].gone) {
            return Err("reload: the order of devices is not the devices there are".into());
        }
        let live = self.sinks.values().filter(|sink| !sink.gone).count();
        if self.sink_order.len() != live || self.sink_order.iter().any(|sink| self.sinks[*sink].gone) {
            return Err("reload: the order of sinks is not the sinks there are".into());
        }
        for (name, id) in &self.names {
            if self.points[*id].gone || self.full_name(*id) != *name {
                return Err(format!("reload: {name} leads to point {}, which is another", id.number()));
            }
        }
        let live = self.points.values().filter(|point| !point.gone).count();
        if live != self.names.len() {
            return Err(format!("reload: {live} points have {} names", self.names.len()));
        }
        for device in &self.order {
            for (index, id) in self.devices[*device].points.iter().enumerate() {
                let point = &self.points[*id];
                let grouped = point
                    .group
                    .is_some_and(|group| !self.groups[group].gone && self.groups[group].points.contains(id));
                if point.device != Some(*device) || point.index != index || !grouped {
                    return Err(format!("reload: point {} is not where it belongs", id.number()));
                }
            }
        }
        Ok(())
    }

    /// Routes of points and lists of sinks say the same.
    fn check_routes(&self) -> Result<(), String> {
        use crate::sink::Lasting;
        let mut routes = 0;
        for sink in self.sinks.ids() {
            let state = &self.sinks[sink];
            for (slot, routed) in (0u32..).zip(&state.routed) {
                let listed = state.slot_of.get(&routed.point.number()) == Some(&slot);
                let routed_here = self.points[routed.point].routes.contains(&(sink, slot));
                let fits = match routed.lasting {
                    _ if state.gone => !routed_here,
                    Lasting::Live => listed && routed_here && !state.leaving.contains(&slot),
                    Lasting::Leaving(_) => listed && !routed_here && state.leaving.contains(&slot),
                    Lasting::Gone => !listed && !routed_here && !state.leaving.contains(&slot),
                };
                if !fits {
                    let number = routed.point.number();
                    return Err(format!("reload: sink {} and point {number} disagree", sink.number()));
                }
                routes += usize::from(routed.lasting == Lasting::Live && !state.gone);
            }
        }
        let known: usize = self.points.values().map(|point| point.routes.len()).sum();
        if known != routes {
            return Err(format!("reload: points have {known} routes, sinks list {routes}"));
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), String> {
        for plugin in self.plugins.values() {
            let resyncing = plugin
                .devices
                .iter()
                .filter(|device| {
                    use crate::state::Phase::{Resync, Subscribing};
                    matches!(self.devices[**device].phase, Resync | Subscribing)
                })
                .count();
            if resyncing != plugin.resyncing as usize {
                return Err(format!(
                    "plugin {} counts {} resyncs, {resyncing} run",
                    plugin.name, plugin.resyncing
                ));
            }
        }
        for device in self.order.iter().copied() {
            let state = &self.devices[device];
            let lost = !state.phase.has_session() && state.keep_ns == 0;
            for point in self.point_ids(device) {
                let point = &self.points[point];
                let marked = point.is_lost()
                    || point.host_quality.contains(busbar_contract::Quality::OPERATOR_BLOCKED);
                if lost && !marked {
                    return Err(format!(
                        "G1: a point of device {} is not marked, phase {:?}",
                        device.number(),
                        state.phase
                    ));
                }
                if self.is_online(device) && point.is_lost() && !point.added {
                    return Err(format!("G2: device {} is online with a point not read", device.number()));
                }
            }
        }
        Ok(())
    }

    fn check_commands(&self) -> Result<(), String> {
        for (id, command) in &self.commands {
            if command.points.iter().any(|point| self.busy.get(point) != Some(id)) {
                return Err(format!("command {id} does not hold its points"));
            }
            let auditing = self.audits.contains_key(id);
            if auditing != (command.phase == CommandPhase::Auditing) {
                return Err(format!(
                    "G8: command {id} is {:?} and its audit line is open: {auditing}",
                    command.phase
                ));
            }
        }
        if self.busy.values().any(|id| !self.commands.contains_key(id)) {
            return Err("a point is busy without a command".into());
        }
        Ok(())
    }

    fn check_timers(&self) -> Result<(), String> {
        let things = 16
            + self.devices.len()
            + self.groups.len()
            + self.sinks.len()
            + self.plugins.len()
            + self.requests.len()
            + self.commands.len();
        if self.timers.len() + self.schedule.len() > TIMERS_PER_THING * things {
            return Err(format!("G9: {} timers for {things} things", self.timers.len()));
        }
        Ok(())
    }
}
