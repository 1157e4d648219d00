//! Plugins from the edge's side: loading, restarting, giving up. All of it on helper threads, so a plugin that hangs
//! in `init` or `open` keeps nobody waiting (G6), and all plugins load at the same time.
//!
//! A worker process that dies is started again after a pause that doubles; after [`MAX_CRASHES`] deaths within
//! [`CRASH_WINDOW`] it stays failed until an operator starts it again (`busbar plugin restart`). A plugin in the host's own process is never started
//! twice: what makes it fail (a hang, a refused start) would stay in the process.

mod crashes;
mod news;
mod registry;
mod start;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use busbar_contract::{describe::Open, op};
use busbar_core::{
    Input,
    input::PluginReady,
    model::{Isolation, Plugin as PluginModel, Site},
};
use busbar_loader::{Launcher, Plugin, Probed};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value as Json;

pub(crate) use self::{
    crashes::{CRASH_WINDOW, MAX_CRASHES},
    news::News,
    registry::Registry,
};
use self::{
    crashes::{RESTART_PAUSE, after_crash},
    registry::Known,
    start::Start,
};
use super::{
    inbox::{Inbox, Item},
    names::Names,
};

/// Time for a plugin's runtime to end after its instances have stopped.
const SHUTDOWN_TIME: Duration = Duration::from_secs(1);
/// For all of them at the end, which is told them at the same time.
pub(crate) const SHUTDOWN_WAIT: Duration = SHUTDOWN_TIME.saturating_mul(2);

fn known(entry: &Entry) -> Known {
    let isolated = entry.model.isolation == Isolation::Process;
    Known {
        probed: entry.probed.clone().ok(),
        handle: None,
        memory_limit: isolated.then_some(entry.model.memory_limit),
        restarts: 0,
        last_death: None,
    }
}

/// What all plugins of this host share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) names: Arc<Names>,
    pub(crate) launcher: Launcher,
    pub(crate) log_level: String,
    pub(crate) cache_dir: PathBuf,
}

/// All plugins of the site; owned by the core thread.
pub(crate) struct Plugins {
    entries: Vec<Entry>,
    shared: Shared,
    registry: Arc<Registry>,
    /// Dropped at the end: wakes and ends restart threads.
    stop: Option<Sender<()>>,
    stopped: Receiver<()>,
}

struct Entry {
    model: PluginModel,
    probed: Result<Probed, String>,
    connections: Vec<(usize, Json)>,
    handle: Option<Arc<Plugin>>,
    /// Counts starts; news of an older one is stale.
    start: u64,
    crashes: VecDeque<Instant>,
    /// A reload left nothing that needs it.
    unloaded: bool,
    /// A version on trial: when it dies it is not started again.
    trial: bool,
}

impl Plugins {
    /// `probed` has one entry per plugin of the site.
    pub(crate) fn new(site: &Site, probed: Vec<Result<Probed, String>>, shared: Shared) -> Self {
        let mut probed = probed.into_iter();
        let missing = || Err("not examined: this is a bug of Busbar".to_owned());
        let entries: Vec<Entry> = site
            .plugins
            .iter()
            .map(|model| Entry {
                model: model.clone(),
                probed: probed.next().unwrap_or_else(missing),
                connections: connections(site, model),
                handle: None,
                start: 0,
                crashes: VecDeque::new(),
                unloaded: false,
                trial: false,
            })
            .collect();
        let known = entries.iter().map(known).collect();
        let (stop, stopped) = bounded(0);
        let registry = Arc::new(Registry(RwLock::new(known)));
        Self { entries, shared, registry, stop: Some(stop), stopped }
    }

