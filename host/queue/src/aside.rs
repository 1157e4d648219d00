//! Files that are kept aside, and the safe exchange of a damaged file for the one salvaged from it.
//!
//! A salvage writes `SINK.db.salvage-part` while the damaged file stays where it is; complete and synced it is renamed to
//! `SINK.db.salvage`. From then on every opening finishes the exchange first, so that a crash at any point loses nothing
//! and never pairs a file with the write-ahead log of another.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{fault::Fault, reserve::beside};

/// Damaged files kept per queue (G9); the oldest goes.
pub(crate) const MAX_DAMAGED: usize = 2;
/// Files of newer versions kept per queue: nothing of them is ever deleted.
const MAX_NEWER: usize = 9;

/// Companions of a SQLite file.
const WAL: &str = "-wal";
const SHM: &str = "-shm";

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

/// Removes what an interrupted salvage left and finishes a complete one; true when there was one.
pub(crate) fn finish(path: &Path) -> Result<bool, Fault> {
    remove_all(&part(path))?;
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
    // A log without its file: the exchange was interrupted between the two renames below.
    let numbers = numbers(path, "damaged-")?;
    let resumed = (!path.exists() && wal(path).exists()).then(|| numbers.last().copied()).flatten();
    if !path.exists() && resumed.is_none() {
        remove_all(path)?;
        return Ok(None);
    }
    let number = resumed.unwrap_or_else(|| numbers.last().map_or(1, |last| last + 1));
    let kept = beside(path, &format!("damaged-{number}"));
    // The file first: its log alone is worth nothing, and a log that is left behind is moved by the next attempt.
    if resumed.is_none() {
        fs::rename(path, &kept)?;
    }
    if wal(path).exists() {
        fs::rename(wal(path), wal(&kept))?;
    }
    remove_all(path)?;
    sync_dir(path)?;
    let spare = (numbers.len() + usize::from(resumed.is_none())).saturating_sub(MAX_DAMAGED);
    for old in numbers.into_iter().take(spare) {
        remove_all(&beside(path, &format!("damaged-{old}")))?;
    }
    Ok(Some(kept))
}

/// Renames a file of a newer version to `SINK.db.newer-N`.
pub(crate) fn keep_newer(path: &Path) -> Result<PathBuf, Fault> {
    let used = numbers(path, "newer-")?;
    if used.len() >= MAX_NEWER {
        return Err(Fault::Other(format!(
            "{}: written by a newer version of Busbar, and {MAX_NEWER} such files are already kept beside it: move them \
             away",
            path.display()
        )));
    }
    let kept = beside(path, &format!("newer-{}", used.last().map_or(1, |last| last + 1)));
    fs::rename(path, &kept)?;
    if wal(path).exists() {
        fs::rename(wal(path), wal(&kept))?;
    }
    remove_all(path)?;
    sync_dir(path)?;
    Ok(kept)
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
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let prefix = format!("{name}.{prefix}");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        numbers.extend(entry.to_str().and_then(|entry| entry.strip_prefix(&prefix)?.parse::<u64>().ok()));
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
    fn the_newest_damaged_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        for number in 1..=4 {
            fs::write(&path, format!("file {number}")).unwrap();
            fs::write(wal(&path), format!("log {number}")).unwrap();
            keep_damaged(&path).unwrap();
        }
        assert_eq!(
            names(dir.path()),
            ["s.db.damaged-3", "s.db.damaged-3-wal", "s.db.damaged-4", "s.db.damaged-4-wal"]
        );
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
