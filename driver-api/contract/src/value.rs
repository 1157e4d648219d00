//! Values: how `Sample.kind` and `Sample.bits` are read, and their JSON form.
//!
//! JSON form (also on MQTT and the API): bool; double point `"intermediate" "off" "on" "bad"`; integers beyond 2^53
//! as text; float32 in its own shortest form; bytes as hex text; time as RFC 3339; NaN and infinities null.

use crate::Malformed;

/// `Sample.kind`. Codes are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// No value.
    None = 0,
    /// false, true.
    Bool = 1,
    /// Signed integer.
    Int64 = 2,
    /// Unsigned integer.
    Uint64 = 3,
    /// Single precision number.
    Float32 = 4,
    /// Double precision number.
    Float64 = 5,
    /// 0 intermediate, 1 off, 2 on, 3 bad.
    DoublePoint = 6,
    /// Step position, -64 to 63; bit 8 of `bits` marks a transient position.
    Step = 7,
    /// 32 bits.
    Bits32 = 8,
    /// UTF-8 text in the blob.
    Text = 9,
    /// Bytes in the blob.
    Bytes = 10,
    /// Nanoseconds since 1970-01-01 UTC.
    Time = 11,
    /// JSON text in the blob.
    Json = 12,
}

impl Kind {
    /// The kind with this code; `None` for a code that this version does not know (shown as `invalid|failure`).
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Bool,
            2 => Self::Int64,
            3 => Self::Uint64,
            4 => Self::Float32,
            5 => Self::Float64,
            6 => Self::DoublePoint,
            7 => Self::Step,
            8 => Self::Bits32,
            9 => Self::Text,
            10 => Self::Bytes,
            11 => Self::Time,
            12 => Self::Json,
            _ => return None,
        })
    }

    /// `bits` is an offset and a length into the blob.
    #[must_use]
    pub const fn in_blob(self) -> bool {
        matches!(self, Self::Text | Self::Bytes | Self::Json)
    }

    /// Scale, offset, range and deadband apply.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Uint64 | Self::Float32 | Self::Float64)
    }

    /// Kinds whose changes are events (kept all and in order towards sinks).
    #[must_use]
    pub const fn is_event_kind(self) -> bool {
        matches!(self, Self::Bool | Self::DoublePoint | Self::Step | Self::Bits32)
    }

    /// Name used in messages and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::DoublePoint => "double_point",
            Self::Step => "step",
            Self::Bits32 => "bits32",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Time => "time",
            Self::Json => "json",
        }
    }

    /// Reads [`Kind::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        (0..=12).filter_map(Self::from_code).find(|kind| kind.as_str() == name)
    }
}

/// Texts of the four double point states, by code.
pub const DOUBLE_POINT: [&str; 4] = ["intermediate", "off", "on", "bad"];

/// One value, owned. The hot path keeps `(kind, bits)`; this form is for commands, the table's edges and tests.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    None,
    /// false, true.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Single precision number.
    Float32(f32),
    /// Double precision number.
    Float64(f64),
    /// 0 intermediate, 1 off, 2 on, 3 bad.
    DoublePoint(u8),
    /// Position -64 to 63 and the transient mark.
    Step(i8, bool),
    /// 32 bits.
    Bits32(u32),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nanoseconds since 1970-01-01 UTC.
    Time(i64),
    /// A structure.
    Json(serde_json::Value),
}

