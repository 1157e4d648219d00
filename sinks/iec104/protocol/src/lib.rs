//! IEC 60870-5-104 for Busbar, without I/O and without a clock: bytes and times come from outside, bytes go out.
//!
//! | module | what it is |
//! |---|---|
//! | [`apci`] | frames: I, S, U |
//! | [`asdu`] | headers, information objects, time tags, packing |
//! | [`link`] | one connection: windows, time-outs, start and stop |
//! | [`map`] | values and qualities to information elements, commands to values |
//! | [`station`] | the controlled station: masters and groups, events, interrogations, commands |
//!
//! Sources: IEC 60870-5-104:2006+A1, IEC 60870-5-101:2003, IEC 60870-5-4, IEC 60870-5-5.

pub mod apci;
pub mod asdu;
pub mod link;
pub mod map;
pub mod station;
