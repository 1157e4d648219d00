//! Versions of a plugin beside each other, and what a trial notices.
//!
//! A version that runs beside another is a plugin of its own here: own number, own heartbeat, own instances. The plugin
//! of the configuration (the *base*) knows which of its versions serves; views show that one. Devices and sinks belong to
//! the version that serves them; [`crate::handover`] moves them.

use busbar_contract::describe::PluginKind;

use crate::{
    Core, Output,
    arena::{DeviceId, Id, PluginId},
    handover::{Handover, plan},
    input::HandoverRequest,
    model::Isolation,
    output::{HandoverStep, LogLevel},
    state::{Phase, PluginStatus},
    time::{MS, SECOND},
    timers::Timer,
};

/// How often the points of a trial and the end of a kept quality are looked at.
pub(crate) const LOOK_NS: u64 = 100 * MS;
/// Longest time that points keep their quality without an answer, whatever their `stale_after` says.
const MAX_KEEP_NS: u64 = 30 * SECOND;

/// What the hooks of a running trial need: everything else stands in [`Handover`].
#[derive(Debug)]
pub(crate) struct Trial {
    /// The version on trial.
    pub(crate) to: PluginId,
    /// The first thing that went wrong.
    pub(crate) trouble: Option<String>,
}

impl Core {
    /// The edge starts another version of `of`, or the same version in another place.
    pub(crate) fn add_version(&mut self, plugin: usize, of: usize, isolation: Isolation) {
        let Some(base) = self.plugins.at(of).map(|of| self.plugins[of].base) else { return };
        if plugin != self.plugins.len() {
            let text = format!("a version was announced as number {plugin}: this is a bug of Busbar");
            return self.log(LogLevel::Error, ("version", plugin as u64), vec![], text);
        }
        let mut version = crate::assemble::new_plugin(&crate::model::Plugin {
            name: self.plugins[base].name.clone(),
            kind: self.plugins[base].kind,
            path: None,
            sha256: None,
            isolation,
            workers: 1,
            memory_limit: crate::model::MEMORY_LIMIT,
        });
        version.base = base;
        self.plugins.push(version);
    }

    /// A version is not needed any more; its instances are gone.
    pub(crate) fn retire_version(&mut self, plugin: usize) {
        let Some(plugin) = self.plugins.at(plugin) else { return };
        let state = &self.plugins[plugin];
        let serves = self.plugins[state.base].serving == plugin;
        if serves || !state.devices.is_empty() || !state.sinks.is_empty() {
            return;
        }
        self.plugins[plugin].status = PluginStatus::Retired;
        self.plugins[plugin].describe = None;
    }

    /// The version of a plugin that serves, by the name of the configuration. A driver and a sink may have one name.
    pub(crate) fn plugin_named(&self, name: &str, kind: PluginKind) -> Option<PluginId> {
        self.plugins
            .iter()
            .find(|(id, plugin)| {
                plugin.base == *id && !plugin.gone && plugin.name == name && plugin.kind == kind
            })
            .map(|(_, plugin)| plugin.serving)
    }

    /// Begins to move everything from one version to another.
    pub(crate) fn begin_handover(&mut self, request: HandoverRequest) {
        let id = request.id;
        match self.new_handover(&request) {
            Ok(handover) => {
                self.trial = Some(Trial { to: handover.to, trouble: None });
                self.handover = Some(handover);
                self.arm_look();
            }
            Err(reason) => self.say_handover(id, HandoverStep::Ended(Err(reason))),
        }
    }

    fn new_handover(&self, request: &HandoverRequest) -> Result<Handover, String> {
        let known = |index: usize| self.plugins.at(index).ok_or("there is no such version".to_owned());
        let (from, to) = (known(request.from)?, known(request.to)?);
        if self.stopping {
            return Err("the gateway is stopping".into());
        }
        if self.handover.is_some() {
            return Err("another hand-over is running".into());
        }
        if self.attempt.is_some() {
            return Err("a reload is being tried".into());
        }
        if from == to || self.plugins[from].base != self.plugins[to].base {
            return Err("expected two versions of one plugin".into());
        }
        if self.plugins[to].status != PluginStatus::Ready || self.plugins[to].stalled {
            return Err("the new version does not run".into());
        }
        let units = plan(self, from, to)?;
        let now_ns = self.now.mono_ns;
        Ok(Handover {
            id: request.id,
            from,
            to,
            timeout_ns: request.timeout_ms.saturating_mul(MS).max(MS),
            watch_until_ns: now_ns + request.watch_ms.saturating_mul(MS),
            rehearse: request.rehearse,
            units,
            failed: None,
            looked_ns: 0,
        })
    }

