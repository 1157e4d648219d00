//! One upgrade, step by step:
//!
//! ```text
//! stage -> probe -> kind, name, protocol -> CHECK against the running configuration      nothing has moved yet
//! active.toml: trial, on disk -> worker process -> hand-over, watched for upgrade_timeout  the trial
//! in-process, if isolation says so: load -> hand-over                                     the old version still stands by
//! active.toml: accepted, on disk -> the old version ends
//! ```
//!
//! Every step that fails leaves, or brings back, the version that served before, and says why. A version that failed is
//! not tried again by itself; an operator may insist. One that could not be tried (see `failure`) is tried again later.
//! Where even the way back fails, the new version serves until the restart, and that is said, not hidden.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use busbar_core::{
    input::HandoverRequest,
    model::{self, Isolation},
};
use busbar_loader::{Expect, Probe, Probed, Staged, Step, registry, stage};
use crossbeam_channel::Receiver;

use super::{
    Reloaded, SURVIVED, Settings,
    active::{self, Active, Failed, Fresh, Record, Version},
    begin,
    board::{Board, Trial},
    bridge::{STOPPING, Serving, Way},
    check,
    failure::{Again, Failure, patiently},
    first_time,
    history::{Event, History, now},
    watch::Watch,
};

use crate::memory;

/// Private copies of a plugin that are kept beside the accepted and the previous one.
const KEPT_COPIES: usize = 3;
/// Characters of a hash that people compare.
const SHORT_HASH: usize = 12;
/// How often the list of plugins is asked for again.
const PLUGINS_EVERY: Duration = Duration::from_secs(10);
/// After the move into the host's process: some polls.
const WATCH_INSIDE: Duration = Duration::from_secs(1);
/// A hand-over that meets a reload, or another hand-over, is asked for so often, with [`BUSY_PAUSE`] between.
const BUSY_TRIES: u32 = 120;
/// See [`BUSY_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// So often an accepted version is written down before everything returns to the one before.
const WRITE_TRIES: u32 = 3;
/// Between two of them.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// Who hears of each step.
pub(super) type Say<'a> = &'a dyn Fn(&str);

/// Everything one upgrade needs.
pub(super) struct Upgrader {
    settings: Settings,
    active: Active,
    history: History,
    board: Arc<Board>,
    bridge: Box<dyn Way>,
    watch: Watch,
    again: Again,
    /// Nothing is ever sent; closed when the host ends.
    stopped: Receiver<()>,
    plugins: Vec<model::Plugin>,
    plugins_at: Option<Instant>,
    /// Promotions of which the host has not yet survived long enough: until when.
    fresh: BTreeMap<String, Instant>,
}

/// A trial that went well.
struct Good {
    plugin: usize,
    /// Why it runs elsewhere than the configuration says.
    note: String,
}

impl Upgrader {
    pub(super) fn new(
        settings: Settings,
        active: Active,
        history: History,
        board: Arc<Board>,
        bridge: Box<dyn Way>,
        stopped: Receiver<()>,
    ) -> Self {
        let until = Instant::now() + SURVIVED;
        let fresh = active
            .plugin
            .iter()
            .filter(|(_, record)| record.fresh.is_some())
            .map(|(key, _)| (key.clone(), until));
        Self {
            fresh: fresh.collect(),
            settings,
            active,
            history,
            board,
            bridge,
            watch: Watch::default(),
            again: Again::default(),
            stopped,
            plugins: Vec::new(),
            plugins_at: None,
        }
    }

    /// When something is to be looked at without being asked.
    pub(super) fn is_awake(&self) -> bool {
        self.settings.watch || !self.fresh.is_empty()
    }

