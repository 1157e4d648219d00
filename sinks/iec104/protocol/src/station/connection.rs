//! One connection of a station: its link, the bytes of an incomplete frame, and what waits to be sent.

use std::collections::VecDeque;
use std::time::Duration;

use super::interrogation::Job;
use super::{CloseReason, ConnectionId};
use crate::apci::MAX_FRAME;
use crate::link::{Link, Parameters, Role};

/// Confirmations that may wait for room in the window. A master that asks more without acknowledging is cut off.
pub(super) const MAX_ANSWERS: usize = 1024;

/// What an unacknowledged ASDU was.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flight {
    /// So many events of the lane.
    Events(usize),
    /// Something that is not repeated.
    Other,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) lane: usize,
    pub(super) link: Link,
    /// Less than one frame between two calls.
    pub(super) stream: Vec<u8>,
    pub(super) answers: VecDeque<Vec<u8>>,
    pub(super) jobs: VecDeque<Job>,
    /// One for each unacknowledged ASDU, oldest first.
    pub(super) flight: VecDeque<Flight>,
    /// The next ASDU is one of an interrogation rather than of events, so that neither waits for the other.
    pub(super) turn: bool,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, lane: usize, parameters: Parameters, now: Duration) -> Self {
        Self {
            id,
            lane,
            link: Link::new(Role::Controlled, parameters, now),
            stream: Vec::with_capacity(MAX_FRAME),
            answers: VecDeque::new(),
            jobs: VecDeque::new(),
            flight: VecDeque::new(),
            turn: false,
        }
    }

    /// Queues a confirmation.
    pub(super) fn answer(&mut self, asdu: Vec<u8>) -> Result<(), CloseReason> {
        if self.answers.len() >= MAX_ANSWERS {
            return Err(CloseReason::Flood);
        }
        self.answers.push_back(asdu);
        Ok(())
    }

    /// The transfer ended: nothing of what waits is for the next start. What is under way is no event of ours any more.
    pub(super) fn stop(&mut self) {
        self.answers.clear();
        self.jobs.clear();
        self.flight.iter_mut().for_each(|flight| *flight = Flight::Other);
    }
}
