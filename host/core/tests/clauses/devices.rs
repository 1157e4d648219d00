//! Life cycle, quality, staleness, scheduling (SEMANTICS 2 to 5).

use busbar_contract::{
    Cause, Event, FailureKind, Request,
    event::{Done, Gap},
};
use busbar_core::{Input, Output};

use crate::bench::{Bench, MS, WALL, site};

fn names(requests: &[(u64, u64, Request)]) -> Vec<&'static str> {
    requests
        .iter()
        .map(|(_, _, body)| match body {
            Request::Attach(_) => "attach",
            Request::Bind(_) => "bind",
            Request::Connect(_) => "connect",
            Request::Subscribe(_) => "subscribe",
            Request::Read(read) if read.cause == Cause::Resync => "resync",
            Request::Read(_) => "read",
            Request::Probe(_) => "probe",
            Request::Points(_) => "points",
            _ => "other",
        })
        .collect()
}

#[test]
fn a_device_is_attached_bound_connected_subscribed_and_read_before_it_is_online() {
    let mut bench = Bench::new(site(1));
    bench.load(None, true);
    let mut order = Vec::new();
    for _ in 0..20 {
        let opened: Vec<(usize, u64)> = bench
            .take()
            .into_iter()
            .filter_map(|output| match output {
                Output::Open { plugin: 0, instance, .. } => Some((0, instance)),
                Output::Submit { instance, request, body } => {
                    order.extend(names(&[(instance, request, body.clone())]));
                    assert_ne!(bench.state(0), "online", "not online while it is asked");
                    bench.answer(instance, request, &body, 5);
                    None
                }
                _ => None,
            })
            .collect();
        for (plugin, instance) in opened {
            bench.event(plugin, instance, 0, Event::Opened);
        }
    }
    assert_eq!(order, ["attach", "bind", "connect", "subscribe", "resync"]);
    assert_eq!(bench.state(0), "online");
    assert_eq!(bench.quality("d0/p0"), "good");
}

#[test]
fn points_never_read_are_none_and_invalid_comm_lost() {
    let bench = Bench::new(site(1));
    let view = bench.core.point("d0/p0").unwrap();
    assert_eq!(
        (view.value, view.quality.to_string().as_str()),
        (busbar_contract::Value::None, "invalid|comm_lost")
    );
    assert_eq!(bench.state(0), "connecting");
}

#[test]
fn a_lost_device_shows_comm_lost_at_once_with_the_hosts_time_value_and_value_time_kept() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let before = bench.core.point("d0/p1").unwrap().value_ts_ns;
    bench.pass(200);
    bench.take();
    let instance = 1;
    bench.event(
        0,
        instance,
        0,
        Event::State(busbar_contract::event::State { device: Some(0), up: false, reason: "cable".into() }),
    );
    let view = bench.core.point("d0/p1").unwrap();
    assert_eq!(view.quality.to_string(), "invalid|comm_lost");
    assert_eq!(view.value, busbar_contract::Value::Int(5));
    assert_eq!((view.value_ts_ns, view.ts_ns, view.gateway_time), (before, bench.now.wall_ns, true));
    let records = bench.records();
    assert_eq!(records.len(), 2, "in the same step");
    assert!(records.iter().all(|record| record.3 == "invalid|comm_lost" && record.4 == Cause::Host));
    assert_eq!((bench.state(0), bench.core.devices()[0].reason), ("lost", "cable"));
}

#[test]
fn after_a_reconnect_every_point_is_sent_also_when_its_value_did_not_change() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let down = busbar_contract::event::State { device: Some(0), up: false, reason: String::new() };
    bench.event(0, 1, 0, Event::State(down));
    bench.take();
    bench.pass(1300);
    bench.bring_up();
    assert_eq!(bench.state(0), "online");
    let resync: Vec<_> = bench.records().into_iter().filter(|record| record.4 == Cause::Resync).collect();
    assert_eq!(resync.iter().map(|record| (record.1, record.2)).collect::<Vec<_>>(), [(0, 5), (1, 5)]);
    assert!(resync.iter().all(|record| record.3 == "good" && record.0 & busbar_contract::batch::RESYNC != 0));
}

#[test]
fn no_answer_loses_that_device_only_and_session_all_of_the_endpoint() {
    for (kind, others) in [(FailureKind::NoAnswer, "online"), (FailureKind::Session, "lost")] {
        let (mut bench, _) = Bench::running(site(2), Some("line"), true);
        bench.pass(1000);
        let (instance, request, _) = bench.requests()[0].clone();
        bench.fail(instance, request, kind);
        let states = [bench.state(0), bench.state(1)];
        assert!(states.contains(&"lost") && states.contains(&others), "{kind:?}: {states:?}");
    }
}

