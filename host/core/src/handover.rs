//! Hand-over: all endpoints of a driver, or all sinks of a sink plugin, move from one version to another, one *unit* after
//! another. A unit is what cannot be divided: the devices that share an endpoint in the old or the new version, or one
//! sink.
//!
//! ```text
//! Waiting -> Quiescing -> Stopping -> Opening -> Settled
//!            running      old one     new one    watched until the
//!            exchanges    said        resyncs    end of the trial
//!            and commands STOPPED
//!            end
//! ```
//!
//! * Exactly one instance per device: the new one is opened after STOPPED of the old one (or the end of its process).
//! * The canary is the unit with the fewest devices among those that have something to prove (a good point); it is
//!   stopped and opened once more on the new version before the next unit moves, so a version that hangs in its stop is
//!   found out with one endpoint (`rehearse`).
//! * Good again: every point that was good before has a good answer of the new version's session. What is not good for
//!   longer than its patience, does not get good in time, or any failure of the version ends the trial.
//! * The end of a trial is the same movement the other way, all units at once.

use crate::{
    Core, Output,
    arena::{ChannelId, DeviceId, Id, PluginId, PointId, SinkId},
    channel::STOP_DEADLINE_NS,
    output::{HandoverStep, LogLevel},
    request::GRACE_NS,
    sink::SinkPhase,
    state::{ChannelPhase, Phase, PluginStatus},
    time::SECOND,
    upgrade::LOOK_NS,
};

/// A running command or exchange may hold up the way back for so long.
const RETURN_QUIET_NS: u64 = 5 * SECOND;
/// Shortest time that a stop gets.
const MIN_STOP_NS: u64 = SECOND;
/// For the end of a worker that was killed because its stop hung.
const KILL_NS: u64 = 3 * SECOND;
/// A sink may take so long to confirm what is on its way before it is stopped.
const DRAIN_NS: u64 = 2 * SECOND;
/// The old version gets so long to open before the way back is called done.
const REOPEN_NS: u64 = 10 * SECOND;
/// A point may be bad for at least so long before the trial ends.
const MIN_PATIENCE_NS: u64 = 3 * SECOND;

/// A movement of everything from one version to another.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) id: u64,
    pub(crate) from: PluginId,
    pub(crate) to: PluginId,
    /// Each unit must be good again within.
    pub(crate) timeout_ns: u64,
    /// The new version is watched until then.
    pub(crate) watch_until_ns: u64,
    pub(crate) rehearse: bool,
    pub(crate) units: Vec<Unit>,
    /// Everything returns, because of this.
    pub(crate) failed: Option<String>,
    pub(crate) looked_ns: u64,
}

/// How far a unit got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Quiescing,
    Stopping,
    Opening,
    Settled,
}

/// What moves as one.
#[derive(Debug)]
pub(crate) struct Unit {
    devices: Vec<DeviceId>,
    sink: Option<SinkId>,
    stage: Stage,
    /// Who serves it, or did last.
    at: PluginId,
    target: PluginId,
    since_ns: u64,
    /// What must be good again.
    good: Vec<PointId>,
    /// The sink was connected.
    up: bool,
    /// What the sink had confirmed before.
    delivered: u64,
    /// What it had refused for ever before.
    parked: u64,
    failed_before: Vec<DeviceId>,
    rehearsed: bool,
    bad_since_ns: u64,
    killed: bool,
}

impl Unit {
    fn new(at: PluginId, devices: Vec<DeviceId>, sink: Option<SinkId>) -> Self {
        Self {
            devices,
            sink,
            stage: Stage::Waiting,
            at,
            target: at,
            since_ns: 0,
            good: Vec::new(),
            up: false,
            delivered: 0,
            parked: 0,
            failed_before: Vec::new(),
            rehearsed: false,
            bad_since_ns: 0,
            killed: false,
        }
    }

    const fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Quiescing | Stage::Stopping | Stage::Opening)
    }
}

