//! One transaction being written: all of it, or nothing.
//!
//! A draft works on a copy of the head; the copy becomes the head when SQLite has committed. The order within a
//! transaction: ends of records that are in the file (they free pages), new rows, ends again for the new rows, then the
//! bounds.

use std::time::Duration;

use busbar_core::journal::{End, Entry, Settled, Transaction};
use rusqlite::Connection;

use crate::{
    clock::{AgeClock, Now},
    codec,
    fault::Fault,
    head::Head,
    names::{Names, NewNames},
    schema,
    settle::damaged,
};

/// Bytes that a row takes beside its content: key, small columns, its place in the page.
pub(crate) const ROW_BYTES: u64 = 24;

/// Bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of waiting rows and parked records together. The file itself is a few per cent larger.
    pub max_bytes: u64,
    /// Oldest record kept, on the file's own clock.
    pub max_age: Duration,
}

/// The oldest record that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) number: u64,
    /// Accepted, on the age clock.
    pub(crate) at: u64,
}

/// See the head of this module.
pub(crate) struct Draft<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) head: Head,
    pub(crate) clock: &'a AgeClock,
    pub(crate) limits: &'a Limits,
    /// Age clock at this transaction.
    pub(crate) now_ms: u64,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        head: &Head,
        clock: &'a AgeClock,
        limits: &'a Limits,
        now: &Now,
    ) -> Self {
        let mut head = head.clone();
        let now_ms = clock.age_ms(now.mono_ns).max(head.stamp.age_ms);
        head.stamp.age_ms = now_ms;
        head.stamp.wall_ns = now.wall_ns;
        head.stamp.synchronised = now.synchronised;
        Self { connection, head, clock, limits, now_ms }
    }

    /// Everything that a transaction says.
    pub(crate) fn apply(&mut self, transaction: &Transaction, names: &Names) -> Result<NewNames, Fault> {
        let new = names.introduce(self.connection, &transaction.names)?;
        self.append(transaction, |entry| names.id(&new, entry.sample.point))?;
        for settled in &transaction.settled {
            self.settle(settled)?;
        }
        self.head.ledger.accepted += transaction.delivered_unwritten;
        self.head.ledger.delivered += transaction.delivered_unwritten;
        for (reason, count) in &transaction.dropped_unwritten {
            self.head.ledger.accepted += count;
            self.head.add_dropped(*count, reason);
        }
        self.head.next = self.head.next.max(transaction.next);
        self.keep_bounds()?;
        Ok(new)
    }

    /// Only ends of records that are in the file: what a full disk still takes.
    pub(crate) fn apply_ends(&mut self, settled: &Settled) -> Result<(), Fault> {
        let late = self.head.late;
        self.settle(settled)?;
        // The others may be about rows of the same transaction, which comes again.
        self.head.late = late;
        self.keep_bounds()
    }

    /// Makes the draft the next state of the file; the caller commits.
    pub(crate) fn write(mut self, clean: bool) -> Result<(Head, Option<Oldest>), Fault> {
        let oldest = self.oldest()?;
        if oldest.is_none() {
            self.reconcile();
        }
        self.head.turn += 1;
        self.head.clean = clean;
        schema::write_head(self.connection, &self.head)?;
        Ok((self.head, oldest))
    }

    /// The oldest record that waits.
    pub(crate) fn oldest(&self) -> Result<Option<Oldest>, Fault> {
        let Some(row) = self.row_heads(0, u64::MAX, 1)?.into_iter().next() else { return Ok(None) };
        let mask = row.mask()?;
        let index = (0..row.count).find(|index| !mask.is_set(*index)).unwrap_or(0);
        let number = if row.span == row.count as u64 {
            row.first + index as u64
        } else {
            let numbers = codec::numbers(row.first, &self.content(row.first)?);
            numbers.and_then(|numbers| numbers.get(index).copied()).ok_or_else(|| damaged(row.first))?
        };
        Ok(Some(Oldest { number, at: row.at }))
    }

    /// With no row left nothing waits. A ledger that says otherwise was written beside rows whose damage hid how much
    /// they held.
    fn reconcile(&mut self) {
        let rest = self.head.ledger.pending;
        self.head.drop_pending(rest, crate::DAMAGED);
        self.head.bytes = 0;
    }

    fn append(
        &mut self,
        transaction: &Transaction,
        point: impl Fn(&Entry) -> Option<u32>,
    ) -> Result<(), Fault> {
        let (mut below, mut reach) = (0, 0);
        for (index, row) in transaction.rows.iter().enumerate() {
            let at = self.clock.age_ms(row.accepted_ns).min(self.now_ms);
            let entries = row.entries.as_slice();
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            if first.number < below {
                return Err(wrong_row(first.number));
            }
            below = first.number;
            let behind = transaction.rows.get(index + 1).and_then(|row| row.entries.first());
            // Rows never overlap in the file: one that reaches into another is written in pieces without gaps.
            if first.number < reach || behind.is_some_and(|behind| behind.number <= last.number) {
                for piece in entries.chunk_by(|a, b| a.number.checked_add(1) == Some(b.number)) {
                    self.insert(piece, at, &point)?;
                }
            } else {
                self.insert(entries, at, &point)?;
            }
            reach = reach.max(last.number.saturating_add(1));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        entries: &[Entry],
        at: u64,
        point: impl Fn(&Entry) -> Option<u32>,
    ) -> Result<(), Fault> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let data = codec::encode(entries, point).ok_or_else(|| wrong_row(first.number))?;
        let count = entries.len() as u64;
        self.head.next = self.head.next.max(last.number.saturating_add(1));
        if self.insert_row(first.number, last.number - first.number + 1, count, at, &data)? {
            self.head.ledger.accepted += count;
        }
        Ok(())
    }

    /// Writes a row and counts it as waiting. False when a row with this number is there: a commit that SQLite reported
    /// as failed and that was on disk all the same. Its content is the same, because a number means one record.
    pub(crate) fn insert_row(
        &mut self,
        first: u64,
        span: u64,
        count: u64,
        at: u64,
        data: &[u8],
    ) -> Result<bool, Fault> {
        let written = self
            .connection
            .prepare_cached(
                "INSERT INTO rows(first, at, count, span, mask, data) VALUES (?1, ?2, ?3, ?4, NULL, ?5)",
            )?
            .execute((key(first)?, key(at)?, key(count)?, key(span)?, data));
        match written {
            Ok(_) => {
                self.head.ledger.pending += count;
                self.head.bytes += data.len() as u64 + ROW_BYTES;
                Ok(true)
            }
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                self.head.late += count;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts waiting records that ended.
    pub(crate) fn count_end(&mut self, count: u64, end: &End) {
        match end {
            End::Delivered => self.head.deliver_pending(count),
            End::Dropped(reason) => self.head.drop_pending(count, reason),
            End::Parked(reason) => self.head.park_pending(count, reason),
        }
    }
}

/// SQLite's numbers are signed.
pub(crate) fn key(number: u64) -> Result<i64, Fault> {
    i64::try_from(number)
        .map_err(|_| Fault::Other(format!("record number {number} is beyond what a file can keep")))
}

fn wrong_row(first: u64) -> Fault {
    Fault::Other(format!(
        "the row at record {first} was refused: its numbers are not ascending, or a point has no name; this is a bug of \
         Busbar"
    ))
}
