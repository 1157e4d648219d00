//! What the configuration asks of plugins. The host answers through the loader's probe, so that no plugin code runs
//! in the process that reads the configuration.

use busbar_contract::{CheckInput, Describe, Endpoint, Problem, describe::PluginKind};
use serde_json::Value as Json;

/// The plugins as the configuration sees them.
pub trait PluginInfo {
    /// What the plugin says about itself; `None` when it is absent or refused.
    fn describe(&self, kind: PluginKind, name: &str) -> Option<&Describe>;

    /// The plugin's own check of one device or one sink; `Err` says why it could not be asked.
    fn check(&self, kind: PluginKind, name: &str, input: &CheckInput) -> Result<Vec<Problem>, String>;

    /// The endpoint of a connection, where it can be told. Only used for defaults that depend on the transport.
    fn endpoint(&self, _driver: &str, _connection: &Json) -> Option<Endpoint> {
        None
    }

    /// Why [`PluginInfo::describe`] gave nothing: `not found in target/release`, `built for another ABI`.
    fn why_absent(&self, _kind: PluginKind, _name: &str) -> Option<String> {
        None
    }

    /// All plugins that could be used, for "did you mean" and for the names of generated sink maps.
    fn names(&self, _kind: PluginKind) -> Vec<String> {
        Vec::new()
    }
}

/// Nothing is known about any plugin: only the host's own rules are checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPlugins;

impl PluginInfo for NoPlugins {
    fn describe(&self, _kind: PluginKind, _name: &str) -> Option<&Describe> {
        None
    }

    fn check(&self, _kind: PluginKind, name: &str, _input: &CheckInput) -> Result<Vec<Problem>, String> {
        Err(format!("plugin {name} is not loaded"))
    }
}
