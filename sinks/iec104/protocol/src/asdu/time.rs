//! Time tags: CP56Time2a, CP24Time2a and CP16Time2a (IEC 60870-5-4, 6.8; IEC 60870-5-101, 7.2.6.18 to 7.2.6.20).
//!
//! A tag is decoded as it is; whether it names a moment is asked with [`Cp56Time2a::to_utc_ns`]. So a command with an
//! impossible date is answered and not a reason to close the connection. The year has two digits and means 2000 to
//! 2099. Zones are the caller's: a [`Stamp`] says how far local time is from UTC at that moment.

const NS_PER_MS: i64 = 1_000_000;
const MS_PER_MINUTE: i64 = 60_000;
const MINUTES_PER_DAY: i64 = 1_440;
/// 2000-01-01 in days since 1970-01-01, the first day a tag can name.
const FIRST_DAY: i64 = 10_957;
/// 2099-12-31, the last one.
const LAST_DAY: i64 = 47_481;

/// A moment, and what the tag shall say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Nanoseconds since 1970-01-01 UTC.
    pub utc_ns: i64,
    /// Minutes that the tag's clock is ahead of UTC at this moment, summer time included.
    pub offset_minutes: i16,
    /// Summer time is in force (SU). Only with a local clock.
    pub summer: bool,
    /// The clock behind the stamp is not to be trusted (IV).
    pub invalid: bool,
    /// The stamp was made by somebody other than the source (GEN, "substituted time").
    pub substituted: bool,
}

impl Stamp {
    /// A trusted moment in UTC.
    #[must_use]
    pub const fn utc(utc_ns: i64) -> Self {
        Self { utc_ns, offset_minutes: 0, summer: false, invalid: false, substituted: false }
    }
}

/// Seven octet binary time: a date and a time of day to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cp56Time2a {
    /// Milliseconds of the minute, 0 to 59999.
    pub milliseconds: u16,
    /// 0 to 59.
    pub minute: u8,
    /// GEN: substituted time.
    pub substituted: bool,
    /// IV.
    pub invalid: bool,
    /// 0 to 23.
    pub hour: u8,
    /// SU.
    pub summer: bool,
    /// 1 to 31.
    pub day: u8,
    /// 1 Monday to 7 Sunday; 0 not used.
    pub weekday: u8,
    /// 1 to 12.
    pub month: u8,
    /// 0 to 99: 2000 to 2099.
    pub year: u8,
}

/// Why a tag names no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time tag has {part} {expected}, found {found}")]
pub struct TimeError {
    part: &'static str,
    expected: &'static str,
    found: u16,
}

impl Cp56Time2a {
    /// The tag of a moment. A moment outside 2000 to 2099 becomes the nearest one with IV: it has no tag.
    #[must_use]
    pub fn new(stamp: Stamp) -> Self {
        let local = stamp.utc_ns.div_euclid(NS_PER_MS) + i64::from(stamp.offset_minutes) * MS_PER_MINUTE;
        let minutes = local.div_euclid(MS_PER_MINUTE);
        let days = minutes.div_euclid(MINUTES_PER_DAY);
        let (milliseconds, minutes, days, outside) = if days < FIRST_DAY {
            (0, 0, FIRST_DAY, true)
        } else if days > LAST_DAY {
            (MS_PER_MINUTE - 1, MINUTES_PER_DAY - 1, LAST_DAY, true)
        } else {
            (local.rem_euclid(MS_PER_MINUTE), minutes.rem_euclid(MINUTES_PER_DAY), days, false)
        };
        let (year, month, day) = civil(days);
        Self {
            milliseconds: milliseconds as u16,
            minute: (minutes % 60) as u8,
            substituted: stamp.substituted,
            invalid: stamp.invalid || outside,
            hour: (minutes / 60) as u8,
            summer: stamp.summer,
            day,
            weekday: (days + 3).rem_euclid(7) as u8 + 1,
            month,
            year: (year - 2000) as u8,
        }
    }

    /// The moment, taking the tag's clock to be `offset_minutes` ahead of UTC.
    ///
    /// # Errors
    /// A part out of its range, or a day that the month does not have.
    pub fn to_utc_ns(self, offset_minutes: i16) -> Result<i64, TimeError> {
        let check = |part, expected, found: u16, good: bool| {
            if good { Ok(()) } else { Err(TimeError { part, expected, found }) }
        };
        check("milliseconds", "0 to 59999", self.milliseconds, self.milliseconds < 60_000)?;
        check("a minute", "0 to 59", self.minute.into(), self.minute < 60)?;
        check("an hour", "0 to 23", self.hour.into(), self.hour < 24)?;
        check("a month", "1 to 12", self.month.into(), (1..=12).contains(&self.month))?;
        check("a year", "0 to 99", self.year.into(), self.year < 100)?;
        let year = 2000 + i64::from(self.year);
        let last = days_in_month(year, self.month);
        check("a day", "of its month", self.day.into(), (1..=last).contains(&self.day))?;
        let minutes = days_from_civil(year, self.month, self.day) * MINUTES_PER_DAY
            + i64::from(self.hour) * 60
            + i64::from(self.minute)
            - i64::from(offset_minutes);
        Ok((minutes * MS_PER_MINUTE + i64::from(self.milliseconds)) * NS_PER_MS)
    }

    /// The seven octets.
    #[must_use]
    pub const fn encode(self) -> [u8; 7] {
        let [low, high] = self.milliseconds.to_le_bytes();
        [
            low,
            high,
            (self.minute & 0x3f) | bit(self.substituted, 0x40) | bit(self.invalid, 0x80),
            (self.hour & 0x1f) | bit(self.summer, 0x80),
            (self.day & 0x1f) | (self.weekday & 7) << 5,
            self.month & 0x0f,
            self.year & 0x7f,
        ]
    }

