//! The link: numbered transfer, windows, time-outs, start and stop of data transfer (IEC 60870-5-104 clause 5).
//!
//! `step(now, input) -> outputs`, no I/O and no clock. `now` counts from any fixed moment and must not go back. The
//! link holds no ASDUs: the sender asks for [`Link::room`] and keeps what it sent until [`Output::Acknowledged`] counts
//! it off, oldest first. So there is one place that repeats after a reconnect, and it is not here.
//!
//! Invariants: at most `k` ASDUs are unacknowledged; at most `w` received ones are unconfirmed; nothing comes out after
//! `Close`; numbers go on through STOPDT and STARTDT of one connection (5.1: they belong to the connection).
//!
//! What ends a connection is in [`Fault`]. There is no resynchronisation in the standard: a station that lost count
//! closes, and the other side connects anew.

use std::collections::VecDeque;
use std::time::Duration;

use crate::apci::{Apdu, Seq, Unnumbered, information, supervision};

/// Windows and time-outs (104, 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Most ASDUs sent and not acknowledged, 1 to 32767.
    pub k: u16,
    /// Received ASDUs after which an acknowledgement is sent at the latest, 1 to 32767; at most two thirds of the peer's k.
    pub w: u16,
    /// Longest wait for an answer or an acknowledgement.
    pub t1: Duration,
    /// Longest delay of an acknowledgement; shorter than `t1`.
    pub t2: Duration,
    /// Silence after which a test frame is sent.
    pub t3: Duration,
}

impl Default for Parameters {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { k: 12, w: 8, t1: seconds(15), t2: seconds(10), t3: seconds(20) }
    }
}

/// Parameters that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// `k` or `w` out of range.
    #[error("{0} is 1 to 32767, found {1}")]
    Window(&'static str, u16),
    /// `t2` would always be too late.
    #[error("t2 must be shorter than t1, found t2 = {t2:?}, t1 = {t1:?}")]
    Acknowledge {
        /// Found.
        t1: Duration,
        /// Found.
        t2: Duration,
    },
    /// A time-out outside 1 s to 255 s; `t3` up to 48 h.
    #[error("{0} is 1 s to {1} s, found {2:?}")]
    Timeout(&'static str, u64, Duration),
}

impl Parameters {
    /// Checks ranges (104, 9.6).
    ///
    /// # Errors
    /// The first value that cannot work.
    pub fn check(&self) -> Result<(), ParameterError> {
        for (name, value) in [("k", self.k), ("w", self.w)] {
            if !(1..Seq::MODULUS).contains(&value) {
                return Err(ParameterError::Window(name, value));
            }
        }
        for (name, most, value) in [("t1", 255, self.t1), ("t2", 255, self.t2), ("t3", 172_800, self.t3)] {
            if value < Duration::from_secs(1) || value > Duration::from_secs(most) {
                return Err(ParameterError::Timeout(name, most, value));
            }
        }
        if self.t2 >= self.t1 {
            return Err(ParameterError::Acknowledge { t1: self.t1, t2: self.t2 });
        }
        Ok(())
    }
}

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The station that is started and stopped.
    Controlled,
    /// The station that starts and stops.
    Controlling,
}

/// State of the data transfer (104, 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No ASDUs in either direction.
    Stopped,
    /// Controlling: STARTDT act was sent.
    Starting,
    /// ASDUs flow.
    Started,
    /// Controlled: STOPDT act came, waiting for acknowledgements. Controlling: STOPDT act was sent.
    Stopping,
    /// Over.
    Closed,
}

