//! How the instance of a sink and its far side come and go: open, point list, connect, down, stop.

use busbar_contract::{
    Event, FailureKind, Request,
    describe::Open,
    request::{OfDevice, Points, SinkPoint},
};
use serde_json::Value as Json;

use crate::{
    Core, Output,
    arena::{Id, SinkId},
    backoff,
    channel::{OPEN_DEADLINE_NS, REOPEN, STOP_DEADLINE_NS},
    device::clipped,
    output::LogLevel,
    request::{GRACE_NS, LOCAL_DEADLINE_NS},
    sink::{Lasting, SinkPhase},
    state::{Outcome, Owner, Pending, Work},
    time::{SECOND, ms, ns},
    timers::Timer,
};

/// A far side must come up within.
const CONNECT_DEADLINE_NS: u64 = 30 * SECOND;
/// Instances of one sink that may be left behind before it fails (G9).
const MAX_ZOMBIES: u32 = 3;

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
        if self.stopping
            || self.sinks[sink].handover
            || self.sinks[sink].gone
            || self.sinks[sink].phase != SinkPhase::Closed
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
        state.announcing = 0;
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
        let routed = 0..self.sinks[sink].routed.len() as u32;
        let mut points: Vec<SinkPoint> = routed.filter_map(|slot| self.sink_point(sink, slot)).collect();
        points.extend(self.ghost_points(sink));
        let body = Request::Points(Points { replace: true, points, removed: Vec::new() });
        self.ask_sink(sink, Work::SinkPoints, body, LOCAL_DEADLINE_NS);
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

    pub(crate) fn ask_sink(&mut self, sink: SinkId, work: Work, body: Request, span_ns: u64) {
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
        if matches!(work, Work::SinkGhosts) {
            return self.ghosts_announced(sink, failure.map(|(_, text)| text));
        }
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
        state.begin_live();
        self.begin_image(sink);
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
}
