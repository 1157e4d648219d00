//! The figures of a queue on disk: what is on disk, and what is live.

use super::Journal;
use crate::journal::Ledger;

impl Journal {
    /// What is on disk; before there is a file, and while the disk does not answer, what is in memory too: what is given up
    /// meanwhile must be seen.
    pub(crate) fn ledger(&self) -> Ledger {
        if self.is_open() && self.silent.is_none() { self.ledger.clone() } else { self.live_ledger() }
    }

    /// What is on disk and what is on its way there.
    pub(crate) fn live_ledger(&self) -> Ledger {
        let mut ledger = self.ledger.clone();
        for content in self.offered.iter().map(|offered| &offered.content).chain([&self.gathered]) {
            content.add_to(&mut ledger);
        }
        ledger
    }

    pub(crate) fn pending(&self) -> u64 {
        let gathered = self.offered.iter().map(|offered| &offered.content).chain([&self.gathered]);
        let (accepted, ended) =
            gathered.fold((0, 0), |(accepted, ended), of| (accepted + of.accepted, ended + of.ended()));
        (self.ledger.pending + accepted).saturating_sub(ended)
    }

    pub(crate) fn parked(&self) -> u64 {
        let gathered = self.offered.iter().map(|offered| &offered.content).chain([&self.gathered]);
        let more: u64 = gathered.flat_map(|of| of.parked.values()).sum();
        self.ledger.parked.values().sum::<u64>() + more
    }

    /// An operator moved records within the file.
    pub(crate) fn set_ledger(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// Records of the ledger in the file.
    pub(crate) const fn pending_on_disk(&self) -> u64 {
        self.ledger.pending
    }

    /// Records taken that no transaction on disk speaks of.
    pub(crate) fn unwritten(&self) -> u64 {
        if !self.is_open() {
            return self.live_ledger().accepted;
        }
        self.gathered.accepted + self.offered.as_ref().map_or(0, |offered| offered.content.accepted)
    }

    /// Records that have not ended and are not on disk.
    pub(crate) fn records_at_risk(&self) -> u64 {
        self.pending().saturating_sub(self.ledger.pending)
    }

    /// Age of the oldest record on disk, nanoseconds.
    pub(crate) fn oldest_age_ns(&self, now_ns: u64) -> Option<u64> {
        let (age_ns, at_ns) = self.oldest_age_ns;
        (self.ledger.pending > 0).then(|| age_ns.saturating_add(now_ns.saturating_sub(at_ns)))
    }
}
