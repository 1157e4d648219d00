//! The command path (SEMANTICS 6 and 7, G8).

use busbar_contract::{
    Action, Answer, Event, Failure, FailureKind, Origin, Reason, Request, Stage, Value,
    event::{Done, Fetch, SinkCommand, WriteBlock},
    request::{AnswerTo, PointValue},
};
use busbar_core::{
    Input, Output,
    input::{Ask, Operator, OperatorCommand},
    model::{Block, Interlock, Site},
};
use serde_json::{Value as Json, json};

use crate::bench::{Bench, site};

fn command(point: u32, action: Action, value: Json) -> SinkCommand {
    SinkCommand {
        point,
        action,
        value,
        origin: Origin { client: "a".into(), ..Origin::default() },
        select_required: false,
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: 0,
        expires_ns: 0,
        refused: None,
    }
}

struct Seen {
    answers: Vec<Answer>,
    audits: Vec<(u64, Json)>,
    commands: Vec<(u64, u64, Request)>,
}

impl Bench {
    fn seen(&mut self) -> Seen {
        let mut seen = Seen { answers: Vec::new(), audits: Vec::new(), commands: Vec::new() };
        for output in self.take() {
            match output {
                Output::Submit { body: Request::Answer(AnswerTo::Command(answer)), .. } => {
                    seen.answers.push(answer)
                }
                Output::Reply { reply: busbar_core::output::Reply::Command(answer), .. } => {
                    seen.answers.push(answer)
                }
                Output::Submit { instance, request, body } => seen.commands.push((instance, request, body)),
                Output::Audit { audit, line } => seen.audits.push((audit, line)),
                _ => {}
            }
        }
        seen
    }

    fn ask(&mut self, sink: u64, request: u64, command: SinkCommand) -> Seen {
        self.event(1, sink, request, Event::Command(command));
        self.seen()
    }

    /// Asks and lets the audit line be written.
    fn ask_audited(&mut self, sink: u64, request: u64, command: SinkCommand) -> Seen {
        let seen = self.ask(sink, request, command);
        assert!(seen.answers.is_empty(), "{:?}", seen.answers);
        let audit = seen.audits[0].0;
        assert!(audit != 0 && seen.commands.is_empty(), "nothing leaves before its audit line is on disk");
        self.step(Input::Audited { audit, error: String::new() });
        self.seen()
    }
}

fn refused(site: Site, prepare: impl FnOnce(&mut Bench, u64), command: SinkCommand) -> Reason {
    let (mut bench, sink) = Bench::running(site, None, true);
    prepare(&mut bench, sink);
    bench.take();
    let seen = bench.ask(sink, 1, command);
    assert_eq!(seen.answers.len(), 1, "refused at once");
    assert_eq!(seen.answers[0].stage, Stage::Refused);
    assert!(seen.commands.is_empty());
    assert_eq!(seen.audits[0].1["stage"], "refused", "a refusal is in the audit log too");
    seen.answers[0].reason.unwrap()
}

fn operate(value: impl Into<Json>) -> SinkCommand {
    command(0, Action::Operate, value.into())
}

#[test]
fn a_command_is_audited_sent_once_and_confirmed_by_the_device() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask_audited(sink, 9, operate(50));
    let (instance, request, Request::Command(body)) = &seen.commands[0] else {
        panic!("{:?}", seen.commands)
    };
    assert_eq!((body.value.clone(), body.origin.sink.as_str(), body.point), (Value::Int(50), "s", 0));
    let answer = Some(Answer::stage(Stage::Accepted));
    bench.event(0, *instance, *request, Event::Done(Done { answer, ..Done::default() }));
    let seen = bench.seen();
    assert_eq!(
        seen.answers,
        [Answer::stage(Stage::Finished)],
        "where the protocol tells no end, accepted is the end"
    );
    assert_eq!(seen.audits[0].1["stage"], "finished");
    bench.pass(60_000);
    assert!(
        !bench.seen().commands.iter().any(|(_, _, body)| matches!(body, Request::Command(_))),
        "never repeated"
    );
}

