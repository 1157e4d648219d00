//! Run-time errors, sorted by what follows from them.
//!
//! [`Error::consequence`] is the one place that decides whether a point, a request or the whole session is
//! affected.

use std::fmt;
use std::time::Duration;

/// Reason of one refused value (ISO 9506-2 `DataAccessError`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccessError(pub i64);

impl AccessError {
    /// The name the standard gives the code.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "object invalidated",
            1 => "hardware fault",
            2 => "temporarily unavailable",
            3 => "object access denied",
            4 => "object undefined",
            5 => "invalid address",
            6 => "type unsupported",
            7 => "type inconsistent",
            8 => "object attribute inconsistent",
            9 => "object access unsupported",
            10 => "object non-existent",
            11 => "object value invalid",
            _ => "unknown data access error",
        }
    }

    /// True where asking again soon gives the same answer: the object is not there or not readable.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self.0, 3..=10)
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data access error {} ({})", self.0, self.name())
    }
}

/// Why a whole service was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `confirmed-ErrorPDU`: the service ran and failed.
    Service {
        /// `errorClass`, the tag of the choice.
        class: u32,
        /// The code inside.
        code: i64,
    },
    /// `reject-PDU`: the peer could not act on the request at all.
    Rejected {
        /// `rejectReason`, the tag of the choice.
        reason: u32,
        /// The code inside.
        code: i64,
    },
}

impl Refusal {
    /// Name of the error class (ISO 9506-2 `ServiceError`).
    const fn class_name(class: u32) -> &'static str {
        match class {
            0 => "vmd state",
            1 => "application reference",
            2 => "definition",
            3 => "resource",
            4 => "service",
            5 => "service preempt",
            6 => "time resolution",
            7 => "access",
            8 => "initiate",
            9 => "conclude",
            10 => "cancel",
            11 => "file",
            _ => "others",
        }
    }

    /// True where the object named does not exist or may not be accessed.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::Service { class: 7 | 2, .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { class: 7, code } => {
                let name = match code {
                    1 => "object access unsupported",
                    2 => "object non-existent",
                    3 => "object access denied",
                    4 => "object invalidated",
                    _ => "other",
                };
                write!(f, "service error access/{code} ({name})")
            }
            Self::Service { class, code } => write!(f, "service error {}/{code}", Self::class_name(*class)),
            Self::Rejected { reason, code } => write!(f, "reject {reason}/{code}"),
        }
    }
}

/// What an error means for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Only what was asked for is affected; the session lives.
    RequestOnly,
    /// The device did not answer; counts towards its loss.
    DeviceSilent,
    /// The association is gone.
    SessionOver,
    /// The request was wrong before it left.
    NotSent,
}

/// Why a request gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device answered and said no.
    #[error("refused {service}: {refusal}")]
    Refused {
        /// What was asked.
        service: &'static str,
        /// Its reason.
        refusal: Refusal,
    },
    /// The answer cannot be read, or is not what was asked for.
    #[error("{service}: expected {expected}, got {found}")]
    Nonsense {
        /// What was asked.
        service: &'static str,
        /// What a right answer would be.
        expected: String,
        /// What came.
        found: String,
    },
    /// No answer in time. A later one is discarded.
    #[error("no answer to {service} within {} ms", .after.as_millis())]
    NoAnswer {
        /// What was asked.
        service: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The association ended.
    #[error("association over: {0}")]
    SessionOver(String),
    /// The request cannot be sent at all.
    #[error("{0}")]
    NotSent(String),
}

impl Error {
    /// What follows from this error.
    #[must_use]
    pub const fn consequence(&self) -> Consequence {
        match self {
            Self::Refused { .. } | Self::Nonsense { .. } => Consequence::RequestOnly,
            Self::NoAnswer { .. } => Consequence::DeviceSilent,
            Self::SessionOver(_) => Consequence::SessionOver,
            Self::NotSent(_) => Consequence::NotSent,
        }
    }

    /// True where a write that failed this way may still have been executed.
    #[must_use]
    pub const fn may_have_been_executed(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Nonsense { .. } | Self::SessionOver(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_decides() {
        let refused = Error::Refused { service: "Read", refusal: Refusal::Service { class: 7, code: 2 } };
        assert_eq!(refused.consequence(), Consequence::RequestOnly);
        assert_eq!(refused.to_string(), "refused Read: service error access/2 (object non-existent)");
        assert!(!refused.may_have_been_executed());
        let silent = Error::NoAnswer { service: "Write", after: Duration::from_secs(3) };
        assert_eq!(silent.to_string(), "no answer to Write within 3000 ms");
        assert!(silent.may_have_been_executed());
        assert_eq!(AccessError(10).to_string(), "data access error 10 (object non-existent)");
        assert!(AccessError(10).is_permanent() && !AccessError(2).is_permanent());
    }
}
