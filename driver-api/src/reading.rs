//! What a driver hands over: [`Reading`] (one value), [`Readings`] (the answer to a read) and [`Update`] (what the
//! device reported by itself).
//!
//! [`Readings`] is the hot path. It starts as one prepared sample per point, marked "no answer", and the driver fills
//! slots by their index in the group. So every point has exactly one sample whatever the driver does, a second answer
//! replaces the first, nothing is allocated per sample, and no point number is looked up.

use busbar_abi::Sample;
use busbar_contract::{Cause, Flags, Kind, Quality, Samples, Value};

/// Time stamp of a slot that gets the gateway's time when the read is complete.
const UNSTAMPED: i64 = i64::MIN;

/// One value with quality and times.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The value in the device's base unit.
    pub value: Value,
    /// The device's own quality; the host adds its bits.
    pub quality: Quality,
    /// Source time, nanoseconds since 1970-01-01 UTC; `None` = the gateway stamps it.
    pub source_time: Option<i64>,
    /// Marks beside the cause: [`Flags::TRANSIENT`], [`Flags::COUNTER_CARRY`], [`Flags::COUNTER_ADJUSTED`].
    pub marks: u8,
}

impl Reading {
    /// A good value without source time.
    pub fn new(value: impl Into<Value>) -> Self {
        Self { value: value.into(), quality: Quality::GOOD, source_time: None, marks: 0 }
    }

    /// The device has no such point (any more), or does not give it away.
    #[must_use]
    pub fn refused() -> Self {
        Self { quality: REFUSED, ..Self::new(Value::None) }
    }

    /// With the device's quality.
    #[must_use]
    pub const fn quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// With the device's time stamp, nanoseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn at(mut self, source_time: i64) -> Self {
        self.source_time = Some(source_time);
        self
    }

    /// With further marks of [`Flags`].
    #[must_use]
    pub const fn marks(mut self, marks: u8) -> Self {
        self.marks |= marks;
        self
    }
}

impl<T: Into<Value>> From<T> for Reading {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// `invalid|bad_reference`: the device's refusal.
pub(crate) const REFUSED: Quality = Quality::INVALID.with(Quality::BAD_REFERENCE);
/// `invalid|failure`: the driver gave no answer for the point.
pub(crate) const UNANSWERED: Quality = Quality::INVALID.with(Quality::FAILURE);

/// The answer to a read: one slot per point of the group, in the group's order.
///
/// ```
/// # use busbar_driver_api::Readings;
/// # fn answer(out: &mut Readings) {
/// out.f32(0, 231.4);                                   // slot 0 = group.points()[0]
/// out.bool(1, true);
/// out.refuse(2, "exception 2, illegal data address");  // spoils this point only
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Readings {
    pub(crate) samples: Vec<Sample>,
    pub(crate) blob: Vec<u8>,
    pub(crate) refusals: Vec<(u32, String)>,
    open: usize,
    stamp: i64,
    marks: u8,
    cause: u8,
}

impl Readings {
    /// Prepares one slot per entry of `template`; the first `open` may be filled.
    pub(crate) fn begin(&mut self, template: &[Sample], open: usize, cause: Cause) {
        self.samples.clear();
        self.samples.extend_from_slice(template);
        self.blob.clear();
        self.refusals.clear();
        self.open = open.min(template.len());
        self.stamp = UNSTAMPED;
        self.marks = Flags::GATEWAY_TIME;
        self.cause = cause as u8;
    }

    /// Gives every slot its cause and, where the device gave no time, `now_ns`.
    pub(crate) fn finish(&mut self, now_ns: i64) {
        for sample in &mut self.samples {
            sample.flags |= self.cause;
            if sample.ts_ns == UNSTAMPED {
                sample.ts_ns = now_ns;
            }
        }
    }

    /// Number of slots.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.open
    }

    /// True for a group without points.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The answer arrived just now: the slots filled from here on carry the gateway's time of this moment. Without this
    /// call they carry the time at which the whole read was complete.
    pub fn stamp(&mut self) {
        self.stamp = crate::time::now();
        self.marks = Flags::GATEWAY_TIME;
    }

