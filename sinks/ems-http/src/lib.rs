//! EMS sink over HTTP for Busbar: configuration and glue. Bodies, batches, answers and the client are in `busbar-ems-http`.
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`], [`check`] | the `settings` table, and what is wrong with it |
//! | [`quality`] | the EMS's words for a quality |
//! | [`points`] | the point list, prepared |
//! | [`collect`] | samples -> records |
//! | [`setup`] | what a connection needs: client, endpoints, body, token |
//! | [`exchange`] | one batch out, one answer in, with a time limit |
//! | [`memory`] | what outlives a connection |
//! | [`connect`] | trying the endpoints |
//! | [`sink`] | the connection: open, deliver, drive, close |
//! | [`verdict`] | what an answer says -> verdicts, logs and alarms for the host |

mod check;
mod collect;
mod connect;
mod exchange;
mod memory;
mod points;
mod quality;
mod settings;
mod setup;
mod sink;
mod verdict;

busbar_driver_api::export_sink!(sink::Ems);
