//! The real plugin file, loaded by the real loader, against a scripted HTTP server on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

#[path = "../../../driver-api/tests/common/mod.rs"]
mod common;
#[path = "../protocol/tests/common/mod.rs"]
mod server;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use busbar_contract::{
    Cause, Event, Flags, Quality, Request, Samples, Value, batch,
    binary::Verdict,
    describe::Open,
    request::{AnswerTo, SinkPoint},
};
use busbar_loader::{Instance, Isolation};
use common::sink::{FAR_SIDE, delivered, polled, rejected, routed};
use common::{LONG, Rig, Said, artifacts, delivery};
use serde_json::{Value as Json, json};
use server::{Say, Server};

const TS: i64 = 1_767_225_600_123_000_000;

/// A server, the plugin, and one instance.
struct Site {
    server: Server,
    rig: Rig,
    /// What the host has in the sink's durable state.
    stored: Option<String>,
    bad_value: &'static str,
    test: &'static str,
}

impl Site {
    fn new() -> Self {
        let rig = Rig::start(&artifacts::sink("ems-http"), Isolation::InProcess);
        Self { server: Server::start(), rig, stored: None, bad_value: "null", test: "invalid" }
    }

    fn open(&mut self, more: Json) -> Instance {
        let mut settings = json!({
            "url": self.server.url(), "token": "hunter2", "batch_wait": "50ms", "retry_delay": "20ms", "token_retry": "40ms"
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let instance = self.rig.open(&Open::Sink {
            name: "ems".into(),
            host: "site-7".into(),
            settings,
            bad_value: self.bad_value.into(),
            test: self.test.into(),
        });
        self.rig.route(&instance, list());
        instance
    }

    fn connected(&mut self, more: Json) -> Instance {
        let instance = self.open(more);
        let connect = self.rig.send(&instance, &Request::Connect(FAR_SIDE));
        let stored = self.stored.clone();
        let asked = self.rig.state(&instance, AnswerTo::StateGet { value: stored });
        assert_eq!(asked.key, "batch-end");
        let connected = self.rig.completion(connect);
        assert!(matches!(connected, Said::Event(_, _, Event::Done(_))), "{connected:?}");
        instance
    }

    /// The sink has the end of its batch stored before it sends it.
    fn planned(&mut self, instance: &Instance) {
        let entry = self.rig.state(instance, AnswerTo::StatePut { error: String::new() });
        self.stored = entry.value;
    }

    /// The next request, whose batch was planned before.
    fn batch(&mut self, instance: &Instance) -> server::Request {
        self.planned(instance);
        self.server.request()
    }

    /// Nothing was confirmed. (A delivery that comes while there is no connection is answered with "retry" by the SDK.)
    fn no_acks(&mut self) {
        let ends = |said: &Said| match said {
            Said::Event(_, _, Event::Ack { acks, .. }) => {
                acks.iter().any(|ack| ack.verdict != Verdict::Retry)
            }
            _ => false,
        };
        let acks: Vec<Said> = self.rig.leftovers().into_iter().filter(ends).collect();
        assert!(acks.is_empty(), "{acks:?}");
    }

    /// Connects again until it works, as the host does; the reasons of the attempts that failed.
    fn reconnect(&mut self, instance: &Instance) -> Vec<String> {
        let mut reasons = Vec::new();
        let until = Instant::now() + LONG;
        loop {
            match self.rig.ask(instance, &Request::Connect(FAR_SIDE)) {
                Said::Event(_, _, Event::Done(_)) => return reasons,
                Said::Event(_, _, Event::Failed(failure)) => reasons.push(failure.text),
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < until, "{reasons:?}");
        }
    }

    fn end(self) {
        self.rig.end();
    }
}

fn point(number: u32, device: &str, name: &str) -> SinkPoint {
    let metadata = json!({ "device": { "labels": { "ems_id": format!("E-{device}") } } });
    SinkPoint { metadata, ..routed(number, device, name) }
}

fn list() -> Vec<SinkPoint> {
    let mut list = vec![
        point(1, "m1", "u"),
        point(2, "m1", "i"),
        point(3, "m2", "u"),
        point(4, "m2", "i"),
        point(5, "m1", "@online"),
    ];
    list[4].metadata = Json::Null;
    list[1].map = vec![json!({ "point": "m1/i", "key": "Current_L1" })];
    list
}

/// `count` records of device m1, each of one sample with its own second.
fn polls(from: u64, count: u64) -> Samples {
    let mut samples = Samples::default();
    for number in from..from + count {
        let ts_ns = TS + i64::try_from(number).unwrap() * 1_000_000_000;
        polled(&mut samples, 1, ts_ns, &Value::Uint(number));
    }
    samples
}

fn body(request: &server::Request) -> Json {
    serde_json::from_slice(&request.body).unwrap()
}

/// Values of the records of [`polls`].
fn values(request: &server::Request) -> Vec<u64> {
    let body = body(request);
    body["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["measurements"]["u"]["value"].as_u64().unwrap())
        .collect()
}

fn key(request: &server::Request) -> String {
    let key = request.header("Idempotency-Key").unwrap().to_owned();
    assert_eq!(body(request)["batch_id"], json!(key));
    key
}

#[test]
fn a_batch_is_what_the_contract_says() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "headers": { "X-Site": "north" }, "gateway_id": "gw" }));
    let mut samples = Samples::default();
    polled(&mut samples, 1, TS, &Value::Float32(231.4));
    let range =
        Quality::GOOD.with(Quality::OUT_OF_RANGE).with_validity(busbar_contract::Validity::Questionable);
    samples.push(2, TS + 900_000, &Value::Float32(999.0), range, Flags::new(Cause::Poll, 0));
    polled(&mut samples, 3, TS, &Value::Bool(true));
    polled(&mut samples, 4, TS + 1_000_000, &Value::Float64(f64::NAN));
    polled(&mut samples, 5, TS, &Value::Bool(true));
    polled(&mut samples, 99, TS, &Value::Int(1));
    assert!(instance.deliver(delivery(100, 0, 0, samples)).is_taken());
    let request = site.batch(&instance);
    assert_eq!(request.line, "POST /api/v1/measurements:batch HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
    assert_eq!(request.header("x-site"), Some("north"));
    let id = key(&request);
    let expected = json!({ "gateway_id": "gw", "batch_id": id, "records": [
        { "device_id": "m1", "timestamp": "2026-01-01T00:00:00.123Z", "seq": 100, "measurements": {
            "u": { "value": 231.4, "unit": "V", "quality": "GOOD" },
            "Current_L1": { "value": null, "unit": "V", "quality": "BAD_RANGE" } } },
        { "device_id": "m2", "timestamp": "2026-01-01T00:00:00.123Z", "seq": 102, "measurements": {
            "u": { "value": true, "unit": "V", "quality": "GOOD" } } },
        { "device_id": "m2", "timestamp": "2026-01-01T00:00:00.124Z", "seq": 103, "measurements": {
            "i": { "value": null, "unit": "V", "quality": "BAD_COMM" } } },
    ] });
    assert_eq!(body(&request), expected);
    // A system point that nobody mapped goes nowhere; a point that nobody knows is parked.
    assert_eq!(site.rig.acks(6), [delivered(100, 5), rejected(105, 1, 4)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn full_batches_at_once_and_the_rest_after_a_while() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "batch_max": 100, "gzip": true }));
    instance.deliver(delivery(1, 0, 0, polls(0, 250)));
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 250 {
        site.planned(&instance);
        let request = site.server.request();
        assert_eq!(request.header("content-encoding"), Some("gzip"));
        sizes.push(body_len(&request));
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(site.rig.acks(250), [delivered(1, 250)]);
    site.rig.stop(&instance);
    site.end();
}

