//! Loading Busbar plugins without trusting the file.
//!
//! The way of a plugin: find the file ([`registry`]) -> look at its bytes ([`preflight`]) -> private, hashed copy
//! ([`mod@stage`]) -> a child process loads it, describes it, answers the pure questions and makes a trial start
//! ([`mod@probe`]) -> `dlopen` of the copy ([`load`]) or a worker process ([`worker`]) -> [`Plugin`]. Each step refuses
//! with one sentence ([`LoadError`]) and leaves the host running (G6).
//!
//! What the types enforce: [`Plugin::load`] takes a [`Probed`], which only a probe makes from a [`Staged`], so nothing
//! reaches the dynamic linker of the host that did not survive a child; everything a plugin says is checked
//! ([`receive`]) before it reaches [`HostCallbacks`].
//!
//! A host's `main` calls [`child_main`] first, so that the same binary serves as probe and worker.

pub mod error;
pub mod host;
pub mod instance;
pub mod judge;
pub mod launcher;
pub mod load;
pub mod plugin;
pub mod preflight;
pub mod probe;
pub mod receive;
pub mod registry;
pub mod stage;
pub mod worker;

mod call;
mod frame;
mod link;
mod module;
mod outbox;
mod probe_child;
mod words;
mod worker_child;

use std::{ffi::OsString, path::Path, process::ExitCode};

pub use error::{LoadError, Step};
pub use host::{Admission, Arrival, FieldValue, HostCallbacks, Level, LogEntry, Push, Pushed};
pub use instance::{Delivery, Instance};
pub use judge::Expect;
pub use launcher::Launcher;
pub use plugin::{Isolation, Plugin};
pub use probe::{Probe, Probed, probe};
pub use receive::BoundaryStats;
pub use registry::{Found, Report, State};
pub use stage::{Staged, stage};

/// Runs `--probe FILE` or `--worker FILE` when `arguments` (without the program's name) ask for it.
///
/// `None`: this is an ordinary start. Call it before any thread is made and before arguments are parsed.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let mode = arguments.next()?;
    let run: fn(&Path) -> ExitCode = match mode.to_str()? {
        launcher::PROBE => probe_child::main,
        launcher::WORKER => worker_child::main,
        _ => return None,
    };
    let file = arguments.next()?;
    if arguments.next().is_some() {
        return None;
    }
    Some(run(Path::new(&file)))
}
