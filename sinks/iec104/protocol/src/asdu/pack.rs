//! Many objects in one ASDU.
//!
//! A packer holds one ASDU under construction, at most [`MAX_ASDU`] octets and [`MAX_OBJECTS`] objects. With SQ = 1 the
//! addresses follow each other and only the first is written.

use super::{
    Cause, Element, HEADER, Header, IOA, MAX_IOA, MAX_OBJECTS, Object, Tag, TimeKind, TypeId, WrongElement,
};
use crate::apci::MAX_ASDU;

/// Builds one ASDU.
#[derive(Debug)]
pub struct Packer {
    header: Header,
    octets: Vec<u8>,
    last: Option<u32>,
}

impl Packer {
    /// An ASDU without objects.
    #[must_use]
    pub fn new(type_id: TypeId, cause: Cause, common_address: u16, sequence: bool) -> Self {
        let header = Header { type_id, sequence, count: 0, cause, common_address };
        let mut octets = Vec::with_capacity(MAX_ASDU);
        octets.extend_from_slice(&header.encode());
        Self { header, octets, last: None }
    }

    /// Appends an object. `Ok(false)`: there is no room for it, or with SQ = 1 its address does not follow; the ASDU is
    /// as it was.
    ///
    /// # Errors
    /// Element or time tag are not the type's, or the address has more than 24 bits.
    pub fn push(&mut self, object: Object) -> Result<bool, WrongElement> {
        let wrong = WrongElement(object.element);
        let Some((kind, time)) = self.header.type_id.layout() else { return Err(wrong) };
        if object.ioa > MAX_IOA {
            return Err(wrong);
        }
        let addressed = !self.header.sequence || self.last.is_none();
        let follows = self.last.is_none_or(|last| object.ioa == last + 1);
        let size = kind.size() + time.size() + if addressed { IOA } else { 0 };
        if self.header.count == MAX_OBJECTS
            || self.octets.len() + size > MAX_ASDU
            || (self.header.sequence && !follows)
        {
            return Ok(false);
        }
        let before = self.octets.len();
        if addressed {
            let [a, b, c, _] = object.ioa.to_le_bytes();
            self.octets.extend_from_slice(&[a, b, c]);
        }
        let written = object.element.encode(kind, &mut self.octets);
        let tagged = match (time, object.tag) {
            (TimeKind::None, _) => true,
            (TimeKind::Cp24, Tag::Cp24(tag)) => {
                self.octets.extend_from_slice(&tag.encode());
                true
            }
            (TimeKind::Cp56, Tag::Cp56(tag)) => {
                self.octets.extend_from_slice(&tag.encode());
                true
            }
            _ => false,
        };
        if written.is_err() || !tagged {
            self.octets.truncate(before);
            return Err(wrong);
        }
        self.last = Some(object.ioa);
        self.header.count += 1;
        Ok(true)
    }

    /// Appends an object without time tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_untimed(&mut self, ioa: u32, element: Element) -> Result<bool, WrongElement> {
        self.push(Object { ioa, element, tag: Tag::None })
    }

    /// Objects so far.
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.header.count
    }

    /// The octets, at most [`MAX_ASDU`].
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let header = self.header.encode();
        if let Some(place) = self.octets.get_mut(..HEADER) {
            place.copy_from_slice(&header);
        }
        self.octets
    }
}
