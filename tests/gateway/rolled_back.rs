//! A reload that every check accepts and that a plugin refuses when it is applied: the gateway returns to what ran, by
//! itself, says why, and what was not touched never notices.

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Place, until};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

/// The plugin finds its configuration well formed and refuses the device when it is bound.
const REFUSED: &str = "[[device]]\nname = \"x\"\ndriver = \"fake\"\n\
    connection = { endpoint = \"x\", acts = { plan = \"panic\" } }\n\
    points = [{ name = \"n\", address = \"counter\", type = \"uint64\" }]\n";

fn names(gateway: &Gateway, what: &str) -> Vec<String> {
    let rows = gateway.api(&format!("/api/v1/{what}"));
    rows.as_array().unwrap().iter().filter_map(|row| Some(row["name"].as_str()?.to_owned())).collect()
}

fn expect_rolled_back(answer: &Value) {
    assert_eq!(answer["summary"]["outcome"], json!("rolled_back"), "{answer}");
    let reason = answer["summary"]["reason"].as_str().unwrap();
    for word in ["device x", "plan: panic by script"] {
        assert!(reason.contains(word), "expected {word:?}: {reason}");
    }
}

#[test]
fn what_a_plugin_refuses_when_it_is_applied_is_rolled_back() {
    let devices = Devices::start(&[Manner::Counting; 4]);
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let one = |i: usize| {
        let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
        let connection = Place::Tcp(devices.list[i].address).connection("tcp", 1);
        device(&format!("d{i}"), &connection, "poll_interval = \"200ms\"", &points)
    };
    let sink = mqtt_sink(&broker.url());
    let good = one(0) + &one(1) + &one(2) + &sink;
    let gateway = Gateway::start(&good);
    let shows_good = |i: usize, mark: usize| {
        observer.wait_for("a good value", mark, &topic(&format!("d{i}"), "n"), PATIENCE, |message| {
            quality(&message.payload) == "good"
        });
    };
    (0..3).for_each(|i| shows_good(i, 0));

    // One device goes, another comes, and one that its plugin will not take.
    let bad = one(0) + &one(1) + &one(3) + REFUSED + &sink;
    gateway.site.write("", &bad);
    let dry = gateway.cli(&["reload", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["summary"]["devices_added"], json!(["d3", "x"]), "nothing is wrong with the files: {dry}");
    let mark = observer.mark();
    let answer = gateway.cli(&["reload", "--json"]).expect(2).json();
    expect_rolled_back(&answer);
    assert_eq!(names(&gateway, "devices"), ["d0", "d1", "d2"]);
    assert_eq!(names(&gateway, "sinks"), ["broker"]);

    // The device that had to go is back, with its name, and so is what it says.
    shows_good(2, mark);
    // Asked by the other way, the answer is the same.
    let answer = gateway.post("/api/v1/reload", &json!({}));
    assert_eq!(answer.status, 409, "{answer:?}");
    expect_rolled_back(&serde_json::from_str(&answer.body).unwrap());

    // What was not touched was polled on, on its first connection.
    let before: Vec<u64> = (0..2).map(|i| devices.list[i].seen.requests()).collect();
    until("further polls", PATIENCE, || {
        (0..2).all(|i| devices.list[i].seen.requests() > before[i] + 2).then_some(())
    });
    for i in 0..2 {
        assert_eq!(devices.list[i].seen.connections(), 1, "d{i} was connected anew");
        let all = observer.since(0, &topic(&format!("d{i}"), "n"));
        let first = all.iter().position(|message| quality(&message.payload) == "good").unwrap();
        assert!(all[first..].iter().all(|message| quality(&message.payload) == "good"), "d{i} was not good");
    }
    assert!(gateway.log().contains("was rolled back: device x"), "{}", gateway.log());

    // Without what was refused it is applied.
    gateway.site.write("", &(one(0) + &one(1) + &one(3) + &sink));
    let answer = gateway.cli(&["reload", "--json"]).expect(0).json();
    assert_eq!(answer["summary"]["outcome"], json!("applied"), "{answer}");
    assert_eq!(names(&gateway, "devices"), ["d0", "d1", "d3"]);
    assert_eq!((devices.list[0].seen.connections(), devices.list[1].seen.connections()), (1, 1));
}
