//! Model drivers and sinks that know exactly what they were told, and complain about everything else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use busbar_contract::{
    Cause, Endpoint, Event, Failure, FailureKind, Flags, Origin, Quality, Request, Samples, Value, batch,
    binary::{Ack, Verdict},
    describe::Open,
    event::{BoundGroup, Done, Heartbeat, State},
};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{PluginReady, Push},
    model::Site,
    output::Reply,
    reload::{Outcome, Reload},
    view::DeviceState,
};
use serde_json::Value as Json;

use crate::{rng::Rng, site};

const MS: u64 = 1_000_000;
const CHAOS_NS: u64 = 15_000 * MS;
const RECOVERY_NS: u64 = 30_000 * MS;
const TRACE: usize = 120;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) applied: u64,
    pub(crate) rolled_back: u64,
    pub(crate) unchanged: u64,
    pub(crate) refused: u64,
    pub(crate) loads: u64,
    pub(crate) unloads: u64,
    pub(crate) losses: u64,
    pub(crate) records: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.rolled_back += other.rolled_back;
        self.unchanged += other.unchanged;
        self.refused += other.refused;
        self.loads += other.loads;
        self.unloads += other.unloads;
        self.losses += other.losses;
        self.records += other.records;
    }
}

#[derive(Default)]
struct Instance {
    plugin: usize,
    sink: Option<String>,
    /// Device -> its name, connection and groups.
    devices: BTreeMap<u32, (String, BTreeMap<u32, Vec<u32>>)>,
    /// Of a sink.
    list: BTreeMap<u32, String>,
    image: BTreeMap<u32, u16>,
    stopped: bool,
}

enum Happening {
    Input(Box<Input>),
    Loaded(usize),
    Beat,
    Mood,
    Reload,
}

pub(crate) struct World {
    rng: Rng,
    core: Core,
    now: Now,
    site: Site,
    /// What a reload is to bring, while it is not answered.
    wanted: Option<Site>,
    instances: BTreeMap<u64, Instance>,
    loaded: BTreeSet<usize>,
    /// Devices that do not answer.
    dead: BTreeSet<String>,
    /// Groups of a BIND that was refused.
    refused: BTreeSet<u32>,
    numbers: BTreeMap<u32, String>,
    queue: BTreeMap<(u64, u64), Happening>,
    seq: u64,
    stats: Stats,
    error: Option<String>,
    trace: VecDeque<String>,
    healing: bool,
    value: i64,
}

