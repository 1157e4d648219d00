//! Values and their JSON form: bool; double point `"intermediate" "off" "on" "bad"`; integers beyond 2^53 as text, because
//! JSON readers hold numbers as doubles; float32 in its own shortest form (`231.4`); bytes as hex text; time as RFC 3339;
//! structures as they are; NaN and infinities null; null when there never was a value.
//!
//! This is on the hot path of sinks: no tree, no allocation once the buffer has grown, `itoa` and `zmij` for the numbers.

use crate::time::rfc3339;

/// Largest whole number that every JSON reader holds exactly.
const SAFE_INTEGER: u64 = 1 << 53;

/// Texts of the four states of a double point.
const DOUBLE_POINT: [&str; 4] = ["intermediate", "off", "on", "bad"];

/// What is shown for a value that is not good (sink key `bad_value`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadValue {
    /// Nothing.
    Omit,
    /// `null`.
    Null,
    /// The last value, marked by its quality.
    #[default]
    Last,
}

impl BadValue {
    /// Reads the sink key `bad_value`; `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "omit" => Self::Omit,
            "null" => Self::Null,
            "last" => Self::Last,
            _ => return None,
        })
    }
}

/// One value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// There never was one.
    None,
    /// false, true.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Single precision.
    Float32(f32),
    /// Double precision.
    Float64(f64),
    /// 0 intermediate, 1 off, 2 on, 3 bad.
    DoublePoint(u8),
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Nanoseconds since 1970-01-01 UTC.
    Time(i64),
    /// A structure.
    Json(&'a serde_json::Value),
}

impl Value<'_> {
    /// Appends the JSON form.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::None => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) if number.unsigned_abs() > SAFE_INTEGER => {
                quoted(out, |out| write_number(out, number));
            }
            Self::Int(number) => write_number(out, number),
            Self::Uint(number) if number > SAFE_INTEGER => quoted(out, |out| write_number(out, number)),
            Self::Uint(number) => write_number(out, number),
            Self::Float32(number) if number.is_finite() => {
                out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
            }
            Self::Float64(number) if number.is_finite() => {
                out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
            }
            Self::Float32(_) | Self::Float64(_) => out.extend_from_slice(b"null"),
            Self::DoublePoint(state) => match DOUBLE_POINT.get(usize::from(state)) {
                Some(text) => write_text(out, text),
                None => out.extend_from_slice(b"null"),
            },
            Self::Text(text) => write_text(out, text),
            Self::Bytes(bytes) => write_hex(out, bytes),
            Self::Time(ns) => write_text(out, &rfc3339(ns)),
            Self::Json(value) => write_structure(out, value),
        }
    }
}

fn write_structure(out: &mut Vec<u8>, value: &serde_json::Value) {
    let length = out.len();
    // A tree always has a JSON form and a buffer takes it; if not, half of it must not break what stands around it.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(length);
        out.extend_from_slice(b"null");
    }
}

fn quoted(out: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    inner(out);
    out.push(b'"');
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    for nibble in [byte >> 4, byte & 15] {
        out.extend(HEX.get(usize::from(nibble)));
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    quoted(out, |out| bytes.iter().for_each(|byte| push_hex(out, *byte)));
}

/// Appends a whole number.
pub fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a JSON text with its quotes (RFC 8259 section 7).
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    quoted(out, |out| write_escaped(out, text));
}

/// Appends the inside of a JSON text.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                push_hex(out, byte);
            }
            other => out.push(other),
        }
    }
}
