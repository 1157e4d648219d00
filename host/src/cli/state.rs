//! `busbar state clear`: forgets what a device or sink has stored.

use std::time::Duration;

use clap::Subcommand;

use super::{
    Context, Outcome,
    access::Access,
    operate::{confirm, say},
};
use crate::control::protocol::{Call, Line};

#[derive(Debug, Subcommand)]
pub(super) enum StateVerb {
    /// Forget what was stored for a device: counters, watermarks, cursors
    Clear {
        /// The device, or the sink with --sink
        name: String,
        /// The name is that of a sink
        #[arg(long)]
        sink: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) fn run(context: &Context, verb: &StateVerb) -> Outcome {
    let StateVerb::Clear { name, sink, yes } = verb;
    confirm(
        *yes,
        &format!("Forget the stored state of {name}: it begins anew, as when it was first connected"),
    )?;
    let owner = format!("{}/{name}", if *sink { "sink" } else { "device" });
    // A switch of the host: must work whatever is wrong with devices and plugins.
    let mut access = Access::open(context, &[], Duration::ZERO)?;
    let answer = access.call(Call::ClearState { owner }, |_| {});
    access.close()?;
    let count = match answer? {
        Line::Rows { rows } => rows.first().and_then(|row| row["entries"].as_u64()).unwrap_or_default(),
        _ => 0,
    };
    say(context, &format!("{count} entries of {name} are forgotten"));
    Ok(())
}
