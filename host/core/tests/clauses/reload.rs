//! Reload (SEMANTICS 9): matched by name, applied by difference, tried, rolled back; and devices that are off on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use busbar_contract::{
    Endpoint, Event, FailureKind, Origin, Request, Stage,
    binary::Verdict,
    describe::PluginKind,
    event::{BoundGroup, Done},
};
use busbar_core::{
    Input, Output,
    input::{Ask, Operator, OperatorCommand, PluginReady},
    model::*,
    output::Reply,
    reload::{Outcome, Reload, Summary},
};
use serde_json::json;

use crate::bench::{Bench, describe, site};

/// Instances and devices in the order of `Bench::load`: one driver instance per device, then the sink.
struct Desk {
    bench: Bench,
    sink: u64,
    /// Points of each group, as the drivers were told last.
    groups: BTreeMap<u32, Vec<u32>>,
    /// Every point number ever given, with its name.
    numbers: BTreeMap<u32, String>,
    /// What was asked, in words, since the last look.
    asked: Vec<String>,
    refuse_bind: bool,
}

fn endpoint_of(device: &Device) -> Endpoint {
    let key = device.connection.get("host").and_then(|host| host.as_str()).unwrap_or(&device.name);
    Endpoint { key: format!("tcp:{key}"), exclusive: false, parallel: 1, lock_path: None }
}

impl Desk {
    fn new(site: Site, durable: bool) -> Self {
        let mut bench = Bench::new(site.clone());
        let endpoints =
            site.devices.iter().enumerate().map(|(at, device)| (at, Ok(endpoint_of(device)))).collect();
        let describe_driver = describe("drv", PluginKind::Driver, false);
        bench.step(Input::PluginReady(Box::new(PluginReady {
            plugin: 0,
            describe: describe_driver,
            endpoints,
        })));
        let describe_sink = describe("snk", PluginKind::Sink, durable);
        bench.step(Input::PluginReady(Box::new(PluginReady {
            plugin: 1,
            describe: describe_sink,
            endpoints: Vec::new(),
        })));
        let mut desk = Self {
            bench,
            sink: 0,
            groups: BTreeMap::new(),
            numbers: BTreeMap::new(),
            asked: Vec::new(),
            refuse_bind: false,
        };
        desk.settle();
        desk
    }