impl Handover {
    /// The device could not run before either.
    pub(crate) fn had_failed(&self, device: DeviceId) -> bool {
        self.units.iter().any(|unit| unit.failed_before.contains(&device))
    }

    fn settled(&self) -> usize {
        self.units.iter().filter(|unit| unit.stage == Stage::Settled).count()
    }
}

/// The units of a movement, in the order in which they move.
pub(crate) fn plan(core: &Core, from: PluginId, to: PluginId) -> Result<Vec<Unit>, String> {
    let mut units: Vec<Unit> =
        core.plugins[from].sinks.iter().map(|sink| Unit::new(from, Vec::new(), Some(*sink))).collect();
    let mut left = core.plugins[from].devices.clone();
    for device in &left {
        if let (None, Err(reason)) =
            (refusal(core, from, *device), core.plugins[to].endpoint_of(*device).map(|_| ()))
        {
            let name = core.device_name(device.number()).unwrap_or_default();
            return Err(format!("device {name}: the new version names no endpoint: {reason}"));
        }
    }
    while let Some(first) = left.pop() {
        let mut devices = vec![first];
        // Whoever shares an endpoint with a member, in either version, is a member.
        while let Some(place) =
            left.iter().position(|other| devices.iter().any(|member| share(core, from, to, *member, *other)))
        {
            devices.push(left.swap_remove(place));
        }
        devices.sort_unstable();
        units.push(Unit::new(from, devices, None));
    }
    units.sort_by_key(|unit| {
        let proves = unit.devices.iter().any(|device| core.is_online(*device))
            || unit.sink.is_some_and(|sink| core.sinks[sink].is_up());
        (!proves, unit.devices.len(), unit.devices.first().copied(), unit.sink)
    });
    Ok(units)
}

fn refusal(core: &Core, plugin: PluginId, device: DeviceId) -> Option<String> {
    core.plugins[plugin].endpoint_of(device).err()
}

fn share(core: &Core, from: PluginId, to: PluginId, a: DeviceId, b: DeviceId) -> bool {
    let same = |plugin: PluginId| {
        let plugin = &core.plugins[plugin];
        match (plugin.endpoint_of(a), plugin.endpoint_of(b)) {
            (Ok(a), Ok(b)) => a.key == b.key,
            _ => false,
        }
    };
    same(from) || same(to)
}

impl Core {
    /// Goes as far as it can; called at the end of every step while a hand-over runs.
    pub(crate) fn run_handover(&mut self) {
        let Some(mut handover) = self.handover.take() else { return };
        // What goes wrong on the way is the trial's end in this very step.
        for _ in 0..2 {
            if let Some(reason) = self.trial.as_mut().and_then(|trial| trial.trouble.take()) {
                self.begin_return(&mut handover, reason);
            }
            for place in 0..handover.units.len() {
                self.drive(&mut handover, place);
            }
            if handover.failed.is_none() {
                self.next_unit(&mut handover);
                self.watch(&mut handover);
            }
            if self.trial.as_ref().is_none_or(|trial| trial.trouble.is_none()) {
                break;
            }
        }
        if let Some(result) = self.result(&handover) {
            return self.end_handover(&handover, result);
        }
        self.handover = Some(handover);
    }

    /// The end, when there is nothing left to do.
    fn result(&self, handover: &Handover) -> Option<Result<(), String>> {
        if let Some(reason) = &handover.failed {
            let busy = handover.units.iter().any(Unit::is_busy);
            return (!busy).then(|| Err(reason.clone()));
        }
        let moved = handover.settled() == handover.units.len();
        let good = handover.units.iter().all(|unit| unit.bad_since_ns == 0);
        let over = self.now.mono_ns >= handover.watch_until_ns;
        let trouble = self.trial.as_ref().is_some_and(|trial| trial.trouble.is_some());
        (moved && good && over && !trouble).then_some(Ok(()))
    }

