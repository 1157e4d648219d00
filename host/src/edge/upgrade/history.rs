//! The history of versions: `data_dir/plugins/history.jsonl`, one line per event, bounded.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use busbar_contract::value::rfc3339;
use serde::{Deserialize, Serialize};

use super::active::{folder, write_synced};

/// Name of the file.
pub const HISTORY_FILE: &str = "history.jsonl";
/// Events kept; the file is cut back to them when it has twice as many.
pub const MAX_EVENTS: usize = 500;
/// Longest file that is read, bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// Longest reason that is kept, bytes.
const MAX_REASON: usize = 4096;

/// What happened to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339.
    pub time: String,
    /// `driver/modbus`.
    pub plugin: String,
    /// `first`, `trial`, `accepted`, `taken_back`, `not_taken_back`, `refused`, `interrupted`, `previous`.
    pub event: String,
    /// As it calls itself.
    #[serde(default)]
    pub version: String,
    /// Of the file.
    #[serde(default)]
    pub sha256: String,
    /// For the operator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Event {
    /// Now.
    #[must_use]
    pub fn new(plugin: &str, event: &str, version: &str, sha256: &str, reason: &str) -> Self {
        let mut reason = reason.to_owned();
        let end = (0..=MAX_REASON.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        Self {
            time: now(),
            plugin: plugin.into(),
            event: event.into(),
            version: version.into(),
            sha256: sha256.into(),
            reason,
        }
    }
}

/// The wall clock, RFC 3339.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The file with its newest events in memory.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    events: Vec<Event>,
    /// Lines in the file.
    lines: usize,
}

impl History {
    /// Reads what there is; lines that cannot be read are left out.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let dir = folder(data_dir);
        let path = dir.join(HISTORY_FILE);
        let fits = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_FILE);
        let text = if fits { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let mut events: Vec<Event> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let more = events.len().saturating_sub(MAX_EVENTS);
        events.drain(..more);
        Self { dir, events, lines: text.lines().count() }
    }

    /// Adds an event, on disk when this returns; a disk that does not take it is logged.
    pub fn add(&mut self, event: Event) {
        let written = self.append(&event);
        self.events.push(event);
        if self.events.len() > MAX_EVENTS {
            self.events.remove(0);
        }
        if let Err(error) = written.and_then(|()| self.cut()) {
            tracing::warn!("{} could not be written: {error}", self.dir.join(HISTORY_FILE).display());
        }
    }

    /// The same for a name that does not live as long.
    #[must_use]
    pub fn named(&self, plugin: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.plugin == plugin).collect()
    }

    /// Events of a plugin, oldest first.
    pub fn of<'a>(&'a self, plugin: &'a str) -> impl DoubleEndedIterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.plugin == plugin)
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join(HISTORY_FILE))?;
        file.write_all(&line)?;
        self.lines += 1;
        file.sync_data()
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.lines < 2 * MAX_EVENTS {
            return Ok(());
        }
        let mut text = Vec::new();
        for event in &self.events {
            serde_json::to_writer(&mut text, event).map_err(io::Error::other)?;
            text.push(b'\n');
        }
        write_synced(&self.dir, HISTORY_FILE, &text)?;
        self.lines = self.events.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_and_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path());
        for n in 0..2 * MAX_EVENTS + 10 {
            history.add(Event::new("driver/modbus", "accepted", &n.to_string(), "aa", ""));
        }
        let again = History::open(dir.path());
        assert_eq!(again.of("driver/modbus").count(), MAX_EVENTS);
        assert!(again.lines < 2 * MAX_EVENTS);
        assert_eq!(again.of("driver/modbus").next_back().unwrap().version, (2 * MAX_EVENTS + 9).to_string());
        assert_eq!(again.of("sink/modbus").count(), 0);
    }

    #[test]
    fn a_torn_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path());
        history.add(Event::new("driver/a", "trial", "1", "aa", &"ä".repeat(MAX_REASON)));
        let path = folder(dir.path()).join(HISTORY_FILE);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"time\":");
        fs::write(&path, text).unwrap();
        assert_eq!(History::open(dir.path()).of("driver/a").count(), 1);
    }
}
