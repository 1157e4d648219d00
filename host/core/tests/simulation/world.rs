//! Keeps time and carries: outputs of the core to the models, what the models do back to the core.

use std::collections::{BTreeMap, VecDeque};

use busbar_contract::{
    Describe, Endpoint, Event, FailureKind, Request,
    describe::{PluginKind, Protocol, SinkTraits},
    event::{Failure, Heartbeat},
};
use busbar_core::{Core, Input, Now, Output, Switches, input::PluginReady, model::Site, output::StoreAction};

use crate::{
    check::Checks,
    client::Clients,
    driver::{self, Behind, Instance, Mode},
    fault,
    rng::Rng,
    sink::Model,
    site::{self, DRIVER, DURABLE, GHOST, VOLATILE},
};

/// One millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// Wall clock at the start: 2026-01-01.
const START_WALL: i64 = 1_767_225_600_000_000_000;
/// Quiet time at the end in which everything must heal.
const QUIET: u64 = 20_000 * MS;
/// Steps kept for the report of a failure.
const TRACE: usize = 60;
/// Ticks at one instant before the core counts as spinning.
const SPIN: u32 = 50;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// An input for the core.
    Input(Input),
    /// Heartbeats of all plugins that are alive.
    Beat,
    /// Bad luck.
    Fault,
    /// Somebody wants something.
    Client,
    /// A plugin comes back.
    Reload(usize),
    /// The end of bad luck.
    Heal,
}

