//! `busbar plugin check FILE.so`: what a file is, before it is installed.

use std::path::Path;

use busbar_contract::{Describe, describe::PluginKind};
use busbar_loader::{Expect, Launcher, LoadError, Report, probe, registry, stage};
use serde_json::{Value as Json, json};

use super::{Context, EXIT_CONFIG, Failure, Outcome, plugins, prepare};
use crate::catalog::StageDir;

pub(super) fn run(context: &Context, file: &Path) -> Outcome {
    let host = prepare::first_look(context).host;
    let directory = StageDir::for_a_look(&host);
    // The name only chooses a directory here; what counts is what the plugin says.
    let name = file.file_name().and_then(|name| registry::parse_file_name(name.to_str()?));
    let (kind, name) = name.unwrap_or(("driver", "unnamed".into()));
    let kind = if kind == PluginKind::Sink.as_str() { PluginKind::Sink } else { PluginKind::Driver };
    let report = Report::declared(&*name, kind, file);
    match examine(&directory, &name, file) {
        Ok(probed) => {
            let row = plugins::row(&report.probed(&probed));
            show(context, row, Some(&probed.describe));
            Ok(())
        }
        Err(error) => {
            show(context, plugins::row(&report.failed(&error)), None);
            Err(if context.out.json {
                Failure::Told(EXIT_CONFIG)
            } else {
                Failure::Config(error.to_string())
            })
        }
    }
}

fn examine(directory: &StageDir, name: &str, file: &Path) -> Result<busbar_loader::Probed, LoadError> {
    let staged = stage(directory.path(), name, file, None)?;
    probe(&Launcher::default(), &staged, Expect { kind: None, name: None })
}

fn show(context: &Context, mut row: Json, describe: Option<&Describe>) {
    let out = &context.out;
    if let (Some(row), Some(describe)) = (row.as_object_mut(), describe) {
        row.insert("sdk".into(), json!(describe.sdk));
        row.insert("rustc".into(), json!(describe.rustc));
        row.insert("build".into(), json!(describe.build));
    }
    if out.json {
        return out.document(&row);
    }
    if describe.is_none() {
        return;
    }
    for field in
        ["name", "kind", "version", "description", "abi", "sdk", "rustc", "build", "file", "sha256", "state"]
    {
        let text = super::read::text(&row, field);
        if !text.is_empty() {
            out.line(&format!("{field:<12} {text}"));
        }
    }
}
