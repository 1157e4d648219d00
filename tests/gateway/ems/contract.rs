//! The contract of the EMS, answer by answer, each from the real server process. Together with the stories above: 202, 401,
//! 413, partial rejection, time-outs, resets and lost answers.

use std::time::Duration;

use busbar_tests::device::Manner;
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, until};
use serde_json::{Value, json};

use super::{RECOVERY, complete, devices, further, keys_are_sound, numbers, sink, token};

/// What a pause of the gateway may be shorter than the server's own measure of it.
const EARLY: f64 = 0.05;

fn at(request: &Value) -> f64 {
    request["at"].as_f64().unwrap()
}

fn with_status(requests: &[Value], status: u64) -> Vec<usize> {
    (0..requests.len()).filter(|index| requests[*index]["status"] == json!(status)).collect()
}

/// Plays a step and waits until it was met and data flow again.
fn meet(ems: &mut Ems, steps: Value) {
    ems.play(&steps);
    until("the script to be over", RECOVERY, || (ems.waiting_steps() == 0).then_some(()));
    further(ems, 1, 3);
}

/// The key stands in header and body; both kinds of success confirm.
#[test]
fn keys_and_both_successes() {
    let mut ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting]);
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    further(&ems, 1, 2);
    meet(&mut ems, json!([{ "do": "take", "status": 200 }, { "do": "take", "status": 202 }]));
    let requests = ems.requests();
    for request in &requests {
        let key = request["key"].as_str().unwrap();
        assert_eq!((key.len(), &key[14..15]), (36, "8"), "a UUID of version 8");
        assert_eq!(request["body"]["batch_id"], request["key"]);
        assert_eq!(request["path"], json!("/api/v1/measurements:batch"));
        for record in request["body"]["records"].as_array().unwrap() {
            assert!(record["seq"].is_u64(), "{record}");
        }
    }
    assert_eq!(with_status(&requests, 200).len(), 1);
    complete(&ems.records());
}

/// 409: seen before. It is success, also when it says again which records were refused: they are parked once.
#[test]
fn seen_before_is_success() {
    let mut ems = Ems::start();
    ems.rules(json!({ "bad_devices": ["d1"] }));
    let (_devices, body) = devices(&[Manner::Counting; 2]);
    let gateway = Gateway::start(&(body + &sink(&ems, &token())));
    meet(&mut ems, json!([{ "do": "lost" }]));
    let requests = ems.requests();
    let [again] = with_status(&requests, 409)[..] else { panic!("one 409") };
    let lost = &requests[again - 1];
    assert_eq!((&lost["status"], &lost["key"]), (&json!(0), &requests[again]["key"]));
    assert_eq!(lost["body"], requests[again]["body"], "the same batch, byte for byte");
    complete(&ems.records());
    assert!(!lost["refused"].as_array().unwrap().is_empty(), "{lost}");
    let parked = parked(&gateway);
    let numbers: Vec<&Value> =
        parked.iter().filter(|row| row["point"] == "d1/n").map(|row| &row["number"]).collect();
    let mut once = numbers.clone();
    once.dedup();
    assert!(!numbers.is_empty() && once.len() == numbers.len(), "{parked:?}");
    let refused =
        lost["body"]["records"].as_array().unwrap().iter().filter(|record| record["device_id"] == "d1");
    assert!(refused.count() <= parked.len(), "{parked:?}");
}

/// What the queue of the sink shows as parked.
fn parked(gateway: &Gateway) -> Vec<Value> {
    let shown = gateway.cli(&["queue", "ems", "--parked", "--json"]).expect(0).out;
    let rows: Value = serde_json::from_str(&shown).unwrap();
    rows.as_array().unwrap_or_else(|| panic!("{rows}")).clone()
}

/// 403 is answered like 401: nothing is sent until the pause is over, the alarm says why, then the token is read again.
#[test]
fn forbidden_stops_and_is_tried_again() {
    let mut ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting]);
    let settings = format!("{}\ntoken_retry = \"2s\"", token());
    let gateway = Gateway::start(&(body + &sink(&ems, &settings)));
    further(&ems, 1, 2);
    ems.play(&json!([{ "do": "status", "status": 403 }]));
    let reason = until("the sink to say why", PATIENCE, || {
        let sinks = gateway.api("/api/v1/sinks");
        let reason = sinks[0]["reason"].as_str()?.to_owned();
        (sinks[0]["connected"] == json!(false)).then_some(reason)
    });
    assert!(reason.contains("403") && reason.contains("token"), "{reason}");
    further(&ems, 1, 5);
    let requests = ems.requests();
    let [refused] = with_status(&requests, 403)[..] else { panic!("one 403") };
    let pause = at(&requests[refused + 1]) - at(&requests[refused]);
    assert!(pause >= 2.0 - EARLY, "{pause} s");
    assert!(gateway.log().contains("nothing is sent until"));
    complete(&ems.records());
}

