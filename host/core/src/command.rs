//! The command path (SEMANTICS 6, G8): checked, written to the audit log, sent once, answered. Never queued for later,
//! stored, or repeated. The audit line is on disk before the request leaves; if it cannot be written, the command is
//! refused. A positive answer is only what the device said.

use busbar_contract::{
    Action, Answer, FailureKind, Origin, Reason, Request, Stage, Value,
    event::{Done, SinkCommand},
    request::{AnswerTo, Command as CommandBody},
    value::rfc3339,
};
use serde_json::{Value as Json, json};

use crate::{
    Core, Output,
    arena::{DeviceId, Id, PointId, SinkId},
    convert,
    device::clipped,
    input::OperatorCommand,
    output::Reply,
    request::GRACE_NS,
    select::same_owner,
    state::{Asker, Command, CommandPhase, Deed, Extra, Outcome, Phase, Unsent, Work},
    table::Overlay,
    time::{MS, SECOND, ms},
    timers::Timer,
};

/// Commands that may run at once (G9); further ones are refused as busy.
const MAX_COMMANDS: usize = 256;
/// Exchanges that a command may take (select, operate, termination).
const EXCHANGES: u64 = 4;
/// Longest time an asker may give a command.
const MAX_SPAN_NS: u64 = 300 * SECOND;

/// An answer waits so long at most for its line in the audit log.
const ANSWER_AFTER_NS: u64 = 2 * SECOND;
/// Why nothing is asked of a device for a moment.
const REPLACED: &str = "its driver is being replaced";

/// A refusal with its text.
pub(crate) type Refusal = (Reason, String);

impl Core {
    pub(crate) fn sink_command(&mut self, sink: SinkId, instance: u64, request: u64, command: SinkCommand) {
        let asker = Asker::Sink { sink, instance, request };
        let mut origin = command.origin;
        origin.sink =
            self.site.sinks.get(sink.number() as usize).map(|config| config.name.clone()).unwrap_or_default();
        let routed =
            self.points.find(command.point).filter(|_| self.sinks[sink].slot_of.contains_key(&command.point));
        if let Some(refused) = command.refused {
            let answer = Answer { stage: Stage::Refused, text: clipped(refused.text), ..refused };
            return self.refuse_with(&asker, routed, &origin, command.action, &command.value, answer);
        }
        let extra = Extra {
            qualifier: command.qualifier,
            interlock_check: command.interlock_check,
            synchro_check: command.synchro_check,
            test: command.test,
            issued_ns: command.issued_ns,
            expires_ns: command.expires_ns,
        };
        let Some(point) = routed else {
            let text = "the sink has no such point";
            return self.refuse(
                &asker,
                None,
                &origin,
                command.action,
                &command.value,
                (Reason::NotWritable, text.into()),
            );
        };
        if self.sinks[sink].handover {
            let refusal = (Reason::Handover, "the sink's plugin is being replaced".into());
            return self.refuse(&asker, Some(point), &origin, command.action, &command.value, refusal);
        }
        if !self.sinks[sink].commands {
            let text = "commands are not enabled for this sink";
            let refusal = (Reason::NotWritable, text.into());
            return self.refuse(&asker, Some(point), &origin, command.action, &command.value, refusal);
        }
        self.command(asker, point, command.action, command.value, origin, command.select_required, extra, 0);
    }

