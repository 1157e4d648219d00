//! Every operation of a sink through the real `.so`, in-process and isolated.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use busbar_contract::{
    Action, Answer, Cause, Event, FailureKind, Flags, Quality, Reason, Request, Samples, Stage, Value, batch,
    binary::{Ack, Verdict},
    describe::Open,
    op,
    request::{AnswerTo, OfDevice, Points, SinkPoint},
};
use busbar_loader::Instance;
use common::{BOTH, LONG_MS, Rig, Said, artifacts, delivery};
use serde_json::{Value as Json, json};

const TO_FAR_SIDE: OfDevice = OfDevice { device: None, deadline_ms: LONG_MS };

fn sink(settings: Json) -> Open {
    Open::Sink {
        name: "broker".into(),
        host: "site-7".into(),
        settings,
        bad_value: "last".into(),
        test: "invalid".into(),
    }
}

fn point(number: u32, name: &str) -> SinkPoint {
    SinkPoint {
        point: number,
        device: "d".into(),
        name: name.into(),
        unit: "V".into(),
        description: String::new(),
        metadata: Json::Null,
        writable: true,
        map: vec![json!({ "point": format!("d/{name}"), "key": format!("key-{name}") })],
    }
}

fn points(replace: bool, points: Vec<SinkPoint>, removed: Vec<u32>) -> Request {
    Request::Points(Points { replace, points, removed })
}

/// A connected sink with points 1 `a`, 2 `b`, 3 `script`.
fn connected(rig: &mut Rig, settings: Json) -> Instance {
    let instance = rig.open(&sink(settings));
    rig.done(&instance, &points(true, vec![point(1, "a"), point(2, "b"), point(3, "script")], vec![]));
    rig.done(&instance, &Request::Connect(TO_FAR_SIDE));
    assert_eq!(seen(rig, "open")["points"], json!(["d/a", "d/b", "d/script"]));
    instance
}

fn each(test: impl Fn(&mut Rig)) {
    for isolation in BOTH {
        let mut rig = Rig::start(&artifacts::fake_sink(), isolation);
        test(&mut rig);
        rig.end();
    }
}

/// The next thing the sink recorded under this word.
fn seen(rig: &mut Rig, word: &str) -> Json {
    let line = |event: &Event| match event {
        Event::Fault(fault) if fault.code == "record" => serde_json::from_str::<Json>(&fault.text).ok(),
        _ => None,
    };
    let (_, event) = rig.event(|event| line(event).is_some_and(|line| line["seen"] == word));
    line(&event).unwrap()
}

fn samples(values: &[(u32, Value)]) -> Samples {
    let mut samples = Samples::default();
    for (at, (point, value)) in values.iter().enumerate() {
        let flags = Flags::new(Cause::DataChange, 0);
        samples.push(*point, 1000 + i64::try_from(at).unwrap(), value, Quality::GOOD, flags);
    }
    samples
}

fn ack(rig: &mut Rig) -> (u32, Vec<Ack>) {
    match rig.event(|event| matches!(event, Event::Ack { .. })) {
        (0, Event::Ack { lane, acks }) => (lane, acks),
        other => panic!("{other:?}"),
    }
}

/// Delivers one step to the point `script`.
fn script(rig: &mut Rig, instance: &Instance, first: u64, step: Json) {
    assert!(instance.deliver(delivery(first, 0, 0, samples(&[(3, Value::Json(step))]))).is_taken());
    seen(rig, "delivery");
}

