//! The edge of the core: threads, plugins, disk and clocks around the pure state machine.
//!
//! ```text
//!  plugins --push,event--> [ inbox, bounded ] --> core thread --submit,deliver--> plugins
//!  disk, operators, API --^                        |  |   \--jobs--> disk thread --outcome--> inbox
//!                                                  |  \--open, load--> helper threads --news--> inbox
//!                                                  \--replies--> whoever asked
//! ```
//!
//! Threads: one for the core, one for the disk, one per queue on disk; helper threads exist only while a plugin is
//! loaded, opened or ended.

mod audit;
mod callbacks;
mod clock;
mod core_thread;
mod disk;
pub(crate) mod frames;
mod handle;
mod inbox;
mod instances;
mod journal;
mod names;
mod operators;
mod plugin_log;
mod plugins;
mod queue;
mod reload;
pub(crate) mod store;
mod threads;
pub mod upgrade;

pub use audit::AUDIT_FILE;
pub use frames::Frame;
pub use reload::NewConfig;

pub use handle::{CoreHandle, FrameWatch, NotAnswered, PluginFacts, Replies, TurnFigures};
pub use journal::Decision;
pub(crate) use journal::left::Left;

use std::{collections::VecDeque, path::Path, sync::Arc, thread::JoinHandle, time::Instant};

use busbar_core::{Core, Input, Switches, model::Site, switches};
use busbar_loader::{Launcher, Probed};
use tokio::sync::mpsc;

use crate::reload::{MAX_WAITING, Wish};

use self::{
    clock::Clock,
    core_thread::{CoreThread, END_TIME, Turns},
    disk::Disk,
    inbox::{Closer, Inbox, Item},
    instances::Instances,
    journal::Journals,
    names::Names,
    operators::Operators,
    plugins::{Plugins, Shared, cache_dir},
    store::Store,
    threads::{End, join_until},
};

/// What the edge starts from.
pub struct Start<'a> {
    /// The configuration.
    pub site: Site,
    /// One entry per plugin of the site: what its probe found, or why it cannot be used.
    pub probed: Vec<Result<Probed, String>>,
    /// Locked by the caller.
    pub data_dir: &'a Path,
    /// How workers are started.
    pub launcher: Launcher,
    /// Log level given to plugins.
    pub log_level: String,
    /// Upgrades while it runs, and what the start decided about versions; `None`: not here.
    pub upgrade: Option<(upgrade::Settings, upgrade::begin::Beginning)>,
}

/// The running edge.
pub struct Edge {
    handle: CoreHandle,
    thread: JoinHandle<()>,
    wishes: Option<mpsc::Receiver<Wish>>,
    upgrades: Option<upgrade::Service>,
}

