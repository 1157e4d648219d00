//! Requests: host to plugin. READ is binary ([`crate::binary::Read`]), everything else JSON.
//!
//! Time belongs to the host: every request that does I/O carries `deadline_ms`, counted from submit; the SDK
//! completes it by then. The host decides when to connect; a plugin never reconnects a device by itself.
//!
//! Completion (R4): a request with number 0 is answered by nobody; every other one gets exactly one completion. ANSWER
//! carries the plugin's number and gets none. BIND, ATTACH, DETACH, FRAME_LOG touch no session: BIND may come before
//! CONNECT and is valid for all later sessions, until the next BIND or DETACH of that device.
//!
//! COMMAND and BLOCK_WRITE end with DONE and an [`Answer`] even when the session died under them (`unknown`); the loss
//! of the session follows as STATE. FAILED answers them only when the body could not be read, or the operation is
//! unknown: nothing left for the device then.
//!
//! After FAILED `session`, `deadline` or `bug` the session of the endpoint is gone and every device needs CONNECT;
//! after `no_answer` the device named by the request; after `refused`, `unsupported`, `configuration`, `cancelled` nothing
//! has changed.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{Action, Answer, Malformed, Origin, Value, binary, op};

/// CONNECT, DISCONNECT, DETACH, PROBE of a device (`None`: the sink's far side).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfDevice {
    /// Device number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// ATTACH: a device joins the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// Device number.
    pub device: u32,
    /// Its name, for logs.
    pub name: String,
    /// Its `connection` table.
    pub connection: Json,
    /// Further keys of the device that belong to the driver.
    #[serde(default)]
    pub settings: Json,
    /// Of one exchange, milliseconds.
    pub response_timeout_ms: u64,
    /// Repetitions of an unanswered exchange.
    pub retries: u32,
}

/// One point of BIND.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindPoint {
    /// Point number.
    pub point: u32,
    /// Its name within the device, for logs.
    pub name: String,
    /// `address`, `type` and further keys that belong to the driver.
    pub spec: Json,
    /// Commands are allowed.
    #[serde(default)]
    pub writable: bool,
}

/// One read group of BIND: points with the same interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindGroup {
    /// Group number, unique within the instance (READ carries no device); a group belongs to one device.
    pub group: u32,
    /// Its points.
    pub points: Vec<u32>,
}

/// BIND: replaces the points and groups of a device. Answered by DONE with [`crate::event::BoundGroup`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    /// Device number.
    pub device: u32,
    /// All its points.
    pub points: Vec<BindPoint>,
    /// All its groups.
    pub groups: Vec<BindGroup>,
}

/// SUBSCRIBE: the answer names the points that the device will report by itself; the others are polled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Device number.
    pub device: u32,
    /// The points asked for.
    pub points: Vec<u32>,
    /// Integrity period asked of the device, milliseconds; 0 = none.
    pub integrity_ms: u64,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// COMMAND: select, operate or cancel one point. Answered by PROGRESS and DONE with [`Answer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Device number.
    pub device: u32,
    /// Point number.
    pub point: u32,
    /// Select, operate, cancel.
    pub action: Action,
    /// The raw value: scale, offset and invert are already undone.
    pub value: Value,
    /// Who asked.
    pub origin: Origin,
    /// Qualifier of the protocol, 0 = none.
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
    /// When it was issued, nanoseconds UTC.
    pub issued_ns: i64,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// BROWSE: what the device offers. Answered by PAGE and DONE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Browse {
    /// Device number.
    pub device: u32,
    /// What to look at, in the driver's words (Modbus: ranges).
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// BLOCK_READ: a consistent read. Answered by a batch with BLOCK and LAST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRead {
    /// Device number.
    pub device: u32,
    /// The points, read as one unit.
    pub points: Vec<u32>,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// One point of BLOCK_WRITE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointValue {
    /// Point number.
    pub point: u32,
    /// Raw value.
    pub value: Value,
}

/// BLOCK_WRITE: the points, read back equal, then the commit point. Answered by DONE with [`Answer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockWrite {
    /// Device number.
    pub device: u32,
    /// What to write first.
    pub values: Vec<PointValue>,
    /// Written last, only when the rest was read back equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<PointValue>,
    /// Who asked.
    pub origin: Origin,
    /// Milliseconds from submit.
    pub deadline_ms: u64,
}

/// CANCEL: a wish; the request named still gets its completion (R4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The running request.
    pub request: u64,
}

/// COMMITTED: the fate of a batch that was pushed with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Device number.
    pub device: u32,
    /// The token.
    pub token: u32,
    /// On disk at every durable sink that routes these points.
    pub ok: bool,
}

/// FRAME_LOG: frame-level logging of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameLog {
    /// Device number.
    pub device: u32,
    /// On or off.
    pub on: bool,
}

/// One point of POINTS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkPoint {
    /// Point number.
    pub point: u32,
    /// Device name; `@host`, `@sink/NAME` for system points.
    pub device: String,
    /// Point name within the device.
    pub name: String,
    /// Unit label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Further metadata: labels, class, group, kind, texts of enumerations, limits.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub metadata: Json,
    /// Commands are allowed.
    #[serde(default)]
    pub writable: bool,
    /// The entries of the sink's map for this point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map: Vec<Json>,
}

/// POINTS: the sink's point list, whole (`replace`) or the difference after a reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Forget the list known so far.
    #[serde(default)]
    pub replace: bool,
    /// New or changed.
    pub points: Vec<SinkPoint>,
    /// No longer routed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<u32>,
}

