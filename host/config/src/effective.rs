//! print-config: the configuration in force as one TOML file, every default filled in, every template expanded.
//!
//! Secrets become `"***"`. A key of the host whose value came by a reference shows the reference itself, because its
//! value must keep a form that reads back. The result is a valid configuration: texts of points have their braces
//! doubled, plain `${` is escaped, paths are absolute.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    time::Duration,
};

use busbar_core::model::{
    Backoff, Block, CommandMode, Deadband, Device, Isolation, Order, Plugin, Point, Queue, Send, Sink, Site,
    Sync, Timestamp,
};
use serde_json::{Map, Value as Json};

use crate::{
    active,
    host::{HostSettings, LogFormat},
    map::secret_keys,
    point::{Kind, METADATA, kind},
    redact::{self, MASK},
    secret::{Origin, is_whole},
    units, write,
};

/// What print-config needs beside the site.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    /// Keys whose values must not be shown.
    pub(crate) masked: BTreeSet<String>,
    /// Keys of the host, and numbers and switches of plugins, whose values came by a reference, as written.
    pub(crate) references: BTreeMap<String, String>,
    /// Texts of plugins that are behind the mask and whose references may be shown.
    pub(crate) quoted: BTreeSet<String>,
    /// Where keys with references to the environment have their values from.
    pub(crate) origins: BTreeMap<String, Vec<Origin>>,
    /// Beside [`Site::devices`].
    pub(crate) devices: Vec<DeviceNotes>,
    /// Beside [`Site::sinks`].
    pub(crate) sinks: Vec<SinkNotes>,
}

/// Keys of a device that only its points show in the site.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeviceNotes {
    pub(crate) stale_after: Option<Duration>,
    pub(crate) invalid_after: Option<Duration>,
}

/// How a sink was configured, as far as the site does not tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct SinkNotes {
    pub(crate) patterns: Vec<String>,
    /// The key `commands`; `None` where the map decides.
    pub(crate) commands: Option<bool>,
    /// `settings.map` holds entries of `map` that belong to no point.
    pub(crate) free_entries: bool,
}

/// Writes the whole configuration.
pub(crate) fn write(site: &Site, host: &HostSettings, notes: &Notes) -> String {
    let mut writer = Writer { notes, out: String::new() };
    writer.host(site, host);
    writer.plugins(&site.plugins);
    for (at, device) in site.devices.iter().enumerate() {
        writer.device(device, notes.devices.get(at).copied().unwrap_or_default());
    }
    for (at, sink) in site.sinks.iter().enumerate() {
        writer.sink(sink, notes.sinks.get(at).cloned().unwrap_or_default());
    }
    writer.out
}

struct Writer<'a> {
    notes: &'a Notes,
    out: String,
}

