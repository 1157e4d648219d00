//! The ledger of a sink without a queue on disk: `accepted = delivered + pending + parked + dropped(reason)`, always (G7);
//! with one, the ledger is the file's (`journaling.rs`) and only the further counters are kept here.

use std::collections::BTreeMap;

/// Why the host gave a record up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drop {
    /// The queue was full: the oldest went.
    Overflow,
    /// Older than `max_age`.
    Expired,
    /// A newer state of the same point took its place.
    Superseded,
    /// A reload took the sink out of the configuration.
    Removed,
    /// The disk is full, and so is the memory that bridges it.
    DiskFull,
    /// The disk does not write in time, and the memory that bridges it is full.
    DiskSlow,
}

impl Drop {
    pub(crate) const ALL: [Self; 6] =
        [Self::Overflow, Self::Expired, Self::Superseded, Self::Removed, Self::DiskFull, Self::DiskSlow];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Removed => "removed",
            Self::DiskFull => "disk_full",
            Self::DiskSlow => "disk_slow",
        }
    }
}

/// Most reasons of a sink that are counted apart; further ones share the last (G9).
const MAX_REASONS: usize = 64;

/// The counters. `pending` is not kept here: it is what the queue holds.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) parked: BTreeMap<u16, u64>,
    overflow: u64,
    expired: u64,
    superseded: u64,
    removed: u64,
    disk: u64,
    /// Confirmations of records that are unknown or ended before.
    pub(crate) late_acks: u64,
    /// Verdicts `retry`.
    pub(crate) retries: u64,
    /// Deliveries that the plugin did not take.
    pub(crate) refused: u64,
    /// Deliveries made.
    pub(crate) deliveries: u64,
    /// Monotonic time of the last confirmation; 0 = none yet.
    pub(crate) last_delivered_ns: u64,
}

impl Books {
    pub(crate) const fn dropped(&mut self, why: Drop) {
        match why {
            Drop::Overflow => self.overflow += 1,
            Drop::Expired => self.expired += 1,
            Drop::Superseded => self.superseded += 1,
            Drop::Removed => self.removed += 1,
            Drop::DiskFull | Drop::DiskSlow => self.disk += 1,
        }
    }

    pub(crate) const fn dropped_by(&self, why: Drop) -> u64 {
        match why {
            Drop::Overflow => self.overflow,
            Drop::Expired => self.expired,
            Drop::Superseded => self.superseded,
            Drop::Removed => self.removed,
            Drop::DiskFull => self.disk,
            Drop::DiskSlow => 0,
        }
    }

    pub(crate) fn park(&mut self, reason: u16) {
        let known = self.parked.contains_key(&reason) || self.parked.len() < MAX_REASONS;
        *self.parked.entry(if known { reason } else { u16::MAX }).or_default() += 1;
    }

    pub(crate) fn parked_total(&self) -> u64 {
        self.parked.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let mut books = Books::default();
        for reason in 0..1000 {
            books.park(reason);
        }
        assert!(books.parked.len() <= MAX_REASONS + 1);
        assert_eq!(books.parked_total(), 1000);
    }
}
