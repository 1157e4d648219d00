//! Every key of `plugins.toml` that belongs to the host, with its form, default and one sentence for people.
//!
//! Keys that are not here belong to a plugin: in `connection` and `settings`, the driver's keys of a device, `address`,
//! `type` and the driver's keys of a point, the entries of `map`, and tables named after a sink plugin.

use crate::form::{Form, Key, key};

/// Shortest tick of the scheduler, milliseconds.
const MIN_TICK: u64 = 1;
/// Largest number that a count may be.
const MANY: i64 = 1_000_000_000;

/// A double has no more decimal digits than these.
const MAX_DECIMALS: i64 = 15;

/// Pauses between attempts.
pub(crate) const BACKOFF: &[Key] =
    &[key("initial", Form::Duration(1), "First pause."), key("max", Form::Duration(1), "Longest pause.")];

/// The top level.
pub(crate) const ROOT: &[Key] = &[
    key("host", Form::Elsewhere, "The gateway itself."),
    key("plugins", Form::Elsewhere, "Where a plugin is found and how it runs, by plugin name."),
    key("template", Form::Elsewhere, "Reusable device maps, by name."),
    key(
        "defaults",
        Form::Elsewhere,
        "Keys for all devices (`device`) or for all devices of a driver (its name).",
    ),
    key("device", Form::Elsewhere, "One IED, meter or PLC."),
    key("sink", Form::Elsewhere, "One consumer: SCADA, broker, ERP, EMS."),
];

/// `[host]`.
pub(crate) const HOST: &[Key] = &[
    key("name", Form::Name, "Gateway id; default: the machine's host name."),
    key("data_dir", Form::Text, "Queues, staged plugins, tokens, audit log.").or("\"data\""),
    key(
        "plugin_dirs",
        Form::List(&Form::Text),
        "Where libbusbar_driver_NAME.so and libbusbar_sink_NAME.so are; default: beside the executable, then /usr/lib/busbar/plugins.",
    ),
    key("log", Form::Table(LOG), "The gateway's own log."),
    key(
        "include",
        Form::OneOrList(&Form::Text),
        "Further files, relative to this one; `*` and `?` in names.",
    ),
    key("admin", Form::Table(ADMIN), "HTTP listener for metrics, health and the API; no table, no listener."),
    key("tick", Form::Duration(MIN_TICK), "Grid of the scheduler.").or("\"20ms\""),
    key(
        "resync_parallel",
        Form::Integer(1, 100_000),
        "Devices of one driver that may read everything at once after a reconnect.",
    )
    .or("20"),
    key(
        "commands",
        Form::Words(&["enabled", "locked"]),
        "Whether commands pass; `busbar lock` overrides it.",
    )
    .or("\"enabled\""),
    key(
        "upgrade_timeout",
        Form::Duration(1_000),
        "Length of the trial of a new plugin version; until then its points must be good again and stay so.",
    )
    .or("\"30s\""),
    key("watch_plugins", Form::Bool, "Tries new files in plugin_dirs by itself, while running.").or("true"),
    key("select_timeout", Form::Duration(1), "How long a selection lives without an operate.").or("\"30s\""),
    key(
        "reload_timeout",
        Form::Duration(1000),
        "What a reload changed must be able to run within this time, or it is rolled back.",
    )
    .or("\"30s\""),
    key(
        "watch_config",
        Form::Bool,
        "Reloads when the files of the configuration change, looked at every 2 s.",
    )
    .or("false"),
    key(
        "only",
        Form::OneOrList(&Form::Text),
        "Runs these devices only: names, patterns with `*` and `?`, or label=value; empty texts count for nothing. Default: all.",
    ),
    key(
        "stage_dir",
        Form::Text,
        "Where private copies of plugins are kept; must not be mounted noexec. Default: in data_dir.",
    ),
];

const LOG: &[Key] = &[
    key(
        "level",
        Form::Words(&["error", "warn", "info", "debug", "trace"]),
        "Least severe level that is logged.",
    )
    .or("\"info\""),
    key("format", Form::Words(&["text", "json"]), "One line of text or of JSON per event.").or("\"text\""),
    key("debug", Form::Bool, "The level is at least debug, whatever `level` says.").or("false"),
    key("file", Form::Text, "Written here instead of standard error, and rotated by size."),
    key("max_size", Form::Size, "Size at which the file is rotated; at least 64KiB.").or("\"10MB\""),
    key("backups", Form::Integer(0, 100), "Rotated files that are kept, as FILE.1 to FILE.N.").or("5"),
];

