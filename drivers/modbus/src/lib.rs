//! Modbus driver for Busbar: configuration, and the glue between the gateway and the protocol crate `busbar-modbus`.
//!
//! * `config`: what `connection` and points may say, and how hosts and addresses are written;
//! * `check`: every problem of a device at once, and its endpoint;
//! * `point`: from a configured point to a field on the wire and back;
//! * `driver`: one session per endpoint, all devices of it;
//! * `write`: commands and blocks;
//! * `browse`: ranges scanned for what is there.

mod browse;
mod check;
mod config;
mod driver;
mod point;
mod text;
mod write;

busbar_driver_api::export_driver!(driver::Modbus);
