//! From the table to the sinks: one [`Outgoing`] per sample, offered to every sink that routes the point.

use busbar_contract::{Cause, Flags, Quality, Sample};

use crate::{
    Core,
    arena::{Id, PointId},
    queue::Class,
    table::{Blob, Cell, Point},
};

/// A sample on its way to the sinks.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Of texts, `bits` is the length.
    pub(crate) sample: Sample,
    pub(crate) blob: Blob,
    pub(crate) value_ts_ns: i64,
    pub(crate) class: Class,
    /// An event older than the table.
    pub(crate) late: bool,
    pub(crate) flags: u8,
    pub(crate) commit: u32,
}

impl Outgoing {
    /// What the table shows of a point.
    pub(crate) fn from_point(
        id: PointId,
        point: &Point,
        cause: Cause,
        event: bool,
        flags: u8,
        commit: u32,
    ) -> Self {
        let cell = point.shown();
        let (ts_ns, value_ts_ns, marks) = point.shown_times();
        Self {
            sample: Sample {
                ts_ns,
                bits: cell.bits,
                point: id.number(),
                quality: point.quality().0,
                kind: cell.kind as u8,
                flags: Flags::new(cause, marks).0,
            },
            blob: cell.blob.clone(),
            value_ts_ns,
            class: if event { Class::Event } else { Class::State },
            late: false,
            flags,
            commit,
        }
    }

    /// An event that came too late for the table.
    pub(crate) fn late(
        id: PointId,
        cell: &Cell,
        ts_ns: i64,
        marks: u8,
        cause: Cause,
        quality: Quality,
        commit: u32,
    ) -> Self {
        Self {
            class: Class::Event,
            late: true,
            ..Self::of(id, cell, ts_ns, Flags::new(cause, marks), quality, commit)
        }
    }

    /// A record from the device's own memory.
    pub(crate) fn history(
        id: PointId,
        cell: &Cell,
        ts_ns: i64,
        marks: u8,
        quality: Quality,
        commit: u32,
    ) -> Self {
        let flags = Flags::new(Cause::History, marks);
        Self { class: Class::History, ..Self::of(id, cell, ts_ns, flags, quality, commit) }
    }

    fn of(id: PointId, cell: &Cell, ts_ns: i64, flags: Flags, quality: Quality, commit: u32) -> Self {
        Self {
            sample: Sample {
                ts_ns,
                bits: cell.bits,
                point: id.number(),
                quality: quality.0,
                kind: cell.kind as u8,
                flags: flags.0,
            },
            blob: cell.blob.clone(),
            value_ts_ns: ts_ns,
            class: Class::State,
            late: false,
            flags: 0,
            commit,
        }
    }
}

impl Core {
    /// Offers a sample to every sink that routes its point.
    pub(crate) fn emit(&mut self, id: PointId, out: &Outgoing) {
        let point = &self.points[id];
        let device = point.device.map_or(u32::MAX, Id::number);
        for (sink, slot) in &point.routes {
            let state = &mut self.sinks[*sink];
            if state.offer(*slot, out, device, self.now)
                && let Some(commit) = (out.commit != 0).then_some(out.commit)
                && let Some(commit) = self.commits.get_mut(&commit)
            {
                commit.outstanding += 1;
            }
            if !std::mem::replace(&mut state.touched, true) {
                self.touched_sinks.push(*sink);
            }
        }
    }

    /// A change by the host: state, cause host.
    pub(crate) fn emit_host(&mut self, id: PointId) {
        self.emit_state(id, Cause::Host);
    }

    /// What the table shows, as state.
    pub(crate) fn emit_state(&mut self, id: PointId, cause: Cause) {
        let flags = if cause == Cause::Resync { busbar_contract::batch::RESYNC as u8 } else { 0 };
        let out = Outgoing::from_point(id, &self.points[id], cause, false, flags, 0);
        self.emit(id, &out);
    }

    /// One poll of one device is complete: a delivery may end here.
    pub(crate) fn end_of_poll(&mut self) {
        for sink in &self.touched_sinks {
            self.sinks[*sink].queue.end_of_poll();
        }
    }

    /// `device/point`.
    pub(crate) fn full_name(&self, id: PointId) -> String {
        let (device, name) = self.name_parts(id);
        format!("{device}/{name}")
    }

    /// Device part and point part of a name.
    pub(crate) fn name_parts(&self, id: PointId) -> (&str, &str) {
        let point = &self.points[id];
        let Some(device) = point.device else {
            let parts = self.fixed_names.get(&id);
            return parts.map_or(("", ""), |(device, name)| (device.as_str(), name.as_str()));
        };
        self.site.devices.get(device.number() as usize).map_or(("", ""), |config| {
            (config.name.as_str(), config.points.get(point.index).map_or("", |point| point.name.as_str()))
        })
    }

    /// The point with this name: `device/point`.
    pub(crate) fn named(&self, name: &str) -> Option<PointId> {
        self.names.get(name).copied()
    }
}