    pub(crate) fn operator_command(&mut self, id: u64, command: OperatorCommand) {
        let asker = Asker::Operator { id };
        let Some(point) = self.named(&command.point) else {
            let text = format!("no point named {}", command.point);
            let refusal = (Reason::NotWritable, text);
            return self.refuse(&asker, None, &command.origin, command.action, &command.value, refusal);
        };
        let extra = Extra { issued_ns: self.now.wall_ns, ..Extra::default() };
        let span_ns = command.deadline_ms.saturating_mul(MS);
        self.command(asker, point, command.action, command.value, command.origin, false, extra, span_ns);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a command as it arrives")]
    fn command(
        &mut self,
        asker: Asker,
        point: PointId,
        action: Action,
        json: Json,
        origin: Origin,
        select_required: bool,
        extra: Extra,
        span_ns: u64,
    ) {
        let raw = match self.check_new(point, action, &json, &origin, select_required, extra) {
            Ok(raw) => raw,
            Err(refusal) => return self.refuse(&asker, Some(point), &origin, action, &json, refusal),
        };
        let Some(device) = self.points[point].device else { return };
        let deed = Deed::Point { action, value: raw, select_required, extra };
        self.begin_command(asker, origin, device, vec![point], deed, json, span_ns);
    }

    /// Takes a checked command and has its audit line written.
    #[allow(clippy::too_many_arguments, reason = "the parts of a command")]
    pub(crate) fn begin_command(
        &mut self,
        asker: Asker,
        origin: Origin,
        device: DeviceId,
        points: Vec<PointId>,
        deed: Deed,
        shown: Json,
        span_ns: u64,
    ) {
        let id = self.next_command;
        self.next_command += 1;
        let span_ns = if span_ns == 0 { self.exchange_ns(device).saturating_mul(EXCHANGES) } else { span_ns };
        let deadline_ns = self.now.mono_ns + span_ns.min(MAX_SPAN_NS);
        self.timers.arm(deadline_ns, Timer::Command(id));
        for point in &points {
            self.busy.insert(*point, id);
        }
        let command = Command {
            asker,
            origin,
            device,
            points,
            deed,
            shown,
            deadline_ns,
            phase: CommandPhase::Auditing,
            accepted: false,
        };
        let line = self.audit_line("request", &command, id, None);
        self.commands.insert(id, command);
        self.audits.insert(id, id);
        self.out.push(Output::Audit { audit: id, line });
    }

    fn check_new(
        &self,
        point: PointId,
        action: Action,
        json: &Json,
        origin: &Origin,
        select_required: bool,
        extra: Extra,
    ) -> Result<Value, Refusal> {
        if self.commands.len() >= MAX_COMMANDS {
            return Err((Reason::Busy, "too many commands are running".into()));
        }
        if self.busy.contains_key(&point) {
            return Err((Reason::Busy, "another command for this point is running".into()));
        }
        self.check_handover(self.points[point].device)?;
        self.check_point(point, action, origin, select_required, extra)?;
        let state = &self.points[point];
        if action == Action::Cancel && json.is_null() {
            return Ok(Value::None);
        }
        state.conversion.backward(
            state.raw_kind.or_else(|| self.learned_kind(point)).unwrap_or(busbar_contract::Kind::None),
            json,
        )
    }

    /// Everything that must hold when the command arrives, and again when it leaves.
    fn check_point(
        &self,
        point: PointId,
        action: Action,
        origin: &Origin,
        select_required: bool,
        extra: Extra,
    ) -> Result<(), Refusal> {
        let state = &self.points[point];
        let Some(device) = state.device.filter(|_| state.writable) else {
            return Err((Reason::NotWritable, "the point is not writable".into()));
        };
        if extra.expires_ns != 0 && self.now.wall_ns > extra.expires_ns {
            return Err((Reason::Stale, "the command came after its expiry".into()));
        }
        if self.commands_locked() {
            return Err((Reason::LockedOut, "commands are locked".into()));
        }
        if matches!(state.overlay, Overlay::Blocked(_)) {
            return Err((Reason::LockedOut, "the point is blocked by an operator".into()));
        }
        self.check_device(device)?;
        if self.selected_by_other(point, origin) {
            return Err((Reason::Busy, "the point is selected by another client".into()));
        }
        if action == Action::Operate && select_required && !self.selected_by(point, origin) {
            return Err((Reason::NotSelected, "the point must be selected first".into()));
        }
        if action == Action::Cancel {
            return Ok(());
        }
        self.check_interlock(device, state.index)
    }

    /// Nothing new begins while the driver is about to be replaced; what runs may end.
    pub(crate) fn check_handover(&self, device: Option<DeviceId>) -> Result<(), Refusal> {
        match device {
            Some(device) if self.devices[device].quiet => Err((Reason::Handover, REPLACED.into())),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_device(&self, device: DeviceId) -> Result<(), Refusal> {
        match self.devices[device].phase {
            Phase::Online => Ok(()),
            _ if self.devices[device].keep_ns != 0 => Err((Reason::Handover, REPLACED.into())),
            Phase::Maintenance => {
                Err((Reason::LockedOut, format!("the device is off: {}", self.devices[device].reason)))
            }
            Phase::Paused => Err((Reason::LockedOut, "the device is paused".into())),
            Phase::WaitTurn | Phase::Subscribing | Phase::Resync => {
                Err((Reason::Resync, "the device is being read after a connect".into()))
            }
            _ => Err((Reason::DeviceLost, self.devices[device].reason.clone())),
        }
    }

    /// Point key `interlock`: not good or not equal refuses.
    pub(crate) fn check_interlock(&self, device: DeviceId, index: usize) -> Result<(), Refusal> {
        let config =
            self.site.devices.get(device.number() as usize).and_then(|config| config.points.get(index));
        let Some(interlock) = config.and_then(|point| point.interlock.as_ref()) else { return Ok(()) };
        let holds = self.named(&interlock.point).map(|id| &self.points[id]).is_some_and(|point| {
            point.is_usable() && convert::equals(&point.shown().value(), &interlock.equals)
        });
        if holds {
            return Ok(());
        }
        Err((
            Reason::LocalMode,
            format!("interlock: {} is not good or not {}", interlock.point, interlock.equals),
        ))
    }

    /// The audit line is on disk: the command leaves, if everything still holds.
    pub(crate) fn audited(&mut self, audit: u64, error: &str) {
        if let Some(cancel) = self.cancels.remove(&audit) {
            return self.cancel_audited(cancel, error);
        }
        if self.answers.contains_key(&audit) {
            return self.send_answers_up_to(audit);
        }
        let Some(id) = self.audits.remove(&audit) else { return };
        let Some(command) = self.commands.get(&id) else { return };
        if command.phase != CommandPhase::Auditing {
            return;
        }
        if !error.is_empty() {
            let text = format!("the audit log cannot be written: {error}");
            return self.end_command(id, Answer::refused(Reason::LockedOut, text));
        }
        if let Err((reason, text)) = self.check_leaving(command) {
            return self.end_command(id, Answer::refused(reason, text));
        }
        let device = command.device;
        if let Some(command) = self.commands.get_mut(&id) {
            command.phase = CommandPhase::Queued;
        }
        self.ask(device, Work::Command(id));
    }

    fn check_leaving(&self, command: &Command) -> Result<(), Refusal> {
        match (&command.deed, command.points.first()) {
            (Deed::Point { action, select_required, extra, .. }, Some(point)) => {
                self.check_point(*point, *action, &command.origin, *select_required, *extra)
            }
            (Deed::Block { block, .. }, _) => self.check_block(command.device, *block),
            _ => Err((Reason::Unsupported, "nothing to write".into())),
        }
    }

    /// The request, at the moment it leaves. The last moment to refuse.
    pub(crate) fn command_body(&mut self, id: u64) -> Option<(Request, u64)> {
        let command = self.commands.get(&id)?;
        if command.phase != CommandPhase::Queued {
            return None;
        }
        if command.deadline_ns <= self.now.mono_ns {
            self.end_command(id, Answer::refused(Reason::Timeout, "the line was busy until the deadline"));
            return None;
        }
        if let Err((reason, text)) = self.check_leaving(command) {
            self.end_command(id, Answer::refused(reason, text));
            return None;
        }
        let command = self.commands.get_mut(&id)?;
        command.phase = CommandPhase::Submitted;
        let command = self.commands.get(&id)?;
        let deadline_ms = ms(command.deadline_ns - self.now.mono_ns);
        let body = match &command.deed {
            Deed::Point { action, value, extra, .. } => Request::Command(CommandBody {
                device: command.device.number(),
                point: command.points.first()?.number(),
                action: *action,
                value: value.clone(),
                origin: command.origin.clone(),
                qualifier: extra.qualifier,
                interlock_check: extra.interlock_check,
                synchro_check: extra.synchro_check,
                test: extra.test,
                issued_ns: if extra.issued_ns == 0 { self.now.wall_ns } else { extra.issued_ns },
                deadline_ms,
            }),
            Deed::Block { values, commit, .. } => block_body(command, values, commit.as_ref(), deadline_ms),
        };
        Some((body, command.deadline_ns))
    }

    pub(crate) fn command_timer(&mut self, id: u64) {
        let Some(command) = self.commands.get(&id) else { return };
        let now_ns = self.now.mono_ns;
        match command.phase {
            _ if now_ns < command.deadline_ns => {}
            CommandPhase::Auditing | CommandPhase::Queued => {
                self.end_command(
                    id,
                    Answer::refused(Reason::Timeout, "it did not leave before its deadline"),
                );
            }
            CommandPhase::Submitted if now_ns < command.deadline_ns + GRACE_NS => {
                self.timers.arm(command.deadline_ns + GRACE_NS, Timer::Command(id));
            }
            CommandPhase::Submitted => {
                self.end_command(id, Answer::unknown(Reason::Timeout, "no answer before the deadline"));
            }
        }
    }

    pub(crate) fn command_progress(&mut self, instance: u64, request: u64, answer: Answer) {
        let pending = self.requests.get(&request).filter(|pending| pending.instance == instance);
        let Some(Work::Command(id)) = pending.map(|pending| pending.work.clone()) else {
            self.oddities.unexpected += 1;
            return;
        };
        if answer.stage.is_last() {
            // A last stage comes with the completion; on the way it is not believed.
            self.oddities.unexpected += 1;
            return;
        }
        if let Some(command) = self.commands.get_mut(&id) {
            command.accepted |= answer.stage == Stage::Accepted;
            self.answer_command(id, answer);
        }
    }

    pub(crate) fn command_finished(&mut self, id: u64, outcome: Outcome) {
        if !self.commands.contains_key(&id) {
            self.oddities.late += 1;
            return;
        }
        let ended = match &outcome {
            Outcome::Failed(failure) => {
                Some(failure.kind).filter(|kind| matches!(kind, FailureKind::Session | FailureKind::NoAnswer))
            }
            _ => None,
        };
        let answer = match outcome {
            Outcome::Done(Done { answer: Some(answer), .. }) => self.last_answer(id, answer),
            Outcome::Done(_) | Outcome::Samples => {
                Answer::unknown(Reason::Unsupported, "the driver completed the command without an answer")
            }
            Outcome::NotTaken { unsupported: true } => self.unsupported(id, "the driver cannot write"),
            Outcome::NotTaken { .. } => Answer::refused(Reason::Busy, "the driver's queue is full"),
            Outcome::Failed(failure) => {
                let text =
                    failure.code.map_or(failure.text.clone(), |code| format!("{}: {code}", failure.text));
                match failure.kind {
                    FailureKind::Refused => Answer::refused(Reason::DeviceRefused, text),
                    FailureKind::Unsupported => self.unsupported(id, &text),
                    FailureKind::Configuration => Answer::refused(Reason::Unsupported, text),
                    FailureKind::Deadline => Answer::unknown(Reason::Timeout, text),
                    FailureKind::Session | FailureKind::NoAnswer => Answer::unknown(Reason::DeviceLost, text),
                    FailureKind::Cancelled | FailureKind::Bug => Answer::unknown(Reason::Timeout, text),
                }
            }
        };
        let device = self.commands.get(&id).map(|command| command.device);
        let text = answer.text.clone();
        self.end_command(id, answer);
        // A command that found the device gone means what a read would mean.
        if let (Some(device), Some(kind)) = (device, ended) {
            self.consequence(device, kind, &text);
        }
    }

    /// A host-side selection serves clients that select before operating a direct device.
    fn unsupported(&self, id: u64, text: &str) -> Answer {
        let action = self.commands.get(&id).and_then(|command| match command.deed {
            Deed::Point { action, .. } => Some(action),
            Deed::Block { .. } => None,
        });
        match action {
            Some(Action::Select) => Answer::stage(Stage::Selected),
            Some(Action::Cancel) => Answer::stage(Stage::Finished),
            _ => Answer::refused(Reason::Unsupported, text),
        }
    }

    /// What the driver returned, as a last answer of this command.
    fn last_answer(&mut self, id: u64, mut answer: Answer) -> Answer {
        let Some(command) = self.commands.get(&id) else { return answer };
        let selecting = matches!(command.deed, Deed::Point { action: Action::Select, .. });
        match answer.stage {
            Stage::Selected if !selecting => {
                return Answer::unknown(
                    Reason::Unsupported,
                    "the driver answered an execute with a selection",
                );
            }
            Stage::Selected => {
                let (points, origin) = (command.points.clone(), command.origin.clone());
                let instance = asker_instance(&command.asker);
                if let Some(point) = points.first() {
                    self.select(*point, origin, instance, true);
                }
            }
            // Where the protocol tells no end, accepted is the end.
            Stage::Accepted => answer.stage = Stage::Finished,
            Stage::Finished | Stage::Refused | Stage::Unknown => {}
        }
        answer
    }

    /// The last answer: audit, asker, selection, feedback.
    pub(crate) fn end_command(&mut self, id: u64, answer: Answer) {
        self.answer_command(id, answer.clone());
        let Some(command) = self.commands.remove(&id) else { return };
        self.audits.remove(&id);
        for point in &command.points {
            self.busy.remove(point);
        }
        if let (Deed::Point { action, .. }, Some(point)) = (&command.deed, command.points.first()) {
            self.after_action(*point, *action, &command, &answer);
        }
        if answer.stage == Stage::Unknown {
            // Nobody knows: the feedback is read at once.
            for point in command.points {
                if let Some(group) = self.points[point].group {
                    self.read_now(group);
                }
            }
        }
    }

    fn after_action(&mut self, point: PointId, action: Action, command: &Command, answer: &Answer) {
        let own = self
            .selections
            .get(&point)
            .is_some_and(|selection| same_owner(&selection.origin, &command.origin));
        match action {
            Action::Select if answer.stage == Stage::Selected && !self.selections.contains_key(&point) => {
                self.select(point, command.origin.clone(), asker_instance(&command.asker), false);
            }
            Action::Operate | Action::Cancel if own && command.phase == CommandPhase::Submitted => {
                self.selections.remove(&point);
            }
            _ => {}
        }
    }

    /// One answer: to the audit log and to whoever asked.
    fn answer_command(&mut self, id: u64, answer: Answer) {
        let Some(command) = self.commands.get(&id) else { return };
        let asker = command.asker.clone();
        let line = self.audit_line("answer", command, id, Some(&answer));
        self.audit_then_reply(line, asker, answer);
    }

    /// The asker learns an answer when the audit log has it: nothing that anybody acts on is missing there.
    fn audit_then_reply(&mut self, line: Json, asker: Asker, answer: Answer) {
        let audit = self.next_command;
        self.next_command += 1;
        self.answers.insert(audit, Unsent { asker, answer, since_ns: self.now.mono_ns });
        self.out.push(Output::Audit { audit, line });
    }

    /// Lines are written in order: what was said before is on disk, too, and stages keep their order.
    fn send_answers_up_to(&mut self, audit: u64) {
        while let Some(first) = self.answers.first_entry()
            && *first.key() <= audit
        {
            let Unsent { asker, answer, .. } = first.remove();
            self.reply_command(&asker, answer);
        }
    }

    /// Once a second: a disk that hangs does not keep what happened at the device from the asker.
    pub(crate) fn release_answers(&mut self) {
        let Some(limit_ns) = self.now.mono_ns.checked_sub(ANSWER_AFTER_NS) else { return };
        while let Some(first) = self.answers.first_entry()
            && first.get().since_ns <= limit_ns
        {
            let Unsent { asker, answer, .. } = first.remove();
            self.reply_command(&asker, answer);
        }
    }

    fn reply_command(&mut self, asker: &Asker, answer: Answer) {
        match asker {
            Asker::Sink { instance, request, .. } => {
                self.tell(*instance, *request, Request::Answer(AnswerTo::Command(answer)));
            }
            Asker::Operator { id } => self.out.push(Output::Reply { id: *id, reply: Reply::Command(answer) }),
        }
    }

    /// Refused before it was taken; it is in the audit log all the same.
    pub(crate) fn refuse(
        &mut self,
        asker: &Asker,
        point: Option<PointId>,
        origin: &Origin,
        action: Action,
        value: &Json,
        (reason, text): Refusal,
    ) {
        self.refuse_with(asker, point, origin, action, value, Answer::refused(reason, text));
    }

    fn refuse_with(
        &mut self,
        asker: &Asker,
        point: Option<PointId>,
        origin: &Origin,
        action: Action,
        value: &Json,
        answer: Answer,
    ) {
        let name = point.map(|point| self.full_name(point)).unwrap_or_default();
        let line = json!({
            "ts": rfc3339(self.now.wall_ns), "event": "answer", "point": name, "action": action, "value": value,
            "origin": origin, "stage": answer.stage, "reason": answer.reason, "text": answer.text,
        });
        self.audit_then_reply(line, asker.clone(), answer);
    }

    fn audit_line(&self, event: &str, command: &Command, id: u64, answer: Option<&Answer>) -> Json {
        let points: Vec<String> = command.points.iter().map(|point| self.full_name(*point)).collect();
        let action = match &command.deed {
            Deed::Point { action, .. } => json!(action),
            Deed::Block { .. } => json!("write_block"),
        };
        let mut line = json!({
            "ts": rfc3339(self.now.wall_ns), "id": id, "event": event, "point": points.join(","), "action": action,
            "value": command.shown, "origin": command.origin,
        });
        if let (Some(answer), Some(fields)) = (answer, line.as_object_mut()) {
            fields.insert("stage".into(), json!(answer.stage));
            fields.insert("reason".into(), json!(answer.reason));
            fields.insert("text".into(), json!(answer.text));
        }
        line
    }

    /// A line of the audit log about something the host does by itself.
    pub(crate) fn audit_note(
        &mut self,
        audit: u64,
        event: &str,
        point: PointId,
        origin: &Origin,
        text: &str,
    ) {
        let line = json!({
            "ts": rfc3339(self.now.wall_ns), "event": event, "point": self.full_name(point), "origin": origin,
            "text": text,
        });
        self.out.push(Output::Audit { audit, line });
    }

    /// It waited for its turn and cannot leave any more.
    pub(crate) fn command_lost(&mut self, id: u64, text: &str) {
        let left = self.commands.get(&id).is_some_and(|command| command.phase == CommandPhase::Submitted);
        let answer = if left {
            Answer::unknown(Reason::DeviceLost, text)
        } else {
            Answer::refused(Reason::DeviceLost, text)
        };
        self.end_command(id, answer);
    }

    /// The device's session ended: commands on their way are unknown, others refused; selections are void.
    pub(crate) fn end_commands_of(&mut self, device: DeviceId) {
        let running: Vec<u64> =
            self.commands.iter().filter(|(_, command)| command.device == device).map(|(id, _)| *id).collect();
        for id in running {
            self.command_lost(id, "the device was lost");
        }
        self.forget_selections_at(device);
    }
}

/// The sink instance behind a command; 0 = an operator.
pub(crate) const fn asker_instance(asker: &Asker) -> u64 {
    match asker {
        Asker::Sink { instance, .. } => *instance,
        Asker::Operator { .. } => 0,
    }
}

fn block_body(
    command: &Command,
    values: &[(PointId, Value)],
    commit: Option<&(PointId, Value)>,
    deadline_ms: u64,
) -> Request {
    use busbar_contract::request::{BlockWrite, PointValue};
    let value =
        |(point, value): &(PointId, Value)| PointValue { point: point.number(), value: value.clone() };
    Request::BlockWrite(BlockWrite {
        device: command.device.number(),
        values: values.iter().map(value).collect(),
        commit: commit.map(value),
        origin: command.origin.clone(),
        deadline_ms,
    })
}
