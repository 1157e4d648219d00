//! A small plant with hands on everything: one driver, one sink, answers given by the test.

use std::time::Duration;

use busbar_contract::{
    Cause, Endpoint, Event, Failure, FailureKind, Flags, Quality, Request, Samples, Value, batch,
    binary::{Ack, Verdict},
    describe::PluginKind,
    event::{BoundGroup, Done, Heartbeat},
};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{PluginReady, Push},
    model::*,
};

pub(crate) use crate::common::describe;
use crate::common::plugin;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const WALL: i64 = 1_767_225_600_000_000_000;

pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) out: Vec<Output>,
}

/// Devices `d0..`, each with points `p0` (writable, 0 to 100) and `p1`; sink `s` gets everything.
pub(crate) fn site(devices: usize) -> Site {
    let devices: Vec<Device> = (0..devices)
        .map(|at| Device {
            name: format!("d{at}"),
            driver: "drv".into(),
            response_timeout: Duration::from_millis(500),
            points: vec![
                Point { name: "p0".into(), writable: true, range: Some([0.0, 100.0]), ..Point::default() },
                Point { name: "p1".into(), ..Point::default() },
            ],
            ..Device::default()
        })
        .collect();
    let routes = (0..devices.len())
        .flat_map(|device| (0..2).map(move |point| Route { device, point, map: Vec::new() }))
        .collect();
    Site {
        plugins: vec![plugin("drv", PluginKind::Driver), plugin("snk", PluginKind::Sink)],
        sinks: vec![Sink {
            name: "s".into(),
            plugin: "snk".into(),
            routes,
            commands: true,
            ..Sink::default()
        }],
        devices,
        ..Site::default()
    }
}

impl Bench {
    pub(crate) fn new(site: Site) -> Self {
        let now = Now { mono_ns: 0, wall_ns: WALL };
        Self { core: Core::new(site, Switches::default(), 1, now), now, out: Vec::new() }
    }

    /// Driver loaded (all devices on one endpoint each, or on `key`), sink loaded.
    pub(crate) fn load(&mut self, key: Option<&str>, durable: bool) {
        let count = self.core.site().devices.len();
        let endpoints = (0..count)
            .map(|at| {
                let key = key.map_or_else(|| format!("tcp:{at}"), ToOwned::to_owned);
                (at, Ok(Endpoint { key, exclusive: false, parallel: 1, lock_path: None }))
            })
            .collect();
        let describe_driver = describe("drv", PluginKind::Driver, false);
        self.step(Input::PluginReady(Box::new(PluginReady {
            plugin: 0,
            describe: describe_driver,
            endpoints,
        })));
        let describe_sink = describe("snk", PluginKind::Sink, durable);
        let ready = PluginReady { plugin: 1, describe: describe_sink, endpoints: Vec::new() };
        self.step(Input::PluginReady(Box::new(ready)));
    }

