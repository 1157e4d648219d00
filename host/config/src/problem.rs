//! Problems: what was expected, what was found, where, and what to do.
//!
//! Loading never stops at the first problem. One mistake in a template shows up in every device that uses it; such
//! repetitions (same place, same text) are one [`Problem`] with a count.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
};

pub use busbar_contract::Severity;
use serde::Serialize;

use crate::{
    redact,
    source::{Pos, Sources},
};

/// Most different problems that are kept; the rest is only counted.
pub const MAX_PROBLEMS: usize = 1_000;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the configuration may run.
    pub severity: Severity,
    /// File, as shown to people; empty when the problem is in no file.
    pub file: String,
    /// Line, from 1; 0 = no place.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters from there on in the same line that are meant; at least 1.
    pub length: usize,
    /// Which key: `device[meter-01].points[voltage].scale`.
    pub key: String,
    /// What was expected.
    pub expected: String,
    /// What was found; never a secret.
    pub found: String,
    /// What to do; may be empty.
    pub suggestion: String,
    /// How often the same mistake at the same place has an effect elsewhere (a template used by many devices).
    pub repeated: usize,
}

impl fmt::Display for Problem {
    /// One line, for logs: `file:line:column: error: key: expected .., found ..`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        write!(f, "{}: ", severity_text(self.severity))?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        if !self.suggestion.is_empty() {
            write!(f, " ({})", self.suggestion)?;
        }
        Ok(())
    }
}

/// `error` or `warning`.
pub(crate) const fn severity_text(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Where in the configuration a check is, for the `key` of problems. Lives on the stack: it is printed only when
/// something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    Named(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }

    /// `[name]`, for elements that are known by their name.
    pub(crate) fn named(&'a self, name: &'a str) -> Self {
        Self::Named(self, name)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Named(parent, name) => write!(f, "{parent}[{name}]"),
        }
    }
}

/// A problem before its place has been turned into line and column.
#[derive(Debug, Clone)]
struct Report {
    severity: Severity,
    pos: Option<Pos>,
    key: String,
    expected: String,
    found: String,
    suggestion: String,
    repeated: usize,
}

/// Identity of a problem: a repetition of it is counted, not listed.
type Identity = (Option<(u32, u32)>, String, String);

/// Collects problems; shared by everything that reads the configuration.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: RefCell<Vec<Report>>,
    known: RefCell<HashMap<Identity, usize>>,
    more: Cell<usize>,
    errors: Cell<usize>,
}

impl Problems {
    pub(crate) fn error(
        &self,
        pos: Option<Pos>,
        key: impl fmt::Display,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Told<'_> {
        self.report(Severity::Error, pos, key, expected.into(), found.into())
    }

    pub(crate) fn warning(
        &self,
        pos: Option<Pos>,
        key: impl fmt::Display,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Told<'_> {
        self.report(Severity::Warning, pos, key, expected.into(), found.into())
    }

    pub(crate) fn report(
        &self,
        severity: Severity,
        pos: Option<Pos>,
        key: impl fmt::Display,
        expected: String,
        found: String,
    ) -> Told<'_> {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        let key = key.to_string();
        let expected = redact::urls(&expected).into_owned();
        let found = redact::urls(&found).into_owned();
        // Without a place the key tells two problems apart.
        let place = pos.map(|pos| (pos.source, pos.start));
        let expected_at = if place.is_some() { expected.clone() } else { format!("{key}: {expected}") };
        let identity = (place, expected_at, found.clone());
        let mut known = self.known.borrow_mut();
        let mut list = self.list.borrow_mut();
        if let Some(index) = known.get(&identity) {
            if let Some(first) = list.get_mut(*index) {
                first.repeated += 1;
            }
            return Told { problems: self, index: None };
        }
        if list.len() >= MAX_PROBLEMS {
            self.more.set(self.more.get() + 1);
            return Told { problems: self, index: None };
        }
        known.insert(identity, list.len());
        list.push(Report { severity, pos, key, expected, found, suggestion: String::new(), repeated: 0 });
        Told { problems: self, index: Some(list.len() - 1) }
    }

    /// Errors so far, repetitions included.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// The final list in the order of files and lines; problems without a place first.
    pub(crate) fn finish(self, sources: &Sources) -> Vec<Problem> {
        let more = self.more.get();
        let mut list = self.list.into_inner();
        list.sort_by_key(|report| report.pos.map(|pos| (pos.source, pos.start)));
        let mut problems: Vec<Problem> = list.into_iter().map(|report| place(report, sources)).collect();
        if more > 0 {
            problems.push(Problem {
                severity: Severity::Error,
                file: String::new(),
                line: 0,
                column: 0,
                length: 1,
                key: String::new(),
                expected: format!("at most {MAX_PROBLEMS} problems"),
                found: format!("{more} more"),
                suggestion: "correct the ones above first".into(),
                repeated: 0,
            });
        }
        problems
    }
}

