//! The structures of controls (IEC 61850-8-1 clause 20, annex E).
//!
//! Which members `Oper`, `SBOw` and `Cancel` have is the device's choice (`operTm` may be there or not), so they
//! are filled by the names and types of the device's own model, never by position from memory.

use iec61850_rs::proto::data::Value;
use iec61850_rs::{TimeQuality, UtcTime};

use crate::kind::Kind;

/// What a command carries besides its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Originator category (`orCat`): 2 station, 3 remote, ...
    pub category: i64,
    /// Originator identification (`orIdent`).
    pub ident: Vec<u8>,
    /// Number of the command, the same from select to termination.
    pub ctl_num: u8,
    /// Time of the command, in ns since 1970 UTC.
    pub time_ns: u64,
    /// The clock behind it is synchronised.
    pub synchronised: bool,
    /// Test command.
    pub test: bool,
    /// Check the synchronism before closing.
    pub synchro_check: bool,
    /// Check the interlocking.
    pub interlock_check: bool,
}

impl Conditions {
    fn time(&self) -> Value {
        let quality = if self.synchronised { TimeQuality::SYNCHRONIZED } else { TimeQuality::UNSYNCHRONIZED };
        Value::UtcTime(UtcTime::from_unix_nanos(self.time_ns, quality))
    }

    /// `Check`: bit 0 synchrocheck, bit 1 interlocking (8-1 annex E).
    fn check(&self) -> Value {
        let bits = (u8::from(self.synchro_check) << 7) | (u8::from(self.interlock_check) << 6);
        Value::BitString { unused: 6, bytes: vec![bits] }
    }

    fn origin(&self, spec: &Kind) -> Result<Value, String> {
        fill(spec, |name, spec| match name {
            "orCat" => Ok(number(spec, self.category)),
            "orIdent" => Ok(Value::OctetString(self.ident.clone())),
            other => Err(format!("origin: unknown member {other}")),
        })
    }

    /// `Oper`, `SBOw` or `Cancel` of the type `spec` with the value `value`.
    ///
    /// # Errors
    /// A member that IEC 61850-8-1 annex E does not know, or a type that is no structure.
    pub fn structure(&self, spec: &Kind, value: &Value) -> Result<Value, String> {
        fill(spec, |name, spec| match name {
            "ctlVal" => Ok(value.clone()),
            // Not time-activated: the zero time means now.
            "operTm" => Ok(Value::UtcTime(UtcTime::from_unix_nanos(0, TimeQuality::from_octet(0)))),
            "origin" => self.origin(spec),
            "ctlNum" => Ok(number(spec, i64::from(self.ctl_num))),
            "T" => Ok(match spec {
                // Some first-edition devices have an entry time here.
                Kind::EntryTime => Value::BinaryTime(
                    iec61850_rs::common::EntryTime::from_unix_millis(self.time_ns / 1_000_000)
                        .to_octets()
                        .to_vec(),
                ),
                _ => self.time(),
            }),
            "Test" => Ok(Value::Boolean(self.test)),
            "Check" => Ok(self.check()),
            other => Err(format!("control structure: unknown member {other}")),
        })
    }
}

fn fill(spec: &Kind, mut member: impl FnMut(&str, &Kind) -> Result<Value, String>) -> Result<Value, String> {
    let Kind::Structure(members) = spec else {
        return Err("control structure: expected a structure in the model".to_owned());
    };
    members.iter().map(|part| member(&part.name, &part.kind)).collect::<Result<_, _>>().map(Value::Structure)
}

/// A small number in the sign the device has it in.
fn number(spec: &Kind, number: i64) -> Value {
    match (spec, u64::try_from(number)) {
        (Kind::Unsigned(_), Ok(number)) => Value::Unsigned(number),
        _ => Value::Integer(number),
    }
}

/// A command value as configuration and sinks know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting {
    /// For SPC, and for DPC, where true is on.
    Bool(bool),
    /// For DPC: 1 off, 2 on.
    DoublePoint(u8),
    /// For INC, ENC.
    Integer(i64),
    /// For APC.
    Float(f64),
    /// For BSC and ISC by step: 1 lower, 2 higher.
    Step(u8),
}

