//! Files that are kept aside, and the safe exchange of a damaged file for the one salvaged from it.
//!
//! A salvage writes `SINK.db.salvage-part` while the damaged file stays where it is; complete and synced it is renamed to
//! `SINK.db.salvage`. From then on every opening finishes the exchange first, so that a crash at any point loses nothing
//! and never pairs a file with the write-ahead log of another.
//!
//! A file that is kept aside moves in three steps: the file to `KEPT-moving`, its log to `KEPT-wal`, `KEPT-moving` to `KEPT`.
//! While there is a `-moving` the log under the old name belongs to it: every opening goes on from there first.
//!
//! Of damaged files the first and the newest are kept: the first is the evidence of what began, the newest what there is to
//! look at. An earlier newest goes before the next salvage is written, so that there are never more than three copies.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{fault::Fault, reserve::beside};

/// Damaged files kept per queue (G9): the first and the newest.
pub(crate) const MAX_DAMAGED: usize = 2;
/// Files of newer versions kept per queue: nothing of them is ever deleted.
const MAX_NEWER: usize = 9;

/// Names of files kept aside.
const DAMAGED: &str = "damaged-";
const NEWER: &str = "newer-";

/// Companions of a SQLite file.
const WAL: &str = "-wal";
const SHM: &str = "-shm";
/// On its way to the name before it.
const MOVING: &str = "-moving";

/// `SINK.db` -> `SINK.db-wal`.
pub(crate) fn wal(path: &Path) -> PathBuf {
    joined(path, WAL)
}

