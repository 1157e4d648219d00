//! The one thread that owns the core: inputs in, steps, outputs out.
//!
//! Each turn takes everything that waits (up to [`BURST`]) before any output is carried out, so that the answers of one
//! tick cost one turn and not one each. Nothing on this thread waits for a plugin, a disk, a socket or an operator; the
//! calls into plugins that are made here (`submit`, `deliver`, `stop`) only enqueue by contract (R2). What an output
//! brings back at once (not taken, queue full) becomes an input of the next turn.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use busbar_contract::{Event, Origin, Request, describe::Open, value::rfc3339};
use busbar_core::{Core, Input, Output};
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    clock::{CLOCK_CHECK, Clock, synchronised},
    disk::{Disk, Job},
    inbox::{Inbox, Item},
    instances::Instances,
    journal::{CLOSE_TIME, Journals, Wanted},
    names::Names,
    operators::Operators,
    plugin_log::write_line,
    plugins::{News, Plugins, SHUTDOWN_WAIT},
    queue::COLLECT,
    reload::Examined,
    upgrade::bridge::Versions,
};

/// Inputs taken in one turn.
const BURST: usize = 4_096;
/// Time for everything to stop: what the core's own deadlines add up to, and some turns of this thread.
pub(crate) const STOP_TIME: Duration =
    Duration::from_nanos(Core::longest_shutdown_ns()).saturating_add(Duration::from_secs(1));
/// This thread ends within, once it was told to stop.
pub(crate) const END_TIME: Duration = STOP_TIME
    .saturating_add(SHUTDOWN_WAIT)
    .saturating_add(CLOSE_TIME.saturating_mul(2))
    .saturating_add(Duration::from_secs(1));

/// Figures of the core thread for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Turns, that is wake-ups.
    pub(crate) turns: AtomicU64,
    /// Inputs.
    pub(crate) inputs: AtomicU64,
    /// Longest turn, nanoseconds.
    pub(crate) longest_ns: AtomicU64,
}

/// Everything the core thread owns.
pub(crate) struct CoreThread {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox>,
    /// What was taken from the inbox.
    pub(crate) items: VecDeque<Item>,
    /// Reads were submitted: their answers are collected for a moment.
    pub(crate) collect: bool,
    pub(crate) names: Arc<Names>,
    pub(crate) plugins: Plugins,
    pub(crate) disk: Disk,
    pub(crate) journals: Arc<Journals>,
    pub(crate) instances: Instances,
    pub(crate) operators: Operators,
    /// What the probes of a reload said.
    pub(crate) examined: Examined,
    /// Versions that start, and hand-overs under way.
    pub(crate) versions: Versions,
    pub(crate) turns: Arc<Turns>,
    /// What outputs brought back at once.
    pub(crate) backlog: VecDeque<Input>,
    pub(crate) outputs: Vec<Output>,
    /// When the kernel's clock is asked next, and what it said last.
    pub(crate) next_clock_check: Instant,
    pub(crate) synchronised: Option<bool>,
    /// Set by shutdown: the thread ends then at the latest.
    pub(crate) stop_at: Option<Instant>,
}

impl CoreThread {
    /// Runs until the core has stopped after a shutdown.
    pub(crate) fn run(mut self) {
        self.plugins.load_all();
        while !self.is_finished() {
            self.wait();
            let begun = Instant::now();
            self.take_all();
            self.check_clock(begun);
            self.tick();
            self.carry_out();
            self.count(begun);
        }
        self.end();
    }

    fn is_finished(&self) -> bool {
        self.stop_at.is_some_and(|deadline| self.core.is_stopped() || Instant::now() >= deadline)
    }

    /// Sleeps until something came or it is time for a tick.
    fn wait(&mut self) {
        let collect = std::mem::take(&mut self.collect).then(|| Instant::now() + COLLECT);
        if !self.items.is_empty() {
            return;
        }
        if !self.backlog.is_empty() {
            return self.inbox.queue().take_all(&mut self.items, None);
        }
        let wake = self.core.next_wake().and_then(|ns| self.clock.instant(ns));
        let until =
            [wake, collect, self.stop_at].into_iter().flatten().fold(self.next_clock_check, Instant::min);
        self.inbox.queue().take_all(&mut self.items, Some(until));
    }