#[test]
fn commands_that_may_not_pass_are_refused_with_the_reason() {
    let none = |_: &mut Bench, _| {};
    assert_eq!(refused(site(1), none, operate(100.5)), Reason::OutOfRange, "never clamped");
    assert_eq!(refused(site(1), none, command(1, Action::Operate, json!(1))), Reason::NotWritable);
    assert_eq!(refused(site(1), none, command(99, Action::Operate, json!(1))), Reason::NotWritable);
    let mut locked_sink = site(1);
    locked_sink.sinks[0].commands = false;
    assert_eq!(refused(locked_sink, none, operate(1)), Reason::NotWritable);
    let expired = SinkCommand { expires_ns: 1, ..operate(1) };
    assert_eq!(refused(site(1), none, expired), Reason::Stale);
    let unselected = SinkCommand { select_required: true, ..operate(1) };
    assert_eq!(refused(site(1), none, unselected), Reason::NotSelected);
    let by_sink = SinkCommand { refused: Some(Answer::refused(Reason::Stale, "retained")), ..operate(1) };
    assert_eq!(refused(site(1), none, by_sink), Reason::Stale, "a sink's own refusal is audited");
    let lock = |bench: &mut Bench, _| {
        bench.step(Input::Operator(Operator { id: 1, ask: Ask::Lock(Origin::default()) }));
    };
    assert_eq!(refused(site(1), lock, operate(1)), Reason::LockedOut);
    let block = |bench: &mut Bench, _| {
        bench.step(Input::Operator(Operator { id: 1, ask: Ask::Block("d0/p0".into(), Origin::default()) }));
    };
    assert_eq!(refused(site(1), block, operate(1)), Reason::LockedOut);
    let lose = |bench: &mut Bench, _| {
        let down = busbar_contract::event::State { device: Some(0), up: false, reason: "x".into() };
        bench.event(0, 1, 0, Event::State(down));
    };
    assert_eq!(refused(site(1), lose, operate(1)), Reason::DeviceLost);
    let running = |bench: &mut Bench, sink| {
        bench.ask(sink, 7, operate(1));
    };
    assert_eq!(refused(site(1), running, operate(2)), Reason::Busy, "one at a time per point");
}

#[test]
fn an_interlock_that_is_not_good_or_not_equal_refuses_with_local_mode() {
    let mut interlocked = site(1);
    interlocked.devices[0].points[0].interlock = Some(Interlock { point: "d0/p1".into(), equals: json!(6) });
    assert_eq!(refused(interlocked.clone(), |_, _| {}, operate(1)), Reason::LocalMode);
    interlocked.devices[0].points[0].interlock = Some(Interlock { point: "d0/p1".into(), equals: json!(5) });
    let (mut bench, sink) = Bench::running(interlocked, None, true);
    assert_eq!(bench.ask_audited(sink, 1, operate(1)).commands.len(), 1);
}

#[test]
fn the_asker_hears_of_an_answer_when_the_audit_log_has_it_or_after_two_seconds() {
    for written in [true, false] {
        let (mut bench, sink) = Bench::running(site(1), None, true);
        let seen = bench.ask_audited(sink, 1, operate(1));
        let answer = Some(Answer::stage(Stage::Finished));
        let done = Event::Done(Done { answer, ..Done::default() });
        let (instance, request) = (seen.commands[0].0, seen.commands[0].1);
        bench.step_only(Input::Event { plugin: 0, instance, request, event: done });
        let seen = bench.seen();
        assert!(seen.answers.is_empty(), "{:?}", seen.answers);
        if written {
            bench.step(Input::Audited { audit: seen.audits[0].0, error: String::new() });
        } else {
            bench.pass(4000);
        }
        assert_eq!(bench.seen().answers, [Answer::stage(Stage::Finished)]);
    }
}

