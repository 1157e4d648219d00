//! Fake sink.