/// 429 and 503 with `Retry-After`, in seconds and as a date: obeyed, and no time of waiting loses anything.
#[test]
fn a_server_that_asks_to_wait_is_obeyed() {
    let mut ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting]);
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    further(&ems, 1, 2);
    for status in [429, 503] {
        meet(&mut ems, json!([{ "do": "status", "status": status, "headers": { "Retry-After": "3" } }]));
        let requests = ems.requests();
        let [asked] = with_status(&requests, status)[..] else { panic!("one {status}") };
        let pause = at(&requests[asked + 1]) - at(&requests[asked]);
        assert!((3.0 - EARLY..10.0).contains(&pause), "{status}: {pause} s");
        assert_eq!(requests[asked]["key"], requests[asked + 1]["key"], "the same batch");
    }
    // RFC 9110, 10.2.3: a date has whole seconds.
    let now = std::time::SystemTime::now() + Duration::from_secs(4);
    let date = http_date(now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
    meet(&mut ems, json!([{ "do": "status", "status": 429, "headers": { "Retry-After": date } }]));
    let requests = ems.requests();
    let asked = with_status(&requests, 429)[1];
    let pause = at(&requests[asked + 1]) - at(&requests[asked]);
    assert!((2.0..10.0).contains(&pause), "until {date}: {pause} s");
    complete(&ems.records());
}

fn http_date(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["--utc", "+%a, %d %b %Y %H:%M:%S GMT", &format!("--date=@{seconds}")])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Other 5xx: the same batch again after `retry_delay` x 2^n with jitter of a fifth, however often; then at once.
#[test]
fn failures_are_tried_again_with_growing_pauses() {
    let mut ems = Ems::start();
    let (_devices, body) = devices(&[Manner::Counting]);
    let settings = format!("{}\ntoken_retry = \"1h\"", token());
    let sink = sink(&ems, &settings).replace("retry_delay = \"100ms\"", "retry_delay = \"400ms\"");
    let _gateway = Gateway::start(&(body + &sink));
    further(&ems, 1, 2);
    let failures = [500, 502, 504, 507];
    meet(&mut ems, failures.iter().map(|status| json!({ "do": "status", "status": status })).collect());
    let requests = ems.requests();
    let first = with_status(&requests, 500)[0];
    for (n, status) in failures.iter().enumerate() {
        let (failed, next) = (&requests[first + n], &requests[first + n + 1]);
        assert_eq!(failed["status"], json!(status));
        assert_eq!((&failed["key"], &failed["body"]), (&next["key"], &next["body"]), "the same batch again");
        let (pause, least) = (at(next) - at(failed), 0.4 * f64::from(1 << n) * 0.8);
        assert!(pause >= least - EARLY, "after failure {n}: {pause} s, expected {least} s");
    }
    assert_eq!(requests[first + failures.len()]["status"], json!(202));
    complete(&ems.records());
    keys_are_sound(&requests);
}

/// 422 without a word which record it is: the batch is halved until it is alone. 413 for one record alone: that is parked too.
#[test]
fn what_is_refused_is_found_and_parked() {
    for manner in ["invalid", "large"] {
        let mut ems = Ems::start();
        ems.rules(json!({ "bad_devices": ["d1"], "manner": manner }));
        let (_devices, body) = devices(&[Manner::Counting; 3]);
        let gateway = Gateway::start(&(body + &sink(&ems, &token())));
        ems.wait("records of the good devices", RECOVERY, |records| {
            let found = numbers(records);
            (found.len() == 2 && found.values().all(|list| list.len() >= 10)).then_some(())
        });
        complete(&ems.records());
        let metrics = gateway.metrics();
        let of = |name: &str| metrics.sum(&format!("busbar_sink_{name}"), &[("sink", "ems")]);
        assert!(of("parked_total") >= 1.0, "{manner}");
        assert_eq!(of("dropped_total"), 0.0, "{manner}");
        let word = if manner == "large" { "too large" } else { "invalid" };
        for row in parked(&gateway) {
            assert!(row["point"].as_str().unwrap().starts_with("d1/"), "{manner}: {row}");
            assert!(row["reason"].as_str().unwrap().contains(word), "{manner}: {row}");
        }
    }
}

