//! Why a device refuses a command, in its words and in the gateway's.

use std::fmt;

use iec61850_rs::proto::data::Value;

use crate::data;
use crate::name::Name;

/// Why a command was refused, in the gateway's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not selected.
    NotSelected,
    /// Another command is under way, or another client has the object.
    Busy,
    /// Blocked by interlocking.
    Interlocked,
    /// Blocked by the synchrocheck.
    Synchro,
    /// The device is in local mode.
    LocalMode,
    /// It took too long.
    Timeout,
    /// The device does not do this.
    Unsupported,
    /// Any other cause of the device.
    DeviceRefused,
}

/// Why a command was refused or ended (IEC 61850-7-2 table on AddCause; 8-1 table 77).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddCause(pub i64);

/// Names in the order of their codes.
const ADD_CAUSES: [&str; 28] = [
    "unknown",
    "not-supported",
    "blocked-by-switching-hierarchy",
    "select-failed",
    "invalid-position",
    "position-reached",
    "parameter-change-in-execution",
    "step-limit",
    "blocked-by-mode",
    "blocked-by-process",
    "blocked-by-interlocking",
    "blocked-by-synchrocheck",
    "command-already-in-execution",
    "blocked-by-health",
    "1-of-n-control",
    "abortion-by-cancel",
    "time-limit-over",
    "abortion-by-trip",
    "object-not-selected",
    "object-already-selected",
    "no-access-authority",
    "ended-with-overshoot",
    "abortion-due-to-deviation",
    "abortion-by-communication-loss",
    "abortion-by-command",
    "none",
    "inconsistent-parameters",
    "locked-by-other-client",
];

impl AddCause {
    /// Not supported.
    pub const NOT_SUPPORTED: Self = Self(1);
    /// Blocked by switching hierarchy: the device is in local mode.
    pub const SWITCHING_HIERARCHY: Self = Self(2);
    /// Blocked by interlocking.
    pub const INTERLOCKING: Self = Self(10);
    /// Blocked by synchrocheck.
    pub const SYNCHROCHECK: Self = Self(11);
    /// A command is being executed.
    pub const IN_EXECUTION: Self = Self(12);
    /// Another control of the same group is being executed.
    pub const ONE_OF_N: Self = Self(14);
    /// The command took too long.
    pub const TIME_LIMIT: Self = Self(16);
    /// Not selected.
    pub const NOT_SELECTED: Self = Self(18);
    /// Selected already.
    pub const ALREADY_SELECTED: Self = Self(19);
    /// Locked by another client.
    pub const LOCKED: Self = Self(27);

    /// The gateway's word for it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NOT_SUPPORTED => Reason::Unsupported,
            Self::SWITCHING_HIERARCHY => Reason::LocalMode,
            Self::INTERLOCKING => Reason::Interlocked,
            Self::SYNCHROCHECK => Reason::Synchro,
            Self::IN_EXECUTION | Self::ONE_OF_N | Self::ALREADY_SELECTED | Self::LOCKED => Reason::Busy,
            Self::NOT_SELECTED => Reason::NotSelected,
            Self::TIME_LIMIT => Reason::Timeout,
            _ => Reason::DeviceRefused,
        }
    }

    /// The name the standard gives the code.
    #[must_use]
    pub fn name(self) -> &'static str {
        let place = usize::try_from(self.0).ok();
        place.and_then(|place| ADD_CAUSES.get(place)).copied().unwrap_or("not named by the standard")
    }
}

impl fmt::Display for AddCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddCause {} ({})", self.0, self.name())
    }
}

/// `LastApplError` (8-1 table 76).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplError {
    /// Reference of the control object, as the device writes it.
    pub object: String,
    /// Error: 0 none, 1 unknown, 2 time-out test not ok, 3 operator test not ok.
    pub error: i64,
    /// Number of the command.
    pub ctl_num: u8,
    /// The cause.
    pub cause: AddCause,
}

impl ApplError {
    /// Reads the structure.
    ///
    /// # Errors
    /// What was expected.
    pub fn read(value: &Value) -> Result<Self, String> {
        let member = |index| data::at(value, &[index]);
        let read = || {
            Some(Self {
                object: data::text(member(0)?)?.to_owned(),
                error: data::integer(member(1)?)?,
                ctl_num: u8::try_from(data::integer(member(3)?)?).ok()?,
                cause: AddCause(data::integer(member(4)?)?),
            })
        };
        read().ok_or_else(|| "LastApplError: expected cntrlObj, error, origin, ctlNum, addCause".to_owned())
    }
}

impl ApplError {
    /// True where it is about this control and this number.
    #[must_use]
    pub fn is_about(&self, control: &Name, ctl_num: u8) -> bool {
        // Devices write the reference of Oper, of the object, or of the object without constraint.
        let written = control.to_string();
        let dotted = written.replacen("$CO$", ".", 1).replace('$', ".");
        let names = |base: &str| {
            let rest = self.object.strip_prefix(base);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['$', '.']))
        };
        self.ctl_num == ctl_num && (names(&written) || names(&dotted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_belongs_to_its_control() {
        let control = Name::new("LD", "CSWI1$CO$Pos");
        let about = |object: &str, ctl_num| ApplError {
            object: object.into(),
            error: 0,
            ctl_num,
            cause: AddCause(10),
        };
        for object in ["LD/CSWI1$CO$Pos$Oper", "LD/CSWI1$CO$Pos", "LD/CSWI1.Pos", "LD/CSWI1.Pos.SBOw"] {
            assert!(about(object, 4).is_about(&control, 4), "{object}");
        }
        assert!(!about("LD/CSWI1$CO$Pos$Oper", 5).is_about(&control, 4));
        assert!(!about("LD/CSWI1$CO$Pos2$Oper", 4).is_about(&control, 4));
        assert!(!about("LD2/CSWI1$CO$Pos$Oper", 4).is_about(&control, 4));
    }

    #[test]
    fn a_cause_has_its_name() {
        let value = Value::Structure(vec![
            Value::VisibleString("LD/CSWI1$CO$Pos$Oper".into()),
            Value::Integer(0),
            Value::Structure(vec![Value::Integer(3), Value::OctetString(vec![])]),
            Value::Unsigned(4),
            Value::Integer(10),
        ]);
        let error = ApplError::read(&value).unwrap();
        assert_eq!(error.cause.to_string(), "AddCause 10 (blocked-by-interlocking)");
        assert_eq!(error.ctl_num, 4);
        assert_eq!(AddCause(99).name(), "not named by the standard");
        assert!(ApplError::read(&Value::Boolean(true)).is_err());
        assert_eq!(AddCause(10).reason(), Reason::Interlocked);
        assert_eq!(AddCause(2).reason(), Reason::LocalMode);
        assert_eq!(AddCause(25).reason(), Reason::DeviceRefused);
    }
}
