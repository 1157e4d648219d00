//! Frames: the APCI of IEC 60870-5-104 clause 5 (start, length, four control octets).
//!
//! A pure function from bytes to `Incomplete | Frame | Error`. There is no resynchronisation: TCP neither loses nor
//! invents bytes, so a wrong octet means that the peer is not what it says, and the connection has to be closed
//! (clause 5.1). Frames are at most 255 octets, so a receive buffer never needs more than [`MAX_FRAME`] per frame.

/// First octet of every frame (clause 5).
pub const START: u8 = 0x68;
/// Largest whole frame in octets: start, length, and 253 octets (clause 5).
pub const MAX_FRAME: usize = 255;
/// Largest ASDU in octets: 253 without the four control octets (clause 5).
pub const MAX_ASDU: usize = 249;
/// Octets of start, length and control fields.
const APCI: usize = 6;
/// Control octets, and therefore the least value of the length octet.
const CONTROL: u8 = 4;
/// Largest value of the length octet (clause 5).
const MAX_LENGTH: u8 = 253;

/// A sequence number N(S) or N(R), modulo 32768 (clause 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seq(u16);

impl Seq {
    /// Numbers of the circle.
    pub const MODULUS: u16 = 32_768;

    /// `value` modulo 32768.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value % Self::MODULUS)
    }

    /// 0 to 32767.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// Steps from `earlier` forward to `self`, 0 to 32767.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u16 {
        (self.0 + Self::MODULUS - earlier.0) % Self::MODULUS
    }
}

/// The functions of unnumbered frames (clause 5, figure 8). A frame carries exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnumbered {
    /// Begin to transfer data.
    StartAct,
    /// Transfer has begun.
    StartCon,
    /// End the transfer of data.
    StopAct,
    /// Transfer has ended.
    StopCon,
    /// Are you there?
    TestAct,
    /// Yes.
    TestCon,
}

impl Unnumbered {
    const fn octet(self) -> u8 {
        match self {
            Self::StartAct => 0x07,
            Self::StartCon => 0x0b,
            Self::StopAct => 0x13,
            Self::StopCon => 0x23,
            Self::TestAct => 0x43,
            Self::TestCon => 0x83,
        }
    }

    const fn of(octet: u8) -> Option<Self> {
        match octet {
            0x07 => Some(Self::StartAct),
            0x0b => Some(Self::StartCon),
            0x13 => Some(Self::StopAct),
            0x23 => Some(Self::StopCon),
            0x43 => Some(Self::TestAct),
            0x83 => Some(Self::TestCon),
            _ => None,
        }
    }

    /// The six octets of the frame.
    #[must_use]
    pub const fn frame(self) -> [u8; 6] {
        [START, CONTROL, self.octet(), 0, 0, 0]
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apdu<'a> {
    /// Numbered information transfer.
    Information {
        /// N(S).
        send: Seq,
        /// N(R): everything before this number was received.
        receive: Seq,
        /// 1 to 249 octets.
        asdu: &'a [u8],
    },
    /// Numbered supervision: an acknowledgement alone.
    Supervision {
        /// N(R).
        receive: Seq,
    },
    /// A function without number.
    Unnumbered(Unnumbered),
}

/// What the first bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The frame is not complete; nothing is wrong so far.
    Incomplete,
    /// A frame that took `used` octets.
    Frame {
        /// The frame.
        apdu: Apdu<'a>,
        /// Octets to remove from the stream.
        used: usize,
    },
}

/// The peer sent something that is no frame. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApciError {
    /// The first octet is wrong.
    #[error("a frame begins with 0x68, found 0x{0:02x}; is the peer an IEC 60870-5-104 station?")]
    Start(u8),
    /// The length octet is out of range.
    #[error("the length of a frame is 4 to 253, found {0}")]
    Length(u8),
    /// An I frame without an ASDU.
    #[error("an I frame carries an ASDU, found none")]
    Empty,
    /// An S or U frame with more than its control octets.
    #[error("an S or U frame has length 4, found {0}")]
    Trailing(u8),
    /// Control octets that mean nothing.
    #[error("control octets {0:02x} {1:02x} {2:02x} {3:02x} are no I, S or U frame")]
    Control(u8, u8, u8, u8),
}

/// Reads the first frame of `bytes`.
///
/// # Errors
/// What can be no frame, as early as it can be told: a wrong first octet does not wait for a second.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, ApciError> {
    let Some((&start, rest)) = bytes.split_first() else { return Ok(Decoded::Incomplete) };
    if start != START {
        return Err(ApciError::Start(start));
    }
    let Some((&length, rest)) = rest.split_first() else { return Ok(Decoded::Incomplete) };
    if !(CONTROL..=MAX_LENGTH).contains(&length) {
        return Err(ApciError::Length(length));
    }
    let Some(body) = rest.get(..usize::from(length)) else { return Ok(Decoded::Incomplete) };
    let Some((&control, asdu)) = body.split_first_chunk::<4>() else { return Ok(Decoded::Incomplete) };
    let apdu = frame(control, asdu, length)?;
    Ok(Decoded::Frame { apdu, used: 2 + usize::from(length) })
}

