//! Modbus for Busbar: addresses, values, read planning, sessions, simulator.
