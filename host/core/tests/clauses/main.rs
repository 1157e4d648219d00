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
mod devices;
mod edges;
mod operators;
mod reload;
mod sinks;
