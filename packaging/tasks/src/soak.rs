//! `cargo task soak survival | outage | queue | upgrade`: stories of the suite in their long form, with the figures that they print.

use std::time::Duration;

use crate::checks::outcome;
use crate::process::{cargo, run as run_command, run_within};
use crate::report::Report;
use crate::setup;

/// v1 -> v2 -> v1 ten times; then as many versions as a process may load, nearly.
const UPGRADES: [(&str, &str); 2] = [("20", "20 upgrades"), ("60", "60 upgrades")];
/// More than a process may load.
const LOADS: (&str, &str) = ("66", "66 versions, more than a process may load");

/// kill -9 and far sides taken down; records of the long outage. Options of the command line come after these.
const SURVIVAL: (&str, &str) = ("BUSBAR_TEST_ROUNDS", "200");
const OUTAGE: (&str, &str) = ("BUSBAR_BACKLOG_RECORDS", "5000000");

/// What the tests of the queue file read: how many times a writer is killed, how many files are damaged at random.
const QUEUE: [(&str, &str); 2] = [("BUSBAR_QUEUE_KILLS", "1000"), ("BUSBAR_QUEUE_CASES", "2000")];

/// No story takes longer: the stories have narrower limits of their own, this one is for what hangs. Half a day, since
/// `--rounds` and `--records` may ask for more than the default.
const LIMIT: Duration = Duration::from_secs(12 * 3600);

/// The stories named, or all; `story` is for the whole gateway's.
pub(crate) fn run(report: &mut Report, rest: &[String], story: &[(&'static str, String)]) {
    let wants = |story: &str| rest.is_empty() || rest.iter().any(|word| word == story);
    if wants("queue") {
        report.step("queue: 1000 kills, 2000 damaged files and histories", || {
            let mut command =
                cargo(&["test", "--release", "--locked", "--quiet", "--package", "busbar-queue"]);
            outcome(run_command(command.envs(QUEUE)), "")
        });
    }
    let whole = ["survival", "outage", "upgrade"];
    if !whole.into_iter().any(wants) || !build(report) {
        return;
    }
    let with = |default: (&'static str, &str)| {
        let mut variables = vec![(default.0, default.1.to_owned())];
        variables.extend_from_slice(story);
        variables
    };
    if wants("survival") {
        gateway(report, "survival", "timed::survival", &with(SURVIVAL));
    }
    if wants("outage") {
        gateway(report, "outage", "timed::backlog", &with(OUTAGE));
    }
    if wants("upgrade") {
        for (upgrades, title) in UPGRADES {
            let story = "timed::upgrade::twenty_meters";
            gateway(report, title, story, &[("BUSBAR_UPGRADES", upgrades.to_owned())]);
        }
        let story = "timed::upgrade::more_versions";
        gateway(report, LOADS.1, story, &[("BUSBAR_UPGRADES", LOADS.0.to_owned())]);
    }
}

/// Setup and release build: what the stories of the whole gateway start.
fn build(report: &mut Report) -> bool {
    setup::run_steps(report).packages
        && report.step("release build", || {
            outcome(
                run_command(&mut cargo(&["build", "--workspace", "--release", "--locked", "--quiet"])),
                "",
            )
        })
}

/// One story of the whole gateway, with what it prints.
fn gateway(report: &mut Report, title: &'static str, filter: &str, variables: &[(&'static str, String)]) {
    report.step(title, || {
        let run =
            ["test", "--release", "--locked", "--quiet", "--package", "busbar-tests", "--test", "gateway"];
        let mut command = cargo(&run);
        command.args(["--", "--nocapture", filter]).envs(variables.iter().map(|(name, value)| (name, value)));
        outcome(run_within(&mut command, LIMIT), "")
    });
}
