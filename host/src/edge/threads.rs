//! The end of threads: every wait for one is bounded, because a thread that hangs (a disk that does not answer, a plugin's
//! code) must not keep the host from ending, and is named, because somebody will ask what it was.

use std::{thread::JoinHandle, time::Instant};

use crossbeam_channel::bounded;

/// What became of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended.
    Done,
    /// It ended by a panic.
    Panicked,
    /// It runs still and is left behind.
    Hangs,
}

/// Waits for a thread until `deadline`, not longer.
pub(crate) fn join_until(thread: JoinHandle<()>, deadline: Instant) -> End {
    let (ended, end) = bounded(1);
    // A join has no time limit: a helper does it, and ends with the process when the thread does not.
    let joined = move || {
        let end = if thread.join().is_ok() { End::Done } else { End::Panicked };
        let _ = ended.send(end);
    };
    let helper = std::thread::Builder::new().name("busbar-join".into()).spawn(joined);
    if helper.is_err() {
        return End::Hangs;
    }
    end.recv_deadline(deadline).unwrap_or(End::Hangs)
}

/// The same; what does not end well is in the log, by its name.
pub(crate) fn join_or_tell(name: &str, thread: JoinHandle<()>, deadline: Instant) -> End {
    let end = join_until(thread, deadline);
    match end {
        End::Done => {}
        End::Panicked => tracing::error!("{name} ended by a panic: this is a bug of Busbar"),
        End::Hangs => tracing::error!("{name} did not end in time and is left behind"),
    }
    end
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_hangs_is_left_behind_and_others_are_joined() {
        let (gate, closed) = crossbeam_channel::bounded::<()>(0);
        let hangs = std::thread::spawn(move || {
            let _ = closed.recv();
        });
        let begun = Instant::now();
        assert_eq!(join_until(hangs, begun + Duration::from_millis(20)), End::Hangs);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        drop(gate);
        let far = Instant::now() + Duration::from_secs(600);
        assert_eq!(join_until(std::thread::spawn(|| {}), far), End::Done);
        let panics = std::thread::Builder::new().spawn(|| std::panic::resume_unwind(Box::new(1))).unwrap();
        assert_eq!(join_until(panics, far), End::Panicked);
    }
}
