//! Busbar host: the edges of the core, the command line, the admin listener and the control socket.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod control;
pub mod edge;
mod good;
pub mod lock;
pub mod logging;
mod memory;
pub mod notify;
pub mod reload;
pub mod rows;