    pub(super) fn take_all(&mut self) {
        for _ in 0..BURST {
            let Some(input) = self.backlog.pop_front() else { break };
            self.step(input);
        }
        for _ in 0..BURST {
            let Some(item) = self.items.pop_front() else { break };
            self.take(item);
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Plugin(item) => {
                let (room, input) = *item;
                drop(room);
                self.step(input);
            }
            Item::Host(input) => self.step(*input),
            Item::Ask(asked) => {
                if let Some(input) = self.operators.admit(*asked) {
                    self.step(input);
                }
            }
            Item::Reload(wanted) => self.reload(*wanted),
            Item::Query(look) => look(&self.core, self.clock.now()),
            Item::News(news) => self.take_news(*news),
        }
    }

    fn take_news(&mut self, news: News) {
        let input = match news {
            News::Loaded { plugin, start, handle, ready } => {
                if let Some(input) = self.plugins.loaded(plugin, start, handle, ready) {
                    self.step(input);
                    self.versions.started(plugin, Ok(plugin));
                }
                None
            }
            News::Failed { plugin, start, reason } | News::Down { plugin, start, reason } => {
                let version = self.versions.started(plugin, Err(reason.clone()));
                let input = self.plugins.down(plugin, start, reason);
                if version {
                    // One that did not even start is of no further use.
                    self.plugins.retire(plugin, crossbeam_channel::bounded(1).0);
                    self.backlog.push_back(Input::Retired { plugin });
                }
                input
            }
            News::Upgrade(ask) => self.versions.take(ask, &self.core, &mut self.plugins),
            News::Opened { instance, handle } => {
                let inputs = self.instances.opened(instance, handle);
                self.backlog.extend(inputs);
                None
            }
            News::Restart { plugin, origin, answer } => self.restart(plugin, &origin, answer),
            News::LogLevel { level } => {
                self.plugins.set_log_level(&level);
                None
            }
            News::Audit { event, about, origin } => {
                self.audit(event, &about, &origin);
                None
            }
            News::ClearState { owner, answer } => self.disk.submit(Job::Clear { owner, answer }),
            News::OpenFailed { instance, reason } => Some(Input::OpenFailed { instance, reason }),
            News::OpenPostponed { instance, reason } => Some(Input::OpenPostponed { instance, reason }),
        };
        if let Some(input) = input {
            self.step(input);
        }
    }

    /// An operator wants a plugin started again; audited.
    fn restart(
        &mut self,
        plugin: usize,
        origin: &Origin,
        answer: oneshot::Sender<Result<(), String>>,
    ) -> Option<Input> {
        // The version that serves, whose number is another than the configuration's after an upgrade.
        let views = self.core.plugins();
        let serving = views.iter().find(|view| view.base == plugin).map_or(plugin, |view| view.index);
        let (input, outcome) = match self.plugins.restart(serving, &origin.client) {
            Ok(input) => (Some(input), Ok(())),
            Err(reason) => (None, Err(reason)),
        };
        if outcome.is_ok() {
            let about = self.core.site().plugins.get(plugin).map_or("", |plugin| plugin.name.as_str());
            let about = about.to_owned();
            self.audit("plugin_restart", &about, origin);
        }
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
        input
    }

    fn audit(&mut self, event: &str, about: &str, origin: &Origin) {
        let line = json!({
            "ts": rfc3339(self.clock.now().wall_ns), "event": event, "about": about, "origin": origin,
        });
        let refused = self.disk.submit(Job::Audit { audit: 0, line });
        self.backlog.extend(refused);
    }

    pub(super) fn step(&mut self, input: Input) {
        self.turns.inputs.fetch_add(1, Ordering::Relaxed);
        let ended = match &input {
            Input::Event { instance, event: Event::Stopped, .. }
            | Input::OpenFailed { instance, .. }
            | Input::OpenPostponed { instance, .. } => Some(*instance),
            Input::PluginFailed { plugin, .. } => {
                self.abandon_instances(*plugin);
                None
            }
            Input::Shutdown => {
                self.stop_at.get_or_insert(Instant::now() + STOP_TIME);
                None
            }
            _ => None,
        };
        let now = self.clock.now();
        self.core.step(now, input, &mut self.outputs);
        if let Some(instance) = ended {
            self.forget(instance);
        }
    }

    fn forget(&mut self, instance: u64) {
        if let Some(plugin) = self.instances.remove(instance) {
            self.inbox.forget(plugin, instance);
            self.names.forget_instance(instance);
        }
    }

    fn abandon_instances(&mut self, plugin: usize) {
        for instance in self.instances.abandon_plugin(plugin) {
            self.inbox.forget(plugin, instance);
            self.names.forget_instance(instance);
        }
    }

