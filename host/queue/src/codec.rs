//! The content of one row: the records of one poll of one device, as few bytes as they need. Pure.
//!
//! ```text
//! row     = version (1) | count varint | sparse u8 | [gap varint x (count - 1)] | entry x count | crc32
//! entry   = control u8 | [point signed] | [ts signed] | [value_ts signed] | [quality varint] | [meta: kind, flags, class] | value
//! ```
//!
//! What an entry has in common with the one before it costs nothing: points of a poll follow each other, times and kinds
//! are the same. A float32 of a poll takes five bytes. Differences are taken modulo 2^64, so that no time stamp, however
//! wrong, is altered. The checksum covers the row's first number too: a row in the wrong place is a damaged row.

use std::sync::Arc;

use busbar_contract::Sample;
use busbar_core::journal::{Entry, Kept};

use crate::bytes::{Reader, crc32, put_bytes, put_signed, put_varint};

/// First byte of every row.
const VERSION: u8 = 1;
/// Most entries of one row: one batch of the contract.
pub(crate) const MAX_ENTRIES: usize = busbar_contract::batch::MAX_SAMPLES;
/// Bytes of the checksum at the end.
const CRC: usize = 4;

/// The point is the one after the entry before.
const NEXT_POINT: u8 = 1;
/// Same `ts_ns` as the entry before.
const SAME_TS: u8 = 2;
/// `value_ts_ns` is `ts_ns`.
const VALUE_TS_IS_TS: u8 = 4;
/// Quality 0.
const GOOD: u8 = 8;
/// Same kind, flags, class and batch flags as the entry before.
const SAME_META: u8 = 16;
/// Form of the value: two bits.
const FORM: u8 = 0x60;
const FORM_4: u8 = 0;
const FORM_VARINT: u8 = 0x20;
const FORM_8: u8 = 0x40;
const FORM_BLOB: u8 = 0x60;

/// What the entry before said.
#[derive(Clone, Copy)]
struct Before {
    point: u32,
    ts_ns: i64,
    meta: [u8; 3],
}

impl Before {
    const START: Self = Self { point: u32::MAX, ts_ns: 0, meta: [0; 3] };
}

/// Writes a row. `point` gives the dictionary's number of an entry's point. `None`: the entries are no row (empty, too
/// many, numbers not ascending, a point without number).
pub(crate) fn encode(entries: &[Entry], point: impl Fn(&Entry) -> Option<u32>) -> Option<Vec<u8>> {
    let (first, last) = (entries.first()?.number, entries.last()?.number);
    if entries.len() > MAX_ENTRIES || !entries.is_sorted_by(|a, b| a.number < b.number) {
        return None;
    }
    let mut out = Vec::with_capacity(16 + entries.len() * 8);
    out.push(VERSION);
    put_varint(&mut out, entries.len() as u64);
    let sparse = last - first != entries.len() as u64 - 1;
    out.push(u8::from(sparse));
    if sparse {
        for (a, b) in entries.iter().zip(entries.iter().skip(1)) {
            put_varint(&mut out, b.number - a.number);
        }
    }
    let mut before = Before::START;
    for entry in entries {
        put_entry(&mut out, &mut before, entry, point(entry)?);
    }
    let crc = crc32(&[&first.to_le_bytes(), &out]);
    out.extend_from_slice(&crc.to_le_bytes());
    Some(out)
}

fn put_entry(out: &mut Vec<u8>, before: &mut Before, entry: &Entry, point: u32) {
    let sample = &entry.sample;
    let meta = [sample.kind, sample.flags, class(entry.kept) | entry.flags << 2];
    let form = match (&entry.blob, sample.bits) {
        (Some(_), _) => FORM_BLOB,
        (None, bits) if bits < 1 << 28 => FORM_VARINT,
        (None, bits) if u32::try_from(bits).is_ok() => FORM_4,
        (None, bits) if bits < 1 << 49 => FORM_VARINT,
        _ => FORM_8,
    };
    let when = |condition: bool, bit: u8| if condition { bit } else { 0 };
    let control = form
        | when(point == before.point.wrapping_add(1), NEXT_POINT)
        | when(sample.ts_ns == before.ts_ns, SAME_TS)
        | when(entry.value_ts_ns == sample.ts_ns, VALUE_TS_IS_TS)
        | when(sample.quality == 0, GOOD)
        | when(meta == before.meta, SAME_META);
    // What most entries of a poll are.
    if control == (NEXT_POINT | SAME_TS | VALUE_TS_IS_TS | GOOD | SAME_META | FORM_4) {
        let [a, b, c, d] = (sample.bits as u32).to_le_bytes();
        out.extend_from_slice(&[control, a, b, c, d]);
        before.point = point;
        return;
    }
    out.push(control);
    if control & NEXT_POINT == 0 {
        put_signed(out, i64::from(point) - i64::from(before.point));
    }
    if control & SAME_TS == 0 {
        put_signed(out, sample.ts_ns.wrapping_sub(before.ts_ns));
    }
    if control & VALUE_TS_IS_TS == 0 {
        put_signed(out, entry.value_ts_ns.wrapping_sub(sample.ts_ns));
    }
    if control & GOOD == 0 {
        put_varint(out, u64::from(sample.quality));
    }
    if control & SAME_META == 0 {
        out.extend_from_slice(&meta);
    }
    match (form, &entry.blob) {
        (FORM_BLOB, Some(blob)) => put_bytes(out, blob),
        (FORM_4, _) => out.extend_from_slice(&(sample.bits as u32).to_le_bytes()),
        (FORM_VARINT, _) => put_varint(out, sample.bits),
        _ => out.extend_from_slice(&sample.bits.to_le_bytes()),
    }
    *before = Before { point, ts_ns: sample.ts_ns, meta };
}

