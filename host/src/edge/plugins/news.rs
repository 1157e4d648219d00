//! What is told to the thread that owns the core, apart from the plugins' own words.

use std::sync::Arc;

use busbar_contract::Origin;
use busbar_core::input::PluginReady;
use busbar_loader::{Instance, Plugin};
use tokio::sync::oneshot;

use crate::edge::upgrade::bridge;

/// What helper threads tell the core thread.
pub(crate) enum News {
    Loaded {
        plugin: usize,
        start: u64,
        handle: Arc<Plugin>,
        ready: Box<PluginReady>,
    },
    Failed {
        plugin: usize,
        start: u64,
        reason: String,
    },
    Down {
        plugin: usize,
        start: u64,
        reason: String,
    },
    Opened {
        instance: u64,
        handle: Instance,
    },
    OpenFailed {
        instance: u64,
        reason: String,
    },
    /// An operator wants its worker started again.
    Restart {
        plugin: usize,
        origin: Box<Origin>,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Log level of all plugins.
    LogLevel {
        level: String,
    },
    /// The upgrade thread asks.
    Upgrade(bridge::Ask),
    /// For the audit log: an operator did something that the core does not see.
    Audit {
        event: &'static str,
        about: String,
        origin: Box<Origin>,
    },
    /// An operator wants the stored state of an owner forgotten.
    ClearState {
        owner: String,
        answer: oneshot::Sender<Result<usize, String>>,
    },
    /// It could not even be tried; the configuration is not to blame.
    OpenPostponed {
        instance: u64,
        reason: String,
    },
}
