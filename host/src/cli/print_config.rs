//! `busbar print-config`: what is really in force, defaults filled in, secrets masked.

use super::{Context, EXIT_CONFIG, Failure, Outcome, prepare};
use crate::catalog::StageDir;

pub(super) fn run(context: &Context) -> Outcome {
    let prepared = prepare::prepare(context, false, StageDir::for_a_look);
    prepare::checked(context, &prepared.loaded)?;
    let Some(effective) = prepared.loaded.effective() else { return Err(Failure::Told(EXIT_CONFIG)) };
    if !context.out.json {
        context.out.text(&effective);
        return Ok(());
    }
    let parsed: Result<serde_json::Value, _> = toml::from_str(&effective);
    let document = parsed.map_err(|error| {
        Failure::Config(format!("the effective configuration cannot be read back: {error}"))
    })?;
    context.out.document(&document);
    Ok(())
}
