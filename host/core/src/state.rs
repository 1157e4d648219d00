//! The parts of the state machine as plain data. What they do is in the file named after each responsibility.

use std::collections::{BTreeMap, VecDeque};

use busbar_contract::{Describe, Endpoint as EndpointSpec, Origin, Value, describe::PluginKind};
use serde_json::Value as Json;

use crate::{
    arena::{ChannelId, DeviceId, EndpointId, GroupId, PluginId, PointId, SinkId},
    metrics::{Errors, Histogram},
    model::Isolation,
    view::DeviceCounters,
};

/// How far a plugin got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginStatus {
    Declared,
    Ready,
    Failed,
    /// A version that is not needed any more.
    Retired,
}

/// One plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) kind: PluginKind,
    /// The plugin of the configuration that this is a version of; itself, if it is that.
    pub(crate) base: PluginId,
    /// Of a base: the version that serves.
    pub(crate) serving: PluginId,
    /// The endpoint of each device (index of the configuration), as this version names it.
    pub(crate) specs: Vec<(usize, Result<EndpointSpec, String>)>,
    /// Its process was killed because a stop hung.
    pub(crate) killed: bool,
    pub(crate) isolation: Isolation,
    pub(crate) status: PluginStatus,
    pub(crate) reason: String,
    pub(crate) describe: Option<Describe>,
    pub(crate) last_beat_ns: u64,
    /// No heartbeat for a second.
    pub(crate) stalled: bool,
    /// No device and no sink needs it any more.
    pub(crate) gone: bool,
    /// The same, but an instance of it has not stopped yet.
    pub(crate) leaving: bool,
    pub(crate) channels: Vec<ChannelId>,
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) sinks: Vec<SinkId>,
    /// Devices in resync, and those that wait for their turn.
    pub(crate) resyncing: u32,
    pub(crate) waiting: Vec<DeviceId>,
    pub(crate) poll_duration: Histogram,
    pub(crate) start_delay: Histogram,
    /// What it sent that breaks the contract, or that nobody waits for.
    pub(crate) malformed: u64,
    pub(crate) unknown_flags: u64,
    /// Counters it reported itself (METRIC), by device number and name.
    pub(crate) reported: BTreeMap<(u32, String), f64>,
}

/// A shared line or socket, over all plugins.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) key: String,
    pub(crate) exclusive: bool,
    pub(crate) parallel: u32,
    pub(crate) lock_path: Option<String>,
    pub(crate) channels: Vec<ChannelId>,
    pub(crate) commands: VecDeque<Queued>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) in_flight: u32,
    pub(crate) dirty: bool,
    /// Some of its devices are about to move to another version: only commands of theirs leave.
    pub(crate) held: bool,
}

/// Life of the instance of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelPhase {
    Closed,
    Opening,
    Open,
    Stopping,
}

/// An endpoint as one plugin serves it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) plugin: PluginId,
    pub(crate) endpoint: EndpointId,
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) phase: ChannelPhase,
    pub(crate) instance: u64,
    /// Deadline of open or stop, or end of the back-off.
    pub(crate) wake_ns: u64,
    pub(crate) attempts: u32,
    /// Instances that did not stop when asked.
    pub(crate) zombies: u32,
    /// It is being stopped for a hand-over: nothing opens it.
    pub(crate) moving: bool,
    /// Stopped for a new configuration: opened again without a pause.
    pub(crate) reopen: bool,
}

/// An answer whose audit line is on its way to the disk.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) asker: Asker,
    pub(crate) answer: busbar_contract::Answer,
    pub(crate) since_ns: u64,
}

/// Whose instance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Channel(ChannelId),
    Sink(SinkId),
}

/// An open instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) plugin: PluginId,
    pub(crate) owner: Owner,
    pub(crate) pending: Vec<u64>,
    /// It was asked to stop: nothing more is asked or told.
    pub(crate) stopping: bool,
    /// Since when a request is overdue.
    pub(crate) stalled_ns: Option<u64>,
    pub(crate) wake_ns: u64,
    /// STATE_PUT and STATE_GET not yet answered.
    pub(crate) stores: u32,
}

