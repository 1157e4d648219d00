//! Every operation of a driver through the real `.so`, in-process and isolated, and the rules R1 to R7.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::time::{Duration, Instant};

use busbar_contract::{
    Action, Answer, Cause, Event, FailureKind, Flags, Quality, Reason, Request, Stage, Value, batch,
    event::{Done, StateEntry},
    op,
    request::{
        AnswerTo, Bind, BindGroup, BindPoint, BlockRead, BlockWrite, Browse, Cancel, Committed, FrameLog,
        OfDevice, PointValue, Subscribe,
    },
};
use busbar_loader::{Instance, Isolation};
use common::{
    BOTH, LONG_MS, Rig, Said, artifacts, attach, bind, command, connection, driver, of, read, values,
};
use serde_json::{Value as Json, json};

/// A device 1 on an endpoint of its own, bound and connected.
fn device(rig: &mut Rig, more: Json, addresses: &[&str]) -> Instance {
    let connection = connection(more);
    let instance = rig.open(&driver(&connection));
    rig.done(&instance, &attach(1, &connection));
    rig.done(&instance, &bind(1, 10, addresses));
    rig.done(&instance, &Request::Connect(of(1)));
    instance
}

fn each(test: impl Fn(&mut Rig)) {
    for isolation in BOTH {
        let mut rig = Rig::start(&artifacts::fake_driver(), isolation);
        test(&mut rig);
        rig.end();
    }
}

fn answered(rig: &mut Rig, instance: &Instance, request: &Request) -> Answer {
    rig.done(instance, request).answer.unwrap()
}

fn script(rig: &mut Rig, instance: &Instance, point: u32, step: Json) -> Answer {
    answered(rig, instance, &Request::Command(command(1, point, Value::Json(step))))
}

#[test]
fn a_device_lives_from_attach_to_detach() {
    each(|rig| {
        let connection = connection(json!({}));
        let instance = rig.open(&driver(&connection));
        rig.done(&instance, &attach(1, &connection));
        let bound =
            rig.done(&instance, &bind(1, 10, &["const:1.5", "counter", "refused", "silent", "nonsense"]));
        assert_eq!((bound.groups[0].group, bound.groups[0].exchanges), (1, 1));
        assert_eq!(bound.rejected.len(), 1);
        assert!(bound.rejected[0].reason.contains("found \"nonsense\""), "{bound:?}");

        let early = rig.failed(&instance, &read(1, 1000));
        assert_eq!(early.kind, FailureKind::Session, "{early:?}");
        assert_eq!(rig.done(&instance, &Request::Connect(of(1))).peer, "model-1");
        rig.done(&instance, &Request::Probe(of(1)));

        let push = rig.samples(&instance, &read(1, 1000));
        assert_eq!(
            values(&push),
            [Value::Float64(1.5), Value::Uint(1), Value::None, Value::None, Value::None]
        );
        let points: Vec<u32> = push.samples.samples.iter().map(|sample| sample.point).collect();
        assert_eq!(points, [10, 11, 12, 13, 14], "every point exactly once");
        let qualities: Vec<String> =
            push.samples.samples.iter().map(|sample| Quality(sample.quality).to_string()).collect();
        let refused = "invalid|bad_reference";
        assert_eq!(qualities, ["good", "good", refused, "invalid|failure", refused]);
        assert!(push.samples.samples.iter().all(|sample| Flags(sample.flags).gateway_time()));

        rig.done(&instance, &Request::Disconnect(of(1)));
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::Session);
        rig.done(&instance, &Request::Connect(of(1)));
        assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[1], Value::Uint(2));
        rig.done(&instance, &Request::Detach(of(1)));
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::Configuration);
        rig.stop(&instance);
        assert!(rig.leftovers().is_empty());
    });
}

#[test]
fn causes_times_and_qualities_arrive_as_given() {
    each(|rig| {
        let connection = connection(json!({}));
        let instance = rig.open(&driver(&connection));
        rig.done(&instance, &attach(1, &connection));
        let point = BindPoint {
            point: 7,
            name: "p".into(),
            // Keys of the host do not trouble the driver.
            spec: json!({ "address": "value:x", "type": "text", "quality": "questionable|inaccurate",
                "source_time": 1_700_000_000_000_000_001_i64, "unit": "V", "scale": 2.0 }),
            writable: false,
        };
        let groups = vec![BindGroup { group: 5, points: vec![7] }];
        rig.done(&instance, &Request::Bind(Bind { device: 1, points: vec![point], groups }));
        rig.done(&instance, &Request::Connect(of(1)));
        let resync = busbar_contract::binary::Read { group: 5, deadline_ms: 1000, cause: Cause::Resync };
        let push = rig.samples(&instance, &Request::Read(resync));
        assert_eq!(push.flags, batch::LAST | batch::RESYNC);
        let sample = push.samples.samples[0];
        assert_eq!(sample.ts_ns, 1_700_000_000_000_000_001);
        assert_eq!(Flags(sample.flags), Flags::new(Cause::Resync, 0));
        assert_eq!(Quality(sample.quality).to_string(), "questionable|inaccurate");
        assert_eq!(values(&push), [Value::Text(String::new())]);
        rig.stop(&instance);
    });
}

