//! Time, what will happen, what the core asks.

use std::collections::{BTreeMap, VecDeque};

use busbar_contract::{
    Cause, Endpoint, Event, Flags, Quality, Request, Samples, Value, batch,
    describe::PluginKind,
    event::{BoundGroup, Done, Heartbeat, State},
};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{PluginReady, Push},
    journal::{Name, Transaction},
    model::{Order, Site},
};

use crate::{
    far::{Answer, Far, Mood},
    file::{Fate, File},
    rng::Rng,
    site,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
/// How long things go wrong.
const CHAOS_NS: u64 = 10 * SECOND;
/// How long recovery may take.
const RECOVERY_NS: u64 = 90 * SECOND;
const TRACE: usize = 100_000;

enum Happening {
    Input(Box<Input>),
    Answer(usize, u64, Answer),
    /// The writer of a sink's file finished a job.
    Job(usize),
    Data,
    Chaos,
    Beat,
}

enum Job {
    Open,
    Write(Box<Transaction>),
    Load {
        from: u64,
        records: usize,
    },
    /// An operator wants refused records tried again.
    Again,
}

/// The writer of one file.
pub(crate) struct Writer {
    pub(crate) file: File,
    jobs: VecDeque<Job>,
    slow: bool,
    open_fails: bool,
    /// Absolute time of the last fault.
    pub(crate) ill_ns: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) steps: u64,
    pub(crate) measured: u64,
    pub(crate) crashes: u64,
    pub(crate) loads: u64,
    pub(crate) transactions: u64,
    pub(crate) rows: u64,
    pub(crate) failed_transactions: u64,
    pub(crate) dropped_by_file: u64,
    pub(crate) parked: u64,
    pub(crate) again: u64,
    pub(crate) retries: u64,
    pub(crate) duplicates: u64,
    pub(crate) ghosts: u64,
    pub(crate) refused_records: u64,
    pub(crate) lost_young: u64,
    pub(crate) tokens_ok: u64,
    pub(crate) tokens_failed: u64,
    pub(crate) stops: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        for (to, from) in self.all().into_iter().zip(Self { ..*other }.all()) {
            *to += *from;
        }
    }

    fn all(&mut self) -> [&mut u64; 18] {
        [
            &mut self.steps,
            &mut self.measured,
            &mut self.crashes,
            &mut self.loads,
            &mut self.transactions,
            &mut self.rows,
            &mut self.failed_transactions,
            &mut self.dropped_by_file,
            &mut self.parked,
            &mut self.again,
            &mut self.retries,
            &mut self.duplicates,
            &mut self.ghosts,
            &mut self.refused_records,
            &mut self.lost_young,
            &mut self.tokens_ok,
            &mut self.tokens_failed,
            &mut self.stops,
        ]
    }
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    seed: u64,
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// Nanoseconds of the runs before.
    pub(crate) before_ns: u64,
    pub(crate) site: Site,
    pub(crate) writers: Vec<Writer>,
    pub(crate) fars: Vec<Far>,
    /// Per sink: what was measured and not lost with the gateway, and when.
    pub(crate) measured: Vec<BTreeMap<u64, u64>>,
    driver: u64,
    groups: BTreeMap<u32, Vec<u32>>,
    connected: Vec<bool>,
    next_value: u64,
    next_token: u32,
    tokens: BTreeMap<u32, Vec<u64>>,
    queue: BTreeMap<(u64, u64), Happening>,
    seq: u64,
    pub(crate) healing: bool,
    busy: bool,
    pub(crate) stats: Stats,
    tracing: bool,
    pub(crate) trace: VecDeque<String>,
    pub(crate) error: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let site = site::site(&mut rng);
        let now = Now { mono_ns: 0, wall_ns: 1_767_225_600_000_000_000 };
        let core = Core::new(site.clone(), Switches::default(), seed, now);
        let writers = site
            .sinks
            .iter()
            .map(|_| {
                let small = rng.chance(25);
                let records = if small { rng.range(20, 300) as usize } else { usize::MAX };
                let age = if rng.chance(20) { rng.range(1, 6) * SECOND } else { u64::MAX >> 2 };
                Writer {
                    file: File::new(records, age),
                    jobs: VecDeque::new(),
                    slow: false,
                    open_fails: false,
                    ill_ns: None,
                }
            })
            .collect();
        let live = |sink: &busbar_core::model::Sink| sink.queue.order == Order::LiveFirst;
        let fars = site.sinks.iter().map(|sink| Far::new(live(sink))).collect();
        let busy = rng.chance(40);
        let mut world = Self {
            rng,
            seed,
            core,
            now,
            before_ns: 0,
            writers,
            fars,
            measured: vec![BTreeMap::new(); site.sinks.len()],
            driver: 0,
            groups: BTreeMap::new(),
            connected: vec![false; site.devices.len()],
            site,
            next_value: 0,
            next_token: 0,
            tokens: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            healing: false,
            busy,
            stats: Stats::default(),
            tracing,
            trace: VecDeque::new(),
            error: None,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        for (plugin, kind) in [(0, PluginKind::Driver), (1, PluginKind::Sink)] {
            let endpoints = (0..self.site.devices.len())
                .filter(|_| plugin == 0)
                .map(|at| {
                    let endpoint =
                        Endpoint { key: "k".into(), exclusive: false, parallel: 8, lock_path: None };
                    (at, Ok(endpoint))
                })
                .collect();
            let describe = site::describe("x", kind);
            let at = self.now.mono_ns + self.rng.range(0, 30) * MS;
            self.input_at(at, Input::PluginReady(Box::new(PluginReady { plugin, describe, endpoints })));
        }
        self.at(self.now.mono_ns, Happening::Beat);
        self.at(self.now.mono_ns + 100 * MS, Happening::Data);
        self.at(self.now.mono_ns + 400 * MS, Happening::Chaos);
    }

    pub(crate) fn absolute_ns(&self) -> u64 {
        self.before_ns + self.now.mono_ns
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((at, self.seq), happening);
    }

    fn input_at(&mut self, at: u64, input: Input) {
        self.at(at, Happening::Input(Box::new(input)));
    }

    fn event(&mut self, plugin: usize, instance: u64, request: u64, delay_ms: u64, event: Event) {
        let input = Input::Event { plugin, instance, request, event };
        self.input_at(self.now.mono_ns + delay_ms * MS, input);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            let mut line = format!("{:>9.3} ", self.now.mono_ns as f64 / 1e9);
            line.push_str(&text());
            line.truncate(line.char_indices().nth(60_000).map_or(line.len(), |(at, _)| at));
            self.trace.push_back(line);
            if self.trace.len() > TRACE {
                self.trace.pop_front();
            }
        }
    }

    pub(crate) fn run(&mut self) -> Result<Stats, String> {
        let mut until = None;
        let mut well_ns = None;
        loop {
            if self.absolute_ns() > CHAOS_NS && until.is_none() {
                self.heal();
                until = Some(self.absolute_ns() + RECOVERY_NS);
            }
            if let Some(until) = until {
                // Images come when everything else is through.
                well_ns = if self.is_well() { well_ns.or(Some(self.absolute_ns())) } else { None };
                if well_ns.is_some_and(|since| self.absolute_ns() > since + SECOND) {
                    break;
                }
                if self.absolute_ns() > until {
                    return Err(format!("not everything is well: {}", self.what_is_wrong()));
                }
            }
            self.advance()?;
        }
        self.final_checks()?;
        if self.rng.chance(50) {
            self.stop()?;
        }
        self.collect();
        Ok(std::mem::take(&mut self.stats))
    }

    /// Goes to the next instant and does what happens there.
    fn advance(&mut self) -> Result<(), String> {
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let at = [next, self.core.next_wake()].into_iter().flatten().min().ok_or("nothing will happen")?;
        let at = at.max(self.now.mono_ns);
        self.now.wall_ns += (at - self.now.mono_ns) as i64;
        self.now.mono_ns = at;
        if self.queue.first_key_value().is_some_and(|((when, _), _)| *when <= at)
            && let Some((_, happening)) = self.queue.pop_first()
        {
            self.happen(happening);
        } else {
            self.step(Input::Tick);
        }
        self.error.take().map_or(Ok(()), Err)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input(input) => {
                let sink = |instance: u64| self.fars.iter().position(|far| far.instance == instance);
                match &*input {
                    Input::NotTaken { instance, .. } => {
                        sink(*instance).into_iter().for_each(|sink| self.fars[sink].refusing = false);
                    }
                    Input::Event { plugin: 1, instance, event: Event::State(_), .. } => {
                        sink(*instance).into_iter().for_each(|sink| self.fars[sink].connection += 1);
                    }
                    _ => {}
                }
                self.step(*input);
            }
            Happening::Answer(sink, instance, answer) => {
                let far = &mut self.fars[sink];
                if far.instance == instance && !far.stopped {
                    // What comes after the end of its connection may count or not.
                    if far.connection == answer.connection {
                        far.known.extend(answer.values);
                    }
                    let event = Event::Ack { lane: 0, acks: answer.acks };
                    self.step(Input::Event { plugin: 1, instance, request: 0, event });
                }
            }
            Happening::Job(sink) => self.job_done(sink),
            Happening::Data => self.data(),
            Happening::Chaos => self.chaos(),
            Happening::Beat => {
                self.at(self.now.mono_ns + 250 * MS, Happening::Beat);
                for plugin in 0..2 {
                    let event = Event::Heartbeat(Heartbeat { beat: 0 });
                    self.step(Input::Event { plugin, instance: 0, request: 0, event });
                }
            }
        }
    }

    pub(crate) fn step(&mut self, input: Input) {
        if self.error.is_some() {
            return;
        }
        self.note(|| format!("<- {input:?}"));
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        self.stats.steps += 1;
        for output in out {
            if self.tracing {
                self.note(|| format!("   -> {output:?}"));
            }
            if let Err(error) = self.carry_out(output) {
                self.error.get_or_insert(error);
            }
        }
        if let Err(error) = self.check_step() {
            self.error.get_or_insert(error);
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Open { plugin, instance, config } => {
                match &config {
                    busbar_contract::describe::Open::Sink { name, .. } => {
                        let sink = self.site.sinks.iter().position(|sink| sink.name == *name).unwrap();
                        self.fars[sink].opened(instance);
                    }
                    busbar_contract::describe::Open::Driver { .. } => self.driver = instance,
                }
                self.event(plugin, instance, 0, 3, Event::Opened);
            }
            Output::Submit { instance, request, body } if instance == self.driver => {
                self.driver_asked(instance, request, &body)?;
            }
            Output::Submit { instance, request, body } => self.sink_asked(instance, request, &body)?,
            Output::Deliver { instance, first, flags, samples, .. } => {
                self.delivered(instance, first, flags, samples)?;
            }
            Output::Stop { instance, .. } => {
                let plugin = usize::from(instance != self.driver);
                if let Some(far) = self.fars.iter_mut().find(|far| far.instance == instance) {
                    (far.stopped, far.asked_to_stop) = (true, true);
                }
                let delay = self.rng.range(1, 100);
                self.event(plugin, instance, 0, delay, Event::Stopped);
            }
            Output::JournalOpen { sink } => self.job(sink, Job::Open),
            Output::Journal { sink, transaction } => self.job(sink, Job::Write(transaction)),
            Output::JournalLoad { sink, from, records, .. } => self.job(sink, Job::Load { from, records }),
            _ => {}
        }
        Ok(())
    }

    fn driver_asked(&mut self, instance: u64, request: u64, body: &Request) -> Result<(), String> {
        match body {
            Request::Bind(bind) => {
                for group in &bind.groups {
                    self.groups.insert(group.group, group.points.clone());
                }
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                self.event(0, instance, request, 1, Event::Done(Done { groups, ..Done::default() }));
            }
            Request::Read(read) => {
                let mut samples = Samples::default();
                for point in self.groups[&read.group].clone() {
                    let value = self.core.points(None).nth(point as usize).map(|view| view.value);
                    let value = value.filter(|value| *value != Value::None).unwrap_or(Value::Uint(0));
                    let ts = self.now.wall_ns;
                    samples.push(point, ts, &value, Quality::GOOD, Flags::new(Cause::Poll, 0));
                }
                let push = Push { instance, request, token: 0, flags: batch::LAST, samples };
                self.input_at(self.now.mono_ns, Input::Push(push));
            }
            Request::Connect(of) => {
                self.connected[of.device.unwrap() as usize] = true;
                self.event(0, instance, request, 2, Event::Done(Done::default()));
            }
            Request::Committed(committed) => self.committed(committed.token, committed.ok)?,
            Request::Cancel(_) | Request::Answer(_) => {}
            _ => self.event(0, instance, request, 1, Event::Done(Done::default())),
        }
        Ok(())
    }

    fn sink_asked(&mut self, instance: u64, request: u64, body: &Request) -> Result<(), String> {
        let Some(sink) = self.fars.iter().position(|far| far.instance == instance) else {
            return Err(format!("a request to instance {instance}, which is gone"));
        };
        self.fars[sink].points(body)?;
        let delay = self.rng.range(1, 20);
        let down = self.fars[sink].mood == Mood::Down;
        let event = match body {
            Request::Connect(_) if down => Event::Failed(busbar_contract::Failure::new(
                busbar_contract::FailureKind::Session,
                "connection refused",
            )),
            Request::Points(_) | Request::Connect(_) => Event::Done(Done::default()),
            _ => return Ok(()),
        };
        self.event(1, instance, request, delay, event);
        Ok(())
    }

    fn delivered(
        &mut self,
        instance: u64,
        first: u64,
        flags: u32,
        mut samples: Samples,
    ) -> Result<(), String> {
        let Some(sink) = self.fars.iter().position(|far| far.instance == instance && !far.asked_to_stop)
        else {
            return Err(format!("a delivery to instance {instance}, which is gone"));
        };
        if self.fars[sink].stopped {
            // The core does not know yet.
            return Ok(());
        }
        if self.fars[sink].refusing || (self.rng.chance(2) && !self.healing) {
            self.fars[sink].refusing = true;
            let input = Input::NotTaken { instance, request: first, delivery: true, code: 2 };
            self.input_at(self.now.mono_ns, input);
            return Ok(());
        }
        if flags & batch::TIMES != 0 {
            samples.take_times().map_err(|error| error.to_string())?;
        }
        let file = &self.writers[sink].file;
        let known = |value: u64| file.fates.get(&value) == Some(&Fate::Delivered);
        let answers =
            self.fars[sink].deliver(&mut self.rng, self.now.mono_ns, (first, flags), &samples, &known)?;
        for answer in answers {
            self.at(answer.at_ns, Happening::Answer(sink, instance, answer));
        }
        Ok(())
    }

    fn job(&mut self, sink: usize, job: Job) {
        self.writers[sink].jobs.push_back(job);
        if self.writers[sink].jobs.len() == 1 {
            self.begin_job(sink);
        }
    }

    fn begin_job(&mut self, sink: usize) {
        let slow = self.writers[sink].slow;
        let delay = if slow { self.rng.range(200, 3000) } else { self.rng.range(1, 15) };
        if slow {
            self.writers[sink].ill_ns = Some(self.absolute_ns() + delay * MS);
        }
        self.at(self.now.mono_ns + delay * MS, Happening::Job(sink));
    }

    fn job_done(&mut self, sink: usize) {
        let absolute_ns = self.absolute_ns();
        let writer = &mut self.writers[sink];
        let Some(job) = writer.jobs.pop_front() else { return };
        let input = match job {
            Job::Open if writer.open_fails => {
                writer.ill_ns = Some(absolute_ns);
                self.fars[sink].ordered = false;
                Input::JournalOpened { sink, result: Err("permission denied".into()) }
            }
            Job::Open => Input::JournalOpened { sink, result: Ok(writer.file.open()) },
            Job::Write(transaction) => match writer.file.write(&transaction) {
                Ok(result) => {
                    if result.is_err() {
                        writer.ill_ns = Some(absolute_ns);
                        self.stats.failed_transactions += 1;
                    }
                    Input::Journaled { sink, number: transaction.number, result }
                }
                Err(error) => {
                    self.error.get_or_insert(format!("sink {sink}: {error}"));
                    return;
                }
            },
            Job::Load { from, records } => {
                self.stats.loads += 1;
                let result = if self.rng.chance(3) && !self.healing {
                    Err("cannot read".to_owned())
                } else {
                    Ok(self.writers[sink].file.load(from, records))
                };
                Input::JournalLoaded { sink, result }
            }
            Job::Again => {
                let Some((ledger, again)) = writer.file.again() else { return self.next_job(sink) };
                self.stats.again += again.rows.len() as u64;
                // The far side hears of them once more, as somebody wished.
                for entry in again.rows.iter().flat_map(|row| &row.entries) {
                    self.fars[sink].known.remove(&entry.sample.bits);
                }
                Input::JournalAgain { sink, ledger, again }
            }
        };
        self.step(input);
        self.next_job(sink);
    }

    fn next_job(&mut self, sink: usize) {
        if !self.writers[sink].jobs.is_empty() {
            self.begin_job(sink);
        }
    }

    /// A device measures.
    fn data(&mut self) {
        if self.healing {
            return;
        }
        let pause = if self.busy { self.rng.range(1, 30) } else { self.rng.range(5, 150) };
        self.at(self.now.mono_ns + pause * MS, Happening::Data);
        self.measure();
    }

    pub(crate) fn measure(&mut self) {
        let device = self.rng.below(self.site.devices.len() as u64) as usize;
        if self.core.devices()[device].state.as_str() != "online" {
            return;
        }
        let first: u32 = self.site.devices[..device].iter().map(|device| device.points.len() as u32).sum();
        let count = self.site.devices[device].points.len() as u32;
        let cause = if self.rng.chance(10) { Cause::History } else { Cause::DataUpdate };
        let mut samples = Samples::default();
        let (token, mut values) = (self.rng.chance(15), Vec::new());
        for point in 0..count {
            if self.rng.chance(70) {
                self.next_value += 1;
                values.push(self.next_value);
                self.expect(device, point as usize, self.next_value);
                let value = Value::Uint(self.next_value);
                let ts_ns = self.now.wall_ns;
                samples.push(first + point, ts_ns, &value, Quality::GOOD, Flags::new(cause, 0));
            }
        }
        if samples.samples.is_empty() {
            return;
        }
        let mut push = Push { instance: self.driver, request: 0, token: 0, flags: 0, samples };
        if token {
            self.next_token += 1;
            push.token = self.next_token;
            self.tokens.insert(self.next_token, values);
        }
        self.step(Input::Push(push));
    }

    fn expect(&mut self, device: usize, point: usize, value: u64) {
        let config = &self.site.devices[device];
        let name = Name {
            device: config.name.clone(),
            point: config.points[point].name.clone(),
            unit: config.points[point].unit.clone(),
        };
        let now_ns = self.absolute_ns();
        for (at, sink) in self.site.sinks.iter().enumerate() {
            if sink.routes.iter().any(|route| route.device == device && route.point == point) {
                self.stats.measured += 1;
                self.measured[at].insert(value, now_ns);
                self.fars[at].expected.insert(value, name.clone());
            }
        }
    }

    /// A token is answered: positive only when every sink has everything on disk, or confirmed.
    fn committed(&mut self, token: u32, ok: bool) -> Result<(), String> {
        let values = self.tokens.remove(&token).ok_or(format!("token {token} is answered twice"))?;
        if !ok {
            self.stats.tokens_failed += 1;
            return Ok(());
        }
        self.stats.tokens_ok += 1;
        for value in values {
            for (sink, measured) in self.measured.iter().enumerate() {
                // Dropped by size or age since, perhaps.
                let on_disk = self.writers[sink].file.fates.contains_key(&value);
                if measured.contains_key(&value) && !on_disk && !self.fars[sink].got.contains_key(&value) {
                    return Err(format!("token {token} is committed, sink {sink} does not have {value}"));
                }
            }
        }
        Ok(())
    }

    fn chaos(&mut self) {
        if self.healing {
            return;
        }
        let at = self.now.mono_ns + self.rng.range(50, 700) * MS;
        self.at(at, Happening::Chaos);
        let sink = self.rng.below(self.site.sinks.len() as u64) as usize;
        match self.rng.below(21) {
            20 => self.job(sink, Job::Again),
            0..=6 => self.far_mood(sink),
            7 | 8 => self.disconnect(sink),
            9..=11 => self.file_mood(sink),
            12 => self.instance_dies(sink),
            13 => self.lose_device(),
            14 | 15 => self.plugin_fails(),
            16..=18 => self.crash(),
            _ => self.busy = !self.busy,
        }
    }

    fn far_mood(&mut self, sink: usize) {
        let device = self.rng.below(self.site.devices.len() as u64);
        let moods = [
            Mood::Prompt,
            Mood::Slow,
            Mood::Withholds,
            Mood::Odd,
            Mood::Odd,
            Mood::Poison(device),
            Mood::Down,
            Mood::Down,
        ];
        let mood = *self.rng.pick(&moods);
        self.note(|| format!("far side {sink} is {mood:?}"));
        let before = std::mem::replace(&mut self.fars[sink].mood, mood);
        if mood == Mood::Down || before == Mood::Withholds {
            self.disconnect(sink);
        }
    }

    fn disconnect(&mut self, sink: usize) {
        let instance = self.fars[sink].instance;
        if instance != 0 && !self.fars[sink].stopped {
            let state = State { device: None, up: false, reason: "gone".into() };
            self.event(1, instance, 0, 1, Event::State(state));
        }
    }

    fn file_mood(&mut self, sink: usize) {
        let absolute_ns = self.absolute_ns();
        let (full, slow, fails) = (self.rng.chance(30), self.rng.chance(25), self.rng.chance(15));
        let writer = &mut self.writers[sink];
        (writer.file.full, writer.slow, writer.open_fails) = (full, slow, fails);
        writer.ill_ns = (full || slow || fails).then_some(absolute_ns).or(writer.ill_ns);
        self.note(|| format!("file {sink}: full {full}, slow {slow}, cannot be opened {fails}"));
    }

    /// The plugin loses the instance: it stops by itself.
    fn instance_dies(&mut self, sink: usize) {
        let instance = self.fars[sink].instance;
        if instance != 0 && !self.fars[sink].stopped {
            self.fars[sink].stopped = true;
            self.event(1, instance, 0, 0, Event::Stopped);
        }
    }

    fn plugin_fails(&mut self) {
        for far in &mut self.fars {
            far.stopped = true;
        }
        self.step(Input::PluginFailed { plugin: 1, reason: "the worker died".into() });
        let at = self.now.mono_ns + self.rng.range(10, 1500) * MS;
        let describe = site::describe("x", PluginKind::Sink);
        let ready = PluginReady { plugin: 1, describe, endpoints: Vec::new() };
        self.input_at(at, Input::PluginReady(Box::new(ready)));
    }

    fn lose_device(&mut self) {
        let device = self.rng.below(self.site.devices.len() as u64) as u32;
        let state = State { device: Some(device), up: false, reason: "reset".into() };
        self.event(0, self.driver, 0, 0, Event::State(state));
    }

    /// kill -9, and a new start, perhaps with another configuration.
    fn crash(&mut self) {
        self.stats.crashes += 1;
        self.note(|| "the gateway is killed".into());
        self.check_crash();
        for sink in 0..self.writers.len() {
            self.writers[sink].jobs.clear();
            self.writers[sink].file.crash(self.now.mono_ns);
            self.fars[sink].gateway_died();
        }
        self.before_ns += self.now.mono_ns;
        self.now.mono_ns = 0;
        self.queue.clear();
        self.tokens.clear();
        self.groups.clear();
        self.driver = 0;
        if self.rng.chance(40) {
            self.site = site::edited(&mut self.rng, &self.site);
        }
        self.core = Core::new(self.site.clone(), Switches::default(), self.seed, self.now);
        self.start();
    }

    /// Everything is well from now on.
    fn heal(&mut self) {
        self.note(|| "everything is well from now on".into());
        self.healing = true;
        for sink in 0..self.writers.len() {
            let writer = &mut self.writers[sink];
            (writer.file.full, writer.slow, writer.open_fails) = (false, false, false);
            self.fars[sink].mood = Mood::Prompt;
            self.disconnect(sink);
        }
    }

    /// An orderly stop right after something was measured.
    fn stop(&mut self) -> Result<(), String> {
        self.stats.stops += 1;
        self.note(|| "stop".into());
        if self.rng.chance(50) {
            (0..self.fars.len()).for_each(|sink| self.fars[sink].mood = Mood::Withholds);
        }
        for _ in 0..5 {
            self.measure();
        }
        let begun = self.absolute_ns();
        self.step(Input::Shutdown);
        while !self.core.is_stopped() {
            if self.absolute_ns() - begun > Core::longest_shutdown_ns() {
                return Err("the gateway does not stop".into());
            }
            self.advance()?;
        }
        for (sink, measured) in self.measured.iter().enumerate() {
            for value in measured.keys() {
                let kept = self.writers[sink].file.fates.contains_key(value);
                let far = &self.fars[sink];
                let there = far.known.contains(value) || far.got.contains_key(value);
                if !kept && !there && self.writers[sink].ill_ns.is_none() {
                    return Err(format!("sink {sink}: {value} is not on disk after an orderly stop"));
                }
            }
        }
        Ok(())
    }
}
