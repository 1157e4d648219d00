//! What travels over the Busbar waist: values, times, causes, quality, operations and their bodies.
//!
//! The waist ([`busbar_abi`]) only knows plain samples and op codes with bytes. This crate gives them meaning and is
//! shared by the SDK (plugin side) and the host core, so that both read the same definition. It contains no I/O,
//! no clock and no runtime.
//!
//! Versioning: [`PROTOCOL`] `{major, minor}`. A host serves every minor of its major; bodies ignore unknown keys,
//! keys are never reused, new operations are announced in `describe.ops`. Every message of every release is kept in
//! `driver-api/golden` and must parse for ever.

pub mod batch;
pub mod binary;
pub mod cause;
pub mod command;
pub mod describe;
pub mod event;
pub mod op;
pub mod quality;
pub mod request;
pub mod value;

pub use batch::Samples;
pub use busbar_abi::Sample;
pub use cause::{Cause, Flags};
pub use command::{Action, Answer, Origin, Reason, Stage};
pub use describe::{CheckInput, Describe, Endpoint, Problem, Severity};
pub use event::{Event, Failure, FailureKind};
pub use quality::{Quality, Validity};
pub use request::Request;
pub use value::{Kind, Value};

/// Version of the operations and bodies in this crate.
pub const PROTOCOL: describe::Protocol = describe::Protocol { major: 1, minor: 0 };

/// A body or batch that does not follow the contract; the text names what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct Malformed {
    /// Which message or field.
    pub what: &'static str,
    /// What the contract asks for.
    pub expected: String,
    /// What arrived.
    pub found: String,
}

impl Malformed {
    /// Builds the error from its three parts.
    pub fn new(what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what, expected: expected.into(), found: found.into() }
    }
}
