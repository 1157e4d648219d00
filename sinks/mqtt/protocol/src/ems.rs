//! `format = "ems"`: the records of the Modbus gateway that was here before, so that its consumers go on unchanged.
//!
//! One message per device and time, topic `<base>/<device_id>/<identify_device>`:
//! `{"device_name":"Modbus_DTSU666","device_id":11,"identify_device":"<uuid>","timestamp":"2026-03-29 17:59:38.297176+00:00",`
//! `"data":{"VOLTAGE_A":118.0},"success":true,"device_type":"CT_Meter","error":null,"device_section":"Modbus_DTSU666"}`
//!
//! `data` holds numbers only: a null would make the consumer refuse the whole record, and there is no place for a quality.
//! So what is not good is left out. A record without any value has `success` false and an `error`.

use std::fmt::Write as _;

use busbar_kit::json::{Value, write_number, write_text};
use busbar_kit::time::civil;

/// Stands for an empty level of the topic.
pub const UNKNOWN: &str = "desconocido";
/// Stands for a device type that nobody configured.
pub const UNKNOWN_TYPE: &str = "Unknown";
/// Error of a record in which nothing could be read.
pub const NOTHING_READ: &str = "lectura sin variables";
/// Error of a record of a device that cannot be reached.
pub const LOST: &str = "no communication with the device";

/// Who a device is for the consumers.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Name.
    pub device_name: &'a str,
    /// Unit id; a number where it is one.
    pub device_id: Option<&'a str>,
    /// UUID of the equipment.
    pub identify_device: &'a str,
    /// Type.
    pub device_type: &'a str,
    /// Section of the old configuration.
    pub device_section: &'a str,
}

/// The default of `identify_device`: `<section>_<id>`.
#[must_use]
pub fn identify_default(section: &str, id: Option<&str>) -> String {
    id.map_or_else(|| section.to_owned(), |id| format!("{section}_{id}"))
}

/// What every record of a device has in common, ready-made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    head: Vec<u8>,
    kind: Vec<u8>,
    section: Vec<u8>,
}

impl Frame {
    /// Prepares the records of a device.
    #[must_use]
    pub fn new(identity: &Identity<'_>) -> Self {
        let member = |out: &mut Vec<u8>, name: &str, text: &str| {
            out.extend_from_slice(name.as_bytes());
            write_text(out, text);
        };
        let mut head = Vec::new();
        member(&mut head, "{\"device_name\":", identity.device_name);
        match identity.device_id {
            None => head.extend_from_slice(b",\"device_id\":null"),
            Some(id) => match id.parse::<i64>() {
                Ok(number) => {
                    head.extend_from_slice(b",\"device_id\":");
                    write_number(&mut head, number);
                }
                Err(_) => member(&mut head, ",\"device_id\":", id),
            },
        }
        member(&mut head, ",\"identify_device\":", identity.identify_device);
        head.extend_from_slice(b",\"timestamp\":\"");
        let (mut kind, mut section) = (Vec::new(), Vec::new());
        member(&mut kind, ",\"device_type\":", identity.device_type);
        member(&mut section, ",\"device_section\":", identity.device_section);
        section.push(b'}');
        Self { head, kind, section }
    }
}

/// How a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has values.
    Success,
    /// It has none, and something was wrong.
    Failure,
    /// It has none because nothing in it is a number: not worth a message.
    Nothing,
}

/// Writes one record: [`Message::begin`], [`Message::add`] for every point, [`Message::end`].
#[derive(Debug, Default)]
pub struct Message {
    values: u32,
    bad: u32,
    lost: u32,
}

impl Message {
    /// Begins a record of time `ts_ns` (nanoseconds UTC).
    #[must_use]
    pub fn begin(out: &mut Vec<u8>, frame: &Frame, ts_ns: i64) -> Self {
        out.extend_from_slice(&frame.head);
        out.extend_from_slice(timestamp(ts_ns).as_bytes());
        out.extend_from_slice(b"\",\"data\":{");
        Self::default()
    }

    /// Adds a point; `name` comes from [`crate::payload::name_fragment`]. `lost`: its device cannot be reached.
    pub fn add(&mut self, out: &mut Vec<u8>, name: &[u8], value: Value<'_>, good: bool, lost: bool) {
        if !good {
            self.bad += 1;
            self.lost += u32::from(lost);
            return;
        }
        let length = out.len();
        if self.values > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        if write_plain(out, value) {
            self.values += 1;
        } else {
            out.truncate(length);
        }
    }

    /// Ends the record.
    pub fn end(self, out: &mut Vec<u8>, frame: &Frame) -> Outcome {
        let outcome = match (self.values, self.bad) {
            (1.., _) => Outcome::Success,
            (0, 1..) => Outcome::Failure,
            (0, 0) => Outcome::Nothing,
        };
        let success = outcome == Outcome::Success;
        out.extend_from_slice(if success { b"},\"success\":true" } else { b"},\"success\":false" });
        out.extend_from_slice(&frame.kind);
        out.extend_from_slice(b",\"error\":");
        match (success, self.lost == self.bad) {
            (true, _) => out.extend_from_slice(b"null"),
            (false, true) => write_text(out, LOST),
            (false, false) => write_text(out, NOTHING_READ),
        }
        out.extend_from_slice(&frame.section);
        outcome
    }
}