/// `ctlVal` of the type the device has, from a setting.
///
/// # Errors
/// Which values this control takes; 0 and 3 of a double point are never a command.
pub fn ctl_val(spec: &Kind, setting: Setting) -> Result<Value, String> {
    match (spec, setting) {
        (Kind::Boolean, Setting::Bool(on)) => Ok(Value::Boolean(on)),
        (Kind::Boolean, Setting::DoublePoint(1)) => Ok(Value::Boolean(false)),
        (Kind::Boolean, Setting::DoublePoint(2)) => Ok(Value::Boolean(true)),
        (_, Setting::DoublePoint(state)) => Err(format!("expected 1 (off) or 2 (on), got {state}")),
        // Tcmd (IEC 61850-7-3): 0 stop, 1 lower, 2 higher, as two bits.
        (Kind::Bits(_), Setting::Step(step @ (1 | 2))) => {
            Ok(Value::BitString { unused: 6, bytes: vec![step << 6] })
        }
        (Kind::Integer(_) | Kind::Unsigned(_), Setting::Step(step @ (1 | 2))) => {
            Ok(number(spec, i64::from(step)))
        }
        (_, Setting::Step(step)) => Err(format!("expected step 1 (lower) or 2 (higher), got {step}")),
        (Kind::Integer(bits), Setting::Integer(value)) => whole(value, *bits, true),
        (Kind::Unsigned(bits), Setting::Integer(value)) => whole(value, *bits, false),
        (Kind::Float64, Setting::Float(value)) => Ok(Value::Float64(value)),
        (Kind::Float32, Setting::Float(value)) => narrow(value),
        (Kind::Float32 | Kind::Float64, Setting::Integer(value)) => {
            i32::try_from(value).map_err(|_| "number too large".to_owned()).and_then(|v| narrow(f64::from(v)))
        }
        // AnalogueValue: { i } or { f } or both; the floating one wins.
        (Kind::Structure(members), Setting::Float(_) | Setting::Integer(_)) => {
            let values = members.iter().map(|member| {
                let spec = &member.kind;
                ctl_val(spec, setting).or_else(|error| {
                    let other_is_float = members.len() > 1 && !matches!(spec, Kind::Float32 | Kind::Float64);
                    if other_is_float { Ok(Value::Integer(0)) } else { Err(error) }
                })
            });
            values.collect::<Result<_, _>>().map(Value::Structure)
        }
        (spec, setting) => Err(format!("expected a value for {}, got {setting:?}", type_name(spec))),
    }
}

fn whole(value: i64, bits: u8, signed: bool) -> Result<Value, String> {
    let wrong = || format!("expected a number of {bits} bits, got {value}");
    if signed {
        let half = 1_i64.checked_shl(u32::from(bits.clamp(1, 64)) - 1).filter(|half| *half > 0);
        match half {
            Some(half) if !(-half..half).contains(&value) => Err(wrong()),
            _ => Ok(Value::Integer(value)),
        }
    } else {
        let value = u64::try_from(value).map_err(|_| wrong())?;
        match 1_u64.checked_shl(u32::from(bits)) {
            Some(end) if value >= end => Err(wrong()),
            _ => Ok(Value::Unsigned(value)),
        }
    }
}

/// A 32-bit float, where the value fits one.
#[expect(clippy::cast_possible_truncation, reason = "checked to be finite right after")]
fn narrow(value: f64) -> Result<Value, String> {
    let narrow = value as f32;
    if narrow.is_finite() { Ok(Value::Float32(narrow)) } else { Err(format!("{value} does not fit float32")) }
}