/// Reads a row whose first number is `first`; points are dictionary numbers. `None`: damaged.
pub(crate) fn decode(first: u64, data: &[u8]) -> Option<Vec<Entry>> {
    let (mut reader, numbers) = open(first, data)?;
    let mut before = Before::START;
    let entries = numbers
        .into_iter()
        .map(|number| take_entry(&mut reader, &mut before, number))
        .collect::<Option<Vec<_>>>()?;
    reader.is_empty().then_some(entries)
}

/// The numbers of a row's entries only.
pub(crate) fn numbers(first: u64, data: &[u8]) -> Option<Vec<u64>> {
    Some(open(first, data)?.1)
}

fn open(first: u64, data: &[u8]) -> Option<(Reader<'_>, Vec<u64>)> {
    let (content, crc) = data.split_at_checked(data.len().checked_sub(CRC)?)?;
    if crc32(&[&first.to_le_bytes(), content]).to_le_bytes() != crc {
        return None;
    }
    let mut reader = Reader::new(content);
    if reader.byte()? != VERSION {
        return None;
    }
    let count = usize::try_from(reader.varint()?).ok()?;
    // Every entry takes two bytes at least: nothing is allocated for entries that cannot be there.
    if count == 0 || count > MAX_ENTRIES || count > reader.remaining() / 2 {
        return None;
    }
    let sparse = match reader.byte()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut numbers = Vec::with_capacity(count);
    let mut number = first;
    numbers.push(number);
    for _ in 1..count {
        let step = if sparse { reader.varint().filter(|step| *step > 0)? } else { 1 };
        number = number.checked_add(step)?;
        numbers.push(number);
    }
    Some((reader, numbers))
}

fn take_entry(reader: &mut Reader<'_>, before: &mut Before, number: u64) -> Option<Entry> {
    let control = reader.byte()?;
    if control & !(NEXT_POINT | SAME_TS | VALUE_TS_IS_TS | GOOD | SAME_META | FORM) != 0 {
        return None;
    }
    let point = if control & NEXT_POINT == 0 {
        u32::try_from(i64::from(before.point).checked_add(reader.signed()?)?).ok()?
    } else {
        before.point.wrapping_add(1)
    };
    let ts_ns =
        if control & SAME_TS == 0 { before.ts_ns.wrapping_add(reader.signed()?) } else { before.ts_ns };
    let value_ts_ns =
        if control & VALUE_TS_IS_TS == 0 { ts_ns.wrapping_add(reader.signed()?) } else { ts_ns };
    let quality = if control & GOOD == 0 { u16::try_from(reader.varint()?).ok()? } else { 0 };
    let meta = if control & SAME_META == 0 { reader.array()? } else { before.meta };
    *before = Before { point, ts_ns, meta };
    let (bits, blob) = match control & FORM {
        FORM_4 => (u64::from(u32::from_le_bytes(reader.array()?)), None),
        FORM_VARINT => (reader.varint()?, None),
        FORM_8 => (u64::from_le_bytes(reader.array()?), None),
        _ => {
            let blob: Arc<[u8]> = reader.bytes()?.into();
            (blob.len() as u64, Some(blob))
        }
    };
    let [kind, flags, class] = meta;
    Some(Entry {
        number,
        sample: Sample { ts_ns, bits, point, quality, kind, flags },
        value_ts_ns,
        blob,
        kept: kept(class & 3)?,
        flags: class >> 2,
    })
}

const fn class(kept: Kept) -> u8 {
    match kept {
        Kept::State => 0,
        Kept::Event => 1,
        Kept::History => 2,
    }
}

