//! Queues on disk, one clause each (G7, SEMANTICS 7 and 8). The file is the model of the simulation.

use busbar_contract::{Cause, Event, Request, batch, binary::Verdict};
use busbar_core::{
    Input, Output,
    journal::{End, Transaction},
    model::{Order, Queue},
};

use crate::desk::{Desk, plant};

fn rows(transaction: &Transaction) -> usize {
    transaction.rows.iter().map(|row| row.entries.len()).sum()
}

#[test]
fn nothing_is_delivered_before_the_file_is_open_and_its_numbers_are_reserved() {
    let mut desk = Desk::new(plant(1, Queue::default()));
    desk.bench.bring_up();
    desk.bench.pass(100);
    assert!(desk.deliveries().is_empty());
    let open = desk.bench.out.iter().filter(|output| matches!(output, Output::JournalOpen { sink: 0 }));
    assert_eq!(open.count(), 1);
    desk.bench.step(Input::JournalOpened { sink: 0, result: Ok(desk.file.open()) });
    assert!(desk.deliveries().is_empty(), "the first transaction reserves the numbers");
    desk.serve();
    assert!(!desk.deliveries().is_empty());
    let next = desk.transactions[0].next;
    assert!(desk.deliveries().iter().all(|(first, count)| first + u64::from(*count) <= next));
}

#[test]
fn what_is_confirmed_before_its_transaction_leaves_is_counted_and_never_a_row() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    let before = desk.ledger();
    for _ in 0..200 {
        desk.measure(&[0, 1]);
        desk.confirm(Verdict::Delivered);
        desk.pass(20);
    }
    desk.pass(1100);
    assert_eq!(desk.transactions.iter().map(rows).sum::<usize>(), 0);
    assert!(desk.transactions.len() <= 7, "counters wait up to a second: {}", desk.transactions.len());
    let after = desk.ledger();
    assert_eq!(after.accepted, before.accepted + 400);
    assert_eq!(after.delivered, before.delivered + 400);
}

#[test]
fn what_is_not_confirmed_is_on_disk_after_flush_every_or_with_flush_records() {
    let mut desk = Desk::running(plant(1, Queue { flush_records: 10, ..Queue::default() }));
    desk.measure(&[0, 1]);
    desk.pass(40);
    assert_eq!((desk.transactions.len(), desk.unwritten()), (0, 2));
    desk.pass(40);
    assert_eq!((desk.transactions.len(), rows(&desk.transactions[0]), desk.unwritten()), (1, 2, 0));
    assert_eq!(desk.transactions[0].rows.len(), 1, "one row per device and poll");
    for _ in 0..5 {
        desk.measure(&[0, 1]);
    }
    let sent = |desk: &Desk| desk.bench.out.iter().filter(|o| matches!(o, Output::Journal { .. })).count();
    assert_eq!(sent(&desk), 1, "ten records leave at once");
    for _ in 0..20 {
        desk.measure(&[0, 1]);
    }
    assert_eq!(sent(&desk), 1, "one transaction is on its way at most");
    desk.serve();
    assert_eq!(desk.unwritten(), 0);
    assert_eq!(desk.ledger().pending, 52);
}

#[test]
fn a_file_that_cannot_be_opened_is_a_clear_state_and_gets_what_waits_later() {
    let mut desk = Desk::new(plant(1, Queue::default()));
    desk.bench.bring_up();
    desk.bench.pass(20);
    let refuse = |desk: &mut Desk| {
        desk.bench.out.retain(|output| !matches!(output, Output::JournalOpen { .. }));
        desk.bench.step(Input::JournalOpened { sink: 0, result: Err("permission denied".into()) });
    };
    refuse(&mut desk);
    assert!(desk.reason().contains("permission denied"), "{}", desk.reason());
    desk.confirm(Verdict::Delivered);
    desk.measure(&[0]);
    let waiting = desk.deliveries();
    assert_eq!(waiting.len(), 1, "delivered from memory all the same");
    assert!(desk.ledger().pending >= 1 && desk.ledger().is_balanced());
    desk.bench.pass(1300);
    desk.serve();
    assert_eq!(desk.reason(), "");
    assert_eq!(rows(&desk.transactions[0]) as u64, desk.ledger().pending, "what waits is written");
    assert!(desk.transactions[0].delivered_unwritten > 0, "what went meanwhile is counted");
    desk.answer(waiting[0], Verdict::Delivered);
    desk.pass(100);
    let settled = desk.transactions.iter().flat_map(|transaction| &transaction.settled);
    assert_eq!(settled.map(|settled| settled.count).sum::<u64>(), 1, "confirmed under its number of before");
    assert!(desk.file.ledger().is_balanced());
}