fn body_len(request: &server::Request) -> usize {
    use std::io::Read as _;
    let mut text = String::new();
    flate2::read::GzDecoder::new(request.body.as_slice()).read_to_string(&mut text).unwrap();
    serde_json::from_str::<Json>(&text).unwrap()["records"].as_array().unwrap().len()
}

#[test]
fn what_is_not_good_as_the_sink_was_told() {
    for (bad_value, test, expected) in [
        ("null", "invalid", json!({ "u": { "value": null, "unit": "V", "quality": "BAD_COMM" } })),
        ("omit", "invalid", json!({ "u": { "unit": "V", "quality": "BAD_COMM" } })),
        ("last", "invalid", json!({ "u": { "value": 7, "unit": "V", "quality": "BAD_COMM" } })),
        ("null", "pass", json!({ "u": { "value": 7, "unit": "V", "quality": "GOOD" } })),
    ] {
        let mut site = Site::new();
        (site.bad_value, site.test) = (bad_value, test);
        let instance = site.connected(json!({}));
        let mut samples = Samples::default();
        let flags = Flags::new(Cause::Poll, Flags::GATEWAY_TIME);
        samples.push(1, TS, &Value::Int(7), Quality::GOOD.with(Quality::TEST), flags);
        instance.deliver(delivery(1, 0, 0, samples));
        let request = site.batch(&instance);
        assert_eq!(body(&request)["records"][0]["measurements"], expected, "{bad_value} {test}");
        site.rig.acks(1);
        site.rig.stop(&instance);
        site.end();
    }
    let mut site = Site::new();
    site.test = "suppress";
    let instance = site.connected(json!({}));
    let mut samples = Samples::default();
    samples.push(1, TS, &Value::Int(7), Quality::GOOD.with(Quality::TEST), Flags::new(Cause::Poll, 0));
    instance.deliver(delivery(1, 0, 0, samples));
    assert_eq!(site.rig.acks(1), [delivered(1, 1)], "suppressed is as good as delivered");
    assert!(site.server.rest().is_empty());
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn refused_records_are_parked_and_the_others_are_delivered() {
    // Named beside an acceptance.
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    let partly = r#"{"accepted":3,"rejected":[{"index":1,"reason":"unknown meter"}]}"#;
    site.server.play([Say::json(202, partly)]);
    instance.deliver(delivery(1, 0, 0, polls(0, 4)));
    site.batch(&instance);
    assert_eq!(site.rig.acks(4), [delivered(1, 1), rejected(2, 1, 1), delivered(3, 2)]);
    site.rig.log(|entry| entry.message.contains("parked") && format!("{entry:?}").contains("unknown meter"));

    // Named in a refusal of the whole: the rest is sent again, under another key.
    site.server.play([Say::json(422, r#"{"rejected":[{"index":0},{"index":3}]}"#)]);
    instance.deliver(delivery(5, 0, 0, polls(4, 4)));
    let first = site.batch(&instance);
    site.planned(&instance);
    let again = site.server.request();
    assert_eq!((values(&first), values(&again)), (vec![4, 5, 6, 7], vec![5, 6]));
    assert_ne!(key(&first), key(&again));
    assert_eq!(site.rig.acks(4), [rejected(5, 1, 2), delivered(6, 2), rejected(8, 1, 2)]);
    site.rig.stop(&instance);
    site.end();
}

/// The far side refuses whatever holds record 5, without a word about which.
#[test]
fn a_bad_record_is_found_by_halving() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    // 0..8 bad, 0..4 good, 4..6 bad, 4 good, 5 bad, the rest good.
    let script = [400, 202, 400, 202, 400, 202].map(|status| match status {
        202 => Say::Accept,
        status => Say::status(status),
    });
    site.server.play(script);
    instance.deliver(delivery(1, 0, 0, polls(0, 8)));
    let mut seen = Vec::new();
    let mut keys = BTreeSet::new();
    for turn in 0..6 {
        let request = site.batch(&instance);
        keys.insert(key(&request));
        seen.push(values(&request));
        assert_eq!(seen.len(), turn + 1);
    }
    let expected: [Vec<u64>; 6] =
        [(0..8).collect(), (0..4).collect(), vec![4, 5], vec![4], vec![5], vec![6, 7]];
    assert_eq!(seen, expected);
    assert_eq!(keys.len(), 6, "another batch, another key");
    assert_eq!(site.rig.acks(8), [delivered(1, 5), rejected(6, 1, 2), delivered(7, 2)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn when_everything_is_refused_somebody_is_told() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "batch_max": 1 }));
    site.server.play((0..12).map(|_| Say::json(400, r#"{"error":"no such field: timestamp"}"#)));
    instance.deliver(delivery(1, 0, 0, polls(0, 12)));
    for _ in 0..12 {
        site.planned(&instance);
    }
    assert_eq!(site.rig.acks(12), [rejected(1, 12, 2)]);
    let (code, text) = site.rig.fault();
    assert_eq!(code, "everything_refused");
    assert!(text.contains("no such field"), "{text}");
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn too_large_halves_until_the_reconnect() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    site.server.play([Say::status(413), Say::status(413)]);
    instance.deliver(delivery(1, 0, 0, polls(0, 40)));
    let sizes: Vec<usize> = (0..6).map(|_| values(&site.batch(&instance)).len()).collect();
    assert_eq!(sizes, [40, 20, 10, 10, 10, 10]);
    assert_eq!(site.rig.acks(40), [delivered(1, 40)]);
    // One record alone.
    site.server.play([Say::status(413)]);
    instance.deliver(delivery(41, 0, 0, polls(40, 1)));
    site.batch(&instance);
    assert_eq!(site.rig.acks(1), [rejected(41, 1, 3)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_server_that_asks_to_wait_is_obeyed() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    for status in [429, 503] {
        site.server.play([Say::Answer(status, "Retry-After: 1\r\n".into(), String::new())]);
        let started = Instant::now();
        let first = u64::from(status);
        instance.deliver(delivery(first, 0, 0, polls(first, 2)));
        let before = site.batch(&instance);
        let again = site.server.request();
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!((key(&before), &before.body), (key(&again), &again.body), "the same batch");
        assert_eq!(site.rig.acks(2), [delivered(first, 2)]);
    }
    let states =
        site.rig.leftovers().into_iter().filter(|said| matches!(said, Said::Event(_, _, Event::State(_))));
    assert_eq!(states.count(), 0, "it answers: it is connected");
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_refused_token_stops_everything_until_it_is_renewed() {
    let mut site = Site::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "old-hunter2\n").unwrap();
    // Longer than this test may take: what makes it go on is the file.
    let settings = json!({ "token": null, "token_file": file, "token_retry": "1h" });
    let instance = site.connected(settings);
    site.server.play([Say::status(401)]);
    instance.deliver(delivery(1, 0, 0, polls(0, 3)));
    let refused = site.batch(&instance);
    assert_eq!(refused.header("authorization"), Some("Bearer old-hunter2"));
    let reason = site.rig.lost();
    assert!(reason.contains("refuses the token (401)") && reason.contains("3600 s"), "{reason}");
    assert_eq!(site.rig.fault().0, "unauthorized");
    site.no_acks();
    let failure = site.rig.failed(&instance, &Request::Connect(FAR_SIDE));
    assert!(failure.text.contains("next attempt in"), "{failure:?}");
    assert!(site.server.rest().is_empty(), "nothing is sent with a token that is refused");

    std::fs::write(&file, "new-hunter2\n").unwrap();
    assert!(site.reconnect(&instance).is_empty());
    let again = site.server.request();
    assert_eq!(again.header("authorization"), Some("Bearer new-hunter2"));
    assert_eq!((key(&refused), &refused.body), (key(&again), &again.body));
    assert_eq!(site.rig.acks(3), [delivered(1, 3)]);
    site.rig.stop(&instance);
    let logs = format!("{:?}", site.rig.logs());
    assert!(!logs.contains("hunter2"), "a token in the log");
    site.end();
}

#[test]
fn a_refused_token_is_tried_again_after_its_pause() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    site.server.play([Say::status(403), Say::status(403)]);
    instance.deliver(delivery(1, 0, 0, polls(0, 1)));
    site.batch(&instance);
    site.rig.lost();
    let reasons = site.reconnect(&instance);
    assert!(reasons.iter().any(|reason| reason.contains("(403)")), "{reasons:?}");
    assert_eq!(site.rig.acks(1), [delivered(1, 1)]);
    let faults =
        site.rig.leftovers().into_iter().filter(|said| matches!(said, Said::Event(_, _, Event::Fault(_))));
    assert_eq!(faults.count(), 1, "one alarm per episode");
    site.rig.stop(&instance);
    site.end();
}

/// Whatever breaks, the same batch comes again under the same key, and nothing is confirmed before.
#[test]
fn failures_are_retried_with_the_same_batch() {
    for say in [
        Say::status(500),
        Say::status(502),
        Say::status(503),
        Say::status(404),
        Say::status(302),
        Say::Close,
        Say::Hang,
        Say::Raw(b"HTTP/1.1 202 Accepted\r\nContent-Length: 14\r\n\r\n{\"acc".to_vec()),
        Say::json(200, "<html>please log in</html>"),
    ] {
        let mut site = Site::new();
        let instance = site.connected(json!({ "timeout": "300ms" }));
        site.server.play([say.clone(), Say::status(500)]);
        instance.deliver(delivery(1, 0, 0, polls(0, 3)));
        let first = site.batch(&instance);
        // More arrive meanwhile: they do not join a batch that may have been taken.
        instance.deliver(delivery(4, 0, 0, polls(3, 2)));
        let reason = site.rig.lost();
        assert!(reason.contains("next attempt"), "{say:?}: {reason}");
        site.no_acks();
        let reasons = site.reconnect(&instance);
        assert!(reasons.iter().any(|reason| reason.contains("500")), "{say:?}: {reasons:?}");
        for _ in 0..2 {
            let again = site.server.request();
            assert_eq!((key(&first), &first.body), (key(&again), &again.body), "{say:?}");
        }
        assert_eq!(site.rig.acks(3), [delivered(1, 3)], "{say:?}");
        instance.deliver(delivery(4, 0, 0, polls(3, 2)));
        assert_eq!(values(&site.batch(&instance)), [3, 4]);
        assert_eq!(site.rig.acks(2), [delivered(4, 2)]);
        site.rig.stop(&instance);
        site.end();
    }
}

/// The answer is lost, the plugin's process too: the next one makes the same batch of what comes again.
#[test]
fn a_restart_keeps_the_key_of_a_batch_without_answer() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    site.server.play([Say::Close]);
    instance.deliver(delivery(1, 0, 0, polls(0, 3)));
    let first = site.batch(&instance);
    site.rig.lost();
    site.rig.stop(&instance);

    // A new instance remembers nothing but what the host stored.
    let instance = site.connected(json!({}));
    site.server.play([Say::status(409)]);
    instance.deliver(delivery(1, 0, batch::REPLAY, polls(0, 7)));
    let again = site.server.request();
    assert_eq!((key(&first), &first.body), (key(&again), &again.body));
    assert_eq!(values(&site.batch(&instance)), [3, 4, 5, 6]);
    assert_eq!(site.rig.acks(7), [delivered(1, 7)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn a_host_that_cannot_store_stops_nothing() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    instance.deliver(delivery(1, 0, 0, polls(0, 1)));
    site.rig.state(&instance, AnswerTo::StatePut { error: "the disk is full".into() });
    site.server.request();
    assert_eq!(site.rig.acks(1), [delivered(1, 1)]);
    site.rig.log(|entry| entry.message.contains("could not be stored"));
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn the_image_after_a_reconnect_is_sent_only_where_it_is_news() {
    let mut site = Site::new();
    let instance = site.connected(json!({}));
    instance.deliver(delivery(1, 0, 0, polls(0, 1)));
    site.batch(&instance);
    assert_eq!(site.rig.acks(1), [delivered(1, 1)]);
    assert!(site.reconnect(&instance).is_empty());
    let mut image = polls(0, 1);
    polled(&mut image, 2, TS, &Value::Int(9));
    instance.deliver(delivery(2, 0, batch::SNAPSHOT, image));
    let request = site.batch(&instance);
    let measurements = &body(&request)["records"][0]["measurements"];
    assert_eq!(measurements.as_object().unwrap().keys().collect::<Vec<_>>(), ["Current_L1"]);
    assert_eq!(site.rig.acks(2), [delivered(2, 2)]);
    // The host repeats latest states after a replay, too.
    let mut latest = Samples::default();
    latest.push(2, TS, &Value::Int(9), Quality::GOOD, Flags::new(Cause::Integrity, Flags::GATEWAY_TIME));
    instance.deliver(delivery(4, 0, 0, latest));
    assert_eq!(site.rig.acks(1), [delivered(4, 1)]);
    assert!(site.server.rest().is_empty());
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn another_server_of_the_list_takes_over() {
    let mut site = Site::new();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let second = Server::start();
    let urls = json!([format!("http://{dead}"), site.server.url(), second.url()]);
    let instance = site.connected(json!({ "url": urls, "retry_delay": "5m", "prefer": "last-good" }));
    instance.deliver(delivery(1, 0, 0, polls(0, 1)));
    let first = site.batch(&instance);
    assert_eq!(site.rig.acks(1), [delivered(1, 1)]);
    drop(first);
    // It fails: the list is tried at once, without the pause.
    site.server.play([Say::status(500), Say::status(500)]);
    instance.deliver(delivery(2, 0, 0, polls(1, 1)));
    let failed = site.batch(&instance);
    site.rig.lost();
    assert!(site.reconnect(&instance).is_empty());
    let taken = second.request();
    assert_eq!((key(&failed), &failed.body), (key(&taken), &taken.body));
    assert_eq!(site.rig.acks(1), [delivered(2, 1)]);
    site.rig.stop(&instance);
    site.end();
}

#[test]
fn nobody_there_is_said_at_connect() {
    let mut site = Site::new();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let instance = site.open(json!({ "url": format!("http://{dead}") }));
    let connect = site.rig.send(&instance, &Request::Connect(FAR_SIDE));
    site.rig.state(&instance, AnswerTo::StateGet { value: None });
    let Said::Event(_, _, Event::Failed(failure)) = site.rig.completion(connect) else { panic!() };
    assert!(failure.text.contains("cannot reach http://127.0.0.1"), "{failure:?}");
    site.rig.stop(&instance);
    site.end();
}

/// An orderly stop sends what was gathered, without waiting for the batch to fill.
#[test]
fn a_stop_sends_what_was_gathered() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "batch_wait": "1h" }));
    instance.deliver(delivery(1, 0, 0, polls(0, 3)));
    // A second delivery that is answered shows that the first was taken.
    let mut unknown = Samples::default();
    polled(&mut unknown, 99, TS, &Value::Int(1));
    instance.deliver(delivery(4, 0, 0, unknown));
    site.rig.acks(1);
    instance.stop(LONG);
    // Nobody answers the sink any more, as in a host that is stopping.
    assert_eq!(values(&site.server.request()), [0, 1, 2]);
    assert_eq!(site.rig.acks(3), [delivered(1, 3)]);
    site.rig.wait(|said| matches!(said, Said::Event(_, 0, Event::Stopped)));
    site.end();
}

/// A stop does not wait for a server that hangs.
#[test]
fn a_stop_while_the_server_hangs() {
    let mut site = Site::new();
    let instance = site.connected(json!({ "timeout": "10m" }));
    site.server.play([Say::Hang]);
    instance.deliver(delivery(1, 0, 0, polls(0, 3)));
    site.batch(&instance);
    site.rig.stop(&instance);
    site.no_acks();
    site.end();
}

#[test]
fn another_body() {
    let mut site = Site::new();
    let settings = json!({
        "path": "/ingest?source=busbar", "token_header": "X-Api-Key", "token_prefix": "", "key_header": "X-Batch",
        "quality": { "good": 0 },
        "body": {
            "batch": "{records}",
            "record": { "id": "{label:ems_id}", "t": "{timestamp_ms}", "v": "{measurements}" },
            "measurement": { "n": "{key}", "x": "{value}", "q": "{quality}" },
            "measurements": "list"
        },
        "answer": { "confirms": "status" }
    });
    let instance = site.connected(settings);
    site.server.play([Say::Answer(200, String::new(), "OK".into())]);
    instance.deliver(delivery(1, 0, 0, polls(0, 1)));
    let request = site.batch(&instance);
    assert_eq!(request.line, "POST /ingest?source=busbar HTTP/1.1");
    assert_eq!(request.header("x-api-key"), Some("hunter2"));
    assert_eq!(request.header("x-batch").unwrap().len(), 36);
    let text = String::from_utf8(request.body).unwrap();
    assert_eq!(text, r#"[{"id":"E-m1","t":1767225600123,"v":[{"n":"u","x":0,"q":0}]}]"#);
    assert_eq!(site.rig.acks(1), [delivered(1, 1)]);
    site.rig.stop(&instance);
    site.end();
}