#[test]
fn records_arrive_whole_and_in_order() {
    each(|rig| {
        let instance = connected(rig, json!({}));
        let mut image = samples(&[(1, Value::Float32(231.4)), (2, Value::Text("é".into()))]);
        image.samples[1].quality = Quality::INVALID.with(Quality::COMM_LOST).0;
        image.append_times(&[(1, 77)]);
        let flags = batch::SNAPSHOT | batch::TIMES;
        assert!(instance.deliver(delivery(0, 4, flags, image)).is_taken());
        let line = seen(rig, "delivery");
        assert_eq!((&line["snapshot"], &line["lane"]), (&json!(true), &json!(4)));
        let expected = json!([
            { "number": 0, "point": "d/a", "value": 231.4, "quality": "good", "ts": 1000, "value_ts": 1000, "cause": 1 },
            { "number": 1, "point": "d/b", "value": "é", "quality": "invalid|comm_lost", "ts": 1001, "value_ts": 77, "cause": 1 },
        ]);
        assert_eq!(line["records"], expected);
        assert_eq!(ack(rig), (4, vec![Ack { first: 0, count: 2, verdict: Verdict::Delivered, reason: 0 }]));

        for number in 0..50 {
            let one = samples(&[(1, Value::Uint(number))]);
            let flags = if number % 2 == 0 { batch::REPLAY } else { batch::BLOCK | batch::RESYNC };
            assert!(instance.deliver(delivery(number, 0, flags, one)).is_taken());
        }
        for number in 0..50 {
            let line = seen(rig, "delivery");
            assert_eq!(line["records"][0]["value"], number);
            assert_eq!((line["replay"] == true, line["block"] == true), (number % 2 == 0, number % 2 == 1));
        }
        rig.stop(&instance);
        seen(rig, "close");
    });
}

#[test]
fn every_verdict_can_be_given() {
    each(|rig| {
        let instance = connected(rig, json!({ "ack": "reject" }));
        let two = || samples(&[(1, Value::Bool(true)), (2, Value::Bool(false))]);
        let verdict = |first, count, verdict, reason| Ack { first, count, verdict, reason };
        instance.deliver(delivery(10, 0, 0, two()));
        assert_eq!(ack(rig).1, [verdict(10, 2, Verdict::Rejected, 1)]);
        script(rig, &instance, 20, json!({ "ack": "retry" }));
        ack(rig);
        instance.deliver(delivery(30, 0, 0, two()));
        assert_eq!(ack(rig).1, [verdict(30, 2, Verdict::Retry, 2)]);
        script(rig, &instance, 40, json!({ "ack": "mixed" }));
        ack(rig);
        instance.deliver(delivery(50, 0, 0, two()));
        assert_eq!(ack(rig).1, [verdict(50, 1, Verdict::Delivered, 0), verdict(51, 1, Verdict::Rejected, 1)]);
        script(rig, &instance, 60, json!({ "ack": "withhold" }));
        ack(rig);
        instance.deliver(delivery(70, 0, 0, two()));
        seen(rig, "delivery");
        rig.stop(&instance);
        let acks =
            rig.leftovers().into_iter().filter(|said| matches!(said, Said::Event(_, _, Event::Ack { .. })));
        assert_eq!(acks.count(), 0, "withheld");
        assert_eq!(rig.plugin.describe().reasons, ["", "refused by script", "busy by script"]);
    });
}

#[test]
fn without_a_connection_records_go_back() {
    each(|rig| {
        let instance = rig.open(&sink(json!({})));
        instance.deliver(delivery(5, 1, 0, samples(&[(1, Value::Bool(true))])));
        assert_eq!(ack(rig), (1, vec![Ack { first: 5, count: 1, verdict: Verdict::Retry, reason: 0 }]));
        assert_eq!(rig.failed(&instance, &Request::Probe(TO_FAR_SIDE)).kind, FailureKind::Session);
        rig.done(&instance, &Request::Connect(TO_FAR_SIDE));
        rig.done(&instance, &Request::Probe(TO_FAR_SIDE));
        rig.done(&instance, &Request::Disconnect(TO_FAR_SIDE));
        seen(rig, "close");
        assert_eq!(rig.failed(&instance, &Request::Probe(TO_FAR_SIDE)).kind, FailureKind::Session);
        let attach = common::attach(1, &json!({}));
        let code = instance.submit(777, &attach);
        assert_ne!(code, busbar_loader::Admission::Congested, "a sink has no devices");
        rig.stop(&instance);
    });
}

#[test]
fn the_point_list_changes_while_connected() {
    each(|rig| {
        let instance = connected(rig, json!({}));
        rig.done(&instance, &points(false, vec![point(2, "b2"), point(9, "new")], vec![1]));
        let line = seen(rig, "points");
        let expected = json!({ "seen": "points", "replaced": false, "changed": [2, 9], "removed": [1],
            "keys": ["key-b2", "key-new"], "count": 3 });
        assert_eq!(line, expected);
        rig.done(&instance, &points(true, vec![point(9, "only")], vec![]));
        assert_eq!(seen(rig, "points")["count"], 1);
        let mut wrong = point(4, "x");
        wrong.map = vec![json!({ "point": "d/x", "kye": 1 })];
        let failure = rig.failed(&instance, &points(false, vec![wrong], vec![]));
        assert!(failure.text.contains("did you mean `key`?"), "{failure:?}");
        rig.stop(&instance);
    });
}

