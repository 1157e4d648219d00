//! The resolved configuration: what the core runs. Plain data, no parsing, no files.
//!
//! `busbar-config` makes a [`Site`] from `plugins.toml`; the simulation and the tests make them directly. Every
//! default is already filled in, every glob is already a list, every template is already expanded.

use std::{sync::Arc, time::Duration};

use serde_json::Value as Json;

use crate::decimal::Decimal;

/// Everything one host runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Site {
    /// Keys of `[host]` that the core needs.
    pub host: Host,
    /// Every plugin named by a device, a sink or `[plugins.NAME]`.
    pub plugins: Vec<Plugin>,
    /// Devices, in the order of the configuration.
    pub devices: Vec<Device>,
    /// Sinks, in the order of the configuration.
    pub sinks: Vec<Sink>,
}

/// Keys of `[host]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Gateway id.
    pub name: String,
    /// Grid of the scheduler.
    pub tick: Duration,
    /// Devices of one driver that may resync at once.
    pub resync_parallel: u32,
    /// Whether commands start enabled; the persisted switch overrides it.
    pub commands: CommandMode,
    /// How long a selection lives without operate.
    pub select_timeout: Duration,
    /// What a reload changed must be able to run within this time, or it is rolled back.
    pub reload_timeout: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            name: "busbar".into(),
            tick: Duration::from_millis(20),
            resync_parallel: 20,
            commands: CommandMode::Enabled,
            select_timeout: Duration::from_secs(30),
            reload_timeout: Duration::from_secs(30),
        }
    }
}

/// The gateway-wide switch for commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandMode {
    /// Commands of writable points pass.
    Enabled,
    /// All commands are refused with `locked_out`.
    Locked,
}

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// In the host's process.
    InProcess,
    /// In a worker process.
    Process,
}

/// Driver or sink.
pub use busbar_contract::describe::PluginKind;

/// One plugin that must be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// `modbus`, `mqtt`, ...
    pub name: String,
    /// Driver or sink.
    pub kind: PluginKind,
    /// File instead of the search in `plugin_dirs`.
    pub path: Option<String>,
    /// Refuse any other file (hex).
    pub sha256: Option<String>,
    /// Where it runs.
    pub isolation: Isolation,
    /// Threads of its runtime.
    pub workers: usize,
    /// Most memory that its worker process may have, bytes (private writable memory).
    pub memory_limit: u64,
}

/// Default of [`Plugin::memory_limit`]: fourteen times what a Modbus worker with 200 devices and 10000 points has.
pub const MEMORY_LIMIT: u64 = 256 * 1024 * 1024;

/// One IED, meter or PLC.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Unique name.
    pub name: String,
    /// Name of the driver plugin.
    pub driver: String,
    /// The driver's `connection` table, secrets resolved.
    pub connection: Json,
    /// Further keys that belong to the driver.
    pub settings: Json,
    /// Default interval of its points.
    pub poll_interval: Duration,
    /// Of one exchange.
    pub response_timeout: Duration,
    /// Repetitions of an unanswered exchange.
    pub retries: u32,
    /// How often an idle session proves that it lives.
    pub probe_interval: Duration,
    /// Back-off between connection attempts.
    pub reconnect: Backoff,
    /// Integrity period asked of subscriptions; zero = none.
    pub integrity: Duration,
    /// A source time further off than this is replaced by the gateway's and flagged.
    pub max_skew: Option<Duration>,
    /// Use the gateway's time for every sample.
    pub gateway_time: bool,
    /// No session, no polling; points are `invalid|operator_blocked`.
    pub maintenance: bool,
    /// Its frames are logged from the start.
    pub frame_log: bool,
    /// False: configured, not connected; points as in maintenance.
    pub enabled: bool,
    /// `read = false`: connected, not polled; points as in maintenance.
    pub paused: bool,
    /// Outside: no session, no polling, points `questionable|operator_blocked`.
    pub active: Option<Active>,
    /// Its points.
    pub points: Vec<Point>,
    /// Its blocks.
    pub blocks: Vec<Block>,
    /// Free text.
    pub description: String,
    /// Labels for sinks and the API.
    pub labels: Vec<(String, String)>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: String::new(),
            connection: Json::Null,
            settings: Json::Null,
            poll_interval: Duration::from_secs(1),
            response_timeout: Duration::from_secs(3),
            retries: 0,
            probe_interval: Duration::from_secs(5),
            reconnect: Backoff::default(),
            integrity: Duration::from_secs(60),
            max_skew: None,
            gateway_time: false,
            maintenance: false,
            frame_log: false,
            enabled: true,
            paused: false,
            active: None,
            points: Vec::new(),
            blocks: Vec::new(),
            description: String::new(),
            labels: Vec::new(),
        }
    }
}

