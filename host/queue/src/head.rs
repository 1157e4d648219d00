//! What a queue file says about itself: ledger, next number, age clock. Pure.
//!
//! Written with every transaction, in turns to two tables, so that one damaged page costs at most the last transaction's
//! figures: the older copy is still there and says what the newer one must be near to.

use std::collections::BTreeMap;

use busbar_core::journal::Ledger;

use crate::{
    bytes::{Reader, crc32, put_bytes, put_signed, put_varint},
    clock::Stamp,
};

/// First byte.
const VERSION: u8 = 1;
/// Distinct reasons that a ledger counts; further ones are counted as [`OTHER`] (G9).
pub(crate) const MAX_REASONS: usize = 64;
/// Longest reason in a ledger, bytes.
pub(crate) const MAX_REASON: usize = 96;
/// Reason of what found no place.
pub(crate) const OTHER: &str = "other";

const CLEAN: u8 = 1;
const SYNCHRONISED: u8 = 2;

/// The figures of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Transactions so far; its lowest bit names the table.
    pub(crate) turn: u64,
    /// Number that the next run begins with.
    pub(crate) next: u64,
    /// Absolute figures.
    pub(crate) ledger: Ledger,
    /// Ends of records that had ended before.
    pub(crate) late: u64,
    /// Bytes of waiting rows.
    pub(crate) bytes: u64,
    /// Bytes of parked records.
    pub(crate) parked_bytes: u64,
    /// The clocks at this transaction.
    pub(crate) stamp: Stamp,
    /// The file was closed in order after this.
    pub(crate) clean: bool,
}

