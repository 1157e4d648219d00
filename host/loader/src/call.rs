//! Calls into a plugin that may panic or never return.
//!
//! `init`, `open`, `control` and `shutdown` run on a thread made for the call; the caller waits for a deadline. A
//! call that never returns costs one thread, and the plugin is *stuck*: it is asked nothing more until the call
//! returns, so that a plugin holds at most as many threads as callers were waiting at once. Nothing in-process can end
//! such a thread; `isolation = "process"` can.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Beyond the deadline given to `shutdown`, before the caller gives up.
pub(crate) const GUARDED_SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Runs `f`; a panic becomes its text.
///
/// The payload is forgotten: dropping a hostile payload could panic again, outside of the guard.
pub(crate) fn guard<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic without text".to_owned());
        std::mem::forget(payload);
        text
    })
}

/// Counts calls that have passed their deadline and not returned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    stuck: Arc<AtomicUsize>,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallFailure {
    /// Did not return within the deadline.
    Stuck(Duration),
    /// An earlier call has not returned yet; this one was not made.
    StillStuck,
    /// Panicked on this side of the waist.
    Panicked(String),
    /// No thread could be started.
    NoThread(String),
}

impl CallFailure {
    /// The sentence without the plugin's name.
    pub(crate) fn text(&self, what: &str) -> String {
        match self {
            Self::Stuck(limit) => {
                format!(
                    "{what} did not return within {}; restart Busbar or set isolation = \"process\"",
                    human(*limit)
                )
            }
            Self::StillStuck => {
                format!(
                    "{what} was not tried: an earlier call has not returned; restart Busbar or set isolation = \"process\""
                )
            }
            Self::Panicked(text) => format!("{what} panicked: {text}"),
            Self::NoThread(text) => format!("{what} was not tried: no thread could be started: {text}"),
        }
    }
}

impl Caller {
    /// True while a call has passed its deadline and not returned.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire) != 0
    }

    /// Runs `f` on a thread of its own and waits for `limit`.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        name: &str,
        limit: Duration,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallFailure> {
        if self.is_stuck() {
            return Err(CallFailure::StillStuck);
        }
        let (sender, receiver) = sync_channel(1);
        let running = Arc::new(Flight::default());
        let (flight, stuck) = (Arc::clone(&running), Arc::clone(&self.stuck));
        thread::Builder::new()
            .name(format!("call-{name}"))
            .spawn(move || {
                let result = guard(f);
                // A receiver that gave up drops the result here, on this thread (R7).
                let _ = sender.send(result);
                if flight.land() {
                    stuck.fetch_sub(1, Ordering::AcqRel);
                }
            })
            .map_err(|error| CallFailure::NoThread(error.to_string()))?;
        match receiver.recv_timeout(limit) {
            Ok(result) => result.map_err(CallFailure::Panicked),
            Err(RecvTimeoutError::Disconnected) => Err(CallFailure::Panicked("the call vanished".into())),
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.fetch_add(1, Ordering::AcqRel);
                if running.give_up() {
                    // It returned in between: not stuck after all, but its result is gone.
                    self.stuck.fetch_sub(1, Ordering::AcqRel);
                }
                Err(CallFailure::Stuck(limit))
            }
        }
    }
}

/// Which came first: the return of the call or the end of the caller's patience.
#[derive(Default)]
struct Flight(AtomicUsize);

impl Flight {
    /// The call returned; true when the caller had given up (and counted it).
    fn land(&self) -> bool {
        self.0.swap(1, Ordering::AcqRel) == 2
    }

    /// The caller gives up; true when the call had returned.
    fn give_up(&self) -> bool {
        self.0.swap(2, Ordering::AcqRel) == 1
    }
}

/// `3 s`, `250 ms`.
pub(crate) fn human(duration: Duration) -> String {
    if duration.as_millis().is_multiple_of(1000) {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// Time left until `deadline`, at least one millisecond.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn results_and_panics_come_back() {
        let caller = Caller::default();
        assert_eq!(caller.call("t", LONG, || 5), Ok(5));
        let failure = caller.call("t", LONG, || panic!("no {}", 1)).map(|(): ()| ());
        assert_eq!(failure, Err(CallFailure::Panicked("no 1".into())));
    }

    #[test]
    fn a_call_that_does_not_return_makes_the_plugin_stuck_until_it_does() {
        let caller = Caller::default();
        let (release, gate) = sync_channel::<()>(1);
        let (done, finished) = sync_channel::<()>(1);
        let late = move || {
            let _ = gate.recv();
            done.send(()).unwrap();
        };
        let limit = Duration::from_millis(5);
        assert_eq!(caller.call("t", limit, late), Err(CallFailure::Stuck(limit)));
        assert_eq!(caller.call("t", LONG, || ()), Err(CallFailure::StillStuck));
        release.send(()).unwrap();
        finished.recv().unwrap();
        let until = Instant::now() + LONG;
        while caller.is_stuck() {
            assert!(Instant::now() < until, "the late return did not free the plugin");
            thread::yield_now();
        }
        assert_eq!(caller.call("t", LONG, || 1), Ok(1));
    }
}
