//! Harness of the whole-gateway tests: starts the built gateway, real peers and a real broker, and looks from outside.
//!
//! Nothing here links a crate of the gateway. A test sees what an operator sees: files, processes, sockets, the broker,
//! the command line, the admin listener. Rules: wait by observing with a deadline, never by sleeping a guessed time; a
//! failing test prints configuration, log and exit code; what was started is ended by its process id.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness: whatever goes wrong here must fail the test at once"
)]

pub mod admin;
pub mod broker;
pub mod built;
pub mod certificates;
pub mod cli;
pub mod device;
pub mod ems;
pub mod gateway;
pub mod metrics;
pub mod observer;
pub mod peer;
pub mod ports;
pub mod proc;
pub mod progress;
pub mod recorder;
pub mod small_disk;
pub mod wait;

pub use broker::Broker;
pub use gateway::Gateway;
pub use observer::{Message, Observer};
pub use peer::{Peer, Place};
pub use recorder::Recorder;
pub use small_disk::SmallDisk;
pub use wait::until;
