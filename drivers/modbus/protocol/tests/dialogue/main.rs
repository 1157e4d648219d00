//! Sessions as byte dialogues: what is sent, what comes back, what the session makes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

mod late;
mod poll;
mod rtu;
mod serial;
mod support;
mod tcp;
