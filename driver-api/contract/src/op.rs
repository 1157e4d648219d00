//! Operation codes. Codes are never reused.

/// Requests, host to plugin (`Instance::submit`). Bodies: [`crate::request::Request`].
pub mod request {
    /// Bring one device (or the sink's far side) up.
    pub const CONNECT: u32 = 1;
    /// End the session of one device (or the sink's far side) in an orderly way.
    pub const DISCONNECT: u32 = 2;
    /// A device joins the endpoint.
    pub const ATTACH: u32 = 3;
    /// A device leaves the endpoint.
    pub const DETACH: u32 = 4;
    /// Points and read groups of a device.
    pub const BIND: u32 = 5;
    /// Read a bound group (binary body).
    pub const READ: u32 = 6;
    /// Ask the device to report points by itself.
    pub const SUBSCRIBE: u32 = 7;
    /// End the subscription.
    pub const UNSUBSCRIBE: u32 = 8;
    /// Cheap proof that the session lives.
    pub const PROBE: u32 = 9;
    /// Select, operate or cancel.
    pub const COMMAND: u32 = 10;
    /// What the device offers.
    pub const BROWSE: u32 = 11;
    /// Read points as one consistent unit.
    pub const BLOCK_READ: u32 = 12;
    /// Write points as one unit, commit point last.
    pub const BLOCK_WRITE: u32 = 13;
    /// Ask that a running request ends early.
    pub const CANCEL: u32 = 14;
    /// The fate of a batch pushed with a commit token.
    pub const COMMITTED: u32 = 15;
    /// Switch frame-level logging of a device.
    pub const FRAME_LOG: u32 = 16;
    /// Sinks: point list with metadata.
    pub const POINTS: u32 = 17;
    /// Answer to a request that the plugin made by an event (command, fetch, state).
    pub const ANSWER: u32 = 18;
}

/// Events, plugin to host (`Host::event`). Bodies: [`crate::event::Event`].
pub mod event {
    /// The instance accepted its configuration.
    pub const OPENED: u32 = 101;
    /// A session or the far side came up or went down by itself.
    pub const STATE: u32 = 102;
    /// A request succeeded.
    pub const DONE: u32 = 103;
    /// A request, or the instance (req 0), failed.
    pub const FAILED: u32 = 104;
    /// An intermediate stage of a request.
    pub const PROGRESS: u32 = 105;
    /// A part of a long answer (browse).
    pub const PAGE: u32 = 106;
    /// Sinks: verdicts on delivered records (binary body).
    pub const ACK: u32 = 107;
    /// Sinks: a command for a point.
    pub const COMMAND: u32 = 108;
    /// Sinks: a fresh read of points or of a block.
    pub const FETCH: u32 = 109;
    /// Sinks: write a block.
    pub const WRITE_BLOCK: u32 = 110;
    /// Put into the durable driver state.
    pub const STATE_PUT: u32 = 111;
    /// Read from the durable driver state.
    pub const STATE_GET: u32 = 112;
    /// What is known about points: unit, kind, texts.
    pub const METADATA: u32 = 113;
    /// Counters of the plugin.
    pub const METRIC: u32 = 114;
    /// Something the operator must know that ends nothing.
    pub const FAULT: u32 = 115;
    /// Samples of a device were lost before they reached the host.
    pub const GAP: u32 = 116;
    /// The runtime lives (instance 0).
    pub const HEARTBEAT: u32 = 117;
    /// Last event of an instance.
    pub const STOPPED: u32 = 118;
}

/// Operations of `Module::control`.
pub mod control {
    /// `connection` JSON -> [`crate::Endpoint`] JSON. Pure.
    pub const ENDPOINT: u32 = 201;
    /// [`crate::CheckInput`] JSON -> list of [`crate::Problem`] JSON. Pure.
    pub const CHECK: u32 = 202;
    /// Body: one of `error warn info debug trace` as text.
    pub const LOG_LEVEL: u32 = 203;
    /// -> counters as a JSON object.
    pub const STATS: u32 = 204;
    /// `{ "offset_ns", "speed" }`: shifts and speeds the SDK clock up, for tests.
    pub const CLOCK: u32 = 205;
    /// -> `{ "ok": bool, "text" }`.
    pub const SELF_TEST: u32 = 206;
}

/// Every request and event this version knows; the SDK announces them in `describe.ops`.
pub const ALL: [u32; 36] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 101, 102, 103, 104, 105, 106, 107, 108,
    109, 110, 111, 112, 113, 114, 115, 116, 117, 118,
];
