//! One configured point: where its value, quality and time are in its data object, and how they are read.
//!
//! An address is resolved against the model once; from then on reading is following places in a structure. Value,
//! `q` and `t` come from the same read of the data object, or from the members of one report, so they belong
//! together. `q` and `t` are those of the innermost structure around the value that has them, under the same
//! functional constraint: those of `phsA` for `A.phsA.cVal.mag.f`, never those of another phase.

mod cdc;
mod resolve;
mod track;

pub use cdc::Cdc;
pub use resolve::resolve;
pub use track::{Cause, Update};

use iec61850_rs::proto::data::Value;

use crate::data;
use crate::name::{Fc, Name};
use crate::quality::{Quality, SourceTime};

/// A member of the data object: its full name and its places from the object on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name of the variable.
    pub name: Name,
    /// Places in the structure of the object.
    pub places: Vec<usize>,
}

/// How the value is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Boolean.
    Bool,
    /// Two bits: 00 intermediate, 01 off, 10 on, 11 bad.
    DoublePoint,
    /// Position of a tap changer, -64 to 63.
    Step,
    /// Integer or enumeration.
    Integer,
    /// Integer without sign.
    Unsigned,
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
    /// Bit string of up to 32 bits.
    Bits,
    /// Text.
    Text,
    /// Octets.
    Octets,
    /// Time.
    Time,
}

/// A value of a point.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Boolean.
    Bool(bool),
    /// 0 intermediate, 1 off, 2 on, 3 bad.
    DoublePoint(u8),
    /// Tap position.
    Step(i8),
    /// Integer or enumeration.
    Integer(i64),
    /// Integer without sign.
    Unsigned(u64),
    /// 32-bit float.
    Float32(f32),
    /// 64-bit float.
    Float64(f64),
    /// Bits, the first of the string lowest.
    Bits(u32),
    /// Text.
    Text(String),
    /// Octets.
    Octets(Vec<u8>),
    /// ns since 1970 UTC.
    Time(u64),
}

/// A resolved point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Class of the data object, or of the sub object the value is in.
    pub cdc: Cdc,
    /// Functional constraint.
    pub fc: Fc,
    /// The data object under this constraint: what is read.
    pub object: Name,
    /// The value.
    pub value: Part,
    /// Its quality, where the object has one.
    pub quality: Option<Part>,
    /// Its time, where the object has one.
    pub time: Option<Part>,
    /// The transient indication of a step position.
    pub transient: Option<Part>,
    /// How the value is read.
    pub meaning: Meaning,
    /// `sVC` (factor and offset) of an integer measurement; its device sends raw numbers.
    pub scaling: Option<Name>,
    /// `units` (SI unit and multiplier), where the object has them.
    pub units: Option<Name>,
}

/// What was read of a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The value; `None` where the device has none.
    pub value: Option<Scalar>,
    /// Its quality.
    pub quality: Quality,
    /// Its time.
    pub time: Option<SourceTime>,
    /// The position is just changing.
    pub transient: bool,
}

impl Point {
    /// Reads the point out of a read of [`Self::object`].
    #[must_use]
    pub fn read(&self, object: &Value) -> Reading {
        let part = |part: &Option<Part>| part.as_ref().map(|part| data::at(object, &part.places));
        let value = data::at(object, &self.value.places).and_then(|value| self.meaning.read(value));
        let quality = match part(&self.quality) {
            // The object has no quality in its class.
            None => Quality::GOOD,
            Some(quality) => quality.and_then(Quality::read).unwrap_or(Quality::FAILURE),
        };
        let time = part(&self.time).flatten().and_then(SourceTime::read);
        let transient = part(&self.transient).flatten().and_then(data::boolean).unwrap_or(false);
        reading(value, quality, time, transient)
    }
}

/// Puts a reading together: no value means failure, a bad clock is told.
fn reading(value: Option<Scalar>, quality: Quality, time: Option<SourceTime>, transient: bool) -> Reading {
    let quality = if value.is_some() { quality } else { quality.failed() };
    Reading { value, quality: quality.with_clock(time.is_some_and(|time| time.unsynced)), time, transient }
}