#[test]
fn commands_go_through_their_stages() {
    each(|rig| {
        let mut instance = device(rig, json!({}), &["value:a bool", "sticky:b bool", "const:1"]);
        let number = rig.send(&instance, &Request::Command(command(1, 10, Value::Bool(true))));
        let (request, progress) = rig.event(|event| matches!(event, Event::Progress(_)));
        assert_eq!((request, progress), (number, Event::Progress(Answer::stage(Stage::Accepted))));
        let Said::Event(_, _, Event::Done(Done { answer, .. })) = rig.completion(number) else { panic!() };
        assert_eq!(answer, Some(Answer::stage(Stage::Finished)));
        assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[0], Value::Bool(true));

        let kept = answered(rig, &instance, &Request::Command(command(1, 11, Value::Bool(true))));
        assert_eq!((kept.stage, kept.reason), (Stage::Refused, Some(Reason::DeviceRefused)));
        let fixed = answered(rig, &instance, &Request::Command(command(1, 12, Value::Bool(true))));
        assert_eq!((fixed.stage, fixed.reason), (Stage::Refused, Some(Reason::DeviceRefused)));
        assert!(fixed.text.contains("code 0x03"), "{fixed:?}");
        let foreign = answered(rig, &instance, &Request::Command(command(1, 99, Value::Bool(true))));
        assert_eq!(foreign.reason, Some(Reason::NotWritable));
        let lost = answered(rig, &instance, &Request::Command(command(2, 10, Value::Bool(true))));
        assert_eq!((lost.stage, lost.reason), (Stage::Refused, Some(Reason::DeviceLost)));
        rig.stop(&instance);

        instance = device(rig, json!({ "select_required": true }), &["value:a bool"]);
        let with = |action, client: &str| {
            let mut body = command(1, 10, Value::Bool(true));
            (body.action, body.origin.client) = (action, client.to_owned());
            Request::Command(body)
        };
        let early = answered(rig, &instance, &with(Action::Operate, "me"));
        assert_eq!(early.reason, Some(Reason::NotSelected));
        assert_eq!(answered(rig, &instance, &with(Action::Select, "me")).stage, Stage::Selected);
        assert_eq!(answered(rig, &instance, &with(Action::Select, "you")).reason, Some(Reason::Busy));
        assert_eq!(answered(rig, &instance, &with(Action::Operate, "you")).reason, Some(Reason::NotSelected));
        assert_eq!(answered(rig, &instance, &with(Action::Operate, "me")).stage, Stage::Finished);
        assert_eq!(answered(rig, &instance, &with(Action::Select, "me")).stage, Stage::Selected);
        assert_eq!(answered(rig, &instance, &with(Action::Cancel, "me")).stage, Stage::Finished);
        assert_eq!(answered(rig, &instance, &with(Action::Operate, "me")).reason, Some(Reason::NotSelected));
        rig.stop(&instance);
    });
}

#[test]
fn a_command_whose_fate_nobody_knows_is_unknown() {
    each(|rig| {
        for (act, reason, device_state) in [
            ("session", Reason::DeviceLost, None),
            ("panic", Reason::DeviceLost, None),
            ("silent", Reason::Timeout, None),
            ("no_answer", Reason::Timeout, Some(1)),
        ] {
            let instance = device(rig, json!({ "acts": { "command": act } }), &["value:a bool"]);
            let mut body = command(1, 10, Value::Bool(true));
            body.deadline_ms = 200;
            let answer = answered(rig, &instance, &Request::Command(body));
            assert_eq!((answer.stage, answer.reason), (Stage::Unknown, Some(reason)), "{act}: {answer:?}");
            let (_, state) = rig.event(|event| matches!(event, Event::State(_)));
            let Event::State(state) = state else { panic!() };
            assert_eq!((state.device, state.up), (device_state, false), "{act}");
            rig.done(&instance, &Request::Connect(of(1)));
            rig.stop(&instance);
        }
    });
}

