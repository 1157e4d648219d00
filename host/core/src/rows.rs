//! Records as rows of the file, and back.

use crate::{
    journal::{Entry, Kept, Row},
    queue::{Class, Record},
};

/// What was learned of a dictionary entry of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Point number of this run.
    pub(crate) point: u32,
    /// Number of its device, for order and retries.
    pub(crate) device: u32,
}

/// Rows of `records`: a poll of one device each.
pub(crate) fn rows(records: &[(u64, &Record)]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last: Option<(u64, u32, u64, bool)> = None;
    for (number, record) in records {
        let entry = Entry {
            number: *number,
            sample: record.sample,
            value_ts_ns: record.value_ts_ns,
            blob: record.blob.clone(),
            kept: match record.class {
                Class::State => Kept::State,
                Class::Event => Kept::Event,
                Class::History => Kept::History,
            },
            flags: record.flags,
        };
        let follows = last.is_some_and(|(before, device, accepted_ns, end)| {
            before + 1 == *number && device == record.device && accepted_ns == record.accepted_ns && !end
        });
        match rows.last_mut().filter(|_| follows) {
            Some(row) => row.entries.push(entry),
            None => rows.push(Row { accepted_ns: record.accepted_ns, entries: vec![entry] }),
        }
        last = Some((*number, record.device, record.accepted_ns, record.end));
    }
    rows
}

/// A record of a row that was read back.
pub(crate) fn record_of(entry: Entry, known: Known, accepted_ns: u64) -> Record {
    let mut sample = entry.sample;
    sample.point = known.point;
    Record {
        sample,
        value_ts_ns: entry.value_ts_ns,
        blob: entry.blob,
        accepted_ns,
        device: known.device,
        commit: 0,
        class: match entry.kept {
            Kept::State => Class::State,
            Kept::Event => Class::Event,
            Kept::History => Class::History,
        },
        flags: entry.flags,
        end: false,
        transient: false,
    }
}
