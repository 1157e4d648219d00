//! Points of another time: the file keeps records of points that are not routed today, because the configuration changed
//! since. They are delivered under the name and unit of their time all the same.
//!
//! A ghost has a point number like any other (from [`FIRST_GHOST`] on, never used twice) that only sinks ever see; it is
//! announced to the sink as an entry of the point list before its first record. Its records are ordered and retried with
//! the device of that name, or with the others of a device that is gone.

use std::collections::BTreeMap;

use busbar_contract::{
    Request,
    request::{Points, SinkPoint},
};
use serde_json::Value as Json;

use crate::{
    Core,
    arena::{DeviceId, Id, PointId, SinkId},
    journal::Name,
    request::LOCAL_DEADLINE_NS,
    rows::Known,
    sink::SinkPhase,
    state::Work,
};

/// Numbers of points that are not in the table.
pub(crate) const FIRST_GHOST: u32 = 1 << 31;
/// Numbers of devices that are not in the configuration.
const FIRST_GONE: u32 = 1 << 31;

/// A point that is not routed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ghost {
    pub(crate) name: Name,
    /// For order and retries.
    pub(crate) device: u32,
}

/// All ghosts of this run.
#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    numbers: BTreeMap<Name, u32>,
    gone: BTreeMap<String, u32>,
}

impl Ghosts {
    fn number(&mut self, name: &Name) -> u32 {
        let next = FIRST_GHOST.saturating_add(self.numbers.len() as u32);
        *self.numbers.entry(name.clone()).or_insert(next)
    }

    fn gone_device(&mut self, name: &str) -> u32 {
        let next = FIRST_GONE.saturating_add(self.gone.len() as u32);
        *self.gone.entry(name.to_owned()).or_insert(next)
    }
}

impl Core {
    /// What records name that the file calls `name`: today's point, or a ghost, which is then new to the sink or not.
    pub(crate) fn known(&mut self, sink: SinkId, name: &Name) -> (Known, bool) {
        let today = self.named(&format!("{}/{}", name.device, name.point)).filter(|point| {
            self.sinks[sink].slot_of.contains_key(&point.number()) && self.view_of(*point).unit == name.unit
        });
        match today {
            Some(point) => {
                let device = self.points[point].device.map_or(u32::MAX, Id::number);
                (Known { point: point.number(), device }, false)
            }
            None => self.ghost(sink, name),
        }
    }

    fn ghost(&mut self, sink: SinkId, name: &Name) -> (Known, bool) {
        let device = match self.device_named(&name.device) {
            Some(device) => DeviceId::number(device),
            None if name.device.starts_with('@') => u32::MAX,
            None => self.ghosts.gone_device(&name.device),
        };
        let point = self.ghosts.number(name);
        let ghost = Ghost { name: name.clone(), device };
        let new = self.sinks[sink].ghosts.insert(point, ghost).is_none();
        (Known { point, device }, new)
    }

    /// The name that the file gives to the records of a point.
    pub(crate) fn journal_name(&self, sink: SinkId, point: u32) -> Name {
        if let Some(ghost) = self.sinks[sink].ghosts.get(&point) {
            return ghost.name.clone();
        }
        let Some(id) = self.points.find(point) else {
            return Name { device: String::new(), point: point.to_string(), unit: String::new() };
        };
        let view = self.view_of(id);
        Name { device: view.device.to_owned(), point: view.name.to_owned(), unit: view.unit.to_owned() }
    }

    /// The label of a point changed: its records have another name from now on.
    pub(crate) fn name_changed(&mut self, point: PointId) {
        for (sink, _) in self.points[point].routes.clone() {
            if let Some(journal) = &mut self.sinks[sink].journal {
                journal.forget_name(point.number());
            }
        }
    }

    /// A point leaves the routes of a sink (call it while the point still has its name): what waits of it goes on as a
    /// ghost.
    pub(crate) fn point_leaves(&mut self, sink: SinkId, point: PointId) {
        let name = self.journal_name(sink, point.number());
        let (known, new) = self.ghost(sink, &name);
        let state = &mut self.sinks[sink];
        state.queue.rename(point.number(), known.point);
        if let Some(journal) = &mut state.journal {
            journal.dictionary.clear();
        }
        if new {
            self.announce(sink, &[known.point]);
        }
    }

    /// The ghosts of a sink as its point list shows them.
    pub(crate) fn ghost_points(&self, sink: SinkId) -> Vec<SinkPoint> {
        self.sinks[sink].ghosts.iter().map(|(point, ghost)| sink_point(*point, ghost)).collect()
    }

    /// Ghosts that are new to the sink: nothing is delivered before it knows them.
    pub(crate) fn announce(&mut self, sink: SinkId, ghosts: &[u32]) {
        let state = &mut self.sinks[sink];
        let listed = matches!(
            state.phase,
            SinkPhase::Points | SinkPhase::Connecting | SinkPhase::Down | SinkPhase::Up
        );
        if ghosts.is_empty() || !listed {
            return;
        }
        let points =
            ghosts.iter().filter_map(|point| Some(sink_point(*point, state.ghosts.get(point)?))).collect();
        state.announcing += 1;
        let body = Request::Points(Points { replace: false, points, removed: Vec::new() });
        self.ask_sink(sink, Work::SinkGhosts, body, LOCAL_DEADLINE_NS);
    }

    pub(crate) fn ghosts_announced(&mut self, sink: SinkId, error: Option<String>) {
        let state = &mut self.sinks[sink];
        state.announcing = state.announcing.saturating_sub(1);
        if let Some(error) = error {
            // Opened again it gets the whole list.
            return self.stop_sink_for(sink, &error);
        }
        self.mark_sink(sink);
    }
}

fn sink_point(point: u32, ghost: &Ghost) -> SinkPoint {
    SinkPoint {
        point,
        device: ghost.name.device.clone(),
        name: ghost.name.point.clone(),
        unit: ghost.name.unit.clone(),
        description: String::new(),
        metadata: Json::Null,
        writable: false,
        map: Vec::new(),
    }
}
