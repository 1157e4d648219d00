//! The world: time, what will happen, what the core asks, what is known from outside.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::DefaultHasher},
    hash::Hasher,
    mem,
};

use busbar_contract::{Action, Answer, Cause, Event, Origin, Stage, Value, describe::Open, event::Heartbeat};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{Ask, Operator, OperatorCommand, PluginReady},
    output::Reply,
};

use crate::{
    driver::{self, Mood, Values},
    file::File,
    rng::Rng,
    sink::{self, SinkMood},
    site::{self, Plant},
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
/// How long things go wrong.
const CHAOS_NS: u64 = 12 * SECOND;
/// How long recovery may take at most, once everything is well: a stalled instance is stopped after 5 s, given up after
/// 5 s more, opened again within 12 s; then 1.2 x reconnect.max and a resync.
const RECOVERY_NS: u64 = 40 * SECOND;
const TRACE: usize = 150;
/// A writer of a file takes so long.
const WRITER_NS: u64 = 4 * MS;

pub(crate) enum Happening {
    Input(Box<Input>),
    Values(Values),
    Beat(usize),
    Chaos,
    Integrity {
        instance: u64,
        device: u32,
        session: u64,
        period: u64,
    },
    Probed {
        device: u32,
    },
    Positive {
        point: u32,
    },
    /// The edge's answer to an audit line.
    Audited {
        audit: u64,
        ok: bool,
    },
    Reload(usize),
    /// The writer of a queue's file comes to it.
    File(Box<Output>),
}

pub(crate) struct Point {
    pub(crate) device: u32,
    pub(crate) counter: u64,
    /// Last time a good value, or a proof of the subscription, came.
    pub(crate) fed_ns: u64,
    /// Last time anything was said about it: a value, a refusal, an answer without it.
    pub(crate) given_ns: u64,
    pub(crate) substituted: bool,
    pub(crate) event: bool,
}

pub(crate) struct Asked {
    pub(crate) last: Option<Stage>,
    pub(crate) expired: bool,
    pub(crate) instance: u64,
}

/// (sink instance or 0, request or operator id)
pub(crate) type AskKey = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) steps: u64,
    pub(crate) losses: u64,
    pub(crate) foreign: u64,
    pub(crate) stalls: u64,
    pub(crate) records: u64,
    pub(crate) retries: u64,
    pub(crate) parked: u64,
    pub(crate) dropped: u64,
    pub(crate) finished_commands: u64,
    pub(crate) refused_commands: u64,
    pub(crate) unknown_commands: u64,
    pub(crate) tokens_ok: u64,
    pub(crate) tokens_failed: u64,
    pub(crate) image_checks: u64,
    pub(crate) resync_checks: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.losses += other.losses;
        self.foreign += other.foreign;
        self.stalls += other.stalls;
        self.records += other.records;
        self.retries += other.retries;
        self.parked += other.parked;
        self.dropped += other.dropped;
        self.finished_commands += other.finished_commands;
        self.refused_commands += other.refused_commands;
        self.unknown_commands += other.unknown_commands;
        self.tokens_ok += other.tokens_ok;
        self.tokens_failed += other.tokens_failed;
        self.image_checks += other.image_checks;
        self.resync_checks += other.resync_checks;
    }
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) plant: Plant,
    pub(crate) instances: BTreeMap<u64, driver::Instance>,
    pub(crate) devices: Vec<driver::Device>,
    pub(crate) points: Vec<Point>,
    pub(crate) sinks: Vec<sink::Sink>,
    files: Vec<File>,
    pub(crate) sink_points: Vec<BTreeSet<u32>>,
    pub(crate) silent: Vec<bool>,
    pub(crate) asks: BTreeMap<AskKey, Asked>,
    pub(crate) fetches: BTreeSet<(u64, u64)>,
    pub(crate) operator_reads: BTreeSet<u64>,
    pub(crate) next_ask: u64,
    pub(crate) next_value: i64,
    pub(crate) next_token: u32,
    pub(crate) clock_stepped: bool,
    pub(crate) stats: Stats,
    /// Points whose audit line is on disk and whose request has not left.
    pub(crate) authorised: BTreeMap<u32, u32>,
    audits: BTreeMap<u64, Vec<u32>>,
    values_sent: BTreeSet<(u32, String)>,
    positives: BTreeMap<u32, u32>,
    /// Answers that went to the audit log and not yet to the asker.
    answers_written: u32,
    tokens: BTreeMap<u32, u32>,
    audit_breaks: bool,
    late_host: bool,
    queue: BTreeMap<(u64, u64), Happening>,
    seq: u64,
    tracing: bool,
    trace: VecDeque<String>,
    hasher: DefaultHasher,
    error: Option<String>,
    healing: bool,
    pub(crate) watch: crate::checks::Watch,
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plant = site::plant(&mut rng);
        let now = Now { mono_ns: 0, wall_ns: 1_767_225_600_000_000_000 };
        let core = Core::new(plant.site.clone(), Switches::default(), seed, now);
        let mut points = Vec::new();
        for (device, config) in plant.site.devices.iter().enumerate() {
            for point in &config.points {
                let device = device as u32;
                let event = point.event;
                points.push(Point { device, counter: 0, fed_ns: 0, given_ns: 0, substituted: false, event });
            }
        }
        let devices = (0..plant.site.devices.len())
            .map(|device| driver::Device {
                mood: Mood::Normal,
                subscribes: !plant.healthy[device] && rng.chance(30),
                can_probe: rng.chance(60),
                connected_ns: 0,
            })
            .collect::<Vec<_>>();
        let sinks = plant
            .site
            .sinks
            .iter()
            .map(|_| sink::Sink {
                mood: SinkMood::Prompt,
                instance: 0,
                healthy_ns: None,
                image: BTreeMap::new(),
                newest: 0,
            })
            .collect::<Vec<_>>();
        let sink_points = plant
            .site
            .sinks
            .iter()
            .map(|config| {
                let routes = config.routes.iter().map(|route| {
                    let name = &plant.site.devices[route.device];
                    core.point(&format!("{}/{}", name.name, name.points[route.point].name)).unwrap().number
                });
                let system = config.system.iter().map(|route| core.point(&route.name).unwrap().number);
                routes.chain(system).collect()
            })
            .collect();
        let late_host = rng.chance(20);
        let watch = crate::checks::Watch::new(devices.len());
        let mut world = Self {
            rng,
            core,
            now,
            instances: BTreeMap::new(),
            devices,
            points,
            files: sinks.iter().map(|_| File::new(usize::MAX, u64::MAX >> 2)).collect(),
            sinks,
            sink_points,
            silent: vec![false; plant.site.plugins.len()],
            plant,
            asks: BTreeMap::new(),
            fetches: BTreeSet::new(),
            operator_reads: BTreeSet::new(),
            next_ask: 0,
            next_value: 0,
            next_token: 0,
            clock_stepped: false,
            stats: Stats::default(),
            authorised: BTreeMap::new(),
            audits: BTreeMap::new(),
            values_sent: BTreeSet::new(),
            positives: BTreeMap::new(),
            answers_written: 0,
            tokens: BTreeMap::new(),
            audit_breaks: false,
            late_host,
            queue: BTreeMap::new(),
            seq: 0,
            tracing,
            trace: VecDeque::new(),
            hasher: DefaultHasher::new(),
            error: None,
            healing: false,
            watch,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        for plugin in 0..self.plant.site.plugins.len() {
            let at = self.rng.range(0, 50) * MS;
            self.at(at, Happening::Reload(plugin));
        }
        self.at(500 * MS, Happening::Chaos);
    }

    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((at, self.seq), happening);
    }

    pub(crate) fn input_at(&mut self, at: u64, input: Input) {
        self.at(at, Happening::Input(Box::new(input)));
    }

    pub(crate) fn first_point(&self, device: usize) -> u32 {
        self.points.iter().position(|point| point.device as usize == device).unwrap_or(0) as u32
    }

    pub(crate) fn gateway_time(&self, point: u32) -> bool {
        self.points.get(point as usize).is_none_or(|point| {
            let config = &self.plant.site.devices[point.device as usize];
            point.substituted || config.gateway_time || config.max_skew.is_some()
        })
    }

    pub(crate) fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            let mut line = format!("{:>9.3} ", self.now.mono_ns as f64 / 1e9);
            line.push_str(&text());
            line.truncate(line.char_indices().nth(420).map_or(line.len(), |(at, _)| at));
            self.trace.push_back(line);
            if self.trace.len() > TRACE {
                self.trace.pop_front();
            }
        }
    }

    pub(crate) fn run(&mut self) -> Result<Stats, String> {
        let mut heal_until = None;
        loop {
            if self.now.mono_ns > CHAOS_NS && heal_until.is_none() {
                self.heal();
                heal_until = Some(self.now.mono_ns + RECOVERY_NS);
            }
            if let Some(until) = heal_until {
                if self.is_well() {
                    break;
                }
                if self.now.mono_ns > until {
                    return Err(format!(
                        "G2: not everything is well after recovery: {}",
                        self.what_is_wrong()
                    ));
                }
            }
            self.advance()?;
        }
        self.final_checks()?;
        Ok(mem::take(&mut self.stats))
    }

    /// Goes to the next instant and does what happens there.
    fn advance(&mut self) -> Result<(), String> {
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let mut wake = self.core.next_wake();
        if self.late_host
            && let Some(at) = &mut wake
        {
            *at += 15 * MS;
        }
        let at = match (next, wake) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) => a,
            (None, Some(b)) => b,
            (None, None) => return Err("nothing will ever happen again".into()),
        };
        let at = at.max(self.now.mono_ns);
        self.now.wall_ns += (at - self.now.mono_ns) as i64 / 1000 * 1000;
        self.now.mono_ns = at;
        let due = self.queue.first_key_value().is_some_and(|((when, _), _)| *when <= at);
        if due && let Some((_, happening)) = self.queue.pop_first() {
            self.happen(happening);
        } else {
            self.input_now(Input::Tick);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input(input) => {
                if self.may_arrive(&input) {
                    self.input_now(*input);
                } else if self.is_held_up(&input) {
                    // A plugin that is silent speaks later, and then all of it.
                    self.at(self.now.mono_ns + 50 * MS, Happening::Input(input));
                } else if let Input::Event { instance, request, .. } = *input {
                    // A question that never left its plugin waits for nothing.
                    self.asks.remove(&(instance, request));
                    self.fetches.remove(&(instance, request));
                }
            }
            Happening::Values(values) => {
                if self.instance_speaks(values.instance) {
                    self.values_now(values);
                } else if self.instances.contains_key(&values.instance) {
                    self.at(self.now.mono_ns + 50 * MS, Happening::Values(values));
                }
            }
            Happening::Beat(plugin) => {
                self.at(self.now.mono_ns + 250 * MS, Happening::Beat(plugin));
                if !self.silent[plugin] {
                    let event = Event::Heartbeat(Heartbeat { beat: 0 });
                    self.input_now(Input::Event { plugin, instance: 0, request: 0, event });
                }
            }
            Happening::Chaos => self.chaos(),
            Happening::Integrity { instance, device, session, period } => {
                self.integrity(instance, device, session, period);
            }
            Happening::Probed { device } => {
                for point in &mut self.points {
                    if point.device == device {
                        point.fed_ns = self.now.mono_ns;
                    }
                }
            }
            Happening::Positive { point } => *self.positives.entry(point).or_default() += 1,
            Happening::Audited { audit, ok } => {
                let points = self.audits.remove(&audit).unwrap_or_default();
                if ok {
                    for point in points {
                        *self.authorised.entry(point).or_default() += 1;
                    }
                }
                let error = if ok { String::new() } else { "disk full".into() };
                self.input_now(Input::Audited { audit, error });
            }
            Happening::Reload(plugin) => self.reload(plugin),
            Happening::File(asked) => self.file(*asked),
        }
    }

    fn file(&mut self, asked: Output) {
        let input = match asked {
            Output::JournalOpen { sink } => {
                Input::JournalOpened { sink, result: Ok(self.files[sink].open()) }
            }
            Output::Journal { sink, transaction } => match self.files[sink].write(&transaction) {
                Ok(result) => Input::Journaled { sink, number: transaction.number, result },
                Err(error) => {
                    self.error.get_or_insert(format!("file of sink {sink}: {error}"));
                    return;
                }
            },
            Output::JournalLoad { sink, from, records, .. } => {
                Input::JournalLoaded { sink, result: Ok(self.files[sink].load(from, records)) }
            }
            _ => return,
        };
        self.input_now(input);
    }

    /// A plugin that is silent or gone says nothing.
    fn may_arrive(&self, input: &Input) -> bool {
        match input {
            Input::Event { instance, .. } | Input::Push(busbar_core::input::Push { instance, .. }) => {
                self.instance_speaks(*instance)
            }
            _ => true,
        }
    }

    fn is_held_up(&self, input: &Input) -> bool {
        match input {
            Input::Event { instance, .. } | Input::Push(busbar_core::input::Push { instance, .. }) => {
                self.instances.get(instance).is_some_and(|state| self.silent[state.plugin])
            }
            _ => false,
        }
    }

    fn instance_speaks(&self, instance: u64) -> bool {
        self.instances.get(&instance).is_some_and(|state| !self.silent[state.plugin])
    }

    fn reload(&mut self, plugin: usize) {
        self.silent[plugin] = false;
        self.instances.retain(|_, state| state.plugin != plugin);
        let config = &self.plant.site.plugins[plugin];
        let describe = crate::common::describe(&config.name, config.kind, self.plant.durable[plugin]);
        let name = config.name.clone();
        let endpoints = (0..self.plant.site.devices.len())
            .filter(|device| self.plant.site.devices[*device].driver == name)
            .map(|device| (device, Ok(self.plant.endpoints[device].clone())))
            .collect();
        self.at(self.now.mono_ns, Happening::Beat(plugin));
        self.input_now(Input::PluginReady(Box::new(PluginReady { plugin, describe, endpoints })));
    }

    fn integrity(&mut self, instance: u64, device: u32, session: u64, period: u64) {
        if self.devices[device as usize].connected_ns != session {
            return;
        }
        let points = self.instances.get(&instance).and_then(|state| state.subscribed.get(&device)).cloned();
        if let Some(points) = points {
            if self.devices[device as usize].mood == Mood::Normal {
                self.push_unsolicited(instance, 0, &points, Cause::Integrity, 0);
            }
            self.at(self.now.mono_ns + period, Happening::Integrity { instance, device, session, period });
        }
    }

    /// One step of the core, and everything it asked for.
    pub(crate) fn input_now(&mut self, input: Input) {
        if self.error.is_some() {
            return;
        }
        self.note(|| format!("<- {input:?}"));
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        self.stats.steps += 1;
        for output in out {
            if self.tracing && !matches!(output, Output::Log(_)) {
                self.note(|| format!("   -> {output:?}"));
            }
            self.hash(&output);
            if let Err(error) = self.carry_out(output) {
                self.error.get_or_insert(error);
            }
        }
        if let Err(error) = self.check_step() {
            self.error.get_or_insert(error);
        }
    }

    fn hash(&mut self, output: &Output) {
        self.hasher.write_u64(self.now.mono_ns);
        match output {
            Output::Submit { instance, request, body } => {
                self.hasher.write_u64(*instance);
                self.hasher.write_u64(*request);
                self.hasher.write(&body.encode());
            }
            Output::Deliver { first, samples, .. } => {
                self.hasher.write_u64(*first);
                for sample in &samples.samples {
                    self.hasher.write_u64(sample.bits ^ u64::from(sample.point));
                }
            }
            Output::Log(line) => self.hasher.write(line.message.as_bytes()),
            _ => self.hasher.write_u8(1),
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Open { plugin, instance, config } => self.open(plugin, instance, &config),
            Output::Submit { instance, request, body } => {
                let Some(state) = self.instances.get(&instance) else {
                    return Err(format!("a request to instance {instance}, which does not exist"));
                };
                if state.stopped {
                    return Err(format!("a request to instance {instance}, which was stopped"));
                }
                if state.sink.is_some() {
                    self.sink_submit(instance, request, &body);
                } else {
                    self.driver_submit(instance, request, &body);
                }
                return Ok(());
            }
            Output::Deliver { instance, first, flags, samples, .. } => {
                self.stats.records += samples.samples.len() as u64;
                if self.rng.chance(1) && !self.healing {
                    let input = Input::NotTaken { instance, request: first, delivery: true, code: 2 };
                    self.input_at(self.now.mono_ns, input);
                    return Ok(());
                }
                return self.deliver(instance, first, flags, samples);
            }
            Output::Stop { instance, .. } => {
                self.stats.stalls += 1;
                self.stop(instance);
            }
            Output::Abandon { plugin, .. } => {
                self.instances.retain(|_, state| state.plugin != plugin);
                let at = self.now.mono_ns + self.rng.range(100, 2000) * MS;
                self.at(at, Happening::Reload(plugin));
            }
            Output::Audit { audit, line } => self.audit(audit, &line)?,
            Output::Store { store, .. } => {
                let result = if self.rng.chance(10) { Err("disk full".into()) } else { Ok(None) };
                let at = self.now.mono_ns + self.rng.range(1, 20) * MS;
                self.input_at(at, Input::Stored { store, result });
            }
            Output::Reply { id, reply } => match reply {
                Reply::Command(answer) => self.answered((0, id), &answer),
                Reply::Readings(_) | Reply::Done | Reply::Failed(_) | Reply::Reload(_) => {
                    self.operator_reads.remove(&id);
                }
                Reply::Page(_) => {}
            },
            Output::JournalOpen { .. } | Output::Journal { .. } | Output::JournalLoad { .. } => {
                self.at(self.now.mono_ns + WRITER_NS, Happening::File(Box::new(output)));
            }
            Output::Log(_) | Output::Handover { .. } => {}
            Output::Load { .. } | Output::Unload { .. } | Output::Applied { .. } => {}
        }
        Ok(())
    }

    fn open(&mut self, plugin: usize, instance: u64, config: &Open) {
        let sink = match config {
            Open::Sink { name, .. } => self.plant.site.sinks.iter().position(|sink| sink.name == *name),
            Open::Driver { .. } => None,
        };
        if let Some(sink) = sink {
            self.sinks[sink].instance = instance;
            self.sinks[sink].image.clear();
        }
        self.instances.insert(instance, driver::Instance { plugin, sink, ..driver::Instance::default() });
        let delay = self.rng.range(1, 20) * MS;
        self.event(instance, 0, delay, Event::Opened);
    }

    fn stop(&mut self, instance: u64) {
        let Some(state) = self.instances.get_mut(&instance) else { return };
        state.stopped = true;
        // Some never stop in time: the host must live with it.
        if self.healing || !self.rng.chance(20) {
            let delay = self.rng.range(5, 500) * MS;
            self.event(instance, 0, delay, Event::Stopped);
        } else {
            self.event(instance, 0, 8 * SECOND, Event::Stopped);
        }
    }

    fn audit(&mut self, audit: u64, line: &serde_json::Value) -> Result<(), String> {
        if audit == 0 {
            if line["event"] == "cancel" {
                let point =
                    line["point"].as_str().and_then(|name| self.core.point(name)).map(|point| point.number);
                *self.authorised.entry(point.unwrap_or(u32::MAX)).or_default() += 1;
            }
            return Ok(());
        }
        let points = line["point"]
            .as_str()
            .unwrap_or_default()
            .split(',')
            .filter_map(|name| self.core.point(name))
            .map(|point| point.number)
            .collect::<Vec<_>>();
        // A line about an answer allows nothing, and what was refused at once may name no point.
        let answer = line["event"] == "answer";
        if points.is_empty() && !answer {
            return Err(format!("G8: an audit line without a point: {line}"));
        }
        if answer {
            self.answers_written += 1;
            if let Some(point) = points.first() {
                // A cancel of a device without selections is the only thing that the host may confirm by itself.
                let own = line["action"] == "cancel" && line["text"] == "";
                if line["stage"] == "finished" && !own && !self.positives.contains_key(point) {
                    return Err(format!("G8: point {point} is confirmed without the device"));
                }
            }
        }
        let points = if answer { Vec::new() } else { points };
        self.audits.insert(audit, points);
        let ok = !(self.audit_breaks && self.rng.chance(50));
        let at = self.now.mono_ns + self.rng.range(0, 15) * MS;
        self.at(at, Happening::Audited { audit, ok });
        Ok(())
    }

    /// A command reached a driver.
    pub(crate) fn commands_seen(&mut self, point: u32, action: Action, value: &Value) {
        let authorised = self.authorised.entry(point).or_default();
        if *authorised == 0 {
            self.error.get_or_insert(format!(
                "G8: a command for point {point} left before its audit line was on disk"
            ));
            return;
        }
        *authorised -= 1;
        let device = self.points[point as usize].device;
        let view = self.core.devices()[device as usize].state;
        if view != busbar_core::view::DeviceState::Online {
            self.error.get_or_insert(format!("G8: a command left for device {device}, which is {view:?}"));
        }
        if action == Action::Operate && !self.values_sent.insert((point, format!("{value:?}"))) {
            self.error.get_or_insert(format!("G8: the command {value:?} for point {point} left twice"));
        }
        self.positives.remove(&point);
    }

    pub(crate) fn ask(&mut self, key: AskKey, expired: bool) {
        let instance = key.0;
        self.asks.insert(key, Asked { last: None, expired, instance });
    }

    /// An answer to a command reached whoever asked.
    pub(crate) fn answered(&mut self, key: AskKey, answer: &Answer) {
        let Some(asked) = self.asks.get_mut(&key) else {
            self.error.get_or_insert(format!("G8: an answer to a command that nobody gave: {answer:?}"));
            return;
        };
        if asked.last.is_some() {
            self.error.get_or_insert(format!("G8: a second last answer: {answer:?}"));
            return;
        }
        if matches!(answer.stage, Stage::Selected) || answer.stage.is_last() {
            asked.last = Some(answer.stage);
        }
        match answer.stage {
            Stage::Refused => self.stats.refused_commands += 1,
            Stage::Unknown => self.stats.unknown_commands += 1,
            Stage::Finished => self.stats.finished_commands += 1,
            Stage::Selected | Stage::Accepted => {}
        }
        if asked.expired && !self.clock_stepped && answer.stage != Stage::Refused {
            self.error.get_or_insert("G8: an expired command was not refused".into());
        }
        if self.answers_written == 0 {
            self.error.get_or_insert(format!("G8: an answer without its audit line: {answer:?}"));
        }
        self.answers_written = self.answers_written.saturating_sub(1);
    }

    pub(crate) fn committed(&mut self, device: u32, token: u32, ok: bool) {
        let last = self.tokens.insert(device, token).unwrap_or(0);
        let _ = last;
        if ok {
            self.stats.tokens_ok += 1;
        } else {
            self.stats.tokens_failed += 1;
        }
    }

    fn chaos(&mut self) {
        if self.healing {
            return;
        }
        let at = self.now.mono_ns + self.rng.range(20, 400) * MS;
        self.at(at, Happening::Chaos);
        match self.rng.below(20) {
            0..=5 => self.device_mood(),
            6..=8 => {
                let sink = self.rng.below(self.sinks.len() as u64) as usize;
                let mood = *self.rng.pick(&[
                    SinkMood::Prompt,
                    SinkMood::Prompt,
                    SinkMood::Withholds,
                    SinkMood::Odd,
                    SinkMood::Odd,
                    SinkMood::Down,
                ]);
                self.sink_mood(sink, mood);
            }
            9..=11 => self.driver_chaos(),
            12..=15 => self.sink_chaos(),
            16 | 17 => self.operator(),
            18 => self.clock(),
            _ => self.plugin_chaos(),
        }
    }

    fn device_mood(&mut self) {
        let device = self.rng.below(self.devices.len() as u64) as usize;
        if self.plant.healthy[device] {
            return;
        }
        let quiet = self.plant.site.devices[device].driver == "quiet";
        let moods: &[Mood] = if quiet {
            &[Mood::Normal, Mood::Slow, Mood::Dead, Mood::Refuses, Mood::Resets, Mood::Hangs]
        } else {
            &[
                Mood::Normal,
                Mood::Normal,
                Mood::Slow,
                Mood::Dead,
                Mood::Resets,
                Mood::Refuses,
                Mood::Hangs,
                Mood::Lies,
                Mood::Panics,
            ]
        };
        self.devices[device].mood = *self.rng.pick(moods);
        let mood = self.devices[device].mood;
        self.note(|| format!("device {device} is {mood:?}"));
    }

    fn operator(&mut self) {
        self.next_ask += 1;
        let id = self.next_ask;
        let device = self.rng.below(self.devices.len() as u64) as usize;
        let name = self.plant.site.devices[device].name.clone();
        let origin = Origin { sink: "cli".into(), ..Origin::default() };
        let healthy = self.plant.healthy[device];
        let ask = match self.rng.below(9) {
            0 => Ask::Lock(origin),
            1 | 2 => Ask::Unlock(origin),
            3 => {
                self.operator_reads.insert(id);
                Ask::Read { device: name, points: Vec::new(), deadline_ms: 700 }
            }
            4 => {
                self.operator_reads.insert(id);
                Ask::Browse { device: name, arguments: Vec::new(), deadline_ms: 700 }
            }
            5 if !healthy => Ask::Maintenance(name, self.rng.chance(50), origin),
            6 => {
                let point = format!("{name}/p0");
                if !self.plant.site.devices[device].points.is_empty() {
                    let number = self.first_point(device);
                    self.points[number as usize].substituted = true;
                }
                match self.rng.below(3) {
                    0 => Ask::Block(point, origin),
                    1 => Ask::Substitute(point, serde_json::json!(5), origin),
                    _ => Ask::Unblock(point, origin),
                }
            }
            _ => {
                let value = self.command_value();
                let point = format!("{name}/p0");
                self.ask((0, id), false);
                Ask::Command(OperatorCommand {
                    point,
                    action: Action::Operate,
                    value: value.into(),
                    origin,
                    deadline_ms: 400,
                })
            }
        };
        self.input_now(Input::Operator(Operator { id, ask }));
    }

    fn clock(&mut self) {
        match self.rng.below(3) {
            0 => {
                self.clock_stepped = true;
                let step = self.rng.range(0, 20_000_000) as i64 * 1000;
                self.now.wall_ns += if self.rng.chance(50) { step } else { -step };
            }
            _ => {
                let synchronised = self.rng.chance(50);
                self.input_now(Input::Clock { synchronised });
            }
        }
    }

    fn plugin_chaos(&mut self) {
        self.audit_breaks = self.rng.chance(30);
        let plugin = 1 + self.rng.below(3) as usize;
        match self.rng.below(4) {
            0 => {
                self.silent[plugin] = true;
                self.note(|| format!("plugin {plugin} is silent"));
            }
            1 => self.silent[plugin] = false,
            2 => {
                self.instances.retain(|_, state| state.plugin != plugin);
                let reason = "the worker died".into();
                self.input_now(Input::PluginFailed { plugin, reason });
                let at = self.now.mono_ns + self.rng.range(10, 1500) * MS;
                self.at(at, Happening::Reload(plugin));
            }
            _ => {
                let error = busbar_contract::Malformed::new("DONE", "a body", "rubbish");
                self.input_now(Input::Malformed { plugin, instance: 1, request: 0, error });
            }
        }
    }

    /// Everything is well from now on.
    fn heal(&mut self) {
        self.healing = true;
        self.audit_breaks = false;
        for plugin in 0..self.silent.len() {
            self.silent[plugin] = false;
        }
        for device in &mut self.devices {
            device.mood = Mood::Normal;
        }
        for sink in 0..self.sinks.len() {
            self.sink_mood(sink, SinkMood::Prompt);
            // What was withheld before is lost with the connection.
            let instance = self.sinks[sink].instance;
            if self.instances.contains_key(&instance) {
                let state =
                    busbar_contract::event::State { device: None, up: false, reason: "reconnect".into() };
                self.event(instance, 0, MS, Event::State(state));
            }
        }
        for device in 0..self.plant.site.devices.len() {
            self.next_ask += 1;
            let name = self.plant.site.devices[device].name.clone();
            let origin = Origin::default();
            let ask = Ask::Maintenance(name.clone(), false, origin.clone());
            self.input_now(Input::Operator(Operator { id: self.next_ask, ask }));
            let ask = Ask::Unblock(format!("{name}/p0"), origin);
            self.input_now(Input::Operator(Operator { id: self.next_ask, ask }));
        }
    }

    pub(crate) fn slack_ns(&self) -> u64 {
        if self.late_host { 80 * MS } else { 45 * MS }
    }
}
