//! What waits for a sink that is not durable: all events in order, and one slot per point for state, newest wins
//! (SEMANTICS 3). So losing and regaining 200 devices with 300 points each costs one slot per point and never displaces
//! an event.
//!
//! Order per point holds across both: a pending state lies behind all pending events of its point. A newer event
//! therefore replaces it; a late event (which says nothing about the present) goes before it.

use std::collections::{BTreeSet, VecDeque};

use crate::queue::{Class, Record};

/// Places of `order` that may be void before it is swept.
const SWEEP_SLACK: usize = 1024;

#[derive(Debug)]
enum Item {
    Event(Record),
    State { slot: u32, seq: u64 },
}

/// The waiting records.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    order: VecDeque<Item>,
    states: Vec<Option<(u64, Record)>>,
    seq: u64,
    state_count: usize,
    event_count: usize,
    event_bytes: u64,
}

impl Slots {
    #[cfg(test)]
    pub(crate) fn new(slots: usize) -> Self {
        Self { states: (0..slots).map(|_| None).collect(), ..Self::default() }
    }

    /// Room for the state of one more point.
    pub(crate) fn grow(&mut self) {
        self.states.push(None);
    }

    /// Which of these points something waits for.
    pub(crate) fn waits_for(&self, points: &BTreeSet<u32>) -> BTreeSet<u32> {
        let events = self.order.iter().filter_map(|item| match item {
            Item::Event(record) => Some(record),
            Item::State { .. } => None,
        });
        let states = self.states.iter().flatten().map(|(_, record)| record);
        events
            .chain(states)
            .map(|record| record.sample.point)
            .filter(|point| points.contains(point))
            .collect()
    }

    pub(crate) const fn len(&self) -> usize {
        self.state_count + self.event_count
    }

    /// Bytes of the waiting events; states are bounded by the number of points.
    pub(crate) const fn event_bytes(&self) -> u64 {
        self.event_bytes
    }

    /// Takes a state; true if it replaced one (which is then superseded).
    pub(crate) fn state(&mut self, slot: u32, record: Record) -> bool {
        let Some(place) = self.states.get_mut(slot as usize) else { return false };
        if let Some((_, old)) = place {
            *old = record;
            return true;
        }
        self.seq += 1;
        *place = Some((self.seq, record));
        self.state_count += 1;
        self.order.push_back(Item::State { slot, seq: self.seq });
        self.sweep();
        false
    }

    /// Takes an event; true if it replaced a state. A `late` one goes before the pending state.
    pub(crate) fn event(&mut self, slot: u32, record: Record, late: bool) -> bool {
        let state = self.states.get_mut(slot as usize).and_then(Option::take);
        self.state_count -= usize::from(state.is_some());
        self.event_count += 1;
        self.event_bytes += record.cost();
        self.order.push_back(Item::Event(record));
        match state {
            Some((_, state)) if late => {
                self.state(slot, state);
                false
            }
            state => state.is_some(),
        }
    }

    /// The oldest record.
    pub(crate) fn pop(&mut self) -> Option<Record> {
        loop {
            match self.order.pop_front()? {
                Item::Event(record) => {
                    self.event_count -= 1;
                    self.event_bytes -= record.cost();
                    return Some(record);
                }
                Item::State { slot, seq } => {
                    if let Some(place) = self.states.get_mut(slot as usize)
                        && place.as_ref().is_some_and(|(at, _)| *at == seq)
                        && let Some((_, record)) = place.take()
                    {
                        self.state_count -= 1;
                        return Some(record);
                    }
                }
            }
        }
    }

    /// Removes the oldest event.
    pub(crate) fn drop_oldest_event(&mut self) -> Option<Record> {
        let at = self.order.iter().position(|item| matches!(item, Item::Event(_)))?;
        match self.order.remove(at)? {
            Item::Event(record) => {
                self.event_count -= 1;
                self.event_bytes -= record.cost();
                Some(record)
            }
            Item::State { .. } => None,
        }
    }

