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

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::Slave;
use tokio_modbus::client::{Client, Context, rtu, tcp};

use crate::call::{Answer, Call};
use crate::error::{Error, Exception};
use crate::line::{Armed, Line};
use crate::link::{BoxStream, Connect};
use crate::memory::{Before, Echo, LineMemory};
use crate::rtu::{DIAGNOSTICS, Expect, seal};
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

/// A line counts as silent after this long without a byte. More than 3.5 characters at any usual speed,
/// because USB converters deliver in chunks of up to 16 ms.
const SILENCE: Duration = Duration::from_millis(50);
/// A unit that answered in time `t` is given `4 t`, at least this, to show whether it knows function 8.
const LEARN_AT_LEAST: Duration = Duration::from_millis(200);

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
        let stream: BoxStream = Box::new(Tap::new(stream, self.frame_log.clone()));
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
                Err(self.over(&error))
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

    /// A good exchange: nothing of the unit is open. Afterwards, once per unit, learn about function 8.
    async fn answered(&mut self, unit: u8, took: Duration) {
        let Some(line) = self.line() else { return };
        self.memory.settled(unit);
        if self.memory.echo(unit) != Echo::Unknown || unit == 0 {
            return;
        }
        let patience = (took * 4).max(LEARN_AT_LEAST).min(self.timing.response_timeout);
        match self.echo(&line, unit, patience).await {
            Ok(true) => {}
            Ok(false) => self.memory.echo_is_unknown(unit),
            Err(_) => {
                self.memory.echo_is_unknown(unit);
                self.open = None;
            }
        }
    }

    /// Waits for the silent interval before a frame. A timer rounds up to its next tick, so none is set without need.
    async fn keep_distance(&mut self, line: &Line) {
        let from = line.quiet_since() + self.timing.frame_gap;
        if from > Instant::now() {
            sleep_until(from).await;
        }
    }

    /// Makes sure that no older request of this unit can be answered any more, within `budget`. `true`: only
    /// silence after the next answer proves it.
    async fn put_to_rest(
        &mut self,
        line: &Line,
        unit: u8,
        function: u8,
        budget: Instant,
    ) -> Result<bool, Error> {
        match self.memory.before(unit, self.timing.response_timeout) {
            Before::Nothing => Ok(false),
            Before::Silence(until) => {
                let owed = self.wait_out(line, unit, function, until, budget).await?;
                Ok(owed)
            }
            Before::Echo => {
                self.ask_for_echo(line, unit, function).await?;
                let until = self.memory.wait_out(unit, self.timing.response_timeout);
                if let Some(until) = until.filter(|_| self.carrier == Carrier::Serial) {
                    self.wait_out(line, unit, function, until, budget).await?;
                }
                self.memory.settled(unit);
                Ok(false)
            }
        }
    }

    async fn ask_for_echo(&mut self, line: &Line, unit: u8, function: u8) -> Result<(), Error> {
        let after = self.timing.response_timeout;
        self.counters.echoes += 1;
        match self.echo(line, unit, after).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.memory.echo_failed(unit);
                self.counters.timeouts += 1;
                self.give_up();
                let detail = "; it was asked whether it is there again (function 8)".to_owned();
                Err(Error::NoAnswer { unit, function, after, detail })
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.counters.nonsense += 1;
                self.give_up();
                let expected = "the answer to function 8".to_owned();
                Err(Error::Nonsense { unit, function, expected, found: error.to_string() })
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Listens until then, or until every answer this unit owes has come. `true`: something is still owed.
    /// A wait that does not fit into the budget is not begun: other units need the line.
    async fn wait_out(
        &mut self,
        line: &Line,
        unit: u8,
        function: u8,
        until: Instant,
        budget: Instant,
    ) -> Result<bool, Error> {
        if until > budget {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let detail = format!("; its late answer is waited for, {left} ms more");
            return Err(Error::NoAnswer { unit, function, after: self.timing.response_timeout, detail });
        }
        let memory = self.memory.clone();
        let mut settled = false;
        self.in_flight = true;
        let listened = line
            .listen_until(until, &self.memory.late(), |of, function| {
                settled |= memory.came_late(of, function) && of == unit;
                settled
            })
            .await;
        self.in_flight = false;
        listened.map_err(|error| self.lost(&error))?;
        Ok(!settled)
    }

    /// Sends "return query data"; `false` when nothing came in time.
    async fn echo(&mut self, line: &Line, unit: u8, patience: Duration) -> io::Result<bool> {
        let nonce = self.memory.echo_sent(unit);
        let [high, low] = nonce.to_be_bytes();
        let mut frame = vec![unit, DIAGNOSTICS, 0, 0, high, low];
        seal(&mut frame);
        self.keep_distance(line).await;
        let armed = Armed { expect: Expect::echo(unit, nonce), late: self.memory.late() };
        self.in_flight = true;
        self.counters.requests += 1;
        let result = timeout(patience, line.exchange(&frame, armed)).await;
        self.in_flight = false;
        self.count_late();
        match result {
            Err(_) => {
                line.soil();
                Ok(false)
            }
            Ok(Ok(())) => {
                self.memory.echo_answered(unit);
                Ok(true)
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// Takes note of the late answers that were skipped during an exchange.
    fn count_late(&self) {
        for (unit, function) in self.line().map(|line| line.take_late()).unwrap_or_default() {
            self.memory.came_late(unit, function);
        }
    }

    /// Nothing may follow the answer, or it was the late answer to an older request.
    async fn expect_silence(&mut self, unit: u8, function: u8) -> Result<(), Error> {
        let Some(line) = self.line() else { return Ok(()) };
        self.in_flight = true;
        let end = Instant::now() + self.timing.response_timeout;
        let listened = line.listen_until(end, &[], |_, _| false).await;
        self.in_flight = false;
        match listened {
            Ok(0) if !line.is_dirty() => Ok(()),
            Ok(_) => {
                self.counters.nonsense += 1;
                self.give_up();
                let expected = "silence after the answer".to_owned();
                let found = "more bytes; the value may belong to an earlier request".to_owned();
                Err(Error::Nonsense { unit, function, expected, found })
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Lets a line that delivered something unexpected fall silent.
    async fn settle(&mut self, line: &Line) -> Result<(), Error> {
        if !line.is_dirty() {
            return Ok(());
        }
        let silence = SILENCE.max(self.timing.frame_gap);
        let at_most = self.timing.response_timeout.max(SILENCE * 2);
        let discarded = line.discard(silence, at_most, &self.memory.late()).await;
        let discarded = discarded.map_err(|error| self.lost(&error))?;
        self.count_late();
        if discarded > 0 {
            tracing::debug!(discarded, "bytes nobody waited for were discarded");
        }
        Ok(())
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
        // tokio-modbus reports the end of a stream as the last error number of the system, whatever that was.
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                "the peer closed the connection".to_owned()
            }
            _ if error.raw_os_error() == Some(0) => "the peer closed the connection".to_owned(),
            io::ErrorKind::WouldBlock | io::ErrorKind::NotFound if self.carrier != Carrier::Serial => {
                "the peer closed the connection".to_owned()
            }
            _ => error.to_string(),
        };
        Error::SessionOver { peer: self.connect.peer(), reason }
    }
}

fn boxed(context: Context) -> Box<dyn Client> {
    context.into()
}
