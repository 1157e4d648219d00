//! Host core of Busbar: a pure state machine `step(now, input) -> outputs`.
//!
//! No socket, thread, file or clock is touched here; the edges in the host binary carry outputs out and bring inputs
//! in. So thousands of histories run through it in a test, with the guarantees checked after every step.

pub mod decimal;
pub mod input;
pub mod model;
pub mod output;

pub use input::{Input, Now};
pub use output::Output;

/// The state machine.
#[derive(Debug)]
pub struct Core {}
