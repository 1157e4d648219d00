//! What is known of the plugins, for the API.

use std::sync::{Arc, PoisonError, RwLock};

use busbar_loader::{Plugin, Probed};

use crate::admin::process;
use crate::edge::handle::PluginFacts;

/// What is known of each plugin, by its index in the site; shared with the API.
#[derive(Default)]
pub(crate) struct Registry(pub(super) RwLock<Vec<Known>>);

#[derive(Default, Clone)]
pub(super) struct Known {
    pub(super) probed: Option<Probed>,
    pub(super) handle: Option<Arc<Plugin>>,
    pub(super) memory_limit: Option<u64>,
    pub(super) restarts: u64,
    /// When it died last, seconds since 1970 UTC, and why.
    pub(super) last_death: Option<(i64, String)>,
}

impl Registry {
    /// Facts by plugin index.
    pub(crate) fn facts(&self) -> Vec<PluginFacts> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        known.iter().map(facts).collect()
    }
}

fn facts(known: &Known) -> PluginFacts {
    let Some(probed) = &known.probed else { return PluginFacts::default() };
    let protocol = probed.describe.protocol;
    let worker_pid = known.handle.as_ref().and_then(|handle| handle.worker_pid());
    PluginFacts {
        file: probed.staged.source.clone(),
        sha256: probed.staged.sha256.clone(),
        abi: format!("{}/{}.{}", busbar_abi::ABI, protocol.major, protocol.minor),
        description: probed.describe.description.clone(),
        worker_pid,
        worker_memory: worker_pid.and_then(process::resident_of),
        memory_limit: known.memory_limit,
        restarts: known.restarts,
        last_death: known.last_death.clone(),
        boundary: known.handle.as_ref().map(|handle| handle.stats()).unwrap_or_default(),
    }
}
