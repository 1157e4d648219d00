//! Format and lints.

use crate::process::{cargo, run};
use crate::report::{Outcome, Report};
use crate::{deny, setup};

/// `cargo task fmt`.
pub(crate) fn fmt(report: &mut Report, check: bool) {
    if check {
        format_check(report);
    } else {
        report.step("format", || outcome(run(&mut cargo(&["fmt", "--all"])), ""));
    }
}

/// `cargo task lint`.
pub(crate) fn lint(report: &mut Report) {
    clippy(report);
    if setup::cargo_tool(report, &setup::DENY) {
        deny::run(report);
    }
}

/// Are the sources formatted?
pub(crate) fn format_check(report: &mut Report) {
    report.step("format", || outcome(run(&mut cargo(&["fmt", "--all", "--check"])), "run `cargo task fmt`"));
}

/// Clippy with the house lints of the workspace manifest, warnings are errors.
pub(crate) fn clippy(report: &mut Report) {
    report.step("clippy", || {
        let args = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
        outcome(run(&mut cargo(&args)), "")
    });
}

/// The result of a command as the result of a step.
pub(crate) fn outcome(result: Result<(), String>, advice: &str) -> Outcome {
    match result {
        Ok(()) => Outcome::Done(String::new()),
        Err(error) if advice.is_empty() => Outcome::Failed(error),
        Err(error) => Outcome::Failed(format!("{error}; {advice}")),
    }
}
