//! Values and their JSON form: bool; double point `"intermediate" "off" "on" "bad"`; integers beyond 2^53 as text, because
//! JSON readers hold numbers as doubles; float32 in its own shortest form (`231.4`); bytes as hex text; time as RFC 3339;
//! NaN and infinities null; null when there never was a value.

use crate::time::rfc3339;

/// Largest whole number that every JSON reader holds exactly.
const SAFE_INTEGER: u64 = 1 << 53;

/// Texts of the four states of a double point.
const DOUBLE_POINT: [&str; 4] = ["intermediate", "off", "on", "bad"];

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
    /// A structure: JSON text. What is not JSON goes out as null.
    Json(&'a [u8]),
}

impl Value<'_> {
    /// Appends the JSON form.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::None => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) if number.unsigned_abs() > SAFE_INTEGER => {
                quoted(out, |out| write_number(out, number))
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
            Self::Json(text) if is_json(text) => out.extend_from_slice(text),
            Self::Json(_) => out.extend_from_slice(b"null"),
        }
    }
}

/// Checked without building a tree: a hostile text must not break the body around it.
fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(text).is_ok()
}

fn quoted(out: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    inner(out);
    out.push(b'"');
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    quoted(out, |out| {
        for byte in bytes {
            out.extend(DIGITS.get(usize::from(byte >> 4)));
            out.extend(DIGITS.get(usize::from(byte & 15)));
        }
    });
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
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: Value<'_>) -> String {
        let mut out = Vec::new();
        value.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind() {
        for (value, text) in [
            (Value::None, "null"),
            (Value::Bool(true), "true"),
            (Value::Int(-7), "-7"),
            (Value::Int(-9_007_199_254_740_993), "\"-9007199254740993\""),
            (Value::Uint(9_007_199_254_740_992), "9007199254740992"),
            (Value::Uint(u64::MAX), "\"18446744073709551615\""),
            (Value::Float32(231.4), "231.4"),
            (Value::Float64(0.1), "0.1"),
            (Value::Float32(f32::NAN), "null"),
            (Value::Float64(f64::INFINITY), "null"),
            (Value::DoublePoint(2), "\"on\""),
            (Value::DoublePoint(9), "null"),
            (Value::Text("a\"\u{1}"), "\"a\\\"\\u0001\""),
            (Value::Bytes(&[0, 0xaf]), "\"00af\""),
            (Value::Time(0), "\"1970-01-01T00:00:00.000Z\""),
            (Value::Json(b"{\"a\":1}"), "{\"a\":1}"),
            (Value::Json(b"}{"), "null"),
        ] {
            assert_eq!(json(value), text);
        }
    }
}
