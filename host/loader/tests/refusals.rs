//! Every way a file can be wrong gives one short sentence and leaves this process running.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by a panic"
)]

mod common;

use std::{fs, path::Path};

use busbar_contract::describe::PluginKind;
use busbar_loader::{Expect, Isolation, Plugin, Probe, Report, State, Step, probe, stage, stage::sha256_hex};
use common::{artifacts, assert_sentence, bad_plugin, launcher, stage_and_probe, stage_dir};
use std::time::Duration;

/// Stages and probes a plugin that must be refused at `step`.
#[track_caller]
fn refused(name: &str, step: Step, words: &[&str]) {
    let (dir, file) = (stage_dir(), bad_plugin(name));
    let error = stage_and_probe(&dir, name, &file).unwrap_err();
    assert_sentence(&error, &file, words);
    assert_eq!(error.step, step, "{error}");
}

#[test]
fn the_same_layout_is_accepted() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let probed = stage_and_probe(&dir, "bad-contract", &file).unwrap();
    assert_eq!(probed.describe.name, "bad-contract");
    assert_eq!(probed.staged.source, file);
    Plugin::load(&probed, Isolation::InProcess, &launcher()).unwrap();
}

#[test]
fn a_plugin_of_a_later_additive_waist_is_accepted() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-abi-newer"));
    let probed = stage_and_probe(&dir, "bad-abi-newer", &file).unwrap();
    Plugin::load(&probed, Isolation::InProcess, &launcher()).unwrap();
}

#[test]
fn another_layout_names_the_difference() {
    refused("bad-layout", Step::Probe, &["layout", "expected u32", "found u64"]);
}

#[test]
fn an_older_waist_is_refused() {
    refused("bad-abi-older", Step::Probe, &["layout", "expected 5", "found 4"]);
}

#[test]
fn the_next_major_waist_is_refused() {
    refused("bad-abi-next", Step::Probe, &["ABI", "expected 1.0.0", "found 2.0.0"]);
}

#[test]
fn a_later_protocol_is_refused() {
    refused("bad-protocol", Step::Probe, &["protocol", "expected major 1", "found 2"]);
}

#[test]
fn panic_abort_is_refused() {
    refused("bad-abort", Step::Probe, &["panic = \"abort\"", "unwind"]);
}

#[test]
fn panic_abort_is_refused_when_really_built_so() {
    let (dir, file) = (stage_dir(), artifacts::built_with_panic_abort("bad-contract"));
    let error = stage_and_probe(&dir, "bad-contract", &file).unwrap_err();
    assert_sentence(&error, &file, &["panic = \"abort\"", "unwind"]);
}

#[test]
fn an_error_of_init_is_shown_in_its_own_words() {
    refused("bad-init-error", Step::Probe, &["start failed", "expected /etc/vendor/licence, found none"]);
}

#[test]
fn a_panic_of_init_is_a_sentence() {
    refused("bad-init-panic", Step::Probe, &["start", "SIGABRT", "bug in init"]);
}

#[test]
fn an_init_that_never_returns_is_a_sentence() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-init-stuck"));
    let staged = stage(dir.path(), "bad-init-stuck", &file, None).unwrap();
    let limit = Duration::from_secs(5);
    let error = Probe::start_within(&launcher(), &staged, Expect::default(), limit).unwrap_err();
    assert_sentence(&error, &file, &["start did not return within 5 s"]);
}

#[test]
fn a_shared_object_that_is_no_plugin_is_refused() {
    refused("not-a-plugin", Step::Preflight, &["not a Busbar plugin", "expected a root module"]);
}

#[test]
fn system_libraries_are_refused() {
    let dir = stage_dir();
    let found: Vec<_> = ["libm.so.6", "libz.so.1", "libc.so.6"]
        .into_iter()
        .flat_map(|name| {
            ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"]
                .map(|lib| Path::new(lib).join(name))
        })
        .filter(|file| file.is_file())
        .collect();
    assert!(!found.is_empty(), "no system library found to try");
    for file in found {
        let error = stage_and_probe(&dir, "m", &file).unwrap_err();
        assert_sentence(&error, &file, &["not a Busbar plugin"]);
    }
}

#[test]
fn foreign_files_are_refused() {
    let dir = stage_dir();
    let file = dir.path().join("libbusbar_driver_x.so");
    let mut foreign = fs::read(bad_plugin("bad-contract")).unwrap();
    foreign[18] = if foreign[18] == 183 { 62 } else { 183 };
    let mut narrow = foreign.clone();
    (narrow[4], narrow[18]) = (1, 3);
    let noise: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [(&[u8], &[&str]); 5] = [
        (b"", &["empty file"]),
        (b"[plugin]\nname = 1\n", &["text"]),
        (&noise, &["expected an ELF shared object"]),
        (&narrow, &["architecture", "x86 (32 bit)", "expected"]),
        (&foreign, &["architecture", "x86_64", "aarch64"]),
    ];
    for (bytes, words) in cases {
        fs::write(&file, bytes).unwrap();
        let error = stage_and_probe(&dir, "x", &file).unwrap_err();
        assert_sentence(&error, &file, words);
        assert_eq!(error.step, Step::Preflight);
    }
}

