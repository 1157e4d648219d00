//! What could not be understood, and what was understood in one of two possible ways: all of it, each with its place.

use busbar_config::{Problem, Severity, Sources, render, without_passwords};
use serde_json::{Value as Json, json};

/// Most findings that are kept; the rest is only counted.
pub const MAX_FINDINGS: usize = 500;
/// Longest value that is shown.
const SHOWN: usize = 60;

/// Bytes `start..end` of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Where in the file something is, in its own words.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct At<'a> {
    pub(crate) span: Option<Span>,
    pub(crate) section: &'a str,
    pub(crate) key: &'a str,
    /// Element of a list, from 1.
    pub(crate) index: Option<usize>,
}

impl At<'_> {
    pub(crate) fn item(self, index: usize, span: Span) -> Self {
        Self { span: Some(span), index: Some(index), ..self }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Severity, file, line, column, expected, found, what to do. An error is something that was not understood.
    pub problem: Problem,
    /// Section of an INI file, or name of a variable in a map; empty where there is none.
    pub section: String,
    /// Key within it; empty where the section itself is meant.
    pub key: String,
    /// Which element of a list, from 1.
    pub index: Option<usize>,
}

impl Finding {
    /// For machines.
    #[must_use]
    pub fn json(&self) -> Json {
        let Problem { severity, file, line, column, expected, found, suggestion, .. } = &self.problem;
        json!({
            "severity": severity, "file": file, "line": line, "column": column, "section": self.section,
            "key": self.key, "index": self.index, "expected": expected, "found": found, "suggestion": suggestion,
        })
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) sources: Sources,
    list: Vec<Finding>,
    more: usize,
    errors: usize,
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        at: At<'_>,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: &str,
    ) {
        self.errors += 1;
        self.add(Severity::Error, at, expected.into(), found.into(), help);
    }

    pub(crate) fn warning(
        &mut self,
        at: At<'_>,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: &str,
    ) {
        self.add(Severity::Warning, at, expected.into(), found.into(), help);
    }

    /// A problem of a whole file.
    pub(crate) fn file(&mut self, problem: Problem) {
        self.errors += 1;
        self.push(Finding { problem, section: String::new(), key: String::new(), index: None });
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// What is found from now on is only counted: no need to look for words about it.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    fn add(&mut self, severity: Severity, at: At<'_>, expected: String, found: String, help: &str) {
        // Its place is not looked up either: a hostile file has a million of them in long lines.
        if self.is_full() {
            self.more += 1;
            return;
        }
        let found = without_passwords(&found).into_owned();
        let (file, line, column, length) = self.place(at.span);
        let mut key = if at.section.is_empty() { String::new() } else { format!("[{}]", at.section) };
        if !at.key.is_empty() {
            key.push_str(if key.is_empty() { "" } else { " " });
            key.push_str(at.key);
        }
        if let Some(index) = at.index {
            key.push_str(&format!(", item {index}"));
        }
        let suggestion = help.to_owned();
        let problem =
            Problem { severity, file, line, column, length, key, expected, found, suggestion, repeated: 0 };
        let (section, key) = (at.section.to_owned(), at.key.to_owned());
        self.push(Finding { problem, section, key, index: at.index });
    }

    fn push(&mut self, finding: Finding) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.list.push(finding);
        }
    }

    /// File, line, column and length of a span.
    pub(crate) fn place(&self, span: Option<Span>) -> (String, usize, usize, usize) {
        let source = span.and_then(|span| Some((span, self.sources.files().get(span.source)?)));
        let Some((span, source)) = source else { return (String::new(), 0, 0, 1) };
        let (line, column) = source.line_column(span.start);
        let text = source.text().get(span.start..span.end).unwrap_or_default();
        let length = text.lines().next().unwrap_or_default().chars().count().max(1);
        (source.name.clone(), line, column, length)
    }

    /// In the order of files and places.
    pub(crate) fn finish(mut self) -> (Vec<Finding>, Sources) {
        let order =
            |finding: &Finding| (finding.problem.file.clone(), finding.problem.line, finding.problem.column);
        let files: Vec<String> = self.sources.files().iter().map(|source| source.name.clone()).collect();
        let file = |name: &str| files.iter().position(|known| known == name).unwrap_or(usize::MAX);
        self.list.sort_by_key(|finding| {
            let (name, line, column) = order(finding);
            (file(&name), line, column)
        });
        if self.more > 0 {
            let expected = format!("at most {MAX_FINDINGS} things to say");
            let mut problem =
                file_problem("", &expected, &format!("{} more", self.more), "correct these first");
            problem.severity = Severity::Error;
            self.list.push(Finding { problem, section: String::new(), key: String::new(), index: None });
        }
        (self.list, self.sources)
    }
}

/// A problem without a place in the text.
pub(crate) fn file_problem(file: &str, expected: &str, found: &str, help: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        file: file.to_owned(),
        line: 0,
        column: 0,
        length: 1,
        key: String::new(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        suggestion: help.to_owned(),
        repeated: 0,
    }
}

/// All findings for people, each with its line; empty text when there are none.
#[must_use]
pub fn human(findings: &[Finding], sources: &Sources, colours: bool) -> String {
    let problems: Vec<Problem> = findings.iter().map(|finding| finding.problem.clone()).collect();
    render::human(&problems, sources, colours)
}

/// A value as it is shown: quoted, short.
pub(crate) fn show(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        format!("{text:?}")
    } else {
        format!("{:?}...", text.chars().take(SHOWN).collect::<String>())
    }
}

/// `did you mean "x"?` where something known is near.
pub(crate) fn did_you_mean<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    /// Three edits and at least half of the word: beyond that it is another word.
    const FAR: usize = 3;
    /// Longer words are no misspelt keys; the distance of two words costs the product of their lengths.
    const LONGEST: usize = 40;
    if text.len() > LONGEST {
        return String::new();
    }
    let text = text.to_ascii_lowercase();
    known
        .into_iter()
        .filter(|word| word.len() <= LONGEST)
        .map(|word| (strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= FAR && *distance * 2 <= word.len())
        .min()
        .map(|(_, word)| format!("did you mean {word}?"))
        .unwrap_or_default()
}
