//! The bounded queue under the inbox: many senders, one receiver that takes everything at once.
//!
//! What costs at this place is waking, not queueing: a wake of the core thread is some forty microseconds, a value some
//! nanoseconds. So a sender says how long its item may wait ([`Urgency`]), and the receiver is woken only when it would
//! not look by itself in time. No spinning either: with two cores it takes time from the plugin that is about to answer.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an item may wait for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Wake the receiver.
    Now,
    /// Values: a little, so that the answers of one tick are taken together.
    Collect,
    /// Confirmations and signs of life: until the next tick.
    Lazy,
}

/// Longest wait of [`Urgency::Collect`].
pub(crate) const COLLECT: Duration = Duration::from_millis(2);
/// Longest wait of [`Urgency::Lazy`]: the default tick.
const LAZY: Duration = Duration::from_millis(20);

impl Urgency {
    const fn patience(self) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::Collect => COLLECT,
            Self::Lazy => LAZY,
        }
    }
}

/// The queue.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    emptied: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// When the sleeping receiver looks by itself; `None` = it is awake.
    looks_at: Option<Instant>,
    /// Senders that wait for room.
    blocked: usize,
    /// The receiver is gone.
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) const fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), looks_at: None, blocked: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items waiting.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Adds an item while fewer than `limit` (at most the capacity) wait; gives it back otherwise.
    pub(crate) fn try_send(&self, item: T, urgency: Urgency, limit: usize) -> Option<T> {
        let state = self.lock();
        if state.closed || state.items.len() >= limit.min(self.capacity) {
            return Some(item);
        }
        self.add(state, item, urgency);
        None
    }

    /// Adds an item, waiting for room. False when the receiver is gone.
    pub(crate) fn send(&self, item: T) -> bool {
        let mut state = self.lock();
        while !state.closed && state.items.len() >= self.capacity {
            state.blocked += 1;
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        if state.closed {
            return false;
        }
        self.add(state, item, Urgency::Now);
        true
    }

    fn add(&self, mut state: MutexGuard<'_, State<T>>, item: T, urgency: Urgency) {
        state.items.push_back(item);
        let in_time = |looks_at: Instant| match urgency {
            Urgency::Now => false,
            _ => looks_at <= Instant::now() + urgency.patience(),
        };
        if state.looks_at.is_some_and(|looks_at| !in_time(looks_at)) {
            // Awake from here on: further senders need not wake it again.
            state.looks_at = None;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Takes everything into `into`, waiting for the first item until `until`.
    pub(crate) fn take_all(&self, into: &mut VecDeque<T>, until: Option<Instant>) {
        let mut state = self.lock();
        while state.items.is_empty() {
            let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now())) else {
                break;
            };
            // Items that may wait are added without a wake: they are taken when this time is over.
            state.looks_at = until;
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.looks_at = None;
        into.append(&mut state.items);
        if state.blocked > 0 {
            drop(state);
            self.emptied.notify_all();
        }
    }

    /// The receiver is gone: senders get their items back.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.emptied.notify_all();
        // Items give back room and drop answers outside of the lock.
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn taken(queue: &Queue<u32>, wait: Duration) -> Vec<u32> {
        let mut items = VecDeque::new();
        queue.take_all(&mut items, Some(Instant::now() + wait));
        items.into()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn order_bounds_and_end() {
        let queue = Queue::new(3);
        assert_eq!(queue.try_send(1, Urgency::Now, 2), None);
        assert_eq!(queue.try_send(2, Urgency::Lazy, 2), None);
        assert_eq!(queue.try_send(9, Urgency::Now, 2), Some(9));
        assert_eq!(queue.try_send(3, Urgency::Collect, 99), None);
        assert_eq!(queue.try_send(9, Urgency::Now, 99), Some(9));
        assert_eq!(taken(&queue, LONG), [1, 2, 3]);
        assert_eq!(taken(&queue, Duration::ZERO), [] as [u32; 0]);
        queue.close();
        assert_eq!(queue.try_send(1, Urgency::Now, 3), Some(1));
        assert!(!queue.send(1));
    }

    #[test]
    fn a_sleeping_receiver_is_woken_by_what_cannot_wait() {
        for urgency in [Urgency::Now, Urgency::Collect, Urgency::Lazy] {
            let queue = Arc::new(Queue::new(8));
            let sender = Arc::clone(&queue);
            let thread = std::thread::spawn(move || {
                // Whatever the receiver does in that moment: it plans to sleep for a minute, so it must be woken.
                assert_eq!(sender.try_send(1, urgency, 8), None);
            });
            let begin = Instant::now();
            assert_eq!(taken(&queue, LONG), [1]);
            assert!(begin.elapsed() < LONG);
            thread.join().unwrap();
        }
    }

    #[test]
    fn what_may_wait_does_not_wake() {
        let queue = Arc::new(Queue::new(8));
        let receiver = Arc::clone(&queue);
        let nap = Duration::from_millis(300);
        // A nap of 300 ms is too long for lazy items, so the mark is set by hand to show the decision alone.
        receiver.lock().looks_at = Some(Instant::now() + Duration::from_millis(1));
        assert_eq!(queue.try_send(1, Urgency::Lazy, 8), None);
        assert!(receiver.lock().looks_at.is_some(), "not woken");
        receiver.lock().looks_at = Some(Instant::now() + nap);
        assert_eq!(queue.try_send(2, Urgency::Collect, 8), None);
        assert!(receiver.lock().looks_at.is_none(), "woken");
    }

    #[test]
    fn a_blocked_sender_goes_on_when_there_is_room() {
        let queue = Arc::new(Queue::new(1));
        assert!(queue.send(1));
        let sender = Arc::clone(&queue);
        let thread = std::thread::spawn(move || sender.send(2));
        let mut all = Vec::new();
        while all.len() < 2 {
            all.extend(taken(&queue, LONG));
        }
        assert_eq!(all, [1, 2]);
        assert!(thread.join().unwrap());
    }
}
