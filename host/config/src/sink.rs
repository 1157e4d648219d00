//! Sinks: which points they get, with which map entries, and how.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use busbar_contract::{
    CheckInput, Describe, Severity,
    describe::{PluginKind, SinkTraits},
};
use busbar_core::model::{Order, Queue, Route, Send, Sink, Sync, Timestamp};
use serde_json::{Map, Value as Json};

use crate::{
    context::Context,
    device::{Made, backoff},
    effective::SinkNotes,
    form,
    host::Reader,
    index::Index,
    judge::{self, Exhibit, Judge, Piece},
    keys,
    library::Library,
    map::{Maker, Mapped, Target},
    problem::Path,
    route::routes,
    source::Pos,
    tree::{Data, Node, Table},
};

/// A queue below this could not hold one batch of a device.
const MIN_QUEUE: u64 = 64 * 1024;

/// What all sinks share.
pub(crate) struct Builder<'a, 'c> {
    pub(crate) cx: &'c Context<'a>,
    pub(crate) judge: &'c Judge<'a>,
    pub(crate) library: &'c Library<'c>,
    pub(crate) devices: &'c [Made],
    pub(crate) index: &'c Index<'c>,
    pub(crate) names: &'c [String],
}

/// A sink and how it was configured (for print-config).
pub(crate) struct MadeSink {
    pub(crate) model: Sink,
    pub(crate) notes: SinkNotes,
}

impl<'a> Builder<'a, '_> {
    /// All sinks, in the order of the configuration.
    pub(crate) fn all(&self, nodes: &[Node]) -> Vec<MadeSink> {
        let mut seen: HashMap<String, Pos> = HashMap::new();
        let mut out = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(made) = self.one(index, node) else { continue };
            let pos = node.as_table().and_then(|table| table.get("name")).map_or(node.pos, |name| name.pos);
            if let Some(first) = seen.get(&made.model.name) {
                let found = format!("{:?}, first at {}", made.model.name, self.cx.place(*first));
                let key = format!("sink[{}].name", made.model.name);
                self.cx.problems.error(Some(pos), key, "a name that comes once", found);
                continue;
            }
            seen.insert(made.model.name.clone(), pos);
            out.push(made);
        }
        out
    }

    fn one(&self, index: usize, node: &Node) -> Option<MadeSink> {
        let cx = self.cx;
        let table = node.as_table()?;
        let root = Path::Root.key("sink");
        let by_index = root.index(index);
        let name = table.get("name").and_then(|name| cx.text(&by_index.key("name"), name));
        let path = name.as_deref().map_or(by_index, |name| root.named(name));
        form::check_table(cx, &path, table, keys::SINK, &|_| false);
        form::check_required(cx, &path, node, keys::SINK);
        let plugin_node = table.get("plugin");
        let plugin_name = plugin_node.and_then(|node| cx.text(&path.key("plugin"), node)).unwrap_or_default();
        let plugin = plugin_node
            .filter(|_| !plugin_name.is_empty())
            .and_then(|node| cx.plugin(&path.key("plugin"), node.pos, PluginKind::Sink, &plugin_name));
        let sink = OneSink { builder: self, path, node, table, plugin, plugin_name: &plugin_name };
        let made = sink.build(name.as_deref().unwrap_or_default());
        form::is_name(&made.model.name).then_some(made)
    }
}

/// One sink on its way.
pub(crate) struct OneSink<'b, 'a, 'c> {
    pub(crate) builder: &'b Builder<'a, 'c>,
    pub(crate) path: Path<'b>,
    pub(crate) node: &'b Node,
    pub(crate) table: &'b Table,
    plugin: Option<&'a Describe>,
    plugin_name: &'b str,
}

