//! Model drivers: what they answer depends on the mood of the device.
//!
//! Values tell where they come from: the point number in the upper half, a counter in the lower. Source times end in
//! 7 ns, the world's own times in 0, so a time that was mixed up shows.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{
    Action, Answer, Cause, Event, Failure, FailureKind, Flags, Quality, Reason, Request, Samples, Stage,
    Value, batch,
    event::{BoundGroup, Done, Gap, State},
};
use busbar_core::{Input, input::Push};

use crate::world::{Happening, MS, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers within a few milliseconds.
    Normal,
    /// Answers late, but in time.
    Slow,
    /// Does not answer: NO_ANSWER after the time-out.
    Dead,
    /// Closes its session.
    Resets,
    /// Reads are refused.
    Refuses,
    /// The driver never completes anything (breaks R4).
    Hangs,
    /// The driver lies: foreign points, left-out points, wrong and repeated request numbers.
    Lies,
    /// The driver panics in every call.
    Panics,
}

/// Values that will be pushed.
pub(crate) struct Values {
    pub(crate) instance: u64,
    pub(crate) request: u64,
    pub(crate) points: Vec<u32>,
    pub(crate) cause: Cause,
    pub(crate) token: u32,
    pub(crate) flags: u32,
}

#[derive(Default)]
pub(crate) struct Instance {
    pub(crate) plugin: usize,
    pub(crate) sink: Option<usize>,
    pub(crate) groups: BTreeMap<u32, Vec<u32>>,
    pub(crate) attached: BTreeSet<u32>,
    pub(crate) connected: BTreeSet<u32>,
    pub(crate) subscribed: BTreeMap<u32, Vec<u32>>,
    pub(crate) stopped: bool,
}

pub(crate) struct Device {
    pub(crate) mood: Mood,
    pub(crate) subscribes: bool,
    pub(crate) can_probe: bool,
    /// When the model sent the DONE of the last CONNECT.
    pub(crate) connected_ns: u64,
}

