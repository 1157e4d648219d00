//! `busbar health`: whether the gateway that owns `data_dir` is ready, for container engines and scripts.

use clap::Args;
use serde_json::json;

use super::{Context, Failure, Outcome, prepare};
use crate::control::{
    client::Client,
    protocol::{Call, Line},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Every plugin, device and sink must run
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let data_dir = prepare::first_look(context).host.data_dir;
    let no_answer = |error: std::io::Error| {
        Failure::Device(format!("{}: no gateway answers on its control socket: {error}", data_dir.display()))
    };
    let mut client = Client::connect(&data_dir).map_err(no_answer)?;
    client.send(&Call::Ready { strict: arguments.strict }).map_err(no_answer)?;
    match client.receive().map_err(no_answer)? {
        Line::Done if context.out.json => context.out.document(&json!({ "ready": true })),
        Line::Done => context.out.line("ready"),
        Line::Failed { text, .. } => return Err(Failure::Device(text)),
        _ => return Err(Failure::Device("the gateway gave another answer: is it another version?".into())),
    }
    Ok(())
}
