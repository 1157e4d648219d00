//! Running other programs: inherited output, tee, or captured, each with a clear error.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Root of the workspace, two levels above this crate.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_path_buf)
}

/// The build directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// `cargo` of the toolchain that built this program's caller, started in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Set by `cargo run` for this crate; in a nested cargo they would look like that crate's own.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs with this terminal's output. `Err` is one sentence with the command.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", line(command))) }
}

/// Like [`run`], with a deadline.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<(), String> {
    command.stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    let status = wait(&mut child, limit)?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", line(command))) }
}

/// The child is ended when it takes longer.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if begin.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", limit.as_secs()));
            }
            Ok(None) => std::thread::park_timeout(Duration::from_millis(100)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Like [`run_within`], quiet. `Err` holds the last line of its error output.
pub(crate) fn run_quiet(command: &mut Command, limit: Duration) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    let status = wait(&mut child, limit)?;
    if status.success() {
        return Ok(());
    }
    let lines = child.stderr.take().map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok).collect());
    let lines: Vec<String> = lines.unwrap_or_default();
    Err(lines.into_iter().rev().find(|line| !line.trim().is_empty()).unwrap_or_else(|| status.to_string()))
}

/// Standard output of a command that succeeds, `None` when it is missing or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Which stream of the child a [`tee`] looks at; the other one is inherited.
pub(crate) enum Stream {
    Out,
    Err,
}

/// Runs, shows one stream of it and hands each of its lines to `look`. `Ok(false)`: it ran and failed.
pub(crate) fn tee(
    command: &mut Command,
    stream: &Stream,
    mut look: impl FnMut(&str),
) -> Result<bool, String> {
    command.stdin(Stdio::null());
    match stream {
        Stream::Out => command.stdout(Stdio::piped()),
        Stream::Err => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    let mut show = |pipe: &mut dyn std::io::Read| {
        for text in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let mut stderr = std::io::stderr().lock();
            let _ = stderr.write_all(&text).and_then(|()| stderr.write_all(b"\n"));
            look(&String::from_utf8_lossy(&text));
        }
    };
    if let Some(mut pipe) = child.stdout.take() {
        show(&mut pipe);
    }
    if let Some(mut pipe) = child.stderr.take() {
        show(&mut pipe);
    }
    child.wait().map(|status| status.success()).map_err(|error| error.to_string())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("`{}` could not be started: {error}", line(command))
}
