//! MQTT sink for Busbar.
