//! The states of commands: selection, execution, cancellation, and what the master is told at which stage.
//!
//! The host is asked with a [`Request`] and answers in stages ([`Progress`]). Nothing is confirmed positively before
//! the host said so, and what the host does not answer in time is negative. Per command point at most one thing is
//! under way; a second one is refused (busy). A selection belongs to the connection that made it, ends by execution,
//! cancellation, time-out, or with that connection, and is then cancelled at the device.
//!
//! | stage | confirmation |
//! |---|---|
//! | selected, accepted | ACT_CON positive |
//! | refused or unknown before | ACT_CON negative |
//! | finished | ACT_TERM (after ACT_CON where the host said nothing in between) |
//! | refused or unknown after ACT_CON | ACT_TERM negative |
//! | cancelled | DEACT_CON |

use std::collections::BTreeMap;
use std::time::Duration;

use super::ConnectionId;
use super::config::{Config, SelectMode};
use crate::asdu::{Command, CommandValue, Reason, mirror};

/// What is asked of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Select the point.
    Select,
    /// Execute.
    Operate,
    /// Give up a selection.
    Cancel,
}

/// A command for the host. It is answered with [`super::Station::progress`] under the same id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Number of this request, never used twice.
    pub id: u64,
    /// Who asks.
    pub connection: ConnectionId,
    /// Originator address of the master, 0: none.
    pub originator: u8,
    /// Place in [`Config::commands`].
    pub command: usize,
    /// What.
    pub action: Action,
    /// The value as on the wire; of a cancellation, the selected one.
    pub value: CommandValue,
    /// QU or QL.
    pub qualifier: u8,
    /// T of the cause of transmission.
    pub test: bool,
    /// The time tag, nanoseconds UTC.
    pub issued: Option<i64>,
    /// An answer after this moment is too late.
    pub deadline: Duration,
}

/// What the host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The device is selected.
    Selected,
    /// The device accepted, and works.
    Accepted,
    /// It is done; or the selection is given up.
    Finished,
    /// It was refused, or failed.
    Refused,
    /// It left for the device and nobody knows what became of it.
    Unknown,
}

/// What a master wants of a command point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) connection: ConnectionId,
    pub(super) originator: u8,
    pub(super) place: usize,
    pub(super) command: Command,
    pub(super) test: bool,
    pub(super) issued: Option<i64>,
    /// The ASDU, to be mirrored.
    pub(super) asdu: &'a [u8],
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    Ask(Request),
    Answer(ConnectionId, Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Selecting,
    Selected,
    Operating { accepted: bool },
    Cancelling,
}

#[derive(Debug)]
struct Slot {
    state: State,
    until: Duration,
    request: Request,
    /// The ASDU to be mirrored; `None`: nobody waits for an answer any more.
    asdu: Option<Vec<u8>>,
}

impl Slot {
    fn answer(&self, reason: Reason, negative: bool, effects: &mut Vec<Effect>) {
        if let Some(asdu) = &self.asdu {
            effects.push(Effect::Answer(self.request.connection, mirror(asdu, reason, negative)));
        }
    }
}

/// All commands under way, by the place of their point: never more than there are command points.
#[derive(Debug, Default)]
pub(super) struct Commands {
    slots: BTreeMap<usize, Slot>,
    last: u64,
}

/// Why a wish is refused at once; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The connection may not command.
    #[error("this master may not command")]
    NotPermitted,
    /// Another command is under way.
    #[error("another command for this object is under way")]
    Busy,
    /// Nothing was selected by this connection.
    #[error("the object is not selected by this connection")]
    NotSelected,
    /// Value or qualifier are not the selected ones; the selection is given up.
    #[error("value or qualifier differ from the selected ones; the selection is given up")]
    OtherValue,
    /// A state that the standard does not permit, or a number that is none.
    #[error("the value of the command is not permitted")]
    Value,
    /// Not the configured qualifier.
    #[error("the qualifier is not the configured one")]
    Qualifier,
    /// The time tag is too old, in the future, invalid, or impossible.
    #[error("the time tag is stale or impossible")]
    Stale,
    /// More than one object in a command.
    #[error("a command has exactly one object and SQ = 0")]
    Structure,
}

