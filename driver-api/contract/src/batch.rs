//! Batches: flags, and the owned form [`Samples`] that drivers fill and sinks read.
//!
//! Value times: a sample made by the host carries the host's time; where the source time of its value differs, the
//! batch has [`TIMES`] set and its blob ends with `n x { u32 index, i64 value_ts_ns }, u32 n` (little-endian), so that
//! the 24-byte sample stays as it is and batches without such samples pay nothing.

use busbar_abi::{Batch, Sample};

use crate::{Cause, Flags, Malformed, Quality, Value};

/// Completes the request named by `Batch.id`.
pub const LAST: u32 = 1;
/// One consistent unit: never split, filtered or reordered.
pub const BLOCK: u32 = 2;
/// Sinks: the image of all points, before deltas.
pub const SNAPSHOT: u32 = 4;
/// Part of a resync.
pub const RESYNC: u32 = 8;
/// Sinks: a record from the backlog.
pub const REPLAY: u32 = 16;
/// The blob ends with value times.
pub const TIMES: u32 = 32;

/// Most samples in one batch; a larger one is refused (G9).
pub const MAX_SAMPLES: usize = 65_536;
/// Largest blob of one batch, bytes.
pub const MAX_BLOB: usize = 16 * 1024 * 1024;

/// Samples with the arena of their texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The samples, in order.
    pub samples: Vec<Sample>,
    /// Arena of texts, bytes and JSON.
    pub blob: Vec<u8>,
}

impl Samples {
    /// Room for `n` samples.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { samples: Vec::with_capacity(n), blob: Vec::new() }
    }

    /// Appends one sample.
    pub fn push(&mut self, point: u32, ts_ns: i64, value: &Value, quality: Quality, flags: Flags) {
        let bits = value.encode(&mut self.blob);
        let kind = value.kind() as u8;
        self.samples.push(Sample { ts_ns, bits, point, quality: quality.0, kind, flags: flags.0 });
    }

    /// The value of `sample`, which must come from this batch.
    pub fn value(&self, sample: &Sample) -> Result<Value, Malformed> {
        Value::decode(sample.kind, sample.bits, &self.blob)
    }

    /// Takes a batch from the waist after checking its size.
    pub fn from_batch(batch: Batch) -> Result<Self, Malformed> {
        if batch.samples.len() > MAX_SAMPLES || batch.blob.len() > MAX_BLOB {
            return Err(Malformed::new(
                "batch",
                format!("at most {MAX_SAMPLES} samples and {MAX_BLOB} bytes"),
                format!("{} samples and {} bytes", batch.samples.len(), batch.blob.len()),
            ));
        }
        Ok(Self { samples: batch.samples.into_vec(), blob: batch.blob.into_vec() })
    }

    /// Makes the batch for the waist.
    #[must_use]
    pub fn into_batch(self, id: u64, op: u32, flags: u32) -> Batch {
        Batch { id, op, flags, samples: self.samples.into(), blob: self.blob.into() }
    }

    /// Appends the table of value times; the batch must then travel with [`TIMES`].
    pub fn append_times(&mut self, times: &[(u32, i64)]) {
        for (index, ts_ns) in times {
            self.blob.extend_from_slice(&index.to_le_bytes());
            self.blob.extend_from_slice(&ts_ns.to_le_bytes());
        }
        self.blob.extend_from_slice(&(times.len() as u32).to_le_bytes());
    }

    /// Removes and returns the table of value times.
    pub fn take_times(&mut self) -> Result<Vec<(u32, i64)>, Malformed> {
        const ENTRY: usize = 12;
        let bad = |found: String| Malformed::new("value times", "n entries of 12 bytes and a count", found);
        let total = self.blob.len();
        let (rest, count) = self.blob.split_last_chunk::<4>().ok_or_else(|| bad(format!("{total} bytes")))?;
        let count = u32::from_le_bytes(*count) as usize;
        let start = count
            .checked_mul(ENTRY)
            .and_then(|size| rest.len().checked_sub(size))
            .ok_or_else(|| bad(format!("{count} entries in {total} bytes")))?;
        let times = rest
            .get(start..)
            .unwrap_or_default()
            .chunks_exact(ENTRY)
            .filter_map(|entry| {
                let (index, ts) = entry.split_first_chunk::<4>()?;
                Some((u32::from_le_bytes(*index), i64::from_le_bytes(ts.try_into().ok()?)))
            })
            .collect();
        self.blob.truncate(start);
        Ok(times)
    }
}

/// Cause of a sample.
#[must_use]
pub const fn cause(sample: &Sample) -> Cause {
    Cause::of(sample.flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_hostile_tables_are_refused() {
        let mut samples = Samples::default();
        samples.push(1, 10, &Value::Text("a".into()), Quality::GOOD, Flags::new(Cause::Host, 0));
        let before = samples.clone();
        samples.append_times(&[(0, -3)]);
        assert_eq!(samples.take_times(), Ok(vec![(0, -3)]));
        assert_eq!(samples, before);
        for blob in [vec![], vec![1, 0, 0, 0], vec![0xff; 16]] {
            assert!(Samples { samples: vec![], blob }.take_times().is_err());
        }
    }
}
