//! The controlled station in dialogue with masters: what goes over the wire, and what the host is told.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod commands;
mod interrogation;
mod lanes;
mod requests;
mod simulation;
