//! The plugin's side of the ABI: [`export_driver!`], [`export_sink!`] and what they expand to.
//!
//! The macros write the static that the loader looks for themselves, because abi_stable's own attribute would make it a
//! dependency of every plugin. Everything that must be known about the *plugin's* crate (its version, its panic strategy)
//! is expanded there and handed over as [`Build`].

use std::marker::PhantomData;

use busbar_abi::abi_stable::sabi_trait::TD_Opaque;
use busbar_abi::abi_stable::std_types::{RErr, ROk, RResult, RSlice, RStr, RString, RVec};
use busbar_abi::{HostBox, InstanceBox};
use busbar_contract::{
    CheckInput, Describe, PROTOCOL, Problem,
    describe::{Open, PluginKind, Schemas, SinkTraits},
    op,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{
    Check, CheckPoint, Driver, Link, PointList, Sink, SinkCheck, SinkContext, check,
    guard::guard,
    runtime::{self, Handle, driver::DriverEngine, sink::SinkEngine},
    time, trace,
};

/// Stamp of the SDK's sources and compiler, part of `describe.build`.
pub const SDK_BUILD: &str = env!("BUSBAR_SDK_BUILD");

/// What only the plugin's own crate knows.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// `CARGO_PKG_VERSION` of the plugin.
    pub version: &'static str,
    /// Built with panic = "unwind".
    pub unwind: bool,
    /// `BUSBAR_BUILD` of the build's environment.
    pub stamp: Option<&'static str>,
}

impl Build {
    /// `describe.build`: the SDK's stamp, and the builder's own where there is one.
    #[must_use]
    pub fn text(&self) -> String {
        match self.stamp {
            Some(stamp) => format!("{SDK_BUILD} {stamp}"),
            None => SDK_BUILD.to_owned(),
        }
    }
}

/// Requests that a driver serves.
const DRIVER_REQUESTS: [u32; 15] = {
    use op::request as r;
    [
        r::CONNECT,
        r::DISCONNECT,
        r::ATTACH,
        r::DETACH,
        r::BIND,
        r::READ,
        r::SUBSCRIBE,
        r::UNSUBSCRIBE,
        r::PROBE,
        r::COMMAND,
        r::BROWSE,
        r::BLOCK_READ,
        r::BLOCK_WRITE,
        r::COMMITTED,
        r::FRAME_LOG,
    ]
};
/// Requests that a sink serves.
const SINK_REQUESTS: [u32; 4] =
    [op::request::CONNECT, op::request::DISCONNECT, op::request::PROBE, op::request::POINTS];
/// Requests that the SDK itself serves for both.
const BOTH: [u32; 2] = [op::request::CANCEL, op::request::ANSWER];

/// What an exported type is to the glue.
pub trait Plugin: 'static {
    /// Its name, for the runtime's threads.
    const NAME: &'static str;
    /// See [`Describe`].
    fn describe(build: &Build) -> Describe;
    /// Opens an instance.
    fn open(inst: u64, config: &str) -> Result<InstanceBox, String>;
    /// ENDPOINT as JSON.
    fn endpoint(connection: &Json) -> Result<Json, String>;
    /// CHECK.
    fn check(input: &CheckInput) -> Vec<Problem>;
    /// SELF_TEST.
    fn self_test() -> Result<(), String>;
}

/// The glue of a driver.
pub struct DriverPlugin<D>(PhantomData<D>);
/// The glue of a sink.
pub struct SinkPlugin<S>(PhantomData<S>);

