//! The controlled station: what masters see of the gateway, without I/O.
//!
//! Bytes and events go in, [`Output`]s come out. Every connection belongs to a *lane*: a master on its own, or a
//! redundancy group in which one connection is started and the others stand by (IEC 60870-5-104, clause 10). Events are
//! kept per lane until they are acknowledged, so they survive any connection.
//!
//! Invariants:
//! - Of one lane at most one connection is started; a second STARTDT makes the first stand by.
//! - Events of a lane leave in their order and are confirmed to the host only when the master acknowledged them.
//! - Confirmations go first, then events and interrogations by turns; so an interrogation delays no event by more than
//!   one ASDU, and no number of events starves an interrogation.
//! - The image is updated before an event is queued: an interrogated value is never older than an event that was sent.
//!
//! Bounds: `event_buffer` per lane, `MAX_ANSWERS` and `MAX_JOBS` per connection, `k` ASDUs under way, less than one
//! frame of unread bytes, one state per command point. How many connections there are is the caller's to bound.

mod commands;
mod config;
mod connection;
mod image;
mod interrogation;
mod lane;
mod requests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub use commands::{Action, Progress, Refusal, Request};
pub use config::{Answer, CommandPoint, Config, ConfigError, Lane, MAX_COMMON_ADDRESSES, Point, SelectMode};

use crate::apci::{self, ApciError, Decoded};
use crate::asdu::{
    Asdu, AsduError, Cause, Element, Header, Object, Reason, Stamp, Tag, TypeId, WrongElement,
};
use crate::link::{Fault, Input, Output as LinkOutput, Phase};
use commands::{Commands, Effect};
use connection::{Connection, Flight};
use image::Image;
use interrogation::Part;
use lane::{Entry, Events};

/// A connection, named by the caller. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The moment of a call.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Counts from any fixed moment, never back.
    pub elapsed: Duration,
    /// The wall clock, with the zone that time tags are in; `invalid` while it is not synchronised.
    pub utc: Stamp,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Bytes that are no frame.
    #[error(transparent)]
    Apci(#[from] ApciError),
    /// A frame that has no readable ASDU.
    #[error(transparent)]
    Asdu(AsduError),
    /// The link is over.
    #[error(transparent)]
    Link(#[from] Fault),
    /// Requests without end.
    #[error("more than {} requests wait for acknowledgements of this master", connection::MAX_ANSWERS)]
    Flood,
}

/// What the log may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Answered with 44 to 47.
    Unknown {
        /// Which of them.
        reason: Reason,
        /// Of the request.
        header: Header,
    },
    /// Answered with a negative confirmation.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Of the request.
        header: Header,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Write these bytes.
    Transmit {
        /// Where.
        connection: ConnectionId,
        /// One frame.
        bytes: Vec<u8>,
    },
    /// Close the connection; the station has forgotten it.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Transfer began.
    Started {
        /// Which.
        connection: ConnectionId,
        /// Its lane.
        lane: usize,
    },
    /// Transfer ended: by STOPDT, or because another connection of the group was started.
    Stopped {
        /// Which.
        connection: ConnectionId,
        /// Its lane.
        lane: usize,
    },
    /// The master has every event up to this record, but those that were dropped.
    Confirmed {
        /// Lane.
        lane: usize,
        /// Number of the host.
        record: u64,
    },
    /// An event of this record had to go because the buffer was full.
    Dropped {
        /// Lane.
        lane: usize,
        /// Number of the host.
        record: u64,
    },
    /// A command for the host.
    Command(Request),
    /// A master sent the time; positive means that its clock is ahead of ours.
    Clock {
        /// Who.
        connection: ConnectionId,
        /// Nanoseconds.
        ahead_ns: i64,
    },
    /// A reset of process was confirmed.
    Reset {
        /// Who.
        connection: ConnectionId,
        /// QRP.
        qualifier: u8,
    },
    /// Something was refused.
    Note {
        /// Who asked.
        connection: ConnectionId,
        /// What.
        note: Note,
    },
}

/// An event for a lane.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Number of the host; not less than that of the event before. Several events may share one.
    pub record: u64,
    /// Place in [`Config::points`].
    pub point: usize,
    /// Value, of the point's type.
    pub element: Element,
    /// When.
    pub stamp: Stamp,
    /// Spontaneous, background, return information.
    pub reason: Reason,
    /// T of the cause of transmission.
    pub test: bool,
}

