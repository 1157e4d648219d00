//! One owner per endpoint key, over all plugins: whatever is asked of a line or socket waits here for its turn, commands
//! first. `parallel` bounds what runs at once; the queue is bounded by construction, because a device asks for each
//! thing once (a read that is still waiting when it is due again is skipped).

use busbar_contract::{Cause, Endpoint as EndpointSpec};

use crate::{
    Core,
    arena::{ChannelId, DeviceId, EndpointId, PluginId},
    state::{Channel, ChannelPhase, Endpoint, Pending, Phase, Queued, Work},
};

/// Most requests that one endpoint may run at once, whatever its driver says (G9).
pub(crate) const MAX_PARALLEL: u32 = 1024;

impl Core {
    /// The endpoint with this key. Two plugins that name one key share it on the stricter terms.
    pub(crate) fn endpoint(&mut self, spec: &EndpointSpec) -> EndpointId {
        let parallel = spec.parallel.clamp(1, MAX_PARALLEL);
        let known = self.endpoints.iter().find(|(_, endpoint)| endpoint.key == spec.key).map(|(id, _)| id);
        if let Some(id) = known {
            let endpoint = &mut self.endpoints[id];
            endpoint.exclusive |= spec.exclusive;
            endpoint.parallel = endpoint.parallel.min(parallel);
            return id;
        }
        self.endpoints.push(Endpoint {
            key: spec.key.clone(),
            exclusive: spec.exclusive,
            parallel,
            lock_path: spec.lock_path.clone(),
            channels: Vec::new(),
            commands: Default::default(),
            queue: Default::default(),
            in_flight: 0,
            dirty: false,
            held: false,
        })
    }

    /// The endpoint as `plugin` serves it.
    pub(crate) fn channel(&mut self, plugin: PluginId, endpoint: EndpointId) -> ChannelId {
        let known = self.endpoints[endpoint]
            .channels
            .iter()
            .copied()
            .find(|channel| self.channels[*channel].plugin == plugin);
        if let Some(channel) = known {
            return channel;
        }
        let channel = self.channels.push(Channel {
            plugin,
            endpoint,
            devices: Vec::new(),
            phase: ChannelPhase::Closed,
            instance: 0,
            wake_ns: 0,
            attempts: 0,
            zombies: 0,
            moving: false,
            reopen: false,
        });
        self.endpoints[endpoint].channels.push(channel);
        self.plugins[plugin].channels.push(channel);
        channel
    }

    /// Another plugin that holds the endpoint, where only one connection is possible.
    pub(crate) fn endpoint_holder(&self, channel: ChannelId) -> Option<PluginId> {
        let endpoint = &self.endpoints[self.channels[channel].endpoint];
        if !endpoint.exclusive {
            return None;
        }
        endpoint
            .channels
            .iter()
            .filter(|other| **other != channel)
            .map(|other| &self.channels[*other])
            .find(|other| other.phase != ChannelPhase::Closed)
            .map(|other| other.plugin)
    }

    /// Asks something of a device; it leaves when the endpoint has a turn for it.
    pub(crate) fn ask(&mut self, device: DeviceId, work: Work) {
        let Some(channel) = self.devices[device].channel else { return };
        let endpoint = self.channels[channel].endpoint;
        let queued = Queued { device, session: self.devices[device].session, work };
        let first = matches!(queued.work, Work::Command(_) | Work::CancelSelection { .. });
        let state = &mut self.endpoints[endpoint];
        if first {
            state.commands.push_back(queued);
        } else {
            state.queue.push_back(queued);
        }
        self.mark_endpoint(endpoint);
    }

    /// What waits for a device is forgotten (it was lost).
    pub(crate) fn forget_queued(&mut self, device: DeviceId) {
        let Some(channel) = self.devices[device].channel else { return };
        let endpoint = self.channels[channel].endpoint;
        let state = &mut self.endpoints[endpoint];
        state.commands.retain(|queued| queued.device != device);
        state.queue.retain(|queued| queued.device != device);
    }

    /// A turn became free.
    pub(crate) fn free_turn(&mut self, pending: &mut Pending) {
        if let Some(endpoint) = pending.endpoint.take() {
            let state = &mut self.endpoints[endpoint];
            state.in_flight = state.in_flight.saturating_sub(1);
            self.mark_endpoint(endpoint);
        }
    }

    /// Submits what the endpoint has turns for.
    pub(crate) fn run_endpoint(&mut self, endpoint: EndpointId) {
        self.endpoints[endpoint].dirty = false;
        while self.endpoints[endpoint].in_flight < self.endpoints[endpoint].parallel {
            let Some(queued) = self.next_queued(endpoint) else { return };
            self.submit_queued(endpoint, queued);
        }
    }

    /// Commands first. Of devices that are about to move only commands leave.
    fn next_queued(&mut self, endpoint: EndpointId) -> Option<Queued> {
        let state = &mut self.endpoints[endpoint];
        if let Some(command) = state.commands.pop_front() {
            return Some(command);
        }
        if !state.held {
            return state.queue.pop_front();
        }
        let devices = &self.devices;
        let place = state.queue.iter().position(|queued| !devices[queued.device].quiet)?;
        state.queue.remove(place)
    }

    fn submit_queued(&mut self, endpoint: EndpointId, queued: Queued) {
        let device = &self.devices[queued.device];
        let Some(channel) = device.channel else { return };
        let state = &self.channels[channel];
        let usable = state.phase == ChannelPhase::Open
            && self.plugin_usable(state.plugin)
            && self.instances.get(&state.instance).is_some_and(|instance| instance.stalled_ns.is_none());
        if device.session != queued.session || !usable {
            return self.not_submitted(queued);
        }
        let instance = state.instance;
        let Some((body, deadline_ns)) = self.request_body(queued.device, &queued.work) else {
            return;
        };
        if let Work::Read { cause: Cause::Poll, due_ns, .. } = queued.work
            && due_ns > 0
        {
            let delay = self.now.mono_ns.saturating_sub(due_ns);
            let plugin = self.channels[channel].plugin;
            self.plugins[plugin].start_delay.observe_ns(delay);
            self.devices[queued.device].counters.polls_started += 1;
        }
        self.endpoints[endpoint].in_flight += 1;
        self.submit(
            Pending {
                number: 0,
                instance,
                endpoint: Some(endpoint),
                device: Some(queued.device),
                session: queued.session,
                work: queued.work,
                submitted_ns: self.now.mono_ns,
                deadline_ns,
            },
            body,
        );
    }

    /// Work that cannot leave (any more): whoever waits is told, and a step towards a connection is tried again later.
    fn not_submitted(&mut self, queued: Queued) {
        const REASON: &str = "the plugin does not answer";
        let current = self.devices[queued.device].session == queued.session;
        match queued.work {
            Work::Command(command) => self.command_lost(command, REASON),
            Work::Fetch(fetch) | Work::Browse(fetch) => self.fetch_failed(fetch, REASON),
            Work::Disconnect | Work::CancelSelection { .. } => {}
            _ if current => self.lose_device(queued.device, REASON),
            _ => {}
        }
    }

    /// The device may be asked for values.
    pub(crate) fn is_online(&self, device: DeviceId) -> bool {
        self.devices[device].phase == Phase::Online
    }
}
