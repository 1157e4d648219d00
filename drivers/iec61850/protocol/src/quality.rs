//! Quality of values and of times (IEC 61850-7-3 table on quality, 8-1 8.1.3.7), in the gateway's bits.

use iec61850_rs::UtcTime;
use iec61850_rs::proto::data::Value;

use crate::data;

/// Quality in the gateway's layout: bits 0-1 validity (00 good, 01 invalid, 11 questionable), bit 2 overflow,
/// 3 out of range, 4 bad reference, 5 oscillatory, 6 failure, 7 old data, 8 inconsistent, 9 inaccurate,
/// 10 substituted, 11 test, 12 operator blocked, 14 clock not synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Quality(pub u16);

impl Quality {
    /// Good.
    pub const GOOD: Self = Self(0);
    /// Invalid, for a reference the device does not know.
    pub const BAD_REFERENCE: Self = Self(1 | 1 << 4);
    /// Invalid, for a value the device cannot give or that cannot be read.
    pub const FAILURE: Self = Self(1 | 1 << 6);
    /// The clock behind the time is not synchronised; says nothing about the value.
    pub const CLOCK_UNSYNCED: u16 = 1 << 14;

    /// Detail bits that IEC 61850 knows, 2 to 12.
    const DETAIL: u16 = 0x1ffc;

    /// Reads `q`: a bit string of 13 bits whose first bit is bit 0. `None` for anything else.
    ///
    /// The reserved validity 10 counts as invalid; the bit of derived values (13) says nothing to a gateway.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let Value::BitString { unused, bytes } = value else { return None };
        if (bytes.len() * 8).saturating_sub(usize::from(*unused)) < 13 {
            return None;
        }
        let bits = data::low_bits(value)?;
        let validity = match bits & 0b11 {
            0b00 => 0b00,
            0b11 => 0b11,
            _ => 0b01,
        };
        Some(Self((bits & Self::DETAIL) | validity))
    }

    /// Invalid by failure, with the details it had.
    #[must_use]
    pub const fn failed(self) -> Self {
        Self((self.0 & !0b11) | Self::FAILURE.0)
    }

    /// With the clock bit set or not.
    #[must_use]
    pub const fn with_clock(self, unsynced: bool) -> Self {
        if unsynced { Self(self.0 | Self::CLOCK_UNSYNCED) } else { self }
    }
}

/// Source time of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceTime {
    /// ns since 1970 UTC.
    pub unix_ns: u64,
    /// The device's clock has failed or is not synchronised.
    pub unsynced: bool,
}

impl SourceTime {
    /// Reads `t`. `None` for another type and for the zero time, with which a device says that it knows none.
    #[must_use]
    pub const fn read(value: &Value) -> Option<Self> {
        let Value::UtcTime(time) = value else { return None };
        if time.seconds == 0 {
            return None;
        }
        Some(Self {
            unix_ns: nanoseconds(*time),
            unsynced: time.quality.clock_failure || time.quality.clock_not_synchronized,
        })
    }
}

/// ns since 1970. A fraction has 24 bits, 60 ns: a device that means .120 sends 119 999 945 ns. What is nearer to
/// a whole millisecond than that is the millisecond, or a sink that keeps milliseconds would show .119.
const fn nanoseconds(time: UtcTime) -> u64 {
    const RESOLUTION: u64 = 60;
    const MILLISECOND: u64 = 1_000_000;
    let fraction = (time.fraction & 0x00ff_ffff) as u64;
    let exact = time.seconds as u64 * 1_000_000_000 + ((fraction * 1_000_000_000) >> 24);
    let nearest = (exact + MILLISECOND / 2) / MILLISECOND * MILLISECOND;
    if exact.abs_diff(nearest) <= RESOLUTION { nearest } else { exact }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iec61850_rs::TimeQuality;

    /// The bit string with exactly the bits `set`, as it comes from the wire.
    fn wire(set: &[usize]) -> Value {
        let mut bytes = vec![0_u8; 2];
        for bit in set {
            bytes[bit / 8] |= 0x80 >> (bit % 8);
        }
        Value::BitString { unused: 3, bytes }
    }

    #[test]
    fn every_bit_has_its_place() {
        assert_eq!(Quality::read(&wire(&[])), Some(Quality::GOOD));
        assert_eq!(Quality::read(&wire(&[1])), Some(Quality(0b01)), "invalid is 01");
        assert_eq!(Quality::read(&wire(&[0])), Some(Quality(0b01)), "reserved 10 is invalid");
        assert_eq!(Quality::read(&wire(&[0, 1])), Some(Quality(0b11)), "questionable is 11");
        for bit in 2..=12 {
            assert_eq!(Quality::read(&wire(&[bit])), Some(Quality(1 << bit)), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_quality_is_none() {
        assert_eq!(Quality::read(&Value::Boolean(true)), None);
        assert_eq!(Quality::read(&Value::BitString { unused: 6, bytes: vec![0] }), None);
        let longer = Value::BitString { unused: 2, bytes: vec![0, 0b100] };
        assert_eq!(Quality::read(&longer), Some(Quality::GOOD), "derived, bit 13, says nothing");
    }

    #[test]
    fn times_keep_their_milliseconds() {
        for ms in 0..1_000_u32 {
            let time = UtcTime::from_unix(1_700_000_000, ms * 1_000_000, TimeQuality::SYNCHRONIZED);
            let read = SourceTime::read(&Value::UtcTime(time)).unwrap();
            assert_eq!(read.unix_ns, 1_700_000_000_000_000_000 + u64::from(ms) * 1_000_000);
            assert!(!read.unsynced);
        }
        let failed = TimeQuality { clock_failure: true, ..TimeQuality::SYNCHRONIZED };
        let time = Value::UtcTime(UtcTime::from_unix(1, 0, failed));
        assert!(SourceTime::read(&time).unwrap().unsynced);
        assert!(
            SourceTime::read(&Value::UtcTime(UtcTime::from_unix(1, 0, TimeQuality::UNSYNCHRONIZED)))
                .unwrap()
                .unsynced
        );
        assert_eq!(SourceTime::read(&Value::UtcTime(UtcTime::from_unix(0, 0, failed))), None);
    }
}
