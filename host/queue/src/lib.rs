//! Files of the host that must survive: the queue of a durable sink ([`File`]), the state of devices and sinks ([`State`]).
//!
//! The words are those of `busbar_core::journal`; this crate is the other side of that conversation. It does what it is
//! told in the calling thread and knows neither the core's thread nor plugins: the host gives each file one thread.
//!
//! Invariants:
//! * Rows, ends, dictionary, ledger, next number and clock of one transaction are in one transaction of SQLite. After
//!   any crash the file is the state after some transaction, and every transaction whose commit was reported is in it.
//! * `accepted = delivered + pending + parked + dropped(reason)`, in every state that was ever on disk.
//! * A record number is the key of one record for ever. Numbers do not go back, whatever is lost.
//! * What is read from the file is checked before it is believed: rows, masks, names and ledger carry checksums of their
//!   own, because SQLite has none. Damage is never a panic: the file is kept aside, what is readable goes on.
//! * The bounds on size and age are kept in the same transaction that appends.

mod aside;
mod bounds;
mod bytes;
mod clock;
mod codec;
mod database;
mod draft;
mod fault;
mod file;
mod head;
mod load;
mod mask;
mod names;
mod open;
mod parked;
mod reserve;
mod salvage;
mod scan;
mod schema;
mod settle;
mod state;
mod wal;

pub use clock::Now;
pub use draft::Limits;
pub use file::{File, NotOpened, Options};
pub use open::look;
pub use parked::{DISCARDED, Parked};
pub use state::{Found, MAX_KEY, MAX_TOTAL, MAX_VALUE, Mended, State};

/// Reason of records that left because the queue was full.
pub const OVERFLOW: &str = "overflow";
/// Reason of records that left because they were too old.
pub const EXPIRED: &str = "expired";
/// Reason of records that could not be read any more.
pub const DAMAGED: &str = "damaged";
