//! What does not wait for its turn: cancels, and answers to questions of the plugin.

use busbar_abi::Message;
use busbar_contract::{
    Action, Answer, Event, Failure, FailureKind, Reason, Request, Stage, event::Done, op::request as op,
    request::AnswerTo,
};
use tokio::sync::mpsc;

use super::{Item, Port, Work};
use crate::runtime::stats::STATS;

/// Questions of a plugin that wait for the host's answer.
const MAX_ASKS: usize = 1024;

/// A question of the plugin that waits for the host's answer.
pub(super) struct Ask {
    /// Without one the answer goes to `Sink::answered`.
    reader: Option<mpsc::Sender<AnswerTo>>,
    /// A selection ends with the stage `selected`; for an operation that is only a step.
    select: bool,
}

impl Port {
    pub(super) fn urgent(&mut self, message: Message) {
        match Request::decode(message.op, &message.body) {
            Ok(Request::Cancel(cancel)) => {
                self.cancel_request(cancel.request);
                self.complete(message.req, &Event::Done(Done::default()));
            }
            Ok(Request::Answer(answer)) => self.answered(message.req, answer),
            Ok(_) => {}
            Err(malformed) => {
                tracing::warn!(error = %malformed, "the host sent a body that this plugin cannot read");
                if message.op != op::ANSWER {
                    self.fail(message.req, Failure::new(FailureKind::Unsupported, malformed.to_string()));
                }
            }
        }
    }

    pub(super) fn cancel_request(&mut self, request: u64) {
        if request != 0 && request == self.running {
            self.cancel.send_replace(true);
            return;
        }
        // It may still be on its way through the inbox.
        while let Ok(inbox) = self.ends.inbox.try_recv() {
            self.admit(inbox);
        }
        let at = self.queue.iter().position(|item| item.request == request && request != 0);
        if let Some(item) = at.and_then(|at| self.queue.remove(at)) {
            self.turn_away(&item, FailureKind::Cancelled, "cancelled before it was begun");
        }
    }

    pub(super) fn answered(&mut self, number: u64, answer: AnswerTo) {
        let Some(ask) = self.asks.get(&number) else {
            STATS.unknown_answers.add(1);
            return;
        };
        let last = match &answer {
            AnswerTo::Command(answer) => {
                answer.stage.is_last() || (ask.select && answer.stage == Stage::Selected)
            }
            _ => true,
        };
        match &ask.reader {
            // A full channel or one that nobody reads any more loses the answer; its reader gave up.
            Some(reader) => drop(reader.try_send(answer)),
            None => self.queue.push_back(Item {
                op: op::ANSWER,
                request: 0,
                deadline: None,
                work: Work::Answered(number, answer),
            }),
        }
        if last {
            self.asks.remove(&number);
        }
    }

    pub(super) fn ask(&mut self, number: u64, event: &Event, reader: Option<mpsc::Sender<AnswerTo>>) {
        self.asks.retain(|_, ask| ask.reader.as_ref().is_none_or(|reader| !reader.is_closed()));
        let select = matches!(event, Event::Command(command) if command.action == Action::Select);
        if self.asks.len() < MAX_ASKS {
            self.asks.insert(number, Ask { reader, select });
            self.send_event(number, event);
        } else if reader.is_none() {
            // A reader sees its channel closed; a callback must be told.
            let answer =
                Answer::refused(Reason::Busy, format!("{MAX_ASKS} commands already wait for answers"));
            self.asks.insert(number, Ask { reader, select });
            self.answered(number, AnswerTo::Command(answer));
        }
    }
}
