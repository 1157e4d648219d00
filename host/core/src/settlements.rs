//! Ends of records that the file must learn, as ranges of numbers: confirmations mostly come in order, so a backlog of
//! millions is a few ranges.

use std::collections::BTreeMap;

use crate::journal::{End, Settled};

/// The ends since the last transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Settlements {
    ranges: BTreeMap<u64, (u64, End)>,
}

impl Settlements {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ranges held.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// A record that is not in here ended.
    pub(crate) fn add(&mut self, number: u64, end: End) {
        self.add_range(number, 1, end);
    }

    fn add_range(&mut self, first: u64, count: u64, end: End) {
        if let Some((before, (length, kind))) = self.ranges.range_mut(..first).next_back()
            && *before + *length == first
            && *kind == end
        {
            *length += count;
            return;
        }
        self.ranges.insert(first, (count, end));
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(first, (count, _))| number < first + count)
    }

    /// Takes out what is below `number`.
    pub(crate) fn take_below(&mut self, number: u64) -> Self {
        let above = self.take_from(number);
        std::mem::replace(self, above)
    }

    /// Takes out what is at `number` or above.
    pub(crate) fn take_from(&mut self, number: u64) -> Self {
        let mut above = Self { ranges: self.ranges.split_off(&number) };
        if let Some((first, (count, end))) = self.ranges.iter_mut().next_back()
            && *first + *count > number
        {
            let inside = number - *first;
            let rest = *count - inside;
            *count = inside;
            above.ranges.insert(number, (rest, end.clone()));
        }
        above
    }

    /// Adds the ranges of another, none of which is in here.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (first, (count, end)) in other.ranges {
            self.add_range(first, count, end);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Settled> {
        self.ranges.iter().map(|(first, (count, end))| Settled {
            first: *first,
            count: *count,
            end: end.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(settlements: &Settlements) -> Vec<(u64, u64)> {
        settlements.iter().map(|settled| (settled.first, settled.count)).collect()
    }

    #[test]
    fn ends_in_order_are_one_range() {
        let mut settlements = Settlements::default();
        for number in 10..1_000 {
            settlements.add(number, End::Delivered);
        }
        settlements.add(1_000, End::Parked("too large".into()));
        settlements.add(1_001, End::Delivered);
        assert_eq!(ranges(&settlements), [(10, 990), (1_000, 1), (1_001, 1)]);
        assert!(settlements.contains(10) && settlements.contains(999) && settlements.contains(1_001));
        assert!(!settlements.contains(9) && !settlements.contains(1_002));
    }

    #[test]
    fn a_range_is_cut_where_asked() {
        let mut settlements = Settlements::default();
        (10..20).for_each(|number| settlements.add(number, End::Delivered));
        (30..40).for_each(|number| settlements.add(number, End::Delivered));
        let above = settlements.take_from(15);
        assert_eq!((ranges(&settlements), ranges(&above)), (vec![(10, 5)], vec![(15, 5), (30, 10)]));
        let mut all = above;
        all.absorb(settlements);
        let below = all.take_below(35);
        assert_eq!(ranges(&all), [(35, 5)]);
        assert_eq!(below.iter().map(|settled| settled.count).sum::<u64>(), 15);
    }
}
