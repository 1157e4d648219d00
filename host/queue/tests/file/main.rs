//! The file through its public side: every test opens real files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod bounds;
mod crash;
mod damage;
mod full;
mod model;
mod odd;
mod parked;
mod support;
mod words;
