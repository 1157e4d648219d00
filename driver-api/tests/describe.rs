//! What a plugin says about itself, and the pure questions: through the real `.so`, and through the probe child.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::{fs, path::Path};

use busbar_contract::{
    CheckInput, Describe, Endpoint, Problem, Request, Severity, Value, describe::PluginKind, op,
};
use busbar_loader::{Expect, Isolation, Launcher, Probe, stage};
use common::{Rig, artifacts, attach, build, command, driver, of, read, values};
use serde_json::{Value as Json, json};

fn check(rig: &Rig, input: Json) -> Vec<Problem> {
    let answer = rig.plugin.control(op::control::CHECK, input.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

#[test]
fn plugins_describe_themselves() {
    let rig = Rig::load(&artifacts::fake_driver(), Isolation::InProcess);
    let Describe { name, kind, version, unwind, ops, schemas, build, rustc, .. } =
        rig.plugin.describe().clone();
    assert_eq!((name.as_str(), kind, unwind), ("fake", PluginKind::Driver, true));
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(rustc.starts_with("rustc "), "{rustc}");
    assert!(build.starts_with(busbar_driver_api::SDK_BUILD), "a stale plugin: {build}");
    for known in op::ALL {
        assert_eq!(ops.contains(&known), known != op::request::POINTS, "{known}");
    }
    let password = schemas.connection.pointer("/properties/password").unwrap().to_string();
    assert!(password.contains("\"writeOnly\":true"), "{password}");
    assert_eq!(schemas.connection["additionalProperties"], false);
    assert_eq!(schemas.connection["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schemas.point.pointer("/properties/address").is_some());
    assert!(schemas.device.pointer("/properties/model").is_some());
    drop(rig);

    let rig = Rig::load(&artifacts::fake_sink(), Isolation::InProcess);
    let describe = rig.plugin.describe();
    assert_eq!(describe.kind, PluginKind::Sink);
    assert!(describe.ops.contains(&op::request::POINTS) && !describe.ops.contains(&op::request::READ));
    assert!(describe.sink.durable && describe.sink.history);
    assert!(describe.schemas.map.pointer("/properties/point").is_some());
}

#[test]
fn check_names_every_problem_with_its_place() {
    let rig = Rig::load(&artifacts::fake_driver(), Isolation::InProcess);
    let good = json!({ "connection": { "endpoint": "a" }, "points": [{ "name": "p", "address": "const:1", "unit": "V" }] });
    assert_eq!(check(&rig, good), []);
    let problems = check(
        &rig,
        json!({
            "connection": { "endpoint": "", "exclusiv": true, "report_ms": "soon", "password": 12345 },
            "device": { "modle": "x" },
            "points": [
                { "name": "a", "address": "const:one" },
                { "name": "b", "address": "counter", "writable": true },
                { "name": "c", "type": "float46", "adress": "counter" },
            ],
        }),
    );
    let find = |pointer: &str| {
        problems.iter().find(|problem| problem.pointer == pointer).unwrap_or_else(|| {
            panic!("{pointer}: {problems:#?}");
        })
    };
    assert_eq!(find("/connection/exclusiv").hint, "did you mean `exclusive`?");
    assert_eq!(find("/connection/report_ms").found, "\"soon\"");
    assert_eq!(find("/device/modle").hint, "did you mean `model`?");
    assert!(find("/points/0/address").expected.contains("const:NUMBER"));
    assert_eq!(find("/points/1/address").severity, Severity::Warning);
    assert!(find("/points/2/type").expected.contains("kind"));
    assert_eq!(find("/points/2/adress").hint, "did you mean `address`?");
    assert_eq!(find("/points/2/address").found, "nothing");
    assert!(!format!("{problems:?}").contains("12345"));
    drop(rig);

    let rig = Rig::load(&artifacts::fake_sink(), Isolation::InProcess);
    let problems = check(
        &rig,
        json!({ "settings": { "ack": "delivr" }, "map": [{ "point": "d/a" }, { "point": "d/b" }, { "pt": 1 }], "routed": ["d/a"] }),
    );
    let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    for place in ["/settings/ack", "/map/1/point", "/map/2/pt", "/map/2/point"] {
        assert!(places.contains(&place), "{place}: {problems:#?}");
    }
}

#[test]
fn pure_questions_need_no_runtime() {
    let rig = Rig::load(&artifacts::fake_driver(), Isolation::InProcess);
    let answer = rig.plugin.control(op::control::ENDPOINT, br#"{"endpoint":"e","exclusive":true}"#).unwrap();
    let endpoint: Endpoint = serde_json::from_slice(&answer).unwrap();
    assert_eq!((endpoint.key.as_str(), endpoint.exclusive, endpoint.parallel), ("fake:e", true, 1));
    let error = rig.plugin.control(op::control::ENDPOINT, br#"{"exclusive":7}"#).unwrap_err().to_string();
    assert!(error.contains("/connection/endpoint") && error.contains("/connection/exclusive"), "{error}");
    let test = rig.plugin.control(op::control::SELF_TEST, b"").unwrap();
    assert_eq!(serde_json::from_slice::<Json>(&test).unwrap()["ok"], true);
    rig.plugin.control(op::control::CHECK, b"{").unwrap_err();
    rig.plugin.control(999, b"").unwrap_err();
    let early = rig.plugin.open(1 << 40, &driver(&json!({ "endpoint": "e" }))).unwrap_err().to_string();
    assert!(!early.is_empty());
}

#[test]
fn the_probe_child_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let staged = stage(dir.path(), "fake", &artifacts::fake_driver(), None).unwrap();
    let launcher = Launcher::program(artifacts::loader_child());
    let mut probe = Probe::start(&launcher, &staged, Expect::default()).unwrap();
    assert_eq!(probe.endpoint(&json!({ "endpoint": "e" })).unwrap().key, "fake:e");
    let input = CheckInput { connection: json!({ "endpoint": 5 }), ..CheckInput::default() };
    assert_eq!(probe.check(&input).unwrap()[0].pointer, "/connection/endpoint");
    probe.finish().unwrap();
}

/// The driver of `tests/third-party`: another crate, another workspace, only the SDK, serde and schemars.
#[test]
fn a_third_partys_driver_is_short_and_works() {
    let file = artifacts::third_party();
    let crate_dir = build::workspace().join("tests/third-party");
    let source = fs::read_to_string(crate_dir.join("src/lib.rs")).unwrap();
    assert!(source.lines().count() < 60, "{} lines", source.lines().count());
    only_these_dependencies(&crate_dir.join("Cargo.toml"));
    for isolation in common::BOTH {
        let mut rig = Rig::start(&file, isolation);
        assert_eq!(
            (rig.plugin.describe().name.as_str(), rig.plugin.describe().version.as_str()),
            ("tank", "0.3.1")
        );
        let connection = json!({ "host": "t1", "capacity": 200.0 });
        let problems = check(&rig, json!({ "connection": { "host": "t1", "capaccity": 1 } }));
        assert!(problems.iter().any(|problem| problem.hint == "did you mean `capacity`?"), "{problems:?}");
        let instance = rig.open(&driver(&connection));
        let mut join = attach(1, &connection);
        if let Request::Attach(body) = &mut join {
            body.settings = Json::Null;
        }
        rig.done(&instance, &join);
        let mut bind = common::bind(1, 1, &["level", "valve", "temperature"]);
        if let Request::Bind(body) = &mut bind {
            for point in &mut body.points {
                point.spec.as_object_mut().unwrap().remove("type");
            }
        }
        rig.done(&instance, &bind);
        rig.done(&instance, &Request::Connect(of(1)));
        let (_, line) = rig.log(|entry| entry.message == "connected");
        assert_eq!((line.device, line.fields[0].1.to_string().as_str()), (Some(1), "\"t1\""));
        let operate = |value| Request::Command(command(1, 2, value));
        let refused = rig.done(&instance, &operate(Value::Float64(1.0))).answer.unwrap();
        assert!(refused.text.contains("expected true or false"), "{refused:?}");
        rig.done(&instance, &operate(Value::Bool(true)));
        let push = rig.samples(&instance, &read(1, 1000));
        assert_eq!(values(&push), [Value::Float64(100.0), Value::Bool(true), Value::None]);
        rig.stop(&instance);
        rig.end();
    }
}

fn only_these_dependencies(manifest: &Path) {
    let text = fs::read_to_string(manifest).unwrap();
    let section = text.split("[dependencies]").nth(1).unwrap().split('[').next().unwrap().to_owned();
    let mut names: Vec<&str> =
        section.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim()).collect();
    names.sort_unstable();
    assert_eq!(names, ["busbar-driver-api", "schemars", "serde"], "{section}");
}
