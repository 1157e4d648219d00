//! Raw numbers and multipliers of a device made engineering values, once, here (IEC 61850-7-3 `ScaledValueConfig`,
//! `Unit`).
//!
//! A factor comes as a 32-bit float and means the decimal number it was written as: 0.1, not
//! 0.100000001490116. So everything is multiplied in decimal, and the result is the double nearest to the
//! exact product: 3 x 0.1 is 0.3.

use iec61850_rs::proto::data::Value;

use crate::data;
use crate::kind::Kind;

/// Multipliers a device may state, as powers of ten (IEC 61850-7-3: yocto to yotta).
const MULTIPLIERS: std::ops::RangeInclusive<i64> = -24..=24;

/// Exponents a product may have; beyond them a double is 0 or infinite anyway.
const EXPONENTS: std::ops::RangeInclusive<i32> = -400..=400;

/// A finite decimal number: `digits` x 10^`exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    const ONE: Self = Self { digits: 1, exponent: 0 };
    const ZERO: Self = Self { digits: 0, exponent: 0 };

    /// Reads the shortest text of a float.
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Self { digits, exponent })
    }

    fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::Float32(number) => Self::parse(&format!("{number:e}")),
            Value::Float64(number) => Self::parse(&format!("{number:e}")),
            other => Some(Self { digits: data::integer(other)?.into(), exponent: 0 }),
        }
    }

    fn times(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.checked_add(other.exponent)?;
        Some(Self { digits: self.digits.checked_mul(other.digits)?, exponent })
    }

    fn plus(self, other: Self) -> Option<Self> {
        if other.digits == 0 {
            return Some(self);
        }
        let exponent = self.exponent.min(other.exponent);
        let lift = |number: Self| {
            let places = u32::try_from(number.exponent - exponent).ok()?;
            number.digits.checked_mul(10_i128.checked_pow(places)?)
        };
        Some(Self { digits: lift(self)?.checked_add(lift(other)?)?, exponent })
    }

    /// The double nearest to it.
    fn nearest(self) -> Option<f64> {
        if !EXPONENTS.contains(&self.exponent) {
            return None;
        }
        format!("{}e{}", self.digits, self.exponent).parse().ok().filter(|number: &f64| number.is_finite())
    }
}

/// From what a device sends to an engineering value in the base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    factor: Decimal,
    offset: Decimal,
    power: i32,
}

impl Default for Scale {
    fn default() -> Self {
        Self { factor: Decimal::ONE, offset: Decimal::ZERO, power: 0 }
    }
}

impl Scale {
    /// Takes `sVC` of the type `kind`.
    ///
    /// # Errors
    /// What was expected. A factor of zero would make every value zero and is refused.
    pub fn with_scaling(mut self, kind: &Kind, value: &Value) -> Result<Self, String> {
        let member = |name: &str| {
            let (place, _) = kind.member(name)?;
            Decimal::of_value(value.member(place)?)
        };
        let wrong = || "sVC: expected scaleFactor (not zero) and offset".to_owned();
        self.factor = member("scaleFactor").filter(|factor| factor.digits != 0).ok_or_else(wrong)?;
        self.offset = member("offset").unwrap_or(Decimal::ZERO);
        Ok(self)
    }

    /// Takes the multiplier out of `units` of the type `kind`.
    ///
    /// # Errors
    /// A multiplier that is none.
    pub fn with_units(mut self, kind: &Kind, value: &Value) -> Result<Self, String> {
        let Some((place, _)) = kind.member("multiplier") else { return Ok(self) };
        let power = value.member(place).and_then(data::integer).filter(|power| MULTIPLIERS.contains(power));
        let power = power.and_then(|power| i32::try_from(power).ok());
        self.power = power.ok_or_else(|| "units: expected a multiplier of -24 to 24".to_owned())?;
        Ok(self)
    }

    /// True where values pass unchanged.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        *self == Self::default()
    }

    /// Scales an integer.
    #[must_use]
    pub fn integer(&self, raw: i64) -> Option<f64> {
        self.decimal(Decimal { digits: raw.into(), exponent: 0 })
    }

    /// Scales a 32-bit float, read as the decimal number it shows.
    #[must_use]
    pub fn float32(&self, raw: f32) -> Option<f64> {
        self.decimal(Decimal::parse(&format!("{raw:e}"))?)
    }

    /// Scales a 64-bit float.
    #[must_use]
    pub fn float64(&self, raw: f64) -> Option<f64> {
        self.decimal(Decimal::parse(&format!("{raw:e}"))?)
    }

    fn decimal(&self, raw: Decimal) -> Option<f64> {
        let mut scaled = raw.times(self.factor)?.plus(self.offset)?;
        scaled.exponent = scaled.exponent.checked_add(self.power)?;
        scaled.nearest()
    }
}