/// One plugin as the edge knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plugin {
    pub(crate) loaded: bool,
    /// No heartbeat before this instant.
    pub(crate) mute_until: u64,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) now: Now,
    pub(crate) core: Core,
    pub(crate) site: Site,
    pub(crate) behind: Vec<Behind>,
    pub(crate) plugins: [Plugin; 4],
    pub(crate) instances: BTreeMap<u64, Instance>,
    pub(crate) sinks: [Model; 2],
    pub(crate) clients: Clients,
    pub(crate) checks: Checks,
    pub(crate) audit_broken: bool,
    pub(crate) healing: bool,
    pub(crate) counter: u64,
    ahead: BTreeMap<(u64, u64), Ahead>,
    next: u64,
    end: u64,
    trace: VecDeque<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let site = site::site(&mut rng);
        let now = Now { mono_ns: 1_000 * MS, wall_ns: START_WALL };
        let behind = site
            .devices
            .iter()
            .map(|device| Behind {
                mode: Mode::Healthy,
                response_timeout_ms: device.response_timeout.as_millis() as u64,
                retries: u64::from(device.retries),
            })
            .collect();
        let core = Core::new(site.clone(), Switches::default(), seed, now);
        let bad_luck = rng.between(2_000, 8_000) * MS;
        let mut world = Self {
            seed,
            core,
            behind,
            plugins: [Plugin::default(); 4],
            instances: BTreeMap::new(),
            sinks: [Model::new(DURABLE), Model::new(VOLATILE)],
            clients: Clients::default(),
            checks: Checks::new(&site),
            audit_broken: false,
            healing: false,
            counter: 0,
            ahead: BTreeMap::new(),
            next: 0,
            end: now.mono_ns + bad_luck + QUIET,
            trace: VecDeque::new(),
            rng,
            now,
            site,
        };
        world.after(bad_luck / MS, Ahead::Heal);
        world.after(0, Ahead::Beat);
        let absent = "libbusbar_driver_ghost.so: not found".to_owned();
        world.after(3, Ahead::Input(Input::PluginFailed { plugin: GHOST, reason: absent }));
        for plugin in [DRIVER, DURABLE, VOLATILE] {
            let delay = world.rng.between(1, 60);
            world.after(delay, Ahead::Reload(plugin));
        }
        let first = world.rng.between(100, 1_500);
        world.after(first, Ahead::Fault);
        world.after(first / 2, Ahead::Client);
        world
    }

    /// Runs the whole history.
    pub(crate) fn run(&mut self) {
        self.step(Input::Tick);
        let mut spins = 0;
        loop {
            let ahead = self.ahead.keys().next().map_or(u64::MAX, |(at, _)| *at);
            let wake = self.core.next_wake().unwrap_or(u64::MAX);
            let at = ahead.min(wake).max(self.now.mono_ns);
            if at > self.end {
                break;
            }
            spins = if at == self.now.mono_ns && wake <= at { spins + 1 } else { 0 };
            if spins > SPIN {
                self.fail("the core asks to be woken at the same instant again and again");
            }
            self.pass(at - self.now.mono_ns);
            if wake <= at {
                self.step(Input::Tick);
            } else if let Some((_, what)) = self.ahead.pop_first() {
                self.happen(what);
            }
        }
        self.check_end();
    }

    /// Lets time pass on both clocks.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.wall_ns += ns as i64;
    }

    /// Plans something for later.
    pub(crate) fn after(&mut self, ms: u64, what: Ahead) {
        self.next += 1;
        self.ahead.insert((self.now.mono_ns + ms * MS, self.next), what);
    }

    /// Plans several inputs.
    pub(crate) fn plan(&mut self, plan: Vec<(u64, Input)>) {
        for (delay, input) in plan {
            self.after(delay, Ahead::Input(input));
        }
    }

    fn happen(&mut self, what: Ahead) {
        match what {
            Ahead::Input(input) => self.step(input),
            Ahead::Beat => self.beat(),
            Ahead::Reload(plugin) => self.reload(plugin),
            Ahead::Heal => fault::heal(self),
            Ahead::Fault if !self.healing => {
                fault::strike(self);
                let next = self.rng.between(50, 1_500);
                self.after(next, Ahead::Fault);
            }
            Ahead::Client if !self.healing => {
                self.client();
                let next = self.rng.between(20, 600);
                self.after(next, Ahead::Client);
            }
            Ahead::Fault | Ahead::Client => {}
        }
    }

    fn beat(&mut self) {
        for plugin in 0..self.plugins.len() {
            let state = self.plugins[plugin];
            if state.loaded && state.mute_until <= self.now.mono_ns {
                let event = Event::Heartbeat(Heartbeat { beat: 0 });
                self.step(Input::Event { plugin, instance: 0, request: 0, event });
            }
        }
        self.after(250, Ahead::Beat);
    }

    fn reload(&mut self, plugin: usize) {
        if self.plugins[plugin].loaded {
            return;
        }
        self.plugins[plugin].loaded = true;
        let endpoints = match plugin {
            DRIVER => self.endpoints(),
            _ => Vec::new(),
        };
        let describe = describe(plugin);
        self.step(Input::PluginReady(Box::new(PluginReady { plugin, describe, endpoints })));
    }

    fn endpoints(&self) -> Vec<(usize, Result<Endpoint, String>)> {
        let endpoint = |device: &busbar_core::model::Device| Endpoint {
            key: format!("sim:{}", device.connection["endpoint"]),
            exclusive: true,
            parallel: 1,
            lock_path: None,
        };
        let devices = self.site.devices.iter().enumerate();
        devices.filter(|(_, d)| d.driver == "sim").map(|(n, d)| (n, Ok(endpoint(d)))).collect()
    }

    /// One step of the core, its outputs, and the guarantees.
    pub(crate) fn step(&mut self, input: Input) {
        self.note(|| format!("<- {input:?}"));
        self.checks.before(&input, self.now, &self.instances);
        self.clients.before(&input);
        self.completed(&input);
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        for output in out {
            self.note(|| format!("-> {output:?}"));
            self.carry_out(output);
        }
        self.check();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open { plugin, instance, .. } => self.open(plugin, instance),
            Output::Submit { instance, request, body } => self.submit(instance, request, body),
            Output::Deliver { instance, lane, first, samples, .. } => {
                let Some(at) = self.sinks.iter().position(|sink| sink.instance == Some(instance)) else {
                    return;
                };
                self.check_delivery(at, lane, first, &samples);
                let plan = self.sinks[at].deliver(&mut self.rng, instance, lane, first, &samples);
                self.plan(plan);
            }
            Output::Stop { instance, .. } => self.stop(instance),
            Output::Abandon { plugin, .. } => self.plugins[plugin].loaded = false,
            Output::Audit { audit, line } => {
                let broken = self.audit_broken;
                self.clients.audited(audit, line.to_string(), !broken);
                let error = if broken { "no space left on device".to_owned() } else { String::new() };
                let delay = self.rng.between(1, 5);
                if audit != 0 {
                    self.after(delay, Ahead::Input(Input::Audited { audit, error }));
                }
            }
            Output::Store { store, action, .. } if store != 0 => {
                let result = Ok(match action {
                    StoreAction::Get | StoreAction::Put(_) | StoreAction::Delete => None,
                });
                self.after(2, Ahead::Input(Input::Stored { store, result }));
            }
            Output::Store { .. } | Output::Log(_) => {}
            Output::Reply { id, reply } => self.replied(id, reply),
        }
    }

    fn open(&mut self, plugin: usize, instance: u64) {
        self.checks.opened(instance);
        if !self.plugins[plugin].loaded {
            self.fail("an instance is opened in a plugin that is not loaded");
        }
        if plugin == DRIVER {
            self.instances.insert(instance, Instance { id: instance, ..Instance::default() });
        } else {
            let sink = &mut self.sinks[plugin - DURABLE];
            sink.gone();
            sink.instance = Some(instance);
        }
        let event = Event::Opened;
        self.after(1, Ahead::Input(Input::Event { plugin, instance, request: 0, event }));
    }

    fn submit(&mut self, instance: u64, request: u64, body: Request) {
        if let Some(at) = self.sinks.iter().position(|sink| sink.instance == Some(instance)) {
            if let Request::Answer(answer) = &body {
                return self.answered(at, request, answer);
            }
            let plan = self.sinks[at].answer(instance, request, &body);
            return self.plan(plan);
        }
        self.check_submit(instance, request, &body);
        self.check_serial(instance, &body);
        let Some(open) = self.instances.get_mut(&instance) else { return };
        if open.stopping {
            let code = 2;
            return self.after(0, Ahead::Input(Input::NotTaken { instance, request, delivery: false, code }));
        }
        if request == 0 {
            return;
        }
        let wall = self.now.wall_ns;
        let plan = driver::answer(&mut self.rng, open, &self.behind, request, &body, wall, &mut self.counter);
        self.plan(plan);
    }

    fn stop(&mut self, instance: u64) {
        if let Some(at) = self.sinks.iter().position(|sink| sink.instance == Some(instance)) {
            self.sinks[at].gone();
            let plugin = self.sinks[at].plugin;
            return self.after(
                2,
                Ahead::Input(Input::Event { plugin, instance, request: 0, event: Event::Stopped }),
            );
        }
        let Some(open) = self.instances.get_mut(&instance) else { return };
        open.stopping = true;
        let hangs =
            open.devices.values().any(|d| self.behind.get(d.index).is_some_and(|b| b.mode == Mode::Hung));
        if !hangs || self.healing {
            self.finish(instance);
        }
    }

    /// Completes what is open (R4), then STOPPED.
    pub(crate) fn finish(&mut self, instance: u64) {
        self.cancel_pending(instance);
        self.after(3, Ahead::Input(driver::event(instance, 0, Event::Stopped)));
    }

    /// Completes every open request of an instance as cancelled.
    pub(crate) fn cancel_pending(&mut self, instance: u64) {
        let pending = self.instances.get(&instance).map(|open| open.pending.clone()).unwrap_or_default();
        for request in pending {
            let failure = Failure::new(FailureKind::Cancelled, "simulated: cancelled");
            self.after(1, Ahead::Input(driver::event(instance, request, Event::Failed(failure))));
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let mut line = line();
        line.truncate(line.char_indices().nth(400).map_or(line.len(), |(at, _)| at));
        let since = self.now.mono_ns as f64 / 1e9 - 1.0;
        self.trace.push_back(format!("{since:9.3} {line}"));
    }

    /// Prints the last steps and fails the history.
    pub(crate) fn fail(&self, why: &str) -> ! {
        for line in &self.trace {
            println!("{line}");
        }
        panic!("seed {}, {:.3} s: {why}", self.seed, self.now.mono_ns as f64 / 1e9 - 1.0);
    }
}

fn describe(plugin: usize) -> Describe {
    let names = ["sim", "ghost", "durable", "volatile"];
    Describe {
        name: names[plugin].into(),
        kind: if plugin < DURABLE { PluginKind::Driver } else { PluginKind::Sink },
        version: "1.0.0".into(),
        description: String::new(),
        protocol: Protocol { major: 1, minor: 0 },
        needs: 0,
        sdk: String::new(),
        rustc: String::new(),
        build: String::new(),
        unwind: true,
        ops: busbar_contract::op::ALL.to_vec(),
        schemas: Default::default(),
        reasons: vec![String::new(), "moody".into()],
        sink: SinkTraits { durable: plugin == DURABLE, ..SinkTraits::default() },
    }
}
