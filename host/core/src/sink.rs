//! One sink: its instance, its far side, its records.
//!
//! Order on the stream: POINTS, CONNECT, then records: whatever was unconfirmed, a snapshot of all points (ordinary
//! numbered records in batches with the flag SNAPSHOT), deltas. The snapshot comes after each connect (`images.rs`). How
//! an instance and its far side come and go is in `link.rs`, what becomes of records in `delivery.rs`, and of a queue on
//! disk in `durable.rs` and `backlog.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::{
    Now,
    arena::{Id, PluginId, PointId},
    feed::Feed,
    ghosts::Ghost,
    journal::Ledger,
    journaling::Journal,
    model,
    queue::Queue,
    slots::Slots,
};
use busbar_contract::request::SinkPoint;

/// How far a sink got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkPhase {
    /// No instance; `wake_ns` says when the next is opened, 0 = when the plugin is ready.
    Closed,
    /// Its plugin or its configuration must be changed.
    Failed,
    Opening,
    /// POINTS is being taken.
    Points,
    Connecting,
    /// Waits to connect again.
    Down,
    Up,
    Stopping,
}

/// How long a slot of the sink's list lasts.
#[derive(Debug, PartialEq)]
pub(crate) enum Lasting {
    /// The point is routed.
    Live,
    /// A reload ended the route; what still waits goes out under the name it had, which is kept here.
    Leaving(Box<SinkPoint>),
    /// Nothing of it waits any more, and the plugin was told. The slot is not used again.
    Gone,
}

/// A point routed to the sink.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) point: PointId,
    pub(crate) map: Vec<Json>,
    pub(crate) lasting: Lasting,
}

/// One sink.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) plugin: Option<PluginId>,
    pub(crate) instance: u64,
    pub(crate) phase: SinkPhase,
    pub(crate) reason: String,
    pub(crate) since_wall_ns: i64,
    pub(crate) attempts: u32,
    pub(crate) wake_ns: u64,
    pub(crate) zombies: u32,
    /// Its far side was up once: its configuration can work, so it never stops for good.
    pub(crate) ran: bool,
    pub(crate) routed: Vec<Routed>,
    pub(crate) slot_of: BTreeMap<u32, u32>,
    pub(crate) feed: Feed,
    pub(crate) queue: Queue,
    pub(crate) slots: Slots,
    /// Records wait to be confirmed, and come again until they are: the plugin is durable, or the queue is on disk.
    pub(crate) durable: bool,
    /// What is known of the file of a queue on disk.
    pub(crate) journal: Option<Box<Journal>>,
    /// Points that are not routed any more, of which records still wait in the file.
    pub(crate) ghosts: BTreeMap<u32, Ghost>,
    /// Announcements of ghosts that the plugin did not answer yet: no delivery before.
    pub(crate) announcing: u32,
    /// All bounds of the queue, in one place: they may change at run time.
    pub(crate) limits: model::Queue,
    pub(crate) commands: bool,
    pub(crate) books: crate::books::Books,
    /// Devices that a verdict `retry` holds back: until when, and how often.
    pub(crate) held: BTreeMap<u32, (u64, u32)>,
    pub(crate) paused_until_ns: u64,
    pub(crate) refusals: u32,
    pub(crate) overflow: bool,
    pub(crate) snapshot_due: bool,
    /// Next slot of the image that a sink with a queue on disk gets after a connect.
    pub(crate) image_at: Option<u32>,
    /// `replay_rate`: no record of the backlog before.
    pub(crate) paced_until_ns: u64,
    /// Number of the newest record of each point, by slot.
    pub(crate) newest: Vec<u64>,
    /// Number of the newest confirmed record of each point, by slot.
    pub(crate) sent: Vec<u64>,
    /// Points of which an older record is sent after a newer one: their latest state is sent last.
    pub(crate) echo: BTreeSet<u32>,
    pub(crate) touched: bool,
    /// Tokens whose records ended inside the sink.
    pub(crate) ended_commits: Vec<(u32, bool)>,
    /// Its plugin is being replaced: nothing is delivered, nothing opens it.
    pub(crate) handover: bool,
    /// Slots of points that leave.
    pub(crate) leaving: BTreeSet<u32>,
    /// Stopped for a new configuration: opened again without a pause.
    pub(crate) reopen: bool,
    /// A reload took it out of the configuration; its place is never used again.
    pub(crate) gone: bool,
    /// Since then its file is being closed.
    pub(crate) closing_ns: u64,
    /// When `send = "interval"` is due; a wake-up at another instant is an old one.
    pub(crate) interval_ns: u64,
}

