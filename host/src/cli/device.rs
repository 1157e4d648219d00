//! `busbar device NAME enable|disable|pause|resume`: the two switches of a device. `disable` is maintenance: no session.
//! `pause` keeps the session and reads nothing. Both are audited, stored, hold after a restart, and are overruled when the
//! same key (`enabled`, `maintenance`, `read`) is changed in the configuration: the later decision wins.

use clap::{Args, ValueEnum};

use super::{Context, Outcome, operate::switch};
use crate::control::protocol::Call;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The device
    device: String,
    #[arg(value_name = "SWITCH")]
    what: What,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Connect and read it again
    Enable,
    /// End its connection; its points are invalid
    Disable,
    /// Keep the connection and read nothing; its points are invalid
    Pause,
    /// Read it again
    Resume,
}

pub(super) fn run(context: &Context, Arguments { device, what, yes }: &Arguments) -> Outcome {
    let name = device.clone();
    let (question, call, done) = match what {
        What::Enable => (
            format!("Connect and read {device} again"),
            Call::Maintenance { device: name, on: false },
            format!("{device} is enabled"),
        ),
        What::Disable => (
            format!("End the connection of {device}; all its points are invalid"),
            Call::Maintenance { device: name, on: true },
            format!("{device} is disabled"),
        ),
        What::Pause => (
            format!("Stop reading {device}, stay connected; all its points are invalid"),
            Call::Pause { device: name, on: true },
            format!("{device} is paused"),
        ),
        What::Resume => (
            format!("Read {device} again"),
            Call::Pause { device: name, on: false },
            format!("{device} is read again"),
        ),
    };
    switch(context, *yes, &question, call, &done)
}
