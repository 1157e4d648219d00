//! The [`Sink`] trait: one value is the live connection to one far side (a broker, a server socket for masters, ...).
//!
//! The SDK calls its methods one after another from one task. Queues, retries and order belong to the host: a sink takes
//! records, gives them to the far side, and says with [`SinkContext::ack`] what became of each. What is not acknowledged
//! is delivered again after the next connect.

use std::{
    collections::HashMap,
    future::{Future, pending},
};

use busbar_abi::Sample;
use busbar_contract::{
    Cause, Flags, Malformed, Problem, Quality, Samples, Value, batch, describe::SinkTraits, request::AnswerTo,
};
use serde_json::Value as Json;

use crate::{Config, Error, Result, SinkContext};

/// A sink: towards SCADA, brokers, ERP, EMS.
pub trait Sink: Sized + Send + 'static {
    /// The word in `plugin = "..."`; the file is `libbusbar_sink_NAME.so`.
    const NAME: &'static str;
    /// One sentence for `busbar plugins`.
    const DESCRIPTION: &'static str = "";
    /// Texts of the reason numbers given to [`SinkContext::ack`]; number 1 is the first, 0 means none.
    const REASONS: &'static [&'static str] = &[];

    /// The `settings` table. Use `deny_unknown_fields`; use [`crate::Secret`] for passwords and tokens.
    type Settings: Config + Clone;
    /// One entry of `map`; [`crate::NoSettings`] for sinks without a map.
    type Map: Config;

    /// How the host feeds it.
    fn traits() -> SinkTraits {
        SinkTraits::default()
    }

    /// Problems beyond types and names, all at once. Pure: no file, no socket. What serde refuses is reported already.
    fn check(input: &SinkCheck<'_, Self>) -> Vec<Problem> {
        let _ = input;
        Vec::new()
    }

    /// Connects to the far side, or starts to listen. `link.points` holds the points known so far.
    fn open(link: &Link<Self>) -> impl Future<Output = Result<Self>> + Send;

    /// The point list changed; `link.points` is the new one.
    fn points(
        &mut self,
        link: &Link<Self>,
        change: &PointsChange,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (link, change);
        async { Ok(()) }
    }

    /// Takes records. It should not wait for the far side to confirm: confirm later with [`SinkContext::ack`]. While it
    /// waits for room, nothing else is delivered. An error ends the connection.
    fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> impl Future<Output = Result<()>> + Send;

    /// Work of the connection itself: reading from the far side, keep-alive. Polled while nothing is delivered or
    /// asked, and **dropped** when something is: it must be cancel safe. Returning `Ok` means "call me again".
    fn next(&mut self, link: &Link<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = link;
        pending()
    }

    /// An answer to [`SinkContext::command`]; several may come until a last stage.
    fn answered(
        &mut self,
        link: &Link<Self>,
        request: u64,
        answer: &AnswerTo,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (link, request, answer);
        async { Ok(()) }
    }

    /// Cheap proof that the far side answers.
    fn probe(&mut self, link: &Link<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = link;
        async { Err(Error::unsupported("this sink has no liveness probe")) }
    }

    /// Ends the connection in an orderly way (flush, last will, close). Not called for a connection that failed.
    fn close(self, link: &Link<Self>) -> impl Future<Output = ()> + Send {
        let _ = link;
        async {}
    }

    /// `busbar plugin check` asks the plugin to examine itself. Pure.
    fn self_test() -> Result<(), String> {
        Ok(())
    }
}

/// What a sink knows of itself and of its points.
pub struct Link<S: Sink> {
    /// Name of the sink.
    pub name: String,
    /// Name of the gateway.
    pub host: String,
    /// Its settings.
    pub settings: S::Settings,
    /// `bad_value`: `omit`, `null`, `last`.
    pub bad_value: String,
    /// `test`: `suppress`, `invalid`, `pass`.
    pub test: String,
    /// The points routed to it.
    pub points: PointList<S>,
    /// The way to the host.
    pub ctx: SinkContext,
}

/// One point routed to the sink.
pub struct RoutedPoint<S: Sink> {
    /// The host's number.
    pub number: u32,
    /// Device name; `@host`, `@sink/NAME` for system points.
    pub device: String,
    /// Point name within the device.
    pub name: String,
    /// Unit label, may be empty.
    pub unit: String,
    /// Free text.
    pub description: String,
    /// Labels, class, group, kind, texts of enumerations, limits.
    pub metadata: Json,
    /// Commands are allowed.
    pub writable: bool,
    /// The entries of `map` for this point.
    pub map: Vec<S::Map>,
}