    /// Everything asked is answered well, everything delivered is confirmed, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let outputs = self.bench.take();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(output);
            }
        }
        for view in self.bench.core.points(None).chain(self.bench.core.system_points()) {
            let name = format!("{}/{}", view.device, view.name);
            let known = self.numbers.entry(view.number).or_insert_with(|| name.clone());
            assert_eq!(*known, name, "a number means one point for ever");
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open { plugin, instance, .. } => {
                self.asked.push(format!("open {plugin}"));
                if plugin == 1 {
                    self.sink = instance;
                }
                self.bench.event(plugin, instance, 0, Event::Opened);
            }
            Output::Stop { instance, .. } => {
                let plugin = usize::from(instance == self.sink);
                self.asked.push(format!("stop {plugin}"));
                self.bench.event(plugin, instance, 0, Event::Stopped);
            }
            Output::Submit { instance, request, body } => self.answer(instance, request, &body),
            Output::Deliver { instance, first, samples, .. } => {
                let acks = vec![busbar_contract::binary::Ack {
                    first,
                    count: samples.samples.len() as u32,
                    verdict: Verdict::Delivered,
                    reason: 0,
                }];
                self.bench.event(1, instance, 0, Event::Ack { lane: 0, acks });
            }
            Output::Load { plugin } => self.asked.push(format!("load {plugin}")),
            Output::Unload { plugin } => self.asked.push(format!("unload {plugin}")),
            Output::Audit { audit, .. } if audit != 0 => {
                self.bench.step(Input::Audited { audit, error: String::new() });
            }
            Output::Store { store, .. } => self.bench.step(Input::Stored { store, result: Ok(None) }),
            _ => {}
        }
    }

    fn answer(&mut self, instance: u64, request: u64, body: &Request) {
        let plugin = usize::from(instance == self.sink);
        match body {
            Request::Bind(bind) => {
                self.asked.push(format!("bind {}", bind.device));
                if self.refuse_bind {
                    return self.bench.fail(instance, request, FailureKind::Configuration);
                }
                for group in &bind.groups {
                    self.groups.insert(group.group, group.points.clone());
                }
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                self.bench.event(0, instance, request, Event::Done(Done { groups, ..Done::default() }));
            }
            Request::Read(read) => {
                let points = self.groups[&read.group].clone();
                self.bench.push(instance, request, &points, 5);
            }
            Request::Points(points) if !points.replace => {
                let names: Vec<String> =
                    points.points.iter().map(|point| format!("{}/{}", point.device, point.name)).collect();
                self.asked.push(format!("points +[{}] -{}", names.join(" "), points.removed.len()));
                self.bench.done(1, instance, request);
            }
            Request::Answer(_) | Request::Committed(_) | Request::Cancel(_) => {}
            Request::Detach(of) => self.asked.push(format!("detach {}", of.device.unwrap())),
            Request::Attach(body) => {
                self.asked.push(format!("attach {}", body.device));
                self.bench.done(0, instance, request);
            }
            Request::Unsubscribe(_) => {}
            Request::Connect(of) => {
                self.asked
                    .push(of.device.map_or("connect sink".into(), |device| format!("connect {device}")));
                self.bench.done(plugin, instance, request);
            }
            Request::Disconnect(of) => {
                self.asked.push(format!("disconnect {}", of.device.unwrap()));
                self.bench.done(plugin, instance, request);
            }
            _ => self.bench.done(plugin, instance, request),
        }
    }

    /// Begins a reload.
    fn begin(&mut self, site: &Site) {
        let endpoints =
            site.devices.iter().map(|device| (device.name.clone(), Ok(endpoint_of(device)))).collect();
        self.asked.clear();
        self.bench.step(Input::Reload(Box::new(Reload {
            id: 9,
            site: Box::new(site.clone()),
            endpoints,
            absent: Vec::new(),
            origin: Origin::default(),
        })));
    }

    /// The answer, if it came.
    fn summary(&mut self) -> Option<Summary> {
        let out = self.bench.take();
        let (mut found, mut rest) = (None, Vec::new());
        for output in out {
            match output {
                Output::Reply { id: 9, reply: Reply::Reload(summary) } => found = Some(*summary),
                other => rest.push(other),
            }
        }
        self.bench.out = rest;
        found
    }

    /// Reloads, answers everything well, and gives back the summary.
    fn reload(&mut self, site: &Site) -> Summary {
        self.begin(site);
        for _ in 0..100 {
            if let Some(summary) = self.summary() {
                self.settle();
                return summary;
            }
            let outputs = self.bench.take();
            assert!(!outputs.is_empty(), "the reload is not decided and nothing happens");
            for output in outputs {
                self.carry_out(output);
            }
        }
        panic!("the reload does not end");
    }

    fn applied(&mut self, site: &Site) -> Summary {
        let summary = self.reload(site);
        assert_eq!(summary.outcome, Outcome::Applied, "{summary:?}");
        assert_eq!(&self.bench.core.configured(), site, "what runs is what was given");
        summary
    }

    /// Seconds pass, and the far side confirms nothing.
    fn run_unconfirmed(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.bench.pass(1000);
            for output in self.bench.take() {
                if !matches!(output, Output::Deliver { .. }) {
                    self.carry_out(output);
                }
            }
        }
        self.bench.take();
    }

    /// Answers, until the reload is decided.
    fn decided(&mut self) -> Summary {
        for _ in 0..100 {
            if let Some(summary) = self.summary() {
                return summary;
            }
            for output in self.bench.take() {
                self.carry_out(output);
            }
        }
        panic!("the reload does not end");
    }

    /// Time passes, and everything is answered.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 200 {
            self.bench.pass(200);
            self.settle();
        }
    }

    fn number(&self, name: &str) -> u32 {
        self.bench.core.point(name).unwrap_or_else(|| panic!("no point {name}")).number
    }

    fn counters(&self, device: &str) -> (u64, u64) {
        let devices = self.bench.core.devices();
        let view = devices.iter().find(|view| view.name == device).unwrap();
        (view.counters.connects, view.counters.losses)
    }

    fn state(&self, device: &str) -> &'static str {
        let devices = self.bench.core.devices();
        devices.iter().find(|view| view.name == device).unwrap().state.as_str()
    }
}

