//! Reads a table of a damaged file row by row and goes around what cannot be read.
//!
//! A damaged page makes every read that touches it fail. Keys are ascending, so behind a failure the next readable key is
//! searched: steps that double until a read succeeds, then halving back. One damaged page costs the rows on it.
//!
//! Only damage is gone around. No memory, a lock, too many open files are no damage: the scan ends with that fault, and
//! nothing was lost by it.

use rusqlite::{Connection, Row};

use crate::{fault::Fault, settle::signed};

/// Damaged places of one table that are gone around (G9); behind the last the rest is given up.
const MAX_GAPS: usize = 1_000;

/// Calls `each` with every readable row of `SELECT columns FROM table`, whose first column is the key; gives back the
/// number of places that could not be read.
pub(crate) fn scan(
    connection: &Connection,
    table: &str,
    columns: &str,
    mut each: impl FnMut(u64, &Row<'_>) -> Result<(), Fault>,
) -> Result<usize, Fault> {
    let Some(key) = columns.split(',').next() else { return Ok(0) };
    let all = format!("SELECT {columns} FROM {table} WHERE {key} >= ?1 ORDER BY {key}");
    let one = format!("SELECT {key} FROM {table} WHERE {key} >= ?1 ORDER BY {key} LIMIT 1");
    let mut from = 0_u64;
    for gaps in 0..MAX_GAPS {
        let mut wrong = None;
        let read = read_from(connection, &all, &mut from, |key, row| {
            let done = each(key, row);
            wrong = done.err();
            wrong.is_none()
        });
        if let Some(fault) = wrong {
            return Err(fault);
        }
        match read.map_err(Fault::of_damaged) {
            Ok(()) => return Ok(gaps),
            Err(Fault::Damaged(_)) => {}
            Err(fault) => return Err(fault),
        }
        match next_readable(from, |key| damage_only(read_one(connection, &one, key)))? {
            Some(next) => from = next,
            None => return Ok(gaps + 1),
        }
    }
    Ok(MAX_GAPS)
}

/// Reads until the end or a failure; `from` is then behind the last row that could be read.
fn read_from(
    connection: &Connection,
    sql: &str,
    from: &mut u64,
    mut each: impl FnMut(u64, &Row<'_>) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([signed(*from)])?;
    while let Some(row) = rows.next()? {
        // A key that is no number, or goes back, is damage as well.
        let key: u64 = row.get(0)?;
        if key < *from {
            return Err(rusqlite::Error::InvalidQuery);
        }
        *from = key.saturating_add(1);
        if !each(key, row) {
            return Ok(());
        }
    }
    Ok(())
}

/// The first key at or above `key`; `Ok(None)` when there is none.
fn read_one(connection: &Connection, sql: &str, key: u64) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([signed(key)])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// What is behind a key, `Some` when it could be read.
type Behind = Option<Option<u64>>;

fn damage_only(read: rusqlite::Result<Option<u64>>) -> Result<Behind, Fault> {
    match read.map_err(Fault::of_damaged) {
        Ok(found) => Ok(Some(found)),
        Err(Fault::Damaged(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Lowest key above `from` behind which something is readable.
fn next_readable(
    from: u64,
    mut read: impl FnMut(u64) -> Result<Behind, Fault>,
) -> Result<Option<u64>, Fault> {
    let mut bad = from;
    let mut step = 1_u64;
    let mut good = loop {
        let Some(at) = from.checked_add(step).filter(|at| i64::try_from(*at).is_ok()) else {
            return Ok(None);
        };
        match read(at)? {
            Some(_) => break at,
            None => bad = at,
        }
        step = step.saturating_mul(2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if read(middle)?.is_some() { good = middle } else { bad = middle }
    }
    Ok(read(good)?.flatten().map(|_| good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_readable_key_is_found() {
        // 100 to 137 cannot be read; keys are multiples of 10 up to 500.
        let read = |key: u64| match key {
            100..138 => Ok(None),
            key => Ok(Some(Some(key.div_ceil(10) * 10).filter(|key| *key <= 500))),
        };
        assert_eq!(next_readable(100, read), Ok(Some(138)));
        assert_eq!(next_readable(99, read), Ok(Some(138)));
        let none = |key: u64| Ok(if key < 700 { None } else { Some(None) });
        assert_eq!(next_readable(100, none), Ok(None));
        assert_eq!(next_readable(100, |_| Ok(None)), Ok(None));
        let locked = || Fault::Other("database is locked".to_owned());
        assert_eq!(next_readable(100, |_| Err(locked())), Err(locked()), "no damage");
    }
}