/// The points routed to a sink, by number.
pub struct PointList<S: Sink> {
    pub(crate) by_number: HashMap<u32, RoutedPoint<S>>,
}

impl<S: Sink> Default for PointList<S> {
    fn default() -> Self {
        Self { by_number: HashMap::new() }
    }
}

impl<S: Sink> PointList<S> {
    /// The point with this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&RoutedPoint<S>> {
        self.by_number.get(&number)
    }

    /// The point with this name.
    #[must_use]
    pub fn find(&self, device: &str, name: &str) -> Option<&RoutedPoint<S>> {
        self.iter().find(|point| point.device == device && point.name == name)
    }

    /// All points, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &RoutedPoint<S>> {
        self.by_number.values()
    }

    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// True when nothing is routed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

/// What changed in the point list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointsChange {
    /// The list was replaced: everything known before is gone.
    pub replaced: bool,
    /// New or changed points.
    pub changed: Vec<u32>,
    /// No longer routed.
    pub removed: Vec<u32>,
}

/// Records to deliver, in order.
#[derive(Debug)]
pub struct Delivery {
    /// Lane they belong to; acknowledge on the same.
    pub lane: u32,
    /// Number of the first record; record `i` is `first + i`.
    pub first: u64,
    pub(crate) flags: u32,
    pub(crate) samples: Samples,
    /// Index and source time of the value, sorted by index.
    pub(crate) times: Vec<(u32, i64)>,
}

impl Delivery {
    /// The image of all points, before deltas.
    #[must_use]
    pub const fn is_snapshot(&self) -> bool {
        self.flags & batch::SNAPSHOT != 0
    }

    /// Records from the backlog, delivered beside live ones.
    #[must_use]
    pub const fn is_replay(&self) -> bool {
        self.flags & batch::REPLAY != 0
    }

    /// Part of a resync.
    #[must_use]
    pub const fn is_resync(&self) -> bool {
        self.flags & batch::RESYNC != 0
    }

    /// One consistent unit.
    #[must_use]
    pub const fn is_block(&self) -> bool {
        self.flags & batch::BLOCK != 0
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.samples.len()
    }

    /// True for a delivery without records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.samples.is_empty()
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut times = self.times.as_slice();
        self.samples.samples.iter().zip(self.first..).enumerate().map(move |(index, (sample, number))| {
            let mut value_time = sample.ts_ns;
            if let Some(((at, ts_ns), rest)) = times.split_first()
                && *at as usize == index
            {
                value_time = *ts_ns;
                times = rest;
            }
            Record { number, sample: *sample, value_time, blob: &self.samples.blob }
        })
    }
}

/// One record of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Record number, for [`SinkContext::ack`].
    pub number: u64,
    sample: Sample,
    value_time: i64,
    blob: &'a [u8],
}

impl Record<'_> {
    /// Point number.
    #[must_use]
    pub const fn point(&self) -> u32 {
        self.sample.point
    }

    /// Time of this sample, nanoseconds UTC.
    #[must_use]
    pub const fn time(&self) -> i64 {
        self.sample.ts_ns
    }

    /// Source time of the value, nanoseconds UTC; differs from [`Record::time`] for samples made by the host.
    #[must_use]
    pub const fn value_time(&self) -> i64 {
        self.value_time
    }

    /// Effective quality.
    #[must_use]
    pub const fn quality(&self) -> Quality {
        Quality(self.sample.quality)
    }

    /// Cause and marks.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags(self.sample.flags)
    }

    /// Cause.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        Cause::of(self.sample.flags)
    }

    /// The value. Unknown kinds and broken references are an error, never a number.
    pub fn value(&self) -> Result<Value, Malformed> {
        Value::decode(self.sample.kind, self.sample.bits, self.blob)
    }

    /// The sample as it crossed the boundary.
    #[must_use]
    pub const fn sample(&self) -> Sample {
        self.sample
    }
}

/// Input of [`Sink::check`]: what could be read of one sink.
pub struct SinkCheck<'a, S: Sink> {
    /// The `settings` table; `None` when serde refused it.
    pub settings: Option<&'a S::Settings>,
    /// Entries of `map` that serde accepted, with their JSON pointer (`/map/3`) and the point they name.
    pub map: Vec<(String, &'a S::Map)>,
    /// Names of the routed points, `device/point`.
    pub routed: &'a [String],
}