fn routes(site: &mut Site) {
    let devices = &site.devices;
    let all = (0..devices.len()).flat_map(|device| {
        (0..devices[device].points.len()).map(move |point| Route { device, point, map: Vec::new() })
    });
    site.sinks[0].routes = all.collect();
    site.sinks[0].system = site
        .devices
        .iter()
        .map(|device| SystemRoute { name: format!("{}/@online", device.name), map: vec![] })
        .collect();
}

fn plant(devices: usize) -> Site {
    let mut site = site(devices);
    routes(&mut site);
    site
}

#[test]
fn nothing_to_apply_is_said_at_once() {
    let mut desk = Desk::new(plant(1), true);
    let summary = desk.reload(&plant(1));
    assert_eq!((summary.outcome, summary.version), (Outcome::Unchanged, 1));
    let mut other = plant(1);
    other.host.tick = Duration::from_millis(50);
    let summary = desk.reload(&other);
    assert_eq!(
        (summary.outcome, summary.difference.needs_restart),
        (Outcome::Unchanged, vec!["host.tick".into()])
    );
}

#[test]
fn keys_of_the_host_apply_in_place_without_a_word_to_the_driver() {
    let mut desk = Desk::new(plant(2), true);
    let number = desk.number("d0/p0");
    let mut new = plant(2);
    new.devices[0].points[0].range = Some([0.0, 3.0]);
    new.devices[0].points[0].unit = "V".into();
    new.devices[0].points[0].stale_after = Duration::from_secs(9);
    new.devices[0].max_skew = Some(Duration::from_secs(60));
    let summary = desk.applied(&new);
    assert_eq!(summary.version, 2);
    assert_eq!(desk.asked, ["points +[d0/p0] -0"], "the unit is told, nothing else");
    assert_eq!((desk.number("d0/p0"), desk.counters("d0")), (number, (1, 0)));
    desk.bench.pass(1100);
    desk.settle();
    assert_eq!(
        desk.bench.quality("d0/p0"),
        "questionable|out_of_range",
        "the new range judges the next value"
    );
    assert_eq!(desk.bench.core.point("@host/config_version").unwrap().value, busbar_contract::Value::Uint(2));
}

#[test]
fn an_interval_is_bound_on_the_living_session() {
    let mut desk = Desk::new(plant(2), true);
    let mut new = plant(2);
    new.devices[1].points[1].poll_interval = Duration::from_millis(200);
    desk.applied(&new);
    assert_eq!(desk.asked[0], "bind 1");
    assert!(!desk.asked.iter().any(|word| word.starts_with("connect") || word.starts_with("attach")));
    assert_eq!((desk.state("d1"), desk.counters("d1"), desk.counters("d0")), ("online", (1, 0), (1, 0)));
    let before = desk.bench.core.devices()[1].counters.polls_done;
    for _ in 0..20 {
        desk.bench.pass(100);
        desk.settle();
    }
    let polls = desk.bench.core.devices()[1].counters.polls_done - before;
    assert!((11..=13).contains(&polls), "10 of the fast group and 2 of the slow one, found {polls}");
    assert_eq!(desk.bench.quality("d1/p1"), "good");
}

#[test]
fn another_address_type_or_scale_is_another_point() {
    let mut desk = Desk::new(plant(1), true);
    let old = (desk.number("d0/p0"), desk.number("d0/p1"));
    let mut new = plant(1);
    new.devices[0].points[0].spec = json!({ "address": "holding:9" }).into();
    desk.begin(&new);
    let view = desk.bench.core.point("d0/p0").unwrap();
    assert_eq!(
        (view.value.clone(), view.quality.to_string()),
        (busbar_contract::Value::None, "invalid|comm_lost".into())
    );
    assert_ne!(view.number, old.0);
    assert_eq!(desk.bench.quality("d0/p1"), "good", "its neighbour keeps what it shows");
    desk.settle();
    assert_eq!((desk.bench.quality("d0/p0").as_str(), desk.number("d0/p1")), ("good", old.1));
    desk.bench.pass(1100);
    desk.settle();
    let told: Vec<&String> = desk.asked.iter().filter(|word| word.starts_with("points")).collect();
    assert_eq!(
        told,
        ["points +[d0/p0] -0", "points +[] -1"],
        "the new one at once, the old one when nothing waits of it"
    );
}

