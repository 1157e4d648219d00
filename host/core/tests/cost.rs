//! What a poll costs: a report, not a timed test (`cargo test -p busbar-core --test cost -- --nocapture`), and a check
//! that everything arrives.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::time::{Duration, Instant};

use busbar_contract::{
    Cause, Endpoint, Event, Flags, Quality, Request, Samples, Value, batch,
    binary::{Ack, Verdict},
    describe::PluginKind,
    event::Done,
};
use busbar_core::{
    Core, Input, Now, Output, Switches,
    input::{PluginReady, Push},
    model::*,
};

#[path = "common/mod.rs"]
mod common;
#[path = "queue/file.rs"]
#[allow(dead_code, reason = "the model is the simulation's")]
mod file;

use common::{describe, plugin};

const POINTS: usize = 50;
const POLLS: u32 = 20_000;

fn site(on_disk: bool) -> Site {
    let points: Vec<Point> = (0..POINTS)
        .map(|at| Point {
            name: format!("p{at}"),
            range: Some([0.0, 300.0]),
            poll_interval: Duration::from_millis(20),
            stale_after: Duration::from_secs(60),
            ..Point::default()
        })
        .collect();
    let routes = (0..POINTS).map(|point| Route { device: 0, point, map: vec![] }).collect();
    Site {
        plugins: vec![plugin("drv", PluginKind::Driver), plugin("snk", PluginKind::Sink)],
        devices: vec![Device {
            name: "d".into(),
            driver: "drv".into(),
            response_timeout: Duration::from_secs(3600),
            points,
            ..Device::default()
        }],
        sinks: vec![Sink {
            name: "s".into(),
            plugin: "snk".into(),
            routes,
            queue: Queue { on_disk, ..Queue::default() },
            ..Sink::default()
        }],
        ..Site::default()
    }
}

fn samples(value: f32) -> Samples {
    let mut samples = Samples::with_capacity(POINTS);
    for point in 0..POINTS as u32 {
        samples.push(point, 1_000, &Value::Float32(value), Quality::GOOD, Flags::new(Cause::Poll, 0));
    }
    samples
}

#[test]
fn a_poll_of_50_float32_reaches_one_sink() {
    measure("in memory", false);
}

#[test]
fn with_the_queue_on_disk_it_costs_the_same_while_the_far_side_confirms() {
    measure("on disk", true);
}

fn measure(form: &str, on_disk: bool) {
    let mut now = Now::default();
    let mut core = Core::new(site(on_disk), Switches::default(), 1, now);
    let mut file = file::File::new(usize::MAX, u64::MAX >> 2);
    let mut out = Vec::new();
    let endpoint = Endpoint { key: "k".into(), exclusive: false, parallel: 1, lock_path: None };
    for (plugin, kind, endpoints) in
        [(0, PluginKind::Driver, vec![(0, Ok(endpoint))]), (1, PluginKind::Sink, vec![])]
    {
        let ready = PluginReady { plugin, describe: describe("x", kind, true), endpoints };
        core.step(now, Input::PluginReady(Box::new(ready)), &mut out);
    }
    let (mut spent, mut polls, mut records, mut value) = (Duration::ZERO, 0u32, 0usize, 200.0f32);
    let mut step = |core: &mut Core, now: Now, input: Input, out: &mut Vec<Output>, timed: bool| {
        let begin = Instant::now();
        core.step(now, input, out);
        if timed {
            spent += begin.elapsed();
        }
    };
    while polls < POLLS {
        for output in std::mem::take(&mut out) {
            match output {
                Output::Open { plugin, instance, .. } => {
                    let input = Input::Event { plugin, instance, request: 0, event: Event::Opened };
                    step(&mut core, now, input, &mut out, false);
                }
                Output::Submit { instance, request, body: Request::Read(read) } => {
                    value = 200.0 + (polls % 90) as f32 + 0.4;
                    let push =
                        Push { instance, request, token: 0, flags: batch::LAST, samples: samples(value) };
                    let poll = read.cause == Cause::Poll;
                    polls += u32::from(poll);
                    step(&mut core, now, Input::Push(push), &mut out, poll);
                }
                Output::Submit { instance, request, body } => {
                    let plugin = usize::from(matches!(body, Request::Points(_)))
                        .max(usize::from(matches!(&body, Request::Connect(of) if of.device.is_none())));
                    let event = Event::Done(Done::default());
                    step(&mut core, now, Input::Event { plugin, instance, request, event }, &mut out, false);
                }
                Output::Deliver { instance, first, samples, .. } => {
                    let count = samples.samples.len() as u32;
                    records += samples.samples.len();
                    let acks = vec![Ack { first, count, verdict: Verdict::Delivered, reason: 0 }];
                    let event = Event::Ack { lane: 0, acks };
                    step(
                        &mut core,
                        now,
                        Input::Event { plugin: 1, instance, request: 0, event },
                        &mut out,
                        true,
                    );
                }
                Output::JournalOpen { sink } => {
                    let input = Input::JournalOpened { sink, result: Ok(file.open()) };
                    step(&mut core, now, input, &mut out, false);
                }
                Output::Journal { sink, transaction } => {
                    let result = file.write(&transaction).unwrap();
                    let input = Input::Journaled { sink, number: transaction.number, result };
                    step(&mut core, now, input, &mut out, true);
                }
                _ => {}
            }
        }
        if out.is_empty() {
            now.mono_ns = core.next_wake().unwrap().max(now.mono_ns);
            for plugin in 0..2 {
                let event = Event::Heartbeat(busbar_contract::event::Heartbeat { beat: 0 });
                step(
                    &mut core,
                    now,
                    Input::Event { plugin, instance: 0, request: 0, event },
                    &mut out,
                    false,
                );
            }
            step(&mut core, now, Input::Tick, &mut out, true);
        }
    }
    println!(
        "{:.2} us per poll of {POINTS} points, queue {form}: due, taken, delivered, confirmed",
        spent.as_secs_f64() * 1e6 / f64::from(polls)
    );
    assert!(records >= (POLLS as usize - 2) * POINTS);
    let ledger = core.sinks()[0].ledger.clone();
    assert!(ledger.is_balanced());
    if on_disk {
        // Counters alone, about once a second of the twenty milliseconds that each poll takes.
        assert!(
            file.transactions <= 2 * u64::from(POLLS) / 50 && ledger.pending == 0,
            "{}",
            file.transactions
        );
        assert!(file.rows_written <= 4, "{}", file.rows_written);
    }
    assert_eq!(core.points(None).next().unwrap().value, Value::Float32(value));
}
