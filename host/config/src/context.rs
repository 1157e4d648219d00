//! What every step of loading needs: the sources, the problems, the secrets, the plugins.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use busbar_contract::{Describe, describe::PluginKind};
use busbar_core::pool::Pool;
use serde_json::Value as Json;

use crate::{
    plugin::PluginInfo,
    problem::{Path, Problems},
    redact,
    secret::{self, Origin, Resolved, Vault},
    source::{Pos, Sources},
    tree::{Data, Node, Table, parse_integer, parse_value},
};

/// Most points of one configuration, templates and repetitions expanded.
pub const MAX_POINTS: usize = 1_000_000;
/// Most points of one device.
pub const MAX_POINTS_PER_DEVICE: usize = 100_000;

/// Most blocks of one device; each is a pattern over all its points.
pub const MAX_BLOCKS_PER_DEVICE: usize = 1_000;

pub(crate) struct Context<'a> {
    pub(crate) sources: RefCell<Sources>,
    pub(crate) problems: Problems,
    pub(crate) vault: Vault,
    pub(crate) plugins: &'a dyn PluginInfo,
    pub(crate) strict: bool,
    /// Keys (as [`Path`] text) whose values print-config must not show.
    pub(crate) masked: RefCell<BTreeSet<String>>,
    /// Keys whose values came by a reference, as written.
    pub(crate) references: RefCell<BTreeMap<String, String>>,
    /// Texts of plugins that are behind the mask and whose references may be shown.
    pub(crate) quoted: RefCell<BTreeSet<String>>,
    /// Addresses and labels of points.
    pub(crate) pool: RefCell<Pool>,
    /// Points so far, against [`MAX_POINTS`].
    pub(crate) points: Cell<usize>,
    /// Values that could not be made (a reference or a variable leads nowhere): CHECK would complain about a
    /// consequence.
    pub(crate) lost: Cell<usize>,
    /// Places of those values: what a schema says about them is a consequence too.
    lost_places: RefCell<HashSet<Pos>>,
    /// Values of other types than text that came by a reference, as written: see [`crate::settle`].
    pub(crate) settled: RefCell<HashMap<Pos, Rc<str>>>,
    /// Where keys with references to the environment have their values from.
    pub(crate) origins: RefCell<BTreeMap<String, Vec<Origin>>>,
    resolved: RefCell<HashMap<Rc<str>, Option<Rc<Resolved>>>>,
    reported_absent: RefCell<BTreeSet<(String, &'static str)>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(vault: Vault, plugins: &'a dyn PluginInfo, strict: bool) -> Self {
        Self {
            sources: RefCell::default(),
            problems: Problems::default(),
            vault,
            plugins,
            strict,
            masked: RefCell::default(),
            references: RefCell::default(),
            quoted: RefCell::default(),
            pool: RefCell::default(),
            points: Cell::new(0),
            lost: Cell::new(0),
            lost_places: RefCell::default(),
            settled: RefCell::default(),
            origins: RefCell::default(),
            resolved: RefCell::default(),
            reported_absent: RefCell::default(),
        }
    }

    /// The text of a node with its references followed; `None` when it is no text, or when a reference leads
    /// nowhere (which is reported here).
    pub(crate) fn text<'n>(&self, path: &Path<'_>, node: &'n Node) -> Option<Cow<'n, str>> {
        let raw = node.raw_text()?;
        if !secret::has_reference(raw) {
            return Some(Cow::Borrowed(raw));
        }
        if secret::is_secret(raw) {
            self.references.borrow_mut().insert(path.to_string(), raw.to_string());
        }
        let known = self.resolved.borrow().get(raw).cloned();
        let result = match known {
            Some(None) => {
                self.lose(node.pos);
                None
            }
            Some(known) => known,
            None => {
                let result = match self.vault.resolve(raw) {
                    Ok(resolved) => Some(Rc::new(resolved)),
                    Err((expected, found, help)) => {
                        self.problems.error(Some(node.pos), path, expected, found).help(help);
                        self.lose(node.pos);
                        None
                    }
                };
                self.resolved.borrow_mut().insert(raw.clone(), result.clone());
                result
            }
        }?;
        if !result.origins.is_empty() {
            self.origins.borrow_mut().insert(path.to_string(), result.origins.clone());
        }
        Some(Cow::Owned(result.text.clone()))
    }

    /// Notes, for print-config, that the value here came by a reference although it is no text.
    pub(crate) fn note_settled(&self, path: &Path<'_>, pos: Pos) {
        let Some(raw) = self.settled.borrow().get(&pos).cloned() else { return };
        let path = path.to_string();
        if let Ok(Resolved { origins, .. }) = self.vault.resolve(&raw) {
            self.origins.borrow_mut().insert(path.clone(), origins);
        }
        self.references.borrow_mut().insert(path, raw.to_string());
    }

    /// A number or switch of a plugin that came by a reference: print-config shows the reference instead of a mask, so
    /// that what it prints reads back.
    pub(crate) fn reveal(&self, key: &str, raw: &str) {
        let name = key.rsplit('.').next().unwrap_or_default();
        if !redact::telling(name) {
            self.masked.borrow_mut().remove(key);
            self.references.borrow_mut().insert(key.to_owned(), raw.to_owned());
        }
    }

    /// A text of a plugin with references, none of which leads to a secret: print-config quotes the references. The value
    /// itself stays behind the mask everywhere.
    pub(crate) fn quote(&self, key: &str, raw: &str) {
        if !redact::telling(key.rsplit('.').next().unwrap_or_default()) {
            self.references.borrow_mut().insert(key.to_owned(), raw.to_owned());
            self.quoted.borrow_mut().insert(key.to_owned());
        }
    }

    /// Notes a value that could not be made.
    pub(crate) fn lose(&self, pos: Pos) {
        self.lost.set(self.lost.get() + 1);
        self.lost_places.borrow_mut().insert(pos);
    }

    /// The value at this place could not be made.
    pub(crate) fn is_lost(&self, pos: Pos) -> bool {
        self.lost_places.borrow().contains(&pos)
    }

    /// A value for `found`, without secrets.
    pub(crate) fn found(&self, node: &Node) -> String {
        match node.raw_text() {
            Some(text) if secret::is_secret(text) => "something else behind a reference".into(),
            _ => node.describe(),
        }
    }

    /// `file:line:column` of a place, for texts that name a second one.
    pub(crate) fn place(&self, pos: Pos) -> String {
        let (file, line, column) = self.sources.borrow().place(pos);
        format!("{file}:{line}:{column}")
    }

    /// A value as the plugins get it: references followed and noted as secret. `schema` decides what a CSV cell is.
    pub(crate) fn json(&self, path: &Path<'_>, node: &Node, schema: Option<&Json>) -> Json {
        match &node.data {
            Data::Text(raw) => {
                if secret::is_secret(raw) {
                    self.hide(path, node.pos);
                }
                self.text(path, node).map_or(Json::Null, |text| Json::String(text.into_owned()))
            }
            Data::Cell(raw) => self.cell(path, node, raw, schema),
            Data::Integer(value) => integer(*value),
            Data::Float(text) => match text.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
                Some(number) => Json::Number(number),
                None => {
                    self.problems.error(Some(node.pos), path, "a finite number", node.describe());
                    Json::Null
                }
            },
            Data::Bool(value) => Json::Bool(*value),
            Data::Time => {
                self.problems
                    .error(Some(node.pos), path, "a text, number, bool, list or table", "a date or time")
                    .help("put it in quotes");
                Json::Null
            }
            Data::Array(items) => Json::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.json(&path.index(index), item, None))
                    .collect(),
            ),
            Data::Table(table) => self.object(path, table, schema),
        }
    }

    /// A table as the plugins get it.
    pub(crate) fn object(&self, path: &Path<'_>, table: &Table, schema: Option<&Json>) -> Json {
        Json::Object(
            table
                .entries
                .iter()
                .map(|entry| {
                    let path = path.key(&entry.key);
                    if redact::telling(&entry.key) && entry.value.raw_text().is_some() {
                        self.hide(&path, entry.value.pos);
                    }
                    let schema = schema.and_then(|schema| schema.get("properties")?.get(&*entry.key));
                    (entry.key.to_string(), self.json(&path, &entry.value, schema))
                })
                .collect(),
        )
    }

    /// Notes that a value must not be printed.
    pub(crate) fn hide(&self, path: &Path<'_>, pos: Pos) {
        self.hide_key(path.to_string(), pos);
    }

    /// The same, for a key that is already text.
    pub(crate) fn hide_key(&self, key: String, pos: Pos) {
        if self.masked.borrow_mut().insert(key) {
            self.sources.borrow_mut().hide(pos);
        }
    }

    /// What a CSV cell means: text where the schema wants nothing but text, else the TOML value it looks like.
    fn cell(&self, path: &Path<'_>, node: &Node, raw: &Rc<str>, schema: Option<&Json>) -> Json {
        if secret::has_reference(raw) {
            if secret::is_secret(raw) {
                self.hide(path, node.pos);
            }
            return self.text(path, node).map_or(Json::Null, |text| Json::String(text.into_owned()));
        }
        if schema.and_then(|schema| schema.get("type")).is_some_and(|kind| kind == "string") {
            return Json::String(raw.to_string());
        }
        match raw.as_ref() {
            "true" => return Json::Bool(true),
            "false" => return Json::Bool(false),
            _ => {}
        }
        if let Some(value) = parse_integer(raw) {
            return integer(value);
        }
        if let Some(number) = raw.parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
            return Json::Number(number);
        }
        if raw.starts_with(['[', '{', '"'])
            && let Some(value) = parse_value(node.pos, raw)
        {
            return self.json(path, &value, schema);
        }
        Json::String(raw.to_string())
    }

    /// The plugin's description; reports once per plugin when there is none.
    pub(crate) fn plugin(
        &self,
        path: &Path<'_>,
        pos: Pos,
        kind: PluginKind,
        name: &str,
    ) -> Option<&'a Describe> {
        if let Some(describe) = self.plugins.describe(kind, name) {
            return Some(describe);
        }
        if self.reported_absent.borrow_mut().insert((name.to_owned(), kind.as_str())) {
            let severity = if self.strict { crate::Severity::Error } else { crate::Severity::Warning };
            let found = self.plugins.why_absent(kind, name).map_or_else(
                || format!("no {} plugin {name:?}", kind.as_str()),
                |why| format!("{name:?}: {why}"),
            );
            let known = self.plugins.names(kind);
            let help = match crate::problem::nearest(name, known.iter().map(String::as_str)) {
                _ if known.iter().any(|known| known == name) => {
                    "its file is there but cannot be used; replace the file".to_owned()
                }
                Some(known) => format!("did you mean {known:?}?"),
                None if known.is_empty() => "install it, or correct plugin_dirs".to_owned(),
                None => format!("there are: {}", known.join(", ")),
            };
            let expected = format!("a usable {} plugin", kind.as_str());
            self.problems.report(severity, Some(pos), path, expected, found).help(help);
        }
        None
    }
}

fn integer(value: i128) -> Json {
    if let Ok(value) = i64::try_from(value) {
        return Json::from(value);
    }
    u64::try_from(value).map_or_else(|_| Json::from(value as f64), Json::from)
}