impl Value {
    /// The kind of this value.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::None => Kind::None,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) => Kind::Int64,
            Self::Uint(_) => Kind::Uint64,
            Self::Float32(_) => Kind::Float32,
            Self::Float64(_) => Kind::Float64,
            Self::DoublePoint(_) => Kind::DoublePoint,
            Self::Step(..) => Kind::Step,
            Self::Bits32(_) => Kind::Bits32,
            Self::Text(_) => Kind::Text,
            Self::Bytes(_) => Kind::Bytes,
            Self::Time(_) => Kind::Time,
            Self::Json(_) => Kind::Json,
        }
    }

    /// The `bits` of a sample with this value; texts, bytes and structures are appended to `blob`.
    #[must_use]
    pub fn encode(&self, blob: &mut Vec<u8>) -> u64 {
        let mut store = |bytes: &[u8]| {
            let offset = blob.len() as u64;
            blob.extend_from_slice(bytes);
            (offset << 32) | (bytes.len() as u64 & 0xffff_ffff)
        };
        match self {
            Self::None => 0,
            Self::Bool(value) => u64::from(*value),
            Self::Int(value) | Self::Time(value) => value.cast_unsigned(),
            Self::Uint(value) => *value,
            Self::Float32(value) => u64::from(value.to_bits()),
            Self::Float64(value) => value.to_bits(),
            Self::DoublePoint(state) => u64::from(*state & 0b11),
            Self::Step(position, transient) => {
                u64::from(position.cast_unsigned()) | (u64::from(*transient) << 8)
            }
            Self::Bits32(value) => u64::from(*value),
            Self::Text(text) => store(text.as_bytes()),
            Self::Bytes(bytes) => store(bytes),
            Self::Json(value) => store(value.to_string().as_bytes()),
        }
    }

    /// Reads a value; every offset, length and UTF-8 is checked (R8).
    pub fn decode(kind: u8, bits: u64, blob: &[u8]) -> Result<Self, Malformed> {
        let Some(kind) = Kind::from_code(kind) else {
            return Err(Malformed::new("kind", "0 to 12", kind.to_string()));
        };
        Ok(match kind {
            Kind::None => Self::None,
            Kind::Bool => Self::Bool(bits != 0),
            Kind::Int64 => Self::Int(bits.cast_signed()),
            Kind::Uint64 => Self::Uint(bits),
            Kind::Float32 => Self::Float32(f32::from_bits(low32(bits))),
            Kind::Float64 => Self::Float64(f64::from_bits(bits)),
            Kind::DoublePoint if bits < 4 => Self::DoublePoint(bits as u8),
            Kind::DoublePoint => return Err(Malformed::new("double point", "0 to 3", bits.to_string())),
            Kind::Step => {
                let position = ((bits & 0xff) as u8).cast_signed();
                if !(-64..=63).contains(&position) {
                    return Err(Malformed::new("step position", "-64 to 63", position.to_string()));
                }
                Self::Step(position, bits & 0x100 != 0)
            }
            Kind::Bits32 => Self::Bits32(low32(bits)),
            Kind::Time => Self::Time(bits.cast_signed()),
            Kind::Text => Self::Text(utf8(slice(bits, blob)?)?.to_owned()),
            Kind::Bytes => Self::Bytes(slice(bits, blob)?.to_vec()),
            Kind::Json => Self::Json(
                serde_json::from_slice(slice(bits, blob)?)
                    .map_err(|error| Malformed::new("json value", "valid JSON", error.to_string()))?,
            ),
        })
    }

    /// As a double, for numbers, bool (0, 1), double point (its code), step and bits.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        Some(match self {
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Int(value) => *value as f64,
            Self::Uint(value) => *value as f64,
            Self::Float32(value) => f64::from(*value),
            Self::Float64(value) => *value,
            Self::DoublePoint(state) => f64::from(*state),
            Self::Step(position, _) => f64::from(*position),
            Self::Bits32(value) => f64::from(*value),
            _ => return None,
        })
    }

    /// The JSON form of the module's head.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        const SAFE: u64 = 1 << 53;
        match self {
            Self::None => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) if value.unsigned_abs() > SAFE => Json::String(value.to_string()),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) if *value > SAFE => Json::String(value.to_string()),
            Self::Uint(value) => Json::from(*value),
            // Through the shortest decimal form: 231.4 and not 231.39999389648438.
            Self::Float32(value) => value.to_string().parse::<f64>().map_or(Json::Null, Json::from),
            Self::Float64(value) => Json::from(*value),
            Self::DoublePoint(state) => DOUBLE_POINT
                .get(usize::from(*state))
                .map_or(Json::Null, |text| Json::String((*text).to_owned())),
            Self::Step(position, _) => Json::from(*position),
            Self::Bits32(value) => Json::from(*value),
            Self::Text(text) => Json::String(text.clone()),
            Self::Bytes(bytes) => Json::String(hex(bytes)),
            Self::Time(ns) => Json::String(rfc3339(*ns)),
            Self::Json(value) => value.clone(),
        }
    }

    /// Reads the JSON form as a value of `kind`.
    pub fn from_json(kind: Kind, json: &serde_json::Value) -> Result<Self, Malformed> {
        let bad = |expected: &str| Malformed::new("value", expected, json.to_string());
        let int = || json.as_i64().or_else(|| json.as_str()?.parse().ok()).or_else(|| whole(json.as_f64()?));
        Ok(match kind {
            Kind::None => Self::None,
            Kind::Bool => Self::Bool(match (json.as_bool(), json.as_u64()) {
                (Some(value), _) => value,
                (_, Some(0)) => false,
                (_, Some(1)) => true,
                _ => return Err(bad("true or false")),
            }),
            Kind::Int64 => Self::Int(int().ok_or_else(|| bad("a whole number"))?),
            Kind::Uint64 => Self::Uint(
                json.as_u64()
                    .or_else(|| json.as_str()?.parse().ok())
                    .or_else(|| u64::try_from(whole(json.as_f64()?)?).ok())
                    .ok_or_else(|| bad("a whole number, 0 or more"))?,
            ),
            Kind::Float32 => Self::Float32(json.as_f64().ok_or_else(|| bad("a number"))? as f32),
            Kind::Float64 => Self::Float64(json.as_f64().ok_or_else(|| bad("a number"))?),
            Kind::DoublePoint => {
                let by_name =
                    json.as_str().and_then(|text| DOUBLE_POINT.iter().position(|name| *name == text));
                let by_bool = json.as_bool().map(|on| if on { 2 } else { 1 });
                let by_code =
                    json.as_u64().and_then(|code| usize::try_from(code).ok()).filter(|code| *code < 4);
                Self::DoublePoint(by_name.or(by_bool).or(by_code).ok_or_else(|| bad("off or on"))? as u8)
            }
            Kind::Step => Self::Step(
                int()
                    .and_then(|n| i8::try_from(n).ok())
                    .filter(|n| (-64..=63).contains(n))
                    .ok_or_else(|| bad("-64 to 63"))?,
                false,
            ),
            Kind::Bits32 => Self::Bits32(
                json.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("0 to 4294967295"))?,
            ),
            Kind::Text => Self::Text(json.as_str().ok_or_else(|| bad("text"))?.to_owned()),
            Kind::Bytes => Self::Bytes(json.as_str().and_then(unhex).ok_or_else(|| bad("hex text"))?),
            Kind::Time => Self::Time(int().ok_or_else(|| bad("nanoseconds since 1970-01-01 UTC"))?),
            Kind::Json => Self::Json(json.clone()),
        })
    }
}