#[test]
fn while_the_disk_is_full_delivery_goes_on_and_the_same_is_offered_again() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.file.full = true;
    let before = desk.ledger();
    desk.measure(&[0]);
    desk.pass(200);
    assert!(desk.reason().contains("disk is full"), "{}", desk.reason());
    assert_eq!(desk.ledger(), before, "nothing of it is on disk");
    let first = desk.delivered().len();
    desk.measure(&[0]);
    assert_eq!((first, desk.delivered().len()), (1, 1));
    let lines = desk
        .bench
        .out
        .iter()
        .filter(|output| matches!(output, Output::Log(line) if line.message.contains("disk is full")));
    assert_eq!(lines.count(), 1, "said once");
    desk.file.full = false;
    desk.pass(6000);
    assert_eq!(desk.reason(), "");
    assert_eq!((desk.ledger().pending, desk.unwritten()), (2, 0));
}

#[test]
fn beyond_bounded_memory_the_newest_is_dropped_as_disk_full() {
    let queue = Queue { window: 10, in_flight: 5, flush_records: 1, ..Queue::default() };
    let mut desk = Desk::running(plant(1, queue));
    desk.down();
    desk.file.full = true;
    for _ in 0..100 {
        desk.measure(&[0]);
        desk.pass(20);
    }
    assert!(desk.bench.core.sinks()[0].overflow);
    desk.file.full = false;
    desk.pass(6000);
    let ledger = desk.ledger();
    assert!(ledger.dropped["disk_full"] >= 50, "{ledger:?}");
    assert_eq!(ledger.pending + ledger.dropped["disk_full"], 100);
    desk.up();
    assert_eq!(desk.delivered()[0].1, 1, "the oldest is kept");
}

#[test]
fn an_outage_of_any_length_takes_one_window_of_memory_and_replays_completely() {
    let queue = Queue { window: 500, in_flight: 200, ..Queue::default() };
    let mut desk = Desk::running(plant(1, queue));
    desk.down();
    for turn in 0..30_000 {
        desk.measure(&[0, 1]);
        if turn % 100 == 0 {
            desk.pass(20);
        }
    }
    desk.pass(100);
    // The bound itself is checked in every step.
    assert_eq!(desk.ledger().pending, 60_000);
    desk.up();
    let (mut got, mut last) = (0, 0);
    for _ in 0..1_000 {
        if desk.ledger().pending == 0 {
            break;
        }
        let waiting = desk.deliveries();
        for (flags, value) in desk.delivered() {
            assert!(value >= last && flags & batch::REPLAY != 0, "{value} after {last}, flags {flags}");
            (last, got) = (value, got + 1);
        }
        for delivery in waiting {
            desk.answer(delivery, Verdict::Delivered);
        }
        desk.pass(20);
    }
    assert_eq!(got, 60_000);
}

#[test]
fn after_a_start_the_backlog_comes_first_as_replay_and_the_image_behind_it() {
    let mut desk = Desk::running(plant(2, Queue::default()));
    desk.down();
    for _ in 0..5 {
        desk.measure(&[0]);
    }
    desk.pass(100);
    let mut desk = desk.restart(plant(2, Queue::default()));
    desk.bring_up_sink();
    desk.pass(100);
    let records = desk.bench.records();
    let seen: Vec<(u32, u32, u64)> =
        records.iter().map(|record| (record.0 & !batch::TIMES, record.1, record.2)).collect();
    let backlog: Vec<_> = (1..=5).map(|value| (batch::REPLAY, 0, value)).collect();
    let image: Vec<_> = (0..4).map(|point| (batch::SNAPSHOT, point, 0)).collect();
    assert_eq!(seen, [backlog, image].concat());
}

#[test]
fn the_image_says_nothing_twice() {
    let mut desk = Desk::running(plant(2, Queue::default()));
    desk.down();
    desk.up();
    let image = desk.bench.records().len();
    desk.down();
    desk.file.full = true;
    desk.bench.out.clear();
    let mut desk = desk.restart(plant(2, Queue::default()));
    desk.bench.bring_up();
    desk.pass(100);
    let points: Vec<u32> = desk.bench.records().iter().map(|record| record.1).collect();
    let mut once = points.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(
        (image, once.len(), points.len()),
        (4, 4, 4),
        "read on this connection, not shown again: {points:?}"
    );
}

