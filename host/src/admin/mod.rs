//! The admin listener: health, metrics and the API over HTTP.

pub mod api;
pub mod auth;
pub mod http;
pub mod metrics;
pub mod process;
pub mod prometheus;
