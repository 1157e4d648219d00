//! The private copy: what is checked is what is loaded, and a directory that cannot hold it is one clear sentence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by a panic"
)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output},
};

use busbar_loader::{
    Step, stage,
    stage::{MAX_PLUGIN_BYTES, prune, sha256_hex},
};
use common::{artifacts, assert_sentence, bad_plugin, stage_dir};

#[test]
fn the_copy_is_private_read_only_and_named_by_its_hash() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    let bytes = fs::read(&file).unwrap();
    assert_eq!(staged.sha256, sha256_hex(&bytes));
    assert_eq!(staged.path, dir.path().join("x").join(format!("{}.so", staged.sha256)));
    assert_eq!(staged.size, bytes.len() as u64);
    let (copy, original) = (fs::metadata(&staged.path).unwrap(), fs::metadata(&file).unwrap());
    assert_eq!(copy.permissions().mode() & 0o777, 0o444);
    assert_ne!(copy.ino(), original.ino(), "a hard link would not survive an overwrite in place");
    assert_eq!(fs::metadata(dir.path().join("x")).unwrap().permissions().mode() & 0o007, 0);
    let names: Vec<_> = fs::read_dir(dir.path().join("x")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "nothing temporary is left: {names:?}");
}

#[test]
fn an_intact_copy_is_reused_and_a_rotten_one_replaced() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    let first = fs::metadata(&staged.path).unwrap().ino();
    assert_eq!(stage(dir.path(), "x", &file, None).unwrap(), staged);
    assert_eq!(fs::metadata(&staged.path).unwrap().ino(), first);
    // Rot: the same name, another byte.
    fs::set_permissions(&staged.path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&staged.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&staged.path, &bytes).unwrap();
    assert_eq!(stage(dir.path(), "x", &file, None).unwrap(), staged);
    assert_eq!(sha256_hex(&fs::read(&staged.path).unwrap()), staged.sha256);
    assert_eq!(fs::metadata(&staged.path).unwrap().permissions().mode() & 0o777, 0o444);
}

#[test]
fn leftovers_of_dead_processes_go_and_those_of_the_living_stay() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let plugin = dir.path().join("x");
    fs::create_dir(&plugin).unwrap();
    // The largest pid of Linux is 2^22, so this one is not alive.
    let (dead, alive) =
        (plugin.join(".tmp-99999999-0"), plugin.join(format!(".tmp-{}-x", std::process::id())));
    fs::write(&dead, b"half").unwrap();
    fs::write(&alive, b"half").unwrap();
    stage(dir.path(), "x", &file, None).unwrap();
    assert!(!dead.exists() && alive.exists());
}

#[test]
fn prune_keeps_what_is_named_and_touches_nothing_else() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let staged = stage(dir.path(), "x", &file, None).unwrap();
    let (old, other) =
        (dir.path().join("x").join(format!("{}.so", "a".repeat(64))), dir.path().join("x/notes.txt"));
    fs::write(&old, b"").unwrap();
    fs::write(&other, b"").unwrap();
    assert_eq!(prune(dir.path(), "x", &[&staged.sha256]), 1);
    assert!(staged.path.exists() && !old.exists() && other.exists());
    assert_eq!(prune(dir.path(), "unknown", &[]), 0);
}

#[test]
fn a_file_beyond_the_bound_is_refused_unread() {
    let dir = stage_dir();
    let file = dir.path().join("big.so");
    fs::File::create(&file).unwrap().set_len(MAX_PLUGIN_BYTES + 1).unwrap();
    let error = stage(dir.path(), "x", &file, None).unwrap_err();
    assert_sentence(&error, &file, &["too large", "at most 512 MiB"]);
}

#[test]
fn a_name_that_leaves_the_directory_is_refused() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let error = stage(dir.path(), "../x", &file, None).unwrap_err();
    assert_sentence(&error, &file, &["plugin name", "\"../x\""]);
}

#[test]
fn a_stage_dir_that_is_a_file_is_refused() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    let place = dir.path().join("occupied");
    fs::write(&place, b"").unwrap();
    let error = stage(&place, "x", &file, None).unwrap_err();
    assert_eq!(error.step, Step::Stage);
    let text = error.to_string();
    assert!(text.starts_with("[host] stage_dir") && text.contains("occupied") && text.len() < 200, "{text}");
}

#[test]
fn a_stage_dir_that_everybody_may_write_is_refused() {
    let (dir, file) = (stage_dir(), bad_plugin("bad-contract"));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let text = stage(dir.path(), "x", &file, None).unwrap_err().to_string();
    assert!(text.starts_with("[host] stage_dir") && text.contains("chmod o-w") && text.len() < 200, "{text}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    stage(dir.path(), "x", &file, None).unwrap();
}

/// Stages in a private mount namespace where `DIR` is a tmpfs with `options`.
fn stage_on_tmpfs(options: &str) -> Output {
    let dir = stage_dir();
    let (child, file) = (artifacts::loader_child(), bad_plugin("bad-contract"));
    let script = "mount -t tmpfs -o \"$1\" tmpfs \"$2\" || exit 99; exec \"$3\" --stage \"$2\" x \"$4\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", options])
        .args([dir.path(), &child, &file])
        .output()
        .expect("unshare(1) of util-linux is needed");
    assert_ne!(
        output.status.code(),
        Some(99),
        "this test needs the right to mount: run it as root: {output:?}"
    );
    output
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(2),
        "this test needs the right to mount: run it as root: {output:?}"
    );
    let text = text.trim_end();
    assert!(text.starts_with("[host] stage_dir ") && text.len() < 200 && !text.contains('\n'), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn a_noexec_stage_dir_is_one_clear_sentence() {
    assert_refused(&stage_on_tmpfs("noexec"), &["noexec", "choose a directory"]);
    // The same mount without the flag works, so it is the flag that was seen.
    let output = stage_on_tmpfs("size=64m");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_full_disk_is_one_clear_sentence() {
    assert_refused(&stage_on_tmpfs("size=256k"), &["no space left", "free space"]);
}

#[test]
fn a_read_only_stage_dir_is_one_clear_sentence() {
    assert_refused(&stage_on_tmpfs("ro"), &["read-only", "writable"]);
}

#[test]
fn the_deployed_file_may_be_overwritten_in_place_afterwards() {
    let (dir, source) = (stage_dir(), bad_plugin("bad-contract"));
    let deployed = dir.path().join("libbusbar_driver_bad_contract.so");
    fs::copy(&source, &deployed).unwrap();
    let probed = common::stage_and_probe(&dir, "x", &deployed).unwrap();
    let load = |probed| {
        busbar_loader::Plugin::load(probed, busbar_loader::Isolation::InProcess, &common::launcher()).unwrap()
    };
    let plugin = load(&probed);
    let host = common::start(&plugin);
    fs::write(&deployed, b"truncated and overwritten in place").unwrap();
    let instance = common::open(&plugin, &host, 1);
    assert!(instance.submit(1, &common::read(99)).is_taken());
    assert_eq!(host.push(1, 1).samples.samples.len(), 1);
    assert!(Path::new(&probed.staged.path).exists());
    assert!(plugin.shutdown(common::PATIENCE));
}
