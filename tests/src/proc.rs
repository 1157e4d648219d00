//! A child process that never outlives its test: ended by id, stopped and continued by signal, CPU and memory read from
//! the kernel.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Owns a child; kills it on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Takes over a started child.
    #[must_use]
    pub const fn new(name: &'static str, child: Child) -> Self {
        Self { child, name }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&mut self, signal: i32) {
        assert!(self.ended().is_none(), "{} has already ended", self.name);
        kill(self.child.id(), signal).unwrap();
    }

    /// The process hangs from now on; its sockets stay open.
    pub fn stop(&mut self) {
        self.signal(libc::SIGSTOP);
    }

    /// The process goes on.
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it at once and waits.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(libc::SIGTERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("{} did not end within {limit:?} of SIGTERM", self.name);
    }

    /// CPU time used so far, user and system, all threads.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// A line of `/proc/PID/status`, as a number (`VmRSS` in KiB, `Threads`).
    #[must_use]
    pub fn status(&self, key: &str) -> u64 {
        status(self.child.id(), key)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(unsafe_code, reason = "one system call that the standard library does not offer")]
fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory; the pid is a child that was not waited for yet.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of a process from `/proc/PID/stat` (fields 14 and 15, proc(5)), in ticks of 10 ms.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A number of `/proc/PID/status`.
///
/// # Panics
/// When the process is gone or has no such line.
#[must_use]
pub fn status(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
