//! A plant whose driver and sink come in versions: each version behaves in its own way, and devices accept one session
//! at a time. Deterministic by seed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    time::Duration,
};

use busbar_contract::{
    Action, Answer, Cause, Describe, Endpoint, Event, Failure, FailureKind, Flags, Origin, Quality, Request,
    Samples, Stage, Value, batch,
    binary::{Ack, Verdict},
    describe::{Open, PluginKind, Protocol, Schemas, SinkTraits},
    event::{BoundGroup, Done, Heartbeat},
};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{Ask, HandoverRequest, Operator, OperatorCommand, PluginReady, Push},
    model::*,
    output::{HandoverStep, Reply},
};

pub(crate) const MS: u64 = 1_000_000;
const WALL: i64 = 1_767_225_600_000_000_000;

/// How a version is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Its answers are bad.
    BadQuality,
    /// It leaves a point out.
    LeavesOut,
    /// It does not know a point of the configuration.
    Rejects,
    /// It refuses the configuration when it is opened.
    RefusesOpen,
    /// It never opens.
    NeverOpens,
    /// Its connections fail.
    NoConnect,
    /// It takes requests and answers nothing.
    Hangs,
    /// It does not stop.
    HangsInStop,
    /// Its process dies after so long.
    Crashes(u64),
    /// No heartbeat after so long.
    Freezes(u64),
    /// It panics in reads.
    Panics,
    /// A sink that takes records and confirms nothing.
    Swallows,
    /// A sink that refuses every record for ever.
    RefusesRecords,
}

pub(crate) struct Version {
    pub(crate) kind: PluginKind,
    pub(crate) fault: Fault,
    pub(crate) alive: bool,
    pub(crate) frozen: bool,
    /// Endpoints are shared by pairs of devices in this version.
    pub(crate) pairs: bool,
}

struct Instance {
    plugin: usize,
    /// Endpoint key, or the name of the sink.
    key: String,
    groups: BTreeMap<u32, Vec<u32>>,
    stopped: bool,
    stopping: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    Input(u64),
    Crash(usize),
    Freeze(usize),
    Killed(usize),
}

/// The world.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) versions: Vec<Version>,
    instances: BTreeMap<u64, Instance>,
    heap: BinaryHeap<Reverse<(u64, Later)>>,
    inputs: BTreeMap<u64, Input>,
    next_input: u64,
    next_beat: u64,
    rng: u64,
    backlog: VecDeque<Input>,
    stepping: bool,
    /// Longest answer time.
    pub(crate) slow_ms: u64,
    pub(crate) ended: BTreeMap<u64, Result<(), String>>,
    pub(crate) moved: usize,
    /// Qualities other than good that reached the sink, by point.
    pub(crate) bad: BTreeMap<u32, String>,
    pub(crate) replies: BTreeMap<u64, Vec<Answer>>,
    pub(crate) executed: Vec<u32>,
    pub(crate) killed: BTreeSet<usize>,
    pub(crate) delivered: u64,
    /// Time of the last good sample at the sink and the longest gap, by point.
    pub(crate) last: BTreeMap<u32, u64>,
    pub(crate) longest_gap: u64,
}

fn describe(kind: PluginKind, version: usize) -> Describe {
    Describe {
        name: "x".into(),
        kind,
        version: version.to_string(),
        description: String::new(),
        protocol: Protocol { major: 1, minor: 0 },
        needs: 0,
        sdk: String::new(),
        rustc: String::new(),
        build: String::new(),
        unwind: true,
        ops: Vec::new(),
        schemas: Schemas::default(),
        reasons: vec!["none".into()],
        sink: SinkTraits { durable: true, ..SinkTraits::default() },
    }
}

fn site(devices: usize) -> Site {
    let plugin = |name: &str, kind| Plugin {
        name: name.into(),
        kind,
        path: None,
        sha256: None,
        isolation: Isolation::Process,
        workers: 1,
        memory_limit: MEMORY_LIMIT,
    };
    let devices: Vec<Device> = (0..devices)
        .map(|at| Device {
            name: format!("d{at}"),
            driver: "drv".into(),
            poll_interval: Duration::from_millis(200),
            response_timeout: Duration::from_millis(500),
            connection: serde_json::json!({ "at": at }),
            points: (0..2)
                .map(|p| Point {
                    name: format!("p{p}"),
                    writable: p == 0,
                    range: Some([-1e9, 1e9]),
                    poll_interval: Duration::from_millis(200),
                    stale_after: Duration::from_secs(3),
                    invalid_after: Duration::from_secs(30),
                    ..Point::default()
                })
                .collect(),
            ..Device::default()
        })
        .collect();
    let routes = (0..devices.len())
        .flat_map(|device| (0..2).map(move |point| Route { device, point, map: Vec::new() }))
        .collect();
    Site {
        plugins: vec![plugin("drv", PluginKind::Driver), plugin("snk", PluginKind::Sink)],
        sinks: vec![Sink { name: "s".into(), plugin: "snk".into(), routes, ..Sink::default() }],
        devices,
        ..Site::default()
    }
}

