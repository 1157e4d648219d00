//! The plugins that the tests of the SDK, and of plugins, load.

use std::path::PathBuf;

pub use super::build::loader_child;
use super::build::{fresh, profile_dir, workspace};

const SDK: [&str; 3] = ["driver-api/src", "driver-api/abi/src", "driver-api/contract/src"];

fn sources(folders: &[&str]) -> Vec<PathBuf> {
    folders.iter().chain(&SDK).map(|folder| workspace().join(folder)).collect()
}

/// The fake driver.
pub fn fake_driver() -> PathBuf {
    let file = profile_dir().join("libbusbar_driver_fake.so");
    fresh(&file, &sources(&["tests/plugins/fake-driver"]), &["-p", "busbar-driver-fake"])
}

/// The fake sink.
pub fn fake_sink() -> PathBuf {
    let file = profile_dir().join("libbusbar_sink_fake.so");
    let folders = ["tests/plugins/fake-sink", "tests/plugins/fake-driver/src"];
    fresh(&file, &sources(&folders), &["-p", "busbar-sink-fake"])
}

/// The driver that stands for somebody else's: a crate outside the workspace, with its own lock file.
pub fn third_party() -> PathBuf {
    let file = profile_dir().join("libbusbar_driver_tank.so");
    let manifest = workspace().join("tests/third-party/Cargo.toml");
    let manifest = manifest.to_str().unwrap().to_owned();
    fresh(
        &file,
        &sources(&["tests/third-party/src"]),
        &["--manifest-path", &manifest, "--locked", "--offline"],
    )
}

/// The plugin of the crate `busbar-sink-NAME` in `sinks/NAME`.
pub fn sink(name: &str) -> PathBuf {
    let package = format!("busbar-sink-{name}");
    let file = profile_dir().join(format!("lib{}.so", package.replace('-', "_")));
    let own = ["src", "protocol/src"].map(|folder| format!("sinks/{name}/{folder}"));
    let folders = [own[0].as_str(), own[1].as_str(), "sinks/kit/src", "sinks/kit/protocol/src"];
    fresh(&file, &sources(&folders), &["-p", &package])
}
