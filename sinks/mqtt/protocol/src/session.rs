//! One connection to a broker, from CONNECT to DISCONNECT.
//!
//! A session owns its socket and is driven by its owner: [`Session::send`] appends to the write buffer and registers in
//! the [`Ledger`], [`Session::next`] writes, reads, keeps the connection alive and returns what happened. No task, no
//! channel, no reconnect: when a session is over, `next` returns the reason, and the owner decides when to connect
//! again and sends what was not confirmed once more.
//!
//! Bounds: the window of the ledger, [`MAX_OUT`] bytes waiting to be written (with room for one packet more),
//! [`MAX_EVENTS`] events not taken by the owner (reading pauses then), `MAX_INCOMING` for one incoming packet, [`MAX_REPLIES`]
//! bytes of acknowledgements beyond what is sent (reading pauses then, too: a broker that talks and never listens is lost
//! with the next ping).
//!
//! Time: a PINGREQ every `keep_alive`, whatever else is sent, because traffic in one direction proves nothing; an
//! unanswered ping or PUBLISH older than `ack_timeout` ends the session. Both are looked at four times per time-out.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::Sleep;

mod exchange;
mod handshake;

use self::exchange::Turn;
use crate::error::Error;
use crate::ledger::{Handshake, Ledger};
use crate::options::{Options, Qos, Version};
use crate::stream::Stream;
use crate::tls;
use crate::wire::{self, Front, OFFLINE, Outgoing, Packet, PublishError};

/// Bytes that may wait to be written; more is not accepted until the broker has read.
pub const MAX_OUT: usize = 256 * 1024;
/// Bytes of acknowledgements that may wait to be written, beyond messages; reading pauses until the broker has read.
pub const MAX_REPLIES: usize = 256 * 1024;
/// Events that may wait for the owner; reading pauses beyond.
pub const MAX_EVENTS: usize = 4096;
/// Brokers acknowledge a burst message by message, each in a packet of its own: reading them one by one would wake this
/// thread for each. So after a read that leaves acknowledgements open, the next read waits this long, unless the window
/// is more than half full. It delays no message and no acknowledgement timeout worth the name, commands by this much.
const READ_PAUSE: Duration = Duration::from_millis(3);
/// Read at once, bytes.
const CHUNK: usize = 16 * 1024;

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Topic without wildcards.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: Qos,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
}

/// Why a message was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// No room now: drive [`Session::next`] until [`Session::has_room`].
    Full(T),
    /// Too large for the broker or for [`Options::max_packet`]; it will never fit.
    TooLarge {
        /// The caller's token.
        token: T,
        /// Size of the packet, bytes.
        size: usize,
        /// Largest allowed packet, bytes.
        limit: usize,
    },
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The broker has the message (QoS 0: it was written to the socket).
    Delivered(T),
    /// The broker will not take the message (MQTT 5).
    Refused(T, PublishError),
    /// A message arrived on the subscription.
    Received {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Bytes,
        /// The broker had stored it.
        retained: bool,
    },
}

/// The session's own messages have no token of the caller.
type Token<T> = Option<T>;

/// A live connection; `T` is what the caller wants back when a message is confirmed.
#[derive(Debug)]
pub struct Session<T> {
    options: Options,
    stream: Stream,
    out: BytesMut,
    /// TLS has bytes of ours that are not on the socket yet.
    flush: bool,
    input: BytesMut,
    /// Bytes of an incoming message that is too large and not wanted.
    skip: usize,
    chunk: Box<[u8]>,
    ledger: Ledger<Token<T>>,
    /// How many of them are the session's own.
    own: usize,
    /// Tokens of QoS 0 messages in `out`.
    written: Vec<T>,
    events: VecDeque<Event<T>>,
    max_packet: usize,
    no_retain: bool,
    keep_alive: Duration,
    next_ping: Instant,
    ping_sent: Option<Instant>,
    tick: Pin<Box<Sleep>>,
    /// Ends the pause between two reads.
    pause: Pin<Box<Sleep>>,
    paused: bool,
    began: Instant,
    ended: Option<Error>,
}

