//! Durations (`"1s"`, `"500ms"`, `"1h30m"`) and sizes (`"64MiB"`).

use std::time::Duration;

/// Longest duration that any key takes: ten years.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Units of durations in nanoseconds.
const TIME_UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of sizes in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// One or more numbers with their units, largest first or not: `1h30m`, `1.5s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        let nanos = TIME_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, nanos)?)?;
        rest = tail;
    }
    let duration = Duration::from_nanos(u64::try_from(total).ok()?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// A number with a unit of bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit, tail) = number_and_unit(text.trim())?;
    let bytes = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    if tail.is_empty() { u64::try_from(scaled(number, u128::from(bytes))?).ok() } else { None }
}

/// The shortest way to write a duration that is a whole number of some unit.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in
        [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)]
    {
        if nanos > 0 && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    for (unit, size) in [("ms", 1_000_000), ("us", 1_000)] {
        if nanos > 0 && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos == 0 { "0s".into() } else { format!("{nanos}ns") }
}

/// The shortest way to write a size that is a whole number of some unit.
pub(crate) fn show_size(bytes: u64) -> String {
    for unit in ["TiB", "GiB", "MiB", "KiB"] {
        let size = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, size)| *size);
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// `12.5ms rest` -> (`12.5`, `ms`, `rest`).
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start();
    let unit_at = text.find(|symbol: char| !symbol.is_ascii_digit() && !matches!(symbol, '.' | '_'))?;
    let (number, rest) = text.split_at_checked(unit_at)?;
    let rest = rest.trim_start();
    let end = rest.find(|symbol: char| !symbol.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at_checked(end)?;
    if number.is_empty() || unit.is_empty() { None } else { Some((number, unit, tail.trim_start())) }
}

/// `number x unit` as a whole number.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    const DIGITS: usize = 15;
    let clean = number.replace('_', "");
    let (whole, fraction) = clean.split_once('.').unwrap_or((&clean, "0"));
    if whole.len() > DIGITS || fraction.len() > DIGITS || fraction.is_empty() {
        return None;
    }
    let base = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    let power = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    base.checked_add(fraction.parse::<u128>().ok()?.checked_mul(unit)? / power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("1s", 1_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("2 min", 120_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in
            ["", "5", "s", "1x", "-1s", "1s2", "99999999999d", "1..5s", "1.s", "∞s", "9999999999999999999s"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        for (bytes, shown) in
            [(256 << 20, "256MiB"), (3 << 10, "3KiB"), (1_500, "1500B"), (0, "0B"), (2 << 40, "2TiB")]
        {
            assert_eq!(show_size(bytes), shown);
            assert_eq!(size(shown), Some(bytes));
        }
        assert_eq!(size("1.5 kB"), Some(1_500));
        for bad in ["", "64", "64 mib", "1MiB2", "99999999999999TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn shown_durations_read_back() {
        for nanos in
            [0, 1, 1_000, 1_500_000, 1_000_000_000, 60_000_000_000, 86_400_000_000_000, 90_061_000_000_000]
        {
            let value = Duration::from_nanos(nanos);
            assert_eq!(duration(&show_duration(value)), Some(value));
        }
        assert_eq!(show_duration(Duration::from_secs(7 * 86_400)), "7d");
    }
}
