//! Walking a plugin's JSON Schema beside a value: which keys are known, which values are secret, what a place allows.
//!
//! Only what derived schemas contain is followed: `properties`, `items`, `prefixItems`, `additionalProperties`, `$ref`
//! within the document, and the compositions. Depth is bounded, because a schema comes from a plugin.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// Deepest chain of references and compositions that is followed.
const MAX_DEPTH: usize = 32;
/// Most alternatives looked at for one place.
const MAX_ALTERNATIVES: usize = 512;

/// All schemas that speak about one place of a value.
pub(crate) struct Place<'s> {
    root: &'s Json,
    schemas: Vec<&'s Json>,
}

impl<'s> Place<'s> {
    /// The place of the whole value.
    pub(crate) fn root(schema: &'s Json) -> Self {
        let mut place = Self { root: schema, schemas: Vec::new() };
        place.add(schema, 0);
        place
    }

    fn add(&mut self, schema: &'s Json, depth: usize) {
        if depth > MAX_DEPTH || self.schemas.len() >= MAX_ALTERNATIVES {
            return;
        }
        self.schemas.push(schema);
        let target = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|reference| self.root.pointer(reference.strip_prefix('#')?));
        if let Some(target) = target {
            self.add(target, depth + 1);
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            for inner in schema.get(word).and_then(Json::as_array).into_iter().flatten() {
                self.add(inner, depth + 1);
            }
        }
        for word in ["then", "else"] {
            if let Some(inner) = schema.get(word) {
                self.add(inner, depth + 1);
            }
        }
    }

    /// The place one step further down.
    pub(crate) fn step(&self, segment: &str) -> Self {
        let mut next = Self { root: self.root, schemas: Vec::new() };
        for schema in &self.schemas {
            let named = schema.get("properties").and_then(|properties| properties.get(segment));
            let inner = match named {
                Some(inner) => Some(inner),
                None => segment
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| schema.get("prefixItems")?.get(index).or_else(|| schema.get("items")))
                    .or_else(|| schema.get("additionalProperties").filter(|inner| inner.is_object())),
            };
            if let Some(inner) = inner {
                next.add(inner, 0);
            }
        }
        next
    }

    /// The place behind a JSON pointer.
    pub(crate) fn at(schema: &'s Json, pointer: &str) -> Self {
        segments(pointer).iter().fold(Self::root(schema), |place, segment| place.step(segment))
    }

    /// All keys that are named here.
    pub(crate) fn keys(&self) -> BTreeSet<&'s str> {
        self.schemas
            .iter()
            .filter_map(|schema| schema.get("properties")?.as_object())
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect()
    }

    /// Keys that are not named are allowed on purpose, or nothing is said about keys at all.
    pub(crate) fn is_open(&self) -> bool {
        let on_purpose = self.schemas.iter().any(|schema| {
            let allows = |word: &str| schema.get(word).is_some_and(|value| *value != Json::Bool(false));
            allows("additionalProperties") || allows("unevaluatedProperties") || allows("patternProperties")
        });
        // A table that names no key and forbids others takes none at all (a driver without settings of its own).
        let closed = || {
            let forbids =
                |word: &str| self.schemas.iter().any(|schema| schema.get(word) == Some(&Json::Bool(false)));
            forbids("additionalProperties") || forbids("unevaluatedProperties")
        };
        on_purpose || (self.keys().is_empty() && !closed())
    }

    /// The first answer of any schema here.
    pub(crate) fn find(&self, word: &str) -> Option<&'s Json> {
        self.schemas.iter().find_map(|schema| schema.get(word))
    }

    /// All different answers of the schemas here.
    pub(crate) fn all(&self, word: &str) -> Vec<Json> {
        let mut found: Vec<Json> = Vec::new();
        for answer in self.schemas.iter().filter_map(|schema| schema.get(word)) {
            if !found.contains(answer) {
                found.push(answer.clone());
            }
        }
        found
    }

    /// Some schema here says `writeOnly`, or has a format that means a secret.
    pub(crate) fn is_secret(&self) -> bool {
        self.schemas.iter().any(|schema| {
            schema.get("writeOnly") == Some(&Json::Bool(true))
                || schema.get("format").is_some_and(|format| format == "password" || format == "secret")
        })
    }
}

impl Place<'_> {
    /// Some schema here says that the value names a file.
    fn is_path(&self) -> bool {
        self.schemas.iter().any(|schema| schema.get("format").is_some_and(|format| format == "path"))
    }
}

/// The parts of a JSON pointer, unescaped.
pub(crate) fn segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// Pointers of all secret values in `value`.
pub(crate) fn secrets(schema: &Json, value: &Json) -> Vec<String> {
    let mut found = Vec::new();
    search(&Place::root(schema), &|place| place.is_secret(), value, &mut String::new(), &mut found);
    found
}

/// Pointers of all values in `value` that name a file.
pub(crate) fn paths(schema: &Json, value: &Json) -> Vec<String> {
    let mut found = Vec::new();
    search(&Place::root(schema), &|place| place.is_path(), value, &mut String::new(), &mut found);
    found
}

fn search(
    place: &Place<'_>,
    wanted: &dyn Fn(&Place<'_>) -> bool,
    value: &Json,
    pointer: &mut String,
    found: &mut Vec<String>,
) {
    if place.schemas.is_empty() {
        return;
    }
    if wanted(place) {
        found.push(pointer.clone());
        return;
    }
    let mut inside = |segment: &str, inner: &Json| {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        search(&place.step(segment), wanted, inner, pointer, found);
        pointer.truncate(length);
    };
    match value {
        Json::Object(map) => map.iter().for_each(|(key, inner)| inside(key, inner)),
        Json::Array(items) => items.iter().enumerate().for_each(|(at, inner)| inside(&at.to_string(), inner)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_secrets_are_found_through_references_and_alternatives() {
        let schema = json!({
            "oneOf": [
                { "properties": { "host": {}, "auth": { "$ref": "#/$defs/auth" } } },
                { "properties": { "path": {} }, "additionalProperties": false },
            ],
            "$defs": { "auth": { "properties": { "user": {}, "word": { "writeOnly": true } } } }
        });
        let place = Place::root(&schema);
        assert_eq!(place.keys().into_iter().collect::<Vec<_>>(), ["auth", "host", "path"]);
        assert!(!place.is_open());
        assert_eq!(secrets(&schema, &json!({ "auth": { "user": "u", "word": "w" } })), ["/auth/word"]);
        assert_eq!(Place::at(&schema, "/auth").keys().len(), 2);
    }

    #[test]
    fn endless_references_end() {
        let schema = json!({ "$ref": "#", "allOf": [{ "$ref": "#" }, { "$ref": "#" }] });
        assert!(Place::root(&schema).is_open());
    }
}
