//! The plugin's opinion: its JSON Schema first, then its CHECK, both mapped back to the file.
//!
//! A *piece* is what one schema speaks about: the connection, the driver's device keys, one point, the settings, one
//! map entry. CHECK always runs on the whole, without the keys that the schema does not know; what it says about a place
//! that the schema complained about, or about the whole around it, is a consequence and left out.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt::Write,
    rc::Rc,
};

use busbar_contract::{CheckInput, Describe, Problem as Finding, describe::PluginKind};
use jsonschema::Validator;
use serde_json::Value as Json;

use crate::{
    context::Context,
    dialect::{Place, secrets, segments},
    explain, files,
    problem::Path,
    settle,
    source::Pos,
    tree::Node,
};

/// One schema of a plugin, ready to use.
pub(crate) struct Piece<'a> {
    schema: &'a Json,
    validator: Validator,
    keys: BTreeSet<&'a str>,
    open: bool,
}

/// Which schema of which plugin.
type PieceId = (PluginKind, String, &'static str);

/// Compiled schemas of all plugins.
#[derive(Default)]
pub(crate) struct Judge<'a> {
    pieces: RefCell<HashMap<PieceId, Option<Rc<Piece<'a>>>>>,
}

/// A value as the plugin gets it, beside the nodes it was made of.
pub(crate) struct Exhibit<'n> {
    /// JSON pointer of this piece in [`CheckInput`].
    pub(crate) pointer: String,
    /// Key of this piece for people.
    pub(crate) key: String,
    /// Where it comes from.
    pub(crate) node: &'n Node,
}

impl<'a> Judge<'a> {
    /// The schema `what` of a plugin; `None` when it exports none, or an unusable one (reported once).
    pub(crate) fn piece(
        &self,
        cx: &Context<'_>,
        plugin: &'a Describe,
        what: &'static str,
    ) -> Option<Rc<Piece<'a>>> {
        let id = (plugin.kind, plugin.name.clone(), what);
        if let Some(known) = self.pieces.borrow().get(&id) {
            return known.clone();
        }
        let schemas = &plugin.schemas;
        let schema = match what {
            "connection" => &schemas.connection,
            "point" => &schemas.point,
            "device" => &schemas.device,
            "settings" => &schemas.settings,
            _ => &schemas.map,
        };
        let piece = if schema.is_object() {
            match jsonschema::options().with_draft(jsonschema::Draft::Draft202012).offline().build(schema) {
                Ok(validator) => {
                    let place = Place::root(schema);
                    let (keys, open) = (place.keys(), place.is_open());
                    Some(Rc::new(Piece { schema, validator, keys, open }))
                }
                Err(error) => {
                    let key = format!("plugin {}", plugin.name);
                    cx.problems.warning(
                        None,
                        key,
                        format!("a JSON Schema for its {what}"),
                        error.to_string(),
                    );
                    None
                }
            }
        } else {
            None
        };
        self.pieces.borrow_mut().insert(id, piece.clone());
        piece
    }
}

impl<'a> Piece<'a> {
    /// The schema itself.
    pub(crate) fn schema(&self) -> &'a Json {
        self.schema
    }

    /// The schema names this key.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Reports what is wrong with `value` and returns where (pointers in [`CheckInput`]). Keys that nobody knows are
    /// taken out, so that CHECK can look at the rest. `more_keys` only feed "did you mean".
    pub(crate) fn judge(
        &self,
        cx: &Context<'_>,
        exhibit: &Exhibit<'_>,
        value: &mut Json,
        more_keys: &[&str],
    ) -> Vec<String> {
        settle::plugin(cx, &exhibit.key, exhibit.node, self.schema, value);
        let unknown: Vec<&String> = match value.as_object() {
            Some(map) if !self.open => map.keys().filter(|key| !self.knows(key)).collect(),
            _ => Vec::new(),
        };
        if unknown.is_empty() && self.validator.is_valid(value) {
            return Vec::new();
        }
        let mut findings =
            explain::unknown_keys(&unknown, "", self.keys.iter().copied().chain(more_keys.iter().copied()));
        for error in self.validator.iter_errors(value) {
            // For a table that takes no key at all the library blames the table; the keys are named above.
            let blames_the_table =
                matches!(error.kind(), jsonschema::error::ValidationErrorKind::FalseSchema)
                    && error.instance_path().as_str().is_empty();
            if blames_the_table && !unknown.is_empty() {
                continue;
            }
            explain::error(self.schema, &error, &mut findings);
        }
        let secret = secrets(self.schema, value);
        let mut seen = BTreeSet::new();
        for finding in &mut findings {
            if !seen.insert((finding.pointer.clone(), finding.expected.clone())) {
                continue;
            }
            if secret.iter().any(|pointer| finding.pointer.starts_with(pointer)) {
                finding.found = "something else (secret)".into();
            }
            report(cx, exhibit, &finding.pointer, finding);
            if finding.expected == explain::KNOWN_KEY {
                remove(value, &finding.pointer);
            }
        }
        findings.into_iter().map(|finding| format!("{}{}", exhibit.pointer, finding.pointer)).collect()
    }

    /// Notes which values of a piece must never be printed.
    pub(crate) fn hide_secrets(&self, cx: &Context<'_>, path: &Path<'_>, node: &Node, value: &Json) {
        for pointer in secrets(self.schema, value) {
            let (pos, tail) = locate(node, &segments(&pointer), false);
            cx.hide_key(format!("{path}{tail}"), pos);
        }
    }
}

impl Piece<'_> {
    /// Files that the value names: made absolute, warned about when they cannot be read.
    pub(crate) fn settle_files(&self, cx: &Context<'_>, exhibit: &Exhibit<'_>, value: &mut Json) {
        files::settle(cx, self.schema, value, |pointer| {
            let (pos, tail) = locate(exhibit.node, &segments(pointer), false);
            (pos, format!("{}{tail}", exhibit.key))
        });
    }
}

