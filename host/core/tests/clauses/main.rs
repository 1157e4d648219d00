//! Dialogues with the core, one clause each: what goes in, what must come out.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test: a wrong assumption must fail loudly"
)]

mod bench;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod desk;
mod devices;
mod durable;
mod edges;
#[path = "../queue/file.rs"]
#[allow(dead_code, reason = "what the simulation of queues on disk needs more of it")]
mod file;
mod operators;
mod reload;
mod sinks;
