//! One association, without I/O: octets and the time go in, octets and events come out.
//!
//! The six layers and their state machine are `iec61850-rs`'s. What is added here:
//!
//! * **An answer belongs to its request.** Invoke ids are matched with what was asked; an answer to an unknown
//!   or given-up id is discarded and counted, never passed on.
//! * **Nothing is dropped unseen.** The association is fed one packet at a time ([`crate::frame`]) and emptied
//!   after each. A packet that would overflow its queue all the same ends the session.
//! * **A report that cannot be read** is told as [`Event::Unreadable`], so that the owner can interrogate.
//! * **Bounds**: received octets, waiting requests, PDU and TSDU sizes, nesting ([`crate::limits`]).
//! * Every request has one end: an answer, a refusal, a time-out, or the end of the session.
//!
//! The time is a [`Duration`] since any fixed moment of the owner's monotonic clock.

mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use iec61850_rs::common::Instant;
use iec61850_rs::proto::mms::association::{Association, AssociationEvent, CloseReason};

use crate::error::{Error, Refusal};
use crate::frame::Cutter;
use crate::limits::{MAX_EVENTS_PER_PACKET, MAX_WAITING, MIN_PDU};
use crate::request::{Answer, Request};
use crate::unsolicited::Unsolicited;
pub use settings::{Secret, Selector, Settings};

/// Number of a request, given by the session, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the session tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The association is up.
    Established {
        /// Largest MMS PDU the device takes.
        max_pdu: usize,
        /// Requests it takes at once.
        outstanding: usize,
    },
    /// A request has ended.
    Answered {
        /// Which.
        ticket: Ticket,
        /// The request itself.
        request: Request,
        /// How.
        outcome: Result<Answer, Error>,
    },
    /// A report or the end of a command.
    Unsolicited(Unsolicited),
    /// Something unsolicited that could not be read: a report is missing.
    Unreadable(String),
    /// The session is over; nothing follows. Every open request was answered before.
    Closed(String),
}

/// What a session has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Requests refused as a whole.
    pub refusals: u64,
    /// Answers to nothing that is outstanding, discarded.
    pub strays: u64,
    /// PDUs that could not be read.
    pub unreadable: u64,
    /// Reports and terminations.
    pub unsolicited: u64,
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    request: Request,
}

/// One association and everything outstanding on it.
pub struct Session {
    association: Association,
    cutter: Cutter,
    settings: Settings,
    open: BTreeMap<i64, Open>,
    waiting: VecDeque<Open>,
    events: VecDeque<Event>,
    next_ticket: u64,
    counters: Counters,
    refusal: Option<String>,
    closed: bool,
}

