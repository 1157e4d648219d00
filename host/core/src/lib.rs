//! Host core of Busbar: a pure state machine. No socket, thread, file or clock is touched here.

pub mod decimal;
pub mod model;
