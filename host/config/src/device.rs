//! Devices: defaults, templates and own keys laid over each other, checked once, handed to the driver's CHECK.
//!
//! Layers, the later wins: `[defaults.device]`, `[defaults.DRIVER]`, the templates in their order, the device. The
//! tables `connection`, `vars`, `labels`, `reconnect` and those named after a sink plugin are merged key by key,
//! everything else is replaced. Points are merged by name: a device's point changes or removes the template's.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use busbar_contract::{CheckInput, Describe, describe::PluginKind};
use busbar_core::model::{Backoff, Device, Point};
use serde_json::{Map, Value as Json};

use crate::{
    active, block,
    context::Context,
    document::Document,
    effective::DeviceNotes,
    form::{self, Form},
    host::Reader,
    judge::{self, Exhibit, Judge},
    keys,
    library::{Library, Template},
    point::{self, Draft, FromDevice, check_stale, check_tick, misspelt},
    problem::{Path, did_you_mean},
    source::Pos,
    tree::{Data, Entry, Node, Table},
};

/// Transports over which an unanswered exchange is repeated: nobody else does it there.
const UNRELIABLE_RETRIES: u32 = 2;
/// Tables that layers add to instead of replacing.
const DEEP: [&str; 4] = ["connection", "vars", "labels", "reconnect"];

/// A device with what the later steps need of its source.
pub(crate) struct Made {
    pub(crate) model: Device,
    pub(crate) pos: Pos,
    /// Beside [`Device::points`].
    pub(crate) points: Vec<PointSource>,
    /// Tables named after a sink plugin.
    pub(crate) sink_keys: Vec<Entry>,
    pub(crate) notes: DeviceNotes,
}

/// What later steps need of a point's source.
pub(crate) struct PointSource {
    pub(crate) sink_keys: Vec<Entry>,
    pub(crate) interlock: Option<Pos>,
}

/// What all devices share.
pub(crate) struct Builder<'a, 'c> {
    pub(crate) cx: &'c Context<'a>,
    pub(crate) judge: &'c Judge<'a>,
    pub(crate) document: &'c Document,
    pub(crate) library: &'c Library<'c>,
    pub(crate) tick: Duration,
    /// Keys with these names belong to sinks.
    pub(crate) sink_names: &'c HashSet<String>,
}

impl<'a> Builder<'a, '_> {
    /// All devices, in the order of the configuration.
    pub(crate) fn all(&self) -> Vec<Made> {
        let mut seen: HashMap<String, Pos> = HashMap::new();
        let mut out = Vec::with_capacity(self.document.devices.len());
        for (index, node) in self.document.devices.iter().enumerate() {
            let Some(made) = self.one(index, node) else { continue };
            if let Some(first) = seen.get(&made.model.name) {
                let found = format!("{:?}, first at {}", made.model.name, self.cx.place(*first));
                let key = format!("device[{}].name", made.model.name);
                self.cx.problems.error(Some(made.pos), key, "a name that comes once", found);
                continue;
            }
            seen.insert(made.model.name.clone(), made.pos);
            out.push(made);
        }
        out
    }

    fn one(&self, index: usize, node: &Node) -> Option<Made> {
        let cx = self.cx;
        let own = node.as_table()?;
        let root = Path::Root.key("device");
        let by_index = root.index(index);
        let name = own.get("name").and_then(|name| cx.text(&by_index.key("name"), name));
        let path = name.as_deref().map_or(by_index, |name| root.named(name));
        form::check_required(cx, &path, node, keys::DEVICE);
        let driver_node = own.get("driver");
        let driver = driver_node.and_then(|node| cx.text(&path.key("driver"), node)).unwrap_or_default();
        let plugin = driver_node
            .filter(|_| !driver.is_empty())
            .and_then(|node| cx.plugin(&path.key("driver"), node.pos, PluginKind::Driver, &driver));
        let templates = self.templates(&path, own);
        let merged = self.merge(own, &driver, &templates);
        let device = OneDevice { builder: self, path, node, merged: &merged, plugin };
        let made = device.build(name.as_deref(), &driver, own, &templates);
        made.filter(|made| form::is_name(&made.model.name))
    }

    fn templates(&self, path: &Path<'_>, own: &Table) -> Vec<Rc<Template>> {
        let single = own.get("template").map(|node| ("template", node));
        let list = own.get("templates").and_then(Node::as_array).unwrap_or_default();
        let all = single.into_iter().chain(list.iter().map(|node| ("templates", node)));
        all.filter_map(|(key, node)| {
            let path = path.key(key);
            self.library.template(self.cx, &path, node.pos, &self.cx.text(&path, node)?)
        })
        .collect()
    }

    fn merge(&self, own: &Table, driver: &str, templates: &[Rc<Template>]) -> Table {
        let deep: Vec<&str> = DEEP.into_iter().chain(self.sink_names.iter().map(String::as_str)).collect();
        let mut merged = Table::default();
        for name in ["device", driver] {
            if let Some(defaults) = self.document.defaults.get(name).and_then(|entry| entry.value.as_table())
            {
                merged.overlay(defaults, &deep);
            }
        }
        for template in templates {
            merged.overlay(&template.keys, &deep);
        }
        merged.overlay(own, &deep);
        merged
    }
}

