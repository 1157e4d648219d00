//! What the protocol crates of our sinks share, so that a value, a time and a certificate look the same at every far side.
//!
//! | module | what it is |
//! |---|---|
//! | [`json`] | values and texts as JSON, written straight into a buffer |
//! | [`file`] | small files, read within bounds |
//! | [`time`] | RFC 3339, both ways |
//! | [`tls`] | a TLS client from PEM files, and what is wrong with a certificate in words |
//!
//! No ABI, no knowledge of the host, no protocol. A plugin written elsewhere needs only `busbar-driver-api`; this is for the
//! plugins in this repository.

pub mod file;
pub mod json;
pub mod time;
pub mod tls;
