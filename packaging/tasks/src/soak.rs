//! `cargo task soak upgrade`: stories of the suite in their long form, with the figures that they print.

use crate::checks::outcome;
use crate::process::{cargo, run as run_command};
use crate::report::Report;
use crate::setup;

/// v1 -> v2 -> v1 ten times; then as many versions as a process may load, nearly.
const UPGRADES: [(&str, &str); 2] = [("20", "20 upgrades"), ("60", "60 upgrades")];

/// Setup, release build, the stories.
pub(crate) fn run(report: &mut Report) {
    let ready = setup::run_steps(report);
    if !ready.packages {
        return;
    }
    let built = report.step("release build", || {
        outcome(run_command(&mut cargo(&["build", "--workspace", "--release", "--locked", "--quiet"])), "")
    });
    if !built {
        return;
    }
    for (upgrades, title) in UPGRADES {
        report.step(title, || {
            let run = [
                "test",
                "--release",
                "--locked",
                "--quiet",
                "--package",
                "busbar-tests",
                "--test",
                "gateway",
            ];
            let mut command = cargo(&run);
            command.args(["--", "--nocapture", "timed::upgrade"]).env("BUSBAR_UPGRADES", upgrades);
            outcome(run_command(&mut command), "")
        });
    }
}
