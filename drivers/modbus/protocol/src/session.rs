//! One owner of one connection, for all units behind it.
//!
//! The session keeps one promise above all: a value it returns belongs to the request it was asked for.
//!
//! * Modbus TCP: every answer carries the number of its request; after any time-out, cancel or protocol
//!   error the connection is dropped and the next request opens a new one, which late answers cannot reach.
//! * RTU over TCP: the same, and because a serial server may deliver a late answer into the new connection,
//!   also what serial lines need.
//! * Serial: after a disturbance the input is discarded until the line is silent, and requests that were
//!   given up are put to rest as described in [`crate::memory`] before the unit is asked again.
//!
//! Dropping a future of this session in the middle is safe: the next call finds the exchange open and
//! treats it like a time-out. Reads are repeated (`retries`), writes never.

mod rest;

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_modbus::Slave;
use tokio_modbus::client::{Client, Context, rtu, tcp};

use crate::call::{Answer, Call};
use crate::error::{Error, Exception};
use crate::line::{Armed, Line};
use crate::link::{BoxStream, Connect};
use crate::memory::LineMemory;
use crate::tap::{FrameLog, Tap};

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Modbus TCP: MBAP header with a transaction number.
    Tcp,
    /// RTU frames in a TCP connection.
    RtuOverTcp,
    /// RTU frames on a serial line.
    Serial,
}

/// Times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the request to the complete answer.
    pub response_timeout: Duration,
    /// Repetitions of an unanswered read.
    pub retries: u32,
    /// Silence before a frame on a serial line; zero elsewhere.
    pub frame_gap: Duration,
}

impl Timing {
    /// Retries on TCP, which repeats lost segments by itself.
    pub const TCP_RETRIES: u32 = 0;
    /// Retries on a serial line, where a disturbed frame is an everyday event.
    pub const SERIAL_RETRIES: u32 = 2;
}

/// What a session has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Exceptions received.
    pub refusals: u64,
    /// Answers that broke the protocol.
    pub nonsense: u64,
    /// Connections opened.
    pub connections: u64,
    /// Echo requests that put older requests to rest.
    pub echoes: u64,
}

enum Open {
    Tcp { client: Box<dyn Client>, used: bool },
    Rtu { client: Box<dyn Client>, line: Line, used: bool },
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp { .. } => "Tcp",
            Self::Rtu { .. } => "Rtu",
        })
    }
}

/// One connection and everything that is known about it.
#[derive(Debug)]
pub struct Session {
    connect: Box<dyn Connect>,
    carrier: Carrier,
    timing: Timing,
    memory: LineMemory,
    frame_log: FrameLog,
    open: Option<Open>,
    /// Set while a request is on its way: found set, the last call was dropped in the middle.
    in_flight: bool,
    /// The last call's own request left for the device, whatever became of it.
    left: bool,
    counters: Counters,
}

enum Outcome {
    Answered(Answer),
    Refused(Exception),
    Silent,
    Nonsense(String, String),
    Broken(io::Error),
}

impl Session {
    /// A session that will open its connection with the first request.
    #[must_use]
    pub fn new(connect: Box<dyn Connect>, carrier: Carrier, timing: Timing) -> Self {
        Self {
            connect,
            carrier,
            timing,
            memory: LineMemory::default(),
            frame_log: FrameLog::default(),
            open: None,
            in_flight: false,
            left: false,
            counters: Counters::default(),
        }
    }

    /// Uses the memory of the line from an earlier session, so that its open requests are not forgotten.
    #[must_use]
    pub fn with_memory(mut self, memory: LineMemory) -> Self {
        self.memory = memory;
        self
    }

    /// Frames are logged while this switch is on.
    #[must_use]
    pub fn with_frame_log(mut self, frame_log: FrameLog) -> Self {
        self.frame_log = frame_log;
        self
    }

