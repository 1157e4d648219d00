//! Finding plugin files, and the report that `busbar plugins` and `busbar plugin check` show.
//!
//! File names say kind and name: `libbusbar_driver_NAME.so`, `libbusbar_sink_NAME.so` (what cargo makes of the crates
//! `busbar-driver-NAME`, `busbar-sink-NAME`; a `-` in NAME is a `_` in the file name). The first directory that has
//! the file wins.

use std::path::{Path, PathBuf};

use busbar_contract::{Describe, describe::PluginKind};
use serde::{Deserialize, Serialize};

use crate::{
    Expect, Launcher, LoadError, Step,
    plugin::Isolation,
    probe::{Probed, probe},
    stage::{Staged, is_plugin_name, stage},
};

/// Most plugins listed per directory.
pub const MAX_FILES: usize = 1024;

/// A plugin file by its name; nothing was read yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// `driver` or `sink`.
    pub kind: &'static str,
    /// NAME of the file name.
    pub name: String,
}

/// The file name of a plugin.
#[must_use]
pub fn file_name(kind: PluginKind, name: &str) -> String {
    format!("libbusbar_{}_{}.so", kind.as_str(), name.replace('-', "_"))
}

/// The file of a plugin: `path` when the configuration names one, else the first in `plugin_dirs`.
///
/// # Errors
/// One sentence naming the file and where it was looked for.
pub fn find(
    plugin_dirs: &[PathBuf],
    kind: PluginKind,
    name: &str,
    path: Option<&Path>,
) -> Result<PathBuf, LoadError> {
    if let Some(path) = path {
        if path.is_file() {
            return Ok(path.to_path_buf());
        }
        let text = format!("expected a plugin file, found none in {}; check path", parent(path));
        return Err(LoadError::new(Step::Find, path, text));
    }
    let file = file_name(kind, name);
    if let Some(found) = plugin_dirs.iter().map(|dir| dir.join(&file)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let dirs: Vec<String> = plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let text = if dirs.is_empty() {
        "not found: [host] plugin_dirs is empty; name the directory of the plugins".into()
    } else {
        format!("not found in {}; install it or set [host] plugin_dirs", dirs.join(", "))
    };
    Err(LoadError::new(Step::Find, Path::new(&file), text))
}

fn parent(path: &Path) -> String {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir.display().to_string(),
        _ => "the current directory".into(),
    }
}

/// All plugin files of the directories, sorted; of equal kind and name the first directory wins. Directories that
/// cannot be read are skipped.
#[must_use]
pub fn list(plugin_dirs: &[PathBuf]) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for dir in plugin_dirs {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        let plugins = entries.flatten().filter_map(|entry| {
            let (kind, name) = parse_file_name(entry.file_name().to_str()?)?;
            Some((entry.path(), kind, name))
        });
        for (path, kind, name) in plugins.take(MAX_FILES) {
            if path.is_file() && !all.iter().any(|known| known.kind == kind && known.name == name) {
                all.push(Found { path, kind, name });
            }
        }
    }
    all.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    all
}

/// Kind and NAME of a plugin's file name.
#[must_use]
pub fn parse_file_name(file: &str) -> Option<(&'static str, String)> {
    let rest = file.strip_prefix("libbusbar_")?.strip_suffix(".so")?;
    [PluginKind::Driver, PluginKind::Sink].into_iter().find_map(|kind| {
        let name = rest.strip_prefix(kind.as_str())?.strip_prefix('_')?;
        (!name.is_empty()).then(|| (kind.as_str(), name.to_owned()))
    })
}

/// How far a plugin got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum State {
    /// In the configuration or in a directory.
    Declared,
    /// Copied and probed.
    Staged,
    /// Loaded, or its worker is ready to start.
    Loaded,
    /// Its runtime runs.
    Running,
    /// It runs, and something is wrong.
    Degraded(String),
    /// It does not run.
    Failed(String),
}

/// One line of `busbar plugins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name in the configuration, or of the plugin.
    pub name: String,
    /// `driver`, `sink`; empty while unknown.
    pub kind: String,
    /// Version of the plugin; empty while unknown.
    pub version: String,
    /// Version of the waist and of the protocol, `1/1.0`; empty while unknown.
    pub abi: String,
    /// One sentence of its maker.
    pub description: String,
    /// The deployed file.
    pub file: PathBuf,
    /// Of the file; empty while unknown.
    pub sha256: String,
    /// Where it runs.
    pub isolation: Isolation,
    /// How far it got, and why not further.
    #[serde(flatten)]
    pub state: State,
}

