//! `busbar check`: all problems at once; exit 0 or 1.

use clap::Args;
use serde_json::json;

use super::{Context, EXIT_CONFIG, Failure, Outcome, prepare};
use crate::catalog::StageDir;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the JSON Schema of the whole configuration, for editors, and check nothing
    #[arg(long)]
    schema: bool,
    /// A plugin that is absent or refused is an error, not a warning
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let prepared = prepare::prepare(context, arguments.strict, StageDir::for_a_look);
    if arguments.schema {
        context.out.document(&busbar_config::schema(&prepared.catalog));
        return Ok(());
    }
    let loaded = &prepared.loaded;
    let failed = loaded.failed();
    if context.out.json {
        context.out.document(&json!({ "ok": !failed, "problems": loaded.problems }));
    } else {
        context.out.text(&loaded.render(context.out.colour));
        if let Some(site) = &loaded.site {
            let points: usize = site.devices.iter().map(|device| device.points.len()).sum();
            let (devices, sinks) = (site.devices.len(), site.sinks.len());
            let file = context.config.display();
            context.out.line(&format!("{file}: ok: devices: {devices}, points: {points}, sinks: {sinks}"));
        }
    }
    if failed { Err(Failure::Told(EXIT_CONFIG)) } else { Ok(()) }
}