#[test]
fn a_device_comes_and_goes_and_the_others_notice_nothing() {
    let mut desk = Desk::new(plant(2), true);
    let first = desk.number("d1/p0");
    desk.applied(&plant(3));
    assert_eq!((desk.state("d2"), desk.bench.quality("d2/p1").as_str()), ("online", "good"));
    assert!(desk.asked.iter().any(|word| word == "points +[d2/p0 d2/p1 d2/@online] -0"), "{:?}", desk.asked);
    let mut fewer = plant(3);
    fewer.devices.remove(1);
    routes(&mut fewer);
    desk.applied(&fewer);
    assert_eq!(&desk.asked[..2], ["detach 1", "stop 0"], "an endpoint that nobody uses is closed");
    desk.bench.pass(1100);
    desk.settle();
    let removed: u32 =
        desk.asked.iter().filter_map(|word| word.strip_prefix("points +[] -")?.parse::<u32>().ok()).sum();
    assert_eq!(removed, 3, "{:?}", desk.asked);
    assert!(desk.bench.core.point("d1/p0").is_none() && desk.bench.core.point("d1/@online").is_none());
    assert_eq!(desk.bench.core.devices().len(), 2);
    for device in ["d0", "d2"] {
        assert_eq!((desk.state(device), desk.counters(device)), ("online", (1, 0)));
    }
    desk.applied(&plant(3));
    assert_ne!(desk.number("d1/p0"), first, "a number never comes back");
    assert_eq!(desk.state("d1"), "online");
}

#[test]
fn a_changed_connection_reopens_its_endpoint_and_leaves_the_others_of_a_shared_one() {
    let mut old = plant(3);
    for device in &mut old.devices {
        device.connection = json!({ "host": "line" });
    }
    let mut desk = Desk::new(old.clone(), true);
    // One of three on a line: only that one is attached anew.
    let mut new = old.clone();
    new.devices[1].connection = json!({ "host": "line", "unit_id": 7 });
    desk.applied(&new);
    assert_eq!(desk.asked, ["detach 1", "attach 1", "bind 1", "connect 1"]);
    assert_eq!([desk.counters("d0"), desk.counters("d1"), desk.counters("d2")], [(1, 0), (2, 1), (1, 0)]);
    // It moves to another endpoint.
    new.devices[1].connection = json!({ "host": "other" });
    desk.applied(&new);
    assert_eq!(desk.asked, ["detach 1", "open 0", "attach 1", "bind 1", "connect 1"]);
    // All of the line: the endpoint is opened anew.
    new.devices[0].connection = json!({ "host": "line", "baud_rate": 19200 });
    new.devices[2].connection = json!({ "host": "line", "baud_rate": 19200 });
    desk.applied(&new);
    assert!(
        desk.asked.contains(&"stop 0".into()) && desk.asked.contains(&"open 0".into()),
        "{:?}",
        desk.asked
    );
    assert_eq!((desk.state("d0"), desk.state("d2"), desk.counters("d1").0), ("online", "online", 3));
}

#[test]
fn a_part_that_cannot_run_brings_the_previous_configuration_back() {
    let mut desk = Desk::new(plant(2), true);
    let mut new = plant(3);
    new.devices[0].points[0].spec = json!({ "address": "nonsense" }).into();
    new.devices[1].points[0].unit = "V".into();
    desk.begin(&new);
    desk.refuse_bind = true;
    let outputs = desk.bench.take();
    for output in outputs {
        desk.carry_out(output);
    }
    desk.refuse_bind = false;
    let summary = desk.summary().expect("it is decided by the first refusal");
    assert_eq!((summary.outcome, summary.version), (Outcome::RolledBack, 3));
    assert!(summary.reason.contains("device d0: said the device"), "{}", summary.reason);
    desk.settle();
    assert_eq!(desk.bench.core.configured(), plant(2));
    assert_eq!((desk.state("d0"), desk.state("d1"), desk.counters("d1")), ("online", "online", (1, 0)));
    assert_eq!(desk.bench.core.point("d1/p0").unwrap().unit, "");
    assert!(desk.bench.core.point("d2/p0").is_none());
}

