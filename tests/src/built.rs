//! The gateway and plugins as `cargo build --workspace` left them, refused when older than their sources.
//!
//! `cargo test` builds no `.so`. Without this check a test would happily prove that yesterday's plugin works. cargo
//! writes beside each artifact a `.d` file with every source it was made of; one newer source is enough to refuse.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Set to `1` to run against whatever was built, e.g. while sources are being edited.
pub const ALLOW_STALE: &str = "BUSBAR_TEST_ALLOW_STALE";

/// Which plugins a gateway under test loads.
const PLUGINS: [&str; 3] =
    ["libbusbar_driver_modbus.so", "libbusbar_driver_fake.so", "libbusbar_sink_mqtt.so"];

/// Root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The build directory.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Folder with the gateway and its plugins: that of this build's profile, so that a release run tests release files.
#[must_use]
pub fn folder() -> PathBuf {
    target().join(if cfg!(debug_assertions) { "debug" } else { "release" })
}

/// The gateway binary, checked once per process together with its plugins.
///
/// # Panics
/// When something was not built or is older than its sources.
#[must_use]
pub fn gateway() -> PathBuf {
    static CHECKED: OnceLock<()> = OnceLock::new();
    let folder = folder();
    CHECKED.get_or_init(|| {
        for name in PLUGINS.into_iter().chain(["busbar"]) {
            check(&folder.join(name));
        }
    });
    folder.join("busbar")
}

/// The same for a plugin that only some tests need.
///
/// # Panics
/// When it was not built or is older than its sources.
pub fn check_plugin(name: &str) {
    check(&folder().join(name));
}

fn check(artifact: &Path) {
    let advice = "run `cargo build --workspace` first (`cargo task test` does it)";
    let Ok(built) = modified(artifact) else { panic!("{} is missing: {advice}", artifact.display()) };
    if std::env::var_os(ALLOW_STALE).is_some_and(|value| value == "1") {
        return;
    }
    let list = artifact.with_extension("d");
    let text = std::fs::read_to_string(&list).unwrap_or_else(|e| panic!("{}: {e}: {advice}", list.display()));
    if let Some(source) = newer(&text, built) {
        let hint = format!("or set {ALLOW_STALE}=1");
        panic!("{} is older than its source {}: {advice}, {hint}", artifact.display(), source.display());
    }
}

/// First source in a make-style dependency list that changed after `built`. Blanks in names are escaped.
fn newer(list: &str, built: SystemTime) -> Option<PathBuf> {
    let (_, sources) = list.split_once(": ")?;
    let sources = sources.lines().next()?.replace("\\ ", "\0");
    sources
        .split_whitespace()
        .map(|name| PathBuf::from(name.replace('\0', " ")))
        .find(|source| modified(source).map_or(true, |changed| changed > built))
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_source_is_found_and_a_missing_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a b.rs");
        std::fs::write(&source, "").unwrap();
        let list = format!("/x/lib.so: {}\n", source.display().to_string().replace(' ', "\\ "));
        let now = modified(&source).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(newer(&list, now + hour), None);
        assert_eq!(newer(&list, now - hour), Some(source));
        assert_eq!(newer("/x/lib.so: /nowhere/x.rs", now + hour), Some(PathBuf::from("/nowhere/x.rs")));
    }
}
