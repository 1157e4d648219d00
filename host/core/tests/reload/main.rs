//! Seeded histories with random reloads: devices, points, connections, sinks and plugins come, change and go while model
//! drivers and sinks answer, delay, refuse and fail. Checked in every step:
//! * the books of the core, above all the ledger and that points and sinks name the same routes;
//! * a number names one point for ever; nothing is read, bound or attached that the driver was not told;
//! * a sink gets only records of points in its list, and is told `removed` only of those;
//! * what a reload does not touch does not notice it; the quiet device is never lost;
//! * every reload is answered, and what runs is the new configuration or, with a reason, the old one.
//!
//! `BUSBAR_SIM_SEED=n` runs one history, `BUSBAR_SIM_HISTORIES=n` more of them.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a wrong model must fail loudly"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../simulation/rng.rs"]
mod rng;
mod site;
mod world;

use world::{Stats, World};

/// Histories when nothing else is asked.
const HISTORIES: u64 = 300;

#[test]
fn the_guarantees_hold_through_random_reloads() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("BUSBAR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("BUSBAR_SIM_HISTORIES").unwrap_or(HISTORIES),
    };
    let many = seeds.end - seeds.start > 50;
    let mut total = Stats::default();
    for seed in seeds {
        let mut world = World::new(seed);
        match world.run() {
            Ok(stats) => total.add(&stats),
            Err(error) => {
                panic!("{}\nseed {seed}: {error}\nreproduce: BUSBAR_SIM_SEED={seed}", world.trace())
            }
        }
    }
    println!("{total:?}");
    // A world in which nothing happens proves nothing.
    assert!(!many || (total.applied > 500 && total.rolled_back > 50 && total.unchanged > 0), "{total:?}");
    assert!(!many || (total.loads > 20 && total.unloads > 20 && total.losses > 100), "{total:?}");
}