impl<T> Session<T> {
    /// Connects, subscribes and announces `online`; everything within `limit`.
    pub async fn connect(options: &Options, limit: Duration) -> Result<Self, Error> {
        let connect = async {
            let stream = Stream::connect(options).await?;
            let mut session = Self::over(stream, options);
            session.handshake().await?;
            Ok(session)
        };
        tokio::time::timeout(limit, connect).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f64();
            Err(Error::Unreachable(format!("no answer from {} within {seconds:.1} s", options.url)))
        })
    }

    fn over(stream: Stream, options: &Options) -> Self {
        let now = Instant::now();
        Self {
            stream,
            out: BytesMut::with_capacity(CHUNK),
            flush: false,
            input: BytesMut::with_capacity(CHUNK),
            skip: 0,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            ledger: Ledger::new(options.window),
            own: 0,
            written: Vec::new(),
            events: VecDeque::new(),
            max_packet: options.max_packet,
            no_retain: false,
            keep_alive: options.keep_alive,
            next_ping: now + options.keep_alive,
            ping_sent: None,
            tick: Box::pin(tokio::time::sleep(Duration::ZERO)),
            pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
            paused: false,
            began: now,
            ended: None,
            options: options.clone(),
        }
    }

    /// Another message can be accepted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ledger.has_room() && self.out.len() < MAX_OUT
    }

    /// Messages of the caller that are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.ledger.open() - self.own + self.written.len()
    }

    /// How long this session lives, or lived.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Largest packet the broker takes, bytes.
    #[must_use]
    pub const fn max_packet(&self) -> usize {
        self.max_packet
    }

    /// Accepts a message for sending; it is written by the next [`Session::next`]. `token` comes back in an [`Event`].
    pub fn send(&mut self, message: &Message<'_>, token: T) -> Result<(), SendError<T>> {
        let size =
            wire::publish_size(self.options.version, message.qos, message.topic.len(), message.payload.len());
        if let Some(size) = size.filter(|size| *size <= self.max_packet) {
            if self.has_room() {
                self.out.reserve(size);
                self.put(message, Some(token));
                return Ok(());
            }
            return Err(SendError::Full(token));
        }
        let size = size.unwrap_or(message.payload.len());
        Err(SendError::TooLarge { token, size, limit: self.max_packet })
    }

    /// Appends a message that has the right size and for which there is room.
    fn put(&mut self, message: &Message<'_>, token: Token<T>) {
        let handshake = match message.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Handshake::PubAck),
            Qos::ExactlyOnce => Some(Handshake::PubRec),
        };
        let id = match handshake {
            None => {
                self.written.extend(token);
                0
            }
            // Room was checked; a full ledger cannot happen and would only leave a message unsent.
            Some(handshake) => match self.ledger.publish(handshake, token, Instant::now()) {
                Ok(id) => id,
                Err(_) => return,
            },
        };
        let retain = message.retain && !self.no_retain;
        let Message { topic, payload, qos, .. } = *message;
        wire::write_publish(
            &mut self.out,
            self.options.version,
            &Outgoing { topic, payload, qos, retain, id },
        );
    }

    fn announce(&mut self, payload: &str) {
        if let Some(status) = self.options.status.clone() {
            let (topic, qos) = (status.topic.as_str(), status.qos);
            self.own += usize::from(qos != Qos::AtMostOnce && self.ledger.has_room());
            self.put(&Message { topic, payload: payload.as_bytes(), qos, retain: true }, None);
        }
    }

    /// Drives the connection until something happened. Cancel safe. After an error the session is over; every further
    /// call returns the same error.
    pub async fn next(&mut self) -> Result<Event<T>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.turn().await?;
        }
    }

    /// Events that are there already, without driving the connection.
    pub fn ready(&mut self) -> Option<Event<T>> {
        self.events.pop_front()
    }

    /// Asks the broker for a sign of life and waits for it; bound it with a time-out.
    pub async fn probe(&mut self) -> Result<(), Error> {
        if self.ping_sent.is_none() {
            self.ping(Instant::now());
        }
        while self.ping_sent.is_some() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Ends the session in an orderly way within `limit`: what is on its way may still be confirmed, then `offline` is
    /// announced and DISCONNECT sent. Returns the last events.
    pub async fn close(mut self, limit: Duration) -> Vec<Event<T>> {
        let orderly = async {
            self.announce(OFFLINE);
            while self.ledger.open() + self.written.len() > 0 && self.events.len() < MAX_EVENTS {
                self.turn().await?;
            }
            wire::write_disconnect(&mut self.out);
            self.stream.write_all_buf(&mut self.out).await.map_err(|error| self.broken(&error))?;
            self.stream.shutdown().await.map_err(|error| self.broken(&error))
        };
        if let Ok(Err(error)) = tokio::time::timeout(limit, orderly).await {
            tracing::debug!(%error, "the broker did not wait for an orderly end");
        }
        self.events.into()
    }

    /// One exchange with the socket, then everything that arrived is handled.
    async fn turn(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let result = match self.exchange().await {
            Ok(Turn::Read) => {
                let handled = self.handle_input();
                self.pause_reading();
                handled
            }
            Ok(Turn::Written) => Ok(()),
            Ok(Turn::Tick) => self.look_at_the_clock(Instant::now()),
            Err(error) => Err(self.broken(&error)),
        };
        if let Err(error) = &result {
            self.ended = Some(error.clone());
        }
        result
    }

    fn handle_input(&mut self) -> Result<(), Error> {
        while let Some(packet) = self.parse()? {
            self.take(packet)?;
        }
        Ok(())
    }

    /// The next whole packet of the input.
    fn parse(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            let skipped = self.skip.min(self.input.len());
            self.input.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            match wire::front(&self.input) {
                Front::Packet => {
                    return wire::read(&mut self.input, self.options.version)
                        .map_err(|text| self.nonsense(&text));
                }
                Front::Unknown => return Ok(None),
                Front::TooLarge { length, id } => {
                    tracing::warn!(length, "a message on the subscription is too large and was ignored");
                    id.into_iter().for_each(|id| wire::write_puback(&mut self.out, id));
                    self.skip = length;
                }
            }
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), Error> {
        match packet {
            Packet::PubAck { id, error: None } => {
                let token = self.ledger.puback(id);
                self.settled(id, token, Event::Delivered);
            }
            Packet::PubComp { id } => {
                let token = self.ledger.pubcomp(id);
                self.settled(id, token, Event::Delivered);
            }
            Packet::PubRec { id, error: None } => {
                if self.ledger.pubrec(id) {
                    wire::write_pubrel(&mut self.out, id);
                }
            }
            Packet::PubAck { id, error: Some(reason) } | Packet::PubRec { id, error: Some(reason) } => {
                let token = self.ledger.refused(id);
                self.settled(id, token, |token| Event::Refused(token, reason));
            }
            Packet::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => wire::write_puback(&mut self.out, publish.id),
                    _ => return Err(self.nonsense("expected QoS 0 or 1 as subscribed, found QoS 2")),
                }
                let wire::Publish { topic, payload, retain: retained, .. } = publish;
                self.events.push_back(Event::Received { topic, payload, retained });
            }
            Packet::PingResp => self.ping_sent = None,
            Packet::Disconnect { taken_over, text } => return Err(self.told_to_go(taken_over, &text)),
            Packet::ConnAck(_) | Packet::SubAck { .. } => {
                return Err(self.nonsense("expected no second CONNACK or SUBACK"));
            }
        }
        Ok(())
    }

    fn settled(&mut self, id: u16, token: Option<Token<T>>, event: impl FnOnce(T) -> Event<T>) {
        match token {
            Some(Some(token)) => self.events.push_back(event(token)),
            Some(None) => self.own -= 1,
            None => tracing::debug!(id, "the broker acknowledged a message that does not wait for it"),
        }
    }

    fn ping(&mut self, now: Instant) {
        wire::write_ping(&mut self.out);
        self.ping_sent = Some(now);
        self.next_ping = now + self.keep_alive;
    }

    fn look_at_the_clock(&mut self, now: Instant) -> Result<(), Error> {
        self.arm(now);
        let limit = self.options.ack_timeout;
        let late = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= limit);
        if late(self.ledger.oldest()) {
            return Err(
                self.silent(&format!("no acknowledgement of a message for {} s", limit.as_secs_f64()))
            );
        }
        if late(self.ping_sent) {
            return Err(self.silent(&format!("no answer to a ping for {} s", limit.as_secs_f64())));
        }
        if now >= self.next_ping && self.ping_sent.is_none() {
            self.ping(now);
        }
        Ok(())
    }

    fn pause_reading(&mut self) {
        if self.ledger.open() > 0 && self.ledger.is_roomy() {
            self.pause.as_mut().reset(tokio::time::Instant::now() + READ_PAUSE);
            self.paused = true;
        }
    }

    fn arm(&mut self, now: Instant) {
        const FLOOR: Duration = Duration::from_millis(10);
        let step = (self.options.ack_timeout.min(self.keep_alive) / 4).max(FLOOR);
        self.tick.as_mut().reset((now + step).into());
    }

    fn nonsense(&self, found: &str) -> Error {
        let hint = if self.options.version == Version::V5 { " (does this broker speak MQTT 5?)" } else { "" };
        Error::Nonsense(format!("{} sent what MQTT does not allow: {found}{hint}", self.options.url))
    }

    fn silent(&self, what: &str) -> Error {
        Error::Lost(format!("{} fell silent: {what}", self.options.url))
    }

    fn told_to_go(&self, taken_over: bool, text: &str) -> Error {
        let url = &self.options.url;
        if taken_over {
            let id = &self.options.client_id;
            return Error::TakenOver(format!(
                "{url} gave the session to another client with the client id {id}"
            ));
        }
        Error::Closed(format!("{url} ended the session: {text}"))
    }

    fn broken(&self, error: &io::Error) -> Error {
        let url = &self.options.url;
        if let Some(alert) = tls::late_alert(error) {
            return Error::Certificate(format!(
                "{url} ended TLS with {alert}: does it ask for a client certificate (tls.cert, tls.key) that it knows?"
            ));
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Error::Closed(format!("{url} closed the connection"))
            }
            _ => Error::Lost(format!("the connection to {url} broke: {error}")),
        }
    }
}