    fn end_handover(&mut self, handover: &Handover, result: Result<(), String>) {
        self.trial = None;
        let base = self.plugins[handover.to].base;
        self.plugins[base].serving = if result.is_ok() { handover.to } else { handover.from };
        self.say_handover(handover.id, HandoverStep::Ended(result));
    }

    fn fail_trial(&mut self, reason: String) {
        if let Some(trial) = &mut self.trial {
            trial.trouble.get_or_insert(reason);
        }
    }

    /// Starts the next unit when the one before is settled; the canary goes twice.
    fn next_unit(&mut self, handover: &mut Handover) {
        if handover.units.iter().any(Unit::is_busy) {
            return;
        }
        let (to, rehearse) = (handover.to, handover.rehearse);
        if let Some(canary) = handover.units.first_mut()
            && canary.stage == Stage::Settled
            && rehearse
            && !std::mem::replace(&mut canary.rehearsed, true)
        {
            canary.target = to;
            return self.quiesce(canary);
        }
        let Some(unit) = handover.units.iter_mut().find(|unit| unit.stage == Stage::Waiting) else { return };
        unit.target = to;
        self.note_before(unit);
        self.quiesce(unit);
    }

    /// What is good now must be good afterwards.
    fn note_before(&self, unit: &mut Unit) {
        for device in &unit.devices {
            let state = &self.devices[*device];
            if state.phase == Phase::Failed {
                unit.failed_before.push(*device);
            }
            if state.phase.has_session() {
                unit.good.extend(self.point_ids(*device).filter(|id| {
                    let point = &self.points[*id];
                    point.session == state.session && point.underlying().is_good()
                }));
            }
        }
        if let Some(sink) = unit.sink {
            unit.up = self.sinks[sink].is_up();
        }
    }

    /// Nothing new is asked; what runs may end.
    fn quiesce(&mut self, unit: &mut Unit) {
        unit.stage = Stage::Quiescing;
        unit.since_ns = self.now.mono_ns;
        unit.bad_since_ns = 0;
        for device in unit.devices.clone() {
            self.devices[device].quiet = true;
            if let Some(channel) = self.devices[device].channel {
                self.endpoints[self.channels[channel].endpoint].held = true;
            }
            self.end_selections_at(device, "its driver is being replaced");
        }
        if let Some(sink) = unit.sink {
            unit.delivered = self.sinks[sink].books.delivered;
            unit.parked = self.sinks[sink].parked_total();
            self.sinks[sink].handover = true;
        }
    }

    fn drive(&mut self, handover: &mut Handover, place: usize) {
        let (timeout_ns, failed, to) = (handover.timeout_ns, handover.failed.is_some(), handover.to);
        let Some(unit) = handover.units.get_mut(place) else { return };
        let waited_ns = self.now.mono_ns.saturating_sub(unit.since_ns);
        match unit.stage {
            Stage::Waiting | Stage::Settled => {}
            Stage::Quiescing => {
                let over = failed && waited_ns >= RETURN_QUIET_NS;
                if over || !self.plugin_usable(unit.at) || self.is_quiet(unit, waited_ns) {
                    self.stop_unit(unit);
                    self.drive(handover, place);
                } else if waited_ns >= timeout_ns {
                    let reason = format!("{}: a command or an exchange did not end", self.unit_name(unit));
                    self.fail_trial(reason);
                }
            }
            Stage::Stopping if self.is_closed(unit) => self.switch(unit, to),
            Stage::Stopping => {}
            Stage::Opening => self.opening(handover, place, waited_ns),
        }
    }

