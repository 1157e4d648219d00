//! Read-only views for the API, the command line and `/readyz`. They borrow from the core and copy nothing large.

use busbar_contract::{Quality, Value, describe::PluginKind};
use serde_json::Value as Json;

pub use crate::journal::Ledger;
use crate::model::Isolation;

/// One point as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct PointView<'a> {
    /// Device name; `@host`, `@sink/NAME` for system points.
    pub device: &'a str,
    /// Point name within the device.
    pub name: &'a str,
    /// Point number.
    pub number: u32,
    /// Last value in engineering units; `Value::None` when there never was one.
    pub value: Value,
    /// Effective quality: device or host bits, the worse validity.
    pub quality: Quality,
    /// Time of this value or quality, nanoseconds UTC; 0 = never.
    pub ts_ns: i64,
    /// Source time of the value, nanoseconds UTC; differs from `ts_ns` after a quality change by the host.
    pub value_ts_ns: i64,
    /// The gateway stamped it.
    pub gateway_time: bool,
    /// Unit label; may be empty.
    pub unit: &'a str,
    /// Commands are allowed.
    pub writable: bool,
    /// Description, labels, kind, texts, limits; `null` where nothing is known.
    pub metadata: &'a Json,
}

/// State word of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// Not yet connected since the start.
    Connecting,
    /// Its driver is being replaced; its points keep their quality for a moment.
    Handover,
    /// Connected; its points are being read.
    Resync,
    /// Every point was read.
    Online,
    /// It was lost; the host tries to connect for ever.
    Lost,
    /// It cannot run until something is changed; see the reason.
    Failed,
    /// Switched off by an operator or by configuration.
    Maintenance,
    /// `enabled = false`: configured, not connected.
    Disabled,
    /// Outside its active hours: planned silence, no fault.
    Inactive,
    /// Connected and not polled, on purpose.
    Paused,
}

impl DeviceState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Handover => "handover",
            Self::Resync => "resync",
            Self::Online => "online",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Maintenance => "maintenance",
            Self::Disabled => "disabled",
            Self::Inactive => "inactive",
            Self::Paused => "paused",
        }
    }
}

/// One device as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceView<'a> {
    /// Name.
    pub name: &'a str,
    /// Driver plugin.
    pub driver: &'a str,
    /// Key of its endpoint; empty while unknown.
    pub endpoint: &'a str,
    /// State word.
    pub state: DeviceState,
    /// Why, for lost and failed.
    pub reason: &'a str,
    /// Wall clock of the last change of state, nanoseconds UTC.
    pub since_ns: i64,
    /// What the peer said about itself.
    pub peer: &'a str,
    /// Number of points.
    pub points: usize,
    /// Free text of the configuration; may be empty.
    pub description: &'a str,
    /// Labels of the configuration.
    pub labels: &'a [(String, String)],
    /// Its counters.
    pub counters: DeviceCounters,
}

/// Counters of one device since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Reads due by the schedule.
    pub polls_due: u64,
    /// Reads submitted by the schedule.
    pub polls_started: u64,
    /// Reads completed with values.
    pub polls_done: u64,
    /// Reads left out because the previous one was not complete or the host was late.
    pub polls_skipped: u64,
    /// Reads that failed.
    pub polls_failed: u64,
    /// Samples taken.
    pub samples: u64,
    /// Times it came online.
    pub connects: u64,
    /// Times it was lost.
    pub losses: u64,
    /// Samples that named a point of somebody else, or none (G4).
    pub foreign_samples: u64,
    /// Points that a driver left out of its answer.
    pub missing_samples: u64,
    /// State samples older than the table.
    pub late_samples: u64,
    /// Source times replaced because they were too far off.
    pub skewed_samples: u64,
}

/// State word of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PluginState {
    /// Named by the configuration; not loaded yet.
    Declared,
    /// Loaded; none of its instances is open.
    Loaded,
    /// At least one of its instances is open and none is in trouble.
    Running,
    /// It runs with trouble; see the reason.
    Degraded,
    /// It does not run; see the reason.
    Failed,
}

impl PluginState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Loaded => "loaded",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// One plugin as the API shows it. File and sha256 are the loader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginView<'a> {
    /// Name.
    pub name: &'a str,
    /// Index into the plugins of [`crate::Core::site`], which has places of plugins that are gone, too.
    pub base: usize,
    /// Index of the version that serves: what the edge knows it by.
    pub index: usize,
    /// Driver or sink.
    pub kind: PluginKind,
    /// Version; empty until loaded.
    pub version: &'a str,
    /// Where it runs.
    pub isolation: Isolation,
    /// State word.
    pub state: PluginState,
    /// Why, for degraded and failed.
    pub reason: String,
    /// Open instances.
    pub instances: usize,
}

/// One sink as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkView<'a> {
    /// Name.
    pub name: &'a str,
    /// Plugin.
    pub plugin: &'a str,
    /// The far side is up.
    pub connected: bool,
    /// Why not.
    pub reason: &'a str,
    /// Wall clock of the last change of `connected`, nanoseconds UTC.
    pub since_ns: i64,
    /// Points routed to it.
    pub points: usize,
    /// What became of its records. With a queue on disk: what is on disk.
    pub ledger: Ledger,
    /// With a queue on disk: records taken that are not in `ledger` yet.
    pub unwritten: u64,
    /// With a queue on disk: why it is not; empty = it is.
    pub queue_reason: &'a str,
    /// Bytes waiting or unconfirmed, in the file where there is one.
    pub pending_bytes: u64,
    /// Age of the oldest record that is not confirmed, nanoseconds.
    pub oldest_age_ns: u64,
    /// Events were dropped and no complete interrogation came since.
    pub overflow: bool,
}
