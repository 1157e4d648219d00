//! JSON Schema (draft 2020-12) of `plugins.toml`, so that editors complete and check it.
//!
//! Made from the same tables that the check uses, with the schemas of the plugins put in by `if driver = .. then`. Plugin
//! schemas live under `$defs`, their references moved along. Where a text may hold a reference (`${env:..}`) or a variable
//! (`{ld}`), the schema allows any text with a brace: the real check knows more.

use std::collections::BTreeSet;

use busbar_contract::{Describe, describe::PluginKind};
use serde_json::{Map, Value as Json, json};

use crate::{
    dialect::Place,
    form::{Form, Key, MAX_NAME},
    keys::{self, DEVICE_ONLY},
    plugin::PluginInfo,
};

/// Everything the plugins contribute.
struct Plugins<'a> {
    drivers: Vec<&'a Describe>,
    sinks: Vec<&'a Describe>,
    /// Tables with these names belong to sinks.
    sink_names: BTreeSet<String>,
}

/// The schema of the whole file.
pub(crate) fn build(info: &dyn PluginInfo) -> Json {
    let list = |kind| -> Vec<&Describe> {
        info.names(kind).iter().filter_map(|name| info.describe(kind, name)).collect()
    };
    let sink_names = info.names(PluginKind::Sink).into_iter().collect();
    let plugins = Plugins { drivers: list(PluginKind::Driver), sinks: list(PluginKind::Sink), sink_names };
    let mut defs = Map::new();
    for plugin in plugins.drivers.iter().chain(&plugins.sinks) {
        for (what, schema) in pieces(plugin) {
            let name = def(plugin, what);
            defs.insert(name.clone(), moved(schema, &format!("#/$defs/{name}")));
        }
    }
    defs.insert("host".into(), host());
    defs.insert("point".into(), point(&plugins, None, true));
    for driver in &plugins.drivers {
        defs.insert(format!("point.{}", driver.name), point(&plugins, Some(driver), true));
    }
    defs.insert("device".into(), device(&plugins));
    defs.insert("template".into(), template(&plugins));
    defs.insert("sink".into(), sink(&plugins));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Busbar configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": root(&plugins),
        "$defs": defs,
    })
}

/// The schemas that a plugin exports.
fn pieces(plugin: &Describe) -> Vec<(&'static str, &Json)> {
    let schemas = &plugin.schemas;
    let all = match plugin.kind {
        PluginKind::Driver => {
            vec![("connection", &schemas.connection), ("point", &schemas.point), ("device", &schemas.device)]
        }
        PluginKind::Sink => vec![("settings", &schemas.settings), ("map", &schemas.map)],
    };
    all.into_iter().filter(|(_, schema)| schema.is_object()).collect()
}

fn def(plugin: &Describe, what: &str) -> String {
    format!("{}.{}.{what}", plugin.kind.as_str(), plugin.name)
}

/// A copy whose references within the document start at `root`.
fn moved(schema: &Json, root: &str) -> Json {
    match schema {
        Json::Object(map) => Json::Object(
            map.iter()
                .filter(|(key, _)| !matches!(key.as_str(), "$schema" | "$id"))
                .map(|(key, value)| match (key.as_str(), value) {
                    ("$ref", Json::String(target)) => {
                        let target = target
                            .strip_prefix('#')
                            .map_or_else(|| target.clone(), |rest| format!("{root}{rest}"));
                        (key.clone(), Json::String(target))
                    }
                    _ => (key.clone(), moved(value, root)),
                })
                .collect(),
        ),
        Json::Array(items) => Json::Array(items.iter().map(|item| moved(item, root)).collect()),
        other => other.clone(),
    }
}