    /// The edge wants everything back.
    pub(crate) fn cancel_handover(&mut self, id: u64, reason: String) {
        if self.handover.as_ref().is_some_and(|handover| handover.id == id)
            && let Some(trial) = &mut self.trial
        {
            trial.trouble.get_or_insert(reason);
        }
    }

    pub(crate) fn say_handover(&mut self, id: u64, step: HandoverStep) {
        self.out.push(Output::Handover { id, step });
    }

    /// Something happened to `plugin` that ends its trial, if it is on trial. Its devices are about to move back: their
    /// points keep their quality meanwhile, like in every hand-over.
    pub(crate) fn trial_trouble(&mut self, plugin: PluginId, reason: &str) {
        let Some(trial) = self.trial.as_mut().filter(|trial| trial.to == plugin) else { return };
        if trial.trouble.is_none() {
            trial.trouble = Some(reason.to_owned());
            for device in self.plugins[plugin].devices.clone() {
                self.keep_device(device);
            }
        }
    }

    /// The same for what serves a sink.
    pub(crate) fn trial_sink_trouble(&mut self, sink: crate::arena::SinkId, reason: &str) {
        if let Some(plugin) = self.sinks[sink].plugin {
            self.trial_trouble(plugin, reason);
        }
    }

    /// A device cannot run in the version on trial: true when that is the trial's end and no state of the device.
    pub(crate) fn trial_device_failed(&mut self, device: DeviceId, reason: &str) -> bool {
        let Some(plugin) = self.devices[device].plugin else { return false };
        if self.trial.as_ref().is_none_or(|trial| trial.to != plugin) {
            return false;
        }
        let ran_before = self.handover.as_ref().is_some_and(|handover| !handover.had_failed(device));
        if !ran_before {
            return false;
        }
        let name = self.device_name(device.number()).unwrap_or_default().to_owned();
        self.trial_trouble(plugin, &format!("device {name}: {reason}"));
        let kept = self.devices[device].keep_ns != 0;
        if kept {
            self.lose_kept(device, reason);
        }
        kept
    }

    /// From here on the points of the device keep value and quality until it is online again, at most for one
    /// `stale_after`: its driver is being replaced.
    pub(crate) fn keep_device(&mut self, device: DeviceId) {
        if self.devices[device].keep_ns != 0 || !self.devices[device].phase.has_session() {
            return;
        }
        let groups = &self.devices[device].groups;
        let stale_ns = groups.iter().map(|group| self.groups[*group].min_stale_ns).min().unwrap_or(SECOND);
        self.devices[device].keep_ns = self.now.mono_ns + stale_ns.clamp(1, MAX_KEEP_NS);
        self.keeping.push(device);
        self.arm_look();
    }

    /// The session ended while the driver was being replaced: tried again soon, nothing is marked yet.
    pub(crate) fn lose_kept(&mut self, device: DeviceId, reason: &str) {
        let phase = self.devices[device].phase;
        self.end_session(device, phase);
        let attempts = self.devices[device].attempts;
        self.devices[device].attempts = attempts.saturating_add(1);
        self.back_off(device, attempts);
        self.set_reason(device, reason);
    }

    fn arm_look(&mut self) {
        if !self.looking {
            self.looking = true;
            self.timers.arm(self.now.mono_ns + LOOK_NS, Timer::Handover);
        }
    }

    /// The hand-over did not fit into `stale_after`: the ordinary rules hold from now on.
    pub(crate) fn look_at_kept(&mut self) {
        self.looking = false;
        let now_ns = self.now.mono_ns;
        for device in std::mem::take(&mut self.keeping) {
            let keep_ns = self.devices[device].keep_ns;
            if keep_ns > now_ns {
                self.keeping.push(device);
            } else if keep_ns != 0 {
                self.devices[device].keep_ns = 0;
                let phase = self.devices[device].phase;
                if !phase.has_session() && !matches!(phase, Phase::Failed | Phase::Maintenance) {
                    let reason = "its driver is being replaced, and it did not come back within stale_after";
                    self.mark_lost(device, reason);
                    self.invalidate(device, crate::table::LOST);
                }
            }
        }
        if !self.keeping.is_empty() || self.handover.is_some() {
            self.arm_look();
        }
    }

    /// At the end of the gateway nothing is moved any more.
    pub(crate) fn drop_handover(&mut self) {
        self.trial = None;
        if self.handover.take().is_none() {
            return;
        }
        for channel in self.channels.values_mut() {
            channel.moving = false;
        }
        for endpoint in self.endpoints.values_mut() {
            endpoint.held = false;
        }
        for sink in self.sinks.values_mut() {
            sink.handover = false;
        }
    }
}
