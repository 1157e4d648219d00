//! Reading back what waits.

use std::collections::BTreeSet;

use busbar_core::{
    journal::{Entry, Loaded, Row},
    model::RECORD_OVERHEAD,
};

use crate::{
    codec,
    draft::Draft,
    fault::Fault,
    names::{self, Names},
    settle::{RowHead, damaged},
};

/// Rows looked at at once.
const CHUNK: usize = 64;
/// Bytes of a sample.
const SAMPLE: usize = 24;

impl Draft<'_> {
    /// Waiting records from number `from` on: at least one row, then until `records` or `bytes` are reached.
    pub(crate) fn read(
        &self,
        known: &Names,
        from: u64,
        records: usize,
        bytes: usize,
    ) -> Result<Loaded, Fault> {
        let mut loaded = Loaded { from, ..Loaded::default() };
        let (mut count, mut size) = (0, 0);
        let mut new = BTreeSet::new();
        let mut cursor = self.row_containing(from)?;
        'rows: loop {
            let rows = self.row_heads(cursor, u64::MAX, CHUNK)?;
            let end = rows.len() < CHUNK;
            for head in rows {
                if count > 0 && (count >= records || size >= bytes) {
                    break 'rows;
                }
                cursor = head.first.saturating_add(1);
                let next = head.end();
                let entries = self.waiting(&head, from)?;
                count += entries.len();
                size += entries.iter().map(memory).sum::<usize>();
                new.extend(entries.iter().map(|entry| entry.sample.point).filter(|id| known.is_new(*id)));
                if !entries.is_empty() {
                    loaded.rows.push(Row { accepted_ns: self.clock.mono_ns(head.at), entries });
                }
                loaded.next = next.max(from);
            }
            if end {
                loaded.next = self.head.next.max(from);
                break;
            }
        }
        for id in new {
            let name = names::read(self.connection, id)?;
            let name =
                name.ok_or_else(|| Fault::Damaged(format!("entry {id} of the dictionary cannot be read")))?;
            loaded.names.push((id, name));
        }
        Ok(loaded)
    }

    /// Entries of a row that wait, from number `from` on.
    fn waiting(&self, head: &RowHead, from: u64) -> Result<Vec<Entry>, Fault> {
        let mask = head.mask()?;
        if head.end() <= from {
            return Ok(Vec::new());
        }
        let entries = codec::decode(head.first, &self.content(head.first)?);
        let entries = entries.filter(|entries| {
            entries.len() == head.count && entries.last().map(|entry| entry.number + 1) == Some(head.end())
        });
        let entries = entries.ok_or_else(|| damaged(head.first))?.into_iter().enumerate();
        let waiting = entries.filter(|(index, entry)| entry.number >= from && !mask.is_set(*index));
        Ok(waiting.map(|(_, entry)| entry).collect())
    }
}

/// Bytes that a record takes in the core.
fn memory(entry: &Entry) -> usize {
    SAMPLE + RECORD_OVERHEAD as usize + entry.blob.as_ref().map_or(0, |blob| blob.len())
}
