//! One point: the host's keys into [`Point`], the rest into the driver's `spec`.

use std::{collections::HashSet, rc::Rc, time::Duration};

use busbar_contract::Describe;
use busbar_core::{
    decimal::Decimal,
    model::{Deadband, Interlock, Point},
};
use serde_json::{Map, Value as Json};

use crate::{
    context::Context,
    form::{self, Form, RawDeadband},
    host::Reader,
    judge::{Exhibit, Judge, Piece},
    keys,
    problem::{Path, Severity, did_you_mean, nearest},
    source::Pos,
    tree::{Entry, Node, Table},
};

/// Longest unit, in bytes.
const MAX_UNIT: usize = 32;
/// `stale_after` is at least this, unless configured.
const MIN_STALE: Duration = Duration::from_secs(3);
/// `stale_after` in poll intervals, unless configured.
const STALE_INTERVALS: u32 = 3;
/// `invalid_after` in `stale_after`, unless configured.
const INVALID_STALES: u32 = 10;

/// What a point takes from its device.
pub(crate) struct FromDevice<'f, 'a> {
    pub(crate) poll_interval: Duration,
    pub(crate) stale_after: Option<Duration>,
    pub(crate) invalid_after: Option<Duration>,
    pub(crate) tick: Duration,
    /// The device's `{ description, labels }`, or `null`.
    pub(crate) about: Json,
    pub(crate) plugin: Option<&'a Describe>,
    pub(crate) sink_names: &'f HashSet<String>,
}

/// A point that is not in a device yet.
pub(crate) struct Draft {
    pub(crate) model: Point,
    /// Tables named after a sink plugin.
    pub(crate) sink_keys: Vec<Entry>,
    pub(crate) interlock: Option<Pos>,
    /// What the plugin's schema complained about.
    pub(crate) bad: Vec<String>,
}

/// Builds one point; `None` when it has no usable name or is switched off.
pub(crate) fn build<'a>(
    cx: &Context<'_>,
    judge: &Judge<'a>,
    path: &Path<'_>,
    index: usize,
    node: &Node,
    from: &FromDevice<'_, 'a>,
) -> Option<Draft> {
    let table = node.as_table()?;
    let piece = from.plugin.and_then(|plugin| judge.piece(cx, plugin, "point"));
    let parts = split(cx, path, table, from, piece.as_deref());
    let read = Reader { cx, path, table };
    let name = read.text("name").filter(|name| form::is_name(name))?;
    let mut spec = Json::Object(parts.spec);
    let mut bad = Vec::new();
    if let Some(piece) = piece.as_deref() {
        let exhibit = Exhibit { pointer: format!("/points/{index}"), key: path.to_string(), node };
        let host_keys: Vec<&str> = keys::POINT.iter().map(|key| key.name).collect();
        bad = piece.judge(cx, &exhibit, &mut spec, &host_keys);
        piece.hide_secrets(cx, path, node, &spec);
    }
    let mut model = Point {
        name,
        spec: cx.pool.borrow_mut().share(spec),
        unit: read.text("unit").unwrap_or_default(),
        ..Point::default()
    };
    numbers(cx, path, table, &mut model);
    times(cx, &read, from, &mut model);
    model.invert = read.bool("invert").unwrap_or(false);
    model.writable = read.bool("writable").unwrap_or(false);
    model.event = read.text("class").as_deref() == Some("event");
    model.interlock = interlock(cx, path, table);
    model.metadata = cx.pool.borrow_mut().share(metadata(cx, path, table, &model, &from.about));
    rules(cx, path, node, table, &model);
    let interlock = table
        .get("interlock")
        .map(|node| node.as_table().and_then(|table| table.get("point")).map_or(node.pos, |point| point.pos));
    Some(Draft { model, sink_keys: parts.sinks, interlock, bad })
}

/// The keys of a point by owner.
struct Parts {
    spec: Map<String, Json>,
    sinks: Vec<Entry>,
}

