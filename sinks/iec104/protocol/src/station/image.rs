//! The process image of the station: what interrogations, reads and counter interrogations are answered from.
//!
//! Points are walked in the order of common address, type, object address, so that an interrogation fills its ASDUs.
//! Counters have a second face, the frozen one (IEC 60870-5-101, 7.4.8): freezing copies the reading and counts it in
//! SQ; carry and adjusted are gathered from one freeze to the next.

use std::collections::{BTreeSet, HashMap};

use super::config::{Config, Point};
use crate::asdu::{Counter, Element, Freeze, Kind, Qds, TypeId, WrongElement};
use crate::map;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// Everything but counters.
    Station,
    /// Group 1 to 16.
    Group(u8),
    /// All counters.
    Counters,
    /// Counter group 1 to 4.
    CounterGroup(u8),
}

impl Selection {
    fn takes(self, point: &Point) -> bool {
        match self {
            Self::Station => !point.is_counter(),
            Self::Group(group) => !point.is_counter() && point.group == Some(group),
            Self::Counters => point.is_counter(),
            Self::CounterGroup(group) => point.is_counter() && point.group == Some(group),
        }
    }
}

/// One object as an interrogation shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    pub(super) type_id: TypeId,
    pub(super) ioa: u32,
    pub(super) element: Element,
    pub(super) test: bool,
}

#[derive(Debug)]
struct State {
    point: Point,
    kind: Kind,
    element: Element,
    test: bool,
    suppressed: bool,
    frozen: Option<Counter>,
    /// The reading that counts as zero.
    zero: i32,
    sequence: u8,
    carry: bool,
    adjusted: bool,
}

/// The image.
#[derive(Debug)]
pub(super) struct Image {
    states: Vec<State>,
    /// Places of `states` in the order of interrogation.
    order: Vec<usize>,
    addresses: HashMap<(u16, u32), usize>,
    pub(super) common_addresses: BTreeSet<u16>,
    /// Room to try an element in.
    scratch: Vec<u8>,
}

impl Image {
    /// All points without a value: invalid and not topical.
    pub(super) fn new(config: &Config) -> Self {
        let states: Vec<State> = config.points.iter().filter_map(|point| State::new(*point)).collect();
        let mut order: Vec<usize> = (0..states.len()).collect();
        order.sort_by_key(|place| {
            states.get(*place).map(|s| (s.point.common_address, s.point.type_id.without_time(), s.point.ioa))
        });
        let address =
            |(place, state): (usize, &State)| ((state.point.common_address, state.point.ioa), place);
        let addresses = states.iter().enumerate().map(address).collect();
        Self {
            states,
            order,
            addresses,
            common_addresses: config.all_common_addresses(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn point(&self, place: usize) -> Option<&Point> {
        self.states.get(place).map(|state| &state.point)
    }

    /// Takes a new value. `false`: there is no such point.
    pub(super) fn update(
        &mut self,
        place: usize,
        element: Element,
        test: bool,
    ) -> Result<bool, WrongElement> {
        let Some(state) = self.states.get_mut(place) else { return Ok(false) };
        self.scratch.clear();
        element.encode(state.kind, &mut self.scratch)?;
        if let Element::Counter(counter) = element {
            state.carry |= counter.carry;
            state.adjusted |= counter.adjusted;
        }
        (state.element, state.test, state.suppressed) = (element, test, false);
        Ok(true)
    }

    /// Whether the element is one of the point's type.
    pub(super) fn fits(&mut self, place: usize, element: Element) -> Result<(), WrongElement> {
        let Some(state) = self.states.get(place) else { return Err(WrongElement(element)) };
        self.scratch.clear();
        element.encode(state.kind, &mut self.scratch)
    }

    /// The point is not shown until its next update.
    pub(super) fn suppress(&mut self, place: usize) {
        if let Some(state) = self.states.get_mut(place) {
            state.suppressed = true;
        }
    }

    /// The object at an address, for a read.
    pub(super) fn read(&self, common_address: u16, ioa: u32) -> Option<Shown> {
        let place = self.addresses.get(&(common_address, ioa))?;
        self.states.get(*place).map(State::shown)
    }

    /// Any point of the selection at this common address.
    pub(super) fn has(&self, common_address: u16, selection: Selection) -> bool {
        self.states.iter().any(|s| s.point.common_address == common_address && selection.takes(&s.point))
    }

    /// The next object of a walk; `cursor` is moved behind it.
    pub(super) fn next(
        &self,
        cursor: &mut usize,
        common_address: u16,
        selection: Selection,
    ) -> Option<Shown> {
        while let Some(place) = self.order.get(*cursor) {
            *cursor += 1;
            let state = self.states.get(*place)?;
            let asked = state.point.common_address == common_address && selection.takes(&state.point);
            if asked && !state.suppressed {
                return Some(state.shown());
            }
        }
        None
    }

    /// Freezes or sets to zero the counters of a selection.
    pub(super) fn freeze(&mut self, common_address: u16, selection: Selection, freeze: Freeze) {
        for state in &mut self.states {
            if state.point.common_address == common_address && selection.takes(&state.point) {
                state.freeze(freeze);
            }
        }
    }
}

impl State {
    fn new(point: Point) -> Option<Self> {
        let (kind, _) = point.type_id.layout()?;
        let qds = Qds::INVALID.with(Qds::NOT_TOPICAL);
        let element = match kind {
            Kind::Counter => Element::Counter(Counter { invalid: true, ..Counter::default() }),
            _ => map::element(kind, map::Value::None, 1.0, qds)?,
        };
        Some(Self {
            point,
            kind,
            element,
            test: false,
            suppressed: false,
            frozen: None,
            zero: 0,
            sequence: 0,
            carry: false,
            adjusted: false,
        })
    }

    fn freeze(&mut self, freeze: Freeze) {
        let Element::Counter(counter) = self.element else { return };
        if matches!(freeze, Freeze::Freeze | Freeze::FreezeReset) {
            self.sequence = (self.sequence + 1) & 0x1f;
            self.frozen = Some(Counter {
                value: counter.value.wrapping_sub(self.zero),
                sequence: self.sequence,
                carry: self.carry,
                adjusted: self.adjusted,
                invalid: counter.invalid,
            });
            (self.carry, self.adjusted) = (false, false);
        }
        if matches!(freeze, Freeze::FreezeReset | Freeze::Reset) {
            self.zero = counter.value;
            self.adjusted = true;
        }
    }

    fn shown(&self) -> Shown {
        let element = match (self.element, self.frozen) {
            (Element::Counter(_), Some(frozen)) => Element::Counter(frozen),
            (Element::Counter(counter), None) => {
                let value = counter.value.wrapping_sub(self.zero);
                Element::Counter(Counter { value, carry: self.carry, adjusted: self.adjusted, ..counter })
            }
            (element, _) => element,
        };
        Shown { type_id: self.point.type_id.without_time(), ioa: self.point.ioa, element, test: self.test }
    }
}
