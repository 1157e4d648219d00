//! Problems for people (one block each, with the line and a caret) and for machines (JSON).

use std::fmt::Write;

use crate::{
    problem::{Problem, Severity, severity_text},
    source::Sources,
};

/// Longest part of a source line that is shown.
const MAX_SHOWN: usize = 160;

/// ANSI colours, or nothing.
struct Paint {
    on: bool,
}

impl Paint {
    fn severity(&self, severity: Severity) -> (&'static str, &'static str) {
        match (self.on, severity) {
            (false, _) => ("", ""),
            (true, Severity::Error) => ("\x1b[1;31m", "\x1b[0m"),
            (true, Severity::Warning) => ("\x1b[1;33m", "\x1b[0m"),
        }
    }

    fn dim(&self) -> (&'static str, &'static str) {
        if self.on { ("\x1b[34m", "\x1b[0m") } else { ("", "") }
    }
}

/// All problems, one block each, and a last line with the counts; empty text when there are none.
#[must_use]
pub fn human(problems: &[Problem], sources: &Sources, colours: bool) -> String {
    let paint = Paint { on: colours };
    let mut out = String::new();
    for problem in problems {
        block(&mut out, problem, sources, &paint);
        out.push('\n');
    }
    if !problems.is_empty() {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let _ = writeln!(out, "{}", counts(errors, problems.len() - errors));
    }
    out
}

/// A JSON list of all problems.
#[must_use]
pub fn json(problems: &[Problem]) -> serde_json::Value {
    serde_json::to_value(problems).unwrap_or(serde_json::Value::Null)
}

fn counts(errors: usize, warnings: usize) -> String {
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    match (errors, warnings) {
        (errors, 0) => plural(errors, "error"),
        (0, warnings) => plural(warnings, "warning"),
        (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
    }
}

// Writing to a String cannot fail.
fn block(out: &mut String, problem: &Problem, sources: &Sources, paint: &Paint) {
    let (strong, end) = paint.severity(problem.severity);
    let (dim, dim_end) = paint.dim();
    let _ = writeln!(
        out,
        "{strong}{}{end}: expected {}, found {}",
        severity_text(problem.severity),
        problem.expected,
        problem.found
    );
    let number = problem.line.to_string();
    let gutter = " ".repeat(number.len());
    if problem.line > 0 {
        let _ =
            writeln!(out, "{gutter}{dim}-->{dim_end} {}:{}:{}", problem.file, problem.line, problem.column);
        source_line(out, problem, sources, paint);
    } else if !problem.file.is_empty() {
        let _ = writeln!(out, "{gutter}{dim}-->{dim_end} {}", problem.file);
    }
    if !problem.key.is_empty() {
        let _ = writeln!(out, "{gutter} {dim}={dim_end} key: {}", problem.key);
    }
    if problem.repeated > 0 {
        let places = if problem.repeated == 1 { "place" } else { "places" };
        let _ = writeln!(out, "{gutter} {dim}={dim_end} the same in {} more {places}", problem.repeated);
    }
    if !problem.suggestion.is_empty() {
        let _ = writeln!(out, "{gutter} {dim}={dim_end} help: {}", problem.suggestion);
    }
}

fn source_line(out: &mut String, problem: &Problem, sources: &Sources, paint: &Paint) {
    let Some(text) = sources.by_name(&problem.file).and_then(|source| source.printable_line(problem.line))
    else {
        return;
    };
    let (strong, end) = paint.severity(problem.severity);
    let (dim, dim_end) = paint.dim();
    let number = problem.line.to_string();
    let gutter = " ".repeat(number.len());
    // A very long line is cut so that the place stays visible; tabs count as one column.
    let total = text.chars().count();
    let skip = if problem.column + problem.length > MAX_SHOWN {
        problem.column.saturating_sub(MAX_SHOWN / 2)
    } else {
        0
    };
    let shown: String = text
        .chars()
        .skip(skip)
        .take(MAX_SHOWN)
        .map(|symbol| if symbol.is_control() { ' ' } else { symbol })
        .collect();
    let room =
        MAX_SHOWN.min(total.saturating_sub(skip)).saturating_sub(problem.column.saturating_sub(skip + 1));
    let carets = "^".repeat(problem.length.min(room).max(1));
    let indent = " ".repeat(problem.column.saturating_sub(skip + 1));
    let _ = writeln!(out, "{gutter} {dim}|{dim_end}");
    let _ = writeln!(out, "{dim}{number} |{dim_end} {}", shown.trim_end());
    let _ = writeln!(out, "{gutter} {dim}|{dim_end} {indent}{strong}{carets}{end}");
}
