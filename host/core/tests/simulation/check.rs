//! The guarantees, checked after every step, and what must be true at the end.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{Event, FailureKind, Quality, Request, Samples, batch};
use busbar_core::{
    Input, Now,
    model::Site,
    view::{DeviceState, PointView},
};

use crate::{
    driver::{self, Instance},
    sink::Far,
    site::DRIVER,
    world::{MS, World},
};

/// G1 allows one second from detection to every sink that is well.
const G1: u64 = 1_000 * MS;
/// A sink is well after so long without trouble: what it missed before has been delivered by then.
const WELL: u64 = 4_000 * MS;
/// Staleness is judged on the tick grid.
const STALE_SLACK: u64 = 100 * MS;

/// What the checks remember.
#[derive(Debug)]
pub(crate) struct Checks {
    devices: usize,
    endpoints: Vec<String>,
    opened: BTreeSet<u64>,
    /// When each point last got a good value from its driver, monotonic.
    fresh: BTreeMap<u32, u64>,
    /// Since when each device is lost or failed.
    lost: BTreeMap<usize, u64>,
    states: BTreeMap<usize, DeviceState>,
    /// Points read on the present connection, per device number.
    read: BTreeMap<u32, BTreeSet<u32>>,
    disturbed: BTreeSet<usize>,
}

impl Checks {
    pub(crate) fn new(site: &Site) -> Self {
        Self {
            devices: site.devices.len(),
            endpoints: site.devices.iter().map(|device| device.connection["endpoint"].to_string()).collect(),
            opened: BTreeSet::new(),
            fresh: BTreeMap::new(),
            lost: BTreeMap::new(),
            states: BTreeMap::new(),
            read: BTreeMap::new(),
            disturbed: BTreeSet::new(),
        }
    }

    /// The device and those that share its endpoint are excused from G5.
    pub(crate) fn disturb(&mut self, site: &Site, at: usize) {
        let endpoint = self.endpoints[at].clone();
        let mates = (0..site.devices.len()).filter(|mate| self.endpoints[*mate] == endpoint);
        self.disturbed.extend(mates);
    }

    pub(crate) fn disturb_all(&mut self) {
        self.disturbed.extend(0..self.devices);
    }

    pub(crate) fn was_disturbed(&self, at: usize) -> bool {
        self.disturbed.contains(&at)
    }

    /// R3: an instance number is used once.
    pub(crate) fn opened(&mut self, instance: u64) {
        assert!(self.opened.insert(instance), "R3: instance {instance} is opened twice");
    }

    /// Looks at what is about to be told to the core.
    pub(crate) fn before(&mut self, input: &Input, now: Now, instances: &BTreeMap<u64, Instance>) {
        match input {
            Input::Push(push) => {
                let Some(open) = instances.get(&push.instance) else { return };
                for sample in &push.samples.samples {
                    let owner = open.devices.iter().find(|(_, device)| device.points.contains(&sample.point));
                    let Some((number, _)) = owner else { continue };
                    if Quality(sample.quality).is_good() {
                        self.fresh.insert(sample.point, now.mono_ns);
                    }
                    if push.request != 0 {
                        self.read.entry(*number).or_default().insert(sample.point);
                    }
                }
            }
            Input::Event { instance, event: Event::Failed(failure), .. }
                if matches!(failure.kind, FailureKind::Session | FailureKind::Deadline) =>
            {
                let open = instances.get(instance);
                open.into_iter().flat_map(|open| open.devices.keys()).for_each(|number| {
                    self.read.remove(number);
                });
            }
            _ => {}
        }
    }
}

fn completes(input: &Input) -> Option<(u64, u64)> {
    match input {
        Input::Push(push) if push.flags & batch::LAST != 0 => Some((push.instance, push.request)),
        Input::Event { instance, request, event: Event::Done(_) | Event::Failed(_), .. } => {
            Some((*instance, *request))
        }
        _ => None,
    }
}

impl World {
    /// The model's own bookkeeping of R4.
    pub(crate) fn completed(&mut self, input: &Input) {
        if let Some((instance, request)) = completes(input)
            && let Some(open) = self.instances.get_mut(&instance)
        {
            open.pending.remove(&request);
        }
        if let Input::Event { plugin: DRIVER, instance, event: Event::Stopped, .. } = input {
            self.instances.remove(instance);
        }
    }

