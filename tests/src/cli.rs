//! The command line, run as a person would.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::built;

/// What one command did.
#[derive(Debug, Clone)]
pub struct Done {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Error output.
    pub err: String,
}

impl Done {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another.
    #[must_use]
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("expected JSON: {e}: {self:?}"))
    }

    /// Both outputs.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs `busbar` in `dir`.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn busbar(dir: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(built::gateway());
    command.args(args).current_dir(dir).stdin(Stdio::null()).env("NO_COLOR", "1");
    let output = command.output().unwrap();
    Done {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
