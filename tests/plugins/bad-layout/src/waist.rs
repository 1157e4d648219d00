//! A copy of the waist with a difference, chosen by `cfg(waist)`:
//!
//! * `layout`: `Sample.point` is a u64;
//! * `newer`: the root module has a function more, after the last prefix field (accepted);
//! * `older`: the root module has a function less;
//! * `next`: no difference but the major version.
#![allow(non_local_definitions, non_camel_case_types, missing_docs, unreachable_pub, dead_code, clippy::all)]
#![allow(unsafe_code, reason = "the root symbol of a plugin without the SDK, and generated code")]

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::PrefixTypeTrait,
    sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, RErr, ROk, RResult, RSlice, RStr, RString, RVec},
};

#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct Sample {
    pub ts_ns: i64,
    pub bits: u64,
    #[cfg(not(waist = "layout"))]
    pub point: u32,
    #[cfg(waist = "layout")]
    pub point: u64,
    pub quality: u16,
    pub kind: u8,
    pub flags: u8,
}

#[repr(C)]
#[derive(StableAbi)]
pub struct Batch {
    pub id: u64,
    pub op: u32,
    pub flags: u32,
    pub samples: RVec<Sample>,
    pub blob: RVec<u8>,
}

#[repr(C)]
#[derive(StableAbi)]
pub struct Message {
    pub op: u32,
    pub req: u64,
    pub body: RVec<u8>,
}

#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct LogField<'a> {
    pub name: RStr<'a>,
    pub kind: u32,
    pub bits: u64,
    pub text: RStr<'a>,
}

#[repr(C)]
#[derive(StableAbi, Copy, Clone)]
pub struct LogRecord<'a> {
    pub level: u32,
    pub line: u32,
    pub device: u32,
    pub target: RStr<'a>,
    pub file: RStr<'a>,
    pub message: RStr<'a>,
    pub fields: RSlice<'a, LogField<'a>>,
}

#[sabi_trait]
pub trait Host: Send + Sync {
    fn push(&self, inst: u64, batch: Batch) -> u32;
    fn event(&self, inst: u64, msg: Message) -> u32;
    #[sabi(last_prefix_field)]
    fn log(&self, inst: u64, rec: &LogRecord<'_>);
}

#[sabi_trait]
pub trait Instance: Send + Sync {
    fn submit(&self, msg: Message) -> u32;
    fn deliver(&self, batch: Batch) -> u32;
    #[sabi(last_prefix_field)]
    fn stop(&self, deadline_ms: u64);
}

pub type HostBox = Host_TO<'static, RBox<()>>;
pub type InstanceBox = Instance_TO<'static, RBox<()>>;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = Module_Ref, prefix_fields = Module_Prefix)))]
pub struct Module {
    pub describe: extern "C" fn() -> RString,
    pub init: extern "C" fn(host: HostBox, options_json: RStr<'_>) -> RResult<(), RString>,
    pub open: extern "C" fn(inst: u64, config_json: RStr<'_>) -> RResult<InstanceBox, RString>,
    #[cfg_attr(waist = "older", sabi(last_prefix_field))]
    pub control: extern "C" fn(op: u32, body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString>,
    #[cfg(not(waist = "older"))]
    #[sabi(last_prefix_field)]
    pub shutdown: extern "C" fn(deadline_ms: u64) -> bool,
    #[cfg(waist = "newer")]
    pub later: extern "C" fn(u32) -> u32,
}

impl RootModule for Module_Ref {
    declare_root_module_statics! {Module_Ref}
    const BASE_NAME: &'static str = "busbar";
    const NAME: &'static str = "busbar";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

extern "C" fn describe() -> RString {
    let text = concat!(
        r#"{"name":"NAME","kind":"driver","version":"0.1.0","sdk":"none","unwind":true,"#,
        r#""protocol":{"major":1,"minor":0}}"#
    );
    text.replace("NAME", super::NAME).into()
}

extern "C" fn init(_host: HostBox, _options: RStr<'_>) -> RResult<(), RString> {
    ROk(())
}

extern "C" fn open(_inst: u64, _config: RStr<'_>) -> RResult<InstanceBox, RString> {
    RErr("offers no instances".into())
}

extern "C" fn control(_op: u32, _body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
    RErr("offers no control".into())
}

#[cfg(not(waist = "older"))]
extern "C" fn shutdown(_deadline_ms: u64) -> bool {
    true
}

#[cfg(waist = "newer")]
extern "C" fn later(number: u32) -> u32 {
    number
}

fn root() -> Module_Ref {
    Module {
        describe,
        init,
        open,
        control,
        #[cfg(not(waist = "older"))]
        shutdown,
        #[cfg(waist = "newer")]
        later,
    }
    .leak_into_prefix()
}

extern "C" fn erased() -> RootModuleResult {
    __call_root_module_loader(root)
}

// SAFETY: the name is abi_stable's; the constructor returns a `Module_Ref` of this waist.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader =
    unsafe { LibHeader::from_constructor::<Module_Ref>(erased, CheckTypeLayout::Yes) };
