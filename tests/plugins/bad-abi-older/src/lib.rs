//! A waist with a function less: a refused plugin.

#[path = "../../bad-layout/src/waist.rs"]
mod waist;

/// Name in the description.
const NAME: &str = "bad-abi-older";
