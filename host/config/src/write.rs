//! Writing TOML: just what print-config needs, with long lists one element per line.

use serde_json::{Map, Value as Json};

use crate::units;

/// Numbers outside of these are written with an exponent.
const PLAIN: std::ops::Range<f64> = 1e-5..1e15;

/// A text in quotes.
pub(crate) fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for symbol in value.chars() {
        match symbol {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A key, in quotes where it must be.
pub(crate) fn key(key: &str) -> String {
    let bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare { key.to_owned() } else { text(key) }
}

/// A duration in quotes.
pub(crate) fn duration(value: std::time::Duration) -> String {
    text(&units::show_duration(value))
}

/// A finite number.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || PLAIN.contains(&value.abs()) {
        let plain = value.to_string();
        if plain.contains('.') { plain } else { format!("{plain}.0") }
    } else {
        format!("{value:e}")
    }
}

/// Any value on one line; `null` is left out of tables and lists, since TOML has none.
pub(crate) fn value(json: &Json) -> String {
    match json {
        Json::Null => "\"\"".into(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(value) => text(value),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().filter(|item| !item.is_null()).map(value).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(map) => table(map),
    }
}

/// A table on one line.
pub(crate) fn table(map: &Map<String, Json>) -> String {
    let pairs: Vec<String> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, inner)| format!("{} = {}", key(name), value(inner)))
        .collect();
    if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// A list with one element per line.
pub(crate) fn lines(items: &[String]) -> String {
    if items.is_empty() {
        return "[]".into();
    }
    format!("[\n  {},\n]", items.join(",\n  "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let json = json!({ "a b": "q\"\\\n\u{1}\u{7f}ü", "list": [1, 2.5, true, { "x": "y" }], "none": null, "e": {} });
        let written = format!("v = {}", value(&json));
        let read: toml::Table = written.parse().unwrap();
        let back = serde_json::to_value(&read["v"]).unwrap();
        let mut expected = json;
        expected.as_object_mut().unwrap().remove("none");
        assert_eq!(back, expected);
        for number_value in [0.0, -0.5, 1.0, 1e-9, 1e300, 123_456.75] {
            let read: toml::Table = format!("v = {}", number(number_value)).parse().unwrap();
            assert_eq!(read["v"].as_float(), Some(number_value));
        }
    }
}
