//! A point fed by reports: a data set may bring its value, quality and time as one member or as several, and a
//! report may include only some of them. What was not included stays as it was.

use iec61850_rs::proto::data::Value;

use super::{Point, Reading, Scalar, reading};
use crate::data;
use crate::name::Name;
use crate::quality::{Quality, SourceTime};
use crate::report::ReasonCode;

/// Why a value came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The value changed.
    DataChange,
    /// Its quality changed.
    QualityChange,
    /// It was updated.
    DataUpdate,
    /// The integrity period or an interrogation.
    Integrity,
}

impl Cause {
    /// The cause of a reason code; of several the one that says most. Without any the device did not say.
    #[must_use]
    pub const fn of(reason: ReasonCode) -> Option<Self> {
        if reason.data_change() {
            Some(Self::DataChange)
        } else if reason.quality_change() {
            Some(Self::QualityChange)
        } else if reason.data_update() {
            Some(Self::DataUpdate)
        } else if reason.integrity() || reason.general_interrogation() {
            Some(Self::Integrity)
        } else {
            None
        }
    }
}

/// The last value, quality and time of one point, as reports bring them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    value: Option<Scalar>,
    quality: Option<Quality>,
    time: Option<SourceTime>,
    transient: bool,
    changed: bool,
}

impl Update {
    /// Takes a data set member. True if the point is in it.
    pub fn take(&mut self, point: &Point, member: &Name, value: &Value) -> bool {
        let part = |name: &Name| within(member, name, &point.object, value, point);
        let mut touched = false;
        if let Some(found) = part(&point.value.name) {
            self.value = found.and_then(|value| point.meaning.read(value));
            touched = true;
            self.changed = true;
        }
        if let Some(found) = point.quality.as_ref().and_then(|quality| part(&quality.name)) {
            self.quality = Some(found.and_then(Quality::read).unwrap_or(Quality::FAILURE));
            touched = true;
            self.changed = true;
        }
        if let Some(found) = point.time.as_ref().and_then(|time| part(&time.name)) {
            self.time = found.and_then(SourceTime::read);
            touched = true;
        }
        if let Some(found) = point.transient.as_ref().and_then(|transient| part(&transient.name)) {
            self.transient = found.and_then(data::boolean).unwrap_or(false);
            touched = true;
            self.changed = true;
        }
        touched
    }

    /// The device could not read the member: the point has failed until it is brought again.
    pub fn fail(&mut self) {
        self.value = None;
        self.changed = true;
    }

    /// The reading, if value or quality were brought since the last call; a new time alone is none.
    ///
    /// Before quality was ever brought of a point that has one, there is none either.
    pub fn finish(&mut self, point: &Point) -> Option<Reading> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let quality = match (&point.quality, self.quality) {
            (None, _) => Quality::GOOD,
            (Some(_), quality) => quality?,
        };
        Some(reading(self.value.clone(), quality, self.time, self.transient))
    }
}

/// The part `name` of a reported member: outer `None` where the member does not hold it, inner where it should
/// and does not.
fn within<'a>(
    member: &Name,
    name: &Name,
    object: &Name,
    value: &'a Value,
    point: &Point,
) -> Option<Option<&'a Value>> {
    if !member.contains(name) {
        return None;
    }
    let part = [Some(&point.value), point.quality.as_ref(), point.time.as_ref(), point.transient.as_ref()]
        .into_iter()
        .flatten()
        .find(|part| part.name == *name)?;
    // Components of the member below the object are places already gone.
    let gone = member.components().count().checked_sub(object.components().count());
    Some(gone.and_then(|gone| data::at(value, part.places.get(gone..)?)))
}
