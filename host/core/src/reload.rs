//! Reload: the running configuration becomes another one, by difference, while what did not change runs on.
//!
//! ```text
//!  new Site --> Difference --> apply --> trial: every touched part must prove that it can run --> accepted
//!                                          | one cannot, or the time is over
//!                                          +--> apply the previous Site by the same way --> rolled back, with the reason
//! ```
//!
//! Devices, points and sinks are matched by name. Their numbers are places in lists from which nothing is ever removed:
//! what goes leaves an empty place, what comes gets a new one, so a number means one thing for the life of the process.
//! [`Core::site`] keeps each configuration at the place of its number; `order` is the order of the file.
//!
//! "Can run" means that plugin and configuration fit: a device is attached and bound, a sink has taken its point list.
//! Whether the device or the far side answers is not asked: a meter that is switched off must not make a reload fail.
//! An absent plugin is no configuration error (G11), so what needs it is not asked either.
//!
//! What goes is kept aside until then (`reload_aside.rs`): a roll-back leaves no trace.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{Endpoint, Origin, describe::PluginKind, value::rfc3339};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::reload_diff::Parts;
pub use crate::reload_diff::{Changed, Difference};
use crate::{
    Core, Output,
    arena::{ChannelId, DeviceId, Id, PluginId, SinkId},
    assemble::new_plugin,
    model::{self, Host, Site},
    output::{LogLevel, Reply},
    sink::SinkPhase,
    state::{ChannelPhase, Phase, Plugin, PluginStatus},
    time::ns,
    timers::Timer,
};

/// Points that one process may number, reloads included (G9). Beyond it a restart is needed.
const MAX_NUMBERS: usize = 8_000_000;

/// A new configuration, checked.
#[derive(Debug)]
pub struct Reload {
    /// Answered by [`Reply::Reload`] or [`Reply::Failed`] with this id.
    pub id: u64,
    /// What is to run.
    pub site: Box<Site>,
    /// The endpoint of each device whose driver is loaded, by device name.
    pub endpoints: BTreeMap<String, Result<Endpoint, String>>,
    /// Plugins that cannot be loaded: kind and name. What needs them proves nothing.
    pub absent: Vec<(PluginKind, String)>,
    /// Who asked, for the audit log.
    pub origin: Origin,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was nothing to apply.
    Unchanged,
    /// In force.
    Applied,
    /// A part could not run: the previous configuration is in force again.
    RolledBack,
}

/// The answer to a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was rolled back.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Number of the configuration in force: `@host/config_version`.
    pub version: u64,
    /// What differs.
    #[serde(flatten)]
    pub difference: Difference,
    /// What an operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What an application of a configuration touched.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Devices that must prove that they can run.
    pub(crate) devices: Vec<DeviceId>,
    /// Of them those that are attached anew.
    pub(crate) attached: BTreeSet<DeviceId>,
    pub(crate) channels: BTreeSet<ChannelId>,
    pub(crate) sinks: Vec<SinkId>,
    /// Points that stay and are described in other words.
    pub(crate) points: Vec<crate::arena::PointId>,
    /// Places of devices or points are others than before: routes must be looked up again.
    pub(crate) moved: bool,
    /// System points came or went.
    pub(crate) systems: bool,
    pub(crate) notes: Vec<String>,
    /// Operator switches were overruled.
    pub(crate) switches: bool,
}

/// A reload that must prove itself.
#[derive(Debug)]
pub(crate) struct Attempt {
    id: u64,
    until_ns: u64,
    previous: Previous,
    endpoints: BTreeMap<String, Result<Endpoint, String>>,
    devices: Vec<DeviceId>,
    sinks: Vec<SinkId>,
    absent: BTreeSet<PluginId>,
    summary: Summary,
    origin: Origin,
}

/// The way back. Of devices that stay as they are only the number: their configuration is where it was.
#[derive(Debug)]
struct Previous {
    host: Host,
    plugins: Vec<model::Plugin>,
    devices: Vec<Result<model::Device, DeviceId>>,
    sinks: Vec<model::Sink>,
}

/// What is known of one part of a attempt.
enum Proof {
    Runs,
    Open(String),
    Cannot(String),
}

impl Core {
    /// The configuration as it was applied last, in the order of the file.
    #[must_use]
    pub fn configured(&self) -> Site {
        let Parts { host, plugins, devices, sinks } = self.parts();
        Site {
            host: host.clone(),
            plugins: plugins.into_iter().cloned().collect(),
            devices: devices.into_iter().cloned().collect(),
            sinks: sinks.into_iter().cloned().collect(),
        }
    }

    /// What a reload of `site` would change.
    #[must_use]
    pub fn difference(&self, site: &Site) -> Difference {
        Difference::between(&self.parts(), &site.into())
    }

