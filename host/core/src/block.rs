//! Blocks (SEMANTICS 7): a named group of points of one device, written as one consistent unit, commit point last. A
//! block write is a command: audited, never repeated, refused where a command would be.

use busbar_contract::{Action, Kind, Origin, Reason, Value, event::WriteBlock};
use serde_json::{Value as Json, json};

use crate::{
    Core,
    arena::{DeviceId, Id, PointId, SinkId},
    command::Refusal,
    convert, model,
    state::{Asker, Deed},
    time::MS,
};

impl Core {
    pub(crate) fn sink_write_block(&mut self, sink: SinkId, instance: u64, request: u64, write: WriteBlock) {
        let asker = Asker::Sink { sink, instance, request };
        let mut origin = write.origin.clone();
        origin.sink =
            self.site.sinks.get(sink.number() as usize).map(|config| config.name.clone()).unwrap_or_default();
        let shown = self.shown_block(&write);
        match self.check_write(sink, &write) {
            Ok((device, points, deed)) => {
                let span_ns = write.deadline_ms.saturating_mul(MS);
                self.begin_command(asker, origin, device, points, deed, shown, span_ns);
            }
            Err(refusal) => self.refuse_block(&asker, &origin, &shown, refusal),
        }
    }

    fn refuse_block(&mut self, asker: &Asker, origin: &Origin, shown: &Json, refusal: Refusal) {
        self.refuse(asker, None, origin, Action::Operate, shown, refusal);
    }

    fn shown_block(&self, write: &WriteBlock) -> Json {
        let values: serde_json::Map<String, Json> = write
            .values
            .iter()
            .map(|entry| {
                let name =
                    self.points.find(entry.point).map(|point| self.full_name(point)).unwrap_or_default();
                (name, entry.value.to_json())
            })
            .collect();
        json!({ "block": write.block, "values": values })
    }

    fn check_write(
        &self,
        sink: SinkId,
        write: &WriteBlock,
    ) -> Result<(DeviceId, Vec<PointId>, Deed), Refusal> {
        if !self.sinks[sink].commands {
            return Err((Reason::NotWritable, "commands are not enabled for this sink".into()));
        }
        let (device, index) = self
            .block_named(&write.block)
            .ok_or_else(|| (Reason::NotWritable, format!("no block named {}", write.block)))?;
        self.check_handover(Some(device))?;
        if self.sinks[sink].handover {
            return Err((Reason::Handover, "the sink's plugin is being replaced".into()));
        }
        self.check_block(device, index)?;
        let block =
            self.block(device, index).ok_or_else(|| (Reason::NotWritable, "no such block".to_owned()))?;
        if write.values.is_empty() {
            return Err((Reason::OutOfRange, "the block write holds no value".into()));
        }
        let mut values = Vec::with_capacity(write.values.len());
        for entry in &write.values {
            let point = self.block_point(device, block, entry.point).ok_or_else(|| {
                (Reason::NotWritable, format!("point {} is not part of the block", entry.point))
            })?;
            if values.iter().any(|(other, _)| *other == point) {
                return Err((Reason::OutOfRange, format!("{} is given twice", self.full_name(point))));
            }
            values.push((point, self.to_raw(point, &entry.value.to_json())?));
        }
        let commit = match &block.commit {
            Some((index, json)) => {
                let point = self.index_point(device, *index);
                Some((point, self.to_raw(point, json)?))
            }
            None => None,
        };
        let mut points: Vec<PointId> = values.iter().map(|(point, _)| *point).collect();
        points.extend(commit.as_ref().map(|(point, _)| *point).filter(|point| !points.contains(point)));
        if points.iter().any(|point| self.busy.contains_key(point)) {
            return Err((Reason::Busy, "another command for a point of this block is running".into()));
        }
        Ok((device, points, Deed::Block { values, commit, block: index }))
    }

    fn to_raw(&self, point: PointId, json: &Json) -> Result<Value, Refusal> {
        let state = &self.points[point];
        let kind = state.raw_kind.or_else(|| self.learned_kind(point)).unwrap_or(Kind::None);
        state
            .conversion
            .backward(kind, json)
            .map_err(|(reason, text)| (reason, format!("{}: {text}", self.full_name(point))))
    }

    /// What must hold for a block when its write arrives, and again when it leaves.
    pub(crate) fn check_block(&self, device: DeviceId, index: usize) -> Result<(), Refusal> {
        let block =
            self.block(device, index).ok_or_else(|| (Reason::NotWritable, "no such block".to_owned()))?;
        if !block.writable {
            return Err((Reason::NotWritable, "the block is not writable".into()));
        }
        if self.commands_locked() {
            return Err((Reason::LockedOut, "commands are locked".into()));
        }
        self.check_device(device)?;
        for index in &block.points {
            if matches!(
                self.points[self.index_point(device, *index)].overlay,
                crate::table::Overlay::Blocked(_)
            ) {
                return Err((Reason::LockedOut, "a point of the block is blocked by an operator".into()));
            }
            self.check_interlock(device, *index)?;
        }
        self.check_gate(device, block)
    }

    /// `gate`: the block may be used only while this point has this value, and is good.
    pub(crate) fn check_gate(&self, device: DeviceId, block: &model::Block) -> Result<(), Refusal> {
        let Some((index, expected)) = &block.gate else { return Ok(()) };
        let id = self.index_point(device, *index);
        let point = &self.points[id];
        if point.is_usable() && convert::equals(&point.shown().value(), expected) {
            return Ok(());
        }
        Err((Reason::LocalMode, format!("gate: {} is not good or not {expected}", self.full_name(id))))
    }

    /// `device/block` as device and index.
    pub(crate) fn block_named(&self, name: &str) -> Option<(DeviceId, usize)> {
        let (device, block) = name.split_once('/')?;
        let device = self.device_named(device)?;
        let config = self.site.devices.get(device.number() as usize)?;
        config.blocks.iter().position(|other| other.name == block).map(|index| (device, index))
    }

    pub(crate) fn block(&self, device: DeviceId, index: usize) -> Option<&model::Block> {
        self.site.devices.get(device.number() as usize)?.blocks.get(index)
    }

    fn block_point(&self, device: DeviceId, block: &model::Block, number: u32) -> Option<PointId> {
        let point = self.point_of(device, number)?;
        block.points.contains(&self.points[point].index).then_some(point)
    }

    /// The point with this index of the device's configuration.
    pub(crate) fn index_point(&self, device: DeviceId, index: usize) -> PointId {
        let points = &self.devices[device].points;
        // A block names at least one point of its device, so there is a last one.
        points.get(index).or(points.last()).copied().unwrap_or_else(|| PointId::new(0))
    }

    pub(crate) fn device_named(&self, name: &str) -> Option<DeviceId> {
        let at = self.site.devices.iter().position(|config| config.name == name && !name.is_empty())?;
        self.devices.at(at)
    }
}
