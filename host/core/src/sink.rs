//! One sink: its instance, its far side, its records.
//!
//! Order on the stream: POINTS, CONNECT, then records: whatever was unconfirmed, a snapshot of all points (ordinary
//! numbered records in batches with the flag SNAPSHOT), deltas. The snapshot comes after each connect: for a sink that is
//! not durable in place of the states it missed, for a durable one behind its backlog, so that the latest state of each
//! point is sent last (SEMANTICS 8) and a far side that forgot everything learns it.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{
    Event, FailureKind, Request,
    describe::Open,
    request::{OfDevice, Points, SinkPoint},
};
use serde_json::Value as Json;

use crate::{
    Core, Now, Output,
    arena::{Id, PluginId, PointId, SinkId},
    backoff,
    channel::{OPEN_DEADLINE_NS, REOPEN, STOP_DEADLINE_NS},
    device::clipped,
    feed::Feed,
    model,
    output::LogLevel,
    queue::Queue,
    request::{GRACE_NS, LOCAL_DEADLINE_NS},
    slots::Slots,
    state::{Outcome, Owner, Pending, Work},
    time::{SECOND, ms, ns},
    timers::Timer,
};

/// A far side must come up within.
const CONNECT_DEADLINE_NS: u64 = 30 * SECOND;

/// How far a sink got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkPhase {
    /// No instance; `wake_ns` says when the next is opened, 0 = when the plugin is ready.
    Closed,
    /// Its plugin or its configuration must be changed.
    Failed,
    Opening,
    /// POINTS is being taken.
    Points,
    Connecting,
    /// Waits to connect again.
    Down,
    Up,
    Stopping,
}

/// How long a slot of the sink's list lasts.
#[derive(Debug, PartialEq)]
pub(crate) enum Lasting {
    /// The point is routed.
    Live,
    /// A reload ended the route; what still waits goes out under the name it had, which is kept here.
    Leaving(Box<SinkPoint>),
    /// Nothing of it waits any more, and the plugin was told. The slot is not used again.
    Gone,
}

/// A point routed to the sink.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) point: PointId,
    pub(crate) map: Vec<Json>,
    pub(crate) lasting: Lasting,
}

/// One sink.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) plugin: Option<PluginId>,
    pub(crate) instance: u64,
    pub(crate) phase: SinkPhase,
    pub(crate) reason: String,
    pub(crate) since_wall_ns: i64,
    pub(crate) attempts: u32,
    pub(crate) wake_ns: u64,
    pub(crate) zombies: u32,
    /// Its far side was up once: its configuration can work, so it never stops for good.
    pub(crate) ran: bool,
    pub(crate) routed: Vec<Routed>,
    pub(crate) slot_of: BTreeMap<u32, u32>,
    pub(crate) feed: Feed,
    pub(crate) queue: Queue,
    pub(crate) slots: Slots,
    pub(crate) durable: bool,
    pub(crate) limits: model::Queue,
    pub(crate) commands: bool,
    pub(crate) books: crate::books::Books,
    /// Devices that a verdict `retry` holds back: until when, and how often.
    pub(crate) held: BTreeMap<u32, (u64, u32)>,
    pub(crate) paused_until_ns: u64,
    pub(crate) refusals: u32,
    pub(crate) overflow: bool,
    pub(crate) snapshot_due: bool,
    /// Number of the newest record of each point, by slot.
    pub(crate) newest: Vec<u64>,
    /// Points of which an older record is sent after a newer one: their latest state is sent last.
    pub(crate) echo: BTreeSet<u32>,
    pub(crate) touched: bool,
    /// Tokens whose records ended inside the sink.
    pub(crate) ended_commits: Vec<(u32, bool)>,
    /// Its plugin is being replaced: nothing is delivered, nothing opens it.
    pub(crate) handover: bool,
    /// Slots of points that leave.
    pub(crate) leaving: BTreeSet<u32>,
    /// Stopped for a new configuration: opened again without a pause.
    pub(crate) reopen: bool,
    /// A reload took it out of the configuration; its place is never used again.
    pub(crate) gone: bool,
    /// When `send = "interval"` is due; a wake-up at another instant is an old one.
    pub(crate) interval_ns: u64,
}

