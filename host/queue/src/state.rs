//! Durable key-value state of devices, sinks and the host: `state.db`.
//!
//! A put is answered after it is synced. Each entry has a checksum over owner, key and value: one that does not carry
//! what it is named for is reported, not believed. A damaged file is kept aside and its readable entries are salvaged, in
//! the same way as a queue's; whoever opens it is told, because a missing entry can then mean a lost one.

use std::path::{Path, PathBuf};

use busbar_core::model::Sync;
use rusqlite::{Connection, OptionalExtension, config::DbConfig};

use crate::{
    aside,
    bytes::crc32,
    database::{self, Kind},
    fault::Fault,
    scan::scan,
};

/// Longest key, bytes.
pub const MAX_KEY: usize = 128;
/// Largest value, bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Largest sum of all values, bytes.
pub const MAX_TOTAL: usize = 16 << 20;

const STATE: Kind = Kind {
    what: "the state of Busbar",
    // "BBs1"
    application_id: 0x4242_7331,
    schema: 1,
    tables: "
        CREATE TABLE entries(
            id INTEGER PRIMARY KEY, owner TEXT NOT NULL, key TEXT NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL,
            UNIQUE(owner, key));",
};

/// The open state. Owned by one thread.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    /// `None` only after a salvage could not be finished: the next use tries again.
    connection: Option<Connection>,
}

/// Something happened to the file that its owner must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// For the operator.
    pub note: String,
    /// Entries may be missing.
    pub lost: bool,
}

impl State {
    /// Opens or makes the file at `path`. The text of an error is for the operator.
    pub fn open(path: &Path) -> Result<(Self, Vec<Mended>), String> {
        let mut mended = Vec::new();
        let connection = connect(path, &mut mended)
            .map_err(|fault| format!("{}: cannot be opened: {}", path.display(), fault.text()))?;
        Ok((Self { path: path.to_owned(), connection: Some(connection) }, mended))
    }

