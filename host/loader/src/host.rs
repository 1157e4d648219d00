//! What the host offers to plugins, as a safe trait: the edges of the core implement [`HostCallbacks`], the loader
//! adapts it to the waist ([`crate::receive`]) and to worker processes, after checking everything that arrives (R8).
//!
//! Callbacks run on threads of the plugin (or of its worker's reader): they only enqueue and return (R2). A panic in
//! one is caught, counted and answered with "refused".

use std::fmt;

use busbar_contract::{Event, Malformed, Samples};
use serde::{Deserialize, Serialize};

/// Answer of a non-blocking call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Taken.
    Accepted,
    /// Taken, but the queue is filling: slow down.
    Congested,
    /// Not taken: queue full, stopped, unknown instance, or the other side broke the contract.
    Refused,
    /// The receiver does not know the operation.
    Unsupported,
}

impl Admission {
    /// The code on the waist.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Accepted => busbar_abi::ACCEPTED,
            Self::Congested => busbar_abi::CONGESTED,
            Self::Refused => busbar_abi::REFUSED,
            Self::Unsupported => busbar_abi::UNSUPPORTED,
        }
    }

    /// Reads the code; unknown codes count as refused.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            busbar_abi::ACCEPTED => Self::Accepted,
            busbar_abi::CONGESTED => Self::Congested,
            busbar_abi::UNSUPPORTED => Self::Unsupported,
            _ => Self::Refused,
        }
    }

    /// The receiver has it: a completion will follow (R4).
    #[must_use]
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::Accepted | Self::Congested)
    }
}

/// A checked batch from a plugin: every reference lies inside the blob, texts are UTF-8, unknown bits are cleared;
/// a sample that was malformed has become `none, invalid|failure`.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The request it answers; 0 = unsolicited.
    pub id: u64,
    /// Commit token; 0 = none.
    pub token: u32,
    /// Bit set of `busbar_contract::batch`, known bits only.
    pub flags: u32,
    /// The samples.
    pub samples: Samples,
}

/// What became of a batch. A refused one comes back, so that a worker's reader can offer it again.
#[derive(Debug)]
pub enum Pushed {
    /// Taken.
    Accepted,
    /// Taken; the plugin is asked to slow down.
    Congested,
    /// No room now.
    Refused(Push),
}

/// Something that is not a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// A well-formed event.
    Event(Event),
    /// A body or batch that does not follow the contract. With a request number other than 0 the request it was
    /// meant for gets no other completion: fail it as the plugin's bug.
    Malformed(Malformed),
    /// Samples were lost between a worker and the host, because the host refused them for longer than
    /// [`crate::worker::REFUSAL_PATIENCE`] (R9: mark the instance's points, read again).
    Lost {
        /// How many.
        samples: usize,
        /// The batch would have completed the request.
        last: bool,
    },
}

/// Severity of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something the plant notices.
    Error,
    /// Something the plant may notice.
    Warn,
    /// Normal operation.
    Info,
    /// For commissioning.
    Debug,
    /// For developers.
    Trace,
}

impl Level {
    /// Reads the code of the waist; unknown codes become `Trace`.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            _ => Self::Trace,
        }
    }

    /// The code of the waist.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Error => 1,
            Self::Warn => 2,
            Self::Info => 3,
            Self::Debug => 4,
            Self::Trace => 5,
        }
    }

    /// `error`, `warn`, ...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Value of a log field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum FieldValue {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// One log record of a plugin, bounded and UTF-8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Severity.
    pub level: Level,
    /// Device number within the instance.
    #[serde(default)]
    pub device: Option<u32>,
    /// Module path in the plugin.
    pub target: String,
    /// Source file; may be empty.
    #[serde(default)]
    pub file: String,
    /// Source line.
    #[serde(default)]
    pub line: u32,
    /// The text.
    pub message: String,
    /// Typed fields in order.
    #[serde(default)]
    pub fields: Vec<(String, FieldValue)>,
}

/// What the host does with what plugins say. Instance 0 is the plugin itself (heartbeat, log without instance).
pub trait HostCallbacks: Send + Sync + 'static {
    /// A checked batch of a live instance. Never blocks.
    fn push(&self, inst: u64, push: Push) -> Pushed;
    /// A checked event of a live instance, or what was wrong with it. `req` 0 = no request. Never blocks.
    fn event(&self, inst: u64, req: u64, arrival: Arrival) -> Admission;
    /// A log record; `inst` 0 where the plugin named no live instance. Never blocks.
    fn log(&self, inst: u64, entry: LogEntry);
    /// The worker process is gone, with all its instances and requests; nothing follows. In-process plugins never
    /// call it.
    fn down(&self, reason: &str);
}