#[test]
fn an_image_is_in_no_ledger_and_never_written() {
    let mut desk = Desk::running(plant(2, Queue::default()));
    let before = desk.ledger();
    for _ in 0..10 {
        desk.down();
        desk.up();
        desk.pass(100);
    }
    assert_eq!(desk.ledger(), before);
    assert_eq!(desk.transactions.iter().map(rows).sum::<usize>(), 0);
    assert_eq!(desk.bench.records().iter().filter(|record| record.0 & batch::SNAPSHOT != 0).count(), 40);
}

#[test]
fn a_record_of_a_point_that_is_not_routed_any_more_keeps_its_name_and_unit() {
    let mut before = plant(1, Queue::default());
    before.devices[0].points[1].unit = "V".into();
    let mut desk = Desk::running(before.clone());
    desk.down();
    desk.measure(&[1]);
    desk.measure(&[0]);
    desk.pass(100);
    let mut after = before;
    after.devices[0].points[1].unit = "kV".into();
    let mut desk = desk.restart(after);
    desk.bench.bring_up();
    desk.pass(20);
    let announced = desk.bench.out.iter().find_map(|output| match output {
        Output::Submit { instance, request, body: Request::Points(points) } => {
            Some((*instance, *request, points.clone()))
        }
        _ => None,
    });
    let (instance, request, points) = announced.expect("an entry more of the point list");
    let point = &points.points[0];
    assert_eq!((points.replace, points.points.len()), (false, 1));
    assert_eq!((&*point.device, &*point.name, &*point.unit), ("d0", "p1", "V"));
    assert!(desk.deliveries().is_empty(), "not before the sink knows it");
    desk.bench.done(1, instance, request);
    let records = desk.bench.records();
    assert_eq!(
        records.iter().take(2).map(|record| (record.1, record.2)).collect::<Vec<_>>(),
        [(point.point, 1), (0, 2)]
    );
    assert!(desk.bench.core.point_name(point.point).is_none(), "nobody but the sink ever sees it");
    // Opened again, the sink gets it with the whole list.
    desk.bench.event(1, desk.sink, 0, Event::Stopped);
    desk.pass(1500);
    let opened = desk.bench.out.iter().find_map(|output| match output {
        Output::Open { plugin: 1, instance, .. } => Some(*instance),
        _ => None,
    });
    desk.bench.event(1, opened.unwrap(), 0, Event::Opened);
    let listed = desk.bench.out.iter().any(|output| {
        matches!(output, Output::Submit { body: Request::Points(list), .. }
            if list.replace && list.points.iter().any(|listed| listed.point == point.point))
    });
    assert!(listed);
}

#[test]
fn a_device_that_is_held_up_does_not_fill_the_window() {
    let queue = Queue { window: 40, in_flight: 8, ..Queue::default() };
    let mut desk = Desk::running(plant(2, queue));
    let (mut held, mut free) = (Vec::new(), 0);
    for _ in 0..300 {
        desk.measure(&[0]);
        desk.measure(&[2]);
        while let Some((first, samples)) = desk.take_delivery() {
            for (number, sample) in (first..).zip(samples.samples) {
                let ours = sample.point < 2;
                free += usize::from(!ours && Cause::of(sample.flags) == Cause::DataUpdate);
                desk.answer((number, 1), if ours { Verdict::Retry } else { Verdict::Delivered });
            }
        }
        desk.pass(20);
    }
    assert!(free >= 295, "the other device flows: {free}");
    assert!(desk.ledger().pending >= 295);
    for _ in 0..400 {
        let waiting = desk.deliveries();
        held.extend(desk.delivered().into_iter().map(|(_, value)| value));
        for delivery in waiting {
            desk.answer(delivery, Verdict::Delivered);
        }
        desk.pass(60);
    }
    let values: Vec<u64> = (1..600).step_by(2).collect();
    held.retain(|value| value % 2 == 1);
    held.dedup();
    assert_eq!(held, values, "and the held device comes in its order");
    assert_eq!(desk.ledger().pending, 0);
}