impl Commands {
    /// Selects or executes.
    pub(super) fn activate(
        &mut self,
        now: Duration,
        config: &Config,
        wish: Wish<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let select = wish.command.select;
        let required =
            config.commands.get(wish.place).is_some_and(|point| point.select == SelectMode::Required);
        match self.slots.get(&wish.place) {
            None if !select && required => return Err(Refusal::NotSelected),
            None => {}
            Some(slot) if slot.state != State::Selected => return Err(Refusal::Busy),
            Some(slot) if slot.request.connection != wish.connection => return Err(Refusal::Busy),
            Some(slot) if !select && !slot.request.same(&wish.command) => {
                self.cancel(now, config, wish.place, None, effects);
                return Err(Refusal::OtherValue);
            }
            Some(_) => {}
        }
        let (state, action) = match select {
            true => (State::Selecting, Action::Select),
            false => (State::Operating { accepted: false }, Action::Operate),
        };
        let until = now + config.command_timeout;
        let request = Request {
            id: self.number(),
            connection: wish.connection,
            originator: wish.originator,
            command: wish.place,
            action,
            value: wish.command.value,
            qualifier: wish.command.qualifier,
            test: wish.test,
            issued: wish.issued,
            deadline: until,
        };
        self.slots.insert(wish.place, Slot { state, until, request, asdu: Some(wish.asdu.to_vec()) });
        effects.push(Effect::Ask(request));
        Ok(())
    }

    /// Gives up a selection of the same connection.
    pub(super) fn deactivate(
        &mut self,
        now: Duration,
        config: &Config,
        wish: Wish<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match self.slots.get(&wish.place) {
            Some(slot) if slot.request.connection != wish.connection => Err(Refusal::NotSelected),
            Some(slot) if slot.state == State::Selected => {
                self.cancel(now, config, wish.place, Some(wish.asdu.to_vec()), effects);
                Ok(())
            }
            Some(_) => Err(Refusal::Busy),
            None => Err(Refusal::NotSelected),
        }
    }

    /// Takes an answer of the host. An id that is not under way any more changes nothing.
    pub(super) fn progress(
        &mut self,
        now: Duration,
        config: &Config,
        id: u64,
        progress: Progress,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.slots.iter_mut().find(|(_, slot)| slot.request.id == id);
        let Some((&place, slot)) = found else { return };
        let good = matches!(progress, Progress::Selected | Progress::Accepted | Progress::Finished);
        match slot.state {
            // The selection was reported already; what comes late about it says that it is over.
            State::Selected if good => {}
            State::Selected => drop(self.slots.remove(&place)),
            State::Selecting if good => {
                slot.answer(Reason::ACTIVATION_CON, false, effects);
                (slot.state, slot.until) = (State::Selected, now + config.select_timeout);
                if slot.asdu.is_none() {
                    self.cancel(now, config, place, None, effects);
                }
            }
            State::Operating { accepted } if good => {
                if !accepted {
                    slot.answer(Reason::ACTIVATION_CON, false, effects);
                    slot.state = State::Operating { accepted: true };
                }
                if progress == Progress::Finished {
                    slot.answer(Reason::ACTIVATION_TERM, false, effects);
                    self.slots.remove(&place);
                }
            }
            State::Cancelling if good => {
                slot.answer(Reason::DEACTIVATION_CON, false, effects);
                self.slots.remove(&place);
            }
            _ => self.fail(place, effects),
        }
    }

    /// A connection ended or stopped: its selections are cancelled, and nobody waits for answers.
    pub(super) fn gone(
        &mut self,
        now: Duration,
        config: &Config,
        connection: ConnectionId,
        effects: &mut Vec<Effect>,
    ) {
        let mut selected = Vec::new();
        for (place, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.request.connection == connection) {
            slot.asdu = None;
            if slot.state == State::Selected {
                selected.push(*place);
            }
        }
        for place in selected {
            self.cancel(now, config, place, None, effects);
        }
    }

    /// Ends what took too long.
    pub(super) fn tick(&mut self, now: Duration, config: &Config, effects: &mut Vec<Effect>) {
        let due: Vec<_> =
            self.slots.iter().filter(|(_, slot)| slot.until <= now).map(|(p, s)| (*p, s.state)).collect();
        for (place, state) in due {
            match state {
                State::Selected => self.cancel(now, config, place, None, effects),
                _ => self.fail(place, effects),
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.slots.values().map(|slot| slot.until).min()
    }

    /// The negative end of whatever is under way.
    fn fail(&mut self, place: usize, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.remove(&place) else { return };
        let reason = match slot.state {
            State::Operating { accepted: true } => Reason::ACTIVATION_TERM,
            State::Cancelling => Reason::DEACTIVATION_CON,
            _ => Reason::ACTIVATION_CON,
        };
        slot.answer(reason, true, effects);
    }

    fn cancel(
        &mut self,
        now: Duration,
        config: &Config,
        place: usize,
        asdu: Option<Vec<u8>>,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.number();
        let Some(slot) = self.slots.get_mut(&place) else { return };
        (slot.state, slot.until, slot.asdu) = (State::Cancelling, now + config.command_timeout, asdu);
        slot.request =
            Request { id, action: Action::Cancel, deadline: slot.until, issued: None, ..slot.request };
        effects.push(Effect::Ask(slot.request));
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Request {
    fn same(&self, command: &Command) -> bool {
        self.qualifier == command.qualifier && self.value == command.value
    }
}
