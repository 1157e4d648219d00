//! Progress on the terminal, the summary, the exit code.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, with a word on what was done.
    Done(String),
    /// Could not be done here, and why; not a failure.
    Skipped(String),
    /// Failed, and what to do.
    Failed(String),
}

struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Collects steps of one task.
pub(crate) struct Report {
    task: &'static str,
    json: bool,
    colour: bool,
    started: Instant,
    steps: Vec<Step>,
    tests: Option<(u64, u64)>,
}

impl Report {
    pub(crate) fn new(task: &'static str, json: bool) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { task, json, colour, started: Instant::now(), steps: Vec::new(), tests: None }
    }

    /// Runs one step, shows begin and end. Returns whether later steps may rely on it.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> bool {
        eprintln!("{}", self.paint("36", &format!("[{}] {name} ...", clock(self.started.elapsed()))));
        let begin = Instant::now();
        let outcome = work();
        let took = begin.elapsed();
        let (colour, word, text) = match &outcome {
            Outcome::Done(text) => ("32", "ok", text),
            Outcome::Skipped(text) => ("33", "skipped", text),
            Outcome::Failed(text) => ("31", "FAILED", text),
        };
        let line = format!("[{}] {name} {word} ({:.1} s)", clock(self.started.elapsed()), took.as_secs_f64());
        let colon = if text.is_empty() { "" } else { ": " };
        eprintln!("{}{colon}{text}", self.paint(colour, &line));
        let passed = !matches!(outcome, Outcome::Failed(_));
        self.steps.push(Step { name, outcome, took });
        passed
    }

    /// Adds tests run by one runner; from then on the summary ends in `N passed, N failed`.
    pub(crate) fn count_tests(&mut self, passed: u64, failed: u64) {
        let (p, f) = self.tests.unwrap_or_default();
        self.tests = Some((p + passed, f + failed));
    }

    /// Prints the summary; success when nothing failed.
    pub(crate) fn finish(self) -> ExitCode {
        let failed: Vec<&str> = self.failed_steps().map(|step| step.name).collect();
        if !failed.is_empty() {
            eprintln!("{}", self.paint("31", &format!("failed: {}", failed.join(", "))));
        }
        if self.json {
            println!("{}", self.to_json());
        }
        if let Some((passed, failed)) = self.totals() {
            println!("{passed} passed, {failed} failed");
        } else if !self.json {
            eprintln!("{} in {}", self.task, clock(self.started.elapsed()));
        }
        if failed.is_empty() && self.tests.is_none_or(|(_, failed)| failed == 0) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn failed_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.outcome, Outcome::Failed(_)))
    }

    /// Tests and checks together: a run whose lints fail must not close on `0 failed`. A runner whose tests failed is
    /// counted by those tests, not once more as a step.
    fn totals(&self) -> Option<(u64, u64)> {
        let (passed, failed) = self.tests?;
        let steps = self.failed_steps().filter(|step| failed == 0 || !is_runner(step.name)).count();
        Some((passed, failed + u64::try_from(steps).unwrap_or(u64::MAX)))
    }

    fn to_json(&self) -> String {
        let mut out = format!(
            "{{\"task\":{},\"seconds\":{:.1}",
            quote(self.task),
            self.started.elapsed().as_secs_f64()
        );
        if let Some((passed, failed)) = self.totals() {
            let _ = write!(out, ",\"passed\":{passed},\"failed\":{failed}");
        }
        out.push_str(",\"steps\":[");
        for (index, step) in self.steps.iter().enumerate() {
            let (word, text) = match &step.outcome {
                Outcome::Done(text) => ("ok", text),
                Outcome::Skipped(text) => ("skipped", text),
                Outcome::Failed(text) => ("failed", text),
            };
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{{\"name\":{},\"result\":\"{word}\",\"seconds\":{:.1},\"text\":{}}}",
                quote(step.name),
                step.took.as_secs_f64(),
                quote(text)
            );
        }
        out.push_str("]}");
        out
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Steps whose single tests are counted.
fn is_runner(name: &str) -> bool {
    matches!(name, "tests" | "doc tests")
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_never_zero_failed() {
        let mut report = Report::new("test", false);
        report.step("clippy", || Outcome::Failed("no".into()));
        report.count_tests(7, 0);
        assert_eq!(report.totals(), Some((7, 1)));
    }

    #[test]
    fn failed_tests_are_counted_once() {
        let mut report = Report::new("test", false);
        report.step("tests", || Outcome::Failed("2 failed".into()));
        report.count_tests(7, 2);
        assert_eq!(report.totals(), Some((7, 2)));
    }

    #[test]
    fn a_runner_that_never_ran_counts_as_failed() {
        let mut report = Report::new("test", false);
        report.step("tests", || Outcome::Failed("did not compile".into()));
        report.count_tests(0, 0);
        assert_eq!(report.totals(), Some((0, 1)));
    }

    #[test]
    fn json_text_is_escaped() {
        assert_eq!(quote("a\"b\\c\n\u{1}"), "\"a\\\"b\\\\c\\n\\u0001\"");
    }
}
