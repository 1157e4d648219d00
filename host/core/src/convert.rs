//! Values on their way up (scale, offset, invert, range, checks of the encoding) and commands on their way down
//! (the same chain backwards). SEMANTICS 1 and 6. The way up allocates nothing.

use busbar_contract::{Kind, Quality, Reason, Value, value};
use serde_json::Value as Json;

use crate::{
    decimal::{Decimal, apply_int},
    model,
};

/// What is configured for the value of one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conversion {
    scale: Decimal,
    offset: Decimal,
    identity: bool,
    invert: bool,
    range: Option<[f64; 2]>,
    write_range: Option<[f64; 2]>,
}

/// A value in engineering units, in the form of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Converted {
    pub(crate) kind: Kind,
    /// Of texts, bytes and JSON: their length.
    pub(crate) bits: u64,
    /// The host's bits: out of range, not a number, not readable.
    pub(crate) quality: Quality,
}

/// A number this close to a whole one is whole.
const WHOLE: f64 = 1e-9;
const FAILURE: Quality = Quality(Quality::INVALID.0 | Quality::FAILURE.0);
const RANGE: Quality = Quality(Quality::QUESTIONABLE.0 | Quality::OUT_OF_RANGE.0);

impl Default for Conversion {
    fn default() -> Self {
        Self::new(&model::Point::default())
    }
}

impl Conversion {
    pub(crate) fn new(point: &model::Point) -> Self {
        Self {
            scale: point.scale,
            offset: point.offset,
            identity: point.scale.is_one() && point.offset.is_zero(),
            invert: point.invert,
            range: point.range,
            write_range: point.write_range.or(point.range),
        }
    }

    /// The way up. Unknown kinds and broken encodings become `invalid|failure`, never a number (R8).
    pub(crate) fn forward(&self, code: u8, bits: u64, blob: &[u8]) -> Converted {
        let broken = Converted { kind: Kind::None, bits: 0, quality: FAILURE };
        let Some(kind) = Kind::from_code(code) else { return broken };
        let plain = |bits| Converted { kind, bits, quality: Quality::GOOD };
        match kind {
            Kind::None => plain(0),
            Kind::Int64 => self.whole(kind, bits, i128::from(bits.cast_signed())),
            Kind::Uint64 => self.whole(kind, bits, i128::from(bits)),
            Kind::Float32 => self.float32(f32::from_bits((bits & 0xffff_ffff) as u32)),
            Kind::Float64 => self.float64(f64::from_bits(bits)),
            Kind::Bool => plain(u64::from((bits != 0) != self.invert)),
            Kind::DoublePoint if bits > 3 => broken,
            Kind::DoublePoint => plain(invert_double(bits, self.invert)),
            Kind::Step if Value::decode(code, bits, &[]).is_err() => broken,
            _ if self.invert => broken,
            Kind::Step | Kind::Bits32 | Kind::Time => plain(bits),
            Kind::Text | Kind::Bytes | Kind::Json => match readable(kind, bits, blob) {
                true => plain(bits & 0xffff_ffff),
                false => broken,
            },
        }
    }

    fn whole(&self, kind: Kind, bits: u64, raw: i128) -> Converted {
        if self.identity {
            return Converted { kind, bits, quality: self.check(raw as f64) };
        }
        self.float64_done(apply_int(raw, self.scale, self.offset))
    }

    fn float32(&self, raw: f32) -> Converted {
        if self.identity {
            // The range is compared with the number the user sees: 0.1 as float32 lies above 0.1 as float64.
            // Its shortest form is only made where the plain comparison says outside.
            let quality = if self.check(f64::from(raw)) == Quality::GOOD {
                Quality::GOOD
            } else {
                self.check(Decimal::from_f32(raw).map_or(f64::NAN, Decimal::to_f64))
            };
            return Converted { kind: Kind::Float32, bits: u64::from(raw.to_bits()), quality };
        }
        if raw.fract() == 0.0 && raw.abs() < 9.0e15 {
            return self.float64_done(apply_int(raw as i128, self.scale, self.offset));
        }
        self.float64_done(self.scaled(Decimal::from_f32(raw), f64::from(raw)))
    }

    fn float64(&self, raw: f64) -> Converted {
        if self.identity {
            return Converted { kind: Kind::Float64, bits: raw.to_bits(), quality: self.check(raw) };
        }
        if raw.fract() == 0.0 && raw.abs() < 9.0e15 {
            return self.float64_done(apply_int(raw as i128, self.scale, self.offset));
        }
        self.float64_done(self.scaled(Decimal::from_f64(raw), raw))
    }