impl Meaning {
    /// Reads a value; `None` where its type on the wire is not that of the model, or does not fit.
    #[must_use]
    pub fn read(self, value: &Value) -> Option<Scalar> {
        Some(match (self, value) {
            (Self::Bool, Value::Boolean(value)) => Scalar::Bool(*value),
            (Self::DoublePoint, value) => Scalar::DoublePoint(double_point(value)?),
            (Self::Step, value) => Scalar::Step(
                i8::try_from(data::integer(value)?).ok().filter(|step| (-64..64).contains(step))?,
            ),
            (Self::Integer, value) => Scalar::Integer(data::integer(value)?),
            (Self::Unsigned, Value::Unsigned(number)) => Scalar::Unsigned(*number),
            (Self::Unsigned, Value::Integer(number)) => Scalar::Unsigned(u64::try_from(*number).ok()?),
            (Self::Float32, Value::Float32(number)) => Scalar::Float32(*number),
            (Self::Float32 | Self::Float64, Value::Float64(number)) => Scalar::Float64(*number),
            (Self::Float64, Value::Float32(number)) => Scalar::Float64(f64::from(*number)),
            (Self::Bits, value) => Scalar::Bits(bits(value)?),
            (Self::Text, value) => Scalar::Text(data::text(value)?.to_owned()),
            (Self::Octets, value) => Scalar::Octets(data::octets(value)?.to_vec()),
            (Self::Time, value) => Scalar::Time(SourceTime::read(value)?.unix_ns),
            _ => return None,
        })
    }
}

/// `Dbpos` (IEC 61850-7-3): the first bit of the string is the higher one, so on is 10 on the wire and 2 here.
fn double_point(value: &Value) -> Option<u8> {
    let bits: Vec<bool> = data::bits(value)?.take(3).collect();
    let [high, low] = bits[..] else { return None };
    Some((u8::from(high) << 1) | u8::from(low))
}

fn bits(value: &Value) -> Option<u32> {
    let bits: Vec<bool> = data::bits(value)?.take(33).collect();
    if bits.len() > 32 {
        return None;
    }
    Some(bits.iter().enumerate().filter(|(_, set)| **set).fold(0, |all, (bit, _)| all | (1 << bit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_points_are_big_endian_by_bit() {
        for (wire, state) in [(0x00, 0), (0x40, 1), (0x80, 2), (0xc0, 3)] {
            let value = Value::BitString { unused: 6, bytes: vec![wire] };
            assert_eq!(Meaning::DoublePoint.read(&value), Some(Scalar::DoublePoint(state)), "{wire:#04x}");
        }
        let quality = Value::BitString { unused: 3, bytes: vec![0x80, 0] };
        assert_eq!(Meaning::DoublePoint.read(&quality), None, "a quality is no position");
        assert_eq!(Meaning::DoublePoint.read(&Value::Integer(2)), None);
    }

    #[test]
    fn a_value_of_another_type_is_no_value() {
        assert_eq!(Meaning::Bool.read(&Value::Integer(1)), None);
        assert_eq!(Meaning::Float32.read(&Value::Integer(1)), None);
        assert_eq!(Meaning::Step.read(&Value::Integer(64)), None);
        assert_eq!(Meaning::Step.read(&Value::Integer(-64)), Some(Scalar::Step(-64)));
        assert_eq!(Meaning::Unsigned.read(&Value::Integer(-1)), None);
        let bits = Value::BitString { unused: 5, bytes: vec![0b1010_0000] };
        assert_eq!(Meaning::Bits.read(&bits), Some(Scalar::Bits(0b101)));
    }

    #[test]
    fn no_value_is_invalid_whatever_its_quality() {
        let read = reading(None, Quality::GOOD, None, false);
        assert_eq!(read.quality, Quality::FAILURE);
        let questionable = reading(None, Quality(0b11 | 1 << 7), None, false);
        assert_eq!(questionable.quality, Quality(0b01 | 1 << 6 | 1 << 7));
    }
}