    /// Another configuration is in force: what it says about upgrades, and the plugins that it brought, which are accepted
    /// as at a start.
    pub(super) fn reloaded(&mut self, news: Reloaded) {
        let Reloaded { watch, timeout, brought, copies } = news;
        (self.settings.watch, self.settings.timeout) = (watch, timeout);
        self.plugins_at = None;
        let mut accepted = false;
        for runs in &brought {
            accepted |= first_time(&mut self.active, &mut self.history, &copies, runs);
        }
        if accepted {
            if let Err(error) = self.active.write(&self.settings.data_dir) {
                tracing::error!("{error}");
            }
            self.board.show(&self.active, &self.history);
        }
    }

    /// An operator, or the watch, names a file.
    pub(super) fn try_file(
        &mut self,
        key: &str,
        file: &Path,
        who: &str,
        say: Say<'_>,
    ) -> Result<String, Failure> {
        let serving = self.bridge.serving(key).map_err(Failure::Untried)?;
        say(&format!("{who}: {}", file.display()));
        let pinned = serving.model.sha256.as_deref();
        let staged = stage(&self.settings.stage_dir, &serving.model.name, file, pinned).map_err(|error| {
            match error.step {
                // No plugin, whatever is done about the disk.
                Step::Preflight => Failure::Bad(error.to_string()),
                _ => Failure::Untried(error.to_string()),
            }
        })?;
        self.try_version(key, &serving, &staged, say)
    }

    /// An operator wants the version before.
    pub(super) fn try_previous(&mut self, key: &str, who: &str, say: Say<'_>) -> Result<String, Failure> {
        let serving = self.bridge.serving(key).map_err(Failure::Untried)?;
        let previous = self.active.plugin.get(key).and_then(|record| record.previous.clone());
        let previous = previous
            .ok_or_else(|| Failure::Bad("there is no version before the one that runs".to_owned()))?;
        let file = self.settings.stage_dir.join(&serving.model.name).join(format!("{}.so", previous.sha256));
        say(&format!("{who}: back to {} ({})", previous.version, short(&previous.sha256)));
        let pinned = serving.model.sha256.as_deref();
        let expected = pinned.unwrap_or(&previous.sha256);
        let staged =
            stage(&self.settings.stage_dir, &serving.model.name, &file, Some(expected)).map_err(|error| {
                Failure::Bad(format!("the private copy of the version before cannot be used: {error}"))
            })?;
        self.try_version(key, &serving, &staged, say)
    }

    fn try_version(
        &mut self,
        key: &str,
        serving: &Serving,
        staged: &Staged,
        say: Say<'_>,
    ) -> Result<String, Failure> {
        let record = self.active.plugin.get(key).cloned().unwrap_or_default();
        let adrift = self.board.of(key).is_some_and(|shown| shown.adrift.is_some());
        if record.accepted.sha256 == staged.sha256 && !adrift {
            let known = short(&staged.sha256);
            return Err(Failure::Bad(format!("this is the version that runs already (sha256 {known})")));
        }
        let result = self.examine_and_try(key, serving, staged, say);
        self.board.edit(key, |shown| shown.trial = None);
        // Files were read whole and runtimes came and went.
        memory::give_back();
        result
    }

    fn examine_and_try(
        &mut self,
        key: &str,
        serving: &Serving,
        staged: &Staged,
        say: Say<'_>,
    ) -> Result<String, Failure> {
        self.show_step(key, &unnamed(staged), "examined in a child process");
        let probed = match self.examine(serving, staged, say) {
            Ok(probed) => probed,
            Err(Failure::Bad(reason)) => {
                self.note_failure(key, "refused", &unnamed(staged), &reason);
                return Err(Failure::Bad(format!("refused, nothing was moved: {reason}")));
            }
            Err(failure) => {
                return Err(failure.said(|reason| format!("it could not be examined: {reason}")));
            }
        };
        let version =
            Version { sha256: staged.sha256.clone(), version: probed.describe.version.clone(), since: now() };
        self.begin_trial(key, &version)?;
        let add = |isolation| self.bridge.add(serving, &probed, isolation);
        let result = self.trial(key, serving, &version, &add, say);
        self.end_trial(key, serving, version, result, say)
    }