    fn opening(&mut self, handover: &mut Handover, place: usize, waited_ns: u64) {
        let (timeout_ns, failed, to) = (handover.timeout_ns, handover.failed.is_some(), handover.to);
        let Some(unit) = handover.units.get_mut(place) else { return };
        if failed || unit.at != to {
            if waited_ns >= REOPEN_NS || self.is_open(unit) || !self.plugin_usable(unit.at) {
                unit.stage = Stage::Settled;
            }
            return;
        }
        match self.bad(unit) {
            None => {
                unit.stage = Stage::Settled;
                unit.bad_since_ns = 0;
                let name = self.unit_name(unit);
                let (done, total) = (handover.settled(), handover.units.len());
                let step = HandoverStep::Moved { unit: name, done, total };
                self.say_handover(handover.id, step);
            }
            Some((_, text)) if waited_ns >= timeout_ns => self.fail_trial(text),
            Some((true, text)) => self.be_patient(unit, timeout_ns, text),
            Some((false, _)) => unit.bad_since_ns = 0,
        }
    }

    /// Answered, and not good: it may be a hiccup.
    fn be_patient(&mut self, unit: &mut Unit, timeout_ns: u64, text: String) {
        if unit.bad_since_ns == 0 {
            unit.bad_since_ns = self.now.mono_ns.max(1);
        }
        let stale_ns = unit.good.iter().map(|id| self.points[*id].stale_ns).min().unwrap_or(0);
        let patience_ns = stale_ns.max(MIN_PATIENCE_NS).min(timeout_ns / 2);
        if self.now.mono_ns.saturating_sub(unit.bad_since_ns) >= patience_ns {
            self.fail_trial(text);
        }
    }

    /// Units that moved stay good until the end of the trial.
    fn watch(&mut self, handover: &mut Handover) {
        let now_ns = self.now.mono_ns;
        let over = now_ns >= handover.watch_until_ns;
        if !over && now_ns.saturating_sub(handover.looked_ns) < LOOK_NS {
            return;
        }
        handover.looked_ns = now_ns;
        let timeout_ns = handover.timeout_ns;
        for unit in handover.units.iter_mut().filter(|unit| unit.stage == Stage::Settled) {
            match self.bad(unit) {
                None => unit.bad_since_ns = 0,
                Some((_, text)) => self.be_patient(unit, timeout_ns, text),
            }
        }
    }

    /// What is not as good as before: whether it is an answer, and the words for it.
    fn bad(&self, unit: &Unit) -> Option<(bool, String)> {
        if let Some(sink) = unit.sink {
            return self.bad_sink(unit, sink).map(|text| (true, text));
        }
        for device in unit.devices.iter().filter(|device| !unit.failed_before.contains(device)) {
            let state = &self.devices[*device];
            if state.channel.is_some() && state.phase != Phase::Maintenance && !state.bound {
                let name = self.device_name(device.number()).unwrap_or_default();
                return Some((false, format!("device {name}: {}", word(&state.reason, "it does not open"))));
            }
        }
        unit.good.iter().find_map(|id| self.bad_point(*id))
    }

    fn bad_point(&self, id: PointId) -> Option<(bool, String)> {
        let point = &self.points[id];
        let device = &self.devices[point.device?];
        if device.phase == Phase::Maintenance {
            return None;
        }
        if point.session != device.session || !device.phase.has_session() {
            let reason = word(&device.reason, "no answer yet");
            return Some((false, format!("{} was good and is not answered: {reason}", self.full_name(id))));
        }
        let quality = point.underlying();
        (!quality.is_good()).then(|| (true, format!("{} was good and is {quality}", self.full_name(id))))
    }

    fn bad_sink(&self, unit: &Unit, sink: SinkId) -> Option<String> {
        let state = &self.sinks[sink];
        let name = self.site.sinks.get(sink.number() as usize).map_or("", |config| &config.name);
        let reason = match state.phase {
            SinkPhase::Opening => "it does not open",
            SinkPhase::Points => "it does not take its point list",
            SinkPhase::Connecting => "it does not connect",
            _ => word(&state.reason, "it does not open"),
        };
        if !unit.up {
            let started = matches!(state.phase, SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up);
            return (!started && state.phase != SinkPhase::Failed)
                .then(|| format!("sink {name} does not start: {reason}"));
        }
        if !state.is_up() {
            return Some(format!("sink {name} was connected and is not: {reason}"));
        }
        if state.books.delivered > unit.delivered {
            return None;
        }
        // What is refused does not wait any more either.
        if state.parked_total() > unit.parked {
            return Some(format!("sink {name} confirms nothing and refuses records"));
        }
        (state.pending() > 0).then(|| format!("sink {name} confirms nothing"))
    }