impl World {
    /// Version 0 of driver and sink (indexes 0 and 1) run, everything is online.
    pub(crate) fn running(seed: u64, devices: usize) -> Self {
        let now = Now { mono_ns: 0, wall_ns: WALL };
        let version = |kind| Version { kind, fault: Fault::None, alive: true, frozen: false, pairs: false };
        let mut world = Self {
            core: Core::new(site(devices), Switches::default(), seed, now),
            now,
            versions: vec![version(PluginKind::Driver), version(PluginKind::Sink)],
            instances: BTreeMap::new(),
            heap: BinaryHeap::new(),
            inputs: BTreeMap::new(),
            next_input: 0,
            next_beat: 0,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            backlog: VecDeque::new(),
            stepping: false,
            slow_ms: 20,
            ended: BTreeMap::new(),
            moved: 0,
            bad: BTreeMap::new(),
            replies: BTreeMap::new(),
            executed: Vec::new(),
            killed: BTreeSet::new(),
            delivered: 0,
            last: BTreeMap::new(),
            longest_gap: 0,
        };
        world.ready(0);
        world.ready(1);
        world.pass(5_000);
        assert!(world.all_good(), "{:?}", world.states());
        world.bad.clear();
        world.last.clear();
        world.longest_gap = 0;
        world
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % below.max(1)
    }

    /// Announces a version of `of` and lets it become ready.
    pub(crate) fn add(&mut self, of: usize, fault: Fault, pairs: bool) -> usize {
        let plugin = self.versions.len();
        let kind = self.versions[of].kind;
        self.versions.push(Version { kind, fault, alive: true, frozen: false, pairs });
        self.step(Input::Version { plugin, of, isolation: Isolation::Process });
        self.ready(plugin);
        match fault {
            Fault::Crashes(ms) => self.later(ms, Later::Crash(plugin)),
            Fault::Freezes(ms) => self.later(ms, Later::Freeze(plugin)),
            _ => {}
        }
        plugin
    }

    pub(crate) fn ready(&mut self, plugin: usize) {
        let kind = self.versions[plugin].kind;
        let pairs = self.versions[plugin].pairs;
        let endpoints = (0..self.core.site().devices.len())
            .filter(|_| kind == PluginKind::Driver)
            .map(|at| {
                let key = if pairs { format!("tcp:{}", at / 2 * 2) } else { format!("tcp:{at}") };
                (at, Ok(Endpoint { key, exclusive: true, parallel: 1, lock_path: None }))
            })
            .collect();
        self.versions[plugin].alive = true;
        self.step(Input::PluginReady(Box::new(PluginReady {
            plugin,
            describe: describe(kind, plugin),
            endpoints,
        })));
    }

    pub(crate) fn hand_over(&mut self, id: u64, from: usize, to: usize, timeout_ms: u64) {
        let request = HandoverRequest { id, from, to, timeout_ms, watch_ms: timeout_ms, rehearse: true };
        self.step(Input::Handover(request));
    }

    pub(crate) fn command(&mut self, id: u64, point: &str) {
        let command = OperatorCommand {
            point: point.into(),
            action: Action::Operate,
            value: serde_json::json!(1),
            origin: Origin { sink: "cli".into(), client: "test".into(), category: 0, ident: String::new() },
            deadline_ms: 2_000,
        };
        self.step(Input::Operator(Operator { id, ask: Ask::Command(command) }));
    }

    pub(crate) fn kill(&mut self, plugin: usize) {
        self.versions[plugin].alive = false;
        for instance in self.instances.values_mut().filter(|instance| instance.plugin == plugin) {
            instance.stopped = true;
        }
        self.step(Input::PluginFailed { plugin, reason: "signal 11".into() });
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ns + ms * MS;
        loop {
            let heap = self.heap.peek().map(|Reverse((at, _))| *at);
            let at = [self.core.next_wake(), heap, Some(self.next_beat), Some(until)]
                .into_iter()
                .flatten()
                .min()
                .unwrap()
                .max(self.now.mono_ns);
            self.now.wall_ns += (at - self.now.mono_ns) as i64;
            self.now.mono_ns = at;
            if at >= until {
                return;
            }
            if at >= self.next_beat {
                self.next_beat = at + 250 * MS;
                self.beat();
            }
            while self.heap.peek().is_some_and(|Reverse((due, _))| *due <= at) {
                let Some(Reverse((_, later))) = self.heap.pop() else { break };
                self.happen(later);
            }
            self.step(Input::Tick);
        }
    }

