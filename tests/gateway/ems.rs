//! Modbus devices -> gateway -> an EMS in a process of its own that answers in every way the contract knows.
//!
//! The simulated devices count their requests, so that what is missing or doubled at the EMS shows.

mod contract;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};
use serde_json::{Value, json};

use crate::shared::device;

/// Long enough for several failures with the short pauses configured here and the host's own pace of connecting.
const RECOVERY: Duration = Duration::from_secs(60);

fn devices(manners: &[Manner]) -> (Devices, String) {
    let devices = Devices::start(manners);
    let mut body = String::new();
    for (i, simulated) in devices.list.iter().enumerate() {
        let place = Place::Tcp(simulated.address);
        let points =
            ["{ name = \"n\", address = \"holding:0\", type = \"float32\", unit = \"V\" }".to_owned()];
        body += &device(&format!("d{i}"), &place.connection("tcp", 1), "poll_interval = \"100ms\"", &points);
    }
    (devices, body)
}

fn sink(ems: &Ems, more: &str) -> String {
    format!(
        "[[sink]]\nname = \"ems\"\nplugin = \"ems-http\"\nreconnect = {{ initial = \"100ms\", max = \"300ms\" }}\n\
         [sink.settings]\nurl = \"{}\"\nbatch_wait = \"200ms\"\nretry_delay = \"100ms\"\n{more}\n",
        ems.url()
    )
}

fn token() -> String {
    format!("token = \"{TOKEN}\"")
}

/// The numbers that arrived of each device, in order of arrival.
fn numbers(records: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let Some(value) = record["measurements"]["n"]["value"].as_f64() else { continue };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
        let number = value as u64;
        found.entry(record["device_id"].as_str().unwrap().to_owned()).or_default().push(number);
    }
    found
}

/// Waits until `count` further numbers of each of `devices` devices arrived.
fn further(ems: &Ems, devices: usize, count: usize) {
    let have = |records: &[Value]| numbers(records).values().map(Vec::len).collect::<Vec<_>>();
    let before = have(&ems.records());
    ems.wait("further records of every device", RECOVERY, |records| {
        let now = have(records);
        (now.len() == devices
            && now.iter().enumerate().all(|(at, n)| *n >= before.get(at).copied().unwrap_or(0) + count))
        .then_some(())
    });
}

/// Every number once, in order, none missing.
fn complete(records: &[Value]) {
    for (device, numbers) in numbers(records) {
        let expected: Vec<u64> = (numbers[0]..numbers[0] + numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "{device}: something is missing, doubled or out of order");
        assert!(
            numbers[0] <= 2,
            "{device}: from the first read on (before it the driver looks whether it answers)"
        );
    }
}

/// One key, one content.
fn keys_are_sound(requests: &[Value]) {
    let mut contents: BTreeMap<&str, &Value> = BTreeMap::new();
    for request in requests {
        let key = request["key"].as_str().unwrap();
        let body = contents.entry(key).or_insert(&request["body"]);
        assert_eq!(**body, request["body"], "two batches under one key");
    }
}

#[test]
fn a_batch_as_the_contract_says() {
    let ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting; 2]);
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    further(&ems, 2, 5);
    let requests = ems.requests();
    let request = requests.iter().find(|request| request["status"] == json!(202)).unwrap();
    assert_eq!(request["authorization"], json!(format!("Bearer {TOKEN}")));
    assert_eq!(request["content_type"], json!("application/json"));
    assert_eq!(request["body"]["gateway_id"], json!("site"));
    let records = ems.records();
    let record = records.iter().find(|record| !record["measurements"]["n"]["value"].is_null()).unwrap();
    let measurement = &record["measurements"]["n"];
    assert!(measurement["value"].is_number(), "{record}");
    assert_eq!((&measurement["unit"], &measurement["quality"]), (&json!("V"), &json!("GOOD")));
    let time = record["timestamp"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    let members: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), 4);
    complete(&records);
}

