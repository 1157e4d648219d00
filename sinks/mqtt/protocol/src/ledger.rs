//! What was published and is not acknowledged yet.
//!
//! One entry stands for one PUBLISH with QoS 1 or 2 and carries a token of the caller (for a sink: the record numbers
//! that the message holds). A token leaves the ledger exactly once: by the acknowledgement of its packet id, or by
//! [`Ledger::lost`] when the connection ends. After that the caller sends the message again: a session of the broker
//! is never relied on, so a broker that lost it loses nothing.
//!
//! Design: packet ids are given in a circle, so the unacknowledged ones form a span from the oldest to the newest; a
//! ring holds the span and the id is its index. The window bounds the span, not the count: a broker that never
//! acknowledges one message stops the sender after `window` further ones, and an id is never used again while its
//! message is open. Acknowledgements of unknown ids (repeated, late, invented) change nothing.
//!
//! MQTT 3.1.1 sections 4.3.2, 4.3.3, 4.4; MQTT 5.0 sections 4.3.2, 4.3.3, 4.4, 4.9 (receive maximum).

use std::collections::VecDeque;
use std::time::Instant;

/// Packet ids run from 1 to this number, 0 is not an id (MQTT 2.3.1).
const IDS: u32 = 65_535;

/// Largest window: far below the number of ids, so that a late acknowledgement hardly ever meets a used id.
pub const MAX_WINDOW: u16 = 16_384;

/// How a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// QoS 1: PUBACK.
    PubAck,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    PubRec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Ack,
    Received,
    Complete,
}

#[derive(Debug)]
struct Entry<T> {
    token: T,
    sent: Instant,
    waiting: Waiting,
}

/// The unacknowledged messages of one connection.
#[derive(Debug)]
pub struct Ledger<T> {
    /// `None`: acknowledged, but an older one is not. The front is always `Some`.
    span: VecDeque<Option<Entry<T>>>,
    /// Packet id of the front.
    first: u16,
    window: usize,
    open: usize,
}

impl<T> Ledger<T> {
    /// A ledger that allows `window` messages between the oldest unacknowledged one and the newest.
    #[must_use]
    pub fn new(window: u16) -> Self {
        let window = usize::from(window.clamp(1, MAX_WINDOW));
        Self { span: VecDeque::with_capacity(window), first: 1, window, open: 0 }
    }

    /// Narrows the window to what the broker allows (MQTT 5 receive maximum).
    pub fn narrow(&mut self, receive_maximum: u16) {
        self.window = self.window.min(usize::from(receive_maximum.max(1)));
    }

