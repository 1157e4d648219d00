//! MQTT for Busbar: topics, payloads, commands, acknowledgement ledger, session, and a small broker.
//!
//! | module | what it is |
//! |---|---|
//! | [`topic`] | topic templates; no name can leave its level |
//! | [`payload`] | the JSON that goes out, written straight into a buffer |
//! | [`ems`] | the records of `format = "ems"` |
//! | [`command`] | requests on set topics, and the answers |
//! | [`ledger`] | what is published and not acknowledged |
//! | [`options`] | what a session needs to know |
//! | [`session`] | one connection to a broker, MQTT 3.1.1 or 5 |
//! | [`takeover`] | notices a second client with our client id |
//! | `broker` | feature `broker`: a broker for the demo and for tests, which can misbehave on purpose |
//!
//! The packets are `rumqttc`'s; its event loop is not used. Reasons: it writes and flushes every PUBLISH with a system
//! call of its own (for MQTT 5 there is no way around it), drops unacknowledged messages silently when the broker lost
//! the session, hands acknowledgements of an old connection to the next one, and retries a message over the packet
//! limit for ever. The session here owns the socket, writes whole batches, and keeps the ledger.
//!
//! No ABI, no knowledge of the host, no clock of its own besides `tokio::time`; times for payloads come from outside.

#[cfg(feature = "broker")]
pub mod broker;
pub mod command;
pub mod ems;
mod error;
pub mod ledger;
pub mod options;
pub mod payload;
pub mod session;
mod stream;
pub mod takeover;
mod tls;
pub mod topic;
mod wire;

pub use error::Error;
pub use options::{Options, Qos, Status, Url, Version};
pub use session::{Event, Message, SendError, Session};
pub use wire::{OFFLINE, ONLINE, PublishError};