#[test]
fn every_failure_has_its_consequence() {
    each(|rig| {
        for (act, kind, session_lives) in [
            ("refuse", FailureKind::Refused, true),
            ("no_answer", FailureKind::NoAnswer, false),
            ("session", FailureKind::Session, false),
            ("configuration", FailureKind::Configuration, true),
            ("panic", FailureKind::Bug, false),
            ("silent", FailureKind::Deadline, false),
        ] {
            let instance = device(rig, json!({ "acts": { "read": act } }), &["const:1", "act:read text"]);
            let failure = rig.failed(&instance, &read(1, 200));
            assert_eq!(failure.kind, kind, "{failure:?}");
            if act == "refuse" {
                assert_eq!(failure.code.as_deref(), Some("2"));
            }
            let probe = rig.ask(&instance, &Request::Probe(of(1)));
            let alive = matches!(probe, Said::Event(_, _, Event::Done(_)));
            assert_eq!(alive, session_lives, "{act}: {probe:?}");
            if !alive {
                rig.done(&instance, &Request::Connect(of(1)));
            }
            rig.done(&instance, &Request::Command(command(1, 11, Value::Text("ok".into()))));
            assert_eq!(values(&rig.samples(&instance, &read(1, 2000)))[0], Value::Float64(1.0), "{act}");
            rig.stop(&instance);
        }
        let stats: Json =
            serde_json::from_slice(&rig.plugin.control(op::control::STATS, b"").unwrap()).unwrap();
        assert!(stats["panics"].as_u64() >= Some(1), "{stats}");
        assert!(stats["deadlines"].as_u64() >= Some(1), "{stats}");
    });
}

#[test]
fn opening_and_connecting_may_fail_and_be_repeated() {
    each(|rig| {
        for operation in ["open", "connect"] {
            for (act, kind) in [
                ("refuse", FailureKind::Refused),
                ("silent", FailureKind::Deadline),
                ("panic", FailureKind::Bug),
            ] {
                let connection = connection(json!({ "acts": { operation: act } }));
                let instance = rig.open(&driver(&connection));
                rig.done(&instance, &attach(1, &connection));
                for _ in 0..2 {
                    let body = OfDevice { device: Some(1), deadline_ms: 100 };
                    let failure = rig.failed(&instance, &Request::Connect(body));
                    assert_eq!(failure.kind, kind, "{operation} {act} {failure:?}");
                }
                rig.stop(&instance);
            }
        }
    });
}

#[test]
fn devices_of_an_endpoint_share_a_session_but_not_their_fate() {
    each(|rig| {
        let connection = connection(json!({}));
        let instance = rig.open(&driver(&connection));
        for device in [1, 2] {
            rig.done(&instance, &attach(device, &connection));
            rig.done(&instance, &bind(device, device * 10, &["counter", "act:read text"]));
            rig.done(&instance, &Request::Connect(of(device)));
        }
        rig.done(&instance, &Request::Command(command(1, 11, Value::Text("no_answer".into()))));
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::NoAnswer);
        assert_eq!(values(&rig.samples(&instance, &read(2, 1000)))[0], Value::Uint(1));
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::NoAnswer, "needs CONNECT");
        rig.done(&instance, &Request::Connect(of(1)));
        rig.done(&instance, &Request::Command(command(1, 11, Value::Text("session".into()))));
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::Session);
        assert_eq!(rig.failed(&instance, &read(2, 1000)).kind, FailureKind::Session);
        let again = rig.failed(&instance, &attach(2, &connection));
        assert_eq!(again.kind, FailureKind::Configuration);
        rig.stop(&instance);
    });
}

#[test]
fn what_the_plan_learned_survives_reconnects() {
    each(|rig| {
        let connection = connection(json!({}));
        let instance = rig.open(&driver(&connection));
        rig.done(&instance, &attach(1, &connection));
        rig.done(&instance, &bind(1, 10, &["counter"]));
        for round in 1..=3 {
            rig.done(&instance, &Request::Connect(of(1)));
            assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[0], Value::Uint(round));
            rig.done(&instance, &Request::Disconnect(of(1)));
        }
        let panics = common::connection(json!({ "acts": { "plan": "panic" } }));
        let other = rig.open(&driver(&panics));
        rig.done(&other, &attach(1, &panics));
        let failure = rig.failed(&other, &bind(1, 10, &["counter"]));
        assert!(failure.text.contains("panic while planning"), "{failure:?}");
        rig.stop(&other);
        rig.stop(&instance);
    });
}

