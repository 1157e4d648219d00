//! Clauses that only show at the edge of something: a clock, a restart, a reconnect, a disk that is slow.

use std::time::Duration;

use busbar_contract::{
    Action, Answer, Cause, Event, Failure, FailureKind, Origin, Quality, Reason, Request, Value, batch,
    binary::Verdict,
    event::{SinkCommand, State},
    request::AnswerTo,
};
use busbar_core::{
    Core, Input, Output, Switches,
    input::{Ask, Operator},
    model::{Backoff, Timestamp},
    output::{Reply, StoreAction},
};
use serde_json::json;

use crate::bench::{Bench, WALL, site};

impl Bench {
    /// Every audit line that somebody waits for is on disk.
    pub(crate) fn audit_all(&mut self) {
        let waiting: Vec<u64> = self
            .out
            .iter()
            .filter_map(|output| match output {
                Output::Audit { audit, .. } if *audit != 0 => Some(*audit),
                _ => None,
            })
            .collect();
        self.out.retain(|output| !matches!(output, Output::Audit { .. }));
        for audit in waiting {
            self.step(Input::Audited { audit, error: String::new() });
        }
    }

    fn operate_by(&mut self, ask: Ask) -> (Vec<Reply>, Vec<(u64, Vec<u8>)>) {
        self.step(Input::Operator(Operator { id: 3, ask }));
        self.replies()
    }

    /// Replies, and documents to be stored.
    fn replies(&mut self) -> (Vec<Reply>, Vec<(u64, Vec<u8>)>) {
        let (mut replies, mut stores) = (Vec::new(), Vec::new());
        for output in self.take() {
            match output {
                Output::Reply { reply, .. } => replies.push(reply),
                Output::Store { store, action: StoreAction::Put(bytes), .. } => stores.push((store, bytes)),
                _ => {}
            }
        }
        (replies, stores)
    }

    fn down(&mut self, plugin: usize, instance: u64, device: Option<u32>) {
        self.event(plugin, instance, 0, Event::State(State { device, up: false, reason: "gone".into() }));
    }

    fn opened_plugin(&mut self, wanted: usize) -> Option<u64> {
        self.out.iter().find_map(|output| match output {
            Output::Open { plugin, instance, .. } if *plugin == wanted => Some(*instance),
            _ => None,
        })
    }
}

fn unsynced(bench: &Bench, point: &str) -> bool {
    bench.core.point(point).unwrap().quality.contains(Quality::CLOCK_UNSYNCED)
}

#[test]
fn whatever_the_gateway_stamps_without_a_synchronised_clock_says_so() {
    let mut early = Bench::new(site(1));
    early.step(Input::Clock { synchronised: false });
    assert!(unsynced(&early, "d0/p0"), "stamped at the start, before the state of the clock was known");
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.step(Input::Clock { synchronised: false });
    assert!(!unsynced(&bench, "d0/p1"), "the device stamped it");
    bench.down(0, 1, Some(0));
    assert!(unsynced(&bench, "d0/p1"), "lost");
    bench.operate_by(Ask::Block("d0/p1".into(), Origin::default()));
    assert!(unsynced(&bench, "d0/p1"), "blocked");
    bench.step(Input::Clock { synchronised: true });
    bench.operate_by(Ask::Unblock("d0/p1".into(), Origin::default()));
    assert!(!unsynced(&bench, "d0/p1"), "stamped anew");
}

#[test]
fn a_probe_that_the_plugin_did_not_take_proves_nothing() {
    let mut plant = site(1);
    plant.devices[0].probe_interval = Duration::from_millis(200);
    for point in &mut plant.devices[0].points {
        point.poll_interval = Duration::from_secs(60);
        point.stale_after = Duration::from_secs(180);
        point.invalid_after = Duration::from_secs(1800);
    }
    let (mut bench, _) = Bench::running(plant, None, true);
    let probe = |bench: &mut Bench| {
        bench.requests().into_iter().find(|(_, _, body)| matches!(body, Request::Probe(_)))
    };
    let first = (0..20).find_map(|_| {
        bench.pass(20);
        probe(&mut bench)
    });
    let (instance, request, _) = first.expect("an idle device is probed");
    bench.pass(100);
    bench.step(Input::NotTaken { instance, request, delivery: false, code: 1 });
    bench.pass(140);
    assert!(probe(&mut bench).is_some(), "asked again on time: nobody heard of the device");
}

