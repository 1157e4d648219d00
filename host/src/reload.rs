//! A new configuration for the running gateway: `busbar reload`, SIGHUP, or a changed file (`[host] watch_config`).
//!
//! ```text
//!  files --read, check with the plugins--> Site --core thread--> applied, or rolled back
//!          any error: nothing is applied, all problems are told
//! ```
//!
//! One reload at a time, on a thread of its own, because probing plugins takes its time. The last configuration that was
//! accepted is kept in `data_dir/config` (see `good`): a host that is started with a bad file refuses (G11), and says in
//! which files it differs from the one that ran.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use busbar_config::{HostSettings, Loaded, Log, Sources};
use busbar_contract::{Endpoint, Origin};
use busbar_core::{
    model::Site,
    output::Reply,
    reload::{Difference, Outcome, Summary},
};
use busbar_loader::Probed;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::{mpsc, oneshot};

use crate::{
    cli::{Prepared, prepare_reload},
    edge::{
        CoreHandle, NewConfig, place_queues,
        upgrade::{Board, Reloaded, Runs},
    },
    good, logging,
    notify::Notifier,
};

/// How often the files are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Reloads that wait while one runs; a further one is refused.
pub(crate) const MAX_WAITING: usize = 4;
/// What the core may take beyond its own time limit before its answer is given up.
const GRACE: Duration = Duration::from_secs(30);

/// Somebody wants a reload.
pub(crate) struct Wish {
    /// Only show what differs.
    pub(crate) dry_run: bool,
    pub(crate) origin: Origin,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The configuration in the files is in force, or would be.
    pub ok: bool,
    /// Only asked.
    #[serde(default)]
    pub dry_run: bool,
    /// Problems of the files, errors and warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Json>,
    /// The problems for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// How it ended: `unchanged`, `applied`, `rolled_back`, and what differs.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub summary: Json,
    /// Why it could not be tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Serves reloads for as long as the host runs.
pub(crate) struct Reloader {
    config: PathBuf,
    core: CoreHandle,
    /// What the process around the core runs with.
    host: HostSettings,
    wishes: mpsc::Receiver<Wish>,
    files: Watched,
}

/// What happens next.
enum Next {
    Wish(Wish),
    Look,
    /// Nobody can wish any more: the host ends.
    Closed,
}

/// A configuration without errors.
struct Checked {
    site: Site,
    probed: Vec<Result<Probed, String>>,
    endpoints: BTreeMap<String, Result<Endpoint, String>>,
    copies: BTreeMap<String, String>,
}

/// A configuration from the files.
struct Read {
    loaded: Loaded,
    host: HostSettings,
    /// `None` with errors.
    checked: Option<Checked>,
}

impl Reloader {
    pub(crate) fn new(
        config: PathBuf,
        core: CoreHandle,
        host: HostSettings,
        wishes: mpsc::Receiver<Wish>,
        files: Watched,
    ) -> Self {
        Self { config, core, host, wishes, files }
    }

    /// Never ends.
    pub(crate) async fn serve(mut self, notifier: &Notifier) {
        let mut seen = self.files.fingerprint();
        let mut changing: Option<Fingerprint> = None;
        loop {
            match next(&mut self.wishes, self.host.watch_config).await {
                Next::Wish(Wish { dry_run: true, answer, .. }) => {
                    // Whoever asked may be gone.
                    let _ = answer.send(self.compare().await);
                }
                Next::Wish(Wish { origin, answer, .. }) => {
                    let (done, now) = self.reload_seen(origin, notifier).await;
                    (seen, changing) = (now.unwrap_or(seen), None);
                    let _ = answer.send(done);
                }
                Next::Look => {
                    let now = self.files.fingerprint();
                    // Only when nothing moved since the last look: an editor may still be writing.
                    // Nor while an upgrade would have it refused: it is looked at again after it.
                    let free = upgrading(&self.core.board()).is_none();
                    if free && now != seen && changing.as_ref() == Some(&now) {
                        tracing::info!("a file of the configuration changed: reloading");
                        let origin = Origin { sink: "watch_config".into(), ..Origin::default() };
                        let (_, now) = self.reload_seen(origin, notifier).await;
                        (seen, changing) = (now.unwrap_or(seen), None);
                    } else {
                        changing = (now != seen).then_some(now);
                    }
                }
                Next::Closed => std::future::pending::<()>().await,
            }
        }
    }

    /// Reloads; with the answer what was seen of the files, unless it could not even be tried. A file that is written while
    /// they are read shows at the next look.
    async fn reload_seen(&mut self, origin: Origin, notifier: &Notifier) -> (Answer, Option<Fingerprint>) {
        let (files, before) = (self.files.clone(), self.files.fingerprint());
        notifier.reloading();
        let answer = self.apply(origin).await;
        notifier.send("READY=1");
        tell(&answer);
        let seen = if self.files == files { before } else { self.files.fingerprint() };
        let tried = answer.error.is_empty();
        (answer, tried.then_some(seen))
    }

