//! Log records of plugins in the host's own log.
//!
//! Every plugin has its own copy of `tracing`, so its records arrive over the waist and are emitted again here, from
//! five static call sites (one per level) with the target `busbar::plugin`, which filters can name.

use std::fmt::Write;

use crate::host::{Level, LogEntry};

/// Target of all records of plugins.
pub const TARGET: &str = "busbar::plugin";

/// True when the host's subscribers want records of this level: what to tell a plugin by LOG_LEVEL, and what to skip
/// before [`emit`].
#[must_use]
pub fn is_enabled(level: Level) -> bool {
    match level {
        Level::Error => tracing::enabled!(target: TARGET, tracing::Level::ERROR),
        Level::Warn => tracing::enabled!(target: TARGET, tracing::Level::WARN),
        Level::Info => tracing::enabled!(target: TARGET, tracing::Level::INFO),
        Level::Debug => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        Level::Trace => tracing::enabled!(target: TARGET, tracing::Level::TRACE),
    }
}

/// Emits a record. `device` is the name the host knows behind instance and device number; empty = none.
pub fn emit(plugin: &str, device: &str, entry: &LogEntry) {
    if !is_enabled(entry.level) {
        return;
    }
    let (module, fields, message) = (&entry.target, fields(entry), &entry.message);
    let device = (!device.is_empty()).then_some(device);
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                plugin,
                device,
                module,
                fields = fields.as_deref(),
                "{message}"
            )
        };
    }
    match entry.level {
        Level::Error => at!(ERROR),
        Level::Warn => at!(WARN),
        Level::Info => at!(INFO),
        Level::Debug => at!(DEBUG),
        Level::Trace => at!(TRACE),
    }
}

/// `n=1 ok=true text="a b"`
fn fields(entry: &LogEntry) -> Option<String> {
    if entry.fields.is_empty() {
        return None;
    }
    let mut out = String::new();
    for (name, value) in &entry.fields {
        let space = if out.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        let _ = write!(out, "{space}{name}={value}");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::FieldValue;

    #[test]
    fn fields_are_one_text() {
        let mut entry = LogEntry {
            level: Level::Info,
            device: None,
            target: "t".into(),
            file: String::new(),
            line: 0,
            message: "m".into(),
            fields: Vec::new(),
        };
        assert_eq!(fields(&entry), None);
        entry.fields =
            vec![("n".into(), FieldValue::Int(-1)), ("text".into(), FieldValue::Text("a \"b\"".into()))];
        assert_eq!(fields(&entry).as_deref(), Some("n=-1 text=\"a \\\"b\\\"\""));
        emit("x", "", &entry);
    }
}
