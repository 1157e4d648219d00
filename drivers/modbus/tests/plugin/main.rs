//! The driver as the gateway sees it: the real `.so`, requests in, completions out, simulated devices on real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

mod plugin;
mod rig;
