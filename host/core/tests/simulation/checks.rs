//! The guarantees, seen from outside.

use busbar_contract::Quality;
use busbar_core::view::DeviceState;

use crate::{
    sink::SinkMood,
    world::{MS, SECOND, Stats, World},
};

/// What was seen in the last step.
pub(crate) struct Watch {
    states: Vec<Option<DeviceState>>,
    online_ns: Vec<Option<u64>>,
    healthy_online_ns: Option<u64>,
    polls: (u64, u64),
    losses: Vec<u64>,
}

impl Watch {
    pub(crate) fn new(devices: usize) -> Self {
        Self {
            states: vec![None; devices],
            online_ns: vec![None; devices],
            healthy_online_ns: None,
            polls: (0, 0),
            losses: vec![0; devices],
        }
    }
}

impl World {
    /// After every step.
    pub(crate) fn check_step(&mut self) -> Result<(), String> {
        self.core.check_invariants()?;
        self.check_points()?;
        self.check_devices()?;
        self.check_sinks()
    }

    /// G1 and G3 together: what is shown as good was fed within `stale_after`, by a device that is there.
    fn check_points(&self) -> Result<(), String> {
        let devices = self.core.devices();
        for view in self.core.points(None) {
            let state = &self.points[view.number as usize];
            let device = &devices[state.device as usize];
            let there = matches!(device.state, DeviceState::Online | DeviceState::Resync);
            if !there && !view.quality.contains(Quality::SUBSTITUTED) {
                let marked = view.quality.contains(Quality::COMM_LOST)
                    || view.quality.contains(Quality::OPERATOR_BLOCKED);
                if !marked || view.quality.is_good() {
                    return Err(format!(
                        "G1: {}/{} is {} while its device is {:?}",
                        view.device, view.name, view.quality, device.state
                    ));
                }
            }
            if view.quality.is_good() && !view.quality.contains(Quality::SUBSTITUTED) {
                let stale_ns = self.stale_ns(view.number);
                let age = self.now.mono_ns.saturating_sub(state.fed_ns);
                if age > stale_ns + self.slack_ns() {
                    return Err(format!(
                        "G3: {}/{} is good {} ms after its last value",
                        view.device,
                        view.name,
                        age / MS
                    ));
                }
            }
        }
        Ok(())
    }

    fn stale_ns(&self, point: u32) -> u64 {
        let state = &self.points[point as usize];
        let config = &self.plant.site.devices[state.device as usize];
        let index = point - self.first_point(state.device as usize);
        let own = config.points[index as usize].stale_after.as_nanos() as u64;
        if !self.devices[state.device as usize].subscribes {
            return own;
        }
        let period = if config.integrity.is_zero() { config.probe_interval } else { config.integrity };
        own.max((3 * period.as_nanos() as u64).max(3 * SECOND))
    }

    fn check_devices(&mut self) -> Result<(), String> {
        let views: Vec<_> = self.core.devices().iter().map(|view| (view.state, view.counters)).collect();
        for (device, (state, counters)) in views.iter().enumerate() {
            let before = self.watch.states[device].replace(*state);
            self.watch.losses[device] = counters.losses;
            if *state == DeviceState::Online && before != Some(DeviceState::Online) {
                self.came_online(device)?;
            }
            if *state != DeviceState::Online {
                self.watch.online_ns[device] = None;
            }
            if self.plant.healthy[device] && *state == DeviceState::Online {
                if self.watch.healthy_online_ns.is_none() {
                    self.watch.healthy_online_ns = Some(self.now.mono_ns);
                }
                self.watch.polls = (counters.polls_due, counters.polls_skipped);
            }
            if self.plant.healthy[device] && counters.losses > 0 && self.is_healthy_alone(device) {
                return Err(format!("G5: healthy device {device} was lost"));
            }
        }
        Ok(())
    }

    /// Nobody shares its endpoint.
    fn is_healthy_alone(&self, device: usize) -> bool {
        let key = &self.plant.endpoints[device].key;
        self.plant.endpoints.iter().filter(|endpoint| endpoint.key == *key).count() == 1
    }

    /// G2: every point was answered since the connect.
    fn came_online(&mut self, device: usize) -> Result<(), String> {
        self.stats.resync_checks += 1;
        self.watch.online_ns[device] = Some(self.now.mono_ns);
        let since = self.devices[device].connected_ns;
        for point in self.points.iter().filter(|point| point.device as usize == device) {
            if point.given_ns < since {
                return Err(format!(
                    "G2: device {device} is online and a point was not read since the connect"
                ));
            }
        }
        Ok(())
    }

    fn check_sinks(&mut self) -> Result<(), String> {
        let views: Vec<_> = self
            .core
            .sinks()
            .iter()
            .map(|view| (view.connected, view.ledger.clone(), view.unwritten, view.oldest_age_ns))
            .collect();
        for (sink, (connected, ledger, unwritten, oldest_ns)) in views.into_iter().enumerate() {
            if !ledger.is_balanced() {
                return Err(format!("G7: the ledger of sink {sink} does not balance: {ledger:?}"));
            }
            let silent =
                self.instances.get(&self.sinks[sink].instance).is_none_or(|state| self.silent[state.plugin]);
            let healthy = connected && self.sinks[sink].mood == SinkMood::Prompt && !silent;
            let since = self.sinks[sink].healthy_ns;
            self.sinks[sink].healthy_ns = match (healthy, since) {
                (true, Some(since)) => Some(since),
                (true, None) => Some(self.now.mono_ns),
                (false, _) => None,
            };
            if !self.plant.strict[sink] {
                continue;
            }
            // The image of a queue on disk is in no ledger.
            let on_disk = self.plant.site.sinks[sink].queue.on_disk;
            let long = self.sinks[sink].healthy_ns.is_some_and(|since| self.now.mono_ns - since > 3 * SECOND);
            if connected && ledger.pending + unwritten == 0 && (!on_disk || long) {
                self.check_image(sink)?;
            }
            // G1: what the table knows is at a healthy sink within a second.
            if let Some(since) = self.sinks[sink].healthy_ns
                && self.now.mono_ns - since > 3 * SECOND
                && oldest_ns > SECOND
            {
                return Err(format!("G1: a record waits {} ms for healthy sink {sink}", oldest_ns / MS));
            }
        }
        Ok(())
    }

