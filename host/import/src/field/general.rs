//! What the whole gateway shares: its log, its poll interval, its hours.

use crate::{Options, findings::Findings, plan::Line, reader::Reader, toml};

/// `[host] log`, where the old file says something about it.
pub(super) fn log(findings: &mut Findings, reader: &Reader<'_>) -> Option<Line> {
    const LEVELS: [(&str, &str); 8] = [
        ("DEBUG", "debug"),
        ("INFO", "info"),
        ("WARNING", "warn"),
        ("WARN", "warn"),
        ("ERROR", "error"),
        ("CRITICAL", "error"),
        ("FATAL", "error"),
        ("NOTSET", "trace"),
    ];
    /// Bytes; the smallest log file that the host takes.
    const SIZES: (u64, u64) = (64 * 1024, 1 << 40);
    let level = reader.word(findings, "loglevel", &LEVELS.map(|(word, _)| word));
    let level = level.and_then(|word| LEVELS.iter().find(|(old, _)| *old == word)).map(|(_, new)| *new);
    let to_stdout = reader.switch(findings, "logstdout");
    let size = reader.number(findings, "max_size_bytes", SIZES);
    let backups = reader.number(findings, "backup_count", (0, 100));
    let file = reader.text("logfile");
    let mut pairs = vec![("level", toml::quoted(level.unwrap_or("info")))];
    if let Some(file) = &file {
        pairs.push(("file", toml::text(&file.text)));
        pairs.extend(size.map(|size| ("max_size", toml::quoted(&format!("{size}B")))));
        pairs.extend(backups.map(|backups| ("backups", backups.to_string())));
        if to_stdout == Some(true) {
            let at = reader.at("logfile", file.span);
            let help = "left as the file; without log.file it goes to standard error";
            findings.warning(at, "a file or the standard output", "both", help);
        }
    }
    let anything = level.is_some() || file.is_some();
    anything.then(|| Line::new("log", toml::table(&pairs)))
}

/// What all devices share.
pub(super) fn schedule(findings: &mut Findings, main: &Reader<'_>, options: &Options) -> Vec<Line> {
    let interval = main.seconds(findings, "interval").unwrap_or_else(|| "1".into());
    let mut lines = vec![Line::new("poll_interval", toml::quoted(&format!("{interval}s")))];
    let start = main.number(findings, "start_hour", (0, 23));
    let stop = main.number(findings, "stop_hour", (0, 23));
    let (from, last) = (start.unwrap_or(0), stop.unwrap_or(23));
    if (start.is_none() && stop.is_none()) || (from, last) == (0, 23) {
        return lines;
    }
    // The old stop hour counts to its end.
    let to = last + 1;
    if last < from
        && let Some(item) = main.text("stop_hour")
    {
        let found = format!("{from} to {last}");
        let help = "the old gateway never read in such a window; here it is a window over midnight";
        findings.warning(main.at("stop_hour", item.span), "a stop hour behind the start hour", found, help);
    }
    if to == from {
        return lines;
    }
    if let (None, Some(item)) = (&options.zone, main.text("start_hour").or_else(|| main.text("stop_hour"))) {
        let help = "UTC is taken; --zone Europe/Madrid says which zone the old gateway lived in";
        findings.warning(main.at("start_hour", item.span), "the zone of these hours", "none", help);
    }
    let active = toml::table(&[
        ("from", toml::quoted(&format!("{from:02}:00"))),
        ("to", toml::quoted(&format!("{to:02}:00"))),
        ("zone", toml::text(options.zone.as_deref().unwrap_or("UTC"))),
    ]);
    lines.push(Line::new("active", active).note(format!("start_hour {from}, stop_hour {last} to its end")));
    lines
}