impl Sink {
    pub(crate) fn new(config: &model::Sink, plugin: Option<PluginId>, now: Now) -> Self {
        let journal = config.queue.on_disk.then(|| Box::new(Journal::new(now.wall_ns)));
        Self {
            plugin,
            instance: 0,
            phase: if plugin.is_some() { SinkPhase::Closed } else { SinkPhase::Failed },
            reason: if plugin.is_some() {
                "starting".into()
            } else {
                format!("no plugin named {}", config.plugin)
            },
            since_wall_ns: now.wall_ns,
            attempts: 0,
            wake_ns: 0,
            zombies: 0,
            ran: false,
            routed: Vec::new(),
            slot_of: BTreeMap::new(),
            feed: Feed::new(config),
            queue: journal
                .as_ref()
                .map_or_else(Queue::new, |journal| Queue::starting_at(journal.temporary_from)),
            slots: Slots::default(),
            durable: journal.is_some(),
            journal,
            ghosts: BTreeMap::new(),
            announcing: 0,
            limits: config.queue,
            commands: config.commands,
            books: crate::books::Books::default(),
            held: BTreeMap::new(),
            paused_until_ns: 0,
            refusals: 0,
            overflow: false,
            snapshot_due: true,
            image_at: None,
            paced_until_ns: 0,
            newest: Vec::new(),
            sent: Vec::new(),
            echo: BTreeSet::new(),
            touched: false,
            ended_commits: Vec::new(),
            handover: false,
            leaving: BTreeSet::new(),
            reopen: false,
            gone: false,
            closing_ns: 0,
            interval_ns: 0,
        }
    }

    /// A slot for a point that was not routed before.
    pub(crate) fn add_point(&mut self, point: PointId, map: Vec<Json>) -> u32 {
        let slot = self.routed.len() as u32;
        self.routed.push(Routed { point, map, lasting: Lasting::Live });
        self.slot_of.insert(point.number(), slot);
        self.slots.grow();
        self.feed.resize(self.routed.len());
        self.newest.push(0);
        self.sent.push(0);
        slot
    }

    /// Slots of routed points.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Routed)> {
        (0u32..).zip(&self.routed).filter(|(_, routed)| routed.lasting == Lasting::Live)
    }

    /// Records of the ledger not yet ended.
    pub(crate) fn pending(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or((self.queue.pending() + self.slots.len()) as u64, |journal| journal.pending())
    }

    /// Records refused by the far side for good.
    pub(crate) fn parked_total(&self) -> u64 {
        self.journal.as_ref().map_or_else(|| self.books.parked_total(), |journal| journal.parked())
    }

    /// Something that must be confirmed, written or sent is not yet.
    pub(crate) fn is_drained(&self) -> bool {
        self.pending() == 0
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.phase, SinkPhase::Up)
    }

    /// Everything that waits is in memory, and nothing of it is set aside.
    pub(crate) fn is_whole(&self) -> bool {
        self.queue.is_whole() && self.journal.as_ref().is_none_or(|journal| journal.aside.is_empty())
    }

    /// Age of the oldest record that is not confirmed, nanoseconds.
    pub(crate) fn oldest_age_ns(&self, now_ns: u64) -> u64 {
        let queued = self.queue.oldest().map(|(_, at)| at);
        let here = [queued, self.slots.oldest()].into_iter().flatten().min();
        let here = here.map(|at_ns| now_ns.saturating_sub(at_ns));
        let in_file = self
            .journal
            .as_ref()
            .filter(|_| !self.is_whole())
            .and_then(|journal| journal.oldest_age_ns(now_ns));
        here.max(in_file).unwrap_or(0)
    }

    /// Bytes waiting or unconfirmed: in the file, or in memory where there is no file.
    pub(crate) fn pending_bytes(&self) -> u64 {
        match self.journal.as_ref().filter(|journal| journal.is_open()) {
            Some(journal) => journal.bytes,
            None => self.queue.bytes() + self.slots.event_bytes(),
        }
    }

    /// Figures of a queue on disk.
    pub(crate) fn disk_ledger(&self) -> Option<Ledger> {
        self.journal.as_ref().map(|journal| journal.ledger())
    }
}
