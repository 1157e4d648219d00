//! Log records of plugins, and lines of the core, re-emitted into the host's log.
//!
//! Every plugin has its own tracing statics, so its events arrive as records. They are written under the target
//! `busbar::plugin` with fixed fields; a plugin that floods the log is cut off for the rest of the second and the
//! loss is reported, because the log is shared by all.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use busbar_core::output::{LogLevel, LogLine};
use busbar_loader::{Level, LogEntry};

use super::{frames, names::Names};

/// Records of one plugin per second.
const RECORDS_PER_SECOND: u64 = 500;

/// The log of one plugin.
pub(crate) struct PluginLog {
    plugin: String,
    names: Arc<Names>,
    limit: Limit,
}

impl PluginLog {
    pub(crate) fn new(plugin: &str, names: Arc<Names>) -> Self {
        Self { plugin: plugin.to_owned(), names, limit: Limit::new() }
    }

    pub(crate) fn write(&self, instance: u64, entry: &LogEntry) {
        let device = entry.device.and_then(|number| self.names.device(number));
        let is_frame = entry.target == frames::TARGET;
        if let (true, Some(device)) = (is_frame, &device)
            && !self.names.frames.take(device, entry)
        {
            return;
        }
        match self.limit.admit(self.limit.second()) {
            Admit::Yes => {}
            Admit::YesAfter(lost) => {
                tracing::warn!(target: "busbar::plugin", plugin = self.plugin, lost, "log records dropped: more than {RECORDS_PER_SECOND} in a second");
            }
            Admit::No => return,
        }
        let inst = self.names.instance(instance);
        let fields = fields(entry);
        let (device, inst) = (device.as_deref(), inst.as_deref());
        let (plugin, module, message) = (self.plugin.as_str(), entry.target.as_str(), entry.message.as_str());
        // One callsite per level: tracing fixes the level of a callsite.
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(target: "busbar::plugin", plugin, inst, device, module, fields = fields.as_deref(), "{message}")
            };
        }
        if is_frame {
            return tracing::info!(target: "busbar::frame", plugin, inst, device, fields = fields.as_deref(), "{message}");
        }
        match entry.level {
            Level::Error => emit!(error),
            Level::Warn => emit!(warn),
            Level::Info => emit!(info),
            Level::Debug => emit!(debug),
            Level::Trace => emit!(trace),
        }
    }
}

fn fields(entry: &LogEntry) -> Option<String> {
    if entry.fields.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (name, value) in &entry.fields {
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = write!(text, "{name}={value}");
    }
    Some(text)
}

/// A line of the core.
pub(crate) fn write_line(line: &LogLine) {
    let field =
        |name: &str| line.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    let (device, point, plugin, sink) = (field("device"), field("point"), field("plugin"), field("sink"));
    let message = line.message.as_str();
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(target: "busbar", device, point, plugin, sink, "{message}")
        };
    }
    match line.level {
        LogLevel::Error => emit!(error),
        LogLevel::Warn => emit!(warn),
        LogLevel::Info => emit!(info),
        LogLevel::Debug => emit!(debug),
    }
}

/// A limit per second without a lock: a few records more or less at the turn of a second do not matter.
struct Limit {
    start: Instant,
    second: AtomicU64,
    count: AtomicU64,
    lost: AtomicU64,
}

enum Admit {
    Yes,
    /// The first one after a loss of so many.
    YesAfter(u64),
    No,
}

impl Limit {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            second: AtomicU64::new(0),
            count: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn second(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn admit(&self, second: u64) -> Admit {
        if self.second.swap(second, Ordering::AcqRel) != second {
            self.count.store(0, Ordering::Release);
        }
        if self.count.fetch_add(1, Ordering::AcqRel) >= RECORDS_PER_SECOND {
            self.lost.fetch_add(1, Ordering::AcqRel);
            return Admit::No;
        }
        match self.lost.swap(0, Ordering::AcqRel) {
            0 => Admit::Yes,
            lost => Admit::YesAfter(lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_loader::FieldValue;

    #[test]
    fn a_flood_is_cut_off_and_reported_in_the_next_second() {
        let limit = Limit::new();
        let taken = (0..RECORDS_PER_SECOND + 70).filter(|_| matches!(limit.admit(3), Admit::Yes)).count();
        assert_eq!(taken as u64, RECORDS_PER_SECOND);
        assert!(matches!(limit.admit(4), Admit::YesAfter(70)));
        assert!(matches!(limit.admit(4), Admit::Yes));
    }

    #[test]
    fn fields_are_one_text() {
        let mut entry = LogEntry {
            level: Level::Info,
            device: None,
            target: "t".into(),
            file: String::new(),
            line: 0,
            message: "m".into(),
            fields: vec![("n".into(), FieldValue::Int(-1)), ("ok".into(), FieldValue::Bool(true))],
        };
        assert_eq!(fields(&entry).as_deref(), Some("n=-1 ok=true"));
        entry.fields.clear();
        assert_eq!(fields(&entry), None);
    }
}