#[test]
fn without_an_audit_log_commands_are_refused() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask(sink, 1, operate(1));
    bench.step(Input::Audited { audit: seen.audits[0].0, error: "disk full".into() });
    let seen = bench.seen();
    assert!(seen.commands.is_empty());
    assert_eq!((seen.answers[0].stage, seen.answers[0].reason), (Stage::Refused, Some(Reason::LockedOut)));
}

#[test]
fn no_answer_before_the_deadline_is_unknown_and_the_feedback_is_read_at_once() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask_audited(sink, 1, operate(1));
    let (instance, request, _) = &seen.commands[0];
    bench.event(0, *instance, *request, Event::Failed(Failure::new(FailureKind::Deadline, "late")));
    let seen = bench.seen();
    assert_eq!((seen.answers[0].stage, seen.answers[0].reason), (Stage::Unknown, Some(Reason::Timeout)));
    assert!(matches!(seen.commands[0].2, Request::Read(_)), "{:?}", seen.commands);
}

#[test]
fn a_loss_between_audit_and_departure_refuses_and_nothing_is_sent_after_the_reconnect() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask(sink, 1, operate(1));
    let down = busbar_contract::event::State { device: Some(0), up: false, reason: "x".into() };
    bench.event(0, 1, 0, Event::State(down));
    let answers = bench.seen().answers;
    assert_eq!((answers[0].stage, answers[0].reason), (Stage::Refused, Some(Reason::DeviceLost)));
    bench.step(Input::Audited { audit: seen.audits[0].0, error: String::new() });
    bench.pass(2000);
    for _ in 0..10 {
        for (instance, request, body) in bench.requests() {
            assert!(!matches!(body, Request::Command(_)), "never sent later");
            bench.answer(instance, request, &body, 5);
        }
    }
    assert_eq!(bench.state(0), "online");
}

#[test]
fn a_driver_that_completes_without_an_answer_confirms_nothing() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask_audited(sink, 1, operate(1));
    bench.done(0, seen.commands[0].0, seen.commands[0].1);
    assert_eq!(bench.seen().answers[0].stage, Stage::Unknown);
}

#[test]
fn a_selection_belongs_to_its_client_and_ends_by_time_with_a_cancel_at_the_device() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask_audited(sink, 1, command(0, Action::Select, json!(1)));
    let answer = Some(Answer::stage(Stage::Selected));
    bench.event(0, seen.commands[0].0, seen.commands[0].1, Event::Done(Done { answer, ..Done::default() }));
    assert_eq!(bench.seen().answers[0].stage, Stage::Selected);
    let mut other = operate(1);
    other.origin.client = "b".into();
    assert_eq!(bench.ask(sink, 2, other).answers[0].reason, Some(Reason::Busy));
    let mut cancelled = false;
    for _ in 0..310 {
        bench.pass(100);
        let waits =
            bench.out.iter().any(|output| matches!(output, Output::Audit { audit, .. } if *audit != 0));
        let unaudited = bench.requests();
        let early = waits && unaudited.iter().any(|(_, _, body)| matches!(body, Request::Command(_)));
        assert!(!early, "not before its audit line is on disk");
        bench.audit_all();
        for (instance, request, body) in unaudited.into_iter().chain(bench.requests()) {
            cancelled |= matches!(&body, Request::Command(body) if body.action == Action::Cancel);
            bench.answer(instance, request, &body, 5);
        }
    }
    assert!(cancelled);
    let required = SinkCommand { select_required: true, ..operate(1) };
    assert_eq!(bench.ask(sink, 3, required).answers[0].reason, Some(Reason::NotSelected));
}

