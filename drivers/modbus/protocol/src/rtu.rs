//! RTU framing for a client: checksum, and finding the answer to one request in what a line delivers.
//!
//! A pure function over bytes. An RTU answer carries no transaction number, so the only evidence that it
//! belongs to the request is: unit, function, the byte count that was asked for (or, for writes, address
//! and value), and the checksum. Everything else on the line is sorted into what may be skipped (late
//! answers to requests that were given up, noise) and what ends the exchange (an answer of the right unit
//! and function with another length, a foreign unit, our own request coming back).

/// Longest RTU frame (MODBUS over Serial Line 2.5.1).
pub const MAX_FRAME: usize = 256;
/// Diagnostics, sub-function 0 "return query data" (MODBUS Application Protocol 6.8).
pub const DIAGNOSTICS: u8 = 8;

const CRC_TABLE: [u16; 256] = crc_table();

const fn crc_table() -> [u16; 256] {
    let mut table = [0_u16; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing, reason = "evaluated at compile time, index is below 256")]
        {
            table[index] = crc;
        }
        index += 1;
    }
    table
}

/// The checksum of MODBUS over Serial Line 6.2.2, low byte first on the wire.
#[must_use]
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        let index = usize::from((crc ^ u16::from(*byte)) & 0xFF);
        (crc >> 8) ^ CRC_TABLE.get(index).copied().unwrap_or(0)
    })
}

/// Appends the checksum.
pub fn seal(frame: &mut Vec<u8>) {
    frame.extend_from_slice(&crc(frame).to_le_bytes());
}

/// True where the last two bytes are the checksum of the others.
#[must_use]
pub fn is_sealed(frame: &[u8]) -> bool {
    // The checksum over a frame that includes its own checksum is zero.
    frame.len() >= 4 && crc(frame) == 0
}

/// What a right answer looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Unit asked.
    pub unit: u8,
    /// Function asked.
    pub function: u8,
    /// How every right answer starts, unit and function included.
    prefix: Prefix,
    /// Its whole length with checksum.
    length: usize,
    /// True where the request itself is the right answer (functions 5, 6, 8).
    echo_is_answer: bool,
    /// Length of our own request, to recognise it when the line sends it back.
    request: Prefix,
}

/// Up to eight bytes by value: everything a short answer or the head of a request consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    bytes: [u8; 8],
    length: usize,
}

impl Prefix {
    fn new(bytes: &[u8]) -> Self {
        let mut prefix = Self { bytes: [0; 8], length: bytes.len().min(8) };
        for (to, from) in prefix.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        prefix
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// True where `bytes` is the prefix, or the beginning of it.
    fn agrees(&self, bytes: &[u8]) -> bool {
        self.get().iter().zip(bytes).all(|(expected, found)| expected == found)
    }
}

impl Expect {
    /// The answer to a read: `bytes` data bytes.
    #[must_use]
    pub fn read(unit: u8, function: u8, start: u16, count: u16, bytes: u8) -> Self {
        let [sh, sl] = start.to_be_bytes();
        let [ch, cl] = count.to_be_bytes();
        Self {
            unit,
            function,
            prefix: Prefix::new(&[unit, function, bytes]),
            length: 5 + usize::from(bytes),
            echo_is_answer: false,
            request: Prefix::new(&[unit, function, sh, sl, ch, cl]),
        }
    }

    /// The answer to a write: address and value (functions 5, 6) or count (15, 16) come back.
    #[must_use]
    pub fn write(unit: u8, function: u8, start: u16, value: u16) -> Self {
        let [sh, sl] = start.to_be_bytes();
        let [vh, vl] = value.to_be_bytes();
        Self {
            unit,
            function,
            prefix: Prefix::new(&[unit, function, sh, sl, vh, vl]),
            length: 8,
            echo_is_answer: true,
            request: Prefix::new(&[]),
        }
    }

    /// The answer to "return query data" with this nonce.
    #[must_use]
    pub fn echo(unit: u8, nonce: u16) -> Self {
        let [nh, nl] = nonce.to_be_bytes();
        Self {
            unit,
            function: DIAGNOSTICS,
            prefix: Prefix::new(&[unit, DIAGNOSTICS, 0, 0, nh, nl]),
            length: 8,
            echo_is_answer: true,
            request: Prefix::new(&[]),
        }
    }

    fn is_own_request(&self, bytes: &[u8]) -> bool {
        let head = self.request.get();
        !self.echo_is_answer && !head.is_empty() && bytes.starts_with(head) && {
            bytes.get(..head.len() + 2).is_some_and(is_sealed)
        }
    }
}

/// What ends an exchange without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The right beginning and a wrong checksum.
    Checksum,
    /// The right unit and function, but another length or address.
    Mismatch(Vec<u8>),
    /// A valid frame of a unit or function nobody asked.
    Foreign(Vec<u8>),
    /// Our own request came back.
    OwnRequest,
}