    /// One step. Audit lines about answers are on disk at once; those of requests wait for the test.
    pub(crate) fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let before = self.out.len();
            self.step_only(input);
            inputs.extend(self.out[before..].iter().filter_map(|output| match output {
                Output::Audit { audit, line } if *audit != 0 && line["event"] == "answer" => {
                    Some(Input::Audited { audit: *audit, error: String::new() })
                }
                _ => None,
            }));
        }
    }

    pub(crate) fn step_only(&mut self, input: Input) {
        self.core.step(self.now, input, &mut self.out);
        self.core.check_invariants().expect("the books agree");
    }

    /// Time passes; wake-ups are kept, plugins beat, nothing is answered.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ns + ms * MS;
        loop {
            let at = self.core.next_wake().unwrap_or(until).min(until).max(self.now.mono_ns);
            self.now.wall_ns += (at - self.now.mono_ns) as i64;
            self.now.mono_ns = at;
            self.beat();
            self.step(Input::Tick);
            if at >= until {
                return;
            }
        }
    }

    fn beat(&mut self) {
        for plugin in 0..self.core.site().plugins.len() {
            let event = Event::Heartbeat(Heartbeat { beat: 0 });
            self.step(Input::Event { plugin, instance: 0, request: 0, event });
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Requests submitted since the last look: instance, request, body.
    pub(crate) fn requests(&mut self) -> Vec<(u64, u64, Request)> {
        let (submits, rest) =
            self.take().into_iter().partition(|output| matches!(output, Output::Submit { .. }));
        self.out = rest;
        let submits: Vec<Output> = submits;
        submits
            .into_iter()
            .filter_map(|output| match output {
                Output::Submit { instance, request, body } => Some((instance, request, body)),
                _ => None,
            })
            .collect()
    }

    /// Records delivered since the last look: flags, and point, bits, quality, cause.
    pub(crate) fn records(&mut self) -> Vec<(u32, u32, u64, String, Cause)> {
        let mut records = Vec::new();
        let mut rest = Vec::new();
        for output in self.take() {
            match output {
                Output::Deliver { flags, samples, .. } => {
                    for sample in &samples.samples {
                        let quality = Quality(sample.quality).to_string();
                        records.push((flags, sample.point, sample.bits, quality, Cause::of(sample.flags)));
                    }
                }
                other => rest.push(other),
            }
        }
        self.out = rest;
        records
    }

    pub(crate) fn event(&mut self, plugin: usize, instance: u64, request: u64, event: Event) {
        self.step(Input::Event { plugin, instance, request, event });
    }

    pub(crate) fn done(&mut self, plugin: usize, instance: u64, request: u64) {
        self.event(plugin, instance, request, Event::Done(Done::default()));
    }

    pub(crate) fn fail(&mut self, instance: u64, request: u64, kind: FailureKind) {
        self.event(0, instance, request, Event::Failed(Failure::new(kind, "said the device")));
    }

    pub(crate) fn push(&mut self, instance: u64, request: u64, points: &[u32], value: i64) {
        self.push_as(instance, request, points, value, Cause::Poll, 0, self.now.wall_ns - 7);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a batch")]
    pub(crate) fn push_as(
        &mut self,
        instance: u64,
        request: u64,
        points: &[u32],
        value: i64,
        cause: Cause,
        token: u32,
        ts_ns: i64,
    ) {
        let mut samples = Samples::default();
        for point in points {
            samples.push(*point, ts_ns, &Value::Int(value), Quality::GOOD, Flags::new(cause, 0));
        }
        let flags = if request == 0 { 0 } else { batch::LAST };
        self.step(Input::Push(Push { instance, request, token, flags, samples }));
    }

    /// Every instance accepts its configuration; every request is answered well until nothing is asked.
    pub(crate) fn bring_up(&mut self) {
        for _ in 0..50 {
            let opened: Vec<(usize, u64)> = self
                .out
                .iter()
                .filter_map(|output| match output {
                    Output::Open { plugin, instance, .. } => Some((*plugin, *instance)),
                    _ => None,
                })
                .collect();
            self.out.retain(|output| !matches!(output, Output::Open { .. }));
            for (plugin, instance) in opened {
                self.event(plugin, instance, 0, Event::Opened);
            }
            let requests = self.requests();
            if requests.is_empty() {
                return;
            }
            for (instance, request, body) in requests {
                self.answer(instance, request, &body, 5);
            }
        }
    }

    /// The normal answer to a request.
    pub(crate) fn answer(&mut self, instance: u64, request: u64, body: &Request, value: i64) {
        match body {
            Request::Bind(bind) => {
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                self.event(0, instance, request, Event::Done(Done { groups, ..Done::default() }));
            }
            Request::Read(read) => {
                let points = [read.group * 2, read.group * 2 + 1];
                self.push(instance, request, &points, value);
            }
            Request::Points(_) => self.done(1, instance, request),
            Request::Connect(of) if of.device.is_none() => self.done(1, instance, request),
            Request::Answer(_) | Request::Committed(_) | Request::Cancel(_) => {}
            _ => self.done(0, instance, request),
        }
    }

    /// Confirms everything the sink got.
    pub(crate) fn confirm(&mut self, instance: u64, verdict: Verdict) {
        let sent: Vec<(u64, u32)> = self
            .out
            .iter()
            .filter_map(|output| match output {
                Output::Deliver { first, samples, .. } => Some((*first, samples.samples.len() as u32)),
                _ => None,
            })
            .collect();
        self.out.retain(|output| !matches!(output, Output::Deliver { .. }));
        for (first, count) in sent {
            let acks = vec![Ack { first, count, verdict, reason: 1 }];
            self.event(1, instance, 0, Event::Ack { lane: 0, acks });
        }
    }

    pub(crate) fn quality(&self, point: &str) -> String {
        self.core.point(point).unwrap().quality.to_string()
    }

    pub(crate) fn state(&self, device: usize) -> &'static str {
        self.core.devices()[device].state.as_str()
    }

    /// Loaded, online, delivered, confirmed.
    pub(crate) fn running(site: Site, key: Option<&str>, durable: bool) -> (Self, u64) {
        let mut bench = Self::new(site);
        bench.load(key, durable);
        let sink = bench
            .out
            .iter()
            .find_map(|output| match output {
                Output::Open { plugin: 1, instance, .. } => Some(*instance),
                _ => None,
            })
            .unwrap();
        bench.bring_up();
        for _ in 0..3 {
            bench.confirm(sink, Verdict::Delivered);
        }
        bench.take();
        (bench, sink)
    }
}
