//! The plugins of a configuration: where their files are and what their probes say.
//!
//! The configuration's own checks ask through [`PluginInfo`]; each plugin is found, copied and loaded in a child process
//! when it is asked for the first time, several at once after [`Catalog::examine_all`]. Nothing is loaded here.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use busbar_config::{HostSettings, PluginInfo};
use busbar_contract::{CheckInput, Describe, Endpoint, Problem, describe::PluginKind};
use busbar_core::model;
use busbar_loader::{Expect, Launcher, LoadError, Probe, Probed, Report, Staged, registry, stage};
use serde_json::Value as Json;

use crate::edge::upgrade::active;

/// Probes at the same time: they are processes.
const PARALLEL: usize = 4;

/// All plugins that could be used.
pub struct Catalog {
    launcher: Launcher,
    stage: StageDir,
    entries: BTreeMap<(&'static str, String), Entry>,
}

/// Kind and name; a file name has `_` where a plugin's name may have `-`.
fn key(kind: PluginKind, name: &str) -> (&'static str, String) {
    (kind.as_str(), name.replace('-', "_"))
}

struct Entry {
    name: String,
    kind: PluginKind,
    file: Result<PathBuf, LoadError>,
    sha256: Option<String>,
    /// Sha256 of the private copy that is used instead of the file, if it is still good.
    copy: Option<String>,
    examined: OnceLock<Result<Examined, LoadError>>,
}

struct Examined {
    describe: Describe,
    /// The child, for further questions.
    probe: Mutex<Probe>,
}

impl Examined {
    /// Ends the child.
    fn finish(self) -> Result<Probed, LoadError> {
        self.probe.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
    }
}

impl Catalog {
    /// The plugins named by `configured` and all others in `plugin_dirs`. Private copies go to `stage`.
    #[must_use]
    pub fn new(dirs: &[PathBuf], configured: &[model::Plugin], stage: StageDir, launcher: Launcher) -> Self {
        let mut entries = BTreeMap::new();
        for plugin in configured {
            let path = plugin.path.as_deref().map(Path::new);
            let file = registry::find(dirs, plugin.kind, &plugin.name, path);
            let sha256 = plugin.sha256.clone();
            entries
                .insert(key(plugin.kind, &plugin.name), Entry::new(&plugin.name, plugin.kind, file, sha256));
        }
        for found in registry::list(dirs) {
            let kind =
                if found.kind == PluginKind::Sink.as_str() { PluginKind::Sink } else { PluginKind::Driver };
            let entry = || Entry::new(&found.name, kind, Ok(found.path.clone()), None);
            entries.entry(key(kind, &found.name)).or_insert_with(entry);
        }
        Self { launcher, stage, entries }
    }

    /// The endpoint of a connection, or why there is none; `None` where the plugin cannot be asked at all.
    #[must_use]
    pub fn ask_endpoint(&self, driver: &str, connection: &Json) -> Option<Result<Endpoint, String>> {
        let examined = self.examine(PluginKind::Driver, driver)?.as_ref().ok()?;
        let mut probe = examined.probe.lock().unwrap_or_else(PoisonError::into_inner);
        Some(probe.endpoint(connection).map_err(|error| error.to_string()))
    }

    /// Accepted versions, by [`crate::edge::upgrade::active::key`]: their private copies are used, whatever lies in the
    /// directories. Where a copy is not good any more the deployed file is used, and the log says so.
    #[must_use]
    pub fn with_copies(mut self, copies: &BTreeMap<String, String>) -> Self {
        for entry in self.entries.values_mut() {
            entry.copy = copies.get(&active::key(entry.kind, &entry.name)).cloned();
        }
        self
    }

    /// Probes the plugins of `configured`, several at the same time.
    pub fn examine_all(&self, configured: &[model::Plugin]) {
        self.examine_in_parallel(configured.iter().map(|plugin| (plugin.kind, plugin.name.as_str())));
    }

