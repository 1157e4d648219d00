//! Run-time errors, sorted by what follows from them.
//!
//! [`Error::consequence`] is the one place that decides whether a point, a device or the whole session is
//! affected; nobody else looks at the kind of an error for that.

use std::fmt;
use std::time::Duration;

/// Exception codes of MODBUS Application Protocol 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exception(pub u8);

impl Exception {
    /// The function is not supported.
    pub const ILLEGAL_FUNCTION: Self = Self(1);
    /// The address, or address plus count, does not exist.
    pub const ILLEGAL_DATA_ADDRESS: Self = Self(2);
    /// The count or value is not allowed.
    pub const ILLEGAL_DATA_VALUE: Self = Self(3);
    /// The device failed while executing.
    pub const SERVER_DEVICE_FAILURE: Self = Self(4);
    /// The device is busy with a long command.
    pub const SERVER_DEVICE_BUSY: Self = Self(6);
    /// The gateway has no path to the unit.
    pub const GATEWAY_PATH_UNAVAILABLE: Self = Self(10);
    /// The unit behind the gateway did not answer.
    pub const GATEWAY_TARGET_FAILED: Self = Self(11);

    /// The name the standard gives the code.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge",
            6 => "server device busy",
            7 => "negative acknowledge",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target device failed to respond",
            _ => "unknown exception",
        }
    }

    /// True where the device says that this address, count or function does not exist: asking again soon
    /// gives the same answer.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self.0, 1..=3)
    }

    /// True where a block may be refused because of one part of it, so that splitting can help.
    #[must_use]
    pub const fn may_be_a_hole(self) -> bool {
        matches!(self.0, 2 | 3)
    }

    /// True where a gateway reports that the unit behind it is silent.
    #[must_use]
    pub const fn is_unit_silent(self) -> bool {
        matches!(self.0, 10 | 11)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exception {} ({})", self.0, self.name())
    }
}

/// What an error means for the rest of the plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Only the points of this request are affected.
    PointsOnly,
    /// The device did not answer; others behind the same connection may.
    DeviceSilent,
    /// The connection is gone and could not be made again.
    SessionOver,
    /// The request was wrong before it left: a configuration or programming mistake.
    NotSent,
}

/// Why an exchange gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device answered and said no.
    #[error("unit {unit} refused function {function}: {exception}")]
    Refused {
        /// Unit id.
        unit: u8,
        /// Function code of the request.
        function: u8,
        /// Its reason.
        exception: Exception,
    },
    /// No answer in time.
    #[error("unit {unit} did not answer function {function} within {} ms{detail}", .after.as_millis())]
    NoAnswer {
        /// Unit id.
        unit: u8,
        /// Function code of the request.
        function: u8,
        /// How long was waited.
        after: Duration,
        /// What came instead, with a leading separator; may be empty.
        detail: String,
    },
    /// The answer breaks the protocol or belongs to another request.
    #[error("unit {unit}, function {function}: expected {expected}, got {found}")]
    Nonsense {
        /// Unit id.
        unit: u8,
        /// Function code of the request.
        function: u8,
        /// What a right answer would be.
        expected: String,
        /// What came.
        found: String,
    },
    /// The connection could not be opened or was lost.
    #[error("{peer}: {reason}")]
    SessionOver {
        /// Host and port, or the serial path.
        peer: String,
        /// Why.
        reason: String,
    },
    /// The request cannot be sent at all.
    #[error("{0}")]
    NotSent(String),
}

impl Error {
    /// What follows from this error.
    #[must_use]
    pub const fn consequence(&self) -> Consequence {
        match self {
            Self::Refused { exception, .. } if exception.is_unit_silent() => Consequence::DeviceSilent,
            // After nonsense the session has already dropped its connection and made it new, or reports
            // SessionOver with the next request: the device itself is there.
            Self::Refused { .. } | Self::Nonsense { .. } => Consequence::PointsOnly,
            Self::NoAnswer { .. } => Consequence::DeviceSilent,
            Self::SessionOver { .. } => Consequence::SessionOver,
            Self::NotSent(_) => Consequence::NotSent,
        }
    }

    /// True where a command that failed this way may still have been executed.
    #[must_use]
    pub const fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Refused { exception, .. } => matches!(exception.0, 5 | 10 | 11),
            Self::NoAnswer { .. } | Self::Nonsense { .. } | Self::SessionOver { .. } => true,
            Self::NotSent(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_decides() {
        let refused = |code| Error::Refused { unit: 1, function: 3, exception: Exception(code) };
        assert_eq!(refused(2).consequence(), Consequence::PointsOnly);
        assert_eq!(refused(11).consequence(), Consequence::DeviceSilent);
        assert_eq!(refused(2).to_string(), "unit 1 refused function 3: exception 2 (illegal data address)");
        let over = Error::SessionOver { peer: "10.0.0.1:502".into(), reason: "connection refused".into() };
        assert_eq!(over.consequence(), Consequence::SessionOver);
        assert!(over.may_have_been_executed() && !refused(2).may_have_been_executed());
    }
}
