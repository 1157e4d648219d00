//! A later, additive waist: an accepted plugin.

#[path = "../../bad-layout/src/waist.rs"]
mod waist;

/// Name in the description.
const NAME: &str = "bad-abi-newer";
