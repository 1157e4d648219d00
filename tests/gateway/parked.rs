//! Records that the far side refuses: kept, shown, tried again or given up, as an operator decides.

use std::collections::BTreeSet;
use std::time::Duration;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Place, until};
use serde_json::{Value, json};

use crate::shared::device;

fn configuration(ems: &Ems, devices: &Devices) -> String {
    let mut body = String::new();
    for (at, simulated) in devices.list.iter().enumerate() {
        let points =
            ["{ name = \"n\", address = \"holding:0\", type = \"float32\", unit = \"V\" }".to_owned()];
        let connection = Place::Tcp(simulated.address).connection("tcp", 1);
        body += &device(&format!("d{at}"), &connection, "poll_interval = \"100ms\"", &points);
    }
    body + &format!(
        "[[sink]]\nname = \"ems\"\nplugin = \"ems-http\"\n[sink.settings]\nurl = \"{}\"\nbatch_wait = \"100ms\"\n\
         retry_delay = \"100ms\"\ntoken = \"{TOKEN}\"\n",
        ems.url()
    )
}

/// The sink as the API shows it, once `look` is content.
fn sink(gateway: &Gateway, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, || {
        let sink = gateway.api("/api/v1/sinks")[0].clone();
        look(&sink).then_some(sink)
    })
}

fn parked(sink: &Value) -> u64 {
    sink["parked"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// The numbers of `device` at the EMS.
fn numbers(ems: &Ems, device: &str) -> BTreeSet<u64> {
    let of_device = |record: &&Value| record["device_id"] == device;
    let number = |record: &Value| record["measurements"]["n"]["value"].as_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    ems.records().iter().filter(of_device).filter_map(number).map(|number| number as u64).collect()
}

#[test]
fn refused_records_are_shown_tried_again_and_given_up() {
    let mut ems = Ems::start();
    let devices = Devices::start(&[Manner::Counting; 2]);
    let gateway = Gateway::start(&configuration(&ems, &devices));
    sink(&gateway, "the first deliveries", |sink| sink["delivered"].as_u64() > Some(4));
    ems.rules(json!({ "bad_devices": ["d1"] }));
    sink(&gateway, "five refused records", |sink| parked(sink) >= 5);
    ems.rules(json!({ "bad_devices": [] }));

    // Seen by the API, and on the command line.
    let shown = gateway.api("/api/v1/sinks/ems/parked?limit=2");
    let rows = shown.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{shown}");
    assert!(rows[0]["number"].as_u64() < rows[1]["number"].as_u64(), "oldest first: {shown}");
    assert_eq!((&rows[0]["point"], &rows[0]["unit"]), (&json!("d1/n"), &json!("V")));
    assert!(rows[0]["value"].is_number() && rows[0]["ts"].is_number(), "{shown}");
    assert!(!rows[0]["reason"].as_str().unwrap().is_empty());
    let listed = gateway.cli(&["queue", "ems", "--parked", "--json"]).expect(0);
    let first = listed.json()[0].clone();
    assert_eq!(first["number"], rows[0]["number"]);
    let table = gateway.cli(&["queue"]).expect(0).out;
    assert!(table.contains("ems") && table.contains("disk"), "{table}");
    let nobody = gateway.cli(&["queue", "nobody", "--parked"]).expect(1);
    assert!(nobody.err.contains("expected the name of a configured sink"), "{}", nobody.err);

    // Tried again: nothing of d1 is missing.
    let again = gateway.cli(&["queue", "ems", "--retry-parked", "--yes"]).expect(0);
    assert!(again.out.contains("records are tried again"), "{}", again.out);
    sink(&gateway, "no refused record is left", |sink| parked(sink) == 0);
    let newest = numbers(&ems, "d1").last().copied();
    until("every number of d1", PATIENCE, || {
        let numbers = numbers(&ems, "d1");
        let (first, last) = (*numbers.first()?, *numbers.last()?);
        (Some(last) > newest && (first..=last).all(|number| numbers.contains(&number))).then_some(())
    });

    // Given up: counted.
    ems.rules(json!({ "bad_devices": ["d1"] }));
    sink(&gateway, "refused records once more", |sink| parked(sink) >= 3);
    ems.rules(json!({ "bad_devices": [] }));
    let given_up = gateway.post("/api/v1/sinks/ems/parked/discard", &json!({}));
    assert_eq!(given_up.status, 200, "{}", given_up.body);
    let after = sink(&gateway, "discarded records", |sink| sink["dropped"]["discarded"].as_u64() >= Some(3));
    let dropped: u64 = after["dropped"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let sum = ["delivered", "pending"].map(|key| after[key].as_u64().unwrap()).iter().sum::<u64>();
    assert_eq!(after["accepted"].as_u64(), Some(sum + parked(&after) + dropped), "{after}");

    // What was decided is in the audit log.
    let audit = gateway.audit().join("\n");
    assert!(audit.contains("parked_retry") && audit.contains("parked_discard"), "{audit}");
}

#[test]
fn stored_state_is_cleared_while_running_and_without_a_gateway() {
    let ems = Ems::start();
    let devices = Devices::start(&[Manner::Counting]);
    let mut gateway = Gateway::start(&configuration(&ems, &devices));
    ems.wait("records", Duration::from_secs(60), |records| (records.len() > 3).then_some(()));
    let cleared = gateway.cli(&["state", "clear", "ems", "--sink", "--yes"]).expect(0);
    assert!(cleared.out.contains("1 entries of ems are forgotten"), "{}", cleared.out);
    let nothing = gateway.cli(&["state", "clear", "d0", "--yes"]).expect(0);
    assert!(nothing.out.contains("0 entries"), "{}", nothing.out);
    gateway.process.kill();
    let alone = gateway.site.cli(&["state", "clear", "ems", "--sink", "--yes"]).expect(0);
    assert!(alone.out.contains("entries of ems are forgotten"), "{}", alone.out);
    let audit = gateway.audit();
    let cleared =
        audit.iter().filter(|line| line.contains("state_clear") && line.contains("sink/ems")).count();
    assert_eq!(cleared, 2, "{audit:?}");
}
