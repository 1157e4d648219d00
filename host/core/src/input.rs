//! What the core is told. Everything that happens outside arrives here, in one sequence.

use busbar_contract::{Action, Describe, Endpoint, Event, Malformed, Origin, Samples, Value};
use serde_json::Value as Json;

use crate::journal::{Committed, Ledger, Loaded, NotCommitted, Recovered};

/// The two clocks, read by the edge before each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic nanoseconds since the host started: the only clock for staleness, intervals, back-off, deadlines.
    pub mono_ns: u64,
    /// Wall clock, nanoseconds since 1970-01-01 UTC; may step.
    pub wall_ns: i64,
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// Time passed: the instant named by `Core::next_wake` has come.
    Tick,
    /// A plugin was staged, probed, loaded and initialised.
    PluginReady(Box<PluginReady>),
    /// A plugin is absent, was refused, or its worker died. Its instances no longer exist.
    PluginFailed {
        /// Index into [`crate::model::Site::plugins`].
        plugin: usize,
        /// For the operator.
        reason: String,
    },
    /// `open` returned an error: the instance does not exist.
    OpenFailed {
        /// The instance of [`crate::Output::Open`].
        instance: u64,
        /// For the operator.
        reason: String,
    },
    /// `open` could not be tried now (no thread, no room, no answer): the instance does not exist, the configuration is not
    /// to blame, and it is tried again.
    OpenPostponed {
        /// The instance of [`crate::Output::Open`].
        instance: u64,
        /// For the operator.
        reason: String,
    },
    /// `submit` or `deliver` did not take what the core sent (queue full, stopped, unsupported).
    NotTaken {
        /// The instance.
        instance: u64,
        /// The request number; for deliveries the first record number.
        request: u64,
        /// True for a delivery.
        delivery: bool,
        /// The answer code of the waist: refused, unsupported.
        code: u32,
    },
    /// A plugin's event. Instance 0 with a heartbeat belongs to `plugin`.
    Event {
        /// Index into [`crate::model::Site::plugins`].
        plugin: usize,
        /// The instance.
        instance: u64,
        /// The request it answers, or the plugin's own request number.
        request: u64,
        /// What it says.
        event: Event,
    },
    /// A driver's samples.
    Push(Push),
    /// A plugin sent something that breaks the contract.
    Malformed {
        /// Index into [`crate::model::Site::plugins`].
        plugin: usize,
        /// The instance.
        instance: u64,
        /// The request it meant to answer, 0 = none.
        request: u64,
        /// What was wrong.
        error: Malformed,
    },
    /// The edge had to drop what a plugin sent because the instance's queue was full (R9).
    Overrun {
        /// The instance.
        instance: u64,
        /// Number of samples.
        samples: u64,
    },
    /// The audit line `audit` is on disk, or could not be written.
    Audited {
        /// The number of [`crate::Output::Audit`].
        audit: u64,
        /// Empty on success.
        error: String,
    },
    /// Answer to [`crate::Output::Store`].
    Stored {
        /// The number of [`crate::Output::Store`].
        store: u64,
        /// The value read (get), or nothing (put), or why it failed.
        result: Result<Option<Vec<u8>>, String>,
    },
    /// Answer to [`crate::Output::JournalOpen`]: what the file holds, or why there is none.
    JournalOpened {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// The text is for the operator.
        result: Result<Recovered, String>,
    },
    /// Answer to [`crate::Output::Journal`].
    Journaled {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// Number of the transaction.
        number: u64,
        /// What is on disk now, or why nothing of it is.
        result: Result<Committed, NotCommitted>,
    },
    /// Answer to [`crate::Output::JournalLoad`].
    JournalLoaded {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// The text is for the operator.
        result: Result<Loaded, String>,
    },
    /// An operator wanted refused records tried again: they wait in the file again, under their numbers.
    JournalAgain {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// Figures after that, on disk.
        ledger: Ledger,
        /// The records.
        again: Loaded,
    },
    /// State of the kernel's clock.
    Clock {
        /// Synchronised to a reference.
        synchronised: bool,
    },
    /// An operator at the command line or the API.
    Operator(Operator),
    /// Another version of a plugin, or the same version in another place, was started beside the one that serves. Its
    /// PluginReady or PluginFailed follows.
    Version {
        /// Its index: the number of plugins and versions announced so far.
        plugin: usize,
        /// The plugin of the configuration, or any version of it.
        of: usize,
        /// Where it runs.
        isolation: crate::model::Isolation,
    },
    /// Move everything from one version to another; answered by [`crate::Output::Handover`].
    Handover(HandoverRequest),
    /// End a hand-over: everything returns.
    CancelHandover {
        /// The id of the request.
        id: u64,
        /// For the operator.
        reason: String,
    },
    /// A version serves nothing any more and is not needed again.
    Retired {
        /// Its index.
        plugin: usize,
    },
    /// A new configuration.
    Reload(Box<crate::reload::Reload>),
    /// The host is stopping: drivers are stopped first, sinks last, so that what was read is still delivered.
    Shutdown,
}

