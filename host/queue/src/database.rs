//! Opening a SQLite file of ours: who wrote it, is it whole, how is it written.
//!
//! One connection per file, with an exclusive lock: no reader from outside can hold the write-ahead log open (it would
//! grow without end), and two hosts cannot share a file. The file must not be opened in this process by any other means
//! while the connection lives: closing any descriptor of it would drop the lock (POSIX).

use std::{
    fs,
    io::Read,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use busbar_core::model::Sync;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::fault::Fault;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4_096;

/// The write-ahead log is worked into the file when it has this many pages. Short, because a full disk must still have
/// room to work in one log ([`crate::reserve`]); longer where only this work is synced, because it costs two syncs.
pub(crate) const fn log_pages(sync: Sync) -> i32 {
    match sync {
        Sync::Commit => 256,
        Sync::Checkpoint => 1_024,
    }
}

/// Longest check of a file at its opening. A file too large for it is checked as far as it goes; damage further on is
/// found when it is read.
const CHECK_TIME: Duration = Duration::from_secs(2);
/// Virtual machine steps between two looks at the time.
const CHECK_STEPS: i32 = 10_000;

/// What distinguishes the files of this crate.
#[derive(Debug)]
pub(crate) struct Kind {
    /// For texts: `a queue`.
    pub(crate) what: &'static str,
    /// `PRAGMA application_id`.
    pub(crate) application_id: i64,
    /// `PRAGMA user_version`.
    pub(crate) schema: i64,
    /// Makes the tables.
    pub(crate) tables: &'static str,
}

/// Makes the directory (mode 0750) where there is none.
pub(crate) fn prepare_dir(path: &Path) -> Result<(), Fault> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(dir);
    made.map_err(|error| wrong(path, "directory", error))
}

/// Makes an empty file (mode 0600) where there is none.
pub(crate) fn prepare(path: &Path) -> Result<(), Fault> {
    if !path.exists() {
        let made = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|error| wrong(path, "file", error))?;
    }
    Ok(())
}

fn wrong(path: &Path, what: &str, error: std::io::Error) -> Fault {
    match Fault::from(error) {
        Fault::Other(text) => {
            Fault::Other(format!("expected a {what} this user can write ({}), found: {text}", path.display()))
        }
        fault => fault,
    }
}

/// Opens for work: makes the tables in an empty file and fills them, judges any other.
pub(crate) fn open(
    path: &Path,
    kind: &Kind,
    sync: Sync,
    fill: impl FnOnce(&Connection) -> Result<(), Fault>,
) -> Result<Connection, Fault> {
    prepare(path)?;
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode = set_up(&connection, sync).map_err(Fault::of_damaged)?;
    if mode != "wal" {
        return Err(Fault::Other(format!(
            "{}: expected a file that takes a write-ahead log, found mode {mode}: is the directory writable?",
            path.display()
        )));
    }
    if judge(&connection, kind)? {
        check(&mut connection)?;
    } else {
        create(&mut connection, kind, fill)?;
    }
    Ok(connection)
}

/// How it is written; gives back the journal mode that the file took.
fn set_up(connection: &Connection, sync: Sync) -> rusqlite::Result<String> {
    let level = if sync == Sync::Commit { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", level)?;
    // Twice the usual length: what one large transaction made longer is given back.
    connection.pragma_update(None, "journal_size_limit", 2 * i64::from(log_pages(sync)) * PAGE as i64)?;
    // The owner does it, and sees when it fails: see [`watch_log`].
    let _: i64 = connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |row| row.get(0))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
}

/// Opens a damaged file to read what is left of it; `None` when not even its head says what it is. That it cannot be opened
/// at all (no right, a lock, too many open files, a disk that does not read) is no damage and an error: nothing may be
/// concluded from it.
pub(crate) fn open_damaged(path: &Path, kind: &Kind) -> Result<Option<Connection>, Fault> {
    // SQLite calls a failing disk a malformed database.
    let mut head = [0; 100];
    match fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        read => read.map_err(|error| Fault::Other(format!("{}: cannot be read: {error}", path.display())))?,
    }
    let opened = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|connection| {
        judge(&connection, kind)?;
        Ok(connection)
    });
    match opened {
        Ok(connection) => Ok(Some(connection)),
        Err(Fault::Damaged(_) | Fault::Foreign(_) | Fault::Newer(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The settings that every connection needs, also one that only reads.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    try_connect(path, flags).map_err(Fault::of_damaged)
}

fn try_connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(64);
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // The log goes with an orderly end only: a file without it was closed in order, or lost something.
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        connection.set_db_config(config, value)?;
    }
    let _: String = connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |row| row.get(0))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// True: ours, of a schema that is understood. False: empty.
pub(crate) fn judge(connection: &Connection, kind: &Kind) -> Result<bool, Fault> {
    let ask =
        |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(Fault::of_damaged);
    let tables = ask("SELECT count(*) FROM sqlite_master")?;
    let application_id = ask("PRAGMA application_id")?;
    let schema = ask("PRAGMA user_version")?;
    if tables == 0 && application_id == 0 && schema == 0 {
        return Ok(false);
    }
    if application_id != kind.application_id {
        return Err(Fault::Foreign(format!("expected {}, found another SQLite file", kind.what)));
    }
    match schema {
        version if version == kind.schema => Ok(true),
        version if version > kind.schema => Err(Fault::Newer(version)),
        version => Err(Fault::Damaged(format!("expected schema {}, found {version}", kind.schema))),
    }
}

/// Pages in the write-ahead log after each commit.
pub(crate) fn watch_log(connection: &mut Connection) -> Result<Arc<AtomicI32>, Fault> {
    let pages = Arc::new(AtomicI32::new(0));
    let seen = Arc::clone(&pages);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
        seen.store(pages, Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// Makes the tables and fills them, all or nothing.
pub(crate) fn create(
    connection: &mut Connection,
    kind: &Kind,
    fill: impl FnOnce(&Connection) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Kind { application_id, schema, tables, .. } = kind;
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {application_id}; PRAGMA user_version = {schema}; {tables}"
    ))?;
    fill(&transaction)?;
    Ok(transaction.commit()?)
}

/// SQLite's own look at the structure, for at most [`CHECK_TIME`].
fn check(connection: &mut Connection) -> Result<(), Fault> {
    let until = Instant::now() + CHECK_TIME;
    connection.progress_handler(CHECK_STEPS, Some(move || Instant::now() >= until))?;
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match verdict {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(Fault::Damaged(text.replace('\n', " "))),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