    fn scaled(&self, decimal: Option<Decimal>, raw: f64) -> f64 {
        decimal.map_or_else(
            || raw * self.scale.to_f64() + self.offset.to_f64(),
            |decimal| decimal.mul_add(self.scale, self.offset),
        )
    }

    fn float64_done(&self, number: f64) -> Converted {
        Converted { kind: Kind::Float64, bits: number.to_bits(), quality: self.check(number) }
    }

    fn check(&self, number: f64) -> Quality {
        if !number.is_finite() {
            return FAILURE;
        }
        match self.range {
            Some([low, high]) if number < low || number > high => RANGE,
            _ => Quality::GOOD,
        }
    }

    /// The way down: a value in engineering units, JSON form, as the raw value of `kind` (the kind the device delivers;
    /// `Kind::None` where it never delivered one). Outside the limits it is refused, never clamped. A point of unknown
    /// kind with limits, scale or offset takes a number only.
    pub(crate) fn backward(&self, kind: Kind, json: &Json) -> Result<Value, (Reason, String)> {
        if kind == Kind::None && (!self.identity || self.write_range.is_some()) {
            return self.unknown_number_backward(json);
        }
        let kind = if kind == Kind::None { self.kind_of(json) } else { kind };
        let malformed = |error: busbar_contract::Malformed| (Reason::OutOfRange, error.to_string());
        match kind {
            Kind::Int64 | Kind::Uint64 | Kind::Float32 | Kind::Float64 => self.number_backward(kind, json),
            Kind::Bool => match Value::from_json(kind, json).map_err(malformed)? {
                Value::Bool(on) => Ok(Value::Bool(on != self.invert)),
                other => Ok(other),
            },
            Kind::DoublePoint => match Value::from_json(kind, json).map_err(malformed)? {
                Value::DoublePoint(state @ (1 | 2)) => {
                    Ok(Value::DoublePoint(invert_double(u64::from(state), self.invert) as u8))
                }
                _ => Err((Reason::OutOfRange, format!("expected off or on, found {json}"))),
            },
            _ if self.invert => {
                Err((Reason::Unsupported, format!("invert does not fit a value of kind {}", kind.as_str())))
            }
            Kind::Step | Kind::Bits32 => {
                let value = Value::from_json(kind, json).map_err(malformed)?;
                self.limits(value.as_f64().unwrap_or(f64::NAN), json)?;
                Ok(value)
            }
            _ => Value::from_json(kind, json).map_err(malformed),
        }
    }

    fn number_backward(&self, kind: Kind, json: &Json) -> Result<Value, (Reason, String)> {
        let decimal = decimal_of(json)
            .ok_or_else(|| (Reason::OutOfRange, format!("expected a number, found {json}")))?;
        self.limits(decimal.to_f64(), json)?;
        let outside =
            || (Reason::OutOfRange, format!("expected a value that fits {}, found {json}", kind.as_str()));
        let whole = || decimal.undo_to_int(self.scale, self.offset).ok_or_else(outside);
        let float = || decimal.undo_to_f64(self.scale, self.offset).ok_or_else(outside);
        Ok(match kind {
            Kind::Int64 => Value::Int(i64::try_from(whole()?).map_err(|_| outside())?),
            Kind::Uint64 => Value::Uint(u64::try_from(whole()?).map_err(|_| outside())?),
            Kind::Float32 => {
                let number = float()? as f32;
                Value::Float32(if number.is_finite() { number } else { return Err(outside()) })
            }
            _ => Value::Float64(float()?),
        })
    }

    /// A number for a point that was never read (write-only register) and whose kind nobody named. Whether the device
    /// holds integers is not known here: what is whole after scaling is sent whole (decimal noise up to [`WHOLE`] aside),
    /// anything else as it is, and the driver, which knows the type, rounds half away from zero.
    fn unknown_number_backward(&self, json: &Json) -> Result<Value, (Reason, String)> {
        if self.invert {
            return Err((Reason::Unsupported, "invert does not fit a number".into()));
        }
        let Value::Float64(raw) = self.number_backward(Kind::Float64, json)? else {
            return Err((Reason::OutOfRange, format!("expected a number, found {json}")));
        };
        if (raw - raw.round()).abs() <= WHOLE
            && let Ok(Value::Int(whole)) = self.number_backward(Kind::Int64, json)
        {
            return Ok(Value::Int(whole));
        }
        Ok(Value::Float64(raw))
    }