const fn type_name(spec: &Kind) -> &'static str {
    match spec {
        Kind::Boolean => "a boolean (SPC, DPC)",
        Kind::Bits(_) => "a step (BSC)",
        Kind::Integer(_) | Kind::Unsigned(_) => "an integer (INC, ENC)",
        Kind::Float32 | Kind::Float64 | Kind::Structure { .. } => "a number (APC)",
        _ => "an unknown type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Member;

    fn structure(members: &[(&str, Kind)]) -> Kind {
        let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
        Kind::Structure(members.iter().map(member).collect())
    }

    fn oper() -> Vec<(&'static str, Kind)> {
        vec![
            ("ctlVal", Kind::Boolean),
            ("origin", structure(&[("orCat", Kind::Integer(8)), ("orIdent", Kind::Octets(-64))])),
            ("ctlNum", Kind::Unsigned(8)),
            ("T", Kind::Time),
            ("Test", Kind::Boolean),
            ("Check", Kind::Bits(-2)),
        ]
    }

    fn conditions() -> Conditions {
        Conditions {
            category: 3,
            ident: b"bb".to_vec(),
            ctl_num: 9,
            time_ns: 1_500_000_000,
            synchronised: true,
            test: false,
            synchro_check: true,
            interlock_check: false,
        }
    }

    #[test]
    fn structures_follow_the_model_of_the_device() {
        let plain = conditions().structure(&structure(&oper()), &Value::Boolean(true)).unwrap();
        let members = plain.members().unwrap();
        assert_eq!(members[0], Value::Boolean(true));
        assert_eq!(members[1], Value::Structure(vec![Value::Integer(3), Value::OctetString(b"bb".to_vec())]));
        assert_eq!(members[2], Value::Unsigned(9));
        assert!(matches!(&members[3], Value::UtcTime(t) if t.seconds == 1 && t.fraction == 1 << 23));
        assert_eq!(members[5], Value::BitString { unused: 6, bytes: vec![0x80] });
        let mut timed = oper();
        timed.insert(1, ("operTm", Kind::Time));
        timed.pop();
        let cancel = conditions().structure(&structure(&timed), &Value::Boolean(true)).unwrap();
        assert_eq!(cancel.members().unwrap().len(), 6);
        assert!(matches!(&cancel.members().unwrap()[1], Value::UtcTime(t) if t.seconds == 0));
        let odd = conditions().structure(&structure(&[("what", Kind::Boolean)]), &Value::Boolean(true));
        assert_eq!(odd.unwrap_err(), "control structure: unknown member what");
    }

    #[test]
    fn double_points_command_by_their_two_states_only() {
        assert_eq!(ctl_val(&Kind::Boolean, Setting::DoublePoint(1)), Ok(Value::Boolean(false)));
        assert_eq!(ctl_val(&Kind::Boolean, Setting::DoublePoint(2)), Ok(Value::Boolean(true)));
        for state in [0, 3] {
            let error = ctl_val(&Kind::Boolean, Setting::DoublePoint(state)).unwrap_err();
            assert_eq!(error, format!("expected 1 (off) or 2 (on), got {state}"));
        }
    }

    #[test]
    fn numbers_fit_or_are_refused() {
        assert_eq!(ctl_val(&Kind::Integer(8), Setting::Integer(-128)), Ok(Value::Integer(-128)));
        assert!(ctl_val(&Kind::Integer(8), Setting::Integer(128)).is_err());
        assert_eq!(ctl_val(&Kind::Integer(64), Setting::Integer(i64::MIN)), Ok(Value::Integer(i64::MIN)));
        assert!(ctl_val(&Kind::Unsigned(8), Setting::Integer(-1)).is_err());
        assert!(ctl_val(&Kind::Unsigned(8), Setting::Integer(256)).is_err());
        let float = Kind::Float32;
        assert!(ctl_val(&float, Setting::Float(1e300)).is_err());
        let analogue = structure(&[("i", Kind::Integer(32)), ("f", float)]);
        let expected = Value::Structure(vec![Value::Integer(0), Value::Float32(2.5)]);
        assert_eq!(ctl_val(&analogue, Setting::Float(2.5)), Ok(expected));
        assert!(ctl_val(&Kind::Boolean, Setting::Float(1.0)).is_err());
        let step = Value::BitString { unused: 6, bytes: vec![0x80] };
        assert_eq!(ctl_val(&Kind::Bits(2), Setting::Step(2)), Ok(step));
    }
}