impl Sink {
    pub(crate) fn new(config: &model::Sink, plugin: Option<PluginId>, now: Now) -> Self {
        Self {
            plugin,
            instance: 0,
            phase: if plugin.is_some() { SinkPhase::Closed } else { SinkPhase::Failed },
            reason: if plugin.is_some() {
                "starting".into()
            } else {
                format!("no plugin named {}", config.plugin)
            },
            since_wall_ns: now.wall_ns,
            attempts: 0,
            wake_ns: 0,
            zombies: 0,
            ran: false,
            routed: Vec::new(),
            slot_of: BTreeMap::new(),
            feed: Feed::new(config),
            queue: Queue::new(),
            slots: Slots::default(),
            durable: false,
            limits: config.queue,
            commands: config.commands,
            books: crate::books::Books::default(),
            held: BTreeMap::new(),
            paused_until_ns: 0,
            refusals: 0,
            overflow: false,
            snapshot_due: true,
            newest: Vec::new(),
            echo: BTreeSet::new(),
            touched: false,
            ended_commits: Vec::new(),
            handover: false,
            leaving: BTreeSet::new(),
            reopen: false,
            gone: false,
            interval_ns: 0,
        }
    }

    /// A slot for a point that was not routed before.
    pub(crate) fn add_point(&mut self, point: PointId, map: Vec<Json>) -> u32 {
        let slot = self.routed.len() as u32;
        self.routed.push(Routed { point, map, lasting: Lasting::Live });
        self.slot_of.insert(point.number(), slot);
        self.slots.grow();
        self.feed.resize(self.routed.len());
        self.newest.push(0);
        slot
    }

    /// Slots of routed points.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Routed)> {
        (0u32..).zip(&self.routed).filter(|(_, routed)| routed.lasting == Lasting::Live)
    }

    /// Records not yet ended.
    pub(crate) const fn pending(&self) -> u64 {
        (self.queue.pending() + self.slots.len()) as u64
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.phase, SinkPhase::Up)
    }

    /// When the oldest record that is not confirmed was accepted.
    pub(crate) fn oldest_ns(&self) -> Option<u64> {
        let queued = self.queue.oldest().map(|(_, at)| at);
        [queued, self.slots.oldest()].into_iter().flatten().min()
    }
}

impl Core {
    pub(crate) fn sink_plugin_ready(&mut self, sink: SinkId) {
        let plugin = self.sinks[sink].plugin;
        let durable = plugin
            .and_then(|plugin| self.plugins[plugin].describe.as_ref())
            .is_some_and(|describe| describe.sink.durable);
        let state = &mut self.sinks[sink];
        state.phase = SinkPhase::Closed;
        state.zombies = 0;
        state.attempts = 0;
        if durable && !std::mem::replace(&mut state.durable, true) {
            state.slots_to_queue();
        }
        self.open_sink(sink);
    }

    pub(crate) fn open_sink(&mut self, sink: SinkId) {
        let Some(plugin) = self.sinks[sink].plugin else { return };
        let state = &self.sinks[sink];
        if self.stopping
            || state.handover
            || state.gone
            || state.phase != SinkPhase::Closed
            || !self.plugin_usable(plugin)
        {
            return;
        }
        self.sinks[sink].reopen = false;
        let Some(config) = self.site.sinks.get(sink.number() as usize) else { return };
        let config = Open::Sink {
            name: config.name.clone(),
            host: self.site.host.name.clone(),
            settings: config.settings.clone(),
            bad_value: config.bad_value.clone(),
            test: config.test.clone(),
        };
        let instance = self.new_instance(plugin, Owner::Sink(sink));
        let state = &mut self.sinks[sink];
        state.phase = SinkPhase::Opening;
        state.instance = instance;
        state.snapshot_due = true;
        self.out.push(Output::Open { plugin: plugin.number() as usize, instance, config });
        self.wake_sink(sink, OPEN_DEADLINE_NS + GRACE_NS);
    }

    fn wake_sink(&mut self, sink: SinkId, span_ns: u64) {
        let at = self.timers.arm(self.now.mono_ns + span_ns, Timer::Sink(sink));
        self.sinks[sink].wake_ns = at;
    }

