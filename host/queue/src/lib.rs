//! Files that must survive.