impl World {
    pub(crate) fn driver_submit(&mut self, instance: u64, request: u64, body: &Request) {
        let device = match body {
            Request::Read(read) => self.group_device(instance, read.group),
            Request::Connect(of) | Request::Disconnect(of) | Request::Probe(of) => of.device,
            Request::Attach(body) => Some(body.device),
            Request::Bind(body) => Some(body.device),
            Request::Subscribe(body) => Some(body.device),
            Request::Command(body) => Some(body.device),
            Request::Browse(body) => Some(body.device),
            Request::BlockRead(body) => Some(body.device),
            Request::BlockWrite(body) => Some(body.device),
            Request::Committed(body) => {
                self.committed(body.device, body.token, body.ok);
                return;
            }
            _ => return,
        };
        let Some(device) = device else { return };
        let mood = self.devices[device as usize].mood;
        let delay = match mood {
            Mood::Slow => self.rng.range(20, 150) * MS,
            _ => self.rng.range(1, 8) * MS,
        };
        let timeout = self.timeout_ns(device);
        match (mood, body) {
            (Mood::Hangs, Request::Attach(_) | Request::Bind(_)) => {}
            (Mood::Hangs, _) => return,
            (Mood::Panics, _) => {
                return self.fail(instance, request, delay, FailureKind::Bug, "panic");
            }
            _ => {}
        }
        match body {
            Request::Attach(_) => {
                if let Some(state) = self.instances.get_mut(&instance) {
                    state.attached.insert(device);
                }
                self.done(instance, request, delay, Done::default());
            }
            Request::Bind(bind) => {
                let groups =
                    bind.groups.iter().map(|group| BoundGroup { group: group.group, exchanges: 1 }).collect();
                if let Some(state) = self.instances.get_mut(&instance) {
                    for group in &bind.groups {
                        state.groups.insert(group.group, group.points.clone());
                    }
                }
                self.done(instance, request, delay, Done { groups, ..Done::default() });
            }
            _ if mood == Mood::Dead => {
                self.fail(instance, request, timeout, FailureKind::NoAnswer, "no answer")
            }
            _ if mood == Mood::Resets && self.rng.chance(70) => {
                self.fail(instance, request, delay, FailureKind::Session, "reset by peer");
            }
            Request::Connect(_) => {
                if let Some(state) = self.instances.get_mut(&instance) {
                    state.connected.insert(device);
                    state.subscribed.remove(&device);
                }
                self.devices[device as usize].connected_ns = self.now.mono_ns + delay;
                self.done(instance, request, delay, Done::default());
            }
            Request::Disconnect(_) => {
                if let Some(state) = self.instances.get_mut(&instance) {
                    state.connected.remove(&device);
                }
                self.done(instance, request, delay, Done::default());
            }
            Request::Probe(_) if self.devices[device as usize].can_probe => {
                self.at(self.now.mono_ns + delay, Happening::Probed { device });
                self.done(instance, request, delay, Done::default());
            }
            Request::Probe(_) => self.fail(instance, request, delay, FailureKind::Unsupported, "no probe"),
            Request::Subscribe(body) => {
                self.subscribe(instance, request, delay, device, &body.points, body.integrity_ms)
            }
            Request::Read(read) => {
                let points = self.instances[&instance].groups.get(&read.group).cloned().unwrap_or_default();
                self.answer_read(instance, request, delay, device, &points, mood);
            }
            Request::BlockRead(body) => {
                self.push_values(instance, request, delay, &body.points, batch::LAST | batch::BLOCK)
            }
            Request::Command(command) => {
                self.commands_seen(command.point, command.action, &command.value);
                self.answer_command(instance, request, delay, command.point, command.action, timeout);
            }
            Request::BlockWrite(write) => {
                for entry in &write.values {
                    self.commands_seen(entry.point, Action::Operate, &entry.value);
                }
                let point = write.values[0].point;
                self.answer_command(instance, request, delay, point, Action::Operate, timeout);
            }
            Request::Browse(_) => {
                let page = busbar_contract::event::Page { entries: vec![serde_json::json!({"name": "x"})] };
                self.event(instance, request, delay, Event::Page(page));
                self.done(instance, request, delay, Done::default());
            }
            _ => {}
        }
    }

    fn group_device(&self, instance: u64, group: u32) -> Option<u32> {
        let point = *self.instances.get(&instance)?.groups.get(&group)?.first()?;
        Some(self.points[point as usize].device)
    }

    fn timeout_ns(&self, device: u32) -> u64 {
        let config = &self.plant.site.devices[device as usize];
        config.response_timeout.as_nanos() as u64 * u64::from(config.retries + 1) - 10 * MS
    }

    fn subscribe(
        &mut self,
        instance: u64,
        request: u64,
        delay: u64,
        device: u32,
        points: &[u32],
        integrity_ms: u64,
    ) {
        if !self.devices[device as usize].subscribes {
            return self.done(instance, request, delay, Done::default());
        }
        let some: Vec<u32> =
            points.iter().copied().filter(|point| point % 2 == 0 || points.len() < 3).collect();
        if let Some(state) = self.instances.get_mut(&instance) {
            state.subscribed.insert(device, some.clone());
        }
        let done = Done { subscribed: some.clone(), integrity_ms, ..Done::default() };
        self.done(instance, request, delay, done);
        // The interrogation; sometimes it does not come.
        if self.rng.chance(80) {
            self.push_unsolicited(instance, delay + 5 * MS, &some, Cause::Integrity, 0);
        }
        if integrity_ms > 0 {
            let session = self.devices[device as usize].connected_ns;
            let at = self.now.mono_ns + delay + integrity_ms * MS;
            self.at(at, Happening::Integrity { instance, device, session, period: integrity_ms * MS });
        }
    }