    /// When the oldest event was accepted.
    pub(crate) fn oldest_event(&self) -> Option<u64> {
        self.order.iter().find_map(|item| match item {
            Item::Event(record) => Some(record.accepted_ns),
            Item::State { .. } => None,
        })
    }

    /// When the oldest record was accepted.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.order.iter().find_map(|item| match item {
            Item::Event(record) => Some(record.accepted_ns),
            Item::State { slot, seq } => self
                .states
                .get(*slot as usize)?
                .as_ref()
                .filter(|(at, _)| at == seq)
                .map(|(_, record)| record.accepted_ns),
        })
    }

    fn sweep(&mut self) {
        if self.order.len() <= 2 * self.len() + SWEEP_SLACK {
            return;
        }
        let states = &self.states;
        self.order.retain(|item| match item {
            Item::Event(_) => true,
            Item::State { slot, seq } => {
                states.get(*slot as usize).and_then(Option::as_ref).is_some_and(|(at, _)| at == seq)
            }
        });
    }

    /// All counters agree with the content (tests and the simulation).
    pub(crate) fn is_consistent(&self) -> bool {
        let events = self.order.iter().filter(|item| matches!(item, Item::Event(_))).count();
        let classes = self.states.iter().flatten().all(|(_, record)| record.class == Class::State);
        events == self.event_count && classes && self.states.iter().flatten().count() == self.state_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::record;

    fn event(point: u32, value: u64) -> Record {
        Record { class: Class::Event, ..record(0, point, value) }
    }

    fn drain(slots: &mut Slots) -> Vec<u64> {
        std::iter::from_fn(|| slots.pop()).map(|record| record.sample.bits).collect()
    }

    #[test]
    fn state_keeps_one_slot_per_point_and_the_newest_wins() {
        let mut slots = Slots::new(2);
        assert!(!slots.state(0, record(0, 0, 1)));
        assert!(!slots.state(1, record(0, 1, 2)));
        assert!(slots.state(0, record(0, 0, 3)));
        assert_eq!(slots.len(), 2);
        assert_eq!(drain(&mut slots), [3, 2]);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn events_are_kept_all_and_order_per_point_holds_across_both() {
        let mut slots = Slots::new(1);
        slots.event(0, event(0, 1), false);
        slots.state(0, record(0, 0, 2));
        assert!(slots.event(0, event(0, 3), false), "the pending state is older than the event");
        slots.state(0, record(0, 0, 4));
        slots.state(0, record(0, 0, 5));
        assert!(slots.is_consistent());
        assert_eq!(drain(&mut slots), [1, 3, 5]);
    }

    #[test]
    fn a_late_event_goes_before_the_pending_state() {
        let mut slots = Slots::new(1);
        slots.state(0, record(0, 0, 2));
        assert!(!slots.event(0, event(0, 1), true));
        assert_eq!(drain(&mut slots), [1, 2]);
        assert!(slots.is_consistent());
    }

    #[test]
    fn on_overflow_the_oldest_event_goes_and_no_state() {
        let mut slots = Slots::new(2);
        slots.state(1, record(0, 1, 9));
        slots.event(0, event(0, 1), false);
        slots.event(0, event(0, 2), false);
        assert_eq!(slots.drop_oldest_event().unwrap().sample.bits, 1);
        assert_eq!(slots.event_bytes(), 48);
        assert_eq!(drain(&mut slots), [9, 2]);
    }

    #[test]
    fn void_places_are_swept() {
        let mut slots = Slots::new(1);
        for value in 0..10_000 {
            slots.state(0, record(0, 0, value));
            slots.event(0, event(0, value), false);
            slots.drop_oldest_event();
        }
        assert!(slots.order.len() <= SWEEP_SLACK + 2, "{}", slots.order.len());
    }
}