    /// Everything that must hold after each step.
    pub(crate) fn check(&mut self) {
        self.check_ledgers();
        self.check_devices();
        self.check_table();
        self.check_patience();
        self.check_sinks();
    }

    fn check_ledgers(&self) {
        for sink in self.core.sinks() {
            if !sink.ledger.is_balanced() {
                self.fail(&format!("G7: ledger of {} does not add up: {:?}", sink.name, sink.ledger));
            }
        }
    }

    fn check_devices(&mut self) {
        let states: Vec<DeviceState> = self.core.devices().iter().map(|view| view.state).collect();
        for (at, state) in states.into_iter().enumerate() {
            let before = self.checks.states.insert(at, state);
            if matches!(state, DeviceState::Lost | DeviceState::Failed) {
                self.checks.lost.entry(at).or_insert(self.now.mono_ns);
            } else {
                self.checks.lost.remove(&at);
            }
            if state == DeviceState::Online && before != Some(DeviceState::Online) {
                self.check_resync(at);
            }
        }
    }

    /// G2: online only after every point was answered on this connection.
    fn check_resync(&self, at: usize) {
        let found =
            self.instances.values().flat_map(|open| &open.devices).find(|(_, device)| device.index == at);
        let Some((number, device)) = found else { self.fail("G2: a device is online without an instance") };
        let read = self.checks.read.get(number);
        let missing: Vec<_> =
            device.points.iter().filter(|point| !read.is_some_and(|r| r.contains(point))).collect();
        if !missing.is_empty() && self.behind[at].mode != crate::driver::Mode::Lying {
            self.fail(&format!("G2: device d{at} is online, but these points were never read: {missing:?}"));
        }
    }

    fn check_table(&self) {
        for point in self.core.points(None) {
            let name = format!("{}/{}", point.device, point.name);
            if self.clients.is_operated(&name) {
                continue;
            }
            if let Some(value) = point.value.as_f64()
                && driver::named_by(value) != point.number
            {
                self.fail(&format!("G4: {name} (number {}) holds {value}", point.number));
            }
            self.check_lost_point(&point, &name);
            self.check_fresh_point(&point, &name);
        }
    }

    /// G1 at the table: at once.
    fn check_lost_point(&self, point: &PointView<'_>, name: &str) {
        let lost = self.core.devices().iter().any(|device| {
            device.name == point.device && matches!(device.state, DeviceState::Lost | DeviceState::Failed)
        });
        if lost && !point.quality.contains(Quality::INVALID.with(Quality::COMM_LOST)) {
            self.fail(&format!("G1: {name} is {} while its device is lost", point.quality));
        }
    }

    /// G3.
    fn check_fresh_point(&self, point: &PointView<'_>, name: &str) {
        if !point.quality.is_good() {
            return;
        }
        let configured = self.site.devices.iter().find(|device| device.name == point.device);
        let configured = configured.and_then(|device| device.points.iter().find(|p| p.name == point.name));
        let Some(configured) = configured else { self.fail("a point that is not in the site") };
        let age = self.checks.fresh.get(&point.number).map(|at| self.now.mono_ns - at);
        let limit = configured.stale_after.as_nanos() as u64 + STALE_SLACK;
        if age.is_none_or(|age| age > limit) {
            self.fail(&format!("G3: {name} is good, last good answer {age:?} ns ago, limit {limit} ns"));
        }
    }

    fn check_sinks(&mut self) {
        let now = self.now.mono_ns;
        for at in 0..self.sinks.len() {
            let well = self.sinks[at].instance.is_some()
                && self.sinks[at].connected
                && self.sinks[at].far == Far::Healthy
                && self.plugins[self.sinks[at].plugin].mute_until <= now;
            let since = if well { self.sinks[at].well_since.or(Some(now)) } else { None };
            self.sinks[at].well_since = since;
            if since.is_some_and(|since| now - since > WELL) {
                self.check_lost_at_sink(at);
            }
        }
    }

    /// G1 at the sink: within one second.
    fn check_lost_at_sink(&self, at: usize) {
        let sink = &self.sinks[at];
        for (number, (device, name)) in &sink.names {
            let Some(index) = self.site.devices.iter().position(|d| d.name == *device) else { continue };
            let late = self.checks.lost.get(&index).is_some_and(|since| self.now.mono_ns - since > G1);
            if !late || name.starts_with('@') || self.clients.is_operated(&format!("{device}/{name}")) {
                continue;
            }
            let quality = sink.image.get(number).map(|image| Quality(image.quality));
            if !quality.is_some_and(|quality| quality.contains(Quality::INVALID.with(Quality::COMM_LOST))) {
                let which = ["durable", "volatile"][at];
                self.fail(&format!(
                    "G1: {device}/{name} is {quality:?} at sink {which}, 1 s after its device was lost"
                ));
            }
        }
    }