/// Batches of 100 records or 5 s, where nothing else is configured.
#[test]
fn a_batch_is_a_hundred_records_or_five_seconds() {
    let mut ems = Ems::start();
    let (simulated, body) = devices(&[Manner::Counting]);
    // Some eighty records in 5 s.
    let body = body.replace("poll_interval = \"100ms\"", "poll_interval = \"60ms\"");
    let sink = sink(&ems, &token()).replace("batch_wait = \"200ms\"\n", "");
    let _gateway = Gateway::start(&(body + &sink));
    further(&ems, 1, 1);
    let first = ems.clock() + Duration::from_secs_f64(at(&ems.requests()[0]));
    let waited = first - simulated.list[0].seen.time(1).unwrap();
    assert!(waited > Duration::from_millis(4500), "one device fills no batch in 5 s: {waited:?}");
    ems.kill();
    let before = simulated.list[0].seen.requests();
    until("some hundred records to wait", RECOVERY, || {
        (simulated.list[0].seen.requests() > before + 220).then_some(())
    });
    ems.launch();
    further(&ems, 1, 220);
    let requests = ems.requests();
    let counts: Vec<u64> = requests.iter().map(|request| request["count"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().max(), Some(&100), "the backlog goes in full batches: {counts:?}");
    complete(&ems.records());
}

/// Each of the six words for a quality, and no value with four of them.
#[test]
fn words_for_qualities() {
    let ems = Ems::start();
    let qualities = [
        ("good", "GOOD"),
        ("questionable", "UNCERTAIN"),
        ("questionable|old_data", "STALE"),
        ("invalid", "BAD_COMM"),
        ("invalid|failure", "BAD_COMM"),
        ("invalid|comm_lost", "BAD_COMM"),
        ("invalid|bad_reference", "BAD_CONFIG"),
        ("questionable|out_of_range", "BAD_RANGE"),
        ("invalid|overflow", "BAD_RANGE"),
    ];
    let mut body = "[[device]]\nname = \"q\"\ndriver = \"fake\"\npoll_interval = \"100ms\"\n\
                    connection = { endpoint = \"q\" }\npoints = [\n"
        .to_owned();
    for (number, (quality, _)) in qualities.iter().enumerate() {
        body += &format!(
            "  {{ name = \"p{number}\", address = \"value:v{number}\", type = \"float64\", quality = \"{quality}\" }},\n"
        );
    }
    // What the host itself finds out.
    body += "  { name = \"high\", address = \"const:400\", type = \"float64\", range = [0, 300] },\n]\n\n";
    let _gateway = Gateway::start(&(body + &sink(&ems, &token())));
    let whole = ems.wait("a record with all of them", RECOVERY, |records| {
        records.iter().rev().find(|record| record["measurements"]["high"]["quality"] == "BAD_RANGE").cloned()
    });
    let expected = qualities.iter().enumerate().map(|(number, (_, word))| (format!("p{number}"), *word));
    for (name, word) in expected.chain([("high".to_owned(), "BAD_RANGE")]) {
        let measurement = &whole["measurements"][&name];
        assert_eq!(measurement["quality"], json!(word), "{name}: {whole}");
        let shown = matches!(word, "GOOD" | "UNCERTAIN");
        assert_eq!(measurement["value"].is_number(), shown, "{name}: {measurement}");
        assert_eq!(measurement["value"].is_null(), !shown, "{name}: {measurement}");
    }
}

/// Another EMS: its own path, headers, words, body and answer, as the README shows it.
#[test]
fn an_ems_that_is_not_as_the_contract_says() {
    let ems = Ems::other(json!({
        "path": "/ingest?source=busbar", "token_header": "X-Api-Key", "token_prefix": "", "key_header": "X-Request-Id",
        "free": true
    }));
    let (_devices, body) = devices(&[Manner::Counting]);
    let body = body.replacen("poll_interval", "labels = { asset = \"A-17\" }\npoll_interval", 1);
    let settings = format!(
        "{}\npath = \"/ingest?source=busbar\"\ntoken_header = \"X-Api-Key\"\ntoken_prefix = \"\"\nkey_header = \"X-Request-Id\"\n\
         headers = {{ X-Site = \"hall 4\" }}\nquality = {{ good = 0, bad_comm = 2 }}\nanswer = {{ confirms = \"status\" }}\n\
         gateway_id = \"site-7\"\n[sink.settings.body]\nbatch = {{ source = \"busbar/{{gateway_id}}\", items = \"{{records}}\" }}\n\
         record = {{ asset = \"{{label:asset}}\", ms = \"{{timestamp_ms}}\", values = \"{{measurements}}\" }}\n\
         measurement = {{ tag = \"{{key}}\", v = \"{{value}}\", q = \"{{quality}}\" }}\nmeasurements = \"list\"",
        token()
    );
    let text = sink(&ems, &settings) + "\n[[sink.map]]\npoint = \"d0/n\"\nkey = \"Number\"\n";
    let gateway = Gateway::start(&(body + &text));
    let taken = until("values in the other shape", RECOVERY, || {
        let values: Vec<u64> = ems.requests().iter().flat_map(values).collect();
        (values.len() > 10).then_some(values)
    });
    let expected: Vec<u64> = (taken[0]..taken[0] + taken.len() as u64).collect();
    assert_eq!(taken, expected, "each once and in order");
    let requests = ems.requests();
    let request = &requests[requests.len() - 1];
    assert_eq!(request["status"], json!(200), "{request}");
    assert_eq!((&request["authorization"], &request["headers"]["x-site"]), (&json!(TOKEN), &json!("hall 4")));
    assert!(request["headers"].get("authorization").is_none(), "{request}");
    assert_eq!(request["body"]["source"], json!("busbar/site-7"));
    let item = &request["body"]["items"][0];
    assert_eq!((&item["asset"], &item["values"][0]["tag"]), (&json!("A-17"), &json!("Number")), "{item}");
    assert!(!gateway.log().contains("hall 4"), "values of headers are never shown");
}

/// The good numbers in the shape above.
fn values(request: &Value) -> Vec<u64> {
    let items = request["body"]["items"].as_array().cloned().unwrap_or_default();
    let measurements = items.iter().flat_map(|item| item["values"].as_array().cloned().unwrap_or_default());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    measurements.filter(|m| m["q"] == json!(0)).map(|m| m["v"].as_f64().unwrap() as u64).collect()
}

/// A list of servers: the next one takes over, and which one is tried first afterwards is a setting.
#[test]
fn another_server_of_the_list_takes_over() {
    for prefer in ["first", "last-good"] {
        let (mut first, mut second) = (Ems::start(), Ems::start());
        let (_devices, body) = devices(&[Manner::Counting]);
        let list = format!("url = [\"{}\", \"{}\"]\nprefer = \"{prefer}\"", first.url(), second.url());
        let sink = sink(&first, &token()).replace(&format!("url = \"{}\"", first.url()), &list);
        let _gateway = Gateway::start(&(body + &sink));
        further(&first, 1, 3);
        assert!(second.requests().is_empty(), "{prefer}: the first of the list is tried first");
        first.kill();
        further(&second, 1, 5);
        first.launch();
        second.play(&json!([{ "do": "status", "status": 500 }]));
        until("the failure to be met", RECOVERY, || (second.waiting_steps() == 0).then_some(()));
        let begin = (first.requests().len(), second.requests().len());
        let (to_first, to_second) = until("some batches", RECOVERY, || {
            let now = (first.requests().len() - begin.0, second.requests().len() - begin.1);
            (now.0 + now.1 >= 5).then_some(now)
        });
        match prefer {
            "first" => assert_eq!(to_second, 0, "{to_first} to the first of the list"),
            _ => assert_eq!(to_first, 0, "{to_second} to the one that served last"),
        }
        let all: Vec<Value> = [first.records(), second.records()].concat();
        // A batch whose answer was lost with one server may be at both.
        let mut came: Vec<u64> = numbers(&all).remove("d0").unwrap();
        came.sort_unstable();
        came.dedup();
        let expected: Vec<u64> = (came[0]..came[0] + came.len() as u64).collect();
        assert_eq!(came, expected, "{prefer}: nothing is missing");
    }
}
