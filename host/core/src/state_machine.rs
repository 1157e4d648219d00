//! The core itself: its parts, and what one step does.
//!
//! A step takes the clocks and the input, then runs what is due (timers, staleness, polls), and only then lets endpoints
//! and sinks work: an answer that came is not beaten by a deadline that a busy host is late for, nothing is asked of a
//! plugin that the input ended, all reads of one tick leave together, and what one input brought goes to a sink in one
//! delivery.

use std::{collections::BTreeMap, sync::Arc};

use busbar_contract::Event;
use serde_json::Value as Json;

use crate::{
    Input, Now, Output, Switches,
    arena::{Arena, ChannelId, DeviceId, EndpointId, GroupId, PluginId, PointId, SinkId},
    ghosts::Ghosts,
    log::Limiter,
    model::Site,
    pool::Pool,
    reload::Attempt,
    rng::Rng,
    schedule::Schedule,
    select::Selections,
    sink::Sink,
    stale::StaleHeap,
    state::{
        Channel, Command, Commit, Device, Endpoint, Fetch, Group, Instance, Oddities, Owner, Pending, Plugin,
        Queued, StoreWait, Unsent,
    },
    system::SystemPoints,
    table::Point,
    timers::{Timer, Timers},
};

/// The state machine.
#[derive(Debug)]
pub struct Core {
    pub(crate) site: Site,
    pub(crate) switches: Switches,
    pub(crate) now: Now,
    /// Outputs of the running step.
    pub(crate) out: Vec<Output>,
    pub(crate) rng: Rng,
    pub(crate) timers: Timers,
    pub(crate) schedule: Schedule,
    pub(crate) stale: StaleHeap,
    pub(crate) limiter: Limiter,

    pub(crate) plugins: Arena<PluginId, Plugin>,
    pub(crate) endpoints: Arena<EndpointId, Endpoint>,
    pub(crate) channels: Arena<ChannelId, Channel>,
    pub(crate) devices: Arena<DeviceId, Device>,
    pub(crate) groups: Arena<GroupId, Group>,
    pub(crate) points: Arena<PointId, Point>,
    pub(crate) sinks: Arena<SinkId, Sink>,
    /// Devices and sinks in the order of the configuration. `site` keeps each at the place of its number instead, and the
    /// places of what a reload removed stay empty.
    pub(crate) order: Vec<DeviceId>,
    pub(crate) sink_order: Vec<SinkId>,
    /// Counts the configurations applied since the start.
    pub(crate) config_version: u64,
    /// A reload that has not proved yet that it can run.
    pub(crate) attempt: Option<Box<Attempt>>,
    /// What it took away.
    pub(crate) aside: crate::reload_aside::Aside,
    pub(crate) names: BTreeMap<String, PointId>,
    /// Names of points that no device of the configuration has, device part and point part: system points, and points
    /// that a reload removed.
    pub(crate) fixed_names: BTreeMap<PointId, (String, String)>,
    pub(crate) system: SystemPoints,
    pub(crate) metadata: BTreeMap<PointId, Arc<Json>>,
    /// Of those.
    pub(crate) pool: Pool,

    pub(crate) instances: BTreeMap<u64, Instance>,
    pub(crate) next_instance: u64,
    pub(crate) requests: BTreeMap<u64, Pending>,
    pub(crate) next_request: u64,
    pub(crate) commands: BTreeMap<u64, Command>,
    pub(crate) next_command: u64,
    pub(crate) busy: BTreeMap<PointId, u64>,
    pub(crate) selections: Selections,
    pub(crate) audits: BTreeMap<u64, u64>,
    /// Answers by the audit line they wait for; bounded by the disk's queue, which refuses a line at once when full.
    pub(crate) answers: BTreeMap<u64, Unsent>,
    /// Cancels of selections that the host ends, by the audit line they wait for.
    pub(crate) cancels: BTreeMap<u64, Queued>,
    /// The stored document that unlocks commands as soon as it is on disk.
    pub(crate) unlocking: Option<u64>,
    pub(crate) fetches: BTreeMap<u64, Fetch>,
    pub(crate) stores: BTreeMap<u64, StoreWait>,
    /// Stored state that could not be read, by owner and key, with the reason; and how often that was so.
    pub(crate) lost_state: BTreeMap<(String, String), String>,
    pub(crate) lost_state_total: u64,
    pub(crate) commits: BTreeMap<u32, Commit>,
    pub(crate) next_commit: u32,