impl<'a> OneSink<'_, 'a, '_> {
    fn build(self, name: &str) -> MadeSink {
        let cx = self.builder.cx;
        let lost = cx.lost.get();
        let read = Reader { cx, path: &self.path, table: self.table };
        let traits = self.plugin.map(|plugin| plugin.sink.clone()).unwrap_or_default();
        let asked = self.asked_for_commands(&read);
        let told = asked.or((!traits.needs_map).then_some(false));
        let Settings { json: mut settings, node: settings_node, bad } = self.settings(told);
        let (patterns, texts) = self.patterns();
        let routed = self.routed(&patterns);
        let explicit = self.builder.library.list(cx, &self.path, self.table.get("map"), "map").items;
        let maker = Maker {
            cx,
            judge: self.builder.judge,
            path: self.path,
            plugin_name: self.plugin_name,
            plugin: self.plugin,
            devices: self.builder.devices,
            index: self.builder.index,
            sink_list: self.builder.names,
        };
        let mapped = maker.make(explicit, &routed, &settings);
        self.outside(&maker, &mapped, &routed);
        let routes = routes(self.builder.devices, &routed, &mapped, traits.needs_map);
        let system = self.system(&patterns, &routes, &mapped, traits.needs_map);
        let commands = self.commands(asked, &routes, traits.needs_map);
        let mut findings = Vec::new();
        if let (Some(plugin), true) = (self.plugin, lost == cx.lost.get()) {
            findings = self.check(plugin, &maker, (&settings, &settings_node), bad, &mapped, &routes);
        }
        if commands == Commands::Asked {
            self.named_peer(&settings, &findings);
        }
        if routes.is_empty() && system.is_empty() && cx.problems.errors() == 0 {
            let help = if traits.needs_map { "this sink only gets points with a map entry" } else { "" };
            cx.problems.warning(Some(self.node.pos), self.path, "points for this sink", "none").help(help);
        }
        let free: Vec<Json> =
            mapped.iter().filter(|m| m.target == Target::Sink).map(|m| m.json.clone()).collect();
        let notes = SinkNotes { patterns: texts, commands: told, free_entries: !free.is_empty() };
        if let (true, Some(map)) = (notes.free_entries, settings.as_object_mut()) {
            map.insert("map".into(), Json::Array(free));
        }
        let mut model = Sink {
            name: name.to_owned(),
            plugin: self.plugin_name.to_owned(),
            settings,
            routes,
            system,
            commands: commands != Commands::Off,
            ..Sink::default()
        };
        self.plain_keys(&read, &traits, &mut model);
        MadeSink { model, notes }
    }

    /// The key `commands`, of the sink or in its settings; a contradiction is an error.
    fn asked_for_commands(&self, read: &Reader<'_, '_>) -> Option<bool> {
        let cx = self.builder.cx;
        let own = read.bool("commands");
        let inner = self.table.table("settings").and_then(|settings| settings.get("commands"));
        let inner = inner.and_then(|node| Some((node, node.as_bool()?)));
        if let (Some(own), Some((node, inner)), Some(own_node)) = (own, inner, self.table.get("commands"))
            && own != inner
        {
            let expected =
                format!("the same as settings.commands, which is {inner} at {}", cx.place(node.pos));
            let found = format!("commands = {own} and settings.commands = {inner}");
            cx.problems
                .error(Some(own_node.pos), self.path.key("commands"), expected, found)
                .help("say it once: commands = true or false of the sink reaches the plugin");
        }
        own.or(inner.map(|(_, value)| value))
    }

    /// The settings as the plugin gets them. A plugin that knows the key `commands` is told what holds.
    fn settings(&self, commands: Option<bool>) -> Settings {
        let cx = self.builder.cx;
        let path = self.path.key("settings");
        let node = self.table.get("settings");
        let empty = Table::default();
        let Some(table) = node.map_or(Some(&empty), Node::as_table) else {
            let json = Json::Object(Map::new());
            return Settings { json, node: self.node.clone(), bad: vec!["/settings".into()] };
        };
        let piece = self.plugin.and_then(|plugin| self.builder.judge.piece(cx, plugin, "settings"));
        let mut table = table.clone();
        let mut json = cx.object(&path, &table, piece.as_deref().map(Piece::schema));
        if let (Some(commands), Some(map), true) =
            (commands, json.as_object_mut(), piece.as_ref().is_some_and(|piece| piece.knows("commands")))
            && !map.contains_key("commands")
        {
            map.insert("commands".into(), Json::Bool(commands));
            // What the plugin says about it is about the sink's key.
            if let Some(entry) = self.table.entry("commands") {
                table.set(entry.clone());
            }
        }
        let node = Node::new(node.unwrap_or(self.node).pos, Data::Table(table));
        let mut bad = Vec::new();
        if let Some(piece) = &piece {
            piece.hide_secrets(cx, &path, &node, &json);
            let exhibit = Exhibit { pointer: "/settings".into(), key: path.to_string(), node: &node };
            bad = piece.judge(cx, &exhibit, &mut json, &[]);
            piece.settle_files(cx, &exhibit, &mut json);
        }
        Settings { json, node, bad }
    }

