//! Queues on disk in a seeded world: far sides that answer, refuse, ask again, withhold and vanish; files that are slow,
//! full, cannot be opened, drop what is too much or too old; a gateway that is killed at any moment and started again,
//! also with another configuration. After every step the ledger and the bounds are checked; at every kill and at the end
//! what the far side has, what the file holds and what was dropped is compared with what was measured.
//!
//! A failing seed is printed with the last steps. `BUSBAR_SIM_SEED=n` runs one history, `BUSBAR_SIM_HISTORIES=n` more.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: the numbers are the model's own, and a wrong one must fail loudly"
)]

mod chaos;
mod checks;
#[path = "../common/mod.rs"]
mod common;
mod edges;
mod far;
mod file;
#[path = "../simulation/rng.rs"]
mod rng;
mod site;
mod stats;
mod world;

use std::fmt::Write;

use stats::Stats;
use world::World;

/// Histories per test when nothing else is asked.
const HISTORIES: u64 = 600;

fn run(seed: u64) -> Stats {
    match World::new(seed, false).run() {
        Ok(stats) => stats,
        Err(error) => {
            let mut world = World::new(seed, true);
            let again = world.run().err().unwrap_or_else(|| "the second run passed".into());
            let mut text = String::new();
            for line in &world.trace {
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
    let asked = std::env::var("BUSBAR_SIM_HISTORIES").ok().and_then(|text| text.parse().ok());
    let mut total = Stats::default();
    for seed in first..first + asked.unwrap_or(HISTORIES) {
        total.add(&run(seed));
    }
    println!("{total:?}");
    // A world in which nothing happens proves nothing.
    assert!(total.crashes > 100 && total.loads > 100 && total.ghosts > 10 && total.parked > 10, "{total:?}");
    assert!(total.again > 10, "{total:?}");
    assert!(total.failed_transactions > 100 && total.dropped_by_file > 10, "{total:?}");
    assert!(total.duplicates > 10 && total.retries > 100 && total.refused_records > 10, "{total:?}");
    assert!(total.tokens_ok > 10 && total.tokens_failed > 10 && total.stops > 10, "{total:?}");
    assert!(total.clock_steps > 100 && total.silences > 10, "{total:?}");
}

#[test]
fn nothing_is_lost_whatever_fails_a() {
    run_many(1);
}

#[test]
fn nothing_is_lost_whatever_fails_b() {
    run_many(1_000_000);
}
