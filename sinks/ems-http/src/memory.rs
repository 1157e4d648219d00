//! What outlives a connection: the SDK makes a new [`crate::sink::Ems`] for every connect. It belongs to one instance,
//! whose record numbers it holds, so it lives in the instance's settings and goes with them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use busbar_driver_api::Secret;
use busbar_ems_http::Lane;

use crate::points::Point;

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

impl Remembered {
    /// Points that are not routed any more: their numbers never come again.
    pub(crate) fn forget_points(&mut self, routed: &HashMap<u32, Point>) {
        self.told.retain(|point, _| routed.contains_key(point));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_that_went_are_forgotten() {
        let mut memory = Remembered::default();
        let told = Told { number: 1, ts_ns: 0, kind: 1, bits: 0, quality: 0 };
        memory.told.extend([(1, told), (2, told)]);
        let point = Point {
            device: "d".into(),
            labels: [].into(),
            key: "k".into(),
            name: "k".into(),
            unit: "".into(),
            silent: false,
            record: 0,
        };
        memory.forget_points(&HashMap::from([(2, point)]));
        assert_eq!(memory.told.keys().collect::<Vec<_>>(), [&2]);
    }
}
