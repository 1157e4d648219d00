//! The smallest program that serves as probe and worker child: what a host's `main` does first. Tests use it as the
//! host binary, so that a crash of a child is never a crash of the test.
//!
//! `--stage DIR NAME FILE` stages a file and prints the copy or the refusal (for tests inside a mount namespace);
//! `--host DIR NAME FILE` is a host with one worker, to be killed.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use busbar_contract::describe::{InitOptions, Open};
use busbar_loader::{
    Admission, Arrival, Expect, HostCallbacks, Isolation, Launcher, LoadError, LogEntry, Plugin, Push,
    Pushed, probe, stage,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(code) = busbar_loader::child_main(arguments.clone()) {
        return code;
    }
    let [mode, dir, name, file] = arguments.as_slice() else { return ExitCode::FAILURE };
    let (dir, name, file) = (Path::new(dir), name.to_string_lossy(), Path::new(file));
    let text = match mode.to_str() {
        Some("--stage") => stage(dir, &name, file, None).map(|staged| staged.path.display().to_string()),
        Some("--host") => return host(dir, &name, file).unwrap_or_else(|error| say(&error.to_string(), 2)),
        _ => return ExitCode::FAILURE,
    };
    match text {
        Ok(text) => say(&text, 0),
        Err(error) => say(&error.to_string(), 2),
    }
}

fn say(text: &str, code: u8) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// A host with one worker: prints its pid, makes it hang in `open` of the endpoint that standard input names (empty:
/// none), and waits for the end of standard input.
fn host(dir: &Path, name: &str, file: &Path) -> Result<ExitCode, LoadError> {
    let launcher = Launcher::default();
    let probed = probe(&launcher, &stage(dir, name, file, None)?, Expect::default())?;
    let plugin = Plugin::load(&probed, Isolation::Process, &launcher)?;
    plugin.init(Arc::new(Deaf), &InitOptions::default())?;
    say(&plugin.worker_pid().unwrap_or(0).to_string(), 0);
    let mut endpoint = String::new();
    while io::stdin().read_line(&mut endpoint).is_ok_and(|read| read > 0) {
        let config = Open::Driver { endpoint: endpoint.trim().to_owned(), connection: ().into() };
        let opened = plugin.open(1, &config);
        say(&opened.map_or_else(|error| error.to_string(), |_| "opened".into()), 0);
        endpoint.clear();
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes everything, keeps nothing.
struct Deaf;

impl HostCallbacks for Deaf {
    fn push(&self, _: u64, _: Push) -> Pushed {
        Pushed::Accepted
    }

    fn event(&self, _: u64, _: u64, _: Arrival) -> Admission {
        Admission::Accepted
    }

    fn log(&self, _: u64, _: LogEntry) {}

    fn down(&self, _: &str) {}
}