    fn beat(&mut self) {
        for plugin in 0..self.versions.len() {
            if self.versions[plugin].alive && !self.versions[plugin].frozen {
                let event = Event::Heartbeat(Heartbeat { beat: 0 });
                self.step(Input::Event { plugin, instance: 0, request: 0, event });
            }
        }
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::Input(number) => {
                let Some(input) = self.inputs.remove(&number) else { return };
                let instance = match &input {
                    Input::Event { instance, .. } => *instance,
                    Input::Push(push) => push.instance,
                    _ => 0,
                };
                let Some(state) = self.instances.get_mut(&instance) else { return };
                if state.stopped {
                    return;
                }
                if matches!(&input, Input::Event { event: Event::Stopped, .. }) {
                    state.stopped = true;
                }
                self.step(input);
            }
            Later::Crash(plugin) | Later::Killed(plugin) => {
                if self.versions[plugin].alive {
                    self.kill(plugin);
                }
            }
            Later::Freeze(plugin) => self.versions[plugin].frozen = true,
        }
    }

    fn later(&mut self, ms: u64, later: Later) {
        self.heap.push(Reverse((self.now.mono_ns + ms * MS, later)));
    }

    fn send(&mut self, ms: u64, input: Input) {
        let number = self.next_input;
        self.next_input += 1;
        self.inputs.insert(number, input);
        self.later(ms, Later::Input(number));
    }

    fn event(&mut self, ms: u64, instance: u64, request: u64, event: Event) {
        let plugin = self.instances[&instance].plugin;
        self.send(ms, Input::Event { plugin, instance, request, event });
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.backlog.push_back(input);
        // Inputs that an output brings come after the outputs before them, as at the real edge.
        if self.stepping {
            return;
        }
        self.stepping = true;
        while let Some(input) = self.backlog.pop_front() {
            let mut out = Vec::new();
            self.core.step(self.now, input, &mut out);
            if let Err(error) = self.core.check_invariants() {
                panic!("at {} ms: {error}", self.now.mono_ns / MS);
            }
            for output in out {
                self.carry(output);
            }
        }
        self.stepping = false;
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Open { plugin, instance, config } => self.open(plugin, instance, &config),
            Output::Submit { instance, request, body } => self.submit(instance, request, &body),
            Output::Deliver { instance, first, samples, .. } => self.deliver(instance, first, &samples),
            Output::Stop { instance, .. } => {
                let state = self.instances.get_mut(&instance).expect("an instance");
                state.stopping = true;
                if self.versions[self.instances[&instance].plugin].fault != Fault::HangsInStop {
                    let ms = 1 + self.random(20);
                    self.event(ms, instance, 0, Event::Stopped);
                }
            }
            Output::Abandon { plugin, .. } => {
                self.killed.insert(plugin);
                self.later(5, Later::Killed(plugin));
            }
            Output::Audit { audit, .. } if audit != 0 => {
                self.step(Input::Audited { audit, error: String::new() });
            }
            Output::Reply { id, reply: Reply::Command(answer) } => {
                self.replies.entry(id).or_default().push(answer);
            }
            Output::Handover { step: HandoverStep::Moved { .. }, .. } => self.moved += 1,
            Output::Handover { id, step: HandoverStep::Ended(result) } => {
                assert!(self.ended.insert(id, result).is_none(), "one end");
            }
            _ => {}
        }
    }

    fn open(&mut self, plugin: usize, instance: u64, config: &Open) {
        assert!(self.versions[plugin].alive, "version {plugin} does not run and is asked to open");
        let key = match config {
            Open::Driver { endpoint, .. } => endpoint.clone(),
            Open::Sink { name, .. } => name.clone(),
        };
        let holder = self.instances.iter().find(|(_, other)| other.key == key && !other.stopped);
        assert!(
            holder.is_none(),
            "{key} is opened in {plugin} while {:?} holds it",
            holder.map(|(id, _)| id)
        );
        self.instances.insert(
            instance,
            Instance { plugin, key, groups: BTreeMap::new(), stopped: false, stopping: false },
        );
        match self.versions[plugin].fault {
            Fault::RefusesOpen => {
                self.instances.get_mut(&instance).expect("just made").stopped = true;
                self.step(Input::OpenFailed { instance, reason: "unknown key".into() });
            }
            Fault::NeverOpens => {}
            _ => self.event(1, instance, 0, Event::Opened),
        }
    }

    fn deliver(&mut self, instance: u64, first: u64, samples: &Samples) {
        let state = &self.instances[&instance];
        assert!(!state.stopping && !state.stopped, "a delivery to a sink that was asked to stop");
        let plugin = state.plugin;
        for sample in &samples.samples {
            let quality = Quality(sample.quality);
            if quality.is_good() {
                let now_ns = self.now.mono_ns;
                if let Some(last) = self.last.insert(sample.point, now_ns) {
                    self.longest_gap = self.longest_gap.max(now_ns - last);
                }
            } else {
                self.bad.insert(sample.point, quality.to_string());
            }
        }
        self.delivered += samples.samples.len() as u64;
        if self.versions[plugin].fault == Fault::Swallows {
            return;
        }
        let count = samples.samples.len() as u32;
        let refuses = self.versions[plugin].fault == Fault::RefusesRecords;
        let verdict = if refuses { Verdict::Rejected } else { Verdict::Delivered };
        let acks = vec![Ack { first, count, verdict, reason: u16::from(refuses) }];
        let ms = 1 + self.random(5);
        self.event(ms, instance, 0, Event::Ack { lane: 0, acks });
    }

    fn submit(&mut self, instance: u64, request: u64, body: &Request) {
        let state = &self.instances[&instance];
        assert!(!state.stopping, "a request to an instance that was asked to stop: {body:?}");
        let fault = self.versions[state.plugin].fault;
        let ms = 1 + self.random(self.slow_ms);
        let failed = |kind, text: &str| Event::Failed(Failure::new(kind, text));
        match body {
            Request::Answer(_) | Request::Committed(_) | Request::Cancel(_) => {}
            _ if fault == Fault::Hangs && !matches!(body, Request::Attach(_) | Request::Bind(_)) => {}
            Request::Connect(of) if of.device.is_some() && fault == Fault::NoConnect => {
                self.event(ms, instance, request, failed(FailureKind::Session, "connection refused"));
            }
            Request::Bind(bind) => {
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                let known = bind.groups.iter().map(|group| (group.group, group.points.clone()));
                let groups_of: Vec<(u32, Vec<u32>)> = known.collect();
                self.instances.get_mut(&instance).expect("open").groups.extend(groups_of);
                let mut done = Done { groups, ..Done::default() };
                if fault == Fault::Rejects {
                    let point = bind.points[0].point;
                    done.rejected.push(busbar_contract::event::Rejected { point, reason: "no".into() });
                }
                self.event(ms, instance, request, Event::Done(done));
            }
            Request::Read(_) if fault == Fault::Panics => {
                self.event(ms, instance, request, failed(FailureKind::Bug, "panicked"));
            }
            Request::Read(read) => self.read(ms, instance, request, read.group, fault),
            Request::Command(command) => {
                self.executed.push(command.point);
                let answer = Some(Answer::stage(Stage::Finished));
                let done = Done { answer, ..Done::default() };
                self.event(ms * 10, instance, request, Event::Done(done));
            }
            _ => self.event(ms, instance, request, Event::Done(Done::default())),
        }
    }

    fn read(&mut self, ms: u64, instance: u64, request: u64, group: u32, fault: Fault) {
        let mut samples = Samples::default();
        let quality =
            if fault == Fault::BadQuality { Quality::INVALID.with(Quality::FAILURE) } else { Quality::GOOD };
        let mut points = self.instances[&instance].groups[&group].clone();
        match fault {
            Fault::LeavesOut => drop(points.pop()),
            Fault::Rejects => drop(points.remove(0)),
            _ => {}
        }
        for point in points {
            samples.push(point, self.now.wall_ns, &Value::Int(1), quality, Flags::new(Cause::Poll, 0));
        }
        let push = Push { instance, request, token: 0, flags: batch::LAST, samples };
        self.send(ms, Input::Push(push));
    }

    pub(crate) fn states(&self) -> Vec<String> {
        let devices = self.core.devices();
        let devices = devices.iter().map(|device| format!("{} {}", device.state.as_str(), device.reason));
        devices.chain(self.core.sinks().iter().map(|sink| sink.reason.to_owned())).collect()
    }

    /// Everything is online, good and connected.
    pub(crate) fn all_good(&self) -> bool {
        self.core.points(None).all(|point| point.quality.is_good())
            && self.core.devices().iter().all(|device| device.state.as_str() == "online")
            && self.core.sinks().iter().all(|sink| sink.connected)
    }
}
