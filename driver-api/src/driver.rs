//! The [`Driver`] trait: one value is the live session of one endpoint.
//!
//! The SDK calls its methods one after another, never two at once, from one task; so a driver needs no locks. It keeps
//! every deadline: a call that is not back in time is dropped, and because nobody knows what the peer will still answer, the
//! session is dropped with it. A panic ends the session, not the instance.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use busbar_contract::{Action, Answer, Cause, Endpoint, Origin, Problem, Value};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Context, Error, Pages, Progress, Readings, Result, Update};

/// Something the SDK reads from configuration and exports as JSON Schema. Implemented for every suitable type.
pub trait Config: DeserializeOwned + JsonSchema + Send + Sync + 'static {}
impl<T: DeserializeOwned + JsonSchema + Send + Sync + 'static> Config for T {}

/// A driver: towards devices. See the README for a whole one.
///
/// Futures must be `Send`; writing the methods as `async fn` is enough.
pub trait Driver: Sized + Send + 'static {
    /// The word in `driver = "..."`; the file is `libbusbar_driver_NAME.so`.
    const NAME: &'static str;
    /// One sentence for `busbar plugins`.
    const DESCRIPTION: &'static str = "";

    /// The `connection` table of a device. Use `deny_unknown_fields`; use [`crate::Secret`] for passwords and keys.
    type Connection: Config + Clone;
    /// Further keys of a device that belong to this driver; [`NoSettings`] for none.
    type Settings: Config + Clone;
    /// `address`, `type` and further keys of a point that belong to this driver.
    type Point: Config;
    /// How the points of one group are read; `()` for none.
    type Plan: Plan;

    /// The shared channel that `connection` names. Pure: also called in the probe process, without a session.
    fn endpoint(connection: &Self::Connection) -> Endpoint;

    /// Problems beyond types and names, all at once. Pure: no file, no socket. What serde refuses is reported already.
    fn check(input: &Check<'_, Self>) -> Vec<Problem> {
        let _ = input;
        Vec::new()
    }

    /// Makes the plan of one group. Called once per bound group; the plan survives reconnects, so it may learn.
    fn plan(connection: &Self::Connection, points: &[BoundPoint<Self>]) -> Self::Plan;

    /// Opens the channel for the first device that connects. The driver may keep clones of `device.ctx` and
    /// `device.connection`. All work on the peer before this call's return counts to the device's deadline.
    fn open(device: &Device<Self>) -> impl Future<Output = Result<Self>> + Send;

    /// Brings one device up, also the first, right after [`Driver::open`]. What the peer says about itself (model,
    /// firmware) may be returned as text.
    fn connect(&mut self, device: &Device<Self>) -> impl Future<Output = Result<String>> + Send {
        let _ = device;
        async { Ok(String::new()) }
    }

    /// Reads every point of the group: a value or a refusal into each slot of `out`, in any order. Slots left alone
    /// become `invalid|failure`. An error discards `out`.
    fn read(
        &mut self,
        group: &mut Group<'_, Self>,
        out: &mut Readings,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Cheap proof that the peer answers. Without it the host relies on reads.
    fn probe(&mut self, device: &Device<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = device;
        async { Err(Error::unsupported("this driver has no liveness probe")) }
    }

    /// Select, operate or cancel one point. Stages on the way go to [`Command::progress`], the last answer is returned.
    /// `Err` is reported as `refused` where the error says that the peer refused, as `unknown` where nobody can know.
    fn command(
        &mut self,
        device: &Device<Self>,
        command: &Command<'_, Self>,
    ) -> impl Future<Output = Result<Answer>> + Send {
        let _ = (device, command);
        async { Err(Error::unsupported("this driver cannot write")) }
    }

    /// Reads the points as one consistent unit with one time stamp, or fails.
    fn block_read(
        &mut self,
        device: &Device<Self>,
        points: &[BoundPoint<Self>],
        out: &mut Readings,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (device, points, out);
        async { Err(Error::unsupported("this driver cannot read a block as one unit")) }
    }

    /// Writes the values, reads them back, and only when all are equal writes the commit point.
    fn block_write(
        &mut self,
        device: &Device<Self>,
        write: &BlockWrite<'_, Self>,
    ) -> impl Future<Output = Result<Answer>> + Send {
        let _ = (device, write);
        async { Err(Error::unsupported("this driver cannot write blocks")) }
    }

    /// Asks the device to report points by itself; what is not in the answer is polled.
    fn subscribe(
        &mut self,
        device: &Device<Self>,
        points: &[BoundPoint<Self>],
        integrity: Option<Duration>,
    ) -> impl Future<Output = Result<Subscription>> + Send {
        let _ = (device, points, integrity);
        async { Ok(Subscription::default()) }
    }

    /// Ends the subscription.
    fn unsubscribe(&mut self, device: &Device<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = device;
        async { Ok(()) }
    }

    /// What the device offers, as ready-to-paste points: `{ name, address, type, unit, description, value }`.
    fn browse(
        &mut self,
        device: &Device<Self>,
        arguments: &[String],
        pages: &mut Pages,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (device, arguments, pages);
        async { Err(Error::unsupported("this driver cannot browse")) }
    }

    /// The next thing a device reported by itself. Polled only while nothing is asked, and **dropped** when a request
    /// arrives: it must be cancel safe (wait for readable data, then decode without awaiting). An error ends the session.
    fn next(&mut self) -> impl Future<Output = Result<Update>> + Send {
        pending()
    }

    /// The fate of the samples pushed with `token`: on disk at every durable sink that routes them, or not.
    fn committed(
        &mut self,
        device: &Device<Self>,
        token: u32,
        ok: bool,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (device, token, ok);
        async { Ok(()) }
    }

    /// Ends the session of one device in an orderly way; others of the endpoint go on.
    fn disconnect(&mut self, device: &Device<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = device;
        async { Ok(()) }
    }

    /// Ends the session in an orderly way; the value is dropped afterwards. Not called for a session that failed.
    fn close(self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// `busbar plugin check` asks the plugin to examine itself. Pure.
    fn self_test() -> Result<(), String> {
        Ok(())
    }
}

/// Settings of a driver that has none: any key is an error.
#[derive(Debug, Clone, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// How one group is read.
pub trait Plan: Send + 'static {
    /// Exchanges that one read needs; the host sizes its deadline by it.
    fn exchanges(&self) -> u32 {
        1
    }
}