/// Appends a value as a number; false where it is none. Switches are 0 and 1.
fn write_plain(out: &mut Vec<u8>, value: Value<'_>) -> bool {
    match value {
        Value::Bool(on) => out.push(if on { b'1' } else { b'0' }),
        Value::DoublePoint(1) => out.push(b'0'),
        Value::DoublePoint(2) => out.push(b'1'),
        Value::Int(number) => write_number(out, number),
        Value::Uint(number) => write_number(out, number),
        Value::Float32(number) if number.is_finite() => value.write(out),
        Value::Float64(number) if number.is_finite() => value.write(out),
        _ => return false,
    }
    true
}

/// `2026-03-29 17:59:38.297176+00:00`: a blank, microseconds, an offset.
#[must_use]
pub fn timestamp(ns: i64) -> String {
    let micros = ns.div_euclid(1000);
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = String::with_capacity(32);
    // Writing into a text cannot fail.
    let _ =
        write!(text, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:06}+00:00");
    text
}

/// The status of the gateway: `{gateway_uuid, config_version_aplicada, dispositivos_conectados[], dispositivos_leyendo[]}`.
#[must_use]
pub fn status(gateway: &str, version: Option<i64>, connected: &[&str], reading: &[&str]) -> Vec<u8> {
    let mut out = b"{\"gateway_uuid\":".to_vec();
    write_text(&mut out, gateway);
    out.extend_from_slice(b",\"config_version_aplicada\":");
    match version {
        Some(version) => write_number(&mut out, version),
        None => out.extend_from_slice(b"null"),
    }
    for (name, list) in [("dispositivos_conectados", connected), ("dispositivos_leyendo", reading)] {
        out.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        for (at, device) in list.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_text(&mut out, device);
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::name_fragment;

    const TS: i64 = 1_774_807_178_297_176_999;

    fn record(identity: &Identity<'_>, points: &[(&str, Value<'_>, bool, bool)]) -> (String, Outcome) {
        let frame = Frame::new(identity);
        let mut out = Vec::new();
        let mut message = Message::begin(&mut out, &frame, TS);
        for (name, value, good, lost) in points {
            message.add(&mut out, &name_fragment(name), *value, *good, *lost);
        }
        let outcome = message.end(&mut out, &frame);
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        (text, outcome)
    }

    const METER: Identity<'_> = Identity {
        device_name: "Modbus_DTSU666",
        device_id: Some("11"),
        identify_device: "3f2a",
        device_type: "CT_Meter",
        device_section: "Modbus_DTSU666",
    };

    #[test]
    fn the_record_of_the_old_gateway() {
        let (text, outcome) = record(&METER, &[("VOLTAGE_A", Value::Float64(118.5), true, false)]);
        let expected = concat!(
            r#"{"device_name":"Modbus_DTSU666","device_id":11,"identify_device":"3f2a","#,
            r#""timestamp":"2026-03-29 17:59:38.297176+00:00","data":{"VOLTAGE_A":118.5},"success":true,"#,
            r#""device_type":"CT_Meter","error":null,"device_section":"Modbus_DTSU666"}"#,
        );
        assert_eq!((text.as_str(), outcome), (expected, Outcome::Success));
    }

    #[test]
    fn numbers_only() {
        let points = [
            ("text", Value::Text("x"), true, false),
            ("on", Value::Bool(true), true, false),
            ("nan", Value::Float32(f32::NAN), true, false),
            ("bad", Value::Int(7), false, false),
            ("off", Value::DoublePoint(1), true, false),
            ("between", Value::DoublePoint(0), true, false),
            ("large", Value::Uint(u64::MAX), true, false),
            ("none", Value::None, true, false),
            ("f", Value::Float32(231.4), true, false),
        ];
        let (text, outcome) = record(&METER, &points);
        assert!(
            text.contains(r#""data":{"on":1,"off":0,"large":18446744073709551615,"f":231.4},"success":true"#),
            "{text}"
        );
        assert_eq!(outcome, Outcome::Success);
    }

    #[test]
    fn records_without_values() {
        let lost = [("a", Value::Int(1), false, true), ("b", Value::None, false, true)];
        let (text, outcome) = record(&METER, &lost);
        assert!(text.contains(r#""data":{},"success":false"#) && text.contains(LOST), "{text}");
        assert_eq!(outcome, Outcome::Failure);
        let (text, outcome) =
            record(&METER, &[("a", Value::Int(1), false, true), ("b", Value::Int(1), false, false)]);
        assert!(text.contains(NOTHING_READ), "{text}");
        assert_eq!(outcome, Outcome::Failure);
        assert_eq!(record(&METER, &[("a", Value::Text("x"), true, false)]).1, Outcome::Nothing);
    }

    #[test]
    fn identities() {
        let (text, _) = record(&Identity { device_id: None, ..METER }, &[("a", Value::Int(1), true, false)]);
        assert!(text.contains(r#""device_id":null,"#), "{text}");
        let (text, _) =
            record(&Identity { device_id: Some("a\"b"), ..METER }, &[("a", Value::Int(1), true, false)]);
        assert!(text.contains(r#""device_id":"a\"b","#), "{text}");
        assert_eq!(identify_default("S", Some("11")), "S_11");
        assert_eq!(identify_default("S", None), "S");
    }

    #[test]
    fn times_and_status() {
        assert_eq!(timestamp(0), "1970-01-01 00:00:00.000000+00:00");
        assert_eq!(timestamp(-1), "1969-12-31 23:59:59.999999+00:00");
        let text = String::from_utf8(status("g", Some(3), &["a", "b"], &[])).unwrap();
        assert_eq!(
            text,
            r#"{"gateway_uuid":"g","config_version_aplicada":3,"dispositivos_conectados":["a","b"],"dispositivos_leyendo":[]}"#
        );
    }
}