#[test]
fn a_refused_record_is_overtaken_and_keeps_its_row() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.measure(&[0]);
    desk.confirm(Verdict::Rejected);
    desk.measure(&[0]);
    assert_eq!(desk.delivered().len(), 1);
    desk.pass(100);
    let transaction = &desk.transactions[0];
    let parked = &transaction.settled[0];
    assert_eq!((parked.count, &parked.end), (1, &End::Parked("too large".into())));
    assert!(transaction.rows.iter().flat_map(|row| &row.entries).any(|entry| entry.number == parked.first));
    assert_eq!(desk.ledger().parked, [("too large".to_owned(), 1)].into());
}

#[test]
fn what_the_file_dropped_is_forgotten_and_not_counted_twice() {
    let mut desk = Desk::running(plant(1, Queue { flush_records: 1, ..Queue::default() }));
    desk.file.max_records = 3;
    let before = desk.ledger();
    for _ in 0..10 {
        desk.measure(&[0]);
        desk.serve();
    }
    let first = desk.deliveries()[0];
    let ledger = desk.ledger();
    assert_eq!(ledger.dropped, [("overflow".to_owned(), 7)].into());
    assert_eq!((ledger.accepted - before.accepted, ledger.pending), (10, 3));
    assert!(desk.bench.core.sinks()[0].overflow);
    desk.answer(first, Verdict::Delivered);
    desk.pass(1200);
    assert_eq!(desk.ledger(), ledger, "a confirmation that comes too late is late");
    desk.down();
    desk.bench.records();
    desk.up();
    assert_eq!(desk.delivered().len(), 3, "only what is left comes again");
}

#[test]
fn a_token_is_committed_when_the_transaction_is_on_disk() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.down();
    desk.measure_as(&[0, 1], 7);
    assert!(desk.bench.requests().is_empty());
    desk.pass(100);
    let answer = |desk: &mut Desk| match &desk.bench.requests()[..] {
        [(_, _, Request::Committed(committed))] => (committed.token, committed.ok),
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(&mut desk), (7, true), "no far side has it");
    desk.up();
    desk.bench.records();
    desk.measure_as(&[0], 8);
    desk.confirm(Verdict::Delivered);
    assert_eq!(answer(&mut desk), (8, true), "confirmed before");
    desk.measure_as(&[0], 9);
    desk.confirm(Verdict::Rejected);
    assert!(desk.bench.requests().is_empty());
    desk.pass(100);
    assert_eq!(answer(&mut desk), (9, true), "refused, and kept on disk");
    desk.file.full = true;
    desk.measure_as(&[0], 10);
    desk.pass(500);
    assert!(desk.bench.requests().is_empty(), "not on disk, not given up");
}

#[test]
fn a_token_of_a_record_that_is_dropped_is_not_committed() {
    let mut desk =
        Desk::running(plant(1, Queue { window: 1, in_flight: 1, flush_records: 1, ..Queue::default() }));
    desk.down();
    desk.file.full = true;
    for _ in 0..60 {
        desk.measure(&[0]);
        desk.serve();
    }
    desk.measure_as(&[0], 7);
    let requests = desk.bench.requests();
    assert!(matches!(&requests[0].2, Request::Committed(committed) if !committed.ok), "{requests:?}");
}

#[test]
fn with_live_first_live_records_go_at_once_and_the_backlog_beside_them() {
    let queue = Queue { order: Order::LiveFirst, in_flight: 10, ..Queue::default() };
    let mut desk = Desk::running(plant(1, queue));
    desk.down();
    for _ in 0..50 {
        desk.measure(&[0]);
    }
    desk.pass(100);
    desk.up();
    let live = desk.measure(&[0]) as u64;
    let (mut order, mut mixed) = (Vec::new(), false);
    for _ in 0..60 {
        for output in &desk.bench.out {
            if let Output::Deliver { flags, samples, .. } = output {
                let replay = flags & batch::REPLAY != 0;
                let measured = samples.samples.iter();
                let mut measured = measured.filter(|sample| Cause::of(sample.flags) == Cause::DataUpdate);
                mixed |= measured.any(|sample| (sample.bits < live) != replay);
            }
        }
        let waiting = desk.deliveries();
        order.extend(desk.delivered());
        for delivery in waiting {
            desk.answer(delivery, Verdict::Delivered);
        }
        desk.pass(20);
    }
    assert!(!mixed, "never mixed in one delivery");
    let at = order.iter().position(|(_, value)| *value == live).unwrap();
    assert!(at <= 10, "the live record does not wait for fifty others: {at}");
    let backlog: Vec<u64> =
        order.iter().filter(|(flags, _)| flags & batch::REPLAY != 0).map(|(_, value)| *value).collect();
    assert_eq!(backlog, (1..=50).collect::<Vec<_>>());
}

