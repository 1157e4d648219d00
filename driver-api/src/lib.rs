//! SDK for Busbar drivers and sinks.
