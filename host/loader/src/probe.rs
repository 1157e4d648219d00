//! A child process that loads the plugin first.
//!
//! Flipped bytes in the segments of a plugin kill the process that loads it (measured: 9 of 20 files with 2000 random
//! flips). So a child of the same binary does it before the host: SIGSEGV, SIGBUS, exit code 127, an abort, a hang
//! become a sentence. The child also answers the pure questions ENDPOINT and CHECK, so that a configuration can be
//! checked without loading anything into the host, and makes a trial start (`init`, `shutdown`), so that a plugin
//! that cannot start is refused before it is loaded.
//!
//! Protocol: one JSON object per line. Child: `{"loaded":true}`, `{"describe":{..}}`, then for each request line
//! `{"do":"control","op":202,"body":..}` or `{"do":"trial"}` one line `{"ok":..}` or `{"error":"..."}`.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, ChildStderr, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use busbar_contract::{CheckInput, Describe, Endpoint, Problem, op};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::{
    LoadError, Step,
    call::{human, left},
    judge::{Expect, judge},
    launcher::{Launcher, PROBE, how_it_ended},
    stage::Staged,
};

/// Time for loading, the description and the trial start, each; and for one question.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line of a child, bytes (a CHECK may list many problems).
pub const MAX_LINE: usize = 16 * 1024 * 1024;
/// What is kept of a child's standard error, bytes: its beginning, because an abort prints pages of frames after the
/// text that matters.
const MAX_STDERR: usize = 8192;
/// For the end of a dead child's standard error.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);

/// A staged plugin that survived its probe: the only thing that may be loaded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Probed {
    /// The copy.
    pub staged: Staged,
    /// What it says about itself; judged acceptable.
    pub describe: Describe,
}

/// A running probe child. Dropping it ends the child.
#[derive(Debug)]
pub struct Probe {
    staged: Staged,
    describe: Option<Describe>,
    child: Child,
    lines: Lines,
    stderr: Stderr,
    timeout: Duration,
}

impl Probe {
    /// Loads `staged` in a child, judges its description against `expect` and makes a trial start.
    ///
    /// # Errors
    /// One sentence: how it crashed or hung, or why it is refused.
    pub fn start(launcher: &Launcher, staged: &Staged, expect: Expect<'_>) -> Result<Self, LoadError> {
        Self::start_within(launcher, staged, expect, PROBE_TIMEOUT)
    }

    /// [`Probe::start`] with another time-out per step.
    ///
    /// # Errors
    /// As [`Probe::start`].
    pub fn start_within(
        launcher: &Launcher,
        staged: &Staged,
        expect: Expect<'_>,
        timeout: Duration,
    ) -> Result<Self, LoadError> {
        let spawned = launcher.spawn(PROBE, &staged.path, Stdio::piped());
        let (mut child, stream) = spawned.map_err(|error| {
            let text = format!("no probe process could be started: {}", crate::stage::plain(&error));
            LoadError::new(Step::Probe, &staged.source, text)
        })?;
        let stderr = Stderr::keep(child.stderr.take());
        let lines = Lines { stream, buffer: Vec::new() };
        let mut probe = Self { staged: staged.clone(), describe: None, child, lines, stderr, timeout };
        probe.answer("loading", "loaded")?;
        let description = probe.answer("describe", "describe")?;
        let describe = crate::judge::parse(description.to_string().as_bytes())
            .map_err(|text| probe.error(Step::Probe, &text))?;
        judge(&describe, expect).map_err(|text| probe.error(Step::Probe, &text))?;
        probe.describe = Some(describe);
        probe.ask("start", &json!({ "do": "trial" }))?;
        Ok(probe)
    }

    /// What the plugin says about itself.
    #[must_use]
    pub fn describe(&self) -> Option<&Describe> {
        self.describe.as_ref()
    }

    /// ENDPOINT: the channel that `connection` names.
    ///
    /// # Errors
    /// The plugin's own text, or how the child ended.
    pub fn endpoint(&mut self, connection: &Json) -> Result<Endpoint, LoadError> {
        self.control("endpoint", op::control::ENDPOINT, connection)
    }

    /// CHECK: all problems of one device or sink at once.
    ///
    /// # Errors
    /// The plugin's own text, or how the child ended.
    pub fn check(&mut self, input: &CheckInput) -> Result<Vec<Problem>, LoadError> {
        let body = serde_json::to_value(input).map_err(|error| self.error(Step::Call, &error.to_string()))?;
        self.control("check", op::control::CHECK, &body)
    }

    /// Ends the child; what it proved remains.
    ///
    /// # Errors
    /// None in practice: a probe that started has a description.
    pub fn finish(self) -> Result<Probed, LoadError> {
        match &self.describe {
            Some(describe) => Ok(Probed { staged: self.staged.clone(), describe: describe.clone() }),
            None => Err(self.error(Step::Probe, "has no description")),
        }
    }

    fn control<T: DeserializeOwned>(&mut self, what: &str, op: u32, body: &Json) -> Result<T, LoadError> {
        let answer = self.ask(what, &json!({ "do": "control", "op": op, "body": body }))?;
        serde_json::from_value(answer)
            .map_err(|error| self.error(Step::Call, &format!("its answer to {what} cannot be read: {error}")))
    }

    fn ask(&mut self, what: &str, request: &Json) -> Result<Json, LoadError> {
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        let deadline = Instant::now() + self.timeout;
        match self.lines.send(&line, deadline) {
            Ok(()) => self.answer(what, "ok"),
            // It died while or before we asked: say how.
            Err(_) => Err(self.ended(what)),
        }
    }