#[test]
fn replay_rate_limits_the_backlog_and_not_what_is_live() {
    let queue = Queue { replay_rate: Some(100), ..Queue::default() };
    let mut desk = Desk::running(plant(1, queue));
    desk.down();
    for _ in 0..300 {
        desk.measure(&[0]);
    }
    desk.pass(100);
    desk.up();
    let mut count = 0;
    for _ in 0..50 {
        let waiting = desk.deliveries();
        count += desk.delivered().len();
        for delivery in waiting {
            desk.answer(delivery, Verdict::Delivered);
        }
        desk.pass(20);
    }
    assert!((90..=130).contains(&count), "about a hundred in a second: {count}");
}

#[test]
fn a_sink_whose_plugin_failed_stores_its_records() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.bench.step(Input::PluginFailed { plugin: 1, reason: "the file is missing".into() });
    for _ in 0..10 {
        desk.measure(&[0]);
    }
    desk.pass(100);
    assert_eq!((desk.ledger().pending, desk.unwritten()), (10, 0));
}

#[test]
fn a_point_whose_unit_becomes_known_is_introduced_again() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.down();
    desk.measure(&[1]);
    desk.pass(100);
    let facts = busbar_contract::event::Metadata { points: vec![(1, serde_json::json!({ "unit": "A" }))] };
    desk.bench.event(0, 1, 0, Event::Metadata(facts));
    desk.measure(&[1]);
    desk.pass(100);
    let names = desk.transactions.iter().flat_map(|transaction| &transaction.names);
    let units: Vec<_> = names.filter(|(point, _)| *point == 1).map(|(_, name)| name.unit.as_str()).collect();
    assert_eq!(units, ["A"], "its first name was told before");
}

/// A write or a sync that never returns: a clear state, delivery goes on, memory is bounded, what does not fit is counted,
/// and the stop is not held up.
#[test]
fn a_disk_that_does_not_answer_is_a_state_and_stops_nothing() {
    let queue = Queue { window: 10, in_flight: 5, flush_records: 1, ..Queue::default() };
    let mut desk = Desk::running(plant(1, queue));
    let before = desk.ledger();
    desk.measure(&[0]);
    let hang = |desk: &mut Desk, ms: u64| (0..ms / 20).for_each(|_| desk.bench.pass(20));
    hang(&mut desk, 9_000);
    assert_eq!(desk.reason(), "", "some syncs take long");
    hang(&mut desk, 3_000);
    assert!(desk.reason().starts_with("the disk does not answer since 20"), "{}", desk.reason());
    let said = |desk: &Desk, text: &str| {
        let lines = desk.bench.out.iter();
        lines.filter(|output| matches!(output, Output::Log(line) if line.message.contains(text))).count()
    };
    assert_eq!(said(&desk, "does not answer"), 1);
    assert!(desk.bench.core.ready(true).unwrap_err().contains("does not answer"));
    // Delivery and confirmation go on from memory.
    desk.confirm(Verdict::Delivered);
    for _ in 0..5 {
        desk.measure(&[0]);
        hang(&mut desk, 40);
        assert_eq!(desk.deliveries().len(), 1);
        desk.confirm(Verdict::Delivered);
    }
    // The far side is gone too: memory fills, what does not fit is dropped and seen.
    desk.down();
    for _ in 0..100 {
        desk.measure(&[0]);
        hang(&mut desk, 20);
    }
    let ledger = desk.ledger();
    assert!(ledger.is_balanced(), "{ledger:?}");
    let slow = ledger.dropped["disk_slow"];
    assert!(slow >= 50, "{ledger:?}");
    assert_eq!(ledger.accepted - before.accepted, 106);
    assert_eq!(ledger.pending + slow, 100);
    // It answers again: everything in memory gets its row.
    desk.pass(1_000);
    assert_eq!(desk.reason(), "");
    assert_eq!(said(&desk, "answers again, after"), 1);
    let ledger = desk.ledger();
    assert_eq!((ledger.pending, ledger.dropped["disk_slow"]), (100 - slow, slow));
    assert_eq!(desk.file.ledger(), &ledger);
}