    /// In a child process: loads, describes itself, accepts the configuration that runs.
    fn examine(&self, serving: &Serving, staged: &Staged, say: Say<'_>) -> Result<Probed, Failure> {
        let model = &serving.model;
        let launcher = self.settings.launcher.clone().with_memory_limit(model.memory_limit);
        let expect = Expect { kind: Some(model.kind), name: None };
        let mut probe =
            Probe::start(&launcher, staged, expect).map_err(|error| Failure::of(error.to_string()))?;
        let (name, version) =
            probe.describe().map(|it| (it.name.clone(), it.version.clone())).unwrap_or_default();
        if registry::file_name(model.kind, &name) != registry::file_name(model.kind, &model.name) {
            return Err(Failure::Bad(format!("expected plugin {}, found {name}", model.name)));
        }
        say(&format!("{name} {version}, sha256 {}", short(&staged.sha256)));
        let (kind, name) = (model.kind, model.name.clone());
        let core = self.bridge.core();
        let count = core.query_blocking(move |core, _| check::count(core.site(), kind, &name));
        let count = count.map_err(|error| Failure::Untried(error.to_string()))?;
        let mut reasons = Vec::new();
        for index in 0..count {
            let name = model.name.clone();
            let subject = core
                .query_blocking(move |core, _| check::subject(core.site(), kind, &name, index))
                .map_err(|error| Failure::Untried(error.to_string()))?;
            if let Some(subject) = subject {
                check::ask(&mut probe, kind, &subject, &mut reasons);
            }
        }
        if let Some(text) = check::sentence(reasons) {
            return Err(Failure::Bad(text));
        }
        say(&format!("accepts the configuration that runs: {count} checked"));
        probe.finish().map_err(|error| Failure::Bad(error.to_string()))
    }

    fn begin_trial(&mut self, key: &str, version: &Version) -> Result<(), Failure> {
        self.record(key).trial = Some(version.clone());
        if let Err(error) = self.active.write(&self.settings.data_dir) {
            self.record(key).trial = None;
            return Err(Failure::Untried(format!("nothing was moved: {error}")));
        }
        self.history.add(Event::new(key, "trial", &version.version, &version.sha256, ""));
        self.show_step(key, version, "starts in a worker process");
        tracing::info!(
            plugin = key,
            version = version.version,
            sha256 = version.sha256,
            "upgrade: trial begins"
        );
        Ok(())
    }

    /// From the worker process to where the configuration wants it; `add` starts the version in the given place.
    fn trial(
        &self,
        key: &str,
        serving: &Serving,
        version: &Version,
        add: &dyn Fn(Isolation) -> Result<usize, String>,
        say: Say<'_>,
    ) -> Result<Good, Failure> {
        let worker = add(Isolation::Process).map_err(Failure::of)?;
        say("trial in a worker process");
        let timeout = self.settings.timeout;
        let request = request(serving.serving, worker, timeout, timeout, true);
        if let Err(reason) = self.hand_over(key, version, request, say) {
            self.bridge.retire(worker);
            return Err(Failure::of(reason));
        }
        if serving.model.isolation == Isolation::Process {
            return Ok(Good { plugin: worker, note: String::new() });
        }
        say("the trial went well; it moves into the host's process");
        let inside = match add(Isolation::InProcess) {
            Ok(inside) => inside,
            Err(reason) if reason == STOPPING => return Err(Failure::Stopping),
            Err(reason) => {
                let note = format!("it runs in a worker process: {reason}");
                say(&note);
                return Ok(Good { plugin: worker, note });
            }
        };
        let inwards = request_inwards(worker, inside, timeout);
        match self.hand_over(key, version, inwards, say) {
            Ok(()) => {
                self.bridge.retire(worker);
                Ok(Good { plugin: inside, note: String::new() })
            }
            Err(reason) => {
                let failure =
                    self.take_back(key, (worker, serving.serving), version, Failure::of(reason), say);
                self.bridge.retire(inside);
                Err(failure)
            }
        }
    }

