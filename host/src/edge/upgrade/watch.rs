//! Looking at the deployed files: by size, time and inode every [`LOOK_EVERY`], which costs a few system calls and works
//! on every file system and in containers. A file is read when it looked the same in two looks and was not written within
//! [`SETTLED`]: one that is still being copied is left alone.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Pause between looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that was written within this is not read yet.
const SETTLED: Duration = Duration::from_secs(1);

/// What a look sees of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Face {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

#[derive(Debug, Default)]
struct Seen {
    face: Option<Face>,
    /// It was handed out in this form.
    taken: bool,
}

/// What was seen of each plugin's file.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: BTreeMap<String, Seen>,
}

impl Watch {
    /// Looks at a plugin's file; true when it changed since it was last handed out, and is complete.
    pub(crate) fn changed(&mut self, key: &str, path: &Path, now: SystemTime) -> bool {
        let face = face(path);
        let seen = self.seen.entry(key.to_owned()).or_default();
        let settled = face.as_ref().is_some_and(|face| is_settled(face, now));
        if face.is_none() || face != seen.face {
            *seen = Seen { face, taken: false };
            return false;
        }
        settled && !std::mem::replace(&mut seen.taken, true)
    }

    /// What was handed out could not be dealt with: it is handed out once more.
    pub(crate) fn again(&mut self, key: &str) {
        if let Some(seen) = self.seen.get_mut(key) {
            seen.taken = false;
        }
    }
}

fn face(path: &Path) -> Option<Face> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Face {
        path: path.to_path_buf(),
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// Not written for a moment. A time in the future (a clock that stepped, a copy that kept its time) counts as settled.
fn is_settled(face: &Face, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let modified = u64::try_from(face.modified.0).unwrap_or(0);
    let age = now.as_secs().checked_sub(modified);
    age.is_none_or(|age| age > SETTLED.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_once_and_only_when_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.so");
        let mut watch = Watch::default();
        let now = SystemTime::now();
        let later = now + Duration::from_secs(10);
        assert!(!watch.changed("k", &path, now), "absent");
        fs::write(&path, "one").unwrap();
        assert!(!watch.changed("k", &path, later), "first seen");
        assert!(!watch.changed("k", &path, now), "still young");
        assert!(watch.changed("k", &path, later));
        assert!(!watch.changed("k", &path, later), "taken");
        fs::write(&path, "longer").unwrap();
        assert!(!watch.changed("k", &path, later), "it may still be written");
        assert!(watch.changed("k", &path, later));
        fs::remove_file(&path).unwrap();
        assert!(!watch.changed("k", &path, later));
        fs::write(&path, "longer").unwrap();
        assert!(!watch.changed("k", &path, later));
        assert!(watch.changed("k", &path, later), "another inode is another file");
    }
}
