//! What is readable of a damaged file goes into a new one; the rest is counted.
//!
//! Every row is decoded and its checksum tested before it is taken over. The new ledger is the old one with what waited
//! and cannot be read counted as `dropped{damaged}`; when the old ledger cannot be read, counting begins anew with what
//! was found. Record numbers never go back: when it is not known how far they were, they go on at the count of
//! microseconds since 1970, which no queue reaches by counting.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use busbar_core::journal::{Entry, Ledger};
use rusqlite::{Connection, OpenFlags, Row};

use crate::{
    DAMAGED, aside, codec, database,
    draft::{ROW_BYTES, key},
    fault::Fault,
    head::Head,
    mask::Mask,
    names::{self, Names},
    open::unreached,
    scan::scan,
    schema::{QUEUE, read_heads, write_both_heads},
    settle::RowHead,
};

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// Entries of the dictionary that are whole.
    names: HashSet<u32>,
    waiting: u64,
    bytes: u64,
    parked: BTreeMap<String, u64>,
    parked_bytes: u64,
    damaged_rows: u64,
    gaps: usize,
    /// Behind the highest number of a record that is whole.
    end: u64,
}

/// What is known beside the damaged file itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// The head and the names as this run last committed them.
    Run(&'a Head, &'a Names),
    /// The newest head behind the damage of its log, if that is damaged.
    Log(Option<&'a Head>),
}

/// Replaces the damaged file at `path`. Gives back notes for the operator.
pub(crate) fn salvage(path: &Path, why: &str, known: Known<'_>, wall_ns: i64) -> Result<Vec<String>, Fault> {
    let part = aside::part(path);
    aside::remove_all(&part)?;
    let source = database::open_damaged(path, &QUEUE)?;
    aside::keep_first_only(path)?;
    let stored = source.as_ref().map(read_heads).transpose()?.and_then(|heads| heads.into_iter().next());
    let (old, names) = match known {
        Known::Run(head, names) => (Some(head.clone()), Some(names)),
        Known::Log(seen) => (with_lost(stored, seen), None),
    };
    let ledger_known = old.is_some();
    let (head, found) = copy(source.as_ref(), &part, old.as_ref(), names, wall_ns)?;
    drop(source);
    aside::exchange(path)?;
    let lost = head.ledger.dropped.get(DAMAGED).copied().unwrap_or_default()
        - old.as_ref().and_then(|old| old.ledger.dropped.get(DAMAGED).copied()).unwrap_or_default();
    let parked: u64 = found.parked.values().sum();
    let mut notes = vec![format!(
        "{}: damaged ({why}); kept aside as .damaged-N; {} waiting and {parked} parked records salvaged, {}",
        path.display(),
        found.waiting,
        if ledger_known {
            format!("{lost} lost and counted as dropped(damaged)")
        } else {
            "how many were lost is not known: the ledger could not be read and begins anew".to_owned()
        }
    )];
    if found.damaged_rows > 0 || found.gaps > 0 {
        notes.push(format!(
            "{}: {} rows had a wrong checksum, {} places could not be read",
            path.display(),
            found.damaged_rows,
            found.gaps
        ));
    }
    Ok(notes)
}

/// The head of the file with what the lost transactions of its log brought.
fn with_lost(stored: Option<Head>, seen: Option<&Head>) -> Option<Head> {
    match (stored, seen) {
        (Some(mut head), Some(seen)) => {
            head.count_lost(seen);
            Some(head)
        }
        (stored, seen) => stored.or(seen.cloned()),
    }
}

