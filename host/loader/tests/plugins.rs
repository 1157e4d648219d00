//! Running plugins, in this process and in a worker: the same tests over both, because it is one code path.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by a panic"
)]

mod common;

use std::{sync::Arc, time::Duration};

use busbar_contract::{
    Event, FailureKind, Quality, Request, Samples, batch::LAST, binary::Verdict, describe::InitOptions, op,
    request::OfDevice, value::Kind,
};
use busbar_loader::{Admission, Arrival, Delivery, Isolation, Level, Plugin};
use common::{Heard, PATIENCE, Recorder, endpoint, load, open, read, start};

/// Makes a module with one test per isolation.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod in_process {
            $(#[test] fn $name() { super::$name(busbar_loader::Isolation::InProcess); })*
        }
        mod process {
            $(#[test] fn $name() { super::$name(busbar_loader::Isolation::Process); })*
        }
    };
}

over_both!(
    a_request_gets_its_completion,
    a_panic_while_polling_fails_the_request_only,
    init_may_follow_shutdown,
    a_second_init_is_refused,
    malformed_samples_become_invalid_and_are_counted,
    what_is_oversized_fails_its_request,
    an_oversized_delivery_is_refused,
    a_malformed_body_is_reported_with_its_request,
    unknown_operations_and_instances_are_refused_and_counted,
    nothing_comes_after_stopped,
    abandoned_instances_are_silent,
    records_are_acknowledged,
    the_runtime_sends_heartbeats,
    control_reaches_the_plugin,
    an_open_that_never_returns_is_a_sentence,
    a_control_that_never_returns_is_a_sentence,
    an_init_that_never_returns_is_a_sentence,
    an_instance_number_is_used_once,
    a_panic_of_the_host_is_caught,
    events_and_batches_keep_their_order,
    refused_records_are_not_lost,
    a_refused_request_is_not_lost,
    congestion_reaches_the_plugin,
    log_records_arrive_typed,
    the_same_copy_can_be_loaded_again,
);

fn probe_device() -> Request {
    Request::Probe(OfDevice { device: Some(0), deadline_ms: 1000 })
}

fn connect() -> Request {
    Request::Connect(OfDevice { device: Some(0), deadline_ms: 1000 })
}

#[track_caller]
fn assert_done(arrival: &Arrival) {
    assert!(matches!(arrival, Arrival::Event(Event::Done(_))), "{arrival:?}");
}

fn a_request_gets_its_completion(isolation: Isolation) {
    let (plugin, _dir) = load("bad-poll-panic", isolation);
    assert_eq!(plugin.isolation(), isolation);
    let host = start(&plugin);
    assert_eq!(plugin.worker_pid().is_some(), isolation == Isolation::Process);
    let instance = open(&plugin, &host, 5);
    for req in 1..=100 {
        assert!(instance.submit(req, &connect()).is_taken());
        assert_done(&host.answer(5, req));
    }
    instance.stop(Duration::from_secs(1));
    host.event(5, &Event::Stopped);
    assert!(plugin.shutdown(PATIENCE));
    assert_eq!(plugin.worker_pid(), None);
    assert_eq!(plugin.stats(), busbar_loader::BoundaryStats::default());
}

