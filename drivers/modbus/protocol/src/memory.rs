//! Which requests on an RTU line may still be answered, and how to be sure that they are not.
//!
//! An RTU answer has no transaction number. A request that was given up (time-out, cancel, nonsense) may be
//! answered later, and its answer then looks exactly like the answer to the next request of the same unit,
//! function and length: the registers of another address, accepted as good. Neither a checksum nor a length
//! check can find that, and no waiting time is long enough for a device that was merely stopped. What can
//! be relied on is *order*: a unit executes one request at a time and answers in the order of arrival
//! (MODBUS over Serial Line 2.1), and bytes in a pipe keep their order.
//!
//! So after a request was given up, the same unit is first sent "return query data" (function 8,
//! sub-function 0) with a number that was not used before. Whatever answers that request, its echo or an
//! exception of function 8, can be mistaken for nothing else, and when it is there, no older request can be
//! answered any more. Late answers that arrive meanwhile are recognised, counted and thrown away; when all
//! that are owed have come, nothing more is needed.
//!
//! Two cases need time instead. Servers in software may answer out of order, so on a serial line, where a
//! connection cannot be dropped, a request that met silence is also waited out for another response
//! time-out ([`LATE_AT_LEAST`] at least). And some units do not answer function 8 (every conforming one
//! does, at least by exception 1; it is learned right after the first good answer): they are waited out as
//! well, and their next value is believed only when the line stays silent for another response time-out,
//! because a late answer would be followed by the real one.
//!
//! The memory belongs to the line, not to the connection: a serial server may deliver an answer from its
//! serial side into a connection opened after the request. Hence it is shared and survives reconnects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::rtu::DIAGNOSTICS;

/// Echo requests that may stay unanswered before a unit that used to answer them is read in the other way
/// (it may have been replaced by a device that does not know function 8).
const MAX_FAILED_ECHOES: u32 = 3;
/// ... and how long after the last ordinary request at the earliest.
const REPLACED_AFTER: Duration = Duration::from_secs(60);
/// A unit of which nothing is known is read in the other way after so many response time-outs.
const UNKNOWN_AFTER: u32 = 3;
/// How long an answer may be late at least, beyond the response time-out. Short time-outs are set for speed,
/// not because the device is never slower.
pub const LATE_AT_LEAST: Duration = Duration::from_millis(500);
/// Different functions in use towards one unit (1 to 6, 15, 16); bounds the memory of a unit.
const MAX_PENDING: usize = 8;

/// What is known about a unit and function 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Echo {
    /// Not tried yet.
    #[default]
    Unknown,
    /// The unit answers, by echo or by exception.
    Answers,
    /// The unit stays silent.
    Silent,
}

/// What must happen before the next ordinary request to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: no answer of this unit is owed.
    Nothing,
    /// An echo must be answered first.
    Echo,
    /// Wait until then in silence, and believe the answer only if silence follows it.
    Silence(Instant),
}

#[derive(Debug, Default)]
struct Unit {
    /// Functions of the requests that may still be answered.
    pending: Vec<u8>,
    /// How many answers may still come.
    owed: u32,
    /// The last request met silence, so its answer may be on the way; a damaged one is not.
    silent: bool,
    last_sent: Option<Instant>,
    echo: Echo,
    echo_open: bool,
    failed_echoes: u32,
}

impl Unit {
    fn clear(&mut self) {
        self.pending.clear();
        self.owed = 0;
    }
}

#[derive(Debug, Default)]
struct Units {
    units: HashMap<u8, Unit>,
    nonce: u16,
}

/// The open requests of one RTU line. Clones share the same memory.
#[derive(Debug, Clone, Default)]
pub struct LineMemory(Arc<Mutex<Units>>);

