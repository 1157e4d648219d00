//! Set topics -> host -> answers on `TOPIC/set/result`.
//!
//! A request is judged by [`Gate`](busbar_mqtt::command::Gate) first; what passes goes to the host at once, which
//! decides, audits and answers in stages. Nothing is queued for later: what cannot be given to the host or to the broker
//! because the connection broke is gone, and the client, which got no answer, must read the point.

use std::time::Duration;

use busbar_driver_api::{Action, Answer, AnswerTo, Link, Origin, Reason, Result, SinkCommand, Stage, time};
use busbar_mqtt::command::{Reason as Refusal, Refused, write_result};
use busbar_mqtt::topic::{SET, SET_RESULT};

use serde_json::Value as Json;

use crate::memory::{MAX_PENDING, Memory, Pending, Shared};
use crate::points::Points;
use crate::sink::Mqtt;

/// An answer that takes longer will not come: the host ends every command at its deadline.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What must be given to the host or to the broker.
#[derive(Debug)]
pub(crate) enum Todo {
    /// To the host; without `pending` only for its audit log.
    Command { command: Box<SinkCommand>, pending: Option<Pending> },
    /// To the broker.
    Result { topic: String, payload: Vec<u8> },
}

/// Judges a message that arrived on a set topic; nothing for a topic of no point. What is refused here is answered here
/// and told to the host, too: its audit log has every command.
pub(crate) fn receive(
    topic: &str,
    payload: &[u8],
    retained: bool,
    points: &Points,
    memory: &mut Memory,
) -> Vec<Todo> {
    let Some(point) = points.set.find(topic) else { return Vec::new() };
    let answers = format!("{}{SET_RESULT}", topic.strip_suffix(SET).unwrap_or(topic));
    let now = time::now();
    memory.forget_old();
    let refused = match memory.gate.admit(topic, payload, retained, now) {
        Ok(request) if memory.pending.len() < MAX_PENDING => {
            let pending =
                Pending { id: request.id.clone(), topic: answers, since: time::monotonic(), refused: None };
            let command = SinkCommand {
                value: request.value,
                expires_ns: request.expires_ns,
                ..command(point, Some(&pending.id), now)
            };
            return vec![Todo::Command { command: Box::new(command), pending: Some(pending) }];
        }
        Ok(request) => {
            let text = format!("{MAX_PENDING} commands wait for their answers");
            Refused { id: Some(request.id), reason: Refusal::Busy, text }
        }
        Err(refused) => refused,
    };
    let word = refused.reason.as_str();
    let answer = Answer {
        stage: Stage::Refused,
        reason: match refused.reason {
            Refusal::Expired => Some(Reason::Stale),
            Refusal::Busy => Some(Reason::Busy),
            _ => None,
        },
        text: format!("{word}: {}", refused.text),
    };
    let command = SinkCommand { refused: Some(answer), ..command(point, refused.id.as_deref(), now) };
    let heard = body(refused.id.as_deref(), "refused", word, &refused.text);
    tell_then_answer(command, answers, heard, memory.pending.len() < MAX_PENDING)
}

/// A refusal of our own: the client hears of it when the host has it in its audit log, or at once when there is no
/// room to wait for that.
fn tell_then_answer(command: SinkCommand, topic: String, payload: Vec<u8>, room: bool) -> Vec<Todo> {
    let command = Box::new(command);
    if !room {
        return vec![Todo::Command { command, pending: None }, Todo::Result { topic, payload }];
    }
    let pending = Pending { id: String::new(), topic, since: time::monotonic(), refused: Some(payload) };
    vec![Todo::Command { command, pending: Some(pending) }]
}

/// Key of the ids in the sink's durable state.
const STATE_KEY: &str = "command-ids";

/// Before the first connection of a process: the ids that an earlier one executed.
pub(crate) async fn recall(link: &Link<Mqtt>, memory: &Shared) -> Result<()> {
    if !link.settings.commands || memory.lock().recalled {
        return Ok(());
    }
    let bytes = link.ctx.state_get(STATE_KEY).await?.unwrap_or_default();
    let mut memory = memory.lock();
    if !memory.gate.restore(&bytes, time::now()) {
        busbar_driver_api::tracing::warn!(
            "the stored ids of commands are damaged; a command sent before the start may repeat"
        );
    }
    memory.recalled = true;
    Ok(())
}

/// Writes the ids of all admitted commands; only then may they go to the host. Cancel safe: writing twice does no harm.
pub(crate) async fn remember(link: &Link<Mqtt>, memory: &Shared) -> Result<()> {
    let unsaved = memory.lock().gate.unsaved(time::now());
    if let Some((mark, ids)) = unsaved {
        link.ctx.state_put(STATE_KEY, &ids).await?;
        memory.lock().gate.saved(mark);
    }
    Ok(())
}

/// A command whose id is not on disk: to the audit log, and to the client.
pub(crate) fn not_stored(mut command: SinkCommand, pending: Pending, text: &str) -> Vec<Todo> {
    let word = Refusal::NotStored.as_str();
    command.refused = Some(Answer::refused(Reason::LockedOut, format!("{word}: {text}")));
    let heard = body(Some(&pending.id), "refused", word, text);
    tell_then_answer(command, pending.topic, heard, true)
}

fn command(point: u32, id: Option<&str>, now: i64) -> SinkCommand {
    SinkCommand {
        point,
        action: Action::Operate,
        value: Json::Null,
        // MQTT does not tell who published; the id is the client's own.
        origin: Origin { client: format!("mqtt id {}", id.unwrap_or("unknown")), ..Origin::default() },
        select_required: false,
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: now,
        expires_ns: 0,
        refused: None,
    }
}

