//! The frozen waist between the Busbar host and its plugins: **ABI 1**.
//!
//! This crate is never edited after its first release. abi_stable compares the layout of every type named
//! here when a plugin is loaded, and it rejects a host that is newer than the plugin for every kind of additive
//! change. Everything that will evolve therefore travels *inside* this waist, as op codes with bytes
//! ([`Message`]) and plain samples ([`Batch`]); their meaning is in `busbar-contract`.
//!
//! Rules that are part of ABI 1 (numbers as in ARCHITECTURE.md):
//!
//! * R1 `push` and `event` of one instance form one sequence and are handled in that order.
//! * R2 No call is made from inside a call of the other side; calls only enqueue and return. No lock is held across.
//! * R3 Instance and point numbers are given by the host and never used twice in a process.
//! * R4 Every `submit` that returned [`ACCEPTED`] gets exactly one completion, also after cancel, panic and stop.
//! * R5 `open` only parses; the result is an event. STOPPED is the last event of an instance.
//! * R6 `control` never blocks and never touches the plugin's runtime; `shutdown` runs on a thread of its own.
//! * R7 Dropping an instance only releases memory.
//! * R8 The receiver checks every offset, length and UTF-8.
//! * R9 What is dropped may be history, never the present.
#![allow(non_local_definitions, non_camel_case_types, missing_docs, unsafe_code, clippy::all)]

use abi_stable::{
    StableAbi, declare_root_module_statics, package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, RResult, RSlice, RStr, RString, RVec},
};

pub use abi_stable;

/// Version of this waist; packages depend on `busbar-abi-1`.
pub const ABI: u32 = 1;

/// Answer of a non-blocking call: taken.
pub const ACCEPTED: u32 = 0;
/// Taken, but the receiver's queue is filling: slow down.
pub const CONGESTED: u32 = 1;
/// Not taken: queue full, or the instance is stopped.
pub const REFUSED: u32 = 2;
/// The receiver does not know this operation.
pub const UNSUPPORTED: u32 = 3;

/// One value of one point. Meaning of `quality`, `kind`, `flags`: `busbar-contract`.
#[repr(C)]
#[derive(StableAbi, Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Source time, nanoseconds since 1970-01-01 UTC.
    pub ts_ns: i64,
    /// The value itself, or `offset << 32 | length` into the batch's blob.
    pub bits: u64,
    /// Point number given by the host.
    pub point: u32,
    /// Quality bit set.
    pub quality: u16,
    /// How to read `bits`.
    pub kind: u8,
    /// Cause and marks.
    pub flags: u8,
}

/// Samples that belong together, with one arena for texts and bytes.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Batch {
    /// push: the request this answers, 0 = unsolicited. deliver: record number of `samples[0]`.
    pub id: u64,
    /// push: commit token, 0 = none. deliver: lane.
    pub op: u32,
    /// Bit set, see `busbar_contract::batch`.
    pub flags: u32,
    /// The samples, in order.
    pub samples: RVec<Sample>,
    /// Arena that text, bytes and JSON samples point into.
    pub blob: RVec<u8>,
}

/// A request or an event.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Message {
    /// Operation code, see `busbar_contract::op`.
    pub op: u32,
    /// Request number; 0 where nothing is asked or answered.
    pub req: u64,
    /// JSON, or the binary form named at the operation.
    pub body: RVec<u8>,
}

/// One typed field of a log record.
#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct LogField<'a> {
    pub name: RStr<'a>,
    /// 0 text, 1 bool, 2 int64, 3 uint64, 4 float64.
    pub kind: u32,
    pub bits: u64,
    pub text: RStr<'a>,
}

/// One log record of a plugin.
#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct LogRecord<'a> {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    pub line: u32,
    /// Device number within the instance, or `u32::MAX`.
    pub device: u32,
    pub target: RStr<'a>,
    pub file: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, LogField<'a>>,
}

/// What a plugin may call. Implemented by the core, and by a worker's socket writer.
#[sabi_trait]
pub trait Host: Send + Sync {
    /// Never blocks.
    fn push(&self, inst: u64, batch: Batch) -> u32;
    /// Completion, state, acknowledgement, metric, ...; never blocks.
    fn event(&self, inst: u64, msg: Message) -> u32;
    /// Never blocks.
    #[sabi(last_prefix_field)]
    fn log(&self, inst: u64, rec: &LogRecord<'_>);
}

/// One endpoint with its devices, or one sink.
#[sabi_trait]
pub trait Instance: Send + Sync {
    /// Connect, read, command, browse, ...; answered by push or event.
    fn submit(&self, msg: Message) -> u32;
    /// Sinks: host to plugin.
    fn deliver(&self, batch: Batch) -> u32;
    /// Answered by the event STOPPED.
    #[sabi(last_prefix_field)]
    fn stop(&self, deadline_ms: u64);
}

/// The host as a plugin sees it.
pub type HostBox = Host_TO<'static, RBox<()>>;
/// An instance as the host sees it.
pub type InstanceBox = Instance_TO<'static, RBox<()>>;

/// The one root module of every plugin, driver or sink.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = Module_Ref, prefix_fields = Module_Prefix)))]
pub struct Module {
    /// JSON: `busbar_contract::describe::Describe`.
    pub describe: extern "C" fn() -> RString,
    /// Starts the plugin's runtime. May be called again after `shutdown`.
    pub init: extern "C" fn(host: HostBox, options_json: RStr<'_>) -> RResult<(), RString>,
    /// Parses the configuration and makes an instance.
    pub open: extern "C" fn(inst: u64, config_json: RStr<'_>) -> RResult<InstanceBox, RString>,
    /// Pure questions about the plugin, and switches.
    pub control: extern "C" fn(op: u32, body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString>,
    /// Stops the runtime; true when everything ended in time.
    #[sabi(last_prefix_field)]
    pub shutdown: extern "C" fn(deadline_ms: u64) -> bool,
}

impl abi_stable::library::RootModule for Module_Ref {
    declare_root_module_statics! {Module_Ref}
    const BASE_NAME: &'static str = "busbar";
    const NAME: &'static str = "busbar";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

const _: () = {
    assert!(core::mem::size_of::<Sample>() == 24);
    assert!(core::mem::align_of::<Sample>() == 8);
    assert!(core::mem::size_of::<RVec<u8>>() == 32);
    assert!(core::mem::size_of::<Batch>() == 80);
    assert!(core::mem::size_of::<Message>() == 48);
};
