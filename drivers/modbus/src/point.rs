//! From a configured point to a field on the wire, and between the gateway's values and the protocol's.

use busbar_driver_api::{
    Problem, Readings, Value,
    contract::{Kind, Severity},
};
use busbar_modbus::{self as modbus, Address, Field, FieldSpec, address};

use crate::config::{AddressMode, Point};

/// Appends `key` to the pointer of a point or connection.
pub(crate) fn problem(pointer: &str, key: &str, problem: &modbus::Problem, severity: Severity) -> Problem {
    Problem {
        pointer: format!("{pointer}/{key}"),
        expected: problem.expected.clone(),
        found: problem.found.clone(),
        hint: problem.hint.clone(),
        severity,
    }
}

/// The field of a point, or everything that is wrong with it; doubts are added to `warnings`.
pub(crate) fn field(
    pointer: &str,
    point: &Point,
    mode: AddressMode,
    warnings: &mut Vec<Problem>,
) -> Result<Field, Vec<Problem>> {
    let mut problems = Vec::new();
    let address = match address::parse(&point.address.0, mode.of_protocol()) {
        Ok(resolved) => {
            warnings
                .extend(resolved.warning.map(|doubt| problem(pointer, "address", &doubt, Severity::Warning)));
            Some(resolved.address)
        }
        Err(wrong) => {
            problems.push(problem(pointer, "address", &wrong, Severity::Error));
            None
        }
    };
    // With a wrong address the other keys are still checked as far as they can be, as if it were a register.
    let assumed = Address { table: modbus::Table::Holding, offset: 0 };
    let spec = FieldSpec {
        address: address.unwrap_or(assumed),
        kind: point.kind.map(crate::config::Type::of_protocol),
        order: point.order.map(crate::config::Order::of_protocol),
        bit: point.bit,
        length: point.length,
    };
    match Field::new(&spec) {
        Ok(field) if problems.is_empty() => return Ok(field),
        Ok(_) => {}
        Err(wrong) if address.is_some() => {
            problems.extend(
                wrong.iter().map(|(key, wrong)| problem(pointer, key.name(), wrong, Severity::Error)),
            );
        }
        Err(_) => {}
    }
    Err(problems)
}

/// The field of a point that has passed the check; the text of all problems otherwise.
pub(crate) fn checked_field(point: &Point, mode: AddressMode) -> Result<Field, String> {
    field("", point, mode, &mut Vec::new()).map_err(|problems| {
        let texts: Vec<String> = problems
            .iter()
            .map(|problem| {
                format!("{}: expected {}, found {}", problem.pointer, problem.expected, problem.found)
            })
            .collect();
        texts.join("; ")
    })
}

/// Puts a decoded value into its slot.
#[inline]
pub(crate) fn put(out: &mut Readings, slot: usize, value: &modbus::Value) {
    match value {
        modbus::Value::Bool(value) => out.bool(slot, *value),
        modbus::Value::Int(value) => out.i64(slot, *value),
        modbus::Value::UInt(value) => out.u64(slot, *value),
        modbus::Value::Float32(value) => out.f32(slot, *value),
        modbus::Value::Float64(value) => out.f64(slot, *value),
        modbus::Value::Text(value) => out.text(slot, value),
    }
}

/// The kind in which [`put`] delivers values of a type.
pub(crate) const fn kind(of: modbus::Type) -> Kind {
    use modbus::Type;
    match of {
        Type::Bool => Kind::Bool,
        Type::Int16 | Type::Int32 | Type::Int64 => Kind::Int64,
        Type::UInt16 | Type::UInt32 | Type::UInt64 => Kind::Uint64,
        Type::Float32 => Kind::Float32,
        Type::Float64 => Kind::Float64,
        Type::Text => Kind::Text,
    }
}

/// The protocol's form of a value to write; `None` for kinds that Modbus has no form for.
pub(crate) fn to_protocol(value: &Value) -> Option<modbus::Value> {
    Some(match value {
        Value::Bool(value) => modbus::Value::Bool(*value),
        Value::Int(value) => modbus::Value::Int(*value),
        Value::Uint(value) => modbus::Value::UInt(*value),
        Value::Float32(value) => modbus::Value::Float32(*value),
        Value::Float64(value) => modbus::Value::Float64(*value),
        Value::Bits32(value) => modbus::Value::UInt(u64::from(*value)),
        Value::Text(value) => modbus::Value::Text(value.clone()),
        Value::None
        | Value::DoublePoint(_)
        | Value::Step(..)
        | Value::Bytes(_)
        | Value::Time(_)
        | Value::Json(_) => return None,
    })
}