/// The message for an answer of the host; `None` for an answer to something else, or to a command that is forgotten.
pub(crate) fn answered(number: u64, answer: &AnswerTo, memory: &mut Memory) -> Option<Todo> {
    let AnswerTo::Command(Answer { stage, reason, text }) = answer else { return None };
    let pending = match stage.is_last() {
        true => memory.pending.remove(&number)?,
        false => memory.pending.get(&number)?.clone(),
    };
    let reason = reason.map_or("", |reason| reason.as_str());
    let payload = pending.refused.unwrap_or_else(|| body(Some(&pending.id), word(*stage), reason, text));
    Some(Todo::Result { topic: pending.topic, payload })
}

const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Selected => "selected",
        Stage::Accepted => "accepted",
        Stage::Finished => "finished",
        Stage::Refused => "refused",
        Stage::Unknown => "unknown",
    }
}

fn body(id: Option<&str>, result: &str, reason: &str, text: &str) -> Vec<u8> {
    let mut payload = Vec::with_capacity(128);
    write_result(&mut payload, id, result, reason, text, time::now());
    payload
}

impl Memory {
    /// Answers that came while there was no connection are lost; their commands must not fill the memory.
    fn forget_old(&mut self) {
        if self.pending.len() >= MAX_PENDING {
            let now = time::monotonic();
            self.pending.retain(|_, pending| now.saturating_sub(pending.since) < FORGET_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOPIC: &str = "busbar/h/d/p/set";

    fn points() -> Points {
        let mut points = Points::default();
        points.set.insert("busbar/h/d/p", 7);
        points
    }

    fn request(id: &str) -> Vec<u8> {
        let expires = time::now() / 1_000_000 + 60_000;
        json!({ "id": id, "value": true, "expires": expires }).to_string().into_bytes()
    }

    fn shown(todo: Todo) -> (String, Json) {
        match todo {
            Todo::Result { topic, payload } => (topic, serde_json::from_slice(&payload).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_goes_to_the_host_and_its_answers_come_back() {
        let shared = Shared::of("h", "answers");
        let mut memory = shared.lock();
        let todo = receive(TOPIC, &request("42"), false, &points(), &mut memory).pop();
        let Some(Todo::Command { command, pending: Some(pending) }) = todo else {
            panic!("expected a command, found {todo:?}");
        };
        assert_eq!(command.refused, None);
        assert_eq!((command.point, &command.value, command.action), (7, &json!(true), Action::Operate));
        assert!(command.expires_ns > command.issued_ns);
        memory.pending.insert(5, pending);
        for (answer, expected, last) in [
            (Answer::stage(Stage::Accepted), json!({ "id": "42", "result": "accepted" }), false),
            (
                Answer::refused(Reason::OutOfRange, "expected 0 to 10"),
                json!({ "id": "42", "result": "refused", "reason": "out_of_range", "text": "expected 0 to 10" }),
                true,
            ),
        ] {
            let (topic, mut body) = shown(answered(5, &AnswerTo::Command(answer), &mut memory).unwrap());
            assert_eq!(topic, "busbar/h/d/p/set/result");
            assert!(body.as_object_mut().unwrap().remove("ts").is_some());
            assert_eq!(body, expected);
            assert_eq!(memory.pending.is_empty(), last);
        }
        assert!(answered(5, &AnswerTo::Command(Answer::stage(Stage::Finished)), &mut memory).is_none());
    }

    #[test]
    fn what_must_not_reach_the_host_is_answered_here() {
        let shared = Shared::of("h", "refusals");
        let mut memory = shared.lock();
        assert!(receive("busbar/h/d/other/set", &request("1"), false, &points(), &mut memory).is_empty());
        for (payload, retained, reason) in [
            (request("1"), true, "retained"),
            (b"{}".to_vec(), false, "malformed"),
            (br#"{"id":"1","value":1}"#.to_vec(), false, "no_expires"),
            (br#"{"id":"1","value":1,"expires":1}"#.to_vec(), false, "expired"),
        ] {
            let todo = receive(TOPIC, &payload, retained, &points(), &mut memory).pop();
            let Some(Todo::Command { command, pending: Some(pending) }) = todo else {
                panic!("for the audit log")
            };
            let refused = command.refused.unwrap();
            memory.pending.insert(5, pending);
            let heard = answered(5, &AnswerTo::Command(refused.clone()), &mut memory).unwrap();
            assert_eq!(shown(heard).1["reason"], reason, "after the audit log has it");
            assert_eq!(refused.stage, Stage::Refused);
            assert!(refused.text.starts_with(reason), "{refused:?}");
        }
        let first = receive(TOPIC, &request("1"), false, &points(), &mut memory).pop();
        assert!(matches!(first, Some(Todo::Command { pending: Some(_), .. })));
        let again = receive(TOPIC, &request("1"), false, &points(), &mut memory).pop();
        let Some(Todo::Command { command, .. }) = again else { panic!("{again:?}") };
        assert!(command.refused.unwrap().text.starts_with("repeated"));
    }

    #[test]
    fn commands_on_their_way_are_bounded() {
        let shared = Shared::of("h", "bounded");
        let mut memory = shared.lock();
        for number in 0..MAX_PENDING as u64 {
            let pending =
                Pending { id: "x".into(), topic: "t".into(), since: time::monotonic(), refused: None };
            memory.pending.insert(number, pending);
        }
        let todo = receive(TOPIC, &request("full"), false, &points(), &mut memory).pop().unwrap();
        assert_eq!(shown(todo).1["reason"], "busy");
    }
}
