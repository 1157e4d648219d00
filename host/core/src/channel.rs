//! The instance of an endpoint in a driver: open, stalled, stopped, opened again with back-off. Instance numbers never
//! come back; an instance that does not stop when asked is left behind and counted, and where only one connection is
//! possible nothing is opened until it let go.

use busbar_contract::{Event, Failure, FailureKind, describe::Open};

use crate::{
    Core, Output,
    arena::{ChannelId, Id},
    backoff,
    model::Backoff,
    output::LogLevel,
    request::GRACE_NS,
    state::{ChannelPhase, Instance, Owner},
    time::{SECOND, ms},
    timers::Timer,
};

/// An instance must accept its configuration within.
pub(crate) const OPEN_DEADLINE_NS: u64 = 10 * SECOND;
/// An instance must stop within.
pub(crate) const STOP_DEADLINE_NS: u64 = 5 * SECOND;
/// Instances of one endpoint that may be left behind before its devices fail (G9).
const MAX_ZOMBIES: u32 = 3;
/// Pause before an endpoint is opened again after its instance ended.
pub(crate) const REOPEN: Backoff =
    Backoff { initial: std::time::Duration::from_secs(1), max: std::time::Duration::from_secs(10) };

impl Core {
    /// A number for a new instance, and its place.
    pub(crate) fn new_instance(&mut self, plugin: crate::arena::PluginId, owner: Owner) -> u64 {
        let instance = self.next_instance;
        self.next_instance += 1;
        self.instances.insert(
            instance,
            Instance {
                plugin,
                owner,
                pending: Vec::new(),
                stopping: false,
                stalled_ns: None,
                wake_ns: 0,
                stores: 0,
            },
        );
        instance
    }

    pub(crate) fn open_channel(&mut self, channel: ChannelId) {
        let state = &self.channels[channel];
        let plugin = state.plugin;
        if self.stopping
            || state.moving
            || state.phase != ChannelPhase::Closed
            || state.devices.is_empty()
            || !self.plugin_usable(plugin)
        {
            return;
        }
        if let Some(holder) = self.endpoint_holder(channel) {
            let reason = format!(
                "endpoint {} is in use by plugin {} and allows one connection only",
                self.endpoints[state.endpoint].key, self.plugins[holder].name
            );
            for device in self.channels[channel].devices.clone() {
                self.set_trouble(device, &reason);
            }
            return self.wake_channel(channel, SECOND);
        }
        let Some(connection) = state
            .devices
            .first()
            .and_then(|device| self.site.devices.get(device.number() as usize))
            .map(|config| config.connection.clone())
        else {
            return;
        };
        let endpoint = self.endpoints[state.endpoint].key.clone();
        let instance = self.new_instance(plugin, Owner::Channel(channel));
        let state = &mut self.channels[channel];
        state.phase = ChannelPhase::Opening;
        state.instance = instance;
        let config = Open::Driver { endpoint, connection };
        self.out.push(Output::Open { plugin: plugin.number() as usize, instance, config });
        self.wake_channel(channel, OPEN_DEADLINE_NS + GRACE_NS);
    }

    pub(crate) fn wake_channel(&mut self, channel: ChannelId, span_ns: u64) {
        let at = self.timers.arm(self.now.mono_ns + span_ns, Timer::Channel(channel));
        self.channels[channel].wake_ns = at;
    }

    pub(crate) fn channel_timer(&mut self, channel: ChannelId) {
        let state = &self.channels[channel];
        if state.wake_ns == 0 || state.wake_ns > self.now.mono_ns {
            return;
        }
        self.channels[channel].wake_ns = 0;
        match self.channels[channel].phase {
            ChannelPhase::Closed => self.open_channel(channel),
            ChannelPhase::Open => {}
            ChannelPhase::Opening => {
                self.trial_trouble(self.channels[channel].plugin, "it did not open an endpoint in time");
                self.stop_channel(channel);
            }
            ChannelPhase::Stopping if self.channels[channel].moving => self.stop_hangs(channel),
            ChannelPhase::Stopping => self.did_not_stop(channel),
        }
    }

    fn opened(&mut self, channel: ChannelId) {
        let state = &mut self.channels[channel];
        if state.phase != ChannelPhase::Opening {
            self.oddities.unexpected += 1;
            return;
        }
        state.phase = ChannelPhase::Open;
        state.wake_ns = 0;
        for device in state.devices.clone() {
            self.start_device(device);
        }
    }

