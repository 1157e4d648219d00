//! Modbus driver for Busbar.
