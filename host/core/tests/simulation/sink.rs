//! Model sinks: they keep an image of what they were told, and confirm, reject, ask again, lose, withhold.

use std::collections::BTreeMap;

use busbar_contract::{
    Action, Cause, Event, Failure, FailureKind, Origin, Quality, Request, Sample, Samples, batch,
    binary::{Ack, Verdict},
    event::{Done, Fetch, SinkCommand, State, StateEntry, WriteBlock},
    request::{AnswerTo, PointValue},
};

use crate::world::{MS, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkMood {
    /// Confirms everything soon.
    Prompt,
    /// Confirms nothing.
    Withholds,
    /// Rejects, retries, confirms out of order, twice, and what never was.
    Odd,
    /// The far side is down.
    Down,
}

pub(crate) struct Shown {
    pub(crate) quality: Quality,
    pub(crate) bits: u64,
    pub(crate) at_ns: u64,
    pub(crate) source_ns: i64,
    pub(crate) counter: u64,
    pub(crate) number: u64,
}

pub(crate) struct Sink {
    pub(crate) mood: SinkMood,
    pub(crate) instance: u64,
    /// Since when it is prompt and connected without interruption.
    pub(crate) healthy_ns: Option<u64>,
    pub(crate) image: BTreeMap<u32, Shown>,
    pub(crate) newest: u64,
}

impl World {
    pub(crate) fn sink_submit(&mut self, instance: u64, request: u64, body: &Request) {
        let Some(sink) = self.instances[&instance].sink else { return };
        let delay = self.rng.range(1, 10) * MS;
        match body {
            Request::Points(points) => {
                if points.replace {
                    self.sinks[sink].image.clear();
                }
                self.event(instance, request, delay, Event::Done(Done::default()));
            }
            Request::Connect(_) if self.sinks[sink].mood == SinkMood::Down => {
                let failure = Failure::new(FailureKind::Session, "connection refused");
                self.event(instance, request, delay, Event::Failed(failure));
            }
            Request::Connect(_) => self.event(instance, request, delay, Event::Done(Done::default())),
            Request::Answer(answer) => self.sink_answer(instance, request, answer),
            _ => {}
        }
    }

    fn sink_answer(&mut self, instance: u64, request: u64, answer: &AnswerTo) {
        match answer {
            AnswerTo::Command(answer) => self.answered((instance, request), answer),
            AnswerTo::Fetch { .. } | AnswerTo::FetchFailed { .. } => {
                self.fetches.remove(&(instance, request));
            }
            AnswerTo::StatePut { .. } | AnswerTo::StateGet { .. } => {
                self.fetches.remove(&(instance, request));
            }
        }
    }

    pub(crate) fn deliver(
        &mut self,
        instance: u64,
        first: u64,
        flags: u32,
        mut samples: Samples,
    ) -> Result<(), String> {
        let Some(sink) = self.instances.get(&instance).and_then(|state| state.sink) else {
            return Err(format!("a delivery to instance {instance}, which is no sink"));
        };
        if self.sinks[sink].instance != instance || self.instances[&instance].stopped {
            return Err("a delivery to an instance that was stopped".into());
        }
        let times = if flags & batch::TIMES != 0 {
            samples.take_times().map_err(|error| error.to_string())?
        } else {
            Vec::new()
        };
        for (index, sample) in samples.samples.iter().enumerate() {
            let value_ts =
                times.iter().find(|(at, _)| *at as usize == index).map_or(sample.ts_ns, |(_, ts)| *ts);
            self.record(sink, first + index as u64, flags, sample, value_ts)?;
        }
        self.confirm(sink, instance, first, samples.samples.len() as u32);
        Ok(())
    }

    fn record(
        &mut self,
        sink: usize,
        number: u64,
        flags: u32,
        sample: &Sample,
        value_ts: i64,
    ) -> Result<(), String> {
        let point = sample.point;
        let gateway = sample.flags & busbar_contract::Flags::GATEWAY_TIME != 0;
        if !self.sink_points[sink].contains(&point) {
            return Err(format!("G4: sink {sink} got point {point}, which is not routed to it"));
        }
        // G10: a source time is the device's, a gateway time is flagged.
        let source = sample.ts_ns.rem_euclid(1000) == 7;
        if source == gateway {
            return Err(format!("G10: point {point}: time {} and gateway flag {gateway}", sample.ts_ns));
        }
        if value_ts != 0
            && value_ts != sample.ts_ns
            && value_ts.rem_euclid(1000) != 7
            && !self.gateway_time(point)
        {
            return Err(format!("G10: point {point}: value time {value_ts} is nobody's"));
        }
        let Some(state) = self.points.get(point as usize) else {
            self.show(sink, point, sample, 0, number);
            return Ok(());
        };
        // G4: the value tells whose it is.
        if sample.kind != 0 && sample.bits >> 32 != u64::from(point) && !state.substituted {
            return Err(format!("G4: point {point} shows a value of point {}", sample.bits >> 32));
        }
        let counter = sample.bits & 0xffff_ffff;
        let cause = Cause::of(sample.flags);
        let fresh = number > self.sinks[sink].newest;
        self.sinks[sink].newest = self.sinks[sink].newest.max(number);
        let before = self.sinks[sink].image.get(&point);
        if let Some(before) = before
            && fresh
            && before.number < number
            && !self.clock_stepped
            && !state.substituted
            && sample.kind != 0
            && counter < before.counter
            && flags & batch::SNAPSHOT == 0
        {
            return Err(format!(
                "order: sink {sink} point {point}: record {number} ({cause:?}) holds {counter} after {}",
                before.counter
            ));
        }
        self.show(sink, point, sample, counter, number);
        Ok(())
    }

    fn show(&mut self, sink: usize, point: u32, sample: &Sample, counter: u64, number: u64) {
        let gateway = sample.flags & busbar_contract::Flags::GATEWAY_TIME != 0;
        let before = self.sinks[sink].image.get(&point).map_or(i64::MIN, |shown| shown.source_ns);
        // An event from the past tells no present state; it carries its time.
        let event = self.points.get(point as usize).is_none_or(|point| point.event);
        if event && Cause::of(sample.flags).is_event() && !gateway && sample.ts_ns < before {
            return;
        }
        let shown = Shown {
            quality: Quality(sample.quality),
            bits: sample.bits,
            at_ns: self.now.mono_ns,
            source_ns: if gateway { before } else { sample.ts_ns },
            counter,
            number,
        };
        // What comes last is what a far side shows, also when it is an older record that came again.
        self.sinks[sink].image.insert(point, shown);
    }

    fn confirm(&mut self, sink: usize, instance: u64, first: u64, count: u32) {
        let delay = self.rng.range(1, 30) * MS;
        let acks = match self.sinks[sink].mood {
            SinkMood::Prompt => vec![Ack { first, count, verdict: Verdict::Delivered, reason: 0 }],
            SinkMood::Withholds | SinkMood::Down => return,
            SinkMood::Odd => self.odd_acks(sink, first, count),
        };
        self.event(instance, 0, delay, Event::Ack { lane: 0, acks });
    }

    fn odd_acks(&mut self, sink: usize, first: u64, count: u32) -> Vec<Ack> {
        let mut acks: Vec<Ack> = (0..u64::from(count))
            .map(|at| Ack { first: first + at, count: 1, verdict: Verdict::Delivered, reason: 0 })
            .collect();
        let strict = self.plant.strict[sink];
        for ack in &mut acks {
            match self.rng.below(8) {
                0 if !strict => {
                    ack.verdict = Verdict::Rejected;
                    ack.reason = self.rng.below(3) as u16;
                }
                1 => ack.verdict = Verdict::Retry,
                2 => ack.count = 0,
                _ => {}
            }
        }
        if self.rng.chance(30) {
            acks.reverse();
        }
        if self.rng.chance(20) {
            acks.extend(acks.clone());
            acks.push(Ack {
                first: first + 1_000_000,
                count: u32::MAX,
                verdict: Verdict::Delivered,
                reason: 0,
            });
        }
        acks
    }

    /// Sinks do something by themselves.
    pub(crate) fn sink_chaos(&mut self) {
        let sink = self.rng.below(self.sinks.len() as u64) as usize;
        let instance = self.sinks[sink].instance;
        if self.instances.get(&instance).is_none_or(|state| state.stopped) {
            return;
        }
        match self.rng.below(9) {
            0 => {
                let state = State { device: None, up: false, reason: "broker gone".into() };
                self.event(instance, 0, MS, Event::State(state));
            }
            1..=4 => self.sink_command(sink, instance),
            5 => {
                let points: Vec<u32> = self.sink_points[sink].iter().copied().take(2).collect();
                self.next_ask += 1;
                let request = self.next_ask;
                self.fetches.insert((instance, request));
                let fetch = Fetch { points, block: None, deadline_ms: 500 };
                self.event(instance, request, MS, Event::Fetch(fetch));
            }
            6 => self.sink_write_block(sink, instance),
            7 => {
                self.next_ask += 1;
                let request = self.next_ask;
                self.fetches.insert((instance, request));
                let entry = StateEntry { device: None, key: "k".into(), value: Some("00ff".into()) };
                self.event(instance, request, MS, Event::StatePut(entry));
            }
            _ => {
                // An answer that nobody waits for.
                self.event(instance, 77, MS, Event::Done(Done::default()));
            }
        }
    }

    fn origin(&mut self) -> Origin {
        Origin { client: format!("client{}", self.rng.below(2)), ..Origin::default() }
    }

    fn sink_command(&mut self, sink: usize, instance: u64) {
        let points: Vec<u32> = self.sink_points[sink].iter().copied().collect();
        let point = *self.rng.pick(&points);
        self.next_ask += 1;
        let request = self.next_ask;
        let action = *self.rng.pick(&[Action::Operate, Action::Operate, Action::Select, Action::Cancel]);
        let value = self.command_value();
        let expires_ns = if self.rng.chance(10) { self.now.wall_ns - 1 } else { 0 };
        let command = SinkCommand {
            point,
            action,
            value: value.into(),
            origin: self.origin(),
            select_required: self.rng.chance(20),
            qualifier: 0,
            interlock_check: false,
            synchro_check: false,
            test: false,
            issued_ns: 0,
            expires_ns,
            refused: None,
        };
        self.ask((instance, request), expires_ns != 0);
        self.event(instance, request, MS, Event::Command(command));
    }

    fn sink_write_block(&mut self, sink: usize, instance: u64) {
        let device = self.rng.below(self.plant.site.devices.len() as u64) as usize;
        let config = &self.plant.site.devices[device];
        if config.blocks.is_empty() {
            return;
        }
        let block = format!("{}/b", config.name);
        let first = self.first_point(device);
        self.next_ask += 1;
        let request = self.next_ask;
        let values = [first, first + 2]
            .map(|point| PointValue { point, value: busbar_contract::Value::Int(self.command_value()) })
            .to_vec();
        let origin = self.origin();
        let _ = sink;
        self.ask((instance, request), false);
        let write = WriteBlock { block, values, origin, deadline_ms: 800 };
        self.event(instance, request, MS, Event::WriteBlock(write));
    }

    /// A value that no other command has: sent twice, it shows.
    pub(crate) fn command_value(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value
    }

    pub(crate) fn sink_mood(&mut self, sink: usize, mood: SinkMood) {
        let before = std::mem::replace(&mut self.sinks[sink].mood, mood);
        let instance = self.sinks[sink].instance;
        if mood == SinkMood::Down && before != SinkMood::Down && self.instances.contains_key(&instance) {
            let state = State { device: None, up: false, reason: "far side went down".into() };
            self.event(instance, 0, MS, Event::State(state));
        }
        if matches!(before, SinkMood::Withholds | SinkMood::Odd)
            && mood == SinkMood::Prompt
            && self.instances.contains_key(&instance)
        {
            // What was withheld is lost with the connection: the host sends it again.
            let state = State { device: None, up: false, reason: "reconnect".into() };
            self.event(instance, 0, MS, Event::State(state));
        }
    }
}
