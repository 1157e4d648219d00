//! Which data sets serve which points, and in which order to try their control blocks.
//!
//! Greedy: the data set that serves most points not yet served comes first; of equals the smaller one, because
//! it costs less. Within a data set: free before preassigned, buffered before unbuffered (nothing is lost while
//! we are away), then the device's order. Indexed instances are blocks like any other.

use super::block::{Availability, Block};
use crate::model::Model;
use crate::name::Name;
use crate::point::Point;

/// One data set to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The data set.
    pub data_set: Name,
    /// Its control blocks, to be tried in this order. Empty where all are taken: try again later.
    pub blocks: Vec<Name>,
    /// Points it serves, as places in the list.
    pub points: Vec<usize>,
}

/// Chooses for `points`. Points in no choice are to be polled.
///
/// `blocks` are those that may be used, as read just now.
#[must_use]
pub fn choose(model: &Model, blocks: &[Block], points: &[Point]) -> Vec<Choice> {
    let mut sets: Vec<(&Name, Vec<usize>, usize)> = Vec::new();
    for set in blocks.iter().filter_map(|block| block.data_set.as_ref()) {
        if sets.iter().any(|(name, ..)| *name == set) {
            continue;
        }
        if let Some(found) = model.data_set(set) {
            let served = (0..points.len())
                .filter(|place| points.get(*place).is_some_and(|point| serves(&found.members, point)))
                .collect();
            sets.push((set, served, found.members.len()));
        }
    }
    let mut choices = Vec::new();
    loop {
        let best = sets
            .iter()
            .filter(|(_, served, _)| !served.is_empty())
            .max_by_key(|(name, served, size)| (served.len(), usize::MAX - size, std::cmp::Reverse(*name)));
        let Some((name, served, _)) = best else { return choices };
        let choice =
            Choice { data_set: (*name).clone(), blocks: candidates(blocks, name), points: served.clone() };
        for (_, served, _) in &mut sets {
            served.retain(|point| !choice.points.contains(point));
        }
        choices.push(choice);
    }
}

fn candidates(blocks: &[Block], set: &Name) -> Vec<Name> {
    let mut found: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.data_set.as_ref() == Some(set) && block.availability() != Availability::Busy)
        .collect();
    found.sort_by_key(|block| (block.availability(), !block.buffered));
    found.into_iter().map(|block| block.name.clone()).collect()
}

/// True where the members bring the value, and the quality where the point has one.
pub(super) fn serves(members: &[Option<Name>], point: &Point) -> bool {
    let brought = |name: &Name| members.iter().flatten().any(|member| member.contains(name));
    brought(&point.value.name) && point.quality.as_ref().is_none_or(|quality| brought(&quality.name))
}