    /// The switch for frame logging.
    #[must_use]
    pub const fn frame_log(&self) -> &FrameLog {
        &self.frame_log
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// True where the last call sent its request, so that a write may have been executed although it failed.
    #[must_use]
    pub const fn request_left(&self) -> bool {
        self.left
    }

    /// The peer, for messages.
    #[must_use]
    pub fn peer(&self) -> String {
        self.connect.peer()
    }

    /// Changes time-outs and retries for the requests to come (they may differ per device).
    pub const fn set_timing(&mut self, response_timeout: Duration, retries: u32) {
        self.timing.response_timeout = response_timeout;
        self.timing.retries = retries;
    }

    /// Opens the connection if it is not open.
    ///
    /// # Errors
    /// [`Error::SessionOver`] with the reason.
    pub async fn open(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.in_flight) {
            self.give_up();
        }
        if self.open.is_some() {
            return Ok(());
        }
        let stream = self.connect.connect().await.map_err(|error| self.over(&error))?;
        self.counters.connections += 1;
        let stream: BoxStream =
            Box::new(Tap::new(stream, self.frame_log.clone(), self.carrier == Carrier::Tcp));
        self.open = Some(match self.carrier {
            Carrier::Tcp => Open::Tcp { client: boxed(tcp::attach_slave(stream, Slave(0))), used: false },
            Carrier::RtuOverTcp | Carrier::Serial => {
                let line = Line::new(stream);
                // Whatever a line delivers right after opening was not asked for by this session.
                line.soil();
                Open::Rtu { client: boxed(rtu::attach_slave(line.clone(), Slave(0))), line, used: false }
            }
        });
        Ok(())
    }

    /// Closes the connection; the next request opens it again.
    pub fn close(&mut self) {
        self.open = None;
        self.in_flight = false;
    }