/// A value travels as `{ "kind": "float64", "value": 1.5 }`; numbers that JSON cannot hold exactly travel as text.
impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Value", 2)?;
        out.serialize_field("kind", self.kind().as_str())?;
        match self {
            Self::Time(ns) => out.serialize_field("value", &ns.to_string())?,
            other => out.serialize_field("value", &other.to_json())?,
        }
        out.end()
    }
}

impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Wire {
            kind: String,
            #[serde(default)]
            value: serde_json::Value,
        }
        let wire = Wire::deserialize(deserializer)?;
        let kind = Kind::from_name(&wire.kind).ok_or_else(|| {
            serde::de::Error::custom(format!("kind: expected a value kind, found {}", wire.kind))
        })?;
        Self::from_json(kind, &wire.value).map_err(serde::de::Error::custom)
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident($value:ident) $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                Self::$variant($to)
            }
        }
    )*};
}

from! {
    bool => Bool(value) value;
    i16 => Int(value) value.into();
    i32 => Int(value) value.into();
    i64 => Int(value) value;
    u16 => Uint(value) value.into();
    u32 => Uint(value) value.into();
    u64 => Uint(value) value;
    f32 => Float32(value) value;
    f64 => Float64(value) value;
    &str => Text(value) value.to_owned();
    String => Text(value) value;
    Vec<u8> => Bytes(value) value;
    serde_json::Value => Json(value) value;
}

