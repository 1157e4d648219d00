//! The tables of a queue file.
//!
//! * `rows`: one per poll of one device, keyed by the number of its first record; numbers are never used twice, so a
//!   key never comes back (SQLite's own row ids would restart at 1 after a drain). `mask` says which entries ended.
//! * `parked`: one per refused record, with its content and the reason.
//! * `names`: the dictionary; a record names its point by `id`. Its index holds everything once more: a damaged page of
//!   either does not take the names of a whole backlog.
//! * `head0`, `head1`: ledger, next number and clock, written in turns with every transaction.

use rusqlite::Connection;

use crate::{database::Kind, fault::Fault, head::Head};

/// A queue.
pub(crate) const QUEUE: Kind = Kind {
    what: "a queue of Busbar",
    // "BBq1"
    application_id: 0x4242_7131,
    schema: 1,
    tables: "
        CREATE TABLE rows(
            first INTEGER PRIMARY KEY, at INTEGER NOT NULL, count INTEGER NOT NULL, span INTEGER NOT NULL,
            mask BLOB, data BLOB NOT NULL);
        CREATE TABLE parked(
            number INTEGER PRIMARY KEY, at INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
            data BLOB NOT NULL);
        CREATE TABLE names(
            id INTEGER PRIMARY KEY, device TEXT NOT NULL, point TEXT NOT NULL, unit TEXT NOT NULL,
            crc INTEGER NOT NULL, UNIQUE(device, point, unit, crc));
        CREATE TABLE head0(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
        CREATE TABLE head1(id INTEGER PRIMARY KEY, data BLOB NOT NULL);",
};

/// Both copies of the head, newest first; damaged ones are missing.
pub(crate) fn read_heads(connection: &Connection) -> Result<Vec<Head>, Fault> {
    let mut heads = Vec::new();
    for table in ["head0", "head1"] {
        let data: Option<Vec<u8>> =
            match connection
                .query_row(&format!("SELECT data FROM {table} WHERE id = 1"), [], |row| row.get(0))
            {
                Ok(data) => Some(data),
                Err(rusqlite::Error::QueryReturnedNoRows) => None,
                Err(error) => match Fault::of_damaged(error) {
                    Fault::Damaged(_) => None,
                    fault => return Err(fault),
                },
            };
        heads.extend(data.and_then(|data| Head::read(&data)));
    }
    heads.sort_by_key(|head| std::cmp::Reverse(head.turn));
    Ok(heads)
}

/// The head of a file that is whole: both copies are there, one turn apart.
pub(crate) fn whole_head(connection: &Connection) -> Result<Head, Fault> {
    let mut heads = read_heads(connection)?.into_iter();
    match (heads.next(), heads.next()) {
        (Some(newer), Some(older)) if newer.turn == older.turn + 1 => Ok(newer),
        _ => Err(Fault::Damaged("expected two copies of the ledger, found a damaged one".to_owned())),
    }
}

/// Writes the head into the table of its turn.
pub(crate) fn write_head(connection: &Connection, head: &Head) -> Result<(), Fault> {
    let sql = if head.turn & 1 == 0 {
        "INSERT OR REPLACE INTO head0(id, data) VALUES (1, ?1)"
    } else {
        "INSERT OR REPLACE INTO head1(id, data) VALUES (1, ?1)"
    };
    connection.prepare_cached(sql)?.execute([head.write()])?;
    Ok(())
}

/// Writes both copies, as in a new file.
pub(crate) fn write_both_heads(connection: &Connection, head: &mut Head) -> Result<(), Fault> {
    for _ in 0..2 {
        head.turn += 1;
        write_head(connection, head)?;
    }
    Ok(())
}