    /// Stores `value` under `owner` and `key`; on disk when this returns `Ok`.
    pub fn put(&mut self, owner: &str, key: &str, value: &[u8]) -> Result<(), String> {
        check_sizes(key, value.len())?;
        let all = self.work("written", |connection| {
            let transaction = connection.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO entries(owner, key, crc, value) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT(owner, key) DO UPDATE SET crc = excluded.crc, value = excluded.value",
                )?
                .execute((owner, key, checksum(owner, key, value), value))?;
            let all: u64 = transaction
                .prepare_cached("SELECT coalesce(sum(length(value)), 0) FROM entries")?
                .query_row([], |row| row.get(0))?;
            if all <= MAX_TOTAL as u64 {
                transaction.commit()?;
            }
            Ok(all)
        })?;
        if all > MAX_TOTAL as u64 {
            return Err(format!("state: expected at most {MAX_TOTAL} bytes in all, found {all}"));
        }
        Ok(())
    }

    /// Reads an entry. An entry that is damaged is an error.
    pub fn get(&mut self, owner: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        let found = self.work("read", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT crc, value FROM entries WHERE owner = ?1 AND key = ?2")?;
            let found = statement
                .query_row((owner, key), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
                .optional()?;
            Ok(found)
        })?;
        match found {
            Some((crc, value)) if crc != checksum(owner, key, &value) => Err(format!(
                "{}: expected the state {key} of {owner}, found a damaged entry: remove it with `busbar state clear`",
                self.path.display()
            )),
            found => Ok(found.map(|(_, value)| value)),
        }
    }

    /// Removes an entry; a missing one is no error.
    pub fn delete(&mut self, owner: &str, key: &str) -> Result<(), String> {
        self.work("written", |connection| {
            connection
                .prepare_cached("DELETE FROM entries WHERE owner = ?1 AND key = ?2")?
                .execute((owner, key))?;
            Ok(())
        })
    }

    /// Removes everything of `owner`; gives back how many entries there were.
    pub fn clear(&mut self, owner: &str) -> Result<usize, String> {
        self.work("written", |connection| {
            Ok(connection.prepare_cached("DELETE FROM entries WHERE owner = ?1")?.execute([owner])?)
        })
    }

    /// Owners with the number of their entries.
    pub fn owners(&mut self) -> Result<Vec<(String, u64)>, String> {
        self.work("read", |connection| {
            let mut statement = connection
                .prepare_cached("SELECT owner, count(*) FROM entries GROUP BY owner ORDER BY owner")?;
            let owners = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(owners.collect::<Result<_, _>>()?)
        })
    }

    /// Closes in order: the log is worked into the file.
    pub fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
            let _ = connection.close();
        }
    }

    /// Runs `work`; a file that turns out to be damaged is mended first.
    fn work<T>(
        &mut self,
        what: &str,
        mut work: impl FnMut(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, String> {
        let failed = |path: &Path, fault: &Fault| {
            format!("{}: state could not be {what}: {}", path.display(), fault.text())
        };
        let mut done = match &mut self.connection {
            Some(connection) => work(connection),
            None => Err(Fault::Damaged("an earlier salvage was not finished".to_owned())),
        };
        if let Err(Fault::Damaged(why)) = &done {
            self.connection = None;
            let mut mended = Vec::new();
            let again = salvage(&self.path, why).and_then(|_| connect(&self.path, &mut mended));
            // What was there cannot be told from what never was: the question at hand is answered with the damage.
            let text = format!("{why}; the file was kept aside and what is readable was salvaged");
            self.connection = Some(again.map_err(|fault| failed(&self.path, &fault))?);
            done = Err(Fault::Other(text));
        }
        done.map_err(|fault| failed(&self.path, &fault))
    }
}

fn connect(path: &Path, mended: &mut Vec<Mended>) -> Result<Connection, Fault> {
    database::prepare_dir(path)?;
    if aside::finish(path)? {
        let note =
            format!("{}: the salvage of a damaged file, interrupted before, was finished", path.display());
        mended.push(Mended { note, lost: true });
    }
    match database::open(path, &STATE, Sync::Commit, |_| Ok(())) {
        Err(Fault::Damaged(why)) => mended.push(salvage(path, &why)?),
        Err(Fault::Foreign(why)) => {
            aside::keep_damaged(path)?;
            let note = format!("{}: {why}; kept aside as .damaged-N", path.display());
            mended.push(Mended { note, lost: true });
        }
        Err(Fault::Newer(version)) => {
            let kept = aside::keep_newer(path)?;
            let note = format!(
                "{}: written by a newer version of Busbar (schema {version}); kept aside as {}",
                path.display(),
                kept.display()
            );
            mended.push(Mended { note, lost: true });
        }
        opened => return opened,
    }
    database::open(path, &STATE, Sync::Commit, |_| Ok(()))
}

/// Replaces the damaged file by one with its readable entries.
fn salvage(path: &Path, why: &str) -> Result<Mended, Fault> {
    let part = aside::part(path);
    aside::remove_all(&part)?;
    database::prepare(&part)?;
    let mut target = database::connect(&part, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let _: String = target.query_row("PRAGMA journal_mode = OFF", [], |row| row.get(0))?;
    database::create(&mut target, &STATE, |_| Ok(()))?;
    let source = database::connect(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE);
    let source = source.ok().filter(|source| database::judge(source, &STATE).is_ok());
    let transaction = target.transaction()?;
    let (mut saved, mut lost) = (0_u64, 0_usize);
    if let Some(source) = &source {
        lost += scan(source, "entries", "id, owner, key, crc, value", |_, row| {
            let entry = (|| {
                let (owner, key): (String, String) = (row.get(1)?, row.get(2)?);
                Ok::<_, rusqlite::Error>((owner, key, row.get::<_, i64>(3)?, row.get::<_, Vec<u8>>(4)?))
            })();
            match entry.ok().filter(|(owner, key, crc, value)| checksum(owner, key, value) == *crc) {
                Some((owner, key, crc, value)) => {
                    transaction
                        .prepare_cached(
                            "INSERT OR REPLACE INTO entries(owner, key, crc, value) VALUES (?1, ?2, ?3, ?4)",
                        )?
                        .execute((owner, key, crc, value))?;
                    saved += 1;
                }
                None => lost += 1,
            }
            Ok(())
        })?;
    }
    transaction.commit()?;
    drop(source);
    target.close().map_err(|(_, error)| error)?;
    aside::exchange(path)?;
    let note = format!(
        "{}: damaged ({why}); kept aside as .damaged-N; {saved} entries salvaged, {lost} places could not be read",
        path.display()
    );
    Ok(Mended { note, lost: true })
}

fn check_sizes(key: &str, value: usize) -> Result<(), String> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(format!("state key: expected 1 to {MAX_KEY} bytes, found {}", key.len()));
    }
    if value > MAX_VALUE {
        return Err(format!("state value: expected at most {MAX_VALUE} bytes, found {value}"));
    }
    Ok(())
}