/// Takes a key out of a table.
fn remove(value: &mut Json, pointer: &str) {
    let Some((parent, _)) = pointer.rsplit_once('/') else { return };
    let segments = segments(pointer);
    let parent = if parent.is_empty() { Some(value) } else { value.pointer_mut(parent) };
    if let (Some(Json::Object(map)), Some(key)) = (parent, segments.last()) {
        map.shift_remove(key);
    }
}

/// A pointer and everything above it, the whole excluded.
fn upwards(pointer: &str) -> impl Iterator<Item = &str> {
    let ends = pointer.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([pointer.len()]);
    let ends: Vec<usize> = ends.collect();
    ends.into_iter().rev().filter_map(|end| pointer.get(..end)).filter(|text| !text.is_empty())
}

/// The schema already said something about this place, above it or below it.
fn is_spoiled(spoiled: &BTreeSet<String>, pointer: &str) -> bool {
    let below = format!("{pointer}/");
    upwards(pointer).any(|above| spoiled.contains(above))
        || (!pointer.is_empty()
            && spoiled.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below)))
}

/// Runs a plugin's CHECK and reports what it says, except where the schema in `spoiled` was first.
pub(crate) fn check<'n>(
    cx: &Context<'_>,
    plugin: &Describe,
    input: &CheckInput,
    whole: &Exhibit<'_>,
    exhibits: impl FnOnce() -> Vec<Exhibit<'n>>,
    spoiled: &BTreeSet<String>,
) -> Vec<Finding> {
    let findings = match cx.plugins.check(plugin.kind, &plugin.name, input) {
        Ok(findings) => findings,
        Err(reason) => {
            let expected = format!("plugin {} to check this {}", plugin.name, kind_of_object(plugin.kind));
            cx.problems.warning(Some(whole.node.pos), &whole.key, expected, reason);
            return Vec::new();
        }
    };
    let exhibits = if findings.is_empty() { Vec::new() } else { exhibits() };
    let exhibits: HashMap<&str, &Exhibit<'_>> =
        exhibits.iter().map(|exhibit| (exhibit.pointer.as_str(), exhibit)).collect();
    for finding in findings.iter().filter(|finding| !is_spoiled(spoiled, &finding.pointer)) {
        let closest = upwards(&finding.pointer).find_map(|above| exhibits.get(above));
        let exhibit = closest.map_or(whole, |exhibit| *exhibit);
        report(cx, exhibit, finding.pointer.get(exhibit.pointer.len()..).unwrap_or_default(), finding);
    }
    findings
}

const fn kind_of_object(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Driver => "device",
        PluginKind::Sink => "sink",
    }
}

/// Reports one finding at `pointer` within an exhibit.
fn report(cx: &Context<'_>, exhibit: &Exhibit<'_>, pointer: &str, finding: &Finding) {
    let at_key = finding.expected == explain::KNOWN_KEY;
    let (pos, tail) = locate(exhibit.node, &segments(pointer), at_key);
    if cx.is_lost(pos) && !at_key {
        return;
    }
    let key = format!("{}{tail}", exhibit.key);
    let hidden = cx.masked.borrow().contains(&key);
    let found = if hidden && !at_key { "something else (secret)".to_owned() } else { finding.found.clone() };
    cx.problems
        .report(finding.severity, Some(pos), key, finding.expected.clone(), found)
        .help(finding.hint.clone());
}

/// The place of a pointer within a node, as deep as it goes, and the pointer as a key for people.
fn locate(node: &Node, segments: &[String], at_key: bool) -> (Pos, String) {
    let mut pos = node.pos;
    let mut current = Some(node);
    let mut key = String::new();
    for (depth, segment) in segments.iter().enumerate() {
        let table = current.and_then(Node::as_table);
        let items = current.and_then(Node::as_array);
        if items.is_some() || (table.is_none() && segment.parse::<usize>().is_ok()) {
            let _ = write!(key, "[{segment}]");
        } else {
            let _ = write!(key, ".{segment}");
        }
        if let Some(entry) = table.and_then(|table| table.entry(segment)) {
            let last = depth + 1 == segments.len();
            pos = if at_key && last { entry.key_pos } else { entry.value.pos };
            current = Some(&entry.value);
        } else if let Some(item) = items.and_then(|items| items.get(segment.parse::<usize>().ok()?)) {
            pos = item.pos;
            current = Some(item);
        } else {
            current = None;
        }
    }
    (pos, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consequences_are_above_or_below_what_was_said() {
        assert_eq!(upwards("/points/3/type").collect::<Vec<_>>(), ["/points/3/type", "/points/3", "/points"]);
        assert_eq!(upwards("").count(), 0);
        let spoiled = BTreeSet::from(["/points/3/type".to_owned(), "/settings".to_owned()]);
        for pointer in ["/points/3/type", "/points/3/type/x", "/points/3", "/points", "/settings/url"] {
            assert!(is_spoiled(&spoiled, pointer), "{pointer}");
        }
        for pointer in ["", "/points/3/types", "/points/33", "/points/3/address", "/set"] {
            assert!(!is_spoiled(&spoiled, pointer), "{pointer}");
        }
    }

    #[test]
    fn unknown_keys_are_taken_out() {
        let mut value = serde_json::json!({ "a": { "b/c": 1, "d": 2 }, "e": 3 });
        remove(&mut value, "/a/b~1c");
        remove(&mut value, "/e");
        remove(&mut value, "/nowhere/x");
        assert_eq!(value, serde_json::json!({ "a": { "d": 2 } }));
    }
}