#[test]
fn what_does_not_open_in_time_is_rolled_back_and_a_dead_device_is_not() {
    let mut desk = Desk::new(plant(1), true);
    // Nobody answers the new instance.
    desk.begin(&plant(2));
    desk.bench.pass(29_000);
    assert_eq!(desk.summary(), None);
    desk.bench.pass(2_000);
    let summary = desk.summary().expect("the time is over");
    assert_eq!(summary.outcome, Outcome::RolledBack);
    assert!(
        summary.reason.contains("device d1 was not taken by its driver within 30 s"),
        "{}",
        summary.reason
    );
    // The driver takes it, the device does not answer: the configuration is right.
    let mut desk = Desk::new(plant(1), true);
    desk.begin(&plant(2));
    for _ in 0..20 {
        for output in desk.bench.take() {
            match &output {
                Output::Submit { instance, request, body: Request::Connect(of) } if of.device.is_some() => {
                    desk.bench.fail(*instance, *request, FailureKind::NoAnswer);
                }
                Output::Reply { id: 9, reply: Reply::Reload(summary) } => {
                    assert_eq!(summary.outcome, Outcome::Applied);
                    assert_eq!(desk.bench.core.configured().devices.len(), 2);
                    return;
                }
                _ => desk.carry_out(output),
            }
        }
    }
    panic!("no answer");
}

#[test]
fn a_second_reload_waits_for_the_first() {
    let mut desk = Desk::new(plant(1), true);
    desk.begin(&plant(2));
    desk.begin(&plant(3));
    let refused = desk.bench.take().into_iter().any(|output| {
        matches!(output, Output::Reply { id: 9, reply: Reply::Failed(text) } if text.contains("another reload"))
    });
    assert!(refused);
}

#[test]
fn settings_reopen_the_sink_which_goes_on_from_its_unconfirmed_records() {
    let mut desk = Desk::new(plant(1), true);
    // Records that the far side has and has not confirmed.
    desk.bench.pass(1100);
    for output in desk.bench.take() {
        if !matches!(output, Output::Deliver { .. }) {
            desk.carry_out(output);
        }
    }
    let pending = desk.bench.take();
    let sent: Vec<u64> = pending
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { first, .. } => Some(*first),
            _ => None,
        })
        .collect();
    assert!(!sent.is_empty());
    let mut new = plant(1);
    new.sinks[0].settings = json!({ "url": "elsewhere" });
    desk.begin(&new);
    let mut again = Vec::new();
    for _ in 0..50 {
        for output in desk.bench.take() {
            if let Output::Deliver { first, .. } = &output {
                again.push(*first);
            }
            desk.carry_out(output);
        }
    }
    assert_eq!(&desk.asked[..2], ["stop 1", "open 1"]);
    assert!(again.contains(&sent[0]), "{sent:?} came again: {again:?}");
    let ledger = desk.bench.core.sinks()[0].ledger.clone();
    assert_eq!((ledger.pending, ledger.dropped_total()), (0, 0));
}

#[test]
fn sinks_come_and_go_and_routes_change_on_the_running_stream() {
    let mut desk = Desk::new(plant(1), false);
    let mut new = plant(1);
    new.sinks[0].routes.pop();
    desk.applied(&new);
    assert_eq!(desk.asked, ["points +[] -1"], "no reconnect");
    new.sinks.push(Sink {
        name: "t".into(),
        plugin: "snk".into(),
        routes: new.sinks[0].routes.clone(),
        ..Sink::default()
    });
    desk.applied(&new);
    assert_eq!((desk.bench.core.sinks().len(), desk.bench.core.sinks()[1].connected), (2, true));
    assert!(desk.bench.core.point("@sink/t/connected").is_some());
    new.sinks.remove(0);
    desk.applied(&new);
    assert_eq!(desk.bench.core.sinks().len(), 1);
    assert!(desk.bench.core.point("@sink/s/connected").is_none());
    desk.applied(&plant(1));
    assert_eq!(desk.bench.core.sinks()[0].name, "s");
}