#[test]
fn a_broken_connection_is_told_and_can_be_made_again() {
    each(|rig| {
        for (operation, act, word) in [
            ("deliver", "panic", "panic in a delivery"),
            ("deliver", "session", "session ended by script"),
            ("points", "refuse", "refused by script"),
            ("next", "session", "session ended by script"),
        ] {
            let acts = if operation == "next" { json!({}) } else { json!({ operation: act }) };
            let instance = connected(rig, json!({ "acts": acts }));
            match operation {
                "points" => drop(rig.done(&instance, &points(false, vec![point(7, "n")], vec![]))),
                "deliver" => drop(instance.deliver(delivery(0, 0, 0, samples(&[(1, Value::Bool(true))])))),
                _ => script(rig, &instance, 0, json!({ "act": { "operation": operation, "act": act } })),
            }
            let (_, event) = rig.event(|event| matches!(event, Event::State(_)));
            let text = format!("{event:?}");
            assert!(text.contains(word) && text.contains("up: false"), "{operation}: {text}");
            instance.deliver(delivery(90, 0, 0, samples(&[(1, Value::Bool(true))])));
            rig.event(|event| {
                matches!(event, Event::Ack { acks, .. } if acks[0].first == 90 && acks[0].verdict == Verdict::Retry)
            });
            rig.done(&instance, &Request::Connect(TO_FAR_SIDE));
            rig.stop(&instance);
        }
        for (act, kind) in
            [("refuse", FailureKind::Refused), ("silent", FailureKind::Deadline), ("panic", FailureKind::Bug)]
        {
            let instance = rig.open(&sink(json!({ "acts": { "open": act } })));
            let soon = OfDevice { device: None, deadline_ms: 100 };
            assert_eq!(rig.failed(&instance, &Request::Connect(soon)).kind, kind);
            rig.stop(&instance);
        }
    });
}

#[test]
fn commands_fetches_and_blocks_are_answered() {
    each(|rig| {
        let instance = connected(rig, json!({}));
        let operate = json!({ "command": { "point": 1, "action": "operate", "value": 5 } });
        script(rig, &instance, 0, operate);
        let (number, event) = rig.event(|event| matches!(event, Event::Command(_)));
        let Event::Command(command) = event else { panic!() };
        assert_eq!((command.point, command.action, &command.value), (1, Action::Operate, &json!(5)));
        assert_eq!(command.origin.client, "fake-client");
        assert_eq!(seen(rig, "command")["request"], number);
        for answer in [
            Answer::stage(Stage::Selected),
            Answer::stage(Stage::Accepted),
            Answer::refused(Reason::Timeout, "late"),
        ] {
            rig.answer(&instance, number, AnswerTo::Command(answer.clone()));
            let line = seen(rig, "answered");
            assert_eq!(line["request"], number);
            assert_eq!(line["answer"]["stage"], serde_json::to_value(answer.stage).unwrap());
        }
        rig.answer(&instance, number, AnswerTo::Command(Answer::stage(Stage::Finished)));

        script(rig, &instance, 1, json!({ "command_answers": { "point": 2, "value": true } }));
        let (number, _) = rig.event(|event| matches!(event, Event::Command(_)));
        rig.answer(&instance, number, AnswerTo::Command(Answer::stage(Stage::Finished)));
        assert_eq!(seen(rig, "answers")["first"]["stage"], "finished");

        script(rig, &instance, 2, json!({ "fetch": { "points": [1, 2], "block": null } }));
        let (number, event) = rig.event(|event| matches!(event, Event::Fetch(_)));
        let Event::Fetch(fetch) = event else { panic!() };
        assert_eq!((fetch.points, fetch.block), (vec![1, 2], None));
        let values = vec![(1, Value::Float64(1.5), Quality::GOOD)];
        rig.answer(&instance, number, AnswerTo::Fetch { ts_ns: 9, values });
        let line = seen(rig, "fetched");
        assert_eq!((&line["ts"], &line["values"][0][1]["value"]), (&json!(9), &json!(1.5)));
        script(rig, &instance, 3, json!({ "fetch": { "points": [], "block": "d/write-1" } }));
        let (number, _) = rig.event(|event| matches!(event, Event::Fetch(_)));
        rig.answer(&instance, number, AnswerTo::FetchFailed { reason: "device lost".into() });
        assert_eq!(seen(rig, "fetched")["error"], "device lost");

        let block = json!({ "block": "d/write-1", "values": [[1, { "kind": "int64", "value": 7 }]] });
        script(rig, &instance, 4, json!({ "write_block": block }));
        let (number, event) = rig.event(|event| matches!(event, Event::WriteBlock(_)));
        let Event::WriteBlock(write) = event else { panic!() };
        assert_eq!((write.block.as_str(), &write.values[0].value), ("d/write-1", &Value::Int(7)));
        rig.answer(&instance, number, AnswerTo::Command(Answer::stage(Stage::Accepted)));
        rig.answer(&instance, number, AnswerTo::Command(Answer::unknown(Reason::Timeout, "?")));
        assert_eq!(seen(rig, "written")["answer"]["stage"], "unknown");

        let stats: Json =
            serde_json::from_slice(&rig.plugin.control(op::control::STATS, b"").unwrap()).unwrap();
        assert!(stats["unknown_answers"].as_u64() >= Some(1), "the answer after the last one: {stats}");
        rig.stop(&instance);
    });
}

