//! What sinks get, and what becomes of it (SEMANTICS 3, 7, 8, G7).

use std::time::Duration;

use busbar_contract::{Cause, Event, Request, batch, binary::Verdict, event::State};
use busbar_core::{Input, Output, model::Send};

use crate::bench::{Bench, WALL, site};

fn ledger(bench: &Bench) -> busbar_core::view::Ledger {
    bench.core.sinks()[0].ledger.clone()
}

#[test]
fn a_sink_gets_its_points_then_a_snapshot_then_deltas() {
    let mut bench = Bench::new(site(1));
    bench.load(None, true);
    let mut kinds = Vec::new();
    for _ in 0..12 {
        for output in bench.take() {
            match output {
                Output::Open { plugin, instance, .. } => bench.event(plugin, instance, 0, Event::Opened),
                Output::Submit { instance, request, body } => {
                    if let Request::Points(points) = &body {
                        assert_eq!(points.points.len(), 2);
                        kinds.push("points");
                    }
                    bench.answer(instance, request, &body, 5);
                }
                Output::Deliver { flags, samples, .. } => {
                    if flags & batch::SNAPSHOT != 0 {
                        assert_eq!(samples.samples.len(), 2);
                    }
                    kinds.push(if flags & batch::SNAPSHOT == 0 { "delta" } else { "snapshot" });
                }
                _ => {}
            }
        }
    }
    assert_eq!(kinds, ["points", "snapshot", "delta"]);
}

#[test]
fn the_ledger_counts_every_record_once() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let before = ledger(&bench);
    bench.push_as(1, 0, &[0, 1], 6, Cause::Integrity, 0, WALL + 1_000_000_000);
    assert_eq!(ledger(&bench).pending, 2);
    bench.confirm(sink, Verdict::Rejected);
    let after = ledger(&bench);
    assert_eq!(after.accepted, before.accepted + 2);
    assert_eq!(after.parked, [("too large".to_owned(), 2)].into());
    assert_eq!(after.pending, 0);
    assert!(after.is_balanced());
}

#[test]
fn unconfirmed_records_come_again_after_the_far_side_was_down() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    bench.push_as(1, 0, &[0], 6, Cause::Integrity, 0, WALL + 1_000_000_000);
    assert_eq!(bench.records().len(), 1);
    bench.event(1, sink, 0, Event::State(State { device: None, up: false, reason: "gone".into() }));
    assert_eq!(bench.core.sinks()[0].reason, "gone");
    bench.push_as(1, 0, &[0], 7, Cause::Integrity, 0, WALL + 1_000_000_001);
    assert_eq!(bench.records().len(), 0, "nothing goes out while it is down");
    bench.pass(1300);
    bench.bring_up();
    let values: Vec<_> =
        bench.records().iter().filter(|record| record.1 == 0).map(|record| (record.0, record.2)).collect();
    assert_eq!(
        values[..2],
        [(batch::REPLAY, 6), (batch::REPLAY, 7)],
        "in order, marked as replay: {values:?}"
    );
}

#[test]
fn a_sink_that_is_not_durable_keeps_one_slot_of_state_per_point_and_all_events() {
    let mut plant = site(1);
    plant.devices[0].points[1].event = true;
    let (mut bench, sink) = Bench::running(plant, None, false);
    bench.event(1, sink, 0, Event::State(State { device: None, up: false, reason: "gone".into() }));
    for value in 0..10 {
        let ts_ns = WALL + 1_000_000_000 + value;
        bench.push_as(1, 0, &[0], value, Cause::DataChange, 0, ts_ns);
        bench.push_as(1, 0, &[1], value, Cause::DataChange, 0, ts_ns);
    }
    let ledger = ledger(&bench);
    assert_eq!(ledger.pending, 11, "one state, ten events");
    assert_eq!(ledger.dropped, [("superseded".to_owned(), 9)].into());
}

#[test]
fn overflow_drops_the_oldest_counted() {
    let mut plant = site(1);
    plant.sinks[0].queue.max_bytes = 48 * 5;
    let (mut bench, sink) = Bench::running(plant, None, true);
    bench.event(1, sink, 0, Event::State(State { device: None, up: false, reason: "gone".into() }));
    for value in 0..10 {
        bench.push_as(1, 0, &[0], value, Cause::Integrity, 0, WALL + 1_000_000_000 + value);
    }
    assert_eq!(ledger(&bench).dropped, [("overflow".to_owned(), 5)].into());
    assert!(bench.core.sinks()[0].overflow);
    bench.pass(1000);
    assert_eq!(bench.core.point("@sink/s/overflow").unwrap().value, busbar_contract::Value::Bool(true));
}

#[test]
fn records_older_than_max_age_expire() {
    let mut plant = site(1);
    plant.sinks[0].queue.max_age = Duration::from_secs(5);
    let (mut bench, sink) = Bench::running(plant, None, true);
    bench.event(1, sink, 0, Event::State(State { device: None, up: false, reason: "gone".into() }));
    bench.push_as(1, 0, &[0], 1, Cause::Integrity, 0, WALL + 1_000_000_000);
    bench.pass(7000);
    assert!(ledger(&bench).dropped.iter().any(|(why, count)| why.as_str() == "expired" && *count >= 1));
}

