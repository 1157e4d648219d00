//! Finds the plugins and programs that cargo builds beside the tests.
//!
//! `cargo test -p X` builds no plugin of another crate. So a test that needs one looks for it in the target directory
//! and, when it is missing or older than its sources, runs `cargo build` once and says so: a stale plugin is never
//! tested.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    while !dir.join("clippy.toml").is_file() {
        assert!(dir.pop(), "no workspace above {}", env!("CARGO_MANIFEST_DIR"));
    }
    dir
}

/// `target/debug`, or of the profile these tests were built with.
pub fn profile_dir() -> PathBuf {
    let exe = env::current_exe().unwrap();
    exe.parent().and_then(Path::parent).unwrap().to_path_buf()
}

/// The program of `examples/loader_child.rs`.
pub fn loader_child() -> PathBuf {
    let sources = ["host/loader/src", "host/loader/examples", "driver-api/abi", "driver-api/contract"];
    let sources = sources.map(|source| workspace().join(source));
    let arguments = ["-p", "busbar-loader", "--example", "loader_child"];
    fresh(&profile_dir().join("examples/loader_child"), &sources, &arguments)
}

/// `artifact`, built when it is missing or older than a file below `sources`.
pub fn fresh(artifact: &Path, sources: &[PathBuf], arguments: &[&str]) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = sources.iter().filter_map(|source| newest_below(source)).max().unwrap();
    if modified(artifact).is_some_and(|built| built >= newest) {
        return artifact.to_path_buf();
    }
    eprintln!(
        "{} is missing or older than its sources: cargo build {}",
        artifact.display(),
        arguments.join(" ")
    );
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).arg("build").args(arguments);
    cargo.arg("--target-dir").arg(profile_dir().parent().unwrap());
    if profile_dir().ends_with("release") && !arguments.contains(&"--profile") {
        cargo.arg("--release");
    }
    // Of the test runner: they would change the fingerprints of what is built.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && artifact.is_file(), "cargo build {}:\n{errors}", arguments.join(" "));
    artifact.to_path_buf()
}

fn newest_below(path: &Path) -> Option<SystemTime> {
    let Ok(entries) = fs::read_dir(path) else { return modified(path) };
    entries.flatten().filter_map(|entry| newest_below(&entry.path())).max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