fn checksum(owner: &str, key: &str, value: &[u8]) -> i64 {
    let lengths = [owner.len(), key.len()].map(|length| (length as u64).to_le_bytes());
    let [first, second] = &lengths;
    i64::from(crc32(&[first, second, owner.as_bytes(), key.as_bytes(), value]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        (dir, path)
    }

    fn open(path: &Path) -> State {
        let (state, mended) = State::open(path).unwrap();
        assert_eq!(mended, []);
        state
    }

    #[test]
    fn entries_survive_and_do_not_mix() {
        let (_dir, path) = place();
        let long = "k".repeat(MAX_KEY - 1);
        let keys = ["a", "a/b", "a%2fb", "ü", &format!("{long}1"), &format!("{long}2")];
        let owners = ["device/m", "device/m/a", "host"];
        let mut state = open(&path);
        for owner in owners {
            for key in keys {
                assert_eq!(state.get(owner, key), Ok(None));
                state.put(owner, key, b"before").unwrap();
                state.put(owner, key, format!("{owner} {key}").as_bytes()).unwrap();
            }
        }
        // Without an orderly end.
        drop(state);
        let mut state = open(&path);
        for owner in owners {
            for key in keys {
                assert_eq!(state.get(owner, key), Ok(Some(format!("{owner} {key}").into_bytes())));
            }
        }
        state.delete("host", "a").unwrap();
        state.delete("host", "a").unwrap();
        assert_eq!(state.get("host", "a"), Ok(None));
        assert_eq!(state.clear("device/m"), Ok(6));
        assert_eq!(state.clear("device/m"), Ok(0));
        assert_eq!(state.owners(), Ok(vec![("device/m/a".to_owned(), 6), ("host".to_owned(), 5)]));
        state.close();
        assert!(!path.with_extension("db-wal").exists());
        assert_eq!(open(&path).get("host", "ü"), Ok(Some("host ü".as_bytes().to_vec())));
    }

    #[test]
    fn bounds_are_kept() {
        let (_dir, path) = place();
        let mut state = open(&path);
        assert!(state.put("host", "", b"x").unwrap_err().contains("1 to 128"));
        assert!(state.put("host", &"k".repeat(129), b"x").unwrap_err().contains("found 129"));
        let largest = vec![7; MAX_VALUE];
        assert!(state.put("host", "k", &[largest.as_slice(), b"x"].concat()).is_err());
        for number in 0..MAX_TOTAL / MAX_VALUE {
            state.put("host", &number.to_string(), &largest).unwrap();
        }
        assert!(state.put("host", "more", b"x").unwrap_err().contains("in all"));
        assert_eq!(state.get("host", "more"), Ok(None));
        state.put("host", "0", b"smaller").unwrap();
        state.put("host", "more", b"x").unwrap();
        drop(state);
        assert!(open(&path).put("host", "again", &largest).unwrap_err().contains("in all"));
    }

    #[test]
    fn damage_is_told_and_the_rest_goes_on() {
        let (_dir, path) = place();
        let mut state = open(&path);
        for number in 0..300 {
            state
                .put("device/m", &format!("key-{number}"), format!("value-{number:->80}").as_bytes())
                .unwrap();
        }
        state.close();
        let good = std::fs::read(&path).unwrap();
        // A changed value: its entry is reported, the others are believed.
        let mut bytes = good.clone();
        // Also where the page stood before it was split.
        let copies = bytes.windows(5).enumerate().filter(|(_, window)| window == b"--250");
        let copies: Vec<usize> = copies.map(|(at, _)| at).collect();
        for at in copies {
            bytes[at] = b'+';
        }
        std::fs::write(&path, bytes).unwrap();
        let mut state = open(&path);
        let wrong: Vec<String> =
            (0..300).filter_map(|number| state.get("device/m", &format!("key-{number}")).err()).collect();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].contains("damaged entry"), "{wrong:?}");
        drop(state);
        // A lost page, a lost head, no file of ours: kept aside, and whoever opens it knows.
        for (from, to) in [(3 * 4096, 4 * 4096), (0, 100), (0, good.len())] {
            let _ = std::fs::remove_file(path.with_extension("db-wal"));
            let mut bytes = good.clone();
            bytes[from..to].fill(0xee);
            std::fs::write(&path, bytes).unwrap();
            let (mut state, mended) = State::open(&path).unwrap();
            assert!(mended[0].lost && mended[0].note.contains("damaged"), "{mended:?}");
            let left = state.owners().unwrap().first().map_or(0, |(_, count)| *count);
            assert!(if from > 0 { (200..300).contains(&left) } else { left == 0 }, "{left} left");
            state.put("device/m", "new", b"value").unwrap();
        }
    }
}
