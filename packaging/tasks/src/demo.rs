//! `cargo task demo`.

use crate::checks::outcome;
use crate::process::{cargo, run as run_command};
use crate::report::Report;

/// Builds the release gateway beside its plugins and runs its demo. The words match the README.
pub(crate) fn run(report: &mut Report, rest: &[String]) {
    report.step("demo", || {
        let mut command = cargo(&["run", "--release", "--locked", "--", "demo"]);
        command.args(rest);
        outcome(run_command(&mut command), "")
    });
}
