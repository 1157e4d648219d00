//! The JSON payloads of `format = "json"`, written straight into a reused buffer.
//!
//! Per point: `{"ts":1767225600123,"value":231.4,"quality":"good","unit":"V"}`. Grouped (one message per device and
//! poll): `{"ts":...,"points":{"voltage_l1":{"value":231.4,"quality":"good","unit":"V"}}}`; what holds for the whole
//! message stands beside its `ts`, a point with another time carries its own `ts` and marks.
//!
//! `ts` and `value_ts` are whole milliseconds UTC, rounded down. `"gateway_time":true`: the gateway stamped it, not the
//! device. `"history":true`: a record from the device's memory. `"replayed":true`: from the backlog of the queue.
//!
//! The JSON form of values: [`busbar_kit::json`]. This is the hot path: no tree, no allocation once the buffer has grown.

use busbar_kit::json::{BadValue, Value, write_number, write_text};

/// A time stamp with its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970-01-01 UTC.
    pub ts_ns: i64,
    /// The gateway stamped it.
    pub gateway: bool,
}

impl Stamp {
    /// Whole milliseconds UTC.
    #[must_use]
    pub const fn ms(self) -> i64 {
        self.ts_ns.div_euclid(1_000_000)
    }

    /// Looks the same on the wire.
    const fn same(self, other: Self) -> bool {
        self.ms() == other.ms() && self.gateway == other.gateway
    }
}

/// Marks of a whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// A record from the device's own memory.
    pub history: bool,
    /// A record from the backlog of the queue.
    pub replayed: bool,
}

/// One point as it goes out.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// When.
    pub stamp: Stamp,
    /// Source time of the value, nanoseconds UTC, where it differs from the time of the sample.
    pub value_ts_ns: Option<i64>,
    /// What.
    pub value: Value<'a>,
    /// Text form of the quality: `good`, `invalid|comm_lost`.
    pub quality: &'a str,
    /// Validity is good.
    pub good: bool,
    /// `,"unit":"V"` from [`unit_fragment`], or empty.
    pub unit: &'a [u8],
}

/// The ready-made piece with the unit; empty for an empty unit.
#[must_use]
pub fn unit_fragment(unit: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if !unit.is_empty() {
        out.extend_from_slice(b",\"unit\":");
        write_text(&mut out, unit);
    }
    out
}

/// The ready-made piece `"name":` of a point in a grouped message.
#[must_use]
pub fn name_fragment(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_text(&mut out, name);
    out.push(b':');
    out
}

/// Appends the message of one point.
pub fn write_point(out: &mut Vec<u8>, point: &Point<'_>, marks: Marks, bad: BadValue) {
    out.push(b'{');
    write_stamp(out, point.stamp);
    out.push(b',');
    write_body(out, point, bad);
    write_marks(out, marks);
    out.push(b'}');
}

/// Writes one grouped message: [`Group::begin`], [`Group::add`] for every point, [`Group::end`].
#[derive(Debug)]
pub struct Group {
    stamp: Stamp,
    empty: bool,
}

impl Group {
    /// Begins a message whose time is `stamp`.
    #[must_use]
    pub fn begin(out: &mut Vec<u8>, stamp: Stamp, marks: Marks) -> Self {
        out.push(b'{');
        write_stamp(out, stamp);
        write_marks(out, marks);
        out.extend_from_slice(b",\"points\":{");
        Self { stamp, empty: true }
    }

    /// Adds a point; `name` comes from [`name_fragment`] and must not have been added before.
    pub fn add(&mut self, out: &mut Vec<u8>, name: &[u8], point: &Point<'_>, bad: BadValue) {
        if !std::mem::take(&mut self.empty) {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b'{');
        if !point.stamp.same(self.stamp) {
            write_stamp(out, point.stamp);
            out.push(b',');
        }
        write_body(out, point, bad);
        out.push(b'}');
    }

    /// Ends the message.
    pub fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"}}");
    }
}

fn write_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(b"\"ts\":");
    write_number(out, stamp.ms());
    if stamp.gateway {
        out.extend_from_slice(b",\"gateway_time\":true");
    }
}

fn write_marks(out: &mut Vec<u8>, marks: Marks) {
    if marks.history {
        out.extend_from_slice(b",\"history\":true");
    }
    if marks.replayed {
        out.extend_from_slice(b",\"replayed\":true");
    }
}

fn write_body(out: &mut Vec<u8>, point: &Point<'_>, bad: BadValue) {
    match (point.good, bad) {
        (true, _) | (false, BadValue::Last) => {
            out.extend_from_slice(b"\"value\":");
            point.value.write(out);
            out.push(b',');
        }
        (false, BadValue::Null) => out.extend_from_slice(b"\"value\":null,"),
        (false, BadValue::Omit) => {}
    }
    // The names of quality bits are plain words: nothing to escape.
    out.extend_from_slice(b"\"quality\":\"");
    out.extend_from_slice(point.quality.as_bytes());
    out.push(b'"');
    out.extend_from_slice(point.unit);
    if let Some(ts_ns) = point.value_ts_ns {
        out.extend_from_slice(b",\"value_ts\":");
        write_number(out, ts_ns.div_euclid(1_000_000));
    }
}
