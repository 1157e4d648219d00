//! Why a plugin cannot be used, as one short sentence for the operator.
//!
//! Every refusal on the way from a deployed file to a running plugin ends here: the sentence names the file, says
//! what was expected, what was found and what to do, fits on one line and is bounded, whatever the loader, the
//! dynamic linker or a hostile file put into it.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

/// Longest sentence, bytes.
pub const MAX_SENTENCE: usize = 190;
/// Longest file name inside a sentence, bytes; longer ones keep their end.
const MAX_NAME: usize = 60;

/// Where on the way from file to running plugin it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// No such file in the plugin directories.
    Find,
    /// The bytes are no plugin for this machine.
    Preflight,
    /// No private copy could be made.
    Stage,
    /// It failed in the probe child.
    Probe,
    /// The dynamic linker, the layout check or the description refused it.
    Load,
    /// `init` or `open` failed.
    Start,
    /// A later call failed, or the worker died.
    Call,
}

/// A refusal. `Display` is the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadError {
    /// Where it ended.
    pub step: Step,
    /// One line, at most [`MAX_SENTENCE`] bytes, begins with the file or plugin name.
    pub text: String,
}

impl LoadError {
    /// `FILE: text`; only the last component of `file` is shown.
    pub fn new(step: Step, file: &Path, text: impl AsRef<str>) -> Self {
        Self { step, text: sentence(&format!("{}: {}", short_name(file), text.as_ref())) }
    }

    /// A sentence about something that is not a plugin file (a directory, the process).
    pub fn general(step: Step, text: impl AsRef<str>) -> Self {
        Self { step, text: sentence(text.as_ref()) }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LoadError {}

/// The last component of a path, shortened from the left.
pub(crate) fn short_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    if name.len() <= MAX_NAME {
        return name;
    }
    let start = name.char_indices().map(|(at, _)| at).find(|at| name.len() - at <= MAX_NAME - 3);
    format!("...{}", start.and_then(|at| name.get(at..)).unwrap_or_default())
}

/// One line of at most [`MAX_SENTENCE`] bytes: white space and control characters become single blanks.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_SENTENCE));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() > MAX_SENTENCE {
            break;
        }
    }
    if out.len() > MAX_SENTENCE {
        let end = (0..=MAX_SENTENCE - 3).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_one_bounded_line() {
        let long = "\n\tä\u{7}\u{1b}[31m".repeat(500);
        let text = sentence(&long);
        assert!(text.len() <= MAX_SENTENCE && text.ends_with("..."), "{text}");
        assert!(!text.contains(char::is_control));
        assert_eq!(sentence(" a\n\n b\t"), "a b");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn long_file_names_keep_their_end() {
        let name = format!("/x/{}_modbus.so", "ö".repeat(100));
        let short = short_name(Path::new(&name));
        assert!(
            short.len() <= MAX_NAME && short.ends_with("_modbus.so") && short.starts_with("..."),
            "{short}"
        );
    }
}