impl Edge {
    /// Starts the core and begins to load the plugins; returns at once.
    pub fn start(start: Start<'_>) -> Result<Self, String> {
        let Start { mut site, probed, data_dir, launcher, log_level, upgrade } = start;
        place_queues(&mut site, &probed, data_dir);
        let inbox = Inbox::new();
        let names: Arc<Names> = Arc::default();
        for device in site.devices.iter().filter(|device| device.frame_log) {
            names.frames.log(&device.name, true);
        }
        let shared = Shared {
            inbox: Arc::clone(&inbox),
            names: Arc::clone(&names),
            launcher,
            log_level,
            cache_dir: cache_dir(data_dir),
        };
        let (upgrades, orders) = upgrade::Upgrades::new();
        let (models, found) = (site.plugins.clone(), probed.clone());
        let plugins = Plugins::new(&site, probed, shared);
        let answers = Arc::clone(&inbox);
        let mut store = Store::new(data_dir);
        let switches = read_switches(&mut store);
        let disk = Disk::start(data_dir, store, move |input| answers.send(Item::Host(Box::new(input))))?;
        let clock = Clock::new();
        let answers = Arc::clone(&inbox);
        let names_of_sinks: Vec<String> = site.sinks.iter().map(|sink| sink.name.clone()).collect();
        let journals = Journals::new(data_dir, clock, move |input| answers.send(Item::Host(Box::new(input))));
        journals.left(&names_of_sinks).iter().for_each(journal::left::Left::say);
        let turns: Arc<Turns> = Arc::default();
        let (wish, wishes) = mpsc::channel(MAX_WAITING);
        let handle = CoreHandle::new(
            Arc::clone(&inbox),
            plugins.registry(),
            Arc::clone(&turns),
            Arc::clone(&names),
            Arc::clone(&journals),
            upgrades.clone(),
            wish,
        );
        let core = Core::new(site, switches, seed(), clock.now());
        let thread = CoreThread {
            core,
            clock,
            items: VecDeque::new(),
            collect: false,
            inbox,
            names,
            plugins,
            disk,
            journals,
            instances: Instances::default(),
            operators: Operators::default(),
            examined: Vec::new(),
            versions: upgrade::bridge::Versions::default(),
            turns,
            backlog: VecDeque::new(),
            outputs: Vec::new(),
            next_clock_check: Instant::now(),
            synchronised: None,
            stop_at: None,
        };
        let bridge = upgrade::bridge::Bridge { inbox: Arc::clone(&thread.inbox), core: handle.clone() };
        // Before the core thread, which loads plugins: what a death would mean stands on disk then.
        let upgrades = upgrade
            .map(|(settings, beginning)| {
                upgrade::Service::start(
                    settings,
                    beginning,
                    (&models, &found),
                    bridge,
                    upgrades.board,
                    orders,
                )
            })
            .transpose()?;
        let closer = Closer(Arc::clone(&thread.inbox));
        let spawned = std::thread::Builder::new().name("busbar-core".into()).spawn(move || {
            let _closer = closer;
            thread.run();
        });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                if let Some(upgrades) = upgrades {
                    upgrades.finish();
                }
                return Err(format!("the core thread could not be started: {error}"));
            }
        };
        Ok(Self { handle, thread, upgrades, wishes: Some(wishes) })
    }

    /// What [`CoreHandle::wish_reload`] asks for; once. A host that takes no reloads leaves it.
    pub(crate) fn take_wishes(&mut self) -> Option<mpsc::Receiver<Wish>> {
        self.wishes.take()
    }

    /// The way to the core.
    #[must_use]
    pub fn handle(&self) -> CoreHandle {
        self.handle.clone()
    }

    /// The core thread has ended; before [`Edge::stop`] that is a bug.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops in order: drivers, sinks, plugins, disk. Bounded by the core's own deadlines, about 25 s at the very worst; what
    /// does not end within is named in the log and left behind.
    pub fn stop(self) -> Result<(), String> {
        self.handle.send(Item::Host(Box::new(Input::Shutdown)));
        let ended = join_until(self.thread, Instant::now() + END_TIME);
        if let Some(upgrades) = self.upgrades {
            upgrades.finish();
        }
        match ended {
            End::Done => Ok(()),
            End::Panicked => Err("the core thread panicked: this is a bug of Busbar".to_owned()),
            End::Hangs => Err("the core thread hangs and is left behind: this is a bug of Busbar".to_owned()),
        }
    }
}

/// Names of sink plugins that keep their queue on disk, as far as they could be probed.
fn durable_sinks(site: &Site, probed: &[Result<Probed, String>]) -> impl Fn(&str) -> bool + use<> {
    let durable =
        |probed: &Result<Probed, String>| probed.as_ref().is_ok_and(|probed| probed.describe.sink.durable);
    let known = site.plugins.iter().zip(probed).filter(|(_, probed)| durable(probed));
    let names: std::collections::HashSet<String> = known.map(|(plugin, _)| plugin.name.clone()).collect();
    move |plugin| names.contains(plugin)
}

/// Decides which queues are on disk, at start and at each reload.
pub(crate) fn place_queues(site: &mut Site, probed: &[Result<Probed, String>], data_dir: &Path) {
    let durable = durable_sinks(site, probed);
    journal::place(site, data_dir, durable);
}

/// The persisted switches. A host that cannot read them, or may have lost them, starts with commands locked: an operator
/// may have locked them.
fn read_switches(store: &mut Store) -> Switches {
    let stored = store.get(switches::OWNER, switches::KEY);
    let lost = store.has_lost();
    let read = stored.and_then(|bytes| match bytes {
        Some(bytes) => Switches::parse(&bytes),
        None if lost => Err("operator switches: may have been lost with the damaged state".to_owned()),
        None => Ok(Switches::default()),
    });
    read.unwrap_or_else(|error| {
        tracing::error!("{error}; commands are locked until `busbar unlock`");
        let locked = Switches::locked_down();
        // Also for the next start, which finds a file without damage.
        if lost && let Err(error) = store.put(switches::OWNER, switches::KEY, &locked.to_bytes()) {
            tracing::error!("{error}");
        }
        locked
    })
}

/// Feeds the jitter of back-off and phases: different on every start, so that a hundred gateways that lose power
/// together do not come back in step.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}
