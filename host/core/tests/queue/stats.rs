//! What happened, so that a world in which nothing happens does not pass.

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) steps: u64,
    pub(crate) measured: u64,
    pub(crate) crashes: u64,
    pub(crate) loads: u64,
    pub(crate) transactions: u64,
    pub(crate) rows: u64,
    pub(crate) failed_transactions: u64,
    pub(crate) dropped_by_file: u64,
    pub(crate) parked: u64,
    pub(crate) again: u64,
    pub(crate) retries: u64,
    pub(crate) duplicates: u64,
    pub(crate) ghosts: u64,
    pub(crate) refused_records: u64,
    pub(crate) lost_young: u64,
    pub(crate) tokens_ok: u64,
    pub(crate) tokens_failed: u64,
    pub(crate) stops: u64,
    pub(crate) clock_steps: u64,
    pub(crate) silences: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        for (to, from) in self.all().into_iter().zip(Self { ..*other }.all()) {
            *to += *from;
        }
    }

    fn all(&mut self) -> [&mut u64; 20] {
        [
            &mut self.steps,
            &mut self.measured,
            &mut self.crashes,
            &mut self.loads,
            &mut self.transactions,
            &mut self.rows,
            &mut self.failed_transactions,
            &mut self.dropped_by_file,
            &mut self.parked,
            &mut self.again,
            &mut self.retries,
            &mut self.duplicates,
            &mut self.ghosts,
            &mut self.refused_records,
            &mut self.lost_young,
            &mut self.tokens_ok,
            &mut self.tokens_failed,
            &mut self.stops,
            &mut self.clock_steps,
            &mut self.silences,
        ]
    }
}
