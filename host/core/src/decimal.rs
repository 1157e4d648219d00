//! Exact decimals for `scale` and `offset`: the result of `value x scale + offset` is the double nearest to the exact
//! decimal product, so 3 x 0.1 is 0.3 and not 0.30000000000000004.

use std::{fmt, str::FromStr};

/// `digits x 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    digits: i64,
    exponent: i32,
}

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Integers up to here are exact in a double.
const EXACT_DIGITS: u128 = 1 << 53;
/// Exponents beyond this are no sensible factor.
const MAX_EXPONENT: i32 = 300;

impl Decimal {
    /// 1.
    pub const ONE: Self = Self { digits: 1, exponent: 0 };
    /// 0.
    pub const ZERO: Self = Self { digits: 0, exponent: 0 };

    /// `digits x 10^exponent`, with trailing zeros moved into the exponent.
    #[must_use]
    pub const fn new(mut digits: i64, mut exponent: i32) -> Self {
        if digits == 0 {
            return Self::ZERO;
        }
        while digits % 10 == 0 {
            digits /= 10;
            exponent += 1;
        }
        Self { digits, exponent }
    }

    /// The decimal that `number` prints as in its shortest form. Allocates nothing.
    #[must_use]
    pub fn from_f64(number: f64) -> Option<Self> {
        if number.is_finite() { Self::shortest(format_args!("{number:e}")) } else { None }
    }

    /// The decimal that `number` prints as in its shortest form: 231.4, not 231.39999389648438. Allocates nothing.
    #[must_use]
    pub fn from_f32(number: f32) -> Option<Self> {
        if number.is_finite() { Self::shortest(format_args!("{number:e}")) } else { None }
    }

    /// Reads `[-]d[.ddd]e[-]x` as the formatter writes it.
    fn shortest(text: fmt::Arguments<'_>) -> Option<Self> {
        let mut buffer = ShortText { bytes: [0; SHORT_TEXT], len: 0 };
        fmt::write(&mut buffer, text).ok()?;
        let (mut digits, mut exponent, mut negative, mut fraction) = (0i64, 0i32, false, false);
        let text = buffer.bytes.get(..buffer.len)?;
        let end = text.iter().position(|byte| *byte == b'e')?;
        for byte in text.get(..end)? {
            match byte {
                b'-' => negative = true,
                b'.' => fraction = true,
                digit => {
                    digits = digits.checked_mul(10)?.checked_add(i64::from(digit.checked_sub(b'0')?))?;
                    exponent -= i32::from(fraction);
                }
            }
        }
        let shift: i32 = std::str::from_utf8(text.get(end + 1..)?).ok()?.parse().ok()?;
        Some(Self::new(if negative { -digits } else { digits }, exponent + shift))
    }

    /// `(self - offset) / scale` rounded to a whole number, half away from zero; `None` where it does not fit or
    /// `scale` is 0.
    #[must_use]
    pub fn undo_to_int(self, scale: Self, offset: Self) -> Option<i128> {
        let (number, scale) = self.undo_parts(scale, offset)?;
        let quotient = number.checked_div(scale)?;
        let rest = number.checked_rem(scale)?;
        if rest.unsigned_abs().checked_mul(2)? >= scale.unsigned_abs() {
            return quotient.checked_add(if (number < 0) == (scale < 0) { 1 } else { -1 });
        }
        Some(quotient)
    }

    /// `(self - offset) / scale` as a double.
    #[must_use]
    pub fn undo_to_f64(self, scale: Self, offset: Self) -> Option<f64> {
        match self.undo_parts(scale, offset) {
            Some((_, 0)) => None,
            Some((number, scale)) => Some(number as f64 / scale as f64),
            None => {
                let scale = scale.to_f64();
                (scale != 0.0).then(|| (self.to_f64() - offset.to_f64()) / scale)
            }
        }
    }

