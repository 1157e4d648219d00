//! Durable key-value state of devices, sinks and the host: `state.db`.
//!
//! A put is answered after it is synced. Each entry has a checksum over owner, key and value: one that does not carry
//! what it is named for is reported, not believed. A damaged file is kept aside and its readable entries are salvaged, in
//! the same way as a queue's, also while it is in use ([`State::take_mended`]).
//!
//! Invariant: after a damage "not there" can mean "lost". The file itself remembers that ([`MARK`]), in the same transaction
//! that salvaged it, and answers [`Found::Lost`] instead of [`Found::Never`] from then on, over restarts.

use std::path::{Path, PathBuf};

use busbar_core::model::Sync;
use rusqlite::{Connection, OptionalExtension, config::DbConfig};

use crate::{
    aside,
    bytes::crc32,
    database::{self, Kind},
    fault::Fault,
    head::cut,
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

/// Owner and key of the entry that says that entries may be missing; its value says why. No plugin reaches this owner.
const MARK: (&str, &str) = ("host", "damage");
/// Longest text of it, bytes.
const MAX_MARK: usize = 1024;
/// Notes kept for whoever asks (G9).
const MAX_NOTES: usize = 32;

/// The open state. Owned by one thread.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    /// `None` only after a salvage could not be finished: the next use tries again.
    connection: Option<Connection>,
    /// Entries may be missing, and why.
    lost: Option<String>,
    mended: Vec<Mended>,
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The value.
    Value(Vec<u8>),
    /// Nothing was ever stored, or it was deleted.
    Never,
    /// Nothing is there, and what was may have been lost with a damaged file; the text is for the operator.
    Lost(String),
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
        let (connection, lost) = connect_marked(path, &mut mended)
            .map_err(|fault| format!("{}: cannot be opened: {}", path.display(), fault.text()))?;
        let state = Self { path: path.to_owned(), connection: Some(connection), lost, mended: Vec::new() };
        Ok((state, mended))
    }

    /// What happened to the file since this was asked last.
    pub fn take_mended(&mut self) -> Vec<Mended> {
        std::mem::take(&mut self.mended)
    }

    /// Entries may be missing since a damage, of this run or an earlier one; the text says what happened.
    #[must_use]
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
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
    pub fn get(&mut self, owner: &str, key: &str) -> Result<Found, String> {
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
            Some((_, value)) => Ok(Found::Value(value)),
            None => match self.lost.clone() {
                Some(why) if !self.begins_anew(owner)? => Ok(Found::Lost(why)),
                _ => Ok(Found::Never),
            },
        }
    }

    /// An operator cleared the owner since the damage: it knows that it has nothing.
    fn begins_anew(&mut self, owner: &str) -> Result<bool, String> {
        self.work("read", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT count(*) FROM entries WHERE owner = ?1 AND key = ?2")?;
            Ok(statement.query_row((MARK.0, begun_anew(owner)), |row| row.get::<_, u64>(0))? > 0)
        })
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

    /// Removes everything of `owner`, also the doubt that something of it was lost; gives back how many entries there were.
    pub fn clear(&mut self, owner: &str) -> Result<usize, String> {
        let lost = self.lost.is_some();
        self.work("written", |connection| {
            let transaction = connection.transaction()?;
            let count =
                transaction.prepare_cached("DELETE FROM entries WHERE owner = ?1")?.execute([owner])?;
            if lost {
                note(&transaction, (MARK.0, &begun_anew(owner)), "cleared")?;
            }
            transaction.commit()?;
            Ok(count)
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
        let done = match &mut self.connection {
            Some(connection) => work(connection),
            None => Err(Fault::Damaged("an earlier salvage was not finished".to_owned())),
        };
        let done = match done {
            Err(Fault::Damaged(why)) => self.mend(&why).and_then(work),
            done => done,
        };
        done.map_err(|fault| failed(&self.path, &fault))
    }

    /// Exchanges the damaged file for what can be read of it.
    fn mend(&mut self, why: &str) -> Result<&mut Connection, Fault> {
        self.connection = None;
        let mut mended = Vec::new();
        // A salvage that an earlier attempt wrote, or none: whatever lies there is salvaged when it is damaged.
        if self.path.exists() && !aside::finish(&self.path)? {
            mended.push(salvage(&self.path, why)?);
        }
        let (connection, lost) = connect_marked(&self.path, &mut mended)?;
        self.lost = lost;
        for mended in mended {
            if self.mended.len() < MAX_NOTES {
                self.mended.push(mended);
            }
        }
        Ok(self.connection.insert(connection))
    }
}

/// Opens, and reads or writes the mark.
fn connect_marked(path: &Path, mended: &mut Vec<Mended>) -> Result<(Connection, Option<String>), Fault> {
    let connection = connect(path, mended)?;
    let mut lost = read_mark(&connection)?;
    if let (None, Some(damage)) = (&lost, mended.iter().find(|mended| mended.lost)) {
        note(&connection, MARK, &damage.note)?;
        lost = read_mark(&connection)?;
    }
    Ok((connection, lost))
}

/// Key of the entry that says that `owner` was cleared after the damage.
fn begun_anew(owner: &str) -> String {
    format!("{}/{owner}", MARK.1)
}

fn note(connection: &Connection, (owner, key): (&str, &str), text: &str) -> Result<(), Fault> {
    let note = cut(text, MAX_MARK).as_bytes();
    connection
        .prepare_cached("INSERT OR REPLACE INTO entries(owner, key, crc, value) VALUES (?1, ?2, ?3, ?4)")?
        .execute((owner, key, checksum(owner, key, note), note))?;
    Ok(())
}

/// A mark that is damaged itself is one all the same.
fn read_mark(connection: &Connection) -> Result<Option<String>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT value FROM entries WHERE owner = ?1 AND key = ?2")?;
    let value = statement.query_row(MARK, |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
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
    let source = database::open_damaged(path, &STATE)?;
    aside::keep_first_only(path)?;
    database::prepare(&part)?;
    let mut target = database::connect(&part, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let _: String = target.query_row("PRAGMA journal_mode = OFF", [], |row| row.get(0))?;
    database::create(&mut target, &STATE, |_| Ok(()))?;
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
    let text = format!(
        "{}: damaged ({why}); kept aside as .damaged-N; {saved} entries salvaged, {lost} places could not be read",
        path.display()
    );
    note(&transaction, MARK, &text)?;
    transaction.commit()?;
    drop(source);
    target.close().map_err(|(_, error)| error)?;
    aside::exchange(path)?;
    Ok(Mended { note: text, lost: true })
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
                assert_eq!(state.get(owner, key), Ok(Found::Never));
                state.put(owner, key, b"before").unwrap();
                state.put(owner, key, format!("{owner} {key}").as_bytes()).unwrap();
            }
        }
        // Without an orderly end.
        drop(state);
        let mut state = open(&path);
        for owner in owners {
            for key in keys {
                assert_eq!(state.get(owner, key), Ok(Found::Value(format!("{owner} {key}").into_bytes())));
            }
        }
        state.delete("host", "a").unwrap();
        state.delete("host", "a").unwrap();
        assert_eq!(state.get("host", "a"), Ok(Found::Never));
        assert_eq!(state.clear("device/m"), Ok(6));
        assert_eq!(state.clear("device/m"), Ok(0));
        assert_eq!(state.owners(), Ok(vec![("device/m/a".to_owned(), 6), ("host".to_owned(), 5)]));
        state.close();
        assert!(!path.with_extension("db-wal").exists());
        assert_eq!(open(&path).get("host", "ü"), Ok(Found::Value("host ü".as_bytes().to_vec())));
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
        assert_eq!(state.get("host", "more"), Ok(Found::Never));
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
            let owners = state.owners().unwrap();
            let left = owners.iter().find(|(owner, _)| owner == "device/m").map_or(0, |(_, count)| *count);
            assert!(if from > 0 { (200..300).contains(&left) } else { left == 0 }, "{left} left");
            state.put("device/m", "new", b"value").unwrap();
            // Also the next run does not take what may be lost for what never was.
            state.close();
            let (mut state, mended) = State::open(&path).unwrap();
            assert_eq!(mended, []);
            assert!(
                matches!(state.get("device/m", "other"), Ok(Found::Lost(why)) if why.contains("damaged"))
            );
            assert_eq!(state.get("device/m", "new"), Ok(Found::Value(b"value".to_vec())));
            // An operator said that the device begins anew; another owner is in doubt as before.
            state.clear("device/m").unwrap();
            assert_eq!(state.get("device/m", "other"), Ok(Found::Never));
            assert!(matches!(state.get("device/n", "other"), Ok(Found::Lost(_))));
        }
    }

    /// Damage that is met while the file is in use: the work at hand is done, and nobody hears "never stored".
    #[test]
    fn damage_that_comes_while_running_is_told() {
        let (_dir, path) = place();
        let mut state = open(&path);
        let value = vec![7; 3_000];
        for number in 0..2_000 {
            state.put("device/m", &format!("key-{number}"), &value).unwrap();
        }
        state.close();
        let mut state = open(&path);
        let damaged = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let size = damaged.metadata().unwrap().len();
        std::os::unix::fs::FileExt::write_all_at(&damaged, &vec![0x11; (size / 2) as usize], size / 4)
            .unwrap();
        // Never closed: closing any descriptor would drop SQLite's lock.
        std::mem::forget(damaged);
        let found: Vec<_> =
            (0..2_000).map(|number| state.get("device/m", &format!("key-{number}"))).collect();
        let lost =
            found.iter().filter(|found| matches!(found, Ok(Found::Lost(why)) if why.contains("damaged")));
        assert!(lost.count() > 100);
        assert!(found.iter().all(|found| matches!(found, Ok(Found::Lost(_) | Found::Value(_)))));
        let mended = state.take_mended();
        assert!(mended[0].lost && mended[0].note.contains("kept aside"), "{mended:?}");
        assert_eq!(state.put("device/m", "key-1", b"new"), Ok(()));
        assert!(state.lost().is_some());
        assert!(path.with_extension("db.damaged-1").exists(), "the evidence");
    }
}
