//! What a worker process writes to its standard error: every line goes into the host's log, and the last ones are kept,
//! because the text of a panic, an abort or a failed allocation is the best reason there is for its death.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::ChildStderr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver as Signal, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::{
    host::{Level, LogEntry},
    receive::Receiver,
};

/// Longest line, bytes; the rest of it counts as the next one.
const MAX_LINE: u64 = 1024;
/// Lines that are kept.
const KEPT_LINES: usize = 8;
/// For the end of a dead worker's standard error: a process that it started may still hold the pipe.
const PATIENCE: Duration = Duration::from_millis(500);
/// Module that log records of standard error name.
const TARGET: &str = "stderr";
/// What runtimes say when an allocation fails: Rust, C++, the C library.
const NO_MEMORY: [&str; 4] = ["memory allocation of", "bad_alloc", "Cannot allocate memory", "out of memory"];

/// The lines that are kept.
#[derive(Debug)]
pub(crate) struct LastWords {
    lines: Arc<Mutex<VecDeque<String>>>,
    ended: Mutex<Signal<()>>,
}

impl LastWords {
    /// Reads `pipe` on a thread of its own until it ends.
    pub(crate) fn listen(name: &str, pipe: Option<ChildStderr>, log: Arc<Receiver>) -> Self {
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        // Its end is the signal: the sender is dropped with the thread.
        let (end, ended) = sync_channel(1);
        let kept = Arc::clone(&lines);
        // Without the thread the last words are missing and the worker may block on a full pipe; it is the host that has
        // no thread left then, and the writer thread, which is started next, reports that.
        let _ = thread::Builder::new().name(format!("{name}-stderr")).spawn(move || {
            let _end = end;
            if let Some(pipe) = pipe {
                read(pipe, |line| {
                    log.log(0, record(&line));
                    keep(&kept, line);
                });
            }
        });
        Self { lines, ended: Mutex::new(ended) }
    }

    /// Of a worker that ended: why, in its own words; empty when it said nothing that tells.
    pub(crate) fn cause(&self) -> String {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(PATIENCE);
        drop(ended);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        cause_in(&lines)
    }
}

/// The words are about memory.
pub(crate) fn is_about_memory(cause: &str) -> bool {
    NO_MEMORY.iter().any(|words| cause.contains(words))
}

fn read(pipe: impl Read, mut take: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut pipe).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            take(text.to_owned());
        }
    }
}

fn keep(lines: &Mutex<VecDeque<String>>, line: String) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() >= KEPT_LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}

fn record(line: &str) -> LogEntry {
    LogEntry {
        level: Level::Warn,
        device: None,
        target: TARGET.into(),
        file: String::new(),
        line: 0,
        message: line.to_owned(),
        fields: Vec::new(),
    }
}

/// A failed allocation, else the text behind the last `panicked at`.
fn cause_in(lines: &[&str]) -> String {
    if let Some(line) = lines.iter().rev().find(|line| is_about_memory(line)) {
        return (*line).to_owned();
    }
    let mut text = "";
    for line in lines.iter().rev() {
        if line.contains("panicked at ") {
            return text.to_owned();
        }
        text = line;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_among_the_last_lines() {
        let panic = [
            "hello",
            "thread 'x' (7) panicked at src/lib.rs:1:2:",
            "bug in poll",
            "note: run with `RUST_BACKTRACE=1`",
        ];
        assert_eq!(cause_in(&panic), "bug in poll");
        assert_eq!(
            cause_in(&["memory allocation of 64 bytes failed", "x"]),
            "memory allocation of 64 bytes failed"
        );
        assert_eq!(cause_in(&["just noise"]), "");
        assert_eq!(cause_in(&[]), "");
    }

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        let text = format!("{}\n\n{}", "x".repeat(1500), "line\n".repeat(20));
        let kept = Mutex::default();
        read(text.as_bytes(), |line| {
            assert!(line.len() <= 1024);
            keep(&kept, line);
        });
        assert_eq!(kept.into_inner().unwrap().len(), KEPT_LINES);
    }
}
