//! `busbar plugins`: every plugin that is configured or lies in a plugin directory, and what became of it.

use clap::Args;

use busbar_loader::{Isolation, Launcher, Report, State};
use serde_json::{Value as Json, json};

use super::{
    Context, Failure, Outcome,
    out::{Cell, Out, Tone},
    plugin_upgrade, prepare,
    read::text,
};
use crate::{
    catalog::{Catalog, StageDir},
    control::{
        client::Client,
        protocol::{Call, Line},
    },
};

/// Characters of a hash that people compare.
const SHORT_HASH: usize = 12;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show the versions that this plugin had, with times and reasons
    #[arg(long, value_name = "NAME")]
    history: Option<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let first = prepare::first_look(context);
    if let Some(name) = &arguments.history {
        return plugin_upgrade::history(context, &first.host.data_dir, name);
    }
    let configured = first.site.as_ref().map(|site| site.plugins.clone()).unwrap_or_default();
    let catalog = Catalog::new(
        &first.host.plugin_dirs,
        &configured,
        StageDir::for_a_look(&first.host),
        Launcher::default(),
    );
    let mut rows: Vec<Json> = catalog.reports(&configured).iter().map(row).collect();
    // A running host knows better what became of its plugins.
    if let Some(running) = of_running_host(&first.host.data_dir) {
        rows.retain(|row| !running.iter().any(|known| same(known, row)));
        rows.splice(0..0, running);
    }
    if rows.is_empty() {
        let dirs: Vec<String> = first.host.plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        return Err(Failure::Config(format!("no plugins in {}: set [host] plugin_dirs", dirs.join(", "))));
    }
    show(&context.out, &rows);
    Ok(())
}

fn of_running_host(data_dir: &std::path::Path) -> Option<Vec<Json>> {
    let mut client = Client::connect(data_dir).ok()?;
    client.send(&Call::Plugins {}).ok()?;
    match client.receive().ok()? {
        Line::Rows { rows } => Some(rows),
        _ => None,
    }
}

fn same(a: &Json, b: &Json) -> bool {
    ["name", "kind"].iter().all(|field| a.get(*field) == b.get(*field))
}

/// A report in the form of the API.
pub(super) fn row(report: &Report) -> Json {
    let (state, reason) = match &report.state {
        State::Declared => ("declared", ""),
        State::Staged => ("ok", ""),
        State::Loaded => ("loaded", ""),
        State::Running => ("running", ""),
        State::Degraded(reason) => ("degraded", reason.as_str()),
        State::Failed(reason) => ("failed", reason.as_str()),
    };
    json!({
        "name": report.name,
        "kind": report.kind,
        "version": report.version,
        "abi": report.abi,
        "description": report.description,
        "file": report.file.display().to_string(),
        "sha256": report.sha256,
        "isolation": match report.isolation {
            Isolation::InProcess => "in-process",
            Isolation::Process => "process",
        },
        "state": state,
        "reason": reason,
    })
}

/// A table, or the rows as they are.
pub(super) fn show(out: &Out, rows: &[Json]) {
    if out.json {
        return out.document(&json!(rows));
    }
    let cells: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    out.table(
        &[
            "name",
            "kind",
            "version",
            "abi",
            "isolation",
            "state",
            "memory",
            "restarts",
            "sha256",
            "file",
            "reason",
            "upgrade",
        ],
        &cells,
    );
}

fn cells(row: &Json) -> Vec<Cell> {
    let state = text(row, "state");
    let tone = if state == "ok" { Tone::Good } else { Tone::of_state(&state) };
    vec![
        text(row, "name").into(),
        text(row, "kind").into(),
        text(row, "version").into(),
        text(row, "abi").into(),
        text(row, "isolation").into(),
        Cell(state, tone),
        memory(row).into(),
        row.get("restarts")
            .and_then(Json::as_u64)
            .filter(|count| *count > 0)
            .map(|n| n.to_string())
            .unwrap_or_default()
            .into(),
        text(row, "sha256").chars().take(SHORT_HASH).collect::<String>().into(),
        text(row, "file").into(),
        text(row, "reason").into(),
        text(row, "upgrade").into(),
    ]
}

/// Of a worker process: `27 of 256 MiB`.
fn memory(row: &Json) -> String {
    const MEBIBYTE: u64 = 1024 * 1024;
    let number = |field: &str| row.get(field).and_then(Json::as_u64).map(|bytes| bytes / MEBIBYTE);
    match (number("memory_bytes"), number("memory_limit")) {
        (Some(now), Some(limit)) => format!("{now} of {limit} MiB"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_worker_is_shown_beside_its_limit() {
        let row = json!({ "memory_bytes": 28_311_552, "memory_limit": 268_435_456 });
        assert_eq!(memory(&row), "27 of 256 MiB");
        assert_eq!(memory(&json!({ "memory_bytes": null, "memory_limit": null })), "");
    }
}
