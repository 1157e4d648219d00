//! The point table: the process image. One [`Point`] per configured point and system point, numbered for ever.
//!
//! Device bits and host bits of the quality are kept apart: effective = device OR host, the worse validity (SEMANTICS
//! 4). The host sets and clears only its own bits, so recovery never hides what a device said. Three times per point:
//! `ts_ns` (of this sample), `value_ts_ns` (source time of the value), `refreshed_ns` (monotonic, for staleness).

use std::sync::Arc;

use busbar_contract::{Flags, Kind, Quality, Value};

use crate::{
    arena::{DeviceId, GroupId, SinkId},
    convert::Conversion,
    model::Deadband,
};

/// Host bits of a point whose device cannot be reached, or that was not read yet.
pub(crate) const LOST: Quality = Quality(Quality::INVALID.0 | Quality::COMM_LOST.0);
/// Host bits of a point that an operator blocked, or whose device is in maintenance.
pub(crate) const BLOCKED: Quality = Quality(Quality::INVALID.0 | Quality::OPERATOR_BLOCKED.0);
/// Host bits after `stale_after`.
pub(crate) const STALE: Quality = Quality(Quality::QUESTIONABLE.0 | Quality::OLD_DATA.0);
/// Host bits after `invalid_after`.
pub(crate) const EXPIRED: Quality = Quality(Quality::INVALID.0 | Quality::OLD_DATA.0);
/// Host bits of a point that an answer left out.
pub(crate) const MISSING: Quality = Quality(Quality::INVALID.0 | Quality::FAILURE.0);
/// Device bits of a point that the device refuses.
pub(crate) const REFUSED: Quality = Quality(Quality::INVALID.0 | Quality::BAD_REFERENCE.0);
/// Host bits while samples were lost on the way and a fresh read is due (R9).
pub(crate) const GAP: Quality = Quality(Quality::QUESTIONABLE.0 | Quality::INCONSISTENT.0);

/// Text, bytes or JSON of a value; shared with the queues.
pub(crate) type Blob = Option<Arc<[u8]>>;

/// A value in the form of a sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    /// As in a sample; of texts, bytes and JSON the length.
    pub(crate) bits: u64,
    pub(crate) blob: Blob,
}

impl Default for Cell {
    fn default() -> Self {
        Self { kind: Kind::None, bits: 0, blob: None }
    }
}

impl Cell {
    pub(crate) fn of(value: &Value) -> Self {
        let mut blob = Vec::new();
        let bits = value.encode(&mut blob);
        let in_blob = value.kind().in_blob();
        Self { kind: value.kind(), bits, blob: in_blob.then(|| blob.into()) }
    }

    pub(crate) fn value(&self) -> Value {
        Value::decode(self.kind as u8, self.bits, self.blob.as_deref().unwrap_or_default())
            .unwrap_or(Value::None)
    }

    /// Equal value, by bits.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.bits == other.bits && self.blob == other.blob
    }
}

/// What an operator laid over a point.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Overlay {
    #[default]
    None,
    /// The value of that moment stays.
    Blocked(Covered),
    Substituted(Covered),
}

/// What a covered point shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Covered {
    pub(crate) cell: Cell,
    pub(crate) ts_ns: i64,
    pub(crate) value_ts_ns: i64,
    /// `ts_ns` was taken while the clock was not synchronised.
    unsynced: Quality,
}

/// The gateway's time at which it changes something, and whether that time can be trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    wall_ns: i64,
    unsynced: bool,
}

impl Stamp {
    pub(crate) const fn new(wall_ns: i64, clock_synced: bool) -> Self {
        Self { wall_ns, unsynced: !clock_synced }
    }

    /// `quality` with the bit that speaks about this stamp.
    pub(crate) const fn mark(self, quality: Quality) -> Quality {
        let quality = quality.without_detail(Quality::CLOCK_UNSYNCED);
        if self.unsynced { quality.with(Quality::CLOCK_UNSYNCED) } else { quality }
    }
}

/// Where a sample of this point goes: sink and slot within the sink.
pub(crate) type Route = (SinkId, u32);

