//! Events: plugin to host. ACK is binary ([`crate::binary`]), everything else JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    Answer, Malformed, Origin, Value, binary, op,
    request::{PointValue, json, parse},
};

/// Sorted by consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The peer refused; the session lives.
    Refused,
    /// `retries` + 1 exchanges in a row got no answer: the device is lost, other devices of the endpoint may live.
    NoAnswer,
    /// The session is over: every device of the endpoint must connect again.
    Session,
    /// The configuration is wrong; trying again does not help.
    Configuration,
    /// The plugin does not know the operation.
    Unsupported,
    /// Not complete by the deadline.
    Deadline,
    /// Ended by CANCEL or stop.
    Cancelled,
    /// A bug in the plugin: panic, broken contract.
    Bug,
}

/// Why a request or an instance failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Consequence.
    pub kind: FailureKind,
    /// For the operator: expected, found, what to do.
    pub text: String,
    /// The device's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Failure {
    /// A failure without device code.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), code: None }
    }
}

/// STATE: a session or the far side came up or went down by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Device number; `None` = the whole endpoint, or the sink's far side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Up or down.
    pub up: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// What BIND learned about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundGroup {
    /// Group number.
    pub group: u32,
    /// Exchanges one READ will need: the host sizes its deadline by it.
    pub exchanges: u32,
}

/// A point that could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Point number.
    pub point: u32,
    /// Why.
    pub reason: String,
}

/// Body of DONE: only what the request asked for is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// BIND: cost of each group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<BoundGroup>,
    /// BIND, SUBSCRIBE: points that cannot be served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// SUBSCRIBE: points that the device reports by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribed: Vec<u32>,
    /// SUBSCRIBE: the integrity period in force, milliseconds; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub integrity_ms: u64,
    /// COMMAND, BLOCK_WRITE: the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// CONNECT: what the peer said about itself (firmware, model).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// COMMAND from a sink. The host answers by ANSWER with the same request number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkCommand {
    /// Point number.
    pub point: u32,
    /// Select, operate, cancel.
    pub action: crate::Action,
    /// In engineering units, JSON form; the host converts to the point's kind.
    pub value: Json,
    /// The client within the sink; the host fills in the sink's name.
    pub origin: Origin,
    /// Execute without selection is refused.
    #[serde(default)]
    pub select_required: bool,
    /// Qualifier of the protocol.
    #[serde(default)]
    pub qualifier: u32,
    /// The device must check its interlocking.
    #[serde(default)]
    pub interlock_check: bool,
    /// The device must check synchronism.
    #[serde(default)]
    pub synchro_check: bool,
    /// Only a test.
    #[serde(default)]
    pub test: bool,
    /// When the client issued it, nanoseconds UTC; 0 = unknown.
    #[serde(default)]
    pub issued_ns: i64,
    /// Refuse after this wall-clock time, nanoseconds UTC; 0 = none.
    #[serde(default)]
    pub expires_ns: i64,
    /// The sink itself refuses (repeated, expired, malformed at its far side): the host never executes, whatever the
    /// stage says; it writes reason and text to the audit log and answers `refused` with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Answer>,
}

/// FETCH from a sink: fresh read of points, or of a named block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The points.
    #[serde(default)]
    pub points: Vec<u32>,
    /// `device/block` instead of points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// Milliseconds from now.
    pub deadline_ms: u64,
}

/// WRITE_BLOCK from a sink; values in engineering units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteBlock {
    /// `device/block`.
    pub block: String,
    /// The values.
    pub values: Vec<PointValue>,
    /// Who asks.
    pub origin: Origin,
    /// Milliseconds from now.
    pub deadline_ms: u64,
}

/// STATE_PUT and STATE_GET: durable key-value state of a device (`None`: of the sink).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Device number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Key, 1 to 128 bytes.
    pub key: String,
    /// Hex text; absent deletes (PUT) or asks (GET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// METADATA of points, known or changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Point number -> `{ unit, kind, texts, limits, description }`.
    pub points: Vec<(u32, Json)>,
}

/// METRIC: counters of the plugin, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Device number; `None` = the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Name and value.
    pub values: Vec<(String, f64)>,
}

/// FAULT: something the operator must know that ends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Device number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// A short word: `take_over`, `unexpected_answer`, ...
    pub code: String,
    /// For the operator.
    pub text: String,
}

/// GAP: samples of a device were lost before they reached the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Device number.
    pub device: u32,
    /// Why.
    pub reason: String,
    /// The points concerned; empty = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<u32>,
}

