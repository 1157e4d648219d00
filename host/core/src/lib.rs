//! Host core of Busbar: a pure state machine `step(now, input) -> outputs`.
//!
//! No socket, thread, file or clock is touched here; the edges in the host binary carry outputs out and bring inputs
//! in. So thousands of histories run through it in a test, with the guarantees checked after every step.
//!
//! Contract with the edge:
//! * [`Core::step`] is called with every input, in the order in which things happened, and with [`Input::Tick`] when
//!   the instant of [`Core::next_wake`] has come. Outputs are carried out in order.
//! * An instance exists from [`Output::Open`] until the event STOPPED, `Input::OpenFailed`, `Input::PluginFailed` or
//!   [`Output::Abandon`]. Its number never comes back.
//! * Point, device and group numbers are the same in every plugin and are never used twice in a process, so a group
//!   number alone names one group of one device.

pub mod decimal;
pub mod hours;
pub mod input;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod output;
pub mod pool;
pub mod reload;
pub mod switches;
pub mod view;

mod arena;
mod assemble;
mod backlog;
mod backoff;
mod bind;
mod block;
mod books;
mod channel;
mod collect;
mod command;
mod commit;
mod convert;
mod delivery;
mod device;
mod durable;
mod endpoint;
mod event;
mod feed;
mod fetch;
mod gathered;
mod ghosts;
mod handover;
mod images;
mod ingest;
mod invariants;
mod journaling;
mod link;
mod log;
mod off;
mod operator;
mod plugin;
mod poll;
mod queue;
mod reload_aside;
mod reload_device;
mod reload_diff;
mod reload_sink;
mod request;
mod resync;
mod rng;
mod route;
mod rows;
mod schedule;
mod select;
mod settlements;
mod sink;
mod slots;
mod stale;
mod state;
mod state_machine;
mod store;
mod system;
mod table;
mod time;
mod timers;
mod upgrade;
mod views;

pub use input::{Input, Now};
pub use metrics::Metric;
pub use output::Output;
pub use state_machine::Core;
pub use switches::Switches;