#[test]
fn a_direct_device_serves_clients_that_select_first() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let seen = bench.ask_audited(sink, 1, command(0, Action::Select, json!(1)));
    let unsupported = Failure::new(FailureKind::Unsupported, "direct control");
    bench.event(0, seen.commands[0].0, seen.commands[0].1, Event::Failed(unsupported));
    assert_eq!(bench.seen().answers[0].stage, Stage::Selected);
    let required = SinkCommand { select_required: true, ..operate(1) };
    assert_eq!(bench.ask_audited(sink, 2, required).commands.len(), 1);
}

#[test]
fn an_operators_command_takes_the_same_path() {
    let (mut bench, _) = Bench::running(site(1), None, true);
    let ask = Ask::Command(OperatorCommand {
        point: "d0/p0".into(),
        action: Action::Operate,
        value: json!(101),
        origin: Origin { sink: "cli".into(), ..Origin::default() },
        deadline_ms: 0,
    });
    bench.step(Input::Operator(Operator { id: 5, ask }));
    assert_eq!(bench.seen().answers[0].reason, Some(Reason::OutOfRange));
}

fn block_site() -> Site {
    let mut site = site(1);
    site.devices[0].blocks = vec![Block {
        name: "b".into(),
        points: vec![0, 1],
        gate: Some((1, json!(5))),
        commit: Some((1, json!(0))),
        writable: true,
    }];
    site
}

fn write_block(values: &[(u32, i64)]) -> Event {
    Event::WriteBlock(WriteBlock {
        block: "d0/b".into(),
        values: values
            .iter()
            .map(|(point, value)| PointValue { point: *point, value: Value::Int(*value) })
            .collect(),
        origin: Origin::default(),
        deadline_ms: 1000,
    })
}

#[test]
fn a_block_is_written_as_one_unit_with_its_commit_point_last() {
    let (mut bench, sink) = Bench::running(block_site(), None, true);
    bench.event(1, sink, 4, write_block(&[(0, 42)]));
    let audit = bench.seen().audits[0].0;
    bench.step(Input::Audited { audit, error: String::new() });
    let seen = bench.seen();
    let Request::BlockWrite(body) = &seen.commands[0].2 else { panic!("{:?}", seen.commands) };
    assert_eq!(body.values, [PointValue { point: 0, value: Value::Int(42) }]);
    assert_eq!(body.commit, Some(PointValue { point: 1, value: Value::Int(0) }));
}

#[test]
fn a_block_behind_a_closed_gate_or_out_of_range_is_refused() {
    let (mut bench, sink) = Bench::running(block_site(), None, true);
    bench.event(1, sink, 4, write_block(&[(0, 420)]));
    assert_eq!(bench.seen().answers[0].reason, Some(Reason::OutOfRange));
    bench.push_as(1, 0, &[1], 6, busbar_contract::Cause::Integrity, 0, crate::bench::WALL + 1_000_000_000);
    bench.event(1, sink, 5, write_block(&[(0, 42)]));
    assert_eq!(bench.seen().answers[0].reason, Some(Reason::LocalMode));
}

#[test]
fn a_fetch_is_fresh_and_all_or_an_error() {
    let (mut bench, sink) = Bench::running(site(1), None, true);
    let fetch = || Event::Fetch(Fetch { points: vec![0, 1], block: None, deadline_ms: 500 });
    for (points, whole) in [(vec![0u32, 1], true), (vec![0], false)] {
        bench.event(1, sink, 8, fetch());
        let seen = bench.seen();
        let (instance, request, Request::BlockRead(_)) = &seen.commands[0] else { panic!() };
        bench.push(*instance, *request, &points, 77);
        let answer = bench.take().into_iter().find_map(|output| match output {
            Output::Submit { request: 8, body: Request::Answer(answer), .. } => Some(answer),
            _ => None,
        });
        match answer.unwrap() {
            AnswerTo::Fetch { values, .. } => {
                assert!(whole);
                assert_eq!(values[1].1, Value::Int(77));
            }
            AnswerTo::FetchFailed { .. } => assert!(!whole),
            other => panic!("{other:?}"),
        }
    }
}