/// Writes the new file, complete and closed.
fn copy(
    source: Option<&Connection>,
    part: &Path,
    old: Option<&Head>,
    introduced: Option<&Names>,
    wall_ns: i64,
) -> Result<(Head, Found), Fault> {
    database::prepare(part)?;
    let mut target = database::connect(part, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Nobody reads it before it is complete and synced.
    let _: String = target.query_row("PRAGMA journal_mode = OFF", [], |row| row.get(0))?;
    target.pragma_update(None, "synchronous", "OFF")?;
    database::create(&mut target, &QUEUE, |_| Ok(()))?;
    let transaction = target.transaction()?;
    let mut found = Found::default();
    if let Some(source) = source {
        copy_names(source, &transaction, introduced, &mut found)?;
        copy_rows(source, &transaction, &mut found)?;
        copy_parked(source, &transaction, &mut found)?;
    }
    if let Some(names) = introduced {
        names.rewrite(&transaction)?;
    }
    let mut head = account(old, &found, wall_ns);
    write_both_heads(&transaction, &mut head)?;
    transaction.commit()?;
    target.close().map_err(|(_, error)| error)?;
    Ok((head, found))
}

fn copy_names(
    source: &Connection,
    target: &Connection,
    introduced: Option<&Names>,
    found: &mut Found,
) -> Result<(), Fault> {
    found.names.extend(introduced.iter().flat_map(|names| names.introduced_ids()));
    let mut seen = std::mem::take(&mut found.names);
    let mut take = |row: &Row<'_>| match names::whole(row) {
        Some((id, name)) if seen.insert(id) => names::insert(target, id, &name),
        _ => Ok(()),
    };
    let gaps = scan(source, "names", names::COLUMNS, |_, row| take(row));
    // The index holds all of them once more: from both ends as far as it can be read.
    let index = names::each_in_index(source, "ASC", &mut take)
        .and_then(|()| names::each_in_index(source, "DESC", &mut take));
    found.names = seen;
    found.gaps += gaps?;
    index
}