impl Head {
    /// Bytes for the table.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.push(if self.clean { CLEAN } else { 0 } | if self.stamp.synchronised { SYNCHRONISED } else { 0 });
        let Ledger { accepted, delivered, pending, parked, dropped } = &self.ledger;
        let numbers = [
            self.turn,
            self.next,
            *accepted,
            *delivered,
            *pending,
            self.late,
            self.bytes,
            self.parked_bytes,
            self.stamp.age_ms,
        ];
        for number in numbers {
            put_varint(&mut out, number);
        }
        put_signed(&mut out, self.stamp.wall_ns);
        for counts in [parked, dropped] {
            put_varint(&mut out, counts.len() as u64);
            for (reason, count) in counts {
                put_bytes(&mut out, reason.as_bytes());
                put_varint(&mut out, *count);
            }
        }
        let crc = crc32(&[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None`: damaged.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let (content, crc) = data.split_last_chunk::<4>()?;
        if crc32(&[content]).to_le_bytes() != *crc {
            return None;
        }
        let mut reader = Reader::new(content);
        if reader.byte()? != VERSION {
            return None;
        }
        let flags = reader.byte()?;
        let mut number = || reader.varint();
        let (turn, next) = (number()?, number()?);
        let (accepted, delivered, pending) = (number()?, number()?, number()?);
        let (late, bytes, parked_bytes, age_ms) = (number()?, number()?, number()?, number()?);
        let wall_ns = reader.signed()?;
        let (parked, dropped) = (counts(&mut reader)?, counts(&mut reader)?);
        let ledger = Ledger { accepted, delivered, pending, parked, dropped };
        let stamp = Stamp { age_ms, wall_ns, synchronised: flags & SYNCHRONISED != 0 };
        let head = Self { turn, next, ledger, late, bytes, parked_bytes, stamp, clean: flags & CLEAN != 0 };
        (reader.is_empty() && head.ledger.is_balanced()).then_some(head)
    }

    /// `count` waiting records were given up. What the ledger does not know to wait is not counted: it stays balanced.
    pub(crate) fn drop_pending(&mut self, count: u64, reason: &str) {
        let count = count.min(self.ledger.pending);
        self.ledger.pending -= count;
        self.add_dropped(count, reason);
    }

    /// Transactions after this head are lost with the log, and `seen` is the newest head among them: what they brought is
    /// counted. Gives back how many records were lost with them.
    ///
    /// Whose ends the lost transactions were is not known. Ends mostly come in order, and what ended of the records that are
    /// still here comes again; so only ends beyond these are believed to be of lost records. The count of lost ones is an
    /// upper bound.
    pub(crate) fn count_lost(&mut self, seen: &Self) -> u64 {
        let new = seen.ledger.accepted.saturating_sub(self.ledger.accepted);
        let ended = |ledger: &Ledger| ledger.accepted - ledger.pending;
        let ends = ended(&seen.ledger).saturating_sub(ended(&self.ledger));
        let confirmed = seen.ledger.delivered.saturating_sub(self.ledger.delivered);
        let delivered = ends.saturating_sub(self.ledger.pending).min(confirmed).min(new);
        self.ledger.accepted += new;
        self.ledger.delivered += delivered;
        self.add_dropped(new - delivered, crate::DAMAGED);
        self.next = self.next.max(seen.next);
        new - delivered
    }

    /// `count` waiting records were confirmed.
    pub(crate) fn deliver_pending(&mut self, count: u64) {
        let count = count.min(self.ledger.pending);
        self.ledger.pending -= count;
        self.ledger.delivered += count;
    }

    /// `count` waiting records are kept aside.
    pub(crate) fn park_pending(&mut self, count: u64, reason: &str) {
        let count = count.min(self.ledger.pending);
        self.ledger.pending -= count;
        add(&mut self.ledger.parked, count, reason);
    }

    /// `count` parked records leave; gives back how many the ledger knew.
    pub(crate) fn unpark(&mut self, count: u64, reason: &str) -> u64 {
        let Some(have) = self.ledger.parked.get_mut(reason) else { return 0 };
        let count = count.min(*have);
        *have -= count;
        if *have == 0 {
            self.ledger.parked.remove(reason);
        }
        count
    }

    /// Counts records that were given up, and are in no other figure.
    pub(crate) fn add_dropped(&mut self, count: u64, reason: &str) {
        add(&mut self.ledger.dropped, count, reason);
    }

    /// The word under which the ledger counts `reason` as parked.
    pub(crate) fn parked_as(&self, reason: &str) -> String {
        place(&self.ledger.parked, reason).to_owned()
    }
}

fn counts(reader: &mut Reader<'_>) -> Option<BTreeMap<String, u64>> {
    let length = reader.varint()?;
    if length > MAX_REASONS as u64 + 1 {
        return None;
    }
    (0..length).map(|_| Some((reader.text()?.to_owned(), reader.varint()?))).collect()
}

fn add(counts: &mut BTreeMap<String, u64>, count: u64, reason: &str) {
    if count > 0 {
        let reason = place(counts, reason).to_owned();
        *counts.entry(reason).or_default() += count;
    }
}

/// A far side may word every refusal anew: a ledger counts a bounded number of reasons of bounded length.
fn place<'a>(counts: &BTreeMap<String, u64>, reason: &'a str) -> &'a str {
    let reason = cut(reason, MAX_REASON);
    if reason.is_empty() || (counts.len() >= MAX_REASONS && !counts.contains_key(reason)) {
        OTHER
    } else {
        reason
    }
}

/// The longest beginning of `text` with at most `bytes` bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let mut head =
            Head { turn: 5, next: 1 << 40, late: 3, bytes: 900, parked_bytes: 7, ..Head::default() };
        head.ledger.accepted = 20;
        head.ledger.pending = 20;
        head.stamp = Stamp { age_ms: 12_345, wall_ns: -5, synchronised: true };
        head.deliver_pending(4);
        head.park_pending(3, "rejected: value");
        head.drop_pending(2, "overflow");
        head
    }

    #[test]
    fn figures_come_back_and_damage_is_found() {
        let head = head();
        let data = head.write();
        assert_eq!(Head::read(&data), Some(head));
        for at in 0..data.len() {
            for bit in 0..8 {
                let mut bad = data.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(Head::read(&bad), None, "byte {at}");
            }
            assert_eq!(Head::read(&data[..at]), None);
        }
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_damaged() {
        let mut head = head();
        head.ledger.delivered += 1;
        assert_eq!(Head::read(&head.write()), None);
    }

    #[test]
    fn the_equation_holds_whatever_is_booked() {
        let mut head = head();
        assert!(head.ledger.is_balanced());
        head.drop_pending(100, "damaged");
        assert_eq!(head.ledger.pending, 0);
        assert!(head.ledger.is_balanced(), "{:?}", head.ledger);
        assert_eq!(head.unpark(9, "rejected: value"), 3);
        assert_eq!(head.unpark(1, "rejected: value"), 0);
        head.add_dropped(3, "discarded");
        assert!(head.ledger.is_balanced());
        assert!(head.ledger.parked.is_empty());
    }

    #[test]
    fn what_lost_transactions_brought_is_counted_once() {
        let base = head();
        let grown = |accepted: u64, delivered: u64| {
            let mut seen = base.clone();
            seen.ledger.accepted += accepted;
            seen.ledger.pending += accepted;
            seen.next += 1;
            seen.deliver_pending(delivered);
            seen
        };
        // 11 of the 20 wait still: what ended of them comes again.
        assert_eq!(base.ledger.pending, 11);
        for (accepted, delivered, lost) in [(50, 0, 50), (50, 11, 50), (50, 21, 40), (50, 61, 0), (0, 11, 0)]
        {
            let mut found = base.clone();
            let seen = grown(accepted, delivered);
            assert_eq!(found.count_lost(&seen), lost, "{accepted} {delivered}");
            assert!(found.ledger.is_balanced(), "{:?}", found.ledger);
            assert_eq!((found.ledger.accepted, found.ledger.pending), (20 + accepted, 11));
            assert_eq!(found.next, seen.next);
            assert_eq!(found.count_lost(&seen), 0, "once");
        }
    }

    #[test]
    fn reasons_are_bounded() {
        let mut head = Head::default();
        head.ledger.accepted = 1_000;
        head.ledger.pending = 1_000;
        for number in 0..1_000 {
            head.park_pending(1, &format!("refused with number {number} {}", "ü".repeat(200)));
        }
        assert_eq!(head.ledger.parked.len(), MAX_REASONS + 1);
        assert_eq!(head.ledger.parked[OTHER], 1_000 - MAX_REASONS as u64);
        assert!(head.ledger.parked.keys().all(|reason| reason.len() <= MAX_REASON));
        assert_eq!(Head::read(&head.write()), Some(head));
    }
}
