//! Commands from a set topic and the command line: executed once where allowed, refused everywhere else, audited always
//! (G8, SEMANTICS.md section 6).

use std::time::Duration;

use busbar_tests::broker::Demands;
use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, admin, until};
use serde_json::{Value, json};

use crate::shared::{device, now_ms, quality, topic};

const LOGIN: (&str, &str) = ("plant", "a secret of this test");

/// Longest time for an answer: everything is local, and the answers here are decided without the device or at once.
const ANSWER: Duration = Duration::from_secs(10);

struct Plant {
    peer: Peer,
    observer: Observer,
    gateway: Gateway,
    _broker: Broker,
    sent: u32,
}

impl Plant {
    fn start() -> Self {
        let peer = Peer::single(
            "tcp",
            &json!({ "coil": { "3": [0, 0, 0] }, "holding": { "10": [1, 2, 3], "20": [0, 0] } }),
        );
        let broker = Broker::demanding(&Demands { login: Some(LOGIN), tls: false });
        let observer = Observer::login(&broker, Some(LOGIN));
        let gateway = Gateway::start(&configuration(&peer, &broker.url()));
        let plant = Self { peer, observer, gateway, _broker: broker, sent: 0 };
        plant.online(0);
        plant
    }

    /// Waits for good values, and for the sink's `online`, which follows its subscription of the set topics.
    fn online(&self, mark: usize) {
        self.observer
            .wait_for("online", mark, "busbar/site/status", PATIENCE, |m| m.payload == json!("online"));
        let what = "to be good";
        for point in ["switch", "limit", "remote"] {
            self.gateway.point_until(&format!("meter/{point}"), what, PATIENCE, |p| quality(p) == "good");
        }
    }

    /// Publishes a command and returns the final answer to it.
    fn command(&mut self, point: &str, value: Value) -> Value {
        self.sent += 1;
        let id = format!("c{}", self.sent);
        let request = json!({ "id": id, "value": value, "expires": now_ms() + 60_000 });
        self.raw(point, &request, false)
    }

    /// Publishes this payload; the final answer that carries its id.
    fn raw(&mut self, point: &str, request: &Value, retain: bool) -> Value {
        let mark = self.observer.mark();
        self.observer.publish(&topic("meter", &format!("{point}/set")), &request.to_string(), retain);
        let answers = topic("meter", &format!("{point}/set/result"));
        let what = format!("the answer to {request} on {point}");
        let answer = self.observer.wait_for(&what, mark, &answers, ANSWER, |message| {
            message.payload["id"] == request["id"] && result(&message.payload) != "selected"
        });
        answer.payload
    }

    fn refused(&mut self, point: &str, value: Value) -> String {
        let answer = self.command(point, value);
        assert_eq!(result(&answer), "refused", "{answer}");
        answer["reason"].as_str().unwrap().to_owned()
    }
}

fn configuration(peer: &Peer, url: &str) -> String {
    let points = [
        r#"{ name = "switch", address = "coil:3", type = "bool", writable = true }"#,
        r#"{ name = "guarded", address = "coil:4", type = "bool", writable = true, interlock = { point = "meter/remote", equals = true } }"#,
        r#"{ name = "remote", address = "coil:5", type = "bool" }"#,
        r#"{ name = "limit", address = "holding:10", type = "uint16", unit = "kW", scale = 0.5, writable = true, range = [0, 100] }"#,
        r#"{ name = "fixed", address = "holding:11", type = "uint16" }"#,
        r#"{ name = "setpoint", address = "holding:20", type = "float32", writable = true, range = [-10, 10] }"#,
    ]
    .map(str::to_owned);
    let keys = "poll_interval = \"300ms\"\nresponse_timeout = \"1s\"\nreconnect = { initial = \"300ms\", max = \"1s\" }";
    let (user, password) = LOGIN;
    device("meter", &peer.place(0).connection("tcp", 1), keys, &points)
        + &format!(
            "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\n[sink.settings]\nurl = \"{url}\"\nusername = \"{user}\"\n\
             password = \"{password}\"\ncommands = true\n"
        )
}

fn result(answer: &Value) -> &str {
    answer["result"].as_str().unwrap_or_default()
}

/// A final positive answer: Modbus has one stage, the device's echo.
fn positive(answer: &Value) -> bool {
    matches!(result(answer), "accepted" | "finished")
}