    /// Numerator and denominator of `(self - offset) / scale` as whole numbers.
    fn undo_parts(self, scale: Self, offset: Self) -> Option<(i128, i128)> {
        let (mut number, exponent) =
            sum(i128::from(self.digits), self.exponent, -i128::from(offset.digits), offset.exponent)?;
        let mut divisor = i128::from(scale.digits);
        let shift = exponent - scale.exponent;
        let power = 10i128.checked_pow(shift.unsigned_abs())?;
        if shift >= 0 {
            number = number.checked_mul(power)?;
        } else {
            divisor = divisor.checked_mul(power)?;
        }
        Some((number, divisor))
    }

    /// As a double.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        nearest(i128::from(self.digits), self.exponent)
    }

    /// This is 1: nothing to multiply.
    #[must_use]
    pub fn is_one(self) -> bool {
        self == Self::ONE
    }

    /// This is 0: nothing to add.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// `self x scale + offset`, rounded once.
    #[must_use]
    pub fn mul_add(self, scale: Self, offset: Self) -> f64 {
        let product = i128::from(self.digits) * i128::from(scale.digits);
        let exponent = self.exponent + scale.exponent;
        sum(product, exponent, i128::from(offset.digits), offset.exponent).map_or_else(
            || nearest(product, exponent) + offset.to_f64(),
            |(digits, exponent)| nearest(digits, exponent),
        )
    }
}

/// `raw x scale + offset` for a whole raw value.
#[must_use]
pub fn apply_int(raw: i128, scale: Decimal, offset: Decimal) -> f64 {
    raw.checked_mul(i128::from(scale.digits))
        .and_then(|product| sum(product, scale.exponent, i128::from(offset.digits), offset.exponent))
        .map_or_else(
            || raw as f64 * scale.to_f64() + offset.to_f64(),
            |(digits, exponent)| nearest(digits, exponent),
        )
}

/// Exact sum on the smaller exponent; `None` where it would not fit.
fn sum(a: i128, a_exponent: i32, b: i128, b_exponent: i32) -> Option<(i128, i32)> {
    if b == 0 {
        return Some((a, a_exponent));
    }
    if a == 0 {
        return Some((b, b_exponent));
    }
    let exponent = a_exponent.min(b_exponent);
    let lift = |digits: i128, from: i32| {
        let power = u32::try_from(from - exponent).ok()?;
        digits.checked_mul(10i128.checked_pow(power)?)
    };
    Some((lift(a, a_exponent)?.checked_add(lift(b, b_exponent)?)?, exponent))
}

/// The double nearest to `digits x 10^exponent`. Exact operands make one correctly rounded operation enough
/// (W. Clinger, "How to read floating point numbers accurately"); everything else takes the parser's slow path.
fn nearest(digits: i128, exponent: i32) -> f64 {
    if digits.unsigned_abs() <= EXACT_DIGITS
        && let Some(power) = EXACT_POWERS.get(exponent.unsigned_abs() as usize)
    {
        let number = digits as f64;
        return if exponent < 0 { number / power } else { number * power };
    }
    format!("{digits}e{exponent}").parse().unwrap_or(f64::NAN)
}

/// Longest shortest form of a double: `-1.7976931348623157e-308`.
const SHORT_TEXT: usize = 32;

