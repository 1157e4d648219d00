//! From whatever lies at the path to an open, whole file.

use std::path::Path;

use busbar_core::{journal::Ledger, model::Sync};
use rusqlite::Connection;

use crate::{
    aside, database,
    fault::Fault,
    head::Head,
    salvage::{Known, salvage},
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
    let seen = if log == Log::Sound { None } else { wal::last_head(&aside::wal(path))? };
    match whole(path, sync) {
        Ok((mut connection, mut head)) => {
            let missing = log_missing && !head.clean;
            if missing || log != Log::Sound {
                let lost = seen.map(|seen| head.count_lost(&seen));
                // What the far side has seen of it is not known.
                head.next = head.next.max(unreached(wall_ns));
                notes.push(format!("{shown}: {}; {}", lost_log(log), counted(lost)));
                settle_log(&mut connection, &mut head)?;
            }
            return Ok((connection, head));
        }
        Err(Fault::Damaged(why)) => {
            if log != Log::Sound {
                notes.push(format!("{shown}: {}", lost_log(log)));
            }
            notes.extend(salvage(path, &why, Known::Log(seen.as_ref()), wall_ns)?);
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

/// What a queue file holds that nobody works with, without changing it: its ledger, and the bytes of what waits.
///
/// # Errors
///
/// It is open elsewhere, damaged, or no queue. The text is for the operator.
pub fn look(path: &Path) -> Result<(Ledger, u64), String> {
    let look = || -> Result<(Ledger, u64), Fault> {
        let none = || Fault::Damaged("expected a queue of Busbar, found nothing that can be read".to_owned());
        let connection = database::open_damaged(path, &QUEUE)?.ok_or_else(none)?;
        let head = schema::read_heads(&connection)?.into_iter().next().ok_or_else(none)?;
        Ok((head.ledger, head.bytes))
    };
    look().map_err(|fault| fault.text())
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

fn counted(lost: Option<u64>) -> String {
    match lost {
        Some(lost) => format!(
            "{lost} records were accepted in them and are counted as dropped(damaged), also what the far side confirmed \
             of them"
        ),
        None => "how many records were accepted in them cannot be known: they are in no figure".to_owned(),
    }
}

/// What was counted is on disk, and then the damaged log is empty, so that it is not met again. (Met again before that, it
/// says the same figures and nothing is counted twice.)
fn settle_log(connection: &mut Connection, head: &mut Head) -> Result<(), Fault> {
    let settled = (|| {
        let transaction = connection.transaction()?;
        schema::write_both_heads(&transaction, head)?;
        transaction.commit()?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    })();
    match settled {
        // The first transaction that finds room says the same.
        Err(Fault::Full(_)) => Ok(()),
        settled => settled,
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