/// What the link is told.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A frame came.
    Frame(Apdu<'a>),
    /// Time went on; due at [`Link::deadline`].
    Tick,
    /// Controlling: begin the transfer.
    Start,
    /// Controlling: end the transfer.
    Stop,
    /// Controlled: another connection of the redundancy group was started, this one stands by without being asked.
    StandBy,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes.
    Transmit(Vec<u8>),
    /// An ASDU came.
    Deliver(Vec<u8>),
    /// So many of the oldest sent ASDUs are acknowledged.
    Acknowledged(usize),
    /// The transfer has begun.
    Started,
    /// The transfer has ended.
    Stopped,
    /// Close the connection.
    Close(Fault),
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// N(S) is not the next number.
    #[error("an I frame with N(S) {expected} was expected, found {found}")]
    Sequence {
        /// V(R).
        expected: u16,
        /// N(S).
        found: u16,
    },
    /// N(R) acknowledges what was never sent.
    #[error("N(R) {found} is outside {first} to {last}")]
    Acknowledgement {
        /// Oldest possible.
        first: u16,
        /// V(S).
        last: u16,
        /// N(R).
        found: u16,
    },
    /// An I frame while the transfer is stopped.
    #[error("an I frame came while data transfer is stopped")]
    NotStarted,
    /// A U frame that does not fit.
    #[error("{0:?} was not expected in this state")]
    Unexpected(Unnumbered),
    /// ASDUs were not acknowledged in time.
    #[error("{0} ASDUs were not acknowledged within t1")]
    Unacknowledged(usize),
    /// A U frame was not answered in time.
    #[error("{0:?} was not answered within t1")]
    Unanswered(Unnumbered),
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    role: Role,
    parameters: Parameters,
    phase: Phase,
    /// V(S): number of the next ASDU.
    next: Seq,
    /// Number of the oldest unacknowledged one.
    oldest: Seq,
    /// When each unacknowledged ASDU was sent, oldest first; never longer than `k`.
    sent: VecDeque<Duration>,
    /// V(R).
    received: Seq,
    /// The last N(R) that the peer was told.
    told: Seq,
    /// When the oldest unconfirmed ASDU came.
    unconfirmed: Option<Duration>,
    heard: Duration,
    test: Option<Duration>,
    function: Option<(Unnumbered, Duration)>,
}

impl Link {
    /// A connection that was just made.
    #[must_use]
    pub fn new(role: Role, parameters: Parameters, now: Duration) -> Self {
        Self {
            role,
            parameters,
            phase: Phase::Stopped,
            next: Seq::default(),
            oldest: Seq::default(),
            sent: VecDeque::new(),
            received: Seq::default(),
            told: Seq::default(),
            unconfirmed: None,
            heard: now,
            test: None,
            function: None,
        }
    }

