//! The other end of a dialogue: the server side of the codec, with answers written by each test.

use std::time::Duration;

use busbar_iec61850::session::{Event, Session};
use iec61850_rs::common::Instant;
use iec61850_rs::proto::mms::association::{Association, AssociationConfig, AssociationEvent};

/// Session and peer, joined without a transport.
pub(crate) struct Pair {
    pub(crate) session: Session,
    pub(crate) peer: Association,
    pub(crate) now: Duration,
    /// Requests of the client, as PDUs, oldest first.
    pub(crate) requests: Vec<(i64, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
}

pub(crate) fn instant(now: Duration) -> Instant {
    Instant(u64::try_from(now.as_nanos()).unwrap())
}

impl Pair {
    pub(crate) fn new(session: Session, config: AssociationConfig) -> Self {
        Self {
            session,
            peer: Association::server(config),
            now: Duration::from_secs(1),
            requests: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Started and established.
    pub(crate) fn established(session: Session, config: AssociationConfig) -> Self {
        let mut pair = Self::new(session, config);
        pair.session.start(pair.now);
        pair.pump();
        assert!(pair.session.is_established(), "{:?}", pair.events);
        pair.events.clear();
        pair
    }

    /// Moves everything both ends want to send, until both are quiet.
    pub(crate) fn pump(&mut self) {
        loop {
            let mut moved = false;
            while let Some(packet) = self.session.transmit() {
                self.peer.on_bytes(instant(self.now), &packet);
                moved = true;
            }
            while let Some(event) = self.peer.poll_event() {
                if let AssociationEvent::Request { invoke_id, pdu } = event {
                    self.requests.push((invoke_id, pdu));
                }
            }
            while let Some(packet) = self.peer.poll_transmit().map(<[u8]>::to_vec) {
                self.deliver(&packet);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Octets from the device.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        self.session.receive(bytes);
        while let Some(event) = self.session.event(self.now) {
            self.events.push(event);
        }
    }

    pub(crate) fn tick(&mut self, forward: Duration) {
        self.now += forward;
        self.session.tick(self.now);
        while let Some(event) = self.session.event(self.now) {
            self.events.push(event);
        }
        self.pump();
    }
}
