//! What must hold, seen from outside.

use busbar_core::metrics::MetricValue;

use crate::{
    file::Fate,
    world::{MS, SECOND, World},
};

/// A file that failed is tried again after at most this.
const ILL_NS: u64 = 7 * SECOND;

impl World {
    pub(crate) fn check_step(&mut self) -> Result<(), String> {
        self.core.check_invariants()?;
        for view in self.core.sinks() {
            if !view.ledger.is_balanced() {
                return Err(format!("G7: the ledger of {} does not balance: {:?}", view.name, view.ledger));
            }
        }
        Ok(())
    }

    /// At a kill: what was measured longer ago than a flush takes is with the far side or in the file.
    pub(crate) fn check_crash(&mut self) {
        let now_ns = self.absolute_ns();
        for sink in 0..self.measured.len() {
            let flush_ns = self.site.sinks[sink].queue.flush_every.as_nanos() as u64;
            let (writer, far) = (&self.writers[sink], &self.fars[sink]);
            let gone: Vec<(u64, u64)> = self.measured[sink]
                .iter()
                .filter(|(value, _)| !far.got.contains_key(value) && !writer.file.fates.contains_key(value))
                .map(|(value, at_ns)| (*value, *at_ns))
                .collect();
            for (value, at_ns) in gone {
                let young = now_ns - at_ns <= flush_ns + 100 * MS;
                let ill = writer.ill_ns.is_some_and(|ill_ns| at_ns <= ill_ns + ILL_NS);
                if !young && !ill {
                    let age = (now_ns - at_ns) / MS;
                    self.error.get_or_insert(format!("G7: sink {sink} lost {value}, measured {age} ms ago"));
                    return;
                }
                self.stats.lost_young += u64::from(young);
                self.measured[sink].remove(&value);
            }
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        self.what_is_wrong().is_empty()
    }

    pub(crate) fn what_is_wrong(&self) -> String {
        if let Some(device) = self.core.devices().iter().find(|device| device.state.as_str() != "online") {
            return format!("device {} is {:?}", device.name, device.state);
        }
        for view in self.core.sinks() {
            if !view.connected
                || view.ledger.pending > 0
                || view.unwritten > 0
                || !view.queue_reason.is_empty()
            {
                return format!("{view:?}");
            }
        }
        let in_flight = self.core.metrics().into_iter().any(|metric| {
            metric.name == "busbar_sink_in_flight_records"
                && matches!(metric.value, MetricValue::Gauge(count) if count > 0.0)
        });
        if in_flight { "records are in flight".into() } else { String::new() }
    }

    /// Everything measured came through, or it is known what became of it; and the latest state came last.
    pub(crate) fn final_checks(&mut self) -> Result<(), String> {
        for sink in 0..self.measured.len() {
            let (writer, far) = (&self.writers[sink], &self.fars[sink]);
            let missing: Vec<u64> = self.measured[sink]
                .keys()
                .filter(|value| {
                    let ended = matches!(writer.file.fates.get(value), Some(Fate::Parked | Fate::Dropped));
                    !ended && !far.got.contains_key(value)
                })
                .copied()
                .collect();
            // What the core gave up because the disk did not take it is known by number only.
            let given_up: u64 = writer.file.ledger().dropped.values().sum();
            if missing.len() as u64 > given_up || (!missing.is_empty() && writer.ill_ns.is_none()) {
                return Err(format!(
                    "G7: sink {sink} never got {missing:?}; ledger {:?}",
                    writer.file.ledger()
                ));
            }
        }
        self.check_images()
    }

    fn check_images(&self) -> Result<(), String> {
        for (sink, config) in self.site.sinks.iter().enumerate() {
            for route in &config.routes {
                let device = &self.site.devices[route.device];
                let point = &device.points[route.point];
                let view = self.core.point(&format!("{}/{}", device.name, point.name)).unwrap();
                let shown = self.fars[sink].shown.iter().find(|(name, _)| {
                    name.device == device.name && name.point == point.name && name.unit == point.unit
                });
                let bits = view.value.encode(&mut Vec::new());
                if shown.map(|(_, shown)| *shown) != Some((bits, view.quality.0)) {
                    return Err(format!(
                        "sink {sink} shows {}/{} as {shown:?}, the table {bits} {}",
                        device.name, point.name, view.quality
                    ));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn collect(&mut self) {
        for (writer, far) in self.writers.iter().zip(&self.fars) {
            self.stats.transactions += writer.file.transactions;
            self.stats.rows += writer.file.rows_written;
            self.stats.parked += writer.file.ledger().parked_total();
            let dropped = &writer.file.ledger().dropped;
            let of = |reason: &str| dropped.get(reason).copied().unwrap_or(0);
            self.stats.dropped_by_file += of("overflow") + of("expired");
            self.stats.refused_records += of("disk_full") + of("disk_slow");
            self.stats.duplicates += far.duplicates;
            self.stats.ghosts += far.ghosts;
        }
        for metric in self.core.metrics() {
            if let ("busbar_sink_retries_total", MetricValue::Counter(count)) = (metric.name, metric.value) {
                self.stats.retries += count as u64;
            }
        }
    }
}
