//! The real plugin file, loaded by the real loader, against our broker over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

#[path = "../../../driver-api/tests/common/mod.rs"]
mod common;

use std::time::{Duration, SystemTime};

use busbar_contract::{
    Action, Answer, Cause, Event, Flags, Quality, Reason, Request, Samples, Stage, Value, batch,
    binary::Verdict,
    describe::Open,
    event::SinkCommand,
    request::{AnswerTo, Points, SinkPoint},
};
use busbar_loader::{Instance, Isolation};
use busbar_mqtt::broker::{Broker, Observed, Script};
use common::sink::{FAR_SIDE, delivered, polled, rejected, routed};
use common::{LONG, Rig, Said, artifacts, delivery};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

const TS: i64 = 1_767_225_600_123_000_000;

/// A broker, the plugin, and one instance.
struct Site {
    runtime: Runtime,
    broker: Broker,
    seen: Receiver<Observed>,
    rig: Rig,
    name: String,
}

impl Site {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::bind("127.0.0.1:0")).unwrap();
        let seen = broker.observe("#");
        let rig = Rig::start(&artifacts::sink("mqtt"), Isolation::InProcess);
        // What outlives a connection is kept by name: every test has its own.
        let name = format!("broker-{}", broker.address().port());
        Self { runtime, broker, seen, rig, name }
    }

    fn open(&mut self, more: Json) -> Instance {
        let mut settings = json!({ "url": format!("mqtt://{}", self.broker.address()) });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.rig.open(&Open::Sink {
            name: self.name.clone(),
            host: "site-7".into(),
            settings,
            bad_value: "last".into(),
            test: "invalid".into(),
        })
    }

    fn connected(&mut self, more: Json, list: Vec<SinkPoint>) -> Instance {
        let instance = self.open(more);
        self.rig.route(&instance, list);
        self.rig.done(&instance, &Request::Connect(FAR_SIDE));
        self.expect("busbar/site-7/status", "online");
        instance
    }

    /// Like [`Self::connected`], with commands; the host has `stored` in the sink's durable state.
    fn commanding(&mut self, more: Json, list: Vec<SinkPoint>, stored: Option<String>) -> Instance {
        let mut settings = json!({ "commands": true, "username": "u", "password": "p" });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let instance = self.open(settings);
        self.rig.route(&instance, list);
        let connect = self.rig.send(&instance, &Request::Connect(FAR_SIDE));
        self.rig.state(&instance, AnswerTo::StateGet { value: stored });
        let connected = self.rig.completion(connect);
        assert!(matches!(connected, Said::Event(_, _, Event::Done(_))), "{connected:?}");
        self.expect("busbar/site-7/status", "online");
        instance
    }

    /// The sink tells the host of a command that it refuses itself; the host has written it to its audit log.
    fn audits_refusal(&mut self, instance: &Instance, word: &str) {
        let (number, event) = self.rig.event(|event| matches!(event, Event::Command(_)));
        let Event::Command(SinkCommand { refused: Some(refused), .. }) = event else {
            panic!("never executed: {event:?}")
        };
        assert!(refused.text.starts_with(word), "{refused:?}");
        self.rig.answer(instance, number, AnswerTo::Command(refused));
    }

    /// The sink writes the ids before the command; what it wrote.
    fn stored(&mut self, instance: &Instance) -> String {
        let entry = self.rig.state(instance, AnswerTo::StatePut { error: String::new() });
        assert_eq!(entry.key, "command-ids");
        entry.value.unwrap()
    }

    fn received(&mut self) -> Observed {
        let message = async { tokio::time::timeout(LONG, self.seen.recv()).await };
        self.runtime.block_on(message).expect("a message must arrive").unwrap()
    }

    fn expect(&mut self, topic: &str, text: &str) -> Observed {
        let message = self.received();
        assert_eq!((message.topic.as_str(), message.text().as_str()), (topic, text));
        message
    }

    fn end(self) {
        self.rig.end();
    }
}

fn two_devices() -> Vec<SinkPoint> {
    vec![routed(1, "m1", "u"), routed(2, "m1", "i"), routed(3, "m2", "u"), routed(4, "m2", "i")]
}

fn sample(samples: &mut Samples, point: u32, value: &Value) {
    polled(samples, point, TS, value);
}

