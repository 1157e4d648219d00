//! JSON Schema errors in an operator's words.
//!
//! The errors of a schema library speak about keywords. Derived schemas write one thing in several ways (an enumeration
//! as `enum` or as `oneOf` of constants, an option as `anyOf` with null, a transport as `oneOf` of tables), so the
//! branch that was meant is picked first: the one whose constants fit, else the one with the fewest errors.

use busbar_contract::Problem as Finding;
use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value as Json;

use crate::{dialect::Place, form::one_of, problem::did_you_mean, redact};

/// `expected` of a finding about a key that nobody knows.
pub(crate) const KNOWN_KEY: &str = "a known key";
/// Deepest nesting of alternatives that is explained.
const MAX_DEPTH: usize = 8;
/// Longest value that is shown.
const SHOWN: usize = 60;

/// Findings about keys that the schema does not name.
pub(crate) fn unknown_keys<'k>(
    keys: &[&String],
    pointer: &str,
    known: impl Iterator<Item = &'k str>,
) -> Vec<Finding> {
    let known: Vec<&str> = known.collect();
    keys.iter()
        .map(|key| {
            let at = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
            Finding::error(at, KNOWN_KEY, format!("{key:?}")).hint(did_you_mean(key, known.iter().copied()))
        })
        .collect()
}

/// Adds what one schema error means.
pub(crate) fn error(schema: &Json, error: &ValidationError<'_>, out: &mut Vec<Finding>) {
    explain(schema, error, out, 0);
}

fn explain(schema: &Json, error: &ValidationError<'_>, out: &mut Vec<Finding>, depth: usize) {
    let pointer = error.instance_path().as_str();
    let found = || show(error.instance());
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let place = Place::at(schema, pointer);
            let keys: Vec<&String> = unexpected.iter().collect();
            out.extend(unknown_keys(&keys, pointer, place.keys().into_iter()));
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let place = Place::at(schema, pointer).step(name);
            let about = place.find("description").and_then(Json::as_str).unwrap_or_default();
            out.push(missing(pointer, name).hint(about));
        }
        Kind::OneOfNotValid { context } | Kind::AnyOf { context } if depth < MAX_DEPTH => {
            alternatives(schema, error, context, out, depth);
        }
        kind => {
            let expected = expected(schema, pointer, kind);
            let hint = match kind {
                Kind::Enum { options } => {
                    nearest_word(options.as_array().into_iter().flatten(), error.instance())
                }
                _ => String::new(),
            };
            out.push(Finding::error(pointer, expected, found()).hint(hint));
        }
    }
}

fn missing(pointer: &str, name: &str) -> Finding {
    let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    Finding::error(at, format!("the key {name:?}"), "none")
}

