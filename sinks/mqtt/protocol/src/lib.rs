//! MQTT for Busbar: topics, payloads, acknowledgement ledger, session, broker for tests and the demo.