fn frame(control: [u8; 4], asdu: &[u8], length: u8) -> Result<Apdu<'_>, ApciError> {
    let [c1, c2, c3, c4] = control;
    let wrong = ApciError::Control(c1, c2, c3, c4);
    let number = |low: u8, high: u8| Seq::new(u16::from_le_bytes([low, high]) >> 1);
    if c1 & 1 == 0 {
        if c3 & 1 != 0 {
            return Err(wrong);
        }
        if asdu.is_empty() {
            return Err(ApciError::Empty);
        }
        return Ok(Apdu::Information { send: number(c1, c2), receive: number(c3, c4), asdu });
    }
    if length != CONTROL {
        return Err(ApciError::Trailing(length));
    }
    if c1 == 1 && c2 == 0 && c3 & 1 == 0 {
        return Ok(Apdu::Supervision { receive: number(c3, c4) });
    }
    match (Unnumbered::of(c1), c2, c3, c4) {
        (Some(function), 0, 0, 0) => Ok(Apdu::Unnumbered(function)),
        _ => Err(wrong),
    }
}

/// The frame of an ASDU, or `None` when the ASDU is empty or longer than [`MAX_ASDU`].
#[must_use]
pub fn information(send: Seq, receive: Seq, asdu: &[u8]) -> Option<Vec<u8>> {
    if asdu.is_empty() || asdu.len() > MAX_ASDU {
        return None;
    }
    let length = u8::try_from(asdu.len()).ok()? + CONTROL;
    let [s1, s2] = (send.value() << 1).to_le_bytes();
    let [r1, r2] = (receive.value() << 1).to_le_bytes();
    let mut out = Vec::with_capacity(APCI + asdu.len());
    out.extend_from_slice(&[START, length, s1, s2, r1, r2]);
    out.extend_from_slice(asdu);
    Some(out)
}

/// The frame that only acknowledges.
#[must_use]
pub const fn supervision(receive: Seq) -> [u8; 6] {
    let [r1, r2] = (receive.value() << 1).to_le_bytes();
    [START, CONTROL, 1, 0, r1, r2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(bytes: &[u8]) -> Apdu<'_> {
        match decode(bytes) {
            Ok(Decoded::Frame { apdu, used }) if used == bytes.len() => apdu,
            other => panic!("{bytes:02x?}: {other:?}"),
        }
    }

    #[test]
    fn unnumbered_frames_are_the_standards() {
        for (octet, function) in [
            (0x07, Unnumbered::StartAct),
            (0x0b, Unnumbered::StartCon),
            (0x13, Unnumbered::StopAct),
            (0x23, Unnumbered::StopCon),
            (0x43, Unnumbered::TestAct),
            (0x83, Unnumbered::TestCon),
        ] {
            let bytes = [0x68, 4, octet, 0, 0, 0];
            assert_eq!(one(&bytes), Apdu::Unnumbered(function));
            assert_eq!(function.frame(), bytes);
        }
    }

    #[test]
    fn numbers_are_fifteen_bits_low_octet_first() {
        let bytes = [0x68, 5, 0x02, 0x01, 0xfe, 0xff, 0xaa];
        let expected = Apdu::Information { send: Seq::new(129), receive: Seq::new(32_767), asdu: &[0xaa] };
        assert_eq!(one(&bytes), expected);
        assert_eq!(information(Seq::new(129), Seq::new(32_767), &[0xaa]).as_deref(), Some(&bytes[..]));
        let ack = [0x68, 4, 1, 0, 0x10, 0];
        assert_eq!(one(&ack), Apdu::Supervision { receive: Seq::new(8) });
        assert_eq!(supervision(Seq::new(8)), ack);
    }

    #[test]
    fn numbers_wrap() {
        assert_eq!(Seq::new(32_767).next(), Seq::new(0));
        assert_eq!(Seq::new(3).since(Seq::new(32_766)), 5);
        assert_eq!(Seq::new(3).since(Seq::new(3)), 0);
    }

    #[test]
    fn a_frame_in_parts_is_incomplete_until_its_last_octet() {
        let bytes = information(Seq::new(1), Seq::new(2), &[7; MAX_ASDU]).unwrap();
        assert_eq!(bytes.len(), MAX_FRAME);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(Decoded::Incomplete), "{cut}");
        }
        assert!(matches!(one(&bytes), Apdu::Information { asdu, .. } if asdu.len() == MAX_ASDU));
        assert_eq!(information(Seq::new(0), Seq::new(0), &[0; MAX_ASDU + 1]), None);
        assert_eq!(information(Seq::new(0), Seq::new(0), &[]), None);
    }

    #[test]
    fn what_is_no_frame_is_refused_with_its_reason() {
        assert_eq!(decode(&[0x16]), Err(ApciError::Start(0x16)));
        assert_eq!(decode(&[0x68, 3]), Err(ApciError::Length(3)));
        assert_eq!(decode(&[0x68, 254]), Err(ApciError::Length(254)));
        assert_eq!(decode(&[0x68, 4, 0, 0, 0, 0]), Err(ApciError::Empty));
        assert_eq!(decode(&[0x68, 5, 1, 0, 0, 0, 0]), Err(ApciError::Trailing(5)));
        assert_eq!(decode(&[0x68, 5, 0, 0, 1, 0, 0]), Err(ApciError::Control(0, 0, 1, 0)));
        assert_eq!(decode(&[0x68, 4, 0x47, 0, 0, 0]), Err(ApciError::Control(0x47, 0, 0, 0)));
        assert_eq!(decode(&[0x68, 4, 0x07, 0, 0, 2]), Err(ApciError::Control(7, 0, 0, 2)));
        assert_eq!(decode(&[0x68, 4, 0x03, 0, 0, 0]), Err(ApciError::Control(3, 0, 0, 0)));
    }
}