    /// Nothing runs any more that the stop would break.
    fn is_quiet(&self, unit: &Unit, waited_ns: u64) -> bool {
        if let Some(sink) = unit.sink {
            let commands = self.commands.values().any(
                |command| matches!(command.asker, crate::state::Asker::Sink { sink: of, .. } if of == sink),
            );
            let drained = !self.sinks[sink].is_up() || self.sinks[sink].queue.in_flight() == 0;
            return !commands && (drained || waited_ns >= DRAIN_NS);
        }
        let member = |device: DeviceId| unit.devices.contains(&device);
        let commands = self.commands.values().any(|command| member(command.device))
            || self.cancels.values().any(|cancel| member(cancel.device));
        !commands
            && unit.devices.iter().filter_map(|device| self.devices[*device].channel).all(|channel| {
                let Some(instance) = self.instances.get(&self.channels[channel].instance) else {
                    return true;
                };
                instance.stalled_ns.is_some()
                    || !instance.pending.iter().filter_map(|request| self.requests.get(request)).any(
                        |pending| {
                            pending.device.is_some_and(|device| {
                                self.devices[device].phase.has_session()
                                    && self.devices[device].session == pending.session
                            })
                        },
                    )
            })
    }

    fn channels_of(&self, unit: &Unit) -> Vec<ChannelId> {
        let mut channels: Vec<ChannelId> =
            unit.devices.iter().filter_map(|device| self.devices[*device].channel).collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }

    fn stop_unit(&mut self, unit: &mut Unit) {
        unit.stage = Stage::Stopping;
        unit.since_ns = self.now.mono_ns;
        unit.killed = false;
        for channel in self.channels_of(unit) {
            self.stop_moving(channel);
        }
        if let Some(sink) = unit.sink {
            self.stop_sink_for(sink, "its plugin is being replaced");
        }
    }

    /// STOP without loss: the points of its devices keep what they show.
    fn stop_moving(&mut self, channel: ChannelId) {
        self.channels[channel].moving = true;
        let mut span_ns = STOP_DEADLINE_NS;
        for device in self.channels[channel].devices.clone() {
            self.keep_device(device);
            let keep_ns = self.devices[device].keep_ns;
            if keep_ns != 0 {
                let left_ns = keep_ns.saturating_sub(self.now.mono_ns);
                span_ns = span_ns.min((left_ns / 2).max(MIN_STOP_NS));
            }
            let phase = self.devices[device].phase;
            if !matches!(phase, Phase::Failed | Phase::Maintenance) {
                self.end_session(device, phase);
                self.set_reason(device, "its driver is being replaced");
            }
        }
        if matches!(self.channels[channel].phase, ChannelPhase::Opening | ChannelPhase::Open) {
            let instance = self.channels[channel].instance;
            self.channels[channel].phase = ChannelPhase::Stopping;
            self.ask_to_stop(instance, span_ns);
            self.wake_channel(channel, span_ns + GRACE_NS);
        }
    }

    fn is_closed(&self, unit: &Unit) -> bool {
        let open = |channel: ChannelId| self.channels[channel].phase != ChannelPhase::Closed;
        let sink = unit
            .sink
            .is_none_or(|sink| matches!(self.sinks[sink].phase, SinkPhase::Closed | SinkPhase::Failed));
        sink && !self.channels_of(unit).into_iter().any(open)
    }

    fn is_open(&self, unit: &Unit) -> bool {
        let sink = unit.sink.is_none_or(|sink| {
            matches!(self.sinks[sink].phase, SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up)
        });
        let open = |channel: &ChannelId| self.channels[*channel].phase == ChannelPhase::Open;
        sink && self.channels_of(unit).iter().all(open)
    }

