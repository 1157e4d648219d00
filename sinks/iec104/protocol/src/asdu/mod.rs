//! Application service data units: header and information objects (IEC 60870-5-101 clause 7, IEC 60870-5-104 clause 6).
//!
//! The sizes that 101 leaves open are fixed in 104: cause of transmission 2 octets (with originator), common address 2,
//! information object address 3. Decoding is total: every byte string is an [`Asdu`] or an [`AsduError`], and what an
//! unknown type carries stays untouched, because it has to be sent back as it came ([`mirror`]).

mod element;
mod pack;
mod time;
mod types;

pub use element::{Command, CommandValue, Counter, Element, Freeze, Qcc, Qds, WrongElement};
pub use pack::Packer;
pub use time::{Cp24Time2a, Cp56Time2a, Stamp, TimeError};
pub use types::{Kind, TimeKind, TypeId};

/// Octets before the first object: type, qualifier of structure, cause, originator, common address.
pub const HEADER: usize = 6;
/// Octets of an information object address.
pub const IOA: usize = 3;
/// Largest information object address (104, 6.2).
pub const MAX_IOA: u32 = 0xff_ffff;
/// Most objects in one ASDU: seven bits (101, 7.2.2).
pub const MAX_OBJECTS: u8 = 127;
/// The common address that means every station (101, 7.2.4).
pub const BROADCAST: u16 = 0xffff;

/// Reason of a transmission (101, 7.2.3, table 14), six bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// Periodic.
    pub const PERIODIC: Self = Self(1);
    /// Background scan.
    pub const BACKGROUND: Self = Self(2);
    /// Spontaneous.
    pub const SPONTANEOUS: Self = Self(3);
    /// Initialised.
    pub const INITIALISED: Self = Self(4);
    /// Request or requested.
    pub const REQUEST: Self = Self(5);
    /// Activation.
    pub const ACTIVATION: Self = Self(6);
    /// Activation confirmation.
    pub const ACTIVATION_CON: Self = Self(7);
    /// Deactivation.
    pub const DEACTIVATION: Self = Self(8);
    /// Deactivation confirmation.
    pub const DEACTIVATION_CON: Self = Self(9);
    /// Activation termination.
    pub const ACTIVATION_TERM: Self = Self(10);
    /// Return information caused by a remote command.
    pub const RETURN_REMOTE: Self = Self(11);
    /// Return information caused by a local command.
    pub const RETURN_LOCAL: Self = Self(12);
    /// Interrogated by station interrogation; 21 to 36 by groups 1 to 16.
    pub const INTERROGATED: Self = Self(20);
    /// Requested by general counter request; 38 to 41 by groups 1 to 4.
    pub const COUNTERS: Self = Self(37);
    /// Unknown type identification.
    pub const UNKNOWN_TYPE: Self = Self(44);
    /// Unknown cause of transmission.
    pub const UNKNOWN_CAUSE: Self = Self(45);
    /// Unknown common address.
    pub const UNKNOWN_COMMON_ADDRESS: Self = Self(46);
    /// Unknown information object address.
    pub const UNKNOWN_OBJECT: Self = Self(47);
}

/// Cause of transmission: reason, P/N, T, and the originator address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Why.
    pub reason: Reason,
    /// P/N: a negative confirmation.
    pub negative: bool,
    /// T: made for a test.
    pub test: bool,
    /// 0: not used.
    pub originator: u8,
}

impl Cause {
    /// A positive cause, no test.
    #[must_use]
    pub const fn new(reason: Reason, originator: u8) -> Self {
        Self { reason, negative: false, test: false, originator }
    }

    const fn octet(self) -> u8 {
        self.reason.0 & 0x3f | if self.negative { 0x40 } else { 0 } | if self.test { 0x80 } else { 0 }
    }
}

/// What stands before the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type identification.
    pub type_id: TypeId,
    /// SQ: consecutive addresses, only the first is written.
    pub sequence: bool,
    /// Number of objects, 0 to 127.
    pub count: u8,
    /// Cause of transmission.
    pub cause: Cause,
    /// Common address.
    pub common_address: u16,
}

impl Header {
    /// Reads the header, and what follows it.
    ///
    /// # Errors
    /// Fewer than six octets.
    pub fn decode(octets: &[u8]) -> Result<(Self, &[u8]), AsduError> {
        let Some((&[type_id, vsq, cause, originator, low, high], objects)) =
            octets.split_first_chunk::<HEADER>()
        else {
            return Err(AsduError::Header(octets.len()));
        };
        let cause = Cause {
            reason: Reason(cause & 0x3f),
            negative: cause & 0x40 != 0,
            test: cause & 0x80 != 0,
            originator,
        };
        let header = Self {
            type_id: TypeId(type_id),
            sequence: vsq & 0x80 != 0,
            count: vsq & 0x7f,
            cause,
            common_address: u16::from_le_bytes([low, high]),
        };
        Ok((header, objects))
    }