/// What [`scan`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// The answer (or exception) stands at `start..end`.
    Answer {
        /// First byte.
        start: usize,
        /// Position behind the last byte.
        end: usize,
    },
    /// A late answer to a request that was given up ends at `end`; look again behind it.
    Late {
        /// Position behind its last byte.
        end: usize,
        /// Its unit.
        unit: u8,
        /// Function of the request it answers.
        function: u8,
    },
    /// More bytes are needed.
    More,
    /// The exchange is over.
    Fault(Fault),
}

/// Length of the frame that starts here, `None` where the function is unknown, `Some(None)` where more
/// bytes are needed to tell.
fn frame_length(bytes: &[u8]) -> Option<Option<usize>> {
    match bytes.get(1) {
        None => Some(None),
        Some(1..=4) => Some(bytes.get(2).map(|count| 5 + usize::from(*count))),
        Some(5 | 6 | 8 | 15 | 16) => Some(Some(8)),
        Some(0x80..=0xFF) => Some(Some(5)),
        Some(_) => None,
    }
}

enum Here {
    Answer(usize),
    Late(usize),
    More,
    Noise,
    Fault(Fault),
}

fn look(bytes: &[u8], first: bool, expect: &Expect, late: &dyn Fn(u8, u8) -> bool) -> Here {
    let (Some(unit), function) = (bytes.first(), bytes.get(1)) else { return Here::More };
    if expect.is_own_request(bytes) {
        return Here::Fault(Fault::OwnRequest);
    }
    let ours = *unit == expect.unit;
    if ours && expect.prefix.agrees(bytes) {
        return match bytes.get(..expect.length) {
            None => Here::More,
            Some(frame) if is_sealed(frame) => Here::Answer(expect.length),
            Some(_) => Here::Fault(Fault::Checksum),
        };
    }
    if ours && function == Some(&(expect.function | 0x80)) {
        return match bytes.get(..5) {
            None => Here::More,
            Some(frame) if is_sealed(frame) => Here::Answer(5),
            Some(_) => Here::Fault(Fault::Checksum),
        };
    }
    let known = function.is_some_and(|function| late(*unit, *function & 0x7F));
    let same = ours && function == Some(&expect.function);
    match frame_length(bytes) {
        Some(Some(length)) => match bytes.get(..length) {
            Some(frame) if is_sealed(frame) && known => Here::Late(length),
            Some(frame) if is_sealed(frame) && same => Here::Fault(Fault::Mismatch(frame.to_vec())),
            Some(frame) if is_sealed(frame) && first => Here::Fault(Fault::Foreign(frame.to_vec())),
            None if known || same => Here::More,
            _ => Here::Noise,
        },
        Some(None) if known || same => Here::More,
        _ => Here::Noise,
    }
}

/// Looks for the answer in `bytes`, everything received since the request. `late(unit, function)` tells
/// whether a request that was given up may still be answered; such answers are reported one by one.
#[must_use]
pub fn scan(bytes: &[u8], expect: &Expect, late: &dyn Fn(u8, u8) -> bool) -> Scan {
    let mut start = 0;
    while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
        match look(rest, start == 0, expect, late) {
            Here::Answer(length) => return Scan::Answer { start, end: start + length },
            Here::Late(length) => return late_frame(rest, start + length),
            Here::Noise => start += 1,
            Here::More => return Scan::More,
            Here::Fault(fault) => return Scan::Fault(fault),
        }
    }
    Scan::More
}

/// Looks for a late answer while no answer is expected at all.
#[must_use]
pub fn scan_late(bytes: &[u8], late: &dyn Fn(u8, u8) -> bool) -> Option<(usize, u8, u8)> {
    (0..bytes.len()).find_map(|start| {
        let rest = bytes.get(start..)?;
        let (unit, function) = (*rest.first()?, *rest.get(1)? & 0x7F);
        let length = frame_length(rest)??;
        let found = late(unit, function) && rest.get(..length).is_some_and(is_sealed);
        found.then_some((start + length, unit, function))
    })
}

fn late_frame(frame: &[u8], end: usize) -> Scan {
    let unit = frame.first().copied().unwrap_or(0);
    Scan::Late { end, unit, function: frame.get(1).copied().unwrap_or(0) & 0x7F }
}