    /// Reads seven octets; reserved bits are ignored.
    #[must_use]
    pub const fn decode(octets: [u8; 7]) -> Self {
        let [low, high, minute, hour, day, month, year] = octets;
        Self {
            milliseconds: u16::from_le_bytes([low, high]),
            minute: minute & 0x3f,
            substituted: minute & 0x40 != 0,
            invalid: minute & 0x80 != 0,
            hour: hour & 0x1f,
            summer: hour & 0x80 != 0,
            day: day & 0x1f,
            weekday: day >> 5,
            month: month & 0x0f,
            year: year & 0x7f,
        }
    }
}

/// Three octet binary time: minute and milliseconds. Not used by 104 stations, read for completeness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cp24Time2a {
    /// Milliseconds of the minute, 0 to 59999.
    pub milliseconds: u16,
    /// 0 to 59.
    pub minute: u8,
    /// GEN: substituted time.
    pub substituted: bool,
    /// IV.
    pub invalid: bool,
}

impl Cp24Time2a {
    /// The three octets.
    #[must_use]
    pub const fn encode(self) -> [u8; 3] {
        let [low, high] = self.milliseconds.to_le_bytes();
        [low, high, (self.minute & 0x3f) | bit(self.substituted, 0x40) | bit(self.invalid, 0x80)]
    }

    /// Reads three octets.
    #[must_use]
    pub const fn decode(octets: [u8; 3]) -> Self {
        let [low, high, minute] = octets;
        Self {
            milliseconds: u16::from_le_bytes([low, high]),
            minute: minute & 0x3f,
            substituted: minute & 0x40 != 0,
            invalid: minute & 0x80 != 0,
        }
    }
}

const fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, with years that begin in March.
fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    let month = i64::from(month);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_from_civil`].
fn civil(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u8;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u8, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-02-28 23:59:58.123 UTC, a Saturday.
    const MOMENT: i64 = 1_772_323_198_123 * NS_PER_MS;

    #[test]
    fn the_octets_of_a_known_moment() {
        let tag = Cp56Time2a::new(Stamp::utc(MOMENT));
        // 58123 = 0xe30b; minute 59; hour 23; day 28 with weekday 6 (0xc0 | 0x1c); month 2; year 26.
        assert_eq!(tag.encode(), [0x0b, 0xe3, 59, 23, 0xdc, 2, 26]);
        assert_eq!(Cp56Time2a::decode(tag.encode()), tag);
        assert_eq!(tag.to_utc_ns(0), Ok(MOMENT));
    }

    #[test]
    fn local_summer_time_and_marks() {
        let stamp = Stamp {
            offset_minutes: 120,
            summer: true,
            invalid: true,
            substituted: true,
            ..Stamp::utc(MOMENT)
        };
        let tag = Cp56Time2a::new(stamp);
        assert_eq!(tag.encode(), [0x0b, 0xe3, 59 | 0xc0, 1 | 0x80, 0xe1, 3, 26]);
        assert_eq!(tag.to_utc_ns(120), Ok(MOMENT));
    }

    #[test]
    fn every_day_of_the_century_round_trips() {
        for day in FIRST_DAY..=LAST_DAY {
            let ns = (day * MINUTES_PER_DAY * MS_PER_MINUTE + 43_200_007) * NS_PER_MS;
            let tag = Cp56Time2a::new(Stamp::utc(ns));
            assert!(!tag.invalid);
            assert_eq!(tag.to_utc_ns(0), Ok(ns), "{tag:?}");
            assert_eq!(i64::from(tag.weekday), (day + 3) % 7 + 1);
        }
    }

    #[test]
    fn moments_without_a_tag_are_marked() {
        for ns in [0, i64::MIN, i64::MAX, -1] {
            assert!(Cp56Time2a::new(Stamp::utc(ns)).invalid, "{ns}");
        }
        let last = Cp56Time2a::new(Stamp::utc(i64::MAX));
        assert_eq!((last.year, last.month, last.day, last.hour, last.minute), (99, 12, 31, 23, 59));
    }

    #[test]
    fn impossible_dates_are_told() {
        let good = Cp56Time2a::new(Stamp::utc(MOMENT));
        for (bad, text) in [
            (
                Cp56Time2a { milliseconds: 60_000, ..good },
                "a time tag has milliseconds 0 to 59999, found 60000",
            ),
            (Cp56Time2a { minute: 60, ..good }, "a time tag has a minute 0 to 59, found 60"),
            (Cp56Time2a { hour: 24, ..good }, "a time tag has an hour 0 to 23, found 24"),
            (Cp56Time2a { day: 29, ..good }, "a time tag has a day of its month, found 29"),
            (Cp56Time2a { day: 0, ..good }, "a time tag has a day of its month, found 0"),
            (Cp56Time2a { month: 13, ..good }, "a time tag has a month 1 to 12, found 13"),
            (Cp56Time2a { year: 100, ..good }, "a time tag has a year 0 to 99, found 100"),
        ] {
            assert_eq!(bad.to_utc_ns(0).unwrap_err().to_string(), text);
        }
        assert!(Cp56Time2a { year: 28, day: 29, ..good }.to_utc_ns(0).is_ok());
    }

    #[test]
    fn short_time_round_trips() {
        let tag = Cp24Time2a { milliseconds: 58_123, minute: 59, substituted: false, invalid: true };
        assert_eq!(tag.encode(), [0x0b, 0xe3, 59 | 0x80]);
        assert_eq!(Cp24Time2a::decode(tag.encode()), tag);
    }
}
