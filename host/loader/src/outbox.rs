//! A bounded queue of frames with one writer thread; both sides of a worker's socket have one.
//!
//! Bounded by bytes. Bulk (samples, records, requests) is refused when the queue is full; control frames (replies,
//! events, stop) may use as much again, so that a flood of samples does not cost a completion.

use std::{
    collections::VecDeque,
    io::{self, BufWriter, Write},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::host::Admission;

/// Bytes that bulk may wait in the queue; beyond half of it the sender is asked to slow down.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;
const BUFFER: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    /// Samples, records, requests.
    pub(crate) fn bulk(&self, frame: Vec<u8>) -> Admission {
        self.put(frame, MAX_BYTES)
    }

    /// Replies, events, stop.
    pub(crate) fn control(&self, frame: Vec<u8>) -> Admission {
        self.put(frame, 2 * MAX_BYTES)
    }

    fn put(&self, frame: Vec<u8>, limit: usize) -> Admission {
        let mut state = self.lock();
        // An empty queue takes one frame of any size; its size is bounded elsewhere.
        if state.closed || (!state.queue.is_empty() && state.bytes + frame.len() > limit) {
            return Admission::Refused;
        }
        state.bytes += frame.len();
        state.queue.push_back(frame);
        let congested = state.bytes > MAX_BYTES / 2;
        drop(state);
        self.changed.notify_one();
        if congested { Admission::Congested } else { Admission::Accepted }
    }

    /// No more frames; the writer sends what is queued and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Everything queued; waits for something. `None` when closed and empty.
    fn take(&self) -> Option<VecDeque<Vec<u8>>> {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes = 0;
        let taken = std::mem::take(&mut state.queue);
        (!taken.is_empty()).then_some(taken)
    }

    /// The writer thread: ends when closed and empty, or when the other side is gone (then it closes itself).
    pub(crate) fn write_to(&self, stream: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, stream);
        while let Some(frames) = self.take() {
            let written = frames.iter().try_for_each(|frame| out.write_all(frame)).and_then(|()| out.flush());
            if written.is_err() {
                self.close();
                return written;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_refused_before_control() {
        let outbox = Outbox::default();
        assert_eq!(outbox.bulk(vec![0; MAX_BYTES / 2]), Admission::Accepted);
        assert_eq!(outbox.bulk(vec![0; MAX_BYTES / 2]), Admission::Congested);
        assert_eq!(outbox.bulk(vec![0; 1]), Admission::Refused);
        assert_eq!(outbox.control(vec![0; MAX_BYTES]), Admission::Congested);
        assert_eq!(outbox.control(vec![0; 1]), Admission::Refused);
    }

    #[test]
    fn what_is_queued_is_written_in_order_before_the_end() {
        let outbox = Outbox::default();
        for byte in 0..10u8 {
            assert_eq!(outbox.bulk(vec![byte]), Admission::Accepted);
        }
        outbox.close();
        assert_eq!(outbox.bulk(vec![10]), Admission::Refused);
        let mut written = Vec::new();
        outbox.write_to(&mut written).unwrap();
        assert_eq!(written, (0..10).collect::<Vec<u8>>());
    }

    #[test]
    fn a_frame_larger_than_the_queue_passes_when_it_is_empty() {
        let outbox = Outbox::default();
        assert!(outbox.bulk(vec![0; MAX_BYTES * 3]).is_taken());
        assert_eq!(outbox.bulk(vec![0]), Admission::Refused);
    }
}
