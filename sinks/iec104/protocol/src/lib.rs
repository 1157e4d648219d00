//! IEC 60870-5-104 for Busbar. Without I/O and without a clock but for `server`: bytes and times come from outside,
//! bytes go out.
//!
//! | module | what it is |
//! |---|---|
//! | [`apci`] | frames: I, S, U |
//! | [`asdu`] | headers, information objects, time tags, packing |
//! | [`link`] | one connection: windows, time-outs, start and stop |
//! | [`map`] | values and qualities to information elements, commands to values |
//! | [`station`] | the controlled station: masters and groups, events, interrogations, commands |
//! | `server` | feature `server`: listener, allow-list, TLS, one task per connection |
//!
//! Sources: IEC 60870-5-104:2006+A1, IEC 60870-5-101:2003, IEC 60870-5-4, IEC 60870-5-5.

pub mod apci;
pub mod asdu;
pub mod link;
pub mod map;
#[cfg(feature = "server")]
pub mod server;
pub mod station;
