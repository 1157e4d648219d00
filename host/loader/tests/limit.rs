//! The number of plugin versions in one process is bounded. Alone in its binary: the count belongs to the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by a panic"
)]

mod common;

use std::fs;

use busbar_loader::{
    Expect, Isolation, Plugin, Staged,
    load::{MAX_LOADS, distinct_loads},
    probe, stage,
};
use common::{bad_plugin, launcher, stage_dir};

#[test]
fn the_sixty_fifth_version_is_refused_in_process_and_runs_in_a_worker() {
    let dir = stage_dir();
    let staged = stage(dir.path(), "x", &bad_plugin("bad-contract"), None).unwrap();
    let version = |n: usize| {
        // Another name of the same bytes counts as another version and spares copying them.
        let path = dir.path().join(format!("{n}.so"));
        fs::hard_link(&staged.path, &path).unwrap();
        probe(&launcher(), &Staged { path, ..staged.clone() }, Expect::default()).unwrap()
    };
    for n in 1..=MAX_LOADS {
        Plugin::load(&version(n), Isolation::InProcess, &launcher()).unwrap();
        assert_eq!(distinct_loads(), n);
    }
    let more = version(MAX_LOADS + 1);
    let error = Plugin::load(&more, Isolation::InProcess, &launcher()).unwrap_err();
    common::assert_sentence(&error, &staged.source, &["64 plugin versions", "isolation = \"process\""]);
    let plugin = Plugin::load(&more, Isolation::Process, &launcher()).unwrap();
    let host = common::start(&plugin);
    common::open(&plugin, &host, 1);
    assert_eq!(distinct_loads(), MAX_LOADS);
}
