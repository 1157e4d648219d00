//! Hand-overs from version to version: clauses, and seeded histories with versions that fail in every way, commands at
//! bad moments, and the death of either side. What must hold always is asserted inside the world: one instance per
//! endpoint, nothing asked of an instance that was asked to stop, the books of the core.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test: a wrong assumption must fail loudly"
)]

mod world;

use busbar_contract::{Reason, Stage};
use world::{Fault, MS, World};

const TIMEOUT_MS: u64 = 10_000;

/// The poll interval of the plant.
const INTERVAL_NS: u64 = 200 * MS;

#[test]
fn a_good_version_takes_over_and_nobody_notices() {
    let mut world = World::running(1, 6);
    let to = world.add(0, Fault::None, false);
    world.hand_over(1, 0, to, TIMEOUT_MS);
    world.pass(TIMEOUT_MS + 500);
    assert_eq!(world.ended[&1], Ok(()));
    // The canary goes once: the second time is no progress.
    assert!(world.moved >= 6, "{}", world.moved);
    assert!(world.all_good(), "{:?}", world.states());
    assert!(world.bad.is_empty(), "{:?}", world.bad);
    assert!(world.longest_gap <= 2 * INTERVAL_NS, "{} ms", world.longest_gap / MS);
    assert_eq!(world.core.plugins()[0].version, to.to_string());
    assert_eq!(world.core.plugins().len(), 2, "versions are no rows of their own");
    assert_eq!(world.core.devices()[0].counters.losses, 0);
}

#[test]
fn there_and_back_ten_times() {
    let mut world = World::running(2, 4);
    let mut serving = 0;
    for round in 0..20 {
        let to = world.add(0, Fault::None, round % 2 == 0);
        world.hand_over(round, serving, to, 2_000);
        world.pass(4_000);
        assert_eq!(world.ended[&round], Ok(()));
        world.step(busbar_core::Input::Retired { plugin: serving });
        serving = to;
    }
    assert!(world.all_good() && world.bad.is_empty(), "{:?} {:?}", world.states(), world.bad);
    assert!(world.longest_gap <= 2 * INTERVAL_NS, "{} ms", world.longest_gap / MS);
}

#[test]
fn a_sink_moves_and_every_record_arrives() {
    let mut world = World::running(3, 3);
    let to = world.add(1, Fault::None, false);
    world.hand_over(1, 1, to, TIMEOUT_MS);
    world.pass(TIMEOUT_MS + 2_000);
    assert_eq!(world.ended[&1], Ok(()));
    let sinks = world.core.sinks();
    let ledger = &sinks[0].ledger;
    assert!(ledger.dropped.iter().all(|(why, _)| *why == "superseded"), "{:?}", ledger.dropped);
    assert!(world.longest_gap <= 2 * INTERVAL_NS, "{} ms", world.longest_gap / MS);
    assert!(world.bad.is_empty(), "{:?}", world.bad);
}

/// Every way to be wrong ends on the old version, with a reason that says where.
#[test]
fn a_bad_version_is_taken_back() {
    for (fault, word) in [
        (Fault::BadQuality, "d0/p0"),
        (Fault::LeavesOut, "d0/p1"),
        (Fault::Rejects, "d0/p0"),
        (Fault::RefusesOpen, "unknown key"),
        (Fault::NeverOpens, "d0"),
        (Fault::NoConnect, "connection refused"),
        (Fault::Hangs, "deadline"),
        (Fault::HangsInStop, "hangs in its stop"),
        (Fault::Crashes(3_000), "signal 11"),
        (Fault::Freezes(3_000), "no heartbeat"),
        (Fault::Panics, "panicked"),
    ] {
        let mut world = World::running(4, 3);
        let to = world.add(0, fault, false);
        world.hand_over(1, 0, to, TIMEOUT_MS);
        world.pass(TIMEOUT_MS + 8_000);
        let result = world.ended.get(&1).unwrap_or_else(|| panic!("{fault:?}: no end, {:?}", world.states()));
        let reason = result.clone().expect_err(&format!("{fault:?} is taken back"));
        assert!(reason.contains(word), "{fault:?}: {reason}");
        assert!(world.all_good(), "{fault:?}: {:?}", world.states());
        assert_eq!(world.core.plugins()[0].version, "0", "{fault:?}");
        // The other devices never noticed: only the canary had met the version, except by what comes late.
        if !matches!(fault, Fault::Crashes(_) | Fault::Freezes(_)) {
            assert!(world.bad.keys().all(|point| *point < 2), "{fault:?}: {:?}", world.bad);
        }
        // What the host does by itself fits into stale_after.
        let fits = matches!(
            fault,
            Fault::Crashes(_) | Fault::Freezes(_) | Fault::RefusesOpen | Fault::Panics | Fault::HangsInStop
        );
        assert!(!fits || world.bad.is_empty(), "{fault:?}: {:?}", world.bad);
        assert_eq!(world.killed.contains(&to), fault == Fault::HangsInStop, "{fault:?}");
    }
}