    /// Reads bits or registers; repeated up to `retries` times when there is no answer.
    ///
    /// # Errors
    /// [`Error`], sorted by consequence.
    pub async fn call(&mut self, unit: u8, call: &Call<'_>) -> Result<Answer, Error> {
        self.left = false;
        call.check()?;
        let mut attempt = 0;
        let budget = Instant::now() + self.timing.response_timeout * self.timing.retries.saturating_add(1);
        loop {
            let fresh = !self.was_used();
            let error = match self.attempt(unit, call, budget).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again = call.is_read()
                && match &error {
                    Error::NoAnswer { .. } => attempt < self.timing.retries,
                    // A disturbed frame on a line is repeated like a lost one.
                    Error::Nonsense { .. } => {
                        self.carrier == Carrier::Serial && attempt < self.timing.retries
                    }
                    // Devices close idle connections; that says nothing before a new one failed too.
                    Error::SessionOver { .. } => !fresh,
                    Error::Refused { .. } | Error::NotSent(_) => false,
                };
            if !again {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Reads registers.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_words(
        &mut self,
        unit: u8,
        table: crate::Table,
        start: u16,
        count: u16,
    ) -> Result<Vec<u16>, Error> {
        match self.call(unit, &Call::Read { table, start, count }).await? {
            Answer::Words(words) => Ok(words),
            _ => Err(Error::NotSent(format!("table {table} holds no registers"))),
        }
    }

    /// Reads bits; the answer may be up to seven bits longer than asked.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_bits(
        &mut self,
        unit: u8,
        table: crate::Table,
        start: u16,
        count: u16,
    ) -> Result<Vec<bool>, Error> {
        match self.call(unit, &Call::Read { table, start, count }).await? {
            Answer::Bits(bits) => Ok(bits),
            _ => Err(Error::NotSent(format!("table {table} holds no bits"))),
        }
    }

    fn was_used(&self) -> bool {
        match &self.open {
            Some(Open::Tcp { used, .. } | Open::Rtu { used, .. }) => *used,
            None => false,
        }
    }

    async fn attempt(&mut self, unit: u8, call: &Call<'_>, budget: Instant) -> Result<Answer, Error> {
        self.open().await?;
        let function = call.function();
        let after = self.timing.response_timeout;
        let mut must_be_followed_by_silence = false;
        if let Some(line) = self.line() {
            self.settle(&line).await?;
            must_be_followed_by_silence = self.put_to_rest(&line, unit, function, budget).await?;
            line.arm(Armed { expect: call.expect(unit), late: self.memory.late() });
            self.keep_distance(&line).await;
            self.memory.sent(unit, function);
        }
        self.counters.requests += 1;
        self.left = true;
        let started = Instant::now();
        let outcome = self.exchange(unit, call).await;
        self.count_late();
        if must_be_followed_by_silence && matches!(outcome, Outcome::Answered(_) | Outcome::Refused(_)) {
            self.expect_silence(unit, function).await?;
        }
        match outcome {
            Outcome::Answered(answer) => {
                self.answered(unit, started.elapsed()).await;
                Ok(answer)
            }
            Outcome::Refused(exception) => {
                self.counters.refusals += 1;
                self.answered(unit, started.elapsed()).await;
                Err(Error::Refused { unit, function, exception })
            }
            Outcome::Silent => {
                self.counters.timeouts += 1;
                let noise = self.line().and_then(|line| line.leftover());
                let detail = noise.map(|bytes| format!("; received {bytes}")).unwrap_or_default();
                self.give_up();
                Err(Error::NoAnswer { unit, function, after, detail })
            }
            Outcome::Nonsense(expected, found) => {
                self.counters.nonsense += 1;
                self.memory.damaged(unit);
                self.give_up();
                Err(Error::Nonsense { unit, function, expected, found })
            }
            Outcome::Broken(error) => {
                self.open = None;
                Err(self.broken_off(&error))
            }
        }
    }

    async fn exchange(&mut self, unit: u8, call: &Call<'_>) -> Outcome {
        let Some(Open::Tcp { client, used } | Open::Rtu { client, used, .. }) = &mut self.open else {
            return Outcome::Broken(io::ErrorKind::NotConnected.into());
        };
        client.set_slave(Slave(unit));
        self.in_flight = true;
        let result = timeout(self.timing.response_timeout, client.call(call.request())).await;
        self.in_flight = false;
        *used = true;
        match result {
            Err(_) => Outcome::Silent,
            Ok(Ok(Ok(response))) => match call.verify(response) {
                Ok(answer) => Outcome::Answered(answer),
                Err((expected, found)) => Outcome::Nonsense(expected, found),
            },
            Ok(Ok(Err(exception))) => Outcome::Refused(Exception(exception.into())),
            Ok(Err(error)) => self.broken(call, error),
        }
    }

    fn broken(&self, call: &Call<'_>, error: tokio_modbus::Error) -> Outcome {
        let expected = format!("the answer to function {}", call.function());
        if let Some(fault) = self.line().and_then(|line| line.fault()) {
            return Outcome::Nonsense(expected, fault);
        }
        match error {
            tokio_modbus::Error::Protocol(error) => {
                let mut text = error.to_string();
                text.truncate(text.char_indices().nth(200).map_or(text.len(), |(index, _)| index));
                Outcome::Nonsense(expected, text)
            }
            tokio_modbus::Error::Transport(error) if error.kind() == io::ErrorKind::InvalidData => {
                Outcome::Nonsense(expected, error.to_string())
            }
            tokio_modbus::Error::Transport(error) => Outcome::Broken(error),
        }
    }

    /// After a time-out, a cancel or nonsense: nothing that is still under way may reach a later request.
    fn give_up(&mut self) {
        match (&mut self.open, self.carrier) {
            (Some(Open::Rtu { client, line, .. }), Carrier::Serial) => {
                *client = boxed(rtu::attach_slave(line.clone(), Slave(0)));
                line.soil();
            }
            _ => self.open = None,
        }
    }

    fn line(&self) -> Option<Line> {
        match &self.open {
            Some(Open::Rtu { line, .. }) => Some(line.clone()),
            _ => None,
        }
    }

    fn lost(&mut self, error: &io::Error) -> Error {
        self.open = None;
        self.over(error)
    }

    fn over(&self, error: &io::Error) -> Error {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => CLOSED.to_owned(),
            _ => error.to_string(),
        };
        Error::SessionOver { peer: self.connect.peer(), reason }
    }

    /// The connection broke during an exchange. tokio-modbus reports the end of a TCP stream as the last error number
    /// of the system, whatever that was, so only numbers that can come from a connection are believed.
    fn broken_off(&self, error: &io::Error) -> Error {
        let believed = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        );
        if believed || self.carrier == Carrier::Serial {
            return self.over(error);
        }
        Error::SessionOver { peer: self.connect.peer(), reason: CLOSED.to_owned() }
    }
}

const CLOSED: &str = "the peer closed the connection";

fn boxed(context: Context) -> Box<dyn Client> {
    context.into()
}
