//! `[DEFAULT]` and the environment: the host, what all devices share, the sink to the EMS.

use busbar_config::without_passwords;

use crate::{
    Made,
    findings::{Findings, show},
    plan::{Line, Sink},
    reader::Reader,
    toml,
};

use super::DEVICE_KEYS;

/// A value that the environment overrides, in quotes.
pub(super) fn env(name: &str, default: &str, unit: &str) -> String {
    toml::quoted(&format!("${{env:{name}:-{default}}}{unit}"))
}

/// A text of the file as the default of a reference; a closing brace would end it.
fn as_default(findings: &mut Findings, reader: &Reader<'_>, key: &'static str) -> Option<String> {
    let item = reader.text(key)?;
    if item.text.contains('}') || item.text.contains("${") {
        let help = "write this value into the new file by hand";
        findings.error(reader.at(key, item.span), "a value without } and ${", "one of them", help);
        return None;
    }
    Some(item.text)
}

/// `[DEFAULT]` and the environment.
pub(super) fn plan(findings: &mut Findings, reader: &Reader<'_>, made: &mut Made) {
    reader.know(&DEVICE_KEYS);
    let plan = &mut made.plan;
    plan.host.push(log(findings, reader));
    plan.host.push(
        Line::new("only", toml::quoted("device_section=${env:TEST_DEVICE:-}"))
            .note("one device only; empty: all"),
    );
    let interval = reader.seconds(findings, "collection_interval").unwrap_or_else(|| "60".into());
    plan.defaults.push(Line::new("poll_interval", env("COLLECTION_INTERVAL", &interval, "s")));
    plan.defaults.push(Line::new("reconnect", "{ initial = \"5s\", max = \"5m\" }").note("for ever"));
    plan.defaults.push(Line::new("frame_log", env("MODBUS_DEBUG", "0", "")));
    plan.sinks.push(sink(findings, reader, &mut made.has_secret));
    // Says nothing here: see the end of the file.
    reader.number(findings, "max_retries", (0, 1_000_000));
    reader.unknown_keys(findings);
}

fn log(findings: &mut Findings, reader: &Reader<'_>) -> Line {
    const LEVELS: [&str; 8] = ["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET"];
    let level = reader.word(findings, "log_level", &LEVELS).unwrap_or("INFO");
    let file = as_default(findings, reader, "log_file").unwrap_or_else(|| "./log/gateway_ems.log".into());
    let size = log_size(findings, reader).unwrap_or_else(|| "10MB".into());
    let backups = reader.number(findings, "log_backup_count", (0, 100)).unwrap_or(5);
    let table = toml::table(&[
        ("level", env("LOG_LEVEL", level, "")),
        ("debug", env("DEBUG", "0", "")),
        ("file", env("LOG_FILE", &file, "")),
        ("max_size", env("LOG_MAX_SIZE", &size, "")),
        ("backups", env("LOG_BACKUP_COUNT", &backups.to_string(), "")),
    ]);
    Line::new("log", table)
}

/// `10MB`, or bytes.
fn log_size(findings: &mut Findings, reader: &Reader<'_>) -> Option<String> {
    /// Smallest log file that the host takes.
    const SMALLEST: u64 = 64 * 1024;
    let item = reader.text("log_max_size")?;
    let digits = item.text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = item.text.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "" | "B" => Some(1),
        "KB" | "kB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor?));
    if bytes.is_none_or(|bytes| bytes < SMALLEST) {
        let at = reader.at("log_max_size", item.span);
        findings.error(at, "a size of at least 64KiB such as 10MB", show(&item.text), "");
        return None;
    }
    Some(item.text.replace(' ', ""))
}

/// Whole seconds of the API.
const SECONDS: (u64, u64) = (1, 3_600);

fn sink(findings: &mut Findings, reader: &Reader<'_>, has_secret: &mut bool) -> Sink {
    let url = as_default(findings, reader, "api_url").unwrap_or_else(|| "http://localhost:8000".into());
    if let Some(item) = reader.text("api_url")
        && !["http://", "https://"].iter().any(|scheme| item.text.starts_with(scheme))
    {
        let at = reader.at("api_url", item.span);
        findings.error(at, "a URL that starts with http:// or https://", show(&item.text), "");
    }
    let token = as_default(findings, reader, "api_token").unwrap_or_default();
    *has_secret |= !token.is_empty() || without_passwords(&url) != url;
    let timeout = reader.number(findings, "api_timeout", SECONDS).unwrap_or(30).to_string();
    let delay = reader.number(findings, "retry_delay", SECONDS).unwrap_or(5).to_string();
    let settings = toml::table(&[
        ("url", env("EMS_API_URL", &url, "")),
        ("token", env("EMS_API_TOKEN", &token, "")),
        ("timeout", env("EMS_API_TIMEOUT", &timeout, "s")),
        ("retry_delay", env("RETRY_DELAY", &delay, "s")),
    ]);
    Sink {
        origin: vec![
            "The API of the EMS. EMS_API_TOKEN_FILE may name a file with the token; for a token that is renewed while the"
                .into(),
            "gateway runs write token_file = \"/path\" instead of token.".into(),
        ],
        lines: vec![
            Line::new("name", toml::quoted("ems")),
            Line::new("plugin", toml::quoted("ems-http")),
            Line::new("settings", settings),
        ],
    }
}
