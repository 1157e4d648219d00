//! Starting the host binary again, as a probe or worker child.
//!
//! The child's standard input is one end of a socket pair and carries both directions, so that nothing the plugin
//! prints can get between the messages, and no `pre_exec` is needed (std can then use posix_spawn).
//! `/proc/self/exe` names the running version even when the binary on disk was replaced.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// First argument of a probe child; the second is the file.
pub const PROBE: &str = "--probe";
/// First argument of a worker child; the second is the staged copy.
pub const WORKER: &str = "--worker";

/// Which program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    program: PathBuf,
}

impl Default for Launcher {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into() }
    }
}

impl Launcher {
    /// Another program than this one, for tests; it must do what [`crate::child_main`] does.
    #[must_use]
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    pub(crate) fn spawn(&self, mode: &str, file: &Path, stderr: Stdio) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(&self.program)
            .args([OsString::from(mode), file.as_os_str().to_owned()])
            // The place and text of a panic are wanted, not pages of frames.
            .env("RUST_BACKTRACE", "0")
            // Ctrl-C at the terminal is for the host, which then ends its children in order.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        Ok((child, ours))
    }
}

/// How a child ended, in an operator's words.
pub(crate) fn how_it_ended(status: ExitStatus) -> String {
    if let Some(signal) = status.signal() {
        let name = match signal {
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGBUS => "SIGBUS",
            libc::SIGABRT => "SIGABRT, a panic or abort",
            libc::SIGILL => "SIGILL",
            libc::SIGFPE => "SIGFPE",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGKILL => "SIGKILL, by an operator or for want of memory",
            libc::SIGTERM => "SIGTERM",
            libc::SIGALRM => "SIGALRM, it took too long",
            libc::SIGSYS => "SIGSYS",
            _ => return format!("ended by signal {signal}"),
        };
        return format!("crashed ({name})");
    }
    match status.code() {
        Some(127) => "refused by the dynamic linker (exit code 127)".into(),
        Some(code) => format!("ended the process with exit code {code}"),
        None => "ended in an unknown way".into(),
    }
}

/// The child's end: standard input when it is a socket. It is moved to a private descriptor, and 0 becomes
/// `/dev/null`, so that a plugin that reads its standard input takes nothing.
#[allow(unsafe_code, reason = "re-plumbing descriptor 0 has no safe form in std")]
pub(crate) fn take_stdin_socket() -> io::Result<Option<UnixStream>> {
    use std::os::unix::fs::FileTypeExt;
    let stdin = io::stdin();
    let copy = stdin.as_fd().try_clone_to_owned()?;
    let file = std::fs::File::from(copy);
    if !file.metadata()?.file_type().is_socket() {
        return Ok(None);
    }
    let null = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
    use std::os::fd::AsRawFd;
    // SAFETY: both descriptors are open; dup2 replaces descriptor 0, which nothing in this process owns as an object
    // except std's stdin handle, which keeps working (it reads /dev/null).
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Some(UnixStream::from(OwnedFd::from(file))))
}
