//! What the sinks in this repository share, so that one word means the same thing in each of them.
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`] | types of settings: URLs, TLS files, times and sizes |
//! | [`check`] | what is wrong with them, as problems with JSON pointers |
//! | [`shown`] | a sample as the sink keys `test` and `bad_value` want it |
//! | [`verdicts`] | ranges of records that are settled, neighbours merged |
//!
//! What needs no SDK is in `busbar-kit` (folder `protocol`), so that protocol crates can use it, too. A plugin written
//! elsewhere needs only `busbar-driver-api`.

pub mod check;
pub mod settings;
pub mod shown;
pub mod verdicts;
