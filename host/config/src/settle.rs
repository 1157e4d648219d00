//! References in place of numbers, switches and words: `retries = "${env:RETRIES:-3}"`.
//!
//! TOML has no other way to write a reference than a text, and the environment has no other values than texts. So a text
//! that is nothing but one reference, where the key takes something else, becomes what the key takes: a number, `true` or
//! `false` (also `1`, `yes`, `on`), a word without regard to case, a size where digits alone are bytes. This happens
//! right after a file was parsed for the keys of the host, and beside the JSON Schema for the keys of a plugin.
//!
//! What cannot be read that way stays the text it was: the check of the key then reports it, with its place, and
//! follows the reference itself, so that a missing variable is reported once and where it is used.

use std::rc::Rc;

use serde_json::Value as Json;

use crate::{
    context::Context,
    dialect::Place,
    form::{Form, Key, find},
    keys,
    secret::{self, Resolved},
    tree::{Data, Node, Table, parse_integer},
};

/// Words of other programs' log levels, and ours.
const SYNONYMS: [(&str, &str); 4] =
    [("warning", "warn"), ("critical", "error"), ("fatal", "error"), ("notset", "trace")];

/// Settles a whole file.
pub(crate) fn document(cx: &Context<'_>, root: &mut Node) {
    let Data::Table(root) = &mut root.data else { return };
    for entry in &mut root.entries {
        let node = &mut entry.value;
        match &*entry.key {
            "host" => of_table(cx, node, keys::HOST),
            "plugins" => each_entry(node, &mut |inner| of_table(cx, inner, keys::PLUGIN)),
            "template" => each_entry(node, &mut |inner| device(cx, inner)),
            "defaults" => each_entry(node, &mut |inner| device(cx, inner)),
            "device" => each_item(node, &mut |inner| device(cx, inner)),
            "sink" => each_item(node, &mut |inner| of_table(cx, inner, keys::SINK)),
            // Map files have their lists at the top.
            "points" => each_item(node, &mut |inner| of_table(cx, inner, keys::POINT)),
            "blocks" => each_item(node, &mut |inner| of_table(cx, inner, keys::BLOCK)),
            _ => {}
        }
    }
}

fn device(cx: &Context<'_>, node: &mut Node) {
    of_table(cx, node, keys::DEVICE);
    let Data::Table(table) = &mut node.data else { return };
    for entry in &mut table.entries {
        match &*entry.key {
            "points" => each_item(&mut entry.value, &mut |inner| of_table(cx, inner, keys::POINT)),
            "blocks" => each_item(&mut entry.value, &mut |inner| of_table(cx, inner, keys::BLOCK)),
            "repeat" => of_table(cx, &mut entry.value, keys::REPEAT),
            _ => {}
        }
    }
}

fn each_entry(node: &mut Node, act: &mut dyn FnMut(&mut Node)) {
    if let Data::Table(Table { entries }) = &mut node.data {
        entries.iter_mut().for_each(|entry| act(&mut entry.value));
    }
}

fn each_item(node: &mut Node, act: &mut dyn FnMut(&mut Node)) {
    if let Data::Array(items) = &mut node.data {
        items.iter_mut().for_each(act);
    }
}

fn of_table(cx: &Context<'_>, node: &mut Node, keys: &[Key]) {
    let Data::Table(Table { entries }) = &mut node.data else { return };
    for entry in entries {
        if let Some(key) = find(keys, &entry.key) {
            one(cx, &mut entry.value, &key.form);
        }
    }
}

fn one(cx: &Context<'_>, node: &mut Node, form: &Form) {
    match form {
        Form::Table(keys) => return of_table(cx, node, keys),
        Form::List(inner) => return each_item(node, &mut |item| one(cx, item, inner)),
        Form::OneOrList(inner) if matches!(node.data, Data::Array(_)) => {
            return each_item(node, &mut |item| one(cx, item, inner));
        }
        Form::OneOrList(inner) => return one(cx, node, inner),
        _ => {}
    }
    let Some(raw) = node.raw_text().filter(|raw| secret::is_whole(raw)).cloned() else { return };
    let Ok(Resolved { text, .. }) = cx.vault.resolve(&raw) else { return };
    if let Some(data) = value(form, text.trim()) {
        cx.settled.borrow_mut().insert(node.pos, raw);
        node.data = data;
    }
}

