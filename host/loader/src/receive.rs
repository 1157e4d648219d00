//! The receiving side of the host: everything a plugin says passes here, in-process and from a worker alike.
//!
//! R8: sizes, offsets, kinds and UTF-8 are checked before the core sees anything; a malformed sample becomes
//! `none, invalid|failure` (the batch may complete a request, so it is not thrown away), unknown bits are cleared.
//! R3: what arrives for an unknown or stopped instance is dropped. All of it is counted in [`BoundaryStats`].
//! Nothing here blocks, and a panic of the host's callback ends here.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use busbar_abi::{Batch, Host, LogRecord, Message, Sample};
use busbar_contract::{Event, Flags, Kind, Malformed, Quality, Samples, Value, batch, op, value};
use serde::Serialize;

use crate::{
    call::guard,
    host::{Admission, Arrival, FieldValue, HostCallbacks, Level, LogEntry, Push, Pushed},
};

/// Largest body of an event, bytes.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Longest text of a log record, bytes; the rest is cut.
pub const MAX_LOG_TEXT: usize = 8 * 1024;
/// Most fields of a log record; the rest is cut.
pub const MAX_LOG_FIELDS: usize = 32;

const KNOWN_FLAGS: u32 =
    batch::LAST | batch::BLOCK | batch::SNAPSHOT | batch::RESYNC | batch::REPLAY | batch::TIMES;

/// What was wrong with what plugins said; all counts since the plugin was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoundaryStats {
    /// Batches and events for an instance that is unknown or stopped (R3).
    pub unknown_instance: u64,
    /// Bodies and batches that do not follow the contract.
    pub malformed: u64,
    /// Events with an operation that this host does not know.
    pub unknown_ops: u64,
    /// Batches and samples with bits that this host does not know; the bits are cleared.
    pub unknown_bits: u64,
    /// Samples that became `none, invalid|failure`.
    pub bad_samples: u64,
    /// Samples lost between a worker and a host without room.
    pub lost_samples: u64,
    /// Events lost between a worker and a host without room.
    pub lost_events: u64,
    /// Panics of the host's own callbacks: a bug of Busbar.
    pub host_panics: u64,
}

#[derive(Debug, Default)]
struct Counters {
    unknown_instance: AtomicU64,
    malformed: AtomicU64,
    unknown_ops: AtomicU64,
    unknown_bits: AtomicU64,
    bad_samples: AtomicU64,
    lost_samples: AtomicU64,
    lost_events: AtomicU64,
    host_panics: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    if by != 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// One per `init`: after `shutdown` it is closed, so that a plugin that kept its host object talks to nobody.
pub(crate) struct Receiver {
    callbacks: Arc<dyn HostCallbacks>,
    live: RwLock<HashSet<u64>>,
    closed: AtomicBool,
    counters: Arc<StatsCell>,
}

/// Counters that outlive a receiver: they belong to the plugin.
#[derive(Debug, Default)]
pub(crate) struct StatsCell(Counters);

impl StatsCell {
    pub(crate) fn snapshot(&self) -> BoundaryStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BoundaryStats {
            unknown_instance: get(&self.0.unknown_instance),
            malformed: get(&self.0.malformed),
            unknown_ops: get(&self.0.unknown_ops),
            unknown_bits: get(&self.0.unknown_bits),
            bad_samples: get(&self.0.bad_samples),
            lost_samples: get(&self.0.lost_samples),
            lost_events: get(&self.0.lost_events),
            host_panics: get(&self.0.host_panics),
        }
    }
}

impl Receiver {
    pub(crate) fn new(callbacks: Arc<dyn HostCallbacks>, counters: Arc<StatsCell>) -> Arc<Self> {
        let (live, closed) = (RwLock::default(), AtomicBool::new(false));
        Arc::new(Self { callbacks, live, closed, counters })
    }

    /// False when `inst` is 0 or live already (R3).
    pub(crate) fn register(&self, inst: u64) -> bool {
        inst != 0 && self.live.write().unwrap_or_else(PoisonError::into_inner).insert(inst)
    }

