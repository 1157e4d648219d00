//! Seeded simulation of the host core: thousands of short histories of a hostile world, with the guarantees of
//! ARCHITECTURE.md checked after every step.
//!
//! A history is: a random site, model drivers and sinks that answer, delay, refuse, hang, lie, die and come back, clocks
//! that step, operators and clients that command at bad moments; then a quiet end in which everything must have healed.
//! The world is driven by one seed. A failing history prints it; `BUSBAR_SIM_SEED=n` repeats exactly that one with its
//! last steps, `BUSBAR_SIM_HISTORIES=n` runs more of them.
//!
//! `site` makes the configuration, `world` keeps time and carries inputs and outputs, `driver` and `sink` are the model
//! plugins, `fault` is the bad luck, `client` gives commands, `check` holds the invariants.

mod check;
mod client;
mod driver;
mod fault;
mod rng;
mod sink;
mod site;
mod world;

use world::World;

/// Histories in the suite; about half a minute on one core.
const HISTORIES: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    world.run();
}

#[test]
fn guarantees_hold_in_every_history() {
    if let Some(seed) = number("BUSBAR_SIM_SEED") {
        return history(seed);
    }
    let first = number("BUSBAR_SIM_FIRST").unwrap_or(1);
    for seed in first..first + number("BUSBAR_SIM_HISTORIES").unwrap_or(HISTORIES) {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "seed {seed} failed; repeat it with BUSBAR_SIM_SEED={seed}");
    }
}