#[test]
fn a_switch_is_answered_when_it_is_on_disk_and_an_unlock_holds_only_then() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let (replies, stores) = bench.operate_by(Ask::Lock(Origin::default()));
    assert!(replies.is_empty() && bench.core.commands_locked(), "locked at once, answered later");
    bench.step(Input::Stored { store: stores[0].0, result: Ok(None) });
    assert_eq!(bench.replies().0, [Reply::Done]);

    let (replies, stores) = bench.operate_by(Ask::Unlock(Origin::default()));
    assert!(replies.is_empty() && bench.core.commands_locked());
    assert_eq!(Switches::parse(&stores[0].1).unwrap().locked, Some(false));
    bench.step(Input::Stored { store: stores[0].0, result: Err("disk full".into()) });
    let (replies, stores) = bench.replies();
    assert!(matches!(&replies[..], [Reply::Failed(text)] if text.contains("disk full")), "{replies:?}");
    assert!(bench.core.commands_locked());
    assert_eq!(Switches::parse(&stores[0].1).unwrap().locked, Some(true), "the disk must not say unlocked");

    let (_, unlock) = bench.operate_by(Ask::Unlock(Origin::default()));
    bench.operate_by(Ask::Lock(Origin::default()));
    bench.step(Input::Stored { store: unlock[0].0, result: Ok(None) });
    assert!(bench.core.commands_locked(), "a lock overtakes an unlock on its way to the disk");
    let (_, unlock) = bench.operate_by(Ask::Unlock(Origin::default()));
    bench.step(Input::Stored { store: unlock[0].0, result: Ok(None) });
    assert!(!bench.core.commands_locked());
}

#[test]
fn a_substituted_value_keeps_its_kind_over_a_restart() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let (_, stores) = bench.operate_by(Ask::Substitute("d0/p1".into(), json!(12), Origin::default()));
    let again = Core::new(site(1), Switches::parse(&stores[0].1).unwrap(), 1, bench.now);
    assert_eq!(again.point("d0/p1").unwrap().value, Value::Int(12));
    let old = Switches::parse(br#"{"substituted":{"d0/p1":12}}"#).unwrap();
    assert_eq!(Core::new(site(1), old, 1, bench.now).point("d0/p1").unwrap().value, Value::Float64(12.0));
}

#[test]
fn a_driver_and_a_sink_of_one_name_do_not_mix() {
    let mut plant = site(1);
    for plugin in &mut plant.plugins {
        plugin.name = "same".into();
    }
    plant.devices[0].driver = "same".into();
    plant.sinks[0].plugin = "same".into();
    let (bench, _) = Bench::running(plant, None, true);
    assert_eq!(bench.state(0), "online");
    assert!(bench.core.sinks()[0].connected);
}

#[test]
fn an_open_that_could_not_be_tried_is_tried_again() {
    let mut bench = Bench::new(site(1));
    bench.load(None, true);
    for plugin in [0, 1] {
        let instance = bench.opened_plugin(plugin).unwrap();
        bench.step(Input::OpenPostponed { instance, reason: "no thread".into() });
    }
    bench.take();
    assert_ne!(bench.state(0), "failed");
    bench.pass(1500);
    assert!(bench.opened_plugin(0).is_some() && bench.opened_plugin(1).is_some());
    let instance = bench.opened_plugin(0).unwrap();
    bench.step(Input::OpenFailed { instance, reason: "wrong".into() });
    assert_eq!(bench.state(0), "failed", "only the configuration is final");
}