/// Everything that can go wrong, one after another, under load: nothing lost, nothing doubled, order kept.
#[test]
fn nothing_is_lost_or_doubled_whatever_the_ems_does() {
    let mut ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting; 3]);
    let settings = format!("{}\ntimeout = \"1s\"\ntoken_retry = \"200ms\"", token());
    let gateway = Gateway::start(&(body + &sink(&ems, &settings)));
    further(&ems, 3, 3);
    // Each failure meets a batch of its own, and the batch comes again before the next failure.
    let steps: Vec<Value> = [
        json!({ "do": "status", "status": 500 }),
        json!({ "do": "lost" }),
        json!({ "do": "reset" }),
        json!({ "do": "status", "status": 429, "headers": { "Retry-After": "1" } }),
        json!({ "do": "status", "status": 503, "headers": { "Retry-After": "1" } }),
        json!({ "do": "status", "status": 503 }),
        json!({ "do": "hang" }),
        json!({ "do": "status", "status": 401 }),
        json!({ "do": "status", "status": 413 }),
        json!({ "do": "status", "status": 400, "body": "not now" }),
        json!({ "do": "status", "status": 200, "body": "<html>portal</html>" }),
        json!({ "do": "status", "status": 302, "headers": { "Location": "http://elsewhere.example/" } }),
        json!({ "do": "lost" }),
    ]
    .into_iter()
    .flat_map(|step| [step, json!({ "do": "take" })])
    .collect();
    let steps = Value::Array(steps);
    let count = steps.as_array().unwrap().len();
    ems.play(&steps);
    until("the script to be over", RECOVERY, || (ems.waiting_steps() == 0).then_some(()));
    further(&ems, 3, 20);
    let (records, requests) = (ems.records(), ems.requests());
    complete(&records);
    keys_are_sound(&requests);
    assert!(requests.len() > count);
    let repeated = requests.iter().filter(|request| request["status"] == json!(409)).count();
    assert_eq!(repeated, 2, "each lost answer is asked for once more, under its key");
    let sinks = gateway.api("/api/v1/sinks");
    assert!(!gateway.log().contains(TOKEN), "a token in the log");
    assert_eq!(sinks[0]["connected"], json!(true), "{sinks}");
}

#[test]
fn the_ems_dies_and_returns() {
    let mut ems = Ems::start();
    let (devices, body) = devices(&[Manner::Counting; 2]);
    let gateway = Gateway::start(&(body + &sink(&ems, &token())));
    further(&ems, 2, 3);
    ems.kill();
    until("the sink to be without connection", PATIENCE, || {
        (gateway.api("/api/v1/sinks")[0]["connected"] == json!(false)).then_some(())
    });
    let before = devices.list[0].seen.requests();
    until("the devices to be read on", PATIENCE, || {
        (devices.list[0].seen.requests() > before + 20).then_some(())
    });
    ems.launch();
    further(&ems, 2, 30);
    complete(&ems.records());
    keys_are_sound(&ems.requests());
}

#[test]
fn refused_records_are_parked_and_visible() {
    for manner in ["partial", "named", "whole"] {
        let mut ems = Ems::start();
        ems.rules(json!({ "bad_devices": ["d1"], "manner": manner }));
        let (_devices, body) = devices(&[Manner::Counting; 3]);
        let gateway = Gateway::start(&(body + &sink(&ems, &token())));
        ems.wait("records of the good devices", RECOVERY, |records| {
            let found = numbers(records);
            (found.len() == 2 && found.values().all(|list| list.len() >= 10)).then_some(())
        });
        let records = ems.records();
        complete(&records);
        assert!(!numbers(&records).contains_key("d1"), "{manner}");
        let parked = gateway.metrics().sum("busbar_sink_parked_total", &[("sink", "ems")]);
        assert!(parked >= 1.0, "{manner}: {parked}");
        until("the refusal in the log", PATIENCE, || {
            gateway.log().contains("the EMS refused a record").then_some(())
        });
    }
}

#[test]
fn a_renewed_token_goes_on_where_the_old_one_stopped() {
    let mut ems = Ems::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let (_devices, body) = devices(&[Manner::Counting]);
    let settings = format!("token_file = \"{}\"\ntoken_retry = \"1h\"", file.display());
    let gateway = Gateway::start(&(body + &sink(&ems, &settings)));
    further(&ems, 1, 3);
    ems.take_token("ems-secret-2");
    let reason = until("the sink to say why", PATIENCE, || {
        let sinks = gateway.api("/api/v1/sinks");
        let reason = sinks[0]["reason"].as_str()?.to_owned();
        (sinks[0]["connected"] == json!(false)).then_some(reason)
    });
    assert!(reason.contains("token") && reason.contains("401"), "{reason}");
    until("the alarm", PATIENCE, || gateway.log().contains("nothing is sent until").then_some(()));
    // Stopped: one request was refused, and with the same token no other follows, however long it takes.
    let refused = |ems: &Ems| ems.requests().iter().filter(|request| request["status"] == json!(401)).count();
    let begin = Instant::now();
    until("some attempts of the host", PATIENCE, || (begin.elapsed() > Duration::from_secs(2)).then_some(()));
    assert_eq!(refused(&ems), 1);
    std::fs::write(&file, "ems-secret-2\n").unwrap();
    further(&ems, 1, 30);
    complete(&ems.records());
    assert_eq!(refused(&ems), 1);
    for secret in [TOKEN, "ems-secret-2"] {
        assert!(!gateway.log().contains(secret), "a token in the log");
    }
}

#[test]
fn too_large_batches_are_halved() {
    let mut ems = Ems::start();
    ems.rules(json!({ "max_records": 3 }));
    let (_devices, body) = devices(&[Manner::Counting; 8]);
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    further(&ems, 8, 10);
    complete(&ems.records());
    assert!(ems.requests().iter().any(|request| request["status"] == json!(413)));
}

