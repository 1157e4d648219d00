//! `cargo task test`: everything that must hold before a change is shared.

use crate::checks::{self, outcome};
use crate::process::{Stream, cargo, run as run_command, tee};
use crate::report::{Outcome, Report};
use crate::setup::{self, Ready};
use crate::summary::{self, Counts};
use crate::{args::Options, deny};

/// Runs all checks; a failing one does not stop the others, except that tests need the build.
pub(crate) fn run(report: &mut Report, options: &Options) {
    report.count_tests(0, 0);
    let ready = if options.no_setup { Ready::ASSUMED } else { setup::run_steps(report) };
    if let Some(filter) = &options.filter {
        if ready.nextest && build(report) {
            nextest(report, Some(filter));
        }
        return;
    }
    checks::format_check(report);
    // What could not be installed has failed above, by name; running without it would only say so again.
    if ready.deny {
        deny::run(report);
    }
    if build(report) {
        if ready.nextest {
            nextest(report, None);
        }
        doc_tests(report);
    }
    checks::clippy(report);
}

/// Binaries and plugins: the whole-gateway tests start the files, and refuse them when they are older than their
/// sources. `cargo test` alone builds no `.so`.
fn build(report: &mut Report) -> bool {
    report.step("build", || {
        outcome(run_command(&mut cargo(&["build", "--workspace", "--locked", "--quiet"])), "")
    })
}

fn nextest(report: &mut Report, filter: Option<&str>) {
    let mut counts = None;
    report.step("tests", || {
        let mut args = vec!["nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--cargo-quiet"];
        args.extend(["--status-level", "slow", "--final-status-level", "flaky"]);
        args.extend(filter);
        let mut command = cargo(&args);
        let ran = tee(&mut command, &Stream::Err, |line| counts = summary::nextest(line).or(counts));
        judge(ran, counts, "nextest")
    });
    let Counts { passed, failed } = counts.unwrap_or_default();
    report.count_tests(passed, failed);
}

fn doc_tests(report: &mut Report) {
    let mut counts: Option<Counts> = None;
    report.step("doc tests", || {
        let mut command = cargo(&["test", "--doc", "--workspace", "--locked", "--quiet"]);
        let ran = tee(&mut command, &Stream::Out, |line| {
            if let Some(found) = summary::libtest(line) {
                let total = counts.get_or_insert_default();
                total.passed += found.passed;
                total.failed += found.failed;
            }
        });
        // A workspace without any doc test is no failure.
        judge(ran, Some(counts.unwrap_or_default()), "cargo test --doc")
    });
    let Counts { passed, failed } = counts.unwrap_or_default();
    report.count_tests(passed, failed);
}

fn judge(ran: Result<bool, String>, counts: Option<Counts>, runner: &str) -> Outcome {
    match (ran, counts) {
        (Err(error), _) => Outcome::Failed(error),
        (Ok(_), None) => {
            Outcome::Failed(format!("{runner} printed no summary: it did not get as far as running tests"))
        }
        (Ok(true), Some(Counts { passed, failed: 0 })) => Outcome::Done(format!("{passed} passed")),
        (Ok(_), Some(Counts { passed, failed })) => {
            Outcome::Failed(format!("{passed} passed, {failed} failed"))
        }
    }
}
