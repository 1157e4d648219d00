//! The configuration changes while the gateway runs: what differs is applied, the rest notices nothing, what is wrong
//! changes nothing (SEMANTICS.md section 9, G11).

use std::collections::BTreeSet;
use std::time::Duration;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, Place, until};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

fn point(name: &str, address: u16) -> String {
    format!("{{ name = \"{name}\", address = \"holding:{address}\", type = \"uint16\" }}")
}

fn of_device(gateway: &Gateway, name: &str) -> Value {
    let devices = gateway.api("/api/v1/devices");
    devices.as_array().unwrap().iter().find(|device| device["name"] == name).cloned().unwrap_or_default()
}

fn connects(gateway: &Gateway, name: &str) -> (u64, u64) {
    let counters = of_device(gateway, name)["counters"].clone();
    (counters["connects"].as_u64().unwrap(), counters["losses"].as_u64().unwrap())
}

/// Reloads, and expects that it was applied.
fn apply(gateway: &Gateway, body: &str) -> Value {
    gateway.site.write("", body);
    let answer = gateway.cli(&["reload", "--json"]).expect(0).json();
    assert_eq!(answer["summary"]["outcome"], json!("applied"), "{answer}");
    answer["summary"].clone()
}

#[test]
fn devices_points_and_connections_change_while_the_others_run_on() {
    let peer = Peer::start(&json!([
        { "transport": "tcp", "units": { "1": { "holding": { "0": [10], "1": [11] } }, "2": { "holding": { "0": [20], "1": [21] } } } },
        { "transport": "tcp", "units": { "1": { "holding": { "0": [30] } } } },
    ]));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let sink = mqtt_sink(&broker.url());
    let keys = "poll_interval = \"200ms\"";
    let a = device("a", &peer.place(0).connection("tcp", 1), keys, &[point("p", 0)]);
    let b = |unit: u8, points: &[String]| device("b", &peer.place(0).connection("tcp", unit), keys, points);
    let c = device("c", &peer.place(1).connection("tcp", 1), keys, &[point("p", 0)]);
    let gateway = Gateway::start(&(a.clone() + &b(2, &[point("p", 0)]) + &sink));
    let shows = |name: &str, point: &str, value: u64, mark: usize| {
        observer.wait_for("the value", mark, &topic(name, point), PATIENCE, |message| {
            message.payload["value"] == json!(value) && quality(&message.payload) == "good"
        });
    };
    shows("a", "p", 10, 0);
    shows("b", "p", 20, 0);

    // Another address of b: by BIND, on the living session.
    let summary = apply(&gateway, &(a.clone() + &b(2, &[point("p", 1), point("q", 0)]) + &sink));
    assert_eq!(summary["devices_changed"][0]["name"], json!("b"), "{summary}");
    assert_eq!(summary["devices_changed"][0]["reopened"], json!(false), "{summary}");
    shows("b", "p", 21, observer.mark());
    shows("b", "q", 20, 0);
    assert_eq!(connects(&gateway, "b"), (1, 0), "its session lived on");

    // Another connection of b, which shares the server with a.
    apply(&gateway, &(a.clone() + &b(1, &[point("p", 0)]) + &sink));
    shows("b", "p", 10, observer.mark());
    assert_eq!(connects(&gateway, "b").0, 2, "b connected again");

    // b goes, c comes.
    let mark = observer.mark();
    let summary = apply(&gateway, &(a + &c + &sink));
    assert_eq!((&summary["devices_added"], &summary["devices_removed"]), (&json!(["c"]), &json!(["b"])));
    shows("c", "p", 30, mark);
    assert!(gateway.point("b/p").is_none() && of_device(&gateway, "b").is_null());
    observer.wait_for("the status of b to be cleared", mark, &topic("b", "status"), PATIENCE, |message| {
        message.payload == json!("") || message.payload.is_null()
    });
    assert_eq!(gateway.metrics().sum("busbar_config_version", &[]), 4.0);
    assert_eq!(connects(&gateway, "a"), (1, 0), "a noticed nothing of all this");
    assert!(gateway.audit().iter().filter(|line| line.contains("\"event\":\"reload\"")).count() == 3);
}

