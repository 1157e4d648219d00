//! `data_dir/plugins/active.toml`: which version of each plugin is accepted, and the trial in progress.
//!
//! The start goes by this file, not by the deployed files. It is written whole, synced and renamed before the first
//! hand-over of a trial and again after its end, so a host that dies at any moment finds either the state before or the
//! state after. Everything in it is bounded.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use busbar_contract::describe::PluginKind;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const ACTIVE_FILE: &str = "active.toml";
/// Refused or failed versions that are remembered per plugin (G9).
const MAX_FAILED: usize = 16;
/// Longest file that is read, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// By [`key`].
    #[serde(default)]
    pub plugin: BTreeMap<String, Record>,
}

/// One plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Sha256 of the deployed file that was dealt with last: only another one is news.
    pub deployed: String,
    /// What starts.
    pub accepted: Version,
    /// What was accepted before it.
    pub previous: Option<Version>,
    /// Its trial began and did not end.
    pub trial: Option<Version>,
    /// Promoted a moment ago: not yet known to survive.
    pub fresh: Option<Fresh>,
    /// Versions that are not tried again by themselves, newest last.
    pub failed: Vec<Failed>,
}

/// A version of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Of the file.
    pub sha256: String,
    /// As it calls itself.
    pub version: String,
    /// RFC 3339.
    pub since: String,
}

/// A promotion whose host has not yet lived long enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fresh {
    /// Hosts that died with it.
    pub deaths: u32,
    /// A host runs with it, or died with it.
    pub running: bool,
}

/// A version that was refused or taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// Of the file.
    pub sha256: String,
    /// As it calls itself.
    pub version: String,
    /// RFC 3339.
    pub since: String,
    /// For the operator.
    pub reason: String,
}

impl Record {
    /// Not to be tried again by itself.
    #[must_use]
    pub fn has_failed(&self, sha256: &str) -> bool {
        self.failed.iter().any(|failed| failed.sha256 == sha256)
    }

    /// Remembers a failure, once per file.
    pub fn remember(&mut self, failed: Failed) {
        self.failed.retain(|known| known.sha256 != failed.sha256);
        self.failed.push(failed);
        let more = self.failed.len().saturating_sub(MAX_FAILED);
        self.failed.drain(..more);
    }

    /// From now on this version starts.
    pub fn accept(&mut self, version: Version) {
        self.failed.retain(|known| known.sha256 != version.sha256);
        self.trial = None;
        if self.accepted.sha256 == version.sha256 {
            return;
        }
        let before = std::mem::replace(&mut self.accepted, version);
        self.previous = Some(before).filter(|before| !before.sha256.is_empty());
    }
}

/// `driver/modbus`; a file name has `_` where a plugin's name may have `-`.
#[must_use]
pub fn key(kind: PluginKind, name: &str) -> String {
    format!("{}/{}", kind.as_str(), name.replace('-', "_"))
}

/// The folder of the file, the history and, by default, the private copies.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("plugins")
}

impl Active {
    /// Reads the file; none is no error. One that cannot be read is kept aside: the text says so.
    pub fn read(data_dir: &Path) -> (Self, Option<String>) {
        let path = folder(data_dir).join(ACTIVE_FILE);
        let failed = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Self::default(), None),
            Ok(metadata) if metadata.len() > MAX_FILE => "it is too long".to_owned(),
            _ => match fs::read_to_string(&path).map_err(|error| error.to_string()) {
                Ok(text) => match toml::from_str(&text) {
                    Ok(active) => return (active, None),
                    Err(error) => error.message().to_owned(),
                },
                Err(error) => error,
            },
        };
        let aside = path.with_extension("toml.damaged");
        let kept = fs::rename(&path, &aside).is_ok();
        let kept = if kept { format!("; it is kept as {}", aside.display()) } else { String::new() };
        let text = format!("{} cannot be read, the deployed files are used: {failed}{kept}", path.display());
        (Self::default(), Some(text))
    }

    /// Writes the file: on disk when this returns.
    ///
    /// # Errors
    /// One sentence.
    pub fn write(&self, data_dir: &Path) -> Result<(), String> {
        let dir = folder(data_dir);
        let text = toml::to_string_pretty(self).map_err(|error| error.to_string())?;
        write_synced(&dir, ACTIVE_FILE, text.as_bytes())
            .map_err(|error| format!("{} could not be written: {error}", dir.join(ACTIVE_FILE).display()))
    }
}

/// A file as a whole: temporary, synced, renamed, directory synced.
pub(crate) fn write_synced(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(sha256: &str) -> Version {
        Version { sha256: sha256.into(), version: "1.0.0".into(), since: "2026-01-01T00:00:00Z".into() }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut active = Active::default();
        let record = active.plugin.entry(key(PluginKind::Sink, "ems-http")).or_default();
        record.accept(version("aa"));
        record.accept(version("bb"));
        record.trial = Some(version("cc"));
        record.fresh = Some(Fresh { deaths: 1, running: true });
        record.remember(Failed { sha256: "dd".into(), reason: "a \"reason\"".into(), ..Failed::default() });
        active.write(dir.path()).unwrap();
        let (read, problem) = Active::read(dir.path());
        assert_eq!((read, problem), (active, None));
        assert!(dir.path().join("plugins/active.toml").exists());
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder(dir.path())).unwrap();
        fs::write(folder(dir.path()).join(ACTIVE_FILE), "[[[").unwrap();
        let (read, problem) = Active::read(dir.path());
        assert_eq!(read, Active::default());
        assert!(problem.unwrap().contains("active.toml.damaged"));
        assert!(folder(dir.path()).join("active.toml.damaged").exists());
        assert_eq!(Active::read(dir.path()), (Active::default(), None));
    }

    #[test]
    fn the_list_of_failures_is_bounded_and_acceptance_forgives() {
        let mut record = Record::default();
        for n in 0..100 {
            record.remember(Failed { sha256: n.to_string(), ..Failed::default() });
        }
        assert_eq!(record.failed.len(), MAX_FAILED);
        assert!(record.has_failed("99") && !record.has_failed("0"));
        record.accept(version("99"));
        assert!(!record.has_failed("99"));
        record.accept(version("100"));
        assert_eq!(record.previous, Some(version("99")));
        record.accept(version("100"));
        assert_eq!(record.previous, Some(version("99")), "accepting again changes nothing");
    }
}
