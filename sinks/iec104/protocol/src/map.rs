//! From a value with quality to an information element, and from a command back to a value.
//!
//! The quality bits are those of IEC 61850-7-3 as the gateway carries them: two bits of validity, then one per detail.
//! Rules of IEC TS 61850-80-1 where it speaks. A value that the type cannot hold is never wrapped and never shown as
//! good: beyond a range it is the nearest value with OV, and what has no meaning in the type is 0 with IV. Counters
//! are the exception, they run over their end by nature (CY).

use crate::asdu::{CommandValue, Counter, Element, Kind, Qds};

/// Steps of a normalised value per unit (IEC 60870-5-4, 5.4.1).
const NORMALISED: f64 = 32_768.0;

/// A value of the gateway, as far as 104 can carry it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// No value, or one without a place in 104 (texts, bytes, structures).
    None,
    /// false, true.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Number.
    Float(f64),
    /// 0 intermediate, 1 off, 2 on, 3 bad.
    Double(u8),
    /// Position -64 to 63 and the transient mark.
    Step(i8, bool),
    /// 32 bits.
    Bits(u32),
}

/// Quality bits of a value: bits 0-1 validity (0 good, 3 questionable, else invalid), then details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceQuality(pub u16);

impl SourceQuality {
    /// Validity invalid.
    pub const INVALID: u16 = 0b01;
    /// Validity questionable.
    pub const QUESTIONABLE: u16 = 0b11;
    /// Overflow.
    pub const OVERFLOW: u16 = 1 << 2;
    /// Out of range.
    pub const OUT_OF_RANGE: u16 = 1 << 3;
    /// Bad reference.
    pub const BAD_REFERENCE: u16 = 1 << 4;
    /// Oscillatory.
    pub const OSCILLATORY: u16 = 1 << 5;
    /// Failure.
    pub const FAILURE: u16 = 1 << 6;
    /// Old data.
    pub const OLD_DATA: u16 = 1 << 7;
    /// Inconsistent.
    pub const INCONSISTENT: u16 = 1 << 8;
    /// Inaccurate.
    pub const INACCURATE: u16 = 1 << 9;
    /// Substituted.
    pub const SUBSTITUTED: u16 = 1 << 10;
    /// Test.
    pub const TEST: u16 = 1 << 11;
    /// Operator blocked.
    pub const OPERATOR_BLOCKED: u16 = 1 << 12;
    /// The device cannot be reached.
    pub const COMM_LOST: u16 = 1 << 13;
    /// Speaks about the time alone: IV of the time tag.
    pub const CLOCK_UNSYNCED: u16 = 1 << 14;

    const fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// What becomes of values made for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TestPolicy {
    /// Nothing is sent.
    Suppress,
    /// IV.
    #[default]
    Invalid,
    /// As they are, with the test bit in the cause of transmission.
    Pass,
}

/// What utilities settle differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Questionable values get IV too, not NT alone.
    pub questionable_as_invalid: bool,
    /// `out_of_range` sets OV.
    pub out_of_range_as_overflow: bool,
    /// `oscillatory` sets BL.
    pub oscillatory_as_blocked: bool,
    /// Values made for a test.
    pub test: TestPolicy,
}

/// Quality as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The descriptor.
    pub qds: Qds,
    /// T of the cause of transmission.
    pub test: bool,
}

/// The descriptor of a quality; `None`: the value is not sent.
#[must_use]
pub fn quality(source: SourceQuality, policy: Policy) -> Option<Sent> {
    type Q = SourceQuality;
    let mut bits = 0;
    let mut set = |when: bool, bit: Qds| bits |= if when { bit.0 } else { 0 };
    let validity = source.0 & 0b11;
    set(matches!(validity, 0b01 | 0b10), Qds::INVALID);
    set(validity == Q::QUESTIONABLE, Qds::NOT_TOPICAL);
    set(validity == Q::QUESTIONABLE && policy.questionable_as_invalid, Qds::INVALID);
    set(source.has(Q::OVERFLOW), Qds::OVERFLOW);
    set(source.has(Q::OUT_OF_RANGE) && policy.out_of_range_as_overflow, Qds::OVERFLOW);
    set(source.has(Q::OSCILLATORY) && policy.oscillatory_as_blocked, Qds::BLOCKED);
    set(source.has(Q::FAILURE), Qds::INVALID);
    set(source.has(Q::OLD_DATA), Qds::NOT_TOPICAL);
    set(source.has(Q::SUBSTITUTED), Qds::SUBSTITUTED);
    set(source.has(Q::OPERATOR_BLOCKED), Qds::BLOCKED);
    set(source.has(Q::COMM_LOST), Qds::INVALID.with(Qds::NOT_TOPICAL));
    let test = source.has(Q::TEST);
    match policy.test {
        TestPolicy::Suppress if test => return None,
        TestPolicy::Invalid => set(test, Qds::INVALID),
        _ => {}
    }
    Some(Sent { qds: Qds(bits), test: test && policy.test == TestPolicy::Pass })
}

