//! One queue file: its life from opening to closing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use busbar_core::{
    journal::{Committed, Ledger, Loaded, NotCommitted, Recovered, Settled, Transaction},
    model::Sync,
};
use rusqlite::{Connection, TransactionBehavior, config::DbConfig};

use crate::{
    aside,
    clock::{AgeClock, Now},
    database::{PAGE, log_pages, watch_log},
    draft::{Draft, Limits, Oldest},
    fault::{Fault, is_full},
    head::Head,
    names::{Names, NewNames},
    open::connect,
    parked::Parked,
    reserve::{Reserve, beside},
    salvage::{Known, salvage},
};

/// A drained file larger than this in free pages gives them back to the file system.
const SHRINK_PAGES: i64 = 4_096;
/// What may be copied for that.
const SHRINK_LIVE_PAGES: i64 = 1_024;
/// Most bytes of an entry without its text.
const ENTRY: usize = 48;
/// Records whose ends are written at once on a full disk.
const PIECE: u64 = 5_000;
/// Notes kept for whoever asks (G9).
const MAX_NOTES: usize = 32;

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// When a transaction counts as written.
    pub sync: Sync,
    /// The clocks at the opening.
    pub now: Now,
}

/// A queue file cannot be opened now. Nothing was changed that a later attempt could not use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NotOpened {
    /// The disk is full (or a quota).
    pub full: bool,
    /// For the operator.
    pub text: String,
}

/// A queue file, open. Owned by one thread.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// `None` only after a salvage at run time could not be finished: the next use tries again.
    connection: Option<Connection>,
    /// Pages in the log, and why it could not be worked into the file: it must not grow by new rows then.
    log_pages: Arc<AtomicI32>,
    log_stuck: Option<Fault>,
    sync: Sync,
    limits: Limits,
    head: Head,
    oldest: Option<Oldest>,
    clock: AgeClock,
    now: Now,
    names: Names,
    reserve: Reserve,
    notes: Vec<String>,
}

impl File {
    /// Opens or makes the file at `path`. A damaged one is kept aside and salvaged, one of a newer version kept aside.
    pub fn open(path: &Path, options: &Options) -> Result<(Self, Recovered), NotOpened> {
        Self::try_open(path, options).map_err(|fault| NotOpened {
            full: matches!(fault, Fault::Full(_)),
            text: format!("{}: cannot be opened: {}", path.display(), fault.text()),
        })
    }

    fn try_open(path: &Path, options: &Options) -> Result<(Self, Recovered), Fault> {
        let mut notes = Vec::new();
        let (mut connection, head) = connect(path, options.sync, options.now.wall_ns, &mut notes)?;
        let log_pages = watch_log(&mut connection)?;
        let clock = AgeClock::resume(&head.stamp, &options.now);
        let mut file = Self {
            path: path.to_owned(),
            connection: Some(connection),
            log_pages,
            log_stuck: None,
            sync: options.sync,
            limits: options.limits,
            head,
            oldest: None,
            clock,
            now: options.now,
            names: Names::default(),
            reserve: Reserve::new(path, options.sync),
            notes,
        };
        file.begin()?;
        let Committed { ledger, oldest, bytes, oldest_age_ns } = file.committed();
        let (next, notes) = (file.head.next, file.take_notes());
        Ok((file, Recovered { next, oldest, ledger, bytes, oldest_age_ns, notes }))
    }

    /// The first transaction of a run: bounds are kept, and the file says that it is in use.
    fn begin(&mut self) -> Result<(), Fault> {
        let unused = self.head.ledger.pending == 0 && self.head.ledger.parked.is_empty();
        let begun = self.mended(|file| {
            file.write(|draft, _| {
                // A dictionary that no record uses is emptied, so that it does not grow over years of renaming.
                if unused {
                    draft.connection.execute("DELETE FROM names", [])?;
                }
                draft.keep_bounds()?;
                Ok(NewNames::default())
            })
        });
        match begun {
            // What is there can be read and delivered; that makes room.
            Err(Fault::Full(text)) => {
                self.oldest = self.mended(|file| file.draft()?.oldest())?;
                self.note(format!(
                    "the disk is full: {text}; what waits is delivered, nothing new is written"
                ));
            }
            Err(fault) => return Err(fault),
            Ok(_) => self.checkpoint("PASSIVE"),
        }
        let connection = self.connection.as_ref().ok_or_else(not_open)?;
        self.names.opened(connection)
    }