/// A plugin is ready for instances.
#[derive(Debug)]
pub struct PluginReady {
    /// Index into [`crate::model::Site::plugins`].
    pub plugin: usize,
    /// What it says about itself.
    pub describe: Describe,
    /// For a driver: the endpoint of each of its devices (index into [`crate::model::Site::devices`]).
    pub endpoints: Vec<(usize, Result<Endpoint, String>)>,
}

/// A movement of all endpoints, or all sinks, of one version of a plugin to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandoverRequest {
    /// Given by the edge, unique.
    pub id: u64,
    /// The version that serves.
    pub from: usize,
    /// The version that shall serve; it is ready.
    pub to: usize,
    /// Each endpoint or sink must be good again within, milliseconds.
    pub timeout_ms: u64,
    /// The new version is watched for so long from now on, milliseconds.
    pub watch_ms: u64,
    /// Stop and open the first endpoint once more on the new version: finds a stop that hangs.
    pub rehearse: bool,
}

/// Samples pushed by a driver.
#[derive(Debug)]
pub struct Push {
    /// The instance.
    pub instance: u64,
    /// The request it answers, 0 = unsolicited.
    pub request: u64,
    /// Commit token, 0 = none.
    pub token: u32,
    /// Flags of the batch.
    pub flags: u32,
    /// The samples.
    pub samples: Samples,
}

/// A request of an operator; answered by [`crate::Output::Reply`] with the same id.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// Given by the edge, unique.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What an operator may ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A command for a point.
    Command(OperatorCommand),
    /// Fresh read of a device (no points = all of them), all or error.
    Read {
        /// Device name.
        device: String,
        /// Point names.
        points: Vec<String>,
        /// Time limit, milliseconds.
        deadline_ms: u64,
    },
    /// What the device offers.
    Browse {
        /// Device name.
        device: String,
        /// In the driver's words.
        arguments: Vec<String>,
        /// Time limit, milliseconds.
        deadline_ms: u64,
    },
    /// Refuse all commands.
    Lock(Origin),
    /// Let commands pass again.
    Unlock(Origin),
    /// Block a point: `invalid|operator_blocked`, commands refused.
    Block(String, Origin),
    /// End blocking or substitution.
    Unblock(String, Origin),
    /// Enter a value by hand.
    Substitute(String, Json, Origin),
    /// No session, no polling, points blocked.
    Maintenance(String, bool, Origin),
    /// Connected, no polling, points blocked.
    Pause(String, bool, Origin),
    /// Frame-level logging of a device.
    FrameLog(String, bool),
}

/// A command as an operator gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorCommand {
    /// `device/point`.
    pub point: String,
    /// Select, operate, cancel.
    pub action: Action,
    /// In engineering units, JSON form.
    pub value: Json,
    /// `cli` or `api`, and the user.
    pub origin: Origin,
    /// Time limit, milliseconds; 0 = the device's own.
    pub deadline_ms: u64,
}

/// A value with its quality and time, for replies.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// `device/point`.
    pub point: String,
    /// Value in engineering units.
    pub value: Value,
    /// Effective quality.
    pub quality: busbar_contract::Quality,
    /// Source time, nanoseconds UTC.
    pub ts_ns: i64,
    /// The gateway stamped it.
    pub gateway_time: bool,
    /// Unit label.
    pub unit: String,
}