#[test]
fn send_changes_holds_back_what_did_not_change() {
    let mut plant = site(1);
    plant.sinks[0].send = Send::Changes;
    let (mut bench, _) = Bench::running(plant, None, true);
    bench.push_as(1, 0, &[0], 5, Cause::Integrity, 0, WALL + 1_000_000_000);
    assert_eq!(bench.records().len(), 0);
    bench.push_as(1, 0, &[0], 6, Cause::Integrity, 0, WALL + 1_000_000_001);
    assert_eq!(bench.records().len(), 1);
}

#[test]
fn a_token_is_committed_when_every_durable_sink_confirmed_and_failed_when_one_refused() {
    for (verdict, ok) in [(Verdict::Delivered, true), (Verdict::Rejected, false)] {
        let (mut bench, sink) = Bench::running(site(1), None, true);
        bench.push_as(1, 0, &[0, 1], 6, Cause::DataChange, 7, WALL + 1_000_000_000);
        assert!(bench.requests().is_empty(), "in a queue in memory is not on disk");
        bench.confirm(sink, verdict);
        let requests = bench.requests();
        let Request::Committed(committed) = &requests[0].2 else { panic!("{requests:?}") };
        assert_eq!((committed.token, committed.ok), (7, ok));
    }
}

#[test]
fn a_token_without_a_durable_sink_is_committed_at_once() {
    let (mut bench, _) = Bench::running(site(1), None, false);
    bench.push_as(1, 0, &[0], 6, Cause::DataChange, 7, WALL + 1_000_000_000);
    assert!(matches!(&bench.requests()[0].2, Request::Committed(committed) if committed.ok));
}

#[test]
fn a_retry_holds_back_its_device_and_the_latest_state_comes_last() {
    let (mut bench, sink) = Bench::running(site(2), None, true);
    bench.push_as(1, 0, &[0], 6, Cause::Integrity, 0, WALL + 1_000_000_000);
    let first = bench.out.iter().find_map(|output| match output {
        Output::Deliver { first, .. } => Some(*first),
        _ => None,
    });
    bench.push_as(1, 0, &[0], 7, Cause::Integrity, 0, WALL + 1_000_000_001);
    bench.records();
    let retry =
        busbar_contract::binary::Ack { first: first.unwrap(), count: 1, verdict: Verdict::Retry, reason: 0 };
    bench.event(1, sink, 0, Event::Ack { lane: 0, acks: vec![retry] });
    assert!(bench.records().is_empty());
    bench.push_as(2, 0, &[2], 9, Cause::Integrity, 0, WALL + 1_000_000_002);
    assert_eq!(bench.records().len(), 1, "the other device goes on");
    bench.pass(1300);
    let values: Vec<u64> = bench
        .records()
        .iter()
        .filter(|record| record.1 == 0 && record.3 == "good")
        .map(|record| record.2)
        .collect();
    assert_eq!(values[..2], [6, 7], "{values:?}");
}

fn stops(bench: &mut Bench) -> Vec<u64> {
    let stopped = bench.out.iter().filter_map(|output| match output {
        Output::Stop { instance, .. } => Some(*instance),
        _ => None,
    });
    let stopped = stopped.collect();
    bench.out.retain(|output| !matches!(output, Output::Stop { .. }));
    stopped
}

#[test]
fn shutdown_stops_drivers_first_and_sinks_when_they_delivered_the_rest() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    bench.step(Input::Shutdown);
    assert_eq!(stops(&mut bench), [1], "the driver");
    bench.event(0, 1, 0, Event::Stopped);
    assert!(ledger(&bench).pending > 0, "comm_lost of its points");
    assert_eq!(stops(&mut bench), Vec::<u64>::new(), "not before the far side has them");
    bench.confirm(sink, Verdict::Delivered);
    bench.pass(100);
    bench.confirm(sink, Verdict::Delivered);
    assert_eq!(ledger(&bench).pending, 0);
    assert_eq!(stops(&mut bench), [sink]);
    assert!(!bench.core.is_stopped());
    bench.event(1, sink, 0, Event::Stopped);
    assert!(bench.core.is_stopped());
}

#[test]
fn shutdown_does_not_wait_for_ever_for_a_far_side_that_confirms_nothing() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    bench.step(Input::Shutdown);
    bench.event(0, 1, 0, Event::Stopped);
    assert_eq!(stops(&mut bench), [1]);
    bench.pass(3100);
    assert_eq!(stops(&mut bench), [sink]);
}

/// The host waits as long as the core may need, so what the core says of itself must be true.
#[test]
fn the_longest_shutdown_is_as_long_as_the_core_says_and_not_longer() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    bench.step(Input::Shutdown);
    // Nobody stops, the far side confirms nothing.
    let mut ms = 0;
    while !bench.core.is_stopped() {
        bench.pass(50);
        ms += 50;
        assert!(ms < 60_000, "it never ends");
    }
    let said = busbar_core::Core::longest_shutdown_ns() / 1_000_000;
    assert!(ms <= said + 100, "it took {ms} ms, {said} ms are said");
    assert!(said < 30_000, "service managers and container engines do not wait for ever");
}