#[test]
fn a_bad_sink_version_is_taken_back() {
    for (fault, word) in [
        (Fault::NeverOpens, "sink s"),
        (Fault::RefusesOpen, "unknown key"),
        (Fault::Hangs, "point list"),
        (Fault::HangsInStop, "hangs in its stop"),
        (Fault::Crashes(3_000), "signal 11"),
        (Fault::Swallows, "confirms nothing"),
        (Fault::RefusesRecords, "refuses records"),
    ] {
        let mut world = World::running(5, 2);
        let to = world.add(1, fault, false);
        world.hand_over(1, 1, to, TIMEOUT_MS);
        world.pass(TIMEOUT_MS + 12_000);
        let result = world.ended.get(&1).unwrap_or_else(|| panic!("{fault:?}: no end, {:?}", world.states()));
        let reason = result.clone().expect_err(&format!("{fault:?} is taken back"));
        assert!(reason.contains(word), "{fault:?}: {reason}");
        assert!(world.all_good(), "{fault:?}: {:?}", world.states());
        let sinks = world.core.sinks();
        assert!(sinks[0].ledger.dropped.iter().all(|(why, _)| *why == "superseded"), "{fault:?}");
        assert!(world.bad.is_empty(), "{fault:?}: {:?}", world.bad);
    }
}

#[test]
fn a_running_command_is_waited_for_and_a_new_one_refused() {
    let mut world = World::running(6, 1);
    let to = world.add(0, Fault::None, false);
    world.command(1, "d0/p0");
    // Before it may leave, the read on the line may have to end.
    for _ in 0..50 {
        if world.executed.is_empty() {
            world.pass(1);
        }
    }
    assert_eq!(world.executed.len(), 1, "it left");
    world.hand_over(1, 0, to, TIMEOUT_MS);
    world.command(2, "d0/p0");
    world.command(3, "d0/p0");
    world.pass(3_000);
    assert_eq!(world.replies[&1].last().unwrap().stage, Stage::Finished);
    let refused = |id: u64| world.replies[&id].last().unwrap().reason.unwrap();
    assert!(matches!(refused(2), Reason::Handover | Reason::Busy), "{:?}", refused(2));
    assert_eq!(world.executed.len(), 1);
    world.pass(TIMEOUT_MS);
    assert_eq!(world.ended[&1], Ok(()));
    world.command(4, "d0/p0");
    world.pass(1_000);
    assert_eq!(world.replies[&4].last().unwrap().stage, Stage::Finished);
}

#[test]
fn what_does_not_fit_into_stale_after_is_lost() {
    let mut world = World::running(7, 1);
    let to = world.add(0, Fault::NoConnect, false);
    world.hand_over(1, 0, to, TIMEOUT_MS);
    world.pass(2_500);
    assert_eq!(world.core.point("d0/p0").unwrap().quality.to_string(), "good");
    assert_eq!(world.core.devices()[0].state.as_str(), "handover");
    world.pass(1_500);
    assert!(world.core.point("d0/p0").unwrap().quality.to_string().contains("comm_lost"));
    assert_eq!(world.core.devices()[0].state.as_str(), "lost");
}

#[test]
fn the_edge_may_end_a_trial() {
    let mut world = World::running(8, 4);
    let to = world.add(0, Fault::None, false);
    world.hand_over(1, 0, to, TIMEOUT_MS);
    world.pass(300);
    world.step(busbar_core::Input::CancelHandover { id: 1, reason: "not wanted any more".into() });
    world.pass(2_000);
    assert_eq!(world.ended[&1], Err("not wanted any more".into()));
    assert!(world.all_good() && world.bad.is_empty(), "{:?} {:?}", world.states(), world.bad);
}

#[test]
fn requests_that_cannot_be_are_refused_at_once() {
    let mut world = World::running(9, 2);
    let to = world.add(0, Fault::None, false);
    for (id, from, to) in [(1, 0, 0), (2, 0, 99), (3, 1, to)] {
        world.hand_over(id, from, to, TIMEOUT_MS);
        assert!(world.ended[&id].is_err());
    }
    world.hand_over(4, 0, to, TIMEOUT_MS);
    world.hand_over(5, 0, to, TIMEOUT_MS);
    assert_eq!(world.ended[&5], Err("another hand-over is running".into()));
    world.pass(TIMEOUT_MS + 500);
    assert_eq!(world.ended[&4], Ok(()));
}