/// One point.
#[derive(Debug, Default)]
pub(crate) struct Point {
    /// `None`: a system point.
    pub(crate) device: Option<DeviceId>,
    /// Index into the device's points of the configuration.
    pub(crate) index: usize,
    pub(crate) group: Option<GroupId>,
    pub(crate) conversion: Conversion,
    pub(crate) event: bool,
    pub(crate) deadband: Deadband,
    pub(crate) writable: bool,
    pub(crate) stale_ns: u64,
    pub(crate) invalid_ns: u64,
    pub(crate) routes: Vec<Route>,

    pub(crate) cell: Cell,
    /// Kind as the device delivers it, before scaling; what commands are converted to.
    pub(crate) raw_kind: Option<Kind>,
    pub(crate) ts_ns: i64,
    pub(crate) value_ts_ns: i64,
    /// Source time of the last sample taken: what makes another one late.
    pub(crate) source_ns: Option<i64>,
    pub(crate) marks: u8,
    pub(crate) device_quality: Quality,
    pub(crate) host_quality: Quality,
    pub(crate) refreshed_ns: u64,
    /// Session of the device in which it was last answered.
    pub(crate) session: u32,
    /// The request that brought its last sample.
    pub(crate) request: u64,
    /// The device reports it by itself.
    pub(crate) subscribed: bool,
    /// BIND or SUBSCRIBE said that it cannot be served.
    pub(crate) rejected: bool,
    /// A reload took it out of the configuration. Only its name lives on, for records that still wait.
    pub(crate) gone: bool,
    /// A reload brought it to a device that is online; not answered yet.
    pub(crate) added: bool,
    pub(crate) overlay: Overlay,
}

impl Point {
    /// Quality without what an operator laid over it.
    pub(crate) fn underlying(&self) -> Quality {
        self.device_quality.worst(self.host_quality)
    }

    /// Effective quality.
    pub(crate) fn quality(&self) -> Quality {
        match &self.overlay {
            Overlay::None => self.underlying(),
            Overlay::Blocked(covered) if self.is_lost() => {
                BLOCKED.with(Quality::COMM_LOST).with(covered.unsynced)
            }
            Overlay::Blocked(covered) => BLOCKED.with(covered.unsynced),
            Overlay::Substituted(covered) => Quality::SUBSTITUTED.with(covered.unsynced),
        }
    }

    /// The value everybody sees.
    pub(crate) fn shown(&self) -> &Cell {
        match &self.overlay {
            Overlay::Blocked(covered) | Overlay::Substituted(covered) => &covered.cell,
            Overlay::None => &self.cell,
        }
    }

    /// Time of what everybody sees, source time of its value, and marks.
    pub(crate) fn shown_times(&self) -> (i64, i64, u8) {
        match &self.overlay {
            Overlay::Blocked(covered) | Overlay::Substituted(covered) => {
                (covered.ts_ns, covered.value_ts_ns, Flags::GATEWAY_TIME)
            }
            Overlay::None => (self.ts_ns, self.value_ts_ns, self.marks),
        }
    }

    /// An operator blocks the point: what it shows stays.
    pub(crate) fn block(&mut self, stamp: Stamp) {
        let covered = Covered {
            cell: self.cell.clone(),
            ts_ns: stamp.wall_ns,
            value_ts_ns: self.value_ts_ns,
            unsynced: stamp.mark(Quality::GOOD),
        };
        self.overlay = Overlay::Blocked(covered);
    }

    /// An operator enters a value.
    pub(crate) fn substitute(&mut self, value: &Value, stamp: Stamp) {
        self.overlay = Overlay::Substituted(Covered {
            cell: Cell::of(value),
            ts_ns: stamp.wall_ns,
            value_ts_ns: stamp.wall_ns,
            unsynced: stamp.mark(Quality::GOOD),
        });
    }

    /// The point shows the device again.
    pub(crate) fn uncover(&mut self, stamp: Stamp) {
        self.overlay = Overlay::None;
        self.stamp(stamp);
    }