/// Active hours; see `hours`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// First minute of the day, 0 to 1439.
    pub from: u16,
    /// First minute that is not in the window, 0 to 1440; below `from`: of the next day. Never equal to `from`.
    pub to: u16,
    /// Days on which the window begins, Monday in the lowest bit.
    pub days: u8,
    /// Name in the time zone database.
    pub zone: String,
}

/// Exponential back-off with jitter, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First pause.
    pub initial: Duration,
    /// Longest pause.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(10) }
    }
}

/// One value of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Name within the device.
    pub name: String,
    /// `address`, `type` and further keys that belong to the driver, as a JSON object.
    pub spec: Arc<Json>,
    /// Label; never converts.
    pub unit: String,
    /// Factor on the device's value.
    pub scale: Decimal,
    /// Added after the factor.
    pub offset: Decimal,
    /// Swaps false/true and off/on.
    pub invert: bool,
    /// Outside: `questionable|out_of_range`.
    pub range: Option<[f64; 2]>,
    /// Commands outside are refused; default `range`.
    pub write_range: Option<[f64; 2]>,
    /// Smallest change that `send = "changes"` passes on.
    pub deadband: Deadband,
    /// Commands are allowed.
    pub writable: bool,
    /// Its own interval.
    pub poll_interval: Duration,
    /// Not refreshed for so long: `questionable|old_data`.
    pub stale_after: Duration,
    /// Not refreshed for so long: `invalid|old_data`.
    pub invalid_after: Duration,
    /// `class = "event"`: every change is an event whatever the kind.
    pub event: bool,
    /// Commands pass only while another point has this value, and is good.
    pub interlock: Option<Interlock>,
    /// Description, group, class, labels: metadata for sinks and the API.
    pub metadata: Arc<Json>,
}

impl Default for Point {
    fn default() -> Self {
        Self {
            name: String::new(),
            spec: Arc::default(),
            unit: String::new(),
            scale: Decimal::ONE,
            offset: Decimal::ZERO,
            invert: false,
            range: None,
            write_range: None,
            deadband: Deadband::None,
            writable: false,
            poll_interval: Duration::from_secs(1),
            stale_after: Duration::from_secs(3),
            invalid_after: Duration::from_secs(30),
            event: false,
            interlock: None,
            metadata: Arc::default(),
        }
    }
}

/// Smallest change worth sending, against the last value sent to that sink.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Deadband {
    /// Every change.
    #[default]
    None,
    /// In the point's unit (percentages of `range` are already converted).
    Absolute(f64),
}

/// A condition for commands.
#[derive(Debug, Clone, PartialEq)]
pub struct Interlock {
    /// `device/point`.
    pub point: String,
    /// Its value, JSON form.
    pub equals: Json,
}

/// Points read or written as one consistent unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Name within the device.
    pub name: String,
    /// Indices into the device's points.
    pub points: Vec<usize>,
    /// The block may be used only while this point has this value.
    pub gate: Option<(usize, Json)>,
    /// Written last.
    pub commit: Option<(usize, Json)>,
    /// Writing is allowed.
    pub writable: bool,
}

