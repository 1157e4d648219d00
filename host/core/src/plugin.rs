//! Plugins as the core sees them: ready or failed with a reason, and alive by heartbeat (G6). A plugin without a
//! heartbeat for a second is stalled: its devices are lost at once, its sinks down; after 30 seconds it is given up.

use busbar_contract::Endpoint as EndpointSpec;

use crate::{
    Core, Output,
    arena::{DeviceId, Id, PluginId},
    input::PluginReady,
    output::LogLevel,
    state::{ChannelPhase, PluginStatus},
    time::{MS, SECOND},
    timers::Timer,
};

/// Without a heartbeat for so long: stalled.
const STALLED_NS: u64 = SECOND;
/// Without a heartbeat for so long: given up.
const ABANDONED_NS: u64 = 30 * SECOND;
/// How often the heartbeat is looked at.
const LOOK_NS: u64 = 100 * MS;

impl Core {
    pub(crate) fn plugin_ready(&mut self, ready: PluginReady) {
        let Some(plugin) = self.plugins.at(ready.plugin) else { return };
        if self.stopping {
            return;
        }
        self.drop_instances(plugin, "the plugin was loaded again");
        let state = &mut self.plugins[plugin];
        state.status = PluginStatus::Ready;
        state.reason.clear();
        state.stalled = false;
        state.last_beat_ns = self.now.mono_ns;
        state.describe = Some(ready.describe);
        state.killed = false;
        state.specs = ready.endpoints;
        self.timers.arm(self.now.mono_ns + LOOK_NS, Timer::Plugin(plugin));
        self.assign_endpoints(plugin);
        for channel in self.plugins[plugin].channels.clone() {
            self.open_channel(channel);
        }
        for sink in self.plugins[plugin].sinks.clone() {
            self.sink_plugin_ready(sink);
        }
    }

    /// Every device of the plugin gets its channel, or fails with the reason.
    fn assign_endpoints(&mut self, plugin: PluginId) {
        for channel in self.plugins[plugin].channels.clone() {
            self.channels[channel].devices.clear();
        }
        for device in self.plugins[plugin].devices.clone() {
            self.devices[device].channel = None;
            match self.plugins[plugin].endpoint_of(device).cloned() {
                Ok(spec) => self.join_endpoint(plugin, device, &spec),
                Err(reason) => self.fail_device(device, &reason),
            }
        }
    }

    pub(crate) fn join_endpoint(&mut self, plugin: PluginId, device: DeviceId, spec: &EndpointSpec) {
        let endpoint = self.endpoint(spec);
        let channel = self.channel(plugin, endpoint);
        self.channels[channel].devices.push(device);
        self.devices[device].channel = Some(channel);
        self.revive_device(device);
    }

    pub(crate) fn plugin_failed(&mut self, plugin: usize, reason: String) {
        let Some(plugin) = self.plugins.at(plugin) else { return };
        self.give_up(plugin, reason);
    }

    fn give_up(&mut self, plugin: PluginId, reason: String) {
        let name = self.plugins[plugin].name.clone();
        self.log(
            LogLevel::Error,
            ("plugin", u64::from(plugin.number())),
            vec![("plugin", name.clone())],
            &reason,
        );
        self.trial_trouble(plugin, &reason);
        let reason = format!("plugin {name}: {reason}");
        self.drop_instances(plugin, &reason);
        self.plugins[plugin].status = PluginStatus::Failed;
        self.plugins[plugin].reason.clone_from(&reason);
        // A version on trial: everything it has moves back in this very step.
        if self.handover.as_ref().is_some_and(|handover| handover.to == plugin) {
            return;
        }
        for device in self.plugins[plugin].devices.clone() {
            self.fail_device(device, &reason);
        }
        for sink in self.plugins[plugin].sinks.clone() {
            self.sink_absent(sink, &reason);
        }
    }

    /// The instances of a plugin are gone without a STOPPED.
    fn drop_instances(&mut self, plugin: PluginId, reason: &str) {
        for channel in self.plugins[plugin].channels.clone() {
            if self.channels[channel].phase != ChannelPhase::Closed {
                self.close_channel(channel, reason);
            }
            self.channels[channel].zombies = 0;
        }
        for sink in self.plugins[plugin].sinks.clone() {
            self.sink_instance_gone(sink, reason);
        }
    }

    pub(crate) fn heartbeat(&mut self, plugin: usize) {
        let Some(plugin) = self.plugins.at(plugin) else { return };
        let state = &mut self.plugins[plugin];
        state.last_beat_ns = self.now.mono_ns;
        if state.status != PluginStatus::Ready || !std::mem::replace(&mut state.stalled, false) {
            return;
        }
        let name = self.plugins[plugin].name.clone();
        self.log(
            LogLevel::Info,
            ("beats", u64::from(plugin.number())),
            vec![("plugin", name)],
            "the plugin answers again; its devices connect",
        );
        for channel in self.plugins[plugin].channels.clone() {
            // Its back-off may have ended while nothing could be asked.
            if self.channels[channel].wake_ns == 0 {
                self.open_channel(channel);
            }
            self.mark_endpoint(self.channels[channel].endpoint);
        }
        for sink in self.plugins[plugin].sinks.clone() {
            self.sink_plugin_beats(sink);
        }
    }

    pub(crate) fn check_heartbeat(&mut self, plugin: PluginId) {
        let state = &self.plugins[plugin];
        if state.status != PluginStatus::Ready {
            return;
        }
        self.timers.arm(self.now.mono_ns + LOOK_NS, Timer::Plugin(plugin));
        let silent_ns = self.now.mono_ns.saturating_sub(state.last_beat_ns);
        let name = state.name.clone();
        if silent_ns >= ABANDONED_NS {
            let reason = "no heartbeat for 30 seconds; the plugin was given up".to_owned();
            self.out.push(Output::Abandon { plugin: plugin.number() as usize, reason: reason.clone() });
            self.give_up(plugin, reason);
        } else if silent_ns >= STALLED_NS && !state.stalled {
            self.plugins[plugin].stalled = true;
            let reason = format!("plugin {name} is stalled: no heartbeat for a second");
            self.trial_trouble(plugin, &reason);
            self.log(
                LogLevel::Error,
                ("stalled", u64::from(plugin.number())),
                vec![("plugin", name)],
                &reason,
            );
            for channel in self.plugins[plugin].channels.clone() {
                self.lose_channel(channel, &reason);
            }
            for sink in self.plugins[plugin].sinks.clone() {
                self.sink_down(sink, &reason);
            }
        }
    }

    /// The plugin may be asked for something.
    pub(crate) fn plugin_usable(&self, plugin: PluginId) -> bool {
        let plugin = &self.plugins[plugin];
        plugin.status == PluginStatus::Ready && !plugin.stalled
    }

    /// The plugin announced the operation (a plugin that announces nothing is asked for everything).
    pub(crate) fn plugin_knows(&self, plugin: PluginId, op: u32) -> bool {
        self.plugins[plugin]
            .describe
            .as_ref()
            .is_none_or(|describe| describe.ops.is_empty() || describe.ops.contains(&op))
    }
}