fn place(report: Report, sources: &Sources) -> Problem {
    let (file, line, column) = report.pos.map_or_else(|| (String::new(), 0, 0), |pos| sources.place(pos));
    let length = report
        .pos
        .and_then(|pos| sources.get(pos)?.text().get(pos.start as usize..pos.end as usize))
        .and_then(|text| text.lines().next())
        .map_or(1, |text| text.chars().count().max(1));
    Problem {
        severity: report.severity,
        file,
        line,
        column,
        length,
        key: report.key,
        expected: report.expected,
        found: report.found,
        suggestion: report.suggestion,
        repeated: report.repeated,
    }
}

/// A problem that was just reported and may still get advice.
pub(crate) struct Told<'a> {
    problems: &'a Problems,
    index: Option<usize>,
}

impl Told<'_> {
    pub(crate) fn help(self, suggestion: impl Into<String>) {
        let mut list = self.problems.list.borrow_mut();
        if let Some(report) = self.index.and_then(|index| list.get_mut(index)) {
            report.suggestion = redact::urls(&suggestion.into()).into_owned();
        }
    }
}

/// The candidate nearest to `word`, if it is near enough to be a misspelling of it; never the word itself.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wanted = folded(word);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let shorter = candidate.len().min(word.len());
            *distance <= (shorter / 3).max(1) && *distance < shorter
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean ..?`, or the candidates where they are few, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED: usize = 12;
    let candidates: Vec<&str> = candidates.into_iter().filter(|candidate| *candidate != word).collect();
    if let Some(candidate) = nearest(word, candidates.iter().copied()) {
        return format!("did you mean {candidate:?}?");
    }
    if candidates.is_empty() || candidates.len() > LISTED {
        return String::new();
    }
    format!("known: {}", candidates.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_the_list_is_bounded() {
        let problems = Problems::default();
        for _ in 0..3 {
            problems.error(Some(Pos::new(0, 4, 5)), "a", "x", "y").help("do z");
        }
        for n in 0..MAX_PROBLEMS + 5 {
            problems.warning(None, format!("k{n}"), "x", "y");
        }
        assert_eq!(problems.errors(), 3);
        let mut sources = Sources::default();
        sources.add("f".into(), "f".into(), "a = b\n");
        let list = problems.finish(&sources);
        assert_eq!(list.len(), MAX_PROBLEMS + 1);
        let first = list.iter().find(|problem| problem.key == "a").unwrap();
        assert_eq!((first.line, first.column, first.repeated), (1, 5, 2));
        assert_eq!(first.to_string(), "f:1:5: error: a: expected x, found y (do z)");
        assert_eq!(list.last().unwrap().found, "6 more");
    }

    #[test]
    fn suggestions() {
        let keys = ["poll_interval", "stale_after", "range"];
        assert_eq!(nearest("pol_intervall", keys), Some("poll_interval"));
        assert_eq!(nearest("Stale-After", keys), Some("stale_after"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("v", ["u"]), None);
        assert_eq!(nearest("dlms", ["dlms", "modbus"]), None, "never the word itself");
        assert_eq!(nearest("dlms", ["dlms", "dlm"]), Some("dlm"));
        assert_eq!(did_you_mean("dlms", ["dlms"]), "");
        assert_eq!(did_you_mean("colour", keys), "known: poll_interval, stale_after, range");
    }
}