/// The text in the form that the key takes; `None` where the text itself is that form, or does not fit.
fn value(form: &Form, text: &str) -> Option<Data> {
    match form {
        Form::Bool => switch(text).map(Data::Bool),
        Form::Integer(..) => parse_integer(text).map(Data::Integer),
        Form::Decimal => {
            text.parse::<busbar_core::decimal::Decimal>().ok().map(|_| Data::Float(Rc::from(text)))
        }
        Form::Deadband => match text.parse::<f64>() {
            Ok(_) => Some(Data::Float(Rc::from(text))),
            Err(_) => Some(Data::Text(Rc::from(text))),
        },
        Form::Size if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(Data::Text(Rc::from(format!("{text}B"))))
        }
        Form::Words(words) => word(words, text).map(|word| Data::Text(Rc::from(word))),
        _ => None,
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn word(words: &[&'static str], text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == text).map(|(_, ours)| *ours);
    words.iter().copied().find(|word| *word == text || Some(*word) == synonym)
}

/// Settles what belongs to a plugin: every text in `value` that came by one whole reference, and where the schema takes
/// numbers or switches and no texts.
pub(crate) fn plugin(cx: &Context<'_>, key: &str, node: &Node, schema: &Json, value: &mut Json) {
    beside(cx, key, node, &Place::root(schema), value);
}

fn beside(cx: &Context<'_>, key: &str, node: &Node, place: &Place<'_>, value: &mut Json) {
    match (&node.data, value) {
        (Data::Table(table), Json::Object(map)) => {
            for entry in &table.entries {
                let whole = entry.value.raw_text().is_some_and(|raw| secret::is_whole(raw));
                if whole && map.get(&*entry.key).is_some_and(|value| value == "") {
                    map.shift_remove(&*entry.key);
                } else if let Some(inner) = map.get_mut(&*entry.key) {
                    let key = format!("{key}.{}", entry.key);
                    beside(cx, &key, &entry.value, &place.step(&entry.key), inner);
                }
            }
        }
        (Data::Array(items), Json::Array(list)) => {
            for (at, (item, inner)) in items.iter().zip(list).enumerate() {
                beside(cx, &format!("{key}[{at}]"), item, &place.step(&at.to_string()), inner);
            }
        }
        (Data::Text(raw) | Data::Cell(raw), value) if secret::is_secret(raw) => {
            let whole = secret::is_whole(raw);
            let typed = value.as_str().filter(|_| whole).and_then(|text| typed(place, text.trim()));
            let is_plain = typed.is_some() || (whole && is_word(place, value));
            if let Some(typed) = typed {
                *value = typed;
            }
            if place.is_secret() {
                return;
            }
            if is_plain {
                cx.reveal(key, raw);
            } else if secret::is_telling_nothing(raw) {
                cx.quote(key, raw);
            }
        }
        _ => {}
    }
}

/// One of the words that the schema lists: no secret, and print-config must read back.
fn is_word(place: &Place<'_>, value: &Json) -> bool {
    let listed =
        place.all("enum").iter().any(|words| words.as_array().is_some_and(|words| words.contains(value)));
    listed || place.all("const").contains(value)
}

fn typed(place: &Place<'_>, text: &str) -> Option<Json> {
    let types = place.all("type");
    let takes = |word: &str| {
        types.iter().any(|kind| {
            kind == word || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == word))
        })
    };
    if takes("string") {
        return None;
    }
    let integer = || {
        let number = parse_integer(text)?;
        i64::try_from(number).map(Json::from).or_else(|_| u64::try_from(number).map(Json::from)).ok()
    };
    let number = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number);
    let as_number = (takes("integer") || takes("number")).then(|| integer().or_else(number)).flatten();
    as_number.or_else(|| takes("boolean").then(|| switch(text).map(Json::Bool)).flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_become_what_the_key_takes() {
        assert_eq!(value(&Form::Bool, "1"), Some(Data::Bool(true)));
        assert_eq!(value(&Form::Bool, "Off"), Some(Data::Bool(false)));
        assert_eq!(value(&Form::Bool, "maybe"), None);
        assert_eq!(value(&Form::Integer(0, 1), "0x10"), Some(Data::Integer(16)));
        assert_eq!(value(&Form::Decimal, "0.10"), Some(Data::Float(Rc::from("0.10"))));
        assert_eq!(value(&Form::Size, "10485760"), Some(Data::Text(Rc::from("10485760B"))));
        assert_eq!(value(&Form::Size, "10MB"), None);
        let levels = Form::Words(&["error", "warn", "info"]);
        for (text, word) in [("INFO", "info"), ("Warning", "warn"), ("CRITICAL", "error")] {
            assert_eq!(value(&levels, text), Some(Data::Text(Rc::from(word))));
        }
        assert_eq!(value(&levels, "loud"), None);
    }

    #[test]
    fn a_schema_decides_for_plugins() {
        let schema = json!({ "properties": {
            "port": { "type": "integer" },
            "baud": { "anyOf": [{ "$ref": "#/$defs/n" }, { "type": "null" }] },
            "on": { "type": ["boolean", "null"] },
            "host": { "anyOf": [{ "type": "string" }, { "type": "integer" }] },
        }, "$defs": { "n": { "type": "integer" } } });
        let at = |key: &str, text: &str| typed(&Place::root(&schema).step(key), text);
        assert_eq!(at("port", "502"), Some(json!(502)));
        assert_eq!(at("port", "fast"), None);
        assert_eq!(at("baud", "9600"), Some(json!(9600)));
        assert_eq!(at("on", "1"), Some(json!(true)));
        assert_eq!(at("host", "502"), None);
        assert_eq!(at("other", "502"), None);
        let words = json!({ "anyOf": [{ "enum": ["N", "E"] }, { "const": "none" }] });
        let place = Place::root(&words);
        assert!(
            is_word(&place, &json!("E")) && is_word(&place, &json!("none")) && !is_word(&place, &json!("X"))
        );
    }
}