#[test]
fn what_waits_of_a_point_that_goes_is_still_delivered_under_its_name() {
    let mut desk = Desk::new(plant(1), true);
    let gone = desk.number("d0/p1");
    desk.bench.pass(1100);
    // Read, delivered, not confirmed.
    for _ in 0..5 {
        for output in desk.bench.take() {
            if !matches!(output, Output::Deliver { .. }) {
                desk.carry_out(output);
            }
        }
    }
    let mut new = plant(1);
    new.devices[0].points.pop();
    routes(&mut new);
    desk.begin(&new);
    desk.bench.pass(3000);
    desk.bench.event(
        1,
        desk.sink,
        0,
        Event::State(busbar_contract::event::State { device: None, up: false, reason: "x".into() }),
    );
    let told = |desk: &Desk| desk.asked.iter().any(|word| word.ends_with("-1"));
    assert!(!told(&desk), "its name is needed as long as something waits");
    desk.bench.pass(1500);
    let mut late = false;
    for _ in 0..50 {
        for output in desk.bench.take() {
            if let Output::Deliver { samples, .. } = &output {
                late |= samples.samples.iter().any(|sample| sample.point == gone);
            }
            desk.carry_out(output);
        }
    }
    assert!(late, "the record came again");
    desk.bench.pass(1100);
    desk.settle();
    assert!(told(&desk), "{:?}", desk.asked);
}

#[test]
fn commands_of_what_changes_are_answered() {
    let mut desk = Desk::new(plant(2), true);
    for (id, device) in [(1, "d0"), (2, "d1")] {
        desk.bench.push(1 + (id - 1), 0, &[], 0);
        let command = OperatorCommand {
            point: format!("{device}/p0"),
            action: busbar_contract::Action::Operate,
            value: json!(7),
            origin: Origin::default(),
            deadline_ms: 5_000,
        };
        desk.bench.step(Input::Operator(Operator { id, ask: Ask::Command(command) }));
    }
    // d0's leaves for the device, d1's waits for its audit line.
    let mut audits = Vec::new();
    for output in desk.bench.take() {
        if let Output::Audit { audit, .. } = output
            && audit != 0
        {
            audits.push(audit);
        }
    }
    desk.bench.step(Input::Audited { audit: audits[0], error: String::new() });
    desk.bench.take();
    let mut new = plant(2);
    new.devices[0].points[0].spec = json!({ "address": 1 }).into();
    new.devices.remove(1);
    routes(&mut new);
    desk.begin(&new);
    let answers: BTreeMap<u64, (Stage, String)> = (0..3)
        .flat_map(|_| {
            let out = desk.bench.take();
            desk.bench.pass(1000);
            out
        })
        .filter_map(|output| match output {
            Output::Reply { id, reply: Reply::Command(answer) } => Some((
                id,
                (answer.stage, answer.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default()),
            )),
            _ => None,
        })
        .collect();
    assert_eq!(answers[&1], (Stage::Unknown, "handover".into()));
    assert_eq!(answers[&2], (Stage::Refused, "device_lost".into()));
}

#[test]
fn a_plugin_is_loaded_for_its_first_device_and_ended_after_its_last() {
    let mut desk = Desk::new(plant(1), true);
    let mut new = plant(2);
    new.plugins.push(Plugin { name: "two".into(), ..new.plugins[0].clone() });
    new.devices[1].driver = "two".into();
    desk.begin(&new);
    desk.settle();
    assert!(desk.asked.contains(&"load 2".into()), "{:?}", desk.asked);
    let connections = desk.bench.core.connections(2);
    assert_eq!(connections.len(), 1);
    let ready = PluginReady {
        plugin: 2,
        describe: describe("two", PluginKind::Driver, false),
        endpoints: connections.iter().map(|(at, _)| (*at, Ok(endpoint_of(&new.devices[1])))).collect(),
    };
    desk.bench.step(Input::PluginReady(Box::new(ready)));
    for output in desk.bench.take() {
        if let Output::Open { plugin, instance, .. } = output {
            assert_eq!(plugin, 2);
            desk.bench.event(
                2,
                instance,
                0,
                Event::Failed(busbar_contract::Failure::new(FailureKind::Configuration, "no licence")),
            );
        }
    }
    let summary = desk.summary().expect("decided");
    assert!(summary.outcome == Outcome::RolledBack && summary.reason.contains("no licence"), "{summary:?}");
    let stops: BTreeSet<u64> = desk
        .bench
        .take()
        .into_iter()
        .filter_map(|output| match output {
            Output::Stop { instance, .. } => Some(instance),
            _ => None,
        })
        .collect();
    for instance in stops {
        desk.bench.event(2, instance, 0, Event::Stopped);
    }
    desk.bench.pass(1100);
    desk.settle();
    assert!(desk.asked.contains(&"unload 2".into()), "{:?}", desk.asked);
    assert_eq!(desk.bench.core.plugins().len(), 2);
}