    /// Reads and checks the files on a thread of its own.
    async fn read(&self) -> Result<Read, String> {
        let config = self.config.clone();
        let host = self.host.clone();
        let task = tokio::task::spawn_blocking(move || read(&config, &host));
        task.await.map_err(|_| "the check of the configuration ended by a bug of Busbar".to_owned())
    }

    async fn compare(&self) -> Answer {
        let read = match self.read().await {
            Ok(read) => read,
            Err(error) => return Answer { error, dry_run: true, ..Answer::default() },
        };
        let mut answer = problems(&read.loaded);
        answer.dry_run = true;
        if let Some(Checked { site, .. }) = read.checked {
            match self.core.query(move |core, _| core.difference(&site)).await {
                Ok(mut difference) => {
                    difference.needs_restart.extend(restart_keys(&self.host, &read.host));
                    answer.summary = serde_json::to_value(difference).unwrap_or_default();
                    answer.ok = true;
                }
                Err(error) => answer.error = error.to_string(),
            }
        }
        answer
    }

    async fn apply(&mut self, origin: Origin) -> Answer {
        if let Some(error) = upgrading(&self.core.board()) {
            return Answer { error, ..Answer::default() };
        }
        let read = match self.read().await {
            Ok(read) => read,
            Err(error) => return Answer { error, ..Answer::default() },
        };
        let mut answer = problems(&read.loaded);
        let Read { loaded, host, checked } = read;
        // Also when they are refused: what is mended next may be a file that only these name.
        self.files = Watched::of(&loaded.sources);
        let Some(Checked { site, probed, endpoints, copies }) = checked else { return answer };
        let runs = running(&site, &probed);
        let limit = site.host.reload_timeout + GRACE;
        // One may have begun meanwhile. One that begins from here on meets the reload in the core and waits for it.
        if let Some(error) = upgrading(&self.core.board()) {
            answer.error = error;
            return answer;
        }
        let reply = match self.core.reload(NewConfig { site, probed, endpoints, origin }) {
            Ok(mut replies) => tokio::time::timeout(limit, replies.next()).await,
            Err(error) => {
                answer.error = error.to_string();
                return answer;
            }
        };
        match reply {
            Ok(Some(Reply::Reload(summary))) => {
                if summary.outcome != Outcome::RolledBack {
                    let brought = brought(&summary.difference, runs);
                    let (watch, timeout) = (host.watch_plugins, host.upgrade_timeout);
                    self.core.tell_upgrades(Reloaded { watch, timeout, brought, copies });
                }
                self.accepted(*summary, &loaded, host, &mut answer);
            }
            Ok(Some(Reply::Failed(text))) => answer.error = text,
            Ok(_) => answer.error = "the host is stopping".to_owned(),
            Err(_) => answer.error = format!("the core did not decide within {} s", limit.as_secs()),
        }
        answer
    }

    fn accepted(&mut self, mut summary: Summary, loaded: &Loaded, host: HostSettings, answer: &mut Answer) {
        answer.ok = summary.outcome != Outcome::RolledBack;
        if answer.ok {
            summary.difference.needs_restart.extend(restart_keys(&self.host, &host));
            if self.host.log.level != host.log.level {
                self.set_level(&host, &mut summary);
            }
            let words = take_over(&mut self.host, &host);
            if !words.is_empty() && summary.outcome == Outcome::Unchanged {
                summary.outcome = Outcome::Applied;
            }
            summary.notes.extend(words);
            if let Err(error) = good::keep(&self.host.data_dir, loaded) {
                summary.notes.push(format!("the accepted configuration could not be kept: {error}"));
            }
        }
        answer.summary = serde_json::to_value(summary).unwrap_or_default();
    }

