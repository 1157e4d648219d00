//! The child's side of [`crate::probe`]: loads the file, describes it, answers questions until its channel closes.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use busbar_contract::{describe::InitOptions, op};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{
    LoadError, Step,
    host::{Admission, Arrival, HostCallbacks, LogEntry, Push, Pushed},
    judge::Expect,
    launcher::take_stdin_socket,
    module::Module,
    probe::MAX_LINE,
};

/// A forgotten child ends by itself after this many seconds without a question.
const MAX_IDLE_SECONDS: u32 = 120;
/// The parent's time-out comes first; this only bounds the thread.
const CALL_LIMIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Ask {
    Control {
        op: u32,
        #[serde(default)]
        body: Json,
    },
    Trial,
}

/// Runs `--probe FILE`: on a socket as standard input (the host), else on standard input and output (a person).
pub(crate) fn main(file: &Path) -> ExitCode {
    restrict();
    let served = match take_stdin_socket() {
        Ok(Some(stream)) => stream.try_clone().and_then(|input| serve(file, input, stream)),
        Ok(None) => serve(file, io::stdin(), io::stdout()),
        Err(error) => Err(error),
    };
    // A closed channel is the normal end: the host has seen enough.
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// No core dumps of damaged files, and an end when nobody asks any more.
#[allow(unsafe_code, reason = "setrlimit and alarm have no safe form in std")]
fn restrict() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid structure and outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    arm();
}

#[allow(unsafe_code, reason = "alarm has no safe form in std")]
fn arm() {
    // SAFETY: alarm takes a number and has no preconditions; the default action of SIGALRM ends the process.
    unsafe { libc::alarm(MAX_IDLE_SECONDS) };
}

fn serve(file: &Path, input: impl io::Read, mut output: impl Write) -> io::Result<()> {
    // Announced in between, so that the parent can tell a crash of the linker from one of the plugin's code.
    let mut announced = Ok(());
    let loaded = Module::load_announced(file, file, Expect::default(), || {
        announced = say(&mut output, &json!({ "loaded": true }));
    });
    announced?;
    let module = match loaded {
        Ok(module) => module,
        Err(error) => return say(&mut output, &json!({ "error": without_name(&error) })),
    };
    say(&mut output, &json!({ "describe": module.describe() }))?;
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        arm();
        let read = io::Read::take(&mut input, MAX_LINE as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice::<Ask>(&line) {
            Ok(ask) => answer(&module, ask),
            Err(error) => Err(format!("request cannot be read: {error}")),
        };
        say(&mut output, &answer.map_or_else(|text| json!({ "error": text }), |ok| json!({ "ok": ok })))?;
    }
}

fn answer(module: &Module, ask: Ask) -> Result<Json, String> {
    match ask {
        Ask::Control { op: op @ (op::control::ENDPOINT | op::control::CHECK), body } => {
            let answer = module
                .control(op, body.to_string().as_bytes(), CALL_LIMIT)
                .map_err(|error| without_name(&error))?;
            serde_json::from_slice(&answer).map_err(|error| format!("its answer is not JSON: {error}"))
        }
        Ask::Control { op, .. } => Err(format!("operation {op}: expected ENDPOINT or CHECK in a probe")),
        Ask::Trial => {
            module
                .init(Arc::new(Nobody), &InitOptions::default(), CALL_LIMIT)
                .map_err(|error| without_name(&error))?;
            if module.shutdown(Duration::from_secs(1)) {
                Ok(Json::Bool(true))
            } else {
                Err("shutdown did not end in time after a trial start".into())
            }
        }
    }
}

/// The parent puts the file's name in front.
fn without_name(error: &LoadError) -> String {
    match (error.step, error.text.split_once(": ")) {
        (Step::Stage, _) | (_, None) => error.text.clone(),
        (_, Some((_, text))) => text.to_owned(),
    }
}

fn say(output: &mut impl Write, line: &Json) -> io::Result<()> {
    let mut text = line.to_string();
    text.push('\n');
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Host of the trial start: takes everything, keeps nothing.
struct Nobody;

impl HostCallbacks for Nobody {
    fn push(&self, _: u64, _: Push) -> Pushed {
        Pushed::Accepted
    }

    fn event(&self, _: u64, _: u64, _: Arrival) -> Admission {
        Admission::Accepted
    }

    fn log(&self, _: u64, _: LogEntry) {}

    fn down(&self, _: &str) {}
}