#[test]
fn a_refused_read_spoils_only_its_points_and_is_asked_again_after_ten_minutes() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.pass(1000);
    let (instance, request, _) = bench.requests()[0].clone();
    bench.fail(instance, request, FailureKind::Refused);
    assert_eq!((bench.state(0), bench.quality("d0/p0").as_str()), ("online", "invalid|bad_reference"));
    let mut reads = 0;
    for _ in 0..590 {
        bench.pass(1000);
        for (instance, request, body) in bench.requests() {
            reads += u32::from(matches!(body, Request::Read(_)));
            bench.answer(instance, request, &body, 6);
        }
    }
    assert_eq!(reads, 0);
    for _ in 0..20 {
        bench.pass(1000);
        for (instance, request, body) in bench.requests() {
            bench.answer(instance, request, &body, 6);
        }
    }
    assert_eq!(bench.quality("d0/p0"), "good");
}

#[test]
fn a_wrong_configuration_fails_the_device_until_something_is_changed() {
    let (mut bench, _) = Bench::running(site(2), None, true);
    bench.pass(1000);
    let (instance, request, _) = bench.requests()[0].clone();
    bench.fail(instance, request, FailureKind::Configuration);
    let failed = (0..2).find(|device| bench.state(*device) == "failed").expect("one device failed");
    bench.pass(60_000);
    assert_eq!(bench.state(failed), "failed");
    assert_eq!(bench.core.devices()[failed].reason, "said the device");
}

#[test]
fn a_point_not_refreshed_becomes_questionable_then_invalid_old_data() {
    let mut site = site(1);
    site.devices[0].points[1].poll_interval = std::time::Duration::from_millis(500);
    site.devices[0].points[1].stale_after = std::time::Duration::from_millis(1500);
    site.devices[0].points[1].invalid_after = std::time::Duration::from_millis(4000);
    let mut bench = Bench::new(site);
    bench.load(None, true);
    bench.bring_up_groups();
    assert_eq!(bench.quality("d0/p1"), "good");
    // Answers come, but always without p1.
    for _ in 0..40 {
        bench.pass(50);
        bench.answer_without(1);
    }
    assert_eq!(
        (bench.quality("d0/p1").as_str(), bench.quality("d0/p0").as_str()),
        ("questionable|old_data", "good")
    );
    for _ in 0..60 {
        bench.pass(50);
        bench.answer_without(1);
    }
    assert_eq!(bench.quality("d0/p1"), "invalid|old_data");
    assert!(bench.core.devices()[0].counters.missing_samples > 0);
}

impl Bench {
    /// Brings up a device whose two points have groups of their own (points 1 and 0, shorter interval first).
    fn bring_up_groups(&mut self) {
        for _ in 0..20 {
            let mut opened = Vec::new();
            for output in self.take() {
                match output {
                    Output::Open { plugin, instance, .. } => opened.push((plugin, instance)),
                    Output::Submit { instance, request, body } => match &body {
                        Request::Read(read) => self.push(instance, request, &[1 - read.group], 5),
                        body => self.answer(instance, request, body, 5),
                    },
                    _ => {}
                }
            }
            for (plugin, instance) in opened {
                self.event(plugin, instance, 0, Event::Opened);
            }
        }
    }

    fn answer_without(&mut self, left_out: u32) {
        for (instance, request, body) in self.requests() {
            match &body {
                Request::Read(read) if 1 - read.group == left_out => self.push(instance, request, &[], 5),
                Request::Read(read) => self.push(instance, request, &[1 - read.group], 5),
                body => self.answer(instance, request, body, 5),
            }
        }
    }
}

#[test]
fn an_unanswered_read_is_not_repeated_but_skipped_and_counted() {
    let mut site = site(1);
    site.devices[0].response_timeout = std::time::Duration::from_secs(10);
    let (mut bench, _) = Bench::running(site, None, true);
    bench.pass(5200);
    let reads = bench.requests().iter().filter(|(_, _, body)| matches!(body, Request::Read(_))).count();
    let counters = bench.core.devices()[0].counters;
    assert_eq!(reads, 1);
    assert_eq!((counters.polls_due, counters.polls_skipped), (5, 4));
}

#[test]
fn due_times_keep_the_grid_when_answers_are_slow() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let mut at = Vec::new();
    for _ in 0..500 {
        bench.pass(10);
        for (instance, request, body) in bench.requests() {
            if matches!(body, Request::Read(_)) {
                at.push(bench.now.mono_ns / MS % 1000);
            }
            bench.answer(instance, request, &body, 1);
        }
    }
    assert!(at.len() >= 4 && at.iter().all(|phase| *phase == at[0]), "{at:?}");
}

