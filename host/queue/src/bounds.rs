//! The bounds of a queue: what is too old or too much leaves oldest first, counted by reason.

use rusqlite::Row;

use crate::{
    EXPIRED, OVERFLOW,
    draft::{Draft, key},
    fault::Fault,
    settle::{CHUNK, RowHead, waiting},
};

/// A parked record without its content.
#[derive(Debug)]
pub(crate) struct ParkedHead {
    pub(crate) number: u64,
    pub(crate) at: u64,
    pub(crate) reason: String,
    pub(crate) bytes: u64,
}

impl ParkedHead {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes: u64 = row.get(3)?;
        Ok(Self {
            number: row.get(0)?,
            at: row.get(1)?,
            reason: row.get(2)?,
            bytes: bytes + crate::draft::ROW_BYTES,
        })
    }
}

impl Draft<'_> {
    /// Age first, then size.
    pub(crate) fn keep_bounds(&mut self) -> Result<(), Fault> {
        let age_ms = u64::try_from(self.limits.max_age.as_millis()).unwrap_or(u64::MAX);
        if let Some(oldest_kept) = self.now_ms.checked_sub(age_ms) {
            self.expire_rows(oldest_kept)?;
            self.expire_parked(oldest_kept)?;
        }
        while self.held() > self.limits.max_bytes {
            if !self.evict()? {
                break;
            }
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.head.bytes + self.head.parked_bytes
    }

    fn expire_rows(&mut self, oldest_kept: u64) -> Result<(), Fault> {
        // Usually nothing is too old: one look at the oldest row.
        let mut limit = 1;
        loop {
            let mut rows = self.row_heads(0, u64::MAX, limit)?;
            let looked = rows.len();
            rows.truncate(rows.iter().take_while(|row| row.at < oldest_kept).count());
            self.drop_rows(&rows, EXPIRED)?;
            if rows.len() < limit || looked < limit {
                return Ok(());
            }
            limit = CHUNK;
        }
    }

    fn expire_parked(&mut self, oldest_kept: u64) -> Result<(), Fault> {
        let mut limit = 1;
        while !self.head.ledger.parked.is_empty() {
            let mut parked = self.parked_heads(limit)?;
            parked.truncate(parked.iter().take_while(|record| record.at < oldest_kept).count());
            self.drop_parked(&parked, EXPIRED)?;
            if parked.len() < limit {
                break;
            }
            limit = CHUNK;
        }
        Ok(())
    }

    /// Drops some of the oldest; false when nothing is left.
    fn evict(&mut self) -> Result<bool, Fault> {
        let mut rows = self.row_heads(0, u64::MAX, CHUNK)?.into_iter().peekable();
        let parked = if self.head.ledger.parked.is_empty() { Vec::new() } else { self.parked_heads(CHUNK)? };
        let mut parked = parked.into_iter().peekable();
        let mut excess = self.held().saturating_sub(self.limits.max_bytes);
        let (mut old_rows, mut old_parked) = (Vec::new(), Vec::new());
        while excess > 0 {
            let parked_first = match (rows.peek(), parked.peek()) {
                (Some(row), Some(record)) => record.number < row.first,
                (row, _) => row.is_none(),
            };
            if parked_first {
                let Some(record) = parked.next() else { break };
                excess = excess.saturating_sub(record.bytes);
                old_parked.push(record);
                // The next chunk may begin with an older parked record.
                if parked.peek().is_none() {
                    break;
                }
            } else {
                let Some(row) = rows.next() else { break };
                excess = excess.saturating_sub(row.bytes);
                old_rows.push(row);
                if rows.peek().is_none() {
                    break;
                }
            }
        }
        self.drop_rows(&old_rows, OVERFLOW)?;
        self.drop_parked(&old_parked, OVERFLOW)?;
        Ok(!(old_rows.is_empty() && old_parked.is_empty()))
    }

    fn drop_rows(&mut self, rows: &[RowHead], reason: &str) -> Result<(), Fault> {
        let waiting = waiting(rows)?;
        self.delete_rows(rows)?;
        self.head.drop_pending(waiting, reason);
        Ok(())
    }

    /// Removes the oldest parked records.
    fn drop_parked(&mut self, parked: &[ParkedHead], reason: &str) -> Result<(), Fault> {
        let Some(last) = parked.last() else { return Ok(()) };
        self.connection
            .prepare_cached("DELETE FROM parked WHERE number <= ?1")?
            .execute([key(last.number)?])?;
        for record in parked {
            let count = self.head.unpark(1, &record.reason);
            self.head.add_dropped(count, reason);
            self.head.parked_bytes = self.head.parked_bytes.saturating_sub(record.bytes);
        }
        Ok(())
    }

    /// The oldest parked records.
    fn parked_heads(&self, limit: usize) -> Result<Vec<ParkedHead>, Fault> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT number, at, reason, length(data) FROM parked ORDER BY number LIMIT ?1")?;
        let parked = statement.query_map([limit], ParkedHead::read)?;
        Ok(parked.collect::<Result<_, _>>()?)
    }
}