fn root(plugins: &Plugins<'_>) -> Json {
    let mut properties = Map::new();
    for key in keys::ROOT {
        let mut schema = match key.name {
            "host" => json!({ "$ref": "#/$defs/host" }),
            "plugins" => {
                json!({ "type": "object", "additionalProperties": table(keys::PLUGIN, Context::File) })
            }
            "template" => json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/template" } }),
            "defaults" => defaults(plugins),
            name => json!({ "type": "array", "items": { "$ref": format!("#/$defs/{name}") } }),
        };
        describe(&mut schema, key);
        properties.insert(key.name.into(), schema);
    }
    Json::Object(properties)
}

fn host() -> Json {
    table(keys::HOST, Context::File)
}

/// Whether `{name}` is a variable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    File,
    Template,
}

/// A closed table with exactly these keys.
fn table(keys: &[Key], context: Context) -> Json {
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema =
        json!({ "type": "object", "additionalProperties": false, "properties": properties(keys, context) });
    if let (false, Some(map)) = (required.is_empty(), schema.as_object_mut()) {
        map.insert("required".into(), json!(required));
    }
    schema
}

fn properties(keys: &[Key], context: Context) -> Map<String, Json> {
    keys.iter()
        .map(|key| {
            let form = if key.name == "admin" { Form::Table(keys::ADMIN) } else { key.form };
            let mut schema = of_form(&form, context);
            describe(&mut schema, key);
            (key.name.to_owned(), schema)
        })
        .collect()
}

fn describe(schema: &mut Json, key: &Key) {
    let Some(map) = schema.as_object_mut() else { return };
    map.insert("description".into(), key.doc.into());
    if key.default.is_empty() {
        return;
    }
    let value = format!("x = {}", key.default).parse::<toml::Table>().ok();
    if let Some(value) = value.and_then(|table| serde_json::to_value(table.get("x")?).ok()) {
        map.insert("default".into(), value);
    }
}

/// A text of this form, or one with a reference or a variable in it.
fn pattern(form: &str) -> Json {
    json!({ "type": "string", "pattern": format!("^({form}|.*\\{{.*)$") })
}

/// A text that is nothing but one reference, in place of another type: see [`crate::settle`].
fn reference() -> Json {
    json!({ "type": "string", "pattern": "^\\$\\{[^}]*\\}$" })
}

/// The schema of a form.
fn of_form(form: &Form, context: Context) -> Json {
    let plain = match form {
        Form::Text => return json!({ "type": "string" }),
        Form::Path => return json!({ "type": "string", "format": "path" }),
        Form::Name => return pattern(&format!("[A-Za-z0-9_.-]{{1,{MAX_NAME}}}")),
        Form::Duration(_) => {
            return pattern("\\s*([0-9][0-9._]*\\s*(ns|us|ms|s|min|m|h|d)\\s*)+");
        }
        Form::Size => return pattern("\\s*[0-9][0-9._]*\\s*(B|kB|KB|MB|GB|KiB|MiB|GiB|TiB)\\s*"),
        Form::Words(words) => return json!({ "anyOf": [{ "enum": words }, reference()] }),
        Form::Table(keys) => return table(keys, context),
        Form::Open => return json!({ "type": "object" }),
        Form::Labels => {
            return json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } });
        }
        Form::List(item) => return json!({ "type": "array", "items": of_form(item, context) }),
        Form::OneOrList(item) => {
            let item = of_form(item, context);
            return json!({ "anyOf": [item, { "type": "array", "items": item }] });
        }
        Form::Elsewhere => return json!({}),
        Form::Scalar => return json!({ "type": ["string", "number", "boolean"] }),
        Form::Deadband => {
            json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string", "pattern": "%\\s*$" }] })
        }
        Form::Bool => json!({ "type": "boolean" }),
        Form::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Decimal => json!({ "type": "number" }),
        Form::Range => {
            json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })
        }
    };
    match context {
        Context::File => json!({ "anyOf": [plain, reference()] }),
        Context::Template => json!({ "anyOf": [plain, { "type": "string", "pattern": "^\\{.*\\}$" }] }),
    }
}