/// The key that every branch requires, has as its tag, and misses.
fn missing_tag(schema: &Json, pointer: &str, branches: &[&[ValidationError<'_>]]) -> Option<Finding> {
    let place = Place::at(schema, pointer);
    let tag = branches.first()?.iter().find_map(|error| match error.kind() {
        Kind::Required { property } => {
            property.as_str().filter(|name| place.step(name).find("const").is_some())
        }
        _ => None,
    })?;
    let misses = |branch: &&[ValidationError<'_>]| {
        branch.iter().any(|error| matches!(error.kind(), Kind::Required { property } if property == tag))
    };
    let words = place.step(tag).all("const");
    branches.iter().all(misses).then(|| missing(pointer, tag).hint(format!("one of {}", words_text(&words))))
}

/// None of several alternatives fits.
fn alternatives(
    schema: &Json,
    error: &ValidationError<'_>,
    branches: &[Vec<ValidationError<'static>>],
    out: &mut Vec<Finding>,
    depth: usize,
) {
    let pointer = error.instance_path().as_str();
    let is_null_branch = |branch: &[ValidationError<'_>]| {
        matches!(branch, [only] if only.instance_path().as_str() == pointer
            && matches!(only.kind(), Kind::Type { kind: TypeKind::Single(JsonType::Null) }))
    };
    let branches: Vec<&[ValidationError<'_>]> =
        branches.iter().map(Vec::as_slice).filter(|branch| !is_null_branch(branch)).collect();
    if let Some(finding) = missing_tag(schema, pointer, &branches) {
        out.push(finding);
        return;
    }
    // Every branch wants another word at the same place: an enumeration, or the tag of a tagged table.
    let fitting: Vec<_> = branches.iter().filter(|branch| wanted_word(branch).is_none()).collect();
    if fitting.is_empty()
        && let Some((at, _)) = branches.first().and_then(|branch| wanted_word(branch))
    {
        let words: Vec<Json> =
            branches.iter().filter_map(|branch| wanted_word(branch)).flat_map(|(_, words)| words).collect();
        let value = branches
            .iter()
            .flat_map(|branch| branch.iter())
            .find(|inner| inner.instance_path().as_str() == at)
            .map_or(Json::Null, |inner| inner.instance().as_ref().clone());
        let hint = nearest_word(words.iter(), &value);
        out.push(Finding::error(at, words_text(&words), show(&value)).hint(hint));
        return;
    }
    // Every branch wants another type of the value itself.
    let types: Vec<&'static str> = fitting.iter().filter_map(|branch| wanted_type(branch, pointer)).collect();
    if types.len() == fitting.len() && types.len() > 1 {
        out.push(Finding::error(pointer, types.join(" or "), show(error.instance())));
        return;
    }
    let best = fitting
        .iter()
        .min_by_key(|branch| (wanted_type(branch, pointer).is_some(), branch.len()))
        .map(|branch| branch.iter())
        .into_iter()
        .flatten();
    for inner in best {
        explain(schema, inner, out, depth + 1);
    }
}

/// The word that a branch wants and does not find: where, and which.
fn wanted_word(branch: &[ValidationError<'_>]) -> Option<(String, Vec<Json>)> {
    branch.iter().find_map(|error| {
        let at = error.instance_path().as_str().to_owned();
        match error.kind() {
            Kind::Constant { expected_value } => Some((at, vec![expected_value.as_ref().clone()])),
            Kind::Enum { options } if branch.len() == 1 => Some((at, options.as_array()?.clone())),
            _ => None,
        }
    })
}

fn wanted_type(branch: &[ValidationError<'_>], pointer: &str) -> Option<&'static str> {
    branch.iter().find_map(|error| match error.kind() {
        Kind::Type { kind: TypeKind::Single(kind) } if error.instance_path().as_str() == pointer => {
            Some(type_text(*kind))
        }
        _ => None,
    })
}

fn nearest_word<'j>(words: impl Iterator<Item = &'j Json>, found: &Json) -> String {
    let Some(found) = found.as_str() else { return String::new() };
    crate::problem::nearest(found, words.filter_map(Json::as_str))
        .map(|word| format!("did you mean {word:?}?"))
        .unwrap_or_default()
}

fn words_text(words: &[Json]) -> String {
    let words: Vec<String> =
        words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect();
    one_of(&words)
}

/// What a place allows, in words.
fn expected(schema: &Json, pointer: &str, kind: &Kind) -> String {
    let place = || Place::at(schema, pointer);
    let limits = || {
        let place = place();
        let limit =
            |words: [&str; 2]| words.iter().find_map(|word| place.find(word)).map(ToString::to_string);
        match (limit(["minimum", "exclusiveMinimum"]), limit(["maximum", "exclusiveMaximum"])) {
            (Some(min), Some(max)) => format!("a number from {min} to {max}"),
            (Some(min), None) => format!("a number of at least {min}"),
            (None, Some(max)) => format!("a number of at most {max}"),
            (None, None) => "another number".to_owned(),
        }
    };
    match kind {
        Kind::Type { kind: TypeKind::Single(kind) } => type_text(*kind).to_owned(),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => kinds
            .iter()
            .filter(|kind| *kind != JsonType::Null)
            .map(type_text)
            .collect::<Vec<_>>()
            .join(" or "),
        Kind::Enum { options } => words_text(options.as_array().map(Vec::as_slice).unwrap_or_default()),
        Kind::Constant { expected_value } => words_text(std::slice::from_ref(expected_value.as_ref())),
        Kind::Minimum { .. }
        | Kind::Maximum { .. }
        | Kind::ExclusiveMinimum { .. }
        | Kind::ExclusiveMaximum { .. } => limits(),
        Kind::Pattern { pattern } => place()
            .find("examples")
            .and_then(Json::as_array)
            .filter(|examples| !examples.is_empty())
            .map_or_else(
                || format!("text of the form {pattern}"),
                |examples| format!("text such as {}", words_text(examples)),
            ),
        Kind::MinLength { limit } => format!("at least {limit} characters"),
        Kind::MaxLength { limit } => format!("at most {limit} characters"),
        Kind::MinItems { limit } => format!("a list of at least {limit}"),
        Kind::MaxItems { limit } => format!("a list of at most {limit}"),
        Kind::UniqueItems => "a list without repetitions".into(),
        Kind::OneOfMultipleValid { .. } => "exactly one of the alternatives".into(),
        Kind::OneOfNotValid { .. } | Kind::AnyOf { .. } => "one of the alternatives".into(),
        Kind::FalseSchema => "nothing here".into(),
        // The library's sentence may quote the value, so it only tells the keyword.
        other => format!("a value that satisfies {:?} of the plugin's schema", other.keyword()),
    }
}

const fn type_text(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a table",
        JsonType::String => "text",
    }
}

/// A value for `found`: short, or its type.
fn show(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("a list of {}", items.len()),
        Json::Object(_) => "a table".into(),
        other => {
            // Masked before it is cut: half a URL does not show what its password is.
            let text = redact::urls(&other.to_string()).into_owned();
            if text.chars().count() <= SHOWN {
                text
            } else {
                format!("{}...", text.chars().take(SHOWN).collect::<String>())
            }
        }
    }
}
