//! A look at a write-ahead log before SQLite opens it: was something of it lost?
//!
//! SQLite takes the frames of a log up to the first whose checksum is wrong and forgets the rest in silence. That is right
//! for the torn end of a crash, and it hides damage in the middle. The two can be told apart: behind the torn end nothing of
//! the same generation follows but the rest of one transaction, behind damage further commits do. Format: "Database File
//! Format", section 4, of the SQLite documentation.
//!
//! Of a damaged log the newest ledger is searched ([`last_head`]): it stands in a page of its own with a checksum of its own,
//! so it can be believed whatever is around it, and it says how many records the lost transactions brought.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use crate::head::Head;

/// Bytes of the head of a log, and of a frame.
const HEAD: usize = 32;
const FRAME: usize = 24;
const MAGIC: u32 = 0x377f_0682;
/// Commits behind the first wrong frame that one torn transaction may leave.
const TORN: u64 = 1;

/// What a log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// Not there, empty, whole, or torn at its end.
    Sound,
    /// Its head is wrong: SQLite will take none of it.
    Headless,
    /// Behind a wrong frame at least so many transactions follow.
    Broken(u64),
}

/// Looks at the log at `path`.
pub(crate) fn look(path: &Path) -> io::Result<Log> {
    match File::open(path) {
        Ok(file) => read(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Log::Sound),
        Err(error) => Err(error),
    }
}

/// The newest head that a complete transaction of the log at `path` wrote, also behind damage.
pub(crate) fn last_head(path: &Path) -> io::Result<Option<Head>> {
    match File::open(path) {
        Ok(file) => newest_head(BufReader::new(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn newest_head(mut log: impl Read) -> io::Result<Option<Head>> {
    let (mut newest, mut written): (Option<Head>, Option<Head>) = (None, None);
    let (mut head, mut frame, mut page) = ([0; HEAD], [0; FRAME], vec![0; crate::database::PAGE]);
    let _ = fill(&mut log, &mut head)?;
    while fill(&mut log, &mut frame)? && fill(&mut log, &mut page)? {
        written = head_in(&page).or(written);
        if word(&frame, 4, true) != 0 {
            newest = [newest, written.take()].into_iter().flatten().max_by_key(|head| head.turn);
        }
    }
    Ok(newest)
}

/// The head in the only row of a leaf page ("Database File Format", sections 1.6 and 2.1). One too long for a page is not
/// found.
fn head_in(page: &[u8]) -> Option<Head> {
    const TABLE_LEAF: u8 = 13;
    let pair = |at: usize| Some(u16::from_be_bytes(*page.get(at..)?.first_chunk::<2>()?));
    if *page.first()? != TABLE_LEAF || pair(3)? != 1 {
        return None;
    }
    let cell = page.get(usize::from(pair(8)?)..)?;
    let (length, cell) = varint(cell)?;
    let (_key, cell) = varint(cell)?;
    let record = cell.get(..usize::try_from(length).ok()?)?;
    let (types, _) = varint(record)?;
    Head::read(record.get(usize::try_from(types).ok()?..)?)
}

/// A number of SQLite: seven bits a byte, the highest first, nine bytes at most. What is behind it comes back too.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(8) {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

fn read(mut log: impl Read) -> io::Result<Log> {
    let mut head = [0; HEAD];
    if !fill(&mut log, &mut head)? {
        return Ok(Log::Sound);
    }
    let page = word(&head, 8, true) as usize;
    let mut frame = [0; FRAME];
    let sized = page.is_power_of_two() && (512..=65_536).contains(&page);
    let mut content = vec![0; if sized { page } else { crate::database::PAGE }];
    let magic = word(&head, 0, true);
    let big = magic & 1 == 1;
    let mut sum = (0, 0);
    add(&mut sum, head.get(..24).unwrap_or_default(), big);
    if magic & !1 != MAGIC || !sized || sum != (word(&head, 24, true), word(&head, 28, true)) {
        // Only with a whole frame behind it was it ever used.
        let used = fill(&mut log, &mut frame)? && fill(&mut log, &mut content)?;
        return Ok(if used { Log::Headless } else { Log::Sound });
    }
    let salt = (word(&head, 16, true), word(&head, 20, true));
    let (mut sound, mut commits) = (true, 0);
    while fill(&mut log, &mut frame)? && fill(&mut log, &mut content)? {
        let ours = salt == (word(&frame, 8, true), word(&frame, 12, true));
        if sound {
            add(&mut sum, frame.get(..8).unwrap_or_default(), big);
            add(&mut sum, &content, big);
            sound = ours && sum == (word(&frame, 16, true), word(&frame, 20, true));
        }
        // The number of pages after it stands in the last frame of a transaction only.
        commits += u64::from(!sound && ours && word(&frame, 4, true) != 0);
    }
    Ok(if commits > TORN { Log::Broken(commits) } else { Log::Sound })
}

/// Fills the buffer; false at the end.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize, big: bool) -> u32 {
    let Some(word) = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()) else { return 0 };
    if big { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) }
}

/// The checksum of a log, over pairs of words.
fn add(sum: &mut (u32, u32), bytes: &[u8], big: bool) {
    for pair in bytes.chunks_exact(8) {
        sum.0 = sum.0.wrapping_add(word(pair, 0, big)).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(pair, 4, big)).wrapping_add(sum.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of ten transactions, of two frames or more each.
    fn log() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        connection.execute_batch("CREATE TABLE t(a); CREATE TABLE u(a)").unwrap();
        for _ in 0..9 {
            connection
                .execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT")
                .unwrap();
        }
        std::fs::read(dir.path().join("a.db-wal")).unwrap()
    }

    #[test]
    fn damage_is_told_from_a_torn_end() {
        let good = log();
        let size = FRAME + 4096;
        let frames = (good.len() - HEAD) / size;
        assert!(frames >= 20);
        assert_eq!(read(good.as_slice()).unwrap(), Log::Sound);
        assert_eq!(read(&good[..0]).unwrap(), Log::Sound);
        for frame in 0..frames {
            let at = HEAD + frame * size;
            // The crash of a writer: the end is missing, or the last transaction is half there.
            assert_eq!(read(&good[..at + 100]).unwrap(), Log::Sound, "cut in frame {frame}");
            for damaged in [at, at + 9, at + 17, at + FRAME + 2_000] {
                let mut bad = good.clone();
                bad[damaged] ^= 0x55;
                let found = read(bad.as_slice()).unwrap();
                if frame < frames - 4 {
                    assert!(matches!(found, Log::Broken(_)), "frame {frame} byte {damaged}: {found:?}");
                } else if frame >= frames - 2 {
                    assert_eq!(found, Log::Sound, "the last transaction: frame {frame}");
                }
            }
        }
        for at in 0..HEAD {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            assert_eq!(read(bad.as_slice()).unwrap(), Log::Headless, "byte {at}");
            assert_eq!(read(&bad[..HEAD]).unwrap(), Log::Sound, "never used");
        }
    }
}