    pub(crate) fn open_failed(&mut self, instance: u64, reason: &str) {
        let Some(owner) = self.instances.get(&instance).map(|state| state.owner) else { return };
        match owner {
            Owner::Channel(channel) => {
                self.trial_trouble(self.channels[channel].plugin, reason);
                self.close_channel(channel, reason);
                if self.channels[channel].reopen {
                    // It was the configuration before that was refused.
                    return self.reopen_later(channel);
                }
                for device in self.channels[channel].devices.clone() {
                    self.fail_device(device, reason);
                }
            }
            Owner::Sink(sink) => {
                self.trial_sink_trouble(sink, reason);
                self.sink_instance_gone(sink, reason);
                if self.sinks[sink].reopen {
                    return self.sink_reopen(sink);
                }
                self.sink_misconfigured(sink, reason);
            }
        }
    }

    /// Nothing is wrong with the configuration: opened again with back-off.
    pub(crate) fn open_postponed(&mut self, instance: u64, reason: &str) {
        let Some(owner) = self.instances.get(&instance).map(|state| state.owner) else { return };
        match owner {
            Owner::Channel(channel) => {
                self.close_channel(channel, reason);
                self.reopen_later(channel);
            }
            Owner::Sink(sink) => {
                self.sink_instance_gone(sink, reason);
                self.sink_reopen(sink);
            }
        }
    }

    /// FAILED without a request: the instance as a whole.
    pub(crate) fn instance_failed(&mut self, instance: u64, failure: &Failure) {
        let Some(owner) = self.instances.get(&instance).map(|state| state.owner) else { return };
        let for_good = matches!(failure.kind, FailureKind::Configuration | FailureKind::Unsupported);
        if let Some(plugin) = self.instances.get(&instance).map(|state| state.plugin) {
            self.trial_trouble(plugin, &failure.text);
        }
        match owner {
            Owner::Channel(channel) => {
                self.stop_channel_for(channel, &failure.text);
                if for_good && !self.channels[channel].reopen {
                    for device in self.channels[channel].devices.clone() {
                        self.fail_device(device, &failure.text);
                    }
                }
            }
            Owner::Sink(sink) => {
                self.stop_sink_for(sink, &failure.text);
                if for_good && !self.sinks[sink].ran && !self.sinks[sink].reopen {
                    self.sink_failed(sink, &failure.text);
                }
            }
        }
    }

    pub(crate) fn instance_stopped(&mut self, instance: u64) {
        let Some(owner) = self.instances.get(&instance).map(|state| state.owner) else { return };
        match owner {
            Owner::Channel(channel) => {
                if self.channels[channel].instance != instance {
                    self.forget_instance(instance);
                    return;
                }
                self.close_channel(channel, "the driver closed the endpoint");
                self.channels[channel].zombies = 0;
                self.reopen_later(channel);
                if self.stopping {
                    self.stop_sinks_when_drivers_are_gone();
                }
            }
            Owner::Sink(sink) => self.sink_stopped(sink, instance),
        }
    }

    pub(crate) fn forget_instance(&mut self, instance: u64) {
        self.drop_requests(instance);
        self.drop_selections_of(instance);
        self.instances.remove(&instance);
        self.drop_commits_of(instance);
    }

    fn reopen_later(&mut self, channel: ChannelId) {
        if self.stopping || self.channels[channel].moving {
            return;
        }
        if std::mem::take(&mut self.channels[channel].reopen) {
            self.channels[channel].attempts = 0;
            self.open_channel(channel);
            return self.wake_waiting_channels(channel);
        }
        if self.channels[channel].devices.is_empty() {
            return;
        }
        let attempts = self.channels[channel].attempts;
        self.channels[channel].attempts = attempts.saturating_add(1);
        let pause_ns = backoff::pause(&REOPEN, attempts, &mut self.rng);
        self.wake_channel(channel, pause_ns);
        self.wake_waiting_channels(channel);
    }

    /// Another plugin may have waited for this endpoint.
    fn wake_waiting_channels(&mut self, channel: ChannelId) {
        let endpoint = self.channels[channel].endpoint;
        for other in self.endpoints[endpoint].channels.clone() {
            if other != channel && self.channels[other].phase == ChannelPhase::Closed {
                self.open_channel(other);
            }
        }
    }