    /// A plugin that a reload brought; `plugin` is the next number. One that ran before and was ended begins again, because
    /// its code is still in the process.
    pub(crate) fn add(
        &mut self,
        plugin: usize,
        model: PluginModel,
        probed: Result<Probed, String>,
        connections: Vec<(usize, Json)>,
    ) {
        if plugin != self.entries.len() {
            tracing::error!(plugin, "a plugin came out of turn: this is a bug of Busbar");
            return;
        }
        let sha256 = probed.as_ref().ok().map(|probed| &probed.staged.sha256);
        let ended = self.entries.iter_mut().find(|entry| {
            let same = entry.model.kind == model.kind && entry.model.name == model.name;
            entry.unloaded
                && same
                && entry.model.isolation == model.isolation
                && entry.probed.as_ref().ok().map(|probed| &probed.staged.sha256) == sha256
        });
        let handle = ended.and_then(|entry| entry.handle.take());
        let entry = Entry {
            model,
            probed,
            connections,
            handle,
            start: 0,
            crashes: VecDeque::new(),
            unloaded: false,
            trial: false,
        };
        self.registry.0.write().unwrap_or_else(PoisonError::into_inner).push(known(&entry));
        self.entries.push(entry);
        self.load(plugin, Duration::ZERO);
    }

    /// Places taken: the next plugin or version gets this number.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a driver serves from now on, for its next start.
    pub(crate) fn set_connections(&mut self, plugin: usize, connections: Vec<(usize, Json)>) {
        if let Some(entry) = self.entries.get_mut(plugin) {
            entry.connections = connections;
        }
    }

