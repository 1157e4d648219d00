//! The read-only views of the core.

use busbar_contract::Flags;
use serde_json::Value as Json;

use crate::{
    Core,
    arena::{Id, PointId, SinkId},
    books::Drop,
    gathered::add,
    model,
    state::{ChannelPhase, Phase, PluginStatus},
    view::{DeviceView, Ledger, PluginState, PluginView, PointView, SinkView},
};

const NO_METADATA: &Json = &Json::Null;

impl Core {
    /// The configuration it runs, each part at the place of its number; what a reload removed leaves an empty place with
    /// an empty name. [`Core::configured`] gives it in the order of the file.
    #[must_use]
    pub fn site(&self) -> &model::Site {
        &self.site
    }

    /// Points in the order of the configuration, without system points; of one device, or all.
    pub fn points<'a>(&'a self, device: Option<&str>) -> Box<dyn Iterator<Item = PointView<'a>> + 'a> {
        match device {
            None => {
                let points = self.order.iter().flat_map(|device| &self.devices[*device].points);
                Box::new(points.map(|id| self.view_of(*id)))
            }
            Some(name) => match self.device_named(name) {
                Some(device) => Box::new(self.point_ids(device).map(|id| self.view_of(id))),
                None => Box::new(std::iter::empty()),
            },
        }
    }

    /// System points: `@host/...`, `@sink/NAME/...`, `DEVICE/@...`.
    pub fn system_points(&self) -> Box<dyn Iterator<Item = PointView<'_>> + '_> {
        Box::new(
            self.points
                .iter()
                .filter(|(_, point)| point.device.is_none() && !point.gone)
                .map(|(id, _)| self.view_of(id)),
        )
    }

    /// One point by name (`device/point`), system points too.
    #[must_use]
    pub fn point(&self, name: &str) -> Option<PointView<'_>> {
        self.named(name).map(|id| self.view_of(id))
    }

    pub(crate) fn view_of(&self, id: PointId) -> PointView<'_> {
        let point = &self.points[id];
        let (device, name) = self.name_parts(id);
        let config = point
            .device
            .and_then(|device| self.site.devices.get(device.number() as usize))
            .and_then(|config| config.points.get(point.index));
        let metadata = self
            .metadata
            .get(&id)
            .or_else(|| config.map(|config| &config.metadata))
            .map_or(NO_METADATA, |known| &**known);
        let configured = config.map_or("", |config| config.unit.as_str());
        let unit = if configured.is_empty() {
            metadata.get("unit").and_then(Json::as_str).unwrap_or_default()
        } else {
            configured
        };
        let (ts_ns, value_ts_ns, marks) = point.shown_times();
        PointView {
            device,
            name,
            number: id.number(),
            value: point.shown().value(),
            quality: point.quality(),
            ts_ns,
            value_ts_ns,
            gateway_time: Flags(marks).gateway_time(),
            unit,
            writable: point.writable,
            metadata,
        }
    }

    /// Devices in the order of the configuration.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceView<'_>> {
        self.order
            .iter()
            .filter_map(|id| Some((*id, &self.devices[*id], self.site.devices.get(id.number() as usize)?)))
            .map(|(id, device, config)| DeviceView {
                name: &config.name,
                driver: &config.driver,
                endpoint: device
                    .channel
                    .map_or("", |channel| self.endpoints[self.channels[channel].endpoint].key.as_str()),
                state: self.device_state(id),
                reason: &device.reason,
                since_ns: device.since_wall_ns,
                peer: &device.peer,
                points: device.points.len(),
                description: &config.description,
                labels: &config.labels,
                counters: device.counters,
            })
            .collect()
    }

    /// Plugins in the order of [`model::Site::plugins`].
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginView<'_>> {
        self.plugins
            .iter()
            .filter(|(id, plugin)| plugin.base == *id && !plugin.gone)
            .map(|(of, base)| {
                let id = base.serving;
                let plugin = &self.plugins[id];
                let instances = self.instances.values().filter(|instance| instance.plugin == id).count();
                let (state, reason) = self.plugin_state(id, instances);
                PluginView {
                    name: &plugin.name,
                    base: of.number() as usize,
                    index: id.number() as usize,
                    kind: plugin.kind,
                    version: plugin.describe.as_ref().map_or("", |describe| describe.version.as_str()),
                    isolation: plugin.isolation,
                    state,
                    reason,
                    instances,
                }
            })
            .collect()
    }

    fn plugin_state(&self, id: crate::arena::PluginId, instances: usize) -> (PluginState, String) {
        let plugin = &self.plugins[id];
        match plugin.status {
            PluginStatus::Declared => return (PluginState::Declared, String::new()),
            PluginStatus::Failed | PluginStatus::Retired => {
                return (PluginState::Failed, plugin.reason.clone());
            }
            PluginStatus::Ready => {}
        }
        if plugin.stalled {
            return (PluginState::Degraded, "no heartbeat".into());
        }
        let stalled =
            self.instances.values().any(|instance| instance.plugin == id && instance.stalled_ns.is_some());
        let stuck = plugin.channels.iter().any(|channel| {
            self.channels[*channel].zombies > 0 || self.channels[*channel].phase == ChannelPhase::Stopping
        });
        if (stalled || stuck) && !self.stopping {
            return (PluginState::Degraded, "an instance does not answer in time".into());
        }
        (if instances == 0 { PluginState::Loaded } else { PluginState::Running }, String::new())
    }

    /// Sinks in the order of the configuration.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkView<'_>> {
        self.sink_order
            .iter()
            .filter_map(|id| Some((*id, &self.sinks[*id], self.site.sinks.get(id.number() as usize)?)))
            .map(|(id, sink, config)| SinkView {
                name: &config.name,
                plugin: &config.plugin,
                connected: sink.is_up(),
                reason: &sink.reason,
                since_ns: sink.since_wall_ns,
                points: sink.live().count(),
                ledger: self.ledger(id),
                unwritten: sink.journal.as_ref().map_or(0, |journal| journal.unwritten()),
                queue_reason: sink.journal.as_ref().map_or("", |journal| journal.trouble()),
                pending_bytes: sink.pending_bytes(),
                oldest_age_ns: sink.oldest_age_ns(self.now.mono_ns),
                overflow: sink.overflow,
            })
            .collect()
    }

    pub(crate) fn ledger(&self, id: SinkId) -> Ledger {
        let sink = &self.sinks[id];
        if let Some(ledger) = sink.disk_ledger() {
            return ledger;
        }
        let mut ledger = Ledger {
            accepted: sink.books.accepted,
            delivered: sink.books.delivered,
            pending: sink.pending(),
            ..Ledger::default()
        };
        for (reason, count) in &sink.books.parked {
            add(&mut ledger.parked, &self.reason_text(id, *reason), *count);
        }
        for why in Drop::ALL {
            let count = sink.books.dropped_by(why);
            if count > 0 {
                add(&mut ledger.dropped, why.as_str(), count);
            }
        }
        ledger
    }

    /// `device/point` behind a point number, for log lines of plugins; `None` for a number never given.
    #[must_use]
    pub fn point_name(&self, number: u32) -> Option<String> {
        self.points.find(number).map(|id| self.full_name(id))
    }

    /// Name of the device with this number (numbers are given by ATTACH), for log lines of plugins.
    #[must_use]
    pub fn device_name(&self, number: u32) -> Option<&str> {
        self.site.devices.get(usize::try_from(number).ok()?).map(|device| device.name.as_str())
    }

    /// Every plugin is loaded or failed with a reason, and so is every queue on disk; `strict`: every plugin runs, every
    /// device and sink can, and every queue is on disk. The error names the first that is not.
    pub fn ready(&self, strict: bool) -> Result<(), String> {
        for plugin in self.plugins() {
            match plugin.state {
                PluginState::Declared => return Err(format!("plugin {} is not loaded yet", plugin.name)),
                PluginState::Failed | PluginState::Degraded if strict => {
                    return Err(format!("plugin {}: {}", plugin.name, plugin.reason));
                }
                _ => {}
            }
        }
        for sink in &self.sink_order {
            let Some(journal) = &self.sinks[*sink].journal else { continue };
            let trouble = journal.trouble();
            if !journal.is_ready() || (strict && !trouble.is_empty()) {
                let config = self.site.sinks.get(sink.number() as usize);
                let name = config.map_or("", |config| config.name.as_str());
                let why =
                    if trouble.is_empty() { "its first transaction is not on disk yet" } else { trouble };
                return Err(format!("queue of sink {name}: {why}"));
            }
        }
        if strict {
            let failed = self.order.iter().find(|device| self.devices[**device].phase == Phase::Failed);
            if let Some(id) = failed {
                let name = self.device_name(id.number()).unwrap_or_default();
                return Err(format!("device {name}: {}", self.devices[*id].reason));
            }
            if let Some(sink) = self.sinks().into_iter().find(|sink| !sink.connected) {
                return Err(format!("sink {}: {}", sink.name, sink.reason));
            }
        }
        Ok(())
    }
}