impl LineMemory {
    fn with<T>(&self, f: impl FnOnce(&mut Units) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unit<T>(&self, unit: u8, f: impl FnOnce(&mut Unit) -> T) -> T {
        self.with(|units| f(units.units.entry(unit).or_default()))
    }

    /// An ordinary request leaves now.
    pub(crate) fn sent(&self, unit: u8, function: u8) {
        self.unit(unit, |unit| {
            unit.last_sent = Some(Instant::now());
            unit.owed = unit.owed.saturating_add(1);
            unit.silent = true;
            if !unit.pending.contains(&function) && unit.pending.len() < MAX_PENDING {
                unit.pending.push(function);
            }
        });
    }

    /// No answer of this unit can come any more.
    pub(crate) fn settled(&self, unit: u8) {
        self.unit(unit, Unit::clear);
    }

    /// Something came instead of the answer, so the answer is not on the way.
    pub(crate) fn damaged(&self, unit: u8) {
        self.unit(unit, |unit| unit.silent = false);
    }

    /// A late answer was seen. True when nothing more is owed by its unit.
    pub(crate) fn came_late(&self, unit: u8, function: u8) -> bool {
        self.unit(unit, |unit| {
            if function == DIAGNOSTICS {
                // Slow, but it does know function 8.
                unit.echo = Echo::Answers;
                return false;
            }
            unit.owed = unit.owed.saturating_sub(1);
            if unit.owed == 0 {
                unit.pending.clear();
            }
            unit.owed == 0
        })
    }

    /// An echo request leaves now; the number it must carry.
    pub(crate) fn echo_sent(&self, unit: u8) -> u16 {
        self.with(|units| {
            units.nonce = units.nonce.wrapping_add(1);
            units.units.entry(unit).or_default().echo_open = true;
            units.nonce
        })
    }

    /// Function 8 was answered: a unit that answers in order can answer no older request.
    pub(crate) fn echo_answered(&self, unit: u8) {
        self.unit(unit, |unit| {
            unit.echo = Echo::Answers;
            unit.echo_open = false;
            unit.failed_echoes = 0;
        });
    }

    /// Function 8 was not answered in time.
    pub(crate) fn echo_failed(&self, unit: u8) {
        self.unit(unit, |unit| unit.failed_echoes = unit.failed_echoes.saturating_add(1));
    }

    /// The unit answered an ordinary request just before and not this echo: it does not know function 8.
    pub(crate) fn echo_is_unknown(&self, unit: u8) {
        self.unit(unit, |unit| unit.echo = Echo::Silent);
    }

    /// What is known about the unit and function 8.
    #[must_use]
    pub fn echo(&self, unit: u8) -> Echo {
        self.unit(unit, |unit| unit.echo)
    }

    /// Until when an answer may come out of order; `None` where none is owed or it came damaged.
    pub(crate) fn wait_out(&self, unit: u8, response_timeout: Duration) -> Option<Instant> {
        self.unit(unit, |unit| {
            let last = unit.last_sent.filter(|_| unit.owed > 0 && unit.silent)?;
            let until = last + response_timeout + response_timeout.max(LATE_AT_LEAST);
            (until > Instant::now()).then_some(until)
        })
    }

    /// What must happen before the next ordinary request.
    pub(crate) fn before(&self, unit: u8, response_timeout: Duration) -> Before {
        self.unit(unit, |unit| {
            let Some(last) = unit.last_sent.filter(|_| unit.owed > 0) else { return Before::Nothing };
            let age = last.elapsed();
            let late = last + response_timeout + response_timeout.max(LATE_AT_LEAST);
            match unit.echo {
                Echo::Answers if unit.failed_echoes >= MAX_FAILED_ECHOES && age >= REPLACED_AFTER => {
                    unit.echo = Echo::Unknown;
                    Before::Silence(late)
                }
                Echo::Answers => Before::Echo,
                Echo::Unknown if age < response_timeout * UNKNOWN_AFTER => Before::Echo,
                Echo::Unknown | Echo::Silent => Before::Silence(late),
            }
        })
    }

    /// Units and functions whose answers may still come and must be skipped.
    pub(crate) fn late(&self) -> Vec<(u8, u8)> {
        self.with(|units| {
            let open = |(unit, state): (&u8, &Unit)| {
                let echo = state.echo_open.then_some(DIAGNOSTICS);
                let functions: Vec<(u8, u8)> =
                    state.pending.iter().copied().chain(echo).map(|function| (*unit, function)).collect();
                functions
            };
            units.units.iter().flat_map(open).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_answered_request_leaves_nothing_open() {
        let memory = LineMemory::default();
        assert_eq!(memory.before(1, TIMEOUT), Before::Nothing);
        memory.sent(1, 3);
        assert_eq!(memory.before(1, TIMEOUT), Before::Echo);
        assert_eq!(memory.before(2, TIMEOUT), Before::Nothing);
        assert_eq!(memory.late(), [(1, 3)]);
        memory.settled(1);
        assert_eq!(memory.before(1, TIMEOUT), Before::Nothing);
        assert!(memory.late().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_answers_echoes_is_always_asked_by_echo() {
        let memory = LineMemory::default();
        let first = memory.echo_sent(1);
        memory.echo_answered(1);
        memory.sent(1, 3);
        tokio::time::advance(TIMEOUT * 50).await;
        assert_eq!(memory.before(1, TIMEOUT), Before::Echo);
        assert_ne!(memory.echo_sent(1), first);
        assert_eq!(memory.late(), [(1, 3), (1, DIAGNOSTICS)]);
        memory.echo_answered(1);
        memory.settled(1);
        assert_eq!(memory.before(1, TIMEOUT), Before::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_counted() {
        let memory = LineMemory::default();
        memory.sent(1, 3);
        memory.sent(1, 4);
        assert!(!memory.came_late(1, 3));
        assert!(!memory.came_late(1, DIAGNOSTICS));
        assert!(memory.wait_out(1, TIMEOUT).is_some());
        assert!(memory.came_late(1, 4));
        assert_eq!(memory.before(1, TIMEOUT), Before::Nothing);
        memory.sent(1, 3);
        memory.damaged(1);
        assert_eq!(memory.wait_out(1, TIMEOUT), None);
        assert_eq!(memory.before(1, TIMEOUT), Before::Echo);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_device_is_not_locked_out_for_ever() {
        let memory = LineMemory::default();
        memory.echo_answered(1);
        memory.sent(1, 3);
        for _ in 0..MAX_FAILED_ECHOES {
            memory.echo_failed(1);
        }
        assert_eq!(memory.before(1, TIMEOUT), Before::Echo);
        tokio::time::advance(REPLACED_AFTER).await;
        assert!(matches!(memory.before(1, TIMEOUT), Before::Silence(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_units_are_waited_for() {
        let memory = LineMemory::default();
        memory.echo_is_unknown(1);
        memory.sent(1, 3);
        let sent = Instant::now();
        assert_eq!(memory.before(1, TIMEOUT), Before::Silence(sent + TIMEOUT * 2));
        // The echo comes after all: the unit was only slow.
        memory.came_late(1, DIAGNOSTICS);
        assert_eq!(memory.before(1, TIMEOUT), Before::Echo);
    }
}
