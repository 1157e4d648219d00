//! A file beside the queue that is freed when the disk is full.
//!
//! A DELETE needs room too: changed pages go to the write-ahead log, and the log can be used from its beginning again
//! only when everything in it was worked into the file, which may have to grow for that. So that confirmations still
//! reach a full disk, and with them the room that they free, some room is kept back. New rows are written only while it
//! is held; it is taken back as soon as there is room again.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use busbar_core::model::Sync;

use crate::database::{PAGE, log_pages};

/// Bytes kept back: what the file may have to grow by for one whole log, and as much again for the log of a large
/// transaction that only confirms. 2 MiB, or 8 MiB with `sync = "checkpoint"`.
pub(crate) const fn reserve(sync: Sync) -> usize {
    2 * log_pages(sync) as usize * PAGE
}

/// The file that keeps room.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: usize,
    held: bool,
}

impl Reserve {
    /// Takes the room, or leaves it for later when there is none.
    pub(crate) fn new(queue: &Path, sync: Sync) -> Self {
        let bytes = reserve(sync);
        let path = beside(queue, "reserve");
        let held = fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes as u64);
        let mut reserve = Self { path, bytes, held };
        if !reserve.held {
            reserve.held = reserve.fill().is_ok();
        }
        reserve
    }

    /// The room is kept back.
    pub(crate) const fn is_held(&self) -> bool {
        self.held
    }

    /// Gives the room to whoever needs it now.
    pub(crate) fn free(&mut self) {
        if std::mem::take(&mut self.held) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Takes the room back if there is any; true when it is held.
    pub(crate) fn take(&mut self) -> bool {
        self.held = self.held || (self.has_room() && self.fill().is_ok());
        self.held
    }

    /// A look before megabytes are written in vain; a quota shows only when they are.
    fn has_room(&self) -> bool {
        self.fits_with(0)
    }

    /// There is room for it when `more` bytes are given back.
    pub(crate) fn fits_with(&self, more: u64) -> bool {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        rustix::fs::statvfs(dir).map_or(true, |fs| {
            fs.f_bavail.saturating_mul(fs.f_frsize).saturating_add(more) > self.bytes as u64
        })
    }

    fn fill(&self) -> io::Result<()> {
        let done = self.try_fill();
        if done.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        done
    }

    /// Not zeros: a file system that compresses would keep nothing back.
    fn try_fill(&self) -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.path)?;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = Vec::with_capacity(self.bytes);
        while noise.len() < self.bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend_from_slice(&state.to_le_bytes());
        }
        noise.truncate(self.bytes);
        file.write_all(&noise)?;
        file.sync_all()
    }
}

/// `SINK.db` -> `SINK.db.suffix`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_up_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("s.db");
        let reserve_size = reserve(Sync::Commit) as u64;
        let mut reserve = Reserve::new(&queue, Sync::Commit);
        let size = || fs::metadata(dir.path().join("s.db.reserve")).map(|meta| meta.len()).ok();
        assert_eq!(size(), Some(reserve_size));
        reserve.free();
        assert_eq!(size(), None);
        assert!(reserve.take());
        assert_eq!(size(), Some(reserve_size));
        fs::write(dir.path().join("s.db.reserve"), b"half").unwrap();
        Reserve::new(&queue, Sync::Commit);
        assert_eq!(size(), Some(reserve_size));
    }
}
