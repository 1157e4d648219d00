//! `busbar demo`: see the crate `busbar-demo`.

use std::{io::IsTerminal, time::Duration};

use clap::Args;

use super::{Context, EXIT_DEVICE, Failure, Outcome};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// End after so many seconds; succeeds only if everything promised was seen
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: Option<u64>,
    /// Plain lines instead of a live table
    #[arg(long)]
    plain: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Config(format!("the path of this program is not known: {error}")))?;
    let options = busbar_demo::Options {
        program,
        config: context.config.clone(),
        limit: arguments.seconds.map(Duration::from_secs),
        live: !arguments.plain && std::io::stdout().is_terminal(),
    };
    busbar_demo::run(&options).map_err(|text| {
        // The text has several lines: the end of the gateway's log belongs to it.
        let mut err = std::io::stderr().lock();
        let _ = std::io::Write::write_all(&mut err, format!("busbar demo: {text}\n").as_bytes());
        Failure::Told(EXIT_DEVICE)
    })
}