/// One device on its way.
pub(crate) struct OneDevice<'b, 'a, 'c> {
    pub(crate) builder: &'b Builder<'a, 'c>,
    pub(crate) path: Path<'b>,
    pub(crate) node: &'b Node,
    /// All layers.
    pub(crate) merged: &'b Table,
    pub(crate) plugin: Option<&'a Describe>,
}

/// The keys of a device by owner.
struct Parts {
    settings: Json,
    settings_node: Node,
    sink_keys: Vec<Entry>,
    bad: Vec<String>,
}

impl<'a> OneDevice<'_, 'a, '_> {
    fn build(
        self,
        name: Option<&str>,
        driver: &str,
        own: &Table,
        templates: &[Rc<Template>],
    ) -> Option<Made> {
        let cx = self.builder.cx;
        let lost = cx.lost.get();
        let parts = self.split();
        let (connection, bad) = self.connection();
        let read = Reader { cx, path: &self.path, table: self.merged };
        let mut model = Device {
            name: name.unwrap_or_default().to_owned(),
            driver: driver.to_owned(),
            connection,
            settings: parts.settings,
            ..Device::default()
        };
        self.plain_keys(&read, &mut model, bad.is_empty());
        let (nodes, blocks) = self.points(name.unwrap_or_default(), own, templates);
        let (drafts, nodes) = self.drafts(nodes, &model, &read);
        let of_points = drafts.iter().flat_map(|draft| draft.bad.iter().cloned());
        let spoiled: BTreeSet<String> = bad.into_iter().chain(parts.bad).chain(of_points).collect();
        let mut sources = Vec::with_capacity(drafts.len());
        for draft in drafts {
            model.points.push(draft.model);
            sources.push(PointSource { sink_keys: draft.sink_keys, interlock: draft.interlock });
        }
        model.blocks = block::build(cx, &self.path, blocks, &model.points);
        if let (Some(plugin), true) = (self.plugin, lost == cx.lost.get()) {
            self.check(plugin, &model, &nodes, &parts.settings_node, &spoiled);
        }
        let pos = own.get("name").map_or(self.node.pos, |name| name.pos);
        let notes = DeviceNotes {
            stale_after: read.duration("stale_after"),
            invalid_after: read.duration("invalid_after"),
        };
        Some(Made { model, pos, points: sources, sink_keys: parts.sink_keys, notes })
    }

    /// Checks every key and sorts them by owner.
    fn split(&self) -> Parts {
        let cx = self.builder.cx;
        let piece = self.plugin.and_then(|plugin| self.builder.judge.piece(cx, plugin, "device"));
        let mut settings = Map::new();
        let mut table = Table::default();
        let mut sink_keys = Vec::new();
        let mut bad = Vec::new();
        for entry in &self.merged.entries {
            let path = self.path.key(&entry.key);
            if &*entry.key == "time_zone" {
                form::check(cx, &path, &entry.value, &Form::Text);
                if piece.as_ref().is_some_and(|piece| piece.knows("time_zone")) {
                    settings.insert("time_zone".into(), cx.json(&path, &entry.value, None));
                    table.set(entry.clone());
                } else if let Some(plugin) = self.plugin {
                    let expected = "a driver whose devices report local time";
                    cx.problems.warning(Some(entry.key_pos), path, expected, format!("{:?}", plugin.name));
                }
            } else if let Some(key) = form::find(keys::DEVICE, &entry.key) {
                form::check(cx, &path, &entry.value, &key.form);
            } else if self.builder.sink_names.contains(&*entry.key) {
                if form::check(cx, &path, &entry.value, &Form::Open) {
                    sink_keys.push(entry.clone());
                }
            } else {
                match (self.plugin, &piece) {
                    (None, _) => misspelt(cx, &path, entry, keys::DEVICE),
                    (Some(_), None) => {
                        bad.push(format!("/device/{}", entry.key));
                        cx.problems
                            .error(Some(entry.key_pos), path, "a known key", format!("{:?}", &*entry.key))
                            .help(did_you_mean(&entry.key, keys::DEVICE.iter().map(|key| key.name)));
                    }
                    (Some(_), Some(_)) => {}
                }
                settings.insert(entry.key.to_string(), cx.json(&path, &entry.value, None));
                table.set(entry.clone());
            }
        }
        let mut settings = Json::Object(settings);
        let settings_node = Node::new(self.node.pos, Data::Table(table));
        if let Some(piece) = &piece {
            let exhibit =
                Exhibit { pointer: "/device".into(), key: self.path.to_string(), node: &settings_node };
            let host_keys: Vec<&str> = keys::DEVICE.iter().map(|key| key.name).collect();
            bad = piece.judge(cx, &exhibit, &mut settings, &host_keys);
            piece.hide_secrets(cx, &self.path, &settings_node, &settings);
            piece.settle_files(cx, &exhibit, &mut settings);
        }
        Parts { settings, settings_node, sink_keys, bad }
    }

