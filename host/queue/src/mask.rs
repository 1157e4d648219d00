//! Which records of a row have ended: one bit per entry, with a checksum of its own. Pure.
//!
//! A row that is confirmed in parts keeps its content as it was written; only this small column changes.

use crate::bytes::crc32;

/// Bytes of the checksum in front.
const CRC: usize = 4;

/// The bits of one row; entry `i` of the row is bit `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    bits: Vec<u8>,
    count: usize,
}

impl Mask {
    /// Nothing ended yet.
    pub(crate) fn new(count: usize) -> Self {
        Self { bits: vec![0; count.div_ceil(8)], count }
    }

    /// From the column of the row `first` with `count` entries; NULL is nothing ended. `None`: damaged.
    pub(crate) fn read(first: u64, count: usize, column: Option<&[u8]>) -> Option<Self> {
        let Some(column) = column else { return Some(Self::new(count)) };
        let (crc, bits) = column.split_first_chunk::<CRC>()?;
        let spare = bits.last().is_some_and(|last| !count.is_multiple_of(8) && last >> (count % 8) != 0);
        let good = bits.len() == count.div_ceil(8) && !spare && sum(first, bits) == *crc;
        good.then(|| Self { bits: bits.to_vec(), count })
    }

    /// The column.
    pub(crate) fn write(&self, first: u64) -> Vec<u8> {
        [sum(first, &self.bits).as_slice(), &self.bits].concat()
    }

    /// Entry `index` has ended.
    pub(crate) fn is_set(&self, index: usize) -> bool {
        self.bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Marks entry `index` as ended; false when it was already, or when there is no such entry.
    pub(crate) fn set(&mut self, index: usize) -> bool {
        if index >= self.count || self.is_set(index) {
            return false;
        }
        if let Some(byte) = self.bits.get_mut(index / 8) {
            *byte |= 1 << (index % 8);
        }
        true
    }

    /// Entry `index` waits again; false when it did, or when there is no such entry.
    pub(crate) fn clear(&mut self, index: usize) -> bool {
        if !self.is_set(index) {
            return false;
        }
        if let Some(byte) = self.bits.get_mut(index / 8) {
            *byte &= !(1 << (index % 8));
        }
        true
    }

    /// Entries that have not ended.
    pub(crate) fn waiting(&self) -> usize {
        let ended: u32 = self.bits.iter().map(|byte| byte.count_ones()).sum();
        self.count.saturating_sub(ended as usize)
    }
}

fn sum(first: u64, bits: &[u8]) -> [u8; CRC] {
    crc32(&[b"mask", &first.to_le_bytes(), bits]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_kept_and_damage_is_found() {
        let mut mask = Mask::new(11);
        assert!(mask.set(0) && mask.set(10) && mask.set(3));
        assert!(!mask.set(3) && !mask.set(11));
        assert_eq!(mask.waiting(), 8);
        let column = mask.write(70);
        assert_eq!(Mask::read(70, 11, Some(&column)), Some(mask));
        assert_eq!(Mask::read(70, 11, None), Some(Mask::new(11)));
        assert_eq!(Mask::read(71, 11, Some(&column)), None);
        assert_eq!(Mask::read(70, 12, Some(&column)).map(|mask| mask.waiting()), Some(9));
        assert_eq!(Mask::read(70, 10, Some(&column)), None);
        assert_eq!(Mask::read(70, 19, Some(&column)), None);
        for at in 0..column.len() {
            let mut bad = column.clone();
            bad[at] ^= 1;
            assert_eq!(Mask::read(70, 11, Some(&bad)), None);
            assert_eq!(Mask::read(70, 11, Some(&column[..at])), None);
        }
    }
}