/// `[host.admin]`.
pub(crate) const ADMIN: &[Key] = &[
    key("listen", Form::Text, "Address and port; beyond loopback only with `tls`.").required(),
    key("anonymous_read", Form::Bool, "Lets /api be read without the token of data_dir/admin.token.")
        .or("false"),
    key("tls", Form::Table(TLS), "Certificate of the listener."),
];

const TLS: &[Key] = &[
    key("cert", Form::Path, "PEM file with the certificate chain.").required(),
    key("key", Form::Path, "PEM file with the private key.").required(),
];

/// `[plugins.NAME]`.
pub(crate) const PLUGIN: &[Key] = &[
    key(
        "isolation",
        Form::Words(&["in-process", "process"]),
        "`process`: a worker process, so that a crash of the plugin cannot touch the host.",
    )
    .or("\"in-process\""),
    key("path", Form::Text, "File instead of the search in plugin_dirs."),
    key(
        "kind",
        Form::Words(&["driver", "sink"]),
        "Whose file `path` and `sha256` mean where a driver and a sink have this name.",
    ),
    key("sha256", Form::Text, "Refuse any other file (64 hex digits)."),
    key("workers", Form::Integer(1, 64), "Threads of its runtime.").or("1"),
    key(
        "memory_limit",
        Form::Size,
        "Most private memory of its worker process; beyond it the worker ends and is started again.",
    )
    .or("\"256MiB\""),
];

/// Keys of a device that come in `[[device]]` only.
pub(crate) const DEVICE_ONLY: [&str; 4] = ["name", "driver", "template", "templates"];

/// `[[device]]`, `[defaults.*]` and, apart from [`DEVICE_ONLY`], `[template.*]`.
pub(crate) const DEVICE: &[Key] = &[
    key("name", Form::Name, "Unique name.").required(),
    key("driver", Form::Text, "Name of the driver plugin.").required(),
    key("connection", Form::Open, "How the device is reached; belongs to the driver."),
    key("template", Form::Text, "Device map to start from."),
    key("templates", Form::List(&Form::Text), "Several device maps."),
    key("vars", Form::Labels, "Variables for `{name}` in texts of points."),
    key(
        "points",
        Form::Elsewhere,
        "Points, or a CSV or TOML file of them; they override the template's by name.",
    ),
    key("blocks", Form::Elsewhere, "Points that are read or written as one consistent unit."),
    key("poll_interval", Form::Duration(1), "How often points are read.").or("\"1s\""),
    key(
        "stale_after",
        Form::Duration(1),
        "Not refreshed for so long: questionable|old_data. Default: 3 x poll_interval, at least 3 s.",
    ),
    key(
        "invalid_after",
        Form::Duration(1),
        "Not refreshed for so long: invalid|old_data. Default: 10 x stale_after.",
    ),
    key("response_timeout", Form::Duration(1), "Of one exchange.").or("\"3s\""),
    key(
        "retries",
        Form::Integer(0, 100),
        "Repetitions of an unanswered exchange. Default: 0; serial and UDP 2.",
    ),
    key("probe_interval", Form::Duration(1), "How often an idle session proves that it lives.").or("\"5s\""),
    key("reconnect", Form::Table(BACKOFF), "Exponential pauses between attempts, with jitter, for ever.")
        .or("{ initial = \"1s\", max = \"10s\" }"),
    key("integrity", Form::Duration(0), "Integrity period asked of subscriptions; \"0s\" = none.")
        .or("\"60s\""),
    key("time_source", Form::Words(&["device", "gateway"]), "Whose time the samples carry.").or("\"device\""),
    key("time_zone", Form::Text, "Zone of a device that reports local time.").or("\"UTC\""),
    key("max_skew", Form::Duration(1), "A source time further off is replaced by the gateway's and flagged."),
    key("maintenance", Form::Bool, "No polling; points are invalid|operator_blocked.").or("false"),
    key("enabled", Form::Bool, "`false`: configured, not connected; points are invalid|operator_blocked.")
        .or("true"),
    key("read", Form::Bool, "`false`: connected, not polled; points are invalid|operator_blocked.")
        .or("true"),
    key(
        "active",
        Form::Table(ACTIVE),
        "Hours of the day in which the device is polled; outside, its points keep their value as questionable|operator_blocked.",
    ),
    key("frame_log", Form::Bool, "Every frame from and to the device is logged.").or("false"),
    key("description", Form::Text, "Free text."),
    key("labels", Form::Labels, "Labels for sinks and the API."),
];

