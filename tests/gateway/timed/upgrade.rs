//! Drivers replaced under load: the gap is stated.

/// Upgrades when nothing else is asked: v1 -> v2 -> v1 and once more.
const UPGRADES: usize = 3;

/// Twenty meters at 200 ms. `BUSBAR_UPGRADES=60` is the long form; it prints what the memory did.
#[test]
fn twenty_meters_do_not_notice() {
    let asked = std::env::var("BUSBAR_UPGRADES").ok().and_then(|text| text.parse().ok());
    crate::upgrade::rounds(asked.unwrap_or(UPGRADES));
}