    /// What a sink gets belongs to the point it is given for (G4), in growing numbers.
    pub(crate) fn check_delivery(&self, at: usize, lane: u32, first: u64, samples: &Samples) {
        let sink = &self.sinks[at];
        if !sink.connected {
            self.fail("records are delivered to a sink that is not connected");
        }
        if let Some(highest) = sink.highest.get(&lane)
            && first > highest + 1
            && *highest > 0
        {
            self.fail(&format!("record numbers jump from {highest} to {first}"));
        }
        for sample in &samples.samples {
            let Some((device, name)) = sink.names.get(&sample.point) else {
                self.fail(&format!("a record of point {} that is not in the sink's list", sample.point));
            };
            if name.starts_with('@') || self.clients.is_operated(&format!("{device}/{name}")) {
                continue;
            }
            let value = samples.value(sample).ok().and_then(|value| value.as_f64());
            if value.is_some_and(|value| driver::named_by(value) != sample.point) {
                self.fail(&format!("G4: sink gets {value:?} for point {}", sample.point));
            }
        }
    }

    /// Requests of one endpoint run one after another where it is strictly serial.
    pub(crate) fn check_serial(&self, instance: u64, body: &Request) {
        let io =
            matches!(body, Request::Read(_) | Request::Connect(_) | Request::Probe(_) | Request::Command(_));
        let running = self.instances.get(&instance).map_or(0, |open| open.pending.len());
        if io && running > 0 {
            self.fail(&format!(
                "G5: {body:?} is submitted while {running} requests run on a serial endpoint"
            ));
        }
    }

    /// After the quiet time everything must have healed.
    pub(crate) fn check_end(&self) {
        for (at, device) in self.core.devices().iter().enumerate() {
            if device.driver == "ghost" {
                if device.state != DeviceState::Failed {
                    self.fail("G11: a device of an absent driver is not failed");
                }
                continue;
            }
            if device.state != DeviceState::Online {
                self.fail(&format!(
                    "G2: {} is {:?} at the end: {}",
                    device.name, device.state, device.reason
                ));
            }
            let counters = device.counters;
            if !self.checks.was_disturbed(at) && counters.polls_started * 100 < counters.polls_due * 99 {
                self.fail(&format!("G5: {} kept {counters:?}", device.name));
            }
        }
        for point in self.core.points(None).filter(|point| !point.device.starts_with("d9")) {
            if !point.quality.is_good() {
                self.fail(&format!("{}/{} is {} at the end", point.device, point.name, point.quality));
            }
        }
        self.check_images();
        for life in &self.clients.lives {
            let alive = life.sink.is_none_or(|(sink, instance)| self.sinks[sink].instance == Some(instance));
            if alive && life.last.is_none() {
                self.fail(&format!("the command of {} has no last answer at the end", life.point));
            }
        }
    }

    /// At the end every sink knows what the table knows.
    fn check_images(&self) {
        for (at, view) in self.core.sinks().iter().enumerate() {
            if !view.connected {
                self.fail(&format!("sink {} is not connected at the end: {}", view.name, view.reason));
            }
            let names = &self.sinks[at].names;
            for point in self.core.points(None).filter(|point| !point.device.starts_with("d9")) {
                let Some((number, _)) = names.iter().find(|(_, (d, p))| d == point.device && p == point.name)
                else {
                    self.fail(&format!(
                        "{}/{} is not in the list of {}",
                        point.device, point.name, view.name
                    ));
                };
                let image = self.sinks[at].image.get(number);
                let age = image.map(|image| point.ts_ns - image.ts_ns);
                let good = image.is_some_and(|image| Quality(image.quality).is_good());
                if !good || age.is_none_or(|age| age > 4_000 * MS as i64) {
                    let what = format!("{}/{}", point.device, point.name);
                    self.fail(&format!(
                        "sink {} ends with {image:?} for {what}, the table holds {point:?}",
                        view.name
                    ));
                }
            }
        }
    }
}
