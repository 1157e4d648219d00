//! The clock on which the age of records counts. Pure.
//!
//! It runs while the file is open and stands still while it is closed, so a step of the wall clock moves nothing. The
//! time between two runs is added only when it is known: the kernel held the wall clock to be synchronised at the last
//! transaction and at the opening, and the difference is not negative and below [`MAX_DOWN_MS`]. In doubt records are
//! kept longer, never dropped earlier. (A device without a battery clock, or one that opens its files before the time
//! server answered, does not count the time it was off.)

/// Longest down time that is believed: one year.
const MAX_DOWN_MS: u64 = 366 * 86_400_000;

/// Both clocks of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic nanoseconds of this run, as in `busbar_core::Now`.
    pub mono_ns: u64,
    /// Wall clock, nanoseconds since 1970 UTC.
    pub wall_ns: i64,
    /// The kernel holds the wall clock to be synchronised.
    pub synchronised: bool,
}

/// The age clock and the wall clock at one instant, as kept in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// Age clock, milliseconds.
    pub(crate) age_ms: u64,
    /// Wall clock, nanoseconds since 1970 UTC.
    pub(crate) wall_ns: i64,
    /// The wall clock was synchronised.
    pub(crate) synchronised: bool,
}

/// Translates between monotonic time of this run and the age clock of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgeClock {
    base_ms: u64,
    start_ns: u64,
}

impl AgeClock {
    /// Goes on from `stamp`.
    pub(crate) fn resume(stamp: &Stamp, now: &Now) -> Self {
        let base_ms = stamp.age_ms.saturating_add(down_ms(stamp, now));
        Self { base_ms, start_ns: now.mono_ns }
    }

    /// Age clock at `mono_ns` of this run, milliseconds.
    pub(crate) fn age_ms(&self, mono_ns: u64) -> u64 {
        if mono_ns >= self.start_ns {
            self.base_ms.saturating_add((mono_ns - self.start_ns) / 1_000_000)
        } else {
            self.base_ms.saturating_sub((self.start_ns - mono_ns) / 1_000_000)
        }
    }

    /// Monotonic time of this run when the age clock showed `age_ms`; 0 for earlier runs.
    pub(crate) fn mono_ns(&self, age_ms: u64) -> u64 {
        if age_ms >= self.base_ms {
            self.start_ns.saturating_add((age_ms - self.base_ms).saturating_mul(1_000_000))
        } else {
            self.start_ns.saturating_sub((self.base_ms - age_ms).saturating_mul(1_000_000))
        }
    }
}

fn down_ms(stamp: &Stamp, now: &Now) -> u64 {
    if !(stamp.synchronised && now.synchronised) {
        return 0;
    }
    let down = i128::from(now.wall_ns) - i128::from(stamp.wall_ns);
    u64::try_from(down / 1_000_000).ok().filter(|down| *down <= MAX_DOWN_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn runs_while_open_and_counts_known_down_time_only() {
        let stamp = Stamp { age_ms: 5_000, wall_ns: 100 * S as i64, synchronised: true };
        let now =
            |wall_s: i64, synchronised| Now { mono_ns: 7 * S, wall_ns: wall_s * S as i64, synchronised };
        let base = |stamp: &Stamp, now: Now| AgeClock::resume(stamp, &now).age_ms(7 * S);
        assert_eq!(base(&stamp, now(160, true)), 65_000);
        assert_eq!(base(&stamp, now(160, false)), 5_000, "not synchronised now");
        assert_eq!(base(&Stamp { synchronised: false, ..stamp }, now(160, true)), 5_000, "nor then");
        assert_eq!(base(&stamp, now(40, true)), 5_000, "backwards");
        assert_eq!(base(&stamp, now(100 + 400 * 86_400, true)), 5_000, "more than a year");
    }

    #[test]
    fn translates_both_ways() {
        let stamp = Stamp { age_ms: 5_000, ..Stamp::default() };
        let clock = AgeClock::resume(&stamp, &Now { mono_ns: 7 * S, ..Now::default() });
        assert_eq!(clock.age_ms(9 * S), 7_000);
        assert_eq!(clock.mono_ns(7_000), 9 * S);
        assert_eq!(clock.age_ms(6 * S), 4_000);
        assert_eq!(clock.mono_ns(4_000), 6 * S);
        assert_eq!(clock.mono_ns(0), 2 * S);
        let long_ago =
            AgeClock::resume(&Stamp { age_ms: 90_000, ..stamp }, &Now { mono_ns: 7 * S, ..Now::default() });
        assert_eq!(long_ago.mono_ns(1), 0);
    }
}