    /// A sink that has everything shows what the table shows.
    fn check_image(&mut self, sink: usize) -> Result<(), String> {
        let every = self.plant.site.sinks[sink].send == busbar_core::model::Send::Every;
        if self.clock_stepped && !every {
            // The model cannot tell a late event from a new one where not every sample passes.
            return Ok(());
        }
        self.stats.image_checks += 1;
        for view in self.core.points(None) {
            if !self.sink_points[sink].contains(&view.number) {
                continue;
            }
            let Some(shown) = self.sinks[sink].image.get(&view.number) else {
                return Err(format!("sink {sink} was never told of {}/{}", view.device, view.name));
            };
            let mask = !Quality::CLOCK_UNSYNCED.0;
            if shown.quality.0 & mask != view.quality.0 & mask {
                return Err(format!(
                    "G1: sink {sink} shows {}/{} as {}, the table as {}, since {} ms",
                    view.device,
                    view.name,
                    shown.quality,
                    view.quality,
                    (self.now.mono_ns - shown.at_ns) / MS
                ));
            }
            let mut blob = Vec::new();
            if every && !self.clock_stepped && view.value.encode(&mut blob) != shown.bits {
                return Err(format!("sink {sink} shows another value of {}/{}", view.device, view.name));
            }
        }
        Ok(())
    }

    /// Every device online, every sink connected and empty.
    pub(crate) fn is_well(&self) -> bool {
        self.what_is_wrong().is_empty()
    }

    pub(crate) fn what_is_wrong(&self) -> String {
        let endpoints = &self.plant.endpoints;
        for (device, view) in self.core.devices().iter().enumerate() {
            let shared = endpoints.iter().any(|other| other.exclusive && other.key == endpoints[device].key);
            if view.state != DeviceState::Online && !shared {
                return format!("device {} is {:?}: {}", view.name, view.state, view.reason);
            }
        }
        for (sink, view) in self.core.sinks().iter().enumerate() {
            if !view.connected {
                return format!("sink {} is not connected: {}", view.name, view.reason);
            }
            // Its tail is always on the way; what counts is that it moves.
            if self.plant.strict[sink] && view.oldest_age_ns > SECOND {
                return format!("sink {} has a record of {} ms", view.name, view.oldest_age_ns / MS);
            }
        }
        if self.asks.iter().any(|(_, asked)| asked.last.is_none() && self.still_waits(asked.instance)) {
            return "a command has no last answer".into();
        }
        if self.fetches.iter().any(|(instance, _)| self.still_waits(*instance))
            || !self.operator_reads.is_empty()
        {
            return "a fresh read was not answered".into();
        }
        String::new()
    }

    fn still_waits(&self, instance: u64) -> bool {
        instance == 0 || self.instances.get(&instance).is_some_and(|state| !state.stopped)
    }

    pub(crate) fn final_checks(&mut self) -> Result<(), String> {
        if let Some(open) = self.fetches.iter().find(|(instance, _)| self.still_waits(*instance)) {
            return Err(format!("a fresh read was never answered: {open:?}"));
        }
        if let Some(id) = self.operator_reads.iter().next() {
            return Err(format!("an operator's question was never answered: {id}"));
        }
        self.check_polls()?;
        let metrics = self.core.metrics();
        let open = metrics.iter().find(|metric| metric.name == "busbar_requests_open");
        if let Some(busbar_core::metrics::MetricValue::Gauge(open)) = open.map(|metric| &metric.value)
            && *open > 64.0
        {
            return Err(format!("R4: {open} requests are open at the end"));
        }
        self.collect()
    }

    /// G5: the healthy device keeps its interval, whatever the others do.
    fn check_polls(&self) -> Result<(), String> {
        let Some(since) = self.watch.healthy_online_ns else { return Ok(()) };
        let (due, skipped) = self.watch.polls;
        if !self.is_healthy_alone(0) || self.plant.site.devices[0].points.is_empty() {
            return Ok(());
        }
        let mut intervals: Vec<u64> = self.plant.site.devices[0]
            .points
            .iter()
            .map(|point| point.poll_interval.as_nanos() as u64)
            .collect();
        intervals.sort_unstable();
        intervals.dedup();
        let expected: u64 = intervals.iter().map(|interval| (self.now.mono_ns - since) / interval).sum();
        if (due as f64) < expected as f64 * 0.99 - 3.0 || skipped as f64 > due as f64 * 0.01 + 1.0 {
            return Err(format!(
                "G5: of {expected} polls of a healthy device {due} were due and {skipped} skipped"
            ));
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), String> {
        let mut stats = Stats::default();
        for view in self.core.devices() {
            stats.losses += view.counters.losses;
            stats.foreign += view.counters.foreign_samples;
        }
        for view in self.core.sinks() {
            stats.parked += view.ledger.parked_total();
            stats.dropped += view.ledger.dropped_total();
        }
        for metric in self.core.metrics() {
            if let ("busbar_sink_retries_total", busbar_core::metrics::MetricValue::Counter(count)) =
                (metric.name, metric.value)
            {
                stats.retries += count as u64;
            }
        }
        self.stats.add(&stats);
        Ok(())
    }
}