    /// Another message may be published.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.span.len() < self.window
    }

    /// Less than half of the window is taken.
    #[must_use]
    pub fn is_roomy(&self) -> bool {
        self.span.len() < self.window / 2
    }

    /// Messages that are not acknowledged.
    #[must_use]
    pub const fn open(&self) -> usize {
        self.open
    }

    /// When the oldest unacknowledged message was sent.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.span.front()?.as_ref().map(|entry| entry.sent)
    }

    /// Registers a message and gives its packet id; gives the token back when the window is full.
    pub fn publish(&mut self, handshake: Handshake, token: T, now: Instant) -> Result<u16, T> {
        if !self.has_room() {
            return Err(token);
        }
        let id = advance(self.first, self.span.len());
        let waiting = match handshake {
            Handshake::PubAck => Waiting::Ack,
            Handshake::PubRec => Waiting::Received,
        };
        self.span.push_back(Some(Entry { token, sent: now, waiting }));
        self.open += 1;
        Ok(id)
    }

    /// PUBACK: the token of the message; `None` for an id that does not wait for one.
    pub fn puback(&mut self, id: u16) -> Option<T> {
        self.take(id, &[Waiting::Ack])
    }

    /// PUBREC without error: true when PUBREL must follow (also for a repeated PUBREC).
    pub fn pubrec(&mut self, id: u16) -> bool {
        match self.slot(id).and_then(|slot| slot.as_mut()) {
            Some(entry) if entry.waiting != Waiting::Ack => {
                entry.waiting = Waiting::Complete;
                true
            }
            _ => false,
        }
    }

    /// PUBCOMP: the token of the message; `None` for an id that does not wait for one.
    pub fn pubcomp(&mut self, id: u16) -> Option<T> {
        self.take(id, &[Waiting::Complete])
    }

    /// PUBACK or PUBREC with an error (MQTT 5): the broker will never take this message.
    pub fn refused(&mut self, id: u16) -> Option<T> {
        self.take(id, &[Waiting::Ack, Waiting::Received])
    }

    /// The connection is over: every unacknowledged token, oldest first. The ledger is empty afterwards; the next
    /// connection goes on with fresh ids.
    pub fn lost(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.first = advance(self.first, self.span.len());
        self.open = 0;
        std::mem::take(&mut self.span).into_iter().flatten().map(|entry| entry.token)
    }

    fn take(&mut self, id: u16, waiting: &[Waiting]) -> Option<T> {
        let slot = self.slot(id)?;
        if !slot.as_ref().is_some_and(|entry| waiting.contains(&entry.waiting)) {
            return None;
        }
        let token = slot.take()?.token;
        self.open -= 1;
        while self.span.front().is_some_and(Option::is_none) {
            self.span.pop_front();
            self.first = advance(self.first, 1);
        }
        Some(token)
    }

    fn slot(&mut self, id: u16) -> Option<&mut Option<Entry<T>>> {
        let id = u32::from(id).checked_sub(1)?;
        let index = (id + IDS - (u32::from(self.first) - 1)) % IDS;
        self.span.get_mut(index as usize)
    }
}

