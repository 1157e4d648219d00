//! One host per `data_dir`.
//!
//! The lock is an advisory `flock` on `data_dir/busbar.lock`; the kernel drops it with the process, so a crash leaves
//! nothing to clean up. The file holds the owner's pid as text: a second host names it. The command line takes the same
//! lock while it works directly, and learns from a held one that it must go through the running host. There is no
//! query that only looks: its short shared lock could refuse a host that starts in that moment.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Name of the lock file within `data_dir`.
pub const LOCK_FILE: &str = "busbar.lock";
/// More than any pid needs; the rest of a damaged file is not read.
const PID_TEXT: u64 = 32;

/// The held lock; dropping it frees `data_dir`.
#[derive(Debug)]
pub struct DataDirLock {
    // Held for its flock only.
    _file: File,
}

/// Why `data_dir` could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another host owns it.
    #[error(
        "{data_dir} is in use by the Busbar host with pid {pid}: stop that one, or give this one its own [host] data_dir",
        data_dir = .data_dir.display()
    )]
    Held {
        /// The directory.
        data_dir: PathBuf,
        /// Pid written by the owner; `?` when it could not be read.
        pid: String,
    },
    /// The directory or the file cannot be used.
    #[error("{path}: expected a directory this user can write, found: {error}", path = .path.display())]
    Unusable {
        /// What was opened.
        path: PathBuf,
        /// The operating system's words.
        error: std::io::Error,
    },
}

/// Takes the lock, making `data_dir` if it is missing.
pub fn acquire(data_dir: &Path) -> Result<DataDirLock, LockError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |error| LockError::Unusable { path, error }
    };
    std::fs::create_dir_all(data_dir).map_err(unusable(data_dir))?;
    let path = data_dir.join(LOCK_FILE);
    let mut file = open(&path).map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LockError::Held { data_dir: data_dir.to_owned(), pid: pid_in(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(&path)(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable(&path))?;
    Ok(DataDirLock { _file: file })
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

fn pid_in(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(PID_TEXT).read_to_string(&mut text));
    let pid = text.trim();
    if read.is_ok() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) {
        pid.to_owned()
    } else {
        "?".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let first = acquire(&data).unwrap();
        let text = acquire(&data).unwrap_err().to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        drop(first);
        acquire(&data).unwrap();
    }

    #[test]
    fn damaged_pid_is_shown_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = acquire(dir.path()).unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), [0xff; 64]).unwrap();
        let text = acquire(dir.path()).unwrap_err().to_string();
        assert!(text.contains("pid ?"), "{text}");
    }
}
