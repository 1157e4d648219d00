//! Sessions as byte dialogues: what is sent, what comes back, what the session makes of it.

mod late;
mod poll;
mod serial;
mod support;
mod tcp;

mod rtu;
