//! The bench with the model of a file.

use std::time::Duration;

use busbar_contract::{
    Cause, Event, Request, batch,
    binary::{Ack, Verdict},
    event::State,
};
use busbar_core::{
    Input, Output,
    journal::Transaction,
    model::{Queue, Site},
};

use crate::{
    bench::{Bench, WALL, site},
    file::File,
};

/// Sink `s` of `site(devices)` has its queue on disk.
pub(crate) fn plant(devices: usize, queue: Queue) -> Site {
    let mut plant = site(devices);
    for device in &mut plant.devices {
        device.probe_interval = Duration::from_secs(7200);
        for point in &mut device.points {
            point.poll_interval = Duration::from_secs(7200);
            point.stale_after = Duration::from_secs(7200);
            point.invalid_after = Duration::from_secs(7200);
        }
    }
    plant.sinks[0].queue = Queue { on_disk: true, ..queue };
    plant
}

/// The bench with a file.
pub(crate) struct Desk {
    pub(crate) bench: Bench,
    pub(crate) file: File,
    pub(crate) sink: u64,
    pub(crate) value: i64,
    pub(crate) transactions: Vec<Transaction>,
}

impl Desk {
    pub(crate) fn new(site: Site) -> Self {
        let file = File::new(usize::MAX, u64::MAX >> 2);
        let mut desk = Self { bench: Bench::new(site), file, sink: 0, value: 0, transactions: Vec::new() };
        desk.load();
        desk
    }

    pub(crate) fn load(&mut self) {
        self.bench.load(None, true);
        let opened = self.bench.out.iter().find_map(|output| match output {
            Output::Open { plugin: 1, instance, .. } => Some(*instance),
            _ => None,
        });
        self.sink = opened.unwrap();
    }

    /// Everything up, everything there is confirmed and on disk.
    pub(crate) fn running(site: Site) -> Self {
        let mut desk = Self::new(site);
        for _ in 0..5 {
            desk.bench.bring_up();
            desk.serve();
            desk.confirm(Verdict::Delivered);
            desk.pass(1200);
        }
        desk.bench.take();
        desk.transactions.clear();
        desk
    }

    /// kill -9, and a new start with `site`.
    pub(crate) fn restart(self, site: Site) -> Self {
        let mut file = self.file;
        file.crash(self.bench.now.mono_ns);
        let mut desk =
            Self { bench: Bench::new(site), file, sink: 0, value: self.value, transactions: Vec::new() };
        desk.load();
        desk
    }

    /// The sink opens and connects; the driver says nothing.
    pub(crate) fn bring_up_sink(&mut self) {
        self.bench.event(1, self.sink, 0, Event::Opened);
        for _ in 0..3 {
            let requests = self.bench.requests();
            for (instance, request, _) in requests.into_iter().filter(|(instance, ..)| *instance == self.sink)
            {
                self.bench.done(1, instance, request);
            }
        }
    }

    /// The file answers everything that is asked of it.
    pub(crate) fn serve(&mut self) {
        loop {
            let (asked, rest) = self.bench.take().into_iter().partition(|output| {
                matches!(
                    output,
                    Output::JournalOpen { .. } | Output::Journal { .. } | Output::JournalLoad { .. }
                )
            });
            self.bench.out = rest;
            let asked: Vec<Output> = asked;
            if asked.is_empty() {
                return;
            }
            for output in asked {
                let input = match output {
                    Output::JournalOpen { sink } => {
                        Input::JournalOpened { sink, result: Ok(self.file.open()) }
                    }
                    Output::Journal { sink, transaction } => {
                        let result = self.file.write(&transaction).expect("what the core says is right");
                        let number = transaction.number;
                        self.transactions.push(*transaction);
                        Input::Journaled { sink, number, result }
                    }
                    Output::JournalLoad { sink, from, records, .. } => {
                        Input::JournalLoaded { sink, result: Ok(self.file.load(from, records)) }
                    }
                    _ => continue,
                };
                self.bench.step(input);
            }
        }
    }

    /// Time passes, the file answers at once.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(20) {
            self.bench.pass(20);
            self.serve();
        }
    }

    pub(crate) fn confirm(&mut self, verdict: Verdict) {
        self.bench.confirm(self.sink, verdict);
    }

    /// The device of these points measures; the value.
    pub(crate) fn measure(&mut self, points: &[u32]) -> i64 {
        self.measure_as(points, 0)
    }

    pub(crate) fn measure_as(&mut self, points: &[u32], token: u32) -> i64 {
        self.value += 1;
        let instance = 1 + u64::from(points[0] / 2);
        let ts_ns = WALL + 3_600_000_000_000 + self.value;
        self.bench.push_as(instance, 0, points, self.value, Cause::DataUpdate, token, ts_ns);
        self.value
    }

    pub(crate) fn down(&mut self) {
        self.bench.event(
            1,
            self.sink,
            0,
            Event::State(State { device: None, up: false, reason: "gone".into() }),
        );
    }

    pub(crate) fn up(&mut self) {
        let asked = self.bench.out.iter().rev().find_map(|output| match output {
            Output::Submit { instance, request, body: Request::Connect(of) } if of.device.is_none() => {
                Some((*instance, *request))
            }
            _ => None,
        });
        self.bench.event(
            1,
            self.sink,
            0,
            Event::State(State { device: None, up: true, reason: String::new() }),
        );
        if let Some((instance, request)) = asked.filter(|_| !self.bench.core.sinks()[0].connected) {
            self.bench.done(1, instance, request);
        }
        assert!(self.bench.core.sinks()[0].connected);
    }

    pub(crate) fn ledger(&self) -> busbar_core::journal::Ledger {
        self.bench.core.sinks()[0].ledger.clone()
    }

    pub(crate) fn reason(&self) -> String {
        self.bench.core.sinks()[0].queue_reason.to_owned()
    }

    pub(crate) fn unwritten(&self) -> u64 {
        self.bench.core.sinks()[0].unwritten
    }

    /// Values delivered since the last look, with the flags of their deliveries: only what devices measured.
    pub(crate) fn delivered(&mut self) -> Vec<(u32, u64)> {
        let records = self.bench.records();
        records
            .into_iter()
            .filter(|record| record.4 == Cause::DataUpdate)
            .map(|record| (record.0 & !batch::TIMES, record.2))
            .collect()
    }

    /// Record numbers and sizes of the deliveries that wait to be answered.
    pub(crate) fn deliveries(&self) -> Vec<(u64, u32)> {
        let deliveries = self.bench.out.iter().filter_map(|output| match output {
            Output::Deliver { first, samples, .. } => Some((*first, samples.samples.len() as u32)),
            _ => None,
        });
        deliveries.collect()
    }

    /// The first delivery that waits to be answered.
    pub(crate) fn take_delivery(&mut self) -> Option<(u64, busbar_contract::Samples)> {
        let at = self.bench.out.iter().position(|output| matches!(output, Output::Deliver { .. }))?;
        match self.bench.out.remove(at) {
            Output::Deliver { first, samples, .. } => Some((first, samples)),
            _ => None,
        }
    }

    pub(crate) fn answer(&mut self, (first, count): (u64, u32), verdict: Verdict) {
        let acks = vec![Ack { first, count, verdict, reason: 1 }];
        self.bench.event(1, self.sink, 0, Event::Ack { lane: 0, acks });
    }
}
