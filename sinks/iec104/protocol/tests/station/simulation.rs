//! Seeded histories: masters that come, go, switch over and do not acknowledge; a host that queues events; hostile bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use busbar_iec104::asdu::{Element, Qds, Reason, TypeId};
use busbar_iec104::station::{Config, ConnectionId, Output, Progress};

use crate::bench::{Bench, asdu, command, config, objects, point};
use crate::common::Random;

/// What a master saw of one lane, over all connections.
#[derive(Default)]
struct Seen {
    /// The newest number that came.
    newest: Option<u32>,
    confirmed: Option<u64>,
    queued: u64,
}

fn station() -> Config {
    let mut config = config(2);
    config.points = (1..=50).map(|ioa| point(ioa, TypeId::M_BO_TB_1)).collect();
    config.commands = vec![command(1, TypeId::C_SC_NA_1)];
    config.event_buffer = 100_000;
    config
}

fn look(bench: &mut Bench, seen: &mut BTreeMap<usize, Seen>, lanes: &BTreeMap<u64, usize>) {
    for (id, lane) in lanes {
        if !bench.masters.contains_key(id) {
            continue;
        }
        let seen = seen.entry(*lane).or_default();
        for (type_id, reason, object) in objects(&bench.take(*id)) {
            let (TypeId::M_BO_TB_1, Reason::SPONTANEOUS, Element::Bits(number, _)) =
                (type_id, reason, object.element)
            else {
                continue;
            };
            // Nothing is left out; what comes again is what was not confirmed.
            assert!(number <= seen.newest.map_or(0, |newest| newest + 1), "{number} after {:?}", seen.newest);
            assert!(
                seen.confirmed.is_none_or(|confirmed| u64::from(number) > confirmed),
                "confirmed came again"
            );
            seen.newest = seen.newest.max(Some(number));
        }
    }
    for output in std::mem::take(&mut bench.host) {
        match output {
            Output::Confirmed { lane, record } => {
                let seen = seen.entry(lane).or_default();
                assert!(seen.confirmed.is_none_or(|before| record > before));
                assert!(
                    seen.newest.is_some_and(|newest| record <= u64::from(newest)),
                    "confirmed, never seen"
                );
                seen.confirmed = Some(record);
            }
            Output::Dropped { .. } => panic!("the buffer is large enough"),
            Output::Close { connection, .. } => drop(bench.masters.remove(&connection.0)),
            _ => {}
        }
    }
}

#[test]
fn no_history_loses_or_reorders_an_event() {
    let mut repeated = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut bench = Bench::new(station());
        let (mut seen, mut lanes, mut next) = (BTreeMap::<usize, Seen>::new(), BTreeMap::new(), 1_u64);
        for _ in 0..400 {
            let ids: Vec<u64> = bench.masters.keys().copied().collect();
            let any = ids.get(random.below(ids.len().max(1) as u64) as usize).copied();
            match (random.below(20), any) {
                (0..=9, _) => {
                    for _ in 0..random.below(40) {
                        for lane in 0..2 {
                            let queued = &mut seen.entry(lane).or_default().queued;
                            let element = Element::Bits(*queued as u32, Qds::GOOD);
                            let (record, place) = (*queued, random.below(50) as usize);
                            *queued += 1;
                            bench.event(lane, record, place, element);
                        }
                    }
                    bench.flush();
                }
                (10..=11, _) if ids.len() < 4 => {
                    let lane = random.below(2) as usize;
                    bench.open_with(next, lane, [1, 8, 30_000][random.below(3) as usize]);
                    lanes.insert(next, lane);
                    next += 1;
                }
                (12..=14, Some(id)) => bench.start(id),
                (15, Some(id)) => {
                    look(&mut bench, &mut seen, &lanes);
                    bench.cut(id);
                    repeated += 1;
                }
                (16..=17, Some(id)) => bench.acknowledge(id),
                (18, Some(id)) if bench.station.started(lanes[&id]) == Some(ConnectionId(id)) => {
                    let gi = asdu(TypeId::C_IC_NA_1, Reason::ACTIVATION, 1, 0, Element::Interrogation(20));
                    bench.send(id, &gi);
                }
                _ => bench.pass(Duration::from_millis(random.below(3_000))),
            }
            look(&mut bench, &mut seen, &lanes);
        }
        for lane in 0..2 {
            bench.open(next + lane as u64, lane);
            lanes.insert(next + lane as u64, lane);
            bench.start(next + lane as u64);
            look(&mut bench, &mut seen, &lanes);
            let seen = &seen[&lane];
            assert_eq!(bench.station.pending(lane), 0, "seed {seed}");
            assert_eq!(seen.confirmed, seen.queued.checked_sub(1), "seed {seed}");
        }
    }
    assert!(repeated > 100, "{repeated}");
}

#[test]
fn hostile_bytes_end_connections_and_nothing_else() {
    let mut random = Random(2404);
    let mut bench = Bench::new(station());
    let requests: [&[u8]; 5] = [
        &[100, 1, 6, 0, 1, 0, 0, 0, 0, 20],
        &[45, 1, 6, 0, 1, 0, 1, 0, 0, 0x81],
        &[101, 1, 6, 0, 1, 0, 0, 0, 0, 0x45],
        &[103, 1, 6, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 26],
        &[102, 1, 5, 0, 1, 0, 1, 0, 0],
    ];
    let (mut closed, mut commands) = (0, 0);
    for round in 0..4_000 {
        let id = ConnectionId(round);
        assert!(bench.station.opened(bench.now(), id, (round % 2) as usize));
        let mut out = Vec::new();
        bench.station.received(bench.now(), id, &[0x68, 4, 7, 0, 0, 0], &mut out);
        for number in 0..random.below(12) as u16 {
            let mut request = requests[random.below(5) as usize].to_vec();
            for _ in 0..random.below(3) {
                let place = random.below(request.len() as u64) as usize;
                request[place] = random.next() as u8;
            }
            let send = busbar_iec104::apci::Seq::new(number);
            let mut frame = busbar_iec104::apci::information(send, Default::default(), &request).unwrap();
            if random.below(8) == 0 {
                let place = random.below(frame.len() as u64) as usize;
                frame[place] ^= 1 << random.below(8);
            }
            bench.station.received(bench.now(), id, &frame, &mut out);
        }
        for output in &out {
            match output {
                Output::Close { .. } => closed += 1,
                Output::Command(request) => {
                    commands += 1;
                    bench.station.progress(bench.now(), request.id, Progress::Refused, &mut Vec::new());
                }
                _ => {}
            }
        }
        bench.station.closed(bench.now(), id, &mut out);
        bench.now += Duration::from_millis(50);
    }
    assert!(closed > 500 && commands > 500, "{closed} closed, {commands} commands");
    assert_eq!((bench.station.started(0), bench.station.started(1)), (None, None));
}