    fn answer_read(
        &mut self,
        instance: u64,
        request: u64,
        delay: u64,
        device: u32,
        points: &[u32],
        mood: Mood,
    ) {
        if mood == Mood::Refuses && self.rng.chance(50) {
            for point in points {
                self.points[*point as usize].given_ns = self.now.mono_ns + delay;
            }
            return self.fail(instance, request, delay, FailureKind::Refused, "illegal address");
        }
        if mood != Mood::Lies {
            return self.push_values(instance, request, delay, points, batch::LAST);
        }
        match self.rng.below(6) {
            0 => {
                // Somebody else's points, with this device's values.
                let others: Vec<u32> = (0..self.points.len() as u32 + 3)
                    .filter(|other| {
                        self.points.get(*other as usize).is_none_or(|point| point.device != device)
                    })
                    .collect();
                self.lie(instance, request, delay, &others, points, 0);
                self.push_values(instance, request, delay, points, batch::LAST);
            }
            1 => {
                for point in points.iter().skip(1) {
                    self.points[*point as usize].given_ns = self.now.mono_ns + delay;
                }
                let some = points.iter().take(1).copied().collect::<Vec<_>>();
                self.push_values(instance, request, delay, &some, batch::LAST);
            }
            2 => {
                // An answer to a question nobody asked, then the right one twice.
                self.lie(instance, request + 1_000_000, delay, points, points, batch::LAST);
                self.push_values(instance, request, delay, points, batch::LAST);
                self.lie(instance, request, delay + MS, points, points, batch::LAST);
            }
            3 => self.fail(instance, request, delay, FailureKind::Deadline, "deadline"),
            4 => {
                let half = points.len() / 2;
                self.push_values(instance, request, delay, &points[..half], 0);
                self.push_values(instance, request, delay, &points[half..], batch::LAST);
            }
            _ => self.push_values(instance, request, delay, points, batch::LAST),
        }
    }

    /// Samples for `targets` that carry the identity of `sources`: none of them may get anywhere.
    fn lie(&mut self, instance: u64, request: u64, delay: u64, targets: &[u32], sources: &[u32], flags: u32) {
        let mut samples = Samples::default();
        let source = u64::from(sources.first().copied().unwrap_or(0) + 1_000_000) << 32;
        for target in targets {
            let value = Value::Int((source | 0xffff_ffff) as i64);
            samples.push(*target, self.source_ns(), &value, Quality::GOOD, Flags::new(Cause::Poll, 0));
        }
        self.push_at(self.now.mono_ns + delay, instance, request, 0, flags, samples);
    }

    /// Good values for an answer.
    pub(crate) fn push_values(
        &mut self,
        instance: u64,
        request: u64,
        delay: u64,
        points: &[u32],
        flags: u32,
    ) {
        self.push_later(
            delay,
            Values { instance, request, points: points.to_vec(), cause: Cause::Poll, token: 0, flags },
        );
    }

    fn push_later(&mut self, delay: u64, values: Values) {
        self.at(self.now.mono_ns + delay, Happening::Values(values));
    }

    /// The values as they are at this moment.
    pub(crate) fn values_now(&mut self, values: Values) {
        let mut samples = Samples::default();
        let ts_ns = self.source_ns();
        for point in &values.points {
            let state = &mut self.points[*point as usize];
            state.counter += 1;
            state.fed_ns = self.now.mono_ns;
            state.given_ns = self.now.mono_ns;
            let value = Value::Int(((u64::from(*point) << 32) | state.counter) as i64);
            samples.push(*point, ts_ns, &value, Quality::GOOD, Flags::new(values.cause, 0));
        }
        let Values { instance, request, token, flags, .. } = values;
        self.input_now(Input::Push(Push { instance, request, token, flags, samples }));
    }

    /// The wall clock as a device shows it.
    fn source_ns(&self) -> i64 {
        self.now.wall_ns / 1000 * 1000 + 7
    }

    pub(crate) fn push_unsolicited(
        &mut self,
        instance: u64,
        delay: u64,
        points: &[u32],
        cause: Cause,
        token: u32,
    ) {
        self.push_later(
            delay,
            Values { instance, request: 0, points: points.to_vec(), cause, token, flags: 0 },
        );
    }

    fn push_at(&mut self, at: u64, instance: u64, request: u64, token: u32, flags: u32, samples: Samples) {
        self.input_at(at, Input::Push(Push { instance, request, token, flags, samples }));
    }