/// ANSWER: to a request that the plugin made by an event; `Message.req` is the plugin's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum AnswerTo {
    /// To COMMAND and WRITE_BLOCK; may come more than once until the stage is a last one.
    Command(Answer),
    /// To FETCH: values in the order asked, one time stamp.
    Fetch {
        /// Time stamp of the read, nanoseconds UTC.
        ts_ns: i64,
        /// Point, value, quality.
        values: Vec<(u32, Value, crate::Quality)>,
    },
    /// To FETCH that could not be served whole.
    FetchFailed {
        /// Why.
        reason: String,
    },
    /// To STATE_PUT: synced, or not.
    StatePut {
        /// Empty when stored.
        #[serde(default)]
        error: String,
    },
    /// To STATE_GET: hex text, `None` where the key is unknown.
    StateGet {
        /// The value.
        value: Option<String>,
    },
}

/// A request with its body.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is documented at its body and its op code")]
pub enum Request {
    Connect(OfDevice),
    Disconnect(OfDevice),
    Attach(Attach),
    Detach(OfDevice),
    Bind(Bind),
    Read(binary::Read),
    Subscribe(Subscribe),
    Unsubscribe(OfDevice),
    Probe(OfDevice),
    Command(Command),
    Browse(Browse),
    BlockRead(BlockRead),
    BlockWrite(BlockWrite),
    Cancel(Cancel),
    Committed(Committed),
    FrameLog(FrameLog),
    Points(Points),
    Answer(AnswerTo),
}

impl Request {
    /// The operation code.
    #[must_use]
    pub const fn op(&self) -> u32 {
        use op::request as r;
        match self {
            Self::Connect(_) => r::CONNECT,
            Self::Disconnect(_) => r::DISCONNECT,
            Self::Attach(_) => r::ATTACH,
            Self::Detach(_) => r::DETACH,
            Self::Bind(_) => r::BIND,
            Self::Read(_) => r::READ,
            Self::Subscribe(_) => r::SUBSCRIBE,
            Self::Unsubscribe(_) => r::UNSUBSCRIBE,
            Self::Probe(_) => r::PROBE,
            Self::Command(_) => r::COMMAND,
            Self::Browse(_) => r::BROWSE,
            Self::BlockRead(_) => r::BLOCK_READ,
            Self::BlockWrite(_) => r::BLOCK_WRITE,
            Self::Cancel(_) => r::CANCEL,
            Self::Committed(_) => r::COMMITTED,
            Self::FrameLog(_) => r::FRAME_LOG,
            Self::Points(_) => r::POINTS,
            Self::Answer(_) => r::ANSWER,
        }
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Read(body) => body.encode().to_vec(),
            Self::Connect(b)
            | Self::Disconnect(b)
            | Self::Detach(b)
            | Self::Unsubscribe(b)
            | Self::Probe(b) => json(b),
            Self::Attach(b) => json(b),
            Self::Bind(b) => json(b),
            Self::Subscribe(b) => json(b),
            Self::Command(b) => json(b),
            Self::Browse(b) => json(b),
            Self::BlockRead(b) => json(b),
            Self::BlockWrite(b) => json(b),
            Self::Cancel(b) => json(b),
            Self::Committed(b) => json(b),
            Self::FrameLog(b) => json(b),
            Self::Points(b) => json(b),
            Self::Answer(b) => json(b),
        }
    }

    /// Reads a request; an unknown op is [`Malformed`] and must be answered with UNSUPPORTED.
    pub fn decode(op: u32, body: &[u8]) -> Result<Self, Malformed> {
        use op::request as r;
        Ok(match op {
            r::CONNECT => Self::Connect(parse("CONNECT", body)?),
            r::DISCONNECT => Self::Disconnect(parse("DISCONNECT", body)?),
            r::ATTACH => Self::Attach(parse("ATTACH", body)?),
            r::DETACH => Self::Detach(parse("DETACH", body)?),
            r::BIND => Self::Bind(parse("BIND", body)?),
            r::READ => Self::Read(binary::Read::decode(body)?),
            r::SUBSCRIBE => Self::Subscribe(parse("SUBSCRIBE", body)?),
            r::UNSUBSCRIBE => Self::Unsubscribe(parse("UNSUBSCRIBE", body)?),
            r::PROBE => Self::Probe(parse("PROBE", body)?),
            r::COMMAND => Self::Command(parse("COMMAND", body)?),
            r::BROWSE => Self::Browse(parse("BROWSE", body)?),
            r::BLOCK_READ => Self::BlockRead(parse("BLOCK_READ", body)?),
            r::BLOCK_WRITE => Self::BlockWrite(parse("BLOCK_WRITE", body)?),
            r::CANCEL => Self::Cancel(parse("CANCEL", body)?),
            r::COMMITTED => Self::Committed(parse("COMMITTED", body)?),
            r::FRAME_LOG => Self::FrameLog(parse("FRAME_LOG", body)?),
            r::POINTS => Self::Points(parse("POINTS", body)?),
            r::ANSWER => Self::Answer(parse("ANSWER", body)?),
            other => return Err(Malformed::new("request op", "a known operation", other.to_string())),
        })
    }
}

pub(crate) fn json<T: Serialize>(body: &T) -> Vec<u8> {
    // Only maps with non-text keys can fail, and no body has one; an empty body is refused by the receiver.
    serde_json::to_vec(body).unwrap_or_default()
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body)
        .map_err(|error| Malformed::new(what, "a body of this operation", error.to_string()))
}
