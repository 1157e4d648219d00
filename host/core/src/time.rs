//! Durations as nanoseconds, and the tick grid.

use std::time::Duration;

/// One millisecond, nanoseconds.
pub(crate) const MS: u64 = 1_000_000;
/// One second, nanoseconds.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// As nanoseconds; longer than 584 years saturates.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// As milliseconds, rounded up, at least 1.
pub(crate) fn ms(duration_ns: u64) -> u64 {
    duration_ns.div_ceil(MS).max(1)
}

/// Rounds up to the grid, so that timers and polls share their wake-ups.
pub(crate) fn on_grid(at_ns: u64, tick_ns: u64) -> u64 {
    at_ns.div_ceil(tick_ns.max(1)).saturating_mul(tick_ns.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_rounds_up() {
        assert_eq!(on_grid(0, 20), 0);
        assert_eq!(on_grid(1, 20), 20);
        assert_eq!(on_grid(20, 20), 20);
        assert_eq!(on_grid(5, 0), 5);
        assert_eq!(ms(1), 1);
    }
}