/// PAGE: a part of the answer to BROWSE, ready-to-paste points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// One entry per point: `{ name, address, type, unit, description, value }`.
    pub entries: Vec<Json>,
}

/// HEARTBEAT of a plugin's runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up.
    pub beat: u64,
}

/// An event with its body.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is documented at its body and its op code")]
pub enum Event {
    Opened,
    State(State),
    Done(Done),
    Failed(Failure),
    Progress(Answer),
    Page(Page),
    Ack { lane: u32, acks: Vec<binary::Ack> },
    Command(SinkCommand),
    Fetch(Fetch),
    WriteBlock(WriteBlock),
    StatePut(StateEntry),
    StateGet(StateEntry),
    Metadata(Metadata),
    Metric(Metric),
    Fault(Fault),
    Gap(Gap),
    Heartbeat(Heartbeat),
    Stopped,
}

impl Event {
    /// The operation code.
    #[must_use]
    pub const fn op(&self) -> u32 {
        use op::event as e;
        match self {
            Self::Opened => e::OPENED,
            Self::State(_) => e::STATE,
            Self::Done(_) => e::DONE,
            Self::Failed(_) => e::FAILED,
            Self::Progress(_) => e::PROGRESS,
            Self::Page(_) => e::PAGE,
            Self::Ack { .. } => e::ACK,
            Self::Command(_) => e::COMMAND,
            Self::Fetch(_) => e::FETCH,
            Self::WriteBlock(_) => e::WRITE_BLOCK,
            Self::StatePut(_) => e::STATE_PUT,
            Self::StateGet(_) => e::STATE_GET,
            Self::Metadata(_) => e::METADATA,
            Self::Metric(_) => e::METRIC,
            Self::Fault(_) => e::FAULT,
            Self::Gap(_) => e::GAP,
            Self::Heartbeat(_) => e::HEARTBEAT,
            Self::Stopped => e::STOPPED,
        }
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opened | Self::Stopped => Vec::new(),
            Self::State(b) => json(b),
            Self::Done(b) => json(b),
            Self::Failed(b) => json(b),
            Self::Progress(b) => json(b),
            Self::Page(b) => json(b),
            Self::Ack { lane, acks } => binary::encode_acks(*lane, acks),
            Self::Command(b) => json(b),
            Self::Fetch(b) => json(b),
            Self::WriteBlock(b) => json(b),
            Self::StatePut(b) | Self::StateGet(b) => json(b),
            Self::Metadata(b) => json(b),
            Self::Metric(b) => json(b),
            Self::Fault(b) => json(b),
            Self::Gap(b) => json(b),
            Self::Heartbeat(b) => json(b),
        }
    }

    /// Reads an event.
    pub fn decode(op: u32, body: &[u8]) -> Result<Self, Malformed> {
        use op::event as e;
        Ok(match op {
            e::OPENED => Self::Opened,
            e::STATE => Self::State(parse("STATE", body)?),
            e::DONE if body.is_empty() => Self::Done(Done::default()),
            e::DONE => Self::Done(parse("DONE", body)?),
            e::FAILED => Self::Failed(parse("FAILED", body)?),
            e::PROGRESS => Self::Progress(parse("PROGRESS", body)?),
            e::PAGE => Self::Page(parse("PAGE", body)?),
            e::ACK => binary::decode_acks(body).map(|(lane, acks)| Self::Ack { lane, acks })?,
            e::COMMAND => Self::Command(parse("COMMAND", body)?),
            e::FETCH => Self::Fetch(parse("FETCH", body)?),
            e::WRITE_BLOCK => Self::WriteBlock(parse("WRITE_BLOCK", body)?),
            e::STATE_PUT => Self::StatePut(parse("STATE_PUT", body)?),
            e::STATE_GET => Self::StateGet(parse("STATE_GET", body)?),
            e::METADATA => Self::Metadata(parse("METADATA", body)?),
            e::METRIC => Self::Metric(parse("METRIC", body)?),
            e::FAULT => Self::Fault(parse("FAULT", body)?),
            e::GAP => Self::Gap(parse("GAP", body)?),
            e::HEARTBEAT => Self::Heartbeat(parse("HEARTBEAT", body)?),
            e::STOPPED => Self::Stopped,
            other => return Err(Malformed::new("event op", "a known operation", other.to_string())),
        })
    }
}

/// A value with its point, as sinks and tests like to write it.
impl From<(u32, Value)> for PointValue {
    fn from((point, value): (u32, Value)) -> Self {
        Self { point, value }
    }
}
