//! An EMS on Python's http.server, in a process of its own (`peers/ems_server.py`): killed and started again on the same
//! port with what it had taken.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::built;
use crate::certificates::Certificates;
use crate::peer::python;
use crate::proc::Process;
use crate::wait::until;

/// The token it takes at first.
pub const TOKEN: &str = "ems-secret-1";

/// A running EMS.
#[derive(Debug)]
pub struct Ems {
    /// Port.
    pub port: u16,
    /// Who signs whom, with TLS.
    pub certificates: Option<Certificates>,
    process: Option<(Process, BufReader<ChildStdout>)>,
    dir: TempDir,
    more: Value,
}

impl Ems {
    /// An EMS on plain HTTP.
    #[must_use]
    pub fn start() -> Self {
        Self::begin(false, json!({}))
    }

    /// An EMS with TLS.
    #[must_use]
    pub fn with_tls() -> Self {
        Self::begin(true, json!({}))
    }

    /// An EMS that is not as the contract says: see the head of `ems_server.py`.
    #[must_use]
    pub fn other(more: Value) -> Self {
        Self::begin(false, more)
    }

    fn begin(tls: bool, more: Value) -> Self {
        built::check_plugin("libbusbar_sink_ems_http.so");
        let dir = tempfile::tempdir().unwrap();
        let certificates = tls.then(|| Certificates::make(dir.path()));
        let mut ems = Self { port: 0, certificates, process: None, dir, more };
        ems.launch();
        ems
    }

    /// Starts it again on the same port with what it had taken.
    ///
    /// # Panics
    /// When it is still running or does not come up.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "still running");
        let mut config = json!({ "port": self.port, "log": self.log_path(), "token": TOKEN });
        for (key, value) in self.more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        if let Some(made) = &self.certificates {
            config["tls"] = json!({ "cert": made.server.0, "key": made.server.1 });
        }
        let mut child = Command::new(python())
            .arg(built::root().join("tests/peers/ems_server.py"))
            .arg(config.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let process = Process::new("ems server", child);
        let ready = line(&mut answers);
        self.port = u16::try_from(ready["ready"]["port"].as_u64().unwrap()).unwrap();
        self.process = Some((process, answers));
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its address; with TLS by name.
    #[must_use]
    pub fn url(&self) -> String {
        match self.certificates {
            Some(_) => format!("https://localhost:{}", self.port),
            None => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// What it does with the next requests.
    pub fn play(&mut self, steps: &Value) {
        self.ask(&json!({ "op": "play", "steps": steps }));
    }

    /// The token it takes from now on.
    pub fn take_token(&mut self, token: &str) {
        self.ask(&json!({ "op": "token", "token": token }));
    }

    /// What it refuses by itself: see the head of `ems_server.py`.
    pub fn rules(&mut self, mut rules: Value) {
        rules["op"] = json!("rules");
        self.ask(&rules);
    }

    /// Steps of the script that no request has met.
    ///
    /// # Panics
    /// When it is not running.
    pub fn waiting_steps(&mut self) -> u64 {
        self.ask(&json!({ "op": "stats" }))["waiting_steps"].as_u64().unwrap()
    }

    fn ask(&mut self, command: &Value) -> Value {
        let (process, answers) = self.process.as_mut().unwrap();
        writeln!(process.child().stdin.as_mut().unwrap(), "{command}").unwrap();
        let answer = line(answers);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("ems.jsonl")
    }

    /// Every request so far, as the server wrote it down.
    ///
    /// # Panics
    /// When the log is torn in the middle.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line.get("answered").is_none()).collect()
    }

    /// When the answer to each request had left, seconds of its clock, by the request's number.
    ///
    /// # Panics
    /// When the log is torn in the middle.
    #[must_use]
    pub fn answered(&self) -> BTreeMap<u64, f64> {
        let moment = |line: &Value| Some((line["answered"].as_u64()?, line["at"].as_f64()?));
        self.lines().iter().filter_map(moment).collect()
    }

    /// The moment 0 of its clock: CLOCK_MONOTONIC, so the same over all its lives.
    ///
    /// # Panics
    /// When it is not running.
    pub fn clock(&mut self) -> Instant {
        let tries = (0..5).map(|_| {
            let before = Instant::now();
            let now = self.ask(&json!({ "op": "stats" }))["now"].as_f64().unwrap();
            let after = Instant::now();
            (after - before, before + (after - before) / 2 - Duration::from_secs_f64(now))
        });
        tries.min_by_key(|(took, _)| *took).unwrap().1
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Every record it has taken, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let taken = |request: &Value| request["taken"].as_array().cloned().unwrap_or_default();
        self.requests().iter().flat_map(taken).collect()
    }

    /// Waits until `look` finds something in the records.
    pub fn wait<T>(&self, what: &str, limit: Duration, mut look: impl FnMut(&[Value]) -> Option<T>) -> T {
        until(what, limit, || look(&self.records()))
    }
}

impl Drop for Ems {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines: Vec<String> = self.requests().iter().map(summary).collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("=== requests to the EMS ===\n{}", tail.join("\n"));
        }
    }
}

fn summary(request: &Value) -> String {
    format!(
        "#{} status {} records {} key {}",
        request["n"], request["status"], request["count"], request["key"]
    )
}

fn line(reader: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the EMS said {text:?}: {error}"))
}
