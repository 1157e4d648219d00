//! `busbar block | unblock | substitute | maintenance` and `busbar plugin restart`: an operator's switches. Each is
//! audited; all but the restart are stored, hold after a restart of the gateway, and can be thrown while none runs.

use std::io::{IsTerminal, Write, stdin};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Context, Failure, Outcome, access::Access, out::printable, prepare, read::plain, write::parse};
use crate::control::{
    client::Client,
    protocol::{Call, Line},
};

#[derive(Debug, Args)]
pub(super) struct OnPoint {
    /// The point
    #[arg(value_name = "DEVICE/POINT")]
    point: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Substitute {
    /// The point
    #[arg(value_name = "DEVICE/POINT")]
    point: String,
    /// In engineering units: true, 25.5, on, "text"
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(super) struct Maintenance {
    /// The device
    device: String,
    state: Switch,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The plugin
    name: String,
    /// Which one, where a driver and a sink have this name
    #[arg(long, value_parser = ["driver", "sink"])]
    kind: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn block(context: &Context, OnPoint { point, yes }: &OnPoint) -> Outcome {
    let question = format!("Block {point}: its value is invalid at every sink until `busbar unblock`");
    switch(context, *yes, &question, Call::Block { point: point.clone() }, &format!("{point} is blocked"))
}

pub(super) fn unblock(context: &Context, OnPoint { point, yes }: &OnPoint) -> Outcome {
    let question = format!("Show the device's own value of {point} again");
    let done = format!("{point} shows the device's value");
    switch(context, *yes, &question, Call::Unblock { point: point.clone() }, &done)
}

pub(super) fn substitute(context: &Context, Substitute { point, value, yes }: &Substitute) -> Outcome {
    let value = parse(value);
    let shown = plain(Some(&value));
    let question = format!("Show {shown} as the value of {point} at every sink until `busbar unblock`");
    let done = format!("{point} = {shown}, substituted");
    switch(context, *yes, &question, Call::Substitute { point: point.clone(), value }, &done)
}

pub(super) fn maintenance(context: &Context, Maintenance { device, state, yes }: &Maintenance) -> Outcome {
    let on = *state == Switch::On;
    let (question, done) = if on {
        (format!("Stop reading {device}; all its points are invalid"), format!("{device} is in maintenance"))
    } else {
        (format!("Read {device} again"), format!("{device} is read again"))
    };
    switch(context, *yes, &question, Call::Maintenance { device: device.clone(), on }, &done)
}

pub(super) fn restart(context: &Context, Restart { name, kind, yes }: &Restart) -> Outcome {
    confirm(*yes, &format!("Start plugin {name} again: what it serves is lost for a moment"))?;
    let data_dir = prepare::first_look(context).host.data_dir;
    let broken = |error: std::io::Error| {
        Failure::Device(format!("{}: no gateway answers on its control socket: {error}", data_dir.display()))
    };
    let mut client = Client::connect(&data_dir).map_err(broken)?;
    client.send(&Call::PluginRestart { name: name.clone(), kind: kind.clone() }).map_err(broken)?;
    match client.receive().map_err(broken)? {
        Line::Failed { text, usage: true } => Err(Failure::Config(text)),
        Line::Failed { text, usage: false } => Err(Failure::Device(text)),
        _ => {
            say(context, &format!("{name} is started again; `busbar plugins` shows what becomes of it"));
            Ok(())
        }
    }
}

pub(super) fn switch(context: &Context, yes: bool, question: &str, call: Call, done: &str) -> Outcome {
    confirm(yes, question)?;
    let mut access = Access::for_switches(context)?;
    let answer = access.call(call, |_| {});
    access.close()?;
    answer?;
    say(context, done);
    Ok(())
}

pub(super) fn say(context: &Context, done: &str) {
    if context.out.json {
        context.out.document(&json!({ "done": done }));
    } else {
        context.out.line(&printable(done));
    }
}

/// Asks on a terminal; without one, `--yes` is needed.
pub(super) fn confirm(yes: bool, question: &str) -> Outcome {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Failure::Config("nobody can be asked without a terminal: add --yes".into()));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{}? [y/N] ", printable(question)).and_then(|()| err.flush());
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Config("nothing was done".into()))
    }
}
