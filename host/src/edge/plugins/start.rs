//! One start of one plugin: load, init, endpoints.

use std::sync::Arc;

use busbar_contract::{Endpoint, describe::InitOptions, op};
use busbar_core::{
    input::PluginReady,
    model::{Isolation, Plugin as PluginModel},
};
use busbar_loader::{Plugin, Probed};
use serde_json::Value as Json;

use super::{News, SHUTDOWN_TIME, Shared};
use crate::edge::callbacks::Callbacks;

/// One start of one plugin, on its helper thread.
pub(super) struct Start {
    pub(super) plugin: usize,
    pub(super) start: u64,
    pub(super) model: PluginModel,
    pub(super) probed: Result<Probed, String>,
    pub(super) connections: Vec<(usize, Json)>,
    pub(super) handle: Option<Arc<Plugin>>,
    pub(super) end_first: bool,
    pub(super) shared: Shared,
}

impl Start {
    pub(super) fn run(self) -> News {
        let (plugin, start) = (self.plugin, self.start);
        match self.load() {
            Ok((handle, ready)) => News::Loaded { plugin, start, handle, ready },
            Err(reason) => News::Failed { plugin, start, reason },
        }
    }

    fn load(self) -> Result<(Arc<Plugin>, Box<PluginReady>), String> {
        let probed = self.probed?;
        let handle = match self.handle {
            Some(handle) => {
                if self.end_first {
                    handle.shutdown(SHUTDOWN_TIME);
                }
                handle
            }
            None => {
                let isolation = match self.model.isolation {
                    Isolation::InProcess => busbar_loader::Isolation::InProcess,
                    Isolation::Process => busbar_loader::Isolation::Process,
                };
                let launcher = self.shared.launcher.clone().with_memory_limit(self.model.memory_limit);
                let loaded = Plugin::load(&probed, isolation, &launcher);
                Arc::new(loaded.map_err(|error| error.to_string())?)
            }
        };
        let Shared { inbox, names, log_level, cache_dir, .. } = self.shared;
        let callbacks = Callbacks::new(self.plugin, &self.model.name, self.start, inbox, names);
        let options = InitOptions {
            workers: self.model.workers,
            log_level,
            host_minor: busbar_contract::PROTOCOL.minor,
            cache_dir: cache_dir.join(&self.model.name).display().to_string(),
        };
        handle.init(Arc::new(callbacks), &options).map_err(|error| error.to_string())?;
        let endpoints = self
            .connections
            .iter()
            .map(|(device, connection)| (*device, endpoint(&handle, connection)))
            .collect();
        let ready = PluginReady { plugin: self.plugin, describe: handle.describe().clone(), endpoints };
        Ok((handle, Box::new(ready)))
    }
}

fn endpoint(handle: &Plugin, connection: &Json) -> Result<Endpoint, String> {
    let answer = handle.control(op::control::ENDPOINT, connection.to_string().as_bytes());
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer)
        .map_err(|error| format!("the plugin's answer to ENDPOINT cannot be read: {error}"))
}
