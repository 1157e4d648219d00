//! A seeded world around the core: model drivers and sinks that answer, delay, refuse, hang, lie and die; clocks that
//! step; operators at bad moments. The guarantees are checked after every step of thousands of short histories.
//!
//! A failing seed is printed with the last steps. `BUSBAR_SIM_SEED=n` runs one history, `BUSBAR_SIM_HISTORIES=n` more
//! of them.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: the numbers are the model's own, and a wrong one must fail loudly"
)]

mod checks;
#[path = "../common/mod.rs"]
mod common;
mod driver;
#[path = "../queue/file.rs"]
#[allow(dead_code, reason = "what the simulation of queues on disk needs more of it")]
mod file;
mod rng;
mod sink;
mod site;
mod world;

use std::fmt::Write;

use world::{Stats, World};

/// Histories per test when nothing else is asked.
const HISTORIES: u64 = 2000;

fn histories() -> u64 {
    std::env::var("BUSBAR_SIM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
}

/// Runs one history; a failure is run again with a trace of the last steps.
fn run(seed: u64) -> Stats {
    match World::new(seed, false).run() {
        Ok(stats) => stats,
        Err(error) => {
            let mut world = World::new(seed, true);
            let again =
                world.run().err().unwrap_or_else(|| "the second run passed: not deterministic".into());
            let mut text = String::new();
            for line in world.trace() {
                let _ = writeln!(text, "{line}");
            }
            panic!("{text}\nseed {seed}: {error}\nagain: {again}\nreproduce: BUSBAR_SIM_SEED={seed}");
        }
    }
}

fn run_many(first: u64) {
    if let Some(seed) = std::env::var("BUSBAR_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        run(seed);
        return;
    }
    let mut total = Stats::default();
    for seed in first..first + histories() {
        total.add(&run(seed));
    }
    println!("{total:?}");
    // A world in which nothing happens proves nothing.
    assert!(total.losses > histories(), "{total:?}");
    assert!(
        total.finished_commands > 0 && total.unknown_commands > 0 && total.refused_commands > 0,
        "{total:?}"
    );
    assert!(total.foreign > 0 && total.retries > 0 && total.parked > 0 && total.dropped > 0, "{total:?}");
    assert!(total.tokens_ok > 0 && total.tokens_failed > 0 && total.stalls > 0, "{total:?}");
}

#[test]
fn guarantees_hold_after_every_step_of_every_history_a() {
    run_many(1);
}

#[test]
fn guarantees_hold_after_every_step_of_every_history_b() {
    run_many(1_000_000);
}

#[test]
fn equal_seeds_give_equal_outputs() {
    for seed in 1..20 {
        let digest = |seed| {
            let mut world = World::new(seed, false);
            world.run().expect("the history passes");
            world.digest()
        };
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
}
