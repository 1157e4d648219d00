//! What the core asks of its edges. The edge carries outputs out in order.

use busbar_contract::{Answer, Request, Samples, describe::Open};
use serde_json::Value as Json;

use crate::{input::Reading, journal::Transaction};

/// Something to do.
#[derive(Debug)]
pub enum Output {
    /// `open` an instance in a plugin; an error comes back as `Input::OpenFailed`.
    Open {
        /// Index into [`crate::model::Site::plugins`].
        plugin: usize,
        /// New instance number, never used before in this process.
        instance: u64,
        /// Its configuration.
        config: Open,
    },
    /// `submit`; anything but accepted or congested comes back as `Input::NotTaken`.
    Submit {
        /// The instance.
        instance: u64,
        /// Request number; 0 = no answer is expected.
        request: u64,
        /// Operation and body.
        body: Request,
    },
    /// `deliver` to a sink; anything but accepted or congested comes back as `Input::NotTaken`.
    Deliver {
        /// The instance.
        instance: u64,
        /// Lane of the sink.
        lane: u32,
        /// Record number of the first sample; sample `i` is record `first + i`.
        first: u64,
        /// Flags of the batch.
        flags: u32,
        /// The records.
        samples: Samples,
    },
    /// `stop` an instance; answered by the event STOPPED.
    Stop {
        /// The instance.
        instance: u64,
        /// Time limit, milliseconds.
        deadline_ms: u64,
    },
    /// The plugin is stalled for good: kill the worker, or leave it and load nothing new from it.
    Abandon {
        /// Index into [`crate::model::Site::plugins`].
        plugin: usize,
        /// For the operator.
        reason: String,
    },
    /// Write one line of the audit log, synced; answered by `Input::Audited`.
    Audit {
        /// Number of this line; 0 = nobody waits.
        audit: u64,
        /// One JSON object.
        line: Json,
    },
    /// Durable state; answered by `Input::Stored`.
    Store {
        /// Number of this request; 0 = nobody waits.
        store: u64,
        /// `device/NAME`, `sink/NAME` or `host`.
        owner: String,
        /// Key within the owner.
        key: String,
        /// What to do.
        action: StoreAction,
    },
    /// Open or make the file of a sink's queue; answered by `Input::JournalOpened`. Asked again after an error.
    JournalOpen {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
    },
    /// Write one transaction; answered by `Input::Journaled`. One at a time per sink.
    Journal {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// What happened since the last.
        transaction: Box<Transaction>,
    },
    /// Read waiting records in order of their numbers; answered by `Input::JournalLoaded`. One at a time per sink; sees
    /// every transaction asked before it.
    JournalLoad {
        /// Index into [`crate::model::Site::sinks`].
        sink: usize,
        /// First number wanted.
        from: u64,
        /// Stop after about so many records (rows are not torn; at least one row).
        records: usize,
        /// Stop after about so many bytes of samples and texts (at least one row).
        bytes: usize,
    },
    /// Answer to an operator; command answers may come more than once.
    Reply {
        /// The id of the request.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// How far a hand-over got.
    Handover {
        /// The id of the request.
        id: u64,
        /// What happened.
        step: HandoverStep,
    },
    /// A plugin is needed for the first time: load it and answer with `Input::PluginReady` or `Input::PluginFailed`.
    Load {
        /// Its place in [`crate::model::Site::plugins`] of `Core::site`.
        plugin: usize,
    },
    /// Nothing needs the plugin any more and its instances have stopped: end it.
    Unload {
        /// Its place in [`crate::model::Site::plugins`].
        plugin: usize,
    },
    /// Another configuration is in force: `Core::connections` says what each driver serves now.
    Applied {
        /// Its number.
        version: u64,
    },
    /// For the operator's log.
    Log(LogLine),
}

/// How far a hand-over got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandoverStep {
    /// An endpoint or sink moved and is good again.
    Moved {
        /// For the operator: `device meter-01`, `sink broker`.
        unit: String,
        /// So many moved.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// It is over. An error: everything returned, because of this.
    Ended(Result<(), String>),
}

/// Operation on the durable key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAction {
    /// Put, answered after sync.
    Put(Vec<u8>),
    /// Read.
    Get,
    /// Remove.
    Delete,
}

/// Answer to an operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A stage of a command; more may follow until a last stage.
    Command(Answer),
    /// Fresh values.
    Readings(Vec<Reading>),
    /// A part of a browse.
    Page(Vec<Json>),
    /// The end of a reload.
    Reload(Box<crate::reload::Summary>),
    /// Done.
    Done,
    /// Not possible; text for the operator.
    Failed(String),
}

/// Level by consequence for the plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "usual names")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// One line for the operator's log. Repeated lines are rate-limited by the core, with a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How bad it is for the plant.
    pub level: LogLevel,
    /// Fixed keys: `device`, `point`, `plugin`, `sink`.
    pub fields: Vec<(&'static str, String)>,
    /// What happened and what to do.
    pub message: String,
}
