//! Times as texts: RFC 3339 in UTC, both ways.

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// RFC 3339 in UTC; milliseconds, or nanoseconds where the time has them.
#[must_use]
pub fn rfc3339(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(SECOND), ns.rem_euclid(SECOND));
    if fraction % 1_000_000 == 0 {
        format!("{}.{:03}Z", whole_second(seconds), fraction / 1_000_000)
    } else {
        format!("{}.{fraction:09}Z", whole_second(seconds))
    }
}

/// RFC 3339 in UTC with milliseconds (rounded down): `2026-01-01T12:00:00.000Z`.
#[must_use]
pub fn rfc3339_ms(ns: i64) -> String {
    let fraction = ns.rem_euclid(SECOND) / 1_000_000;
    format!("{}.{fraction:03}Z", whole_second(ns.div_euclid(SECOND)))
}

/// `2026-01-01T12:00:00`
fn whole_second(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Nanoseconds UTC of an RFC 3339 text (`2026-03-29T17:59:38.297Z`, `...+02:00`); `None` for anything else.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
    };
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|byte| set.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = days_from_civil(year, month, day);
    if civil(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(text.get(19..)?)?;
    let offset = zone_offset(zone)?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(SECOND)?.checked_add(fraction)
}

/// `.297Z` -> nanoseconds and what follows the digits; digits beyond nine are cut off.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, zone) = rest.split_at_checked(digits).filter(|(digits, _)| !digits.is_empty())?;
    let nanos = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some((nanos.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), zone))
}

fn zone_offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i64>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 to the proleptic Gregorian date (H. Hinnant, "chrono-compatible low-level date algorithms").
#[must_use]
pub const fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + (month <= 2) as i64, month, doy - (153 * mp + 2) / 5 + 1)
}

/// The way back (same source).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        for ns in [0, -1, 1_767_225_600_123_000_000, 951_782_400_000_000_000, -62_135_596_800 * 1_000_000] {
            assert_eq!(parse_rfc3339(&rfc3339(ns)), Some(ns), "{}", rfc3339(ns));
        }
        assert_eq!(parse_rfc3339("2026-01-01T02:00:00.5+02:00"), Some(1_767_225_600_500_000_000));
        assert_eq!(parse_rfc3339("2025-12-31 19:30:00-04:30"), Some(1_767_225_600_000_000_000));
    }

    #[test]
    fn milliseconds_round_down() {
        for (ns, text) in [
            (1_767_225_600_000_000_000, "2026-01-01T00:00:00.000Z"),
            (1_767_225_600_123_999_999, "2026-01-01T00:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (i64::MIN, "1677-09-21T00:12:43.145Z"),
            (i64::MAX, "2262-04-11T23:47:16.854Z"),
        ] {
            assert_eq!(rfc3339_ms(ns), text);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00Zé",
            "20é6-01-01T00:00:00Z",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
