//! What becomes of records that are in the queue: they end, come again, leave memory, come back from the file.

use super::{Entry, Queue, Record, Settled, Status};

/// Settled places are swept when they are more than half of all, and more than these.
const SWEEP_SLACK: usize = 256;

impl Queue {
    /// Ends a record; `None` if it is unknown or already ended.
    pub(crate) fn settle(&mut self, number: u64) -> Option<Settled> {
        let at = self.find(number)?;
        let settled = self.settle_at(at)?;
        self.trim();
        Some(settled)
    }

    /// Ends a record and hands its content out.
    pub(crate) fn settle_and_take(&mut self, number: u64) -> Option<(Settled, Record)> {
        let at = self.find(number)?;
        let record = self.entries.get(at)?.record.clone();
        let settled = self.settle_at(at)?;
        self.trim();
        Some((settled, record))
    }

    fn settle_at(&mut self, at: usize) -> Option<Settled> {
        let entry = self.entries.get_mut(at)?;
        match entry.status {
            Status::Settled => return None,
            Status::Waiting => self.waiting -= 1,
            Status::InFlight => {
                self.in_flight -= 1;
                self.in_flight_replay -= usize::from(entry.replay);
            }
        }
        let settled = Settled::of(&entry.record, entry.status == Status::Waiting);
        entry.status = Status::Settled;
        self.bytes -= entry.record.blob.take().map_or(0, |blob| blob.len() as u64);
        self.settled += 1;
        self.transient -= usize::from(settled.transient);
        Some(settled)
    }

    /// A record that was sent must be sent again. `None` if it is not on its way.
    pub(crate) fn send_again(&mut self, number: u64) -> Option<Settled> {
        let at = self.find(number)?;
        self.again_at(at)
    }

    fn again_at(&mut self, at: usize) -> Option<Settled> {
        let entry = self.entries.get_mut(at).filter(|entry| entry.status == Status::InFlight)?;
        entry.status = Status::Waiting;
        self.in_flight -= 1;
        self.in_flight_replay -= usize::from(entry.replay);
        self.waiting += 1;
        Some(Settled::of(&entry.record, true))
    }

    /// Everything on its way must be sent again, from the oldest on. Returns what that is.
    pub(crate) fn send_all_again(&mut self) -> Vec<(u64, Settled)> {
        self.again_where(|_| true)
    }

    /// A delivery that began with `first` was not taken: it and what was sent after it must be sent again.
    pub(crate) fn not_taken(&mut self, first: u64) -> Vec<(u64, Settled)> {
        // Where the first of it is gone, dropped by age or size, the next shows which delivery it was.
        let entry = self.entries.get(self.position(first));
        let Some(turn) = entry.filter(|entry| entry.status != Status::Waiting).map(|entry| entry.turn) else {
            return Vec::new();
        };
        self.again_where(|entry| entry.turn.wrapping_sub(turn) <= u32::MAX / 2)
    }

    fn again_where(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<(u64, Settled)> {
        self.rewind();
        if self.in_flight == 0 {
            return Vec::new();
        }
        (0..self.entries.len())
            .filter_map(|at| {
                let number = self.entries.get(at).filter(|entry| which(entry))?.number;
                Some((number, self.again_at(at)?))
            })
            .collect()
    }

    /// Waiting records of the ledger in `from..to` that `which` accepts leave memory: they are in the file. Returns how
    /// many they were.
    pub(crate) fn leave(&mut self, from: u64, to: u64, which: impl Fn(u64, &Record) -> bool) -> usize {
        let (start, end) = (self.position(from), self.position(to));
        if start >= end {
            return 0;
        }
        let rest = self.entries.split_off(end);
        let mut gone = 0;
        for entry in self.entries.split_off(start) {
            let leaves = entry.status == Status::Waiting
                && !entry.record.transient
                && which(entry.number, &entry.record);
            if leaves {
                gone += 1;
                self.waiting -= 1;
                self.bytes -= entry.record.cost();
            } else {
                self.entries.push_back(entry);
            }
        }
        self.entries.extend(rest);
        gone
    }

    /// Records of the ledger below `number` have ended in the file: they are forgotten here. Returns what they were.
    pub(crate) fn forget_below(&mut self, number: u64) -> Vec<(u64, Settled)> {
        let end = self.position(number);
        let gone = (0..end)
            .filter_map(|at| {
                let entry = self.entries.get(at).filter(|entry| !entry.record.transient)?;
                let number = entry.number;
                Some((number, self.settle_at(at)?))
            })
            .collect();
        self.trim();
        gone
    }

    /// Records read back take their places; what is known here already is left as it is. `loaded` is in order.
    pub(crate) fn take_back(&mut self, loaded: Vec<(u64, Record)>) {
        let Some(first) = loaded.first().map(|(number, _)| *number) else { return };
        let mut rest = self.entries.split_off(self.position(first)).into_iter().peekable();
        for (number, record) in loaded {
            while let Some(entry) = rest.next_if(|entry| entry.number < number) {
                self.entries.push_back(entry);
            }
            if rest.peek().is_some_and(|entry| entry.number == number) {
                continue;
            }
            self.count_in(&record);
            self.entries.push_back(Entry { number, status: Status::Waiting, replay: false, turn: 0, record });
        }
        self.entries.extend(rest);
    }

    /// A record that had ended waits again: the place that it left here is free.
    pub(crate) fn forget_end(&mut self, number: u64) {
        let Some(at) = self.find(number) else { return };
        if let Some(entry) = self.entries.get(at).filter(|entry| entry.status == Status::Settled) {
            self.settled -= 1;
            self.bytes -= entry.record.cost();
            self.entries.remove(at);
        }
    }

    /// The file is open, and the numbers go on where its numbers end: `from` becomes `to`.
    pub(crate) fn renumber(&mut self, from: u64, to: u64) {
        let renumbered = |number: u64| number.saturating_sub(from).saturating_add(to);
        for entry in &mut self.entries {
            entry.number = renumbered(entry.number);
        }
        self.next = renumbered(self.next);
        self.replay_below = renumbered(self.replay_below);
        if self.live_from != u64::MAX {
            self.live_from = renumbered(self.live_from);
        }
        self.rewind();
    }

    /// Records of a point that have not ended are those of another from now on.
    pub(crate) fn rename(&mut self, point: u32, other: u32) {
        for entry in self.entries.iter_mut().filter(|entry| entry.record.sample.point == point) {
            entry.record.sample.point = other;
        }
    }

    fn trim(&mut self) {
        while let Some(entry) = self.entries.front()
            && entry.status == Status::Settled
        {
            self.bytes -= entry.record.cost();
            self.settled -= 1;
            self.entries.pop_front();
        }
        if self.settled > SWEEP_SLACK && self.settled > self.entries.len() / 2 {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut freed = 0;
        self.entries.retain(|entry| {
            let keep = entry.status != Status::Settled;
            freed += if keep { 0 } else { entry.record.cost() };
            keep
        });
        self.bytes -= freed;
        self.settled = 0;
    }
}
