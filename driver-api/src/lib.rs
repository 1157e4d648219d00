//! SDK for Busbar drivers and sinks.
//!
//! A plugin is one `.so` with one exported type: a [`Driver`] (towards devices) or a [`Sink`] (towards SCADA, brokers,
//! ERP, EMS). It depends on this crate, `serde` and `schemars` only; the ABI, the runtime, deadlines, panics, logs,
//! configuration errors and JSON Schemas are handled here. `driver-api/README.md` shows a whole driver.
//!
//! ```text
//! host  --submit/deliver-->  bounded queue  -->  one task per instance  -->  your &mut self
//! host  <--push/event------  bounded outbox <--  (deadlines, panics, R1-R9)  <--  Context, Readings
//! ```

mod check;
mod context;
mod driver;
mod error;
mod export;
mod guard;
mod reading;
mod runtime;
mod secret;
mod sink;
pub mod time;
mod trace;

pub use busbar_contract as contract;
pub use busbar_contract::{
    Action, Answer, Cause, Endpoint, FailureKind, Flags, Kind, Origin, Problem, Quality, Reason, Severity,
    Stage, Validity, Value,
    binary::Verdict,
    describe::SinkTraits,
    event::{SinkCommand, WriteBlock},
    request::{AnswerTo, PointValue},
};
pub use context::{Answers, Context, Fetched, Pages, Progress, SinkContext};
pub use driver::{
    BlockWrite, BoundPoint, Check, CheckPoint, Command, Config, Device, Driver, Group, NoSettings, Plan,
    PointInfo, Subscription,
};
pub use error::{Error, Result};
pub use export::SDK_BUILD;
pub use guard::guard;
pub use reading::{Reading, Readings, Update};
pub use secret::Secret;
pub use sink::{Delivery, Link, PointList, PointsChange, Record, RoutedPoint, Sink, SinkCheck};
pub use {schemars, serde_json, tokio, tracing};

#[doc(hidden)]
pub use export::names as __private;

/// Runs code that blocks (a file, a C library) on a thread of its own, so that the plugin's only worker stays free.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(|error| Error::bug(format!("blocking code: {error}")))
}