#[test]
fn every_point_its_topic() {
    for version in ["3.1.1", "5"] {
        let mut site = Site::new();
        let instance = site.connected(json!({ "version": version, "retain": true }), two_devices());
        let mut samples = Samples::default();
        sample(&mut samples, 1, &Value::Float32(231.4));
        sample(&mut samples, 3, &Value::Text("a\"b".into()));
        samples.push(
            2,
            TS,
            &Value::Int(7),
            Quality::INVALID.with(Quality::COMM_LOST),
            Flags::new(Cause::Host, Flags::GATEWAY_TIME),
        );
        samples.append_times(&[(2, TS - 9_000_000_000)]);
        assert!(instance.deliver(delivery(100, 0, batch::TIMES, samples)).is_taken());
        let message = site.expect(
            "busbar/site-7/m1/u",
            r#"{"ts":1767225600123,"gateway_time":true,"value":231.4,"quality":"good","unit":"V"}"#,
        );
        assert_eq!((message.qos, message.retain), (1, true));
        site.expect(
            "busbar/site-7/m2/u",
            r#"{"ts":1767225600123,"gateway_time":true,"value":"a\"b","quality":"good","unit":"V"}"#,
        );
        site.expect(
            "busbar/site-7/m1/i",
            r#"{"ts":1767225600123,"gateway_time":true,"value":7,"quality":"invalid|comm_lost","unit":"V","value_ts":1767225591123}"#,
        );
        // Without @online the quality tells; one of two points lost is not the device.
        site.expect("busbar/site-7/m1/status", "online");
        site.expect("busbar/site-7/m2/status", "online");
        assert_eq!(site.rig.acks(3), [delivered(100, 3)]);
        site.rig.stop(&instance);
        site.expect("busbar/site-7/status", "offline");
        site.end();
    }
}