/// Any key of a plugin's piece, each with its own schema but nothing required: templates and overrides are partial.
fn partial(plugin: &Describe, what: &str) -> Map<String, Json> {
    let Some((_, schema)) = pieces(plugin).into_iter().find(|(name, _)| *name == what) else {
        return Map::new();
    };
    let direct = schema.get("properties").and_then(Json::as_object);
    let reference = |key: &str| {
        let target =
            format!("#/$defs/{}/properties/{}", def(plugin, what), key.replace('~', "~0").replace('/', "~1"));
        json!({ "anyOf": [{ "$ref": target }, { "type": "string", "pattern": "\\{" }] })
    };
    Place::root(schema)
        .keys()
        .into_iter()
        .map(|key| {
            let inner = direct.and_then(|direct| direct.get(key));
            let mut value = if inner.is_some() { reference(key) } else { json!({}) };
            let text = inner.and_then(|inner| inner.get("description"));
            if let (Some(text), Some(map)) = (text, value.as_object_mut()) {
                map.insert("description".into(), text.clone());
            }
            (key.to_owned(), value)
        })
        .collect()
}

fn sink_tables(plugins: &Plugins<'_>, properties: &mut Map<String, Json>) {
    for name in &plugins.sink_names {
        properties.entry(name.clone()).or_insert_with(
            || json!({ "type": ["object", "array", "boolean"], "description": format!("Map entry for sinks of plugin {name}.") }),
        );
    }
}

/// A point; of one driver, or (in templates) of any.
fn point(plugins: &Plugins<'_>, driver: Option<&Describe>, named: bool) -> Json {
    let mut all = properties(keys::POINT, Context::Template);
    sink_tables(plugins, &mut all);
    let own: Vec<&Describe> = driver.map_or_else(|| plugins.drivers.clone(), |driver| vec![driver]);
    // In a template the driver is open: a key may be what any of them says.
    let mut offered: Map<String, Json> = Map::new();
    for driver in &own {
        for (key, schema) in partial(driver, "point") {
            let choices = offered.entry(key).or_insert_with(|| json!([]));
            if let Some(choices) = choices.as_array_mut() {
                choices.push(schema);
            }
        }
    }
    for (key, choices) in offered {
        let schema = match choices.as_array().map(Vec::as_slice) {
            Some([only]) => only.clone(),
            _ => json!({ "anyOf": choices }),
        };
        all.entry(key).or_insert(schema);
    }
    let closed = !own.is_empty() && own.iter().all(|driver| driver.schemas.point.is_object());
    let mut schema = json!({ "type": "object", "properties": all });
    if let Some(map) = schema.as_object_mut() {
        map.insert("additionalProperties".into(), Json::Bool(!closed));
        // Repeated points get their name from `repeat`.
        if named {
            map.insert("anyOf".into(), json!([{ "required": ["name"] }, { "required": ["repeat"] }]));
        }
    }
    schema
}

/// `points`: tables, or map files.
fn points(item: &str) -> Json {
    json!({ "anyOf": [
        { "type": "string" },
        { "type": "array", "items": { "anyOf": [{ "type": "string" }, { "$ref": item }] } },
    ] })
}

/// Host keys of a device; `points` and `blocks` filled in.
fn device_keys(plugins: &Plugins<'_>, without: &[&str]) -> Map<String, Json> {
    let mut all = properties(keys::DEVICE, Context::File);
    all.retain(|key, _| !without.contains(&key.as_str()));
    let blocks = json!({ "type": "array", "items": table(keys::BLOCK, Context::Template) });
    for (name, filled) in [("blocks", blocks), ("points", points("#/$defs/point"))] {
        let about = all.get(name).and_then(|old| old.get("description")).cloned();
        if let Some(slot) = all.get_mut(name) {
            *slot = filled;
            if let (Some(about), Some(map)) = (about, slot.as_object_mut()) {
                map.insert("description".into(), about);
            }
        }
    }
    sink_tables(plugins, &mut all);
    all
}