    /// The slots filled from here on carry the device's time stamp, nanoseconds since 1970-01-01 UTC.
    pub const fn source_time(&mut self, ts_ns: i64) {
        self.stamp = ts_ns;
        self.marks = 0;
    }

    #[inline]
    fn put(&mut self, slot: usize, kind: Kind, bits: u64, quality: Quality) {
        let (ts_ns, flags) = (self.stamp, self.marks);
        if slot < self.open
            && let Some(sample) = self.samples.get_mut(slot)
        {
            let point = sample.point;
            *sample = Sample { ts_ns, bits, point, quality: quality.0, kind: kind as u8, flags };
        } else {
            self.outside(slot);
        }
    }

    #[cold]
    fn outside(&self, slot: usize) {
        tracing::error!(
            slot,
            slots = self.open,
            "bug in the driver: it answered a slot that this read does not have"
        );
    }

    /// A good double.
    #[inline]
    pub fn f64(&mut self, slot: usize, value: f64) {
        self.put(slot, Kind::Float64, value.to_bits(), Quality::GOOD);
    }

    /// A good single.
    #[inline]
    pub fn f32(&mut self, slot: usize, value: f32) {
        self.put(slot, Kind::Float32, u64::from(value.to_bits()), Quality::GOOD);
    }

    /// A good signed integer.
    #[inline]
    pub fn i64(&mut self, slot: usize, value: i64) {
        self.put(slot, Kind::Int64, value.cast_unsigned(), Quality::GOOD);
    }

    /// A good unsigned integer.
    #[inline]
    pub fn u64(&mut self, slot: usize, value: u64) {
        self.put(slot, Kind::Uint64, value, Quality::GOOD);
    }

    /// A good bool.
    #[inline]
    pub fn bool(&mut self, slot: usize, value: bool) {
        self.put(slot, Kind::Bool, u64::from(value), Quality::GOOD);
    }

    /// A good text.
    pub fn text(&mut self, slot: usize, value: &str) {
        let offset = self.blob.len() as u64;
        self.blob.extend_from_slice(value.as_bytes());
        self.put(slot, Kind::Text, (offset << 32) | value.len() as u64, Quality::GOOD);
    }

    /// Any value, with quality and source time. `set(slot, Reading::new(1.5).at(ts))`, or simply `set(slot, 1.5)`.
    pub fn set(&mut self, slot: usize, reading: impl Into<Reading>) {
        let reading = reading.into();
        let bits = reading.value.encode(&mut self.blob);
        self.put(slot, reading.value.kind(), bits, reading.quality);
        if slot < self.open
            && let Some(sample) = self.samples.get_mut(slot)
        {
            sample.flags |= Flags::new(Cause::Poll, reading.marks).0;
            if let Some(ts_ns) = reading.source_time {
                sample.ts_ns = ts_ns;
                sample.flags &= !Flags::GATEWAY_TIME;
            }
        }
    }

    /// The device refused this point (`invalid|bad_reference`); `why` is logged once, in the operator's words.
    pub fn refuse(&mut self, slot: usize, why: impl Into<String>) {
        self.put(slot, Kind::None, 0, REFUSED);
        if let Some(point) = self.samples.get(slot).map(|sample| sample.point) {
            self.refusals.push((point, why.into()));
        }
    }

    /// No usable value: `invalid` with the given detail.
    pub fn invalid(&mut self, slot: usize, detail: Quality) {
        self.put(slot, Kind::None, 0, Quality::INVALID.with(detail));
    }
}

/// The prepared slot of `point`: no answer yet.
pub(crate) const fn unanswered(point: u32) -> Sample {
    Sample {
        ts_ns: UNSTAMPED,
        bits: 0,
        point,
        quality: UNANSWERED.0,
        kind: Kind::None as u8,
        flags: Flags::GATEWAY_TIME,
    }
}

/// What a device reported by itself. Samples keep their order.
///
/// Made by [`crate::Context::update`] of the device, handed over by [`crate::Driver::next`] or
/// [`crate::Context::publish`].
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub(crate) device: Option<u32>,
    pub(crate) samples: Samples,
    pub(crate) cause: Cause,
    pub(crate) token: u32,
    pub(crate) flags: u32,
}

