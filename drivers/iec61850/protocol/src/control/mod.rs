//! Commands to controllable objects (IEC 61850-7-2 clause 20, 8-1 clause 20).
//!
//! * [`Control`]: what the model says about one controllable object;
//! * [`Conditions`], [`ctl_val`]: the structures of `Oper`, `SBOw`, `Cancel`;
//! * [`Command`]: one command from select to termination, as a state machine;
//! * [`AddCause`], [`ApplError`], [`Reason`]: why a device refuses.

mod cause;
mod command;
mod structure;

pub use cause::{AddCause, ApplError, Reason};
pub use command::{Action, Command, Control, Progress};
pub use iec61850_rs::common::ControlModel;
pub use structure::{Conditions, Setting, ctl_val};