impl Plan for () {}

/// A point as bound by the host. Cheap to clone.
pub struct BoundPoint<D: Driver>(pub(crate) Arc<PointInfo<D>>);

/// What is known of a bound point; reached through [`BoundPoint`].
pub struct PointInfo<D: Driver> {
    /// The host's number; [`Update::push`] names it.
    pub number: u32,
    /// Name within the device, for logs.
    pub name: String,
    /// Address, type and further keys.
    pub spec: D::Point,
    /// Commands are allowed.
    pub writable: bool,
}

impl<D: Driver> Clone for BoundPoint<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Driver> std::ops::Deref for BoundPoint<D> {
    type Target = PointInfo<D>;
    fn deref(&self) -> &PointInfo<D> {
        &self.0
    }
}

/// One device of the endpoint.
pub struct Device<D: Driver> {
    /// The host's number.
    pub number: u32,
    /// Its name, for texts.
    pub name: String,
    /// Its `connection` table.
    pub connection: D::Connection,
    /// Further keys of this driver.
    pub settings: D::Settings,
    /// Time limit of one exchange.
    pub response_timeout: Duration,
    /// Repetitions of an unanswered exchange.
    pub retries: u32,
    /// The way to the host, for this device.
    pub ctx: Context,
    pub(crate) points: Vec<BoundPoint<D>>,
    pub(crate) frame_log: Arc<AtomicBool>,
}

impl<D: Driver> Device<D> {
    /// All points bound by the host.
    #[must_use]
    pub fn points(&self) -> &[BoundPoint<D>] {
        &self.points
    }

