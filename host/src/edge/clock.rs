//! The two clocks of the core, and whether the kernel's clock is synchronised.
#![allow(unsafe_code, reason = "adjtimex(2) has no safe wrapper in std")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use busbar_core::Now;

/// How often the kernel is asked about its clock.
pub(crate) const CLOCK_CHECK: Duration = Duration::from_secs(5);

/// Source of [`Now`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Monotonic time counts from here.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        let mono_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { mono_ns, wall_ns: wall_ns(SystemTime::now()) }
    }

    /// The instant at which monotonic time is `mono_ns`.
    pub(crate) fn instant(&self, mono_ns: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(mono_ns))
    }
}

fn wall_ns(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// The kernel holds its clock to be synchronised (adjtimex(2)).
pub(crate) fn synchronised() -> bool {
    // SAFETY: `timex` is plain data for which all zeros is a valid value; zero `modes` asks without changing anything,
    // and the kernel only writes into the struct it is given.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    state >= 0 && state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_with_the_system() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono_ns >= first.mono_ns);
        assert!(first.wall_ns > 1_577_836_800_000_000_000, "before 2020: {}", first.wall_ns);
        assert_eq!(wall_ns(UNIX_EPOCH - Duration::from_nanos(3)), -3);
        assert!(clock.instant(second.mono_ns).unwrap() <= Instant::now());
        // Either answer is right here; the call must not fail hard.
        let _ = synchronised();
    }
}
