//! When a worker that died is started again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deaths of a worker within [`CRASH_WINDOW`] after which it is not started again.
pub(crate) const MAX_CRASHES: usize = 5;
/// See [`MAX_CRASHES`].
pub(crate) const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// Pause before the first restart of a worker; doubles with each further death in the window.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(250);

/// Counts a death; the pause before the next start, or `None` when it is one too many.
pub(super) fn after_crash(crashes: &mut VecDeque<Instant>, now: Instant) -> Option<Duration> {
    crashes.push_back(now);
    while crashes.front().is_some_and(|first| now.duration_since(*first) > CRASH_WINDOW) {
        crashes.pop_front();
    }
    let deaths = u32::try_from(crashes.len()).unwrap_or(u32::MAX);
    (crashes.len() < MAX_CRASHES).then(|| RESTART_PAUSE * 2u32.saturating_pow(deaths - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_ends_and_old_crashes_are_forgiven() {
        let start = Instant::now();
        let mut crashes = VecDeque::new();
        let pauses: Vec<Option<Duration>> = (0..5).map(|_| after_crash(&mut crashes, start)).collect();
        assert_eq!(pauses[..3], [250, 500, 1000].map(|ms| Some(Duration::from_millis(ms))));
        assert_eq!(pauses[4], None);
        let later = start + CRASH_WINDOW + Duration::from_secs(1);
        assert_eq!(after_crash(&mut crashes, later), Some(RESTART_PAUSE));
    }
}