/// A controlled station.
#[derive(Debug)]
pub struct Station {
    config: Config,
    image: Image,
    lanes: Vec<Events>,
    connections: BTreeMap<ConnectionId, Connection>,
    commands: Commands,
    command_index: HashMap<(u16, u32), usize>,
    /// Originator of what is sent without being asked.
    originator: u8,
}

impl Station {
    /// A station whose points have no value yet: all invalid and not topical.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, Vec<ConfigError>> {
        let errors = config.check();
        if !errors.is_empty() {
            return Err(errors);
        }
        let index = |(place, point): (usize, &CommandPoint)| ((point.common_address, point.ioa), place);
        Ok(Self {
            image: Image::new(&config),
            lanes: config.lanes.iter().map(|_| Events::new(config.event_buffer)).collect(),
            connections: BTreeMap::new(),
            commands: Commands::default(),
            command_index: config.commands.iter().enumerate().map(index).collect(),
            originator: 0,
            config,
        })
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Events that wait or are under way in a lane.
    #[must_use]
    pub fn pending(&self, lane: usize) -> usize {
        self.lanes.get(lane).map_or(0, Events::len)
    }

    /// Events that a lane takes before it drops.
    #[must_use]
    pub fn room(&self, lane: usize) -> usize {
        self.lanes.get(lane).map_or(0, Events::room)
    }

