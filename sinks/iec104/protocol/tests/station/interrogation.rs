//! Interrogations of the station, of groups, and of counters.

use busbar_iec104::asdu::{
    Asdu, BROADCAST, Cause, Counter, Element, Freeze, Qcc, Qds, Reason, TypeId, mirror,
};
use busbar_iec104::station::{Answer, Config, Point};

use crate::bench::{Bench, answered, asdu, config, good, objects, point};

fn interrogation(ca: u16, qoi: u8) -> Vec<u8> {
    asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, ca, 0, Element::Interrogation(qoi))
}

fn counters(request: u8, freeze: Freeze) -> Vec<u8> {
    let element = Element::CounterInterrogation(Qcc { request, freeze });
    asdu(TypeId::C_CI_NA_1, Reason::ACTIVATION, 1, 0, element)
}

const MONITOR: [TypeId; 7] = [
    TypeId::M_SP_TB_1,
    TypeId::M_DP_TB_1,
    TypeId::M_ST_TB_1,
    TypeId::M_BO_TB_1,
    TypeId::M_ME_TD_1,
    TypeId::M_ME_TE_1,
    TypeId::M_ME_TF_1,
];

fn thousand_each() -> Config {
    let mut config = config(1);
    for (block, type_id) in MONITOR.into_iter().enumerate() {
        config.points.extend((1..=1_000).map(|n| point(block as u32 * 10_000 + n, type_id)));
    }
    config
}

#[test]
fn a_thousand_points_of_each_type_over_as_many_asdus_as_needed() {
    for sequences in [false, true] {
        let mut bench = Bench::started(Config { sequences, ..thousand_each() });
        let request = interrogation(1, 20);
        let answers = bench.ask(1, &request);
        assert_eq!(answers.first(), Some(&answered(&request, Reason::ACTIVATION_CON, false)));
        assert_eq!(answers.last(), Some(&answered(&request, Reason::ACTIVATION_TERM, false)));
        let data = objects(&answers[1..answers.len() - 1]);
        assert_eq!(data.len(), 7_000);
        for (index, (type_id, reason, object)) in data.into_iter().enumerate() {
            let (block, number) = (index / 1_000, index as u32 % 1_000 + 1);
            assert_eq!((type_id, reason), (MONITOR[block].without_time(), Reason::INTERROGATED));
            assert_eq!(object.ioa, block as u32 * 10_000 + number);
        }
        let sequence = answers[1..answers.len() - 1].iter().all(|a| Asdu::decode(a).unwrap().header.sequence);
        assert_eq!(sequence, sequences);
    }
}

#[test]
fn points_without_a_value_are_invalid_and_not_topical() {
    let mut bench = Bench::started(Config { points: vec![point(1, TypeId::M_SP_TB_1)], ..config(1) });
    let shown = |bench: &mut Bench| objects(&bench.ask(1, &interrogation(1, 20))[1..2])[0].2.element;
    let qds = Qds::INVALID.with(Qds::NOT_TOPICAL);
    assert_eq!(shown(&mut bench), Element::Single(false, qds));
    bench.update(0, good(true));
    assert_eq!(shown(&mut bench), good(true));
    bench.update(0, Element::Single(true, qds));
    assert_eq!(shown(&mut bench), Element::Single(true, qds), "an outage keeps the value");
    bench.station.suppress(0);
    assert_eq!(bench.ask(1, &interrogation(1, 20)).len(), 2, "confirmation and termination alone");
    bench.update(0, good(false));
    assert_eq!(shown(&mut bench), good(false));
}

#[test]
fn groups_answer_for_themselves() {
    let mut config = config(1);
    config.points =
        (1..=40).map(|n| Point { group: Some((n % 16 + 1) as u8), ..point(n, TypeId::M_SP_NA_1) }).collect();
    config.points.retain(|point| point.group != Some(9));
    let mut bench = Bench::started(config.clone());
    for group in 1..=16_u8 {
        let request = interrogation(1, 20 + group);
        let answers = bench.ask(1, &request);
        let expected: Vec<u32> =
            config.points.iter().filter(|p| p.group == Some(group)).map(|p| p.ioa).collect();
        if group == 9 {
            assert_eq!(answers, [answered(&request, Reason::ACTIVATION_CON, true)], "nobody is in it");
            continue;
        }
        let data = objects(&answers[1..answers.len() - 1]);
        assert!(data.iter().all(|(_, reason, _)| reason.0 == 20 + group));
        assert_eq!(data.iter().map(|(_, _, o)| o.ioa).collect::<Vec<_>>(), expected);
    }
    for qoi in [0, 19, 37, 255] {
        let request = interrogation(1, qoi);
        assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
    }
}