    fn check(
        &self,
        plugin: &Describe,
        maker: &Maker<'_, '_>,
        (settings, settings_node): (&Json, &Node),
        bad: Vec<String>,
        mapped: &[Mapped],
        routes: &[Route],
    ) -> Vec<busbar_contract::Problem> {
        let cx = self.builder.cx;
        let input = CheckInput {
            settings: settings.clone(),
            map: mapped.iter().map(|entry| entry.json.clone()).collect(),
            routed: routes
                .iter()
                .map(|route| maker.name(&Target::Point(route.device, route.point)))
                .collect(),
            ..CheckInput::default()
        };
        let spoiled: BTreeSet<String> =
            bad.into_iter().chain(mapped.iter().flat_map(|entry| entry.bad.iter().cloned())).collect();
        let whole = Exhibit { pointer: String::new(), key: self.path.to_string(), node: self.node };
        let exhibits = || {
            let key = self.path.key("settings").to_string();
            let mut list = vec![Exhibit { pointer: "/settings".into(), key, node: settings_node }];
            list.extend(mapped.iter().enumerate().map(|(at, entry)| Exhibit {
                pointer: format!("/map/{at}"),
                key: entry.key.clone(),
                node: &entry.node,
            }));
            list
        };
        judge::check(cx, plugin, &input, &whole, exhibits, &spoiled)
    }

    fn commands(&self, asked: Option<bool>, routes: &[Route], needs_map: bool) -> Commands {
        let writable = || {
            routes.iter().any(|route| {
                self.builder
                    .devices
                    .get(route.device)
                    .and_then(|made| made.model.points.get(route.point))
                    .is_some_and(|point| point.writable)
            })
        };
        match asked {
            Some(true) => {
                if !writable() {
                    let (pos, key) = self.commands_key();
                    self.builder.cx.problems.warning(
                        Some(pos),
                        key,
                        "a routed point with writable = true",
                        "none",
                    );
                }
                Commands::Asked
            }
            Some(false) => Commands::Off,
            // Where every point is mapped on purpose, the map says what is a command.
            None if needs_map && writable() => Commands::ByMap,
            None => Commands::Off,
        }
    }

    /// Where commands were asked for.
    fn commands_key(&self) -> (Pos, String) {
        let in_settings = || self.table.table("settings")?.get("commands");
        match (self.table.get("commands"), in_settings()) {
            (None, Some(node)) => (node.pos, self.path.key("settings").key("commands").to_string()),
            (own, _) => (own.map_or(self.node.pos, |node| node.pos), self.path.key("commands").to_string()),
        }
    }

    /// Commands only from somebody with a name (SEMANTICS.md, section 6). The plugin's CHECK may be more exact.
    fn named_peer(&self, settings: &Json, findings: &[busbar_contract::Problem]) {
        let said = |finding: &busbar_contract::Problem| {
            finding.severity == Severity::Error
                && (finding.pointer.is_empty() || finding.pointer.starts_with("/settings"))
        };
        let has = |pointer: &str| {
            settings.pointer(pointer).is_some_and(|value| match value {
                Json::String(text) => !text.is_empty(),
                Json::Array(items) => !items.is_empty(),
                other => !other.is_null(),
            })
        };
        if ["/username", "/login", "/token", "/masters", "/tls/cert"].iter().any(|pointer| has(pointer))
            || findings.iter().any(said)
        {
            return;
        }
        let (pos, key) = self.commands_key();
        self.builder
            .cx
            .problems
            .error(Some(pos), key, "credentials or named masters in settings", "none")
            .help("whoever may send commands must be known by name");
    }

