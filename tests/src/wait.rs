//! Waiting for something seen from outside.

use std::time::{Duration, Instant};

/// Pause between two looks at another process.
const LOOK: Duration = Duration::from_millis(10);

/// Deadline for things that have no deadline of their own (start of a process, first value): generous, because only a
/// broken gateway reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `look` gives something; panics with `what` after `limit`.
///
/// # Panics
/// When the limit has passed.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        // The clock is read before the look, so that a slow look never makes a condition met in time count as late.
        let late = begin.elapsed() > limit;
        if let Some(found) = look() {
            return found;
        }
        assert!(!late, "waited {limit:?} for {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// Lets a load run for a while: time that is part of a scenario, not a wait for something.
pub fn load_for(span: Duration) {
    let begin = Instant::now();
    while let Some(rest) = span.checked_sub(begin.elapsed()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}
