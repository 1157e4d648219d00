//! Framing on the server side: cutting requests out of a stream, wrapping answers.

use crate::rtu::{is_sealed, seal};

/// A request and what its answer must repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) transaction: u16,
    pub(super) unit: u8,
    pub(super) pdu: Vec<u8>,
}

/// What the beginning of the buffer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A request of this many bytes.
    Request(Request, usize),
    /// More bytes are needed.
    More,
    /// Not Modbus.
    Garbage,
}

/// MBAP header: transaction, protocol 0, length, unit.
pub(super) fn cut_tcp(bytes: &[u8]) -> Cut {
    let &[th, tl, ph, pl, lh, ll, unit, ..] = bytes else { return Cut::More };
    let length = usize::from(u16::from_be_bytes([lh, ll]));
    if (ph, pl) != (0, 0) || !(2..=254).contains(&length) {
        return Cut::Garbage;
    }
    match bytes.get(7..6 + length) {
        Some(pdu) => {
            let transaction = u16::from_be_bytes([th, tl]);
            Cut::Request(Request { transaction, unit, pdu: pdu.to_vec() }, 6 + length)
        }
        None => Cut::More,
    }
}

/// Length by function; the end of a frame is not seen in a stream.
pub(super) fn cut_rtu(bytes: &[u8]) -> Cut {
    let length = match bytes.get(1) {
        None => return Cut::More,
        Some(15 | 16) => match bytes.get(6) {
            None => return Cut::More,
            Some(count) => 9 + usize::from(*count),
        },
        Some(_) => 8,
    };
    match bytes.get(..length) {
        None => Cut::More,
        Some(frame) if is_sealed(frame) => {
            let unit = frame.first().copied().unwrap_or(0);
            let pdu = frame.get(1..length - 2).unwrap_or(&[]).to_vec();
            Cut::Request(Request { transaction: 0, unit, pdu }, length)
        }
        Some(_) => Cut::Garbage,
    }
}

pub(super) fn wrap_tcp(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(7 + pdu.len());
    frame.extend_from_slice(&transaction.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
    frame.push(unit);
    frame.extend_from_slice(pdu);
    frame
}

pub(super) fn wrap_rtu(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(3 + pdu.len());
    frame.push(unit);
    frame.extend_from_slice(pdu);
    seal(&mut frame);
    frame
}