#[test]
fn a_missed_deadline_or_a_bug_in_a_read_ends_the_session_of_the_whole_endpoint() {
    for kind in [FailureKind::Deadline, FailureKind::Bug] {
        let (mut bench, _) = Bench::running(site(2), Some("line"), true);
        assert_eq!((bench.state(0), bench.state(1)), ("online", "online"));
        bench.pass(1000);
        let requests = bench.requests();
        let (instance, request, _) =
            requests.iter().find(|(_, _, body)| matches!(body, Request::Read(_))).expect("a read is due");
        bench.fail(*instance, *request, kind);
        assert_eq!((bench.state(0), bench.state(1)), ("lost", "lost"), "{kind:?}");
    }
}

#[test]
fn after_a_replay_the_latest_state_of_every_point_is_sent_last() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    bench.push_as(1, 0, &[0], 6, Cause::Integrity, 0, WALL + 1_000_000_000);
    bench.records();
    bench.down(1, sink, None);
    bench.push_as(1, 0, &[0], 7, Cause::Integrity, 0, WALL + 1_000_000_001);
    bench.event(1, sink, 0, Event::State(State { device: None, up: true, reason: String::new() }));
    let all = bench.records();
    let of = |point: u32| -> Vec<(u32, u64)> {
        all.iter()
            .filter(|record| record.1 == point)
            .map(|record| (record.0 & !batch::TIMES, record.2))
            .collect()
    };
    assert_eq!(of(0), [(batch::REPLAY, 6), (batch::REPLAY, 7), (batch::SNAPSHOT, 7)]);
    assert_eq!(
        of(1),
        [(batch::SNAPSHOT, 5)],
        "a far side that forgot everything learns what did not change too"
    );
    for _ in 0..5 {
        bench.down(1, sink, None);
        bench.event(1, sink, 0, Event::State(State { device: None, up: true, reason: String::new() }));
    }
    assert!(bench.core.sinks()[0].ledger.pending <= 4, "images do not pile up");
    assert!(bench.core.sinks()[0].ledger.is_balanced());
}

#[test]
fn a_sink_that_ran_is_tried_again_when_its_configuration_fails_it() {
    let mut plant = site(1);
    plant.sinks[0].reconnect = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(4) };
    let (mut bench, sink) = Bench::running(plant, None, true);
    bench.down(1, sink, None);
    let connect = |bench: &mut Bench| {
        (0..500).find_map(|_| {
            bench.pass(20);
            let requests = bench.requests();
            requests
                .into_iter()
                .find(|(_, _, body)| matches!(body, Request::Connect(of) if of.device.is_none()))
        })
    };
    let (instance, request, _) = connect(&mut bench).unwrap();
    let failure = Failure::new(FailureKind::Configuration, "no certificate in client.pem");
    bench.event(1, instance, request, Event::Failed(failure));
    let failed_ns = bench.now.mono_ns;
    assert_eq!(bench.core.sinks()[0].reason, "no certificate in client.pem");
    assert!(bench.core.ready(true).unwrap_err().contains("certificate"));
    let (instance, request, _) = connect(&mut bench).expect("asked again");
    assert!(bench.now.mono_ns - failed_ns >= 4_000_000_000, "not often");
    bench.done(1, instance, request);
    assert!(bench.core.sinks()[0].connected);
}

#[test]
fn a_sinks_own_refusal_is_audited_with_its_words_and_never_executed() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let command = SinkCommand {
        point: 0,
        action: Action::Operate,
        value: json!(1),
        origin: Origin::default(),
        select_required: false,
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: 0,
        expires_ns: 0,
        // A stage that would be positive is not believed.
        refused: Some(Answer::stage(busbar_contract::Stage::Finished)),
    };
    bench.event(1, sink, 9, Event::Command(command));
    let outputs = bench.take();
    let audits = outputs.iter().filter(|output| {
        matches!(output, Output::Audit { line, .. } if line["stage"] == "refused" && line["point"] == "d0/p0")
    });
    assert_eq!(audits.count(), 1);
    let refused = outputs.iter().any(|output| {
        matches!(output, Output::Submit { body: Request::Answer(AnswerTo::Command(answer)), .. }
            if answer.stage == busbar_contract::Stage::Refused)
    });
    assert!(refused);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Submit { body: Request::Command(_), .. })));
}