    /// The instance is gone: its devices are lost, its requests end.
    pub(crate) fn close_channel(&mut self, channel: ChannelId, reason: &str) {
        self.lose_channel(channel, reason);
        let state = &mut self.channels[channel];
        state.phase = ChannelPhase::Closed;
        state.wake_ns = 0;
        let instance = std::mem::take(&mut state.instance);
        let devices = state.devices.clone();
        self.forget_instance(instance);
        for device in devices {
            self.devices[device].attached = false;
            self.devices[device].bound = false;
            self.device_idle(device);
        }
    }

    /// Every device of the channel loses its session.
    pub(crate) fn lose_channel(&mut self, channel: ChannelId, reason: &str) {
        for device in self.channels[channel].devices.clone() {
            self.lose_device(device, reason);
        }
    }

    /// Asks the instance to stop; what it still sends counts as late.
    pub(crate) fn stop_channel(&mut self, channel: ChannelId) {
        let reason = if self.stopping {
            "the gateway is stopping"
        } else {
            "the driver does not answer; its instance is opened again"
        };
        self.stop_channel_for(channel, reason);
    }

    pub(crate) fn stop_channel_for(&mut self, channel: ChannelId, reason: &str) {
        let state = &self.channels[channel];
        if matches!(state.phase, ChannelPhase::Closed | ChannelPhase::Stopping) {
            return;
        }
        let instance = state.instance;
        self.lose_channel(channel, reason);
        self.channels[channel].phase = ChannelPhase::Stopping;
        for device in self.channels[channel].devices.clone() {
            self.device_idle(device);
        }
        self.ask_to_stop(instance, STOP_DEADLINE_NS);
        self.wake_channel(channel, STOP_DEADLINE_NS + GRACE_NS);
    }

    /// STOP; what the instance still asks is not answered.
    pub(crate) fn ask_to_stop(&mut self, instance: u64, span_ns: u64) {
        if let Some(state) = self.instances.get_mut(&instance) {
            state.stopping = true;
        }
        self.out.push(Output::Stop { instance, deadline_ms: ms(span_ns) });
    }

    pub(crate) fn did_not_stop(&mut self, channel: ChannelId) {
        let endpoint = self.channels[channel].endpoint;
        let key = self.endpoints[endpoint].key.clone();
        self.channels[channel].zombies += 1;
        let zombies = self.channels[channel].zombies;
        let text = format!("the driver did not let go of endpoint {key} within its deadline");
        self.log(LogLevel::Error, ("zombie", u64::from(channel.number())), vec![], &text);
        if self.stopping {
            self.close_channel(channel, &text);
            return self.stop_sinks_when_drivers_are_gone();
        }
        if self.endpoints[endpoint].exclusive || zombies >= MAX_ZOMBIES {
            // Only its STOPPED, or the plugin's end, brings the endpoint back.
            for device in self.channels[channel].devices.clone() {
                self.set_trouble(device, &text);
            }
            return;
        }
        self.close_channel(channel, &text);
        self.reopen_later(channel);
    }

    /// What a driver instance says beside completions.
    pub(crate) fn driver_event(&mut self, channel: ChannelId, instance: u64, request: u64, event: Event) {
        if self.channels[channel].instance != instance {
            self.oddities.late += 1;
            return;
        }
        match event {
            Event::Opened => self.opened(channel),
            Event::State(state) => self.driver_state(channel, &state),
            Event::Progress(answer) => self.command_progress(instance, request, answer),
            Event::Page(page) => self.browse_page(instance, request, page),
            Event::Metadata(metadata) => self.take_metadata(channel, metadata),
            Event::Gap(gap) => self.take_gap(channel, &gap),
            _ => {
                let plugin = self.channels[channel].plugin;
                self.plugins[plugin].malformed += 1;
            }
        }
    }

    fn driver_state(&mut self, channel: ChannelId, state: &busbar_contract::event::State) {
        let devices = match state.device {
            None => self.channels[channel].devices.clone(),
            Some(number) => match self.device_of(channel, number) {
                Some(device) => vec![device],
                None => return,
            },
        };
        for device in devices {
            if state.up {
                self.connect_soon(device);
            } else if self.devices[device].phase.has_session() {
                let reason = if state.reason.is_empty() { "the session ended" } else { &state.reason };
                self.lose_device(device, reason);
            }
        }
    }

    /// A device number of a plugin, checked: it must be a device of this channel (G4).
    pub(crate) fn device_of(&mut self, channel: ChannelId, number: u32) -> Option<crate::arena::DeviceId> {
        let found = self.devices.find(number).filter(|device| self.devices[*device].channel == Some(channel));
        if found.is_none() {
            self.oddities.foreign += 1;
        }
        found
    }
}
