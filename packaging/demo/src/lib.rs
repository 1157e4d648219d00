//! Simulated devices and a broker for busbar demo.
