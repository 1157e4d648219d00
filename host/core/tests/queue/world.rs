//! Time, what will happen, what the core asks.

use std::collections::{BTreeMap, VecDeque};

use busbar_contract::{
    Cause, Endpoint, Event, Flags, Quality, Samples, Value, describe::PluginKind, event::Heartbeat,
};
use busbar_core::{
    Core, Input, Now, Switches,
    input::{PluginReady, Push},
    journal::{Name, Transaction},
    model::{Order, Site},
};

use crate::{
    far::{Answer, Far, Mood},
    file::File,
    rng::Rng,
    site,
    stats::Stats,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
/// How long things go wrong.
const CHAOS_NS: u64 = 10 * SECOND;
/// How long recovery may take.
const RECOVERY_NS: u64 = 90 * SECOND;
/// Steps that are printed when a history fails, unless `BUSBAR_SIM_TRACE` says another number.
const TRACE: usize = 200;
/// Characters of one step that are printed.
const TRACE_WIDTH: usize = 600;

pub(crate) enum Happening {
    Input(Box<Input>),
    Answer(usize, u64, Answer),
    /// The writer of a sink's file finished a job.
    Job(usize),
    Data,
    Chaos,
    Beat,
}

pub(crate) enum Job {
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
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) slow: bool,
    pub(crate) open_fails: bool,
    /// Absolute time of the last fault.
    pub(crate) ill_ns: Option<u64>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) seed: u64,
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// By how much the gateway's clock was set; those of the devices were not.
    pub(crate) set_ns: i64,
    /// Nanoseconds of the runs before.
    pub(crate) before_ns: u64,
    pub(crate) site: Site,
    pub(crate) writers: Vec<Writer>,
    pub(crate) fars: Vec<Far>,
    /// Per sink: what was measured and not lost with the gateway, and when.
    pub(crate) measured: Vec<BTreeMap<u64, u64>>,
    pub(crate) driver: u64,
    pub(crate) groups: BTreeMap<u32, Vec<u32>>,
    pub(crate) connected: Vec<bool>,
    next_value: u64,
    next_token: u32,
    pub(crate) tokens: BTreeMap<u32, Vec<u64>>,
    pub(crate) queue: BTreeMap<(u64, u64), Happening>,
    seq: u64,
    pub(crate) healing: bool,
    pub(crate) busy: bool,
    pub(crate) stats: Stats,
    /// Steps that are kept; 0 = none.
    tracing: usize,
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
            set_ns: 0,
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
            tracing: if tracing { steps_printed() } else { 0 },
            trace: VecDeque::new(),
            error: None,
        };
        world.start();
        world
    }

    pub(crate) fn start(&mut self) {
        for (plugin, kind) in [(0, PluginKind::Driver), (1, PluginKind::Sink)] {
            let endpoints = (0..self.site.devices.len())
                .filter(|_| plugin == 0)
                .map(|at| {
                    let endpoint =
                        Endpoint { key: "k".into(), exclusive: false, parallel: 8, lock_path: None };
                    (at, Ok(endpoint))
                })
                .collect();
            let describe = crate::common::describe("x", kind, true);
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

    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((at, self.seq), happening);
    }

    pub(crate) fn input_at(&mut self, at: u64, input: Input) {
        self.at(at, Happening::Input(Box::new(input)));
    }

    pub(crate) fn event(&mut self, plugin: usize, instance: u64, request: u64, delay_ms: u64, event: Event) {
        let input = Input::Event { plugin, instance, request, event };
        self.input_at(self.now.mono_ns + delay_ms * MS, input);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing > 0 {
            let mut line = format!("{:>9.3} ", self.now.mono_ns as f64 / 1e9);
            line.push_str(&text());
            line.truncate(line.char_indices().nth(TRACE_WIDTH).map_or(line.len(), |(at, _)| at));
            self.trace.push_back(line);
            if self.trace.len() > self.tracing {
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
            if self.tracing > 0 {
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
                let ts_ns = self.now.wall_ns - self.set_ns;
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

    pub(crate) fn expect(&mut self, device: usize, point: usize, value: u64) {
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
    pub(crate) fn committed(&mut self, token: u32, ok: bool) -> Result<(), String> {
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

fn steps_printed() -> usize {
    std::env::var("BUSBAR_SIM_TRACE").ok().and_then(|text| text.parse().ok()).unwrap_or(TRACE)
}
