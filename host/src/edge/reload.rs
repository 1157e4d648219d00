//! Reload, the part of the core thread: a new configuration goes into the core, plugins that it needs for the first time
//! are loaded, and those that nothing needs any more are ended.
//!
//! The checks are over when this begins (`crate::reload`); what is left to go wrong is decided by the core's trial.

use std::collections::BTreeMap;

use busbar_contract::{Endpoint, Origin, describe::PluginKind};
use busbar_core::{Input, model::Site, output::Reply, reload::Reload};
use busbar_loader::Probed;
use tokio::sync::mpsc;

use super::{core_thread::CoreThread, names::Names};

/// A configuration that was checked, with what its plugins said.
pub struct NewConfig {
    /// What is to run.
    pub site: Site,
    /// One entry per plugin of the site.
    pub probed: Vec<Result<Probed, String>>,
    /// The endpoint of each device, by its name.
    pub endpoints: BTreeMap<String, Result<Endpoint, String>>,
    /// Who asked.
    pub origin: Origin,
}

/// A configuration with the way back.
pub(crate) struct Wanted {
    pub(crate) config: NewConfig,
    pub(crate) replies: mpsc::Sender<Reply>,
}

/// What probes said, until the plugins are loaded.
pub(crate) type Examined = Vec<(PluginKind, String, Result<Probed, String>)>;

impl CoreThread {
    /// Begins a reload; the answer comes when the core has decided.
    pub(crate) fn reload(&mut self, wanted: Wanted) {
        let Wanted { config: NewConfig { site, probed, endpoints, origin }, replies } = wanted;
        let Some(id) = self.operators.admit_other(replies) else { return };
        self.note_frames(&site);
        let examined: Examined = site
            .plugins
            .iter()
            .zip(probed)
            .map(|(plugin, probed)| (plugin.kind, plugin.name.clone(), probed))
            .collect();
        let absent = examined
            .iter()
            .filter(|(_, _, probed)| probed.is_err())
            .map(|(kind, name, _)| (*kind, name.clone()))
            .collect();
        self.examined = examined;
        let reload = Reload { id, site: Box::new(site), endpoints, absent, origin };
        self.step(Input::Reload(Box::new(reload)));
        // At once: a plugin that comes with it must have its place before another item of this turn (a version that an
        // upgrade starts) takes the next one.
        self.carry_out();
    }

    /// Devices that come with `frame_log`, or whose key was changed.
    fn note_frames(&self, site: &Site) {
        let names: &Names = &self.names;
        let before: BTreeMap<&str, bool> = self.core.frame_logs().collect();
        for device in &site.devices {
            let known = before.get(device.name.as_str()).copied().unwrap_or(false);
            if known != device.frame_log {
                names.frames.log(&device.name, device.frame_log);
            }
        }
    }

    /// The core needs a plugin for the first time.
    pub(crate) fn load_plugin(&mut self, plugin: usize) {
        let Some(model) = self.core.site().plugins.get(plugin).cloned() else { return };
        let at = self.examined.iter().position(|(kind, name, _)| *kind == model.kind && *name == model.name);
        let probed = match at {
            Some(at) => self.examined.swap_remove(at).2,
            None => Err("it was not examined: this is a bug of Busbar".to_owned()),
        };
        let connections = self.core.connections(plugin);
        self.plugins.add(plugin, model, probed, connections);
    }

    /// Another configuration is in force: a plugin that starts again must be told what it serves now.
    pub(crate) fn refresh_connections(&mut self) {
        for plugin in 0..self.core.site().plugins.len() {
            self.plugins.set_connections(plugin, self.core.connections(plugin));
        }
    }
}

#[cfg(test)]
mod tests;