#[test]
fn a_source_time_beyond_max_skew_is_replaced_and_marked() {
    let mut plant = site(1);
    plant.devices[0].max_skew = Some(Duration::from_secs(10));
    let (mut bench, _) = Bench::running(plant, None, true);
    let wall_ns = bench.now.wall_ns;
    bench.push_as(1, 0, &[1], 8, Cause::Integrity, 0, wall_ns - 9_000_000_000);
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!(
        (view.ts_ns, view.gateway_time),
        (wall_ns - 7, false),
        "older than the poll: late, not skewed"
    );
    bench.push_as(1, 0, &[1], 9, Cause::Integrity, 0, wall_ns + 10_000_000_001);
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!((view.ts_ns, view.gateway_time, view.value.clone()), (wall_ns, true, Value::Int(9)));
    assert_eq!(bench.core.devices()[0].counters.skewed_samples, 1);
    bench.push_as(1, 0, &[1], 10, Cause::Integrity, 0, wall_ns + 10_000_000_000);
    assert_eq!(bench.core.point("d0/p1").unwrap().ts_ns, wall_ns + 10_000_000_000, "the limit itself passes");
}

#[test]
fn a_device_without_a_clock_of_its_own_gets_the_gateways_time() {
    let mut plant = site(1);
    plant.devices[0].gateway_time = true;
    let (mut bench, _) = Bench::running(plant, None, true);
    bench.pass(100);
    bench.push_as(1, 0, &[1], 9, Cause::Integrity, 0, 5);
    let wall_ns = bench.now.wall_ns;
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!((view.ts_ns, view.gateway_time, view.value.clone()), (wall_ns, true, Value::Int(9)));
}

#[test]
fn timestamp_received_replaces_the_time_of_change_except_of_a_data_change() {
    let mut plant = site(1);
    plant.sinks[0].timestamp = Timestamp::Received;
    let (mut bench, sink) = Bench::running(plant, None, true);
    for (cause, received) in [(Cause::Integrity, true), (Cause::DataChange, false)] {
        let source_ns = WALL + 1_000_000_000;
        bench.push_as(1, 0, &[1], 9, cause, 0, source_ns);
        let times: Vec<i64> = bench
            .out
            .iter()
            .filter_map(|output| match output {
                Output::Deliver { samples, .. } => samples.samples.first().map(|sample| sample.ts_ns),
                _ => None,
            })
            .collect();
        assert_eq!(times, [if received { bench.now.wall_ns } else { source_ns }], "{cause:?}");
        bench.confirm(sink, Verdict::Delivered);
    }
}

#[test]
fn a_command_during_resync_is_refused_at_once() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    bench.down(0, 1, Some(0));
    let in_resync = (0..200).any(|_| {
        bench.pass(20);
        for (instance, request, body) in bench.requests() {
            if !matches!(body, Request::Read(_)) {
                bench.answer(instance, request, &body, 5);
            }
        }
        bench.state(0) == "resync"
    });
    assert!(in_resync);
    bench.take();
    let command = SinkCommand {
        point: 0,
        action: Action::Operate,
        value: json!(1),
        origin: Origin::default(),
        select_required: false,
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: 0,
        expires_ns: 0,
        refused: None,
    };
    bench.event(1, sink, 9, Event::Command(command));
    let reason = bench.take().into_iter().find_map(|output| match output {
        Output::Submit { body: Request::Answer(AnswerTo::Command(answer)), .. } => answer.reason,
        _ => None,
    });
    assert_eq!(reason, Some(Reason::Resync));
}
