//! What a plugin says about itself, and the pure questions the host may ask it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Version of the operations: a host serves every minor of its major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Incompatible changes.
    pub major: u32,
    /// Additions.
    pub minor: u32,
}

/// Driver or sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginKind {
    /// Towards devices.
    Driver,
    /// Towards SCADA, brokers, ERP, EMS.
    Sink,
}

impl PluginKind {
    /// `driver` or `sink`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Sink => "sink",
        }
    }
}

/// Answer of `Module::describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Describe {
    /// `modbus`, `mqtt`, ...
    pub name: String,
    /// Driver or sink.
    pub kind: PluginKind,
    /// Version of the plugin.
    pub version: String,
    /// One sentence for `busbar plugins`.
    #[serde(default)]
    pub description: String,
    /// Version of the operations it was built with.
    pub protocol: Protocol,
    /// Lowest minor of the host it can work with.
    #[serde(default)]
    pub needs: u32,
    /// Version of the SDK.
    pub sdk: String,
    /// Compiler.
    #[serde(default)]
    pub rustc: String,
    /// Stamp of this build: tests refuse stale plugins by it.
    #[serde(default)]
    pub build: String,
    /// Built with panic = "unwind"; anything else is refused.
    pub unwind: bool,
    /// Operations it knows.
    #[serde(default)]
    pub ops: Vec<u32>,
    /// JSON Schemas (draft 2020-12).
    #[serde(default)]
    pub schemas: Schemas,
    /// Texts of the reason codes in ACK; index 0 = none.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Sinks: what the host must know to feed it.
    #[serde(default)]
    pub sink: SinkTraits,
}

/// The JSON Schemas a plugin exports; absent ones are `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schemas {
    /// Driver: the `connection` table.
    pub connection: Json,
    /// Driver: `address`, `type` and further keys of a point.
    pub point: Json,
    /// Driver: further keys of a device (e.g. `history`).
    pub device: Json,
    /// Sink: the `settings` table.
    pub settings: Json,
    /// Sink: one entry of `map`.
    pub map: Json,
}

/// How a sink wants to be fed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkTraits {
    /// Default of the sink key `send`: every, changes.
    pub send: String,
    /// Default of `bad_value`: omit, null, last.
    pub bad_value: String,
    /// Default of `timestamp`: source, received.
    pub timestamp: String,
    /// Takes history records by default.
    pub history: bool,
    /// Its queue may live on disk.
    pub durable: bool,
    /// Only points named in `map` are routed.
    pub needs_map: bool,
}

impl Default for SinkTraits {
    fn default() -> Self {
        Self {
            send: "every".into(),
            bad_value: "last".into(),
            timestamp: "source".into(),
            history: false,
            durable: false,
            needs_map: false,
        }
    }
}

/// The shared channel under one or more devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Equal keys share one owner, over all plugins: `tcp:10.0.0.5:502`, `serial:/dev/ttyS0`.
    pub key: String,
    /// Only one connection at a time is possible: closed before it is opened again.
    #[serde(default)]
    pub exclusive: bool,
    /// Requests that may run at once; 1 = strictly serial.
    #[serde(default = "one")]
    pub parallel: u32,
    /// Lock file in the UUCP style under which other programs claim a local device. The driver that opens the device
    /// looks at it and locks the device itself (`flock`, `TIOCEXCL`): only that holds in every process it may run in. The
    /// host shows the name and touches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_path: Option<String>,
}

const fn one() -> u32 {
    1
}

impl Endpoint {
    /// An endpoint that is strictly serial, may be opened again before it was closed, and locks no file.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), exclusive: false, parallel: 1, lock_path: None }
    }

    /// Only one connection at a time is possible.
    #[must_use]
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Names the lock file of the local device, see [`Endpoint::lock_path`].
    #[must_use]
    pub fn locked_by(mut self, path: impl Into<String>) -> Self {
        self.lock_path = Some(path.into());
        self
    }
}

/// Keys of a point that belong to the host. In [`CheckInput::points`] and in `BindPoint::spec` the SDK takes them away
/// before the driver reads the rest, so a driver's point type names only its own keys (`address`, `type`, ...).
pub const HOST_POINT_KEYS: [&str; 20] = [
    "name",
    "enabled",
    "unit",
    "scale",
    "offset",
    "invert",
    "range",
    "write_range",
    "deadband",
    "decimals",
    "writable",
    "poll_interval",
    "stale_after",
    "invalid_after",
    "interlock",
    "class",
    "description",
    "group",
    "labels",
    "repeat",
];

/// Input of CHECK: one device, or one sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckInput {
    /// Driver: the `connection` table.
    pub connection: Json,
    /// Driver: further keys of the device that belong to the driver.
    pub device: Json,
    /// Driver: the points, each `{ name, address, type, writable, ... }`.
    pub points: Vec<Json>,
    /// Sink: the `settings` table.
    pub settings: Json,
    /// Sink: the entries of `map`.
    pub map: Vec<Json>,
    /// Sink: names of the routed points.
    pub routed: Vec<String>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The configuration can run.
    Warning,
    /// The configuration must not run.
    Error,
}

/// One problem in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// JSON pointer into [`CheckInput`]: `/connection/port`, `/points/3/address`.
    pub pointer: String,
    /// What was expected.
    pub expected: String,
    /// What was found; never a secret.
    pub found: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Warning or error.
    pub severity: Severity,
}

impl Problem {
    /// An error at `pointer`.
    pub fn error(pointer: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            expected: expected.into(),
            found: found.into(),
            hint: String::new(),
            severity: Severity::Error,
        }
    }

    /// A warning at `pointer`.
    pub fn warning(
        pointer: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(pointer, expected, found) }
    }

    /// With advice what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Options of `Module::init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitOptions {
    /// Worker threads of the plugin's runtime.
    pub workers: usize,
    /// `error warn info debug trace`.
    pub log_level: String,
    /// Minor of the host's protocol.
    pub host_minor: u32,
    /// Expendable large files of this plugin.
    pub cache_dir: String,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { workers: 1, log_level: "info".into(), host_minor: 0, cache_dir: String::new() }
    }
}

/// Configuration of `Module::open`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Open {
    /// One endpoint; devices follow by ATTACH.
    Driver {
        /// Key of the endpoint, for logs.
        endpoint: String,
        /// The `connection` of the first device.
        connection: Json,
    },
    /// One sink.
    Sink {
        /// Name of the sink.
        name: String,
        /// Name of the gateway.
        host: String,
        /// The `settings` table.
        settings: Json,
        /// `bad_value`: omit, null, last.
        bad_value: String,
        /// `test`: suppress, invalid, pass.
        test: String,
    },
}