    pub(crate) dirty_endpoints: Vec<EndpointId>,
    pub(crate) touched_sinks: Vec<SinkId>,
    /// Tokens whose records were confirmed or lost in this step.
    pub(crate) settled_commits: Vec<(u32, bool)>,
    pub(crate) clock_synced: bool,
    /// The state of the clock was told at least once.
    pub(crate) clock_known: bool,
    /// Everything of one plugin moves to another version.
    pub(crate) handover: Option<crate::handover::Handover>,
    /// The version on trial.
    pub(crate) trial: Option<crate::upgrade::Trial>,
    /// Devices whose points keep their quality for a moment.
    pub(crate) keeping: Vec<DeviceId>,
    /// [`Timer::Handover`] is armed.
    pub(crate) looking: bool,
    pub(crate) stopping: bool,
    /// The drivers are gone: sinks deliver what is left until then.
    pub(crate) drain_until_ns: Option<u64>,
    /// Sinks are gone: last transactions of queues on disk are waited for until then.
    pub(crate) journals_until_ns: Option<u64>,
    pub(crate) ghosts: Ghosts,
    pub(crate) oddities: Oddities,
}

impl Core {
    /// Takes one input and appends what must be done to `out`. Never blocks, never fails, and a late call only means
    /// that reads are skipped and counted.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        std::mem::swap(&mut self.out, out);
        // A monotonic clock does not go back; a caller that mixes its readings up must not stop the schedule.
        self.now = Now { mono_ns: now.mono_ns.max(self.now.mono_ns), wall_ns: now.wall_ns };
        self.take(input);
        self.run_due();
        self.check_attempt();
        self.work();
        std::mem::swap(&mut self.out, out);
    }

    /// Monotonic nanoseconds at which [`Input::Tick`] is due at the latest; `None` = only when something happens.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        [self.timers.next(), self.schedule.next(), self.stale.next()].into_iter().flatten().min()
    }

    fn run_due(&mut self) {
        let now_ns = self.now.mono_ns;
        while let Some(timer) = self.timers.pop(now_ns) {
            self.run_timer(timer);
        }
        while let Some(group) = self.stale.pop(now_ns) {
            self.check_stale(group);
        }
        while let Some(due) = self.schedule.pop(now_ns) {
            self.poll_due(due);
        }
    }

    fn run_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Housekeeping => self.housekeeping(),
            Timer::Drain => {}
            Timer::Handover => self.look_at_kept(),
            Timer::Plugin(plugin) => self.check_heartbeat(plugin),
            Timer::Channel(channel) => self.channel_timer(channel),
            Timer::Instance(instance) => self.check_deadlines(instance),
            Timer::Device(device) => self.device_timer(device),
            Timer::Probe(device) => self.probe_timer(device),
            Timer::Rebind(device) => self.rebind_timer(device),
            Timer::Command(command) => self.command_timer(command),
            Timer::Fetch(fetch) => self.fetch_timer(fetch),
            Timer::Select(point) => self.selection_timer(point),
            Timer::Sink(sink) => self.sink_timer(sink),
            Timer::Retry(sink) => self.retry_timer(sink),
            Timer::Interval(sink) => self.interval_timer(sink),
            // `check_attempt` looks after every step.
            Timer::Reload => {}
            Timer::Journal(sink) => self.journal_timer(sink),
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::PluginReady(ready) => self.plugin_ready(*ready),
            Input::PluginFailed { plugin, reason } => self.plugin_failed(plugin, reason),
            Input::OpenPostponed { instance, reason } => self.open_postponed(instance, &reason),
            Input::OpenFailed { instance, reason } => self.open_failed(instance, &reason),
            Input::NotTaken { instance, request, delivery, code } => {
                self.not_taken(instance, request, delivery, code);
            }
            Input::Event { plugin, instance, request, event } => {
                self.take_event(plugin, instance, request, event);
            }
            Input::Push(push) => self.take_push(push),
            Input::Malformed { plugin, instance, request, error } => {
                self.malformed(plugin, instance, request, &error);
            }
            Input::Overrun { instance, samples } => self.overrun(instance, samples),
            Input::Audited { audit, error } => self.audited(audit, &error),
            Input::Stored { store, result } => self.stored(store, result),
            Input::JournalOpened { sink, result } => self.journal_opened(sink, result),
            Input::Journaled { sink, number, result } => self.journaled(sink, number, result),
            Input::JournalLoaded { sink, result } => self.journal_loaded(sink, result),
            Input::JournalAgain { sink, ledger, again } => self.journal_again(sink, ledger, again),
            Input::Clock { synchronised } => self.clock_state(synchronised),
            Input::Operator(operator) => self.operator(operator),
            Input::Version { plugin, of, isolation } => self.add_version(plugin, of, isolation),
            Input::Handover(request) => self.begin_handover(request),
            Input::CancelHandover { id, reason } => self.cancel_handover(id, reason),
            Input::Retired { plugin } => self.retire_version(plugin),
            Input::Reload(reload) => self.reload(*reload),
            Input::Shutdown => self.shutdown(),
        }
    }

    fn take_event(&mut self, plugin: usize, instance: u64, request: u64, event: Event) {
        if let Event::Heartbeat(_) = event {
            return self.heartbeat(plugin);
        }
        let Some(known) = self.instances.get(&instance) else {
            self.oddities.late += 1;
            return;
        };
        let owner = known.owner;
        if self.plugins.at(plugin) != Some(known.plugin) {
            self.oddities.foreign += 1;
            return;
        }
        match event {
            Event::Done(done) => self.request_done(instance, request, done),
            Event::Failed(failure) if request == 0 => self.instance_failed(instance, &failure),
            Event::Failed(failure) => self.request_failed(instance, request, failure),
            Event::Stopped => self.instance_stopped(instance),
            Event::StatePut(entry) => self.state_put(instance, request, entry),
            Event::StateGet(entry) => self.state_get(instance, request, &entry),
            Event::Metric(metric) => self.take_metric(instance, metric),
            Event::Fault(fault) => self.take_fault(instance, fault),
            event => match owner {
                Owner::Channel(channel) => self.driver_event(channel, instance, request, event),
                Owner::Sink(sink) => self.sink_event(sink, instance, request, event),
            },
        }
    }

    /// Endpoints submit, sinks deliver, tokens are answered.
    fn work(&mut self) {
        self.run_handover();
        let mut endpoints = std::mem::take(&mut self.dirty_endpoints);
        endpoints.sort_unstable_by_key(|endpoint| (self.plugin_of(*endpoint), *endpoint));
        for endpoint in endpoints.drain(..) {
            self.run_endpoint(endpoint);
        }
        if self.dirty_endpoints.is_empty() {
            self.dirty_endpoints = endpoints;
        }
        // A delivery may settle tokens, and never touches a further sink.
        let mut sinks = std::mem::take(&mut self.touched_sinks);
        for sink in sinks.drain(..) {
            self.pump(sink);
        }
        if self.touched_sinks.is_empty() {
            self.touched_sinks = sinks;
        }
        self.answer_commits();
        self.stop_drained_sinks();
        self.finish_journals();
    }

    fn plugin_of(&self, endpoint: EndpointId) -> Option<PluginId> {
        self.endpoints[endpoint].channels.first().map(|channel| self.channels[*channel].plugin)
    }

    pub(crate) fn mark_endpoint(&mut self, endpoint: EndpointId) {
        if !std::mem::replace(&mut self.endpoints[endpoint].dirty, true) {
            self.dirty_endpoints.push(endpoint);
        }
    }

    pub(crate) fn mark_sink(&mut self, sink: SinkId) {
        if !std::mem::replace(&mut self.sinks[sink].touched, true) {
            self.touched_sinks.push(sink);
        }
    }
}