/// The element of `kind` for a value. `full_scale` is the value that normalised 1.0 stands for. Kinds of the control
/// direction and counters ([`counter`]) give `None`.
#[must_use]
pub fn element(kind: Kind, value: Value, full_scale: f64, qds: Qds) -> Option<Element> {
    Some(match kind {
        Kind::Single => match single(value) {
            Some(on) => Element::Single(on, qds),
            None => Element::Single(false, qds.with(Qds::INVALID)),
        },
        Kind::Double => match double(value) {
            Some(state) => Element::Double(state, qds),
            None => Element::Double(0, qds.with(Qds::INVALID)),
        },
        Kind::Step => {
            let transient = matches!(value, Value::Step(_, true));
            let (position, qds) = clamp(number(value), -64.0, 63.0, qds);
            Element::Step(position as i8, transient, qds)
        }
        Kind::Bits => match bits(value) {
            Some(bits) => Element::Bits(bits, qds),
            None => Element::Bits(0, qds.with(Qds::INVALID)),
        },
        Kind::Normalised => {
            let steps = number(value).map(|number| number / full_scale * NORMALISED);
            let (steps, qds) = clamp(steps, f64::from(i16::MIN), f64::from(i16::MAX), qds);
            Element::Normalised(steps as i16, qds)
        }
        Kind::Scaled => {
            let (scaled, qds) = clamp(number(value), f64::from(i16::MIN), f64::from(i16::MAX), qds);
            Element::Scaled(scaled as i16, qds)
        }
        Kind::Float => float(number(value), qds),
        _ => return None,
    })
}

/// The counter reading of an integer: modulo 2^32 as the standard's 32 bit integer, CY when it went over the end since
/// `previous`. A value that is no integer is invalid. BCR has no room for NT, SB and BL; only IV is carried.
#[must_use]
pub fn counter(value: Value, previous: Option<i64>, carry: bool, adjusted: bool, qds: Qds) -> Counter {
    let invalid = qds.contains(Qds::INVALID);
    let Some(reading) = whole(value) else { return Counter { invalid: true, ..Counter::default() } };
    let turns = |reading: i64| (i128::from(reading) - i128::from(i32::MIN)).div_euclid(1 << 32);
    let turned = previous.is_some_and(|previous| turns(previous) != turns(reading));
    Counter { value: reading as i32, sequence: 0, carry: carry || turned, adjusted, invalid }
}

/// The integer that a counter shows; what [`counter`] wants as `previous` at the next reading.
#[must_use]
pub fn whole(value: Value) -> Option<i64> {
    match value {
        Value::Int(v) => Some(v),
        Value::Uint(v) => i64::try_from(v).ok(),
        Value::Bits(v) => Some(v.into()),
        Value::Float(v) if v.fract() == 0.0 && v.abs() < 9_007_199_254_740_992.0 => Some(v as i64),
        _ => None,
    }
}

/// The value of a command in engineering units; `None` for states that the standard does not permit. Double commands
/// are double points; steps are -1 lower and 1 higher.
#[must_use]
pub fn command(value: CommandValue, full_scale: f64) -> Option<Value> {
    match value {
        CommandValue::Single(on) => Some(Value::Bool(on)),
        CommandValue::Double(state) => matches!(state, 1 | 2).then_some(Value::Double(state)),
        CommandValue::Step(1) => Some(Value::Step(-1, false)),
        CommandValue::Step(2) => Some(Value::Step(1, false)),
        CommandValue::Step(_) => None,
        CommandValue::Normalised(steps) => Some(Value::Float(f64::from(steps) / NORMALISED * full_scale)),
        CommandValue::Scaled(v) => Some(Value::Int(v.into())),
        CommandValue::Float(v) => v.is_finite().then(|| Value::Float(v.into())),
        CommandValue::Bits(v) => Some(Value::Bits(v)),
    }
}

fn single(value: Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(on),
        Value::Int(0) | Value::Uint(0) | Value::Double(1) => Some(false),
        Value::Int(1) | Value::Uint(1) | Value::Double(2) => Some(true),
        _ => None,
    }
}

fn double(value: Value) -> Option<u8> {
    match value {
        Value::Bool(on) => Some(1 + u8::from(on)),
        Value::Double(state) if state <= 3 => Some(state),
        Value::Int(state) => u8::try_from(state).ok().filter(|state| *state <= 3),
        Value::Uint(state) => u8::try_from(state).ok().filter(|state| *state <= 3),
        _ => None,
    }
}

fn bits(value: Value) -> Option<u32> {
    match value {
        Value::Bits(bits) => Some(bits),
        Value::Int(v) => u32::try_from(v).ok(),
        Value::Uint(v) => u32::try_from(v).ok(),
        Value::Bool(on) => Some(on.into()),
        _ => None,
    }
}

fn number(value: Value) -> Option<f64> {
    match value {
        Value::Bool(on) => Some(u8::from(on).into()),
        Value::Int(v) => Some(v as f64),
        Value::Uint(v) => Some(v as f64),
        Value::Float(v) => Some(v).filter(|v| !v.is_nan()),
        Value::Step(position, _) => Some(position.into()),
        Value::None | Value::Double(_) | Value::Bits(_) => None,
    }
}

/// The nearest whole number within the limits, half away from zero; OV when it is not the number's own.
fn clamp(number: Option<f64>, least: f64, most: f64, qds: Qds) -> (f64, Qds) {
    let Some(number) = number else { return (0.0, qds.with(Qds::INVALID)) };
    let rounded = number.round();
    let clamped = rounded.clamp(least, most);
    (clamped, if clamped == rounded { qds } else { qds.with(Qds::OVERFLOW) })
}

fn float(number: Option<f64>, qds: Qds) -> Element {
    let Some(number) = number else { return Element::Float(0.0, qds.with(Qds::INVALID)) };
    let short = number as f32;
    if short.is_finite() {
        return Element::Float(short, qds);
    }
    Element::Float(f32::MAX.copysign(short), qds.with(Qds::OVERFLOW))
}

#[cfg(test)]
mod tests;
