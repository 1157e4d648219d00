//! The map of one sink: which entry belongs to which point.
//!
//! Entries come from two places. *Generated*: a point's table named after the sink's plugin (`iec104 = { ioa = 12 }`, or
//! a list of such tables, or `false` for none) over the device's table of that name. In the device's table `X_base` is
//! added to the point's whole number `X`, every other key is a default for the point's entries. *Explicit*: the sink's
//! `map`; an explicit entry of a point replaces all generated entries of that point.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use busbar_contract::Describe;
use serde_json::Value as Json;

use crate::{
    context::Context,
    device::Made,
    form::{self, Form},
    index::Index,
    judge::{Exhibit, Judge, Piece},
    problem::Path,
    source::Pos,
    system,
    tree::{Data, Entry, Node, Table},
};

/// Ending of the device keys that shift a point's number.
const BASE: &str = "_base";
/// Annotation in a plugin's map schema: these keys together belong to one point only.
const UNIQUE: &str = "x-busbar-unique";

/// What an entry speaks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Point(usize, usize),
    Device(usize),
    System(String),
    /// The sink as a whole.
    Sink,
}

/// The keys that are secret in some map entry of a sink, by what [`Context::masked`] holds. Where an entry ends up says
/// nothing about where it came from, so a key that is secret in one entry is secret in all.
pub(crate) fn secret_keys<'k>(masked: &'k BTreeSet<String>, sink: &str, plugin: &str) -> BTreeSet<&'k str> {
    let explicit = format!("sink[{sink}].map[");
    let generated = format!("].{plugin}.");
    masked
        .iter()
        .filter_map(|key| match key.strip_prefix(&explicit) {
            Some(rest) => rest.split_once("].").map(|(_, key)| key),
            None => key.split_once(&generated).map(|(_, key)| key),
        })
        .filter_map(|key| key.split(['.', '[']).next())
        .collect()
}

/// One entry, judged.
pub(crate) struct Mapped {
    pub(crate) target: Target,
    pub(crate) json: Json,
    pub(crate) node: Node,
    /// What the plugin's schema complained about.
    pub(crate) bad: Vec<String>,
    /// Its key for people: the entry of `map`, or the point's table it was generated from.
    pub(crate) key: String,
}

/// An entry before it is judged.
struct Raw {
    target: Target,
    node: Node,
    key: String,
}

/// All it takes to make the map of one sink.
pub(crate) struct Maker<'m, 'a> {
    pub(crate) cx: &'m Context<'a>,
    pub(crate) judge: &'m Judge<'a>,
    pub(crate) path: Path<'m>,
    pub(crate) plugin_name: &'m str,
    pub(crate) plugin: Option<&'a Describe>,
    pub(crate) devices: &'m [Made],
    pub(crate) index: &'m Index<'m>,
    pub(crate) sink_list: &'m [String],
}