    fn tick(&mut self) {
        let due = self.core.next_wake().is_some_and(|wake| wake <= self.clock.now().mono_ns);
        if due {
            self.step(Input::Tick);
        }
    }

    fn check_clock(&mut self, now: Instant) {
        if now < self.next_clock_check {
            return;
        }
        self.next_clock_check = now + CLOCK_CHECK;
        let synchronised = synchronised();
        if self.synchronised != Some(synchronised) {
            self.synchronised = Some(synchronised);
            self.step(Input::Clock { synchronised });
        }
    }

    pub(super) fn carry_out(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut opens: Vec<(usize, u64, Open)> = Vec::new();
        for output in outputs.drain(..) {
            match output {
                Output::Open { plugin, instance, config } => {
                    self.names.note_instance(instance, name_of(&config));
                    self.instances.opening(instance, plugin);
                    opens.push((plugin, instance, config));
                }
                output => self.carry_one(output),
            }
        }
        self.open_all(opens);
        // Keeps its room for the next turn.
        if self.outputs.is_empty() {
            self.outputs = outputs;
        }
    }

    fn carry_one(&mut self, output: Output) {
        let answer = match output {
            Output::Submit { .. } | Output::Deliver { .. } | Output::Stop { .. } => {
                match &output {
                    Output::Submit { body: Request::Attach(attach), .. } => {
                        self.names.note_device(attach.device, &attach.name);
                    }
                    Output::Submit { body: Request::Read(_), .. } => self.collect = true,
                    _ => {}
                }
                self.instances.send(output)
            }
            Output::Abandon { plugin, reason } => {
                self.abandon_instances(plugin);
                self.plugins.abandon(plugin, &reason)
            }
            Output::Audit { audit, line } => self.disk.submit(Job::Audit { audit, line }),
            Output::Store { store, owner, key, action } => {
                self.disk.submit(Job::Store { store, owner, key, action })
            }
            Output::Reply { id, reply } => {
                self.operators.answer(id, reply);
                None
            }
            Output::Load { plugin } => {
                self.load_plugin(plugin);
                None
            }
            Output::Unload { plugin } => {
                self.plugins.unload(plugin);
                None
            }
            Output::Applied { .. } => {
                self.refresh_connections();
                None
            }
            Output::Log(line) => {
                write_line(&line);
                None
            }
            Output::JournalOpen { sink } => self.journal(sink, Wanted::Open),
            Output::Journal { sink, transaction } => self.journal(sink, Wanted::Commit(transaction)),
            Output::JournalLoad { sink, from, records, bytes } => {
                self.journal(sink, Wanted::Load { from, records, bytes })
            }
            Output::Handover { id, step } => {
                self.versions.step(id, step);
                None
            }
            // Handled by the caller.
            Output::Open { .. } => None,
        };
        self.backlog.extend(answer);
    }

    /// The core names a sink by its place in the site it runs.
    fn journal(&self, sink: usize, wanted: Wanted) -> Option<Input> {
        self.journals.submit(sink, self.core.site().sinks.get(sink)?, wanted)
    }

    fn open_all(&mut self, mut opens: Vec<(usize, u64, Open)>) {
        while let Some((plugin, ..)) = opens.first() {
            let plugin = *plugin;
            let (these, others) = opens.into_iter().partition(|(of, ..)| *of == plugin);
            let these: Vec<(usize, u64, Open)> = these;
            self.plugins
                .open(plugin, these.into_iter().map(|(_, instance, config)| (instance, config)).collect());
            opens = others;
        }
    }

    fn count(&self, begun: Instant) {
        let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.turns.turns.fetch_add(1, Ordering::Relaxed);
        self.turns.longest_ns.fetch_max(ns, Ordering::Relaxed);
    }

    fn end(self) {
        if !self.core.is_stopped() {
            tracing::warn!("not everything stopped within {} s and is left behind", STOP_TIME.as_secs());
        }
        // Senders that wait for room, and disk answers that nobody needs any more, must not block the end.
        self.inbox.queue().close();
        drop(self.instances);
        for name in self.plugins.shutdown() {
            tracing::warn!(plugin = name, "its runtime did not end in time and is left behind");
        }
        for sink in self.journals.finish() {
            tracing::error!(sink, "its queue's file was not closed in order: the disk does not answer");
        }
        if !self.disk.finish() {
            tracing::error!("audit log and stored state were not closed in order: the disk does not answer");
        }
    }
}

fn name_of(config: &Open) -> &str {
    match config {
        Open::Driver { endpoint, .. } => endpoint,
        Open::Sink { name, .. } => name,
    }
}
