//! No plugin can stop the host (G6), and a plugin that is absent or refused is a state with a reason (G11).

use std::fmt::Write as _;
use std::path::Path;

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, built, until};
use serde_json::{Value, json};

use crate::shared::{device, mqtt_sink, quality, topic};

/// Longest reason that still fits on an operator's screen.
const MAX_REASON: usize = 400;

fn healthy(peer: &Peer) -> String {
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    device("healthy", &peer.place(0).connection("tcp", 1), "poll_interval = \"300ms\"", &points)
}

fn peer() -> Peer {
    Peer::single("tcp", &json!({ "holding": { "0": [7] } }))
}

/// Files that are no plugins, written into `dir`: name, file, and words its reason must contain.
fn broken_files(dir: &Path) -> Vec<(&'static str, std::path::PathBuf, &'static [&'static str])> {
    let whole = std::fs::read(built::folder().join("libbusbar_driver_modbus.so")).unwrap();
    let mut foreign = whole[..4096].to_vec();
    foreign[18] = 243; // e_machine: RISC-V
    let files: [(&str, &[u8], &[&str]); 5] = [
        ("empty", b"", &["empty"]),
        ("prose", b"this is no plugin, however long it may be written", &["ELF"]),
        ("truncated", &whole[..300 * 1024], &["truncated"]),
        ("foreign", &foreign, &["architecture", "riscv"]),
        (
            "library",
            &std::fs::read(built::folder().join("libbusbar_driver_not_a_plugin.so")).unwrap(),
            &["plugin"],
        ),
    ];
    files
        .into_iter()
        .map(|(name, bytes, words)| {
            let path = dir.join(format!("{name}.so"));
            std::fs::write(&path, bytes).unwrap();
            (name, path, words)
        })
        .collect()
}

#[test]
fn broken_absent_and_refused_plugins_are_states_with_reasons() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let dir = tempfile::tempdir().unwrap();
    let mut wanted: Vec<(&str, &[&str])> = vec![("absent", &["not found"])];
    let mut body = healthy(&peer);
    for (name, path, words) in broken_files(dir.path()) {
        let _ = writeln!(body, "[plugins.{name}]\npath = \"{}\"\n", path.display());
        wanted.push((name, words));
    }
    // Built as plugins, wrong on purpose.
    for (name, words) in
        [("bad-layout", &["layout"][..]), ("bad-init-error", &["licence"]), ("bad-abort", &["panic"])]
    {
        wanted.push((name, words));
    }
    for (name, _) in &wanted {
        let _ = writeln!(
            body,
            "[[device]]\nname = \"on-{name}\"\ndriver = \"{name}\"\nconnection = {{ host = \"127.0.0.1\" }}\npoints = [{{ \
             name = \"p\", address = \"x\" }}]\n"
        );
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));

    let good = topic("healthy", "p");
    observer.wait_for("the healthy device", 0, &good, PATIENCE, |m| quality(&m.payload) == "good");
    let plugins = gateway.api("/api/v1/plugins");
    for (name, words) in wanted {
        let plugin = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap();
        assert_eq!(plugin["state"], json!("failed"), "{plugin}");
        let reason = plugin["reason"].as_str().unwrap();
        assert!(reason.len() < MAX_REASON && reason.lines().count() == 1, "{name}: no sentence: {reason}");
        for word in words {
            assert!(
                reason.to_lowercase().contains(&word.to_lowercase()),
                "{name}: expected '{word}' in: {reason}"
            );
        }
        let devices = gateway.api("/api/v1/devices");
        let device = devices.as_array().unwrap().iter().find(|d| d["name"] == format!("on-{name}")).cloned();
        let device = device.unwrap_or_else(|| panic!("on-{name} is not in {devices}"));
        assert_eq!(device["state"], json!("failed"), "{device}");
        assert!(device["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{device}");
        let point = gateway.point(&format!("on-{name}/p")).unwrap();
        assert_eq!((quality(&point), &point["value"]), ("invalid|comm_lost", &Value::Null), "{point}");
    }
    assert_eq!(gateway.get("/readyz").unwrap().status, 200);
    assert_eq!(gateway.get("/readyz?strict=true").unwrap().status, 503, "strict: all must run");
    let mark = observer.mark();
    observer.wait_for("the healthy device again", mark, &good, PATIENCE, |m| quality(&m.payload) == "good");
}

/// The same sentences before installation: `busbar plugin check FILE`.
#[test]
fn a_file_can_be_checked_before_it_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let good = built::folder().join("libbusbar_driver_modbus.so");
    let done = busbar_tests::cli::busbar(dir.path(), &["plugin", "check", good.to_str().unwrap()]).expect(0);
    assert!(done.out.contains("modbus") && done.out.contains("sha256"), "{done:?}");
    for (name, path, words) in broken_files(dir.path()) {
        let done = busbar_tests::cli::busbar(dir.path(), &["plugin", "check", path.to_str().unwrap()]);
        assert!(matches!(done.code, Some(1 | 2)), "{name}: {done:?}");
        for word in words {
            assert!(done.text().to_lowercase().contains(&word.to_lowercase()), "{name}: {done:?}");
        }
    }
}

/// `isolation = "process"`: the worker dies by SIGKILL, its device is lost and comes back, the host runs on.
#[test]
fn a_killed_worker_is_a_lost_device_that_comes_back() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let body = "[plugins.modbus]\nisolation = \"process\"\n\n".to_owned() + &healthy(&peer);
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    let good = topic("healthy", "p");
    observer.wait_for("a value through the worker", 0, &good, PATIENCE, |m| quality(&m.payload) == "good");
    let worker = || {
        let plugins = gateway.api("/api/v1/plugins");
        let modbus =
            plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == "modbus").unwrap().clone();
        modbus["worker_pid"].as_u64()
    };
    let first = worker().unwrap();
    let mark = observer.mark();
    let killed = std::process::Command::new("kill").args(["-9", &first.to_string()]).status().unwrap();
    assert!(killed.success());
    observer.wait_for("the loss", mark, &good, PATIENCE, |m| quality(&m.payload) == "invalid|comm_lost");
    let lost = observer.mark();
    observer.wait_for("a value again", lost, &good, PATIENCE, |m| quality(&m.payload) == "good");
    until("another worker", PATIENCE, || worker().filter(|pid| *pid != first));
    assert_eq!(gateway.get("/healthz").unwrap().status, 200);
}