#[test]
fn a_broadcast_is_answered_for_every_common_address() {
    let mut config = config(1);
    config.points =
        vec![point(1, TypeId::M_SP_NA_1), Point { common_address: 7, ..point(1, TypeId::M_DP_NA_1) }];
    let mut bench = Bench::started(config);
    let answers = bench.ask(1, &interrogation(BROADCAST, 20));
    let heads: Vec<_> = answers
        .iter()
        .map(|a| Asdu::decode(a).unwrap().header)
        .map(|h| (h.type_id.0, h.cause.reason.0, h.common_address))
        .collect();
    let expected = [(100, 7, 1), (100, 7, 7), (1, 20, 1), (100, 10, 1), (3, 20, 7), (100, 10, 7)];
    let mut sorted = heads.clone();
    sorted.sort_by_key(|(_, reason, ca)| (*ca, *reason != 7, *reason == 10));
    let mut wanted = expected.to_vec();
    wanted.sort_by_key(|(_, reason, ca)| (*ca, *reason != 7, *reason == 10));
    assert_eq!(sorted, wanted);
    assert_eq!(heads.iter().filter(|h| h.1 == 10).count(), 2);
}

#[test]
fn events_go_out_during_an_interrogation_and_it_goes_on() {
    let mut bench = Bench::new(thousand_each());
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    bench.send(1, &interrogation(1, 20));
    let mut seen = Vec::new();
    for round in 0..400_u64 {
        bench.event(0, round, 999, good(round % 2 == 1));
        bench.flush();
        bench.acknowledge(1);
        seen.extend(bench.take(1));
    }
    assert_eq!(seen.last().map(|a| a[0]), Some(30), "events after the interrogation");
    let data = objects(&seen);
    let spontaneous: Vec<Element> = data
        .iter()
        .filter(|(_, reason, _)| *reason == Reason::SPONTANEOUS)
        .map(|(_, _, o)| o.element)
        .collect();
    assert_eq!(spontaneous, (0..400).map(|n| good(n % 2 == 1)).collect::<Vec<_>>(), "all, in order");
    let end = seen.iter().position(|a| a[0] == 100 && a[2] == 10).expect("the interrogation ends");
    assert!(seen[..end].iter().any(|a| a[0] == 30), "events in between");
    assert_eq!(data.iter().filter(|(_, reason, _)| *reason == Reason::INTERROGATED).count(), 7_000);
    // The last point of the first block: its interrogated value is not older than the events before it.
    let place =
        data.iter().position(|(_, reason, o)| o.ioa == 1_000 && *reason == Reason::INTERROGATED).unwrap();
    let before = data[..place].iter().rev().find(|(_, reason, _)| *reason == Reason::SPONTANEOUS);
    let after = data[place..].iter().find(|(_, reason, _)| *reason == Reason::SPONTANEOUS).unwrap();
    let shown = data[place].2.element;
    assert!(shown == after.2.element || before.is_none_or(|(_, _, o)| shown == o.element));
}

#[test]
fn no_number_of_events_starves_an_interrogation() {
    let mut bench = Bench::new(thousand_each());
    for record in 0..9_000 {
        bench.event(0, record, 0, good(record % 2 == 1));
    }
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    let mut seen = bench.ask(1, &interrogation(1, 20));
    while bench.station.pending(0) > 0 {
        bench.acknowledge(1);
        seen.extend(bench.take(1));
    }
    let end = seen.iter().position(|a| a[0] == 100 && a[2] == 10).expect("the interrogation ends");
    let events = seen.iter().skip(end).filter(|a| a[0] == 30).count();
    assert!(events > 100, "long before the events do: {events}");
}