#[test]
fn state_faults_and_metrics_reach_the_host() {
    each(|rig| {
        let instance = connected(rig, json!({ "token": "hunter2" }));
        script(rig, &instance, 0, json!({ "put": { "key": "ledger", "value": "x" } }));
        let entry = rig.state(&instance, AnswerTo::StatePut { error: String::new() });
        assert_eq!((entry.device, entry.value.as_deref()), (None, Some("78")));
        script(rig, &instance, 1, json!({ "get": "ledger" }));
        rig.state(&instance, AnswerTo::StateGet { value: Some("79".into()) });
        assert_eq!(seen(rig, "state")["value"], "y");
        script(rig, &instance, 2, json!({ "delete": "ledger" }));
        assert_eq!(rig.state(&instance, AnswerTo::StatePut { error: String::new() }).value, None);
        script(rig, &instance, 3, json!({ "metric": { "name": "bytes", "value": 2.5 } }));
        let (_, metric) = rig.event(|event| matches!(event, Event::Metric(_)));
        assert!(format!("{metric:?}").contains("(\"bytes\", 2.5)"));
        script(rig, &instance, 4, json!({ "fault": { "code": "take_over", "text": "twice" } }));
        rig.event(|event| matches!(event, Event::Fault(fault) if fault.code == "take_over"));
        script(rig, &instance, 5, json!({ "state": { "up": false, "reason": "by peer" } }));
        rig.event(|event| matches!(event, Event::State(state) if !state.up && state.device.is_none()));
        let (_, entry) = rig.log(|entry| entry.message == "connecting");
        assert!(format!("{entry:?}").contains("***"));
        rig.stop(&instance);
        assert!(!format!("{:?}", rig.logs()).contains("hunter2"));
    });
}

#[test]
fn a_wrong_delivery_harms_nothing() {
    each(|rig| {
        let instance = connected(rig, json!({}));
        let mut broken = samples(&[(1, Value::Text("abc".into())), (2, Value::Bool(true))]);
        broken.samples[0].bits = u64::MAX;
        broken.samples[1].kind = 200;
        instance.deliver(delivery(0, 0, 0, broken));
        let line = seen(rig, "delivery");
        assert_eq!((&line["records"][0]["value"], &line["records"][1]["value"]), (&Json::Null, &Json::Null));
        ack(rig);
        instance.deliver(delivery(5, 0, batch::TIMES, samples(&[(1, Value::Bool(true))])));
        instance.deliver(delivery(9, 0, 0, samples(&[(1, Value::Bool(true))])));
        assert_eq!(ack(rig).1[0].first, 9, "the batch with a broken table of times was left out");
        rig.stop(&instance);
    });
}
