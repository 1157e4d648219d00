//! `busbar map SINK`: the points of a sink with their addresses as CSV, for the people at the other end.

use std::collections::BTreeSet;

use busbar_core::model::{Sink, Site};
use serde_json::Value as Json;

use crate::{
    map::secret_keys,
    redact::{self, MASK},
};

/// The list; the first line names the columns, `point` first, then the keys of the map entries.
pub(crate) fn csv(site: &Site, sink: &Sink, masked: &BTreeSet<String>) -> String {
    let rows = rows(site, sink);
    let mut keys: Vec<&str> = Vec::new();
    for (_, entry) in &rows {
        for key in entry.iter().filter_map(|entry| entry.as_object()).flat_map(|entry| entry.keys()) {
            if key != "point" && !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
    }
    let secret = secret_keys(masked, &sink.name, &sink.plugin);
    let mut out = String::new();
    let header = ["point", "unit", "description", "writable"].into_iter().chain(keys.iter().copied());
    line(&mut out, header.map(str::to_owned));
    for (row, entry) in &rows {
        let values = keys.iter().map(|key| match entry.and_then(|entry| entry.get(key)) {
            Some(_) if secret.contains(key) || redact::telling(key) => MASK.to_owned(),
            Some(Json::String(text)) => redact::urls(text).into_owned(),
            Some(Json::Null) | None => String::new(),
            Some(other) => redact::urls(&other.to_string()).into_owned(),
        });
        let Row { name, unit, description, writable } = row;
        let fixed = [name.clone(), unit.clone(), description.clone(), writable.to_string()];
        line(&mut out, fixed.into_iter().chain(values));
    }
    out
}

struct Row {
    name: String,
    unit: String,
    description: String,
    writable: bool,
}

/// One row per entry, or one for a point without any.
fn rows<'s>(site: &'s Site, sink: &'s Sink) -> Vec<(Row, Option<&'s Json>)> {
    let mut rows = Vec::new();
    for route in &sink.routes {
        let Some(device) = site.devices.get(route.device) else { continue };
        let Some(point) = device.points.get(route.point) else { continue };
        let row = || Row {
            name: format!("{}/{}", device.name, point.name),
            unit: point.unit.clone(),
            description: point
                .metadata
                .get("description")
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned(),
            writable: point.writable,
        };
        push(&mut rows, &route.map, row);
    }
    for route in &sink.system {
        let row = || Row {
            name: route.name.clone(),
            unit: String::new(),
            description: String::new(),
            writable: false,
        };
        push(&mut rows, &route.map, row);
    }
    rows
}

fn push<'s>(rows: &mut Vec<(Row, Option<&'s Json>)>, map: &'s [Json], row: impl Fn() -> Row) {
    if map.is_empty() {
        rows.push((row(), None));
    }
    rows.extend(map.iter().map(|entry| (row(), Some(entry))));
}

/// RFC 4180, with LF.
fn line(out: &mut String, cells: impl Iterator<Item = String>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if cell.contains([',', '"', '\n', '\r', ';']) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&cell);
        }
    }
    out.push('\n');
}
