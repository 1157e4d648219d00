//! Blocks: groups of points of one device that are read or written as one consistent unit (SEMANTICS.md, section 7).

use std::collections::HashMap;

use busbar_core::model::{Block, Point};
use serde_json::Value as Json;

use crate::{
    context::Context,
    form::{self, Form},
    host::Reader,
    keys, pattern,
    point::unique,
    problem::{Path, did_you_mean},
    tree::{Node, Table},
};

/// Checks and builds the blocks of a device.
pub(crate) fn build(cx: &Context<'_>, path: &Path<'_>, nodes: Vec<Node>, points: &[Point]) -> Vec<Block> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let index: HashMap<&str, usize> =
        points.iter().enumerate().map(|(at, p)| (p.name.as_str(), at)).collect();
    let path = path.key("blocks");
    unique(cx, &path, nodes)
        .into_iter()
        .filter_map(|(name, node)| {
            let path = path.named(&name);
            form::check(cx, &path, &node, &Form::Table(keys::BLOCK));
            let table = node.as_table()?;
            let members = members(cx, &path, table.get("points")?, points);
            let condition = |key: &str, value: &str| condition(cx, &path, table, key, value, &index);
            Some(Block {
                name: name.to_string(),
                points: members,
                gate: condition("gate", "equals"),
                commit: condition("commit", "value"),
                writable: Reader { cx, path: &path, table }.bool("writable").unwrap_or(false),
            })
        })
        .collect()
}

/// Indices of the points that the patterns match, in the order of the device.
fn members(cx: &Context<'_>, path: &Path<'_>, node: &Node, points: &[Point]) -> Vec<usize> {
    let path = path.key("points");
    let mut found = vec![false; points.len()];
    for item in node.as_array().unwrap_or(std::slice::from_ref(node)) {
        let Some(text) = cx.text(&path, item) else { continue };
        let matcher = match pattern::of_points(&text) {
            Ok(matcher) => matcher,
            Err(error) => {
                cx.problems.error(Some(item.pos), path, "a pattern over point names", error);
                continue;
            }
        };
        let mut any = false;
        for (mark, _) in found.iter_mut().zip(points).filter(|(_, point)| matcher(&point.name)) {
            *mark = true;
            any = true;
        }
        if !any {
            cx.problems
                .error(Some(item.pos), path, "points of this device", format!("{text:?}, which matches none"))
                .help(did_you_mean(&text, points.iter().map(|point| point.name.as_str())));
        }
    }
    found.iter().enumerate().filter(|(_, mark)| **mark).map(|(at, _)| at).collect()
}

/// `gate` or `commit`: an existing point and a value.
fn condition(
    cx: &Context<'_>,
    path: &Path<'_>,
    table: &Table,
    key: &str,
    value: &str,
    index: &HashMap<&str, usize>,
) -> Option<(usize, Json)> {
    let inner = table.table(key)?;
    let path = path.key(key);
    let node = inner.get("point")?;
    let name = cx.text(&path.key("point"), node)?;
    let Some(at) = index.get(&*name) else {
        cx.problems
            .error(Some(node.pos), path.key("point"), "a point of this device", format!("{name:?}"))
            .help(did_you_mean(&name, index.keys().copied()));
        return None;
    };
    Some((*at, inner.get(value).map(|node| cx.json(&path.key(value), node, None))?))
}
