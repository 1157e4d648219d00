//! From whatever lies at the path to an open, whole file.

use std::path::Path;

use busbar_core::model::Sync;
use rusqlite::Connection;

use crate::{
    aside, database,
    fault::Fault,
    head::Head,
    salvage::salvage,
    schema::{self, QUEUE},
    wal::{self, Log},
};

/// Opens the file at `path`, or makes it. What is damaged, foreign or newer is kept aside first, and told in `notes`.
pub(crate) fn connect(
    path: &Path,
    sync: Sync,
    wall_ns: i64,
    notes: &mut Vec<String>,
) -> Result<(Connection, Head), Fault> {
    let shown = path.display();
    database::prepare_dir(path)?;
    if aside::finish(path)? {
        notes.push(format!("{shown}: the salvage of a damaged file, interrupted before, was finished"));
    }
    let log_missing = std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0) && !aside::wal(path).exists();
    let log = wal::look(&aside::wal(path))?;
    match whole(path, sync) {
        Ok((connection, mut head)) => {
            let missing = log_missing && !head.clean;
            if missing || log != Log::Sound {
                // What the far side has seen of it is not known.
                head.next = head.next.max(unreached(wall_ns));
                notes.push(format!("{shown}: {}", lost_log(log)));
            }
            return Ok((connection, head));
        }
        Err(Fault::Damaged(why)) => {
            if log != Log::Sound {
                notes.push(format!("{shown}: {}", lost_log(log)));
            }
            notes.extend(salvage(path, &why, None, wall_ns)?);
        }
        Err(Fault::Foreign(why)) => {
            if let Some(kept) = aside::keep_damaged(path)? {
                notes.push(format!("{shown}: {why}; kept aside as {}, a new queue begins", kept.display()));
            }
        }
        Err(Fault::Newer(version)) => {
            let kept = aside::keep_newer(path)?;
            notes.push(format!(
                "{shown}: written by a newer version of Busbar (schema {version}, this one reads {}); kept aside as {}: \
                 its records are delivered when that version runs again with the file under its old name",
                QUEUE.schema,
                kept.display()
            ));
        }
        Err(fault) => return Err(fault),
    }
    whole(path, sync)
}

fn lost_log(log: Log) -> String {
    match log {
        Log::Sound => "was not closed in order and its -wal file is missing: transactions since the last checkpoint are \
                       lost"
            .to_owned(),
        Log::Headless => "the head of its -wal file is damaged: transactions since the last checkpoint are lost".to_owned(),
        Log::Broken(commits) => format!("its -wal file is damaged: the last {commits} transactions or more are lost"),
    }
}

/// A number that no queue reaches by counting: microseconds since 1970.
pub(crate) fn unreached(wall_ns: i64) -> u64 {
    u64::try_from(wall_ns / 1_000).unwrap_or(0).max(1)
}

fn whole(path: &Path, sync: Sync) -> Result<(Connection, Head), Fault> {
    let connection = database::open(path, &QUEUE, sync, |connection| {
        let mut head = Head { next: 1, clean: true, ..Head::default() };
        schema::write_both_heads(connection, &mut head)
    })?;
    let head = schema::whole_head(&connection)?;
    Ok((connection, head))
}