/// The part of the blob that `bits` names.
pub fn slice(bits: u64, blob: &[u8]) -> Result<&[u8], Malformed> {
    let (offset, length) = ((bits >> 32) as usize, (bits & 0xffff_ffff) as usize);
    offset.checked_add(length).and_then(|end| blob.get(offset..end)).ok_or_else(|| {
        Malformed::new("blob reference", format!("inside {} bytes", blob.len()), format!("{offset}+{length}"))
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| Malformed::new("text", "UTF-8", error.to_string()))
}

const fn low32(bits: u64) -> u32 {
    (bits & 0xffff_ffff) as u32
}

fn whole(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

/// Lower-case hex text.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Reads hex text; `None` for anything else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// RFC 3339 in UTC; milliseconds, or nanoseconds where the time has them.
#[must_use]
pub fn rfc3339(ns: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    if fraction % 1_000_000 == 0 {
        let ms = fraction / 1_000_000;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    } else {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
    }
}

/// Days since 1970-01-01 to the proleptic Gregorian date (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + (month <= 2) as i64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Value> {
        vec![
            Value::None,
            Value::Bool(true),
            Value::Int(-5),
            Value::Int(i64::MIN),
            Value::Uint(u64::MAX),
            Value::Float32(231.4),
            Value::Float64(0.1),
            Value::DoublePoint(2),
            Value::Step(-64, true),
            Value::Bits32(0xdead_beef),
            Value::Text("Überspannung".into()),
            Value::Bytes(vec![0, 255]),
            Value::Time(1_767_225_600_123_456_789),
            Value::Json(serde_json::json!({"a": [1, null]})),
        ]
    }

    #[test]
    fn every_kind_survives_the_waist() {
        let mut blob = vec![7; 3];
        for value in all() {
            let bits = value.encode(&mut blob);
            assert_eq!(Value::decode(value.kind() as u8, bits, &blob), Ok(value));
        }
    }

    #[test]
    fn every_kind_survives_json() {
        for value in all() {
            let text = serde_json::to_string(&value).unwrap();
            let back: Value = serde_json::from_str(&text).unwrap();
            match value {
                Value::Step(position, _) => assert_eq!(back, Value::Step(position, false)),
                value => assert_eq!(back, value, "{text}"),
            }
        }
    }

    #[test]
    fn json_forms() {
        assert_eq!(Value::Float32(231.4).to_json().to_string(), "231.4");
        assert_eq!(Value::Float32(f32::NAN).to_json().to_string(), "null");
        assert_eq!(Value::Uint((1 << 53) + 1).to_json().to_string(), "\"9007199254740993\"");
        assert_eq!(Value::DoublePoint(3).to_json().to_string(), "\"bad\"");
        assert_eq!(
            Value::Time(1_767_225_600_123_000_000).to_json().to_string(),
            "\"2026-01-01T00:00:00.123Z\""
        );
        assert_eq!(Value::Time(-1).to_json().to_string(), "\"1969-12-31T23:59:59.999999999Z\"");
    }

    #[test]
    fn hostile_references_are_refused() {
        for bits in [u64::MAX, (1 << 32) | 4, 5, (3 << 32) | 2] {
            assert!(Value::decode(Kind::Text as u8, bits, b"abcd").is_err(), "{bits:#x}");
        }
        assert!(Value::decode(Kind::Text as u8, 1, &[0xff]).is_err());
        assert!(Value::decode(99, 0, &[]).is_err());
        assert!(Value::decode(Kind::DoublePoint as u8, 4, &[]).is_err());
        assert!(Value::decode(Kind::Step as u8, 64, &[]).is_err());
    }
}