    /// Writes one transaction: all of it is on disk when this returns `Ok`, nothing of it otherwise. Ends of records are
    /// the exception that the words allow: on a full disk they may already be written and are then not counted again.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<Committed, NotCommitted> {
        self.now.mono_ns = self.now.mono_ns.max(transaction.now_ns);
        // New rows leave the reserve alone.
        let mut done = self.mended(|file| {
            file.room(transaction)?;
            file.write(|draft, names| draft.apply(transaction, names))
        });
        if done.as_ref().is_err_and(|fault| self.is_full(fault)) {
            done = self.squeeze(transaction);
        }
        match done {
            Ok(new) => {
                self.names.adopt(new);
                if self.log_pages.load(Ordering::Relaxed) >= log_pages(self.sync) {
                    self.checkpoint("PASSIVE");
                }
                self.tidy();
                Ok(self.committed())
            }
            Err(fault) => Err(self.not_committed(&fault)),
        }
    }

    /// Waiting records in order of their numbers from `from` on: whole rows, at least one, then until `records` or
    /// `bytes` (of samples and texts) are reached.
    pub fn load(&mut self, from: u64, records: usize, bytes: usize) -> Result<Loaded, String> {
        let loaded = self.mended(|file| {
            let names = &file.names;
            file.draft()?.read(names, from, records, bytes)
        });
        let loaded =
            loaded.map_err(|fault| format!("{}: cannot be read: {}", self.path.display(), fault.text()))?;
        self.names.note_told(loaded.names.iter().map(|(id, _)| *id));
        Ok(loaded)
    }

    /// Parked records from number `from` on, at most `limit`.
    pub fn parked(&mut self, from: u64, limit: usize) -> Result<Vec<Parked>, String> {
        let parked = self.mended(|file| file.draft()?.parked(from, limit));
        parked.map_err(|fault| format!("{}: cannot be read: {}", self.path.display(), fault.text()))
    }

    /// Parked records wait again, each in its place; gives them back, a row each. Numbers that are not parked are left
    /// out.
    pub fn retry_parked(&mut self, numbers: &[u64]) -> Result<(Loaded, Committed), NotCommitted> {
        let (released, committed) = self.release(numbers, true)?;
        let mut again = Loaded { next: self.head.next, ..Loaded::default() };
        for number in released {
            // What was damaged does not wait.
            let loaded = self.load(number, 1, 1).map_err(|text| NotCommitted { full: false, text })?;
            again.names.extend(loaded.names);
            again.rows.extend(loaded.rows.into_iter().filter_map(|mut row| {
                row.entries.retain(|entry| entry.number == number);
                (!row.entries.is_empty()).then_some(row)
            }));
        }
        again.from = again.rows.first().and_then(|row| row.entries.first()).map_or(0, |entry| entry.number);
        Ok((again, committed))
    }

    /// Parked records are given up and counted as `dropped{discarded}`; gives back how many there were.
    pub fn discard_parked(&mut self, numbers: &[u64]) -> Result<(u64, Committed), NotCommitted> {
        self.release(numbers, false).map(|(released, committed)| (released.len() as u64, committed))
    }

    fn release(&mut self, numbers: &[u64], again: bool) -> Result<(Vec<u64>, Committed), NotCommitted> {
        let done = self.mended(|file| {
            let mut released = Vec::new();
            file.write(|draft, _| {
                for number in numbers {
                    if draft.release(*number, again)? {
                        released.push(*number);
                    }
                }
                Ok(NewNames::default())
            })?;
            Ok(released)
        });
        match done {
            Ok(released) => Ok((released, self.committed())),
            Err(fault) => Err(self.not_committed(&fault)),
        }
    }

    /// Other bounds from the next transaction on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What the wall clock says; used to know how long the file was closed.
    pub fn set_wall(&mut self, wall_ns: i64, synchronised: bool) {
        self.now.wall_ns = wall_ns;
        self.now.synchronised = synchronised;
    }

    /// Figures of the last transaction.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.head.ledger
    }

    /// Ends of records that had ended before (after a crash, or repeated by the far side).
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.head.late
    }

    /// What was found and done since this was asked last, for the operator.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Closes in order: the log is worked into the file.
    pub fn close(mut self) -> Result<(), String> {
        let failed = |path: &Path, text: String| format!("{}: not closed in order: {text}", path.display());
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let closed = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let draft = Draft::new(&transaction, &self.head, &self.clock, &self.limits, &self.now);
            draft.write(true)?;
            transaction.commit()?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            connection.close().map_err(|(_, error)| Fault::from(error))
        })();
        closed.map_err(|fault: Fault| failed(&self.path, fault.text()))
    }

    fn draft(&self) -> Result<Draft<'_>, Fault> {
        let connection = self.connection.as_ref().ok_or_else(not_open)?;
        Ok(Draft::new(connection, &self.head, &self.clock, &self.limits, &self.now))
    }

    /// One transaction of SQLite; the head is exchanged when it has committed.
    fn write(
        &mut self,
        apply: impl FnOnce(&mut Draft<'_>, &Names) -> Result<NewNames, Fault>,
    ) -> Result<NewNames, Fault> {
        let connection = self.connection.as_mut().ok_or_else(not_open)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut draft = Draft::new(&transaction, &self.head, &self.clock, &self.limits, &self.now);
        let new = apply(&mut draft, &self.names)?;
        let (head, oldest) = draft.write(false)?;
        transaction.commit()?;
        self.head = head;
        self.oldest = oldest;
        Ok(new)
    }

    /// Runs `work`; when it meets damage, the file is salvaged and it runs once more.
    fn mended<T>(&mut self, mut work: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.connection.is_none() {
            self.mend("an earlier salvage was not finished")?;
        }
        match work(self) {
            Err(Fault::Damaged(why)) => {
                self.mend(&why)?;
                work(self)
            }
            done => done,
        }
    }

    fn mend(&mut self, why: &str) -> Result<(), Fault> {
        self.connection = None;
        let known = Known::Run(&self.head, &self.names);
        for note in salvage(&self.path, why, known, self.now.wall_ns)? {
            self.note(note);
        }
        let mut notes = Vec::new();
        let (mut connection, head) = connect(&self.path, self.sync, self.now.wall_ns, &mut notes)?;
        self.log_pages = watch_log(&mut connection)?;
        self.names.opened(&connection)?;
        self.connection = Some(connection);
        self.head = head;
        self.oldest = self.draft()?.oldest()?;
        for note in notes {
            self.note(note);
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(text);
        }
    }

    /// The disk is full. With the reserve the log is worked in and confirmations are written, which free pages for new
    /// rows; these are written only when the reserve can be taken back, or fit into what was freed.
    fn squeeze(&mut self, transaction: &Transaction) -> Result<NewNames, Fault> {
        self.reserve.free();
        self.checkpoint("RESTART");
        for settled in &transaction.settled {
            self.settle_in_pieces(settled)?;
        }
        let done = self.mended(|file| {
            file.room(transaction)?;
            file.write(|draft, names| draft.apply(transaction, names))
        });
        self.checkpoint("RESTART");
        self.reserve.take();
        done
    }

    /// Each piece is a transaction of its own, so that it needs little room. Ends that come again are not counted twice.
    fn settle_in_pieces(&mut self, settled: &Settled) -> Result<(), Fault> {
        let end = settled.first.saturating_add(settled.count).min(self.head.next);
        let mut first = settled.first.max(self.oldest.map_or(self.head.next, |oldest| oldest.number));
        while first < end {
            let count = (end - first).min(PIECE);
            let piece = Settled { first, count, end: settled.end.clone() };
            self.mended(|file| {
                file.write(|draft, _| draft.apply_ends(&piece).map(|()| NewNames::default()))
            })?;
            self.checkpoint("RESTART");
            first += count;
        }
        Ok(())
    }

    /// New rows may be written: the log can be worked in, and room for confirmations stays.
    fn room(&mut self, transaction: &Transaction) -> Result<(), Fault> {
        if transaction.rows.is_empty() {
            return Ok(());
        }
        if self.log_stuck.is_some() {
            // Perhaps it goes now.
            self.checkpoint("PASSIVE");
        }
        match &self.log_stuck {
            Some(Fault::Full(why)) => return Err(Fault::Full(why.clone())),
            Some(Fault::Damaged(why)) => return Err(Fault::Damaged(why.clone())),
            Some(fault) => {
                let text = format!("its write-ahead log cannot be worked into it: {}", fault.text());
                return Err(Fault::Other(text));
            }
            None => {}
        }
        if self.reserve.take() || self.fits(transaction) {
            return Ok(());
        }
        Err(Fault::Full("nothing is left beside the room kept back for confirmations".to_owned()))
    }

    /// The rows have room in pages that confirmations freed within the file, with a margin: it need not grow for them.
    fn fits(&self, transaction: &Transaction) -> bool {
        let entries = transaction.rows.iter().flat_map(|row| &row.entries);
        let bytes: usize =
            entries.map(|entry| ENTRY + entry.blob.as_ref().map_or(0, |blob| blob.len())).sum();
        let pages = 2 * (bytes / PAGE + transaction.rows.len()) as i64;
        self.ask("PRAGMA freelist_count") > pages + i64::from(log_pages(self.sync))
    }

    fn ask(&self, sql: &str) -> i64 {
        let ask = |connection: &Connection| connection.query_row(sql, [], |row| row.get(0));
        self.connection.as_ref().and_then(|connection| ask(connection).ok()).unwrap_or(0)
    }

    /// The log is worked into the file; the next transaction uses it from its beginning again.
    fn checkpoint(&mut self, mode: &str) {
        let Some(connection) = &self.connection else { return };
        let done =
            connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
        self.log_stuck = match done {
            Ok(0) => None,
            Ok(_) => Some(Fault::Other("somebody else reads the file".to_owned())),
            Err(error) => Some(error.into()),
        };
    }

    /// A drained file gives its pages back.
    fn tidy(&mut self) {
        if self.head.ledger.pending > 0 {
            return;
        }
        let free = self.ask("PRAGMA freelist_count");
        let held = self.reserve.is_held();
        // What a small file and its log give back may be just what the reserve lacks.
        let enough = free >= if held { SHRINK_PAGES } else { i64::from(log_pages(self.sync)) };
        let worth = enough || (!held && free > 0 && self.reserve.fits_with(self.returnable(free)));
        if worth && self.ask("PRAGMA page_count") - free <= SHRINK_LIVE_PAGES {
            if let Some(connection) = &self.connection {
                let _ = connection.execute_batch("VACUUM");
            }
            self.checkpoint("TRUNCATE");
            self.reserve.take();
        }
    }

    /// Bytes that the file and its log give back.
    fn returnable(&self, free_pages: i64) -> u64 {
        let log = std::fs::metadata(aside::wal(&self.path)).map_or(0, |meta| meta.len());
        u64::try_from(free_pages).unwrap_or(0) * PAGE as u64 + log
    }

    fn committed(&self) -> Committed {
        let now_ms = self.clock.age_ms(self.now.mono_ns);
        let age_ms = self.oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest.at));
        Committed {
            ledger: self.head.ledger.clone(),
            oldest: self.oldest.map_or(self.head.next, |oldest| oldest.number),
            bytes: self.head.bytes,
            oldest_age_ns: age_ms.saturating_mul(1_000_000),
        }
    }

    fn not_committed(&self, fault: &Fault) -> NotCommitted {
        let full = self.is_full(fault);
        let text = format!("{}: cannot be written: {}", self.path.display(), fault.text());
        NotCommitted { full, text }
    }

    /// SQLite tells only some ways of having no room (a quota is an I/O error): a small file tries it.
    fn is_full(&self, fault: &Fault) -> bool {
        const PROBE: usize = 64 * 1024;
        match fault {
            Fault::Full(_) => true,
            Fault::Other(_) => {
                let probe = beside(&self.path, "probe");
                let tried = std::fs::write(&probe, vec![0x5a; PROBE]);
                let _ = std::fs::remove_file(&probe);
                tried.is_err_and(|error| is_full(&error))
            }
            _ => false,
        }
    }
}

fn not_open() -> Fault {
    Fault::Other("the file is not open".to_owned())
}