#[test]
fn blocks_are_whole_or_nothing() {
    each(|rig| {
        let addresses = ["value:a", "value:flag bool", "sticky:s", "silent"];
        let instance = device(rig, json!({}), &addresses);
        let read_block = |points: &[u32]| {
            Request::BlockRead(BlockRead { device: 1, points: points.to_vec(), deadline_ms: LONG_MS })
        };
        let push = rig.samples(&instance, &read_block(&[11, 10]));
        assert_eq!(push.flags, batch::LAST | batch::BLOCK);
        assert_eq!(values(&push), [Value::Bool(false), Value::Float64(0.0)]);
        assert_eq!(push.samples.samples[0].ts_ns, push.samples.samples[1].ts_ns, "one time stamp");
        let failure = rig.failed(&instance, &read_block(&[10, 13]));
        assert!(failure.text.contains("1 of 2 points"), "{failure:?}");
        assert_eq!(rig.failed(&instance, &read_block(&[77])).kind, FailureKind::Configuration);

        let write = |point: u32| {
            Request::BlockWrite(BlockWrite {
                device: 1,
                values: vec![PointValue { point, value: Value::Float64(4.5) }],
                commit: Some(PointValue { point: 11, value: Value::Bool(true) }),
                origin: busbar_contract::Origin::default(),
                deadline_ms: LONG_MS,
            })
        };
        let kept = answered(rig, &instance, &write(12));
        assert_eq!(kept.stage, Stage::Unknown, "{kept:?}");
        assert_eq!(
            values(&rig.samples(&instance, &read_block(&[11]))),
            [Value::Bool(false)],
            "commit point untouched"
        );
        assert_eq!(answered(rig, &instance, &write(10)).stage, Stage::Finished);
        assert_eq!(
            values(&rig.samples(&instance, &read_block(&[10, 11]))),
            [Value::Float64(4.5), Value::Bool(true)]
        );
        rig.stop(&instance);
    });
}

#[test]
fn subscriptions_report_until_they_end() {
    each(|rig| {
        let instance = device(rig, json!({ "report_ms": 20 }), &["report:a", "const:1", "refused"]);
        let body =
            Subscribe { device: 1, points: vec![10, 11, 12], integrity_ms: 60_000, deadline_ms: LONG_MS };
        let done = rig.done(&instance, &Request::Subscribe(body));
        assert_eq!((done.subscribed, done.integrity_ms), (vec![10], 60_000));
        assert_eq!(done.rejected[0].point, 12);
        for expected in [1.0, 2.0, 3.0] {
            let push = rig.push();
            assert_eq!(values(&push), [Value::Float64(expected)]);
            assert_eq!(Flags(push.samples.samples[0].flags).cause(), Cause::DataChange);
        }
        rig.done(&instance, &Request::Unsubscribe(of(1)));
        rig.done(&instance, &Request::Disconnect(of(1)));
        rig.leftovers();
        rig.done(&instance, &Request::Connect(of(1)));
        rig.stop(&instance);
        let late = rig.leftovers();
        assert!(late.is_empty(), "the session's tasks ended with it: {late:?}");
    });
}

#[test]
fn what_happens_by_itself_is_told_in_order() {
    each(|rig| {
        let instance = device(rig, json!({}), &["report:a", "script json"]);
        let publish = json!({ "publish": { "values": [[10, 1.0], [10, 2.0]], "cause": "data_update", "source_time": 5,
            "transient": true, "token": 9, "block": true } });
        script(rig, &instance, 11, publish);
        let push = rig.push();
        assert_eq!((push.token, push.flags), (9, batch::BLOCK));
        assert_eq!(values(&push), [Value::Float64(1.0), Value::Float64(2.0)]);
        assert_eq!(Flags(push.samples.samples[0].flags), Flags::new(Cause::DataUpdate, Flags::TRANSIENT));
        assert_eq!(push.samples.samples[0].ts_ns, 5);

        script(rig, &instance, 11, json!({ "next": { "values": [[10, "text"]] } }));
        assert_eq!(values(&rig.push()), [Value::Text("text".into())]);
        script(rig, &instance, 11, json!({ "gap": { "reason": "overflow", "points": [10] } }));
        script(rig, &instance, 11, json!({ "fault": { "code": "odd", "text": "answer" } }));
        script(rig, &instance, 11, json!({ "metadata": { "point": 10, "facts": { "unit": "V" } } }));
        script(rig, &instance, 11, json!({ "metric": { "name": "frames", "value": 3.0 } }));
        script(rig, &instance, 11, json!({ "state": { "up": true, "reason": "seen" } }));
        script(rig, &instance, 11, json!({ "endpoint_down": "cable" }));
        let told: Vec<String> = rig
            .leftovers()
            .into_iter()
            .filter_map(|said| match said {
                Said::Event(_, 0, event) => Some(format!("{event:?}")),
                _ => None,
            })
            .collect();
        let words = [
            "Gap { device: 1",
            "Fault { device: Some(1)",
            "Metadata",
            "Metric",
            "up: true",
            "device: None, up: false",
        ];
        assert_eq!(told.len(), words.len(), "{told:#?}");
        for (line, word) in told.iter().zip(words) {
            assert!(line.contains(word), "{line} {word}");
        }

        script(rig, &instance, 11, json!({ "next_error": "line noise" }));
        let (_, state) = rig.event(|event| matches!(event, Event::State(_)));
        assert!(format!("{state:?}").contains("line noise"), "{state:?}");
        assert_eq!(rig.failed(&instance, &read(1, 1000)).kind, FailureKind::Session);
        rig.done(&instance, &Request::Connect(of(1)));
        script(rig, &instance, 11, json!("next_panic"));
        let (_, state) = rig.event(|event| matches!(event, Event::State(_)));
        assert!(format!("{state:?}").contains("panic in next"), "{state:?}");
        rig.stop(&instance);
    });
}

