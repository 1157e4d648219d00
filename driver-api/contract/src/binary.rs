//! The two bodies that are frequent enough to be binary, little-endian: READ and ACK.

use crate::{Cause, Malformed};

/// Body of READ: `u32 group, u32 deadline_ms, u8 cause, 3 x 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The group bound before.
    pub group: u32,
    /// Time until the request must be complete, milliseconds from submit.
    pub deadline_ms: u32,
    /// Cause the samples will carry: poll, integrity, resync.
    pub cause: Cause,
}

impl Read {
    /// Length of the body, bytes.
    pub const SIZE: usize = 12;

    /// The body.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut body = [0; Self::SIZE];
        let (group, rest) = body.split_at_mut(4);
        group.copy_from_slice(&self.group.to_le_bytes());
        let (deadline, rest) = rest.split_at_mut(4);
        deadline.copy_from_slice(&self.deadline_ms.to_le_bytes());
        if let Some(cause) = rest.first_mut() {
            *cause = self.cause as u8;
        }
        body
    }

    /// Reads the body; longer bodies of later minors are accepted.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let short = || Malformed::new("READ body", "12 bytes", body.len().to_string());
        let (group, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
        let (deadline, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (cause, _) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        Ok(Self {
            group: u32::from_le_bytes(*group),
            deadline_ms: u32::from_le_bytes(*deadline),
            cause: Cause::of(cause[0]),
        })
    }
}

/// What became of delivered records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The far side confirmed.
    Delivered = 0,
    /// The far side will never take it.
    Rejected = 1,
    /// Not now; deliver again.
    Retry = 2,
}

/// One entry of ACK: `u64 first, u32 count, u8 verdict, u8 0, u16 reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// First record number.
    pub first: u64,
    /// Number of records.
    pub count: u32,
    /// What became of them.
    pub verdict: Verdict,
    /// Index into `describe.reasons`; 0 = none.
    pub reason: u16,
}

/// Length of one entry of ACK, bytes.
pub const ACK_SIZE: usize = 16;

/// The body of ACK: the lane (`u32`), then entries.
#[must_use]
pub fn encode_acks(lane: u32, acks: &[Ack]) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + acks.len() * ACK_SIZE);
    body.extend_from_slice(&lane.to_le_bytes());
    for ack in acks {
        body.extend_from_slice(&ack.first.to_le_bytes());
        body.extend_from_slice(&ack.count.to_le_bytes());
        body.push(ack.verdict as u8);
        body.push(0);
        body.extend_from_slice(&ack.reason.to_le_bytes());
    }
    body
}

/// Reads the body of ACK: lane and entries.
pub fn decode_acks(body: &[u8]) -> Result<(u32, Vec<Ack>), Malformed> {
    let bad = || Malformed::new("ACK body", "4 bytes and entries of 16 bytes", body.len().to_string());
    let (lane, entries) = body.split_first_chunk::<4>().ok_or_else(bad)?;
    if entries.len() % ACK_SIZE != 0 {
        return Err(bad());
    }
    let acks = entries.chunks_exact(ACK_SIZE).map(decode_ack).collect::<Result<_, _>>()?;
    Ok((u32::from_le_bytes(*lane), acks))
}

fn decode_ack(entry: &[u8]) -> Result<Ack, Malformed> {
    let bad = || Malformed::new("ACK entry", "16 bytes", entry.len().to_string());
    let (first, rest) = entry.split_first_chunk::<8>().ok_or_else(bad)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    let ([verdict, _, low, high], _) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    let verdict = match verdict {
        0 => Verdict::Delivered,
        1 => Verdict::Rejected,
        2 => Verdict::Retry,
        other => return Err(Malformed::new("ACK verdict", "0 to 2", other.to_string())),
    };
    Ok(Ack {
        first: u64::from_le_bytes(*first),
        count: u32::from_le_bytes(*count),
        verdict,
        reason: u16::from_le_bytes([*low, *high]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_bytes_are_frozen() {
        let read = Read { group: 7, deadline_ms: 3000, cause: Cause::Resync };
        assert_eq!(read.encode(), [7, 0, 0, 0, 0xb8, 0x0b, 0, 0, 5, 0, 0, 0]);
        assert_eq!(Read::decode(&read.encode()), Ok(read));
        assert!(Read::decode(&[0; 11]).is_err());
    }

    #[test]
    fn ack_bytes_are_frozen() {
        let acks = [Ack { first: 258, count: 3, verdict: Verdict::Rejected, reason: 2 }];
        let body = encode_acks(1, &acks);
        assert_eq!(body, [1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 2, 0]);
        assert_eq!(decode_acks(&body), Ok((1, acks.to_vec())));
        assert!(decode_acks(&body[..19]).is_err());
        assert!(decode_acks(&[]).is_err());
    }
}