#[test]
fn one_message_per_device_and_poll() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "topic": "b/{host}/{device}" }), two_devices());
    let mut samples = Samples::default();
    for (point, value) in [(1, 1), (2, 2), (3, 3), (4, 4), (3, 5), (1, 6)] {
        sample(&mut samples, point, &Value::Int(value));
    }
    samples.samples[3].ts_ns += 5_000_000;
    assert!(instance.deliver(delivery(1, 0, 0, samples)).is_taken());
    let head = r#"{"ts":1767225600123,"gateway_time":true,"points":{"#;
    site.expect(
        "b/site-7/m1",
        &format!(r#"{head}"u":{{"value":1,"quality":"good","unit":"V"}},"i":{{"value":2,"quality":"good","unit":"V"}}}}}}"#),
    );
    site.expect(
        "b/site-7/m2",
        &format!(
            r#"{head}"u":{{"value":3,"quality":"good","unit":"V"}},"i":{{"ts":1767225600128,"gateway_time":true,"value":4,"quality":"good","unit":"V"}}}}}}"#
        ),
    );
    site.expect("b/site-7/m2", &format!(r#"{head}"u":{{"value":5,"quality":"good","unit":"V"}}}}}}"#));
    site.expect("b/site-7/m1", &format!(r#"{head}"u":{{"value":6,"quality":"good","unit":"V"}}}}}}"#));
    assert_eq!(site.rig.acks(6), [delivered(1, 6)]);
    site.rig.stop(&instance);
    site.end();
}

/// The records of the Modbus gateway that was here before.
#[test]
fn records_with_numbers_only() {
    let mut site = Site::new();
    let mut list = two_devices();
    let labels = json!({ "device_id": "11", "identify_device": "a/b", "device_type": "CT_Meter", "device_section": "S" });
    for point in &mut list[..2] {
        point.metadata = json!({ "device": { "labels": labels } });
    }
    list.push(routed(8, "@host", "config_version"));
    list.push(routed(9, "m1", "@online"));
    let settings =
        json!({ "format": "ems", "base": "old/modbus", "status_base": "crm", "gateway_uuid": "gw" });
    let instance = site.connected(settings, list);
    let lost = Quality::INVALID.with(Quality::COMM_LOST);
    let mut samples = Samples::default();
    sample(&mut samples, 1, &Value::Float32(231.4));
    samples.push(2, TS, &Value::Int(7), Quality::INVALID, Flags::new(Cause::Poll, 0));
    sample(&mut samples, 8, &Value::Int(3));
    sample(&mut samples, 9, &Value::Bool(true));
    samples.push(3, TS, &Value::None, lost, Flags::new(Cause::Host, 0));
    samples.push(4, TS, &Value::Int(1), lost, Flags::new(Cause::Host, 0));
    sample(&mut samples, 1, &Value::Text("no number".into()));
    sample(&mut samples, 2, &Value::Bool(true));
    // Another time, another record.
    samples.push(1, TS + 1_000_000, &Value::Int(5), Quality::GOOD, Flags::new(Cause::Poll, 0));
    assert!(instance.deliver(delivery(1, 0, 0, samples)).is_taken());
    let record = |data: &str, time: &str| {
        format!(
            r#"{{"device_name":"m1","device_id":11,"identify_device":"a/b","timestamp":"2026-01-01 00:00:00.{time}+00:00","data":{data},"success":true,"device_type":"CT_Meter","error":null,"device_section":"S"}}"#
        )
    };
    let first = site.expect("old/modbus/11/a_b", &record(r#"{"u":231.4}"#, "123000"));
    assert_eq!((first.qos, first.retain), (1, false));
    site.expect("busbar/site-7/m1/status", "online");
    site.expect(
        "old/modbus/desconocido/m2",
        r#"{"device_name":"m2","device_id":null,"identify_device":"m2","timestamp":"2026-01-01 00:00:00.123000+00:00","data":{},"success":false,"device_type":"Unknown","error":"no communication with the device","device_section":"m2"}"#,
    );
    site.expect("old/modbus/11/a_b", &record(r#"{"i":1}"#, "123000"));
    site.expect("old/modbus/11/a_b", &record(r#"{"u":5}"#, "124000"));
    site.expect("busbar/site-7/m2/status", "offline");
    let status = site.expect(
        "crm/gw/status",
        r#"{"gateway_uuid":"gw","config_version_aplicada":3,"dispositivos_conectados":["m1"],"dispositivos_leyendo":["m1"]}"#,
    );
    assert!(status.retain);
    let mut acks = site.rig.acks(9);
    acks.sort_by_key(|ack| ack.first);
    assert!(acks.iter().all(|ack| ack.verdict == Verdict::Delivered), "{acks:?}");
    // A text alone is no record; the state of the gateway did not change.
    let mut samples = Samples::default();
    sample(&mut samples, 3, &Value::Text("x".into()));
    instance.deliver(delivery(10, 0, 0, samples));
    assert_eq!(site.rig.acks(1), [delivered(10, 1)]);
    site.rig.stop(&instance);
    site.expect("busbar/site-7/m2/status", "online");
    site.end();
}

#[test]
fn a_large_poll_is_divided_and_nothing_is_parked() {
    let mut site = Site::new();
    let list = (0..200).map(|number| routed(number, "m1", &format!("point-{number:03}"))).collect();
    let instance = site.connected(json!({ "topic": "b/{device}", "max_packet": "2KiB" }), list);
    let mut samples = Samples::default();
    (0..200).for_each(|number| sample(&mut samples, number, &Value::Int(i64::from(number))));
    instance.deliver(delivery(1, 0, 0, samples));
    assert_eq!(site.rig.acks(200), [delivered(1, 200)]);
    let mut points = std::collections::BTreeSet::new();
    let mut messages = 0;
    while points.len() < 200 {
        let message = site.received();
        assert!(message.payload.len() <= 2048);
        let body: Json = serde_json::from_slice(&message.payload).unwrap();
        for (name, value) in body["points"].as_object().unwrap() {
            assert_eq!(name, &format!("point-{:03}", value["value"].as_u64().unwrap()));
            assert!(points.insert(name.clone()));
        }
        messages += 1;
    }
    assert!((5..20).contains(&messages), "{messages}");
    site.rig.stop(&instance);
    site.end();
}

/// Thousands of requests while the broker acknowledges no answer: bounded, and the connection ends as silent.
#[test]
fn a_flood_of_commands_is_bounded() {
    let mut site = Site::new();
    let instance = site.commanding(json!({ "ack_timeout": "5s" }), two_devices(), None);
    site.broker.play(Script { withhold_acks: true, ..Script::default() });
    for _ in 0..6000 {
        site.broker.publish("busbar/site-7/m1/u/set", "nonsense", 0, false);
    }
    assert!(site.rig.lost().contains("fell silent"));
    site.rig.log(|entry| entry.message.contains("commands arrive faster"));
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_broken_connection_confirms_only_what_was_confirmed() {
    let mut site = Site::new();
    let instance = site.connected(json!({}), two_devices());
    let some = |from: i64| {
        let mut samples = Samples::default();
        (from..from + 50).for_each(|value| sample(&mut samples, 1, &Value::Int(value)));
        samples
    };
    instance.deliver(delivery(0, 0, 0, some(0)));
    assert_eq!(site.rig.acks(50), [delivered(0, 50)]);
    site.broker.play(Script { swallow: true, ..Script::default() });
    instance.deliver(delivery(50, 0, 0, some(50)));
    site.broker.cut();
    assert!(site.rig.lost().contains("closed the connection"));
    let acks =
        site.rig.leftovers().into_iter().filter(|said| matches!(said, Said::Event(_, _, Event::Ack { .. })));
    assert_eq!(acks.count(), 0, "nothing was confirmed");

    site.broker.play(Script::default());
    site.rig.done(&instance, &Request::Connect(FAR_SIDE));
    instance.deliver(delivery(50, 0, 0, some(50)));
    assert_eq!(site.rig.acks(50), [delivered(50, 50)]);
    let mut values = Vec::new();
    while values.len() < 100 {
        let message = site.received();
        if message.topic == "busbar/site-7/m1/u" {
            values.push(serde_json::from_slice::<Json>(&message.payload).unwrap()["value"].as_i64().unwrap());
        }
    }
    assert_eq!(values, (0..100).collect::<Vec<_>>());
    assert_eq!(site.broker.retained("busbar/site-7/m1/status").unwrap(), "online");
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn more_records_than_the_window_at_once() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "version": "5" }), two_devices());
    let mut samples = Samples::default();
    (0..5000).for_each(|value| sample(&mut samples, 1, &Value::Int(value)));
    instance.deliver(delivery(7, 0, 0, samples));
    assert_eq!(site.rig.acks(5000), [delivered(7, 5000)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn what_is_too_large_is_rejected_and_the_rest_goes_out() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "max_packet": "2KiB" }), two_devices());
    let mut samples = Samples::default();
    sample(&mut samples, 1, &Value::Int(1));
    sample(&mut samples, 2, &Value::Text("x".repeat(4000)));
    sample(&mut samples, 99, &Value::Int(1));
    sample(&mut samples, 3, &Value::Int(3));
    instance.deliver(delivery(1, 0, 0, samples));
    let mut acks = site.rig.acks(4);
    acks.sort_by_key(|ack| ack.first);
    assert_eq!(acks, [delivered(1, 1), rejected(2, 1, 1), rejected(3, 1, 4), delivered(4, 1),]);
    assert!(site.rig.plugin.describe().reasons[1].contains("too large"));
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn devices_have_a_retained_status() {
    let mut site = Site::new();
    let mut list = two_devices();
    list.push(routed(9, "m1", "@online"));
    let instance = site.connected(json!({}), list);
    let online = |value: bool| {
        let mut samples = Samples::default();
        sample(&mut samples, 9, &Value::Bool(value));
        samples
    };
    for (first, value, text) in [(1, true, "online"), (2, false, "offline")] {
        instance.deliver(delivery(first, 0, 0, online(value)));
        let message = site.expect("busbar/site-7/m1/status", text);
        assert!(message.retain);
    }
    assert_eq!(site.rig.acks(2), [delivered(1, 2)]);
    // m2 has no @online: lost when all its points are.
    let mut samples = Samples::default();
    for (point, lost) in [(3, true), (4, false), (4, true), (3, false)] {
        let quality = if lost { Quality::INVALID.with(Quality::COMM_LOST) } else { Quality::GOOD };
        samples.push(point, TS, &Value::Int(1), quality, Flags::new(Cause::Host, 0));
    }
    instance.deliver(delivery(3, 0, 0, samples));
    let mut states = Vec::new();
    while states.len() < 4 {
        let message = site.received();
        if message.topic == "busbar/site-7/m2/status" {
            states.push(message.text());
        }
    }
    assert_eq!(states, ["offline", "online", "offline", "online"]);
    // A device that is no longer routed leaves no status behind.
    site.rig
        .done(&instance, &Request::Points(Points { replace: false, points: vec![], removed: vec![3, 4] }));
    let gone = site.expect("busbar/site-7/m2/status", "");
    assert!(gone.retain);
    assert_eq!(site.broker.retained("busbar/site-7/m2/status"), None);
    // After a reconnect, perhaps to another broker, the status is told again.
    site.broker.cut();
    site.rig.lost();
    site.rig.done(&instance, &Request::Connect(FAR_SIDE));
    site.expect("busbar/site-7/status", "offline");
    site.expect("busbar/site-7/status", "online");
    site.expect("busbar/site-7/m1/status", "offline");
    site.rig.stop(&instance);
    site.end();
}

/// Points that stay are not told anew when the list changes: what they said still counts.
#[test]
fn a_new_point_makes_no_device_offline() {
    let mut site = Site::new();
    let instance = site.connected(json!({}), two_devices());
    let state = |points: &[(u32, bool)]| {
        let mut samples = Samples::default();
        for (point, lost) in points {
            let quality = if *lost { Quality::INVALID.with(Quality::COMM_LOST) } else { Quality::GOOD };
            samples.push(*point, TS, &Value::Int(1), quality, Flags::new(Cause::Host, 0));
        }
        samples
    };
    instance.deliver(delivery(1, 0, 0, state(&[(3, false), (4, false)])));
    assert_eq!(site.rig.acks(2), [delivered(1, 2)]);
    let more = Points { replace: false, points: vec![routed(5, "m2", "p")], removed: vec![] };
    site.rig.done(&instance, &Request::Points(more));
    instance.deliver(delivery(3, 0, 0, state(&[(3, true)])));
    assert_eq!(site.rig.acks(1), [delivered(3, 1)]);
    instance.deliver(delivery(4, 0, 0, state(&[(5, true), (4, true)])));
    let mut values = 0;
    loop {
        let message = site.received();
        match (message.topic.as_str(), message.text().as_str()) {
            ("busbar/site-7/m2/status", "offline") => break,
            (topic, _) => values += usize::from(!topic.ends_with("/status")),
        }
    }
    assert_eq!(values, 5, "only when the last of its points is lost");
    assert_eq!(site.rig.acks(2), [delivered(4, 2)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn commands_and_their_answers() {
    let mut site = Site::new();
    let mut list = two_devices();
    list[1].writable = false;
    let instance = site.commanding(json!({}), list, None);
    let expires =
        i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
            + 60_000;
    let request = |id: &str| json!({ "id": id, "value": 12.5, "expires": expires }).to_string();
    // A point that is not writable: the host refuses, so that it stands in the audit log and the client hears of it.
    site.broker.publish("busbar/site-7/m1/i/set", request("not writable"), 1, false);
    site.stored(&instance);
    let (number, _) =
        site.rig.event(|event| matches!(event, Event::Command(command) if command.refused.is_none()));
    let refused = Answer::refused(Reason::NotWritable, "not writable");
    site.rig.answer(&instance, number, AnswerTo::Command(refused));
    let message = loop {
        let message = site.received();
        if message.topic.ends_with("/result") {
            break message;
        }
    };
    assert_eq!(message.topic, "busbar/site-7/m1/i/set/result");
    let answer = serde_json::from_slice::<Json>(&message.payload).unwrap();
    assert_eq!((&answer["result"], &answer["reason"]), (&json!("refused"), &json!("not_writable")));
    site.broker.publish("busbar/site-7/m1/u/set", request("a"), 1, false);
    site.stored(&instance);
    let (number, event) =
        site.rig.event(|event| matches!(event, Event::Command(command) if command.refused.is_none()));
    let Event::Command(command) = event else { panic!("{event:?}") };
    assert_eq!((command.point, command.action, &command.value), (1, Action::Operate, &json!(12.5)));
    assert_eq!(command.expires_ns, expires * 1_000_000);
    site.rig.answer(&instance, number, AnswerTo::Command(Answer::stage(Stage::Accepted)));
    site.rig.answer(&instance, number, AnswerTo::Command(Answer::stage(Stage::Finished)));
    let mut results = Vec::new();
    let mut expect = |site: &mut Site, id: &str, result: &str, reason: &str| {
        while results.is_empty() {
            let message = site.received();
            if message.topic.ends_with("/result") {
                assert_eq!(message.topic, "busbar/site-7/m1/u/set/result");
                assert!(!message.retain);
                results.push(serde_json::from_slice::<Json>(&message.payload).unwrap());
            }
        }
        let found = results.remove(0);
        let reason = if reason.is_empty() { Json::Null } else { json!(reason) };
        assert_eq!((&found["id"], &found["result"], &found["reason"]), (&json!(id), &json!(result), &reason));
    };
    expect(&mut site, "a", "accepted", "");
    expect(&mut site, "a", "finished", "");

    site.broker.publish("busbar/site-7/m1/u/set", request("a"), 1, false);
    site.audits_refusal(&instance, "repeated");
    expect(&mut site, "a", "refused", "repeated");
    site.broker.publish(
        "busbar/site-7/m1/u/set",
        json!({ "id": "b", "value": 1, "expires": 1 }).to_string(),
        1,
        false,
    );
    site.audits_refusal(&instance, "expired");
    expect(&mut site, "b", "refused", "expired");
    site.broker.publish("busbar/site-7/m1/u/set", request("c"), 1, false);
    site.stored(&instance);
    let (number, _) =
        site.rig.event(|event| matches!(event, Event::Command(command) if command.refused.is_none()));
    site.rig.answer(&instance, number, AnswerTo::Command(Answer::refused(Reason::LockedOut, "locked")));
    expect(&mut site, "c", "refused", "locked_out");

    // The id stays used over a reconnect, and what the broker stored is not executed.
    site.broker.publish("busbar/site-7/m1/u/set", request("stored"), 1, true);
    site.stored(&instance);
    site.rig.event(|event| matches!(event, Event::Command(command) if command.refused.is_none()));
    site.broker.cut();
    site.rig.lost();
    site.rig.done(&instance, &Request::Connect(FAR_SIDE));
    site.audits_refusal(&instance, "retained");
    expect(&mut site, "stored", "refused", "retained");
    site.broker.publish("busbar/site-7/m1/u/set", request("c"), 1, false);
    site.audits_refusal(&instance, "repeated");
    expect(&mut site, "c", "refused", "repeated");
    site.rig.stop(&instance);
    let commands = site.rig.leftovers().into_iter().filter(
        |said| matches!(said, Said::Event(_, _, Event::Command(command)) if command.refused.is_none()),
    );
    assert_eq!(commands.count(), 0, "nothing else reached the host");
    site.end();
}

/// What the sink wrote before it executed is what the next process refuses; what cannot be written is not executed.
#[test]
fn a_restart_repeats_no_command() {
    let mut site = Site::new();
    let expires =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64 + 600_000;
    let request = |id: &str| json!({ "id": id, "value": 1, "expires": expires }).to_string();
    let reason = |site: &mut Site| loop {
        let message = site.received();
        if message.topic.ends_with("/result") {
            break serde_json::from_slice::<Json>(&message.payload).unwrap()["reason"].clone();
        }
    };
    let instance = site.commanding(json!({}), two_devices(), None);
    site.broker.publish("busbar/site-7/m1/u/set", request("a"), 1, false);
    let stored = site.stored(&instance);
    site.rig.event(|event| matches!(event, Event::Command(command) if command.refused.is_none()));
    site.rig.stop(&instance);

    while site.received().text() != "offline" {}

    // The memory of this process is kept by name: under another name there is only what was stored.
    site.name = format!("{}-restarted", site.name);
    let instance = site.commanding(json!({}), two_devices(), Some(stored));
    site.broker.publish("busbar/site-7/m1/u/set", request("a"), 1, false);
    site.audits_refusal(&instance, "repeated");
    assert_eq!(reason(&mut site), "repeated");

    site.broker.publish("busbar/site-7/m1/u/set", request("b"), 1, false);
    site.rig.state(&instance, AnswerTo::StatePut { error: "the disk is full".into() });
    site.audits_refusal(&instance, "not_stored");
    assert_eq!(reason(&mut site), "not_stored");
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_second_client_with_the_same_id_is_named() {
    for (version, rounds) in [("3.1.1", 3), ("5", 1)] {
        let mut site = Site::new();
        let settings = json!({ "version": version, "client_id": "twin" });
        let instance = site.connected(settings, two_devices());
        for round in 0..rounds {
            if round > 0 {
                site.rig.done(&instance, &Request::Connect(FAR_SIDE));
            }
            let address = site.broker.address();
            let options = busbar_mqtt::Options::new(
                busbar_mqtt::Url { host: address.ip().to_string(), port: address.port(), tls: false },
                "twin",
            );
            let twin = busbar_mqtt::Session::<u32>::connect(&options, LONG);
            drop(site.runtime.block_on(twin).unwrap());
            site.rig.lost();
        }
        let (code, text) = site.rig.fault();
        assert_eq!(code, "take_over");
        assert!(text.contains("twin"), "{text}");
        site.rig.stop(&instance);
        site.end();
    }
}

#[test]
fn refusals_of_the_broker_are_named_and_a_list_of_brokers_is_tried() {
    let mut site = Site::new();
    let instance = site.open(json!({ "username": "u", "password": "hunter2" }));
    site.rig.route(&instance, two_devices());
    site.broker.play(Script { refuse: Some(4), ..Script::default() });
    let failure = site.rig.failed(&instance, &Request::Connect(FAR_SIDE));
    assert!(failure.text.contains("wrong user name or password"), "{failure:?}");
    assert!(!failure.text.contains("hunter2"));
    site.broker.play(Script::default());
    site.rig.stop(&instance);

    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = json!([format!("mqtt://{dead}"), format!("mqtt://{}", site.broker.address())]);
    let instance = site.connected(json!({ "url": urls, "prefer": "last-good" }), two_devices());
    site.rig.done(&instance, &Request::Probe(FAR_SIDE));
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_point_that_was_never_read_has_no_value_and_no_time_of_it() {
    let mut site = Site::new();
    let instance = site.connected(json!({}), two_devices());
    let mut samples = Samples::default();
    let lost = Quality::INVALID.with(Quality::COMM_LOST);
    samples.push(1, TS, &Value::None, lost, Flags::new(Cause::Host, Flags::GATEWAY_TIME));
    samples.append_times(&[(0, 0)]);
    instance.deliver(delivery(1, 0, batch::TIMES | batch::SNAPSHOT, samples));
    site.expect(
        "busbar/site-7/m1/u",
        r#"{"ts":1767225600123,"gateway_time":true,"value":null,"quality":"invalid|comm_lost","unit":"V"}"#,
    );
    site.expect("busbar/site-7/m1/status", "offline");
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn history_and_backlog_are_marked_and_never_retained() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "retain": true }), two_devices());
    let mut samples = Samples::default();
    samples.push(1, TS, &Value::Int(1), Quality::GOOD, Flags::new(Cause::History, 0));
    instance.deliver(delivery(1, 0, 0, samples));
    let mut samples = Samples::default();
    samples.push(1, TS, &Value::Int(2), Quality::GOOD, Flags::new(Cause::Poll, 0));
    instance.deliver(delivery(2, 0, batch::REPLAY, samples));
    for (value, mark) in [(1, "history"), (2, "replayed")] {
        let text =
            format!(r#"{{"ts":1767225600123,"value":{value},"quality":"good","unit":"V","{mark}":true}}"#);
        assert!(!site.expect("busbar/site-7/m1/u", &text).retain);
    }
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_silent_broker_is_noticed() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "ack_timeout": "200ms" }), two_devices());
    site.broker.play(Script { withhold_acks: true, ..Script::default() });
    let mut samples = Samples::default();
    sample(&mut samples, 1, &Value::Int(1));
    instance.deliver(delivery(1, 0, 0, samples));
    let reason = site.rig.lost();
    assert!(reason.contains("fell silent"), "{reason}");
    site.rig.stop(&instance);
    site.end();
}

/// A delivery waits for room no longer than the SDK allows, and the connection ends in order even then.
#[test]
fn a_stop_while_the_broker_acknowledges_nothing() {
    let mut site = Site::new();
    let instance = site.connected(json!({}), two_devices());
    site.broker.play(Script { withhold_acks: true, ..Script::default() });
    let mut samples = Samples::default();
    (0..3000).for_each(|value| sample(&mut samples, 1, &Value::Int(value)));
    instance.deliver(delivery(1, 0, 0, samples));
    let started = std::time::Instant::now();
    instance.stop(Duration::from_secs(1));
    site.rig.wait(|said| matches!(said, Said::Event(_, 0, Event::Stopped)));
    assert!(started.elapsed() < LONG);
    site.end();
}
