//! Whole-gateway tests of Busbar.