#[test]
fn a_coil_and_registers_are_written_through_the_set_topic() {
    let mut plant = Plant::start();
    assert!(positive(&plant.command("switch", json!(true))));
    assert!(positive(&plant.command("limit", json!(40.0))));
    assert!(positive(&plant.command("setpoint", json!(-2.5))));
    // Engineering values go the chain backwards: 40 kW at 0.5 kW a digit.
    assert_eq!(
        plant.peer.writes(0),
        [
            json!([1, "coil", 3, [1]]),
            json!([1, "holding", 10, [80]]),
            json!([1, "holding", 20, [0xC020, 0x0000]]),
        ]
    );
    plant
        .gateway
        .point_until("meter/limit", "to show 40", ANSWER, |point| point["value"].as_f64() == Some(40.0));
    plant.gateway.point_until("meter/switch", "to show true", ANSWER, |point| point["value"] == json!(true));

    let audit = plant.gateway.audit();
    for point in ["meter/switch", "meter/limit", "meter/setpoint"] {
        let lines: Vec<&String> = audit.iter().filter(|line| line.contains(point)).collect();
        assert!(lines.len() >= 2, "one line before the request leaves and one after the answer: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("broker")), "the origin is named: {lines:?}");
    }
    assert!(!audit.join("\n").contains(LOGIN.1), "the password is nowhere");
    assert!(!plant.gateway.log().contains(LOGIN.1), "the password is nowhere");
}

#[test]
fn what_must_be_refused_never_reaches_the_device() {
    let mut plant = Plant::start();
    assert_eq!(plant.refused("fixed", json!(1)), "not_writable");
    assert_eq!(plant.refused("limit", json!(100.5)), "out_of_range");
    assert_eq!(plant.refused("limit", json!(-1)), "out_of_range");
    assert_eq!(plant.refused("guarded", json!(true)), "local_mode");

    let refusals = [
        (json!({ "id": "past", "value": true, "expires": now_ms() - 1 }), false, "expired"),
        (json!({ "id": "none", "value": true }), false, "no_expires"),
        (json!({ "id": "kept", "value": true, "expires": now_ms() + 60_000 }), true, "retained"),
    ];
    for (request, retain, reason) in refusals {
        // A retained command counts as such only for who subscribes later: restart the gateway on it.
        if retain {
            plant.observer.publish(&topic("meter", "switch/set"), &request.to_string(), true);
            until("the live copy to be answered", ANSWER, || {
                plant
                    .observer
                    .all()
                    .iter()
                    .any(|m| m.payload["id"] == request["id"] && m.topic.ends_with("/result"))
                    .then_some(())
            });
            continue;
        }
        let answer = plant.raw("switch", &request, false);
        assert_eq!((result(&answer), answer["reason"].as_str()), ("refused", Some(reason)), "{answer}");
    }
    let twice = json!({ "id": "twice", "value": true, "expires": now_ms() + 60_000 });
    assert!(positive(&plant.raw("switch", &twice, false)));
    let answer = plant.raw("switch", &twice, false);
    assert_eq!((result(&answer), answer["reason"].as_str()), ("refused", Some("repeated")), "{answer}");
    let before = plant.peer.writes(0).len();
    let mark = plant.observer.mark();
    plant.gateway.restart();
    plant.online(mark);
    let answer = plant.observer.wait_for(
        "the retained command to be refused",
        mark,
        &topic("meter", "switch/set/result"),
        ANSWER,
        |message| message.payload["reason"] == "retained",
    );
    assert_eq!(result(&answer.payload), "refused");
    // Everything that was refused left no trace at the device.
    assert_eq!(plant.peer.writes(0).len(), before, "{:?}", plant.peer.writes(0));
    let allowed = plant.peer.writes(0).iter().all(|write| *write == json!([1, "coil", 3, [1]]));
    assert!(allowed, "{:?}", plant.peer.writes(0));
    let words =
        ["not_writable", "out_of_range", "local_mode", "retained", "expired", "no_expires", "repeated"];
    for word in words {
        until(&format!("{word} in the audit log"), ANSWER, || {
            plant.gateway.audit().iter().any(|line| line.contains(word)).then_some(())
        });
    }
    plant.observer.publish(&topic("meter", "switch/set"), "", true);
}

#[test]
fn an_id_is_good_for_one_execution() {
    let mut plant = Plant::start();
    let request = json!({ "id": "once", "value": 7, "expires": now_ms() + 60_000 });
    assert!(positive(&plant.raw("limit", &request, false)));
    let answer = plant.raw("limit", &request, false);
    assert_eq!((result(&answer), answer["reason"].as_str()), ("refused", Some("repeated")), "{answer}");
    // Never means: also not after a restart, while the request has not expired.
    let mark = plant.observer.mark();
    plant.gateway.restart();
    plant.online(mark);
    let answer = plant.raw("limit", &request, false);
    assert_eq!((result(&answer), answer["reason"].as_str()), ("refused", Some("repeated")), "{answer}");
    assert_eq!(plant.peer.writes(0).len(), 1);
}

#[test]
fn the_interlock_opens_when_its_point_says_so() {
    let mut plant = Plant::start();
    assert_eq!(plant.refused("guarded", json!(true)), "local_mode");
    plant.peer.set("coil", 5, &[1]);
    plant.gateway.point_until("meter/remote", "to be true", ANSWER, |point| point["value"] == json!(true));
    assert!(positive(&plant.command("guarded", json!(true))));
    assert_eq!(plant.peer.writes(0), [json!([1, "coil", 4, [1]])]);
}

#[test]
fn a_lock_holds_across_a_restart_until_unlocked() {
    let mut plant = Plant::start();
    let _ = plant.gateway.cli(&["lock"]).expect(0);
    assert_eq!(plant.refused("switch", json!(true)), "locked_out");
    let mark = plant.observer.mark();
    plant.gateway.restart();
    plant.online(mark);
    assert_eq!(plant.refused("switch", json!(true)), "locked_out");
    let denied = plant.gateway.cli(&["write", "meter/switch", "true", "--yes"]);
    assert_ne!(denied.code, Some(0), "{denied:?}");
    assert!(denied.text().contains("lock"), "{denied:?}");
    let _ = plant.gateway.cli(&["unlock"]).expect(0);
    assert!(positive(&plant.command("switch", json!(true))));
    assert_eq!(plant.peer.writes(0), [json!([1, "coil", 3, [1]])]);
    let audit = plant.gateway.audit().join("\n");
    assert!(audit.contains("lock") && audit.contains("unlock"), "{audit}");
}

/// The device does not answer: the result is unknown, and nobody sends it again when the device is back.
#[test]
fn an_unanswered_command_is_unknown_and_never_repeated() {
    let mut plant = Plant::start();
    plant.peer.process.stop();
    let answer = plant.command("limit", json!(10));
    assert!(
        matches!(result(&answer), "unknown" | "refused"),
        "a device that does not answer has accepted nothing: {answer}"
    );
    let refused = plant.command("limit", json!(11));
    assert!(matches!(result(&refused), "unknown" | "refused"), "{refused}");
    plant.gateway.point_until("meter/limit", "to be lost", PATIENCE, |p| quality(p) == "invalid|comm_lost");
    assert_eq!(plant.refused("limit", json!(12)), "device_lost");
    plant.peer.process.resume();
    plant.online(0);
    // What was in the device's socket when it was stopped may execute late, that is the device's side. What counts: at
    // most one request left the gateway, and the ones refused never did.
    assert!(positive(&plant.command("setpoint", json!(1.0))), "commands work again");
    let limits: Vec<Value> = plant.peer.writes(0).into_iter().filter(|write| write[2] == json!(10)).collect();
    assert!(limits.len() <= 1, "sent more than once: {limits:?}");
    assert!(limits.iter().all(|write| write[3] == json!([20])), "a refused command was executed: {limits:?}");
}

#[test]
fn the_command_line_writes_through_the_running_host_and_obeys_the_same_rules() {
    let mut plant = Plant::start();
    let _ = plant.gateway.cli(&["write", "meter/switch", "true", "--yes"]).expect(0);
    let _ = plant.gateway.cli(&["write", "meter/limit", "25.5", "--yes"]).expect(0);
    assert_eq!(plant.peer.writes(0), [json!([1, "coil", 3, [1]]), json!([1, "holding", 10, [51]])]);
    for (point, value, reason) in [
        ("meter/fixed", "1", "not_writable"),
        ("meter/limit", "101", "out_of_range"),
        ("meter/guarded", "true", "local_mode"),
    ] {
        let done = plant.gateway.cli(&["write", point, value, "--yes"]);
        assert_ne!(done.code, Some(0), "{point}: {done:?}");
        assert!(done.text().contains(reason), "{point}: {done:?}");
    }
    // Without a terminal and without --yes nobody was asked, so nothing is written.
    let unasked = plant.gateway.cli(&["write", "meter/switch", "false"]);
    assert_ne!(unasked.code, Some(0), "{unasked:?}");
    assert!(unasked.text().contains("--yes"), "{unasked:?}");
    assert_eq!(plant.peer.writes(0).len(), 2);
    let audit = plant.gateway.audit();
    assert!(audit.iter().any(|line| line.contains("meter/switch")), "{audit:?}");
}

#[test]
fn the_api_writes_with_the_token_and_obeys_the_same_rules() {
    let mut plant = Plant::start();
    let path = |point: &str| format!("/api/v1/points/meter/{point}/command");
    let anonymous = admin::request(
        plant.gateway.site.admin,
        "POST",
        &path("switch"),
        None,
        Some(&json!({ "value": true })),
    );
    assert_eq!(anonymous.unwrap().status, 401);
    for (point, value) in [("switch", json!(true)), ("limit", json!(25.5))] {
        let answer = plant.gateway.post(&path(point), &json!({ "value": value }));
        assert_eq!(answer.status, 200, "{point}: {answer:?}");
        assert_eq!(answer.json()["stage"], json!("finished"), "{point}: {answer:?}");
    }
    for (point, value, reason) in [
        ("fixed", json!(1), "not_writable"),
        ("limit", json!(101), "out_of_range"),
        ("guarded", json!(true), "local_mode"),
    ] {
        let answer = plant.gateway.post(&path(point), &json!({ "value": value }));
        assert_eq!((answer.status, &answer.json()["reason"]), (409, &json!(reason)), "{point}: {answer:?}");
    }
    assert_eq!(plant.gateway.post(&path("nothing"), &json!({ "value": 1 })).status, 404);
    assert_eq!(plant.peer.writes(0), [json!([1, "coil", 3, [1]]), json!([1, "holding", 10, [51]])]);
    // A refusal is written beside its answer, not before it.
    until("every command in the audit log", ANSWER, || {
        let audit = plant.gateway.audit();
        let of_api =
            |point: &str| audit.iter().filter(|line| line.contains(point) && line.contains("api")).count();
        (of_api("meter/switch") >= 2 && of_api("meter/limit") >= 3 && of_api("meter/fixed") >= 1)
            .then_some(())
    });
}

#[test]
fn a_selection_over_the_api_outlives_its_connection_and_ends_with_operate() {
    let mut plant = Plant::start();
    let path = "/api/v1/points/meter/switch/command";
    let selected = plant.gateway.post(path, &json!({ "value": true, "action": "select" }));
    assert_eq!((selected.status, &selected.json()["stage"]), (200, &json!("selected")), "{selected:?}");
    assert_eq!(plant.peer.writes(0), [json!(null); 0], "a direct device hears nothing of a selection");
    let operated = plant.gateway.post(path, &json!({ "value": true, "action": "operate" }));
    assert_eq!((operated.status, &operated.json()["stage"]), (200, &json!("finished")), "{operated:?}");
    assert_eq!(plant.peer.writes(0), [json!([1, "coil", 3, [1]])]);
}

#[test]
fn without_a_running_host_the_command_line_goes_to_the_device_itself() {
    let mut peer = Peer::single(
        "tcp",
        &json!({ "coil": { "3": [0, 0, 1] }, "holding": { "10": [84, 2, 3], "20": [0, 0] } }),
    );
    let site = Site::new(&configuration(&peer, "mqtt://127.0.0.1:1"));
    let read = site.cli(&["read", "meter", "--json"]).expect(0);
    assert!(read.out.contains("42"), "84 x 0.5: {read:?}");
    let _ = site.cli(&["write", "meter/switch", "true", "--yes"]).expect(0);
    let refused = site.cli(&["write", "meter/limit", "101", "--yes"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.text().contains("out_of_range"), "{refused:?}");
    assert_eq!(peer.writes(0), [json!([1, "coil", 3, [1]])]);
    let audit = std::fs::read_to_string(site.dir.path().join("data/audit.log")).unwrap();
    assert!(audit.contains("meter/switch"), "{audit}");
    peer.process.kill();
    let dead = site.cli(&["read", "meter"]).expect(2);
    assert!(dead.text().contains("meter"), "{dead:?}");
}

/// A sink that may command needs a named peer: without credentials the configuration is refused.
#[test]
fn commands_without_credentials_are_a_configuration_error() {
    let peer = Peer::single("tcp", &json!({ "coil": { "3": [0, 0, 0] } }));
    let points = [r#"{ name = "switch", address = "coil:3", type = "bool", writable = true }"#.to_owned()];
    let body = device("meter", &peer.place(0).connection("tcp", 1), "", &points)
        + "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nsettings = { url = \"mqtt://127.0.0.1\", commands = true }\n";
    let done = Site::new(&body).cli(&["check"]).expect(1);
    assert!(done.text().contains("commands"), "{done:?}");
}
