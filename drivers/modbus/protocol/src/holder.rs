//! Who uses a serial port: the process named to an operator whose port cannot be opened.
//!
//! Three traces are looked at: the kernel's list of file locks (every program that takes a `flock`, as this one, pyserial
//! and current picocom do), the lock file in the UUCP style (minicom, mgetty, pppd; read only: the folder is not writable
//! for a service, and a stale file would block a port for ever), and, as far as rights go, who has the port open.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{major, minor};

/// Processes looked at for an open port; more have hardly a serial port among them.
const MAX_PROCESSES: usize = 10_000;
/// Descriptors of one process looked at.
const MAX_DESCRIPTORS: usize = 10_000;
/// A lock file holds a number as text, or in four bytes; the rest of anything else is not read.
const MAX_LOCK_FILE: u64 = 64;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid == std::process::id(), self.name.as_str()) {
            (true, _) => write!(f, "this gateway itself (process {})", self.pid),
            (false, "") => write!(f, "process {}", self.pid),
            (false, name) => write!(f, "process {} ({name})", self.pid),
        }
    }
}

impl Holder {
    fn of(pid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self { pid, name: name.trim().chars().filter(|c| !c.is_control()).collect() }
    }
}

/// Who has the port locked or open; `None` when it cannot be found out.
pub(crate) fn of_port(path: &str) -> Option<Holder> {
    let port = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locked_by(&locks, &port).or_else(|| opened_by(&port))?;
    Some(Holder::of(pid))
}

/// A living process, not this one, that a lock file in the UUCP style names.
pub(crate) fn of_lock_file(lock_file: &Path) -> Option<Holder> {
    if fs::metadata(lock_file).ok()?.len() > MAX_LOCK_FILE {
        return None;
    }
    let pid = pid_in(&fs::read(lock_file).ok()?)?;
    let lives = pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
    lives.then(|| Holder::of(pid))
}

/// As text (HDB, what everybody writes today), or as four bytes in the machine's order.
fn pid_in(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    text.or_else(|| Some(u32::from_ne_bytes(bytes.try_into().ok()?))).filter(|pid| *pid > 0)
}

/// Lines of proc(5) locks: `1: FLOCK  ADVISORY  WRITE 1234 00:05:113 0 EOF`, device in hex, inode in decimal. Locks of
/// processes outside this container have pid 0.
fn locked_by(locks: &str, port: &Metadata) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{}", major(port.dev()), minor(port.dev()), port.ino());
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, _, pid, place, ..] if *place == file => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}

fn opened_by(port: &Metadata) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.take(MAX_PROCESSES);
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.take(MAX_DESCRIPTORS).flatten();
        // The link is followed: the device behind it counts, whatever name it was opened by.
        let is_port = |file: Metadata| file.rdev() == port.rdev() && file.dev() == port.dev();
        let other = pid != std::process::id();
        (other && open.any(|fd| fs::metadata(fd.path()).is_ok_and(is_port))).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_read_in_both_forms() {
        assert_eq!(pid_in(b"      1234\n"), Some(1234));
        assert_eq!(pid_in(b"1234 minicom root\n"), Some(1234));
        assert_eq!(pid_in(&77_u32.to_ne_bytes()), Some(77));
        for bad in [&b""[..], b"x", b"-5", b"0", b"99999999999999"] {
            assert_eq!(pid_in(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_a_living_process_holds_a_lock_file() {
        let dir = std::env::temp_dir().join(format!("busbar-holder-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("LCK..ttyX");
        assert_eq!(of_lock_file(&file), None);
        fs::write(&file, "         1\n").unwrap();
        assert_eq!(of_lock_file(&file).map(|holder| holder.pid), Some(1));
        fs::write(&file, "4194305\n").unwrap();
        assert_eq!(of_lock_file(&file), None, "beyond the largest pid");
        fs::write(&file, std::process::id().to_string()).unwrap();
        assert_eq!(of_lock_file(&file), None, "ourselves");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_line_of_the_port_is_found() {
        let port = fs::metadata("/dev/null").unwrap();
        let place = format!("{:02x}:{:02x}:{}", major(port.dev()), minor(port.dev()), port.ino());
        let locks = format!(
            "1: POSIX  ADVISORY  WRITE 5 {place} 0 EOF\n2: FLOCK  ADVISORY  WRITE 6 00:00:1 0 EOF\n3: FLOCK  ADVISORY  WRITE 4711 {place} 0 EOF\n"
        );
        assert_eq!(locked_by(&locks, &port), Some(4711));
        assert_eq!(locked_by("", &port), None);
    }

    #[test]
    fn a_process_is_named() {
        let holder = Holder { pid: 7, name: "minicom".into() };
        assert_eq!(holder.to_string(), "process 7 (minicom)");
        assert!(Holder::of(std::process::id()).to_string().starts_with("this gateway itself"));
    }
}