#[test]
fn a_bad_file_changes_nothing_and_does_not_start() {
    let peer = Peer::single("tcp", &json!({ "holding": { "0": [7] } }));
    let broker = Broker::start();
    let good =
        device("m", &peer.place(0).connection("tcp", 1), "", &[point("p", 0)]) + &mqtt_sink(&broker.url());
    let mut gateway = Gateway::start(&good);
    gateway.point_until("m/p", "is good", PATIENCE, |point| quality(point) == "good");
    let bad = good
        .replace("type = \"uint16\"", "type = \"uint17\"")
        .replace("plugin = \"mqtt\"", "plugin = \"mqtt\"\nsned = \"every\"");
    gateway.site.write("", &bad);

    let done = gateway.cli(&["reload"]).expect(1);
    for word in ["uint17", "sned", "did you mean", "plugins.toml:", "nothing was applied"] {
        assert!(done.out.contains(word), "expected {word:?}: {done:?}");
    }
    let answer = gateway.cli(&["reload", "--json"]).expect(1).json();
    assert!(answer["problems"].as_array().is_some_and(|problems| problems.len() >= 2), "{answer}");
    assert_eq!(gateway.metrics().sum("busbar_config_version", &[]), 1.0);
    let point = gateway.point("m/p").unwrap();
    assert_eq!((quality(&point), &point["value"]), ("good", &json!(7)));

    // The start refuses it, and says what differs from what ran.
    gateway.process.terminate(PATIENCE);
    let done = gateway.cli(&["run"]).expect(1);
    assert!(done.err.contains("uint17") && done.err.contains("the configuration that ran last"), "{done:?}");
    gateway.site.write("", &good);
    gateway.restart();
}

#[test]
fn a_refused_plugin_is_a_state_and_a_dry_run_changes_nothing() {
    let peer = Peer::single("tcp", &json!({ "holding": { "0": [7] } }));
    let good = device("m", &peer.place(0).connection("tcp", 1), "", &[point("p", 0)]);
    let gateway = Gateway::start(&good);
    gateway.point_until("m/p", "is good", PATIENCE, |point| quality(point) == "good");
    // The plugin is refused when it is probed.
    let more = "[[device]]\nname = \"x\"\ndriver = \"bad-init-error\"\nconnection = { host = \"127.0.0.1\" }\npoints = [{ name = \"p\", address = \"x\" }]\n";
    gateway.site.write("", &(good.clone() + more));
    let answer = gateway.cli(&["reload", "--json"]);
    // A plugin that is refused is no configuration error (G11): its device is a state with a reason.
    let answer = answer.expect(0).json();
    assert_eq!(answer["summary"]["outcome"], json!("applied"), "{answer}");
    assert_eq!(of_device(&gateway, "x")["state"], json!("failed"));
    assert_eq!(connects(&gateway, "m"), (1, 0));
    // The dry run shows the way back and changes nothing.
    gateway.site.write("", &good);
    let done = gateway.cli(&["reload", "--dry-run"]).expect(0);
    assert!(done.out.contains("- device x") && done.out.contains("nothing was applied"), "{done:?}");
    assert_eq!(of_device(&gateway, "x")["state"], json!("failed"));
}

/// Every poll has a number of its own in its values, so a record that is missing shows.
#[test]
fn a_sink_takes_other_settings_without_losing_a_record() {
    let devices = Devices::start(&[Manner::Counting; 3]);
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut body = String::new();
    for (i, simulated) in devices.list.iter().enumerate() {
        let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
        let connection = Place::Tcp(simulated.address).connection("tcp", 1);
        body += &device(&format!("d{i}"), &connection, "poll_interval = \"100ms\"", &points);
    }
    let gateway = Gateway::start(&(body.clone() + &mqtt_sink(&broker.url())));
    let shown = |device: usize, from: usize| -> BTreeSet<u64> {
        let messages = observer.since(from, &topic(&format!("d{device}"), "n"));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
        let numbers =
            messages.iter().filter_map(|message| message.payload["value"].as_f64()).map(|n| n as u64);
        numbers.collect()
    };
    for round in 0..5 {
        let settings = format!("format = \"json\", client_id = \"gateway-{round}\"");
        apply(&gateway, &(body.clone() + &mqtt_sink(&broker.url()).replace("format = \"json\"", &settings)));
        let newest = devices.list[0].seen.requests() + 5;
        until("polls after the change to arrive", PATIENCE, || {
            (0..3).all(|device| shown(device, 0).last().is_some_and(|last| *last > newest)).then_some(())
        });
    }
    for device in 0..3 {
        let numbers = shown(device, 0);
        let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
        let missing: Vec<u64> = (first..=last).filter(|number| !numbers.contains(number)).collect();
        assert!(missing.is_empty(), "d{device}: {missing:?} of {first}..{last} never arrived");
        assert_eq!(connects(&gateway, &format!("d{device}")), (1, 0), "the device noticed nothing");
    }
}

