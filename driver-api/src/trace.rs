//! Carries the plugin's `tracing` events to the host. Every cdylib has its own `tracing` statics, so the host's
//! subscriber would never see them.
//!
//! Which instance and device an event belongs to comes from a span that the SDK puts around plugin code. The span's id
//! *is* that pair, and spans made by plugin code inherit it: so spans need no storage, no lock and no allocation. (Fields
//! of a plugin's own spans are not carried.) The span has level error, or a level filter would switch it off.

use std::{
    cell::RefCell,
    fmt::Write,
    sync::{
        Arc, Once, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use busbar_abi::{HostBox, LogField, LogRecord, abi_stable::std_types::RSlice};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

/// `LogRecord::device` when the record belongs to no device.
pub(crate) const NO_DEVICE: u32 = u32::MAX;
/// Name of the SDK's span.
const SPAN: &str = "busbar_device";
/// Target of frames, see `Device::log_frame`.
const FRAME: &str = "frame";
/// Spans entered at once in one thread; deeper ones keep the outermost pair (G9).
const MAX_DEPTH: usize = 64;
/// Longest field value or message carried, bytes.
const MAX_TEXT: usize = 16 * 1024;

static HOST: RwLock<Option<Arc<HostBox>>> = RwLock::new(None);
static LEVEL: AtomicU8 = AtomicU8::new(3);
static ONCE: Once = Once::new();

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Connects the bridge to a host, or disconnects it.
pub(crate) fn attach(host: Option<Arc<HostBox>>) {
    ONCE.call_once(|| {
        // Fails only where the process has a subscriber already, as in unit tests of the SDK itself.
        let _ = tracing::subscriber::set_global_default(HostSubscriber);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if HOST.read().unwrap_or_else(PoisonError::into_inner).is_some() {
                tracing::error!(panic = %info, "panic in the plugin");
            } else {
                before(info);
            }
        }));
    });
    *HOST.write().unwrap_or_else(PoisonError::into_inner) = host;
}

/// `error`, `warn`, `info`, `debug`, `trace`.
pub(crate) fn set_level(name: &str) -> Result<(), String> {
    let level = match name {
        "error" => 1,
        "warn" => 2,
        "info" => 3,
        "debug" => 4,
        "trace" => 5,
        other => {
            return Err(format!("log level: expected error, warn, info, debug or trace, found {other:?}"));
        }
    };
    LEVEL.store(level, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// The span to put around code that works for `inst` (and `device`).
pub(crate) fn device_span(inst: u64, device: u32) -> tracing::Span {
    tracing::error_span!(target: "busbar_driver_api", "busbar_device", inst, device)
}

const fn number(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Instance (upper half) and device (lower half) in a span id. Hosts count instances from 1, so an id is never 0.
fn pack(inst: u64, device: u64) -> u64 {
    ((inst << 32) | (device & 0xffff_ffff)).max(1)
}

fn current() -> (u64, u32) {
    let id = ENTERED.try_with(|stack| stack.try_borrow().ok()?.last().copied()).ok().flatten();
    id.map_or((0, NO_DEVICE), |id| (id >> 32, (id & 0xffff_ffff) as u32))
}

struct HostSubscriber;

impl Subscriber for HostSubscriber {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            // Frames are switched per device, whatever the level.
            1..=3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = LEVEL.load(Ordering::Relaxed);
        let least = if metadata.target() == FRAME { number(&Level::INFO) } else { 0 };
        number(metadata.level()) <= level.max(least)
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        if attributes.metadata().name() == SPAN {
            let mut pair = Pair { inst: 0, device: u64::from(NO_DEVICE) };
            attributes.record(&mut pair);
            return span::Id::from_u64(pack(pair.inst, pair.device));
        }
        let (inst, device) = current();
        span::Id::from_u64(pack(inst, u64::from(device)))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        // Never logs from inside logging: the host is called without the lock.
        let host = HOST.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(host) = host {
            send(&host, event);
        }
    }

    fn enter(&self, id: &span::Id) {
        let _ = ENTERED.try_with(|stack| {
            if let Ok(mut stack) = stack.try_borrow_mut()
                && stack.len() < MAX_DEPTH
            {
                stack.push(id.into_u64());
            }
        });
    }

    fn exit(&self, id: &span::Id) {
        let _ = ENTERED.try_with(|stack| {
            if let Ok(mut stack) = stack.try_borrow_mut()
                && let Some(at) = stack.iter().rposition(|entered| *entered == id.into_u64())
            {
                stack.remove(at);
            }
        });
    }
}

/// Reads the fields of the SDK's span.
struct Pair {
    inst: u64,
    device: u64,
}

impl Visit for Pair {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "inst" => self.inst = value,
            "device" => self.device = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// One field, typed; text is in `text`.
struct Captured {
    name: &'static str,
    kind: u32,
    bits: u64,
    text: String,
}

#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<Captured>,
}

impl Fields {
    fn number(&mut self, field: &Field, kind: u32, bits: u64) {
        self.fields.push(Captured { name: field.name(), kind, bits, text: String::new() });
    }

    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push(Captured { name: field.name(), kind: 0, bits: 0, text });
        }
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, 1, u64::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, 2, value.cast_unsigned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, 3, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, 4, value.to_bits());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.text(field, text);
    }
}

fn send(host: &HostBox, event: &Event<'_>) {
    let mut captured = Fields::default();
    event.record(&mut captured);
    let metadata = event.metadata();
    let (inst, device) = current();
    let fields: Vec<LogField<'_>> = captured
        .fields
        .iter()
        .map(|field| LogField {
            name: field.name.into(),
            kind: field.kind,
            bits: field.bits,
            text: field.text.as_str().into(),
        })
        .collect();
    let record = LogRecord {
        level: u32::from(number(metadata.level())),
        line: metadata.line().unwrap_or(0),
        device,
        target: metadata.target().into(),
        file: metadata.file().unwrap_or("").into(),
        message: captured.message.as_str().into(),
        fields: RSlice::from_slice(&fields),
    };
    host.log(inst, &record);
}