fn a_panic_while_polling_fails_the_request_only(isolation: Isolation) {
    let (plugin, _dir) = load("bad-poll-panic", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    for req in [1, 3, 5] {
        assert!(instance.submit(req, &read(0)).is_taken());
        match host.answer(1, req) {
            Arrival::Event(Event::Failed(failure)) => {
                assert_eq!(failure.kind, FailureKind::Bug);
                assert!(failure.text.contains("bug in poll"), "{failure:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(instance.submit(req + 1, &connect()).is_taken());
        assert_done(&host.answer(1, req + 1));
    }
}

fn init_may_follow_shutdown(isolation: Isolation) {
    let (plugin, _dir) = load("bad-poll-panic", isolation);
    for round in 1..=3 {
        let host = start(&plugin);
        let instance = open(&plugin, &host, round);
        assert!(instance.submit(1, &connect()).is_taken());
        assert_done(&host.answer(round, 1));
        drop(instance);
        assert!(plugin.shutdown(PATIENCE), "round {round}");
        let error = plugin.open(99, &endpoint("x")).unwrap_err();
        assert_eq!(error.to_string(), "bad-poll-panic: not started");
    }
}

fn a_second_init_is_refused(isolation: Isolation) {
    let (plugin, _dir) = load("bad-poll-panic", isolation);
    let host = start(&plugin);
    let error = plugin.init(Recorder::new(), &InitOptions::default()).unwrap_err();
    assert!(error.to_string().contains("already started"), "{error}");
    // The first one lives on.
    let instance = open(&plugin, &host, 1);
    assert!(instance.submit(1, &connect()).is_taken());
    assert_done(&host.answer(1, 1));
}

fn malformed_samples_become_invalid_and_are_counted(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    assert!(instance.submit(7, &read(0)).is_taken());
    let push = host.push(1, 7);
    assert_eq!(push.flags, LAST, "unknown bits are cleared");
    let samples = &push.samples.samples;
    assert_eq!((samples[0].kind, samples[0].quality), (Kind::Uint64 as u8, 0));
    assert_eq!(push.samples.value(&samples[4]), Ok(busbar_contract::Value::Text("ok".into())));
    for bad in [&samples[1], &samples[2], &samples[3], &samples[5], &samples[6]] {
        assert_eq!(Kind::from_code(bad.kind), Some(Kind::None));
        assert_eq!(Quality(bad.quality), Quality::INVALID.with(Quality::FAILURE));
    }
    assert_eq!((Quality(samples[7].quality), samples[7].flags), (Quality::INVALID, 0));
    for sample in samples {
        push.samples.value(sample).unwrap();
    }
    let stats = plugin.stats();
    assert_eq!((stats.bad_samples, stats.unknown_bits), (5, 2), "{stats:?}");
}

fn what_is_oversized_fails_its_request(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    // Too many samples, too large a blob, too large a body.
    for (group, word) in [(1, "65537 samples"), (8, "17825792 bytes"), (9, "33554432")] {
        assert!(instance.submit(u64::from(group), &read(group)).is_taken());
        let text = match host.answer(1, u64::from(group)) {
            Arrival::Malformed(malformed) => malformed.to_string(),
            Arrival::Event(Event::Failed(failure)) if failure.kind == FailureKind::Bug => failure.text,
            other => panic!("{other:?}"),
        };
        assert!(text.contains(word), "{text}");
    }
    assert!(instance.submit(50, &connect()).is_taken());
    assert_done(&host.answer(1, 50));
    let expected = if isolation == Isolation::InProcess { 3 } else { 0 };
    assert_eq!(plugin.stats().malformed, expected);
}

fn an_oversized_delivery_is_refused(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    let many = u32::try_from(busbar_contract::batch::MAX_SAMPLES).unwrap() + 1;
    let delivery = Delivery { first: 1, lane: 0, flags: 0, samples: samples(many) };
    assert_eq!(instance.deliver(delivery), Admission::Refused);
}

fn a_malformed_body_is_reported_with_its_request(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    assert!(instance.submit(8, &read(2)).is_taken());
    match host.answer(1, 8) {
        Arrival::Malformed(malformed) => assert_eq!(malformed.what, "DONE"),
        other => panic!("{other:?}"),
    }
    assert_eq!(plugin.stats().malformed, 1);
}

fn unknown_operations_and_instances_are_refused_and_counted(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    assert!(instance.submit(9, &read(3)).is_taken());
    let codes: Vec<u64> = host.push(1, 9).samples.samples.iter().map(|sample| sample.bits).collect();
    let stats = plugin.stats();
    if isolation == Isolation::InProcess {
        let (unsupported, refused) = (Admission::Unsupported.code(), Admission::Refused.code());
        assert_eq!(codes, [unsupported, unsupported, refused, refused, refused].map(u64::from));
        assert_eq!(stats.unknown_ops, 2);
    }
    assert_eq!(stats.unknown_instance, 3, "{stats:?}");
}

fn nothing_comes_after_stopped(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let (first, second) = (open(&plugin, &host, 1), open(&plugin, &host, 2));
    assert!(first.submit(3, &read(4)).is_taken());
    host.event(1, &Event::Stopped);
    assert!(second.submit(4, &connect()).is_taken());
    host.wait("the end of the second", |heard| match heard {
        Heard::Push(1, push) => panic!("pushed after STOPPED: {push:?}"),
        Heard::Event(2, 4, _) => Some(()),
        _ => None,
    });
    assert_eq!(plugin.stats().unknown_instance, 1);
}

fn abandoned_instances_are_silent(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let (first, second) = (open(&plugin, &host, 1), open(&plugin, &host, 2));
    first.abandon();
    assert!(first.submit(3, &connect()).is_taken());
    assert!(second.submit(4, &connect()).is_taken());
    host.wait("the answer of the second", |heard| match heard {
        Heard::Event(1, ..) => panic!("an abandoned instance was heard: {heard:?}"),
        Heard::Event(2, 4, _) => Some(()),
        _ => None,
    });
    assert_eq!(plugin.stats().unknown_instance, 1);
}

fn records_are_acknowledged(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    let mut samples = Samples::default();
    for n in 0..3 {
        let value = busbar_contract::Value::Text(format!("text {n}"));
        samples.push(n, 5, &value, Quality::GOOD, busbar_contract::Flags::default());
    }
    assert!(instance.deliver(Delivery { first: 100, lane: 2, flags: 0, samples }).is_taken());
    host.wait("ack", |heard| match heard {
        Heard::Event(1, 0, Arrival::Event(Event::Ack { lane, acks })) => {
            assert_eq!((*lane, acks.len()), (2, 1));
            assert_eq!((acks[0].first, acks[0].count, acks[0].verdict), (100, 3, Verdict::Delivered));
            Some(())
        }
        _ => None,
    });
}

fn the_runtime_sends_heartbeats(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    for wanted in 1..=3 {
        host.wait("heartbeat", |heard| match heard {
            Heard::Event(0, 0, Arrival::Event(Event::Heartbeat(heartbeat))) => {
                (heartbeat.beat == wanted).then_some(())
            }
            _ => None,
        });
    }
    assert_eq!(plugin.stats().unknown_instance, 0);
}

fn control_reaches_the_plugin(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let _host = start(&plugin);
    assert_eq!(plugin.control(op::control::STATS, b"x").unwrap(), b"x");
    plugin.set_log_level(Level::Debug).unwrap();
    let error = plugin.control(op::control::ENDPOINT, b"{}").unwrap_err();
    assert!(error.to_string().contains("connection.host: expected a host name"), "{error}");
}

const SHORT: Duration = Duration::from_millis(500);

fn an_open_that_never_returns_is_a_sentence(isolation: Isolation) {
    let (plugin, _dir) = load("bad-stuck", isolation);
    let host = start(&plugin);
    let first = open(&plugin, &host, 1);
    let error = plugin.open_within(2, &endpoint("stuck"), SHORT).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("bad-stuck: open did not return within 500 ms") && text.len() < 200, "{text}");
    match isolation {
        Isolation::InProcess => {
            // What runs goes on; nothing new is asked of it.
            assert!(plugin.is_stuck());
            assert!(first.submit(1, &connect()).is_taken());
            assert_done(&host.answer(1, 1));
            let error = plugin.open(3, &endpoint("x")).unwrap_err();
            assert!(error.to_string().contains("isolation = \"process\""), "{error}");
            assert!(!plugin.shutdown(SHORT));
        }
        Isolation::Process => {
            let reason = host.down();
            assert!(reason.contains("SIGKILL"), "{reason}");
            let host = start(&plugin);
            open(&plugin, &host, 3);
        }
    }
}

fn a_control_that_never_returns_is_a_sentence(isolation: Isolation) {
    let (plugin, _dir) = load("bad-stuck", isolation);
    let _host = start(&plugin);
    let error = plugin.control_within(op::control::LOG_LEVEL, b"info", SHORT).unwrap_err();
    assert!(error.to_string().contains("control did not return within 500 ms"), "{error}");
    assert!(plugin.control_within(op::control::STATS, b"", SHORT).is_err());
}

fn an_init_that_never_returns_is_a_sentence(isolation: Isolation) {
    let (plugin, _dir) = load("bad-stuck", isolation);
    let options = InitOptions { cache_dir: "stuck".into(), ..InitOptions::default() };
    let error = plugin.init_within(Recorder::new(), &options, SHORT).unwrap_err();
    assert!(error.to_string().contains("start did not return within 500 ms"), "{error}");
    let again = plugin.init(Recorder::new(), &InitOptions::default());
    assert_eq!(again.is_ok(), isolation == Isolation::Process, "{again:?}");
}

fn an_instance_number_is_used_once(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let _instance = open(&plugin, &host, 1);
    for inst in [0, 1] {
        let error = plugin.open(inst, &endpoint("x")).unwrap_err();
        assert!(error.to_string().contains("a bug of Busbar"), "{error}");
    }
}

fn a_panic_of_the_host_is_caught(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    host.panic(true);
    assert!(instance.submit(1, &connect()).is_taken());
    assert!(instance.submit(2, &read(99)).is_taken());
    let until = std::time::Instant::now() + PATIENCE;
    while plugin.stats().host_panics < 2 {
        assert!(std::time::Instant::now() < until, "{:?}", plugin.stats());
        std::thread::yield_now();
    }
    host.panic(false);
    assert!(instance.submit(3, &connect()).is_taken());
    assert_done(&host.answer(1, 3));
}

fn events_and_batches_keep_their_order(isolation: Isolation) {
    const COUNT: u64 = 500;
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    for req in 1..=COUNT {
        let request = if req % 2 == 0 { connect() } else { read(99) };
        assert!(instance.submit(req, &request).is_taken());
    }
    for req in 1..=COUNT {
        let found = host.wait("the next in order", |heard| match heard {
            Heard::Event(1, found, _) => Some(*found),
            Heard::Push(1, push) => Some(push.id),
            _ => None,
        });
        assert_eq!(found, req);
    }
}

fn samples(count: u32) -> Samples {
    let mut samples = Samples::default();
    for n in 0..count {
        let value = busbar_contract::Value::Float64(f64::from(n));
        samples.push(n, 5, &value, Quality::GOOD, busbar_contract::Flags::default());
    }
    samples
}

fn refused_records_are_not_lost(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    let admission = instance.deliver(Delivery { first: 40, lane: 9, flags: 0, samples: samples(2) });
    if isolation == Isolation::InProcess {
        return assert_eq!(admission, Admission::Refused);
    }
    assert!(admission.is_taken());
    host.wait("ack", |heard| match heard {
        Heard::Event(1, 0, Arrival::Event(Event::Ack { lane: 9, acks })) => {
            assert_eq!((acks[0].first, acks[0].count, acks[0].verdict), (40, 2, Verdict::Retry));
            Some(())
        }
        _ => None,
    });
}

fn a_refused_request_is_not_lost(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    let browse = busbar_contract::request::Browse { device: 0, arguments: Vec::new(), deadline_ms: 10 };
    let frame_log = busbar_contract::request::FrameLog { device: 0, on: true };
    for (req, request, admission, kind) in [
        (1, Request::Browse(browse), Admission::Unsupported, FailureKind::Unsupported),
        (2, Request::FrameLog(frame_log), Admission::Refused, FailureKind::Cancelled),
    ] {
        let found = instance.submit(req, &request);
        if isolation == Isolation::InProcess {
            assert_eq!(found, admission);
            continue;
        }
        assert!(found.is_taken());
        match host.answer(1, req) {
            Arrival::Event(Event::Failed(failure)) => assert_eq!(failure.kind, kind),
            other => panic!("{other:?}"),
        }
    }
}

fn congestion_reaches_the_plugin(isolation: Isolation) {
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 1);
    host.congested(true);
    assert!(instance.submit(3, &read(5)).is_taken());
    assert_eq!(host.push(1, 3).samples.samples[0].bits, 1, "the plugin was never told to slow down");
}

fn log_records_arrive_typed(isolation: Isolation) {
    use busbar_loader::FieldValue;
    let (plugin, _dir) = load("bad-contract", isolation);
    let host = start(&plugin);
    let instance = open(&plugin, &host, 6);
    assert!(instance.submit(3, &read(7)).is_taken());
    let (inst, entry) = host.wait("log", |heard| match heard {
        Heard::Log(inst, entry) => Some((*inst, entry.clone())),
        _ => None,
    });
    assert_eq!((inst, entry.level, entry.device, entry.line), (6, Level::Warn, Some(4), 30));
    assert_eq!((&*entry.target, &*entry.file, &*entry.message), ("bad::poll", "src/lib.rs", "poll failed"));
    let fields = [
        ("text", FieldValue::Text("a b".into())),
        ("ok", FieldValue::Bool(true)),
        ("int", FieldValue::Int(-5)),
        ("uint", FieldValue::Uint(u64::MAX)),
        ("ratio", FieldValue::Float(0.5)),
        ("nan", FieldValue::Text("NaN".into())),
    ];
    assert_eq!(entry.fields, fields.map(|(name, value)| (name.to_owned(), value)));
}

fn the_same_copy_can_be_loaded_again(isolation: Isolation) {
    let dir = common::stage_dir();
    let probed = common::stage_and_probe(&dir, "x", &common::bad_plugin("bad-contract")).unwrap();
    for round in 1..=3 {
        let plugin = Plugin::load(&probed, isolation, &common::launcher()).unwrap();
        let host = start(&plugin);
        let instance = open(&plugin, &host, round);
        assert!(instance.submit(1, &connect()).is_taken());
        assert_done(&host.answer(round, 1));
        assert!(plugin.shutdown(PATIENCE), "round {round}");
    }
}

mod worker_only {
    use super::*;

    #[test]
    fn a_flood_of_samples_costs_no_completion() {
        let (plugin, host, _dir) = running("bad-contract");
        let instance = open(&plugin, &host, 1);
        host.refuse(true);
        assert!(instance.submit(5, &read(6)).is_taken());
        let answer = host.answer(1, 5);
        let Arrival::Event(Event::Done(done)) = &answer else { panic!("{answer:?}") };
        let stage = done.answer.as_ref().unwrap().stage;
        assert_eq!(stage, busbar_contract::Stage::Finished, "the worker's queue has no bound");
        assert!(plugin.stats().lost_samples > 0);
    }

    fn kill(pid: u32) {
        let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn running(name: &str) -> (Plugin, Arc<Recorder>, tempfile::TempDir) {
        let (plugin, dir) = load(name, Isolation::Process);
        let host = start(&plugin);
        (plugin, host, dir)
    }

    #[test]
    fn a_killed_worker_is_noticed_and_can_be_started_again() {
        let (plugin, host, _dir) = running("bad-contract");
        let instance = open(&plugin, &host, 1);
        let first = plugin.worker_pid().unwrap();
        kill(first);
        let reason = host.down();
        assert!(
            reason.starts_with("bad-contract: its worker crashed (SIGKILL") && reason.len() < 200,
            "{reason}"
        );
        assert_eq!(instance.submit(1, &connect()), Admission::Refused);
        assert!(plugin.open(2, &endpoint("x")).is_err());
        assert_eq!(plugin.worker_pid(), None);
        let host = start(&plugin);
        assert_ne!(plugin.worker_pid(), Some(first));
        let again = open(&plugin, &host, 3);
        assert!(again.submit(1, &connect()).is_taken());
        assert_done(&host.answer(3, 1));
    }

    #[test]
    fn stop_signals_are_for_the_host() {
        let (plugin, host, _dir) = running("bad-contract");
        let instance = open(&plugin, &host, 1);
        let pid = plugin.worker_pid().unwrap().to_string();
        for signal in ["-TERM", "-INT", "-HUP"] {
            let status = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(status.success());
        }
        assert!(instance.submit(1, &connect()).is_taken());
        assert_done(&host.answer(1, 1));
        assert!(plugin.shutdown(PATIENCE));
    }

    #[test]
    fn an_unguarded_panic_ends_the_worker_only() {
        let (plugin, host, _dir) = running("bad-poll-panic");
        let instance = open(&plugin, &host, 1);
        assert!(instance.submit(1, &probe_device()).is_taken());
        let reason = host.down();
        assert!(reason.contains("its worker ended the process with exit code 1"), "{reason}");
    }

    #[test]
    fn a_submit_that_never_returns_can_be_ended() {
        let (plugin, host, _dir) = running("bad-stuck");
        let instance = open(&plugin, &host, 1);
        let browse = busbar_contract::request::Browse { device: 0, arguments: Vec::new(), deadline_ms: 10 };
        assert!(instance.submit(1, &Request::Browse(browse)).is_taken());
        let pid = plugin.worker_pid().unwrap();
        assert!(!plugin.shutdown(Duration::from_millis(100)));
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "the worker is gone");
    }

    #[test]
    fn a_call_that_waits_is_answered_when_the_worker_dies() {
        let (plugin, _host, _dir) = running("bad-stuck");
        let pid = plugin.worker_pid().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| plugin.open_within(1, &endpoint("stuck"), PATIENCE).unwrap_err());
            // The order of the two does not matter: asked before or after, there is an answer and no wait.
            kill(pid);
            let text = waiting.join().unwrap().to_string();
            assert!(text.contains("SIGKILL") || text.contains("not started"), "{text}");
        });
    }

    #[test]
    fn the_host_may_refuse_a_batch_for_a_while_and_then_it_is_reported_lost() {
        let (plugin, host, _dir) = running("bad-contract");
        let instance = open(&plugin, &host, 1);
        host.refuse(true);
        assert!(instance.submit(5, &read(99)).is_taken());
        match host.answer(1, 5) {
            Arrival::Lost { samples, last } => assert_eq!((samples, last), (1, true)),
            other => panic!("{other:?}"),
        }
        assert_eq!(plugin.stats().lost_samples, 1);
        host.refuse(false);
        assert!(instance.submit(6, &read(99)).is_taken());
        assert_eq!(host.push(1, 6).samples.samples.len(), 1);
    }

    /// The worker is an orphan then: whoever adopts it may not have reaped it yet, so a zombie counts as gone.
    fn is_gone(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    }

    #[test]
    fn a_worker_does_not_outlive_a_killed_host() {
        use std::io::{BufRead, BufReader, Write};
        // Once idle, once hanging in a call of the plugin.
        for endpoint in [None, Some("stuck")] {
            let dir = common::stage_dir();
            let mut host = std::process::Command::new(common::artifacts::loader_child())
                .arg("--host")
                .args([dir.path(), "x".as_ref(), &common::bad_plugin("bad-stuck")])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut pid = String::new();
            BufReader::new(host.stdout.take().unwrap()).read_line(&mut pid).unwrap();
            let pid = pid.trim();
            assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 0), "{pid}");
            assert!(!is_gone(pid));
            if let Some(endpoint) = endpoint {
                writeln!(host.stdin.as_mut().unwrap(), "{endpoint}").unwrap();
            }
            host.kill().unwrap();
            host.wait().unwrap();
            let until = std::time::Instant::now() + PATIENCE;
            while !is_gone(pid) {
                assert!(std::time::Instant::now() < until, "worker {pid} is still there ({endpoint:?})");
                std::thread::yield_now();
            }
        }
    }

    /// A program that takes the worker's place. Kept as files: a script written here could still be open in a child
    /// of another test when it is executed ("text file busy").
    fn impostor(name: &str) -> busbar_loader::Launcher {
        let dir = common::build::workspace().join("host/loader/tests/impostors");
        busbar_loader::Launcher::program(dir.join(name))
    }

    #[test]
    fn a_worker_that_breaks_the_frames_is_ended() {
        let dir = common::stage_dir();
        let probed = common::stage_and_probe(&dir, "x", &common::bad_plugin("bad-contract")).unwrap();
        for (name, words) in [
            ("echo.sh", "a frame of the host"),
            ("endless-frame.sh", "frame length"),
            ("half-frame.sh", "exit code 0"),
            ("leaves.sh", "exit code 3"),
        ] {
            let plugin = Plugin::load(&probed, Isolation::Process, &impostor(name)).unwrap();
            let error = plugin.init(Recorder::new(), &InitOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("bad-contract: start failed") && text.contains(words), "{name}: {text}");
            assert!(text.len() < 200, "{text}");
        }
    }

    #[test]
    fn dropping_a_plugin_ends_its_worker() {
        let (plugin, host, _dir) = running("bad-contract");
        let _instance = open(&plugin, &host, 1);
        let pid = plugin.worker_pid().unwrap();
        drop(plugin);
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "the worker is gone");
    }

    #[test]
    fn a_plugin_that_fails_to_load_in_its_worker_is_a_sentence() {
        let (plugin, _dir) = load("bad-contract", Isolation::Process);
        std::fs::remove_file(&plugin.staged().path).unwrap();
        let error = plugin.init(Recorder::new(), &InitOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("bad-contract: start failed") && text.contains("no such file"), "{text}");
    }
}

#[test]
fn two_versions_run_side_by_side_in_one_process() {
    let (old, _one) = load("bad-contract", Isolation::InProcess);
    let (new, _two) = load("bad-contract", Isolation::InProcess);
    let (host_old, host_new) = (start(&old), start(&new));
    let (a, b) = (open(&old, &host_old, 1), open(&new, &host_new, 2));
    assert!(old.shutdown(PATIENCE));
    assert!(b.submit(1, &connect()).is_taken());
    assert_done(&host_new.answer(2, 1));
    assert_eq!(a.submit(1, &connect()), Admission::Refused);
    assert!(new.shutdown(PATIENCE));
}
