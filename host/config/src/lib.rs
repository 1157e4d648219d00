//! Reading and checking plugins.toml.
