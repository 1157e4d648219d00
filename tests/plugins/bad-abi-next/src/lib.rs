//! A waist of the next major version: a refused plugin.

#[path = "../../bad-layout/src/waist.rs"]
mod waist;

/// Name in the description.
const NAME: &str = "bad-abi-next";