#[test]
fn operators_switches_hold_over_a_reload_and_the_later_decision_wins() {
    let mut desk = Desk::new(plant(2), true);
    for (id, ask) in [
        (1, Ask::Block("d0/p0".into(), Origin::default())),
        (2, Ask::Maintenance("d1".into(), true, Origin::default())),
    ] {
        desk.bench.step(Input::Operator(Operator { id, ask }));
    }
    desk.settle();
    let mut new = plant(2);
    new.devices[0].points[0].spec = json!({ "address": 1 }).into();
    new.devices[1].description = "x".into();
    desk.applied(&new);
    assert_eq!(desk.bench.quality("d0/p0"), "invalid|operator_blocked", "blocked by name");
    assert_eq!(desk.state("d1"), "maintenance");
    new.devices[1].enabled = false;
    desk.applied(&new);
    assert_eq!(
        (desk.state("d1"), desk.bench.quality("d1/p0").as_str()),
        ("disabled", "invalid|operator_blocked")
    );
    new.devices[1].enabled = true;
    desk.applied(&new);
    assert_eq!(desk.state("d1"), "online", "the file was changed after the operator switched");
}

#[test]
fn a_paused_device_is_connected_and_not_read() {
    let mut new = plant(1);
    let mut desk = Desk::new(new.clone(), true);
    new.devices[0].paused = true;
    desk.applied(&new);
    assert_eq!(
        (desk.state("d0"), desk.bench.quality("d0/p1").as_str()),
        ("paused", "invalid|operator_blocked")
    );
    assert!(!desk.asked.iter().any(|word| word.starts_with("disconnect")), "{:?}", desk.asked);
    let polls = desk.bench.core.devices()[0].counters.polls_done;
    for _ in 0..100 {
        desk.bench.pass(100);
        desk.settle();
    }
    assert_eq!(desk.bench.core.devices()[0].counters.polls_done, polls);
    assert_eq!(desk.bench.quality("d0/p1"), "invalid|operator_blocked", "nor does it become stale");
    // Its loss shows, and it comes back paused.
    let down = busbar_contract::event::State { device: Some(0), up: false, reason: "cable".into() };
    desk.bench.event(0, 1, 0, Event::State(down));
    assert_eq!(desk.state("d0"), "lost");
    desk.bench.pass(1500);
    desk.settle();
    assert_eq!(desk.state("d0"), "paused");
    desk.bench
        .step(Input::Operator(Operator { id: 1, ask: Ask::Pause("d0".into(), false, Origin::default()) }));
    desk.settle();
    assert_eq!((desk.state("d0"), desk.bench.quality("d0/p1").as_str()), ("online", "good"));
}

#[test]
fn outside_its_hours_a_device_is_silent_without_a_fault_and_is_read_again_at_their_start() {
    // The bench begins at 2026-01-01T00:00:00Z, a Thursday.
    let active = |from, to| Some(Active { from, to, days: busbar_core::hours::ALL_DAYS, zone: "UTC".into() });
    let mut plant = plant(2);
    plant.devices[0].active = active(23 * 60, 1);
    let mut desk = Desk::new(plant.clone(), true);
    assert_eq!(desk.state("d0"), "online", "over midnight");
    desk.asked.clear();
    desk.run(61_000);
    assert_eq!(desk.state("d0"), "inactive");
    assert!(desk.asked.contains(&"disconnect 0".into()), "{:?}", desk.asked);
    let view = desk.bench.core.point("d0/p1").unwrap();
    assert_eq!(
        (view.value.clone(), view.quality.to_string()),
        (busbar_contract::Value::Int(5), "questionable|operator_blocked".into()),
        "the last value says what it says"
    );
    assert_eq!((desk.counters("d0").1, desk.state("d1")), (0, "online"), "no loss is counted");
    desk.run(60_000);
    assert_eq!(desk.bench.quality("d0/p1"), "questionable|operator_blocked", "no staleness, no alarm");
    // A clock that steps back into the window: the next look decides.
    desk.bench.now.wall_ns -= 90_000_000_000;
    desk.bench.pass(1_100);
    desk.settle();
    assert_eq!((desk.state("d0"), desk.bench.quality("d0/p1").as_str()), ("online", "good"));
    // And far away from it.
    desk.bench.now.wall_ns += 3_600_000_000_000;
    desk.bench.pass(1_100);
    desk.settle();
    assert_eq!(desk.state("d0"), "inactive");
    // The window is changed in the file.
    plant.devices[0].active = None;
    desk.applied(&plant);
    assert_eq!(desk.state("d0"), "online");
}

