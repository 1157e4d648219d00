//! `busbar browse DEVICE [WHAT...]`: what the device offers, as points to paste into the configuration.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::{Context, Limit, Outcome, access::Access, out::printable, read::plain};
use crate::control::protocol::{Call, Line};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The device
    device: String,
    /// What to look at, in the driver's words (Modbus: holding:0-99 input:0-9)
    what: Vec<String>,
    #[command(flatten)]
    limit: Limit,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let mut access = Access::open(context, &[&arguments.device], arguments.limit.duration())?;
    let call = Call::Browse {
        device: arguments.device.clone(),
        arguments: arguments.what.clone(),
        deadline_ms: arguments.limit.millis(),
    };
    let mut found = Vec::new();
    let answer = access.call(call, |line| {
        if let Line::Page { entries } = line {
            found.extend(entries.iter().cloned());
        }
    });
    access.close()?;
    // What was found before it went wrong is still worth showing.
    if context.out.json {
        context.out.document(&json!(found));
    } else if !found.is_empty() {
        context.out.text(&points(&found));
    }
    answer.map(drop)
}

/// The entries as the key `points` of a device.
fn points(entries: &[Json]) -> String {
    let lines: Vec<String> = entries.iter().filter_map(Json::as_object).map(point).collect();
    format!("points = [\n{}]\n", lines.concat())
}

/// One entry as an inline table; what the device says now and what it is stand behind it as a comment.
fn point(entry: &Map<String, Json>) -> String {
    const COMMENTS: [&str; 3] = ["value", "quality", "description"];
    let keys: Vec<String> = entry
        .iter()
        .filter(|(key, value)| !COMMENTS.contains(&key.as_str()) && !value.is_null())
        .filter_map(|(key, value)| Some(format!("{key} = {}", toml_value(value)?)))
        .collect();
    let comments: Vec<String> = COMMENTS
        .iter()
        .filter_map(|key| entry.get(*key).filter(|value| !value.is_null()))
        .map(|value| printable(&plain(Some(value))))
        .collect();
    let comment = if comments.is_empty() { String::new() } else { format!("  # {}", comments.join("  ")) };
    format!("  {{ {} }},{comment}\n", keys.join(", "))
}

fn toml_value(value: &Json) -> Option<String> {
    toml::Value::try_from(value).ok().map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_can_be_pasted() {
        let entries = [
            json!({ "name": "h0", "address": "holding:0", "type": "uint16", "value": 7, "unit": null }),
            json!({ "name": "evil", "address": "a\"\nb", "description": "x\ny", "range": [0, 1.5] }),
        ];
        let text = points(&entries);
        assert!(
            text.contains("  { name = \"h0\", address = \"holding:0\", type = \"uint16\" },  # 7\n"),
            "{text}"
        );
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        let points = parsed["points"].as_array().unwrap();
        assert_eq!(points[1]["address"].as_str(), Some("a\"\nb"));
        assert_eq!(points[1]["range"].as_array().unwrap().len(), 2);
    }
}