impl Report {
    /// A plugin of which only the file is known.
    #[must_use]
    pub fn declared(name: impl Into<String>, kind: PluginKind, file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            kind: kind.as_str().into(),
            version: String::new(),
            abi: String::new(),
            description: String::new(),
            file: file.into(),
            sha256: String::new(),
            isolation: Isolation::default(),
            state: State::Declared,
        }
    }

    /// Fills in what the probe found.
    #[must_use]
    pub fn probed(mut self, probed: &Probed) -> Self {
        self.fill(&probed.staged, &probed.describe);
        self.state = State::Staged;
        self
    }

    /// `busbar plugin check FILE`: stages and probes one file that is not installed yet; the copy goes away again.
    #[must_use]
    pub fn of_file(launcher: &Launcher, stage_dir: &Path, file: &Path) -> Self {
        let name = file.file_name().and_then(|name| parse_file_name(name.to_str()?));
        let (kind, name) = name.unwrap_or(("", "unnamed".into()));
        let mut report = Self { kind: kind.into(), ..Self::declared(name.clone(), PluginKind::Driver, file) };
        // A directory of its own: the copies of a running host are not touched.
        let private = stage_dir.join(format!("check-{}", std::process::id()));
        let name = if is_plugin_name(&name) { name } else { "unnamed".into() };
        let staged = stage(&private, &name, file, None);
        if let Ok(staged) = &staged {
            report.sha256.clone_from(&staged.sha256);
        }
        let probed = staged.and_then(|staged| probe(launcher, &staged, Expect::default()));
        // What cannot be removed is a few megabytes in a directory that names this process.
        let _ = std::fs::remove_dir_all(&private);
        match probed {
            Ok(probed) => report.probed(&probed),
            Err(error) => report.failed(&error),
        }
    }

    /// Ends with a reason.
    #[must_use]
    pub fn failed(mut self, error: &LoadError) -> Self {
        self.state = State::Failed(error.to_string());
        self
    }

    fn fill(&mut self, staged: &Staged, describe: &Describe) {
        self.name.clone_from(&describe.name);
        self.kind = describe.kind.as_str().into();
        self.version.clone_from(&describe.version);
        self.abi = format!("{}/{}.{}", busbar_abi::ABI, describe.protocol.major, describe.protocol.minor);
        self.description.clone_from(&describe.description);
        self.file.clone_from(&staged.source);
        self.sha256.clone_from(&staged.sha256);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_say_kind_and_name() {
        assert_eq!(file_name(PluginKind::Sink, "ems-http"), "libbusbar_sink_ems_http.so");
        assert_eq!(parse_file_name("libbusbar_driver_modbus.so"), Some(("driver", "modbus".into())));
        for other in
            ["libbusbar_driver_.so", "libbusbar_tool_x.so", "busbar_driver_x.so", "libbusbar_driver_x.so.1"]
        {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_its_places() {
        let dirs = [PathBuf::from("/nonexistent/a"), PathBuf::from("/nonexistent/b")];
        let error = find(&dirs, PluginKind::Driver, "modbus", None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("libbusbar_driver_modbus.so: not found in /nonexistent/a, /nonexistent/b"),
            "{text}"
        );
        assert!(find(&[], PluginKind::Driver, "modbus", None).is_err());
        let error = find(&dirs, PluginKind::Driver, "modbus", Some(Path::new("x.so"))).unwrap_err();
        assert!(error.to_string().contains("the current directory"), "{error}");
        assert!(list(&dirs).is_empty());
    }

    #[test]
    fn the_first_directory_wins_and_other_files_are_ignored() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, file) in [
            (&one, "libbusbar_driver_modbus.so"),
            (&two, "libbusbar_driver_modbus.so"),
            (&two, "libbusbar_sink_ems_http.so"),
            (&two, "libbusbar_driver_x.so.old"),
            (&two, "notes.txt"),
        ] {
            std::fs::write(dir.path().join(file), b"").unwrap();
        }
        std::fs::create_dir(two.path().join("libbusbar_driver_dir.so")).unwrap();
        let dirs = [one.path().to_path_buf(), two.path().to_path_buf()];
        let found = list(&dirs);
        let names: Vec<_> = found.iter().map(|found| (found.kind, &*found.name)).collect();
        assert_eq!(names, [("driver", "modbus"), ("sink", "ems_http")]);
        assert!(found[0].path.starts_with(one.path()));
        let ems = find(&dirs, PluginKind::Sink, "ems-http", None).unwrap();
        assert_eq!(ems, two.path().join("libbusbar_sink_ems_http.so"));
        assert_eq!(find(&dirs, PluginKind::Driver, "any", Some(&ems)), Ok(ems));
    }

    #[test]
    fn the_report_shows_state_and_reason_flat() {
        let report = Report::declared("modbus", PluginKind::Driver, "/x/libbusbar_driver_modbus.so");
        let error = LoadError::general(Step::Find, "gone");
        let json = serde_json::to_value(report.failed(&error)).unwrap();
        assert_eq!((&json["state"], &json["reason"]), (&"failed".into(), &"gone".into()));
        assert_eq!(json["isolation"], "in-process");
        let back: Report = serde_json::from_value(json).unwrap();
        assert_eq!(back.state, State::Failed("gone".into()));
    }
}
