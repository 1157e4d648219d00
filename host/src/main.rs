//! The busbar command.
fn main() {}
