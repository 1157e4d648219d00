//! Requests to plugins and their completions (R4): numbers never come back, an answer is matched by number and instance,
//! and what is late, foreign or repeated is dropped and counted. A request that is 250 ms overdue means that the instance
//! is stalled: its devices are lost at once, and when it does not recover it is stopped and opened anew.

use busbar_contract::{
    Cause, Failure, FailureKind, Malformed, Request,
    binary::Read,
    event::Done,
    request::{Bind, BindGroup, BindPoint, OfDevice, Subscribe},
};

use crate::{
    Core, Output,
    arena::{DeviceId, GroupId, Id},
    output::LogLevel,
    state::{Outcome, Owner, Pending, Work},
    time::{MS, SECOND, ms, ns},
    timers::Timer,
};

/// What the host waits beyond a deadline before it calls the instance stalled.
pub(crate) const GRACE_NS: u64 = 250 * MS;
/// A stalled instance that does not answer for so long is stopped.
const STALL_RESTART_NS: u64 = 5 * SECOND;
/// Exchanges that a connect may take (association, authentication).
const CONNECT_EXCHANGES: u64 = 3;
/// Requests without exchange with the device (ATTACH, BIND, POINTS).
pub(crate) const LOCAL_DEADLINE_NS: u64 = 5 * SECOND;
/// Code of the waist: the receiver does not know this operation.
const UNSUPPORTED: u32 = 3;
/// Longest deadline, whatever the number of exchanges.
const MAX_DEADLINE_NS: u64 = 300 * SECOND;

