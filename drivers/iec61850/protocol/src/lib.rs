//! IEC 61850 client for Busbar, without I/O: octets and the time go in, octets and events come out.
//!
//! The codecs of TPKT to MMS and the state machine of the association are those of `iec61850-rs`; everything a
//! gateway needs above them is here (which layer comes from where, and why: ARCHITECTURE.md of the project).
//! From the outside in:
//!
//! * [`frame`], [`session`]: one association, fed packet by packet; every answer belongs to its request;
//! * [`request`], [`unsolicited`]: MMS services as owned requests and answers, reports, ends of commands;
//! * [`name`]: object references and MMS names;
//! * [`kind`], [`model`], [`discover`]: types and names of everything the device has, found or from a cache;
//! * [`quality`], [`point`]: value, quality and time of one point out of its data object, per common data class;
//! * [`poll`], [`scale`], [`listing`]: reading what no report brings, engineering values, what a device offers;
//! * [`scl`]: the same model from an engineering file;
//! * [`report`]: one report of a control block;
//! * [`subscription`]: choosing, taking, following report control blocks, and the points they feed;
//! * [`control`]: commands: structures by the device's own model, select, operate, cancel, terminations;
//! * [`limits`]: every bound, with its reason.
//!
//! References are to IEC 61850-7-2, 7-3, 8-1 and ISO 9506-2.

pub mod control;
pub mod data;
pub mod discover;
pub mod error;
pub mod frame;
pub mod kind;
pub mod limits;
pub mod listing;
pub mod model;
pub mod name;
pub mod point;
pub mod poll;
pub mod quality;
pub mod report;
pub mod request;
pub mod scale;
pub mod scl;
pub mod session;
pub mod subscription;
pub mod unsolicited;

pub use error::{AccessError, Consequence, Error, Refusal};
pub use name::{Address, Fc, Name};
pub use request::{Answer, Request, Value};
pub use session::{Event, Session, Settings, Ticket};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