#[test]
fn tls_and_gzip() {
    let ems = Ems::with_tls();
    let (_devices, body) = devices(&[Manner::Counting]);
    let made = ems.certificates.as_ref().unwrap();
    let tls =
        |ca: &std::path::Path| format!("{}\ngzip = true\ntls = {{ ca = \"{}\" }}", token(), ca.display());
    let gateway = Gateway::start(&(body.clone() + &sink(&ems, &tls(&made.ca))));
    further(&ems, 1, 5);
    let requests = ems.requests();
    assert!(requests.iter().all(|request| request["gzip"] == json!(true) && request["tls"] == json!(true)));
    complete(&ems.records());
    drop(gateway);

    let count = ems.requests().len();
    let gateway = Gateway::start(&(body + &sink(&ems, &tls(&made.other_ca))));
    let reason = until("the sink to say why", PATIENCE, || {
        let sinks = gateway.api("/api/v1/sinks");
        let reason = sinks[0]["reason"].as_str()?.to_owned();
        reason.contains("certificate").then_some(reason)
    });
    assert!(reason.contains("unknown authority"), "{reason}");
    assert_eq!(ems.requests().len(), count, "nothing was sent to a stranger");
}

/// The consumers of the gateway that was here before read the same topics and records from MQTT.
#[test]
fn records_of_the_old_gateway_over_mqtt() {
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let (_devices, body) = devices(&[Manner::Counting, Manner::Hanging]);
    let labels = |id: u8| {
        format!(
            "poll_interval = \"100ms\"\nlabels = {{ device_id = \"{id}\", identify_device = \"uuid-{id}\", device_type = \"CT_Meter\" }}"
        )
    };
    let body = body.replacen("poll_interval = \"100ms\"", &labels(11), 1);
    let at = body.rfind("poll_interval = \"100ms\"").unwrap();
    let body = format!("{}{}", &body[..at], body[at..].replacen("poll_interval = \"100ms\"", &labels(12), 1));
    let settings =
        format!("url = \"{}\"\nformat = \"ems\"\nbase = \"old/modbus\"\nstatus_base = \"crm\"", broker.url());
    let sink = format!("[[sink]]\nname = \"mqtt\"\nplugin = \"mqtt\"\n[sink.settings]\n{settings}\n");
    let _gateway = Gateway::start(&(body + &sink));
    let good = observer
        .wait_for("a record", 0, "old/modbus/11/uuid-11", PATIENCE, |m| m.payload["success"] == json!(true));
    let record = &good.payload;
    assert!(record["data"]["n"].is_number(), "{record}");
    for (name, value) in [
        ("device_name", json!("d0")),
        ("device_id", json!(11)),
        ("identify_device", json!("uuid-11")),
        ("device_type", json!("CT_Meter")),
        ("device_section", json!("d0")),
        ("error", Value::Null),
    ] {
        assert_eq!(record[name], value, "{name}");
    }
    let time = record["timestamp"].as_str().unwrap();
    assert!(time.len() == 32 && time.as_bytes()[10] == b' ' && time.ends_with("+00:00"), "{time}");
    let dead = observer.wait_for("the dead device", 0, "old/modbus/12/uuid-12", PATIENCE, |_| true);
    assert_eq!((&dead.payload["success"], &dead.payload["data"]), (&json!(false), &json!({})));
    observer.wait_for("the status", 0, "crm/site/status", PATIENCE, |message| {
        message.payload["dispositivos_leyendo"] == json!(["d0"])
            && message.payload["gateway_uuid"] == json!("site")
    });
}

/// A device that is lost says so at the EMS: null and BAD_COMM.
#[test]
fn a_dead_device_is_null_and_bad_comm() {
    let ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting, Manner::Hanging]);
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    let record = ems.wait("a record of the dead device", RECOVERY, |records| {
        records.iter().find(|record| record["device_id"] == json!("d1")).cloned()
    });
    assert_eq!(record["measurements"]["n"], json!({ "value": null, "unit": "V", "quality": "BAD_COMM" }));
}

/// What stands in the queue at an orderly stop is sent before the end.
#[test]
fn an_orderly_stop_sends_what_was_gathered() {
    let ems = Ems::start();
    let (devices, body) = devices(&[Manner::Counting]);
    let settings = sink(&ems, &token()).replace("200ms", "1h");
    let mut gateway = Gateway::start(&(body + &settings));
    until("some polls", PATIENCE, || (devices.list[0].seen.requests() >= 10).then_some(()));
    let status = gateway.process.terminate(Duration::from_secs(15));
    assert!(status.success(), "{status}");
    let records = ems.records();
    complete(&records);
    let (seen, arrived) = (devices.list[0].seen.requests(), numbers(&records)["d0"].len() as u64);
    assert!(seen - arrived <= 1, "{arrived} of {seen}: only what was just being read may be missing");
}