/// Bytes as hexadecimal text for messages, at most sixteen of them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text: String = bytes.iter().take(16).map(|byte| format!("{byte:02X} ")).collect();
    text.truncate(text.trim_end().len());
    if bytes.len() > 16 { format!("{text} ... ({} bytes)", bytes.len()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let mut frame = bytes.to_vec();
        seal(&mut frame);
        frame
    }

    fn none(_: u8, _: u8) -> bool {
        false
    }

    #[test]
    fn the_checksum_of_the_standard() {
        // MODBUS over Serial Line 6.2.2: device 2, function 7 gives 0x1241, low byte first.
        assert_eq!(sealed(&[0x02, 0x07]), [0x02, 0x07, 0x41, 0x12]);
        assert_eq!(sealed(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x0A]), [0x01, 0x03, 0, 0, 0, 0x0A, 0xC5, 0xCD]);
    }

    #[test]
    fn the_answer_is_found_and_nothing_else() {
        let expect = Expect::read(1, 3, 0x10, 2, 4);
        let answer = sealed(&[1, 3, 4, 1, 2, 3, 4]);
        assert_eq!(scan(&answer, &expect, &none), Scan::Answer { start: 0, end: 9 });
        assert_eq!(scan(&answer[..8], &expect, &none), Scan::More);
        let exception = sealed(&[1, 0x83, 2]);
        assert_eq!(scan(&exception, &expect, &none), Scan::Answer { start: 0, end: 5 });
        let other_length = sealed(&[1, 3, 2, 1, 2]);
        assert_eq!(scan(&other_length, &expect, &none), Scan::Fault(Fault::Mismatch(other_length.clone())));
        let other_unit = sealed(&[2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(scan(&other_unit, &expect, &none), Scan::Fault(Fault::Foreign(other_unit.clone())));
        let mut broken = answer.clone();
        broken[5] ^= 1;
        assert_eq!(scan(&broken, &expect, &none), Scan::Fault(Fault::Checksum));
        assert_eq!(scan(&sealed(&[1, 3, 0, 0x10, 0, 2]), &expect, &none), Scan::Fault(Fault::OwnRequest));
    }

    #[test]
    fn late_answers_and_glitches_are_skipped() {
        let expect = Expect::read(1, 3, 0, 2, 4);
        let answer = sealed(&[1, 3, 4, 1, 2, 3, 4]);
        let mut line = sealed(&[2, 3, 4, 9, 9, 9, 9]);
        line.extend(sealed(&[1, 0x84, 2]));
        line.push(0x00);
        let before = line.len();
        line.extend(&answer);
        let late = |unit, function| (unit, function) == (2, 3) || (unit, function) == (1, 4);
        assert_eq!(scan(&line, &expect, &late), Scan::Late { end: 9, unit: 2, function: 3 });
        assert_eq!(scan(&line[9..], &expect, &late), Scan::Late { end: 5, unit: 1, function: 4 });
        assert_eq!(scan(&line[14..], &expect, &late), Scan::Answer { start: before - 14, end: before - 5 });
        assert_eq!(scan_late(&line, &late), Some((9, 2, 3)));
        assert_eq!(scan_late(&line[14..], &late), None);
    }

    #[test]
    fn a_write_is_confirmed_by_address_and_value() {
        let expect = Expect::write(1, 6, 0x10, 0x1234);
        let right = sealed(&[1, 6, 0, 0x10, 0x12, 0x34]);
        assert_eq!(scan(&right, &expect, &none), Scan::Answer { start: 0, end: 8 });
        let wrong = sealed(&[1, 6, 0, 0x11, 0x12, 0x34]);
        assert_eq!(scan(&wrong, &expect, &none), Scan::Fault(Fault::Mismatch(wrong.clone())));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_and_never_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let expect = Expect::read(1, 3, 0, 2, 4);
            if let Scan::Answer { start, end } = scan(&bytes, &expect, &|unit, _| unit == 2) {
                let frame = &bytes[start..end];
                prop_assert!(is_sealed(frame) && frame[0] == 1 && (frame[1] == 3 || frame[1] == 0x83));
            }
        }

        #[test]
        fn the_answer_survives_any_leading_noise(noise in prop::collection::vec(any::<u8>(), 0..12)) {
            // Noise that happens to look like the beginning of the answer is indistinguishable.
            prop_assume!(!noise.contains(&1));
            let expect = Expect::read(1, 3, 0, 2, 4);
            let mut line = noise.clone();
            line.extend(sealed(&[1, 3, 4, 1, 2, 3, 4]));
            let found = scan(&line, &expect, &none);
            let right = matches!(&found, Scan::Answer { start, .. } if *start == noise.len());
            prop_assert!(right || matches!(found, Scan::Fault(Fault::Foreign(_))));
        }

        #[test]
        fn one_flipped_bit_is_always_found(bit in 0_usize..72) {
            let expect = Expect::read(1, 3, 0, 2, 4);
            let mut frame = sealed(&[1, 3, 4, 1, 2, 3, 4]);
            frame[bit / 8] ^= 1 << (bit % 8);
            let accepted = matches!(scan(&frame, &expect, &none), Scan::Answer { .. });
            prop_assert!(!accepted);
        }
    }
}