    fn examine_in_parallel<'a>(&self, plugins: impl Iterator<Item = (PluginKind, &'a str)> + Send) {
        let queue = Mutex::new(plugins);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| {
                    while let Some((kind, name)) = next() {
                        self.examine(kind, name);
                    }
                });
            }
        });
    }

    /// What each plugin of a site came to, in its order. The probe children end.
    #[must_use]
    pub fn probed(mut self, plugins: &[model::Plugin]) -> Vec<Result<Probed, String>> {
        self.examine_all(plugins);
        let probed = |plugin: &model::Plugin| match self.entries.remove(&key(plugin.kind, &plugin.name)) {
            Some(entry) => entry.finish().map_err(|error| error.to_string()),
            None => Err(format!("{}: not found in the plugin directories", plugin.name)),
        };
        plugins.iter().map(probed).collect()
    }

    /// One report per plugin, configured or not. The probe children end.
    #[must_use]
    pub fn reports(self, configured: &[model::Plugin]) -> Vec<Report> {
        self.examine_in_parallel(self.entries.values().map(|entry| (entry.kind, entry.name.as_str())));
        self.entries
            .into_values()
            .map(|entry| {
                let file = entry.file.clone().unwrap_or_default();
                let mut report = Report::declared(entry.name.clone(), entry.kind, file);
                let model =
                    configured.iter().find(|plugin| plugin.kind == entry.kind && plugin.name == entry.name);
                if model.is_some_and(|plugin| plugin.isolation == model::Isolation::Process) {
                    report.isolation = busbar_loader::Isolation::Process;
                }
                match entry.finish() {
                    Ok(probed) => report.probed(&probed),
                    Err(error) => report.failed(&error),
                }
            })
            .collect()
    }

    fn examine(&self, kind: PluginKind, name: &str) -> Option<&Result<Examined, LoadError>> {
        let entry = self.entries.get(&key(kind, name))?;
        Some(entry.examined.get_or_init(|| self.probe(entry, name)))
    }

    fn probe(&self, entry: &Entry, name: &str) -> Result<Examined, LoadError> {
        let staged = self.staged(entry, name)?;
        let file = staged.source.clone();
        let expect = Expect { kind: Some(entry.kind), name: None };
        let probe = Probe::start(&self.launcher, &staged, expect)?;
        let describe = probe
            .describe()
            .cloned()
            .ok_or_else(|| LoadError::new(busbar_loader::Step::Probe, &file, "has no description"))?;
        if registry::file_name(entry.kind, &describe.name) != registry::file_name(entry.kind, name) {
            let text = format!("expected plugin {name}, found {}; check path and name", describe.name);
            return Err(LoadError::new(busbar_loader::Step::Probe, &file, text));
        }
        Ok(Examined { describe, probe: Mutex::new(probe) })
    }

    fn staged(&self, entry: &Entry, name: &str) -> Result<Staged, LoadError> {
        if let Some(sha256) = &entry.copy {
            let shown = entry.file.clone().unwrap_or_else(|_| registry::file_name(entry.kind, name).into());
            match stage::staged_copy(self.stage.path(), name, sha256, &shown) {
                Ok(staged) => return Ok(staged),
                Err(error) => {
                    tracing::error!(
                        plugin = name,
                        "the accepted version cannot be used, the deployed file is tried: {error}"
                    );
                }
            }
        }
        stage(self.stage.path(), name, &entry.file.clone()?, entry.sha256.as_deref())
    }
}

impl Entry {
    fn new(name: &str, kind: PluginKind, file: Result<PathBuf, LoadError>, sha256: Option<String>) -> Self {
        Self { name: name.to_owned(), kind, file, sha256, copy: None, examined: OnceLock::new() }
    }

    fn finish(self) -> Result<Probed, LoadError> {
        match self.examined.into_inner() {
            Some(examined) => examined?.finish(),
            None => {
                Err(LoadError::general(busbar_loader::Step::Probe, format!("{}: not examined", self.name)))
            }
        }
    }
}

impl PluginInfo for Catalog {
    fn describe(&self, kind: PluginKind, name: &str) -> Option<&Describe> {
        self.examine(kind, name)?.as_ref().ok().map(|examined| &examined.describe)
    }

    fn check(&self, kind: PluginKind, name: &str, input: &CheckInput) -> Result<Vec<Problem>, String> {
        match self.examine(kind, name) {
            Some(Ok(examined)) => {
                let mut probe = examined.probe.lock().unwrap_or_else(PoisonError::into_inner);
                probe.check(input).map_err(|error| error.to_string())
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("{name}: not found in the plugin directories")),
        }
    }

    fn endpoint(&self, driver: &str, connection: &Json) -> Option<Endpoint> {
        let examined = self.examine(PluginKind::Driver, driver)?.as_ref().ok()?;
        examined.probe.lock().unwrap_or_else(PoisonError::into_inner).endpoint(connection).ok()
    }

    fn why_absent(&self, kind: PluginKind, name: &str) -> Option<String> {
        let refused = self.examine(kind, name)?.as_ref().err()?;
        // Where there is no file at all, the list of those there are says more.
        self.entries.get(&key(kind, name))?.file.as_ref().ok()?;
        Some(refused.to_string())
    }

    fn names(&self, kind: PluginKind) -> Vec<String> {
        let there = self.entries.values().filter(|entry| entry.kind == kind && entry.file.is_ok());
        there.map(|entry| entry.name.clone()).collect()
    }
}

/// Where private copies of plugins are kept.
#[derive(Debug)]
pub struct StageDir {
    path: PathBuf,
    temporary: bool,
}

impl StageDir {
    /// The one of a host that runs, or works directly.
    #[must_use]
    pub fn of_host(host: &HostSettings) -> Self {
        let path = host.stage_dir.clone().unwrap_or_else(|| host.data_dir.join("plugins"));
        Self { path, temporary: false }
    }

    /// For a mere look: leaves nothing behind, and needs no right to write into `data_dir`. Where code cannot be
    /// loaded from temporary files (noexec), the host's own directory is used.
    #[must_use]
    pub fn for_a_look(host: &HostSettings) -> Self {
        let path = std::env::temp_dir().join(format!("busbar-look-{}", std::process::id()));
        // The name can be guessed, so it must be ours: creating fails when somebody else made it first.
        if fs::DirBuilder::new().mode(0o700).create(&path).is_err() {
            return Self::of_host(host);
        }
        let temporary = Self { path, temporary: true };
        if stage::check_stage_dir(temporary.path()).is_err() {
            return Self::of_host(host);
        }
        temporary
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StageDir {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
