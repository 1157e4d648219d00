//! Quality: validity and detail bits in one `u16`, modelled on IEC 61850-7-3 `q`.
//!
//! Bit layout (frozen): bits 0-1 validity, then the detail bits in the order of IEC 61850-7-3 table 2, then two
//! bits of the gateway's own. Text form: `good`, `invalid|comm_lost`.

use std::fmt;

/// First two bits of a [`Quality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Validity {
    /// The value may be used.
    Good,
    /// The value may be used with care.
    Questionable,
    /// The value must not be used.
    Invalid,
}

/// Quality bit set of one sample.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Quality(pub u16);

/// Names of the detail bits, lowest first, beginning at bit 2.
pub const DETAIL_NAMES: [&str; 13] = [
    "overflow",
    "out_of_range",
    "bad_reference",
    "oscillatory",
    "failure",
    "old_data",
    "inconsistent",
    "inaccurate",
    "substituted",
    "test",
    "operator_blocked",
    "comm_lost",
    "clock_unsynced",
];

impl Quality {
    /// Good, no detail.
    pub const GOOD: Self = Self(0);
    /// Validity invalid.
    pub const INVALID: Self = Self(0b01);
    /// Validity questionable.
    pub const QUESTIONABLE: Self = Self(0b11);
    /// Value too large for its type.
    pub const OVERFLOW: Self = Self(1 << 2);
    /// Value outside the configured range.
    pub const OUT_OF_RANGE: Self = Self(1 << 3);
    /// The device does not know this address.
    pub const BAD_REFERENCE: Self = Self(1 << 4);
    /// Value oscillates.
    pub const OSCILLATORY: Self = Self(1 << 5);
    /// The device reports a failure, or the number is NaN or infinite.
    pub const FAILURE: Self = Self(1 << 6);
    /// Not refreshed in time.
    pub const OLD_DATA: Self = Self(1 << 7);
    /// Parts of the value contradict each other, or something on the way was dropped.
    pub const INCONSISTENT: Self = Self(1 << 8);
    /// Outside the stated accuracy.
    pub const INACCURATE: Self = Self(1 << 9);
    /// Entered by an operator.
    pub const SUBSTITUTED: Self = Self(1 << 10);
    /// Made for a test.
    pub const TEST: Self = Self(1 << 11);
    /// Blocked by an operator.
    pub const OPERATOR_BLOCKED: Self = Self(1 << 12);
    /// The device cannot be reached.
    pub const COMM_LOST: Self = Self(1 << 13);
    /// The clock behind the time stamp is not synchronised; says nothing about the value.
    pub const CLOCK_UNSYNCED: Self = Self(1 << 14);

    /// All bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` without the detail bits of `other`; validity is kept.
    #[must_use]
    pub const fn without_detail(self, other: Self) -> Self {
        Self(self.0 & !(other.0 & !0b11))
    }

    /// True when every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Validity; the reserved code 10 counts as invalid.
    #[must_use]
    pub const fn validity(self) -> Validity {
        match self.0 & 0b11 {
            0 => Validity::Good,
            0b11 => Validity::Questionable,
            _ => Validity::Invalid,
        }
    }

    /// `self` with the given validity.
    #[must_use]
    pub const fn with_validity(self, validity: Validity) -> Self {
        let bits = match validity {
            Validity::Good => 0,
            Validity::Questionable => 0b11,
            Validity::Invalid => 0b01,
        };
        Self((self.0 & !0b11) | bits)
    }

    /// Union of the detail bits with the worse validity of both: how device and host bits become effective quality.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        Self(self.0 | other.0).with_validity(self.validity().max(other.validity()))
    }

    /// Validity is good. `clock_unsynced` speaks about time only and does not count.
    #[must_use]
    pub const fn is_good(self) -> bool {
        self.0 & 0b11 == 0
    }

    /// Bits as received from a device: the reserved validity code becomes invalid, the unused bit 15 is cleared.
    #[must_use]
    pub const fn normalised(self) -> Self {
        let bits = self.0 & 0x7fff;
        Self(if bits & 0b11 == 0b10 { (bits & !0b11) | 0b01 } else { bits })
    }

    /// Appends the text form to `out`.
    pub fn write_text(self, out: &mut String) {
        out.push_str(match self.validity() {
            Validity::Good => "good",
            Validity::Questionable => "questionable",
            Validity::Invalid => "invalid",
        });
        for (bit, name) in DETAIL_NAMES.iter().enumerate() {
            if self.0 & (1 << (bit + 2)) != 0 {
                out.push('|');
                out.push_str(name);
            }
        }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, crate::Malformed> {
        let mut parts = text.split('|');
        let mut quality = match parts.next() {
            Some("good") => Self::GOOD,
            Some("questionable") => Self::QUESTIONABLE,
            Some("invalid") => Self::INVALID,
            other => {
                return Err(crate::Malformed::new(
                    "quality",
                    "good, questionable or invalid first",
                    other.unwrap_or(""),
                ));
            }
        };
        for part in parts {
            match DETAIL_NAMES.iter().position(|name| *name == part) {
                Some(bit) => quality.0 |= 1 << (bit + 2),
                None => {
                    return Err(crate::Malformed::new(
                        "quality",
                        format!("one of {}", DETAIL_NAMES.join(", ")),
                        part,
                    ));
                }
            }
        }
        Ok(quality)
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_text(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Quality {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Quality {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_for_every_bit_pattern() {
        for bits in 0..0x8000u16 {
            let quality = Quality(bits).normalised();
            assert_eq!(Quality::parse(&quality.to_string()), Ok(quality), "{bits:#06x}");
        }
    }

    #[test]
    fn worse_validity_wins_and_details_add() {
        let device = Quality::QUESTIONABLE.with(Quality::INACCURATE);
        let host = Quality::INVALID.with(Quality::COMM_LOST);
        assert_eq!(device.worst(host).to_string(), "invalid|inaccurate|comm_lost");
        assert_eq!(Quality(0b10).normalised(), Quality::INVALID);
        assert!(Quality::CLOCK_UNSYNCED.is_good());
    }
}
