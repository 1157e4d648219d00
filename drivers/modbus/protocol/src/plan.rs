//! Which requests read a set of points: pure planning, no I/O.
//!
//! Requests cost a round trip each (on a 9600 baud line 30 ms and more), registers almost nothing, so
//! neighbours are merged into one block. Limits of a block:
//!
//! * 125 registers or 2000 bits, or less where the device showed a lower limit;
//! * one table: tables never mix, because each has its own function;
//! * a configurable gap of unasked registers between two neighbours;
//! * never across a hole or a split, i.e. a place where the device refused a merged block before;
//! * a point the device refuses is read alone, so that it cannot spoil another one.
//!
//! What the device taught is kept in [`Lessons`], bounded; when the bound is reached the device is read
//! without merging over gaps, which is slow and always right. Planning is deterministic: the same points
//! give the same blocks in whatever order they are configured.

use std::collections::BTreeSet;

use crate::address::{Address, Table};
use crate::value::{MAX_READ_BITS, MAX_READ_REGISTERS};

/// Places of refusal remembered per device. A device with more than this many holes is read without gaps.
pub const MAX_LESSONS: usize = 1024;

/// One thing to read: a range of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Where it starts.
    pub address: Address,
    /// Registers or bits, at least 1.
    pub count: u16,
}

impl Want {
    /// First position behind the range (65536 at most, hence wider than an offset).
    #[must_use]
    pub fn end(&self) -> u32 {
        u32::from(self.address.offset) + u32::from(self.count)
    }
}

/// Limits of merging, from configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Registers in one request, 1 to 125.
    pub max_registers: u16,
    /// Bits in one request, 1 to 2000.
    pub max_bits: u16,
    /// Unasked registers that may be read between two points.
    pub gap_registers: u16,
    /// Unasked bits that may be read between two points.
    pub gap_bits: u16,
}

impl Limits {
    /// A gap of 16 registers costs 32 bytes, less than the frame overhead and turn-around of one more request.
    pub const DEFAULT_GAP_REGISTERS: u16 = 16;
    /// A gap of 128 bits costs 16 bytes.
    pub const DEFAULT_GAP_BITS: u16 = 128;

    fn of(&self, table: Table) -> (u32, u32) {
        if table.is_bits() {
            (u32::from(self.max_bits.clamp(1, MAX_READ_BITS)), u32::from(self.gap_bits))
        } else {
            (u32::from(self.max_registers.clamp(1, MAX_READ_REGISTERS)), u32::from(self.gap_registers))
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_registers: MAX_READ_REGISTERS,
            max_bits: MAX_READ_BITS,
            gap_registers: Self::DEFAULT_GAP_REGISTERS,
            gap_bits: Self::DEFAULT_GAP_BITS,
        }
    }
}

/// What a device's refusals taught about merging; one per device, kept as long as the device is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lessons {
    /// Gaps that no block may contain: table, first position, position behind.
    holes: BTreeSet<(Table, u32, u32)>,
    /// Positions that no block may cross: a block ends before or starts there.
    splits: BTreeSet<(Table, u32)>,
    /// Points the device refuses, which are read alone.
    alone: BTreeSet<Want>,
    version: u64,
    full: bool,
}

