//! Operators and clients of sinks: commands, fresh reads, blocks, switches. Keeps the life of each command, so that G8 can
//! be checked: at most one request per command, audited before, positive only after the device accepted, one last answer.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{
    Action, Answer, Event, Origin, Request, Stage,
    event::{Fetch, SinkCommand},
    request::AnswerTo,
};
use busbar_core::{
    Input,
    input::{Ask, Operator, OperatorCommand},
    output::Reply,
    view::DeviceState,
};
use serde_json::json;

use crate::{
    driver,
    world::{MS, World},
};

/// Commands carry values from here on, one each, so that a request can be told from another.
const FIRST_VALUE: f64 = 1e11;
/// Longest time to the last answer: the longest deadline in the site, and slack.
const PATIENCE: u64 = 30_000 * MS;

/// One command and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) point: String,
    /// Writable, in range, not interlocked.
    pub(crate) allowed: bool,
    pub(crate) issued: u64,
    /// Client lives in this sink and instance.
    pub(crate) sink: Option<(usize, u64)>,
    pub(crate) submitted: u32,
    pub(crate) device_accepted: bool,
    pub(crate) last: Option<Stage>,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) lives: Vec<Life>,
    next_id: u64,
    operators: BTreeMap<u64, usize>,
    sinks: BTreeMap<(usize, u64), usize>,
    /// Requests at the driver that carry a command.
    requests: BTreeMap<(u64, u64), usize>,
    /// Audit lines that are on disk, or on their way there.
    lines: BTreeMap<u64, String>,
    written: Vec<String>,
    fetches: BTreeMap<(usize, u64), u64>,
    operated: BTreeSet<String>,
}

impl Clients {
    /// Points that were blocked or substituted by an operator.
    pub(crate) fn operated(&self) -> Vec<String> {
        self.operated.iter().cloned().collect()
    }

    pub(crate) fn is_operated(&self, point: &str) -> bool {
        self.operated.contains(point)
    }

    pub(crate) fn sink_died(&mut self, sink: usize) {
        self.sinks.retain(|(at, _), _| *at != sink);
        self.fetches.retain(|(at, _), _| *at != sink);
    }

    pub(crate) fn audited(&mut self, audit: u64, line: String, ok: bool) {
        if ok && audit != 0 {
            self.lines.insert(audit, line);
        }
    }

    /// Looks at what is about to be told to the core.
    pub(crate) fn before(&mut self, input: &Input) {
        match input {
            Input::Audited { audit, error } if error.is_empty() => {
                self.written.extend(self.lines.remove(audit))
            }
            Input::Event { instance, request, event, .. } => {
                let answer = match event {
                    Event::Progress(answer) => Some(answer),
                    Event::Done(done) => done.answer.as_ref(),
                    _ => None,
                };
                let life = self.requests.get(&(*instance, *request)).and_then(|at| self.lives.get_mut(*at));
                if let (Some(life), Some(answer)) = (life, answer) {
                    life.device_accepted |= positive(answer.stage);
                }
            }
            _ => {}
        }
    }
}

fn positive(stage: Stage) -> bool {
    matches!(stage, Stage::Selected | Stage::Accepted | Stage::Finished)
}

impl World {
    /// Somebody wants something.
    pub(crate) fn client(&mut self) {
        match self.rng.between(0, 19) {
            0..=6 => self.operator_command(),
            7..=12 => self.sink_command(),
            13 | 14 => self.sink_fetch(),
            15 => self.ask(|_| Ask::Lock(Origin::default())),
            16 => self.ask(|_| Ask::Unlock(Origin::default())),
            17 => self.ask(|world| Ask::Read {
                device: world.some_device(),
                points: vec![],
                deadline_ms: 2_000,
            }),
            18 => self.ask(|world| {
                let point = world.some_point();
                world.clients.operated.insert(point.clone());
                if world.rng.one_in(2) {
                    Ask::Block(point, Origin::default())
                } else {
                    Ask::Substitute(point, json!(1.0), Origin::default())
                }
            }),
            _ => self.ask(|world| Ask::Unblock(world.some_point(), Origin::default())),
        }
    }