#[test]
fn an_interrogation_runs_once_and_can_be_ended() {
    let mut bench = Bench::new(thousand_each());
    bench.open_with(1, 0, 30_000);
    bench.start(1);
    let request = interrogation(1, 20);
    bench.send(1, &request);
    assert_eq!(bench.take(1).len(), 12, "the window is full");
    let answers = bench.ask(1, &request);
    assert_eq!(answers[0], answered(&request, Reason::ACTIVATION_CON, true), "it runs already");
    assert_eq!(answers.len(), 12, "and goes on");
    let end = answered(&request, Reason::DEACTIVATION, false);
    assert_eq!(
        bench.ask(1, &end),
        [answered(&request, Reason::DEACTIVATION_CON, false)],
        "nothing of it follows"
    );
    bench.acknowledge(1);
    assert_eq!(bench.ask(1, &end), [answered(&request, Reason::DEACTIVATION_CON, true)]);
}

#[test]
fn counters_freeze_in_the_image() {
    let mut config = config(1);
    config.points = vec![
        Point { group: Some(1), ..point(1, TypeId::M_IT_TB_1) },
        Point { group: Some(2), ..point(2, TypeId::M_IT_NA_1) },
        point(3, TypeId::M_SP_NA_1),
    ];
    config.counter_reset = Answer::Confirm;
    let mut bench = Bench::started(config);
    let reading = |value| Counter { value, ..Counter::default() };
    bench.update(0, Element::Counter(Counter { carry: true, ..reading(100) }));
    bench.update(1, Element::Counter(reading(200)));
    let read = |bench: &mut Bench, group| {
        let answers = bench.ask(1, &counters(group, Freeze::Read));
        let data = objects(&answers[1..answers.len() - 1]);
        assert!(data.iter().all(|(t, reason, _)| *t == TypeId::M_IT_NA_1 && reason.0 == 37 + group % 5));
        data.into_iter()
            .map(|(_, _, o)| match o.element {
                Element::Counter(c) => c,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(read(&mut bench, 5), [Counter { carry: true, ..reading(100) }, reading(200)]);
    let freeze = counters(5, Freeze::Freeze);
    let confirmed =
        [answered(&freeze, Reason::ACTIVATION_CON, false), answered(&freeze, Reason::ACTIVATION_TERM, false)];
    assert_eq!(bench.ask(1, &freeze), confirmed);
    bench.update(0, Element::Counter(reading(150)));
    assert_eq!(read(&mut bench, 1), [Counter { sequence: 1, carry: true, ..reading(100) }], "frozen");
    bench.ask(1, &counters(1, Freeze::FreezeReset));
    assert_eq!(read(&mut bench, 1), [Counter { sequence: 2, ..reading(150) }], "carry is told once");
    bench.update(0, Element::Counter(reading(175)));
    bench.ask(1, &counters(1, Freeze::Freeze));
    assert_eq!(read(&mut bench, 1), [Counter { sequence: 3, adjusted: true, ..reading(25) }]);
    assert_eq!(read(&mut bench, 2), [Counter { sequence: 1, ..reading(200) }]);
    // A station interrogation has no counters, a group without any is refused.
    let station = bench.ask(1, &interrogation(1, 20));
    assert_eq!(objects(&station[1..station.len() - 1]).len(), 1);
    let request = counters(3, Freeze::Read);
    assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
    let request = counters(0, Freeze::Read);
    assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
}

#[test]
fn counters_are_not_set_to_zero_unless_allowed() {
    let mut bench = Bench::started(Config { points: vec![point(1, TypeId::M_IT_NA_1)], ..config(1) });
    for freeze in [Freeze::Reset, Freeze::FreezeReset] {
        let request = counters(5, freeze);
        assert_eq!(bench.ask(1, &request), [answered(&request, Reason::ACTIVATION_CON, true)]);
    }
}

#[test]
fn a_test_interrogation_stays_one() {
    let mut bench = Bench::started(Config { points: vec![point(1, TypeId::M_SP_NA_1)], ..config(1) });
    let mut request = interrogation(1, 20);
    request[2] |= 0x80;
    let answers = bench.ask(1, &request);
    assert_eq!(answers[0], mirror(&request, Reason::ACTIVATION_CON, false));
    for answer in &answers {
        let Cause { test, originator, .. } = Asdu::decode(answer).unwrap().header.cause;
        assert_eq!((test, originator), (true, 7), "{answer:02x?}");
    }
}
