//! TPKT (RFC 1006 clause 6): cuts the byte stream into packets, one at a time.
//!
//! The association below would take any number of octets at once, but its queue of events drops the oldest
//! when it is full. So it is fed packet by packet, and its events are taken out after each: nothing can be
//! dropped unseen. An octet that cannot begin a packet ends the session, because there is no way back into
//! step.

use crate::limits::MAX_RECEIVED;

/// Version octet of every packet.
const VERSION: u8 = 3;
/// Octets of the header.
const HEADER: usize = 4;
/// Header plus the shortest TPDU (length indicator, code, one octet).
const SHORTEST: usize = HEADER + 3;

/// The received stream, cut into packets.
#[derive(Debug, Default)]
pub struct Cutter {
    buffer: Vec<u8>,
    taken: usize,
}

impl Cutter {
    /// Appends received octets.
    ///
    /// # Errors
    /// The number of octets that would wait, where that is more than [`MAX_RECEIVED`]: take packets first.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let waiting = self.waiting() + bytes.len();
        if waiting > MAX_RECEIVED {
            return Err(waiting);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Octets received and not taken yet.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Takes the next complete packet, header included; `None` while it is incomplete.
    ///
    /// # Errors
    /// What was expected and found, where the stream is not TPKT.
    pub fn next_packet(&mut self) -> Result<Option<&[u8]>, String> {
        let rest = self.buffer.get(self.taken..).unwrap_or(&[]);
        if let Some(version) = rest.first()
            && *version != VERSION
        {
            return Err(format!("expected a TPKT packet (version 3), got octet {version:#04x}"));
        }
        let (Some(high), Some(low)) = (rest.get(2), rest.get(3)) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length < SHORTEST {
            return Err(format!("expected a TPKT length of at least {SHORTEST}, got {length}"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.taken;
        self.taken += length;
        Ok(self.buffer.get(from..from + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_whole_however_they_arrive() {
        let stream = [3, 0, 0, 7, 2, 0xf0, 0x80, 3, 0, 0, 8, 2, 0xf0, 0x80, 9];
        for step in 1..stream.len() {
            let (mut cutter, mut got) = (Cutter::default(), Vec::new());
            for part in stream.chunks(step) {
                cutter.push(part).unwrap();
                while let Some(packet) = cutter.next_packet().unwrap() {
                    got.push(packet.to_vec());
                }
            }
            assert_eq!(got, [stream[..7].to_vec(), stream[7..].to_vec()], "step {step}");
            assert_eq!(cutter.waiting(), 0);
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_at_once() {
        let mut cutter = Cutter::default();
        cutter.push(b"HTTP").unwrap();
        assert_eq!(cutter.next_packet().unwrap_err(), "expected a TPKT packet (version 3), got octet 0x48");
        let mut cutter = Cutter::default();
        cutter.push(&[3, 0, 0, 4]).unwrap();
        assert_eq!(cutter.next_packet().unwrap_err(), "expected a TPKT length of at least 7, got 4");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut cutter = Cutter::default();
        cutter.push(&vec![3; MAX_RECEIVED]).unwrap();
        assert_eq!(cutter.push(&[3]), Err(MAX_RECEIVED + 1));
    }
}
