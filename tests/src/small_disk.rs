//! A disk that is really full: a tmpfs of a few megabytes in a mount namespace of its own, so that no other process sees
//! it and nothing is left behind however the test ends.
//!
//! A process that only waits holds the namespace, so that the content outlives the gateway. Needs root, or a kernel that
//! gives a user namespace to everybody.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::proc::Process;

/// How a namespace is made and entered: as root, or as root of a user namespace.
const WAYS: [(&[&str], &[&str]); 2] = [
    (&["--mount"], &["--mount"]),
    (&["--user", "--map-root-user", "--mount"], &["--user", "--preserve-credentials", "--mount"]),
];

/// Mounts, says so, waits for the end of its input.
const HOLD: &str = "mount -t tmpfs -o \"size=$1,mode=0755\" tmpfs \"$2\" && echo mounted && exec cat";

/// A mounted small disk; gone on drop.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Process,
    enter: &'static [&'static str],
}

impl SmallDisk {
    /// Mounts `bytes` at `place`, which is made.
    ///
    /// # Panics
    /// When this user cannot have a mount namespace.
    #[must_use]
    pub fn mount(place: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(place).unwrap();
        let mut refused = Vec::new();
        for (make, enter) in WAYS {
            let mut child = Command::new("unshare")
                .args(make)
                .args(["--propagation", "private", "sh", "-c", HOLD, "sh", &bytes.to_string()])
                .arg(place)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
            if said == "mounted\n" {
                return Self { holder: Process::new("small disk", child), enter };
            }
            let output = child.wait_with_output().unwrap();
            refused.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        panic!("expected to mount a tmpfs as root or in a user namespace (unshare): {}", refused.join("; "));
    }

    /// Words that come before a command line so that it runs in `dir` and sees the disk.
    #[must_use]
    pub fn enter(&self, dir: &Path) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), format!("--target={}", self.holder.id())];
        words.extend(self.enter.iter().map(|&word| word.to_owned()));
        // Entering a mount namespace changes to its root.
        words.extend(["sh", "-c", "cd \"$0\" && exec \"$@\""].map(str::to_owned));
        words.push(dir.display().to_string());
        words
    }

    /// Where a file of the disk is seen from outside.
    #[must_use]
    pub fn outside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }
}