impl Writer<'_> {
    /// `key = value`, unless the value came by a reference.
    fn line(&mut self, owner: &str, key: &str, value: impl Into<String>) {
        let value = self.or_reference(owner, key, value.into());
        let origins = self.origins(owner, key);
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{} = {value}{origins}", write::key(key));
    }

    /// A comment that tells where the value of a key, or of keys inside it, came from.
    fn origins(&self, owner: &str, key: &str) -> String {
        let path = format!("{owner}.{key}");
        let notes: Vec<String> = self
            .notes
            .origins
            .range(path.clone()..)
            .map_while(|(found, origins)| Some((found.strip_prefix(path.as_str())?, origins)))
            .filter(|(rest, _)| rest.is_empty() || rest.starts_with(['.', '[']))
            .flat_map(|(rest, origins)| {
                let name = rest.trim_start_matches('.');
                origins.iter().map(move |origin| {
                    if name.is_empty() { origin.to_string() } else { format!("{name}: {origin}") }
                })
            })
            .collect();
        if notes.is_empty() { String::new() } else { format!(" # {}", notes.join("; ")) }
    }

    fn or_reference(&self, owner: &str, key: &str, value: String) -> String {
        self.notes
            .references
            .get(&format!("{owner}.{key}"))
            .map_or(value, |raw| write::text(&redact::urls(raw)))
    }

    fn host(&mut self, site: &Site, host: &HostSettings) {
        let core = &site.host;
        self.out.push_str("[host]\n");
        self.line("host", "name", write::text(&core.name));
        self.line("host", "data_dir", path(&host.data_dir));
        let dirs: Vec<String> = host.plugin_dirs.iter().map(|dir| path(dir)).collect();
        self.line("host", "plugin_dirs", format!("[{}]", dirs.join(", ")));
        if let Some(dir) = &host.stage_dir {
            self.line("host", "stage_dir", path(dir));
        }
        let format = match host.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let level = host.log.level.as_str();
        let file = host.log.file.as_ref().map_or_else(String::new, |file| {
            let size = write::text(&units::show_size(file.max_size));
            format!(", file = {}, max_size = {size}, backups = {}", path(&file.path), file.backups)
        });
        self.line("host", "log", format!("{{ level = \"{level}\", format = \"{format}\"{file} }}"));
        self.line("host", "tick", write::duration(core.tick));
        self.line("host", "resync_parallel", core.resync_parallel.to_string());
        let commands = match core.commands {
            CommandMode::Enabled => "\"enabled\"",
            CommandMode::Locked => "\"locked\"",
        };
        self.line("host", "commands", commands);
        self.line("host", "upgrade_timeout", write::duration(host.upgrade_timeout));
        self.line("host", "watch_plugins", host.watch_plugins.to_string());
        self.line("host", "select_timeout", write::duration(core.select_timeout));
        self.line("host", "reload_timeout", write::duration(core.reload_timeout));
        self.line("host", "watch_config", host.watch_config.to_string());
        let Some(admin) = &host.admin else { return };
        self.out.push_str("\n[host.admin]\n");
        self.line("host.admin", "listen", write::text(&admin.listen.to_string()));
        self.line("host.admin", "anonymous_read", admin.anonymous_read.to_string());
        if let Some(tls) = &admin.tls {
            self.line(
                "host.admin",
                "tls",
                format!("{{ cert = {}, key = {} }}", path(&tls.cert), path(&tls.key)),
            );
        }
    }

    /// One table per name: a driver and a sink of the same name share it.
    fn plugins(&mut self, plugins: &[Plugin]) {
        let mut written = BTreeSet::new();
        for plugin in plugins.iter().filter(|plugin| written.insert(&plugin.name)) {
            let same_name: Vec<&Plugin> = plugins.iter().filter(|other| other.name == plugin.name).collect();
            self.plugin(&same_name, plugin);
        }
    }

    fn plugin(&mut self, same_name: &[&Plugin], plugin: &Plugin) {
        let owner = format!("plugins.{}", plugin.name);
        let _ = writeln!(self.out, "\n[plugins.{}]", write::key(&plugin.name));
        let isolation = match plugin.isolation {
            Isolation::InProcess => "\"in-process\"",
            Isolation::Process => "\"process\"",
        };
        self.line(&owner, "isolation", isolation);
        self.line(&owner, "workers", plugin.workers.to_string());
        self.line(&owner, "memory_limit", write::text(&units::show_size(plugin.memory_limit)));
        let Some(of_file) = same_name.iter().find(|plugin| plugin.path.is_some() || plugin.sha256.is_some())
        else {
            return;
        };
        if same_name.len() > 1 {
            self.line(&owner, "kind", write::text(of_file.kind.as_str()));
        }
        if let Some(file) = &of_file.path {
            self.line(&owner, "path", path(Path::new(file)));
        }
        if let Some(sha256) = &of_file.sha256 {
            self.line(&owner, "sha256", write::text(sha256));
        }
    }

    fn device(&mut self, device: &Device, notes: DeviceNotes) {
        let owner = format!("device[{}]", device.name);
        self.out.push_str("\n[[device]]\n");
        self.line("", "name", write::text(&device.name));
        self.line(&owner, "driver", write::text(&device.driver));
        let connection = self.hidden(&format!("{owner}.connection"), &device.connection, false);
        self.line(&owner, "connection", write::value(&connection));
        if let Some(settings) = device.settings.as_object() {
            for (key, value) in settings {
                let value = self.hidden_key(&owner, key, value, false);
                self.line("", key, write::value(&value));
            }
        }
        self.line(&owner, "poll_interval", write::duration(device.poll_interval));
        for (key, span) in [("stale_after", notes.stale_after), ("invalid_after", notes.invalid_after)] {
            if let Some(span) = span {
                self.line(&owner, key, write::duration(span));
            }
        }
        self.line(&owner, "response_timeout", write::duration(device.response_timeout));
        self.line(&owner, "retries", device.retries.to_string());
        self.line(&owner, "probe_interval", write::duration(device.probe_interval));
        self.line("", "reconnect", backoff(device.reconnect));
        self.line(&owner, "integrity", write::duration(device.integrity));
        if let Some(skew) = device.max_skew {
            self.line(&owner, "max_skew", write::duration(skew));
        }
        self.line(&owner, "time_source", if device.gateway_time { "\"gateway\"" } else { "\"device\"" });
        self.line(&owner, "maintenance", device.maintenance.to_string());
        self.line(&owner, "frame_log", device.frame_log.to_string());
        self.line(&owner, "enabled", device.enabled.to_string());
        self.line(&owner, "read", (!device.paused).to_string());
        if let Some(active) = &device.active {
            self.line(&owner, "active", active::show(active));
        }
        if !device.description.is_empty() {
            self.line(&owner, "description", write::text(&escaped(&device.description, false)));
        }
        if !device.labels.is_empty() {
            let labels: Map<String, Json> =
                device.labels.iter().map(|(key, value)| (key.clone(), Json::String(value.clone()))).collect();
            let labels = self.hidden(&format!("{owner}.labels"), &Json::Object(labels), false);
            self.line("", "labels", write::value(&labels));
        }
        let points: Vec<String> = device.points.iter().map(|point| self.point(&owner, point)).collect();
        self.line("", "points", write::lines(&points));
        if !device.blocks.is_empty() {
            let blocks: Vec<String> =
                device.blocks.iter().map(|block| self.block(&owner, device, block)).collect();
            self.line("", "blocks", write::lines(&blocks));
        }
    }

    fn point(&self, device: &str, point: &Point) -> String {
        let owner = format!("{device}.points[{}]", point.name);
        let mut pairs = vec![format!("name = {}", write::text(&point.name))];
        let mut add = |key: &str, value: String| {
            pairs.push(format!("{} = {}", write::key(key), self.or_reference(&owner, key, value)));
        };
        for (key, value) in point.spec.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
        {
            add(key, write::value(&self.hidden_key(&owner, key, value, true)));
        }
        let kind = kind(&point.spec);
        let is_number = !matches!(kind, Kind::Bool | Kind::Text);
        if !point.unit.is_empty() {
            add("unit", write::text(&escaped(&point.unit, true)));
        }
        if is_number {
            add("scale", write::number(point.scale.to_f64()));
            add("offset", write::number(point.offset.to_f64()));
        }
        if matches!(kind, Kind::Bool | Kind::Unknown) {
            add("invert", point.invert.to_string());
        }
        let range = |range: [f64; 2]| {
            let [min, max] = range;
            format!("[{}, {}]", write::number(min), write::number(max))
        };
        if let Some(limits) = point.range {
            add("range", range(limits));
        }
        if let (Some(limits), true) = (point.write_range, point.writable) {
            add("write_range", range(limits));
        }
        if let Deadband::Absolute(deadband) = point.deadband {
            add("deadband", write::number(deadband));
        }
        add("writable", point.writable.to_string());
        add("poll_interval", write::duration(point.poll_interval));
        add("stale_after", write::duration(point.stale_after));
        add("invalid_after", write::duration(point.invalid_after));
        if let Some(interlock) = &point.interlock {
            let name = write::text(&escaped(&interlock.point, true));
            add(
                "interlock",
                format!("{{ point = {name}, equals = {} }}", write::value(&braces(&interlock.equals))),
            );
        }
        let metadata = point.metadata.as_object();
        if metadata.is_none_or(|metadata| !metadata.contains_key("class")) {
            add("class", write::text(if point.event { "event" } else { "state" }));
        }
        // The rest of the metadata follows from other keys.
        for (key, value) in metadata.into_iter().flatten().filter(|(key, _)| METADATA.contains(&key.as_str()))
        {
            add(key, write::value(&self.hidden_key(&owner, key, value, true)));
        }
        format!("{{ {} }}", pairs.join(", "))
    }

    fn block(&self, owner: &str, device: &Device, block: &Block) -> String {
        let name = |at: usize| write::text(device.points.get(at).map_or("", |point| point.name.as_str()));
        let points: Vec<String> = block.points.iter().map(|at| name(*at)).collect();
        let mut text = format!("{{ name = {}, points = [{}]", write::text(&block.name), points.join(", "));
        let key = |word: &str| format!("{owner}.blocks[{}].{word}", block.name);
        if let Some((at, value)) = &block.gate {
            let value = self.hidden_key(&key("gate"), "equals", value, true);
            let _ = write!(text, ", gate = {{ point = {}, equals = {} }}", name(*at), write::value(&value));
        }
        if let Some((at, value)) = &block.commit {
            let value = self.hidden_key(&key("commit"), "value", value, true);
            let _ = write!(text, ", commit = {{ point = {}, value = {} }}", name(*at), write::value(&value));
        }
        let _ = write!(text, ", writable = {} }}", block.writable);
        text
    }

    fn sink(&mut self, sink: &Sink, notes: SinkNotes) {
        let owner = format!("sink[{}]", sink.name);
        self.out.push_str("\n[[sink]]\n");
        self.line("", "name", write::text(&sink.name));
        self.line(&owner, "plugin", write::text(&sink.plugin));
        let mut settings = self.hidden(&format!("{owner}.settings"), &sink.settings, false);
        let free = match settings.as_object_mut() {
            Some(map) if notes.free_entries => map.remove("map"),
            _ => None,
        };
        self.line(&owner, "settings", write::value(&settings));
        let patterns: Vec<String> =
            notes.patterns.iter().map(|pattern| write::text(&escaped(pattern, false))).collect();
        self.line("", "points", format!("[{}]", patterns.join(", ")));
        let (word, every) = match sink.send {
            Send::Every => ("every", None),
            Send::Changes => ("changes", None),
            Send::Interval(every) => ("interval", Some(every)),
        };
        self.line(&owner, "send", write::text(word));
        if let Some(every) = every {
            self.line(&owner, "every", write::duration(every));
        }
        if let Some(silence) = sink.max_silence {
            self.line(&owner, "max_silence", write::duration(silence));
        }
        let timestamp = match sink.timestamp {
            Timestamp::Source => "\"source\"",
            Timestamp::Received => "\"received\"",
        };
        self.line(&owner, "timestamp", timestamp);
        self.line(&owner, "bad_value", write::text(&sink.bad_value));
        self.line(&owner, "test", write::text(&sink.test));
        self.line("", "history", sink.history.to_string());
        // Without the table the queue is in memory, with the defaults.
        if sink.queue.on_disk {
            self.line("", "queue", queue(&sink.queue));
        }
        self.line("", "reconnect", backoff(sink.reconnect));
        if let Some(commands) = notes.commands {
            self.line("", "commands", commands.to_string());
        }
        let entries = self.map(sink, free);
        if !entries.is_empty() {
            self.line("", "map", write::lines(&entries));
        }
    }

    /// Every entry once, generated ones included.
    fn map(&self, sink: &Sink, free: Option<Json>) -> Vec<String> {
        let secret = secret_keys(&self.notes.masked, &sink.name, &sink.plugin);
        let routes = sink.routes.iter().flat_map(|route| &route.map);
        let system = sink.system.iter().flat_map(|route| &route.map);
        let free = free.as_ref().and_then(Json::as_array).into_iter().flatten();
        let mut seen = BTreeSet::new();
        let entries = routes.chain(system).chain(free).filter_map(|entry| {
            let map: Map<String, Json> = entry
                .as_object()?
                .iter()
                .map(|(key, value)| {
                    let hide =
                        secret.iter().any(|secret| secret.split(['.', '[']).next() == Some(key.as_str()));
                    let value = if hide || redact::telling(key) { MASK.into() } else { plain(value, false) };
                    (key.clone(), value)
                })
                .collect();
            Some(write::table(&map))
        });
        entries.filter(|entry| seen.insert(entry.clone())).collect()
    }

    /// A plugin's value with its secrets replaced and its texts escaped.
    fn hidden(&self, path: &str, value: &Json, in_point: bool) -> Json {
        let reference = self.notes.references.get(path);
        // In a point braces have a meaning of their own.
        let quoted = self.notes.quoted.contains(path) && !in_point;
        if self.notes.masked.contains(path) {
            return match reference {
                Some(raw) if quoted => redact::urls(raw).into(),
                _ => MASK.into(),
            };
        }
        // A number, a switch, or a word of a list.
        if let Some(raw) = reference.filter(|raw| is_whole(raw)) {
            return raw.as_str().into();
        }
        match value {
            Json::Object(map) => Json::Object(
                map.iter()
                    .map(|(key, value)| (key.clone(), self.hidden_key(path, key, value, in_point)))
                    .collect(),
            ),
            Json::Array(items) => Json::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| self.hidden(&format!("{path}[{at}]"), item, in_point))
                    .collect(),
            ),
            other => plain(other, in_point),
        }
    }

    fn hidden_key(&self, owner: &str, key: &str, value: &Json, in_point: bool) -> Json {
        if redact::telling(key) && value.is_string() {
            return MASK.into();
        }
        self.hidden(&format!("{owner}.{key}"), value, in_point)
    }
}

