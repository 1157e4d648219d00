//! What the kernel says about this process (proc(5)).

use std::fs;

/// Clock ticks per second in /proc/self/stat: the kernel's user-space ABI fixes it to 100 on all supported machines.
const USER_HZ: f64 = 100.0;

/// Resources of this process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl Process {
    /// Reads the current figures; what cannot be read is 0.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds(&stat).unwrap_or_default(),
            resident_bytes: field(&status, "VmRSS:").unwrap_or_default() * 1024,
            threads: field(&status, "Threads:").unwrap_or_default(),
            // The descriptor of the listing itself is not counted.
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| (fds.count() as u64).saturating_sub(1)),
        }
    }
}

/// Resident memory of another process, bytes; `None` when it is gone.
#[must_use]
pub fn resident_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(field(&status, "VmRSS:")? * 1024)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // Fields are counted behind the program's name, which may contain blanks and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_kernel() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 91 0 0 0 150 50 0 0 20 0 1 0 88";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("garbage"), None);
        let now = Process::read();
        assert!(now.resident_bytes > 100_000 && now.threads >= 1 && now.open_fds >= 3, "{now:?}");
    }
}