    /// The six octets.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER] {
        let [low, high] = self.common_address.to_le_bytes();
        let vsq = self.count & 0x7f | if self.sequence { 0x80 } else { 0 };
        [self.type_id.0, vsq, self.cause.octet(), self.cause.originator, low, high]
    }
}

/// The time tag of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// None.
    None,
    /// Three octets.
    Cp24(Cp24Time2a),
    /// Seven octets.
    Cp56(Cp56Time2a),
}

/// One information object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Information object address, 24 bits.
    pub ioa: u32,
    /// What it says.
    pub element: Element,
    /// When.
    pub tag: Tag,
}

/// A whole ASDU of a known type.
#[derive(Debug, Clone, PartialEq)]
pub struct Asdu {
    /// The header.
    pub header: Header,
    /// `header.count` objects.
    pub objects: Vec<Object>,
}

/// Why bytes are no ASDU. All but the unknown type end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AsduError {
    /// Shorter than a header.
    #[error("an ASDU begins with 6 octets, found {0}")]
    Header(usize),
    /// A type that is not known here; to be answered with 44.
    #[error("type identification {0} is not known")]
    UnknownType(u8),
    /// No objects.
    #[error("{0} without any object")]
    Empty(TypeId),
    /// Other length than type and count say.
    #[error("{type_id} with {count} objects has {expected} octets, found {found}")]
    Length {
        /// The type.
        type_id: TypeId,
        /// Objects announced.
        count: u8,
        /// Octets that they take.
        expected: usize,
        /// Octets present.
        found: usize,
    },
    /// A sequence that runs beyond the last address.
    #[error("a sequence of {count} objects from address {first} passes the last address 16777215")]
    Address {
        /// First address.
        first: u32,
        /// Objects.
        count: u8,
    },
}

/// Octets of `count` objects of a layout.
const fn objects_size((kind, time): (Kind, TimeKind), count: usize, sequence: bool) -> usize {
    let each = kind.size() + time.size();
    if sequence { IOA + count * each } else { count * (IOA + each) }
}

impl Asdu {
    /// Reads a whole ASDU.
    ///
    /// # Errors
    /// [`AsduError`]; the header can still be read with [`Header::decode`] where there is one.
    pub fn decode(octets: &[u8]) -> Result<Self, AsduError> {
        let (header, mut body) = Header::decode(octets)?;
        let Header { type_id, count, sequence, .. } = header;
        let Some(layout) = type_id.layout() else { return Err(AsduError::UnknownType(type_id.0)) };
        if count == 0 {
            return Err(AsduError::Empty(type_id));
        }
        let expected = objects_size(layout, usize::from(count), sequence);
        let wrong = AsduError::Length { type_id, count, expected, found: body.len() };
        if body.len() != expected {
            return Err(wrong);
        }
        let mut objects = Vec::with_capacity(usize::from(count));
        let mut ioa = 0;
        for index in 0..count {
            if index == 0 || !sequence {
                ioa = take_address(&mut body).ok_or(wrong)?;
            } else if ioa == MAX_IOA {
                return Err(AsduError::Address { first: MAX_IOA + 1 - u32::from(index), count });
            } else {
                ioa += 1;
            }
            objects.push(take_object(ioa, layout, &mut body).ok_or(wrong)?);
        }
        Ok(Self { header, objects })
    }

    /// The octets of an ASDU with one object.
    ///
    /// # Errors
    /// Element and type do not belong together.
    pub fn single(
        type_id: TypeId,
        cause: Cause,
        common_address: u16,
        object: Object,
    ) -> Result<Vec<u8>, WrongElement> {
        let mut packer = Packer::new(type_id, cause, common_address, false);
        packer.push(object)?;
        Ok(packer.finish())
    }
}

fn take_address(body: &mut &[u8]) -> Option<u32> {
    let (&[a, b, c], rest) = body.split_first_chunk::<IOA>()?;
    *body = rest;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

fn take_object(ioa: u32, (kind, time): (Kind, TimeKind), body: &mut &[u8]) -> Option<Object> {
    let (element, rest) = body.split_at_checked(kind.size())?;
    let (tag, rest) = rest.split_at_checked(time.size())?;
    *body = rest;
    let tag = match time {
        TimeKind::None => Tag::None,
        TimeKind::Cp24 => Tag::Cp24(Cp24Time2a::decode(tag.try_into().ok()?)),
        TimeKind::Cp56 => Tag::Cp56(Cp56Time2a::decode(tag.try_into().ok()?)),
    };
    Some(Object { ioa, element: Element::decode(kind, element)?, tag })
}

/// The same octets with another reason and P/N: how confirmations and refusals are made (101, 7.2.3). The test bit and
/// the originator stay the requester's. Bytes without a header come back empty.
#[must_use]
pub fn mirror(request: &[u8], reason: Reason, negative: bool) -> Vec<u8> {
    let Ok((header, objects)) = Header::decode(request) else { return Vec::new() };
    let header = Header { cause: Cause { reason, negative, ..header.cause }, ..header };
    let mut out = header.encode().to_vec();
    out.extend_from_slice(objects);
    out
}

#[cfg(test)]
mod tests;
