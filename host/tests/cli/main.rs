//! The `busbar` command from outside: every verb, the control socket, the admin listener, the files in `data_dir`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

mod admin;
mod common;
mod config;
mod direct;
mod lifecycle;
mod operate;
mod socket;
