//! Bytes from a network nobody controls: no panic, nothing unbounded, and what is understood can be said again.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use busbar_iec104::apci::{Decoded, MAX_ASDU, MAX_FRAME, decode};
use busbar_iec104::asdu::{Asdu, Header, Packer, Reason, TypeId, mirror};
use common::Random;

/// Reads an ASDU, writes it again, reads that: nothing may have changed but reserved bits.
fn understand(bytes: &[u8]) -> bool {
    let mirrored = mirror(bytes, Reason::UNKNOWN_TYPE, true);
    assert!(mirrored.is_empty() || mirrored.len() == bytes.len());
    let Ok(asdu) = Asdu::decode(bytes) else { return false };
    let Header { type_id, cause, common_address, sequence, count } = asdu.header;
    assert_eq!(asdu.objects.len(), usize::from(count));
    let mut packer = Packer::new(type_id, cause, common_address, sequence);
    for object in &asdu.objects {
        assert_eq!(packer.push(*object), Ok(true), "{object:?}");
    }
    let again = packer.finish();
    assert_eq!(again.len(), bytes.len());
    let second = Asdu::decode(&again).map(|asdu| format!("{asdu:?}"));
    assert_eq!(second, Ok(format!("{asdu:?}")), "text, because NaN is not equal to itself");
    true
}

#[test]
fn any_bytes_are_an_asdu_or_an_error() {
    let mut random = Random(104);
    let mut understood = 0;
    for round in 0..60_000_u32 {
        let mut bytes = random.bytes(MAX_ASDU as u64);
        // Every second one gets a known type and the length that its count asks for.
        if round % 2 == 0 && bytes.len() > 9 {
            let type_id = TypeId::ALL[random.below(TypeId::ALL.len() as u64) as usize];
            let (kind, time) = type_id.layout().unwrap();
            let each = kind.size() + time.size();
            bytes[0] = type_id.0;
            let count = (bytes[1] & 0x7f).max(1) as usize;
            let size = if bytes[1] & 0x80 != 0 { 9 + count * each } else { 6 + count * (3 + each) };
            bytes[1] = bytes[1] & 0x80 | count as u8;
            bytes.resize(size.min(MAX_ASDU), 0x5a);
        }
        understood += u32::from(understand(&bytes));
    }
    assert!(understood > 5_000, "{understood}");
}

#[test]
fn mutated_streams_are_frames_or_an_error() {
    let mut random = Random(68);
    let frames: [&[u8]; 4] = [
        &[0x68, 14, 0, 0, 0, 0, 100, 1, 6, 0, 1, 0, 0, 0, 0, 20],
        &[0x68, 4, 0x43, 0, 0, 0],
        &[0x68, 4, 1, 0, 6, 0],
        &[0x68, 21, 2, 0, 4, 0, 30, 1, 3, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 26],
    ];
    let mut refused = 0;
    for _ in 0..60_000 {
        let mut stream: Vec<u8> = (0..4).flat_map(|_| frames[random.below(4) as usize]).copied().collect();
        for _ in 0..random.below(4) {
            let place = random.below(stream.len() as u64) as usize;
            match random.below(3) {
                0 => stream[place] ^= 1 << random.below(8),
                1 => stream.truncate(place + 1),
                _ => stream.insert(place, random.next() as u8),
            }
        }
        let mut rest = &stream[..];
        loop {
            match decode(rest) {
                Ok(Decoded::Frame { apdu, used }) => {
                    assert!((6..=MAX_FRAME).contains(&used));
                    if let busbar_iec104::apci::Apdu::Information { asdu, .. } = apdu {
                        understand(asdu);
                    }
                    rest = &rest[used..];
                }
                Ok(Decoded::Incomplete) => {
                    assert!(rest.len() < MAX_FRAME);
                    break;
                }
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
    }
    assert!(refused > 10_000, "{refused}");
}