impl fmt::Debug for Session {
    /// Without the association, whose configuration holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.association.state())
            .field("open", &self.open.len())
            .field("waiting", &self.waiting.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that has not begun.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            association: Association::client(settings.to_codec()),
            cutter: Cutter::default(),
            settings,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            next_ticket: 1,
            counters: Counters::default(),
            refusal: None,
            closed: false,
        }
    }

    /// Begins, once the transport is connected.
    pub fn start(&mut self, now: Duration) {
        if let Err(error) = self.association.start(instant(now)) {
            self.end(&error.to_string());
        }
    }

    /// Takes octets from the transport. Take [`Self::event`]s until there is none before the next call.
    pub fn receive(&mut self, bytes: &[u8]) {
        if let Err(waiting) = self.cutter.push(bytes) {
            self.abort(&format!("{waiting} octets received are waiting to be looked at"));
        }
    }

    /// Looks at the time: requests and the handshake may be overdue.
    pub fn tick(&mut self, now: Duration) {
        self.association.on_timeout(instant(now));
        self.drain();
        self.send_waiting(now);
    }

    /// When [`Self::tick`] is needed next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.association.next_timeout().map(|at| Duration::from_nanos(at.0))
    }

    /// The next packet to write to the transport.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.association.poll_transmit().map(<[u8]>::to_vec)
    }

    /// Asks the device. The answer is an [`Event::Answered`] with the returned ticket.
    ///
    /// # Errors
    /// [`Error::SessionOver`]; [`Error::NotSent`] where too many requests wait.
    pub fn submit(&mut self, now: Duration, request: Request) -> Result<Ticket, Error> {
        if self.closed || !self.association.is_established() {
            return Err(Error::SessionOver("the association is not established".to_owned()));
        }
        if self.waiting.len() >= MAX_WAITING {
            return Err(Error::NotSent(format!("{MAX_WAITING} requests are waiting already")));
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push_back(Open { ticket, request });
        self.send_waiting(now);
        Ok(ticket)
    }

    /// The next event. `now` is the time at which the octets behind it are looked at.
    pub fn event(&mut self, now: Duration) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.closed {
                return None;
            }
            match self.cutter.next_packet() {
                Ok(None) => return None,
                Ok(Some(packet)) => self.association.on_bytes(instant(now), packet),
                Err(reason) => self.abort(&reason),
            }
            self.drain();
            self.send_waiting(now);
        }
    }

    /// Ends the association in order; [`Event::Closed`] follows when the device confirms, or its time is up.
    pub fn release(&mut self, now: Duration) {
        if self.association.release(instant(now)).is_err() {
            self.abort("released before it was established");
        }
    }

    /// Ends the association at once.
    pub fn abort(&mut self, reason: &str) {
        self.association.abort();
        self.end(reason);
    }

    /// The transport has ended. Many devices refuse an association just so.
    pub fn disconnected(&mut self, reason: &str) {
        if self.association.negotiated().is_some() {
            self.end(reason);
        } else {
            self.end(&format!("{reason} before it was associated; check the password and the selectors"));
        }
    }

    /// True while requests are taken.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        !self.closed && self.association.is_established()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn drain(&mut self) {
        while let Some(event) = self.association.poll_event() {
            self.on_event(event);
        }
        if self.association.stats().events_dropped > 0 && !self.closed {
            self.abort(&format!("expected at most {MAX_EVENTS_PER_PACKET} PDUs in one packet, got more"));
        }
    }

    fn on_event(&mut self, event: AssociationEvent) {
        match event {
            AssociationEvent::Established(agreed) if agreed.max_pdu < MIN_PDU => {
                let found = agreed.max_pdu;
                self.abort(&format!("expected a PDU size of at least {MIN_PDU}, the device offers {found}"));
            }
            AssociationEvent::Established(agreed) => self.events.push_back(Event::Established {
                max_pdu: agreed.max_pdu,
                outstanding: agreed.max_outstanding,
            }),
            AssociationEvent::Refused { layer, code } => self.refusal = Some(refusal(layer, code)),
            AssociationEvent::Response { invoke_id, pdu } => {
                self.finish(invoke_id, |request| request.answer(&pdu));
            }
            AssociationEvent::Rejected { invoke_id: Some(id), reject } => {
                let (reason, code) = reject.reason.parts();
                self.finish(id, |request| Err(request.refused(Refusal::Rejected { reason, code })));
            }
            AssociationEvent::Timeout { invoke_id } => {
                let after = self.settings.response_timeout;
                self.counters.timeouts += 1;
                self.finish(invoke_id, |request| Err(Error::NoAnswer { service: request.service(), after }));
            }
            AssociationEvent::Cancelled { invoke_id } => self
                .finish(invoke_id, |request| Err(request.refused(Refusal::Rejected { reason: 0, code: 0 }))),
            AssociationEvent::Malformed { invoke_id: Some(id), error } => {
                self.counters.unreadable += 1;
                self.finish(id, |request| {
                    let expected = "a readable PDU".to_owned();
                    Err(Error::Nonsense { service: request.service(), expected, found: error.to_string() })
                });
            }
            AssociationEvent::Malformed { invoke_id: None, error } => {
                self.counters.unreadable += 1;
                self.refusal.get_or_insert_with(|| error.to_string());
                self.events.push_back(Event::Unreadable(error.to_string()));
            }
            AssociationEvent::Unconfirmed { pdu } => self.on_unconfirmed(&pdu),
            // Requests of a device to a client, and a reject of nothing we know: nothing follows from them.
            AssociationEvent::Request { .. }
            | AssociationEvent::CancelRefused { .. }
            | AssociationEvent::Rejected { invoke_id: None, .. } => self.counters.strays += 1,
            AssociationEvent::Closed(reason) => {
                let reason = self.refusal.take().unwrap_or_else(|| closed(reason).to_owned());
                self.end(&reason);
            }
        }
    }

    fn on_unconfirmed(&mut self, pdu: &[u8]) {
        self.counters.unsolicited += 1;
        match Unsolicited::read(pdu) {
            Ok(unsolicited) => self.events.push_back(Event::Unsolicited(unsolicited)),
            Err(reason) => {
                self.counters.unreadable += 1;
                self.events.push_back(Event::Unreadable(reason));
            }
        }
    }

    fn finish(&mut self, invoke_id: i64, outcome: impl FnOnce(&Request) -> Result<Answer, Error>) {
        let Some(Open { ticket, request }) = self.open.remove(&invoke_id) else {
            self.counters.strays += 1;
            return;
        };
        let outcome = outcome(&request);
        if matches!(outcome, Err(Error::Refused { .. })) {
            self.counters.refusals += 1;
        }
        self.events.push_back(Event::Answered { ticket, request, outcome });
    }

    fn send_waiting(&mut self, now: Duration) {
        let allowed = self.association.negotiated().map_or(0, |agreed| agreed.max_outstanding);
        while self.is_established() && self.open.len() < allowed {
            let Some(Open { ticket, request }) = self.waiting.pop_front() else { return };
            let sent = request.with(|service| self.association.call(instant(now), service));
            match sent {
                Ok(Ok(invoke_id)) => {
                    self.counters.requests += 1;
                    self.open.insert(invoke_id, Open { ticket, request });
                }
                Ok(Err(error)) => {
                    let outcome = Err(Error::NotSent(format!("{}: {error}", request.service())));
                    self.events.push_back(Event::Answered { ticket, request, outcome });
                }
                Err(error) => {
                    self.events.push_back(Event::Answered { ticket, request, outcome: Err(error) });
                }
            }
        }
    }

    /// Ends everything that is open, once.
    fn end(&mut self, reason: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let open = std::mem::take(&mut self.open).into_values().map(|open| (open, true));
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|open| (open, false));
        for (Open { ticket, request }, sent) in open.chain(waiting) {
            let outcome = Err(if sent {
                Error::SessionOver(reason.to_owned())
            } else {
                Error::NotSent(format!("association over: {reason}"))
            });
            self.events.push_back(Event::Answered { ticket, request, outcome });
        }
        self.events.push_back(Event::Closed(reason.to_owned()));
    }
}

fn instant(now: Duration) -> Instant {
    Instant(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn refusal(layer: &str, code: Option<i64>) -> String {
    let code = code.map_or_else(String::new, |code| format!(" (code {code})"));
    let hint = if layer == "acse" { "; check the password and the application titles" } else { "" };
    format!("the device refused the association in layer {layer}{code}{hint}")
}

const fn closed(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Released => "released",
        CloseReason::PeerReleased => "the device released the association",
        CloseReason::Aborted => "the device aborted the association; check the password and the selectors",
        CloseReason::ConnectTimeout => "the device did not complete the association in time",
        CloseReason::Refused => "the device refused the association",
        CloseReason::ProtocolError => "the device sent what is not MMS over ISO transport",
    }
}