/// What is asked of a driver, or of a sink.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    Attach,
    Bind,
    Connect,
    Subscribe,
    Disconnect,
    Probe,
    Read {
        group: GroupId,
        cause: busbar_contract::Cause,
        due_ns: u64,
    },
    Command(u64),
    CancelSelection {
        point: PointId,
        origin: Origin,
    },
    Fetch(u64),
    Browse(u64),
    SinkPoints,
    /// Points of another time, announced before their first record.
    SinkGhosts,
    SinkConnect,
}

/// Work that waits for its turn at an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) device: DeviceId,
    pub(crate) session: u32,
    pub(crate) work: Work,
}

/// A request that was submitted and not completed.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) instance: u64,
    /// Holds a turn of this endpoint.
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) device: Option<DeviceId>,
    pub(crate) session: u32,
    pub(crate) work: Work,
    pub(crate) submitted_ns: u64,
    pub(crate) deadline_ns: u64,
}

/// Why a device is off on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Off {
    /// It is not.
    #[default]
    No,
    /// By an operator (`maintenance`, `busbar device NAME disable`) or `maintenance = true`.
    Maintenance,
    /// `enabled = false`.
    Disabled,
    /// Outside its active hours: planned silence, no fault.
    Hours,
}

/// Life of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Cannot run until something is changed.
    Failed,
    /// Off on purpose; `Device::off` says why.
    Maintenance,
    /// No open instance.
    Idle,
    Attaching,
    Binding,
    /// Until `wake_ns`.
    Backoff,
    Connecting,
    /// Connected; waits for its turn to resync.
    WaitTurn,
    Subscribing,
    Resync,
    Online,
    /// Connected and not polled, on purpose.
    Paused,
}

impl Plugin {
    /// The endpoint of a device, as this version names it.
    pub(crate) fn endpoint_of(&self, device: DeviceId) -> Result<&EndpointSpec, String> {
        use crate::arena::Id;
        let index = device.number() as usize;
        match self.specs.iter().find(|(of, _)| *of == index) {
            Some((_, Ok(spec))) => Ok(spec),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Err("the plugin named no endpoint for this connection".into()),
        }
    }
}

impl Phase {
    /// A session exists: samples may arrive.
    pub(crate) const fn has_session(self) -> bool {
        matches!(self, Self::WaitTurn | Self::Subscribing | Self::Resync | Self::Online | Self::Paused)
    }
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) plugin: Option<PluginId>,
    pub(crate) channel: Option<ChannelId>,
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) since_wall_ns: i64,
    /// Was online or tried to be, and is not: the word is `lost`.
    pub(crate) lost: bool,
    pub(crate) attached: bool,
    pub(crate) bound: bool,
    /// Grows with each loss: what belongs to an older session is forgotten.
    pub(crate) session: u32,
    pub(crate) attempts: u32,
    pub(crate) wake_ns: u64,
    /// Its driver is being replaced: until then its points keep value and quality; 0 = the ordinary rules.
    pub(crate) keep_ns: u64,
    /// Its driver is about to be replaced: nothing new is asked.
    pub(crate) quiet: bool,
    /// Its points, in the order of its configuration.
    pub(crate) points: Vec<PointId>,
    pub(crate) groups: Vec<GroupId>,
    /// A reload took it out of the configuration; its place is never used again.
    pub(crate) gone: bool,
    /// A BIND on the living session has not been answered.
    pub(crate) rebinding: bool,
    /// Requests below this number were asked before its last DETACH.
    pub(crate) detached: u64,
    /// `read = false`, or switched by an operator: connected, not polled.
    pub(crate) paused: bool,
    /// Why it is off on purpose: meaningful in the phase `Maintenance`.
    pub(crate) off: Off,
    /// Its active hours, ready to be asked.
    pub(crate) hours: Option<crate::hours::Hours>,
    /// Points without an answer in this session.
    pub(crate) unanswered: u32,
    /// Resync reads not yet complete.
    pub(crate) reads_left: u32,
    /// The time that subscribed points have to come by themselves is over.
    pub(crate) interrogated: bool,
    pub(crate) integrity_ns: u64,
    pub(crate) last_exchange_ns: u64,
    /// Last time a probe proved that the device, and with it its subscription, lives.
    pub(crate) last_probe_ns: u64,
    /// Points are subscribed without integrity: only probes prove that they live.
    pub(crate) needs_probes: bool,
    pub(crate) probing: bool,
    pub(crate) can_probe: bool,
    pub(crate) probe_armed: bool,
    pub(crate) rebind_ns: u64,
    pub(crate) frame_log: bool,
    pub(crate) peer: String,
    pub(crate) counters: DeviceCounters,
    pub(crate) poll_duration: Histogram,
    /// Requests that failed, by kind.
    pub(crate) errors: Errors,
    pub(crate) online_point: PointId,
    pub(crate) gap_point: PointId,
    pub(crate) latency_point: PointId,
    pub(crate) latency_ns: u64,
    /// Batches with tokens that wait for their sinks, oldest first.
    pub(crate) commits: VecDeque<u32>,
}