/// Everything that a reload can take away at once: a sink with records in memory, a device, the address of a point, what an
/// operator switched, the bounds of a queue. One part cannot run, so all of it must be as before.
#[test]
fn a_reload_that_is_rolled_back_leaves_no_trace() {
    let mut desk = Desk::new(plant(3), true);
    let pause = Ask::Pause("d2".into(), true, Origin::default());
    desk.bench.step(Input::Operator(Operator { id: 7, ask: pause }));
    desk.settle();
    assert_eq!(desk.state("d2"), "paused");
    // Records wait: the far side confirms nothing.
    desk.run_unconfirmed(3);
    let names = ["d0/p0", "d0/p1", "d1/p0", "d1/@online", "@sink/s/connected"];
    let numbers = names.map(|name| desk.number(name));
    let before = desk.bench.core.sinks()[0].ledger.pending;
    assert!(before > 0);

    let mut new = plant(3);
    new.sinks.clear();
    new.devices.remove(1);
    new.devices[0].points[1].spec = json!({ "address": "holding:9" }).into();
    new.devices[1].paused = true;
    desk.refuse_bind = true;
    desk.begin(&new);
    let summary = desk.decided();
    assert_eq!(summary.outcome, Outcome::RolledBack, "{summary:?}");
    assert!(summary.reason.contains("device d0"), "{summary:?}");
    assert!(summary.notes.is_empty(), "nothing was given up: {summary:?}");
    assert_eq!(desk.bench.core.configured(), plant(3));
    assert_eq!(names.map(|name| desk.number(name)), numbers, "every point has its number again");
    assert!(desk.bench.core.sinks()[0].ledger.pending >= before, "what waited waits");
    // The values are known; the sessions were ended, that of d0 because its driver refused, and the points say so.
    let shown = |desk: &Desk, name: &str| {
        let view = desk.bench.core.point(name).unwrap();
        (view.value.clone(), view.quality.to_string())
    };
    for name in ["d0/p1", "d1/p0"] {
        assert_eq!(
            shown(&desk, name),
            (busbar_contract::Value::Int(5), "invalid|comm_lost".into()),
            "{name}"
        );
    }

    desk.refuse_bind = false;
    desk.settle();
    desk.run(10_000);
    assert_eq!((desk.state("d0"), desk.state("d1"), desk.state("d2")), ("online", "online", "paused"));
    for name in ["d0/p0", "d0/p1", "d1/p0"] {
        assert_eq!(desk.bench.quality(name), "good", "{name}");
    }
    let ledger = desk.bench.core.sinks()[0].ledger.clone();
    assert_eq!((ledger.pending, ledger.dropped_total()), (0, 0), "everything was delivered");
    // What was applied in vain can be applied.
    assert_eq!(desk.reload(&new).outcome, Outcome::Applied);
}

#[test]
fn tighter_bounds_of_a_queue_drop_nothing_before_the_reload_is_accepted() {
    let mut desk = Desk::new(plant(1), true);
    desk.run_unconfirmed(5);
    let mut new = plant(1);
    new.sinks[0].queue.max_bytes = 1;
    new.devices[0].points[1].spec = json!({ "address": "holding:9" }).into();
    desk.refuse_bind = true;
    desk.begin(&new);
    assert_eq!(desk.decided().outcome, Outcome::RolledBack);
    assert_eq!(desk.bench.core.sinks()[0].ledger.dropped_total(), 0);
    desk.refuse_bind = false;
    desk.settle();
    // They hold when it is accepted.
    desk.run_unconfirmed(5);
    desk.applied(&new);
    desk.run_unconfirmed(5);
    assert!(desk.bench.core.sinks()[0].ledger.dropped_total() > 0);
}
