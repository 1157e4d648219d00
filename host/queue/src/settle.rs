//! Ends of records: whole rows leave by range, rows that ended in parts keep a mask.

use busbar_core::journal::{End, Settled};
use rusqlite::Row;

use crate::{
    codec,
    draft::{Draft, ROW_BYTES, key},
    fault::Fault,
    mask::Mask,
};

/// Rows looked at at once.
pub(crate) const CHUNK: usize = 512;
/// Columns of a row without its content.
pub(crate) const COLUMNS: &str = "first, at, count, span, mask, length(data)";

/// A row without its content.
#[derive(Debug)]
pub(crate) struct RowHead {
    pub(crate) first: u64,
    pub(crate) at: u64,
    pub(crate) count: usize,
    pub(crate) span: u64,
    mask: Option<Vec<u8>>,
    pub(crate) bytes: u64,
}

impl RowHead {
    /// From [`COLUMNS`].
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let bytes: u64 = row.get(5)?;
        Ok(Self {
            first: row.get(0)?,
            at: row.get(1)?,
            count: row.get(2)?,
            span: row.get(3)?,
            mask: row.get(4)?,
            bytes: bytes + ROW_BYTES,
        })
    }

    /// The column `mask` as it is.
    pub(crate) fn stored_mask(&self) -> Option<&[u8]> {
        self.mask.as_deref()
    }

    /// Behind its last number.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.span)
    }

    /// Which of its records ended.
    pub(crate) fn mask(&self) -> Result<Mask, Fault> {
        let possible = (1..=codec::MAX_ENTRIES).contains(&self.count) && self.span >= self.count as u64;
        let mask = possible.then(|| Mask::read(self.first, self.count, self.mask.as_deref())).flatten();
        mask.ok_or_else(|| damaged(self.first))
    }

    /// Records that wait.
    pub(crate) fn waiting(&self) -> Result<u64, Fault> {
        Ok(if self.mask.is_none() { self.count } else { self.mask()?.waiting() } as u64)
    }
}

impl Draft<'_> {
    /// Applies one end; numbers that are not in the file had ended before.
    pub(crate) fn settle(&mut self, settled: &Settled) -> Result<(), Fault> {
        let end = settled.first.saturating_add(settled.count);
        let mut found = 0;
        let mut from = self.row_containing(settled.first)?;
        loop {
            let rows = self.row_heads(from, end, CHUNK)?;
            let Some(last) = rows.last() else { break };
            from = last.first.saturating_add(1);
            found += self.settle_rows(settled, end, &rows)?;
            if rows.len() < CHUNK {
                break;
            }
        }
        self.head.late = self.head.late.saturating_add(settled.count.saturating_sub(found));
        Ok(())
    }

    /// Rows that end as a whole are deleted together; the others one by one.
    fn settle_rows(&mut self, settled: &Settled, end: u64, rows: &[RowHead]) -> Result<u64, Fault> {
        let whole = |row: &RowHead| {
            let parks = matches!(settled.end, End::Parked(_));
            !parks && row.first >= settled.first && row.end() <= end
        };
        let mut found = 0;
        for run in rows.chunk_by(|a, b| whole(a) == whole(b)) {
            if run.first().is_some_and(whole) {
                let count = waiting(run)?;
                self.delete_rows(run)?;
                self.count_end(count, &settled.end);
                found += count;
            } else {
                for row in run {
                    found += self.settle_part(settled, end, row)?;
                }
            }
        }
        Ok(found)
    }

    fn settle_part(&mut self, settled: &Settled, end: u64, row: &RowHead) -> Result<u64, Fault> {
        let wanted = settled.first.max(row.first)..end.min(row.end());
        if wanted.is_empty() {
            return Ok(0);
        }
        let mut mask = row.mask()?;
        let newly: Vec<usize> = self.indices(row, &wanted)?.filter(|index| mask.set(*index)).collect();
        if newly.is_empty() {
            return Ok(0);
        }
        let count = newly.len() as u64;
        match &settled.end {
            End::Parked(reason) => self.park(row, &newly, reason)?,
            end => self.count_end(count, end),
        }
        self.write_mask(row, &mask)?;
        Ok(count)
    }

    /// Writes the mask, or removes the row when nothing of it waits any more.
    pub(crate) fn write_mask(&mut self, row: &RowHead, mask: &Mask) -> Result<(), Fault> {
        if mask.waiting() == 0 {
            return self.delete_rows(std::slice::from_ref(row));
        }
        self.connection
            .prepare_cached("UPDATE rows SET mask = ?2 WHERE first = ?1")?
            .execute((key(row.first)?, mask.write(row.first)))?;
        Ok(())
    }

    /// Positions in the row of the numbers in `wanted`, which lies within the row.
    pub(crate) fn indices(
        &self,
        row: &RowHead,
        wanted: &std::ops::Range<u64>,
    ) -> Result<Box<dyn Iterator<Item = usize>>, Fault> {
        if row.span == row.count as u64 {
            let (from, to) = (wanted.start - row.first, wanted.end - row.first);
            return Ok(Box::new((from..to).filter_map(|index| usize::try_from(index).ok())));
        }
        let numbers =
            codec::numbers(row.first, &self.content(row.first)?).ok_or_else(|| damaged(row.first))?;
        let wanted = wanted.clone();
        let indices = numbers.into_iter().enumerate().filter(move |(_, number)| wanted.contains(number));
        Ok(Box::new(indices.map(|(index, _)| index)))
    }

    /// Deletes rows that follow each other in the file.
    pub(crate) fn delete_rows(&mut self, rows: &[RowHead]) -> Result<(), Fault> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        self.connection
            .prepare_cached("DELETE FROM rows WHERE first BETWEEN ?1 AND ?2")?
            .execute((key(first.first)?, key(last.first)?))?;
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        self.head.bytes = self.head.bytes.saturating_sub(bytes);
        Ok(())
    }

    /// Key of the row that holds `number` if there is one, else `number`.
    pub(crate) fn row_containing(&self, number: u64) -> Result<u64, Fault> {
        let before: Option<u64> = self
            .connection
            .prepare_cached("SELECT max(first) FROM rows WHERE first <= ?1")?
            .query_row([signed(number)], |row| row.get(0))?;
        Ok(before.unwrap_or(number))
    }

    /// Rows with `from <= first < end`, in order, at most `limit`.
    pub(crate) fn row_heads(&self, from: u64, end: u64, limit: usize) -> Result<Vec<RowHead>, Fault> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM rows WHERE first >= ?1 AND first < ?2 ORDER BY first LIMIT ?3"
        ))?;
        let rows = statement.query_map((signed(from), signed(end), limit), RowHead::read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Content of the row `first`.
    pub(crate) fn content(&self, first: u64) -> Result<Vec<u8>, Fault> {
        let mut statement = self.connection.prepare_cached("SELECT data FROM rows WHERE first = ?1")?;
        Ok(statement.query_row([signed(first)], |row| row.get(0))?)
    }
}

/// Records that wait in `rows`.
pub(crate) fn waiting(rows: &[RowHead]) -> Result<u64, Fault> {
    rows.iter().map(RowHead::waiting).sum()
}

/// What is in the file is not what was written.
pub(crate) fn damaged(first: u64) -> Fault {
    Fault::Damaged(format!("the row at record {first} has a wrong checksum"))
}

/// For questions: a number beyond what a file can keep is above all that are in it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
