//! Requests of operators on their way through the core, and their answers back.
//!
//! The core answers by id, a command in several stages. The way back is a bounded queue that the core thread fills
//! without waiting: an operator who does not read loses the answer, never the gateway its time.

use std::collections::HashMap;

use busbar_contract::{Action, Stage};
use busbar_core::{
    Input,
    input::{Ask, Operator},
    output::Reply,
};
use tokio::sync::mpsc;

/// Requests in the core at the same time; a further one is refused.
pub(crate) const MAX_REQUESTS: usize = 256;
/// Answers that one operator may leave unread (a browse comes in pages).
pub(crate) const MAX_UNREAD: usize = 1_024;

/// A request with the way back.
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) replies: mpsc::Sender<Reply>,
}

/// One of them.
struct Waiting {
    replies: mpsc::Sender<Reply>,
    /// A selection ends with `selected`; for an operate that is only a stage.
    select: bool,
}

/// The requests that are not answered to the end.
#[derive(Default)]
pub(crate) struct Operators {
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

impl Operators {
    /// Registers a request; `None` when it was refused and answered.
    pub(crate) fn admit(&mut self, asked: Asked) -> Option<Input> {
        let Asked { ask, replies } = asked;
        if self.waiting.len() >= MAX_REQUESTS {
            self.waiting.retain(|_, waiting| !waiting.replies.is_closed());
        }
        if self.waiting.len() >= MAX_REQUESTS {
            let text = format!(
                "expected at most {MAX_REQUESTS} requests at once: try again when others are answered"
            );
            let _ = replies.try_send(Reply::Failed(text));
            return None;
        }
        self.next += 1;
        let select = matches!(&ask, Ask::Command(command) if command.action == Action::Select);
        self.waiting.insert(self.next, Waiting { replies, select });
        Some(Input::Operator(Operator { id: self.next, ask }))
    }

    /// Registers something else that the core answers by id; `None` when it was refused and answered.
    pub(crate) fn admit_other(&mut self, replies: mpsc::Sender<Reply>) -> Option<u64> {
        match self.admit(Asked { ask: Ask::FrameLog(String::new(), false), replies }) {
            Some(Input::Operator(Operator { id, .. })) => Some(id),
            _ => None,
        }
    }

    /// Passes an answer on.
    pub(crate) fn answer(&mut self, id: u64, reply: Reply) {
        let Some(waiting) = self.waiting.get(&id) else { return };
        let last = is_last(&reply, waiting.select);
        if waiting.replies.try_send(reply).is_err() || last {
            self.waiting.remove(&id);
        }
    }
}

/// No further answer follows.
fn is_last(reply: &Reply, select: bool) -> bool {
    match reply {
        Reply::Command(answer) => answer.stage.is_last() || (select && answer.stage == Stage::Selected),
        Reply::Page(_) => false,
        Reply::Readings(_) | Reply::Reload(_) | Reply::Done | Reply::Failed(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_contract::{Answer, Stage};

    fn ask() -> Ask {
        Ask::FrameLog("m".into(), true)
    }

    #[test]
    fn stages_reach_the_one_who_asked_and_end() {
        let mut operators = Operators::default();
        let (replies, mut answers) = mpsc::channel(8);
        let Some(Input::Operator(Operator { id, .. })) = operators.admit(Asked { ask: ask(), replies })
        else {
            panic!("refused")
        };
        operators.answer(id, Reply::Command(Answer::stage(Stage::Accepted)));
        operators.answer(id + 1, Reply::Done);
        operators.answer(id, Reply::Command(Answer::stage(Stage::Finished)));
        operators.answer(id, Reply::Done);
        assert_eq!(answers.try_recv(), Ok(Reply::Command(Answer::stage(Stage::Accepted))));
        assert_eq!(answers.try_recv(), Ok(Reply::Command(Answer::stage(Stage::Finished))));
        assert_eq!(answers.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn requests_are_bounded_and_the_dead_make_room() {
        let mut operators = Operators::default();
        let mut readers = Vec::new();
        for _ in 0..MAX_REQUESTS {
            let (replies, answers) = mpsc::channel(1);
            assert!(operators.admit(Asked { ask: ask(), replies }).is_some());
            readers.push(answers);
        }
        let (replies, mut answers) = mpsc::channel(1);
        assert!(operators.admit(Asked { ask: ask(), replies: replies.clone() }).is_none());
        assert!(matches!(answers.try_recv(), Ok(Reply::Failed(text)) if text.contains("at most 256")));
        readers.pop();
        assert!(operators.admit(Asked { ask: ask(), replies }).is_some());
    }
}
