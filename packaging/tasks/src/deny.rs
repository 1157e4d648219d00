//! cargo-deny: licences, banned crates and sources always; advisories when their database can be had.
//!
//! The advisory database lives on the network. A machine without that access can still check everything else, and says
//! in plain words that advisories were not looked at, instead of passing silently or failing for ever.

use std::time::Duration;

use crate::checks::outcome;
use crate::process::{cargo, run as run_command, run_quiet};
use crate::report::{Outcome, Report};

/// Longest wait for the advisory database.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Both steps.
pub(crate) fn run(report: &mut Report) {
    report.step("licences and bans", || {
        let args = [
            "deny",
            "--locked",
            "--log-level",
            "error",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ];
        outcome(run_command(&mut cargo(&args)), "the rules and their reasons are in deny.toml")
    });
    report.step("advisories", || {
        if let Err(error) = run_quiet(&mut cargo(&["deny", "fetch", "db"]), FETCH_LIMIT) {
            return Outcome::Skipped(format!(
                "NOT CHECKED, the advisory database could not be fetched ({error}); run `cargo deny check advisories` \
                 on a machine that reaches it"
            ));
        }
        let args = ["deny", "--locked", "--log-level", "error", "check", "--disable-fetch", "advisories"];
        outcome(run_command(&mut cargo(&args)), "update the crate, or add an ignore with a reason to deny.toml")
    });
}