    /// The connection, and what the schema complained about.
    fn connection(&self) -> (Json, Vec<String>) {
        let cx = self.builder.cx;
        let path = self.path.key("connection");
        let piece = self.plugin.and_then(|plugin| self.builder.judge.piece(cx, plugin, "connection"));
        let node = self.merged.get("connection");
        let empty = Table::default();
        let Some(table) = node.map_or(Some(&empty), Node::as_table) else {
            return (Json::Null, vec!["/connection".into()]);
        };
        let mut value = cx.object(&path, table, piece.as_deref().map(judge::Piece::schema));
        let mut bad = Vec::new();
        if let Some(piece) = &piece {
            let node = node.unwrap_or(self.node);
            let exhibit = Exhibit { pointer: "/connection".into(), key: path.to_string(), node };
            // Secrets first, so that no problem shows one.
            piece.hide_secrets(cx, &path, node, &value);
            bad = piece.judge(cx, &exhibit, &mut value, &[]);
            piece.settle_files(cx, &exhibit, &mut value);
        }
        (value, bad)
    }

    fn plain_keys(&self, read: &Reader<'_, '_>, model: &mut Device, connection_sound: bool) {
        let cx = self.builder.cx;
        let duration = |key: &str, default: Duration| {
            let value = read.duration(key).unwrap_or(default);
            if let Some(node) = read.table.get(key) {
                check_tick(cx, &self.path.key(key), node, value, self.builder.tick);
            }
            value
        };
        model.poll_interval = duration("poll_interval", model.poll_interval);
        model.response_timeout = read.duration("response_timeout").unwrap_or(model.response_timeout);
        model.probe_interval = duration("probe_interval", model.probe_interval);
        model.integrity = duration("integrity", model.integrity);
        model.reconnect =
            backoff(cx, &self.path.key("reconnect"), read.table.table("reconnect"), model.reconnect);
        model.retries = match read.table.get("retries").and_then(Node::as_integer) {
            Some(retries) => u32::try_from(retries).unwrap_or_default(),
            None => self.default_retries(&model.connection, connection_sound),
        };
        model.max_skew = read.duration("max_skew");
        model.gateway_time = read.text("time_source").as_deref() == Some("gateway");
        model.maintenance = read.bool("maintenance").unwrap_or(false);
        model.frame_log = read.bool("frame_log").unwrap_or(false);
        model.enabled = read.bool("enabled").unwrap_or(true);
        model.paused = !read.bool("read").unwrap_or(true);
        model.active =
            read.table.table("active").and_then(|table| active::read(cx, &self.path.key("active"), table));
        model.description = read.text("description").unwrap_or_default();
        model.labels = labels(cx, &self.path.key("labels"), read.table.table("labels"));
        if let (Some(stale), Some(node)) = (read.duration("stale_after"), read.table.get("stale_after")) {
            check_stale(cx, &self.path.key("stale_after"), node, stale, model.poll_interval);
        }
    }

    /// The driver's endpoint tells the transport; without it the words that connections use.
    fn default_retries(&self, connection: &Json, sound: bool) -> u32 {
        let endpoint = match self.plugin {
            Some(plugin) if sound => self.builder.cx.plugins.endpoint(&plugin.name, connection),
            _ => None,
        };
        let unreliable = match endpoint {
            Some(endpoint) => endpoint.key.starts_with("serial:") || endpoint.key.starts_with("udp:"),
            None => match connection.get("transport").and_then(Json::as_str) {
                Some(word) => word == "rtu" || word.contains("serial") || word.contains("udp"),
                None => connection.get("path").is_some(),
            },
        };
        if unreliable { UNRELIABLE_RETRIES } else { 0 }
    }