/// The packet id `steps` after `id` on the circle 1..=65535.
fn advance(id: u16, steps: usize) -> u16 {
    let position = (u32::from(id) - 1 + (steps as u32 % IDS)) % IDS;
    // position + 1 is at most 65535.
    u16::try_from(position + 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(window: u16) -> (Ledger<u32>, Instant) {
        (Ledger::new(window), Instant::now())
    }

    #[test]
    fn acknowledged_in_any_order_each_token_once() {
        let (mut ledger, now) = ledger(10);
        let ids: Vec<u16> =
            (0..4).map(|token| ledger.publish(Handshake::PubAck, token, now).unwrap()).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert_eq!(ledger.puback(2), Some(1));
        assert_eq!(ledger.puback(2), None, "a repeated PUBACK");
        assert_eq!(ledger.puback(1), Some(0));
        assert_eq!(ledger.puback(1), None);
        assert_eq!(ledger.puback(0), None);
        assert_eq!(ledger.puback(5), None, "an invented id");
        assert_eq!(ledger.open(), 2);
        assert_eq!(ledger.lost().collect::<Vec<_>>(), [2, 3]);
        assert_eq!((ledger.open(), ledger.oldest()), (0, None));
    }

    #[test]
    fn lost_session_gives_back_everything_in_order() {
        let (mut ledger, now) = ledger(100);
        for token in 0..50 {
            ledger.publish(Handshake::PubAck, token, now).unwrap();
        }
        for id in (1..=50).filter(|id| id % 3 == 0) {
            assert!(ledger.puback(id).is_some());
        }
        let again: Vec<u32> = ledger.lost().collect();
        let expected: Vec<u32> = (0..50).filter(|token| (token + 1) % 3 != 0).collect();
        assert_eq!(again, expected);
        // An acknowledgement from the old connection meets no message of the new one.
        let id = ledger.publish(Handshake::PubAck, 99, now).unwrap();
        assert_eq!(id, 51);
        assert_eq!(ledger.puback(1), None);
        assert_eq!(ledger.puback(51), Some(99));
    }

    #[test]
    fn a_withheld_acknowledgement_stops_the_sender_and_ids_are_not_reused() {
        let (mut ledger, now) = ledger(4);
        for token in 0..4 {
            ledger.publish(Handshake::PubAck, token, now).unwrap();
        }
        assert_eq!(ledger.publish(Handshake::PubAck, 9, now), Err(9));
        for id in 2..=4 {
            ledger.puback(id).unwrap();
        }
        assert!(!ledger.has_room(), "id 1 is open, the span is full");
        assert_eq!(ledger.puback(1), Some(0));
        assert!(ledger.has_room());
        assert_eq!(ledger.publish(Handshake::PubAck, 5, now), Ok(5));
    }

    #[test]
    fn ids_go_round_without_zero() {
        let (mut ledger, now) = ledger(3);
        let mut last = 0;
        for token in 0..200_000_u32 {
            let id = ledger.publish(Handshake::PubAck, token, now).unwrap();
            assert_eq!(u32::from(id), u32::from(last) % IDS + 1);
            assert_eq!(ledger.puback(id), Some(token));
            last = id;
        }
    }

    #[test]
    fn a_span_over_the_wrap_keeps_its_tokens() {
        let (mut ledger, now) = ledger(10);
        for token in 0..65_530 {
            let id = ledger.publish(Handshake::PubAck, token, now).unwrap();
            ledger.puback(id).unwrap();
        }
        let ids: Vec<u16> =
            (0..10).map(|token| ledger.publish(Handshake::PubAck, token, now).unwrap()).collect();
        assert_eq!(ids, [65_531, 65_532, 65_533, 65_534, 65_535, 1, 2, 3, 4, 5]);
        assert_eq!(ledger.puback(3), Some(7));
        assert_eq!(ledger.puback(65_531), Some(0));
        assert_eq!(ledger.lost().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 8, 9]);
    }

    #[test]
    fn qos_2_needs_the_whole_handshake() {
        let (mut ledger, now) = ledger(10);
        let id = ledger.publish(Handshake::PubRec, 7, now).unwrap();
        assert_eq!(ledger.puback(id), None);
        assert_eq!(ledger.pubcomp(id), None);
        assert!(ledger.pubrec(id));
        assert!(ledger.pubrec(id), "PUBREL is repeated");
        assert_eq!(ledger.refused(id), None, "after PUBREC the broker owns it");
        assert_eq!(ledger.pubcomp(id), Some(7));
        assert!(!ledger.pubrec(id));
        let id = ledger.publish(Handshake::PubRec, 8, now).unwrap();
        assert_eq!(ledger.refused(id), Some(8));
        let id = ledger.publish(Handshake::PubAck, 9, now).unwrap();
        assert!(!ledger.pubrec(id));
        assert_eq!(ledger.refused(id), Some(9));
    }

    #[test]
    fn random_histories_lose_and_double_nothing() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let (mut ledger, now) = ledger(50);
        let (mut next, mut resend, mut done) = (0_u32, VecDeque::new(), std::collections::BTreeSet::new());
        for _ in 0..200_000 {
            match random(100) {
                0..=59 => {
                    let token = resend.pop_front().unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    });
                    if let Err(token) = ledger.publish(Handshake::PubAck, token, now) {
                        resend.push_front(token);
                    }
                }
                60..=97 => {
                    let id = advance(ledger.first, random(60) as usize);
                    if let Some(token) = ledger.puback(id) {
                        assert!(done.insert(token), "token {token} twice");
                    }
                }
                98 => {
                    ledger.puback(random(70_000) as u16).map(|token| done.insert(token));
                }
                _ => ledger
                    .lost()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .for_each(|token| resend.push_front(token)),
            }
        }
        resend.extend(ledger.lost());
        assert_eq!(done.len() + resend.len(), next as usize);
        assert!(resend.iter().all(|token| !done.contains(token)));
        assert!(resend.iter().is_sorted(), "the order survives every loss");
    }
}