    /// Events that a lane dropped so far.
    #[must_use]
    pub fn dropped(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, |events| events.dropped)
    }

    /// The started connection of a lane.
    #[must_use]
    pub fn started(&self, lane: usize) -> Option<ConnectionId> {
        self.lanes.get(lane).and_then(|events| events.started)
    }

    /// A connection of a lane was made. `false`: there is no such lane, or the id is in use.
    pub fn opened(&mut self, now: Now, connection: ConnectionId, lane: usize) -> bool {
        if lane >= self.lanes.len() || self.connections.contains_key(&connection) {
            return false;
        }
        let new = Connection::new(connection, lane, self.config.link, now.elapsed);
        self.connections.insert(connection, new);
        true
    }

    /// A connection ended by itself.
    pub fn closed(&mut self, now: Now, connection: ConnectionId, out: &mut Vec<Output>) {
        if let Some(connection) = self.connections.remove(&connection) {
            self.ended(now, &connection, out);
        }
    }

    /// Bytes came.
    pub fn received(&mut self, now: Now, connection: ConnectionId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(mut connection) = self.connections.remove(&connection) else { return };
        let mut stream = std::mem::take(&mut connection.stream);
        stream.extend_from_slice(bytes);
        let result = self.frames(now, &mut connection, &mut stream, out);
        connection.stream = stream;
        self.settle(now, connection, result, out);
    }

    /// A point has a new value. Give it before the events that tell of it.
    ///
    /// # Errors
    /// The element is not of the point's type, or there is no such point.
    pub fn update(&mut self, point: usize, element: Element, test: bool) -> Result<(), WrongElement> {
        if self.image.update(point, element, test)? { Ok(()) } else { Err(WrongElement(element)) }
    }

    /// A point is not shown in interrogations until its next update.
    pub fn suppress(&mut self, point: usize) {
        self.image.suppress(point);
    }

    /// Queues an event; [`Station::flush`] sends it, so that the events of one batch share ASDUs.
    ///
    /// # Errors
    /// The element is not of the point's type, or there is no such point. Nothing was queued.
    pub fn event(&mut self, lane: usize, event: Event, out: &mut Vec<Output>) -> Result<(), WrongElement> {
        let wrong = WrongElement(event.element);
        self.image.fits(event.point, event.element)?;
        let Some(point) = self.image.point(event.point) else { return Err(wrong) };
        let Some(events) = self.lanes.get_mut(lane) else { return Err(wrong) };
        let tag = lane::tag(point.type_id, event.stamp);
        let entry = Entry {
            record: event.record,
            type_id: point.type_id,
            common_address: point.common_address,
            object: Object { ioa: point.ioa, element: event.element, tag },
            reason: event.reason,
            test: event.test,
        };
        if let Some(record) = events.push(entry) {
            out.push(Output::Dropped { lane, record });
        }
        Ok(())
    }

    /// Sends what there is room for.
    pub fn flush(&mut self, now: Now, out: &mut Vec<Output>) {
        let started: Vec<ConnectionId> = self.lanes.iter().filter_map(|events| events.started).collect();
        for id in started {
            if let Some(mut connection) = self.connections.remove(&id) {
                self.pump(now, &mut connection, out);
                self.connections.insert(id, connection);
            }
        }
    }

    /// The host's answer to a command.
    pub fn progress(&mut self, now: Now, id: u64, progress: Progress, out: &mut Vec<Output>) {
        let mut effects = Vec::new();
        self.commands.progress(now.elapsed, &self.config, id, progress, &mut effects);
        self.apply(None, effects, out);
        self.flush(now, out);
    }

    /// Time went on; due at [`Station::deadline`].
    pub fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut effects = Vec::new();
        self.commands.tick(now.elapsed, &self.config, &mut effects);
        self.apply(None, effects, out);
        let due = |c: &&Connection| c.link.deadline().is_some_and(|at| at <= now.elapsed);
        let due: Vec<ConnectionId> = self.connections.values().filter(due).map(|c| c.id).collect();
        for id in due {
            let Some(mut connection) = self.connections.remove(&id) else { continue };
            let mut outputs = Vec::new();
            connection.link.step(now.elapsed, Input::Tick, &mut outputs);
            let result = self.link(now, &mut connection, outputs, out);
            self.settle(now, connection, result, out);
        }
        self.flush(now, out);
    }

    /// When the next tick is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let links = self.connections.values().filter_map(|connection| connection.link.deadline());
        links.chain(self.commands.deadline()).min()
    }

    fn frames(
        &mut self,
        now: Now,
        connection: &mut Connection,
        stream: &mut Vec<u8>,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let mut read = 0;
        while let Decoded::Frame { apdu, used } = apci::decode(stream.get(read..).unwrap_or_default())? {
            read += used;
            let mut outputs = Vec::new();
            connection.link.step(now.elapsed, Input::Frame(apdu), &mut outputs);
            self.link(now, connection, outputs, out)?;
            self.pump(now, connection, out);
        }
        stream.drain(..read);
        Ok(())
    }

    fn link(
        &mut self,
        now: Now,
        connection: &mut Connection,
        outputs: Vec<LinkOutput>,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let (id, lane) = (connection.id, connection.lane);
        for output in outputs {
            match output {
                LinkOutput::Transmit(bytes) => out.push(Output::Transmit { connection: id, bytes }),
                LinkOutput::Deliver(asdu) => self.request(now, connection, &asdu, out)?,
                LinkOutput::Acknowledged(count) => self.acknowledged(connection, count, out),
                LinkOutput::Started => self.start(now, connection, out)?,
                LinkOutput::Stopped => {
                    self.stop(now, connection, out);
                    out.push(Output::Stopped { connection: id, lane });
                }
                LinkOutput::Close(fault) => return Err(fault.into()),
            }
        }
        Ok(())
    }

    /// Keeps the connection, or ends it.
    fn settle(
        &mut self,
        now: Now,
        connection: Connection,
        result: Result<(), CloseReason>,
        out: &mut Vec<Output>,
    ) {
        match result {
            Ok(()) => {
                self.connections.insert(connection.id, connection);
            }
            Err(reason) => {
                self.ended(now, &connection, out);
                out.push(Output::Close { connection: connection.id, reason });
            }
        }
    }

    fn ended(&mut self, now: Now, connection: &Connection, out: &mut Vec<Output>) {
        if let Some(events) = self.lanes.get_mut(connection.lane).filter(|e| e.started == Some(connection.id))
        {
            events.rewind();
        }
        let mut effects = Vec::new();
        self.commands.gone(now.elapsed, &self.config, connection.id, &mut effects);
        self.apply(None, effects, out);
    }

    fn stop(&mut self, now: Now, connection: &mut Connection, out: &mut Vec<Output>) {
        connection.stop();
        self.ended(now, connection, out);
    }

    fn start(
        &mut self,
        now: Now,
        connection: &mut Connection,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let (id, lane) = (connection.id, connection.lane);
        let before = self.started(lane).filter(|other| *other != id);
        if let Some(mut other) = before.and_then(|other| self.connections.remove(&other)) {
            let mut outputs = Vec::new();
            other.link.step(now.elapsed, Input::StandBy, &mut outputs);
            transmit(other.id, outputs, out);
            self.stop(now, &mut other, out);
            out.push(Output::Stopped { connection: other.id, lane });
            self.connections.insert(other.id, other);
        }
        let Some(events) = self.lanes.get_mut(lane) else { return Ok(()) };
        // A STOPDT that was taken back before its confirmation ended nothing.
        if events.started.replace(id) != Some(id) {
            out.push(Output::Started { connection: id, lane });
        }
        if self.config.end_of_initialisation && !std::mem::replace(&mut events.initialised, true) {
            for common_address in &self.image.common_addresses {
                let cause = Cause::new(Reason::INITIALISED, self.originator);
                let object = Object { ioa: 0, element: Element::Initialised(0), tag: Tag::None };
                if let Ok(asdu) = Asdu::single(TypeId::M_EI_NA_1, cause, *common_address, object) {
                    connection.answer(asdu)?;
                }
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, connection: &mut Connection, count: usize, out: &mut Vec<Output>) {
        let lane = connection.lane;
        for _ in 0..count {
            let Some(Flight::Events(events)) = connection.flight.pop_front() else { continue };
            let confirmed = self.lanes.get_mut(lane).and_then(|lane| lane.confirm(events));
            if let Some(record) = confirmed {
                out.push(Output::Confirmed { lane, record });
            }
        }
    }

    fn pump(&mut self, now: Now, connection: &mut Connection, out: &mut Vec<Output>) {
        while connection.link.room() > 0 {
            let Some((asdu, flight)) = self.next(connection) else { return };
            let mut outputs = Vec::new();
            if !connection.link.send(now.elapsed, &asdu, &mut outputs) {
                return;
            }
            connection.flight.push_back(flight);
            transmit(connection.id, outputs, out);
        }
    }

    /// The next ASDU of a started connection.
    fn next(&mut self, connection: &mut Connection) -> Option<(Vec<u8>, Flight)> {
        if let Some(asdu) = connection.answers.pop_front() {
            return Some((asdu, Flight::Other));
        }
        let interrogate = connection.turn;
        connection.turn = !connection.turn;
        if interrogate && let Some(part) = self.interrogated(connection) {
            return Some(part);
        }
        let events = self.lanes.get_mut(connection.lane)?;
        match events.next(self.originator) {
            Some((asdu, count)) => Some((asdu, Flight::Events(count))),
            None => self.interrogated(connection),
        }
    }

    fn interrogated(&self, connection: &mut Connection) -> Option<(Vec<u8>, Flight)> {
        let job = connection.jobs.front_mut()?;
        let asdu = match job.next(&self.image) {
            Part::Data(asdu) => asdu,
            Part::Last(asdu) => {
                connection.jobs.pop_front();
                asdu
            }
        };
        Some((asdu, Flight::Other))
    }

    /// Hands out what the commands want; `current` is the connection that is being worked on.
    fn apply(&mut self, mut current: Option<&mut Connection>, effects: Vec<Effect>, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Ask(request) => out.push(Output::Command(request)),
                Effect::Answer(id, asdu) => {
                    let connection = match current.as_deref_mut() {
                        Some(connection) if connection.id == id => Some(connection),
                        _ => self.connections.get_mut(&id),
                    };
                    // Bounded by the commands under way; with a full queue the master is about to be cut off.
                    if let Some(connection) = connection.filter(|c| c.link.phase() == Phase::Started) {
                        let _ = connection.answer(asdu);
                    }
                }
            }
        }
    }
}

/// Hands out the frames among the outputs of a link.
fn transmit(connection: ConnectionId, outputs: Vec<LinkOutput>, out: &mut Vec<Output>) {
    out.extend(outputs.into_iter().filter_map(|output| match output {
        LinkOutput::Transmit(bytes) => Some(Output::Transmit { connection, bytes }),
        _ => None,
    }));
}
