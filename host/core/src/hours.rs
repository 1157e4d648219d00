//! Active hours of a device (`active = { from, to, days, zone }`): planned silence, no fault.
//!
//! The question is asked of the wall clock as the zone shows it, minute by minute, and nothing is remembered beyond the
//! running minute: a clock that steps, in whatever direction, is right again at the next look, and a step can never keep
//! a device from being polled for longer than the window says. `from` is inside, `to` is outside. A window over midnight
//! belongs to the day on which it begins. When clocks are put forward, a start that does not exist is the first minute
//! that does; when they are put back, an hour that comes twice counts twice.
//!
//! A clock that was never set (before [`CLOCK_SET_NS`]) says nothing about the hour: the device is polled.

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

use crate::model::Active;

/// 2024-01-01 UTC, nanoseconds: an earlier wall clock was never set.
const CLOCK_SET_NS: i64 = 1_704_067_200_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;

/// Minutes of a day: `to` may be the end of the day.
pub const DAY_MINUTES: u16 = 24 * 60;
/// All days, Monday in the lowest bit.
pub const ALL_DAYS: u8 = 0b0111_1111;

/// The zone is in the bundled time zone database.
#[must_use]
pub fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

/// The window, ready to be asked.
#[derive(Debug)]
pub(crate) struct Hours {
    active: Active,
    zone: TimeZone,
    /// The minute of the wall clock that was looked at last, and what it said.
    looked: Option<(i64, bool)>,
}

impl Hours {
    /// An unknown zone counts as UTC; the configuration was checked before.
    pub(crate) fn new(active: &Active) -> Self {
        let zone = TimeZone::get(&active.zone).unwrap_or(TimeZone::UTC);
        Self { active: active.clone(), zone, looked: None }
    }

    /// The device is to be polled now.
    pub(crate) fn is_open(&mut self, wall_ns: i64) -> bool {
        let minute = wall_ns.div_euclid(MINUTE_NS);
        if let Some((looked, open)) = self.looked
            && looked == minute
        {
            return open;
        }
        let open = wall_ns < CLOCK_SET_NS || self.look(wall_ns);
        self.looked = Some((minute, open));
        open
    }

    fn look(&self, wall_ns: i64) -> bool {
        // A time beyond the calendar: the clock is wrong, so it is polled.
        let Ok(time) = Timestamp::from_nanosecond(i128::from(wall_ns)) else { return true };
        let local = self.zone.to_datetime(time);
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let today = local.weekday();
        let Active { from, to, days, .. } = self.active;
        let on = |day: Weekday| days & (1 << day.to_monday_zero_offset()) != 0;
        if from < to {
            return on(today) && (from..to).contains(&minute);
        }
        (on(today) && minute >= from) || (on(today.previous()) && minute < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: u16, to: u16, days: u8, zone: &str) -> Hours {
        assert!(is_zone(zone), "{zone}");
        Hours::new(&Active {
            from: from / 100 * 60 + from % 100,
            to: to / 100 * 60 + to % 100,
            days,
            zone: zone.into(),
        })
    }

    fn open(hours: &mut Hours, time: &str) -> bool {
        let time: Timestamp = time.parse().unwrap();
        hours.is_open(i64::try_from(time.as_nanosecond()).unwrap())
    }

    #[test]
    fn the_start_is_inside_and_the_end_is_outside() {
        let mut day = hours(800, 1700, ALL_DAYS, "UTC");
        for (time, expected) in [
            ("2026-01-05T07:59:59.999Z", false),
            ("2026-01-05T08:00:00Z", true),
            ("2026-01-05T16:59:59.999Z", true),
            ("2026-01-05T17:00:00Z", false),
        ] {
            assert_eq!(open(&mut day, time), expected, "{time}");
        }
        let mut late = hours(2200, 2400, ALL_DAYS, "UTC");
        assert!(open(&mut late, "2026-01-05T23:59:59Z"));
        assert!(!open(&mut late, "2026-01-06T00:00:00Z"));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        // Monday only; 2026-01-05 is a Monday.
        let mut night = hours(2200, 600, 1, "Europe/Madrid");
        for (time, expected) in [
            ("2026-01-05T20:59:00Z", false),
            ("2026-01-05T21:00:00Z", true),
            ("2026-01-05T23:30:00Z", true),
            ("2026-01-06T04:59:00Z", true),
            ("2026-01-06T05:00:00Z", false),
            ("2026-01-06T21:30:00Z", false),
            ("2026-01-05T02:00:00Z", false),
        ] {
            assert_eq!(open(&mut night, time), expected, "{time}");
        }
    }

    #[test]
    fn the_zone_moves_with_summer_time() {
        let mut day = hours(800, 900, ALL_DAYS, "Europe/Madrid");
        assert!(open(&mut day, "2026-01-15T07:30:00Z"), "UTC+1 in winter");
        assert!(!open(&mut day, "2026-07-15T07:30:00Z"));
        assert!(open(&mut day, "2026-07-15T06:30:00Z"), "UTC+2 in summer");
    }

    #[test]
    fn an_hour_that_does_not_exist_and_one_that_comes_twice() {
        // 2026-03-29: 02:00 becomes 03:00 in Madrid, at 01:00 UTC.
        let mut spring = hours(230, 330, ALL_DAYS, "Europe/Madrid");
        assert!(!open(&mut spring, "2026-03-29T00:59:00Z"));
        assert!(open(&mut spring, "2026-03-29T01:00:00Z"), "02:30 does not exist: from 03:00 on");
        assert!(open(&mut spring, "2026-03-29T01:29:00Z"));
        assert!(!open(&mut spring, "2026-03-29T01:30:00Z"));
        let mut gap = hours(210, 250, ALL_DAYS, "Europe/Madrid");
        assert!(
            !open(&mut gap, "2026-03-29T01:10:00Z"),
            "a window that lies in the gap does not come that day"
        );
        // 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
        let mut autumn = hours(200, 230, ALL_DAYS, "Europe/Madrid");
        for (time, expected) in [
            ("2026-10-25T00:00:00Z", true),
            ("2026-10-25T00:30:00Z", false),
            ("2026-10-25T01:00:00Z", true),
            ("2026-10-25T01:29:00Z", true),
            ("2026-10-25T01:30:00Z", false),
        ] {
            assert_eq!(open(&mut autumn, time), expected, "{time}");
        }
        // Over midnight and over the change: eight hours of wall time become seven.
        let mut night = hours(2200, 600, ALL_DAYS, "Europe/Madrid");
        assert!(open(&mut night, "2026-03-28T21:00:00Z") && open(&mut night, "2026-03-29T03:59:00Z"));
        assert!(!open(&mut night, "2026-03-29T04:00:00Z"));
    }

    #[test]
    fn a_clock_that_steps_is_right_at_the_next_look_and_one_never_set_polls() {
        let mut day = hours(800, 900, ALL_DAYS, "UTC");
        assert!(!open(&mut day, "2026-01-15T10:00:00Z"));
        assert!(open(&mut day, "2026-01-15T08:10:00Z"), "an hour back");
        assert!(!open(&mut day, "2031-01-15T10:00:00Z"), "years ahead");
        assert!(open(&mut day, "1970-01-01T00:00:10Z"));
        assert!(day.is_open(i64::MIN));
    }

    #[test]
    fn zones_come_with_the_program() {
        assert!(is_zone("Europe/Madrid") && is_zone("UTC") && is_zone("Asia/Kolkata"));
        assert!(!is_zone("Mars/Olympus") && !is_zone(""));
    }
}
