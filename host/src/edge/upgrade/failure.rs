//! Why an upgrade did not end well, and what that says of the file: a version that could not even be tried, because a
//! disk was full, a process could not be started or something else was moving, is tried again later; one that was
//! refused or taken back is not tried again by itself.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::bridge::STOPPING;

/// Texts of the core while something else moves devices: over soon.
const BUSY: [&str; 2] = ["another hand-over is running", "a reload is being tried"];
/// Texts of what has nothing to do with the version.
const NOT_ITS_FAULT: [&str; 4] = [
    "it did not start within",
    "no probe process could be started",
    "no worker process could be started",
    "no thread could be started",
];
/// Before a version that could not be tried is tried again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How an upgrade failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The host ends.
    Stopping,
    /// No verdict on the version; the one before serves.
    Untried(String),
    /// Refused or taken back; the one before serves.
    Bad(String),
    /// The way back failed: the new version serves.
    Adrift {
        /// What was wrong with it.
        reason: String,
        /// Why it could not be taken back.
        back: String,
    },
}

impl Failure {
    /// By the text of a step.
    pub(super) fn of(reason: String) -> Self {
        if reason == STOPPING {
            Self::Stopping
        } else if is_busy(&reason) || NOT_ITS_FAULT.iter().any(|known| reason.contains(known)) {
            Self::Untried(reason)
        } else {
            Self::Bad(reason)
        }
    }

    /// The same with other words.
    pub(super) fn said(self, say: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Untried(reason) => Self::Untried(say(reason)),
            Self::Bad(reason) => Self::Bad(say(reason)),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str(STOPPING),
            Self::Untried(reason) | Self::Bad(reason) => f.write_str(reason),
            Self::Adrift { reason, back } => write!(f, "{reason}; it could not be taken back: {back}"),
        }
    }
}

fn is_busy(reason: &str) -> bool {
    BUSY.contains(&reason)
}

/// Does it again while something else moves devices, at most `tries` times in all; `wait` between, false: the host ends.
pub(super) fn patiently(
    tries: u32,
    wait: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let mut left = tries;
    loop {
        left = left.saturating_sub(1);
        match attempt() {
            Err(reason) if left > 0 && is_busy(&reason) => {
                if !wait() {
                    return Err(STOPPING.to_owned());
                }
            }
            result => return result,
        }
    }
}

/// Versions that could not be tried, by plugin: when again.
#[derive(Debug, Default)]
pub(super) struct Again(BTreeMap<String, (Instant, Duration)>);

impl Again {
    /// Notes one more attempt; the pause until the next.
    pub(super) fn later(&mut self, key: &str, now: Instant) -> Duration {
        let pause = self.0.get(key).map_or(FIRST_PAUSE, |(_, last)| (*last * 2).min(LONGEST_PAUSE));
        self.0.insert(key.to_owned(), (now + pause, pause));
        pause
    }

    /// It is time.
    pub(super) fn is_due(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|(due, _)| *due <= now)
    }

    /// There was a verdict.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use busbar_loader::{Expect, Launcher, Probe, Staged};

    use super::*;

    #[test]
    fn what_is_not_the_fault_of_the_file_is_no_verdict() {
        for text in [BUSY.as_slice(), &NOT_ITS_FAULT].concat() {
            assert_eq!(Failure::of(text.to_owned()), Failure::Untried(text.to_owned()));
        }
        assert_eq!(Failure::of(STOPPING.to_owned()), Failure::Stopping);
        let bad = "start: the process ended by SIGSEGV".to_owned();
        assert_eq!(Failure::of(bad.clone()), Failure::Bad(bad));
    }

    /// The words of the loader, as it says them.
    #[test]
    fn a_probe_that_could_not_be_started_is_no_verdict() {
        let staged = Staged { source: "a.so".into(), path: "a.so".into(), sha256: String::new(), size: 0 };
        let launcher = Launcher::program("/nowhere/busbar");
        let error = Probe::start(&launcher, &staged, Expect::default()).unwrap_err().to_string();
        assert_eq!(Failure::of(error.clone()), Failure::Untried(error));
    }

    #[test]
    fn a_move_waits_for_a_reload_but_not_for_ever_and_for_nothing_else() {
        let calls = |answers: &[Result<(), &str>]| {
            let mut count = 0;
            let result = patiently(
                3,
                || true,
                || {
                    count += 1;
                    answers[count - 1].map_err(str::to_owned)
                },
            );
            (result, count)
        };
        let busy = "a reload is being tried";
        assert_eq!(calls(&[Err(busy), Err(busy), Ok(())]), (Ok(()), 3));
        assert_eq!(calls(&[Err(busy), Err(busy), Err(busy)]), (Err(busy.to_owned()), 3));
        assert_eq!(calls(&[Err("no")]), (Err("no".to_owned()), 1));
        assert_eq!(patiently(3, || false, || Err(busy.to_owned())), Err(STOPPING.to_owned()));
    }

    #[test]
    fn pauses_grow_are_bounded_and_end_with_a_verdict() {
        let (mut again, now) = (Again::default(), Instant::now());
        assert!(!again.is_due("a", now + LONGEST_PAUSE), "never tried");
        assert_eq!(again.later("a", now), FIRST_PAUSE);
        assert!(!again.is_due("a", now) && again.is_due("a", now + FIRST_PAUSE));
        assert_eq!(again.later("a", now), FIRST_PAUSE * 2);
        for _ in 0..20 {
            assert!(again.later("a", now) <= LONGEST_PAUSE);
        }
        again.forget("a");
        assert!(!again.is_due("a", now + LONGEST_PAUSE));
        assert_eq!(again.later("a", now), FIRST_PAUSE);
    }
}