    /// Reads one line and takes `key` out of it.
    fn answer(&mut self, what: &str, key: &str) -> Result<Json, LoadError> {
        let deadline = Instant::now() + self.timeout;
        let line = match self.lines.next(deadline) {
            Ok(Some(line)) => line,
            Ok(None) => return Err(self.ended(what)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.error(Step::Probe, &format!("its answer to {what} is too long")));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.kill();
                let limit = human(self.timeout);
                let text = format!("{what} did not return within {limit}; report it to the plugin's maker");
                return Err(self.error(Step::Probe, &text));
            }
            Err(_) => return Err(self.ended(what)),
        };
        let mut answer: Json = serde_json::from_slice(&line)
            .map_err(|_| self.error(Step::Probe, &format!("its answer to {what} is not JSON")))?;
        if let Some(text) = answer.get("error").and_then(Json::as_str) {
            return Err(self.error(Step::Probe, text));
        }
        answer.get_mut(key).map(Json::take).ok_or_else(|| {
            self.error(Step::Probe, &format!("its answer to {what} has no {key}; is the program Busbar?"))
        })
    }

    /// The child closed its end: how did it die?
    fn ended(&mut self, what: &str) -> LoadError {
        let deadline = Instant::now() + self.timeout;
        let text = match wait_until(&mut self.child, deadline) {
            Some(status) => {
                let panic = self.stderr.first_panic();
                let detail = if panic.is_empty() {
                    "; the file is damaged or the plugin has a bug".to_owned()
                } else {
                    format!(": {panic}")
                };
                format!("{what}: {}{detail}", how_it_ended(status))
            }
            None => {
                self.kill();
                format!("{what}: it closed its channel and did not end")
            }
        };
        self.error(Step::Probe, &text)
    }

    fn error(&self, step: Step, text: &str) -> LoadError {
        LoadError::new(step, &self.staged.source, text)
    }

    fn kill(&mut self) {
        // Already dead is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the end of a child without blocking for ever.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Option<std::process::ExitStatus> {
    const STEP: Duration = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::park_timeout(STEP),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// The beginning of a child's standard error; the pipe is drained so that the child never blocks on it.
#[derive(Debug)]
struct Stderr {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Stderr {
    fn keep(pipe: Option<ChildStderr>) -> Self {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        // Its end is the signal: the sender is dropped with the thread.
        let (end, ended) = sync_channel(1);
        let target = Arc::clone(&kept);
        let drain = move || {
            let _end = end;
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0u8; 1024];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                let mut kept = target.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_STDERR.saturating_sub(kept.len());
                kept.extend_from_slice(chunk.get(..n.min(room)).unwrap_or_default());
            }
        };
        // Without the thread the last words are missing, nothing else.
        let _ = thread::Builder::new().name("probe-stderr".into()).spawn(drain);
        Self { kept, ended }
    }

    /// Of a child that ended: text and place of the first panic; empty where there is none.
    fn first_panic(&self) -> String {
        // Bounded: a process that the plugin started may still hold the pipe.
        let _ = self.ended.recv_timeout(LAST_WORDS_PATIENCE);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panic_in(&String::from_utf8_lossy(&kept)).unwrap_or_default()
    }
}

/// `thread 'x' panicked at /long/path/src/lib.rs:1:2:\nmessage` -> `message (src/lib.rs:1:2)`
fn panic_in(text: &str) -> Option<String> {
    let (_, panic) = text.split_once("panicked at ")?;
    let mut lines = panic.lines();
    let place = lines.next()?.trim_end_matches(':');
    let start = place.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    Some(format!("{} ({})", lines.next().unwrap_or_default(), place.get(start..)?))
}

/// Lines over a socket with deadlines and a bound.
#[derive(Debug)]
struct Lines {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Lines {
    fn send(&mut self, line: &[u8], deadline: Instant) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(deadline)))?;
        self.stream.write_all(line)
    }

    /// One line without its end; `None` when the other side closed.
    fn next(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = [0u8; 16 * 1024];
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer.iter().skip(searched).position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left(deadline)))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A probe without further questions.
///
/// # Errors
/// One sentence, see [`crate::stage::stage`] and [`Probe::start`].
pub fn probe(launcher: &Launcher, staged: &Staged, expect: Expect<'_>) -> Result<Probed, LoadError> {
    Probe::start(launcher, staged, expect)?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_found_with_a_short_place() {
        let text = "noise\n\nthread '<unnamed>' (7) panicked at /home/x/drivers/a/src/lib.rs:7:15:\nbug\nstack\npanicked at b:1:\nc";
        assert_eq!(panic_in(text).unwrap(), "bug (src/lib.rs:7:15)");
        assert_eq!(panic_in("panicked at lib.rs:1:2:").unwrap(), " (lib.rs:1:2)");
        assert_eq!(panic_in("nothing"), None);
    }

    #[test]
    fn lines_are_bounded_and_have_deadlines() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines { stream: ours, buffer: Vec::new() };
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(lines.next(soon()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        theirs.write_all(b"{}\n[1]\nhalf").unwrap();
        assert_eq!(lines.next(soon()).unwrap().unwrap(), b"{}");
        assert_eq!(lines.next(soon()).unwrap().unwrap(), b"[1]");
        drop(theirs);
        assert_eq!(lines.next(soon()).unwrap(), None);
        lines.buffer = vec![b'x'; MAX_LINE + 1];
        assert_eq!(lines.next(soon()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