/// Texts escaped so that they read back as they are.
fn plain(value: &Json, in_point: bool) -> Json {
    match value {
        Json::String(text) => Json::String(escaped(text, in_point)),
        Json::Array(items) => Json::Array(items.iter().map(|item| plain(item, in_point)).collect()),
        Json::Object(map) => {
            Json::Object(map.iter().map(|(key, value)| (key.clone(), plain(value, in_point))).collect())
        }
        other => other.clone(),
    }
}

fn braces(value: &Json) -> Json {
    plain(value, true)
}

fn escaped(text: &str, in_point: bool) -> String {
    let text = redact::urls(text).replace("${", "$${");
    if in_point { text.replace('{', "{{").replace('}', "}}") } else { text }
}

fn queue(queue: &Queue) -> String {
    let sync = match queue.sync {
        Sync::Commit => "commit",
        Sync::Checkpoint => "checkpoint",
    };
    let order = match queue.order {
        Order::Fifo => "fifo",
        Order::LiveFirst => "live-first",
    };
    let rate = queue.replay_rate.map(|rate| format!(", replay_rate = {rate}")).unwrap_or_default();
    format!(
        "{{ max_size = {}, max_age = {}, in_flight = {}, retry = {}, flush = {{ every = {}, records = {} }}, \
         sync = {sync:?}, order = {order:?}{rate}, window = {} }}",
        write::text(&units::show_size(queue.max_bytes)),
        write::duration(queue.max_age),
        queue.in_flight,
        backoff(queue.retry),
        write::duration(queue.flush_every),
        queue.flush_records,
        queue.window,
    )
}

fn backoff(backoff: Backoff) -> String {
    format!("{{ initial = {}, max = {} }}", write::duration(backoff.initial), write::duration(backoff.max))
}

fn path(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    write::text(&absolute.display().to_string().replace("${", "$${"))
}
