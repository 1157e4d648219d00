//! What travels over the control socket: one JSON object per line, bounded, in both directions.
//!
//! Calls without arguments are written as empty structs, because serde checks unknown fields only there.
//!
//! The client sends a [`Call`]; the server answers with [`Line`]s, the last of which is Rows, Readings, Done, Failed, or a
//! last stage of a command. Then the next call may follow on the same connection.

use busbar_contract::{Action, Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Longest line of a client, bytes.
pub const MAX_CALL: usize = 64 * 1024;
/// Longest line of the server, bytes (all points of a large site).
pub const MAX_LINE: usize = 256 * 1024 * 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Fresh values of a device; no points = all of them.
    Read {
        /// Device name.
        device: String,
        /// Point names within the device.
        #[serde(default)]
        points: Vec<String>,
        /// Time limit, milliseconds.
        deadline_ms: u64,
    },
    /// A command for a point.
    Command {
        /// `device/point`.
        point: String,
        /// Select, operate, cancel.
        action: Action,
        /// In engineering units.
        #[serde(default)]
        value: Json,
        /// Time limit, milliseconds; 0 = the device's own.
        #[serde(default)]
        deadline_ms: u64,
    },
    /// What a device offers.
    Browse {
        /// Device name.
        device: String,
        /// In the driver's words.
        #[serde(default)]
        arguments: Vec<String>,
        /// Time limit, milliseconds.
        deadline_ms: u64,
    },
    /// Refuse all commands.
    Lock {},
    /// Let commands pass again.
    Unlock {},
    /// Block a point.
    Block {
        /// `device/point`.
        point: String,
    },
    /// End blocking or substitution.
    Unblock {
        /// `device/point`.
        point: String,
    },
    /// Enter a value by hand.
    Substitute {
        /// `device/point`.
        point: String,
        /// In engineering units.
        value: Json,
    },
    /// No polling.
    Maintenance {
        /// Device name.
        device: String,
        /// On or off.
        on: bool,
    },
    /// Connected, no polling.
    Pause {
        /// Device name.
        device: String,
        /// On or off.
        on: bool,
    },
    /// Read the configuration again and apply what differs.
    Reload {
        /// Only show what differs.
        #[serde(default)]
        dry_run: bool,
    },
    /// Frame-level logging.
    FrameLog {
        /// Device name.
        device: String,
        /// On or off.
        on: bool,
    },
    /// Frames of a device as they come, for a while.
    Frames {
        /// Device name.
        device: String,
        /// How long, milliseconds.
        for_ms: u64,
    },
    /// Start the worker of a plugin again.
    PluginRestart {
        /// Plugin name.
        name: String,
        /// `driver` or `sink`, where both have this name.
        #[serde(default)]
        kind: Option<String>,
    },
    /// Try another version of a plugin; answered by steps and an end.
    PluginUpgrade {
        /// Plugin name.
        name: String,
        /// `driver` or `sink`, where both have this name.
        #[serde(default)]
        kind: Option<String>,
        /// The file; none = the version before.
        #[serde(default)]
        file: Option<String>,
    },
    /// Whether every plugin is loaded or has failed with a reason.
    Ready {
        /// All must run, every device and sink must be able to.
        #[serde(default)]
        strict: bool,
    },
    /// The point table.
    Points {
        /// Only this device.
        #[serde(default)]
        device: Option<String>,
    },
    /// States of devices.
    Devices {},
    /// States of plugins.
    Plugins {},
    /// States of sinks.
    Sinks {},
    /// Records that the far side of a sink refused and that are kept.
    Parked {
        /// Sink name.
        sink: String,
        /// First record number wanted.
        #[serde(default)]
        from: u64,
        /// Most records.
        #[serde(default = "parked_limit")]
        limit: usize,
    },
    /// Tries all parked records of a sink again, or gives them up.
    DecideParked {
        /// Sink name.
        sink: String,
        /// Again; otherwise they are discarded and counted.
        retry: bool,
    },
    /// Forgets the stored state of a device or sink.
    ClearState {
        /// `device/NAME` or `sink/NAME`.
        owner: String,
    },
}

/// Parked records shown when nothing else is asked.
const fn parked_limit() -> usize {
    100
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A stage of a command.
    Stage {
        /// The stage.
        answer: Answer,
    },
    /// Fresh values.
    Readings {
        /// As `GET /api/v1/points` shows them.
        rows: Vec<Json>,
    },
    /// A part of a browse.
    Page {
        /// Ready-to-paste points.
        entries: Vec<Json>,
    },
    /// A frame of the device that is watched.
    Frame {
        /// Milliseconds since 1970 UTC.
        ts: i64,
        /// `tx` or `rx`.
        direction: String,
        /// Hex digits.
        frame: String,
        /// What it means, in the driver's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        hint: String,
        /// Frames before this one that were not read in time.
        #[serde(default, skip_serializing_if = "is_zero")]
        lost: u64,
    },
    /// A step of an upgrade.
    Step {
        /// What happens.
        text: String,
    },
    /// An upgrade went well.
    Upgraded {
        /// What runs now.
        text: String,
    },
    /// The rows asked for.
    Rows {
        /// As the API shows them.
        rows: Vec<Json>,
    },
    /// What came of a reload.
    Reload {
        /// All of it.
        answer: Box<crate::reload::Answer>,
    },
    /// Done.
    Done,
    /// Not possible.
    Failed {
        /// For the operator.
        text: String,
        /// The call itself was wrong (unknown device, bad value), not the far side.
        #[serde(default)]
        usage: bool,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    /// Not possible, because of the far side.
    #[must_use]
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed { text: text.into(), usage: false }
    }

    /// Not possible, because the call was wrong.
    #[must_use]
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Failed { text: text.into(), usage: true }
    }

    /// No further line follows for this call.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Stage { answer } => answer.stage.is_last(),
            Self::Page { .. } | Self::Frame { .. } | Self::Step { .. } => false,
            Self::Upgraded { .. }
            | Self::Readings { .. }
            | Self::Rows { .. }
            | Self::Reload { .. }
            | Self::Done
            | Self::Failed { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_contract::Stage;

    #[test]
    fn calls_have_the_documented_form() {
        let call: Call =
            serde_json::from_str(r#"{"call":"command","point":"m/p","action":"operate","value":1.5}"#)
                .unwrap();
        let expected =
            Call::Command { point: "m/p".into(), action: Action::Operate, value: 1.5.into(), deadline_ms: 0 };
        assert_eq!(call, expected);
        assert!(serde_json::from_str::<Call>(r#"{"call":"lock","x":1}"#).is_err());
        assert!(serde_json::from_str::<Call>(r#"{"call":"format_disk"}"#).is_err());
        assert_eq!(serde_json::to_string(&Call::Lock {}).unwrap(), r#"{"call":"lock"}"#);
    }

    #[test]
    fn the_end_of_an_answer_is_known() {
        assert!(!Line::Stage { answer: Answer::stage(Stage::Accepted) }.is_last());
        assert!(Line::Stage { answer: Answer::stage(Stage::Finished) }.is_last());
        assert!(!Line::Page { entries: vec![] }.is_last());
        assert!(Line::failed("x").is_last() && Line::Done.is_last());
    }
}