fn split(
    cx: &Context<'_>,
    path: &Path<'_>,
    table: &Table,
    from: &FromDevice<'_, '_>,
    piece: Option<&Piece<'_>>,
) -> Parts {
    let mut parts = Parts { spec: Map::new(), sinks: Vec::new() };
    for entry in &table.entries {
        let key_path = path.key(&entry.key);
        if let Some(key) = form::find(keys::POINT, &entry.key) {
            form::check(cx, &key_path, &entry.value, &key.form);
        } else if from.sink_names.contains(&*entry.key) && !piece.is_some_and(|piece| piece.knows(&entry.key))
        {
            parts.sinks.push(entry.clone());
        } else {
            if from.plugin.is_none() {
                misspelt(cx, &key_path, entry, keys::POINT);
            }
            let schema = piece.and_then(|piece| piece.schema().get("properties")?.get(&*entry.key));
            let text_only = matches!(&*entry.key, "address" | "type");
            let value = match entry.value.raw_text() {
                Some(_) if text_only => cx
                    .text(&key_path, &entry.value)
                    .map_or(Json::Null, |text| Json::String(text.into_owned())),
                _ => cx.json(&key_path, &entry.value, schema),
            };
            parts.spec.insert(entry.key.to_string(), value);
        }
    }
    parts
}

/// Without the driver's schema only a key that looks like one of the host's is suspicious.
pub(crate) fn misspelt(cx: &Context<'_>, path: &Path<'_>, entry: &Entry, keys: &[form::Key]) {
    if nearest(&entry.key, keys.iter().map(|key| key.name)).is_some() {
        let found = format!("{:?}", &*entry.key);
        cx.problems
            .report(
                Severity::Warning,
                Some(entry.key_pos),
                path,
                "a key of the host or of the driver".into(),
                found,
            )
            .help(did_you_mean(&entry.key, keys.iter().map(|key| key.name)));
    }
}

fn numbers(cx: &Context<'_>, path: &Path<'_>, table: &Table, model: &mut Point) {
    let decimal = |key: &str, default| table.get(key).and_then(Node::as_decimal).unwrap_or(default);
    model.scale = decimal("scale", Decimal::ONE);
    model.offset = decimal("offset", Decimal::ZERO);
    if model.scale == Decimal::ZERO
        && let Some(node) = table.get("scale")
    {
        cx.problems.error(Some(node.pos), path.key("scale"), "a factor other than 0", node.describe());
    }
    model.range = table.get("range").and_then(form::read_range);
    model.write_range = table.get("write_range").and_then(form::read_range).or(model.range);
    let Some(node) = table.get("deadband") else { return };
    model.deadband = match (form::read_deadband(node), model.range) {
        (Some(RawDeadband::Absolute(0.0) | RawDeadband::Percent(0.0)) | None, _) => Deadband::None,
        (Some(RawDeadband::Absolute(value)), _) => Deadband::Absolute(value),
        (Some(RawDeadband::Percent(percent)), Some([min, max])) => {
            Deadband::Absolute((max - min) * percent / 100.0)
        }
        (Some(RawDeadband::Percent(_)), None) => {
            if table.get("range").is_none() {
                cx.problems
                    .error(
                        Some(node.pos),
                        path.key("deadband"),
                        "a range, because a percentage is of its span",
                        "none",
                    )
                    .help("add range = [min, max], or write the deadband in the point's unit");
            }
            Deadband::None
        }
    };
}