#[test]
fn commit_tokens_and_state_come_back() {
    each(|rig| {
        let instance = device(rig, json!({}), &["committed text", "script json"]);
        for (token, ok) in [(3, true), (4, false)] {
            rig.done(&instance, &Request::Committed(Committed { device: 1, token, ok }));
        }
        assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[0], Value::Text("3:true 4:false".into()));

        let send = |rig: &mut Rig, step: Json| {
            rig.send(&instance, &Request::Command(command(1, 11, Value::Json(step))))
        };
        let text_of = |rig: &mut Rig, number: u64| match rig.completion(number) {
            Said::Event(_, _, Event::Done(Done { answer: Some(answer), .. })) => answer,
            other => panic!("{other:?}"),
        };
        let number = send(rig, json!({ "put": { "key": "entry", "value": "17" } }));
        let entry = rig.state(&instance, AnswerTo::StatePut { error: String::new() });
        assert_eq!(entry, StateEntry { device: Some(1), key: "entry".into(), value: Some("3137".into()) });
        assert_eq!(text_of(rig, number).stage, Stage::Finished);
        let number = send(rig, json!({ "get": "entry" }));
        rig.state(&instance, AnswerTo::StateGet { value: Some("3137".into()) });
        assert_eq!(text_of(rig, number).text, "17");
        let number = send(rig, json!({ "get": "other" }));
        rig.state(&instance, AnswerTo::StateGet { value: None });
        assert_eq!(text_of(rig, number).text, "none");
        let number = send(rig, json!({ "put": { "key": "entry", "value": "18" } }));
        rig.state(&instance, AnswerTo::StatePut { error: "disk full".into() });
        let answer = text_of(rig, number);
        assert_eq!((answer.stage, answer.text.as_str()), (Stage::Refused, "disk full"));
        let number = send(rig, json!({ "delete": "entry" }));
        assert_eq!(rig.state(&instance, AnswerTo::StatePut { error: String::new() }).value, None);
        assert_eq!(text_of(rig, number).stage, Stage::Finished);
        rig.stop(&instance);
    });
}

#[test]
fn a_browse_comes_in_pages_and_can_be_cancelled() {
    each(|rig| {
        let instance = device(rig, json!({ "browse": 250 }), &["const:1"]);
        let browse = |arguments: &[&str]| {
            let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            Request::Browse(Browse { device: 1, arguments, deadline_ms: LONG_MS })
        };
        let number = rig.send(&instance, &browse(&[]));
        rig.completion(number);
        let pages: Vec<usize> = rig
            .leftovers()
            .into_iter()
            .filter_map(|said| match said {
                Said::Event(_, req, Event::Page(page)) if req == number => Some(page.entries.len()),
                _ => None,
            })
            .collect();
        assert_eq!(pages, [100, 100, 50]);
        rig.stop(&instance);

        let instance = device(rig, json!({ "browse": 100_000 }), &["const:1"]);
        let number = rig.send(&instance, &browse(&["slow"]));
        rig.event(|event| matches!(event, Event::Page(_)));
        let cancel = rig.send(&instance, &Request::Cancel(Cancel { request: number }));
        rig.completion(cancel);
        let Said::Event(_, _, Event::Failed(failure)) = rig.completion(number) else { panic!() };
        assert_eq!(failure.kind, FailureKind::Cancelled);
        rig.done(&instance, &Request::Probe(of(1)));
        rig.stop(&instance);
    });
}

/// A request that runs until its question is answered: its number and the question's.
fn occupy(rig: &mut Rig, instance: &Instance, point: u32) -> (u64, u64) {
    let put = Value::Json(json!({ "put": { "key": "k", "value": "v" } }));
    let number = rig.send(instance, &Request::Command(command(1, point, put)));
    let (asked, _) = rig.event(|event| matches!(event, Event::StatePut(_)));
    (number, asked)
}

