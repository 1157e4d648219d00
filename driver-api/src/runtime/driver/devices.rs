//! The devices of an endpoint, their points and groups: what lives without a session.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};

use busbar_abi::Sample;
use busbar_contract::{
    Event, Value, batch,
    event::{BoundGroup, Done, Rejected},
    request::{Attach, Bind, FrameLog, OfDevice, PointValue},
};
use tracing::Span;

use super::{DriverEngine, Served, done, ms, of, unknown_device, unknown_point};
use crate::{
    BoundPoint, Context, Device, Driver, Error, Plan, PointInfo, Readings, Result, check,
    guard::guard,
    reading::{REFUSED, unanswered},
    runtime::{
        driver_keys, or_table,
        port::{Item, Port},
    },
    trace,
};

pub(super) struct Slot<D: Driver> {
    pub(super) device: Device<D>,
    pub(super) connected: bool,
    pub(super) span: Span,
    pub(super) by_number: HashMap<u32, BoundPoint<D>>,
    /// Points whose refusal was logged.
    pub(super) told: HashSet<u32>,
}

pub(super) struct GroupSlot<D: Driver> {
    pub(super) device: u32,
    pub(super) points: Vec<BoundPoint<D>>,
    pub(super) plan: D::Plan,
    /// One slot per bound point, then the points that BIND rejected.
    pub(super) template: Vec<Sample>,
}

impl<D: Driver> DriverEngine<D> {
    pub(super) fn attach(&mut self, body: &Attach) -> Served {
        if self.devices.contains_key(&body.device) {
            let text =
                format!("device {}: expected a new number, found one that is attached already", body.device);
            return Err(Error::configuration(text));
        }
        let connection =
            check::parse_or_text("/connection", &body.connection).map_err(Error::configuration)?;
        let settings =
            check::parse_or_text("/device", &or_table(&body.settings)).map_err(Error::configuration)?;
        let device = Device {
            number: body.device,
            name: body.name.clone(),
            connection,
            settings,
            response_timeout: ms(body.response_timeout_ms),
            retries: body.retries,
            ctx: Context { shared: Arc::clone(&self.shared), device: Some(body.device) },
            points: Vec::new(),
            frame_log: Arc::new(AtomicBool::new(false)),
        };
        let slot = Slot {
            device,
            connected: false,
            span: trace::device_span(self.inst, body.device),
            by_number: HashMap::new(),
            told: HashSet::new(),
        };
        self.devices.insert(body.device, slot);
        done()
    }

    pub(super) async fn detach(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        // The device leaves in any case; how its session ended is only worth a line.
        if let Err(error) = self.disconnect(port, item, body).await {
            tracing::debug!(%error, device = number, "the device left without an orderly end of its session");
        }
        self.groups.retain(|_, group| group.device != number);
        self.devices.remove(&number);
        done()
    }

    pub(super) fn bind(&mut self, body: &Bind) -> Served {
        let Some(slot) = self.devices.get_mut(&body.device) else {
            return Err(unknown_device(body.device));
        };
        let mut rejected = Vec::new();
        let mut bound = HashMap::new();
        let mut points = Vec::new();
        for point in &body.points {
            match check::parse_or_text::<D::Point>("", &driver_keys(&point.spec)) {
                Ok(spec) => {
                    let info = PointInfo {
                        number: point.point,
                        name: point.name.clone(),
                        spec,
                        writable: point.writable,
                    };
                    let info = BoundPoint(Arc::new(info));
                    bound.insert(point.point, info.clone());
                    points.push(info);
                }
                Err(reason) => rejected.push(Rejected { point: point.point, reason }),
            }
        }
        let mut groups = HashMap::new();
        for group in &body.groups {
            let slot = group_slot::<D>(body.device, &slot.device.connection, &group.points, &bound)?;
            groups.insert(group.group, slot);
        }
        slot.by_number = bound;
        slot.device.points = points;
        slot.told.clear();
        self.groups.retain(|_, group| group.device != body.device);
        let mut costs: Vec<BoundGroup> = groups
            .iter()
            .map(|(number, slot)| BoundGroup { group: *number, exchanges: slot.plan.exchanges() })
            .collect();
        costs.sort_unstable_by_key(|cost| cost.group);
        self.groups.extend(groups);
        Ok(Some(Event::Done(Done { groups: costs, rejected, ..Done::default() })))
    }

    pub(super) fn frame_log(&self, body: &FrameLog) -> Served {
        let slot = self.devices.get(&body.device).ok_or_else(|| unknown_device(body.device))?;
        slot.device.frame_log.store(body.on, Ordering::Relaxed);
        done()
    }
}

impl<D: Driver> Slot<D> {
    pub(super) fn point(&self, number: u32) -> Result<&BoundPoint<D>> {
        self.by_number.get(&number).ok_or_else(|| unknown_point(number))
    }

    pub(super) fn named<'a>(&'a self, entry: &'a PointValue) -> Result<(&'a BoundPoint<D>, &'a Value)> {
        Ok((self.point(entry.point)?, &entry.value))
    }

    pub(super) fn resolve(&self, numbers: &[u32]) -> Result<Vec<BoundPoint<D>>> {
        numbers.iter().map(|number| self.point(*number).cloned()).collect()
    }

    /// A refused point is worth one line, and one when it answers again.
    pub(super) fn tell_refusals(&mut self, readings: &mut Readings) {
        if !self.told.is_empty() {
            for sample in readings.samples.iter().filter(|sample| sample.quality != REFUSED.0) {
                if self.told.remove(&sample.point)
                    && let Some(point) = self.by_number.get(&sample.point)
                {
                    let _entered = self.span.enter();
                    tracing::info!(point = %point.name, "the device answers this point again");
                }
            }
        }
        for (number, why) in readings.refusals.drain(..) {
            if self.told.insert(number)
                && let Some(point) = self.by_number.get(&number)
            {
                let _entered = self.span.enter();
                tracing::warn!(point = %point.name, reason = %why, "the device refuses this point");
            }
        }
    }
}

fn group_slot<D: Driver>(
    device: u32,
    connection: &D::Connection,
    numbers: &[u32],
    bound: &HashMap<u32, BoundPoint<D>>,
) -> Result<GroupSlot<D>> {
    if numbers.len() > batch::MAX_SAMPLES {
        let text =
            format!("a group: expected at most {} points, found {}", batch::MAX_SAMPLES, numbers.len());
        return Err(Error::configuration(text));
    }
    let points: Vec<BoundPoint<D>> = numbers.iter().filter_map(|number| bound.get(number).cloned()).collect();
    let mut template: Vec<Sample> = points.iter().map(|point| unanswered(point.number)).collect();
    let rejected = numbers.iter().filter(|number| !bound.contains_key(number));
    template.extend(rejected.map(|number| Sample { quality: REFUSED.0, ..unanswered(*number) }));
    let plan = guard(|| D::plan(connection, &points))
        .map_err(|panic| Error::configuration(format!("bug in the driver, panic while planning: {panic}")))?;
    Ok(GroupSlot { device, points, plan, template })
}
