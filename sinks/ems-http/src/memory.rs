//! What outlives a connection: the SDK makes a new [`crate::sink::Ems`] for every connect. It belongs to one instance,
//! whose record numbers it holds, so it lives in the instance's settings and goes with them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use busbar_driver_api::Secret;
use busbar_ems_http::Lane;

/// The last state of a point that was handed to the EMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Record number.
    pub number: u64,
    pub ts_ns: i64,
    pub kind: u8,
    /// The value; of texts a hash.
    pub bits: u64,
    pub quality: u16,
}

/// What is remembered.
#[derive(Default)]
pub(crate) struct Remembered {
    /// The batch that got no answer that decides about it.
    pub held: Option<Lane>,
    /// No attempt before this time, monotonic.
    pub not_before: Duration,
    /// Failures in a row.
    pub failures: u32,
    /// Why there is no connection.
    pub reason: String,
    /// The token that was refused.
    pub refused: Option<Secret>,
    /// The attempt of a reconnect was too short for this EMS: the next one is made after connecting.
    pub patient: bool,
    /// Endpoint that worked last.
    pub last_good: usize,
    /// Where the batch ends that was begun last: if its answer was lost, the same records make the same batch again.
    pub begun: Option<u64>,
    /// The same, as far as the host has it on disk.
    pub planned: Option<u64>,
    /// What the host has on disk was asked for.
    pub recalled: bool,
    /// The host could not store the end of a batch; said once.
    pub not_stored: bool,
    /// By point number.
    pub told: HashMap<u32, Told>,
    /// Every record below this number is settled.
    pub settled_below: u64,
    /// Records refused one after another, none accepted between.
    pub refused_in_a_row: u32,
    /// Records refused so far.
    pub refused_records: u64,
    pub counters: Counters,
}

/// For `/metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub requests: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub repeated: u64,
    pub waits: u64,
    pub failures: u64,
}

/// Shared by all connections of one instance.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Remembered>>);

impl Memory {
    /// Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