#[test]
fn r4_every_request_is_completed_exactly_once() {
    each(|rig| {
        // One request that waits for the host, others behind it: cancelled, expired, and cut off by the stop.
        let instance = device(rig, json!({}), &["const:1", "value:a bool", "script json"]);
        let (slow, asked) = occupy(rig, &instance, 12);
        let cancelled = rig.send(&instance, &read(1, 10_000));
        let expired = rig.send(&instance, &read(1, 20));
        let mut body = command(1, 11, Value::Bool(true));
        body.deadline_ms = 20;
        let late_command = rig.send(&instance, &Request::Command(body));
        let cancel = rig.send(&instance, &Request::Cancel(Cancel { request: cancelled }));
        let kind = |said: Said| match said {
            Said::Event(_, _, Event::Failed(failure)) => failure.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(rig.completion(cancelled)), FailureKind::Cancelled);
        assert_eq!(kind(rig.completion(expired)), FailureKind::Deadline);
        let Said::Event(_, _, Event::Done(done)) = rig.completion(late_command) else { panic!() };
        let answer = done.answer.unwrap();
        assert_eq!((answer.stage, answer.reason), (Stage::Refused, Some(Reason::Timeout)), "it never left");
        rig.completion(cancel);
        rig.answer(&instance, asked, AnswerTo::StatePut { error: String::new() });
        assert!(matches!(rig.completion(slow), Said::Event(_, _, Event::Done(_))));

        let (running, asked) = occupy(rig, &instance, 12);
        let queued: Vec<u64> = (0..100).map(|_| rig.send(&instance, &read(1, 10_000))).collect();
        let operate = rig.send(&instance, &Request::Command(command(1, 11, Value::Bool(true))));
        instance.stop(Duration::from_secs(20));
        for number in queued {
            assert_eq!(kind(rig.completion(number)), FailureKind::Cancelled);
        }
        let Said::Event(_, _, Event::Done(done)) = rig.completion(operate) else { panic!() };
        assert_eq!(done.answer.unwrap().reason, Some(Reason::Handover));
        rig.answer(&instance, asked, AnswerTo::StatePut { error: String::new() });
        let Said::Event(_, _, Event::Done(done)) = rig.completion(running) else { panic!() };
        assert_eq!(done.answer.unwrap().stage, Stage::Finished, "a running exchange is finished");
        rig.event(|event| matches!(event, Event::Stopped));
        assert!(rig.leftovers().is_empty(), "nothing twice, and nothing after STOPPED");
        if rig.plugin.isolation() == Isolation::InProcess {
            assert!(!instance.submit(9999, &read(1, 1000)).is_taken());
        }
    });
}

#[test]
fn r4_a_full_queue_refuses_and_loses_nothing() {
    each(|rig| {
        let instance = device(rig, json!({}), &["const:1", "script json"]);
        let (running, asked) = occupy(rig, &instance, 11);
        let mut taken = Vec::new();
        let mut refused = 0;
        for number in 100_000..102_000_u64 {
            if instance.submit(number, &read(1, 20_000)).is_taken() {
                taken.push(number)
            } else {
                refused += 1
            }
        }
        if rig.plugin.isolation() == Isolation::InProcess {
            assert!(refused > 0, "the queue is bounded");
        }
        rig.answer(&instance, asked, AnswerTo::StatePut { error: String::new() });
        rig.completion(running);
        let isolated = rig.plugin.isolation() == Isolation::Process;
        for number in taken {
            let said = rig.completion(number);
            // On its way to a worker a request is taken before the plugin's queue is asked.
            let failed = isolated && matches!(said, Said::Event(_, _, Event::Failed(_)));
            assert!(failed || matches!(said, Said::Push(..)), "{said:?}");
        }
        assert!(rig.leftovers().is_empty());
        rig.stop(&instance);
    });
}

#[test]
fn r5_a_wrong_configuration_is_an_event_and_the_instance_still_answers() {
    each(|rig| {
        let instance = rig.open_only(&driver(&json!({ "endpiont": 7 })));
        let (_, event) = rig.event(|event| matches!(event, Event::Failed(_)));
        let Event::Failed(failure) = event else { panic!() };
        assert_eq!(failure.kind, FailureKind::Configuration);
        for word in ["/connection/endpiont", "did you mean `endpoint`?", "/connection/endpoint"] {
            assert!(failure.text.contains(word), "{failure:?}");
        }
        assert_eq!(rig.failed(&instance, &attach(1, &json!({}))).kind, FailureKind::Configuration);
        rig.stop(&instance);
    });
}