impl Lessons {
    /// Changes whenever a plan made before may be out of date.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Number of places remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holes.len() + self.splits.len() + self.alone.len()
    }

    /// True where nothing was refused so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True when the bound was reached and merging over gaps has stopped.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// The device refuses this point by itself.
    pub fn refuse(&mut self, want: Want) {
        if self.room() && self.alone.insert(want) {
            self.version += 1;
        }
    }

    /// The device accepts this point again.
    pub fn accept(&mut self, want: &Want) {
        if self.alone.remove(want) {
            self.version += 1;
        }
    }

    /// Learns from a refused block whose points were then read singly: `answered[i]` tells whether the
    /// i-th want of the block was answered. Gaps between points are holes; where there is no gap and every
    /// point alone is fine, the device refuses the size and the block is split in the middle.
    pub fn block_refused(&mut self, wants: &[(Want, bool)]) {
        let mut sorted: Vec<&(Want, bool)> = wants.iter().collect();
        sorted.sort();
        let mut blamed = false;
        let mut end: Option<(Table, u32)> = None;
        for (want, answered) in sorted {
            if !answered {
                self.refuse(*want);
                blamed = true;
            }
            let (table, start) = (want.address.table, u32::from(want.address.offset));
            if let Some((_, before)) = end.filter(|(last, before)| *last == table && *before < start) {
                self.hole(table, before, start);
                blamed = true;
            }
            let reach = end.filter(|(last, _)| *last == table).map_or(0, |(_, reach)| reach);
            end = Some((table, reach.max(want.end())));
        }
        if !blamed {
            self.split_in_the_middle(wants);
        }
    }

    fn split_in_the_middle(&mut self, wants: &[(Want, bool)]) {
        let mut starts: Vec<(Table, u32)> =
            wants.iter().map(|(want, _)| (want.address.table, u32::from(want.address.offset))).collect();
        starts.sort_unstable();
        starts.dedup();
        if let Some(middle) = starts.get(starts.len() / 2).filter(|_| starts.len() > 1)
            && self.room()
            && self.splits.insert(*middle)
        {
            self.version += 1;
        }
    }

    fn hole(&mut self, table: Table, start: u32, end: u32) {
        if self.room() && self.holes.insert((table, start, end)) {
            self.version += 1;
        }
    }

    fn room(&mut self) -> bool {
        let room = self.len() < MAX_LESSONS;
        if !room && !self.full {
            self.full = true;
            self.version += 1;
        }
        room
    }

    fn forbids(&self, table: Table, start: u32, end: u32, next: u32) -> bool {
        let hole =
            self.holes.iter().any(|(of, from, to)| *of == table && *from < next && *to > end && next > end);
        // A split at `next` or anywhere inside the block that would result.
        let split = next > start && self.splits.range((table, start + 1)..=(table, next)).next().is_some();
        hole || split || (self.full && next > end)
    }
}

/// One request: a range of one table, and the wants it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Where it starts.
    pub address: Address,
    /// Registers or bits to ask for.
    pub count: u16,
    /// Indices into the wants, in order of address.
    pub members: Vec<u32>,
}

/// Plans the requests that read `wants`.
///
/// Every want lies completely in exactly one block. A want larger than the limit still gets a block of
/// its own: the limit is about merging, the size of a value is not negotiable.
#[must_use]
pub fn plan(wants: &[Want], limits: &Limits, lessons: &Lessons) -> Vec<Block> {
    let mut order: Vec<u32> = (0..u32::try_from(wants.len()).unwrap_or(u32::MAX)).collect();
    // Longer first where two start together, and the index last: the order is total, so it is reproducible.
    let key = |index: &u32| {
        wants.get(*index as usize).map(|want| (want.address, std::cmp::Reverse(want.count), *index))
    };
    order.sort_by_key(key);
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    for index in order {
        let Some(want) = wants.get(index as usize) else { continue };
        if lessons.alone.contains(want) {
            blocks.push(Block { address: want.address, count: want.count, members: vec![index] });
            continue;
        }
        match open.as_mut().filter(|block| fits(block, want, limits, lessons)) {
            Some(block) => {
                let end = want.end().max(u32::from(block.address.offset) + u32::from(block.count));
                block.count = u16::try_from(end - u32::from(block.address.offset)).unwrap_or(block.count);
                block.members.push(index);
            }
            None => {
                blocks.extend(open.take());
                open = Some(Block { address: want.address, count: want.count, members: vec![index] });
            }
        }
    }
    blocks.extend(open);
    blocks.sort_by_key(|block| (block.address, block.count));
    blocks
}

