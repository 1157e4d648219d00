//! Busbar host.