impl<'a> Maker<'_, 'a> {
    /// Explicit entries first, then the generated ones of `routed` points.
    pub(crate) fn make(
        &self,
        explicit: Vec<Node>,
        routed: &[(usize, usize)],
        settings: &Json,
    ) -> Vec<Mapped> {
        let piece = self.plugin.and_then(|plugin| self.judge.piece(self.cx, plugin, "map"));
        let piece = piece.as_deref();
        let mut entries: Vec<Raw> = Vec::new();
        for (at, node) in explicit.into_iter().enumerate() {
            if let Some(target) = self.target(&node, at, piece) {
                let key = self.path.key("map").index(at).to_string();
                entries.push(Raw { target, node, key });
            }
        }
        let overridden: std::collections::HashSet<Target> =
            entries.iter().map(|entry| entry.target.clone()).collect();
        for (device, point) in routed {
            let target = Target::Point(*device, *point);
            if !overridden.contains(&target) {
                self.generated(*device, *point, &mut entries);
            }
        }
        let mapped: Vec<Mapped> =
            entries.into_iter().enumerate().map(|(at, raw)| self.judged(at, raw, piece)).collect();
        if let Some(piece) = piece {
            self.collisions(&mapped, piece.schema(), settings);
        }
        mapped
    }

    fn judged(&self, at: usize, raw: Raw, piece: Option<&Piece<'a>>) -> Mapped {
        let Raw { target, node, key } = raw;
        let path = Path::Root.key(&key);
        let empty = Table::default();
        let table = node.as_table().unwrap_or(&empty);
        let mut json = self.cx.object(&path, table, piece.map(Piece::schema));
        let mut bad = Vec::new();
        if let Some(piece) = piece {
            piece.hide_secrets(self.cx, &path, &node, &json);
            let exhibit = Exhibit { pointer: format!("/map/{at}"), key: key.clone(), node: &node };
            bad = piece.judge(self.cx, &exhibit, &mut json, &[]);
        }
        Mapped { target, json, node, bad, key }
    }

    /// What an explicit entry speaks about; reports names that do not exist.
    fn target(&self, node: &Node, at: usize, piece: Option<&Piece<'a>>) -> Option<Target> {
        let cx = self.cx;
        let list = self.path.key("map");
        let path = list.index(at);
        let Some(table) = node.as_table() else {
            cx.problems.error(Some(node.pos), path, "a table", cx.found(node));
            return None;
        };
        if let Some(point) = table.get("point") {
            let path = path.key("point");
            if !form::check(cx, &path, point, &Form::Text) {
                return None;
            }
            let text = cx.text(&path, point)?;
            if text.contains('@') {
                return self.system_target(&path, point, &text);
            }
            return match self.index.point(&text) {
                Ok((device, point)) => Some(Target::Point(device, point)),
                Err(help) => {
                    cx.problems.error(Some(point.pos), path, "an existing point", cx.found(point)).help(help);
                    None
                }
            };
        }
        if let Some(device) = table.get("device") {
            let path = path.key("device");
            let text = cx.text(&path, device)?;
            let found = self.index.device(&text);
            if found.is_none() {
                cx.problems
                    .error(Some(device.pos), path, "an existing device", cx.found(device))
                    .help(self.index.no_device(&text));
            }
            return found.map(Target::Device);
        }
        if piece.is_some_and(|piece| !piece.knows("point") && !piece.knows("device")) {
            return Some(Target::Sink);
        }
        cx.problems.error(Some(node.pos), path, "an entry with `point` or `device`", "neither");
        None
    }

    fn system_target(&self, path: &Path<'_>, node: &Node, text: &str) -> Option<Target> {
        match system::check(text, |device| self.index.device(device).is_some(), self.sink_list) {
            Ok(()) => Some(Target::System(text.to_owned())),
            Err(help) => {
                self.cx
                    .problems
                    .error(Some(node.pos), path, "a system point", self.cx.found(node))
                    .help(help);
                None
            }
        }
    }

    /// The entries that a point and its device ask for.
    fn generated(&self, device: usize, point: usize, out: &mut Vec<Raw>) {
        let Some(made) = self.devices.get(device) else { return };
        let (Some(source), Some(model)) = (made.points.get(point), made.model.points.get(point)) else {
            return;
        };
        let named =
            |entries: &'_ [Entry]| entries.iter().find(|entry| &*entry.key == self.plugin_name).cloned();
        let Some(own) = named(&source.sink_keys) else { return };
        let device_keys = named(&made.sink_keys).and_then(|entry| match entry.value.data {
            Data::Table(table) => Some(table),
            _ => None,
        });
        let name = format!("{}/{}", made.model.name, model.name);
        let key = format!("device[{}].points[{}].{}", made.model.name, model.name, own.key);
        for item in own.value.as_array().unwrap_or(std::slice::from_ref(&own.value)) {
            match &item.data {
                Data::Bool(false) => {}
                Data::Table(table) => {
                    let combined = self.combined(&name, &own, table, device_keys.as_ref());
                    out.push(Raw {
                        target: Target::Point(device, point),
                        node: Node::new(item.pos, Data::Table(combined)),
                        key: key.clone(),
                    });
                }
                _ => {
                    let found = self.cx.found(item);
                    self.cx.problems.error(
                        Some(item.pos),
                        &key,
                        "a table, a list of tables, or false",
                        found,
                    );
                }
            }
        }
    }

    fn combined(&self, name: &str, own: &Entry, table: &Table, device: Option<&Table>) -> Table {
        let text = Node::new(own.key_pos, Data::Text(Rc::from(name)));
        let mut combined = Table::default();
        combined.set(Entry { key: Rc::from("point"), key_pos: own.key_pos, value: text });
        let device = device.map(|table| table.entries.as_slice()).unwrap_or_default();
        for entry in device.iter().filter(|entry| !entry.key.ends_with(BASE)) {
            combined.set(entry.clone());
        }
        for entry in &table.entries {
            combined.set(entry.clone());
        }
        for base in device {
            let Some(key) = base.key.strip_suffix(BASE) else { continue };
            let Some(entry) = combined.entries.iter_mut().find(|entry| &*entry.key == key) else { continue };
            match (base.value.as_integer(), entry.value.as_integer()) {
                (Some(base), Some(number)) => entry.value.data = Data::Integer(base.saturating_add(number)),
                (None, _) => {
                    let found = self.cx.found(&base.value);
                    self.cx.problems.error(Some(base.value.pos), &base.key, "a whole number", found);
                }
                // The plugin's schema says what the number itself must be.
                (Some(_), None) => {}
            }
        }
        combined
    }

    /// Two points with the same address.
    fn collisions(&self, mapped: &[Mapped], schema: &Json, settings: &Json) {
        let Some(keys) = schema.get(UNIQUE).and_then(Json::as_array) else { return };
        let keys: Vec<&str> = keys.iter().filter_map(Json::as_str).collect();
        let mut taken: HashMap<Vec<Json>, (&Target, Pos)> = HashMap::new();
        for entry in mapped {
            let own = keys.iter().filter_map(|key| entry.json.get(key)).count();
            if own == 0 {
                continue;
            }
            let address: Vec<Json> = keys
                .iter()
                .map(|key| entry.json.get(key).or_else(|| settings.get(key)).cloned().unwrap_or(Json::Null))
                .collect();
            let named = keys.last().and_then(|key| entry.node.as_table()?.get(key));
            let pos = named.map_or(entry.node.pos, |node| node.pos);
            let Some((first, first_pos)) = taken.get(&address) else {
                taken.insert(address, (&entry.target, pos));
                continue;
            };
            if **first == entry.target {
                continue;
            }
            let address: Vec<String> =
                keys.iter().zip(&address).map(|(key, value)| format!("{key} {value}")).collect();
            let found = format!(
                "{} for {:?}, taken by {:?} at {}",
                address.join(", "),
                self.name(&entry.target),
                self.name(first),
                self.cx.place(*first_pos)
            );
            self.cx.problems.error(Some(pos), &entry.key, "an address of its own for every point", found);
        }
    }

    /// A target for people.
    pub(crate) fn name(&self, target: &Target) -> String {
        match target {
            Target::Point(device, point) => self
                .devices
                .get(*device)
                .and_then(|made| Some(format!("{}/{}", made.model.name, made.model.points.get(*point)?.name)))
                .unwrap_or_default(),
            Target::Device(device) => {
                self.devices.get(*device).map(|made| made.model.name.clone()).unwrap_or_default()
            }
            Target::System(name) => name.clone(),
            Target::Sink => "the sink".into(),
        }
    }
}