    /// A stop of a hand-over did not end in time.
    pub(crate) fn stop_hangs(&mut self, channel: ChannelId) {
        let plugin = self.channels[channel].plugin;
        let key = self.endpoints[self.channels[channel].endpoint].key.clone();
        let text = format!("it did not let go of endpoint {key} when it was stopped");
        if self.kill_hanging(plugin, &text) {
            return self.wake_channel(channel, KILL_NS);
        }
        // It is left behind, or the endpoint stays with it: the ordinary rules.
        self.channels[channel].moving = false;
        for device in self.channels[channel].devices.clone() {
            self.devices[device].keep_ns = 0;
            self.mark_lost(device, &text);
            self.invalidate(device, crate::table::LOST);
        }
        self.did_not_stop(channel);
        self.give_unit_up(
            |unit, devices| unit.devices.iter().any(|device| devices.contains(device)),
            channel,
        );
    }

    /// The same for a sink: true when the end of its process is awaited.
    pub(crate) fn sink_stop_hangs(&mut self, sink: SinkId) -> bool {
        let Some(plugin) = self.sinks[sink].plugin else { return false };
        if self.kill_hanging(plugin, "it did not stop its sink within the deadline") {
            return true;
        }
        self.sinks[sink].handover = false;
        if let Some(handover) = &mut self.handover
            && let Some(unit) = handover.units.iter_mut().find(|unit| unit.sink == Some(sink))
        {
            unit.stage = Stage::Settled;
            unit.target = unit.at;
        }
        false
    }

    /// A version whose stop hangs is no version to keep. One in a worker is killed: then everything it held is free.
    fn kill_hanging(&mut self, plugin: PluginId, text: &str) -> bool {
        let side = match &self.trial {
            Some(trial) if trial.to == plugin => "the new version",
            _ => "the version that serves",
        };
        let reason = format!("{side} hangs in its stop: {text}");
        self.trial_trouble(plugin, &reason);
        self.fail_trial(reason.clone());
        let worker = self.plugins[plugin].isolation == crate::model::Isolation::Process;
        if !worker || std::mem::replace(&mut self.plugins[plugin].killed, true) {
            return false;
        }
        self.out.push(Output::Abandon { plugin: plugin.number() as usize, reason });
        true
    }

    fn give_unit_up(&mut self, is_it: impl Fn(&Unit, &[DeviceId]) -> bool, channel: ChannelId) {
        let devices = self.channels[channel].devices.clone();
        for device in &devices {
            self.devices[*device].quiet = false;
        }
        let endpoint = self.channels[channel].endpoint;
        self.endpoints[endpoint].held = false;
        if let Some(handover) = &mut self.handover
            && let Some(unit) = handover.units.iter_mut().find(|unit| is_it(unit, &devices))
        {
            unit.stage = Stage::Settled;
            unit.target = unit.at;
        }
    }

    /// The old instance is gone: the unit belongs to the other version.
    fn switch(&mut self, unit: &mut Unit, to: PluginId) {
        unit.stage = Stage::Opening;
        unit.since_ns = self.now.mono_ns;
        unit.at = unit.target;
        self.release(unit);
        for device in unit.devices.clone() {
            self.give_device(device, unit.target);
        }
        for channel in self.channels_of(unit) {
            self.open_channel(channel);
        }
        if let Some(sink) = unit.sink {
            self.give_sink(sink, unit.target);
        }
        if unit.target == to && !self.plugin_usable(to) {
            self.fail_trial("the new version does not run".into());
        }
    }

    fn release(&mut self, unit: &Unit) {
        for device in &unit.devices {
            self.devices[*device].quiet = false;
            if let Some(channel) = self.devices[*device].channel {
                self.channels[channel].moving = false;
                let endpoint = self.channels[channel].endpoint;
                self.endpoints[endpoint].held = false;
                self.mark_endpoint(endpoint);
            }
        }
        if let Some(sink) = unit.sink {
            self.sinks[sink].handover = false;
            self.mark_sink(sink);
        }
    }