    /// The names and `frame_log` of the devices, in the order of the file.
    pub fn frame_logs(&self) -> impl Iterator<Item = (&str, bool)> {
        let configs = self.order.iter().filter_map(|id| self.site.devices.get(id.number() as usize));
        configs.map(|device| (device.name.as_str(), device.frame_log))
    }

    fn parts(&self) -> Parts<'_> {
        let needed = |plugin: &(PluginId, &Plugin)| plugin.1.base == plugin.0 && !plugin.1.gone;
        let Site { host, plugins, devices, sinks } = &self.site;
        let of_plugin = |(id, _): (PluginId, _)| plugins.get(id.number() as usize);
        Parts {
            host,
            plugins: self.plugins.iter().filter(needed).filter_map(of_plugin).collect(),
            devices: self.order.iter().filter_map(|id| devices.get(id.number() as usize)).collect(),
            sinks: self.sink_order.iter().filter_map(|id| sinks.get(id.number() as usize)).collect(),
        }
    }

    /// The way back from a reload that differs so.
    fn way_back(&self, difference: &Difference) -> Previous {
        let Parts { host, plugins, devices, sinks } = self.parts();
        let changed = difference.devices_changed.iter().map(|changed| &changed.name);
        let touched: BTreeSet<&str> =
            changed.chain(&difference.devices_removed).map(String::as_str).collect();
        let devices = self.order.iter().zip(devices);
        Previous {
            host: host.clone(),
            plugins: plugins.into_iter().cloned().collect(),
            devices: devices
                .map(
                    |(id, config)| {
                        if touched.contains(config.name.as_str()) { Ok(config.clone()) } else { Err(*id) }
                    },
                )
                .collect(),
            sinks: sinks.into_iter().cloned().collect(),
        }
    }

    /// All of it, as it was.
    fn as_it_was(&self, previous: Previous) -> Site {
        let Previous { host, plugins, devices, sinks } = previous;
        let of = |id: DeviceId| self.site.devices.get(id.number() as usize).cloned().unwrap_or_default();
        Site { host, plugins, devices: devices.into_iter().map(|it| it.unwrap_or_else(of)).collect(), sinks }
    }

    /// The devices that a driver serves: number (the index of [`crate::input::PluginReady::endpoints`]) and connection.
    #[must_use]
    pub fn connections(&self, plugin: usize) -> Vec<(usize, Json)> {
        let Some(base) = self.plugins.at(plugin).map(|plugin| self.plugins[plugin].base) else {
            return Vec::new();
        };
        // Of any version: the one that serves now may not be the one that is started next.
        let served = |device: &&DeviceId| {
            self.devices[**device].plugin.is_some_and(|plugin| self.plugins[plugin].base == base)
        };
        let devices = self.order.iter().filter(served).map(|device| device.number() as usize);
        devices
            .filter_map(|device| Some((device, self.site.devices.get(device)?.connection.clone())))
            .collect()
    }

    /// How often a configuration was applied, the first included.
    #[must_use]
    pub const fn config_version(&self) -> u64 {
        self.config_version
    }

    pub(crate) fn reload(&mut self, reload: Reload) {
        let Reload { id, site, endpoints, absent, origin } = reload;
        if self.stopping {
            return self.failed(id, "the gateway is stopping");
        }
        if self.handover.is_some() {
            return self.failed(id, "a plugin is being upgraded; wait for its end and try again");
        }
        if self.attempt.is_some() {
            return self.failed(id, "another reload is being tried; wait for its end and try again");
        }
        let coming: usize = site.devices.iter().map(|device| device.points.len() + 3).sum();
        if self.points.len() + coming > MAX_NUMBERS {
            return self.failed(id, "too many points were replaced since the start; restart the gateway");
        }
        let difference = self.difference(&site);
        let mut summary = Summary {
            outcome: Outcome::Unchanged,
            reason: String::new(),
            version: self.config_version,
            difference,
            notes: Vec::new(),
        };
        if summary.difference.is_empty() {
            let timeout = site.host.reload_timeout;
            if std::mem::replace(&mut self.site.host.reload_timeout, timeout) != timeout {
                summary.outcome = Outcome::Applied;
                summary.notes.push(format!("reload_timeout: {} s", timeout.as_secs_f64()));
            }
            return self.out.push(Output::Reply { id, reply: Reply::Reload(Box::new(summary)) });
        }
        let (known, previous) = (self.known_endpoints(), self.way_back(&summary.difference));
        self.aside.keeping = true;
        let touched = self.apply(*site, &endpoints);
        summary.notes.clone_from(&touched.notes);
        let absent = absent.iter().filter_map(|(kind, name)| self.plugin_named(name, *kind)).collect();
        let until_ns = self.now.mono_ns + ns(self.site.host.reload_timeout);
        let until_ns = self.timers.arm(until_ns, Timer::Reload);
        let Touched { devices, sinks, .. } = touched;
        self.attempt = Some(Box::new(Attempt {
            id,
            until_ns,
            previous,
            endpoints: known,
            devices,
            sinks,
            absent,
            summary,
            origin,
        }));
    }

    /// The endpoint of each device, as far as it is known.
    fn known_endpoints(&self) -> BTreeMap<String, Result<Endpoint, String>> {
        let of = |device: &DeviceId| {
            let name = self.device_name(device.number())?.to_owned();
            let endpoint = &self.endpoints[self.channels[self.devices[*device].channel?].endpoint];
            let endpoint = Endpoint {
                key: endpoint.key.clone(),
                exclusive: endpoint.exclusive,
                parallel: endpoint.parallel,
                lock_path: endpoint.lock_path.clone(),
            };
            Some((name, Ok(endpoint)))
        };
        self.order.iter().filter_map(of).collect()
    }

    /// Makes `site` the running configuration.
    fn apply(&mut self, site: Site, endpoints: &BTreeMap<String, Result<Endpoint, String>>) -> Touched {
        let mut touched = Touched::default();
        let Site { host, plugins, devices, sinks } = site;
        self.site.host.reload_timeout = host.reload_timeout;
        for plugin in plugins {
            if self.plugin_named(&plugin.name, plugin.kind).is_none() {
                let id = self.add_plugin(plugin);
                self.out.push(Output::Load { plugin: id.number() as usize });
            }
        }
        self.apply_devices(devices, endpoints, &mut touched);
        self.settle_channels(&touched);
        self.apply_sinks(sinks, &mut touched);
        if touched.switches {
            self.store_switches(crate::state::StoreWait::Switches { id: None });
        }
        self.config_version += 1;
        self.set_config_version();
        self.end_of_poll();
        self.out.push(Output::Applied { version: self.config_version });
        touched
    }

    /// Endpoints that nobody uses any more are closed; where every device is new or changed the endpoint is opened anew,
    /// otherwise the devices join it one by one and the others notice nothing.
    fn settle_channels(&mut self, touched: &Touched) {
        for channel in touched.channels.iter().copied() {
            let devices = self.channels[channel].devices.clone();
            let running = matches!(self.channels[channel].phase, ChannelPhase::Opening | ChannelPhase::Open);
            if devices.is_empty() {
                self.stop_channel_for(channel, "no device uses the endpoint any more");
            } else if running && devices.iter().all(|device| touched.attached.contains(device)) {
                self.channels[channel].reopen = true;
                self.stop_channel_for(channel, "its connection was changed");
            } else {
                for device in devices.into_iter().filter(|device| touched.attached.contains(device)) {
                    match self.channels[channel].phase {
                        // One that was switched on in this very step has started already.
                        ChannelPhase::Open if self.devices[device].phase != Phase::Idle => {}
                        ChannelPhase::Open => self.start_device(device),
                        ChannelPhase::Closed => self.open_channel(channel),
                        ChannelPhase::Opening | ChannelPhase::Stopping => {}
                    }
                }
            }
        }
    }

    /// After each step while a reload is tried.
    pub(crate) fn check_attempt(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let mut open = None;
        for proof in attempt
            .devices
            .iter()
            .map(|device| self.prove_device(*device, &attempt.absent))
            .chain(attempt.sinks.iter().map(|sink| self.prove_sink(*sink, &attempt.absent)))
        {
            match proof {
                Proof::Runs => {}
                Proof::Open(text) => open = open.or(Some(text)),
                Proof::Cannot(reason) => return self.roll_back(*attempt, reason),
            }
        }
        match open {
            None => self.accept(*attempt),
            Some(text) if self.now.mono_ns >= attempt.until_ns => {
                let seconds = self.site.host.reload_timeout.as_secs();
                self.roll_back(*attempt, format!("{text} within {seconds} s"));
            }
            Some(_) if self.stopping => {
                self.let_go();
                self.failed(attempt.id, "the gateway is stopping");
            }
            Some(_) => self.attempt = Some(attempt),
        }
    }

    fn prove_device(&self, device: DeviceId, absent: &BTreeSet<PluginId>) -> Proof {
        let state = &self.devices[device];
        let name = self.device_name(device.number()).unwrap_or_default();
        if state.gone || state.plugin.is_some_and(|plugin| absent.contains(&plugin)) {
            return Proof::Runs;
        }
        match state.phase {
            Phase::Failed => Proof::Cannot(format!("device {name}: {}", state.reason)),
            Phase::Maintenance => Proof::Runs,
            _ if state.bound && !state.rebinding => Proof::Runs,
            _ => Proof::Open(format!("device {name} was not taken by its driver")),
        }
    }

    fn prove_sink(&self, sink: SinkId, absent: &BTreeSet<PluginId>) -> Proof {
        let state = &self.sinks[sink];
        let name = self.site.sinks.get(sink.number() as usize).map_or("", |config| config.name.as_str());
        if state.gone || state.plugin.is_some_and(|plugin| absent.contains(&plugin)) {
            return Proof::Runs;
        }
        match state.phase {
            SinkPhase::Failed => Proof::Cannot(format!("sink {name}: {}", state.reason)),
            SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up if !state.reopen => Proof::Runs,
            _ => Proof::Open(format!("sink {name} did not open")),
        }
    }

    fn accept(&mut self, attempt: Attempt) {
        let mut summary = attempt.summary;
        summary.outcome = Outcome::Applied;
        summary.version = self.config_version;
        summary.notes.extend(self.let_go());
        self.let_plugins_go(&attempt.previous.plugins);
        let text = format!("configuration {} is in force", summary.version);
        self.log(LogLevel::Info, ("reload", summary.version), vec![], text);
        self.reloaded(attempt.id, summary, &attempt.origin);
    }

    fn roll_back(&mut self, attempt: Attempt, reason: String) {
        let Attempt { id, previous, endpoints, mut summary, origin, .. } = attempt;
        let previous = self.as_it_was(previous);
        let tried: Vec<model::Plugin> = self.parts().plugins.into_iter().cloned().collect();
        let switched = self.return_switches();
        let touched = self.apply(previous, &endpoints);
        if switched {
            self.store_switches(crate::state::StoreWait::Switches { id: None });
        }
        self.let_go();
        self.let_plugins_go(&tried);
        summary.outcome = Outcome::RolledBack;
        summary.version = self.config_version;
        // What was noted of the other configuration did not come to pass.
        summary.notes = touched.notes;
        self.log(
            LogLevel::Error,
            ("reload", summary.version),
            vec![],
            format!("the new configuration cannot run and was rolled back: {reason}"),
        );
        summary.reason = reason;
        self.reloaded(id, summary, &origin);
    }

    fn reloaded(&mut self, id: u64, summary: Summary, origin: &Origin) {
        let line = json!({
            "ts": rfc3339(self.now.wall_ns), "event": "reload", "outcome": summary.outcome, "version": summary.version,
            "text": summary.reason, "origin": origin,
        });
        self.out.push(Output::Audit { audit: 0, line });
        self.out.push(Output::Reply { id, reply: Reply::Reload(Box::new(summary)) });
    }

    /// A plugin of the configuration gets the next number; versions of others have no place in the configuration.
    fn add_plugin(&mut self, plugin: crate::model::Plugin) -> PluginId {
        while self.site.plugins.len() < self.plugins.len() {
            self.site.plugins.push(crate::model::Plugin { name: String::new(), ..plugin.clone() });
        }
        let id = PluginId::new(self.plugins.len() as u32);
        self.plugins.push(Plugin { base: id, serving: id, ..new_plugin(&plugin) });
        self.site.plugins.push(plugin);
        id
    }

    /// Plugins that only `previous` needed are unloaded when their last instance has stopped.
    fn let_plugins_go(&mut self, previous: &[model::Plugin]) {
        for plugin in previous {
            let Some(serving) = self.plugin_named(&plugin.name, plugin.kind) else { continue };
            let base = self.plugins[serving].base;
            self.plugins[base].leaving = self.is_idle(serving);
        }
        self.retire_plugins();
    }

    fn is_idle(&self, plugin: PluginId) -> bool {
        self.plugins[plugin].devices.is_empty() && self.plugins[plugin].sinks.is_empty()
    }

    /// Looks whether a plugin that nobody needs has stopped, in all its versions.
    pub(crate) fn retire_plugins(&mut self) {
        for base in self.plugins.ids() {
            let state = &self.plugins[base];
            if !state.leaving || state.gone || self.handover.is_some() {
                continue;
            }
            // Somebody needs it again.
            if !self.is_idle(state.serving) {
                self.plugins[base].leaving = false;
                continue;
            }
            if self.instances.values().any(|instance| self.plugins[instance.plugin].base == base) {
                continue;
            }
            let name = state.name.clone();
            self.log(
                LogLevel::Info,
                ("unload", u64::from(base.number())),
                vec![("plugin", name)],
                "nothing needs the plugin any more; it is ended",
            );
            if let Some(place) = self.site.plugins.get_mut(base.number() as usize) {
                place.name.clear();
            }
            for version in self.plugins.ids().filter(|id| self.plugins[*id].base == base).collect::<Vec<_>>()
            {
                let state = &mut self.plugins[version];
                state.gone = true;
                // It is not watched any more.
                if std::mem::replace(&mut state.status, PluginStatus::Retired) != PluginStatus::Retired {
                    self.out.push(Output::Unload { plugin: version.number() as usize });
                }
            }
        }
    }
}