    pub(crate) fn sink_timer(&mut self, sink: SinkId) {
        let state = &mut self.sinks[sink];
        if state.wake_ns == 0 || state.wake_ns > self.now.mono_ns {
            return;
        }
        state.wake_ns = 0;
        match state.phase {
            SinkPhase::Closed => self.open_sink(sink),
            SinkPhase::Opening => self.stop_sink(sink),
            SinkPhase::Down => self.connect_sink(sink),
            SinkPhase::Stopping => self.sink_did_not_stop(sink),
            SinkPhase::Failed | SinkPhase::Points | SinkPhase::Connecting | SinkPhase::Up => {}
        }
    }

    pub(crate) fn sink_event(&mut self, sink: SinkId, instance: u64, request: u64, event: Event) {
        let stopping = self.sinks[sink].phase == SinkPhase::Stopping && !matches!(event, Event::Ack { .. });
        if self.sinks[sink].instance != instance || stopping {
            self.oddities.late += 1;
            return;
        }
        match event {
            Event::Opened if self.sinks[sink].phase == SinkPhase::Opening => self.send_points(sink),
            Event::State(state) if state.up => self.sink_came_up(sink),
            Event::State(state) => {
                let reason = if state.reason.is_empty() { "the far side is down" } else { &state.reason };
                self.sink_down(sink, reason);
            }
            Event::Ack { lane, acks } => self.take_acks(sink, lane, &acks),
            Event::Command(command) => self.sink_command(sink, instance, request, command),
            Event::Fetch(fetch) => self.sink_fetch(sink, instance, request, &fetch),
            Event::WriteBlock(write) => self.sink_write_block(sink, instance, request, write),
            _ => self.oddities.unexpected += 1,
        }
    }

    fn send_points(&mut self, sink: SinkId) {
        self.sinks[sink].phase = SinkPhase::Points;
        self.sinks[sink].wake_ns = 0;
        let points = self.sink_points(sink);
        let body = Request::Points(Points { replace: true, points, removed: Vec::new() });
        self.ask_sink(sink, Work::SinkPoints, body, LOCAL_DEADLINE_NS);
    }

    /// The whole list, with what is leaving.
    fn sink_points(&self, sink: SinkId) -> Vec<SinkPoint> {
        let slots = 0..self.sinks[sink].routed.len() as u32;
        slots.filter_map(|slot| self.sink_point(sink, slot)).collect()
    }

    /// A point as POINTS describes it.
    pub(crate) fn sink_point(&self, sink: SinkId, slot: u32) -> Option<SinkPoint> {
        let routed = self.sinks[sink].routed.get(slot as usize)?;
        match &routed.lasting {
            Lasting::Live => {}
            Lasting::Leaving(said) => return Some((**said).clone()),
            Lasting::Gone => return None,
        }
        let (device, name) = self.name_parts(routed.point);
        let view = self.view_of(routed.point);
        let text = |key: &str| view.metadata.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        Some(SinkPoint {
            point: routed.point.number(),
            device: device.to_owned(),
            name: name.to_owned(),
            unit: view.unit.to_owned(),
            description: text("description"),
            metadata: view.metadata.clone(),
            writable: view.writable,
            map: routed.map.clone(),
        })
    }

    fn ask_sink(&mut self, sink: SinkId, work: Work, body: Request, span_ns: u64) {
        let instance = self.sinks[sink].instance;
        self.submit(
            Pending {
                number: 0,
                instance,
                endpoint: None,
                device: None,
                session: 0,
                work,
                submitted_ns: self.now.mono_ns,
                deadline_ns: self.now.mono_ns + span_ns,
            },
            body,
        );
    }

    fn connect_sink(&mut self, sink: SinkId) {
        let usable = self.sinks[sink].plugin.is_some_and(|plugin| self.plugin_usable(plugin))
            && self.instances.get(&self.sinks[sink].instance).is_some_and(|state| state.stalled_ns.is_none());
        if !usable {
            return self.sink_back_off(sink);
        }
        self.sinks[sink].phase = SinkPhase::Connecting;
        let body = Request::Connect(OfDevice { device: None, deadline_ms: ms(CONNECT_DEADLINE_NS) });
        self.ask_sink(sink, Work::SinkConnect, body, CONNECT_DEADLINE_NS);
    }

