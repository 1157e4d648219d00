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

use busbar_config::{HostSettings, Loaded};
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
    cli::{Prepared, prepare_as_running},
    edge::{CoreHandle, NewConfig, place_queues, upgrade::Board},
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
    files: Vec<PathBuf>,
}

/// A configuration without errors.
struct Checked {
    site: Site,
    probed: Vec<Result<Probed, String>>,
    endpoints: BTreeMap<String, Result<Endpoint, String>>,
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
        files: Vec<PathBuf>,
    ) -> Self {
        Self { config, core, host, wishes, files }
    }

    /// Never ends.
    pub(crate) async fn serve(mut self, notifier: &Notifier) {
        let mut seen = fingerprint(&self.files);
        let mut changing: Option<Fingerprint> = None;
        loop {
            let wish = tokio::select! {
                wish = self.wishes.recv() => wish,
                () = tokio::time::sleep(WATCH_EVERY), if self.host.watch_config => None,
            };
            match wish {
                Some(wish) => {
                    let answer = self.reload(wish.dry_run, wish.origin, notifier).await;
                    // Whoever asked may be gone.
                    let _ = wish.answer.send(answer);
                    seen = fingerprint(&self.files);
                }
                None if self.host.watch_config => {
                    let now = fingerprint(&self.files);
                    // Only when nothing moved since the last look: an editor may still be writing.
                    // Nor while an upgrade would have it refused: it is looked at again after it.
                    let free = upgrading(&self.core.board()).is_none();
                    if free && now != seen && changing.as_ref() == Some(&now) {
                        tracing::info!("a file of the configuration changed: reloading");
                        let origin = Origin { sink: "watch_config".into(), ..Origin::default() };
                        let _ = self.reload(false, origin, notifier).await;
                        seen = fingerprint(&self.files);
                        changing = None;
                    } else {
                        changing = (now != seen).then_some(now);
                    }
                }
                // Nobody can wish any more: the host ends.
                None => std::future::pending::<()>().await,
            }
        }
    }

    async fn reload(&mut self, dry_run: bool, origin: Origin, notifier: &Notifier) -> Answer {
        if dry_run {
            return self.compare().await;
        }
        notifier.reloading();
        let answer = self.apply(origin).await;
        notifier.send("READY=1");
        tell(&answer);
        answer
    }

    /// Reads and checks the files on a thread of its own.
    async fn read(&self) -> Result<Read, String> {
        let config = self.config.clone();
        let data_dir = self.host.data_dir.clone();
        let task = tokio::task::spawn_blocking(move || read(&config, &data_dir));
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
            match self.core.query(move |core, _| Difference::of(&core.configured(), &site)).await {
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
        let Some(Checked { site, probed, endpoints }) = checked else { return answer };
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
            Ok(Some(Reply::Reload(summary))) => self.accepted(*summary, &loaded, host, &mut answer),
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
            self.host.watch_config = host.watch_config;
            self.files = good::files(loaded);
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

fn read(config: &Path, data_dir: &Path) -> Read {
    let Prepared { mut loaded, catalog, .. } = prepare_as_running(config);
    let host = loaded.host.clone();
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
    Read { loaded, host, checked: Some(Checked { site, probed, endpoints }) }
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

/// Keys of the process around the core that differ: they wait for a restart.
fn restart_keys(old: &HostSettings, new: &HostSettings) -> Vec<String> {
    [
        ("host.data_dir", old.data_dir != new.data_dir),
        ("host.plugin_dirs", old.plugin_dirs != new.plugin_dirs),
        ("host.stage_dir", old.stage_dir != new.stage_dir),
        ("host.log.format", old.log.format != new.log.format),
        ("host.log.file", old.log.file != new.log.file),
        ("host.admin", old.admin != new.admin),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key.to_owned())
    .collect()
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

/// What tells that files changed: their times and sizes, and those of their folders (new files of an include).
type Fingerprint = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let mut paths: Vec<PathBuf> = files.to_vec();
    paths.extend(files.iter().skip(1).filter_map(|file| file.parent().map(Path::to_owned)));
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| {
            let meta = std::fs::metadata(&path).ok();
            let mark = meta.and_then(|meta| Some((meta.modified().ok()?, meta.len())));
            (path, mark)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::upgrade::Trial;

    #[test]
    fn a_changed_file_and_a_new_neighbour_show() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf.d");
        std::fs::create_dir(&conf).unwrap();
        let files = [dir.path().join("plugins.toml"), conf.join("a.toml")];
        for file in &files {
            std::fs::write(file, "x").unwrap();
        }
        let first = fingerprint(&files);
        assert_eq!(fingerprint(&files), first);
        std::fs::write(&files[0], "xy").unwrap();
        let second = fingerprint(&files);
        assert_ne!(second, first);
        std::fs::write(conf.join("b.toml"), "z").unwrap();
        assert_ne!(fingerprint(&files), second);
    }

    #[test]
    fn a_reload_waits_for_the_end_of_an_upgrade() {
        let board = Board::default();
        assert_eq!(upgrading(&board), None);
        board.edit("driver/modbus", |shown| shown.trial = Some(Trial::default()));
        let text = upgrading(&board).unwrap();
        assert!(text.contains("driver/modbus") && text.contains("again"), "{text}");
        board.edit("driver/modbus", |shown| shown.trial = None);
        assert_eq!(upgrading(&board), None);
    }

    #[test]
    fn keys_of_the_process_are_named() {
        let old = HostSettings::default();
        let new = HostSettings { data_dir: "x".into(), watch_config: true, ..HostSettings::default() };
        assert_eq!(restart_keys(&old, &new), ["host.data_dir"]);
    }
}