struct ShortText {
    bytes: [u8; SHORT_TEXT],
    len: usize,
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl FromStr for Decimal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("expected a decimal number with at most 18 digits, found {text}");
        let clean = text.trim().replace('_', "").to_ascii_lowercase();
        let (mantissa, exponent) = match clean.split_once('e') {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| bad())?),
            None => (clean.as_str(), 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if fraction.starts_with(['+', '-'])
            || (whole.trim_start_matches(['+', '-']).is_empty() && fraction.is_empty())
        {
            return Err(bad());
        }
        let fraction = fraction.trim_end_matches('0');
        let digits: i64 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        let exponent =
            exponent.checked_sub(i32::try_from(fraction.len()).map_err(|_| bad())?).ok_or_else(bad)?;
        if exponent.abs() > MAX_EXPONENT {
            return Err(bad());
        }
        Ok(Self::new(digits, exponent))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_f64(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn products_are_the_nearest_double() {
        assert_eq!(apply_int(3, d("0.1"), Decimal::ZERO), 0.3);
        assert_eq!(apply_int(2314, d("0.1"), Decimal::ZERO), 231.4);
        assert_eq!(apply_int(-7, d("0.01"), d("0.07")), 0.0);
        assert_eq!(apply_int(1, d("1e-3"), d("-273.15")), -273.149);
        assert_eq!(d("0.7").mul_add(d("0.1"), Decimal::ZERO), 0.07);
        assert_eq!(apply_int(i128::from(u64::MAX), d("0.001"), Decimal::ZERO), 18_446_744_073_709_551.615);
        assert_eq!(
            apply_int(i128::from(u64::MAX), d("123456789.123456789"), d("1e-30")),
            18_446_744_073_709_551_615.0 * 123_456_789.123_456_79
        );
    }

    #[test]
    fn every_two_digit_scale_agrees_with_the_parser() {
        for raw in [-65_535i128, -1, 0, 7, 12_345, 65_535, 4_294_967_295] {
            for scale in 1..100 {
                for exponent in -9..4 {
                    let expected: f64 = format!("{}e{exponent}", raw * scale).parse().unwrap();
                    assert_eq!(apply_int(raw, Decimal::new(scale as i64, exponent), Decimal::ZERO), expected);
                }
            }
        }
    }

    #[test]
    fn text_forms() {
        assert_eq!(d("-1_000.50"), Decimal::new(-10_005, -1));
        assert_eq!(d("+2.5e3"), Decimal::new(25, 2));
        assert_eq!(d("0.10").to_string(), "0.1");
        for bad in ["", ".", "x", "1.2.3", "1e999", "1.-2", "12345678901234567890", "nan"] {
            assert!(bad.parse::<Decimal>().is_err(), "{bad}");
        }
        assert_eq!(Decimal::from_f64(0.1), Some(d("0.1")));
        assert_eq!(Decimal::from_f64(f64::NAN), None);
    }

    #[test]
    fn shortest_forms_are_read_without_the_parser() {
        for number in [0.1, -2.5e-7, 1e22, 123_456_789.123, f64::MAX, f64::MIN_POSITIVE, 0.0, 5e-324] {
            let expected: f64 = Decimal::from_f64(number).unwrap().to_f64();
            assert_eq!(expected, number, "{number:e}");
        }
        assert_eq!(Decimal::from_f32(231.4), Some(d("231.4")));
        assert_eq!(Decimal::from_f32(f32::INFINITY), None);
    }

    #[test]
    fn values_go_back_rounded_half_away_from_zero() {
        assert_eq!(d("231.4").undo_to_int(d("0.1"), Decimal::ZERO), Some(2314));
        assert_eq!(d("0.25").undo_to_int(d("0.1"), Decimal::ZERO), Some(3));
        assert_eq!(d("-0.25").undo_to_int(d("0.1"), Decimal::ZERO), Some(-3));
        assert_eq!(d("0.24").undo_to_int(d("0.1"), Decimal::ZERO), Some(2));
        assert_eq!(d("5").undo_to_int(d("-2"), d("0")), Some(-3));
        assert_eq!(d("-272.15").undo_to_int(Decimal::ONE, d("-273.15")), Some(1));
        assert_eq!(d("1").undo_to_int(Decimal::ZERO, Decimal::ZERO), None);
        assert_eq!(d("1").undo_to_f64(d("3"), Decimal::ZERO), Some(1.0 / 3.0));
        assert_eq!(d("1").undo_to_f64(Decimal::ZERO, Decimal::ZERO), None);
    }
}