    /// Kind of a value for a point of unknown kind. What is inverted is digital.
    fn kind_of(&self, json: &Json) -> Kind {
        match json {
            Json::Bool(_) => Kind::Bool,
            Json::Number(_) if self.invert => Kind::Bool,
            Json::String(_) if self.invert => Kind::DoublePoint,
            Json::Number(number) if number.is_f64() => Kind::Float64,
            Json::Number(number) if number.is_u64() && !number.is_i64() => Kind::Uint64,
            Json::Number(_) => Kind::Int64,
            Json::String(_) => Kind::Text,
            _ => Kind::Json,
        }
    }

    fn limits(&self, number: f64, json: &Json) -> Result<(), (Reason, String)> {
        match self.write_range {
            Some([low, high]) if !(low..=high).contains(&number) => {
                Err((Reason::OutOfRange, format!("expected {low} to {high}, found {json}")))
            }
            _ => Ok(()),
        }
    }
}

const fn invert_double(state: u64, invert: bool) -> u64 {
    match (state, invert) {
        (1, true) => 2,
        (2, true) => 1,
        _ => state,
    }
}

fn readable(kind: Kind, bits: u64, blob: &[u8]) -> bool {
    match (kind, value::slice(bits, blob)) {
        (Kind::Text, Ok(bytes)) => std::str::from_utf8(bytes).is_ok(),
        (Kind::Json, Ok(bytes)) => serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok(),
        (_, Ok(_)) => true,
        (_, Err(_)) => false,
    }
}

fn decimal_of(json: &Json) -> Option<Decimal> {
    let text = match json {
        Json::Number(number) => number.to_string(),
        Json::String(text) => text.clone(),
        _ => return None,
    };
    text.parse().ok().or_else(|| Decimal::from_f64(text.parse().ok()?))
}

