//! Exponential back-off with jitter, for ever (SEMANTICS 5): pauses grow from `initial` to `max`, each times 0.8 to
//! 1.2, so that recovery takes at most 1.2 x max after the far side is back, and a plant does not reconnect in step.

use crate::{model::Backoff, rng::Rng, time::ns};

/// Doublings after which the pause no longer grows.
const MAX_DOUBLINGS: u32 = 20;

/// The pause before attempt number `attempt` (0 = the first after a loss), nanoseconds.
pub(crate) fn pause(backoff: &Backoff, attempt: u32, rng: &mut Rng) -> u64 {
    let max = ns(backoff.max).max(ns(backoff.initial));
    let base = ns(backoff.initial).saturating_mul(1 << attempt.min(MAX_DOUBLINGS)).min(max);
    base / 5 * 4 + rng.below(base / 5 * 2 + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pause_never_exceeds_1_2_times_max() {
        let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(10) };
        let mut rng = Rng::new(3);
        for attempt in 0..200 {
            let pause = pause(&backoff, attempt, &mut rng);
            assert!(pause <= 12_000_000_000, "{pause}");
            assert!(pause >= 800_000_000, "{pause}");
        }
    }

    #[test]
    fn pauses_double() {
        let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
        let mut rng = Rng::new(3);
        for attempt in 0..5 {
            let pause = pause(&backoff, attempt, &mut rng) as f64 / 1e9;
            let base = f64::from(1u32 << attempt);
            assert!(pause >= base * 0.8 && pause <= base * 1.2, "{attempt}: {pause}");
        }
    }
}