    pub(crate) fn sink_request_finished(&mut self, sink: SinkId, work: &Work, outcome: Outcome) {
        let failure = match outcome {
            Outcome::Done(_) | Outcome::Samples => None,
            Outcome::NotTaken { unsupported } => {
                let kind = if unsupported { FailureKind::Unsupported } else { FailureKind::Session };
                Some((kind, "the plugin did not take the request".to_owned()))
            }
            Outcome::Failed(failure) => Some((failure.kind, failure.text)),
        };
        match (work, self.sinks[sink].phase, failure) {
            (Work::SinkPoints, SinkPhase::Points, None) => self.connect_sink(sink),
            // A difference of the list was not taken: the sink must get the whole one.
            (Work::SinkPoints, SinkPhase::Up | SinkPhase::Down, Some((_, text))) => {
                self.stop_sink_for(sink, &text);
            }
            (Work::SinkConnect, SinkPhase::Connecting, None) => self.sink_up(sink),
            (
                Work::SinkPoints | Work::SinkConnect,
                SinkPhase::Points | SinkPhase::Connecting,
                Some((kind, text)),
            ) => {
                let ran = self.sinks[sink].ran;
                if matches!(work, Work::SinkConnect) && (ran || kind == FailureKind::Configuration) {
                    let for_good = matches!(kind, FailureKind::Configuration | FailureKind::Unsupported);
                    self.sink_down(sink, &text);
                    if for_good {
                        // A certificate that is being exchanged, a file not there yet: looked at again, not often.
                        self.wake_sink_at_last(sink);
                    }
                } else if !ran && matches!(kind, FailureKind::Configuration | FailureKind::Unsupported) {
                    self.stop_sink_for(sink, &text);
                    self.sink_failed(sink, &text);
                } else if matches!(work, Work::SinkPoints) {
                    self.stop_sink_for(sink, &text);
                } else {
                    self.sink_down(sink, &text);
                }
            }
            _ => {}
        }
    }

    /// The next attempt comes after the longest pause.
    fn wake_sink_at_last(&mut self, sink: SinkId) {
        let config = self.site.sinks.get(sink.number() as usize);
        let pause_ns = config.map_or(SECOND, |config| ns(config.reconnect.max));
        self.wake_sink(sink, pause_ns);
    }

    /// `open` refused the configuration. A sink that ran before is opened again, because its files may be changing.
    pub(crate) fn sink_misconfigured(&mut self, sink: SinkId, reason: &str) {
        if !self.sinks[sink].ran {
            return self.sink_failed(sink, reason);
        }
        if !self.stopping {
            self.wake_sink_at_last(sink);
        }
    }

    fn sink_came_up(&mut self, sink: SinkId) {
        if self.sinks[sink].phase == SinkPhase::Down {
            self.sinks[sink].wake_ns = 0;
            self.sink_up(sink);
        }
    }

    fn sink_up(&mut self, sink: SinkId) {
        let state = &mut self.sinks[sink];
        state.phase = SinkPhase::Up;
        state.ran = true;
        state.attempts = 0;
        state.refusals = 0;
        state.paused_until_ns = 0;
        state.wake_ns = 0;
        state.held.clear();
        state.reason.clear();
        state.since_wall_ns = self.now.wall_ns;
        state.queue.rewind();
        state.queue.begin_replay();
        if std::mem::replace(&mut state.snapshot_due, false) {
            self.snapshot(sink);
        } else {
            self.send_echoes(sink);
        }
        self.mark_sink(sink);
        self.set_sink_connected(sink, true);
        self.sink_log(sink, LogLevel::Info, "connected");
    }

    /// The far side is gone: what is unconfirmed will be sent again, and it is tried again for ever.
    pub(crate) fn sink_down(&mut self, sink: SinkId, reason: &str) {
        let state = &self.sinks[sink];
        if !matches!(state.phase, SinkPhase::Up | SinkPhase::Connecting | SinkPhase::Points | SinkPhase::Down)
        {
            return;
        }
        let in_points = state.phase == SinkPhase::Points;
        if state.phase == SinkPhase::Down {
            self.sinks[sink].reason = clipped(reason.to_owned());
            return;
        }
        self.sink_off(sink, reason);
        if in_points {
            // Without a point list the instance is of no use.
            self.sinks[sink].phase = SinkPhase::Connecting;
            return self.stop_sink_for(sink, reason);
        }
        self.sink_back_off(sink);
    }

