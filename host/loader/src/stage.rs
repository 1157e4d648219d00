//! From the deployed file to a private copy that nobody overwrites.
//!
//! The deployed file is never given to `dlopen`: overwriting a mapped file in place kills the host, and `dlopen` of a
//! known path returns the old code. So the file is read once into memory, looked at, hashed, and written to
//! `<stage_dir>/<name>/<sha256>.so` (mode 0444; temporary file, fsync, rename, fsync of the directory). What is
//! checked is what is loaded, whatever happens to the deployed file meanwhile; the hash in the path makes every
//! version its own path, and going back to an old version finds its copy.
//!
//! An existing copy is hashed again before it is reused: bit rot and half-written disks are replaced, not loaded.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};

use crate::{LoadError, Step, preflight::preflight};

/// Largest plugin file, bytes. A debug build of a large driver stays below a tenth of it.
pub const MAX_PLUGIN_BYTES: u64 = 512 * 1024 * 1024;
/// Longest plugin name, bytes.
pub const MAX_NAME: usize = 64;
/// Prefix of files that are being written.
const TEMPORARY: &str = ".tmp-";

/// A private copy, ready to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The deployed file.
    pub source: PathBuf,
    /// The copy.
    pub path: PathBuf,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Copies `source` to `<stage_dir>/<name>/<sha256>.so`, or finds the copy made before.
///
/// `expected` is the sha256 that the configuration demands (hex, any case).
///
/// # Errors
/// One sentence: unreadable, too large, not a plugin for this machine, other sha256, `stage_dir` mounted noexec,
/// full or not writable.
pub fn stage(
    stage_dir: &Path,
    name: &str,
    source: &Path,
    expected: Option<&str>,
) -> Result<Staged, LoadError> {
    check_name(name, source)?;
    let bytes = read_plugin(source)?;
    preflight(&bytes).map_err(|error| LoadError::new(Step::Preflight, source, error.to_string()))?;
    let sha256 = sha256_hex(&bytes);
    if let Some(expected) = expected
        && !expected.trim().eq_ignore_ascii_case(&sha256)
    {
        let (expected, found) = (abbreviated(expected.trim()), abbreviated(&sha256));
        let text = format!("wrong sha256: the configuration expects {expected}, the file has {found}");
        return Err(LoadError::new(Step::Stage, source, text));
    }
    check_stage_dir(stage_dir)?;
    let dir = stage_dir.join(name);
    create_dir(&dir).map_err(|error| dir_error(&dir, &error))?;
    let path = dir.join(format!("{sha256}.so"));
    if !is_intact(&path, &sha256) {
        write_copy(&dir, &path, &bytes).map_err(|error| dir_error(&dir, &error))?;
    }
    Ok(Staged { source: source.to_path_buf(), path, sha256, size: bytes.len() as u64 })
}

/// A copy that [`stage`] made before, by its hash: looked at and hashed again. `source` is only what it is called.
///
/// # Errors
/// One sentence: gone, unreadable, or no longer what it was.
pub fn staged_copy(stage_dir: &Path, name: &str, sha256: &str, source: &Path) -> Result<Staged, LoadError> {
    check_name(name, source)?;
    let path = stage_dir.join(name).join(format!("{sha256}.so"));
    if !is_sha256(sha256) {
        return Err(LoadError::new(Step::Stage, &path, "not the sha256 of a private copy"));
    }
    let bytes = read_plugin(&path)?;
    if sha256_hex(&bytes) != sha256 {
        return Err(LoadError::new(Step::Stage, &path, "the private copy was changed; it is not used"));
    }
    preflight(&bytes).map_err(|error| LoadError::new(Step::Preflight, &path, error.to_string()))?;
    check_stage_dir(stage_dir)?;
    Ok(Staged { source: source.to_path_buf(), path, sha256: sha256.to_owned(), size: bytes.len() as u64 })
}

/// Creates `stage_dir` if needed and makes sure that code can be loaded from it.
///
/// # Errors
/// One sentence naming `[host] stage_dir`.
pub fn check_stage_dir(stage_dir: &Path) -> Result<(), LoadError> {
    create_dir(stage_dir).map_err(|error| dir_error(stage_dir, &error))?;
    let mode = fs::metadata(stage_dir).map_err(|error| dir_error(stage_dir, &error))?.permissions().mode();
    // Sticky (as /tmp): others can add, but not replace what is ours.
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let dir = stage_dir.display();
        let text =
            format!("[host] stage_dir {dir} is writable by everybody, who could replace plugins; chmod o-w");
        return Err(LoadError::general(Step::Stage, text));
    }
    if is_noexec(stage_dir).map_err(|error| dir_error(stage_dir, &error))? {
        return Err(noexec(stage_dir));
    }
    Ok(())
}

