//! Commands: what a sink or an operator asks of a point, and how it ends.
//!
//! A command is never queued, stored, replayed or repeated. Its answers are stages with the same id.

use serde::{Deserialize, Serialize};

/// What to do with the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reserve the point for this client.
    Select,
    /// Execute.
    Operate,
    /// End a selection.
    Cancel,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Origin {
    /// Sink name, or `cli`, `api`.
    pub sink: String,
    /// Client within the sink: master name, MQTT client, user.
    pub client: String,
    /// Originator category (IEC 61850-7-3 orCat), 0 = not supported.
    pub category: u8,
    /// Originator identification.
    pub ident: String,
}

/// How far a command got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The selection stands.
    Selected,
    /// The device accepted; the end of the movement follows as `Finished`, where the protocol tells it.
    Accepted,
    /// The device reported the end (or accepted, where it tells no end). Last answer.
    Finished,
    /// Not executed. Last answer.
    Refused,
    /// It left for the device and no answer came in time: nobody knows. Last answer.
    Unknown,
}

impl Stage {
    /// No further answer follows.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Finished | Self::Refused | Self::Unknown)
    }
}

/// Why a command was refused or is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the documentation: SEMANTICS of commands in ARCHITECTURE.md")]
pub enum Reason {
    NotWritable,
    OutOfRange,
    NotSelected,
    Busy,
    LockedOut,
    DeviceLost,
    Resync,
    Handover,
    Interlocked,
    Synchro,
    LocalMode,
    Stale,
    Timeout,
    Unsupported,
    DeviceRefused,
}

impl Reason {
    /// The word used in answers, the audit log and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotWritable => "not_writable",
            Self::OutOfRange => "out_of_range",
            Self::NotSelected => "not_selected",
            Self::Busy => "busy",
            Self::LockedOut => "locked_out",
            Self::DeviceLost => "device_lost",
            Self::Resync => "resync",
            Self::Handover => "handover",
            Self::Interlocked => "interlocked",
            Self::Synchro => "synchro",
            Self::LocalMode => "local_mode",
            Self::Stale => "stale",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::DeviceRefused => "device_refused",
        }
    }
}

/// One answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How far it got.
    pub stage: Stage,
    /// Why, for `Refused` and `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The device's own code and words, or more detail for the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl Answer {
    /// An answer without reason.
    #[must_use]
    pub const fn stage(stage: Stage) -> Self {
        Self { stage, reason: None, text: String::new() }
    }

    /// Refused, with the reason and a text for the operator.
    #[must_use]
    pub fn refused(reason: Reason, text: impl Into<String>) -> Self {
        Self { stage: Stage::Refused, reason: Some(reason), text: text.into() }
    }

    /// Unknown, with the reason and a text for the operator.
    #[must_use]
    pub fn unknown(reason: Reason, text: impl Into<String>) -> Self {
        Self { stage: Stage::Unknown, reason: Some(reason), text: text.into() }
    }
}