    fn sink_back_off(&mut self, sink: SinkId) {
        let Some(config) = self.site.sinks.get(sink.number() as usize) else { return };
        let attempts = self.sinks[sink].attempts;
        let pause_ns = backoff::pause(&config.reconnect, attempts, &mut self.rng);
        self.sinks[sink].attempts = attempts.saturating_add(1);
        self.sinks[sink].phase = SinkPhase::Down;
        self.wake_sink(sink, pause_ns);
    }

    /// Nothing goes out for now.
    fn sink_off(&mut self, sink: SinkId, reason: &str) {
        let state = &mut self.sinks[sink];
        let was_up = state.is_up();
        state.reason = clipped(reason.to_owned());
        state.send_all_again();
        if was_up {
            state.since_wall_ns = self.now.wall_ns;
        }
        let instance = self.sinks[sink].instance;
        self.drop_selections_of(instance);
        if was_up {
            self.set_sink_connected(sink, false);
        }
        self.sink_log(sink, LogLevel::Warn, &format!("not connected: {reason}"));
    }

    fn sink_log(&mut self, sink: SinkId, level: LogLevel, text: &str) {
        let name =
            self.site.sinks.get(sink.number() as usize).map(|config| config.name.clone()).unwrap_or_default();
        let code = if level == LogLevel::Info { "sink up" } else { "sink down" };
        self.log(level, (code, u64::from(sink.number())), vec![("sink", name)], text);
    }

    /// The plugin is absent or was given up.
    pub(crate) fn sink_absent(&mut self, sink: SinkId, reason: &str) {
        self.sink_failed(sink, reason);
    }

    /// The sink cannot run until something is changed. Its records stay within their bounds.
    pub(crate) fn sink_failed(&mut self, sink: SinkId, reason: &str) {
        if self.sinks[sink].phase == SinkPhase::Stopping {
            // It fails when its instance has stopped.
            self.sinks[sink].zombies = u32::MAX;
            return;
        }
        self.sinks[sink].phase = SinkPhase::Failed;
        self.sinks[sink].reason = clipped(reason.to_owned());
        self.sinks[sink].wake_ns = 0;
        self.sink_log(sink, LogLevel::Error, &format!("failed: {reason}"));
    }

    pub(crate) fn sink_plugin_beats(&mut self, sink: SinkId) {
        if self.sinks[sink].phase == SinkPhase::Down {
            self.sinks[sink].attempts = 0;
            self.sink_back_off(sink);
        } else {
            self.open_sink(sink);
        }
    }

    pub(crate) fn stop_sink(&mut self, sink: SinkId) {
        self.stop_sink_for(sink, "the plugin does not answer; its instance is opened again");
    }

    pub(crate) fn stop_sink_for(&mut self, sink: SinkId, reason: &str) {
        let state = &self.sinks[sink];
        if matches!(state.phase, SinkPhase::Closed | SinkPhase::Failed | SinkPhase::Stopping) {
            return;
        }
        let instance = state.instance;
        self.sink_off(sink, reason);
        self.sinks[sink].phase = SinkPhase::Stopping;
        self.ask_to_stop(instance, STOP_DEADLINE_NS);
        self.wake_sink(sink, STOP_DEADLINE_NS + GRACE_NS);
    }

    pub(crate) fn sink_stopped(&mut self, sink: SinkId, instance: u64) {
        if self.sinks[sink].instance != instance {
            return self.forget_instance(instance);
        }
        let failed = self.sinks[sink].zombies == u32::MAX;
        self.sinks[sink].zombies = 0;
        self.sink_instance_gone(sink, "the plugin closed the sink");
        if failed {
            let reason = self.sinks[sink].reason.clone();
            return self.sink_failed(sink, &reason);
        }
        self.sink_reopen(sink);
    }

    fn sink_did_not_stop(&mut self, sink: SinkId) {
        if self.sinks[sink].handover && self.sink_stop_hangs(sink) {
            // Its process is killed: its end closes the sink.
            return self.wake_sink(sink, STOP_DEADLINE_NS);
        }
        let zombies = self.sinks[sink].zombies;
        self.sink_instance_gone(sink, "the plugin did not stop the sink within its deadline");
        if zombies >= MAX_ZOMBIES {
            return self.sink_failed(sink, "the plugin does not stop its instances; restart the gateway");
        }
        self.sinks[sink].zombies = zombies + 1;
        self.sink_reopen(sink);
    }