    fn give_device(&mut self, device: DeviceId, target: PluginId) {
        if let Some(old) = self.devices[device].plugin.replace(target) {
            self.plugins[old].devices.retain(|other| *other != device);
        }
        if let Some(channel) = self.devices[device].channel.take() {
            self.channels[channel].devices.retain(|other| *other != device);
        }
        self.plugins[target].devices.push(device);
        self.devices[device].can_probe = true;
        match self.plugins[target].endpoint_of(device).cloned() {
            Ok(spec) => {
                self.join_endpoint(target, device, &spec);
                self.endpoint_terms(device, &spec);
                if self.plugins[target].status == PluginStatus::Failed {
                    let reason = self.plugins[target].reason.clone();
                    self.fail_device(device, &reason);
                }
            }
            Err(reason) => self.fail_device(device, &reason),
        }
    }

    /// Whoever has the endpoint alone sets its terms.
    fn endpoint_terms(&mut self, device: DeviceId, spec: &busbar_contract::Endpoint) {
        let Some(own) = self.devices[device].channel else { return };
        let endpoint = self.channels[own].endpoint;
        let alone = self.endpoints[endpoint]
            .channels
            .iter()
            .all(|channel| *channel == own || self.channels[*channel].devices.is_empty());
        if alone {
            self.endpoints[endpoint].exclusive = spec.exclusive;
            self.endpoints[endpoint].parallel = spec.parallel.clamp(1, crate::endpoint::MAX_PARALLEL);
        }
    }

    fn give_sink(&mut self, sink: SinkId, target: PluginId) {
        if let Some(old) = self.sinks[sink].plugin.replace(target) {
            self.plugins[old].sinks.retain(|other| *other != sink);
        }
        self.plugins[target].sinks.push(sink);
        match self.plugins[target].status {
            PluginStatus::Ready => self.sink_plugin_ready(sink),
            PluginStatus::Failed => {
                let reason = self.plugins[target].reason.clone();
                self.sink_absent(sink, &reason);
            }
            PluginStatus::Declared | PluginStatus::Retired => {}
        }
    }

    /// Everything goes back to where it was, all units at once.
    fn begin_return(&mut self, handover: &mut Handover, reason: String) {
        if handover.failed.is_some() {
            return;
        }
        let (from, to) = (handover.from, handover.to);
        self.log(
            LogLevel::Error,
            ("handover", handover.id),
            vec![("plugin", self.plugins[to].name.clone())],
            format!("the new version is taken back: {reason}"),
        );
        handover.failed = Some(reason);
        self.trial = None;
        for device in self.plugins[to].devices.clone() {
            self.keep_device(device);
        }
        for unit in &mut handover.units {
            unit.target = from;
            match unit.stage {
                Stage::Waiting | Stage::Stopping => {}
                Stage::Quiescing if unit.at == from => {
                    self.release(unit);
                    unit.stage = Stage::Waiting;
                }
                Stage::Quiescing => {}
                Stage::Opening | Stage::Settled if unit.at == to => self.quiesce(unit),
                Stage::Opening | Stage::Settled => {}
            }
        }
        for unit in handover.units.iter_mut().filter(|unit| unit.stage == Stage::Waiting) {
            unit.stage = Stage::Settled;
        }
    }

    fn unit_name(&self, unit: &Unit) -> String {
        if let Some(sink) = unit.sink {
            let config = self.site.sinks.get(sink.number() as usize);
            return config.map(|config| format!("sink {}", config.name)).unwrap_or_default();
        }
        let names: Vec<&str> =
            unit.devices.iter().filter_map(|device| self.device_name(device.number())).collect();
        match names.as_slice() {
            [one] => format!("device {one}"),
            [first, .., last] => format!("devices {first} to {last}"),
            [] => String::new(),
        }
    }
}

fn word<'a>(reason: &'a str, instead: &'a str) -> &'a str {
    if reason.is_empty() { instead } else { reason }
}
