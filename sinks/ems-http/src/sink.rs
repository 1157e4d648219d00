//! The connection: what the SDK calls.
//!
//! What "connected" means: the last exchange was answered, or nothing was sent since the far side was reached. Without a
//! batch to send, connecting is a TCP connection, with TLS where it belongs to the URL, closed again at once. With a batch
//! that got no answer, connecting is that batch sent again, under its key: so an EMS that is reachable but does not take
//! data counts as not connected, and nothing flaps.
//!
//! One request is on its way at a time: order per device, bisecting and the key of a batch need no further care. The host's
//! queue does the rest: nothing is acknowledged before the EMS answered, what is not acknowledged comes again. After a
//! failure the records come again from the oldest on; [`Lane::cut_at`] makes the same batch of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use busbar_driver_api::tokio::sync::oneshot;
use busbar_driver_api::{
    Delivery, Error, Link, PointsChange, Problem, Result, Sink, SinkCheck, SinkTraits, Verdict, time, tokio,
};
use busbar_ems_http::Lane;

use crate::check;
use crate::collect::{Collector, Ready, Taken};
use crate::connect::{MIN_LIMIT, wait_turn};
use crate::exchange::{Batch, Outcome, launch, recall};
use crate::points::{self, Point};
use crate::settings::{Map, Settings};
use crate::setup::Setup;
use crate::verdict::{self, Acks, Alarm, Next, REASONS, Reject};

/// Time for the last batches when the connection is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// The backlog comes as fast as it can: when nothing more came for this long, the host waits for us.
const QUIET: Duration = Duration::from_millis(100);
/// The lane of a sink that names none.
const LANE: u32 = 0;

/// One connection to an EMS.
pub(crate) struct Ems {
    pub(crate) setup: Arc<Setup>,
    points: HashMap<u32, Point>,
    collector: Collector,
    pub(crate) lane: Lane,
    /// First record number and time of each delivery that holds something unsettled.
    arrivals: VecDeque<(u64, Duration)>,
    /// The last delivery was from the backlog.
    replay: bool,
    /// When the last delivery came.
    last: Duration,
    /// Endpoint in use.
    pub(crate) at: usize,
    flight: Option<oneshot::Receiver<Outcome>>,
    pub(crate) wait_until: Option<Duration>,
    pub(crate) acks: Acks,
    pub(crate) alarm: Option<Alarm>,
}

impl Sink for Ems {
    const NAME: &'static str = "ems-http";
    const DESCRIPTION: &'static str = "Measurements to an energy management system over HTTP";
    const REASONS: &'static [&'static str] = REASONS;
    type Settings = Settings;
    type Map = Map;

    fn traits() -> SinkTraits {
        SinkTraits {
            bad_value: "null".into(),
            timestamp: "received".into(),
            history: true,
            durable: true,
            ..SinkTraits::default()
        }
    }

    fn check(input: &SinkCheck<'_, Self>) -> Vec<Problem> {
        check::check(input)
    }

    async fn open(link: &Link<Self>) -> Result<Self> {
        let started = time::monotonic();
        let setup = Arc::new(Setup::new(link).await?);
        let memory = &link.settings.memory;
        wait_turn(link, &setup).await?;
        recall(&link.ctx, memory).await;
        let lane = memory.lock().held.take().unwrap_or_else(|| Lane::new(setup.limits));
        let mut sink = Self {
            points: points::prepare(link),
            collector: Collector::new(),
            arrivals: VecDeque::new(),
            replay: false,
            last: started,
            at: 0,
            flight: None,
            wait_until: None,
            acks: Acks::default(),
            alarm: None,
            setup,
            lane,
        };
        sink.connect(link, started).await?;
        let mut memory = memory.lock();
        memory.last_good = sink.at;
        memory.reason.clear();
        // What was handed over and not confirmed comes again, or the image shows it anew.
        let below = memory.settled_below;
        memory.told.retain(|_, told| told.number < below);
        memory.forget_points(&sink.points);
        Ok(sink)
    }

    async fn points(&mut self, link: &Link<Self>, _: &PointsChange) -> Result<()> {
        self.end_record();
        self.points = points::prepare(link);
        link.settings.memory.lock().forget_points(&self.points);
        self.tell(link).await
    }

    async fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> Result<()> {
        self.last = time::monotonic();
        self.replay = delivery.is_replay();
        self.arrivals.push_back((delivery.first, self.last));
        let mut ready = Vec::new();
        {
            let setup = Arc::clone(&self.setup);
            let mut memory = link.settings.memory.lock();
            for sample in delivery.records() {
                let (points, told) = (&mut self.points, &mut memory.told);
                match self.collector.take(&setup.style, &sample, delivery, points, told, &mut ready) {
                    Taken::Kept => {}
                    Taken::Nothing => self.acks.delivered(sample.number, 1),
                    Taken::NotRouted => {
                        self.acks.add(sample.number, 1, Verdict::Rejected, Reject::NotRouted as u16);
                    }
                }
            }
        }
        ready.into_iter().for_each(|ready| self.enqueue(ready));
        self.begin_if_due(link);
        self.tell(link).await
    }

    async fn next(&mut self, link: &Link<Self>) -> Result<()> {
        // Everything is in `self` before an await, so that being dropped there loses nothing.
        loop {
            self.tell(link).await?;
            self.begin_if_due(link);
            let due = self.due();
            tokio::select! {
                biased;
                outcome = landed(&mut self.flight) => {
                    self.flight = None;
                    self.answered(link, outcome).await?;
                }
                () = sleep_until(due) => {}
            }
        }
    }

    async fn probe(&mut self, _: &Link<Self>) -> Result<()> {
        let Some(to) = self.setup.endpoints.get(self.at) else { return Ok(()) };
        match time::timeout(MIN_LIMIT, self.setup.client.reach(to)).await {
            Ok(reached) => reached.map_err(|error| Error::session(error.to_string())),
            Err(elapsed) => Err(Error::session(format!("{to}: {elapsed}"))),
        }
    }

    async fn close(mut self, link: &Link<Self>) {
        // What was gathered goes out now; what does not make it in time stays with the host.
        self.end_record();
        let until = time::monotonic() + CLOSE_LIMIT;
        let left = || until.checked_sub(time::monotonic()).filter(|left| !left.is_zero());
        while let Some(left) = left() {
            if self.flight.is_none() {
                if self.wait_until.is_some() || self.lane.is_empty() {
                    break;
                }
                // A host that is stopping stores nothing any more.
                self.begin(link, false);
            }
            let Ok(outcome) = time::timeout(left, landed(&mut self.flight)).await else { break };
            self.flight = None;
            if self.answered(link, outcome).await.is_err() {
                break;
            }
        }
        link.settings.memory.lock().held = None;
        // Fails only when the instance stops; then the host settles the rest itself.
        let _ = self.tell(link).await;
    }
}