/// `value` is what the configuration wrote as `expected`, JSON form (interlocks, gates).
pub(crate) fn equals(value: &Value, expected: &Json) -> bool {
    if *value == Value::None {
        return false;
    }
    match (value.as_f64(), expected) {
        (Some(number), Json::Number(expected)) if !matches!(value, Value::DoublePoint(_)) => {
            Value::to_json(value).as_f64().unwrap_or(number) == expected.as_f64().unwrap_or(f64::NAN)
        }
        _ => Value::from_json(value.kind(), expected).is_ok_and(|expected| expected == *value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversion(scale: &str, offset: &str) -> Conversion {
        Conversion::new(&model::Point {
            scale: scale.parse().unwrap(),
            offset: offset.parse().unwrap(),
            ..model::Point::default()
        })
    }

    fn number(converted: Converted) -> f64 {
        assert_eq!(converted.kind, Kind::Float64);
        f64::from_bits(converted.bits)
    }

    #[test]
    fn the_result_is_the_double_nearest_to_the_exact_decimal_product() {
        let tenth = conversion("0.1", "0");
        assert_eq!(number(tenth.forward(Kind::Int64 as u8, 3, &[])), 0.3);
        assert_eq!(number(tenth.forward(Kind::Uint64 as u8, 2314, &[])), 231.4);
        assert_eq!(number(tenth.forward(Kind::Float64 as u8, 0.7f64.to_bits(), &[])), 0.07);
        let thousand = conversion("1000", "0");
        assert_eq!(
            number(thousand.forward(Kind::Float32 as u8, u64::from(231.4f32.to_bits()), &[])),
            231_400.0
        );
    }

    #[test]
    fn identity_keeps_the_kind() {
        let identity = conversion("1", "0");
        let bits = u64::from(231.4f32.to_bits());
        assert_eq!(
            identity.forward(Kind::Float32 as u8, bits, &[]),
            Converted { kind: Kind::Float32, bits, quality: Quality::GOOD }
        );
    }

    #[test]
    fn invert_swaps_bool_and_off_on_and_leaves_0_and_3() {
        let invert = Conversion::new(&model::Point { invert: true, ..model::Point::default() });
        let bits = |kind: Kind, bits| invert.forward(kind as u8, bits, &[]).bits;
        assert_eq!([bits(Kind::Bool, 0), bits(Kind::Bool, 1)], [1, 0]);
        assert_eq!([0, 1, 2, 3].map(|state| bits(Kind::DoublePoint, state)), [0, 2, 1, 3]);
        assert_eq!(invert.forward(Kind::Text as u8, 0, &[]).quality, FAILURE);
    }

    #[test]
    fn outside_range_is_questionable_and_not_a_number_is_invalid() {
        let range = Conversion::new(&model::Point { range: Some([0.0, 0.1]), ..model::Point::default() });
        let quality =
            |number: f64| range.forward(Kind::Float64 as u8, number.to_bits(), &[]).quality.to_string();
        assert_eq!(quality(0.1), "good");
        assert_eq!(quality(0.11), "questionable|out_of_range");
        assert_eq!(quality(f64::NAN), "invalid|failure");
        assert_eq!(quality(f64::NEG_INFINITY), "invalid|failure");
        let float32 = range.forward(Kind::Float32 as u8, u64::from(0.1f32.to_bits()), &[]);
        assert_eq!(float32.quality, Quality::GOOD, "compared in the form the user sees");
    }

    #[test]
    fn an_unknown_kind_is_invalid_failure_never_a_number() {
        for (kind, bits) in [(13, 5), (255, 0), (6, 4), (7, 0x40), (9, 5), (12, 0)] {
            let converted = conversion("1", "0").forward(kind, bits, b"ab");
            assert_eq!((converted.kind, converted.quality), (Kind::None, FAILURE), "{kind} {bits}");
        }
    }

    #[test]
    fn commands_go_backwards_and_are_refused_outside_the_range() {
        let point = model::Point {
            scale: "0.1".parse().unwrap(),
            range: Some([0.0, 100.0]),
            write_range: Some([10.0, 20.0]),
            ..model::Point::default()
        };
        let conversion = Conversion::new(&point);
        let send = |json: Json| conversion.backward(Kind::Int64, &json);
        assert_eq!(send(12.34.into()), Ok(Value::Int(123)));
        assert_eq!(send(12.35.into()), Ok(Value::Int(124)), "half away from zero");
        assert_eq!(send("15".into()), Ok(Value::Int(150)));
        for bad in [Json::from(9.99), 20.01.into(), "x".into(), Json::Null, "nan".into()] {
            assert_eq!(send(bad.clone()).unwrap_err().0, Reason::OutOfRange, "{bad}");
        }
    }

    #[test]
    fn a_point_never_read_keeps_its_limits_and_its_scale() {
        let point = model::Point {
            scale: "0.1".parse().unwrap(),
            write_range: Some([10.0, 20.0]),
            ..model::Point::default()
        };
        let conversion = Conversion::new(&point);
        let send = |json: Json| conversion.backward(Kind::None, &json);
        assert_eq!(send(12.3.into()), Ok(Value::Int(123)), "whole after scaling");
        assert_eq!(send(12.34.into()), Ok(Value::Float64(123.4)), "the driver knows whether to round");
        for bad in [Json::from(true), 9.99.into(), 20.01.into(), "x".into(), Json::Null] {
            assert_eq!(send(bad.clone()).unwrap_err().0, Reason::OutOfRange, "{bad}");
        }
        let limited = Conversion::new(&model::Point { range: Some([0.0, 10.0]), ..model::Point::default() });
        assert_eq!(limited.backward(Kind::None, &Json::from(11)).unwrap_err().0, Reason::OutOfRange);
        assert_eq!(limited.backward(Kind::None, &Json::from(true)).unwrap_err().0, Reason::OutOfRange);
        assert_eq!(limited.backward(Kind::None, &Json::from(9)), Ok(Value::Int(9)));
        let inverted = Conversion::new(&model::Point { invert: true, ..model::Point::default() });
        assert_eq!(inverted.backward(Kind::None, &Json::from(1)), Ok(Value::Bool(false)));
        assert_eq!(inverted.backward(Kind::None, &Json::from(true)), Ok(Value::Bool(false)));
    }

    #[test]
    fn without_a_range_the_limits_of_the_type_hold() {
        let plain = conversion("1", "0");
        assert_eq!(plain.backward(Kind::Uint64, &Json::from(-1)).unwrap_err().0, Reason::OutOfRange);
        assert_eq!(plain.backward(Kind::Float32, &Json::from(1e300)).unwrap_err().0, Reason::OutOfRange);
        assert_eq!(plain.backward(Kind::DoublePoint, &Json::from("on")), Ok(Value::DoublePoint(2)));
        assert_eq!(plain.backward(Kind::DoublePoint, &Json::from("bad")).unwrap_err().0, Reason::OutOfRange);
        assert_eq!(plain.backward(Kind::None, &Json::from(true)), Ok(Value::Bool(true)));
    }

    #[test]
    fn conditions_compare_by_meaning() {
        assert!(equals(&Value::Float32(0.1), &Json::from(0.1)));
        assert!(equals(&Value::Int(1), &Json::from(1.0)));
        assert!(equals(&Value::Bool(true), &Json::from(1)));
        assert!(equals(&Value::DoublePoint(2), &Json::from("on")));
        assert!(equals(&Value::DoublePoint(2), &Json::from(true)));
        assert!(!equals(&Value::None, &Json::from(0)));
        assert!(!equals(&Value::Text("a".into()), &Json::from("b")));
    }
}
