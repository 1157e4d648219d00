//! MQTT sink for Busbar: configuration and glue. Topics, payloads, commands and the session are in `busbar-mqtt`.
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`], [`check`] | the `settings` table, and what is wrong with it |
//! | [`points`] | the point list, prepared for the hot path |
//! | [`sink`] | the connection: open, deliver, drive, close |
//! | [`publish`] | records -> messages |
//! | [`verdict`] | what became of records, for the host |
//! | [`online`] | devices whose `@online` is not routed |
//! | [`commands`] | set topics -> host -> answers |
//! | [`memory`] | what outlives a connection |

mod check;
mod commands;
mod connect;
mod memory;
mod online;
mod points;
mod publish;
mod settings;
mod sink;
mod verdict;

busbar_driver_api::export_sink!(sink::Mqtt);
