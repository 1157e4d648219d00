//! `cargo task bench`: builds in release and starts the measuring program of the test crate.
//!
//! It measures whole processes beside each other, so it lives with the test harness; here is only the build.

use crate::checks::outcome;
use crate::process::{cargo, run as run_command};
use crate::report::Report;
use crate::setup;

/// Setup, release build, measurement, report.
pub(crate) fn run(report: &mut Report, rest: &[String]) {
    let ready = setup::run_steps(report);
    if !(ready.packages && ready.peers) {
        return;
    }
    let built = report.step("release build", || {
        outcome(run_command(&mut cargo(&["build", "--workspace", "--release", "--locked", "--quiet"])), "")
    });
    if !built {
        return;
    }
    report.step("measure", || {
        let run = [
            "run",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "busbar-tests",
            "--bin",
            "busbar-bench",
            "--",
        ];
        let mut command = cargo(&run);
        command.args(rest);
        outcome(run_command(&mut command), "")
    });
}
