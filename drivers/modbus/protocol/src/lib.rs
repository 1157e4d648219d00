//! Modbus for Busbar: addresses, values, read planning, sessions.
//!
//! No ABI and no knowledge of the gateway: the driver, the simulator, the demo and every test use this crate.
//! From the outside in:
//!
//! * [`address`], [`order`], [`value`]: what configuration says, checked with all mistakes at once;
//! * [`plan`]: which requests read a set of points (pure);
//! * [`poll`]: reads planned points through a session and learns from refusals;
//! * [`session`]: one owner of one connection; every answer belongs to its request;
//! * [`memory`], [`rtu`], `line`: why that also holds on RTU, where answers carry no number;
//! * [`link`], [`serial`]: TCP hosts and serial ports;
//! * [`simulator`] (feature `simulator`): a real server for demos and tests.
//!
//! Protocol references are to "MODBUS Application Protocol Specification V1.1b3" and "MODBUS over Serial
//! Line V1.02".

pub mod address;
pub mod call;
pub mod error;
mod hint;
mod holder;
mod line;
pub mod link;
pub mod memory;
pub mod order;
pub mod plan;
pub mod poll;
mod problem;
pub mod rtu;
pub mod scan;
pub mod serial;
pub mod session;
#[cfg(feature = "simulator")]
pub mod simulator;
mod tap;
pub mod value;

pub use address::{Address, AddressMode, Reading, Resolved, Table};
pub use call::{Answer, Call};
pub use error::{Consequence, Error, Exception};
pub use link::{BoxStream, Connect, LastGood, Once, Prefer, SerialPath, TcpHosts};
pub use memory::LineMemory;
pub use order::Order;
pub use plan::{Block, Lessons, Limits, Want};
pub use poll::Poller;
pub use problem::Problem;
pub use serial::{Parity, SerialSettings};
pub use session::{Carrier, Counters, Session, Timing};
pub use tap::FrameLog;
pub use value::{EncodeError, Field, FieldSpec, Key, Type, Value};

#[cfg(all(doctest, feature = "simulator"))]
#[doc = include_str!("../README.md")]
struct Readme;
