//! Reading members of MMS data without assuming more than is there.

use iec61850_rs::proto::data::Value;

/// An integer, signed or unsigned on the wire: devices differ, the meaning does not.
#[must_use]
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Unsigned(number) => i64::try_from(*number).ok(),
        _ => None,
    }
}

/// An integer that must fit 32 bits without sign.
#[must_use]
pub fn unsigned32(value: &Value) -> Option<u32> {
    integer(value).and_then(|number| u32::try_from(number).ok())
}

/// A boolean.
#[must_use]
pub const fn boolean(value: &Value) -> Option<bool> {
    if let Value::Boolean(value) = value { Some(*value) } else { None }
}

/// A string of either kind.
#[must_use]
pub fn text(value: &Value) -> Option<&str> {
    if let Value::VisibleString(text) | Value::MmsString(text) = value { Some(text) } else { None }
}

/// An octet string.
#[must_use]
pub fn octets(value: &Value) -> Option<&[u8]> {
    if let Value::OctetString(octets) = value { Some(octets) } else { None }
}

/// The bits of a bit string, bit 0 first; `None` for anything else.
pub fn bits(value: &Value) -> Option<impl Iterator<Item = bool> + '_> {
    let Value::BitString { unused, bytes } = value else { return None };
    let count = (bytes.len() * 8).saturating_sub(usize::from(*unused));
    Some(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0)).take(count))
}

/// The first 16 bits of a bit string as a number in which bit 0 of the string is bit 0 of the number.
#[must_use]
pub fn low_bits(value: &Value) -> Option<u16> {
    let set = bits(value)?.take(16).enumerate().filter(|(_, set)| *set);
    Some(set.fold(0, |all, (bit, _)| all | (1 << bit)))
}

/// The member at the end of `path`, of structures and arrays.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[usize]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, index| value.member(*index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_zero_is_the_first_on_the_wire() {
        let value = Value::BitString { unused: 6, bytes: vec![0x80] };
        assert_eq!(bits(&value).unwrap().collect::<Vec<_>>(), [true, false]);
        assert_eq!(low_bits(&value), Some(0b01));
        assert_eq!(
            low_bits(&Value::BitString { unused: 3, bytes: vec![0x41, 0x88] }),
            Some(0b1_0001_1000_0010)
        );
        assert_eq!(low_bits(&Value::Boolean(true)), None);
        assert_eq!(low_bits(&Value::BitString { unused: 7, bytes: vec![] }), Some(0));
    }

    #[test]
    fn members_are_found_or_not() {
        let value = Value::Structure(vec![Value::Boolean(true), Value::Structure(vec![Value::Integer(-3)])]);
        assert_eq!(at(&value, &[1, 0]).and_then(integer), Some(-3));
        assert_eq!(at(&value, &[1, 1]), None);
        assert_eq!(at(&value, &[0, 0]), None);
        assert_eq!(unsigned32(&Value::Integer(-3)), None);
    }
}