#[test]
fn a_silent_disk_does_not_hold_up_the_stop() {
    let mut desk = Desk::running(plant(1, Queue::default()));
    desk.down();
    desk.measure(&[0]);
    (0..600).for_each(|_| desk.bench.pass(20));
    desk.bench.step(Input::Shutdown);
    desk.bench.event(0, 1, 0, Event::Stopped);
    desk.bench.pass(20);
    desk.bench.event(1, desk.sink, 0, Event::Stopped);
    desk.bench.pass(20);
    let said =
        |output: &Output| matches!(output, Output::Log(line) if line.message.contains("lost with this stop"));
    assert!(desk.bench.out.iter().any(said));
    assert!(desk.bench.core.is_stopped());
}

#[test]
fn it_is_ready_when_the_queue_files_are_open_or_it_is_known_why_not() {
    let mut desk = Desk::new(plant(1, Queue::default()));
    desk.bench.bring_up();
    desk.bench.pass(100);
    let refused = desk.bench.core.ready(false).unwrap_err();
    assert!(refused.starts_with("queue of sink s: "), "{refused}");
    desk.serve();
    assert_eq!(desk.bench.core.ready(false), Ok(()));
    let mut desk = Desk::new(plant(1, Queue::default()));
    desk.bench.bring_up();
    desk.bench.pass(20);
    desk.bench.step(Input::JournalOpened { sink: 0, result: Err("permission denied".into()) });
    assert_eq!(desk.bench.core.ready(false), Ok(()));
    assert!(desk.bench.core.ready(true).unwrap_err().contains("permission denied"));
}

/// "Never stored" is never the silent answer to a question whose answer was lost.
#[test]
fn stored_state_that_is_lost_is_told() {
    use busbar_contract::event::StateEntry;
    use busbar_core::output::StoreAction;
    let mut desk = Desk::running(plant(1, Queue::default()));
    let entry = |value: Option<&str>| StateEntry {
        device: Some(0),
        key: "watermark".into(),
        value: value.map(Into::into),
    };
    let asked = |desk: &mut Desk| {
        let found = desk.bench.take().into_iter().find_map(|output| match output {
            Output::Store { store, action, .. } => Some((store, action)),
            _ => None,
        });
        found.unwrap()
    };
    desk.bench.event(0, 1, 7, Event::StateGet(entry(None)));
    let (store, action) = asked(&mut desk);
    assert_eq!(action, StoreAction::Get);
    desk.bench.step(Input::Stored { store, result: Err("may have been lost: damaged page".into()) });
    let lines = desk.bench.out.iter().filter_map(|output| match output {
        Output::Log(line) => Some(line.message.as_str()),
        _ => None,
    });
    assert!(lines.clone().any(|line| line.contains("watermark") && line.contains("damaged page")));
    let name = desk.bench.core.devices()[0].name.to_owned();
    let owner = format!("device/{name}");
    assert_eq!(
        desk.bench.core.lost_state(&owner).collect::<Vec<_>>(),
        [("watermark", "may have been lost: damaged page")]
    );
    let metrics = desk.bench.core.metrics();
    let counted = metrics.iter().find(|metric| metric.name == "busbar_state_lost_total").unwrap();
    assert_eq!(counted.value, busbar_core::metrics::MetricValue::Counter(1.0));
    // Stored anew: nothing is missing any more.
    desk.bench.event(0, 1, 8, Event::StatePut(entry(Some("00"))));
    let (store, _) = asked(&mut desk);
    desk.bench.step(Input::Stored { store, result: Ok(None) });
    assert_eq!(desk.bench.core.lost_state(&owner).count(), 0);
}

#[test]
fn an_orderly_stop_waits_for_the_last_transaction_and_not_for_ever() {
    for disk_hangs in [false, true] {
        let mut desk = Desk::running(plant(1, Queue::default()));
        desk.down();
        desk.measure(&[0]);
        desk.bench.step(Input::Shutdown);
        desk.bench.event(0, 1, 0, Event::Stopped);
        desk.bench.pass(20);
        desk.bench.event(1, desk.sink, 0, Event::Stopped);
        assert!(!desk.bench.core.is_stopped(), "its last records are not on disk");
        if disk_hangs {
            desk.bench.pass(3100);
            let said = desk.bench.out.iter().any(
                |output| matches!(output, Output::Log(line) if line.message.contains("lost with this stop")),
            );
            assert!(said);
        } else {
            desk.serve();
            assert!(desk.file.ledger().pending >= 1, "{:?}", desk.file.ledger());
        }
        assert!(desk.bench.core.is_stopped());
    }
}
