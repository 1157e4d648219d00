//! `busbar plugin upgrade NAME FILE`, `busbar plugin rollback NAME`: through the running gateway, which alone can try a
//! version without an interruption; and `busbar plugins --history NAME`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Context, Failure, Outcome, prepare};
use crate::{
    control::{
        client::Client,
        protocol::{Call, Line},
    },
    edge::upgrade::history::{Event, History},
};

#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// Plugin name
    name: String,
    /// The new version (.so)
    file: PathBuf,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Plugin name
    name: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// `driver` or `sink`, where both have this name
    #[arg(long, value_parser = ["driver", "sink"])]
    kind: Option<String>,
}

pub(super) fn upgrade(context: &Context, arguments: &Upgrade) -> Outcome {
    let file = std::fs::canonicalize(&arguments.file)
        .map_err(|error| Failure::Config(format!("{}: {error}", arguments.file.display())))?;
    let file = file
        .into_os_string()
        .into_string()
        .map_err(|file| Failure::Config(format!("expected a path in UTF-8, found {}", file.display())))?;
    ask(context, &arguments.name, &arguments.which, Some(file))
}

pub(super) fn rollback(context: &Context, arguments: &Rollback) -> Outcome {
    ask(context, &arguments.name, &arguments.which, None)
}

fn ask(context: &Context, name: &str, which: &Which, file: Option<String>) -> Outcome {
    let host = prepare::first_look(context).host;
    let mut client = Client::connect(&host.data_dir).map_err(|error| {
        Failure::Config(format!(
            "no gateway runs with data_dir {}: {error}; start it, or put the file into plugin_dirs, it is tried after the start",
            host.data_dir.display()
        ))
    })?;
    let broken = |error: std::io::Error| Failure::Device(format!("the gateway does not answer: {error}"));
    let call = Call::PluginUpgrade { name: name.to_owned(), kind: which.kind.clone(), file };
    client.send(&call).map_err(broken)?;
    loop {
        match client.receive().map_err(broken)? {
            Line::Step { text } if context.out.json => context.out.document(&json!({ "step": text })),
            Line::Step { text } => context.out.line(&format!("  {text}")),
            Line::Upgraded { text } => {
                if context.out.json {
                    context.out.document(&json!({ "ok": true, "text": text }));
                } else {
                    context.out.line(&text);
                }
                return Ok(());
            }
            Line::Failed { text, usage: true } => return Err(Failure::Config(text)),
            Line::Failed { text, .. } => return Err(Failure::Device(text)),
            other => return Err(Failure::Device(format!("expected a step or an end, found {other:?}"))),
        }
    }
}

/// Newest last, like a log.
pub(super) fn history(context: &Context, data_dir: &Path, name: &str) -> Outcome {
    let history = History::open(data_dir);
    let name = name.replace('-', "_");
    let events: Vec<&Event> =
        ["driver", "sink"].iter().flat_map(|kind| history.named(&format!("{kind}/{name}"))).collect();
    if events.is_empty() {
        return Err(Failure::Config(format!("there is no history of a plugin named {name}")));
    }
    if context.out.json {
        context.out.document(&json!(events));
        return Ok(());
    }
    let rows: Vec<Vec<super::out::Cell>> = events
        .iter()
        .map(|event| {
            let short: String = event.sha256.chars().take(12).collect();
            let texts = [&event.time, &event.plugin, &event.event, &event.version, &short, &event.reason];
            texts.into_iter().map(|text| text.clone().into()).collect()
        })
        .collect();
    context.out.table(&["time", "plugin", "event", "version", "sha256", "reason"], &rows);
    Ok(())
}