    /// Frame-level logging is switched on; see [`Device::log_frame`].
    #[must_use]
    pub fn logs_frames(&self) -> bool {
        self.frame_log.load(Ordering::Relaxed)
    }

    /// Logs one frame as hex when frame-level logging of this device is switched on. `direction`: `"tx"`, `"rx"`.
    ///
    /// The frame goes into logs and onto screens as it is: a driver whose frames carry a password or a key in clear masks
    /// those bytes first. A driver that logs frames itself (target `frame`, fields `direction`, `bytes`, `frame`) may add
    /// a field `hint`: what the frame means, in a few words.
    pub fn log_frame(&self, direction: &'static str, frame: &[u8]) {
        if self.logs_frames() {
            let hex = busbar_contract::value::hex(frame);
            tracing::info!(target: "frame", direction, bytes = frame.len(), frame = hex, "frame");
        }
    }

    /// The switch behind [`Device::logs_frames`], for a codec that runs elsewhere.
    #[must_use]
    pub fn frame_switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.frame_log)
    }
}

/// A group to read: its points and its plan.
pub struct Group<'a, D: Driver> {
    /// The device.
    pub device: &'a Device<D>,
    /// The plan made by [`Driver::plan`]; it may learn.
    pub plan: &'a mut D::Plan,
    /// Why it is read: poll, integrity, resync.
    pub cause: Cause,
    pub(crate) points: &'a [BoundPoint<D>],
}

impl<'a, D: Driver> Group<'a, D> {
    /// The points; their index is the slot in [`Readings`].
    #[must_use]
    pub const fn points(&self) -> &'a [BoundPoint<D>] {
        self.points
    }
}

/// A command for one point. The value is raw: scale, offset and invert are undone, range and lock-out are checked.
pub struct Command<'a, D: Driver> {
    /// The point.
    pub point: &'a BoundPoint<D>,
    /// Select, operate, cancel.
    pub action: Action,
    /// Raw value.
    pub value: &'a Value,
    /// Who asked.
    pub origin: &'a Origin,
    /// Qualifier of the protocol, 0 = none.
    pub qualifier: u32,
    /// The device must check its interlocking.
    pub interlock_check: bool,
    /// The device must check synchronism.
    pub synchro_check: bool,
    /// Only a test.
    pub test: bool,
    /// When it was issued, nanoseconds UTC.
    pub issued_ns: i64,
    pub(crate) progress: Progress,
}

impl<D: Driver> Command<'_, D> {
    /// Reports a stage on the way: `selected`, `accepted`.
    pub async fn progress(&self, answer: Answer) {
        self.progress.report(answer).await;
    }
}

/// A block to write as one unit.
pub struct BlockWrite<'a, D: Driver> {
    /// What to write first; raw values.
    pub values: Vec<(&'a BoundPoint<D>, &'a Value)>,
    /// Written last, only when the rest was read back equal.
    pub commit: Option<(&'a BoundPoint<D>, &'a Value)>,
    /// Who asked.
    pub origin: &'a Origin,
}

/// Answer of [`Driver::subscribe`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Numbers of the points that the device reports by itself.
    pub subscribed: Vec<u32>,
    /// Points that cannot be served at all, with the reason.
    pub rejected: Vec<(u32, String)>,
    /// The integrity period in force.
    pub integrity: Option<Duration>,
}

/// Input of [`Driver::check`]: what could be read of one device.
pub struct Check<'a, D: Driver> {
    /// The `connection` table; `None` when serde refused it.
    pub connection: Option<&'a D::Connection>,
    /// Further keys of the device; `None` when serde refused them.
    pub settings: Option<&'a D::Settings>,
    /// The points that serde accepted.
    pub points: Vec<CheckPoint<'a, D>>,
}

/// One point of [`Check`].
pub struct CheckPoint<'a, D: Driver> {
    /// JSON pointer of the point: `/points/3`. Append `/address` and the like.
    pub pointer: String,
    /// Its name; empty where the configuration has none.
    pub name: String,
    /// Commands are allowed.
    pub writable: bool,
    /// Address, type and further keys.
    pub spec: &'a D::Point,
}