fn fits(block: &Block, want: &Want, limits: &Limits, lessons: &Lessons) -> bool {
    let table = block.address.table;
    if want.address.table != table {
        return false;
    }
    let (max, gap) = limits.of(table);
    let start = u32::from(block.address.offset);
    let end = start + u32::from(block.count);
    let next = u32::from(want.address.offset);
    let size = end.max(want.end()) - start;
    let contained = want.end() <= end;
    (contained || (size <= max && next.saturating_sub(end) <= gap))
        && !lessons.forbids(table, start, end, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn want(offset: u16, count: u16) -> Want {
        Want { address: Address { table: Table::Holding, offset }, count }
    }

    fn shape(blocks: &[Block]) -> Vec<(u16, u16)> {
        blocks.iter().map(|block| (block.address.offset, block.count)).collect()
    }

    fn simple(wants: &[Want]) -> Vec<(u16, u16)> {
        shape(&plan(wants, &Limits::default(), &Lessons::default()))
    }

    #[test]
    fn neighbours_share_a_request() {
        assert_eq!(
            simple(&[want(0x2006, 2), want(0x2008, 2), want(0x200C, 2), want(0x4026, 2)]),
            [(0x2006, 8), (0x4026, 2)]
        );
    }

    #[test]
    fn the_gap_and_the_size_are_limits() {
        assert_eq!(simple(&[want(0, 1), want(17, 1)]), [(0, 18)]);
        assert_eq!(simple(&[want(0, 1), want(18, 1)]), [(0, 1), (18, 1)]);
        let row: Vec<Want> = (0..126).map(|offset| want(offset, 1)).collect();
        assert_eq!(simple(&row), [(0, 125), (125, 1)]);
        let pairs: Vec<Want> = (0..63).map(|index| want(index * 2, 2)).collect();
        assert_eq!(simple(&pairs), [(0, 124), (124, 2)]);
        assert_eq!(simple(&[want(65535, 1), want(65534, 1)]), [(65534, 2)]);
    }

    #[test]
    fn points_may_overlap() {
        assert_eq!(simple(&[want(10, 1), want(10, 2), want(10, 1), want(11, 1)]), [(10, 2)]);
    }

    #[test]
    fn a_hole_is_never_read_again() {
        let wants = [want(0, 2), want(4, 2), want(6, 2)];
        let mut lessons = Lessons::default();
        lessons.block_refused(&[(wants[0], true), (wants[1], true), (wants[2], true)]);
        assert_eq!(shape(&plan(&wants, &Limits::default(), &lessons)), [(0, 2), (4, 4)]);
        assert_eq!(lessons.len(), 1);
    }

    #[test]
    fn a_refused_point_is_read_alone() {
        let wants = [want(0, 2), want(2, 2), want(4, 2)];
        let mut lessons = Lessons::default();
        lessons.block_refused(&[(wants[0], true), (wants[1], false), (wants[2], true)]);
        assert_eq!(
            shape(&plan(&wants, &Limits { gap_registers: 0, ..Limits::default() }, &lessons)),
            [(0, 2), (2, 2), (4, 2)]
        );
        lessons.accept(&wants[1]);
        assert_eq!(shape(&plan(&wants, &Limits::default(), &lessons)), [(0, 6)]);
    }

    #[test]
    fn a_device_with_a_smaller_limit_is_halved() {
        let wants: Vec<Want> = (0..64).map(|offset| want(offset, 1)).collect();
        let mut lessons = Lessons::default();
        // The device takes 16 registers at most.
        for _ in 0..8 {
            for block in plan(&wants, &Limits::default(), &lessons) {
                if block.count > 16 {
                    let members: Vec<(Want, bool)> =
                        block.members.iter().map(|index| (wants[*index as usize], true)).collect();
                    lessons.block_refused(&members);
                }
            }
        }
        assert_eq!(
            shape(&plan(&wants, &Limits::default(), &lessons)),
            [(0, 16), (16, 16), (32, 16), (48, 16)]
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut lessons = Lessons::default();
        for index in 0..40_u16 {
            for offset in 0..40_u16 {
                lessons.refuse(want(index * 100 + offset, 1));
            }
        }
        assert_eq!(lessons.len(), MAX_LESSONS);
        assert!(lessons.is_full());
        let wants = [want(60_000, 1), want(60_002, 1), want(60_003, 1)];
        assert_eq!(shape(&plan(&wants, &Limits::default(), &lessons)), [(60_000, 1), (60_002, 2)]);
    }

    fn any_want() -> impl Strategy<Value = Want> {
        let table = prop::sample::select(Table::ALL.to_vec());
        (table, prop_oneof![0_u16..400, any::<u16>()], 1_u16..=4).prop_map(|(table, offset, count)| Want {
            address: Address { table, offset: offset.min(65535 - (count - 1)) },
            count,
        })
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        (4_u16..=125, 4_u16..=2000, 0_u16..50, 0_u16..200).prop_map(
            |(max_registers, max_bits, gap_registers, gap_bits)| Limits {
                max_registers,
                max_bits,
                gap_registers,
                gap_bits,
            },
        )
    }

    fn any_lessons(wants: &[Want]) -> impl Strategy<Value = Lessons> + use<> {
        let wants = wants.to_vec();
        let chunk = prop::collection::vec((0..wants.len().max(1), any::<bool>()), 0..8);
        prop::collection::vec(chunk, 0..5).prop_map(move |chunks| {
            let mut lessons = Lessons::default();
            for chunk in chunks {
                let refused: Vec<(Want, bool)> = chunk
                    .iter()
                    .filter_map(|(index, ok)| wants.get(*index).map(|want| (*want, *ok)))
                    .collect();
                lessons.block_refused(&refused);
            }
            lessons
        })
    }

    fn scene() -> impl Strategy<Value = (Vec<Want>, Limits, Lessons)> {
        prop::collection::vec(any_want(), 0..60)
            .prop_flat_map(|wants| (any_lessons(&wants), Just(wants), any_limits()))
            .prop_map(|(lessons, wants, limits)| (wants, limits, lessons))
    }

    proptest! {
        #[test]
        fn every_plan_keeps_the_rules((wants, limits, lessons) in scene(), seed in any::<u64>()) {
            let blocks = plan(&wants, &limits, &lessons);
            let mut seen = vec![0; wants.len()];
            for block in &blocks {
                let (max, gap) = limits.of(block.address.table);
                let start = u32::from(block.address.offset);
                let end = start + u32::from(block.count);
                prop_assert!(u32::from(block.count) <= max && end <= 65536);
                let mut reach = start;
                for member in &block.members {
                    let member = &wants[*member as usize];
                    prop_assert_eq!(member.address.table, block.address.table);
                    let first = u32::from(member.address.offset);
                    prop_assert!(first >= start && member.end() <= end);
                    prop_assert!(first.saturating_sub(reach) <= gap);
                    reach = reach.max(member.end());
                }
                prop_assert_eq!(reach, end);
                for (table, from, to) in &lessons.holes {
                    let covered = |position| block.members.iter().any(|member| {
                        let member = &wants[*member as usize];
                        u32::from(member.address.offset) <= position && member.end() > position
                    });
                    let inside = *table == block.address.table && *from < end && *to > start;
                    prop_assert!(!inside || (*from.max(&start)..*to.min(&end)).all(covered));
                }
                for member in &block.members {
                    seen[*member as usize] += 1;
                    prop_assert!(block.members.len() == 1 || !lessons.alone.contains(&wants[*member as usize]));
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));

            // The order of configuration does not matter.
            let mut shuffled = wants.clone();
            let length = shuffled.len().max(1);
            for index in 0..shuffled.len() {
                shuffled.swap(index, (seed.rotate_left(index as u32) as usize) % length);
            }
            prop_assert_eq!(shape(&plan(&shuffled, &limits, &lessons)), shape(&blocks));
        }
    }
}