const fn kept(class: u8) -> Option<Kept> {
    match class {
        0 => Some(Kept::State),
        1 => Some(Kept::Event),
        2 => Some(Kept::History),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(number: u64, point: u32, value: f32) -> Entry {
        let sample = Sample {
            ts_ns: 1_767_225_600_123_000_000,
            bits: u64::from(value.to_bits()),
            point,
            quality: 0,
            kind: 4,
            flags: 0,
        };
        Entry { number, sample, value_ts_ns: sample.ts_ns, blob: None, kept: Kept::State, flags: 0 }
    }

    fn write(entries: &[Entry]) -> Option<Vec<u8>> {
        encode(entries, |entry| Some(entry.sample.point))
    }

    #[test]
    fn a_poll_of_floats_takes_five_bytes_each() {
        let entries: Vec<Entry> = (0..50).map(|n| float(1000 + n, n as u32, 231.4 + n as f32)).collect();
        let data = write(&entries).unwrap();
        assert_eq!(decode(1000, &data).unwrap(), entries);
        assert!(data.len() <= 50 * 5 + 20, "{} bytes", data.len());
    }

    /// The form on disk: what an older version wrote must be read for ever.
    #[test]
    fn form_on_disk_is_fixed() {
        let mut second = float(9, 4, 0.0);
        second.sample.quality = 0x1001;
        second.sample.kind = 9;
        second.sample.flags = 6;
        second.sample.bits = 2;
        second.value_ts_ns += 1;
        second.blob = Some(Arc::from(&b"on"[..]));
        second.kept = Kept::Event;
        second.flags = 2;
        let entries = [float(7, 3, 1.0), second];
        let data = write(&entries).unwrap();
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010201020cf7ffffff1f80d3f6d4be94b986310400000000803f63028120090609026f6e".to_owned()
                + &hex[hex.len() - 8..]
        );
        assert_eq!(decode(7, &data).unwrap(), entries);
        assert_eq!(numbers(7, &data).unwrap(), [7, 9]);
        assert_eq!(decode(8, &data), None, "a row in another place");
    }

    #[test]
    fn no_row_is_made_of_nonsense() {
        assert_eq!(write(&[]), None);
        assert_eq!(write(&[float(2, 0, 0.0), float(2, 1, 0.0)]), None);
        assert_eq!(write(&[float(3, 0, 0.0), float(2, 1, 0.0)]), None);
        assert_eq!(encode(&[float(1, 0, 0.0)], |_| None), None);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let entries: Vec<Entry> = (0..5).map(|n| float(10 + 2 * n, n as u32 * 7, 1.5)).collect();
        let good = write(&entries).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode(10, &bad), None, "byte {at} bit {bit}");
            }
            assert_eq!(decode(10, &good[..at]), None, "cut at {at}");
        }
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let sample = (any::<i64>(), any::<u64>(), any::<u32>(), any::<u16>(), any::<u8>(), any::<u8>());
        let blob = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        (sample, any::<i64>(), blob, 0_u8..3, 0_u8..64).prop_map(
            |(sample, value_ts_ns, blob, class, batch)| {
                let (ts_ns, bits, point, quality, kind, flags) = sample;
                let bits = blob.as_ref().map_or(bits >> (bits % 64), |blob| blob.len() as u64);
                Entry {
                    number: 0,
                    sample: Sample { ts_ns, bits, point, quality, kind, flags },
                    value_ts_ns,
                    blob: blob.map(Into::into),
                    kept: kept(class).unwrap(),
                    flags: batch,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_record_comes_back(
            first in 0_u64..1 << 62,
            entries in proptest::collection::vec((any_entry(), 1_u64..3), 1..60),
        ) {
            let mut number = first;
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(entry, step)| {
                    let entry = Entry { number, ..entry };
                    number += step;
                    entry
                })
                .collect();
            let data = write(&entries).unwrap();
            prop_assert_eq!(decode(first, &data).unwrap(), entries);
        }

        /// Also with a right checksum nothing panics and nothing is allocated beyond the data.
        #[test]
        fn hostile_rows_are_refused_or_read(mut data in proptest::collection::vec(any::<u8>(), 0..200), valid: bool) {
            if valid && !data.is_empty() {
                data[0] = VERSION;
            }
            let crc = crc32(&[&7_u64.to_le_bytes(), &data]);
            data.extend_from_slice(&crc.to_le_bytes());
            if let Some(entries) = decode(7, &data) {
                prop_assert!(!entries.is_empty() && entries.len() <= data.len());
                prop_assert_eq!(entries[0].number, 7);
            }
        }
    }
}
