//! Word and byte order of values that span registers.
//!
//! The protocol orders the two bytes of one register (high byte first, MODBUS Application Protocol 4.2)
//! and says nothing about values of several registers; every vendor chose one of four ways. With `A` the
//! most significant byte of a 32 bit value: `ABCD` big-endian, `CDAB` words swapped, `BADC` bytes swapped
//! within each word, `DCBA` both. 64 bit values follow the same rule over four words (`CDAB`: the least
//! significant word first). A 16 bit value knows only the byte swap, so `CDAB` reads it like `ABCD`.

use std::{fmt, str::FromStr};

use crate::problem::Problem;

/// The order in which the bytes of a value lie in its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// Most significant word first, high byte first.
    #[default]
    Abcd,
    /// Least significant word first, high byte first.
    Cdab,
    /// Most significant word first, low byte first.
    Badc,
    /// Least significant word first, low byte first.
    Dcba,
}

impl Order {
    /// All orders.
    pub const ALL: [Self; 4] = [Self::Abcd, Self::Cdab, Self::Badc, Self::Dcba];

    /// The word used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abcd => "ABCD",
            Self::Cdab => "CDAB",
            Self::Badc => "BADC",
            Self::Dcba => "DCBA",
        }
    }

    /// True where the least significant word comes first.
    #[must_use]
    pub const fn swaps_words(self) -> bool {
        matches!(self, Self::Cdab | Self::Dcba)
    }

    /// True where the low byte of each register comes first.
    #[must_use]
    pub const fn swaps_bytes(self) -> bool {
        matches!(self, Self::Badc | Self::Dcba)
    }

    /// One register, brought to high byte first (the same operation in both directions).
    #[must_use]
    pub const fn word(self, word: u16) -> u16 {
        if self.swaps_bytes() { word.swap_bytes() } else { word }
    }

    /// Joins up to four registers to a number, most significant word of the result first.
    #[must_use]
    pub fn join(self, words: &[u16]) -> u64 {
        let step = |number: u64, word: &u16| (number << 16) | u64::from(self.word(*word));
        if self.swaps_words() { words.iter().rev().fold(0, step) } else { words.iter().fold(0, step) }
    }

    /// Splits the low `16 * out.len()` bits of a number into registers; the inverse of [`Self::join`].
    pub fn split(self, mut number: u64, out: &mut [u16]) {
        let mut put = |word: &mut u16| {
            *word = self.word((number & 0xFFFF) as u16);
            number >>= 16;
        };
        if self.swaps_words() {
            out.iter_mut().for_each(&mut put)
        } else {
            out.iter_mut().rev().for_each(&mut put)
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Order {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|order| order.name() == text).ok_or_else(|| {
            let upper = text.to_ascii_uppercase();
            let near = Self::ALL.into_iter().find(|order| order.name() == upper);
            let hint = near.map(|order| format!("did you mean \"{order}\"?")).unwrap_or_default();
            Problem::new("order ABCD, CDAB, BADC or DCBA", format!("'{text}'"), hint)
        })
    }
}