#[test]
fn a_signal_and_a_changed_file_reload_too_and_switches_work_from_both_sides() {
    let peer = Peer::single("tcp", &json!({ "holding": { "0": [7] } }));
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let body = |keys: &str| {
        device("m", &peer.place(0).connection("tcp", 1), keys, &[point("p", 0)]) + &mqtt_sink(&broker.url())
    };
    let mut gateway = Gateway::start_with("watch_config = true", &body(""));
    let state = |gateway: &Gateway, word: &str| {
        until(&format!("m to be {word}"), PATIENCE, || {
            (of_device(gateway, "m")["state"] == json!(word)).then_some(())
        });
    };
    state(&gateway, "online");

    gateway.site.write("watch_config = true", &body("read = false"));
    gateway.process.signal(libc::SIGHUP);
    state(&gateway, "paused");
    observer.wait_for("the blocked point", 0, &topic("m", "p"), PATIENCE, |message| {
        quality(&message.payload) == "invalid|operator_blocked"
    });

    // Nobody says anything: the file is looked at.
    gateway.site.write("watch_config = true", &body("enabled = false\npoll_interval = \"200ms\""));
    state(&gateway, "disabled");

    let _ = gateway.cli(&["device", "m", "enable", "--yes"]).expect(0);
    state(&gateway, "online");
    let _ = gateway.cli(&["device", "m", "pause", "--yes"]).expect(0);
    state(&gateway, "paused");
    gateway.restart();
    state(&gateway, "paused");
    let _ = gateway.cli(&["device", "m", "resume", "--yes"]).expect(0);
    state(&gateway, "online");

    // The log level needs no restart, the name does.
    gateway.site.write(
        "log = { level = \"debug\" }\ntick = \"40ms\"",
        &body("enabled = false\npoll_interval = \"200ms\""),
    );
    let done = gateway.cli(&["reload"]).expect(0);
    assert!(
        done.out.contains("needs a restart: host.tick") && done.out.contains("log level: debug"),
        "{done:?}"
    );
}

#[test]
fn a_device_outside_its_hours_is_silent_and_good_again_when_they_change() {
    let peer = Peer::single("tcp", &json!({ "holding": { "0": [7] } }));
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60 % 1440;
    let time = |minute: u64| format!("{:02}:{:02}", minute % 1440 / 60, minute % 60);
    // Two hours that are neither now nor soon, in UTC.
    let active = format!("active = {{ from = \"{}\", to = \"{}\" }}", time(now + 600), time(now + 720));
    let body = |keys: &str| device("m", &peer.place(0).connection("tcp", 1), keys, &[point("p", 0)]);
    let gateway = Gateway::start(&body(""));
    gateway.point_until("m/p", "is good", PATIENCE, |point| quality(point) == "good");
    apply(&gateway, &body(&active));
    let shown = gateway
        .point_until("m/p", "is silent", PATIENCE, |point| quality(point) == "questionable|operator_blocked");
    assert_eq!((&shown["value"], of_device(&gateway, "m")["state"].clone()), (&json!(7), json!("inactive")));
    assert_eq!(connects(&gateway, "m").1, 0, "no loss");
    apply(&gateway, &body(""));
    gateway.point_until("m/p", "is good", Duration::from_secs(20), |point| quality(point) == "good");
}

/// What a removed sink had not delivered stays in its queue file, and goes out when a sink of this name comes back.
#[test]
fn a_removed_sink_leaves_its_records_to_its_successor() {
    let devices = Devices::start(&[Manner::Counting]);
    let mut broker = Broker::start();
    let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
    let connection = Place::Tcp(devices.list[0].address).connection("tcp", 1);
    let device = device("d", &connection, "poll_interval = \"100ms\"", &points);
    let gateway = Gateway::start(&(device.clone() + &mqtt_sink(&broker.url())));
    let polled = |more: u64| {
        let enough = devices.list[0].seen.requests() + more;
        until("polls", PATIENCE, || (devices.list[0].seen.requests() >= enough).then_some(()));
        devices.list[0].seen.requests()
    };
    gateway.point_until("d/n", "is good", PATIENCE, |point| quality(point) == "good");
    polled(3);
    broker.kill();
    let first = polled(5);
    let last = polled(10);
    let summary = apply(&gateway, &device);
    assert!(
        summary["notes"][0].as_str().is_some_and(|note| note.contains("stay in its queue file")),
        "{summary}"
    );
    polled(3);
    apply(&gateway, &(device + &mqtt_sink(&broker.url())));
    broker.launch();
    let observer = Observer::start(&broker);
    until("the records of the outage to arrive", PATIENCE, || {
        let messages = observer.since(0, &topic("d", "n"));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
        let numbers: BTreeSet<u64> = messages
            .iter()
            .filter_map(|message| message.payload["value"].as_f64())
            .map(|n| n as u64)
            .collect();
        (first + 1..last).all(|number| numbers.contains(&number)).then_some(())
    });
}
