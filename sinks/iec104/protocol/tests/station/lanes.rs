//! Events: kept, in order, once where nothing breaks and again where something did.

use std::time::Duration;

use busbar_iec104::apci::{Seq, Unnumbered, information, supervision};
use busbar_iec104::asdu::{Element, Qds, Reason, Stamp, TypeId};
use busbar_iec104::link::Input;
use busbar_iec104::station::{Config, ConnectionId, Event, Output, Point};

use crate::bench::{Bench, asdu, config, good, objects, point};

fn stations(lanes: usize) -> Config {
    let points = (1..=200).map(|ioa| point(ioa, TypeId::M_ME_TF_1)).collect();
    Config { points, ..config(lanes) }
}

fn number(n: u64) -> Element {
    Element::Float(n as f32, Qds::GOOD)
}

fn numbers(asdus: &[Vec<u8>]) -> Vec<u64> {
    objects(asdus)
        .into_iter()
        .map(|(_, _, o)| match o.element {
            Element::Float(n, _) => n as u64,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn confirmed(bench: &mut Bench, lane: usize) -> Vec<u64> {
    let host = std::mem::take(&mut bench.host);
    host.iter()
        .filter_map(|output| match output {
            Output::Confirmed { lane: of, record } if *of == lane => Some(*record),
            _ => None,
        })
        .collect()
}

#[test]
fn events_of_a_batch_share_asdus() {
    let mut bench = Bench::started(stations(1));
    for n in 0..100 {
        bench.event(0, n, n as usize, number(n));
    }
    bench.flush();
    let asdus = bench.take(1);
    assert_eq!(asdus.len(), 7, "16 floats with time in each");
    assert_eq!(numbers(&asdus), (0..100).collect::<Vec<_>>());
    assert_eq!(confirmed(&mut bench, 0).last(), Some(&99));
    assert_eq!(bench.station.pending(0), 0);
}

#[test]
fn order_holds_across_types_and_causes() {
    let mut config = config(1);
    config.points = vec![
        point(1, TypeId::M_SP_TB_1),
        point(2, TypeId::M_ME_TF_1),
        Point { common_address: 2, ..point(3, TypeId::M_SP_TB_1) },
    ];
    let mut bench = Bench::started(config);
    let order = [0, 0, 1, 0, 2, 0, 1, 1];
    for (record, place) in order.into_iter().enumerate() {
        let element = if place == 1 { number(0) } else { good(true) };
        bench.event(0, record as u64, place, element);
    }
    bench.flush();
    let ioas: Vec<u32> = objects(&bench.take(1)).into_iter().map(|(_, _, o)| o.ioa).collect();
    assert_eq!(ioas, [1, 1, 2, 1, 3, 1, 2, 2]);
}

#[test]
fn values_made_for_a_test_travel_alone() {
    let mut bench = Bench::started(stations(1));
    for (record, test) in [(0, false), (1, false), (2, true), (3, true), (4, false)] {
        let stamp = bench.now().utc;
        let event =
            Event { record, point: 0, element: number(record), stamp, reason: Reason::SPONTANEOUS, test };
        bench.station.event(0, event, &mut Vec::new()).unwrap();
    }
    for place in [3, 4] {
        bench.station.update(place, number(9), true).unwrap();
    }
    bench.flush();
    let heads: Vec<_> = bench.take(1).iter().map(|asdu| (asdu[1], asdu[2])).collect();
    assert_eq!(heads, [(2, 3), (2, 0x83), (1, 3)]);
    let gi = asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, 1, 0, Element::Interrogation(20));
    let heads: Vec<_> = bench.ask(1, &gi).iter().map(|asdu| (asdu[1], asdu[2])).collect();
    assert_eq!(heads[..4], [(1, 7), (3, 20), (2, 0x80 | 20), (30, 20)]);
}

#[test]
fn nothing_is_confirmed_before_the_master_acknowledged() {
    let mut bench = Bench::new(stations(1));
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    for n in 0..40 {
        bench.event(0, n, 0, number(n));
    }
    bench.flush();
    assert_eq!(confirmed(&mut bench, 0), [] as [u64; 0]);
    assert_eq!(bench.station.pending(0), 40);
    bench.acknowledge(1);
    assert_eq!(confirmed(&mut bench, 0), [15, 31, 39]);
}

#[test]
fn a_record_with_several_objects_is_confirmed_with_the_last() {
    let mut bench = Bench::new(stations(1));
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    for n in 0..20 {
        bench.event(0, 5, n, number(1));
    }
    bench.flush();
    bench.raw(1, &supervision(Seq::new(1)));
    assert_eq!(confirmed(&mut bench, 0), [] as [u64; 0], "16 of 20");
    bench.acknowledge(1);
    assert_eq!(confirmed(&mut bench, 0), [5]);
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order() {
    let mut bench = Bench::new(stations(1));
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    for n in 0..50 {
        bench.event(0, n, 0, number(n));
    }
    bench.flush();
    bench.raw(1, &supervision(Seq::new(1)));
    bench.cut(1);
    assert_eq!(confirmed(&mut bench, 0), [15]);
    for n in 50..60 {
        bench.event(0, n, 0, number(n));
    }
    bench.open(2, 0);
    assert_eq!(bench.take(2).len(), 0, "nothing before STARTDT");
    bench.start(2);
    assert_eq!(numbers(&bench.take(2)), (16..60).collect::<Vec<_>>());
    assert_eq!(confirmed(&mut bench, 0).last(), Some(&59));
}

#[test]
fn stopdt_and_startdt_lose_and_repeat_nothing() {
    let mut bench = Bench::started(stations(1));
    bench.event(0, 0, 0, number(0));
    bench.flush();
    bench.link(1, Input::Stop);
    bench.event(0, 1, 0, number(1));
    bench.flush();
    assert_eq!(numbers(&bench.take(1)), [0]);
    assert_eq!(bench.station.started(0), None);
    bench.start(1);
    assert_eq!(numbers(&bench.take(1)), [1]);
}

#[test]
fn of_a_group_one_connection_is_started() {
    let mut bench = Bench::new(stations(1));
    bench.open_with(1, 0, 30_000);
    bench.open(2, 0);
    bench.start(1);
    for n in 0..20 {
        bench.event(0, n, 0, number(n));
    }
    bench.flush();
    assert_eq!(numbers(&bench.take(1)).len(), 20);
    assert_eq!(bench.take(2).len(), 0, "the other stands by");
    bench.host.clear();
    bench.start(2);
    let told = [
        Output::Stopped { connection: ConnectionId(1), lane: 0 },
        Output::Started { connection: ConnectionId(2), lane: 0 },
    ];
    assert_eq!(bench.host[..2], told);
    assert_eq!(numbers(&bench.take(2)), (0..20).collect::<Vec<_>>(), "again: nobody acknowledged them");
    assert_eq!(confirmed(&mut bench, 0).last(), Some(&19));
    bench.event(0, 20, 0, number(20));
    bench.flush();
    bench.acknowledge(1);
    assert_eq!((numbers(&bench.take(2)), bench.take(1).len()), (vec![20], 0));
    assert!(bench.masters[&1].open, "a late acknowledgement is no reason to close");
    // And back, without the first connection having been made anew.
    bench.link(1, Input::Stop);
    bench.start(1);
    bench.event(0, 21, 0, number(21));
    bench.flush();
    assert_eq!((numbers(&bench.take(1)), bench.take(2).len()), (vec![21], 0));
}

#[test]
fn what_was_asked_before_a_stop_is_not_answered_after_it() {
    let mut bench = Bench::new(stations(1));
    for n in 0..200 {
        bench.event(0, n, 0, number(n));
    }
    let now = bench.now();
    for id in [1, 2] {
        assert!(bench.station.opened(now, ConnectionId(id), 0));
    }
    let start = Unnumbered::StartAct.frame().to_vec();
    let test = asdu(TypeId::C_TS_NA_1, Reason::ACTIVATION, 1, 0, Element::Test(0x55aa));
    let gi = asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, 1, 0, Element::Interrogation(20));
    let asked = |number, asdu: &[u8]| information(Seq::new(number), Seq::new(0), asdu).unwrap();
    let mut out = Vec::new();
    for (id, frame) in [
        (1, start.clone()),
        // The window is full of events, so the answers wait.
        (1, asked(0, &test)),
        (1, asked(1, &gi)),
        (2, start.clone()),
        (1, start),
        (1, supervision(Seq::new(12)).to_vec()),
    ] {
        bench.station.received(now, ConnectionId(id), &frame, &mut out);
    }
    assert_eq!(bench.station.started(0), Some(ConnectionId(1)));
    let types: Vec<u8> = out
        .iter()
        .filter_map(|output| match output {
            Output::Transmit { connection: ConnectionId(1), bytes } => bytes.get(6).copied(),
            _ => None,
        })
        .collect();
    assert_eq!(types, [36; 24], "events, and again");
}

#[test]
fn masters_are_independent() {
    let mut bench = Bench::new(stations(2));
    bench.open(1, 0);
    bench.open_with(2, 1, 30_000);
    bench.start(1);
    bench.start(2);
    for n in 0..400 {
        for lane in 0..2 {
            bench.event(lane, n, 0, number(n));
        }
        bench.flush();
    }
    assert_eq!(
        numbers(&bench.take(1)),
        (0..400).collect::<Vec<_>>(),
        "one that does not acknowledge delays nobody"
    );
    assert_eq!((bench.station.pending(0), bench.station.pending(1)), (0, 400));
}

#[test]
fn the_oldest_event_goes_when_the_buffer_is_full() {
    let mut bench = Bench::new(Config { event_buffer: 10, ..stations(1) });
    for n in 0..25 {
        bench.event(0, n, 0, number(n));
    }
    assert_eq!((bench.station.dropped(0), bench.station.pending(0), bench.station.room(0)), (15, 10, 0));
    let dropped: Vec<_> = bench.host.drain(..).collect();
    assert_eq!(dropped.len(), 15);
    assert_eq!(dropped[0], Output::Dropped { lane: 0, record: 0 });
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    assert_eq!(numbers(&bench.take(1)), (15..25).collect::<Vec<_>>());
    // All of it is under way now: what is under way is not taken back.
    bench.event(0, 25, 0, number(25));
    assert!(bench.host.contains(&Output::Dropped { lane: 0, record: 25 }));
    bench.acknowledge(1);
    assert_eq!(bench.station.pending(0), 0);
}

#[test]
fn a_connection_that_stands_by_lives_past_t3() {
    let mut bench = Bench::new(stations(1));
    bench.open(1, 0);
    bench.open(2, 0);
    bench.start(1);
    for _ in 0..100 {
        bench.pass(Duration::from_secs(5));
    }
    assert!(bench.masters.values().all(|master| master.open));
    bench.start(2);
    assert_eq!(bench.station.started(0), Some(ConnectionId(2)));
}

#[test]
fn a_master_that_does_not_acknowledge_is_closed_at_t1_and_loses_nothing() {
    let mut bench = Bench::new(stations(1));
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    bench.event(0, 0, 0, number(0));
    bench.flush();
    bench.pass(Duration::from_secs(14));
    assert!(bench.masters[&1].open);
    bench.pass(Duration::from_secs(1));
    assert!(!bench.masters[&1].open);
    assert_eq!((bench.station.pending(0), bench.station.started(0)), (1, None));
}

#[test]
fn time_quality_is_the_stamps() {
    let mut bench = Bench::started(stations(1));
    let stamp = Stamp { invalid: true, ..bench.now().utc };
    let event =
        Event { record: 1, point: 0, element: number(1), stamp, reason: Reason::RETURN_REMOTE, test: true };
    bench.station.event(0, event, &mut Vec::new()).unwrap();
    let wrong = Event { element: good(true), ..event };
    assert!(bench.station.event(0, wrong, &mut Vec::new()).is_err(), "not the point's type");
    assert!(bench.station.event(0, Event { point: 999, ..event }, &mut Vec::new()).is_err());
    assert!(bench.station.event(9, event, &mut Vec::new()).is_err());
    bench.flush();
    let asdus = bench.take(1);
    assert_eq!(asdus.len(), 1);
    assert_eq!(asdus[0][2], 0x80 | 11, "test bit and cause");
    assert_eq!(asdus[0][16], 59 | 0x80, "IV of the minute");
}
