//! From the members of a report to the points they feed.

use super::choose::serves;
use crate::name::Name;
use crate::point::{Cause, Point, Reading, Update};
use crate::quality::SourceTime;
use crate::report::{ReasonCode, Report};

/// The points one control block feeds.
#[derive(Debug, Clone)]
pub struct Feed {
    members: Vec<Option<Name>>,
    /// Per member the places in `points`.
    routes: Vec<Vec<usize>>,
    points: Vec<Fed>,
}

#[derive(Debug, Clone)]
struct Fed {
    /// The owner's number of the point.
    number: usize,
    point: Point,
    update: Update,
    /// Its place among those the report at hand has touched.
    touched: Option<usize>,
}

/// A value that came by report.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// The owner's number of the point.
    pub point: usize,
    /// What came.
    pub reading: Reading,
    /// Why, where the device says it.
    pub cause: Option<Cause>,
}

impl Feed {
    /// A feed of the given points (by number) from a data set with these members. Points it does not serve are
    /// left out and returned.
    #[must_use]
    pub fn new(
        members: Vec<Option<Name>>,
        points: impl IntoIterator<Item = (usize, Point)>,
    ) -> (Self, Vec<usize>) {
        let mut routes = vec![Vec::new(); members.len()];
        let (mut fed, mut left_out) = (Vec::new(), Vec::new());
        for (number, point) in points {
            if !serves(&members, &point) {
                left_out.push(number);
                continue;
            }
            for (member, route) in members.iter().zip(&mut routes) {
                if member.as_ref().is_some_and(|member| touches(member, &point)) {
                    route.push(fed.len());
                }
            }
            fed.push(Fed { number, point, update: Update::default(), touched: None });
        }
        (Self { members, routes, points: fed }, left_out)
    }

    /// Members of the data set.
    #[must_use]
    pub const fn members(&self) -> usize {
        self.members.len()
    }

    /// Takes a complete report; the arrivals in the order of the data set.
    pub fn apply(&mut self, report: &Report) -> Vec<Arrival> {
        let mut touched: Vec<(usize, ReasonCode)> = Vec::new();
        for entry in &report.entries {
            let Some(Some(member)) = self.members.get(entry.index) else { continue };
            for place in self.routes.get(entry.index).into_iter().flatten() {
                let Some(fed) = self.points.get_mut(*place) else { continue };
                match &entry.value {
                    Ok(value) => {
                        fed.update.take(&fed.point, member, value);
                    }
                    Err(_) => fed.update.fail(),
                }
                let reason = entry.reason.unwrap_or_default();
                match fed.touched.and_then(|place| touched.get_mut(place)) {
                    Some((_, all)) => *all = both(*all, reason),
                    None => {
                        fed.touched = Some(touched.len());
                        touched.push((*place, reason));
                    }
                }
            }
        }
        let mut arrivals = Vec::with_capacity(touched.len());
        for (place, reason) in touched {
            let Some(fed) = self.points.get_mut(place) else { continue };
            fed.touched = None;
            let Some(mut reading) = fed.update.finish(&fed.point) else { continue };
            let cause = Cause::of(reason);
            if reading.time.is_none() && cause.is_some_and(|cause| cause != Cause::Integrity) {
                // The object has no time of its own: the entry was made when it changed.
                reading.time = report
                    .time_of_entry_ms
                    .and_then(|ms| ms.checked_mul(1_000_000))
                    .map(|unix_ns| SourceTime { unix_ns, unsynced: false });
            }
            arrivals.push(Arrival { point: fed.number, reading, cause });
        }
        arrivals
    }
}

/// True where the member holds any part of the point.
fn touches(member: &Name, point: &Point) -> bool {
    [Some(&point.value), point.quality.as_ref(), point.time.as_ref(), point.transient.as_ref()]
        .into_iter()
        .flatten()
        .any(|part| member.contains(&part.name))
}

const fn both(one: ReasonCode, other: ReasonCode) -> ReasonCode {
    one.with_data_change(one.data_change() || other.data_change())
        .with_quality_change(one.quality_change() || other.quality_change())
        .with_data_update(one.data_update() || other.data_update())
        .with_integrity(one.integrity() || other.integrity())
        .with_general_interrogation(one.general_interrogation() || other.general_interrogation())
}