#[test]
fn r5_a_session_that_does_not_end_is_cut_off_by_the_stop() {
    each(|rig| {
        for (operation, act) in [("close", "silent"), ("close", "panic"), ("read", "silent")] {
            let instance = device(rig, json!({ "acts": { operation: act } }), &["const:1"]);
            let hanging = (operation == "read").then(|| rig.send(&instance, &read(1, 60_000)));
            let started = Instant::now();
            instance.stop(Duration::from_millis(300));
            if let Some(number) = hanging {
                assert!(matches!(rig.completion(number), Said::Event(_, _, Event::Failed(_))));
            }
            rig.event(|event| matches!(event, Event::Stopped));
            assert!(started.elapsed() < Duration::from_secs(10), "{operation} {act}");
        }
    });
}

#[test]
fn r7_an_instance_that_is_only_dropped_ends_by_itself() {
    let mut rig = Rig::start(&artifacts::fake_driver(), Isolation::InProcess);
    let instance = device(&mut rig, json!({ "report_ms": 10 }), &["report:a"]);
    let id = instance.id();
    drop(instance);
    rig.wait(|said| matches!(said, Said::Event(inst, 0, Event::Stopped) if *inst == id));
    rig.end();
}

#[test]
fn r9_refused_samples_are_kept_then_dropped_with_a_gap() {
    use std::sync::atomic::Ordering::SeqCst;
    // In-process only: in a worker it is the loader's queue that is refused.
    let mut rig = Rig::start(&artifacts::fake_driver(), Isolation::InProcess);
    let instance = device(&mut rig, json!({}), &["report:a", "script json", "counter"]);
    rig.ears.refuse.store(3, SeqCst);
    script(&mut rig, &instance, 11, json!({ "flood": { "point": 10, "count": 1000 } }));
    for expected in 0..1000 {
        assert_eq!(values(&rig.push()), [Value::Float64(f64::from(expected))], "in order, none lost");
    }
    assert_eq!(rig.ears.refused.load(SeqCst), 3);

    // A completion is never given up, however long the host refuses.
    rig.ears.refuse.store(20, SeqCst);
    assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[2], Value::Uint(1));

    rig.ears.refuse.store(u32::MAX, SeqCst);
    script(&mut rig, &instance, 11, json!({ "publish": { "values": [[10, 1.0]], "token": 6 } }));
    let (_, gap) = rig.event(|event| matches!(event, Event::Gap(_)));
    let Event::Gap(gap) = gap else { panic!() };
    assert_eq!((gap.device, gap.points), (1, vec![10]));
    rig.ears.refuse.store(0, SeqCst);
    rig.done(&instance, &bind(1, 10, &["report:a", "script json", "committed text"]));
    assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[2], Value::Text("6:false".into()));
    rig.stop(&instance);
    rig.end();
}

#[test]
fn frames_are_logged_when_switched_on_and_secrets_never() {
    each(|rig| {
        let instance = device(rig, json!({ "password": "hunter2" }), &["const:1", "script json"]);
        let (_, opening) = rig.log(|entry| entry.message == "opening");
        assert_eq!(opening.fields[0].1.to_string(), "\"Some(***)\"");
        assert_eq!(opening.device, Some(1));
        rig.samples(&instance, &read(1, 1000));
        rig.done(&instance, &Request::FrameLog(FrameLog { device: 1, on: true }));
        rig.samples(&instance, &read(1, 1000));
        let (inst, frame) = rig.log(|entry| entry.target == "frame");
        assert_eq!((inst, frame.device), (instance.id(), Some(1)));
        let text = format!("{:?}", frame.fields);
        assert!(text.contains("03000001") && text.contains("tx"), "{text}");
        rig.done(&instance, &Request::FrameLog(FrameLog { device: 1, on: false }));
        rig.samples(&instance, &read(1, 1000));

        script(rig, &instance, 11, json!({ "log": { "level": "error", "text": "typed" } }));
        let (_, typed) = rig.log(|entry| entry.message == "typed");
        let fields = serde_json::to_value(&typed.fields).unwrap();
        assert_eq!(fields, json!([["answer", 42], ["ratio", 0.5], ["exact", true], ["word", "w"]]));
        assert!(typed.file.ends_with("script.rs") && typed.line > 0);
        script(rig, &instance, 11, json!({ "log": { "level": "trace", "text": "too fine" } }));
        rig.plugin.control(op::control::LOG_LEVEL, b"trace").unwrap();
        script(rig, &instance, 11, json!({ "log": { "level": "trace", "text": "fine" } }));
        rig.log(|entry| entry.message == "fine");
        rig.plugin.control(op::control::LOG_LEVEL, b"error").unwrap();
        script(rig, &instance, 11, json!({ "log": { "level": "warn", "text": "not now" } }));
        rig.plugin.control(op::control::LOG_LEVEL, b"info").unwrap();
        rig.plugin.control(op::control::LOG_LEVEL, b"loud").unwrap_err();
        rig.stop(&instance);
        rig.leftovers();
        let frames = rig.logs().iter().filter(|(_, entry)| entry.target == "frame").count();
        assert_eq!(frames, 0, "one frame was logged, and that was seen above");
        let all = format!("{:?}", rig.logs());
        for hidden in ["hunter2", "too fine", "not now"] {
            assert!(!all.contains(hidden), "{hidden} in {all}");
        }
    });
}

