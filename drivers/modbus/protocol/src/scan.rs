//! Finding out what a device offers: Modbus has no directory, so ranges are tried.
//!
//! A range is asked in the largest pieces the protocol allows; a refused piece is halved until single
//! registers remain, so a device with one large map needs few requests and holes cost only their edges.

use crate::address::{Address, Table};
use crate::call::{Answer, Call};
use crate::error::{Consequence, Error};
use crate::problem::Problem;
use crate::session::Session;
use crate::value::{MAX_READ_BITS, MAX_READ_REGISTERS};

/// A range of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The table.
    pub table: Table,
    /// First offset.
    pub first: u16,
    /// Last offset, included.
    pub last: u16,
}

/// Reads `holding:0-199`, `input:0x100-0x1ff`, `coil:5`.
///
/// # Errors
/// A [`Problem`] naming the right form.
pub fn parse_range(text: &str) -> Result<Range, Problem> {
    let wrong = |hint: &str| {
        Problem::new("TABLE:FIRST-LAST such as holding:0-199 or input:0x100-0x1ff", format!("'{text}'"), hint)
    };
    let (table, numbers) =
        text.split_once(':').ok_or_else(|| wrong("name the table: coil, discrete, input, holding"))?;
    let table = Table::ALL
        .into_iter()
        .find(|known| known.name() == table)
        .ok_or_else(|| wrong("the tables are coil, discrete, input, holding"))?;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        let text = text.trim();
        let parsed = text
            .strip_prefix("0x")
            .map_or_else(|| text.parse().ok(), |hex| u16::from_str_radix(hex, 16).ok());
        parsed.ok_or_else(|| wrong("offsets are 0 to 65535"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        Err(wrong("the first offset is larger than the last"))
    } else {
        Ok(Range { table, first, last })
    }
}

/// What one request of a scan found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where it starts.
    pub address: Address,
    /// Bits or registers.
    pub answer: Answer,
    /// How many of them were asked for (answers of bits come in whole bytes).
    pub count: u16,
}

/// A running scan.
#[derive(Debug)]
pub struct Scanner {
    unit: u8,
    /// Pieces still to ask, the next one last. Bounded: a table has 65536 positions, halving adds one piece
    /// per level.
    pieces: Vec<(Table, u32, u32)>,
}

impl Scanner {
    /// Plans the scan of these ranges of one unit.
    #[must_use]
    pub fn new(unit: u8, ranges: &[Range]) -> Self {
        let mut pieces = Vec::new();
        for range in ranges {
            let size = u32::from(if range.table.is_bits() { MAX_READ_BITS } else { MAX_READ_REGISTERS });
            let end = u32::from(range.last) + 1;
            let mut start = u32::from(range.first);
            while start < end {
                pieces.push((range.table, start, end.min(start + size)));
                start += size;
            }
        }
        pieces.reverse();
        Self { unit, pieces }
    }

    /// Asks until something was found; `None` at the end.
    ///
    /// # Errors
    /// Only where the device does not answer at all; refusals are what a scan is made for.
    pub async fn next(&mut self, session: &mut Session) -> Result<Option<Found>, Error> {
        while let Some((table, start, end)) = self.pieces.pop() {
            let (Ok(offset), Ok(count)) = (u16::try_from(start), u16::try_from(end - start)) else {
                continue;
            };
            match session.call(self.unit, &Call::Read { table, start: offset, count }).await {
                Ok(answer) => return Ok(Some(Found { address: Address { table, offset }, answer, count })),
                Err(Error::Refused { exception, .. }) if exception.may_be_a_hole() => {
                    if count > 1 {
                        let middle = start + (end - start) / 2;
                        self.pieces.push((table, middle, end));
                        self.pieces.push((table, start, middle));
                    }
                }
                // The whole table is unsupported, or this piece cannot be read now.
                Err(Error::Refused { exception, .. }) if !exception.is_unit_silent() => {
                    if exception == crate::Exception::ILLEGAL_FUNCTION {
                        self.pieces.retain(|(of, _, _)| *of != table);
                    }
                }
                Err(error) if error.consequence() == Consequence::PointsOnly => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |table, first, last| Range { table, first, last };
        assert_eq!(parse_range("holding:0-199"), Ok(range(Table::Holding, 0, 199)));
        assert_eq!(parse_range("input:0x10-0xff"), Ok(range(Table::Input, 16, 255)));
        assert_eq!(parse_range("coil:5"), Ok(range(Table::Coil, 5, 5)));
        for wrong in ["holding", "register:1-2", "holding:5-1", "holding:a-b", "holding:0-70000"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_whole_table_is_cut_into_pieces() {
        let scanner = Scanner::new(1, &[parse_range("holding:0-65535").unwrap()]);
        assert_eq!(scanner.pieces.len(), 525);
        assert_eq!(scanner.pieces.last(), Some(&(Table::Holding, 0, 125)));
        assert_eq!(scanner.pieces.first(), Some(&(Table::Holding, 65_500, 65_536)));
    }
}