/// What a driver adds to a device.
fn of_driver(driver: &Describe, whole: bool) -> Json {
    let mut all = partial(driver, "device");
    if driver.schemas.connection.is_object() {
        let connection = json!({ "$ref": format!("#/$defs/{}", def(driver, "connection")) });
        // Defaults hold a part of a connection, so they only get the names.
        let value = if whole { connection } else { json!({ "type": "object" }) };
        all.insert("connection".into(), value);
    }
    if whole {
        all.insert("points".into(), points(&format!("#/$defs/point.{}", driver.name)));
    }
    json!({ "properties": all })
}

fn device(plugins: &Plugins<'_>) -> Json {
    let mut branches: Vec<Json> = plugins
        .drivers
        .iter()
        .map(|driver| {
            json!({
                "if": { "properties": { "driver": { "const": driver.name } }, "required": ["driver"] },
                "then": of_driver(driver, true),
            })
        })
        .collect();
    let names: Vec<&str> = plugins.drivers.iter().map(|driver| driver.name.as_str()).collect();
    // A driver that is not installed here may have any key.
    branches.push(json!({
        "if": { "properties": { "driver": { "not": { "enum": names } } } },
        "then": { "additionalProperties": true },
    }));
    let mut all = device_keys(plugins, &[]);
    if let Some(map) = all.get_mut("driver").and_then(Json::as_object_mut) {
        map.insert("examples".into(), json!(names));
    }
    // The points of a known driver are checked in its branch.
    all.insert("points".into(), json!({ "description": "Points, or CSV or TOML files of them; they override the template's by name." }));
    // The connection may come from [defaults], so it is not required here.
    json!({
        "type": "object",
        "required": ["name", "driver"],
        "properties": all,
        "allOf": branches,
        "unevaluatedProperties": false,
    })
}

fn defaults(plugins: &Plugins<'_>) -> Json {
    let without: Vec<&str> = DEVICE_ONLY.into_iter().chain(["points", "blocks"]).collect();
    let common = device_keys(plugins, &without);
    let mut all = Map::new();
    let of_device = json!({ "type": "object", "properties": common, "description": "For all devices." });
    all.insert("device".into(), of_device);
    for driver in &plugins.drivers {
        let mut own = common.clone();
        if let Some(Json::Object(more)) = of_driver(driver, false).get("properties").cloned() {
            own.extend(more);
        }
        let about = format!("For all devices of driver {}.", driver.name);
        all.insert(
            driver.name.clone(),
            json!({ "type": "object", "properties": own, "additionalProperties": false, "description": about }),
        );
    }
    json!({ "type": "object", "properties": all, "additionalProperties": { "type": "object" } })
}

fn template(plugins: &Plugins<'_>) -> Json {
    let mut all = device_keys(plugins, &DEVICE_ONLY);
    all.extend(properties(keys::TEMPLATE, Context::File));
    for driver in &plugins.drivers {
        for (key, _) in partial(driver, "device") {
            all.entry(key).or_insert_with(|| json!({}));
        }
    }
    json!({ "type": "object", "properties": all, "additionalProperties": plugins.drivers.is_empty() })
}

fn sink(plugins: &Plugins<'_>) -> Json {
    let branches: Vec<Json> = plugins
        .sinks
        .iter()
        .map(|sink| {
            let mut own = Map::new();
            for (what, _) in pieces(sink) {
                let reference = json!({ "$ref": format!("#/$defs/{}", def(sink, what)) });
                let value = if what == "map" {
                    json!({ "anyOf": [
                        { "type": "string" },
                        { "type": "array", "items": { "anyOf": [{ "type": "string" }, reference] } },
                    ] })
                } else {
                    reference
                };
                own.insert(what.into(), value);
            }
            json!({
                "if": { "properties": { "plugin": { "const": sink.name } }, "required": ["plugin"] },
                "then": { "properties": own },
            })
        })
        .collect();
    let mut schema = table(keys::SINK, Context::File);
    if let (false, Some(map)) = (branches.is_empty(), schema.as_object_mut()) {
        map.insert("allOf".into(), Json::Array(branches));
    }
    schema
}
