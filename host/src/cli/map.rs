//! `busbar map SINK`: the resulting point list of a sink as CSV, for the control centre.

use clap::Args;

use super::{Context, Failure, Outcome, prepare};
use crate::catalog::StageDir;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the sink
    sink: String,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let prepared = prepare::prepare(context, false, StageDir::for_a_look);
    let site = prepare::checked(context, &prepared.loaded)?;
    let Some(list) = prepared.loaded.map_list(&arguments.sink) else {
        let names: Vec<&str> = site.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let text =
            format!("expected the name of a sink, found {}; there are: {}", arguments.sink, names.join(", "));
        return Err(Failure::Config(text));
    };
    context.out.text(&list);
    Ok(())
}