fn schema<T: JsonSchema>() -> Json {
    let generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

fn described(build: &Build, name: &str, description: &str, kind: PluginKind, requests: &[u32]) -> Describe {
    let events = op::ALL.iter().filter(|code| **code > 100);
    Describe {
        name: name.to_owned(),
        kind,
        version: build.version.to_owned(),
        description: description.to_owned(),
        protocol: PROTOCOL,
        needs: 0,
        sdk: env!("CARGO_PKG_VERSION").to_owned(),
        rustc: env!("BUSBAR_RUSTC").to_owned(),
        build: build.text(),
        unwind: build.unwind,
        ops: requests.iter().chain(&BOTH).chain(events).copied().collect(),
        schemas: Schemas::default(),
        reasons: Vec::new(),
        sink: SinkTraits::default(),
    }
}

fn boxed(handle: Handle) -> InstanceBox {
    busbar_abi::Instance_TO::from_value(handle, TD_Opaque)
}

fn open_body(config: &str) -> Result<Open, String> {
    serde_json::from_str(config).map_err(|error| format!("open: expected a JSON object with `kind`: {error}"))
}

impl<D: Driver> Plugin for DriverPlugin<D> {
    const NAME: &'static str = D::NAME;

    fn describe(build: &Build) -> Describe {
        let mut describe = described(build, D::NAME, D::DESCRIPTION, PluginKind::Driver, &DRIVER_REQUESTS);
        describe.schemas.connection = schema::<D::Connection>();
        describe.schemas.device = schema::<D::Settings>();
        describe.schemas.point = schema::<D::Point>();
        describe
    }

    fn open(inst: u64, config: &str) -> Result<InstanceBox, String> {
        let Open::Driver { connection, .. } = open_body(config)? else {
            return Err("open: expected a driver's configuration, found a sink's".to_owned());
        };
        let engine = move |shared| {
            check::parse_or_text::<D::Connection>("/connection", &connection)?;
            Ok(DriverEngine::<D>::new(inst, shared))
        };
        runtime::open(inst, engine, &DRIVER_REQUESTS).map(boxed)
    }

    fn endpoint(connection: &Json) -> Result<Json, String> {
        let connection = check::parse_or_text::<D::Connection>("/connection", connection)?;
        serde_json::to_value(D::endpoint(&connection)).map_err(|error| error.to_string())
    }

    fn check(input: &CheckInput) -> Vec<Problem> {
        let (connection, mut problems) = check::parse::<D::Connection>("/connection", &input.connection);
        let (settings, more) = check::parse::<D::Settings>("/device", &runtime::or_table(&input.device));
        problems.extend(more);
        let mut parsed = Vec::new();
        for (index, point) in input.points.iter().enumerate() {
            let pointer = format!("/points/{index}");
            let (spec, more) = check::parse::<D::Point>(&pointer, &runtime::driver_keys(point));
            problems.extend(more);
            parsed.extend(spec.map(|spec| (pointer, point, spec)));
        }
        let points = parsed
            .iter()
            .map(|(pointer, point, spec)| CheckPoint {
                pointer: pointer.clone(),
                name: point.get("name").and_then(Json::as_str).unwrap_or_default().to_owned(),
                writable: point.get("writable").and_then(Json::as_bool).unwrap_or_default(),
                spec,
            })
            .collect();
        problems.extend(D::check(&Check {
            connection: connection.as_ref(),
            settings: settings.as_ref(),
            points,
        }));
        problems
    }

    fn self_test() -> Result<(), String> {
        D::self_test()
    }
}

impl<S: Sink> Plugin for SinkPlugin<S> {
    const NAME: &'static str = S::NAME;

    fn describe(build: &Build) -> Describe {
        let mut describe = described(build, S::NAME, S::DESCRIPTION, PluginKind::Sink, &SINK_REQUESTS);
        describe.schemas.settings = schema::<S::Settings>();
        describe.schemas.map = schema::<S::Map>();
        describe.reasons = [""].iter().chain(S::REASONS).map(|text| (*text).to_owned()).collect();
        describe.sink = S::traits();
        describe
    }

    fn open(inst: u64, config: &str) -> Result<InstanceBox, String> {
        let Open::Sink { name, host, settings, bad_value, test } = open_body(config)? else {
            return Err("open: expected a sink's configuration, found a driver's".to_owned());
        };
        let engine = move |shared| {
            let settings = check::parse_or_text("/settings", &runtime::or_table(&settings))?;
            let ctx = SinkContext { shared };
            let link = Link { name, host, settings, bad_value, test, points: PointList::default(), ctx };
            Ok(SinkEngine::<S>::new(inst, link))
        };
        runtime::open(inst, engine, &SINK_REQUESTS).map(boxed)
    }

    fn endpoint(_: &Json) -> Result<Json, String> {
        Err("ENDPOINT: expected a driver, found a sink".to_owned())
    }

    fn check(input: &CheckInput) -> Vec<Problem> {
        let (settings, mut problems) =
            check::parse::<S::Settings>("/settings", &runtime::or_table(&input.settings));
        let mut parsed = Vec::new();
        for (index, entry) in input.map.iter().enumerate() {
            let pointer = format!("/map/{index}");
            let (entry, more) = check::parse::<S::Map>(&pointer, entry);
            problems.extend(more);
            parsed.extend(entry.map(|entry| (pointer, entry)));
        }
        let map = parsed.iter().map(|(pointer, entry)| (pointer.clone(), entry)).collect();
        problems.extend(S::check(&SinkCheck { settings: settings.as_ref(), map, routed: &input.routed }));
        problems
    }

    fn self_test() -> Result<(), String> {
        S::self_test()
    }
}

/// Body of `Module::describe`.
pub fn describe<P: Plugin>(build: &Build) -> RString {
    let describe = guard(|| serde_json::to_string(&P::describe(build)));
    match describe {
        Ok(Ok(text)) => text.into(),
        Ok(Err(error)) => json!({ "error": error.to_string() }).to_string().into(),
        Err(panic) => json!({ "error": panic }).to_string().into(),
    }
}

/// Body of `Module::init`.
pub fn init<P: Plugin>(host: HostBox, options: RStr<'_>) -> RResult<(), RString> {
    flat(guard(|| runtime::init(P::NAME, host, options.as_str())))
}

/// Body of `Module::open`.
pub fn open<P: Plugin>(inst: u64, config: RStr<'_>) -> RResult<InstanceBox, RString> {
    flat(guard(|| P::open(inst, config.as_str())))
}

/// Body of `Module::control`.
pub fn control<P: Plugin>(code: u32, body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
    flat(guard(|| answer::<P>(code, body.as_slice()).map(Into::into)))
}

/// Body of `Module::shutdown`.
pub fn shutdown(deadline_ms: u64) -> bool {
    guard(|| runtime::shutdown(deadline_ms)).unwrap_or(false)
}

fn flat<T>(result: Result<Result<T, String>, String>) -> RResult<T, RString> {
    match result {
        Ok(Ok(value)) => ROk(value),
        Ok(Err(text)) => RErr(text.into()),
        Err(panic) => RErr(format!("bug in the plugin, panic: {panic}").into()),
    }
}

fn answer<P: Plugin>(code: u32, body: &[u8]) -> Result<Vec<u8>, String> {
    /// Body of CLOCK.
    #[derive(Deserialize)]
    struct Clock {
        #[serde(default)]
        offset_ns: i64,
        #[serde(default = "one")]
        speed: f64,
    }
    const fn one() -> f64 {
        1.0
    }
    use op::control as c;
    let text = |value: Json| value.to_string().into_bytes();
    match code {
        c::ENDPOINT => P::endpoint(&read(body)?).map(text),
        c::CHECK => {
            let input: CheckInput = read(body)?;
            serde_json::to_vec(&P::check(&input)).map_err(|error| error.to_string())
        }
        c::LOG_LEVEL => {
            let level = std::str::from_utf8(body).map_err(|_| "log level: expected UTF-8 text".to_owned())?;
            trace::set_level(level).map(|()| Vec::new())
        }
        c::STATS => Ok(text(runtime::stats::json())),
        c::CLOCK => {
            let clock: Clock = read(body)?;
            time::set(clock.offset_ns, clock.speed).map(|()| Vec::new())
        }
        c::SELF_TEST => Ok(text(match P::self_test() {
            Ok(()) => json!({ "ok": true, "text": "" }),
            Err(problem) => json!({ "ok": false, "text": problem }),
        })),
        other => Err(format!("control: expected 201 to 206, found {other}")),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("control: expected the operation's JSON body: {error}"))
}

/// The names that `__export!` needs, so that a plugin depends on nothing else.
#[doc(hidden)]
pub mod names {
    pub use busbar_abi::abi_stable::{
        library::{__call_root_module_loader as call_root, CheckTypeLayout, LibHeader, RootModuleResult},
        prefix_type::PrefixTypeTrait,
        std_types::{RResult, RSlice, RStr, RString, RVec},
    };
    pub use busbar_abi::{HostBox, InstanceBox, Module, Module_Ref};

    pub use super::{Build, DriverPlugin, SinkPlugin, control, describe, init, open, shutdown};
}

/// Exports a [`Driver`] as the plugin of this crate (`crate-type = ["cdylib"]`). Once per crate.
#[macro_export]
macro_rules! export_driver {
    ($driver:ty) => {
        $crate::__export!($crate::__private::DriverPlugin<$driver>);
    };
}

/// Exports a [`Sink`] as the plugin of this crate (`crate-type = ["cdylib"]`). Once per crate.
#[macro_export]
macro_rules! export_sink {
    ($sink:ty) => {
        $crate::__export!($crate::__private::SinkPlugin<$sink>);
    };
}

/// What both macros expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty) => {
        const _: () = {
            use $crate::__private as p;

            const BUILD: p::Build = p::Build {
                version: ::core::env!("CARGO_PKG_VERSION"),
                unwind: ::core::cfg!(panic = "unwind"),
                stamp: ::core::option_env!("BUSBAR_BUILD"),
            };

            extern "C" fn describe() -> p::RString {
                p::describe::<$plugin>(&BUILD)
            }
            extern "C" fn init(host: p::HostBox, options: p::RStr<'_>) -> p::RResult<(), p::RString> {
                p::init::<$plugin>(host, options)
            }
            extern "C" fn open(inst: u64, config: p::RStr<'_>) -> p::RResult<p::InstanceBox, p::RString> {
                p::open::<$plugin>(inst, config)
            }
            extern "C" fn control(op: u32, body: p::RSlice<'_, u8>) -> p::RResult<p::RVec<u8>, p::RString> {
                p::control::<$plugin>(op, body)
            }
            extern "C" fn shutdown(deadline_ms: u64) -> bool {
                p::shutdown(deadline_ms)
            }
            fn root() -> p::Module_Ref {
                p::PrefixTypeTrait::leak_into_prefix(p::Module { describe, init, open, control, shutdown })
            }
            extern "C" fn loader() -> p::RootModuleResult {
                p::call_root(root)
            }

            // SAFETY: the name is abi_stable's own (the SDK tests that), used once per cdylib; `loader` returns the
            // erased form of the `Module_Ref` that the header is made for.
            #[allow(unsafe_code, missing_docs, unreachable_pub)]
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: p::LibHeader =
                unsafe { p::LibHeader::from_constructor::<p::Module_Ref>(loader, p::CheckTypeLayout::Yes) };
        };
    };
}

#[cfg(test)]
mod tests {
    use busbar_abi::abi_stable::library::ROOT_MODULE_LOADER_NAME;

    #[test]
    fn the_exported_name_is_the_one_the_loader_looks_for() {
        assert_eq!(ROOT_MODULE_LOADER_NAME, "_1as_0lib_1header_0root_bmodule_bloader");
        assert!(include_str!("export.rs").contains(&format!("export_name = \"{ROOT_MODULE_LOADER_NAME}\"")));
    }
}