fn joined(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where a salvage is written.
pub(crate) fn part(path: &Path) -> PathBuf {
    beside(path, "salvage-part")
}

/// Removes what an interrupted salvage left and finishes a complete one, and what was on its way aside; true when there was
/// a salvage.
pub(crate) fn finish(path: &Path) -> Result<bool, Fault> {
    remove_all(&part(path))?;
    for prefix in [DAMAGED, NEWER] {
        for kept in moving(path, prefix)? {
            finish_move(path, &kept)?;
        }
    }
    let salvage = beside(path, "salvage");
    if !salvage.exists() {
        return Ok(false);
    }
    keep_damaged(path)?;
    fs::rename(&salvage, path)?;
    sync_dir(path)?;
    Ok(true)
}

/// The salvage in [`part`] is complete: exchanges the files.
pub(crate) fn exchange(path: &Path) -> Result<(), Fault> {
    let part = part(path);
    File::open(&part)?.sync_all()?;
    fs::rename(&part, beside(path, "salvage"))?;
    sync_dir(path)?;
    finish(path)?;
    Ok(())
}

/// Renames the file and its log to `SINK.db.damaged-N`; gives back the new name when there was a file.
pub(crate) fn keep_damaged(path: &Path) -> Result<Option<PathBuf>, Fault> {
    let numbers = numbers(path, DAMAGED)?;
    let (kept, added) = if path.exists() {
        let kept = beside(path, &format!("{DAMAGED}{}", numbers.last().map_or(1, |last| last + 1)));
        move_aside(path, &kept)?;
        (kept, 1)
    } else if let Some(last) = numbers.last().filter(|_| wal(path).exists()) {
        // A log without its file, as versions before `-moving` left it when the exchange was interrupted.
        let kept = beside(path, &format!("{DAMAGED}{last}"));
        fs::rename(wal(path), wal(&kept))?;
        (kept, 0)
    } else {
        remove_all(path)?;
        return Ok(None);
    };
    sync_dir(path)?;
    forget_between(path, &numbers, numbers.len() + added)?;
    Ok(Some(kept))
}

/// Before a salvage is written: of the damaged files only the first stays, because the newest will be another.
pub(crate) fn keep_first_only(path: &Path) -> Result<(), Fault> {
    let numbers = numbers(path, DAMAGED)?;
    forget_between(path, &numbers, numbers.len() + 1)
}

/// Removes all but the first of `numbers` that are too many when there are `count` in the end.
fn forget_between(path: &Path, numbers: &[u64], count: usize) -> Result<(), Fault> {
    for old in numbers.iter().skip(1).take(count.saturating_sub(MAX_DAMAGED)) {
        remove_all(&beside(path, &format!("{DAMAGED}{old}")))?;
    }
    Ok(())
}

/// Renames a file of a newer version to `SINK.db.newer-N`.
pub(crate) fn keep_newer(path: &Path) -> Result<PathBuf, Fault> {
    let used = numbers(path, NEWER)?;
    if used.len() >= MAX_NEWER {
        return Err(Fault::Other(format!(
            "{}: written by a newer version of Busbar, and {MAX_NEWER} such files are already kept beside it: move them \
             away",
            path.display()
        )));
    }
    let kept = beside(path, &format!("{NEWER}{}", used.last().map_or(1, |last| last + 1)));
    move_aside(path, &kept)?;
    Ok(kept)
}

fn move_aside(path: &Path, kept: &Path) -> Result<(), Fault> {
    fs::rename(path, joined(kept, MOVING))?;
    // On a disk that loses power the steps stay in this order.
    sync_dir(path)?;
    finish_move(path, kept)
}

/// The file is at `kept-moving`; its log may still have the old name.
fn finish_move(path: &Path, kept: &Path) -> Result<(), Fault> {
    // With a file beside it the log is that file's: somebody made a new one meanwhile.
    let orphan = !path.exists();
    if orphan && wal(path).exists() {
        fs::rename(wal(path), wal(kept))?;
        sync_dir(path)?;
    }
    fs::rename(joined(kept, MOVING), kept)?;
    if orphan {
        remove_all(path)?;
    }
    sync_dir(path)
}

/// Names to which files are on their way.
fn moving(path: &Path, prefix: &str) -> Result<Vec<PathBuf>, Fault> {
    let numbers = numbered(path, prefix, MOVING)?;
    Ok(numbers.into_iter().map(|number| beside(path, &format!("{prefix}{number}"))).collect())
}

/// Removes a file and its companions; missing ones are no error.
pub(crate) fn remove_all(path: &Path) -> Result<(), Fault> {
    for path in [path.to_owned(), wal(path), joined(path, SHM), joined(path, "-journal")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Numbers N of the files `SINK.db.PREFIXN`, ascending.
fn numbers(path: &Path, prefix: &str) -> Result<Vec<u64>, Fault> {
    numbered(path, prefix, "")
}

/// Numbers N of the files `SINK.db.PREFIXNSUFFIX`, ascending.
fn numbered(path: &Path, prefix: &str, suffix: &str) -> Result<Vec<u64>, Fault> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let prefix = format!("{name}.{prefix}");
    let mut numbers = Vec::new();
    if !dir.exists() {
        return Ok(numbers);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        let number = |name: &str| name.strip_prefix(&prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        numbers.extend(entry.to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn sync_dir(path: &Path) -> Result<(), Fault> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_and_the_newest_damaged_file_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        for number in 1..=4 {
            fs::write(&path, format!("file {number}")).unwrap();
            fs::write(wal(&path), format!("log {number}")).unwrap();
            keep_damaged(&path).unwrap();
        }
        assert_eq!(
            names(dir.path()),
            ["s.db.damaged-1", "s.db.damaged-1-wal", "s.db.damaged-4", "s.db.damaged-4-wal"]
        );
        assert_eq!(fs::read_to_string(dir.path().join("s.db.damaged-1")).unwrap(), "file 1");
        assert_eq!(keep_damaged(&path), Ok(None));
    }

    /// Every state in which a crash can leave an exchange ends with the salvaged file and no foreign log.
    #[test]
    fn an_interrupted_exchange_is_finished() {
        let states: [(&[&str], bool); 5] = [
            (&["s.db", "s.db-wal", "s.db.salvage-part"], false),
            (&["s.db", "s.db-wal", "s.db.salvage"], true),
            (&["s.db-wal", "s.db.damaged-1", "s.db.salvage"], true),
            (&["s.db.damaged-1", "s.db.damaged-1-wal", "s.db.salvage"], true),
            (&["s.db", "s.db.damaged-1", "s.db.damaged-2", "s.db.salvage"], true),
        ];
        for (files, salvaged) in states {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                fs::write(dir.path().join(file), file).unwrap();
            }
            let path = dir.path().join("s.db");
            assert_eq!(finish(&path), Ok(salvaged), "{files:?}");
            let found = fs::read_to_string(&path).unwrap();
            assert_eq!(found, if salvaged { "s.db.salvage" } else { "s.db" }, "{files:?}");
            assert_eq!(wal(&path).exists(), !salvaged, "{files:?}");
            assert!(!part(&path).exists());
            let damaged = names(dir.path()).iter().filter(|name| name.contains("damaged")).count();
            assert!(damaged <= 2 * MAX_DAMAGED);
        }
    }

    /// Every state in which a crash can leave a move ends with file and log together under the new name, and nothing under
    /// the old one.
    #[test]
    fn an_interrupted_move_is_finished() {
        for kept in ["s.db.newer-1", "s.db.damaged-1"] {
            let (moving, log) = (format!("{kept}-moving"), format!("{kept}-wal"));
            let states = [[moving.as_str(), "s.db-wal"], [&moving, &log], [kept, &log]];
            for [file, wal] in states {
                let dir = tempfile::tempdir().unwrap();
                fs::write(dir.path().join(file), "file").unwrap();
                fs::write(dir.path().join(wal), "log").unwrap();
                assert_eq!(finish(&dir.path().join("s.db")), Ok(false), "{file} {wal}");
                assert_eq!(names(dir.path()), [kept, &log], "{file} {wal}");
                assert_eq!(fs::read_to_string(dir.path().join(kept)).unwrap(), "file");
                assert_eq!(fs::read_to_string(dir.path().join(&log)).unwrap(), "log");
            }
            // The log of a file that was made meanwhile stays with it.
            let dir = tempfile::tempdir().unwrap();
            for name in ["s.db", "s.db-wal", moving.as_str()] {
                fs::write(dir.path().join(name), name).unwrap();
            }
            assert_eq!(finish(&dir.path().join("s.db")), Ok(false));
            assert_eq!(names(dir.path()), ["s.db", "s.db-wal", kept]);
        }
    }

    /// What the steps of a move really leave behind is what is finished above.
    #[test]
    fn the_log_of_a_newer_file_moves_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        fs::write(&path, "file").unwrap();
        fs::write(wal(&path), "log").unwrap();
        // The first step, and the crash.
        fs::rename(&path, joined(&beside(&path, "newer-1"), MOVING)).unwrap();
        finish(&path).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("s.db.newer-1-wal")).unwrap(), "log");
        fs::write(&path, "next").unwrap();
        assert_eq!(keep_newer(&path), Ok(dir.path().join("s.db.newer-2")));
        assert_eq!(names(dir.path()), ["s.db.newer-1", "s.db.newer-1-wal", "s.db.newer-2"]);
    }

    #[test]
    fn files_of_newer_versions_are_never_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        for _ in 0..MAX_NEWER {
            fs::write(&path, "newer").unwrap();
            keep_newer(&path).unwrap();
        }
        fs::write(&path, "newer").unwrap();
        assert!(matches!(keep_newer(&path), Err(Fault::Other(text)) if text.contains("move them")));
        assert!(path.exists());
    }
}