    fn drafts(&self, nodes: Vec<Node>, model: &Device, read: &Reader<'_, '_>) -> (Vec<Draft>, Vec<Node>) {
        let from = FromDevice {
            poll_interval: model.poll_interval,
            stale_after: read.duration("stale_after"),
            invalid_after: read.duration("invalid_after"),
            tick: self.builder.tick,
            about: about(model),
            plugin: self.plugin,
            sink_names: self.builder.sink_names,
        };
        let points = self.path.key("points");
        let mut drafts = Vec::with_capacity(nodes.len());
        let mut kept = Vec::with_capacity(nodes.len());
        for node in nodes {
            let name = node.as_table().and_then(|table| table.get("name")).and_then(Node::raw_text).cloned();
            let path = points.named(name.as_deref().unwrap_or("?"));
            if let Some(draft) =
                point::build(self.builder.cx, self.builder.judge, &path, drafts.len(), &node, &from)
            {
                drafts.push(draft);
                kept.push(node);
            }
        }
        (drafts, kept)
    }

    fn check(
        &self,
        plugin: &Describe,
        model: &Device,
        nodes: &[Node],
        settings_node: &Node,
        spoiled: &BTreeSet<String>,
    ) {
        let cx = self.builder.cx;
        let input = CheckInput {
            connection: model.connection.clone(),
            device: model.settings.clone(),
            points: model.points.iter().map(check_point).collect(),
            ..CheckInput::default()
        };
        let whole = Exhibit { pointer: String::new(), key: self.path.to_string(), node: self.node };
        let connection = self.path.key("connection");
        let points = self.path.key("points");
        let exhibits = || {
            let node = self.merged.get("connection").unwrap_or(self.node);
            let mut list = vec![
                Exhibit { pointer: "/connection".into(), key: connection.to_string(), node },
                Exhibit { pointer: "/device".into(), key: self.path.to_string(), node: settings_node },
            ];
            list.extend(model.points.iter().zip(nodes).enumerate().map(|(at, (point, node))| Exhibit {
                pointer: format!("/points/{at}"),
                key: points.named(&point.name).to_string(),
                node,
            }));
            list
        };
        judge::check(cx, plugin, &input, &whole, exhibits, spoiled);
    }
}

/// A point as CHECK gets it: name, writable, and what belongs to the driver.
fn check_point(point: &Point) -> Json {
    let mut map = Map::new();
    map.insert("name".into(), Json::String(point.name.clone()));
    map.insert("writable".into(), Json::Bool(point.writable));
    if let Some(spec) = point.spec.as_object() {
        map.extend(spec.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Json::Object(map)
}

/// `{ initial, max }`.
pub(crate) fn backoff(cx: &Context<'_>, path: &Path<'_>, table: Option<&Table>, default: Backoff) -> Backoff {
    let Some(table) = table else { return default };
    let read = Reader { cx, path, table };
    let initial = read.duration("initial");
    let max = read.duration("max");
    if let (Some(initial), Some(max), Some(node)) = (initial, max, table.get("max"))
        && max < initial
    {
        let expected = format!("at least initial ({})", crate::units::show_duration(initial));
        cx.problems.error(Some(node.pos), path.key("max"), expected, cx.found(node));
    }
    let initial = initial.unwrap_or_else(|| default.initial.min(max.unwrap_or(default.initial)));
    Backoff { initial, max: max.unwrap_or_else(|| default.max.max(initial)) }
}

/// What the metadata of each point says about its device; `null` when there is nothing to say.
fn about(device: &Device) -> Json {
    let mut map = Map::new();
    if !device.description.is_empty() {
        map.insert("description".into(), device.description.clone().into());
    }
    if !device.labels.is_empty() {
        let labels = device.labels.iter().map(|(key, value)| (key.clone(), Json::from(value.as_str())));
        map.insert("labels".into(), Json::Object(labels.collect()));
    }
    if map.is_empty() { Json::Null } else { Json::Object(map) }
}

fn labels(cx: &Context<'_>, path: &Path<'_>, table: Option<&Table>) -> Vec<(String, String)> {
    let entries = table.into_iter().flat_map(|table| &table.entries);
    entries
        .map(|entry| {
            let value = match cx.json(&path.key(&entry.key), &entry.value, None) {
                Json::String(text) => text,
                other => other.to_string(),
            };
            (entry.key.to_string(), value)
        })
        .collect()
}
