//! Records that the far side refused: kept with content and reason until an operator decides, or the bounds do.

use busbar_core::journal::{Entry, Name};
use rusqlite::Row;

use crate::{
    codec,
    draft::{Draft, ROW_BYTES, key},
    fault::Fault,
    head::cut,
    names,
    settle::{RowHead, damaged, signed},
};

/// Longest text kept beside the reason, bytes.
const MAX_DETAIL: usize = 512;
/// Reason under which records that an operator discards are counted.
pub const DISCARDED: &str = "discarded";

/// A parked record.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// Its number.
    pub number: u64,
    /// Since it was accepted, milliseconds on the clock that `max_age` counts on.
    pub age_ms: u64,
    /// Reason as counted in the ledger.
    pub reason: String,
    /// The far side's words, as far as they are kept.
    pub detail: String,
    /// The point; `None` when its entry in the dictionary is damaged.
    pub name: Option<Name>,
    /// The record; `sample.point` is the dictionary's number. `None`: damaged.
    pub entry: Option<Entry>,
}

impl Draft<'_> {
    /// Copies entries of a row to the parked ones and counts them.
    pub(crate) fn park(&mut self, row: &RowHead, indices: &[usize], detail: &str) -> Result<(), Fault> {
        let entries =
            codec::decode(row.first, &self.content(row.first)?).ok_or_else(|| damaged(row.first))?;
        let reason = self.head.parked_as(detail);
        for entry in indices.iter().filter_map(|index| entries.get(*index)) {
            let entry = std::slice::from_ref(entry);
            let Some(data) = codec::encode(entry, |entry| Some(entry.sample.point)) else { continue };
            let number = entry.first().map_or(0, |entry| entry.number);
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO parked(number, at, reason, detail, data) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((key(number)?, key(row.at)?, &reason, cut(detail, MAX_DETAIL), &data))?;
            self.head.parked_bytes += data.len() as u64 + ROW_BYTES;
        }
        self.head.park_pending(indices.len() as u64, &reason);
        Ok(())
    }

    /// Takes one record out of the parked ones; false when it is not there. With `again` it waits as before, in its
    /// place; otherwise it is counted as discarded. A damaged one is counted as such.
    pub(crate) fn release(&mut self, number: u64, again: bool) -> Result<bool, Fault> {
        let mut statement =
            self.connection.prepare_cached("SELECT at, reason, data FROM parked WHERE number = ?1")?;
        let found = statement.query_row([signed(number)], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
        let (at, reason, data) = match found {
            Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(false),
            found => found?,
        };
        drop(statement);
        self.connection.prepare_cached("DELETE FROM parked WHERE number = ?1")?.execute([signed(number)])?;
        self.head.parked_bytes = self.head.parked_bytes.saturating_sub(data.len() as u64 + ROW_BYTES);
        let count = self.head.unpark(1, &reason);
        if !again {
            self.head.add_dropped(count, DISCARDED);
        } else if codec::decode(number, &data).is_none() {
            self.head.add_dropped(count, crate::DAMAGED);
        } else if count > 0 {
            self.wait_again(number, at, &data)?;
        }
        Ok(true)
    }

    /// Back into its row, or into a row of its own when that has gone.
    fn wait_again(&mut self, number: u64, at: u64, data: &[u8]) -> Result<(), Fault> {
        let from = self.row_containing(number)?;
        let row = self.row_heads(from, number.saturating_add(1), 1)?.into_iter().next();
        let Some(row) = row.filter(|row| row.end() > number) else {
            if !self.insert_row(number, 1, 1, at, data)? {
                return Err(damaged(number));
            }
            return Ok(());
        };
        let mut mask = row.mask()?;
        let wanted = number..number.saturating_add(1);
        let index = self.indices(&row, &wanted)?.next().ok_or_else(|| damaged(row.first))?;
        if !mask.clear(index) {
            return Err(damaged(row.first));
        }
        self.head.ledger.pending += 1;
        self.write_mask(&row, &mask)
    }

    /// Parked records from number `from` on.
    pub(crate) fn parked(&self, from: u64, limit: usize) -> Result<Vec<Parked>, Fault> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, at, reason, detail, data FROM parked WHERE number >= ?1 ORDER BY number LIMIT ?2",
        )?;
        let records = statement.query_map((signed(from), limit), |row| self.parked_row(row))?;
        let mut records: Vec<Parked> = records.collect::<Result<_, _>>()?;
        for record in &mut records {
            if let Some(entry) = &record.entry {
                record.name = names::read(self.connection, entry.sample.point)?;
            }
        }
        Ok(records)
    }

    fn parked_row(&self, row: &Row<'_>) -> rusqlite::Result<Parked> {
        let (number, at, data): (u64, u64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(4)?);
        let entry = codec::decode(number, &data).and_then(|entries| entries.into_iter().next());
        let age_ms = self.now_ms.saturating_sub(at);
        Ok(Parked { number, age_ms, reason: row.get(2)?, detail: row.get(3)?, name: None, entry })
    }
}
