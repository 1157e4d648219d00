//! What a session does on an RTU line so that a late answer is never taken for the next one. The reasons are in
//! [`crate::memory`].

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::{Carrier, Session};
use crate::error::Error;
use crate::line::{Armed, Line};
use crate::memory::{Before, Echo};
use crate::rtu::{DIAGNOSTICS, Expect, seal};

/// A line counts as silent after this long without a byte. More than 3.5 characters at any usual speed,
/// because USB converters deliver in chunks of up to 16 ms.
const SILENCE: Duration = Duration::from_millis(50);
/// A unit that answered in time `t` is given `4 t`, at least this, to show whether it knows function 8.
const LEARN_AT_LEAST: Duration = Duration::from_millis(200);

impl Session {
    /// A good exchange: nothing of the unit is open. Afterwards, once per unit, learn about function 8.
    pub(super) async fn answered(&mut self, unit: u8, took: Duration) {
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
    pub(super) async fn keep_distance(&mut self, line: &Line) {
        let from = line.quiet_since() + self.timing.frame_gap;
        if from > Instant::now() {
            sleep_until(from).await;
        }
    }

    /// Makes sure that no older request of this unit can be answered any more, within `budget`. `true`: only
    /// silence after the next answer proves it.
    pub(super) async fn put_to_rest(
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
    pub(super) fn count_late(&self) {
        for (unit, function) in self.line().map(|line| line.take_late()).unwrap_or_default() {
            self.memory.came_late(unit, function);
        }
    }

    /// Nothing may follow the answer, or it was the late answer to an older request.
    pub(super) async fn expect_silence(&mut self, unit: u8, function: u8) -> Result<(), Error> {
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
    pub(super) async fn settle(&mut self, line: &Line) -> Result<(), Error> {
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
}