    fn set_level(&mut self, host: &HostSettings, summary: &mut Summary) {
        let level = host.log.level.as_str();
        match logging::set_level(level) {
            Ok(()) => {
                self.host.log.level = host.log.level;
                self.core.set_log_level(level);
                summary.notes.push(format!("log level: {level}"));
                if summary.outcome == Outcome::Unchanged {
                    summary.outcome = Outcome::Applied;
                }
            }
            Err(error) => summary.notes.push(format!("the log level could not be changed: {error}")),
        }
    }
}

async fn next(wishes: &mut mpsc::Receiver<Wish>, watch: bool) -> Next {
    tokio::select! {
        wish = wishes.recv() => wish.map_or(Next::Closed, Next::Wish),
        () = tokio::time::sleep(WATCH_EVERY), if watch => Next::Look,
    }
}

/// `host` is what runs: the folders of the process do not change before a restart.
fn read(config: &Path, host: &HostSettings) -> Read {
    let Prepared { mut loaded, catalog, beginning } = prepare_reload(config, host);
    let (data_dir, host) = (&host.data_dir, loaded.host.clone());
    let Some(mut site) = loaded.site.take() else { return Read { loaded, host, checked: None } };
    let endpoints = site
        .devices
        .iter()
        .filter_map(|device| {
            Some((device.name.clone(), catalog.ask_endpoint(&device.driver, &device.connection)?))
        })
        .collect();
    let probed = catalog.probed(&site.plugins);
    place_queues(&mut site, &probed, data_dir);
    let checked = Checked { site, probed, endpoints, copies: beginning.copies };
    Read { loaded, host, checked: Some(checked) }
}

/// What would run of each plugin that can be loaded, with its name in a [`Difference`].
fn running(site: &Site, probed: &[Result<Probed, String>]) -> Vec<(String, Runs)> {
    let plugins = site.plugins.iter().zip(probed);
    plugins
        .filter_map(|(plugin, probed)| {
            Some((Difference::plugin_word(plugin), Runs::of(plugin, probed.as_ref().ok()?)))
        })
        .collect()
}

/// Those that were loaded by the reload.
fn brought(difference: &Difference, runs: Vec<(String, Runs)>) -> Vec<Runs> {
    let added = |(word, _): &(String, Runs)| difference.plugins_added.contains(word);
    runs.into_iter().filter(added).map(|(_, runs)| runs).collect()
}

/// An upgrade is under way. Between two of its hand-overs the core knows of none, so it is asked here.
fn upgrading(board: &Board) -> Option<String> {
    board
        .upgrading()
        .map(|plugin| format!("an upgrade of {plugin} is running; try the reload again when it is over"))
}

fn problems(loaded: &Loaded) -> Answer {
    let problems = loaded.problems.iter().filter_map(|problem| serde_json::to_value(problem).ok()).collect();
    Answer { problems, text: loaded.render(false), ..Answer::default() }
}

/// Keys of the process around the core that differ: they wait for a restart. Every key is named here or in [`take_over`];
/// those of the core are in [`Difference`].
fn restart_keys(old: &HostSettings, new: &HostSettings) -> Vec<String> {
    let HostSettings {
        data_dir,
        plugin_dirs,
        stage_dir,
        log: Log { level: _, format, file },
        admin,
        upgrade_timeout: _,
        watch_plugins: _,
        watch_config: _,
    } = new;
    [
        ("host.data_dir", old.data_dir != *data_dir),
        ("host.plugin_dirs", old.plugin_dirs != *plugin_dirs),
        ("host.stage_dir", old.stage_dir != *stage_dir),
        ("host.log.format", old.log.format != *format),
        ("host.log.file", old.log.file != *file),
        ("host.admin", old.admin != *admin),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key.to_owned())
    .collect()
}

/// What applies at once; the words for it. The log level is switched apart, because that can fail.
fn take_over(host: &mut HostSettings, new: &HostSettings) -> Vec<String> {
    let mut words = Vec::new();
    if host.watch_config != new.watch_config {
        words.push(format!("watch_config: {}", new.watch_config));
    }
    if host.watch_plugins != new.watch_plugins {
        words.push(format!("watch_plugins: {}", new.watch_plugins));
    }
    if host.upgrade_timeout != new.upgrade_timeout {
        words.push(format!("upgrade_timeout: {} s", new.upgrade_timeout.as_secs_f64()));
    }
    host.watch_config = new.watch_config;
    host.watch_plugins = new.watch_plugins;
    host.upgrade_timeout = new.upgrade_timeout;
    words
}

/// For the log: a reload by signal or by a changed file has nobody who waits for the answer.
fn tell(answer: &Answer) {
    let reason = answer.summary.get("reason").and_then(Json::as_str).unwrap_or_default();
    if !answer.error.is_empty() {
        tracing::error!("reload: {}; the running configuration stays", answer.error);
    } else if !reason.is_empty() {
        tracing::error!("reload: rolled back: {reason}");
    } else if answer.ok {
        let outcome = answer.summary.get("outcome").and_then(Json::as_str).unwrap_or_default();
        let waits = answer.summary.get("needs_restart").map(Json::to_string).unwrap_or_default();
        if waits.is_empty() {
            tracing::info!(outcome, "reload");
        } else {
            tracing::warn!(outcome, needs_restart = waits, "reload: some keys wait for a restart");
        }
    } else {
        tracing::error!("reload: the configuration has errors; nothing was applied\n{}", answer.text);
    }
}

/// What the configuration was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    files: Vec<PathBuf>,
    /// Where a further file would be included.
    folders: Vec<PathBuf>,
}

/// What tells that files changed: their times and sizes, and those of the folders in which includes look.
type Fingerprint = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

impl Watched {
    pub(crate) fn of(sources: &Sources) -> Self {
        let files = sources.files().iter().map(|source| source.path.clone()).collect();
        Self { files, folders: sources.folders().to_vec() }
    }

    fn fingerprint(&self) -> Fingerprint {
        self.files
            .iter()
            .chain(&self.folders)
            .map(|path| {
                let meta = std::fs::metadata(path).ok();
                let mark = meta.and_then(|meta| Some((meta.modified().ok()?, meta.len())));
                (path.clone(), mark)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