impl Update {
    pub(crate) fn new(device: Option<u32>, cause: Cause) -> Self {
        Self { device, samples: Samples::default(), cause, token: 0, flags: 0 }
    }

    /// Appends a reading of `point` (the host's number) with the update's cause.
    pub fn push(&mut self, point: u32, reading: impl Into<Reading>) {
        self.push_as(self.cause, point, reading);
    }

    /// Appends a reading with a cause of its own (reports name one per value).
    pub fn push_as(&mut self, cause: Cause, point: u32, reading: impl Into<Reading>) {
        let reading = reading.into();
        let (ts_ns, time_mark) = match reading.source_time {
            Some(ts_ns) => (ts_ns, 0),
            None => (crate::time::now(), Flags::GATEWAY_TIME),
        };
        let flags = Flags::new(cause, (reading.marks & !Flags::GATEWAY_TIME) | time_mark);
        self.samples.push(point, ts_ns, &reading.value, reading.quality, flags);
    }

    /// The host answers [`crate::Driver::committed`] once every durable sink has these samples on disk. Tokens of a
    /// device are answered in order; 0 means none.
    #[must_use]
    pub const fn token(mut self, token: u32) -> Self {
        self.token = token;
        self
    }

    /// One consistent unit: never split, filtered or reordered.
    #[must_use]
    pub const fn block(mut self) -> Self {
        self.flags |= busbar_contract::batch::BLOCK;
        self
    }

    /// True when nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(points: &[u32], open: usize) -> Readings {
        let template: Vec<Sample> = points.iter().map(|point| unanswered(*point)).collect();
        let mut readings = Readings::default();
        readings.begin(&template, open, Cause::Integrity);
        readings
    }

    #[test]
    fn every_point_has_exactly_one_sample_whatever_the_driver_does() {
        let mut out = readings(&[7, 8, 9], 2);
        out.f64(0, 1.0);
        out.f64(0, 2.0);
        out.text(2, "not its slot");
        out.text(usize::MAX, "no slot");
        out.refuse(usize::MAX, "no slot");
        out.finish(5);
        let seen: Vec<(u32, u8, u16, i64)> = out
            .samples
            .iter()
            .map(|sample| (sample.point, sample.kind, sample.quality, sample.ts_ns))
            .collect();
        assert_eq!(seen, [(7, 5, 0, 5), (8, 0, UNANSWERED.0, 5), (9, 0, UNANSWERED.0, 5)]);
        assert_eq!(f64::from_bits(out.samples[0].bits), 2.0, "the later answer counts");
        assert!(out.refusals.is_empty());
        assert!(out.samples.iter().all(|sample| Cause::of(sample.flags) == Cause::Integrity));
    }

    #[test]
    fn times_say_whose_they_are() {
        let mut out = readings(&[1, 2, 3, 4], 4);
        out.bool(0, true);
        out.source_time(77);
        out.i64(1, -1);
        out.stamp();
        out.u64(2, 3);
        out.set(3, Reading::new("x").at(78).marks(Flags::TRANSIENT | Flags::GATEWAY_TIME));
        out.finish(i64::MAX);
        let times: Vec<(i64, bool)> =
            out.samples.iter().map(|sample| (sample.ts_ns, Flags(sample.flags).gateway_time())).collect();
        assert_eq!((times[0], times[1], times[3]), ((i64::MAX, true), (77, false), (78, false)));
        assert!(times[2].1 && times[2].0 < i64::MAX, "stamped when the answer arrived");
        assert_eq!(out.samples[3].flags & Flags::TRANSIENT, Flags::TRANSIENT);
    }

    #[test]
    fn the_buffer_is_used_again() {
        let template: Vec<Sample> = (0..50).map(unanswered).collect();
        let mut out = Readings::default();
        out.begin(&template, 50, Cause::Poll);
        let place = out.samples.as_ptr();
        for round in 0..100 {
            out.begin(&template, 50, Cause::Poll);
            (0..50).for_each(|slot| out.f32(slot, 1.5));
            out.finish(round);
            assert_eq!(out.samples.as_ptr(), place, "no allocation per read or sample");
        }
    }
}