#[test]
fn a_driver_that_misses_its_deadline_loses_its_devices_250_ms_later() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.pass(1000);
    assert_eq!(bench.requests().len(), 1);
    bench.pass(600);
    assert_eq!(bench.state(0), "online", "the deadline is 500 ms, and 250 ms more are given");
    bench.pass(300);
    assert_eq!((bench.state(0), bench.quality("d0/p0").as_str()), ("lost", "invalid|comm_lost"));
}

#[test]
fn a_plugin_without_heartbeat_for_a_second_loses_its_devices_and_is_given_up_after_thirty() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let silent = |bench: &mut Bench, ms: u64| {
        let until = bench.now.mono_ns + ms * MS;
        while let Some(at) = bench.core.next_wake().filter(|at| *at <= until) {
            bench.now.mono_ns = at;
            let beat = Event::Heartbeat(busbar_contract::event::Heartbeat { beat: 0 });
            bench.step(Input::Event { plugin: 1, instance: 0, request: 0, event: beat });
            bench.step(Input::Tick);
        }
        bench.now.mono_ns = until;
    };
    bench.pass(50);
    silent(&mut bench, 1200);
    assert_eq!(bench.quality("d0/p0"), "invalid|comm_lost");
    assert_eq!(bench.core.plugins()[0].state.as_str(), "degraded");
    silent(&mut bench, 30_000);
    assert!(bench.out.iter().any(|output| matches!(output, Output::Abandon { plugin: 0, .. })));
    assert_eq!((bench.core.plugins()[0].state.as_str(), bench.state(0)), ("failed", "failed"));
}

#[test]
fn an_absent_plugin_fails_its_devices_with_the_reason_and_nothing_else() {
    let mut bench = Bench::new(site(1));
    bench.step(Input::PluginFailed { plugin: 0, reason: "file not found".into() });
    assert_eq!(bench.state(0), "failed");
    assert!(bench.core.devices()[0].reason.contains("file not found"));
    assert!(bench.core.ready(false).unwrap_err().contains("snk"), "the sink is not loaded yet");
}

#[test]
fn a_gap_marks_what_it_held_as_inconsistent_and_reads_it_again_at_once() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.event(0, 1, 0, Event::Gap(Gap { device: 0, reason: "overflow".into(), points: vec![] }));
    assert_eq!(bench.quality("d0/p0"), "questionable|inconsistent");
    assert_eq!(bench.core.point("d0/@gap").unwrap().value, busbar_contract::Value::Uint(1));
    for (instance, request, body) in bench.requests() {
        bench.answer(instance, request, &body, 5);
    }
    assert_eq!(bench.quality("d0/p0"), "good");
}

#[test]
fn an_older_state_changes_nothing_and_an_equal_time_takes_the_later_arrival() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.push_as(1, 0, &[0], 7, Cause::Integrity, 0, WALL + 50);
    bench.push_as(1, 0, &[0], 8, Cause::Integrity, 0, WALL + 40);
    assert_eq!(bench.core.point("d0/p0").unwrap().value, busbar_contract::Value::Int(7));
    bench.push_as(1, 0, &[0], 9, Cause::Integrity, 0, WALL + 50);
    assert_eq!(bench.core.point("d0/p0").unwrap().value, busbar_contract::Value::Int(9));
}

#[test]
fn a_rejected_point_is_bad_reference_and_the_device_comes_online() {
    let mut bench = Bench::new(site(1));
    bench.load(None, true);
    for _ in 0..10 {
        for output in bench.take() {
            match output {
                Output::Open { plugin, instance, .. } => bench.event(plugin, instance, 0, Event::Opened),
                Output::Submit { instance, request, body: Request::Bind(_) } => {
                    let rejected =
                        vec![busbar_contract::event::Rejected { point: 1, reason: "no such address".into() }];
                    bench.event(0, instance, request, Event::Done(Done { rejected, ..Done::default() }));
                }
                Output::Submit { instance, request, body: Request::Read(_) } => {
                    bench.push(instance, request, &[0], 5);
                }
                Output::Submit { instance, request, body } => bench.answer(instance, request, &body, 5),
                _ => {}
            }
        }
    }
    assert_eq!(bench.state(0), "online");
    assert_eq!(
        (bench.quality("d0/p0").as_str(), bench.quality("d0/p1").as_str()),
        ("good", "invalid|bad_reference")
    );
}
