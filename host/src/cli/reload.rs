//! `busbar reload`: the running gateway reads its configuration again and applies what differs. Exit code 0 when the files
//! are in force, 1 when they have errors (nothing was applied), 2 when they could not run (rolled back).

use clap::Args;
use serde_json::Value as Json;

use super::{Context, EXIT_CONFIG, EXIT_DEVICE, Failure, Outcome, out::printable, prepare};
use crate::{
    control::{
        client::Client,
        protocol::{Call, Line},
    },
    reload::Answer,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show what differs from the running configuration, and apply nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let data_dir = prepare::first_look(context).host.data_dir;
    let broken = |error: std::io::Error| {
        Failure::Device(format!("{}: no gateway answers on its control socket: {error}", data_dir.display()))
    };
    let mut client = Client::connect(&data_dir).map_err(broken)?;
    client.send(&Call::Reload { dry_run: arguments.dry_run }).map_err(broken)?;
    let answer = match client.receive().map_err(broken)? {
        Line::Reload { answer } => *answer,
        Line::Failed { text, .. } => return Err(Failure::Device(text)),
        _ => {
            return Err(Failure::Device(
                "the running host gave another answer: is it an older version?".into(),
            ));
        }
    };
    if context.out.json {
        context.out.document(&serde_json::to_value(&answer).unwrap_or_default());
    } else {
        context.out.text(&shown(&answer));
    }
    match &answer {
        answer if answer.ok => Ok(()),
        answer if !answer.error.is_empty() => Err(Failure::Device(answer.error.clone())),
        answer if answer.summary.is_null() => Err(Failure::Told(EXIT_CONFIG)),
        _ => Err(Failure::Told(EXIT_DEVICE)),
    }
}

/// For people.
fn shown(answer: &Answer) -> String {
    let mut out = answer.text.clone();
    let summary = &answer.summary;
    let text = |key: &str| summary.get(key).and_then(Json::as_str).unwrap_or_default();
    let list = |key: &str| -> Vec<String> {
        let items = summary.get(key).and_then(Json::as_array);
        items.into_iter().flatten().filter_map(|item| item.as_str().map(printable)).collect()
    };
    for (sign, kind, key) in [
        ("+", "plugin", "plugins_added"),
        ("-", "plugin", "plugins_removed"),
        ("+", "device", "devices_added"),
        ("-", "device", "devices_removed"),
        ("~", "device", "devices_changed"),
        ("+", "sink", "sinks_added"),
        ("-", "sink", "sinks_removed"),
        ("~", "sink", "sinks_changed"),
    ] {
        let items = summary.get(key).and_then(Json::as_array);
        for item in items.into_iter().flatten() {
            out.push_str(&format!("{sign} {kind} {}\n", printable(&item_text(item))));
        }
    }
    for note in list("notes") {
        out.push_str(&format!("note: {note}\n"));
    }
    for key in list("needs_restart") {
        out.push_str(&format!("needs a restart: {key}\n"));
    }
    let last = match (answer.dry_run, text("outcome")) {
        (true, _) if answer.ok => "nothing was applied: --dry-run".to_owned(),
        (_, "applied") => format!("applied: configuration {} is in force", summary["version"]),
        (_, "unchanged") => "nothing to apply".to_owned(),
        (_, "rolled_back") => format!("rolled back: {}", printable(text("reason"))),
        _ if answer.error.is_empty() => "nothing was applied: the running configuration stays".to_owned(),
        _ => return out,
    };
    out.push_str(&last);
    out.push('\n');
    out
}

fn item_text(item: &Json) -> String {
    if let Some(name) = item.as_str() {
        return name.to_owned();
    }
    let name = item.get("name").and_then(Json::as_str).unwrap_or_default();
    let what: Vec<&str> =
        item.get("what").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let reopened =
        if item.get("reopened").and_then(Json::as_bool) == Some(true) { " (connects again)" } else { "" };
    format!("{name}: {}{reopened}", what.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_is_readable() {
        let answer = Answer {
            ok: true,
            summary: json!({
                "outcome": "applied", "version": 3, "devices_added": ["m-2"],
                "devices_changed": [{ "name": "m-1", "what": ["connection"], "reopened": true }],
                "needs_restart": ["host.tick"],
            }),
            ..Answer::default()
        };
        let expected = "+ device m-2\n~ device m-1: connection (connects again)\nneeds a restart: host.tick\n\
                        applied: configuration 3 is in force\n";
        assert_eq!(shown(&answer), expected);
        let failed = Answer { text: "error: x\n".into(), ..Answer::default() };
        assert_eq!(shown(&failed), "error: x\nnothing was applied: the running configuration stays\n");
    }
}