    /// Ends a plugin that nothing needs any more.
    pub(crate) fn unload(&mut self, plugin: usize) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        // News of it are stale from now on.
        entry.start += 1;
        entry.unloaded = true;
        let name = entry.model.name.clone();
        if let Some(handle) = entry.handle.clone() {
            let _ = spawn("unload", move || {
                if !handle.shutdown(SHUTDOWN_TIME) {
                    tracing::warn!(plugin = name, "its runtime did not end in time and is left behind");
                }
            });
        }
    }

    /// Log level of all plugins, now and when they start again.
    pub(crate) fn set_log_level(&mut self, level: &str) {
        level.clone_into(&mut self.shared.log_level);
        let running = self.entries.iter().filter(|entry| !entry.unloaded);
        let handles: Vec<Arc<Plugin>> = running.filter_map(|entry| entry.handle.clone()).collect();
        let level = level.to_owned();
        let _ = spawn("log-level", move || {
            for handle in handles {
                if let Err(error) = handle.control(op::control::LOG_LEVEL, level.as_bytes()) {
                    tracing::warn!("a plugin did not take the log level: {error}");
                }
            }
        });
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Starts another version of a plugin, or the same version in another place; its index.
    pub(crate) fn add_version(&mut self, site: &Site, model: PluginModel, probed: Probed) -> usize {
        let plugin = self.entries.len();
        let entry = Entry {
            connections: connections(site, &model),
            model,
            probed: Ok(probed),
            handle: None,
            start: 0,
            crashes: VecDeque::new(),
            unloaded: false,
            trial: true,
        };
        self.registry.0.write().unwrap_or_else(PoisonError::into_inner).push(known(&entry));
        self.entries.push(entry);
        self.load(plugin, Duration::ZERO);
        plugin
    }

    /// Its trial is over: from now on it is treated like any plugin.
    pub(crate) fn accepted(&mut self, plugin: usize) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        entry.trial = false;
        let worker = entry.model.isolation == Isolation::Process;
        if worker && entry.handle.as_ref().is_some_and(|handle| handle.worker_pid().is_none()) {
            // It died between the end of its trial and now.
            self.load(plugin, RESTART_PAUSE);
        }
    }

    /// Ends a version that serves nothing any more; `ended` hears when its runtime is gone.
    pub(crate) fn retire(&mut self, plugin: usize, ended: Sender<()>) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        // What it still says is stale, and nothing starts it again.
        entry.start += 1;
        entry.trial = true;
        entry.probed = Err("it was replaced by another version".into());
        if let Some(known) = self.registry.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(plugin) {
            *known = Known::default();
        }
        let Some(handle) = entry.handle.take() else { return };
        let name = entry.model.name.clone();
        let _ = spawn("retire", move || {
            if !handle.shutdown(SHUTDOWN_TIME) {
                tracing::warn!(plugin = name, "the version before did not end in time and is left behind");
            }
            drop(handle);
            let _ = ended.send(());
        });
    }

    /// Starts loading all of them.
    pub(crate) fn load_all(&mut self) {
        for plugin in 0..self.entries.len() {
            self.load(plugin, Duration::ZERO);
        }
    }

    fn load(&mut self, plugin: usize, pause: Duration) {
        self.load_after(plugin, pause, false);
    }

    /// `end_first`: what still runs of it is ended before.
    fn load_after(&mut self, plugin: usize, pause: Duration, end_first: bool) {
        let Some(entry) = self.entries.get_mut(plugin) else { return };
        entry.start += 1;
        let start = entry.start;
        let task = Start {
            plugin,
            start,
            model: entry.model.clone(),
            probed: entry.probed.clone(),
            connections: entry.connections.clone(),
            handle: entry.handle.clone(),
            end_first,
            shared: self.shared.clone(),
        };
        let stopped = self.stopped.clone();
        let inbox = Arc::clone(&self.shared.inbox);
        let spawned = spawn(&format!("load-{}", entry.model.name), move || {
            // Ends early when the host stops meanwhile: the sender is dropped, nothing is ever sent.
            if pause > Duration::ZERO
                && stopped.recv_timeout(pause).is_err_and(|error| error.is_disconnected())
            {
                return;
            }
            let inbox = Arc::clone(&task.shared.inbox);
            inbox.send(Item::News(Box::new(task.run())));
        });
        if let Err(reason) = spawned {
            let news = Item::News(Box::new(News::Failed { plugin, start, reason }));
            // The core thread itself must not wait; without room the plugin stays "declared", which is the truth.
            let _ = inbox.try_send(news);
        }
    }

    /// A plugin was loaded; the input for the core, unless the news is stale.
    pub(crate) fn loaded(
        &mut self,
        plugin: usize,
        start: u64,
        handle: Arc<Plugin>,
        ready: Box<PluginReady>,
    ) -> Option<Input> {
        let entry = self.entries.get_mut(plugin).filter(|entry| entry.start == start)?;
        entry.handle = Some(Arc::clone(&handle));
        self.note(plugin, |known| known.handle = Some(handle));
        Some(Input::PluginReady(ready))
    }

    /// A start failed, or a worker died. The core is told, and a worker is started again.
    pub(crate) fn down(&mut self, plugin: usize, start: u64, reason: String) -> Option<Input> {
        let entry = self.entries.get_mut(plugin).filter(|entry| entry.start == start)?;
        if entry.trial || entry.model.isolation == Isolation::InProcess || entry.probed.is_err() {
            return Some(Input::PluginFailed { plugin, reason });
        }
        let name = entry.model.name.clone();
        // The core's own line about a failing plugin is limited; every death is told, and there are few.
        tracing::error!(plugin = name, "a worker ended: {reason}");
        let pause = after_crash(&mut entry.crashes, Instant::now());
        self.note(plugin, |known| {
            known.last_death = Some((unix_seconds(), reason.clone()));
            known.restarts += u64::from(pause.is_some());
        });
        let reason = match pause {
            Some(pause) => {
                self.load(plugin, pause);
                format!("{reason}; it is started again")
            }
            None => format!(
                "{reason}; it died {MAX_CRASHES} times within {} s and stays down: report it to its maker; `busbar plugin restart {name}` starts it again",
                CRASH_WINDOW.as_secs()
            ),
        };
        Some(Input::PluginFailed { plugin, reason })
    }

    fn note(&self, plugin: usize, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.registry.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(plugin) {
            change(known);
        }
    }

    /// An operator wants the worker started again, whether it runs or was given up; earlier deaths are forgiven. `Err`
    /// is for the operator.
    pub(crate) fn restart(&mut self, plugin: usize, who: &str) -> Result<Input, String> {
        let entry = self.entries.get_mut(plugin).ok_or("no such plugin")?;
        let name = &entry.model.name;
        if let Err(reason) = &entry.probed {
            return Err(format!("{name} was refused at start and needs a restart of Busbar: {reason}"));
        }
        if entry.model.isolation == Isolation::InProcess {
            return Err(format!(
                "{name} runs in the host's own process, where it cannot be started again: restart Busbar, or give it isolation = \"process\""
            ));
        }
        tracing::warn!(plugin = name, "started again by {who}");
        entry.crashes.clear();
        self.load_after(plugin, Duration::ZERO, true);
        self.note(plugin, |known| known.restarts += 1);
        Ok(Input::PluginFailed { plugin, reason: format!("started again by {who}") })
    }

    /// The core gave the plugin up: a worker is killed and started again, an in-process plugin is left alone.
    pub(crate) fn abandon(&mut self, plugin: usize, reason: &str) -> Option<Input> {
        let entry = self.entries.get(plugin)?;
        let start = entry.start;
        tracing::error!(plugin = entry.model.name, "given up: {reason}");
        if let (true, Isolation::Process, Some(handle)) = (entry.trial, entry.model.isolation, &entry.handle)
        {
            let handle = Arc::clone(handle);
            // Its end is told by the loader: only then everything it held is free.
            let _ = spawn("kill-worker", move || handle.kill());
            return None;
        }
        if let (Isolation::Process, Some(handle)) = (entry.model.isolation, entry.handle.clone()) {
            // Kills the worker; its death is not news any more, because `down` counts a new start.
            let _ = spawn("kill-worker", move || {
                handle.kill();
            });
            return self.down(plugin, start, reason.to_owned());
        }
        None
    }

    /// Opens instances on a helper thread, in the order given.
    pub(crate) fn open(&self, plugin: usize, instances: Vec<(u64, Open)>) {
        let inbox = Arc::clone(&self.shared.inbox);
        let handle = self.entries.get(plugin).and_then(|entry| entry.handle.clone());
        let task_inbox = Arc::clone(&inbox);
        let ids: Vec<u64> = instances.iter().map(|(instance, _)| *instance).collect();
        let spawned = spawn("open", move || {
            for (instance, config) in instances {
                let news = match handle.as_ref().map(|handle| handle.open(instance, &config)) {
                    Some(Ok(handle)) => News::Opened { instance, handle },
                    Some(Err(error)) => News::OpenFailed { instance, reason: error.to_string() },
                    None => News::OpenPostponed { instance, reason: "the plugin is not loaded".to_owned() },
                };
                task_inbox.send(Item::News(Box::new(news)));
            }
        });
        if let Err(reason) = spawned {
            for instance in ids {
                let reason = reason.clone();
                let _ = inbox.try_send(Item::News(Box::new(News::OpenPostponed { instance, reason })));
            }
        }
    }

    /// Ends all plugins at the same time, after their instances have stopped. Waits at most
    /// [`SHUTDOWN_WAIT`]; names those that did not end.
    pub(crate) fn shutdown(mut self) -> Vec<String> {
        self.stop = None;
        let (ended, results) = bounded(self.entries.len());
        let mut running: Vec<String> = Vec::new();
        for entry in &mut self.entries {
            let Some(handle) = entry.handle.take() else { continue };
            let (ended, name) = (ended.clone(), entry.model.name.clone());
            running.push(name.clone());
            let _ = spawn("shutdown", move || {
                if handle.shutdown(SHUTDOWN_TIME) {
                    let _ = ended.send(name);
                }
            });
        }
        drop(ended);
        let deadline = Instant::now() + SHUTDOWN_WAIT;
        while let Ok(name) = results.recv_deadline(deadline) {
            running.retain(|other| *other != name);
        }
        running
    }
}

/// Connections of the devices of a driver, by device index.
fn connections(site: &Site, model: &PluginModel) -> Vec<(usize, Json)> {
    site.devices
        .iter()
        .enumerate()
        .filter(|(_, device)| {
            model.kind == busbar_core::model::PluginKind::Driver && device.driver == model.name
        })
        .map(|(index, device)| (index, device.connection.clone()))
        .collect()
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A helper thread.
fn spawn(name: &str, task: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let name: String = format!("busbar-{name}");
    std::thread::Builder::new()
        .name(name)
        .spawn(task)
        .map(drop)
        .map_err(|error| format!("no thread could be started: {error}"))
}

/// Where plugins keep large expendable files.
pub(crate) fn cache_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("cache")
}