/// Points of one device that are read together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) device: DeviceId,
    pub(crate) points: Vec<PointId>,
    pub(crate) interval_ns: u64,
    pub(crate) exchanges: u32,
    /// Queued or on its way.
    pub(crate) busy: bool,
    /// The running read serves a turn of the schedule.
    pub(crate) scheduled: bool,
    /// Asked for while it was busy: read again at once.
    pub(crate) again: bool,
    /// The device refuses it: asked again at this time.
    pub(crate) refused_until_ns: u64,
    /// All its points come by subscription: not polled.
    pub(crate) subscribed: bool,
    /// Replaced by a reload: nothing is read by it any more.
    pub(crate) gone: bool,
    pub(crate) min_stale_ns: u64,
    /// The staleness check that counts.
    pub(crate) stale_at_ns: u64,
}

/// Who waits for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asker {
    Sink { sink: SinkId, instance: u64, request: u64 },
    Operator { id: u64 },
}

/// How far a command got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandPhase {
    /// Its audit line is being written.
    Auditing,
    /// Waits for its turn at the endpoint.
    Queued,
    /// It left for the device.
    Submitted,
}

/// What a command does.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Point { action: busbar_contract::Action, value: Value, select_required: bool, extra: Extra },
    Block { values: Vec<(PointId, Value)>, commit: Option<(PointId, Value)>, block: usize },
}

/// Protocol details that travel with a command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extra {
    pub(crate) qualifier: u32,
    pub(crate) interlock_check: bool,
    pub(crate) synchro_check: bool,
    pub(crate) test: bool,
    pub(crate) issued_ns: i64,
    pub(crate) expires_ns: i64,
}

/// A running command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) asker: Asker,
    pub(crate) origin: Origin,
    pub(crate) device: DeviceId,
    /// The points it holds; the first names it.
    pub(crate) points: Vec<PointId>,
    pub(crate) deed: Deed,
    pub(crate) shown: Json,
    pub(crate) deadline_ns: u64,
    pub(crate) phase: CommandPhase,
    pub(crate) accepted: bool,
}

/// A selection of a point.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) origin: Origin,
    pub(crate) instance: u64,
    pub(crate) until_ns: u64,
    /// The device holds it too.
    pub(crate) at_device: bool,
}

/// A running fresh read.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) asker: Asker,
    pub(crate) device: DeviceId,
    pub(crate) points: Vec<PointId>,
    /// Groups still to come (operators read by groups); empty for a block read.
    pub(crate) groups: Vec<GroupId>,
    pub(crate) deadline_ns: u64,
    pub(crate) arguments: Vec<String>,
    /// Entries of a browse passed on.
    pub(crate) entries: usize,
}

/// Who waits for the durable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreWait {
    Put {
        instance: u64,
        request: u64,
        /// Owner and key.
        place: (String, String),
    },
    Get {
        instance: u64,
        request: u64,
        /// Owner and key.
        place: (String, String),
    },
    /// The operator's switches; `id` waits for the answer.
    Switches { id: Option<u64> },
}

/// A batch pushed with a token.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) device: DeviceId,
    pub(crate) instance: u64,
    pub(crate) token: u32,
    pub(crate) outstanding: u32,
    pub(crate) failed: bool,
}

/// What happened to answers of the plugins and inputs of the edge that fit nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Oddities {
    /// Batches and events of instances that do not exist any more.
    pub(crate) late: u64,
    /// Of an instance that belongs to another plugin.
    pub(crate) foreign: u64,
    /// Unknown or repeated request numbers.
    pub(crate) unexpected: u64,
}

/// The end of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(busbar_contract::event::Done),
    Failed(busbar_contract::Failure),
    /// The last batch of a read; its points carry the number of the request.
    Samples,
    /// It never left the host.
    NotTaken {
        unsupported: bool,
    },
}