impl Core {
    /// Hands a request to its instance.
    pub(crate) fn submit(&mut self, mut pending: Pending, body: Request) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        pending.number = request;
        let instance = pending.instance;
        self.out.push(Output::Submit { instance, request, body });
        let wake_ns = pending.deadline_ns + GRACE_NS;
        self.requests.insert(request, pending);
        if let Some(state) = self.instances.get_mut(&instance) {
            state.pending.push(request);
            if state.wake_ns == 0 || wake_ns < state.wake_ns {
                state.wake_ns = self.timers.arm(wake_ns, Timer::Instance(instance));
            }
        }
        request
    }

    /// Hands over something that has no completion.
    pub(crate) fn tell(&mut self, instance: u64, request: u64, body: Request) {
        if self.instances.get(&instance).is_some_and(|state| !state.stopping) {
            self.out.push(Output::Submit { instance, request, body });
        }
    }

    /// The request and its deadline, or `None` when it is no longer wanted.
    pub(crate) fn request_body(&mut self, device: DeviceId, work: &Work) -> Option<(Request, u64)> {
        let number = device.number();
        let of = |deadline_ns: u64| OfDevice { device: Some(number), deadline_ms: ms(deadline_ns) };
        let exchange_ns = self.exchange_ns(device);
        let (body, span_ns) = match work {
            Work::Attach => (Request::Attach(self.attach_body(device)?), LOCAL_DEADLINE_NS),
            Work::Bind => (Request::Bind(self.bind_body(device)?), LOCAL_DEADLINE_NS),
            Work::Connect => {
                let span = exchange_ns.saturating_mul(CONNECT_EXCHANGES).min(MAX_DEADLINE_NS);
                (Request::Connect(of(span)), span)
            }
            Work::Disconnect => (Request::Disconnect(of(exchange_ns)), exchange_ns),
            Work::Probe => (Request::Probe(of(exchange_ns)), exchange_ns),
            Work::Subscribe => {
                let span = exchange_ns.saturating_mul(CONNECT_EXCHANGES).min(MAX_DEADLINE_NS);
                (Request::Subscribe(self.subscribe_body(device, ms(span))?), span)
            }
            Work::Read { group, cause, .. } => {
                let exchanges = u64::from(self.groups[*group].exchanges.max(1));
                let span = exchange_ns.saturating_mul(exchanges).min(MAX_DEADLINE_NS);
                (
                    Request::Read(Read {
                        group: group.number(),
                        deadline_ms: ms(span) as u32,
                        cause: *cause,
                    }),
                    span,
                )
            }
            Work::Command(command) => return self.command_body(*command),
            Work::CancelSelection { point, origin } => {
                (self.cancel_body(device, *point, origin, ms(exchange_ns)), exchange_ns)
            }
            Work::Fetch(fetch) => return self.fetch_body(*fetch),
            Work::Browse(fetch) => return self.browse_body(*fetch),
            Work::SinkPoints | Work::SinkGhosts | Work::SinkConnect => return None,
        };
        Some((body, self.now.mono_ns + span_ns))
    }

    /// Time of one exchange with its repetitions.
    pub(crate) fn exchange_ns(&self, device: DeviceId) -> u64 {
        self.site.devices.get(device.number() as usize).map_or(SECOND, |config| {
            ns(config.response_timeout)
                .max(MS)
                .saturating_mul(u64::from(config.retries) + 1)
                .min(MAX_DEADLINE_NS)
        })
    }

    fn attach_body(&self, device: DeviceId) -> Option<busbar_contract::request::Attach> {
        let config = self.site.devices.get(device.number() as usize)?;
        Some(busbar_contract::request::Attach {
            device: device.number(),
            name: config.name.clone(),
            connection: config.connection.clone(),
            settings: config.settings.clone(),
            response_timeout_ms: ms(ns(config.response_timeout)),
            retries: config.retries,
        })
    }

    fn bind_body(&self, device: DeviceId) -> Option<Bind> {
        let config = self.site.devices.get(device.number() as usize)?;
        let points = self
            .point_ids(device)
            .filter_map(|id| {
                let point = config.points.get(self.points[id].index)?;
                Some(BindPoint {
                    point: id.number(),
                    name: point.name.clone(),
                    spec: (*point.spec).clone(),
                    writable: point.writable,
                })
            })
            .collect();
        let groups = self.devices[device].groups.iter().map(|group| self.bind_group(*group)).collect();
        Some(Bind { device: device.number(), points, groups })
    }

    fn bind_group(&self, group: GroupId) -> BindGroup {
        let points = self.groups[group].points.iter().map(|point| point.number()).collect();
        BindGroup { group: group.number(), points }
    }

    fn subscribe_body(&self, device: DeviceId, deadline_ms: u64) -> Option<Subscribe> {
        let config = self.site.devices.get(device.number() as usize)?;
        Some(Subscribe {
            device: device.number(),
            points: self.point_ids(device).map(Id::number).collect(),
            integrity_ms: ns(config.integrity) / MS,
            deadline_ms,
        })
    }

    /// The request that `instance` answers, taken out; anything else is counted.
    fn complete(&mut self, instance: u64, request: u64) -> Option<Pending> {
        if self.requests.get(&request).is_none_or(|pending| pending.instance != instance) {
            self.oddities.unexpected += 1;
            return None;
        }
        let mut pending = self.requests.remove(&request)?;
        self.free_turn(&mut pending);
        if let Some(state) = self.instances.get_mut(&instance) {
            state.pending.retain(|other| *other != request);
        }
        self.maybe_recovered(instance);
        Some(pending)
    }

    pub(crate) fn request_done(&mut self, instance: u64, request: u64, done: Done) {
        if let Some(pending) = self.complete(instance, request) {
            self.finished(instance, pending, Outcome::Done(done));
        }
    }

    pub(crate) fn request_failed(&mut self, instance: u64, request: u64, failure: Failure) {
        if let Some(pending) = self.complete(instance, request) {
            self.finished(instance, pending, Outcome::Failed(failure));
        }
    }

    /// The last batch of a read arrived.
    pub(crate) fn request_samples(&mut self, instance: u64, request: u64) {
        if let Some(pending) = self.complete(instance, request) {
            self.finished(instance, pending, Outcome::Samples);
        }
    }

    fn finished(&mut self, instance: u64, pending: Pending, outcome: Outcome) {
        let owner = self.instances.get(&instance).map(|state| state.owner);
        match (pending.device, owner) {
            (None, Some(Owner::Sink(sink))) => self.sink_request_finished(sink, &pending.work, outcome),
            (Some(device), _) => self.device_request_finished(device, pending, outcome),
            _ => {}
        }
    }

    pub(crate) fn malformed(&mut self, plugin: usize, instance: u64, request: u64, error: &Malformed) {
        let Some(plugin) = self.plugins.at(plugin) else { return };
        self.plugins[plugin].malformed += 1;
        let name = self.plugins[plugin].name.clone();
        self.log(
            LogLevel::Warn,
            ("malformed", u64::from(plugin.number())),
            vec![("plugin", name)],
            format!("the plugin sent something that breaks the contract: {error}"),
        );
        self.trial_trouble(plugin, &format!("it broke the contract: {error}"));
        let own = self.instances.get(&instance).is_some_and(|state| state.plugin == plugin);
        if own && self.requests.get(&request).is_some_and(|pending| pending.instance == instance) {
            self.request_failed(instance, request, Failure::new(FailureKind::Bug, error.to_string()));
        }
    }

    /// The instance did not take a request or a delivery.
    pub(crate) fn not_taken(&mut self, instance: u64, request: u64, delivery: bool, code: u32) {
        if delivery {
            return self.delivery_not_taken(instance, request);
        }
        if self.requests.get(&request).is_some_and(|pending| pending.instance == instance)
            && let Some(pending) = self.complete(instance, request)
        {
            self.finished(instance, pending, Outcome::NotTaken { unsupported: code == UNSUPPORTED });
        }
    }

    /// The deadline of the oldest request of an instance may have passed.
    pub(crate) fn check_deadlines(&mut self, instance: u64) {
        let now_ns = self.now.mono_ns;
        let Some(state) = self.instances.get(&instance) else { return };
        if state.wake_ns > now_ns {
            return;
        }
        let next = state
            .pending
            .iter()
            .filter_map(|request| self.requests.get(request))
            .map(|pending| pending.deadline_ns + GRACE_NS)
            .min();
        let overdue = next.is_some_and(|at| at <= now_ns);
        let stalled_ns = state.stalled_ns;
        let wake = match (next, stalled_ns) {
            (Some(at), _) if !overdue => Some(at),
            (Some(_), Some(since)) => Some(since + STALL_RESTART_NS).filter(|at| *at > now_ns),
            (Some(_), None) => Some(now_ns + STALL_RESTART_NS),
            (None, _) => None,
        };
        let wake_ns = wake.map_or(0, |at| self.timers.arm(at, Timer::Instance(instance)));
        if let Some(state) = self.instances.get_mut(&instance) {
            state.wake_ns = wake_ns;
        }
        match (overdue, stalled_ns) {
            (true, None) => self.instance_stalled(instance),
            (true, Some(since)) if now_ns >= since + STALL_RESTART_NS => self.restart_instance(instance),
            _ => {}
        }
    }

    fn instance_stalled(&mut self, instance: u64) {
        let now_ns = self.now.mono_ns;
        let Some(state) = self.instances.get_mut(&instance) else { return };
        state.stalled_ns = Some(now_ns);
        let (owner, pending, plugin) = (state.owner, state.pending.clone(), state.plugin);
        for request in pending {
            // The line belongs to others meanwhile.
            if let Some(mut pending) = self.requests.remove(&request) {
                self.free_turn(&mut pending);
                self.requests.insert(request, pending);
            }
        }
        let reason = "the plugin did not complete a request by its deadline";
        self.trial_trouble(plugin, reason);
        match owner {
            Owner::Channel(channel) => self.lose_channel(channel, reason),
            Owner::Sink(sink) => self.sink_down(sink, reason),
        }
    }

    /// A stalled instance completed what was overdue.
    fn maybe_recovered(&mut self, instance: u64) {
        let now_ns = self.now.mono_ns;
        let Some(state) = self.instances.get(&instance) else { return };
        let overdue = state
            .pending
            .iter()
            .filter_map(|request| self.requests.get(request))
            .any(|pending| pending.deadline_ns + GRACE_NS <= now_ns);
        if state.stalled_ns.is_some()
            && !overdue
            && let Some(state) = self.instances.get_mut(&instance)
        {
            state.stalled_ns = None;
        }
    }

    fn restart_instance(&mut self, instance: u64) {
        let Some(owner) = self.instances.get(&instance).map(|state| state.owner) else { return };
        match owner {
            Owner::Channel(channel) => self.stop_channel(channel),
            Owner::Sink(sink) => self.stop_sink(sink),
        }
    }

    /// All requests of an instance end with it.
    pub(crate) fn drop_requests(&mut self, instance: u64) {
        let Some(state) = self.instances.get_mut(&instance) else { return };
        for request in std::mem::take(&mut state.pending) {
            if let Some(mut pending) = self.requests.remove(&request) {
                self.free_turn(&mut pending);
            }
        }
    }

    /// Reads a group soon, beside the schedule (feedback, gap, unblock).
    pub(crate) fn read_now(&mut self, group: GroupId) {
        let device = self.groups[group].device;
        if !self.is_online(device) {
            return;
        }
        if self.groups[group].busy {
            self.groups[group].again = true;
            return;
        }
        self.groups[group].busy = true;
        self.ask(device, Work::Read { group, cause: Cause::Poll, due_ns: 0 });
    }
}
