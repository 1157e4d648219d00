//! The log as a file that is rotated by size: `FILE`, then `FILE.1` (newest) to `FILE.N`.
//!
//! Each line is one write, so a reader never sees half a line, except the last one before a disk was full; the line
//! after that begins on a line of its own. A file that somebody moved or removed (logrotate) is opened anew, within a
//! second or at once with SIGUSR1. What cannot be written is an error to the caller, who counts it: the file never grows
//! beyond its bound because it could not be rotated.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use busbar_config::LogFile;

/// How often it is looked at whether the file is still the one that its name means, and pause after a failure.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The owner writes, the group may read.
const MODE: u32 = 0o640;
/// Of a folder that had to be made.
const DIR_MODE: u32 = 0o750;

/// SIGUSR1 came: the file is opened anew with the next line.
pub(super) static REOPEN: AtomicBool = AtomicBool::new(false);

/// The file; owned by the log thread.
#[derive(Debug)]
pub(super) struct RotatedFile {
    settings: LogFile,
    file: Option<File>,
    size: u64,
    /// The last line was cut off by a failure.
    torn: bool,
    next_look: Instant,
    /// After a failure nothing is tried before.
    next_try: Option<Instant>,
}

impl RotatedFile {
    /// Opens the file, and makes its folder.
    pub(super) fn open(settings: LogFile) -> io::Result<Self> {
        if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(folder)?;
        }
        let next_look = Instant::now() + LOOK_EVERY;
        let mut file = Self { settings, file: None, size: 0, torn: false, next_look, next_try: None };
        file.ready()?;
        Ok(file)
    }

    fn ready(&mut self) -> io::Result<&mut File> {
        let now = Instant::now();
        if REOPEN.swap(false, Ordering::Relaxed) || now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            if !self.file.as_ref().is_some_and(|file| is_still(file, &self.settings.path)) {
                self.file = None;
            }
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let file =
                    OpenOptions::new().append(true).create(true).mode(MODE).open(&self.settings.path)?;
                self.size = file.metadata()?.len();
                file
            }
        };
        Ok(self.file.insert(file))
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.ready()?;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.settings.max_size {
            self.rotate()?;
            self.ready()?;
        }
        let (torn, before) = (self.torn, self.size);
        let file = self.ready()?;
        let written = if torn {
            file.write_all(b"\n").and_then(|()| file.write_all(line))
        } else {
            file.write_all(line)
        };
        // A failed write may have written a part.
        let after = if written.is_ok() { before + length + u64::from(torn) } else { file.metadata()?.len() };
        self.size = after;
        self.torn = written.is_err() && (torn || after > before);
        written
    }

    /// `FILE.N` goes, `FILE.n` becomes `FILE.n+1`, `FILE` becomes `FILE.1`. A rename that fails leaves every line where it
    /// is.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let LogFile { path, backups, .. } = &self.settings;
        if *backups == 0 {
            fs::remove_file(path)?;
        }
        for number in (0..*backups).rev() {
            match fs::rename(backup(path, number), backup(path, number + 1)) {
                // A gap in the chain: fewer files than allowed so far, or somebody took one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

impl Write for RotatedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.next_try.is_some_and(|at| Instant::now() < at) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let written = self.write_line(line);
        self.next_try = written.is_err().then(|| Instant::now() + LOOK_EVERY);
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `FILE.n`; the file itself for 0.
fn backup(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The name still means the open file.
fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &Path, max_size: u64, backups: u32) -> RotatedFile {
        RotatedFile::open(LogFile { path: dir.join("logs/busbar.log"), max_size, backups }).unwrap()
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join("logs").join(name)).unwrap_or_default()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir.join("logs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_rotated_and_no_line_is_lost_before_the_last_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 100, 3);
        for number in 0..40 {
            log.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        assert_eq!(names(dir.path()), ["busbar.log", "busbar.log.1", "busbar.log.2", "busbar.log.3"]);
        let all: String = ["busbar.log.3", "busbar.log.2", "busbar.log.1", "busbar.log"]
            .map(|name| text(dir.path(), name))
            .concat();
        assert_eq!(all, (0..40).map(|number| format!("line {number:04}\n")).collect::<String>());
        for number in 40..80 {
            log.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        assert_eq!(names(dir.path()).len(), 4);
        assert!(text(dir.path(), "busbar.log").ends_with("line 0079\n"));
        for name in names(dir.path()) {
            assert!(text(dir.path(), &name).len() <= 100, "{name}");
        }
    }

    #[test]
    fn without_backups_the_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 20, 0);
        for number in 0..5 {
            log.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        assert_eq!(names(dir.path()), ["busbar.log"]);
        assert_eq!(text(dir.path(), "busbar.log"), "line 0004\n");
    }

    #[test]
    fn a_start_goes_on_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 100, 1).write_all(b"first\n").unwrap();
        log(dir.path(), 100, 1).write_all(b"second\n").unwrap();
        assert_eq!(text(dir.path(), "busbar.log"), "first\nsecond\n");
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, 2);
        log.write_all(b"before\n").unwrap();
        let (from, to) = (dir.path().join("logs/busbar.log"), dir.path().join("logs/old"));
        fs::rename(from, to).unwrap();
        log.next_look = Instant::now();
        log.write_all(b"after\n").unwrap();
        assert_eq!(
            (text(dir.path(), "old").as_str(), text(dir.path(), "busbar.log").as_str()),
            ("before\n", "after\n")
        );
    }

    #[test]
    fn what_cannot_be_rotated_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 20, 1);
        // A folder in the place of the backup: the rename fails, whoever the user is.
        fs::create_dir_all(dir.path().join("logs/busbar.log.1/x")).unwrap();
        log.write_all(b"0123456789\n").unwrap();
        assert!(log.write_all(b"0123456789\n").is_err());
        log.next_try = None;
        assert!(log.write_all(b"0123456789\n").is_err());
        assert_eq!(text(dir.path(), "busbar.log"), "0123456789\n");
        fs::remove_dir_all(dir.path().join("logs/busbar.log.1")).unwrap();
        log.next_try = None;
        log.write_all(b"once again\n").unwrap();
        assert_eq!(text(dir.path(), "busbar.log"), "once again\n");
        assert_eq!(text(dir.path(), "busbar.log.1"), "0123456789\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_end() {
        let mut log =
            RotatedFile::open(LogFile { path: "/dev/full".into(), max_size: 100, backups: 0 }).unwrap();
        let error = log.write_all(b"x\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        // Not tried again at once.
        assert_eq!(log.write_all(b"x\n").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }
}
