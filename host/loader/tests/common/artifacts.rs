//! The plugins that the loader's tests load; most are wrong on purpose.

use std::path::PathBuf;

pub use super::build::loader_child;
use super::build::{fresh, profile_dir, workspace};

/// The plugin of the crate `busbar-driver-NAME` in `tests/plugins/NAME`.
pub fn bad_plugin(name: &str) -> PathBuf {
    let file = format!("libbusbar_driver_{}.so", name.replace('-', "_"));
    let plugins = workspace().join("tests/plugins");
    let mut sources = vec![plugins.join(name)];
    match name {
        "not-a-plugin" => {}
        "bad-layout" | "bad-abi-newer" | "bad-abi-older" | "bad-abi-next" => {
            sources.push(plugins.join("bad-layout"))
        }
        _ => sources.extend([
            plugins.join("bad-common"),
            workspace().join("driver-api/abi/src"),
            workspace().join("driver-api/contract/src"),
        ]),
    }
    fresh(&profile_dir().join(file), &sources, &["-p", &format!("busbar-driver-{name}")])
}

/// A plugin built with `panic = "abort"` for real, in a profile (and target directory) of its own.
pub fn built_with_panic_abort(name: &str) -> PathBuf {
    let file = format!("libbusbar_driver_{}.so", name.replace('-', "_"));
    let target = profile_dir().parent().unwrap().to_path_buf();
    let sources =
        [workspace().join("tests/plugins").join(name), workspace().join("tests/plugins/bad-common")];
    let package = format!("busbar-driver-{name}");
    let arguments = [
        "-p",
        &package,
        "--config",
        "profile.panic-abort.inherits='dev'",
        "--config",
        "profile.panic-abort.panic='abort'",
        "--profile",
        "panic-abort",
    ];
    fresh(&target.join("panic-abort").join(file), &sources, &arguments)
}
