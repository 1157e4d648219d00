//! `cargo task soak upgrade | queue`: stories of the suite in their long form, with the figures that they print.

use crate::checks::outcome;
use crate::process::{cargo, run as run_command};
use crate::report::Report;
use crate::setup;

/// v1 -> v2 -> v1 ten times; then as many versions as a process may load, nearly.
const UPGRADES: [(&str, &str); 2] = [("20", "20 upgrades"), ("60", "60 upgrades")];

/// What the tests of the queue file read: how many times a writer is killed, how many files are damaged at random.
const QUEUE: [(&str, &str); 2] = [("BUSBAR_QUEUE_KILLS", "1000"), ("BUSBAR_QUEUE_CASES", "2000")];

/// The stories named, or all.
pub(crate) fn run(report: &mut Report, rest: &[String]) {
    let wants = |story: &str| rest.is_empty() || rest.iter().any(|word| word == story);
    if wants("queue") {
        report.step("queue: 1000 kills, 2000 damaged files and histories", || {
            let mut command =
                cargo(&["test", "--release", "--locked", "--quiet", "--package", "busbar-queue"]);
            outcome(run_command(command.envs(QUEUE)), "")
        });
    }
    if wants("upgrade") {
        upgrades(report);
    }
}

/// Setup, release build, the story of the upgrades.
fn upgrades(report: &mut Report) {
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