    /// Everything returns to the version before, because of this; what came of it.
    fn take_back(
        &self,
        key: &str,
        (from, to): (usize, usize),
        version: &Version,
        failure: Failure,
        say: Say<'_>,
    ) -> Failure {
        if failure == Failure::Stopping {
            return failure;
        }
        say("everything returns to the version before");
        match self.hand_over(key, version, request_back(from, to, self.settings.timeout), say) {
            Ok(()) => {
                self.bridge.retire(from);
                failure
            }
            Err(back) if back == STOPPING => Failure::Stopping,
            Err(back) => {
                // It still works, and that is what counts until somebody looks.
                self.bridge.accepted(from);
                Failure::Adrift { reason: failure.to_string(), back }
            }
        }
    }

    fn hand_over(
        &self,
        key: &str,
        version: &Version,
        request: HandoverRequest,
        say: Say<'_>,
    ) -> Result<(), String> {
        let mut moved = |unit: &str, done: usize, total: usize| {
            let text = format!("{unit} is good ({done} of {total})");
            self.show_step(key, version, &text);
            say(&text);
            if done == total && request.watch_ms > 0 {
                say("everything moved; watched until the end of the trial");
            }
        };
        patiently(BUSY_TRIES, || self.wait(BUSY_PAUSE), || self.bridge.hand_over(request, &mut moved))
    }

    fn end_trial(
        &mut self,
        key: &str,
        serving: &Serving,
        version: Version,
        result: Result<Good, Failure>,
        say: Say<'_>,
    ) -> Result<String, Failure> {
        self.record(key).trial = None;
        let result = result.and_then(|good| self.accept(key, serving, &version, &good, say));
        let before = self.record(key).accepted.version.clone();
        let Err(failure) = result else { return result };
        match &failure {
            Failure::Stopping | Failure::Untried(_) => {
                let reason = failure.to_string();
                self.history.add(Event::new(key, "interrupted", &version.version, &version.sha256, &reason));
                self.save(key);
            }
            Failure::Bad(reason) => {
                self.note_failure(key, "taken_back", &version, reason);
                tracing::error!(plugin = key, version = version.version, "upgrade taken back: {reason}");
            }
            Failure::Adrift { .. } => return Err(self.note_adrift(key, &version, &failure)),
        }
        Err(match failure {
            Failure::Untried(_) => failure
                .said(|reason| format!("it could not be tried to the end, version {before} runs: {reason}")),
            failure => failure.said(|reason| format!("taken back, version {before} runs: {reason}")),
        })
    }

    /// The new version serves although it failed.
    fn note_adrift(&mut self, key: &str, version: &Version, failure: &Failure) -> Failure {
        let reason = failure.to_string();
        self.note_failure(key, "not_taken_back", version, &reason);
        let failed = self.record(key).failed.last().cloned();
        self.board.edit(key, |shown| shown.adrift = failed);
        tracing::error!(
            plugin = key,
            version = version.version,
            "upgrade failed and could not be taken back; the new version runs until the restart: {reason}"
        );
        let name = &version.version;
        Failure::Bad(format!("version {name} failed but runs until the restart of the gateway: {reason}"))
    }