    fn answer_command(
        &mut self,
        instance: u64,
        request: u64,
        delay: u64,
        point: u32,
        action: Action,
        timeout: u64,
    ) {
        let healthy = self.plant.healthy[self.points[point as usize].device as usize];
        match if healthy { 9 } else { self.rng.below(10) } {
            0 => self.fail(instance, request, delay, FailureKind::Refused, "interlocked by the device"),
            1 => self.fail(instance, request, timeout, FailureKind::NoAnswer, "no answer"),
            2 => self.fail(instance, request, delay, FailureKind::Unsupported, "no such control"),
            3 => {}
            4 => {
                let answer = Answer::refused(Reason::Interlocked, "blocked");
                self.done(instance, request, delay, Done { answer: Some(answer), ..Done::default() });
            }
            5 => self.done(instance, request, delay, Done::default()),
            _ => {
                let stage = if action == Action::Select { Stage::Selected } else { Stage::Finished };
                self.at(self.now.mono_ns + delay, Happening::Positive { point });
                if action == Action::Operate && self.rng.chance(30) {
                    self.event(instance, request, delay, Event::Progress(Answer::stage(Stage::Accepted)));
                }
                let answer = Some(Answer::stage(stage));
                self.done(instance, request, delay + MS, Done { answer, ..Done::default() });
            }
        }
    }

    fn done(&mut self, instance: u64, request: u64, delay: u64, done: Done) {
        self.event(instance, request, delay, Event::Done(done));
    }

    fn fail(&mut self, instance: u64, request: u64, delay: u64, kind: FailureKind, text: &str) {
        self.event(instance, request, delay, Event::Failed(Failure::new(kind, text)));
    }

    pub(crate) fn event(&mut self, instance: u64, request: u64, delay: u64, event: Event) {
        let plugin = self.instances.get(&instance).map_or(0, |state| state.plugin);
        let at = self.now.mono_ns + delay;
        self.input_at(at, Input::Event { plugin, instance, request, event });
    }

    /// Devices do something by themselves.
    pub(crate) fn driver_chaos(&mut self) {
        let live: Vec<u64> = self
            .instances
            .iter()
            .filter(|(_, state)| state.sink.is_none() && !state.stopped && state.plugin == 1)
            .map(|(number, _)| *number)
            .collect();
        if live.is_empty() {
            return;
        }
        let instance = *self.rng.pick(&live);
        let attached: Vec<u32> = self.instances[&instance].attached.iter().copied().collect();
        if attached.is_empty() {
            return;
        }
        let device = *self.rng.pick(&attached);
        let points: Vec<u32> = (0..self.points.len() as u32)
            .filter(|point| self.points[*point as usize].device == device)
            .collect();
        match self.rng.below(8) {
            0 => {
                let state = State { device: Some(device), up: false, reason: "link down".into() };
                self.event(instance, 0, MS, Event::State(state));
            }
            1 => {
                let state = State { device: None, up: false, reason: "line down".into() };
                self.event(instance, 0, MS, Event::State(state));
            }
            2 => self.event(
                instance,
                0,
                MS,
                Event::State(State { device: Some(device), up: true, reason: String::new() }),
            ),
            3 => {
                let gap = Gap { device, reason: "sequence gap".into(), points: Vec::new() };
                self.event(instance, 0, MS, Event::Gap(gap));
            }
            4 => {
                // A flood of events.
                for _ in 0..self.rng.range(5, 40) {
                    self.push_unsolicited(instance, MS, &points, Cause::DataChange, 0);
                }
            }
            5 => {
                self.next_token += 1;
                let token = self.next_token;
                if !points.is_empty() {
                    self.push_unsolicited(instance, MS, &points, Cause::DataChange, token);
                }
            }
            6 => self.input_at(self.now.mono_ns + MS, Input::Overrun { instance, samples: 3 }),
            _ => {
                let event = Event::Failed(Failure::new(FailureKind::Session, "the endpoint is gone"));
                self.event(instance, 0, MS, event);
            }
        }
    }
}