fn times(cx: &Context<'_>, read: &Reader<'_, '_>, from: &FromDevice<'_, '_>, model: &mut Point) {
    let own_poll = read.duration("poll_interval");
    let poll = own_poll.unwrap_or(from.poll_interval);
    if let (Some(own), Some(node)) = (own_poll, read.table.get("poll_interval")) {
        check_tick(cx, &read.path.key("poll_interval"), node, own, from.tick);
    }
    let default = (poll * STALE_INTERVALS).max(MIN_STALE);
    // The device's stale_after is made for the device's interval.
    let inherited = from.stale_after.filter(|_| own_poll.is_none());
    let own_stale = read.duration("stale_after");
    let stale = own_stale.or(inherited).unwrap_or(default);
    if let (Some(own), Some(node)) = (own_stale, read.table.get("stale_after")) {
        check_stale(cx, &read.path.key("stale_after"), node, own, poll);
    }
    let invalid = read
        .duration("invalid_after")
        .or(from.invalid_after.filter(|_| own_poll.is_none() && own_stale.is_none()))
        .unwrap_or(stale * INVALID_STALES);
    if let (true, Some(node)) = (invalid < stale, read.table.get("invalid_after")) {
        let expected = format!("at least stale_after ({})", crate::units::show_duration(stale));
        cx.problems.error(Some(node.pos), read.path.key("invalid_after"), expected, cx.found(node));
    }
    model.poll_interval = poll;
    model.stale_after = stale;
    model.invalid_after = invalid.max(stale);
}

/// An interval shorter than the scheduler's grid cannot be kept.
pub(crate) fn check_tick(cx: &Context<'_>, path: &Path<'_>, node: &Node, interval: Duration, tick: Duration) {
    if !interval.is_zero() && interval < tick {
        let expected = format!("at least the [host] tick ({})", crate::units::show_duration(tick));
        cx.problems.error(Some(node.pos), path, expected, cx.found(node));
    }
}

/// A value that is old before the next one comes.
pub(crate) fn check_stale(cx: &Context<'_>, path: &Path<'_>, node: &Node, stale: Duration, poll: Duration) {
    if stale <= poll {
        let expected = format!("more than poll_interval ({})", crate::units::show_duration(poll));
        cx.problems
            .warning(Some(node.pos), path, expected, cx.found(node))
            .help("a polled value is old_data before the next one arrives");
    }
}

fn interlock(cx: &Context<'_>, path: &Path<'_>, table: &Table) -> Option<Interlock> {
    let inner = table.table("interlock")?;
    let path = path.key("interlock");
    let point = Reader { cx, path: &path, table: inner }.text("point")?;
    let equals = inner.get("equals").map(|node| cx.json(&path.key("equals"), node, None))?;
    Some(Interlock { point, equals })
}

/// Keys of a point that are metadata as they are.
pub(crate) const METADATA: [&str; 5] = ["description", "group", "class", "labels", "decimals"];

/// What sinks and the API get to know about a point: [`METADATA`] (class where it is not the default), `limits`
/// (`{ range, write_range }`, engineering units; `write_range` of writable points only) and `device` (`{ description,
/// labels }` of its device); `null` when there is nothing.
fn metadata(cx: &Context<'_>, path: &Path<'_>, table: &Table, model: &Point, device: &Json) -> Json {
    let mut map = Map::new();
    for key in METADATA {
        let Some(node) = table.get(key) else { continue };
        let value = match key {
            "decimals" => node.as_integer().and_then(|digits| u8::try_from(digits).ok()).map(Json::from),
            _ => Some(cx.json(&path.key(key), node, None)).filter(|value| key != "class" || value != "state"),
        };
        if let Some(value) = value {
            map.insert(key.into(), value);
        }
    }
    let mut limits = Map::new();
    for (key, range) in
        [("range", model.range), ("write_range", model.write_range.filter(|_| model.writable))]
    {
        if let Some(range) = range {
            limits.insert(key.into(), Json::from(range.to_vec()));
        }
    }
    if !limits.is_empty() {
        map.insert("limits".into(), Json::Object(limits));
    }
    if !device.is_null() {
        map.insert("device".into(), device.clone());
    }
    if map.is_empty() { Json::Null } else { Json::Object(map) }
}

/// What a type name says about the kind of value (see the rules); types belong to the drivers, so only common names are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
    Unknown,
}

