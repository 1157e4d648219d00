//! State and event, late and in time (SEMANTICS 3).
//!
//! Event: reported by the device (data change, data update, quality change) of bool, double point, step, bits, and of
//! every point with `class = "event"`. State: all else. The table takes a sample only if its source time is not older
//! than what it holds; what the host asked for is always taken, because a device's clock may step back.

use busbar_contract::{Cause, Kind};

use crate::table::Point;

/// What a sample is for the table and the sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the table; newest wins towards sinks.
    State,
    /// To the table; kept towards sinks.
    Event,
    /// To the sinks only, in order.
    LateEvent,
    /// Older than the table: dropped, counted.
    LateState,
}

impl Verdict {
    pub(crate) const fn is_event(self) -> bool {
        matches!(self, Self::Event | Self::LateEvent)
    }
}

/// `gateway`: the time is the gateway's own, whose clock may step; it makes nothing late.
pub(crate) fn verdict(point: &Point, kind: Kind, ts_ns: i64, gateway: bool, cause: Cause) -> Verdict {
    let event = cause.is_event() && (kind.is_event_kind() || point.event);
    let asked = matches!(cause, Cause::Poll | Cause::Resync);
    // The state of a point that was lost is taken whatever its time: anything newer is gone. Only events stay in order.
    let holds = event || !point.is_lost();
    let late = !asked && !gateway && holds && point.source_ns.is_some_and(|held_ns| ts_ns < held_ns);
    match (event, late) {
        (true, true) => Verdict::LateEvent,
        (true, false) => Verdict::Event,
        (false, true) => Verdict::LateState,
        (false, false) => Verdict::State,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> Point {
        Point { source_ns: Some(100), ..Point::default() }
    }

    #[test]
    fn events_are_reported_changes_of_digital_kinds_and_of_class_event() {
        assert_eq!(verdict(&point(), Kind::Bool, 100, false, Cause::DataChange), Verdict::Event);
        assert_eq!(verdict(&point(), Kind::DoublePoint, 100, false, Cause::QualityChange), Verdict::Event);
        assert_eq!(verdict(&point(), Kind::Float32, 100, false, Cause::DataChange), Verdict::State);
        assert_eq!(verdict(&point(), Kind::Bool, 100, false, Cause::Integrity), Verdict::State);
        let class = Point { event: true, ..point() };
        assert_eq!(verdict(&class, Kind::Float32, 100, false, Cause::DataUpdate), Verdict::Event);
    }

    #[test]
    fn equal_times_the_later_arrival_wins_and_older_ones_are_late() {
        assert_eq!(verdict(&point(), Kind::Float32, 100, false, Cause::Integrity), Verdict::State);
        assert_eq!(verdict(&point(), Kind::Float32, 99, false, Cause::Integrity), Verdict::LateState);
        assert_eq!(verdict(&point(), Kind::Bool, 99, false, Cause::DataChange), Verdict::LateEvent);
    }

    #[test]
    fn a_step_of_the_gateways_clock_drops_nothing() {
        assert_eq!(verdict(&point(), Kind::Float32, 5, true, Cause::Integrity), Verdict::State);
        assert_eq!(verdict(&point(), Kind::Bool, 5, true, Cause::DataChange), Verdict::Event);
    }

    #[test]
    fn a_lost_point_takes_the_first_state_it_gets() {
        let lost = Point { host_quality: crate::table::LOST, ..point() };
        assert_eq!(verdict(&lost, Kind::Float32, 5, false, Cause::Integrity), Verdict::State);
        assert_eq!(verdict(&lost, Kind::Bool, 5, false, Cause::DataChange), Verdict::LateEvent);
    }

    #[test]
    fn a_device_clock_stepped_back_is_accepted_from_a_poll() {
        assert_eq!(verdict(&point(), Kind::Float32, 5, false, Cause::Poll), Verdict::State);
        assert_eq!(verdict(&point(), Kind::Bool, 5, false, Cause::Resync), Verdict::State);
    }
}
