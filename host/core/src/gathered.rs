//! What happened to the records of a queue on disk since its last transaction: counters and ends. Taken together with the
//! figures on disk it is the live ledger.

use std::collections::BTreeMap;

use crate::{
    journal::{End, Ledger, Name},
    settlements::Settlements,
};

/// What happened, since the last transaction or in it.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) parked: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    pub(crate) delivered_unwritten: u64,
    pub(crate) dropped_unwritten: BTreeMap<String, u64>,
    pub(crate) settled: Settlements,
    pub(crate) names: Vec<(u32, Name)>,
}

impl Gathered {
    pub(crate) fn ended(&self) -> u64 {
        self.delivered + self.parked.values().chain(self.dropped.values()).sum::<u64>()
    }

    pub(crate) fn has_counters(&self) -> bool {
        self.delivered_unwritten > 0 || !self.dropped_unwritten.is_empty()
    }

    pub(crate) fn count(&mut self, end: &End, records: u64) {
        match end {
            End::Delivered => self.delivered += records,
            End::Parked(reason) => add(&mut self.parked, reason, records),
            End::Dropped(reason) => add(&mut self.dropped, reason, records),
        }
    }

    pub(crate) fn uncount(&mut self, end: &End, records: u64) {
        let of = |counts: &mut BTreeMap<String, u64>, reason: &String| {
            if let Some(count) = counts.get_mut(reason) {
                *count = count.saturating_sub(records);
            }
        };
        match end {
            End::Delivered => self.delivered = self.delivered.saturating_sub(records),
            End::Parked(reason) => of(&mut self.parked, reason),
            End::Dropped(reason) => of(&mut self.dropped, reason),
        }
    }

    pub(crate) fn unwritten(&mut self, end: &End, records: u64) {
        match end {
            End::Delivered => self.delivered_unwritten += records,
            End::Dropped(reason) => add(&mut self.dropped_unwritten, reason, records),
            // Kept until it is written.
            End::Parked(_) => {}
        }
    }

    /// What came later than this.
    pub(crate) fn absorb(&mut self, later: Self) {
        self.accepted += later.accepted;
        self.delivered += later.delivered;
        self.delivered_unwritten += later.delivered_unwritten;
        for (counts, more) in [
            (&mut self.parked, later.parked),
            (&mut self.dropped, later.dropped),
            (&mut self.dropped_unwritten, later.dropped_unwritten),
        ] {
            for (reason, count) in more {
                add(counts, &reason, count);
            }
        }
        self.settled.absorb(later.settled);
        self.names.clear();
    }

    pub(crate) fn add_to(&self, ledger: &mut Ledger) {
        ledger.accepted += self.accepted;
        ledger.delivered += self.delivered;
        ledger.pending = (ledger.pending + self.accepted).saturating_sub(self.ended());
        for (counts, more) in [(&mut ledger.parked, &self.parked), (&mut ledger.dropped, &self.dropped)] {
            for (reason, count) in more.iter().filter(|(_, count)| **count > 0) {
                add(counts, reason, *count);
            }
        }
    }
}

pub(crate) fn add(counts: &mut BTreeMap<String, u64>, reason: &str, more: u64) {
    if let Some(count) = counts.get_mut(reason) {
        *count += more;
    } else {
        counts.insert(reason.to_owned(), more);
    }
}
