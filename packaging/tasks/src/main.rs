//! Developer tasks: `cargo task NAME`.
//!
//! One place holds what a fresh clone needs and in which order the checks run; `.ci/run` and the README call it, so
//! what a person types and what the server runs cannot drift apart. The crate has no dependencies: it is the first
//! thing a clone builds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks on its terminal")]

mod args;
mod bench;
mod checks;
mod demo;
mod deny;
mod process;
mod report;
mod setup;
mod soak;
mod summary;
mod tests;

use std::process::ExitCode;

use args::{Options, Parsed, Task};
use report::Report;

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(task, options)) => run(task, &options),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task, options: &Options) -> ExitCode {
    let mut report = Report::new(task.name(), options.json);
    match task {
        Task::Setup => setup::run(&mut report),
        Task::Test => tests::run(&mut report, options),
        Task::Lint => checks::lint(&mut report),
        Task::Fmt => checks::fmt(&mut report, options.check),
        Task::Demo => demo::run(&mut report, &options.rest),
        Task::Bench => bench::run(&mut report, &options.rest),
        Task::Soak => soak::run(&mut report, &options.rest, &options.story),
    }
    report.finish()
}