/// Names of SI units by `SIUnit` (IEC 61850-7-3 annex A).
const UNITS: [(i64, &str); 70] = [
    (2, "m"),
    (3, "kg"),
    (4, "s"),
    (5, "A"),
    (6, "K"),
    (7, "mol"),
    (8, "cd"),
    (9, "deg"),
    (10, "rad"),
    (11, "sr"),
    (21, "Gy"),
    (22, "Bq"),
    (23, "°C"),
    (24, "Sv"),
    (25, "F"),
    (26, "C"),
    (27, "S"),
    (28, "H"),
    (29, "V"),
    (30, "ohm"),
    (31, "J"),
    (32, "N"),
    (33, "Hz"),
    (34, "lx"),
    (35, "lm"),
    (36, "Wb"),
    (37, "T"),
    (38, "W"),
    (39, "Pa"),
    (41, "m²"),
    (42, "m³"),
    (43, "m/s"),
    (44, "m/s²"),
    (45, "m³/s"),
    (46, "m/m³"),
    (47, "M"),
    (48, "kg/m³"),
    (49, "m²/s"),
    (50, "W/m K"),
    (51, "J/K"),
    (52, "ppm"),
    (53, "1/s"),
    (54, "rad/s"),
    (55, "W/m²"),
    (56, "J/m²"),
    (57, "S/m"),
    (58, "K/s"),
    (59, "Pa/s"),
    (60, "J/kg K"),
    (61, "VA"),
    (62, "W"),
    (63, "VAr"),
    (64, "phi"),
    (65, "cos(phi)"),
    (66, "Vs"),
    (67, "V²"),
    (68, "As"),
    (69, "A²"),
    (70, "A²t"),
    (71, "VAh"),
    (72, "Wh"),
    (73, "VArh"),
    (74, "V/Hz"),
    (75, "Hz/s"),
    (76, "char"),
    (77, "char/s"),
    (78, "kg m²"),
    (79, "dB"),
    (80, "J/Wh"),
    (81, "W/s"),
];

/// The unit `units` of the type `kind` names; `None` for none and for numbers the standard does not know.
#[must_use]
pub fn unit(kind: &Kind, value: &Value) -> Option<&'static str> {
    let (place, _) = kind.member("SIUnit")?;
    let number = value.member(place).and_then(data::integer)?;
    UNITS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Member;

    fn structure(members: &[(&str, Kind)]) -> Kind {
        let member = |(name, kind): &(&str, Kind)| Member { name: (*name).to_owned(), kind: kind.clone() };
        Kind::Structure(members.iter().map(member).collect())
    }

    fn scaling(factor: f32, offset: f32) -> Result<Scale, String> {
        let kind = structure(&[("scaleFactor", Kind::Float32), ("offset", Kind::Float32)]);
        Scale::default()
            .with_scaling(&kind, &Value::Structure(vec![Value::Float32(factor), Value::Float32(offset)]))
    }

    fn units(unit: i64, power: i64) -> (Kind, Value) {
        let kind = structure(&[("SIUnit", Kind::Integer(8)), ("multiplier", Kind::Integer(8))]);
        (kind, Value::Structure(vec![Value::Integer(unit), Value::Integer(power)]))
    }

    #[test]
    fn products_are_decimal() {
        assert_eq!(scaling(0.1, 0.0).unwrap().integer(3), Some(0.3));
        assert_eq!(scaling(0.001, -40.5).unwrap().integer(123_456), Some(82.956));
        assert_eq!(scaling(1e-20, 0.0).unwrap().integer(i64::MAX), "0.09223372036854775807".parse().ok());
        assert!(scaling(0.0, 1.0).is_err());
        assert!(scaling(f32::NAN, 0.0).is_err());
    }

    #[test]
    fn multipliers_lead_to_the_base_unit() {
        let (kind, value) = units(62, 3);
        let scale = Scale::default().with_units(&kind, &value).unwrap();
        assert_eq!(scale.float32(231.4), Some(231_400.0));
        assert_eq!(unit(&kind, &value), Some("W"));
        let (kind, value) = units(29, 0);
        assert!(Scale::default().with_units(&kind, &value).unwrap().is_identity());
        let (kind, value) = units(1, 99);
        assert_eq!(
            Scale::default().with_units(&kind, &value).unwrap_err(),
            "units: expected a multiplier of -24 to 24"
        );
        assert_eq!(unit(&kind, &value), None);
    }

    #[test]
    fn what_is_no_number_is_none() {
        assert_eq!(Scale::default().float32(f32::NAN), None);
        assert_eq!(Scale::default().float32(f32::INFINITY), None);
        assert_eq!(Scale::default().float64(f64::MAX), Some(f64::MAX));
        assert_eq!(Scale::default().float64(-0.5), Some(-0.5));
    }
}
