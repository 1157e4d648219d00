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
    sync::{Arc, Mutex, PoisonError},
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
/// What is kept of a child's standard error, bytes.
const MAX_STDERR: usize = 4096;

/// A staged plugin that survived its probe: the only thing that may be loaded.
#[derive(Debug, Clone, PartialEq)]
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
    stderr: Arc<Mutex<Vec<u8>>>,
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
        let stderr = keep_stderr(child.stderr.take());
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
                let detail = self.last_words();
                let advice = "; the file is damaged or the plugin has a bug";
                let detail = if detail.is_empty() { advice.to_owned() } else { format!(": {detail}") };
                format!("{what}: {}{detail}", how_it_ended(status))
            }
            None => {
                self.kill();
                format!("{what}: it closed its channel and did not end")
            }
        };
        self.error(Step::Probe, &text)
    }

    /// The last line on standard error, where it helps: panics and the dynamic linker's own words.
    fn last_words(&self) -> String {
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8_lossy(&kept).into_owned();
        let helpful = |line: &&str| !line.trim().is_empty() && !line.contains("RUST_BACKTRACE");
        let Some(panic) = text.find("panicked at") else {
            let linker = text.lines().rev().find(|line| line.contains("ld.so"));
            return linker.map_or_else(String::new, |line| {
                line.split_once("ld.so: ").map_or(line, |(_, words)| words).trim().to_owned()
            });
        };
        // "thread 'x' panicked at src/lib.rs:1:2:\nmessage"
        let mut lines = text.get(panic..).unwrap_or_default().lines().filter(helpful);
        let place = lines.next().unwrap_or_default().trim_end_matches(':');
        format!("{place}: {}", lines.next().unwrap_or_default())
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

/// Keeps the last [`MAX_STDERR`] bytes; the pipe is drained so that the child never blocks on it.
fn keep_stderr(pipe: Option<ChildStderr>) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let Some(mut pipe) = pipe else { return kept };
    let target = Arc::clone(&kept);
    let drain = move || {
        let mut chunk = [0u8; 1024];
        while let Ok(n @ 1..) = pipe.read(&mut chunk) {
            let mut kept = target.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(chunk.get(..n).unwrap_or_default());
            let excess = kept.len().saturating_sub(MAX_STDERR);
            kept.drain(..excess);
        }
    };
    // Without the thread the last words are missing, nothing else.
    let _ = thread::Builder::new().name("probe-stderr".into()).spawn(drain);
    kept
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