pub(crate) fn noexec(stage_dir: &Path) -> LoadError {
    let dir = stage_dir.display();
    let text =
        format!("[host] stage_dir {dir} is mounted noexec; choose a directory from which code can be loaded");
    LoadError::general(Step::Stage, text)
}

/// Reads a plugin file whole, bounded.
///
/// # Errors
/// One sentence: missing, unreadable, not a regular file, too large.
pub fn read_plugin(path: &Path) -> Result<Vec<u8>, LoadError> {
    let fail = |text: String| LoadError::new(Step::Stage, path, text);
    let cannot = |error: io::Error| fail(format!("cannot read the file: {}", plain(&error)));
    // Non-blocking: opening a pipe that somebody put there must not hang the host.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(fail("not a plugin: expected a regular file, found a directory or device".into()));
    }
    if meta.len() > MAX_PLUGIN_BYTES {
        let (limit, found) = (MAX_PLUGIN_BYTES >> 20, meta.len() >> 20);
        return Err(fail(format!("too large: expected at most {limit} MiB, found {found} MiB")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(MAX_PLUGIN_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_PLUGIN_BYTES {
        return Err(fail(format!("too large: expected at most {} MiB", MAX_PLUGIN_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Removes copies of `name` that are not in `keep` (sha256), and leftovers of dead processes. Files in use stay
/// mapped. Returns how many copies went.
pub fn prune(stage_dir: &Path, name: &str, keep: &[&str]) -> usize {
    let Ok(entries) = fs::read_dir(stage_dir.join(name)) else { return 0 };
    let mut removed = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copy =
            file.strip_suffix(".so").is_some_and(|sha256| is_sha256(sha256) && !keep.contains(&sha256));
        if copy && fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    removed
}

/// Lower-case hex sha256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    busbar_contract::value::hex(&Sha256::digest(bytes))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names become directories: nothing that could leave `stage_dir`.
fn check_name(name: &str, source: &Path) -> Result<(), LoadError> {
    if is_plugin_name(name) {
        return Ok(());
    }
    let text = format!("plugin name: expected 1 to {MAX_NAME} of a-z A-Z 0-9 _ -, found {name:?}");
    Err(LoadError::new(Step::Stage, source, text))
}

/// Letters, digits, `_` and `-`, 1 to [`MAX_NAME`] bytes.
#[must_use]
pub fn is_plugin_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

fn is_intact(path: &Path, sha256: &str) -> bool {
    read_plugin(path).is_ok_and(|bytes| sha256_hex(&bytes) == sha256)
}

fn write_copy(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    remove_leftovers(dir);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(dir)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()
}

/// A host that was killed while copying leaves a temporary file with its pid behind.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((pid, _)) = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_noexec(dir: &Path) -> io::Result<bool> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut info = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    #[allow(unsafe_code, reason = "statvfs(3) has no safe form in std")]
    // SAFETY: `path` is a NUL-terminated string and `info` has room for the structure; both outlive the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), info.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(unsafe_code, reason = "read what statvfs filled in")]
    // SAFETY: statvfs returned 0, so it has filled the structure in.
    let flags = unsafe { info.assume_init() }.f_flag;
    Ok(flags & libc::ST_NOEXEC != 0)
}

fn dir_error(dir: &Path, error: &io::Error) -> LoadError {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space or move it",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make it writable for this user"
        }
        _ => "choose another directory",
    };
    let text = format!("[host] stage_dir {}: {}; {advice}", dir.display(), plain(error));
    LoadError::general(Step::Stage, text)
}

/// The words of an I/O error without the "(os error N)".
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn abbreviated(sha256: &str) -> String {
    const SHOWN: usize = 16;
    match sha256.get(..SHOWN) {
        Some(start) if sha256.len() > SHOWN => format!("{start}..."),
        _ => sha256.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["modbus", "iec-61850", "A_1"] {
            assert!(is_plugin_name(name));
        }
        for name in ["", ".", "..", "a/b", "a.b", "ä", "a\0", &"x".repeat(65)] {
            assert!(!is_plugin_name(name), "{name:?}");
        }
    }

    #[test]
    fn io_errors_are_plain_words() {
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        let text = dir_error(Path::new("/var/lib/busbar/stage"), &error).to_string();
        assert!(
            text.starts_with("[host] stage_dir /var/lib/busbar/stage: no space left on device; free"),
            "{text}"
        );
    }
}
