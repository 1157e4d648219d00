//! Dialogues of a session with the server side of the codec, octet by octet.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

mod association;
mod discover;
mod hostile;
mod peer;
