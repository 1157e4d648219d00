//! Starting the host binary again, as a probe or worker child.
//!
//! The child's standard input is one end of a socket pair and carries both directions, so that nothing the plugin
//! prints can get between the messages, and no `pre_exec` is needed (std can then use posix_spawn).
//! `/proc/self/exe` names the running version even when the binary on disk was replaced.
//!
//! Every child has a memory limit, set by the parent (prlimit(2)) between the start of the program and the first frame
//! that makes it load a plugin. It is RLIMIT_DATA, the private writable memory: the address space that RLIMIT_AS counts
//! is mostly reserved and never used (measured with the Modbus driver, 200 devices with 50 points: 316 MiB of address
//! space, 27 MiB resident, 18 MiB private), and a cgroup of its own would need rights that a service has not.

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

/// Private memory of a child that is given no other limit, bytes.
const MEMORY_LIMIT: u64 = 1024 * 1024 * 1024;

/// Which program to start, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    program: PathBuf,
    memory_limit: u64,
}

impl Default for Launcher {
    fn default() -> Self {
        Self::program("/proc/self/exe")
    }
}

impl Launcher {
    /// Another program than this one, for tests; it must do what [`crate::child_main`] does.
    #[must_use]
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), memory_limit: MEMORY_LIMIT }
    }

    /// The same with another limit on the private memory of a child, bytes.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Private memory that a child may have, bytes.
    #[must_use]
    pub const fn memory_limit(&self) -> u64 {
        self.memory_limit
    }

    pub(crate) fn spawn(&self, mode: &str, file: &Path, stderr: Stdio) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&self.program)
            .args([OsString::from(mode), file.as_os_str().to_owned()])
            // The place and text of a panic are wanted, not pages of frames.
            .env("RUST_BACKTRACE", "0")
            // Ctrl-C at the terminal is for the host, which then ends its children in order.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        if let Err(error) = limit_memory(child.id(), self.memory_limit) {
            // A child without its limit must not run; it is ours, so ending it cannot fail in a way that matters.
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(error.kind(), format!("its memory could not be limited: {error}")));
        }
        Ok((child, ours))
    }
}

#[allow(unsafe_code, reason = "prlimit(2) has no safe form in std")]
fn limit_memory(pid: u32, bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: `limit` is a valid structure that outlives the call; the old limit is not asked for; `pid` is a child that
    // was not waited for, so the number is not that of another process.
    match unsafe { libc::prlimit(pid, libc::RLIMIT_DATA, &raw const limit, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Most memory that a dead child had resident, bytes; `None` while it runs, or when the kernel does not tell. It can
/// still be waited for afterwards.
#[allow(unsafe_code, reason = "waitid(2) with its fifth argument has no safe form")]
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeros is a valid value of both plain structures.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to valid structures that outlive the call, which writes only into them; WNOWAIT leaves
    // the child to be waited for. The C library's own waitid has no argument for the usage.
    let answer =
        unsafe { libc::syscall(libc::SYS_waitid, libc::P_PID, pid, &raw mut info, flags, &raw mut usage) };
    // SAFETY: waitid filled the fields of SIGCHLD, or left the zeros.
    let ended = answer == 0 && unsafe { info.si_pid() } != 0;
    let kilobytes = u64::try_from(usage.ru_maxrss).ok()?;
    ended.then_some(kilobytes.saturating_mul(1024))
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
