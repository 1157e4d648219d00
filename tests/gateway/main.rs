//! Whole-gateway tests: real processes, real sockets, peers nobody here wrote.
//!
//! One binary, one module per story. What states a time lives under `timed`; the test runner gives it the machine alone
//! (`.config/nextest.toml`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

mod adhoc;
mod admin;
mod broker;
mod cases;
mod clock;
mod commands;
mod converter;
mod disk;
mod ems;
mod harness;
mod import;
mod isolation;
mod late;
mod logs;
mod once;
mod parked;
mod plugins;
mod port;
mod reload;
mod rolled_back;
mod serial;
mod shared;
mod simulator;
mod stop;
mod timed;
mod unprivileged;
mod upgrade;
mod values;
