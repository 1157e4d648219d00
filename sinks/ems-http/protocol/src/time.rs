//! `Retry-After`. Pure: "now" comes from outside.

use std::time::{Duration, SystemTime};

/// Longest pause that a server may ask for: longer ones are cut, so that a wrong clock over there stops nobody for days.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Shortest pause after a server asked for one.
pub const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads `Retry-After` (RFC 9110 section 10.2.3): seconds or an HTTP date, bounded to [`MIN_RETRY_AFTER`] ..
/// [`MAX_RETRY_AFTER`]. `None` for anything else. `now_ns`: wall clock, nanoseconds UTC.
#[must_use]
pub fn retry_after(text: &str, now_ns: i64) -> Option<Duration> {
    let text = text.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits only, so what does not fit is too large.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(now_ns).ok()?))?;
        at.duration_since(now).unwrap_or_default()
    };
    Some(asked.clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000_000_000;

    #[test]
    fn seconds_and_dates_bounded() {
        let seconds = |text: &str| retry_after(text, NOW).map(|after| after.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 7 "), Some(7));
        assert_eq!(seconds("0"), Some(1));
        assert_eq!(seconds("999999999999999999999999"), Some(3600));
        assert_eq!(seconds("Thu, 01 Jan 2026 00:00:30 GMT"), Some(30));
        assert_eq!(seconds("Thursday, 01-Jan-26 00:00:30 GMT"), Some(30));
        assert_eq!(seconds("Wed, 31 Dec 2025 23:59:00 GMT"), Some(1), "a past date");
        assert_eq!(seconds("Fri, 01 Jan 2027 00:00:00 GMT"), Some(3600));
        for bad in ["", "-5", "1.5", "soon", "12 s", "\u{663}"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(retry_after("Thu, 01 Jan 2026 00:00:30 GMT", -1), None, "a clock before 1970");
    }
}
