//! Everything `/metrics` shows of the core.

use crate::{
    Core, Metric,
    arena::{DeviceId, Id, PluginId, SinkId},
    books::Drop,
    metrics::MetricValue,
    view::DeviceState,
};

const DEVICE_STATES: [DeviceState; 9] = [
    DeviceState::Connecting,
    DeviceState::Resync,
    DeviceState::Online,
    DeviceState::Lost,
    DeviceState::Failed,
    DeviceState::Maintenance,
    DeviceState::Disabled,
    DeviceState::Inactive,
    DeviceState::Paused,
];

/// With more devices there is no histogram per device (17 lines each); that per plugin stays.
const MAX_DEVICE_HISTOGRAMS: usize = 1_000;

type Labels = Vec<(&'static str, String)>;

fn counter(name: &'static str, help: &'static str, labels: Labels, value: u64) -> Metric {
    Metric { name, help, labels, value: MetricValue::Counter(value as f64) }
}

fn gauge(name: &'static str, help: &'static str, labels: Labels, value: f64) -> Metric {
    Metric { name, help, labels, value: MetricValue::Gauge(value) }
}

impl Core {
    /// Everything `/metrics` shows of the core. Bounded: one entry per plugin, device or sink and name. Entries with one
    /// name are consecutive.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut all = Vec::new();
        // One series per plugin: of the version that serves.
        for (_, plugin) in self.plugins.iter().filter(|(id, plugin)| plugin.base == *id && !plugin.gone) {
            self.plugin_metrics(plugin.serving, &mut all);
        }
        for device in &self.order {
            self.device_metrics(*device, &mut all);
        }
        for sink in &self.sink_order {
            self.sink_metrics(*sink, &mut all);
        }
        self.host_metrics(&mut all);
        all.sort_by(|a, b| a.name.cmp(b.name));
        all
    }

    fn plugin_metrics(&self, id: PluginId, all: &mut Vec<Metric>) {
        let plugin = &self.plugins[id];
        let labels = || vec![("plugin", plugin.name.clone())];
        let histogram = |name, help, histogram: &crate::metrics::Histogram| Metric {
            name,
            help,
            labels: labels(),
            value: MetricValue::Histogram(histogram.clone()),
        };
        all.push(histogram(
            "busbar_poll_start_delay_seconds",
            "From the due time of a scheduled read to its submission.",
            &plugin.start_delay,
        ));
        all.push(histogram(
            "busbar_poll_duration_seconds",
            "From the submission of a scheduled read to its completion.",
            &plugin.poll_duration,
        ));
        all.push(counter(
            "busbar_plugin_malformed_total",
            "Messages of a plugin that break the contract.",
            labels(),
            plugin.malformed,
        ));
        all.push(counter(
            "busbar_plugin_unknown_flags_total",
            "Batches with flags this version does not know.",
            labels(),
            plugin.unknown_flags,
        ));
        for ((device, name), value) in &plugin.reported {
            let mut labels = labels();
            labels.push(("name", name.clone()));
            if let Some(device) = self.device_name(*device) {
                labels.push(("device", device.to_owned()));
            }
            all.push(gauge("busbar_plugin_reported", "Counters reported by a plugin.", labels, *value));
        }
    }

    fn device_metrics(&self, id: DeviceId, all: &mut Vec<Metric>) {
        let name = self.device_name(id.number()).unwrap_or_default();
        let labels = || vec![("device", name.to_owned())];
        let device = &self.devices[id];
        let counters = &device.counters;
        for state in DEVICE_STATES {
            let mut labels = labels();
            labels.push(("state", state.as_str().to_owned()));
            let on = f64::from(u8::from(self.device_state(id) == state));
            all.push(gauge("busbar_device_state", "1 for the state the device is in.", labels, on));
        }
        let named = [
            ("busbar_polls_due_total", "Reads due by the schedule.", counters.polls_due),
            ("busbar_polls_started_total", "Reads submitted by the schedule.", counters.polls_started),
            ("busbar_polls_done_total", "Reads completed with values.", counters.polls_done),
            ("busbar_polls_skipped_total", "Reads left out instead of piling up.", counters.polls_skipped),
            ("busbar_polls_failed_total", "Reads that failed.", counters.polls_failed),
            ("busbar_samples_total", "Samples taken.", counters.samples),
            ("busbar_device_connects_total", "Times the device came online.", counters.connects),
            ("busbar_device_losses_total", "Times the device was lost.", counters.losses),
        ];
        for (metric, help, value) in named {
            all.push(counter(metric, help, labels(), value));
        }
        for (kind, value) in device.errors.named() {
            let mut labels = labels();
            labels.push(("kind", kind.to_owned()));
            all.push(counter("busbar_device_errors_total", "Requests that failed, by kind.", labels, value));
        }
        if device.last_exchange_ns > 0 {
            all.push(gauge(
                "busbar_device_last_success_timestamp_seconds",
                "When the device last answered, seconds since 1970 UTC.",
                labels(),
                self.wall_seconds(device.last_exchange_ns),
            ));
        }
        if self.devices.len() <= MAX_DEVICE_HISTOGRAMS {
            all.push(Metric {
                name: "busbar_device_poll_duration_seconds",
                help: "From the submission of a scheduled read of the device to its completion.",
                labels: labels(),
                value: MetricValue::Histogram(device.poll_duration.clone()),
            });
        }
        let dropped = [
            ("foreign", counters.foreign_samples),
            ("late", counters.late_samples),
            ("missing", counters.missing_samples),
            ("skew", counters.skewed_samples),
        ];
        for (reason, value) in dropped {
            let mut labels = labels();
            labels.push(("reason", reason.to_owned()));
            all.push(counter(
                "busbar_samples_irregular_total",
                "Samples dropped (foreign, late), left out (missing) or restamped (skew).",
                labels,
                value,
            ));
        }
    }

    /// Wall clock of a moment of the monotonic one, seconds since 1970 UTC.
    fn wall_seconds(&self, mono_ns: u64) -> f64 {
        let ago = self.now.mono_ns.saturating_sub(mono_ns);
        (self.now.wall_ns as f64 - ago as f64) / 1e9
    }

    fn sink_metrics(&self, id: SinkId, all: &mut Vec<Metric>) {
        let name =
            self.site.sinks.get(id.number() as usize).map(|config| config.name.clone()).unwrap_or_default();
        let labels = || vec![("sink", name.clone())];
        let sink = &self.sinks[id];
        let ledger = self.ledger(id);
        let age_ns = sink.oldest_age_ns(self.now.mono_ns);
        all.push(gauge(
            "busbar_sink_connected",
            "1 while the far side is up.",
            labels(),
            f64::from(u8::from(sink.is_up())),
        ));
        all.push(gauge(
            "busbar_sink_pending_records",
            "Records waiting or unconfirmed.",
            labels(),
            ledger.pending as f64,
        ));
        all.push(gauge(
            "busbar_sink_in_flight_records",
            "Records delivered and not yet confirmed.",
            labels(),
            sink.queue.in_flight() as f64,
        ));
        if sink.books.last_delivered_ns > 0 {
            all.push(gauge(
                "busbar_sink_last_success_timestamp_seconds",
                "When the far side last confirmed a record, seconds since 1970 UTC.",
                labels(),
                self.wall_seconds(sink.books.last_delivered_ns),
            ));
        }
        if let Some(journal) = &sink.journal {
            all.push(gauge(
                "busbar_sink_unwritten_records",
                "Records taken that are not yet in the figures on disk.",
                labels(),
                journal.unwritten() as f64,
            ));
            all.push(gauge(
                "busbar_sink_queue_on_disk",
                "1 while the queue's file is open and can be written.",
                labels(),
                f64::from(u8::from(journal.reason.is_empty())),
            ));
        }
        let bytes = sink.pending_bytes();
        all.push(gauge(
            "busbar_sink_queue_bytes",
            "Bytes of waiting or unconfirmed records.",
            labels(),
            bytes as f64,
        ));
        all.push(gauge(
            "busbar_sink_oldest_age_seconds",
            "Age of the oldest unconfirmed record.",
            labels(),
            age_ns as f64 / 1e9,
        ));
        let named = [
            ("busbar_sink_accepted_total", "Records taken for the sink.", ledger.accepted),
            ("busbar_sink_delivered_total", "Records confirmed by the far side.", ledger.delivered),
            ("busbar_sink_deliveries_total", "Deliveries made.", sink.books.deliveries),
            ("busbar_sink_retries_total", "Records the sink asked to send again.", sink.books.retries),
            (
                "busbar_sink_refused_deliveries_total",
                "Deliveries the plugin did not take.",
                sink.books.refused,
            ),
            (
                "busbar_sink_late_acks_total",
                "Confirmations of unknown or ended records.",
                sink.books.late_acks,
            ),
        ];
        for (metric, help, value) in named {
            all.push(counter(metric, help, labels(), value));
        }
        let mut dropped = ledger.dropped;
        for why in Drop::ALL {
            dropped.entry(why.as_str().to_owned()).or_default();
        }
        for (reason, value) in dropped {
            let mut labels = labels();
            labels.push(("reason", reason));
            all.push(counter("busbar_sink_dropped_total", "Records given up by the host.", labels, value));
        }
        for (reason, value) in ledger.parked {
            let mut labels = labels();
            labels.push(("reason", reason));
            all.push(counter(
                "busbar_sink_parked_total",
                "Records refused by the far side for good.",
                labels,
                value,
            ));
        }
    }

    fn host_metrics(&self, all: &mut Vec<Metric>) {
        for state in DEVICE_STATES {
            let count = self.devices.ids().filter(|id| self.device_state(*id) == state).count();
            let labels = vec![("state", state.as_str().to_owned())];
            all.push(gauge(
                "busbar_devices",
                "Devices by state; their sum is all devices.",
                labels,
                count as f64,
            ));
        }
        let odd = [
            ("late", self.oddities.late),
            ("foreign", self.oddities.foreign),
            ("unexpected", self.oddities.unexpected),
        ];
        for (reason, value) in odd {
            all.push(counter(
                "busbar_messages_dropped_total",
                "Messages of plugins that are late, foreign or answer nothing.",
                vec![("reason", reason.to_owned())],
                value,
            ));
        }
        all.push(counter(
            "busbar_state_lost_total",
            "Questions for stored state of a device or sink that could not be answered: damaged or lost.",
            Vec::new(),
            self.lost_state_total,
        ));
        all.push(counter(
            "busbar_config_version",
            "Configurations applied since the start, the first included.",
            Vec::new(),
            self.config_version,
        ));
        let locked = f64::from(u8::from(self.commands_locked()));
        all.push(gauge("busbar_commands_locked", "1 while commands are locked.", Vec::new(), locked));
        let synced = f64::from(u8::from(self.clock_synced));
        all.push(gauge(
            "busbar_clock_synced",
            "1 while the system clock is synchronised.",
            Vec::new(),
            synced,
        ));
        all.push(gauge(
            "busbar_requests_open",
            "Requests not yet completed.",
            Vec::new(),
            self.requests.len() as f64,
        ));
        all.push(gauge(
            "busbar_commands_open",
            "Commands not yet ended.",
            Vec::new(),
            self.commands.len() as f64,
        ));
    }
}
