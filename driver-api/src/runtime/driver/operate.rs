//! Commands: whatever happens, the answer says whether something may have moved.

use std::sync::Arc;

use busbar_contract::{
    Answer, FailureKind, Reason, Request,
    event::State,
    request::{BlockWrite as BlockWriteBody, Command as CommandBody},
};
use tracing::Instrument;

use super::{CALLBACK_LIMIT, DriverEngine, live};
use crate::{
    BlockWrite, Command, Driver, Error, Progress, Result,
    runtime::port::{Item, Outcome, Port},
    time,
};

/// How a command ended; `Err`: it never reached the driver.
type Operated = Result<Outcome<Result<Answer>>, Answer>;

impl<D: Driver> DriverEngine<D> {
    /// COMMAND and BLOCK_WRITE end with an answer; what it cost the session follows as STATE. Only what the driver does
    /// not have at all ends with its error: the host then keeps a selection by itself.
    pub(super) async fn operate(
        &mut self,
        port: &mut Port,
        item: &Item,
        request: &Request,
    ) -> Result<Answer> {
        let (device, what, outcome) = match request {
            Request::Command(body) => (body.device, "the command", self.command(port, item, body).await),
            Request::BlockWrite(body) => {
                (body.device, "writing the block", self.block_write(port, item, body).await)
            }
            _ => return Err(Error::unsupported("not a command")),
        };
        match outcome.map(|outcome| self.settle(outcome, Some(device), what)) {
            Ok(Ok(answer)) | Err(answer) => Ok(answer),
            Ok(Err(error)) if error.kind() == FailureKind::Unsupported => Err(error),
            Ok(Err(error)) => {
                self.lost_by_command = lost_by(&error, device);
                Ok(answer_of(&error))
            }
        }
    }

    pub(super) async fn command(&mut self, port: &mut Port, item: &Item, body: &CommandBody) -> Operated {
        let (session, slot) =
            live(&mut self.session, &self.devices, body.device).map_err(|error| lost(&error))?;
        let command = Command {
            point: slot.point(body.point).map_err(|error| not_writable(&error))?,
            action: body.action,
            value: &body.value,
            origin: &body.origin,
            qualifier: body.qualifier,
            interlock_check: body.interlock_check,
            synchro_check: body.synchro_check,
            test: body.test,
            issued_ns: body.issued_ns,
            progress: Progress { shared: Arc::clone(&self.shared), request: item.request },
        };
        let operating = session.command(&slot.device, &command).instrument(slot.span.clone());
        Ok(port.drive(item.request, item.deadline, operating).await)
    }

    pub(super) async fn block_write(
        &mut self,
        port: &mut Port,
        item: &Item,
        body: &BlockWriteBody,
    ) -> Operated {
        let (session, slot) =
            live(&mut self.session, &self.devices, body.device).map_err(|error| lost(&error))?;
        let values = body.values.iter().map(|entry| slot.named(entry)).collect::<Result<_>>();
        let commit = body.commit.as_ref().map(|entry| slot.named(entry)).transpose();
        let write = BlockWrite {
            values: values.map_err(|error| not_writable(&error))?,
            commit: commit.map_err(|error| not_writable(&error))?,
            origin: &body.origin,
        };
        let writing = session.block_write(&slot.device, &write).instrument(slot.span.clone());
        Ok(port.drive(item.request, item.deadline, writing).await)
    }

    pub(super) async fn committed(&mut self, port: &mut Port, device: u32, token: u32, ok: bool) {
        let Ok((session, slot)) = live(&mut self.session, &self.devices, device) else {
            // Without a session the driver learns from its durable state that it was not committed.
            return;
        };
        let limit = Some(time::monotonic() + CALLBACK_LIMIT);
        let telling = session.committed(&slot.device, token, ok).instrument(slot.span.clone());
        let outcome = port.drive(0, limit, telling).await;
        if let Err(error) = self.settle(outcome, Some(device), "taking a commit") {
            self.lost_by_command = lost_by(&error, device);
            tracing::warn!(%error, token, "the driver did not take the commit");
        }
    }
}

fn lost(error: &Error) -> Answer {
    Answer::refused(Reason::DeviceLost, error.text())
}

fn not_writable(error: &Error) -> Answer {
    Answer::refused(Reason::NotWritable, error.text())
}

/// What an error in the middle of a command tells about the command.
fn answer_of(error: &Error) -> Answer {
    let text = error.to_string();
    match error.kind() {
        FailureKind::Refused | FailureKind::Configuration => Answer::refused(Reason::DeviceRefused, text),
        FailureKind::Unsupported => Answer::refused(Reason::Unsupported, text),
        FailureKind::NoAnswer | FailureKind::Deadline | FailureKind::Cancelled => {
            Answer::unknown(Reason::Timeout, text)
        }
        FailureKind::Session | FailureKind::Bug => Answer::unknown(Reason::DeviceLost, text),
    }
}

/// What an error in the middle of a command tells about the session.
fn lost_by(error: &Error, device: u32) -> Option<State> {
    let reason = error.to_string();
    if error.ends_session() {
        Some(State { device: None, up: false, reason })
    } else if error.kind() == FailureKind::NoAnswer {
        Some(State { device: Some(device), up: false, reason })
    } else {
        None
    }
}