impl Ems {
    fn enqueue(&mut self, ready: Ready) {
        match ready {
            Ready::Send(record) => self.lane.push(record),
            Ready::Empty { first, count } => self.acks.delivered(first, count),
        }
    }

    fn end_record(&mut self) {
        if let Some(ready) = self.collector.end(&self.setup.style) {
            self.enqueue(ready);
        }
    }

    /// When the oldest record that waits arrived.
    fn oldest(&mut self) -> Option<Duration> {
        let Some(first) = self.lane.front().map(|record| record.first).or_else(|| self.collector.first())
        else {
            self.arrivals.clear();
            return None;
        };
        while self.arrivals.get(1).is_some_and(|(next, _)| *next <= first) {
            self.arrivals.pop_front();
        }
        self.arrivals.front().map(|(_, at)| *at)
    }

    /// When the next batch goes out, if nothing else happens.
    fn due(&mut self) -> Option<Duration> {
        if self.flight.is_some() {
            return None;
        }
        let oldest = self.oldest()?;
        let wait = oldest.saturating_add(self.setup.batch_wait);
        let quiet = if self.replay { self.last.saturating_add(QUIET) } else { wait };
        let full = if self.lane.is_begun() || self.lane.is_full() { Duration::ZERO } else { wait };
        Some(wait.min(quiet).min(full).max(self.wait_until.unwrap_or_default()))
    }

    fn begin_if_due(&mut self, link: &Link<Self>) {
        let now = time::monotonic();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        self.wait_until = None;
        if !self.lane.is_begun() && !self.lane.is_full() {
            self.end_record();
        }
        self.begin(link, true);
    }

    fn begin(&mut self, link: &Link<Self>, planned: bool) {
        if let Some(batch) = Batch::begin(&mut self.lane, &self.setup) {
            link.settings.memory.lock().begun = Some(batch.end);
            self.flight =
                Some(launch(&link.ctx, &self.setup, &link.settings.memory, self.at, batch, planned));
        }
    }

    async fn answered(&mut self, link: &Link<Self>, outcome: Outcome) -> Result<()> {
        let setup = Arc::clone(&self.setup);
        let Some(to) = setup.endpoints.get(self.at) else { return Ok(()) };
        let memory = &link.settings.memory;
        let (next, alarm) = verdict::take(outcome, to, &setup, &mut self.lane, memory, &mut self.acks);
        self.alarm = alarm.or(self.alarm.take());
        let down = match next {
            Next::GoOn => return self.tell(link).await,
            Next::Wait(pause) => {
                self.wait_until = Some(time::monotonic() + pause);
                return self.tell(link).await;
            }
            Next::Down(down) => down,
        };
        // Another one of the list is tried at once.
        let at_once = setup.endpoints.len() > 1 && memory.lock().failures == 0;
        let (text, alarm) = verdict::failed(&down, &setup, memory, at_once);
        self.alarm = alarm.or(self.alarm.take());
        self.lane.keep_begun();
        let lane = std::mem::replace(&mut self.lane, Lane::new(setup.limits));
        memory.lock().held = Some(lane);
        self.tell(link).await?;
        Err(Error::session(text))
    }

    /// Tells the host what there is to tell. Cancel safe: a thing leaves `self` only when it is told.
    pub(crate) async fn tell(&mut self, link: &Link<Self>) -> Result<()> {
        if !self.acks.0.is_empty() {
            link.ctx.ack(LANE, self.acks.0.clone()).await?;
            self.acks.0.clear();
            let counters = link.settings.memory.lock().counters;
            let values = [
                ("requests", counters.requests),
                ("records_accepted", counters.accepted),
                ("records_rejected", counters.rejected),
                ("batches_repeated", counters.repeated),
                ("waits", counters.waits),
                ("failures", counters.failures),
            ];
            // Lossless up to 2^53.
            let values = values.map(|(name, value)| (name.to_owned(), value as f64)).to_vec();
            link.ctx.metric(values).await?;
        }
        if let Some((code, text)) = &self.alarm {
            link.ctx.fault(*code, text.clone()).await?;
            self.alarm = None;
        }
        Ok(())
    }
}

/// The answer of the request that is on its way; never, when there is none.
async fn landed(flight: &mut Option<oneshot::Receiver<Outcome>>) -> Outcome {
    match flight {
        Some(receiver) => receiver.await.unwrap_or_else(|_| {
            Outcome::Failed(busbar_ems_http::Error::Broken("the request was given up".to_owned()))
        }),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Duration>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