    /// The sample is the gateway's from now on.
    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        self.ts_ns = stamp.wall_ns;
        self.marks = Flags::GATEWAY_TIME;
        self.host_quality = stamp.mark(self.host_quality);
        if let Overlay::Blocked(covered) | Overlay::Substituted(covered) = &mut self.overlay {
            covered.ts_ns = stamp.wall_ns;
            covered.unsynced = stamp.mark(Quality::GOOD);
        }
    }

    /// The host's bits change: value and its source time are kept (SEMANTICS 2). True if it made a difference; the state
    /// of the clock alone makes none.
    pub(crate) fn set_host(&mut self, quality: Quality, stamp: Stamp) -> bool {
        let bare = |quality: Quality| quality.without_detail(Quality::CLOCK_UNSYNCED);
        if bare(self.host_quality) == bare(quality) {
            return false;
        }
        self.host_quality = quality;
        self.stamp(stamp);
        true
    }

    /// Its device is not reachable, or it was not read since.
    pub(crate) fn is_lost(&self) -> bool {
        self.host_quality.contains(Quality::COMM_LOST)
    }

    /// The device refuses it: `invalid|bad_reference`.
    pub(crate) fn is_refused(&self) -> bool {
        self.device_quality.contains(REFUSED)
    }

    /// Validity and detail for interlocks and gates: usable without care.
    pub(crate) fn is_usable(&self) -> bool {
        self.quality().is_good() && self.shown().kind != Kind::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ns: i64) -> Stamp {
        Stamp::new(wall_ns, true)
    }

    #[test]
    fn what_the_gateway_stamps_says_whether_its_clock_is_synchronised() {
        let unsynced = Stamp::new(5, false);
        let mut point = Point::default();
        assert!(point.set_host(LOST, unsynced));
        assert_eq!(point.quality().to_string(), "invalid|comm_lost|clock_unsynced");
        assert!(!point.set_host(LOST, at(6)), "the clock alone is no change");
        assert!(point.set_host(STALE, at(7)));
        assert_eq!(point.quality().to_string(), "questionable|old_data");
        point.block(unsynced);
        assert!(point.quality().contains(Quality::CLOCK_UNSYNCED));
        point.substitute(&Value::Int(1), unsynced);
        assert!(point.quality().contains(Quality::CLOCK_UNSYNCED));
        point.uncover(unsynced);
        assert!(point.quality().contains(Quality::CLOCK_UNSYNCED));
        point.uncover(at(8));
        assert!(!point.quality().contains(Quality::CLOCK_UNSYNCED));
    }

    #[test]
    fn effective_quality_is_device_or_host_with_the_worse_validity() {
        let mut point =
            Point { device_quality: Quality::QUESTIONABLE.with(Quality::INACCURATE), ..Point::default() };
        assert!(point.set_host(LOST, at(5)));
        assert_eq!(point.quality().to_string(), "invalid|inaccurate|comm_lost");
        assert!(!point.set_host(LOST, at(6)));
        assert_eq!(point.ts_ns, 5);
        point.set_host(Quality::GOOD, at(7));
        assert_eq!(point.quality().to_string(), "questionable|inaccurate", "recovery clears only host bits");
    }

    #[test]
    fn an_operator_hides_and_uncovers() {
        let mut point = Point { cell: Cell::of(&Value::Int(5)), ..Point::default() };
        point.substitute(&Value::Int(7), at(1));
        assert_eq!(point.shown().value(), Value::Int(7));
        assert_eq!(point.quality().to_string(), "good|substituted");
        point.block(at(2));
        point.cell = Cell::of(&Value::Int(6));
        assert_eq!(point.quality().to_string(), "invalid|operator_blocked");
        assert_eq!(point.shown().value(), Value::Int(5), "the value of that moment stays");
        point.uncover(at(3));
        assert_eq!((point.shown().value(), point.ts_ns), (Value::Int(6), 3));
    }

    #[test]
    fn texts_are_owned_compactly() {
        let cell = Cell::of(&Value::Text("abc".into()));
        assert_eq!(cell.value(), Value::Text("abc".into()));
        assert!(cell.same(&cell.clone()));
        assert!(!cell.same(&Cell::of(&Value::Text("abd".into()))));
    }
}
