//! Sinks: which points they get, with which map entries, and how.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use busbar_contract::{
    CheckInput, Describe, Severity,
    describe::{PluginKind, SinkTraits},
};
use busbar_core::model::{Queue, Route, Send, Sink, SystemRoute, Timestamp};
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
    pattern::Pattern,
    problem::Path,
    source::Pos,
    system,
    tree::{Node, Table},
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

struct OneSink<'b, 'a, 'c> {
    builder: &'b Builder<'a, 'c>,
    path: Path<'b>,
    node: &'b Node,
    table: &'b Table,
    plugin: Option<&'a Describe>,
    plugin_name: &'b str,
}

impl<'a> OneSink<'_, 'a, '_> {
    fn build(self, name: &str) -> MadeSink {
        let cx = self.builder.cx;
        let lost = cx.lost.get();
        let read = Reader { cx, path: &self.path, table: self.table };
        let traits = self.plugin.map(|plugin| plugin.sink.clone()).unwrap_or_default();
        let (mut settings, bad) = self.settings();
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
        let commands = self.commands(&read, &settings, &routes, traits.needs_map);
        let mut findings = Vec::new();
        if let (Some(plugin), true) = (self.plugin, lost == cx.lost.get()) {
            findings = self.check(plugin, &maker, &settings, bad, &mapped, &routes);
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
        let notes =
            SinkNotes { patterns: texts, commands: read.bool("commands"), free_entries: !free.is_empty() };
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

    fn settings(&self) -> (Json, Vec<String>) {
        let cx = self.builder.cx;
        let path = self.path.key("settings");
        let node = self.table.get("settings");
        let empty = Table::default();
        let Some(table) = node.map_or(Some(&empty), Node::as_table) else {
            return (Json::Object(Map::new()), vec!["/settings".into()]);
        };
        let piece = self.plugin.and_then(|plugin| self.builder.judge.piece(cx, plugin, "settings"));
        let mut value = cx.object(&path, table, piece.as_deref().map(Piece::schema));
        let mut bad = Vec::new();
        if let Some(piece) = &piece {
            let node = node.unwrap_or(self.node);
            piece.hide_secrets(cx, &path, node, &value);
            let exhibit = Exhibit { pointer: "/settings".into(), key: path.to_string(), node };
            bad = piece.judge(cx, &exhibit, &mut value, &[]);
        }
        (value, bad)
    }

    /// The patterns of `points`, each with its place; everything where there are none.
    fn patterns(&self) -> (Vec<(Pattern, Pos)>, Vec<String>) {
        let cx = self.builder.cx;
        let path = self.path.key("points");
        let Some(node) = self.table.get("points") else {
            let all = Pattern::new("*").ok().map(|pattern| (pattern, self.node.pos));
            return (all.into_iter().collect(), vec!["*".into()]);
        };
        let mut patterns = Vec::new();
        let mut texts = Vec::new();
        for item in node.as_array().unwrap_or(std::slice::from_ref(node)) {
            let Some(text) = cx.text(&path, item) else { continue };
            match Pattern::new(&text) {
                Ok(pattern) => patterns.push((pattern, item.pos)),
                Err(error) => {
                    cx.problems.error(Some(item.pos), path, "a pattern over device/point", error);
                }
            }
            texts.push(text.into_owned());
        }
        (patterns, texts)
    }

    /// The points that the patterns mean, in the order of the site.
    fn routed(&self, patterns: &[(Pattern, Pos)]) -> Vec<(usize, usize)> {
        let mut used = vec![false; patterns.len()];
        let mut routed = Vec::new();
        for (device, made) in self.builder.devices.iter().enumerate() {
            let here: Vec<(usize, &Pattern)> = patterns
                .iter()
                .enumerate()
                .filter(|(_, (pattern, _))| pattern.matches_device(&made.model.name))
                .map(|(at, (pattern, _))| (at, pattern))
                .collect();
            if here.is_empty() {
                continue;
            }
            for (point, model) in made.model.points.iter().enumerate() {
                let mut hit = false;
                for (at, pattern) in &here {
                    if pattern.matches_point(&model.name) {
                        hit = true;
                        if let Some(used) = used.get_mut(*at) {
                            *used = true;
                        }
                    }
                }
                if hit {
                    routed.push((device, point));
                }
            }
        }
        // The default pattern of a site without points is nobody's mistake.
        if self.table.get("points").is_some() {
            let unused =
                patterns.iter().zip(&used).filter(|((pattern, _), used)| !**used && !pattern.is_system());
            unused.for_each(|((pattern, pos), _)| self.unused(pattern, *pos));
        }
        routed
    }

    fn unused(&self, pattern: &Pattern, pos: Pos) {
        let path = self.path.key("points");
        let problems = &self.builder.cx.problems;
        let found = "a pattern that matches none";
        if let Some((device, point)) = pattern.exact() {
            let help = self.builder.index.point(&format!("{device}/{point}")).err().unwrap_or_default();
            problems.error(Some(pos), path, "an existing point", format!("\"{device}/{point}\"")).help(help);
        } else if let Some(device) = pattern.exact_device()
            && self.builder.index.device(device).is_none()
        {
            let help = self.builder.index.no_device(device);
            problems.error(Some(pos), path, "points of an existing device", format!("{device:?}")).help(help);
        } else {
            problems.warning(Some(pos), path, "points", found);
        }
    }

    /// An entry for a point that `points` leaves out would be lost silently.
    fn outside(&self, maker: &Maker<'_, '_>, mapped: &[Mapped], routed: &[(usize, usize)]) {
        let routed: std::collections::HashSet<(usize, usize)> = routed.iter().copied().collect();
        for entry in mapped {
            let inside = match &entry.target {
                Target::Point(device, point) => routed.contains(&(*device, *point)),
                Target::Device(device) => routed.iter().any(|(routed, _)| routed == device),
                Target::System(_) | Target::Sink => true,
            };
            if !inside {
                let found = format!("{:?}", maker.name(&entry.target));
                self.builder
                    .cx
                    .problems
                    .error(
                        Some(entry.node.pos),
                        entry.key.as_str(),
                        "something that `points` of this sink matches",
                        found,
                    )
                    .help("add it to points, or remove the entry");
            }
        }
    }

    fn system(
        &self,
        patterns: &[(Pattern, Pos)],
        routes: &[Route],
        mapped: &[Mapped],
        needs_map: bool,
    ) -> Vec<SystemRoute> {
        let devices = self.builder.devices;
        let mut names: Vec<String> = Vec::new();
        if !needs_map {
            let routed: BTreeSet<usize> = routes.iter().map(|route| route.device).collect();
            let online = routed
                .iter()
                .filter_map(|at| devices.get(*at))
                .map(|made| format!("{}/@online", made.model.name));
            names.extend(online);
        }
        for (pattern, pos) in patterns.iter().filter(|(pattern, _)| pattern.is_system()) {
            let all = system::all(devices.iter().map(|made| made.model.name.as_str()), self.builder.names);
            let before = names.len();
            let mut any = false;
            for (owner, point) in all.filter(|(owner, point)| pattern.matches_system(owner, point)) {
                any = true;
                names.push(format!("{owner}/{point}"));
            }
            if !any && before == names.len() {
                let help = pattern.exact().map(|(owner, point)| {
                    let is_device = |name: &str| self.builder.index.device(name).is_some();
                    system::check(&format!("{owner}/{point}"), is_device, self.builder.names)
                        .err()
                        .unwrap_or_default()
                });
                self.builder
                    .cx
                    .problems
                    .error(
                        Some(*pos),
                        self.path.key("points"),
                        "a system point",
                        "a pattern that matches none",
                    )
                    .help(help.unwrap_or_default());
            }
        }
        names.extend(mapped.iter().filter_map(|entry| match &entry.target {
            Target::System(name) => Some(name.clone()),
            _ => None,
        }));
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
            .into_iter()
            .map(|name| {
                let of = |entry: &&Mapped| entry.target == Target::System(name.clone());
                let map = mapped.iter().filter(of).map(|entry| entry.json.clone()).collect();
                SystemRoute { name, map }
            })
            .collect()
    }

    fn check(
        &self,
        plugin: &Describe,
        maker: &Maker<'_, '_>,
        settings: &Json,
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
        let settings_node = self.table.get("settings").unwrap_or(self.node);
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

    fn commands(
        &self,
        read: &Reader<'_, '_>,
        settings: &Json,
        routes: &[Route],
        needs_map: bool,
    ) -> Commands {
        let writable = || {
            routes.iter().any(|route| {
                self.builder
                    .devices
                    .get(route.device)
                    .and_then(|made| made.model.points.get(route.point))
                    .is_some_and(|point| point.writable)
            })
        };
        let asked = read.bool("commands").or_else(|| settings.get("commands").and_then(Json::as_bool));
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
        model.queue = self.queue();
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

    fn queue(&self) -> Queue {
        let default = Queue::default();
        let cx = self.builder.cx;
        let Some(table) = self.table.table("queue") else { return default };
        let path = self.path.key("queue");
        for entry in table.entries.iter().filter(|entry| keys::QUEUE_ON_DISK.contains(&&*entry.key)) {
            cx.problems
                .warning(
                    Some(entry.key_pos),
                    path.key(&entry.key),
                    "a key of queues in memory",
                    format!("{:?}", &*entry.key),
                )
                .help("it takes effect with queues on disk, which this version does not have");
        }
        let read = Reader { cx, path: &path, table };
        let count = |key: &str| {
            table.get(key).and_then(Node::as_integer).and_then(|number| usize::try_from(number).ok())
        };
        let max_bytes = read.text("max_size").and_then(|text| crate::units::size(&text));
        Queue {
            max_bytes: max_bytes.unwrap_or(default.max_bytes).max(MIN_QUEUE),
            max_age: read.duration("max_age").unwrap_or(default.max_age),
            in_flight: count("in_flight").unwrap_or(default.in_flight),
            retry: backoff(cx, &path.key("retry"), table.table("retry"), default.retry),
        }
    }
}

/// Where the permission to send commands comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    Off,
    Asked,
    ByMap,
}

/// Routes in the order of the site; entries of a device go to all its points.
fn routes(devices: &[Made], routed: &[(usize, usize)], mapped: &[Mapped], needs_map: bool) -> Vec<Route> {
    let mut by_target: HashMap<&Target, Vec<&Json>> = HashMap::new();
    for entry in mapped {
        by_target.entry(&entry.target).or_default().push(&entry.json);
    }
    let entries = |target: Target| by_target.get(&target).into_iter().flatten().map(|json| (*json).clone());
    routed
        .iter()
        .filter(|(device, _)| *device < devices.len())
        .map(|(device, point)| Route {
            device: *device,
            point: *point,
            map: entries(Target::Point(*device, *point)).chain(entries(Target::Device(*device))).collect(),
        })
        .filter(|route| !needs_map || !route.map.is_empty())
        .collect()
}
