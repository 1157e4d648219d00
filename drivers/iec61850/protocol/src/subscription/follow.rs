//! The reports of one control block in order: segments put together, losses seen.
//!
//! `SqNum` counts the reports of a block and wraps at the size the device gives it; `SubSqNum` counts the segments
//! of one report. Whatever is missing is told as a [`Gap`], so that the owner interrogates and says so: values
//! come again, events between do not. Half a report is never passed on.

use std::fmt;

use super::subscribe::Subscription;
use crate::limits::MAX_REPORT_ENTRIES;
use crate::name::Name;
use crate::report::Report;

/// Something of a block's reports was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The device's buffer has overflowed.
    Overflow,
    /// Reports are missing between two.
    Sequence {
        /// Number of the report that should have come.
        expected: u32,
        /// Number of the one that came.
        got: u32,
    },
    /// Segments of a report are missing.
    Segments,
    /// The block was engineered anew: subscribe again.
    Revision {
        /// The revision it had when it was taken.
        expected: u32,
        /// The one it has now.
        got: u32,
    },
    /// The report has another number of members than the data set: subscribe again.
    Members {
        /// Members of the data set.
        expected: usize,
        /// Members of the report.
        got: usize,
    },
}

impl Gap {
    /// True where the block must be taken anew before its reports mean anything.
    #[must_use]
    pub const fn needs_subscription(self) -> bool {
        matches!(self, Self::Revision { .. } | Self::Members { .. })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => f.write_str("the report buffer of the device has overflowed"),
            Self::Sequence { expected, got } => write!(f, "expected report {expected}, got {got}"),
            Self::Segments => f.write_str("segments of a report are missing"),
            Self::Revision { expected, got } => write!(f, "expected ConfRev {expected}, got {got}"),
            Self::Members { expected, got } => {
                write!(f, "expected a report on {expected} data set members, got one on {got}")
            }
        }
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It is of another block.
    NotMine(Report),
    /// More segments are to come.
    Partial,
    /// Complete, with what was lost before it.
    Complete(Report, Option<Gap>),
    /// Not usable.
    Lost(Gap),
}

/// Follows the reports of one block.
#[derive(Debug, Clone)]
pub struct Follower {
    id: String,
    data_set: Option<String>,
    members: usize,
    revision: Option<u32>,
    highest: u32,
    last: Option<u32>,
    partial: Option<Report>,
}

impl Follower {
    /// For a block that is ours.
    #[must_use]
    pub fn of(subscription: &Subscription) -> Self {
        let block = &subscription.block;
        let members = subscription.members.len();
        Self::new(&block.id, block.data_set.as_ref(), members, block.revision, block.sequence_bits)
    }

    /// For a block whose reports are called `id`, with a data set of so many members, `ConfRev` and so many bits
    /// of `SqNum`.
    #[must_use]
    pub fn new(
        id: &str,
        data_set: Option<&Name>,
        members: usize,
        revision: Option<u32>,
        sequence_bits: u8,
    ) -> Self {
        let highest = 1_u32.checked_shl(u32::from(sequence_bits)).map_or(u32::MAX, |end| end.wrapping_sub(1));
        let data_set = data_set.map(Name::to_string);
        Self { id: id.to_owned(), data_set, members, revision, highest, last: None, partial: None }
    }

    /// Takes a report or segment.
    pub fn take(&mut self, report: Report) -> Taken {
        // Blocks may share a name; then the data set tells them apart.
        let other_set = matches!((&self.data_set, &report.data_set), (Some(mine), Some(its)) if mine != its);
        if report.id != self.id || other_set {
            return Taken::NotMine(report);
        }
        if let (Some(expected), Some(got)) = (self.revision, report.revision)
            && expected != got
        {
            return Taken::Lost(Gap::Revision { expected, got });
        }
        if report.members != self.members {
            return Taken::Lost(Gap::Members { expected: self.members, got: report.members });
        }
        match report.segment {
            None => {
                let broken = self.partial.take().is_some();
                self.complete(report, broken)
            }
            Some(segment) => self.segment(report, segment),
        }
    }

    fn segment(&mut self, report: Report, segment: u32) -> Taken {
        let Some(mut whole) = self.partial.take() else {
            return self.first_segment(report, segment, false);
        };
        let follows = whole.sequence == report.sequence
            && whole.segment.and_then(|last| last.checked_add(1)) == Some(segment);
        if !follows {
            return self.first_segment(report, segment, true);
        }
        if whole.entries.len() + report.entries.len() > MAX_REPORT_ENTRIES {
            return Taken::Lost(Gap::Segments);
        }
        whole.entries.extend(report.entries);
        whole.segment = Some(segment);
        whole.overflow |= report.overflow;
        whole.more = report.more;
        if whole.more {
            self.partial = Some(whole);
            return Taken::Partial;
        }
        self.complete(whole, false)
    }

    /// A segment that continues nothing: good only if it is the first of a report.
    fn first_segment(&mut self, report: Report, segment: u32, broken: bool) -> Taken {
        match (segment, report.more) {
            (0, false) => self.complete(report, broken),
            (0, true) if !broken => {
                self.partial = Some(report);
                Taken::Partial
            }
            (0, true) => {
                self.partial = Some(report);
                Taken::Lost(Gap::Segments)
            }
            _ => Taken::Lost(Gap::Segments),
        }
    }

    fn complete(&mut self, report: Report, broken: bool) -> Taken {
        let sequence = self.sequence(report.sequence);
        let gap = if report.overflow {
            Some(Gap::Overflow)
        } else if broken {
            Some(Gap::Segments)
        } else {
            sequence
        };
        Taken::Complete(report, gap)
    }

    fn sequence(&mut self, got: Option<u32>) -> Option<Gap> {
        let got = got?;
        let last = self.last.replace(got)?;
        // Some devices begin again with 1.
        if last >= self.highest {
            return (got > 1).then_some(Gap::Sequence { expected: 0, got });
        }
        (got != last + 1).then_some(Gap::Sequence { expected: last + 1, got })
    }
}