    /// The version before ends only when the new one is accepted on disk: the next start goes by what is there.
    fn accept(
        &mut self,
        key: &str,
        serving: &Serving,
        version: &Version,
        good: &Good,
        say: Say<'_>,
    ) -> Result<String, Failure> {
        let before = self.record(key).clone();
        let record = self.record(key);
        record.accept(version.clone());
        record.fresh = Some(Fresh { deaths: 0, running: true });
        if let Err(error) = self.write_insisting() {
            *self.record(key) = before;
            let places = (good.plugin, serving.serving);
            return Err(self.take_back(key, places, version, Failure::Untried(error), say));
        }
        say("accepted");
        self.history.add(Event::new(key, "accepted", &version.version, &version.sha256, &good.note));
        tracing::info!(plugin = key, version = version.version, sha256 = version.sha256, "upgrade accepted");
        if !good.note.is_empty() {
            tracing::warn!(plugin = key, "{}", good.note);
        }
        self.fresh.insert(key.to_owned(), Instant::now() + SURVIVED);
        self.board.edit(key, |shown| {
            shown.note.clone_from(&good.note);
            shown.adrift = None;
        });
        self.show(key);
        self.bridge.accepted(good.plugin);
        self.bridge.retire(serving.serving);
        self.clean_up(&serving.model.name);
        let text = format!("version {} runs (sha256 {})", version.version, short(&version.sha256));
        Ok(if good.note.is_empty() { text } else { format!("{text}; {}", good.note) })
    }

    /// False at once when the host ends.
    fn wait(&self, pause: Duration) -> bool {
        self.stopped.recv_timeout(pause).is_err_and(|error| error.is_timeout())
    }

    fn write_insisting(&self) -> Result<(), String> {
        let mut left = WRITE_TRIES;
        loop {
            left = left.saturating_sub(1);
            match self.active.write(&self.settings.data_dir) {
                Err(error) if left > 0 && self.wait(WRITE_PAUSE) => {
                    tracing::warn!("{error}; tried again");
                }
                result => return result,
            }
        }
    }

    fn note_failure(&mut self, key: &str, event: &str, version: &Version, reason: &str) {
        self.history.add(Event::new(key, event, &version.version, &version.sha256, reason));
        let failed = Failed {
            sha256: version.sha256.clone(),
            version: version.version.clone(),
            since: now(),
            reason: reason.to_owned(),
        };
        self.record(key).remember(failed);
        self.save(key);
    }

    fn record(&mut self, key: &str) -> &mut Record {
        self.active.plugin.entry(key.to_owned()).or_default()
    }

    /// To disk and to the board; a disk that does not take it is logged: the next start then goes by what is on it.
    fn save(&self, key: &str) {
        if let Err(error) = self.active.write(&self.settings.data_dir) {
            tracing::error!("{error}");
        }
        self.show(key);
    }

    fn show(&self, key: &str) {
        self.board.edit(key, |shown| shown.trial = None);
        self.board.show(&self.active, &self.history);
    }

    fn show_step(&self, key: &str, version: &Version, step: &str) {
        self.board.edit(key, |shown| {
            shown.trial = Some(Trial {
                sha256: version.sha256.clone(),
                version: version.version.clone(),
                since: version.since.clone(),
                step: step.to_owned(),
            });
        });
    }

    /// Looks at the deployed files; tries what is new. A version that failed, and one that was dealt with, are left alone.
    pub(super) fn look(&mut self) {
        self.look_at_fresh();
        if !self.settings.watch {
            return;
        }
        if self.plugins_at.is_none_or(|at| at.elapsed() >= PLUGINS_EVERY)
            && let Ok(plugins) = self.bridge.core().query_blocking(|core, _| {
                let views = core.plugins();
                views.iter().filter_map(|view| core.site().plugins.get(view.base).cloned()).collect()
            })
        {
            self.plugins = plugins;
            self.plugins_at = Some(Instant::now());
        }
        for plugin in self.plugins.clone() {
            let path = plugin.path.as_deref().map(Path::new);
            let Ok(file) = registry::find(&self.settings.plugin_dirs, plugin.kind, &plugin.name, path) else {
                continue;
            };
            let key = active::key(plugin.kind, &plugin.name);
            if self.again.is_due(&key, Instant::now()) {
                self.watch.again(&key);
            }
            if self.watch.changed(&key, &file, SystemTime::now()) {
                self.deployed(&key, &file);
            }
        }
    }