#[test]
fn the_gateway_stops_in_the_middle() {
    for at in 0..40 {
        let mut world = World::running(10 + at, 4);
        let to = world.add(0, Fault::None, at % 2 == 0);
        world.hand_over(1, 0, to, TIMEOUT_MS);
        world.pass(at * 20);
        world.step(busbar_core::Input::Shutdown);
        world.pass(10_000);
        assert!(world.core.is_stopped(), "stopped after {} ms: {:?}", at * 20, world.states());
    }
}

const FAULTS: [Fault; 14] = [
    Fault::None,
    Fault::None,
    Fault::BadQuality,
    Fault::LeavesOut,
    Fault::Rejects,
    Fault::RefusesOpen,
    Fault::NeverOpens,
    Fault::NoConnect,
    Fault::Hangs,
    Fault::HangsInStop,
    Fault::Crashes(0),
    Fault::Freezes(0),
    Fault::Panics,
    Fault::Swallows,
];

/// One history: random versions of driver or sink, commands, deaths at random moments.
fn history(seed: u64) -> (usize, usize) {
    let devices = 1 + (seed % 6) as usize;
    let mut world = World::running(seed, devices);
    world.slow_ms = 1 + world.random(60);
    let mut serving = [0usize, 1];
    let (mut taken, mut returned) = (0, 0);
    let mut commands = 1000;
    for round in 0..3 {
        let kind = usize::from(world.random(4) == 0);
        let fault = match FAULTS[world.random(FAULTS.len() as u64) as usize] {
            Fault::Crashes(_) => Fault::Crashes(world.random(6_000)),
            Fault::Freezes(_) => Fault::Freezes(world.random(6_000)),
            // A driver has nothing to swallow.
            Fault::Swallows if kind == 0 => Fault::None,
            fault => fault,
        };
        let pairs = world.random(3) == 0;
        let to = world.add(kind, fault, pairs);
        world.hand_over(round, serving[kind], to, 4_000);
        let old_dies = world.random(8) == 0;
        for _ in 0..20 {
            let pause = 1 + world.random(700);
            world.pass(pause);
            if world.random(3) == 0 {
                commands += 1;
                let device = world.random(devices as u64);
                world.command(commands, &format!("d{device}/p0"));
            }
        }
        if old_dies && world.versions[serving[kind]].alive {
            let old = serving[kind];
            world.kill(old);
            world.pass(500);
            world.ready(old);
        }
        world.pass(20_000);
        let result = world.ended.get(&round).unwrap_or_else(|| {
            panic!("seed {seed}: round {round} {fault:?} did not end: {:?}", world.states())
        });
        match result {
            Ok(()) => {
                taken += 1;
                serving[kind] = to;
            }
            Err(_) => returned += 1,
        }
        let ok = result.is_ok();
        // What died after its trial is started again, as the edge does.
        for version in serving {
            world.versions[version].frozen = false;
            if !world.versions[version].alive {
                world.ready(version);
            }
        }
        world.pass(15_000);
        let harmless = matches!(fault, Fault::None | Fault::Swallows)
            || (kind == 1 && !matches!(fault, Fault::Crashes(_) | Fault::Freezes(_)));
        assert!(!harmless || ok || kind == 1 || old_dies, "seed {seed}: {fault:?} {:?}", world.ended);
        assert!(world.all_good(), "seed {seed}: round {round} {fault:?} {ok}: {:?}", world.states());
        if matches!(fault, Fault::None) && !old_dies {
            assert!(ok, "seed {seed}: {:?}", world.ended[&round]);
            assert!(world.bad.is_empty(), "seed {seed}: {:?}", world.bad);
        }
        world.bad.clear();
    }
    let positive = world
        .replies
        .values()
        .filter(|answers| answers.last().is_some_and(|answer| answer.stage == Stage::Finished))
        .count();
    assert!(positive <= world.executed.len(), "seed {seed}: confirmed and not executed");
    (taken, returned)
}

#[test]
fn histories_end_on_a_version_that_works() {
    let histories: u64 =
        std::env::var("BUSBAR_SIM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    if let Some(seed) = std::env::var("BUSBAR_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        history(seed);
        return;
    }
    let (mut taken, mut returned) = (0, 0);
    for seed in 1..=histories {
        let (a, b) = history(seed);
        taken += a;
        returned += b;
    }
    assert!(taken > 20 && returned > 20, "{taken} taken, {returned} returned");
}