#[test]
fn truncated_files_are_refused() {
    let dir = stage_dir();
    let file = dir.path().join("libbusbar_driver_x.so");
    let good = fs::read(bad_plugin("bad-contract")).unwrap();
    // The last cuts only the section headers, which the dynamic linker would not miss.
    for length in [3 * 1024, 300 * 1024, good.len() / 2, good.len() - 1] {
        fs::write(&file, &good[..length]).unwrap();
        let error = stage_and_probe(&dir, "x", &file).unwrap_err();
        assert_sentence(&error, &file, &["truncated", &format!("found {length}")]);
    }
}

#[test]
fn another_sha256_than_configured_is_refused() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let right = sha256_hex(&fs::read(&file).unwrap());
    let wrong = "0".repeat(64);
    let error = stage(dir.path(), "x", &file, Some(&wrong)).unwrap_err();
    assert_sentence(&error, &file, &["wrong sha256", "0000000000000000", &right[..16]]);
    assert!(!dir.path().join("x").exists(), "nothing is copied before the hash is right");
    stage(dir.path(), "x", &file, Some(&right.to_uppercase())).unwrap();
}

#[test]
fn another_name_or_kind_than_configured_is_refused() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    let expect = Expect { name: Some("modbus"), kind: Some(PluginKind::Driver) };
    let error = probe(&launcher(), &staged, expect).unwrap_err();
    assert_sentence(&error, &file, &["expected the plugin \"modbus\"", "found \"bad-contract\""]);
    let expect = Expect { name: None, kind: Some(PluginKind::Sink) };
    let error = probe(&launcher(), &staged, expect).unwrap_err();
    assert_sentence(&error, &file, &["expected a sink", "found the driver"]);
}

#[test]
fn a_missing_file_directory_or_pipe_is_refused() {
    let dir = stage_dir();
    for (name, words) in
        [("gone.so", "no such file"), ("dir.so", "regular file"), ("pipe.so", "regular file")]
    {
        let file = dir.path().join(name);
        match name {
            "dir.so" => fs::create_dir(&file).unwrap(),
            "pipe.so" => {
                let status = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
                assert!(status.success());
            }
            _ => {}
        }
        let error = stage(dir.path(), "x", &file, None).unwrap_err();
        assert_sentence(&error, &file, &[words]);
    }
}

#[test]
fn a_host_binary_that_is_not_busbar_is_a_sentence() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    for program in ["/bin/true", "/nonexistent/busbar"] {
        let error =
            probe(&busbar_loader::Launcher::program(program), &staged, Expect::default()).unwrap_err();
        assert_sentence(&error, &file, &[]);
    }
}

#[test]
fn one_file_can_be_reported_before_it_is_installed() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let report = Report::of_file(&launcher(), dir.path(), &file);
    assert_eq!((&*report.name, &*report.kind, &*report.version), ("bad-contract", "driver", "0.1.0"));
    assert_eq!((&*report.abi, &report.file, report.state), ("1/1.0", &file, State::Staged));
    assert_eq!(report.sha256, sha256_hex(&fs::read(&file).unwrap()));
    let file = bad_plugin("bad-layout");
    let report = Report::of_file(&launcher(), dir.path(), &file);
    assert_eq!((&*report.name, &*report.kind), ("bad_layout", "driver"));
    assert!(matches!(&report.state, State::Failed(reason) if reason.contains("found u64")), "{report:?}");
    let report = Report::of_file(&launcher(), dir.path(), Path::new("/nonexistent/ab c.so"));
    assert!(matches!(&report.state, State::Failed(reason) if reason.contains("no such file")), "{report:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn the_probe_answers_many_questions() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-stuck"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    let limit = Duration::from_secs(5);
    let mut probe = Probe::start_within(&launcher(), &staged, Expect::default(), limit).unwrap();
    for n in 0..50 {
        let endpoint = probe.endpoint(&serde_json::json!({ "host": format!("10.0.0.{n}") })).unwrap();
        assert_eq!(endpoint.key, format!("tcp:10.0.0.{n}"));
    }
    let error = probe.endpoint(&serde_json::json!({})).unwrap_err();
    assert_sentence(&error, &file, &["connection.host: expected a host name, found none"]);
    let mut input = busbar_contract::CheckInput::default();
    assert_eq!(probe.check(&input).unwrap(), Vec::new());
    input.device = serde_json::json!({ "stuck": true });
    let error = probe.check(&input).unwrap_err();
    assert_sentence(&error, &file, &["check did not return within 5 s"]);
    let error = probe.check(&input).unwrap_err();
    assert_sentence(&error, &file, &["check", "crashed"]);
}