fn copy_rows(source: &Connection, target: &Connection, found: &mut Found) -> Result<(), Fault> {
    let mut behind = 0;
    let columns = "first, at, count, span, mask, length(data), data";
    let gaps = scan(source, "rows", columns, |first, row| {
        let content = (|| Ok::<_, rusqlite::Error>((RowHead::read(row)?, row.get::<_, Vec<u8>>(6)?)))();
        let whole = content.ok().and_then(|(head, data)| Some((codec::decode(first, &data)?, head, data)));
        let Some((entries, head, data)) = whole.filter(|_| first >= behind) else {
            found.damaged_rows += 1;
            return Ok(());
        };
        let last = entries.last().map_or(first, |entry| entry.number);
        behind = last.saturating_add(1);
        found.end = found.end.max(behind);
        let mask = mask_of(first, &entries, &head, &found.names);
        if mask.waiting() == 0 {
            return Ok(());
        }
        let stored = (mask.waiting() < entries.len()).then(|| mask.write(first));
        target
            .prepare_cached(
                "INSERT INTO rows(first, at, count, span, mask, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((key(first)?, key(head.at)?, entries.len(), key(last - first + 1)?, stored, &data))?;
        found.waiting += mask.waiting() as u64;
        found.bytes += data.len() as u64 + ROW_BYTES;
        Ok(())
    })?;
    found.gaps += gaps;
    Ok(())
}

/// What of a row waits. A damaged mask means that all of it comes again: twice rather than never. A record whose name
/// cannot be read cannot be delivered.
fn mask_of(first: u64, entries: &[Entry], head: &RowHead, names: &HashSet<u32>) -> Mask {
    let count = entries.len();
    let mut mask = Mask::read(first, count, head.stored_mask()).unwrap_or_else(|| Mask::new(count));
    for (index, entry) in entries.iter().enumerate() {
        if !names.contains(&entry.sample.point) {
            mask.set(index);
        }
    }
    mask
}

fn copy_parked(source: &Connection, target: &Connection, found: &mut Found) -> Result<(), Fault> {
    let mut gaps = 0;
    gaps += scan(source, "parked", "number, at, reason, detail, data", |number, row| {
        let content = (|| {
            let texts: (String, String) = (row.get(2)?, row.get(3)?);
            Ok::<_, rusqlite::Error>((row.get::<_, u64>(1)?, texts, row.get::<_, Vec<u8>>(4)?))
        })();
        let whole = content.ok().filter(|(.., data)| codec::decode(number, data).is_some());
        let Some((at, (reason, detail), data)) = whole else {
            found.damaged_rows += 1;
            return Ok(());
        };
        found.end = found.end.max(number.saturating_add(1));
        let mut place = Head::default();
        place.ledger.parked = std::mem::take(&mut found.parked);
        let reason = place.parked_as(&reason);
        found.parked = place.ledger.parked;
        *found.parked.entry(reason.clone()).or_default() += 1;
        target
            .prepare_cached(
                "INSERT INTO parked(number, at, reason, detail, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute((key(number)?, key(at)?, &reason, &detail, &data))?;
        found.parked_bytes += data.len() as u64 + ROW_BYTES;
        Ok(())
    })?;
    found.gaps += gaps;
    Ok(())
}

/// The new head: what was found, and what the old one knew.
fn account(old: Option<&Head>, found: &Found, wall_ns: i64) -> Head {
    let mut head = old.cloned().unwrap_or_default();
    let Ledger { accepted, delivered, pending, parked, dropped } = &mut head.ledger;
    *pending = found.waiting;
    *parked = found.parked.clone();
    let ended: u64 = parked.values().chain(dropped.values()).sum();
    let known = *delivered + *pending + ended;
    let lost = accepted.saturating_sub(known);
    // An older copy of the head knows nothing of the last rows: they were accepted all the same.
    *accepted = known + lost;
    head.add_dropped(lost, DAMAGED);
    head.bytes = found.bytes;
    head.parked_bytes = found.parked_bytes;
    head.next = head.next.max(found.end);
    if old.is_none() {
        head.next = head.next.max(unreached(wall_ns));
    }
    head.clean = true;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock, a missing right, a loop of links: not one byte is known to be wrong.
    #[test]
    fn what_cannot_be_opened_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let (mut file, _) = crate::File::open(
            &path,
            &crate::Options {
                limits: crate::Limits { max_bytes: 1 << 20, max_age: std::time::Duration::from_secs(9) },
                sync: busbar_core::model::Sync::Commit,
                now: crate::Now::default(),
            },
        )
        .unwrap();
        file.commit(&busbar_core::journal::Transaction { next: 7, ..Default::default() }).unwrap();
        let refused = salvage(&path, "test", Known::Log(None), 0).unwrap_err();
        assert!(matches!(&refused, Fault::Other(text) if text.contains("locked")), "{refused:?}");
        file.close().unwrap();
        let loops = dir.path().join("loop.db");
        std::os::unix::fs::symlink(&loops, &loops).unwrap();
        let refused = salvage(&loops, "test", Known::Log(None), 0).unwrap_err();
        assert!(matches!(&refused, Fault::Other(text) if text.contains("cannot be read")), "{refused:?}");
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let kept = names.filter(|name| name.to_str().unwrap().contains("damaged")).count();
        assert_eq!(kept, 0, "nothing was moved aside");
    }

    fn found(waiting: u64, parked: u64, end: u64) -> Found {
        let parked = if parked > 0 { BTreeMap::from([("r".to_owned(), parked)]) } else { BTreeMap::new() };
        Found { waiting, parked, end, ..Found::default() }
    }

    fn old() -> Head {
        let mut head = Head { next: 500, ..Head::default() };
        head.ledger.accepted = 100;
        head.ledger.pending = 100;
        head.deliver_pending(40);
        head.park_pending(10, "r");
        head.drop_pending(5, "overflow");
        head
    }

    #[test]
    fn what_is_missing_is_counted() {
        let head = account(Some(&old()), &found(30, 7, 90), 0);
        assert!(head.ledger.is_balanced());
        assert_eq!((head.ledger.accepted, head.ledger.pending, head.next), (100, 30, 500));
        assert_eq!(head.ledger.dropped[DAMAGED], 15 + 3);
    }

    #[test]
    fn rows_that_the_ledger_does_not_know_were_accepted() {
        let head = account(Some(&old()), &found(60, 10, 700), 0);
        assert!(head.ledger.is_balanced());
        assert_eq!((head.ledger.accepted, head.ledger.pending, head.next), (115, 60, 700));
        assert_eq!(head.ledger.dropped.get(DAMAGED), None);
    }

    #[test]
    fn without_a_ledger_numbers_go_on_where_none_can_have_been() {
        let head = account(None, &found(30, 7, 90), 1_767_225_600_000_000_000);
        assert!(head.ledger.is_balanced());
        assert_eq!((head.ledger.accepted, head.next), (37, 1_767_225_600_000_000));
        assert_eq!(account(None, &found(0, 0, 0), -5).next, 1);
    }
}
