//! Errors, sorted by consequence: what happens next decides the constructor, not where the error was found.
//!
//! | constructor | session | host does |
//! |---|---|---|
//! | [`Error::refused`] | lives | asks again later |
//! | [`Error::no_answer`] | lives for the other devices, this one is lost | reconnects this device |
//! | [`Error::session`] | is dropped | reconnects every device of the endpoint |
//! | [`Error::configuration`] | lives | shows it, does not try again by itself |
//! | [`Error::unsupported`] | lives | takes another way, or says so |
//! | [`Error::cancelled`] | lives | nothing |
//! | [`Error::bug`] | is dropped | reconnects, shows the text |

use std::fmt;

use busbar_contract::{Failure, FailureKind, Malformed};

/// Result of a driver or sink operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. The text is for an operator: what was expected, what was found, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Failure);

impl Error {
    fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self(Failure::new(kind, text))
    }

    /// The peer refused; the session lives.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Refused, text)
    }

    /// `retries` + 1 exchanges in a row got no answer: this device is lost, others on the endpoint may live.
    pub fn no_answer(text: impl Into<String>) -> Self {
        Self::new(FailureKind::NoAnswer, text)
    }

    /// The session is over for every device of the endpoint.
    pub fn session(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Session, text)
    }

    /// The configuration is wrong; trying again does not help.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Configuration, text)
    }

    /// The protocol, the device or this plugin has no such operation.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Unsupported, text)
    }

    /// Ended early because the host asked for it ([`crate::Context::cancelled`]).
    pub fn cancelled(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Cancelled, text)
    }

    /// Something that cannot happen did.
    pub fn bug(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Bug, text)
    }

    pub(crate) fn deadline(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Deadline, text)
    }

    /// With the device's own code: an exception code, an SCSM error, an end code.
    #[must_use]
    pub fn code(mut self, code: impl fmt::Display) -> Self {
        self.0.code = Some(code.to_string());
        self
    }

    /// The consequence.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The operator's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The session does not survive this error.
    #[must_use]
    pub const fn ends_session(&self) -> bool {
        matches!(self.0.kind, FailureKind::Session | FailureKind::Deadline | FailureKind::Bug)
    }

    pub(crate) fn into_failure(self) -> Failure {
        self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        match &self.0.code {
            Some(code) => write!(f, " (code {code})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// A broken socket or serial line ends the session.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::session(error.to_string())
    }
}

/// A body that breaks the contract is a bug of one side.
impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::bug(error.to_string())
    }
}
