//! What is wrong with a configured value, in the form every report of the gateway uses: what was
//! expected, what was found, what to do. Kept apart from run-time errors, because a problem is shown
//! by `check` together with all others and never starts a session.

use std::fmt;

/// One wrong or doubtful value in the configuration of a Modbus device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// What to do, may be empty.
    pub hint: String,
}

impl Problem {
    /// Builds a problem from its three parts.
    pub fn new(expected: impl Into<String>, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into(), hint: hint.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

impl std::error::Error for Problem {}
