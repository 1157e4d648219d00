//! EMS ingestion over HTTP for Busbar: what a batch looks like, how it is sent, and what an answer means.
//!
//! | module | what it is |
//! |---|---|
//! | [`template`] | body skeletons with placeholders, checked once, rendered without a tree |
//! | [`body`] | records and batches in the making |
//! | [`time`] | `Retry-After` |
//! | [`key`] | the idempotency key: a function of what is in the batch |
//! | [`lane`] | which records go out together, what an answer settles, bisecting; no I/O |
//! | [`answer`] | status and body of an answer -> what it means; no I/O |
//! | [`backoff`] | pauses between attempts |
//! | [`client`] | one exchange over `reqwest` |
//!
//! Nothing was ever defined as "the EMS API": the defaults here are a proposal, and since each EMS differs, path, header
//! names, body and answer are settings. No ABI, no knowledge of the host. Only [`client`] does I/O, and it knows no time:
//! the caller limits an exchange by dropping it.

pub mod answer;
pub mod backoff;
pub mod body;
pub mod client;
mod error;
pub mod key;
pub mod lane;
pub mod template;
pub mod time;

pub use answer::{Answer, AnswerForm, Rejections, Reply};
pub use body::{Body, Head, Measurement, Record, Shown};
pub use client::{Client, Endpoint, Post};
pub use error::Error;
pub use lane::{End, Lane, Limits, Settled, Why};