pub(crate) fn kind(spec: &Json) -> Kind {
    if spec.get("bit").is_some_and(|bit| !bit.is_null()) {
        return Kind::Bool;
    }
    let Some(name) = spec.get("type").and_then(Json::as_str) else { return Kind::Unknown };
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "bool" | "sps" | "spc" | "dps" | "dpc" | "double_point" => Kind::Bool,
        "string" | "text" | "ascii" => Kind::Text,
        "mv" | "cmv" | "apc" | "bcr" | "double" | "float" | "real" => Kind::Number,
        _ if ["int", "uint", "float", "bcd", "scaled"].iter().any(|stem| {
            name.strip_prefix(stem).is_some_and(|size| size.bytes().all(|byte| byte.is_ascii_digit()))
        }) =>
        {
            Kind::Number
        }
        _ => Kind::Unknown,
    }
}

/// Rules that need more than one key.
fn rules(cx: &Context<'_>, path: &Path<'_>, node: &Node, table: &Table, model: &Point) {
    let kind = kind(&model.spec);
    let type_text = || {
        let name = model.spec.get("type").and_then(Json::as_str).unwrap_or("bit");
        format!("type {name:?}")
    };
    let place = |key: &str| table.get(key).map_or(node.pos, |node| node.pos);
    if model.invert && matches!(kind, Kind::Number | Kind::Text) {
        cx.problems
            .error(Some(place("invert")), path.key("invert"), "a bool or double point to invert", type_text())
            .help("use scale = -1 for numbers");
    }
    if matches!(kind, Kind::Bool | Kind::Text) {
        for key in ["scale", "offset", "deadband", "decimals"] {
            if let Some(found) = table.get(key) {
                cx.problems.error(Some(found.pos), path.key(key), format!("a number for {key}"), type_text());
            }
        }
    }
    if model.writable && kind == Kind::Number && model.write_range.is_none() {
        cx.problems
            .warning(
                Some(place("writable")),
                path.key("writable"),
                "a range for a number that can be written",
                "none",
            )
            .help("add range or write_range = [min, max]; commands outside are refused");
    }
    if !model.writable {
        for key in ["write_range", "interlock"] {
            if let Some(found) = table.get(key) {
                cx.problems
                    .warning(
                        Some(found.pos),
                        path.key(key),
                        "writable = true",
                        "a point that takes no commands",
                    )
                    .help(format!("{key} has no effect here"));
            }
        }
    }
    if model.unit.len() > MAX_UNIT || model.unit.chars().any(char::is_control) {
        let expected = format!("a unit of at most {MAX_UNIT} bytes without control characters");
        cx.problems.error(
            Some(place("unit")),
            path.key("unit"),
            expected,
            format!("{} bytes", model.unit.len()),
        );
    }
}

/// Names in a list that come twice, reported with both places. Returns the first of each.
pub(crate) fn unique(cx: &Context<'_>, path: &Path<'_>, nodes: Vec<Node>) -> Vec<(Rc<str>, Node)> {
    let mut seen: std::collections::HashMap<Rc<str>, Pos> = std::collections::HashMap::new();
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(table) = node.as_table() else { continue };
        let Some(name) = table.get("name") else {
            cx.problems.error(Some(node.pos), path.key("name"), "the key \"name\"", "none");
            continue;
        };
        let key = path.key("name");
        let Some(text) = cx.text(&key, name).map(|text| Rc::from(&*text)) else {
            // A text of another form is reported with the other keys.
            form::check(cx, &key, name, &Form::Name);
            continue;
        };
        if let Some(first) = seen.get(&text) {
            let found = format!("{:?}, first at {}", &*text, cx.place(*first));
            cx.problems.error(Some(name.pos), path.named(&text), "a name that comes once", found);
            continue;
        }
        seen.insert(Rc::clone(&text), name.pos);
        out.push((text, node));
    }
    out
}