    pub(crate) fn unregister(&self, inst: u64) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&inst);
    }

    /// Nothing is taken from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.live.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_live(&self, inst: u64) -> bool {
        !self.closed.load(Ordering::Acquire)
            && self.live.read().unwrap_or_else(PoisonError::into_inner).contains(&inst)
    }

    fn counters(&self) -> &Counters {
        &self.counters.0
    }

    pub(crate) fn count_lost(&self, samples: usize) {
        count(&self.counters().lost_samples, samples as u64);
    }

    pub(crate) fn count_lost_event(&self) {
        count(&self.counters().lost_events, 1);
    }

    pub(crate) fn count_malformed(&self) {
        count(&self.counters().malformed, 1);
    }

    /// Checks a batch and hands it on. `Err` is the batch that the host has no room for now; `Ok(Refused)` is
    /// dropped and counted.
    pub(crate) fn push(&self, inst: u64, batch: Batch) -> Result<Admission, Push> {
        if !self.is_live(inst) {
            count(&self.counters().unknown_instance, 1);
            return Ok(Admission::Refused);
        }
        let (id, token, flags) = (batch.id, batch.op, batch.flags);
        match Samples::from_batch(batch) {
            Ok(mut samples) => {
                count(&self.counters().unknown_bits, u64::from(flags & !KNOWN_FLAGS != 0));
                self.sanitise(&mut samples);
                self.offer(inst, Push { id, token, flags: flags & KNOWN_FLAGS, samples })
            }
            Err(malformed) => {
                self.count_malformed();
                // Consumed: offering it again would not make it smaller.
                Ok(self.arrival(inst, id, Arrival::Malformed(malformed)))
            }
        }
    }

    /// Hands on a batch that was checked before.
    pub(crate) fn offer(&self, inst: u64, push: Push) -> Result<Admission, Push> {
        match guard(|| self.callbacks.push(inst, push)) {
            Ok(Pushed::Accepted) => Ok(Admission::Accepted),
            Ok(Pushed::Congested) => Ok(Admission::Congested),
            Ok(Pushed::Refused(push)) => Err(push),
            Err(text) => {
                self.host_panic("push", &text);
                Ok(Admission::Refused)
            }
        }
    }

    /// Checks an event and hands it on; STOPPED ends the instance.
    pub(crate) fn event(&self, inst: u64, op: u32, req: u64, body: &[u8]) -> Admission {
        let plugin_itself = inst == 0 && op == op::event::HEARTBEAT && !self.closed.load(Ordering::Acquire);
        if !plugin_itself && !self.is_live(inst) {
            count(&self.counters().unknown_instance, 1);
            return Admission::Refused;
        }
        if !op::ALL.contains(&op) || op < op::event::OPENED {
            count(&self.counters().unknown_ops, 1);
            return Admission::Unsupported;
        }
        let arrival = match decode(op, body) {
            Ok(event) => Arrival::Event(event),
            Err(malformed) => {
                self.count_malformed();
                Arrival::Malformed(malformed)
            }
        };
        let admission = self.arrival(inst, req, arrival);
        if op == op::event::STOPPED && admission.is_taken() {
            self.unregister(inst);
        }
        admission
    }

    pub(crate) fn arrival(&self, inst: u64, req: u64, arrival: Arrival) -> Admission {
        guard(|| self.callbacks.event(inst, req, arrival)).unwrap_or_else(|text| {
            self.host_panic("event", &text);
            Admission::Refused
        })
    }

    pub(crate) fn log(&self, inst: u64, mut entry: LogEntry) {
        bound(&mut entry);
        let inst = if self.is_live(inst) { inst } else { 0 };
        if let Err(text) = guard(|| self.callbacks.log(inst, entry)) {
            self.host_panic("log", &text);
        }
    }

    pub(crate) fn down(&self, reason: &str) {
        self.close();
        if let Err(text) = guard(|| self.callbacks.down(reason)) {
            self.host_panic("down", &text);
        }
    }

    fn host_panic(&self, what: &str, text: &str) {
        count(&self.counters().host_panics, 1);
        tracing::error!(callback = what, panic = text, "a host callback panicked; this is a bug of Busbar");
    }

    fn sanitise(&self, samples: &mut Samples) {
        let (mut bad, mut unknown) = (0, 0);
        let Samples { samples, blob } = samples;
        for sample in samples {
            let quality = Quality(sample.quality).normalised();
            let flags = sample.flags & !Flags::RESERVED;
            unknown += u64::from(quality.0 & !0b11 != sample.quality & !0b11 || flags != sample.flags);
            sample.quality = quality.0;
            sample.flags = flags;
            if !is_sound(sample, blob) {
                bad += 1;
                sample.kind = Kind::None as u8;
                sample.bits = 0;
                sample.quality = quality.worst(Quality::INVALID.with(Quality::FAILURE)).0;
            }
        }
        count(&self.counters().unknown_bits, unknown);
        count(&self.counters().bad_samples, bad);
    }
}

