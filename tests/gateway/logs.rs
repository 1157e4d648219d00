//! The log as a rotated file, and the frames of a device.

use std::path::Path;

use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Peer, until};
use serde_json::{Value, json};

use crate::shared::{device, quality};

const LIMIT: u64 = 64 * 1024;

fn meter(peer: &Peer, keys: &str) -> String {
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    device("m", &peer.place(0).connection("tcp", 1), &format!("poll_interval = \"20ms\"\n{keys}"), &points)
}

fn peer() -> Peer {
    Peer::single("tcp", &json!({ "holding": { "0": [7] } }))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[test]
fn the_log_is_rotated_by_size_while_the_gateway_runs() {
    let peer = peer();
    let host = "log = { level = \"warn\", format = \"json\", file = \"logs/busbar.log\", max_size = \"64KiB\", backups = 2 }";
    let gateway = Gateway::start_with(host, &meter(&peer, "frame_log = true"));
    let file = |name: &str| gateway.site.dir.path().join("logs").join(name);
    until("two rotated files", PATIENCE, || file("busbar.log.2").exists().then_some(()));
    let rotated = std::fs::read_to_string(file("busbar.log.2")).unwrap();
    assert!(rotated.len() as u64 <= LIMIT);
    for line in rotated.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["message"].is_string(), "{line}");
    }
    assert!(
        rotated.contains("frame=\\\"0"),
        "frames of the device, although the level is warn: {rotated:.600}"
    );
    // A third one never comes: the oldest goes.
    let before = std::fs::read_to_string(file("busbar.log.2")).unwrap();
    until("the next rotation", PATIENCE, || {
        let now = std::fs::read_to_string(file("busbar.log.2")).unwrap_or_default();
        (!now.is_empty() && now != before).then_some(())
    });
    assert!(!file("busbar.log.3").exists());
    for name in ["busbar.log", "busbar.log.1", "busbar.log.2"] {
        assert!(size(&file(name)) <= LIMIT, "{name}");
    }
    // Nothing is written to standard error.
    assert_eq!(gateway.log(), "");

    // Somebody moves the file away (logrotate) and says so.
    let moved = file("moved");
    std::fs::rename(file("busbar.log"), &moved).unwrap();
    let pid = gateway.process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-USR1", &pid]).status().unwrap().success());
    until("a file of that name again", PATIENCE, || (size(&file("busbar.log")) > 0).then_some(()));
    let after = size(&moved);
    until("lines in it", PATIENCE, || (size(&file("busbar.log")) > 1000).then_some(()));
    assert_eq!(size(&moved), after, "the moved file is left alone");

    // The log cannot be written any more: the gateway reads on and counts.
    std::fs::remove_dir_all(gateway.site.dir.path().join("logs")).unwrap();
    until("dropped lines to be counted", PATIENCE, || {
        (gateway.metrics().sum("busbar_log_dropped_lines_total", &[]) > 10.0).then_some(())
    });
    let ts = gateway.point("m/p").unwrap()["ts"].as_i64().unwrap();
    gateway.point_until("m/p", "to be read on", PATIENCE, |point| {
        quality(point) == "good" && point["ts"].as_i64().unwrap() > ts
    });
    std::fs::create_dir(gateway.site.dir.path().join("logs")).unwrap();
    until("the loss to be told", PATIENCE, || {
        let text = std::fs::read_to_string(file("busbar.log")).unwrap_or_default();
        text.contains("log lines dropped").then_some(())
    });
}

#[test]
fn a_log_file_that_cannot_be_written_is_a_configuration_error() {
    let site = busbar_tests::gateway::Site::with_host("log = { file = \"plugins.toml/log\" }", "");
    let refused = site.cli(&["run"]).expect(1);
    assert!(refused.err.contains("log.file") && refused.err.contains("plugins.toml/log"), "{refused:?}");
}

#[test]
fn frames_are_shown_while_the_gateway_runs() {
    let peer = peer();
    let gateway = Gateway::start(&meter(&peer, ""));
    gateway.point_until("m/p", "to be read", PATIENCE, |point| quality(point) == "good");
    let done = gateway.cli(&["frames", "m", "--for", "1s", "--json"]).expect(0);
    let frames: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let hint = |direction: &str| {
        let found = frames.iter().find(|frame| frame["direction"] == direction);
        found.unwrap_or_else(|| panic!("no {direction}: {done:?}"))["hint"].clone()
    };
    assert_eq!(hint("tx"), "unit 1: read 1 of holding from 0");
    assert_eq!(hint("rx"), "unit 1: 2 bytes of holding");
    let answer = frames.iter().find(|frame| frame["direction"] == "rx").unwrap();
    assert!(answer["frame"].as_str().unwrap().ends_with("0103020007"), "{answer}");
    assert!(answer["ts"].as_i64().is_some_and(|ts| ts > 1_600_000_000_000), "{answer}");
    // As text, and never in the log.
    let text = gateway.cli(&["frames", "m", "--for", "1s"]).expect(0).out;
    assert!(text.contains(" TX ") && text.contains("01 03 02 00 07") && text.contains("unit 1"), "{text}");
    assert!(!gateway.log().contains("frame="), "{}", gateway.log());
    let said = gateway.cli(&["frames", "m", "--log", "on"]).expect(0);
    assert!(said.out.contains("written into the log"), "{said:?}");
    until("frames in the log", PATIENCE, || gateway.log().contains("frame=").then_some(()));
    let _ = gateway.cli(&["frames", "m", "--log", "off"]).expect(0);
    let unknown = gateway.cli(&["frames", "nobody"]).expect(1);
    assert!(unknown.err.contains("there are: m"), "{unknown:?}");
}

/// Commissioning without a gateway: the command connects by itself, and shows what goes out although nobody answers.
#[test]
fn frames_are_shown_without_a_gateway() {
    let peer = peer();
    let site = busbar_tests::gateway::Site::new(&meter(&peer, ""));
    let text = site.cli(&["frames", "m", "--for", "1s"]).expect(0).out;
    assert!(text.contains("unit 1: read 1 of holding from 0"), "{text}");
    assert!(text.contains("unit 1: 2 bytes of holding"), "{text}");
}
