//! Another layout of the waist: a refused plugin.

mod waist;

/// Name in the description.
const NAME: &str = "bad-layout";