    fn some_device(&mut self) -> String {
        let at = self.rng.between(0, self.site.devices.len() as u64 - 1) as usize;
        self.site.devices[at].name.clone()
    }

    fn some_point(&mut self) -> String {
        let device = self.some_device();
        format!("{device}/p{}", self.rng.between(0, 3))
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Self) -> Ask) {
        let ask = ask(self);
        self.clients.next_id += 1;
        let id = self.clients.next_id;
        self.step(Input::Operator(Operator { id, ask }));
    }

    /// A new command: its point, its value, and whether it may pass at all.
    fn new_command(&mut self, sink: Option<(usize, u64)>) -> (String, serde_json::Value, usize) {
        let point = self.some_point();
        let at = self.clients.lives.len();
        let out_of_range = self.rng.one_in(6);
        let value = if out_of_range { -5.0 } else { FIRST_VALUE + at as f64 };
        let found = self.site.devices.iter().find_map(|device| {
            let name = point.strip_prefix(&device.name)?.strip_prefix('/')?;
            device.points.iter().find(|point| point.name == name)
        });
        let allowed = found.is_some_and(|p| p.writable && p.interlock.is_none()) && !out_of_range;
        self.clients.lives.push(Life {
            point: point.clone(),
            allowed,
            issued: self.now.mono_ns,
            sink,
            submitted: 0,
            device_accepted: false,
            last: None,
        });
        (point, json!(value), at)
    }

    fn operator_command(&mut self) {
        let (point, value, at) = self.new_command(None);
        self.clients.next_id += 1;
        let id = self.clients.next_id;
        self.clients.operators.insert(id, at);
        let deadline_ms = *self.rng.pick(&[0, 50, 2_000]);
        let origin = Origin { sink: "cli".into(), client: "test".into(), ..Origin::default() };
        let command = OperatorCommand { point, action: Action::Operate, value, origin, deadline_ms };
        self.step(Input::Operator(Operator { id, ask: Ask::Command(command) }));
    }

    fn sink_command(&mut self) {
        let sink = self.rng.between(0, 1) as usize;
        let Some(instance) = self.sinks[sink].instance.filter(|_| self.sinks[sink].connected) else { return };
        let (name, value, at) = self.new_command(Some((sink, instance)));
        let number =
            self.sinks[sink].names.iter().find(|(_, (d, p))| format!("{d}/{p}") == name).map(|(n, _)| *n);
        let Some(point) = number else {
            self.clients.lives.pop();
            return;
        };
        self.clients.next_id += 1;
        let request = self.clients.next_id;
        self.clients.sinks.insert((sink, request), at);
        let action = if self.rng.one_in(5) { Action::Select } else { Action::Operate };
        let past = self.rng.one_in(10);
        let expires_ns = if past { self.now.wall_ns - 1 } else { 0 };
        if past {
            self.clients.lives[at].allowed = false;
        }
        let command = SinkCommand {
            point,
            action,
            value,
            origin: Origin { client: "master".into(), ..Origin::default() },
            select_required: false,
            qualifier: 0,
            interlock_check: false,
            synchro_check: false,
            test: false,
            issued_ns: self.now.wall_ns,
            expires_ns,
        };
        let input = self.sinks[sink].event(instance, request, Event::Command(command));
        self.step(input);
    }

    fn sink_fetch(&mut self) {
        let sink = self.rng.between(0, 1) as usize;
        let Some(instance) = self.sinks[sink].instance.filter(|_| self.sinks[sink].connected) else { return };
        let names = self.sinks[sink].names.iter();
        let points: Vec<u32> = names.filter(|(_, (_, p))| !p.starts_with('@')).map(|(n, _)| *n).collect();
        if points.is_empty() {
            return;
        }
        let block = self.rng.one_in(3).then(|| format!("{}/all", self.some_device()));
        let points = if block.is_some() { vec![] } else { vec![*self.rng.pick(&points)] };
        self.clients.next_id += 1;
        let request = self.clients.next_id;
        self.clients.fetches.insert((sink, request), self.now.mono_ns);
        let fetch = Fetch { points, block, deadline_ms: 1_000 };
        let input = self.sinks[sink].event(instance, request, Event::Fetch(fetch));
        self.step(input);
    }

    /// An answer of the core to an operator.
    pub(crate) fn replied(&mut self, id: u64, reply: Reply) {
        if let (Some(at), Reply::Command(answer)) = (self.clients.operators.get(&id).copied(), &reply) {
            self.life_answered(at, answer);
        }
    }

    /// An answer of the core to a sink.
    pub(crate) fn answered(&mut self, sink: usize, request: u64, answer: &AnswerTo) {
        match answer {
            AnswerTo::Command(answer) => match self.clients.sinks.get(&(sink, request)).copied() {
                Some(at) => self.life_answered(at, answer),
                None => self.fail("a sink gets an answer to a command it never gave"),
            },
            AnswerTo::Fetch { values, .. } => {
                if self.clients.fetches.remove(&(sink, request)).is_none() {
                    self.fail("a fetch is answered twice, or was never asked");
                }
                for (point, value, _) in values {
                    let operated = self.sinks[sink]
                        .names
                        .get(point)
                        .is_some_and(|(device, name)| self.clients.is_operated(&format!("{device}/{name}")));
                    let wrong = value.as_f64().is_some_and(|value| driver::named_by(value) != *point);
                    if wrong && !operated {
                        self.fail("G4: a fetch gives a point the value of another one");
                    }
                }
            }
            AnswerTo::FetchFailed { .. } => {
                if self.clients.fetches.remove(&(sink, request)).is_none() {
                    self.fail("a fetch is answered twice, or was never asked");
                }
            }
            AnswerTo::StatePut { .. } | AnswerTo::StateGet { .. } => {}
        }
    }

    fn life_answered(&mut self, at: usize, answer: &Answer) {
        let life = self.clients.lives[at].clone();
        if life.last.is_some() {
            self.fail(&format!(
                "command {at} of {} is answered after its last answer: {answer:?}",
                life.point
            ));
        }
        if positive(answer.stage) && !life.device_accepted {
            self.fail(&format!("G8: command {at} of {} is confirmed before the device accepted", life.point));
        }
        if answer.stage.is_last() {
            self.clients.lives[at].last = Some(answer.stage);
        }
    }

    /// A request leaves for the driver: is it a command, and may it leave?
    pub(crate) fn check_submit(&mut self, instance: u64, request: u64, body: &Request) {
        let Request::Command(command) = body else { return };
        let value = command.value.as_f64().unwrap_or_default();
        if command.action == Action::Cancel {
            return;
        }
        let at = (value - FIRST_VALUE) as usize;
        if value < FIRST_VALUE || at >= self.clients.lives.len() {
            self.fail(&format!("G8: a command leaves that nobody gave: {command:?}"));
        }
        self.clients.requests.insert((instance, request), at);
        self.clients.lives[at].submitted += 1;
        let life = self.clients.lives[at].clone();
        let why = if life.submitted > 1 {
            "leaves twice"
        } else if !life.allowed {
            "leaves though it is not allowed"
        } else if self.core.commands_locked() {
            "leaves though commands are locked"
        } else if life.last.is_some() {
            "leaves after its last answer"
        } else if !self.clients.written.iter().any(|line| line.contains(&life.point)) {
            "leaves before its audit line is on disk"
        } else {
            let device = life.point.split('/').next().unwrap_or_default();
            match self.core.devices().iter().find(|view| view.name == device).map(|view| view.state) {
                Some(DeviceState::Online) => return,
                _ => "leaves though its device is not online",
            }
        };
        self.fail(&format!("G8: command {at} of {} {why}", life.point));
    }

    /// Every command and every fetch has its last answer within its time.
    pub(crate) fn check_patience(&self) {
        let now = self.now.mono_ns;
        for (at, life) in self.clients.lives.iter().enumerate() {
            let alive = life.sink.is_none_or(|(sink, instance)| self.sinks[sink].instance == Some(instance));
            if alive && life.last.is_none() && now > life.issued + PATIENCE {
                self.fail(&format!("command {at} of {} has no last answer after 30 s", life.point));
            }
        }
        if self.clients.fetches.values().any(|asked| now > asked + PATIENCE) {
            self.fail("a fetch has no answer after 30 s");
        }
    }
}
