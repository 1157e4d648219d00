//! Pauses between attempts: `delay x 2^n` with jitter, bounded, for ever.

use std::time::Duration;

/// Longest pause; the far side is tried for ever.
pub const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The pause before attempt `failures + 1`. `random`: anything; decides where in 0.8 to 1.2 of the pause it lies, so that
/// gateways that lost one server together do not come back together. Never above [`MAX_PAUSE`].
#[must_use]
pub fn pause(delay: Duration, failures: u32, random: u32) -> Duration {
    let doubled =
        delay.saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(MAX_PAUSE);
    let percent = 80 + random % 41;
    (doubled.saturating_mul(percent) / 100).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_with_jitter_up_to_the_bound() {
        let delay = Duration::from_secs(5);
        for (failures, middle) in [(0, 5), (1, 10), (2, 20), (5, 160)] {
            let (low, high) = (pause(delay, failures, 0), pause(delay, failures, 40));
            assert_eq!(low, Duration::from_secs(middle) * 80 / 100);
            assert_eq!(high, Duration::from_secs(middle) * 120 / 100);
        }
        for failures in [7, 31, 32, u32::MAX] {
            for random in 0..50 {
                let pause = pause(delay, failures, random);
                assert!((MAX_PAUSE * 8 / 10..=MAX_PAUSE).contains(&pause), "{failures} {random} {pause:?}");
            }
        }
    }
}
