//! Drivers replaced under load: the gap is stated.

/// Upgrades when nothing else is asked: v1 -> v2 -> v1 and once more.
const UPGRADES: usize = 3;

/// Twenty meters at 200 ms. `BUSBAR_UPGRADES=60` is the long form; it prints what the memory did.
#[test]
fn twenty_meters_do_not_notice() {
    let asked = std::env::var("BUSBAR_UPGRADES").ok().and_then(|text| text.parse().ok());
    crate::upgrade::rounds(asked.unwrap_or(UPGRADES));
}

/// A process loads 64 distinct files at most; what comes then stays in its worker and says so, and is replaced like any.
/// The short form stays below the bound, where nothing of it is to be seen.
#[test]
fn more_versions_than_a_process_may_load() {
    let asked = std::env::var("BUSBAR_UPGRADES").ok().and_then(|text| text.parse().ok());
    crate::upgrade::fill(asked.unwrap_or(UPGRADES));
}