    pub(crate) fn sink_reopen(&mut self, sink: SinkId) {
        if self.stopping || self.sinks[sink].handover || self.sinks[sink].gone {
            return;
        }
        if self.sinks[sink].reopen {
            self.sinks[sink].attempts = 0;
            return self.open_sink(sink);
        }
        let attempts = self.sinks[sink].attempts;
        self.sinks[sink].attempts = attempts.saturating_add(1);
        let pause_ns = backoff::pause(&REOPEN, attempts, &mut self.rng);
        self.wake_sink(sink, pause_ns);
    }

    /// The instance does not exist any more.
    pub(crate) fn sink_instance_gone(&mut self, sink: SinkId, reason: &str) {
        if matches!(self.sinks[sink].phase, SinkPhase::Closed | SinkPhase::Failed) {
            return;
        }
        if self.sinks[sink].phase != SinkPhase::Stopping {
            self.sink_off(sink, reason);
        }
        let instance = std::mem::take(&mut self.sinks[sink].instance);
        self.sinks[sink].phase = SinkPhase::Closed;
        self.sinks[sink].wake_ns = 0;
        self.forget_instance(instance);
    }

    pub(crate) fn arm_interval(&mut self, sink: SinkId) {
        if let Some(every) = self.sinks[sink].feed.interval_ns().filter(|_| !self.sinks[sink].gone) {
            self.sinks[sink].interval_ns = self.timers.arm(self.now.mono_ns + every, Timer::Interval(sink));
        }
    }

    /// `send = "interval"`: the latest of each point that changed meanwhile.
    pub(crate) fn interval_timer(&mut self, sink: SinkId) {
        if self.sinks[sink].interval_ns > self.now.mono_ns {
            return;
        }
        for slot in self.sinks[sink].feed.take_due() {
            let routed = self.sinks[sink].routed.get(slot as usize);
            if let Some(routed) = routed.filter(|routed| routed.lasting == Lasting::Live) {
                let point = routed.point;
                let device = self.points[point].device.map_or(u32::MAX, Id::number);
                let out = crate::route::Outgoing::from_point(
                    point,
                    &self.points[point],
                    busbar_contract::Cause::Poll,
                    false,
                    0,
                    0,
                );
                self.sinks[sink].accept(slot, &out, device, self.now);
            }
        }
        self.sinks[sink].queue.end_of_poll();
        self.mark_sink(sink);
        self.arm_interval(sink);
    }

    /// The whole image as states.
    fn snapshot(&mut self, sink: SinkId) {
        self.sinks[sink].echo.clear();
        for slot in 0..self.sinks[sink].routed.len() as u32 {
            self.send_state(sink, slot, busbar_contract::batch::SNAPSHOT as u8);
        }
        self.sinks[sink].queue.end_of_poll();
    }

    /// After a replay the latest state of each point is sent last (SEMANTICS 8).
    pub(crate) fn send_echoes(&mut self, sink: SinkId) {
        let slots = std::mem::take(&mut self.sinks[sink].echo);
        if slots.is_empty() {
            return;
        }
        for slot in slots {
            self.send_state(sink, slot, 0);
        }
        self.sinks[sink].queue.end_of_poll();
    }

    /// What the table shows of one point, as a record.
    pub(crate) fn send_state(&mut self, sink: SinkId, slot: u32, flags: u8) {
        let routed = self.sinks[sink].routed.get(slot as usize);
        let Some(point) = routed.filter(|routed| routed.lasting == Lasting::Live).map(|routed| routed.point)
        else {
            return;
        };
        let device = self.points[point].device.map_or(u32::MAX, Id::number);
        let cause = busbar_contract::Cause::Integrity;
        let out = crate::route::Outgoing::from_point(point, &self.points[point], cause, false, flags, 0);
        self.sinks[sink].accept(slot, &out, device, self.now);
    }

    /// Time that a record may wait at most.
    pub(crate) fn max_age_ns(&self, sink: SinkId) -> u64 {
        ns(self.sinks[sink].limits.max_age)
    }
}

/// Instances of one sink that may be left behind before it fails (G9).
const MAX_ZOMBIES: u32 = 3;