fn decode(op: u32, body: &[u8]) -> Result<Event, Malformed> {
    if body.len() > MAX_BODY {
        return Err(Malformed::new(
            "event body",
            format!("at most {MAX_BODY} bytes"),
            body.len().to_string(),
        ));
    }
    Event::decode(op, body)
}

/// The kind is known and `bits` hold a value of it.
fn is_sound(sample: &Sample, blob: &[u8]) -> bool {
    match Kind::from_code(sample.kind) {
        None => false,
        Some(Kind::Text) => {
            value::slice(sample.bits, blob).is_ok_and(|text| std::str::from_utf8(text).is_ok())
        }
        Some(Kind::Bytes) => value::slice(sample.bits, blob).is_ok(),
        Some(Kind::Json | Kind::DoublePoint | Kind::Step) => {
            Value::decode(sample.kind, sample.bits, blob).is_ok()
        }
        Some(_) => true,
    }
}

/// The waist's host object of an in-process plugin.
pub(crate) struct Adapter(pub(crate) Arc<Receiver>);

impl Host for Adapter {
    fn push(&self, inst: u64, batch: Batch) -> u32 {
        // The guard inside `Receiver` is for callbacks; this one keeps everything else from reaching the waist,
        // where a panic ends the process.
        let pushed = guard(|| self.0.push(inst, batch));
        pushed.ok().and_then(Result::ok).unwrap_or(Admission::Refused).code()
    }

    fn event(&self, inst: u64, msg: Message) -> u32 {
        guard(|| self.0.event(inst, msg.op, msg.req, &msg.body)).unwrap_or(Admission::Refused).code()
    }

    fn log(&self, inst: u64, rec: &LogRecord<'_>) {
        // Nothing to report to: the record is what would have been reported.
        let _ = guard(|| self.0.log(inst, entry(rec)));
    }
}

/// The owned, bounded form of a record.
pub(crate) fn entry(rec: &LogRecord<'_>) -> LogEntry {
    let fields = rec.fields.as_slice().iter().take(MAX_LOG_FIELDS);
    LogEntry {
        level: Level::from_code(rec.level),
        device: (rec.device != u32::MAX).then_some(rec.device),
        target: text(rec.target.as_bytes()),
        file: text(rec.file.as_bytes()),
        line: rec.line,
        message: text(rec.message.as_bytes()),
        fields: fields
            .map(|field| {
                let value = match field.kind {
                    1 => FieldValue::Bool(field.bits != 0),
                    2 => FieldValue::Int(field.bits.cast_signed()),
                    3 => FieldValue::Uint(field.bits),
                    4 => float(f64::from_bits(field.bits)),
                    _ => FieldValue::Text(text(field.text.as_bytes())),
                };
                (text(field.name.as_bytes()), value)
            })
            .collect(),
    }
}

/// JSON has no NaN, and the record of a worker travels as JSON.
fn float(value: f64) -> FieldValue {
    if value.is_finite() { FieldValue::Float(value) } else { FieldValue::Text(value.to_string()) }
}

/// A worker's record was built outside of the trust boundary.
fn bound(entry: &mut LogEntry) {
    entry.fields.truncate(MAX_LOG_FIELDS);
    let values = entry.fields.iter_mut().flat_map(|(name, value)| {
        let value = if let FieldValue::Text(text) = value { Some(text) } else { None };
        std::iter::once(name).chain(value)
    });
    for text in [&mut entry.target, &mut entry.file, &mut entry.message].into_iter().chain(values) {
        let end = (0..=MAX_LOG_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

fn text(bytes: &[u8]) -> String {
    let shown = bytes.get(..MAX_LOG_TEXT).unwrap_or(bytes);
    String::from_utf8_lossy(shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_records_are_bounded() {
        let long = "ä".repeat(MAX_LOG_TEXT);
        let mut entry = LogEntry {
            level: Level::Info,
            device: None,
            target: long.clone(),
            file: long.clone(),
            line: 1,
            message: long.clone(),
            fields: vec![(long.clone(), FieldValue::Text(long)); MAX_LOG_FIELDS + 1],
        };
        bound(&mut entry);
        assert_eq!(entry.fields.len(), MAX_LOG_FIELDS);
        assert_eq!((entry.message.len(), entry.target.len(), entry.file.len()), (8192, 8192, 8192));
        assert!(entry.fields.iter().all(|(name, value)| name.len() <= MAX_LOG_TEXT
            && matches!(value, FieldValue::Text(text) if text.len() <= MAX_LOG_TEXT)));
        assert_eq!(float(f64::NAN), FieldValue::Text("NaN".into()));
        assert_eq!(text(&[0xff, b'a']), "\u{fffd}a");
    }
}