    /// State of the transfer.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// ASDUs that may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.phase {
            Phase::Started => usize::from(self.parameters.k).saturating_sub(self.sent.len()),
            _ => 0,
        }
    }

    /// ASDUs sent and not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.sent.len()
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let Parameters { t1, t2, t3, .. } = self.parameters;
        if self.phase == Phase::Closed {
            return None;
        }
        let idle = if self.test.is_none() { Some(self.heard + t3) } else { None };
        [
            idle,
            self.test.map(|at| at + t1),
            self.function.map(|(_, at)| at + t1),
            self.sent.front().map(|at| *at + t1),
            self.unconfirmed.map(|at| at + t2),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends an ASDU. `false`: there was no room, or it is empty or too long; nothing happened.
    #[must_use]
    pub fn send(&mut self, now: Duration, asdu: &[u8], out: &mut Vec<Output>) -> bool {
        if self.room() == 0 {
            return false;
        }
        let Some(frame) = information(self.next, self.received, asdu) else { return false };
        self.next = self.next.next();
        self.sent.push_back(now);
        self.confirmed();
        out.push(Output::Transmit(frame));
        true
    }

    /// Takes one input.
    pub fn step(&mut self, now: Duration, input: Input<'_>, out: &mut Vec<Output>) {
        if self.phase == Phase::Closed {
            return;
        }
        match input {
            Input::Frame(apdu) => {
                self.heard = now;
                if let Err(fault) = self.frame(now, apdu, out) {
                    self.close(fault, out);
                }
            }
            Input::Tick => self.tick(now, out),
            Input::Start => {
                if self.role == Role::Controlling && self.phase == Phase::Stopped {
                    self.ask(now, Unnumbered::StartAct, Phase::Starting, out);
                }
            }
            Input::Stop => {
                if self.role == Role::Controlling && self.phase == Phase::Started {
                    self.supervise(out);
                    self.ask(now, Unnumbered::StopAct, Phase::Stopping, out);
                }
            }
            Input::StandBy => {
                match (self.role, self.phase) {
                    (Role::Controlled, Phase::Started) => {
                        self.phase = Phase::Stopped;
                        out.push(Output::Stopped);
                    }
                    // Somebody waits for the confirmation.
                    (Role::Controlled, Phase::Stopping) => self.stopped(out),
                    _ => {}
                }
            }
        }
    }

    fn frame(&mut self, now: Duration, apdu: Apdu<'_>, out: &mut Vec<Output>) -> Result<(), Fault> {
        match apdu {
            Apdu::Information { send, receive, asdu } => {
                let listens = match self.role {
                    Role::Controlled => self.phase == Phase::Started,
                    Role::Controlling => matches!(self.phase, Phase::Started | Phase::Stopping),
                };
                if !listens {
                    return Err(Fault::NotStarted);
                }
                if send != self.received {
                    return Err(Fault::Sequence { expected: self.received.value(), found: send.value() });
                }
                self.acknowledge(receive, out)?;
                self.received = self.received.next();
                self.unconfirmed.get_or_insert(now);
                out.push(Output::Deliver(asdu.to_vec()));
                if self.received.since(self.told) >= self.parameters.w {
                    self.supervise(out);
                }
                Ok(())
            }
            Apdu::Supervision { receive } => self.acknowledge(receive, out),
            Apdu::Unnumbered(function) => self.unnumbered(function, out),
        }
    }

    fn acknowledge(&mut self, receive: Seq, out: &mut Vec<Output>) -> Result<(), Fault> {
        let count = usize::from(receive.since(self.oldest));
        if count > self.sent.len() {
            let (first, last) = (self.oldest.value(), self.next.value());
            return Err(Fault::Acknowledgement { first, last, found: receive.value() });
        }
        if count > 0 {
            self.sent.drain(..count);
            self.oldest = receive;
            out.push(Output::Acknowledged(count));
        }
        if self.role == Role::Controlled && self.phase == Phase::Stopping && self.sent.is_empty() {
            self.stopped(out);
        }
        Ok(())
    }

    fn unnumbered(&mut self, function: Unnumbered, out: &mut Vec<Output>) -> Result<(), Fault> {
        match (function, self.role, self.phase) {
            (Unnumbered::TestAct, ..) => transmit(Unnumbered::TestCon, out),
            // One that nobody asked for means nothing.
            (Unnumbered::TestCon, ..) => self.test = None,
            (Unnumbered::StartAct, Role::Controlled, phase) => {
                self.phase = Phase::Started;
                transmit(Unnumbered::StartCon, out);
                if phase != Phase::Started {
                    out.push(Output::Started);
                }
            }
            (Unnumbered::StopAct, Role::Controlled, Phase::Stopped) => transmit(Unnumbered::StopCon, out),
            (Unnumbered::StopAct, Role::Controlled, Phase::Stopping) => {}
            (Unnumbered::StopAct, Role::Controlled, _) => {
                self.supervise(out);
                self.phase = Phase::Stopping;
                if self.sent.is_empty() {
                    self.stopped(out);
                }
            }
            (Unnumbered::StartCon, Role::Controlling, Phase::Starting) => {
                self.function = None;
                self.phase = Phase::Started;
                out.push(Output::Started);
            }
            (Unnumbered::StopCon, Role::Controlling, Phase::Stopping) => {
                self.function = None;
                self.supervise(out);
                self.phase = Phase::Stopped;
                out.push(Output::Stopped);
            }
            _ => return Err(Fault::Unexpected(function)),
        }
        Ok(())
    }

    /// The controlled side confirms STOPDT once nothing of its own is open (104, figure 17).
    fn stopped(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Stopped;
        transmit(Unnumbered::StopCon, out);
        out.push(Output::Stopped);
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Parameters { t1, t2, t3, .. } = self.parameters;
        if let Some((function, _)) = self.function.filter(|(_, at)| now >= *at + t1) {
            return self.close(Fault::Unanswered(function), out);
        }
        if self.test.is_some_and(|at| now >= at + t1) {
            return self.close(Fault::Unanswered(Unnumbered::TestAct), out);
        }
        if self.sent.front().is_some_and(|at| now >= *at + t1) {
            return self.close(Fault::Unacknowledged(self.sent.len()), out);
        }
        if self.unconfirmed.is_some_and(|at| now >= at + t2) {
            self.supervise(out);
        }
        if self.test.is_none() && now >= self.heard + t3 {
            self.test = Some(now);
            transmit(Unnumbered::TestAct, out);
        }
    }

    fn ask(&mut self, now: Duration, function: Unnumbered, phase: Phase, out: &mut Vec<Output>) {
        self.phase = phase;
        self.function = Some((function, now));
        transmit(function, out);
    }

    /// Acknowledges what came, if anything did.
    fn supervise(&mut self, out: &mut Vec<Output>) {
        if self.received != self.told {
            out.push(Output::Transmit(supervision(self.received).to_vec()));
            self.confirmed();
        }
    }

    fn confirmed(&mut self) {
        self.told = self.received;
        self.unconfirmed = None;
    }

    fn close(&mut self, fault: Fault, out: &mut Vec<Output>) {
        self.phase = Phase::Closed;
        out.push(Output::Close(fault));
    }
}

fn transmit(function: Unnumbered, out: &mut Vec<Output>) {
    out.push(Output::Transmit(function.frame().to_vec()));
}

#[cfg(test)]
mod tests;