/// One consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    /// Unique name.
    pub name: String,
    /// Name of the sink plugin.
    pub plugin: String,
    /// The plugin's `settings` table, secrets resolved.
    pub settings: Json,
    /// What is passed on.
    pub send: Send,
    /// Which time is the record's.
    pub timestamp: Timestamp,
    /// `bad_value`: omit, null, last.
    pub bad_value: String,
    /// `test`: suppress, invalid, pass.
    pub test: String,
    /// Takes history records.
    pub history: bool,
    /// Longest silence of a point under `send = "changes"`; `None` = unlimited.
    pub max_silence: Option<Duration>,
    /// Bounds of its queue.
    pub queue: Queue,
    /// Pause between attempts to bring the far side up.
    pub reconnect: Backoff,
    /// The points it gets, with their map entries.
    pub routes: Vec<Route>,
    /// `@online` of every routed device and the system points it names.
    pub system: Vec<SystemRoute>,
    /// The sink may send commands.
    pub commands: bool,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            name: String::new(),
            plugin: String::new(),
            settings: Json::Null,
            send: Send::Every,
            timestamp: Timestamp::Source,
            bad_value: "last".into(),
            test: "invalid".into(),
            history: false,
            max_silence: None,
            queue: Queue::default(),
            reconnect: Backoff::default(),
            routes: Vec::new(),
            system: Vec::new(),
            commands: false,
        }
    }
}

/// The sink key `send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// Every sample read.
    Every,
    /// Value beyond deadband, or quality.
    Changes,
    /// The latest of each point once per period.
    Interval(Duration),
}

/// The sink key `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamp {
    /// Source time.
    Source,
    /// Time of arrival where the source time is a time of change and the sample is not a data change.
    Received,
}

/// Bytes counted per record beside its sample and text.
pub const RECORD_OVERHEAD: u64 = 24;

/// When a transaction of a queue on disk counts as written (`queue.sync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Synced: survives loss of power.
    Commit,
    /// Handed to the kernel, synced with each checkpoint: survives kill -9.
    Checkpoint,
}

/// Order of backlog and live records (`queue.order`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Live records follow the backlog.
    Fifo,
    /// Live records at once, the backlog beside them, flagged as replay.
    LiveFirst,
}

/// The queue of a sink: its form, its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Disk form: a record leaves the disk only when it ended. Otherwise memory form.
    pub on_disk: bool,
    /// Most bytes waiting or unconfirmed. Memory form: 24 per sample, its text, and [`crate::model::RECORD_OVERHEAD`];
    /// disk form: bytes in the file.
    pub max_bytes: u64,
    /// Oldest record kept.
    pub max_age: Duration,
    /// Most records delivered and not yet confirmed.
    pub in_flight: usize,
    /// Pause after a `retry` verdict.
    pub retry: Backoff,
    /// Disk form: a transaction leaves at the latest so long after its first record.
    pub flush_every: Duration,
    /// Disk form: a transaction leaves at the latest with so many records.
    pub flush_records: usize,
    /// Disk form: what counts as written.
    pub sync: Sync,
    /// Backlog and live records.
    pub order: Order,
    /// Disk form: most records of the backlog delivered per second; `None` = as fast as they are confirmed.
    pub replay_rate: Option<u32>,
    /// Disk form: most records held in memory for delivery.
    pub window: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            on_disk: false,
            max_bytes: 256 << 20,
            max_age: Duration::from_secs(7 * 86_400),
            in_flight: 5_000,
            retry: Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) },
            flush_every: Duration::from_millis(50),
            flush_records: 1_000,
            sync: Sync::Commit,
            order: Order::Fifo,
            replay_rate: None,
            window: 20_000,
        }
    }
}

/// A point that goes to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Index into [`Site::devices`].
    pub device: usize,
    /// Index into [`Device::points`].
    pub point: usize,
    /// The sink's map entries for it.
    pub map: Vec<Json>,
}

/// A system point that goes to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemRoute {
    /// `DEVICE/@online`, `@host/clock_synced`, `@sink/NAME/pending`, ...
    pub name: String,
    /// The sink's map entries for it.
    pub map: Vec<Json>,
}