/// `active` of a device.
const ACTIVE: &[Key] = &[
    key("from", Form::Text, "First minute, as \"HH:MM\".").required(),
    key(
        "to",
        Form::Text,
        "First minute that is outside, as \"HH:MM\", also \"24:00\"; before `from`: on the next day.",
    )
    .required(),
    key(
        "days",
        Form::List(&Form::Words(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"])),
        "Days on which the window begins. Default: all.",
    ),
    key("zone", Form::Text, "Time zone, as \"Europe/Madrid\".").or("\"UTC\""),
];

/// A point.
pub(crate) const POINT: &[Key] = &[
    key("name", Form::Name, "Unique within the device.").required(),
    key("enabled", Form::Bool, "`false` removes a point of the template.").or("true"),
    key("unit", Form::Text, "Label; never converts."),
    key("scale", Form::Decimal, "Factor on the device's value, exact decimal.").or("1.0"),
    key("offset", Form::Decimal, "Added after the factor.").or("0.0"),
    key("invert", Form::Bool, "Swaps false and true, or off and on.").or("false"),
    key("range", Form::Range, "Outside: questionable|out_of_range."),
    key("write_range", Form::Range, "Commands outside are refused. Default: range."),
    key(
        "deadband",
        Form::Deadband,
        "Smallest change that `send = \"changes\"` passes on; a number, or a percentage of range.",
    ),
    key(
        "decimals",
        Form::Integer(0, MAX_DECIMALS),
        "Digits behind the decimal point that displays show; never rounds the value.",
    ),
    key("writable", Form::Bool, "Commands are allowed.").or("false"),
    key("poll_interval", Form::Duration(1), "Its own interval. Default: the device's."),
    key("stale_after", Form::Duration(1), "Default: 3 x its poll_interval, at least 3 s."),
    key("invalid_after", Form::Duration(1), "Default: 10 x stale_after."),
    key(
        "interlock",
        Form::Table(INTERLOCK),
        "Commands pass only while another point is good and has this value.",
    ),
    key("class", Form::Words(&["state", "event"]), "`event`: every change is kept, in order.")
        .or("\"state\""),
    key("description", Form::Text, "Free text."),
    key("group", Form::Text, "Free text that groups points."),
    key("labels", Form::Labels, "Labels for sinks and the API."),
    key("repeat", Form::Table(REPEAT), "Makes several points of this one."),
];

const INTERLOCK: &[Key] = &[
    key("point", Form::Text, "device/point.").required(),
    key("equals", Form::Scalar, "The value it must have.").required(),
];

/// `repeat`.
pub(crate) const REPEAT: &[Key] = &[
    key("count", Form::Integer(1, 10_000), "How many.").required(),
    key("stride", Form::Integer(-65_536, 65_536), "Added to the number in `address` each time.").or("0"),
    key("name", Form::Text, "Name with {n}; of a template: the prefix of its points, or with {name}.")
        .required(),
    key("start", Form::Integer(0, MANY), "First {n}.").or("1"),
];

/// A block.
pub(crate) const BLOCK: &[Key] = &[
    key("name", Form::Name, "Unique within the device.").required(),
    key("points", Form::OneOrList(&Form::Text), "Its points; `*` and `?` in names.").required(),
    key("gate", Form::Table(GATE), "The block may be used only while this point has this value."),
    key("commit", Form::Table(COMMIT), "Written last, after the rest was read back equal."),
    key("writable", Form::Bool, "Writing is allowed.").or("false"),
];

const GATE: &[Key] = &[
    key("point", Form::Text, "Point of the same device.").required(),
    key("equals", Form::Scalar, "The value it must have.").required(),
];

const COMMIT: &[Key] = &[
    key("point", Form::Text, "Point of the same device.").required(),
    key("value", Form::Scalar, "The value to write.").required(),
];

/// Keys of `[template.NAME]` that a device has not.
pub(crate) const TEMPLATE: &[Key] =
    &[key("repeat", Form::Table(REPEAT), "Uses the whole template several times.")];

/// `[[sink]]`.
pub(crate) const SINK: &[Key] = &[
    key("name", Form::Name, "Unique name.").required(),
    key("plugin", Form::Text, "Name of the sink plugin.").required(),
    key("settings", Form::Open, "Belongs to the plugin."),
    key("points", Form::OneOrList(&Form::Text), "Globs over device/point. Default: everything."),
    key(
        "map",
        Form::Elsewhere,
        "Entries for single points, or a CSV or TOML file of them; they override generated ones.",
    ),
    key(
        "send",
        Form::Words(&["every", "changes", "interval"]),
        "Every sample, changes beyond the deadband, or the latest per interval.",
    ),
    key("every", Form::Duration(1), "The interval of `send = \"interval\"`."),
    key(
        "max_silence",
        Form::Duration(1),
        "Longest silence of a point under `send = \"changes\"`. Default: unlimited.",
    ),
    key("timestamp", Form::Words(&["source", "received"]), "Which time is the record's."),
    key("bad_value", Form::Words(&["omit", "null", "last"]), "What stands for a value that is not good."),
    key("test", Form::Words(&["suppress", "invalid", "pass"]), "What happens to values in test mode.")
        .or("\"invalid\""),
    key("history", Form::Bool, "Takes history records."),
    key(
        "queue",
        Form::Table(QUEUE),
        "Its queue; with this table it is on disk. Default: what the plugin says.",
    ),
    key("reconnect", Form::Table(BACKOFF), "Pauses between attempts to reach the far side.")
        .or("{ initial = \"1s\", max = \"10s\" }"),
    key("commands", Form::Bool, "The sink may send commands; the far side must then be known by name.")
        .or("false"),
    key("description", Form::Text, "Free text."),
];

/// `queue` of a sink.
pub(crate) const QUEUE: &[Key] = &[
    key("max_size", Form::Size, "Most bytes waiting or unconfirmed.").or("\"256MiB\""),
    key("max_age", Form::Duration(1), "Oldest record kept.").or("\"7d\""),
    key("in_flight", Form::Integer(1, 1_000_000), "Most records delivered and not yet confirmed.").or("5000"),
    key("retry", Form::Table(BACKOFF), "Pauses after the far side asked for a repetition.")
        .or("{ initial = \"1s\", max = \"60s\" }"),
    key("flush", Form::Table(FLUSH), "On disk: what may be in memory before it is written."),
    key("sync", Form::Words(&["commit", "checkpoint"]), "On disk: survives power loss, or kill -9.")
        .or("\"commit\""),
    key("order", Form::Words(&["fifo", "live-first"]), "Whether live values wait for the backlog.")
        .or("\"fifo\""),
    key("replay_rate", Form::Integer(1, MANY), "Most records of the backlog per second. Default: unlimited."),
    key("window", Form::Integer(100, 1_000_000), "On disk: most records held in memory for delivery.")
        .or("20000"),
];

const FLUSH: &[Key] = &[
    key("every", Form::Duration(1), "Longest time.").or("\"50ms\""),
    key("records", Form::Integer(1, 100_000), "Most records.").or("1000"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(keys: &[Key], seen: &mut usize) {
        for key in keys {
            *seen += 1;
            assert!(key.doc.ends_with('.'), "{}: one sentence", key.name);
            if !key.default.is_empty() {
                let text = format!("x = {}", key.default);
                assert!(text.parse::<toml::Table>().is_ok(), "{text}");
            }
            if let Form::Table(inner) = key.form {
                walk(inner, seen);
            }
        }
        let mut names: Vec<_> = keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), keys.len());
    }

    #[test]
    fn every_key_has_a_sentence_and_a_readable_default() {
        let mut seen = 0;
        for keys in [ROOT, HOST, PLUGIN, DEVICE, POINT, TEMPLATE, SINK] {
            walk(keys, &mut seen);
        }
        assert!(seen > 90, "{seen}");
    }
}