#[test]
fn a_refused_point_is_told_once() {
    each(|rig| {
        let instance = device(rig, json!({}), &["refused"]);
        for _ in 0..3 {
            rig.samples(&instance, &read(1, 1000));
        }
        rig.stop(&instance);
        rig.leftovers();
        let told =
            rig.logs().iter().filter(|(_, entry)| entry.message.contains("refuses this point")).count();
        assert_eq!(told, 1);
    });
}

#[test]
fn the_plugin_is_alive_until_its_thread_is_blocked() {
    each(|rig| {
        use std::sync::atomic::Ordering::SeqCst;
        let instance = device(rig, json!({}), &["script json"]);
        let beats = rig.ears.beats.load(SeqCst);
        let until = Instant::now() + common::LONG;
        while rig.ears.beats.load(SeqCst) < beats + 3 {
            assert!(Instant::now() < until, "no heartbeat");
            std::thread::yield_now();
        }
        let beats = rig.ears.beats.load(SeqCst);
        script(rig, &instance, 10, json!({ "block": 2000 }));
        let while_blocked = rig.ears.beats.load(SeqCst) - beats;
        assert!(while_blocked <= 2, "{while_blocked} beats from a thread that was blocked for 8");
        rig.stop(&instance);
    });
}

#[test]
fn time_can_be_shifted_and_sped_up_from_outside() {
    each(|rig| {
        let instance = device(rig, json!({ "acts": { "probe": "delay:3000000" } }), &["script json"]);
        rig.plugin.control(op::control::CLOCK, br#"{"offset_ns":0,"speed":100000}"#).unwrap();
        let long = OfDevice { device: Some(1), deadline_ms: 4_000_000_000 };
        rig.done(&instance, &Request::Probe(long));
        rig.plugin.control(op::control::CLOCK, br#"{"offset_ns":-5000000000000000000,"speed":1}"#).unwrap();
        let now: i64 = script(rig, &instance, 10, json!("now")).text.parse().unwrap();
        assert!(now < 0, "{now}");
        rig.plugin.control(op::control::CLOCK, br#"{"speed":0}"#).unwrap_err();
        rig.plugin.control(op::control::CLOCK, br#"{"offset_ns":0,"speed":1}"#).unwrap();
        rig.stop(&instance);
    });
}

#[test]
fn init_and_shutdown_may_be_repeated() {
    let mut rig = Rig::load(&artifacts::fake_driver(), Isolation::InProcess);
    for round in 0..3 {
        rig.init();
        let instance = device(&mut rig, json!({ "report_ms": 5 }), &["report:a", "counter"]);
        assert!(!own_threads().is_empty());
        assert_eq!(values(&rig.samples(&instance, &read(1, 1000)))[1], Value::Uint(1));
        if round == 1 {
            // Without a stop first: shutdown ends the instance.
            assert!(rig.plugin.shutdown(common::LONG));
            rig.event(|event| matches!(event, Event::Stopped));
        } else {
            rig.stop(&instance);
            assert!(rig.plugin.shutdown(common::LONG));
        }
        let until = Instant::now() + common::LONG;
        while !own_threads().is_empty() {
            assert!(Instant::now() < until, "threads left: {:?}", own_threads());
            std::thread::yield_now();
        }
    }
    rig.end();
}

#[test]
fn shutdown_returns_although_the_only_thread_is_blocked() {
    let mut rig = Rig::start(&artifacts::fake_driver(), Isolation::InProcess);
    let instance = device(&mut rig, json!({}), &["script json", "value:a bool"]);
    let number = rig.send(&instance, &Request::Command(command(1, 11, Value::Bool(true))));
    rig.completion(number);
    rig.send(&instance, &Request::Command(command(1, 10, Value::Json(json!({ "block": 4000 })))));
    rig.log(|entry| entry.message == "blocking");
    let started = Instant::now();
    assert!(!rig.plugin.shutdown(Duration::from_millis(300)), "not everything ended");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Names of the plugin's threads in this process.
fn own_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("bb-fake")).collect()
}
