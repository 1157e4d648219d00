//! A small file beside the queue that is freed when the disk is full.
//!
//! A DELETE needs room too: the changed pages go to the write-ahead log first. So that confirmations still reach a full
//! disk, and with them the room that they free, a few hundred kilobytes are kept back and given up when nothing else is
//! left. They are taken back when there is room again.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Bytes kept back: the log of the largest transaction that only confirms, with a margin.
pub(crate) const RESERVE: usize = 512 * 1024;
/// Pause between attempts to take it back, nanoseconds.
const PAUSE_NS: u64 = 5_000_000_000;

/// The file that keeps room.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
    retry_at_ns: u64,
}

impl Reserve {
    /// Takes the room, or leaves it for later when there is none.
    pub(crate) fn new(queue: &Path) -> Self {
        let path = beside(queue, "reserve");
        let held = fs::metadata(&path).is_ok_and(|meta| meta.len() == RESERVE as u64);
        let mut reserve = Self { path, held, retry_at_ns: 0 };
        if !reserve.held {
            reserve.held = reserve.fill().is_ok();
        }
        reserve
    }

    /// Gives the room to whoever needs it now; false when it was gone already.
    pub(crate) fn free(&mut self, now_ns: u64) -> bool {
        self.retry_at_ns = now_ns.saturating_add(PAUSE_NS);
        std::mem::take(&mut self.held) && fs::remove_file(&self.path).is_ok()
    }

    /// Takes the room back when it was given up a while ago.
    pub(crate) fn refill(&mut self, now_ns: u64) {
        if !self.held && now_ns >= self.retry_at_ns {
            self.retry_at_ns = now_ns.saturating_add(PAUSE_NS);
            self.held = self.fill().is_ok();
        }
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
        let mut noise = Vec::with_capacity(RESERVE);
        while noise.len() < RESERVE {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend_from_slice(&state.to_le_bytes());
        }
        noise.truncate(RESERVE);
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
    fn room_is_given_up_once_and_taken_back_later() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("s.db");
        let mut reserve = Reserve::new(&queue);
        let size = || fs::metadata(dir.path().join("s.db.reserve")).map(|meta| meta.len()).ok();
        assert_eq!(size(), Some(RESERVE as u64));
        assert!(reserve.free(10));
        assert_eq!(size(), None);
        assert!(!reserve.free(20));
        reserve.refill(20 + PAUSE_NS - 1);
        assert_eq!(size(), None);
        reserve.refill(20 + PAUSE_NS);
        assert_eq!(size(), Some(RESERVE as u64));
        fs::write(dir.path().join("s.db.reserve"), b"half").unwrap();
        Reserve::new(&queue);
        assert_eq!(size(), Some(RESERVE as u64));
    }
}