    fn plain_keys(&self, read: &Reader<'_, '_>, traits: &SinkTraits, model: &mut Sink) {
        let cx = self.builder.cx;
        model.send = self.send(read, traits);
        let word = |key: &str, default: &str| read.text(key).unwrap_or_else(|| default.to_owned());
        model.timestamp = if word("timestamp", &traits.timestamp) == "received" {
            Timestamp::Received
        } else {
            Timestamp::Source
        };
        model.bad_value = word("bad_value", &traits.bad_value);
        model.test = word("test", "invalid");
        model.history = read.bool("history").unwrap_or(traits.history);
        model.max_silence = read.duration("max_silence");
        model.reconnect =
            backoff(cx, &self.path.key("reconnect"), self.table.table("reconnect"), model.reconnect);
        model.queue = self.queue(traits);
    }

    fn send(&self, read: &Reader<'_, '_>, traits: &SinkTraits) -> Send {
        let word = read.text("send").unwrap_or_else(|| traits.send.clone());
        let every = read.duration("every");
        let cx = self.builder.cx;
        if word != "interval"
            && let Some(entry) = self.table.entry("every")
        {
            cx.problems.error(
                Some(entry.key_pos),
                self.path.key("every"),
                "send = \"interval\" beside it",
                format!("send = {word:?}"),
            );
        }
        match word.as_str() {
            "changes" => Send::Changes,
            "interval" => {
                if self.table.get("every").is_none() {
                    let pos = self.table.get("send").map_or(self.node.pos, |node| node.pos);
                    cx.problems
                        .error(Some(pos), self.path.key("every"), "the key \"every\"", "none")
                        .help("every = \"60s\"");
                }
                Send::Interval(every.unwrap_or(Duration::from_secs(60)))
            }
            _ => Send::Every,
        }
    }

    fn queue(&self, traits: &SinkTraits) -> Queue {
        let default = Queue { on_disk: traits.durable, ..Queue::default() };
        let cx = self.builder.cx;
        let Some(table) = self.table.table("queue") else { return default };
        let path = self.path.key("queue");
        let read = Reader { cx, path: &path, table };
        let max_bytes = read.text("max_size").and_then(|text| crate::units::size(&text));
        let flush_path = path.key("flush");
        let flush = table.table("flush").map(|table| Reader { cx, path: &flush_path, table });
        if self.plugin.is_some() && !traits.durable {
            self.fifo_only(&read);
        }
        let flush_every = flush.as_ref().and_then(|flush| flush.duration("every"));
        Queue {
            // Whoever gives it bounds wants it kept.
            on_disk: true,
            max_bytes: max_bytes.unwrap_or(default.max_bytes).max(MIN_QUEUE),
            max_age: read.duration("max_age").unwrap_or(default.max_age),
            in_flight: count(table, "in_flight").unwrap_or(default.in_flight),
            retry: backoff(cx, &path.key("retry"), table.table("retry"), default.retry),
            flush_every: flush_every.unwrap_or(default.flush_every),
            flush_records: flush
                .and_then(|flush| count(flush.table, "records"))
                .unwrap_or(default.flush_records),
            sync: match read.text("sync").as_deref() {
                Some("checkpoint") => Sync::Checkpoint,
                _ => Sync::Commit,
            },
            order: match read.text("order").as_deref() {
                Some("live-first") => Order::LiveFirst,
                _ => Order::Fifo,
            },
            replay_rate: count(table, "replay_rate").and_then(|rate| u32::try_from(rate).ok()),
            window: count(table, "window").unwrap_or(default.window),
        }
    }

    /// A sink whose far side takes an order of events as the truth gets them in order.
    fn fifo_only(&self, read: &Reader<'_, '_>) {
        if read.text("order").as_deref() == Some("live-first") {
            let pos = read.table.get("order").map(|node| node.pos);
            let problems = &self.builder.cx.problems;
            problems
                .error(pos, read.path.key("order"), "\"fifo\"", "\"live-first\"")
                .help("this sink delivers in order only");
        }
    }
}

/// A whole number.
fn count(table: &Table, key: &str) -> Option<usize> {
    table.get(key).and_then(Node::as_integer).and_then(|number| usize::try_from(number).ok())
}

/// The settings of a sink.
struct Settings {
    json: Json,
    /// What they were made of.
    node: Node,
    /// What the plugin's schema complained about.
    bad: Vec<String>,
}

/// Where the permission to send commands comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    Off,
    Asked,
    ByMap,
}
