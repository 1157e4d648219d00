//! The audit log: `data_dir/audit.log`, one JSON object per line, on disk before anybody is told so.
//!
//! Invariants: a line that was confirmed is complete and synced. A line that failed is cut off again, so that the next
//! one starts clean; a half line left by a crash is closed at the next start. Size is bounded: [`MAX_FILE`] bytes per
//! file, [`KEPT_FILES`] older files (`audit.log.1` is the youngest of them).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Name of the log within `data_dir`.
pub const AUDIT_FILE: &str = "audit.log";
/// Size at which the log is rotated, bytes.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Older files kept beside the current one.
pub(crate) const KEPT_FILES: u32 = 9;

/// The open audit log. Opened again after every failure, so that freed space or repaired rights take effect at once.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    file: Option<(File, u64)>,
    max_file: u64,
}

impl AuditLog {
    /// The log of `data_dir`. Nothing is opened before the first line.
    #[must_use]
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(AUDIT_FILE), file: None, max_file: MAX_FILE }
    }

    /// Writes all lines and syncs once; on an error none of them counts.
    pub(crate) fn append(&mut self, lines: &[serde_json::Value]) -> Result<(), String> {
        let mut text = Vec::new();
        for line in lines {
            // Into memory, with text keys: cannot fail.
            let _ = serde_json::to_writer(&mut text, line);
            text.push(b'\n');
        }
        self.write(&text).map_err(|error| {
            self.file = None;
            format!("{}: the audit line could not be written: {error}", self.path.display())
        })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|(_, size)| size + text.len() as u64 > self.max_file) {
            self.file = None;
            rotate(&self.path)?;
        }
        let (file, size) = match &mut self.file {
            Some(open) => open,
            none => none.insert(open(&self.path)?),
        };
        let written = file.write_all(text).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // What reached the file of this attempt must not look like a confirmed line.
            let _ = file.set_len(*size);
            return Err(error);
        }
        *size += text.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" {
        return Ok((file, size));
    }
    file.write_all(b"\n")?;
    Ok((file, size + 1))
}

fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..KEPT_FILES).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(path: &Path) -> Vec<serde_json::Value> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_survive_a_restart_and_a_half_line_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT_FILE);
        AuditLog::new(dir.path()).append(&[json!({"n": 1}), json!({"n": 2})]).unwrap();
        assert_eq!(read(&path), [json!({"n": 1}), json!({"n": 2})]);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"n\":").unwrap();
        AuditLog::new(dir.path()).append(&[json!({"n": 3})]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"n\":1}\n{\"n\":2}\n{\"n\":\n{\"n\":3}\n");
    }

    #[test]
    fn size_is_bounded_and_the_youngest_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = AuditLog { max_file: 100, ..AuditLog::new(dir.path()) };
        for n in 0..1000 {
            log.append(&[json!({"n": n})]).unwrap();
        }
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files as u32, 1 + KEPT_FILES);
        assert_eq!(read(&dir.path().join(AUDIT_FILE)).last(), Some(&json!({"n": 999})));
        let older = read(&dir.path().join("audit.log.1"));
        let first = read(&dir.path().join(AUDIT_FILE))[0]["n"].as_i64().unwrap();
        assert_eq!(older.last().unwrap()["n"].as_i64(), Some(first - 1));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT_FILE);
        // A directory in its place fails for every user, root included.
        std::fs::create_dir(&path).unwrap();
        let mut log = AuditLog::new(dir.path());
        let error = log.append(&[json!({"n": 1})]).unwrap_err();
        assert!(error.contains("audit.log") && error.contains("could not be written"), "{error}");
        std::fs::remove_dir(&path).unwrap();
        log.append(&[json!({"n": 2})]).unwrap();
        assert_eq!(read(&path), [json!({"n": 2})]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut log = AuditLog { path: "/dev/full".into(), file: None, max_file: MAX_FILE };
        let error = log.append(&[json!({"n": 1})]).unwrap_err();
        assert!(error.contains("No space left"), "{error}");
    }
}