    fn deployed(&mut self, key: &str, file: &Path) {
        let sha256 = match stage::read_plugin(file) {
            Ok(bytes) => stage::sha256_hex(&bytes),
            Err(error) => return self.put_off(key, &format!("a new file cannot be used: {error}")),
        };
        let record = self.record(key).clone();
        if record.deployed == sha256 && !record.has_failed(&sha256) {
            return;
        }
        if record.accepted.sha256 != sha256 {
            if record.has_failed(&sha256) {
                tracing::warn!(
                    plugin = key,
                    "{} failed before and is not tried again; `busbar plugin upgrade` insists",
                    file.display()
                );
            } else {
                tracing::info!(plugin = key, sha256, "a new file: {}", file.display());
                let result = self.try_file(key, file, "a new file", &|text| {
                    tracing::info!(plugin = key, "upgrade: {text}")
                });
                match result {
                    Err(Failure::Stopping) => return,
                    Err(Failure::Untried(reason)) => return self.put_off(key, &reason),
                    Err(failure) => tracing::error!(plugin = key, "upgrade: {failure}"),
                    Ok(text) => tracing::info!(plugin = key, "upgrade: {text}"),
                }
            }
        }
        self.again.forget(key);
        self.record(key).deployed = sha256;
        self.save(key);
    }

    /// A file that could not be tried is no news that was dealt with.
    fn put_off(&mut self, key: &str, reason: &str) {
        let pause = self.again.later(key, Instant::now()).as_secs();
        tracing::warn!(plugin = key, "upgrade: {reason}; the file is tried again in {pause} s");
    }

    fn look_at_fresh(&mut self) {
        let now = Instant::now();
        let over: Vec<String> =
            self.fresh.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.fresh.remove(&key);
            self.record(&key).fresh = None;
            self.save(&key);
        }
    }

    /// Copies that nobody needs any more go: all but the accepted, the previous and the newest few.
    fn clean_up(&self, name: &str) {
        let same = |key: &str| key.split_once('/').is_some_and(|(_, of)| of == name.replace('-', "_"));
        let records = self.active.plugin.iter().filter(|(key, _)| same(key)).map(|(_, record)| record);
        let needed: Vec<String> = records
            .flat_map(|record| {
                let previous = record.previous.as_ref().map(|version| version.sha256.clone());
                [Some(record.accepted.sha256.clone()), previous].into_iter().flatten()
            })
            .collect();
        let Ok(entries) = fs::read_dir(self.settings.stage_dir.join(name)) else { return };
        let mut others: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
            .filter(|path| {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                !needed.contains(&stem)
            })
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        others.sort();
        let more = others.len().saturating_sub(KEPT_COPIES);
        for (_, path) in others.into_iter().take(more) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("{} could not be removed: {error}", path.display());
            }
        }
    }

    /// The host ends in order: that is no death of a fresh promotion.
    pub(super) fn end(&mut self) {
        if begin::orderly_end(&mut self.active)
            && let Err(error) = self.active.write(&self.settings.data_dir)
        {
            tracing::error!("{error}");
        }
    }
}

fn request(from: usize, to: usize, timeout: Duration, watch: Duration, rehearse: bool) -> HandoverRequest {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    HandoverRequest { id: 0, from, to, timeout_ms: ms(timeout), watch_ms: ms(watch), rehearse }
}

/// The stop was exercised in the worker.
fn request_inwards(from: usize, to: usize, timeout: Duration) -> HandoverRequest {
    request(from, to, timeout, WATCH_INSIDE, false)
}

fn request_back(from: usize, to: usize, timeout: Duration) -> HandoverRequest {
    request(from, to, timeout, Duration::ZERO, false)
}

fn unnamed(staged: &Staged) -> Version {
    Version { sha256: staged.sha256.clone(), version: String::new(), since: now() }
}

fn short(sha256: &str) -> &str {
    sha256.get(..SHORT_HASH).unwrap_or(sha256)
}

#[cfg(test)]
mod tests;
