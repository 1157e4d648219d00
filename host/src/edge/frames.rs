//! Frames of devices on their way to people: into the log, and to whoever watches a device right now.
//!
//! A driver writes frames as log records of module `frame` while its switch is on. The switch of a device is on while
//! its frames are to be logged (`frame_log = true`, or the call of that name) or somebody watches. Watching does not
//! fill the log, and its bound is its own: a watcher that does not read loses frames and is told how many.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use busbar_loader::{FieldValue, LogEntry};
use tokio::sync::mpsc;

/// Module of the log records that are frames.
pub(crate) const TARGET: &str = "frame";
/// People who watch at the same time.
const MAX_WATCHERS: usize = 16;
/// Frames that one of them may leave unread.
const MAX_UNREAD: usize = 1024;

/// One frame, or the part of it that came at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the host heard of it, milliseconds since 1970 UTC.
    pub ts: i64,
    /// `tx` or `rx`.
    pub direction: String,
    /// Hex digits.
    pub frame: String,
    /// What it means, in the driver's words; may be empty.
    pub hint: String,
    /// Frames before this one that were not read in time.
    pub lost: u64,
}

/// The switchboard.
#[derive(Debug, Default)]
pub(crate) struct FrameHub {
    /// Spares the lock while nobody watches.
    watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    logged: HashSet<String>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    device: String,
    frames: mpsc::Sender<Frame>,
    lost: u64,
}

impl FrameHub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames of the device go into the log, or no longer.
    pub(crate) fn log(&self, device: &str, on: bool) {
        let mut state = self.lock();
        if on {
            state.logged.insert(device.to_owned());
        } else {
            state.logged.remove(device);
        }
    }

    /// Whether the driver's switch must be on.
    pub(crate) fn wanted(&self, device: &str) -> bool {
        let state = self.lock();
        state.logged.contains(device) || state.watchers.iter().any(|watcher| watcher.device == device)
    }

    /// Begins to watch; `None` when too many do.
    pub(crate) fn watch(&self, device: &str) -> Option<(u64, mpsc::Receiver<Frame>)> {
        let mut state = self.lock();
        if state.watchers.len() >= MAX_WATCHERS {
            return None;
        }
        state.next += 1;
        let (id, (frames, watched)) = (state.next, mpsc::channel(MAX_UNREAD));
        state.watchers.push(Watcher { id, device: device.to_owned(), frames, lost: 0 });
        self.watched.store(true, Ordering::Release);
        Some((id, watched))
    }

    pub(crate) fn unwatch(&self, id: u64) {
        let mut state = self.lock();
        state.watchers.retain(|watcher| watcher.id != id);
        self.watched.store(!state.watchers.is_empty(), Ordering::Release);
    }

    /// A frame came; true when it belongs into the log too.
    pub(crate) fn take(&self, device: &str, entry: &LogEntry) -> bool {
        let mut state = self.lock();
        if self.watched.load(Ordering::Acquire) {
            for watcher in state.watchers.iter_mut().filter(|watcher| watcher.device == device) {
                let frame = frame(entry, watcher.lost);
                watcher.lost = match watcher.frames.try_send(frame) {
                    Ok(()) => 0,
                    Err(_) => watcher.lost + 1,
                };
            }
        }
        state.logged.contains(device)
    }
}

fn frame(entry: &LogEntry, lost: u64) -> Frame {
    let field = |name: &str| {
        let found = entry.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        match found {
            Some(FieldValue::Text(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ts = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    Frame { ts, direction: field("direction"), frame: field("frame"), hint: field("hint"), lost }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_loader::Level;

    fn entry(hex: &str) -> LogEntry {
        LogEntry {
            level: Level::Info,
            device: Some(1),
            target: TARGET.into(),
            file: String::new(),
            line: 0,
            message: "frame".into(),
            fields: vec![
                ("direction".into(), FieldValue::Text("tx".into())),
                ("frame".into(), FieldValue::Text(hex.into())),
            ],
        }
    }

    #[test]
    fn a_watcher_gets_the_frames_of_its_device_and_only_the_log_switch_fills_the_log() {
        let hub = FrameHub::default();
        assert!(!hub.wanted("m") && !hub.take("m", &entry("00")));
        let (id, mut frames) = hub.watch("m").unwrap();
        assert!(hub.wanted("m") && !hub.wanted("n"));
        assert!(!hub.take("m", &entry("0103")));
        assert!(!hub.take("n", &entry("ff")));
        let frame = frames.try_recv().unwrap();
        assert_eq!((frame.direction.as_str(), frame.frame.as_str()), ("tx", "0103"));
        assert!(frames.try_recv().is_err());
        hub.log("m", true);
        hub.unwatch(id);
        assert!(hub.wanted("m") && hub.take("m", &entry("01")));
        hub.log("m", false);
        assert!(!hub.wanted("m"));
    }

    #[test]
    fn watchers_and_what_they_leave_unread_are_bounded() {
        let hub = FrameHub::default();
        let watching: Vec<_> = (0..MAX_WATCHERS).map(|_| hub.watch("m").unwrap()).collect();
        assert!(hub.watch("m").is_none());
        for (id, _) in watching {
            hub.unwatch(id);
        }
        let (_, mut frames) = hub.watch("m").unwrap();
        for _ in 0..MAX_UNREAD + 7 {
            hub.take("m", &entry("00"));
        }
        while frames.try_recv().is_ok() {}
        hub.take("m", &entry("01"));
        assert_eq!(frames.try_recv().unwrap().lost, 7);
    }
}