fn endpoint(connection: &Json) -> Endpoint {
    let host = connection["host"].as_str().unwrap_or("none");
    Endpoint {
        key: format!("tcp:{host}"),
        exclusive: false,
        parallel: 1 + u32::from(host.len() > 4),
        lock_path: None,
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let site = site::first(&mut rng);
        let now = Now { mono_ns: 0, wall_ns: 1_767_225_600_000_000_000 };
        let core = Core::new(site.clone(), Switches::default(), seed, now);
        let mut world = Self {
            rng,
            core,
            now,
            wanted: None,
            instances: BTreeMap::new(),
            loaded: BTreeSet::new(),
            dead: BTreeSet::new(),
            refused: BTreeSet::new(),
            numbers: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            stats: Stats::default(),
            error: None,
            trace: VecDeque::new(),
            healing: false,
            value: 0,
            site,
        };
        for plugin in 0..world.site.plugins.len() {
            world.after(1, Happening::Loaded(plugin));
        }
        world.after(200, Happening::Beat);
        world.after(700, Happening::Mood);
        world.after(1_500, Happening::Reload);
        world
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.iter().map(|line| format!("{line}\n")).collect()
    }

    fn note(&mut self, text: String) {
        let mut line = format!("{:>8.3} {text}", self.now.mono_ns as f64 / 1e9);
        line.truncate(line.char_indices().nth(300).map_or(line.len(), |(at, _)| at));
        self.trace.push_back(line);
        if self.trace.len() > TRACE {
            self.trace.pop_front();
        }
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((self.now.mono_ns + ms * MS, self.seq), happening);
    }

    fn event(&mut self, instance: u64, request: u64, ms: u64, event: Event) {
        let plugin = self.instances.get(&instance).map_or(0, |state| state.plugin);
        self.after(ms, Happening::Input(Box::new(Input::Event { plugin, instance, request, event })));
    }

    fn wrong(&mut self, text: String) {
        self.error.get_or_insert(text);
    }

    pub(crate) fn run(&mut self) -> Result<Stats, String> {
        let mut until = None;
        loop {
            if self.now.mono_ns > CHAOS_NS && self.wanted.is_none() && until.is_none() {
                self.heal();
                until = Some(self.now.mono_ns + RECOVERY_NS);
            }
            if let Some(until) = until {
                let trouble = self.trouble();
                if trouble.is_empty() {
                    break;
                }
                if self.now.mono_ns > until {
                    return Err(format!("not well in time: {trouble}"));
                }
            }
            self.advance();
            if let Some(error) = self.error.take() {
                return Err(error);
            }
        }
        self.stats.losses = self.core.devices().iter().map(|device| device.counters.losses).sum();
        let quiet = self.core.devices().iter().find(|device| device.name == "quiet").unwrap().counters;
        if (quiet.connects, quiet.losses) != (1, 0) {
            return Err(format!("the quiet device noticed a reload: {quiet:?}"));
        }
        let per_second: u64 = quiet.polls_skipped * 50;
        if per_second > quiet.polls_due {
            return Err(format!("the quiet device missed polls: {quiet:?}"));
        }
        Ok(std::mem::take(&mut self.stats))
    }

    fn advance(&mut self) {
        let next = self.queue.keys().next().map_or(u64::MAX, |(at, _)| *at);
        let wake = self.core.next_wake().unwrap_or(u64::MAX);
        let at = next.min(wake).max(self.now.mono_ns);
        self.now.wall_ns += (at - self.now.mono_ns) as i64;
        self.now.mono_ns = at;
        if next <= at
            && let Some((_, happening)) = self.queue.pop_first()
        {
            self.happen(happening);
        } else {
            self.step(Input::Tick);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input(input) => {
                let speaks = match &*input {
                    Input::Event { instance, .. } | Input::Push(Push { instance, .. }) => {
                        self.instances.contains_key(instance)
                    }
                    _ => true,
                };
                if speaks {
                    if let Input::Event { instance, event: Event::Stopped, .. } = &*input {
                        self.instances.remove(instance);
                    }
                    self.step(*input);
                }
            }
            Happening::Loaded(plugin) => self.load(plugin),
            Happening::Beat => {
                self.after(300, Happening::Beat);
                for plugin in self.loaded.clone() {
                    let event = Event::Heartbeat(Heartbeat { beat: 0 });
                    self.step(Input::Event { plugin, instance: 0, request: 0, event });
                }
            }
            Happening::Mood => self.mood(),
            Happening::Reload => self.reload(),
        }
    }

    fn load(&mut self, plugin: usize) {
        let model = self.core.site().plugins[plugin].clone();
        // It may not be needed any more: then nobody listens.
        let endpoints = self.core.connections(plugin);
        self.loaded.insert(plugin);
        let ready = PluginReady {
            plugin,
            describe: crate::common::describe(&model.name, model.kind, model.name == "durable"),
            endpoints: endpoints.iter().map(|(at, connection)| (*at, Ok(endpoint(connection)))).collect(),
        };
        self.note(format!("plugin {plugin} {} is ready", model.name));
        self.step(Input::PluginReady(Box::new(ready)));
    }

    fn mood(&mut self) {
        if self.healing {
            return;
        }
        let at = self.rng.range(100, 900);
        self.after(at, Happening::Mood);
        let names: Vec<String> = self.site.devices.iter().skip(1).map(|device| device.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let name = self.rng.pick(&names).clone();
        match self.rng.below(4) {
            0 => drop(self.dead.insert(name)),
            1 | 2 => drop(self.dead.remove(&name)),
            _ => {
                let found = self.instances.iter().find_map(|(instance, state)| {
                    let (device, _) = state.devices.iter().find(|(_, (known, _))| *known == name)?;
                    Some((*instance, *device))
                });
                if let Some((instance, device)) = found {
                    let state = State { device: Some(device), up: false, reason: "cable".into() };
                    self.event(instance, 0, 1, Event::State(state));
                }
            }
        }
    }

    fn reload(&mut self) {
        if self.healing {
            return;
        }
        let at = self.rng.range(50, 1_500);
        self.after(at, Happening::Reload);
        let new =
            if self.rng.chance(5) { self.site.clone() } else { site::mutate(&mut self.rng, &self.site) };
        self.begin(new);
    }

    fn begin(&mut self, new: Site) {
        if self.wanted.is_some() {
            self.stats.refused += 1;
            return;
        }
        let endpoints = new
            .devices
            .iter()
            .map(|device| (device.name.clone(), Ok(endpoint(&device.connection))))
            .collect();
        let old = self.site.clone();
        let before: Vec<(String, DeviceState, u64, u64, Vec<u32>)> = self.untouched(&old, &new);
        self.note(format!(
            "reload: {:?}",
            busbar_core::reload::Difference::of(&self.core.configured(), &new)
        ));
        self.wanted = Some(new.clone());
        self.step(Input::Reload(Box::new(Reload {
            id: 1,
            site: Box::new(new.clone()),
            endpoints,
            absent: Vec::new(),
            origin: Origin::default(),
        })));
        if before != self.untouched(&old, &new) {
            self.wrong("a device that does not change noticed the reload".into());
        }
    }

    /// Devices that are the same in `new`, as they are now.
    fn untouched(&self, old: &Site, new: &Site) -> Vec<(String, DeviceState, u64, u64, Vec<u32>)> {
        let devices = self.core.devices();
        let same = devices.iter().filter(|view| {
            let before = old.devices.iter().find(|device| device.name == view.name);
            before.is_some() && before == new.devices.iter().find(|device| device.name == view.name)
        });
        let mut out: Vec<_> = same
            .map(|view| {
                let numbers = self.core.points(Some(view.name)).map(|point| point.number).collect();
                (view.name.to_owned(), view.state, view.counters.connects, view.counters.losses, numbers)
            })
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        for output in out {
            self.carry_out(output);
        }
        if let Err(error) = self.core.check_invariants() {
            self.wrong(error);
        }
        let views: Vec<(u32, String)> = self
            .core
            .points(None)
            .chain(self.core.system_points())
            .map(|view| (view.number, format!("{}/{}", view.device, view.name)))
            .collect();
        for (number, name) in views {
            let known = self.numbers.entry(number).or_insert_with(|| name.clone());
            if *known != name {
                let text = format!("number {number} means {known} and {name}");
                self.wrong(text);
            }
        }
        let unbalanced = self.core.sinks().iter().any(|sink| !sink.ledger.is_balanced());
        if unbalanced {
            self.wrong("G7: a ledger does not balance".into());
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open { plugin, instance, config } => self.open(plugin, instance, &config),
            Output::Submit { instance, request, body } => {
                let Some(state) = self.instances.get(&instance).filter(|state| !state.stopped) else {
                    return self.wrong(format!("a request to instance {instance}, which does not listen"));
                };
                if state.sink.is_some() {
                    self.sink_request(instance, request, &body);
                } else {
                    self.driver_request(instance, request, &body);
                }
            }
            Output::Deliver { instance, first, samples, .. } => self.deliver(instance, first, samples),
            Output::Stop { instance, .. } => {
                if let Some(state) = self.instances.get_mut(&instance) {
                    state.stopped = true;
                }
                let ms = self.rng.range(1, 200);
                self.event(instance, 0, ms, Event::Stopped);
            }
            Output::Load { plugin } => {
                self.stats.loads += 1;
                let ms = self.rng.range(1, 300);
                self.after(ms, Happening::Loaded(plugin));
            }
            Output::Unload { plugin } => {
                self.stats.unloads += 1;
                self.loaded.remove(&plugin);
                if self.instances.values().any(|state| state.plugin == plugin) {
                    self.wrong(format!("plugin {plugin} is unloaded with an instance"));
                }
            }
            Output::Abandon { plugin, reason } => self.wrong(format!("plugin {plugin} given up: {reason}")),
            Output::Audit { audit, .. } if audit != 0 => {
                self.after(1, Happening::Input(Box::new(Input::Audited { audit, error: String::new() })));
            }
            Output::Store { store, .. } => {
                self.after(1, Happening::Input(Box::new(Input::Stored { store, result: Ok(None) })));
            }
            Output::Reply { reply, .. } => self.answered(reply),
            Output::Log(line) => self.note(format!("{:?} {}", line.fields, line.message)),
            _ => {}
        }
    }

    fn answered(&mut self, reply: Reply) {
        let Some(wanted) = self.wanted.take() else {
            return self.wrong(format!("an answer that nobody waits for: {reply:?}"));
        };
        let Reply::Reload(summary) = reply else { return self.wrong(format!("{reply:?}")) };
        self.note(format!("{:?} {}", summary.outcome, summary.reason));
        let runs = self.core.configured();
        let expected = match summary.outcome {
            Outcome::Applied => {
                self.stats.applied += 1;
                wanted
            }
            Outcome::RolledBack => {
                self.stats.rolled_back += 1;
                let poisoned = serde_json::to_string(&poisons(&wanted)).unwrap();
                if poisons(&wanted).is_empty() {
                    self.wrong(format!("rolled back without a reason: {} {poisoned}", summary.reason));
                }
                self.site.clone()
            }
            Outcome::Unchanged => {
                self.stats.unchanged += 1;
                self.site.clone()
            }
        };
        let same = runs.devices == expected.devices && runs.sinks == expected.sinks;
        if !same {
            self.wrong("what runs is not what was decided".into());
        }
        self.site = expected;
    }

    fn open(&mut self, plugin: usize, instance: u64, config: &Open) {
        let (sink, poison) = match config {
            Open::Sink { name, settings, .. } => (Some(name.clone()), settings["poison"] == Json::Bool(true)),
            Open::Driver { connection, .. } => (None, connection["poison"] == Json::Bool(true)),
        };
        self.instances.insert(instance, Instance { plugin, sink, ..Instance::default() });
        if !self.loaded.contains(&plugin) {
            self.wrong(format!("an instance in plugin {plugin}, which is not loaded"));
        }
        let ms = self.rng.range(1, 20);
        if poison {
            self.instances.remove(&instance);
            let reason = "poisoned".to_owned();
            return self.after(ms, Happening::Input(Box::new(Input::OpenFailed { instance, reason })));
        }
        self.event(instance, 0, ms, Event::Opened);
    }

    fn driver_request(&mut self, instance: u64, request: u64, body: &Request) {
        let ms = self.rng.range(1, 15);
        let done = Event::Done(Done::default());
        match body {
            Request::Attach(attach) => {
                if attach.connection["poison"] == Json::Bool(true) {
                    let failure = Failure::new(FailureKind::Configuration, "poisoned");
                    return self.event(instance, request, ms, Event::Failed(failure));
                }
                let state = self.instances.get_mut(&instance).unwrap();
                if state.devices.insert(attach.device, (attach.name.clone(), BTreeMap::new())).is_some() {
                    self.wrong(format!("device {} was attached twice", attach.device));
                }
                self.event(instance, request, ms, done);
            }
            Request::Detach(of) => {
                let state = self.instances.get_mut(&instance).unwrap();
                let number = of.device.unwrap();
                // An ATTACH that was refused may have been on its way.
                state.devices.remove(&number);
            }
            Request::Bind(bind) => {
                if bind.points.iter().any(|point| point.spec["poison"] == Json::Bool(true)) {
                    let failure = Failure::new(FailureKind::Configuration, "poisoned");
                    self.refused.extend(bind.groups.iter().map(|group| group.group));
                    return self.event(instance, request, ms, Event::Failed(failure));
                }
                let groups: BTreeMap<u32, Vec<u32>> =
                    bind.groups.iter().map(|group| (group.group, group.points.clone())).collect();
                let bound = groups.keys().map(|group| BoundGroup { group: *group, exchanges: 1 }).collect();
                match self.instances.get_mut(&instance).unwrap().devices.get_mut(&bind.device) {
                    Some(device) => device.1 = groups,
                    None => self.wrong(format!("device {} is bound and not attached", bind.device)),
                }
                self.event(instance, request, ms, Event::Done(Done { groups: bound, ..Done::default() }));
            }
            Request::Read(read) => self.read(instance, request, ms, read.group),
            Request::Unsubscribe(_) | Request::Committed(_) | Request::FrameLog(_) => {}
            Request::Subscribe(subscribe) => {
                // Every third device reports the first of its points by itself.
                let some: Vec<u32> = match subscribe.device % 3 {
                    0 => subscribe.points.iter().copied().take(1).collect(),
                    _ => Vec::new(),
                };
                let answer = Done {
                    subscribed: some.clone(),
                    integrity_ms: subscribe.integrity_ms,
                    ..Done::default()
                };
                self.event(instance, request, ms, Event::Done(answer));
                self.push(instance, 0, ms + 3, &some, 0);
            }
            Request::Connect(of) | Request::Probe(of) | Request::Disconnect(of) => {
                let number = of.device.unwrap();
                let Some((name, _)) = self.instances[&instance].devices.get(&number).cloned() else {
                    return self.wrong(format!("device {number} is asked and not attached"));
                };
                if self.dead.contains(&name) && !matches!(body, Request::Disconnect(_)) {
                    let failure = Failure::new(FailureKind::NoAnswer, "no answer");
                    return self.event(instance, request, 150, Event::Failed(failure));
                }
                self.event(instance, request, ms, done);
            }
            _ => self.event(instance, request, ms, done),
        }
    }

    fn read(&mut self, instance: u64, request: u64, ms: u64, group: u32) {
        let found = self.instances[&instance]
            .devices
            .values()
            .find_map(|(name, groups)| Some((name.clone(), groups.get(&group)?.clone())));
        if found.is_none() && self.refused.contains(&group) {
            // It left together with a BIND that was refused.
            let failure = Failure::new(FailureKind::Configuration, "no such group");
            return self.event(instance, request, ms, Event::Failed(failure));
        }
        let Some((name, points)) = found else {
            return self.wrong(format!("group {group} is read and not bound"));
        };
        if self.dead.contains(&name) {
            let failure = Failure::new(FailureKind::NoAnswer, "no answer");
            return self.event(instance, request, 150, Event::Failed(failure));
        }
        self.push(instance, request, ms, &points, batch::LAST);
    }

    fn push(&mut self, instance: u64, request: u64, ms: u64, points: &[u32], flags: u32) {
        let mut samples = Samples::default();
        for point in points {
            self.value += 1;
            let flags = Flags::new(if request == 0 { Cause::Integrity } else { Cause::Poll }, 0);
            samples.push(*point, self.now.wall_ns, &Value::Int(self.value), Quality::GOOD, flags);
        }
        let push = Push { instance, request, token: 0, flags, samples };
        self.after(ms, Happening::Input(Box::new(Input::Push(push))));
    }

    fn sink_request(&mut self, instance: u64, request: u64, body: &Request) {
        let ms = self.rng.range(1, 10);
        if let Request::Points(points) = body {
            let state = self.instances.get_mut(&instance).unwrap();
            if points.replace {
                state.list.clear();
            }
            let mut wrong = None;
            for point in &points.points {
                let name = format!("{}/{}", point.device, point.name);
                if let Some(known) = state.list.insert(point.point, name.clone())
                    && known != name
                {
                    wrong = Some(format!("point {} was {known} and is {name}", point.point));
                }
            }
            for number in &points.removed {
                state.image.remove(number);
                if state.list.remove(number).is_none() {
                    wrong = Some(format!("point {number} is removed and was never told"));
                }
            }
            if let Some(wrong) = wrong {
                self.wrong(wrong);
            }
        }
        if !matches!(body, Request::Answer(_)) {
            self.event(instance, request, ms, Event::Done(Done::default()));
        }
    }

    fn deliver(&mut self, instance: u64, first: u64, mut samples: Samples) {
        let Some(state) = self.instances.get_mut(&instance).filter(|state| !state.stopped) else {
            return self.wrong("a delivery to an instance that does not listen".into());
        };
        let _ = samples.take_times();
        let mut wrong = None;
        for sample in &samples.samples {
            if !state.list.contains_key(&sample.point) {
                wrong = Some(format!("a record of point {}, which is not in the list", sample.point));
            }
            state.image.insert(sample.point, sample.quality & !Quality::CLOCK_UNSYNCED.0);
        }
        self.stats.records += samples.samples.len() as u64;
        if let Some(wrong) = wrong {
            return self.wrong(wrong);
        }
        let count = samples.samples.len() as u32;
        let acks = vec![Ack { first, count, verdict: Verdict::Delivered, reason: 0 }];
        // Sometimes the confirmation is lost with the connection.
        if self.rng.chance(97) || self.healing {
            let ms = self.rng.range(1, 60);
            self.event(instance, 0, ms, Event::Ack { lane: 0, acks });
        } else {
            let state = State { device: None, up: false, reason: "broker gone".into() };
            self.event(instance, 0, 40, Event::State(state));
        }
    }

    /// The last reload: nothing in it is poisoned, everything answers.
    fn heal(&mut self) {
        self.healing = true;
        self.dead.clear();
        let mut last = self.site.clone();
        site::cure(&mut last);
        for device in &mut last.devices {
            device.enabled = true;
        }
        self.begin(last);
    }

    fn trouble(&self) -> String {
        if self.wanted.is_some() {
            return "the last reload is not decided".into();
        }
        for (view, config) in self.core.devices().iter().zip(&self.site.devices) {
            let expected = if config.paused { DeviceState::Paused } else { DeviceState::Online };
            if view.state != expected {
                return format!("{} is {:?}: {}", view.name, view.state, view.reason);
            }
        }
        for view in self.core.sinks() {
            if !view.connected || view.ledger.pending > 0 {
                return format!("sink {}: {} pending, {}", view.name, view.ledger.pending, view.reason);
            }
            let text = self.image(view.name);
            if !text.is_empty() {
                return text;
            }
        }
        String::new()
    }

    /// The sink's list and image are what configuration and table say.
    fn image(&self, sink: &str) -> String {
        let Some(state) =
            self.instances.values().find(|state| state.sink.as_deref() == Some(sink) && !state.stopped)
        else {
            return format!("sink {sink} has no instance");
        };
        let config = self.site.sinks.iter().find(|config| config.name == sink).unwrap();
        let routed = config.routes.iter().map(|route| {
            let device = &self.site.devices[route.device];
            format!("{}/{}", device.name, device.points[route.point].name)
        });
        let wanted: BTreeSet<String> =
            routed.chain(config.system.iter().map(|route| route.name.clone())).collect();
        let listed: BTreeSet<String> = state.list.values().cloned().collect();
        if wanted != listed || state.list.len() != wanted.len() {
            let odd: Vec<&String> = wanted.symmetric_difference(&listed).collect();
            return format!("sink {sink} lists other points: {odd:?}");
        }
        for (number, name) in &state.list {
            let shown = self.core.point(name).unwrap();
            let quality = shown.quality.0 & !Quality::CLOCK_UNSYNCED.0;
            if shown.number != *number || state.image.get(number) != Some(&quality) {
                return format!("sink {sink} shows another {name} than the table");
            }
        }
        String::new()
    }
}

/// What cannot run in a configuration.
fn poisons(site: &Site) -> Vec<String> {
    let mut out = Vec::new();
    for device in &site.devices {
        if device.connection["poison"] == Json::Bool(true) {
            out.push(device.name.clone());
        }
        let points = device.points.iter().filter(|point| point.spec["poison"] == Json::Bool(true));
        out.extend(points.map(|point| format!("{}/{}", device.name, point.name)));
    }
    out.extend(
        site.sinks
            .iter()
            .filter(|sink| sink.settings["poison"] == Json::Bool(true))
            .map(|sink| sink.name.clone()),
    );
    out
}
