//! Model of a driver plugin with its SDK: keeps rules R1 to R5, whatever the device behind it does.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{
    Answer, Cause, Event, Failure, FailureKind, Flags, Quality, Request, Samples, Stage, Value, batch,
    event::{BoundGroup, Done},
    request::Command,
};
use busbar_core::{Input, input::Push};

use crate::{rng::Rng, site::DRIVER};

/// What the device behind the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers in time.
    Healthy,
    /// Answers late but within the response time-out.
    Slow,
    /// Never answers; the driver reports it after its time-outs.
    Silent,
    /// Refuses connections and ends sessions.
    Gone,
    /// Refuses one point.
    Refusing,
    /// The driver itself does not come back (the SDK answers at the deadline).
    Stuck,
    /// Not even the SDK answers.
    Hung,
    /// Pushes foreign points, leaves points out, repeats answers.
    Lying,
}

/// Modes in which a device does what it should.
pub(crate) const fn is_good(mode: Mode) -> bool {
    matches!(mode, Mode::Healthy | Mode::Slow)
}

/// A device as the driver sees it.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Index in the site.
    pub(crate) index: usize,
    pub(crate) points: Vec<u32>,
    pub(crate) groups: BTreeMap<u32, Vec<u32>>,
    pub(crate) connected: bool,
}

/// One open instance.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    pub(crate) id: u64,
    pub(crate) devices: BTreeMap<u32, Attached>,
    /// Requests that wait for their completion.
    pub(crate) pending: BTreeSet<u64>,
    pub(crate) stopping: bool,
}

/// What the driver will do: inputs with their delay, milliseconds.
pub(crate) type Plan = Vec<(u64, Input)>;

/// What one device does and has.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    pub(crate) mode: Mode,
    pub(crate) response_timeout_ms: u64,
    pub(crate) retries: u64,
}

/// A value that names the point it belongs to: `number x 1e6 + counter`. Checked wherever a value turns up (G4).
pub(crate) fn value_of(point: u32, counter: u64) -> Value {
    Value::Float64(f64::from(point) * 1e6 + (counter % 1_000_000) as f64)
}

/// The point that a value names.
pub(crate) fn named_by(value: f64) -> u32 {
    (value / 1e6) as u32
}

pub(crate) fn event(instance: u64, request: u64, event: Event) -> Input {
    Input::Event { plugin: DRIVER, instance, request, event }
}

fn failed(instance: u64, request: u64, kind: FailureKind) -> Input {
    event(instance, request, Event::Failed(Failure::new(kind, format!("simulated {kind:?}"))))
}

fn done(instance: u64, request: u64, body: Done) -> Input {
    event(instance, request, Event::Done(body))
}

/// Answers one request. `wall_ns` stamps the samples, `counter` makes values differ.
pub(crate) fn answer(
    rng: &mut Rng,
    instance: &mut Instance,
    behind: &[Behind],
    request: u64,
    body: &Request,
    wall_ns: i64,
    counter: &mut u64,
) -> Plan {
    let id = instance.id;
    instance.pending.insert(request);
    match body {
        Request::Attach(attach) => {
            let index = attach.name.trim_start_matches('d').parse().ok();
            let index = index.and_then(|n: usize| behind.get(n).map(|_| n)).unwrap_or(usize::MAX);
            instance.devices.insert(attach.device, Attached { index, ..Attached::default() });
            vec![(1, done(id, request, Done::default()))]
        }
        Request::Detach(body) => {
            instance.devices.remove(&body.device.unwrap_or(u32::MAX));
            vec![(1, done(id, request, Done::default()))]
        }
        Request::Bind(bind) => {
            let Some(device) = instance.devices.get_mut(&bind.device) else {
                return vec![(1, failed(id, request, FailureKind::Bug))];
            };
            device.points = bind.points.iter().map(|point| point.point).collect();
            device.groups = bind.groups.iter().map(|group| (group.group, group.points.clone())).collect();
            let groups = bind.groups.iter().map(|g| BoundGroup { group: g.group, exchanges: 1 }).collect();
            vec![(1, done(id, request, Done { groups, ..Done::default() }))]
        }
        Request::Connect(body) => {
            connect(rng, id, instance, behind, request, body.device.unwrap_or(u32::MAX), body.deadline_ms)
        }
        Request::Disconnect(body) => {
            if let Some(device) = instance.devices.get_mut(&body.device.unwrap_or(u32::MAX)) {
                device.connected = false;
            }
            vec![(1, done(id, request, Done::default()))]
        }
        Request::Read(read) => {
            let found = instance.devices.iter().find(|(_, device)| device.groups.contains_key(&read.group));
            let Some((number, device)) = found else {
                return vec![(1, failed(id, request, FailureKind::Bug))];
            };
            let points = device.groups[&read.group].clone();
            let (number, lost_points) = (*number, device.points.clone());
            if !device.connected {
                return vec![(1, failed(id, request, FailureKind::Session))];
            }
            let mode = mode_of(instance, number, behind);
            let Some((delay, fails)) = timing(rng, &mode, u64::from(read.deadline_ms)) else { return vec![] };
            if let Some(kind) = fails {
                end_session(instance, number, kind);
                return vec![(delay, failed(id, request, kind))];
            }
            let samples = samples(rng, mode.mode, &points, &lost_points, read.cause, wall_ns, counter);
            vec![(delay, Input::Push(Push { instance: id, request, token: 0, flags: batch::LAST, samples }))]
        }
        Request::BlockRead(block) => {
            let mode = mode_of(instance, block.device, behind);
            if !instance.devices.get(&block.device).is_some_and(|device| device.connected) {
                return vec![(1, failed(id, request, FailureKind::Session))];
            }
            let Some((delay, fails)) = timing(rng, &mode, block.deadline_ms) else { return vec![] };
            if let Some(kind) = fails {
                end_session(instance, block.device, kind);
                return vec![(delay, failed(id, request, kind))];
            }
            let samples = samples(rng, Mode::Healthy, &block.points, &[], Cause::Poll, wall_ns, counter);
            let flags = batch::LAST | batch::BLOCK;
            vec![(delay, Input::Push(Push { instance: id, request, token: 0, flags, samples }))]
        }
        Request::Probe(body) => {
            let number = body.device.unwrap_or(u32::MAX);
            let mode = mode_of(instance, number, behind);
            if !instance.devices.get(&number).is_some_and(|device| device.connected) {
                return vec![(1, failed(id, request, FailureKind::Session))];
            }
            match timing(rng, &mode, body.deadline_ms) {
                None => vec![],
                Some((delay, Some(kind))) => {
                    end_session(instance, number, kind);
                    vec![(delay, failed(id, request, kind))]
                }
                Some((delay, None)) => vec![(delay, done(id, request, Done::default()))],
            }
        }
        Request::Command(command) => command_answer(rng, id, instance, behind, request, command),
        Request::Subscribe(_) | Request::Unsubscribe(_) => vec![(1, done(id, request, Done::default()))],
        Request::Browse(_) | Request::BlockWrite(_) => {
            vec![(1, failed(id, request, FailureKind::Unsupported))]
        }
        _ => vec![(1, done(id, request, Done::default()))],
    }
}

fn connect(
    rng: &mut Rng,
    id: u64,
    instance: &mut Instance,
    behind: &[Behind],
    request: u64,
    number: u32,
    deadline_ms: u64,
) -> Plan {
    let mode = mode_of(instance, number, behind);
    match timing(rng, &mode, deadline_ms) {
        None => vec![],
        Some((delay, Some(kind))) => vec![(delay, failed(id, request, kind))],
        Some((delay, None)) => {
            if let Some(device) = instance.devices.get_mut(&number) {
                device.connected = true;
            }
            vec![(delay, done(id, request, Done::default()))]
        }
    }
}

fn command_answer(
    rng: &mut Rng,
    id: u64,
    instance: &mut Instance,
    behind: &[Behind],
    request: u64,
    command: &Command,
) -> Plan {
    let mode = mode_of(instance, command.device, behind);
    if !instance.devices.get(&command.device).is_some_and(|device| device.connected) {
        return vec![(1, failed(id, request, FailureKind::Session))];
    }
    let Some((delay, fails)) = timing(rng, &mode, command.deadline_ms) else { return vec![] };
    if let Some(kind) = fails {
        end_session(instance, command.device, kind);
        return vec![(delay, failed(id, request, kind))];
    }
    let with = |answer| Done { answer: Some(answer), ..Done::default() };
    if command.action == busbar_contract::Action::Select {
        return vec![(delay, done(id, request, with(Answer::stage(Stage::Selected))))];
    }
    match rng.between(0, 4) {
        0 => {
            let refused = Answer::refused(busbar_contract::Reason::DeviceRefused, "simulated");
            vec![(delay, done(id, request, with(refused)))]
        }
        1 => vec![
            (delay, event(id, request, Event::Progress(Answer::stage(Stage::Accepted)))),
            (delay + 20, done(id, request, with(Answer::stage(Stage::Finished)))),
        ],
        _ => vec![(delay, done(id, request, with(Answer::stage(Stage::Finished))))],
    }
}

fn mode_of(instance: &Instance, number: u32, behind: &[Behind]) -> Behind {
    let index = instance.devices.get(&number).map_or(usize::MAX, |device| device.index);
    behind.get(index).cloned().unwrap_or(Behind { mode: Mode::Healthy, response_timeout_ms: 100, retries: 0 })
}

/// When the answer comes and how it fails; `None` = never.
fn timing(rng: &mut Rng, behind: &Behind, deadline_ms: u64) -> Option<(u64, Option<FailureKind>)> {
    let exchange = behind.response_timeout_ms;
    let give_up = exchange * (behind.retries + 1);
    let (delay, fails) = match behind.mode {
        Mode::Healthy | Mode::Refusing | Mode::Lying => (rng.between(1, 10), None),
        Mode::Slow => (rng.between(1, exchange * 8 / 10), None),
        Mode::Silent => (give_up, Some(FailureKind::NoAnswer)),
        Mode::Gone => (rng.between(1, 10), Some(FailureKind::Session)),
        Mode::Stuck => (deadline_ms, Some(FailureKind::Deadline)),
        Mode::Hung => return None,
    };
    // The SDK keeps the deadline, whatever the driver does.
    Some(if delay >= deadline_ms && fails.is_none() {
        (deadline_ms, Some(FailureKind::Deadline))
    } else {
        (delay, fails)
    })
}

/// What a failure means for the sessions the driver holds.
fn end_session(instance: &mut Instance, number: u32, kind: FailureKind) {
    match kind {
        FailureKind::NoAnswer => {
            if let Some(device) = instance.devices.get_mut(&number) {
                device.connected = false;
            }
        }
        FailureKind::Session | FailureKind::Deadline | FailureKind::Bug => {
            for device in instance.devices.values_mut() {
                device.connected = false;
            }
        }
        _ => {}
    }
}

fn samples(
    rng: &mut Rng,
    mode: Mode,
    points: &[u32],
    all: &[u32],
    cause: Cause,
    wall_ns: i64,
    counter: &mut u64,
) -> Samples {
    let mut out = Samples::with_capacity(points.len());
    for (at, point) in points.iter().enumerate() {
        *counter += 1;
        if mode == Mode::Lying && rng.one_in(3) {
            continue;
        }
        let flags = Flags::new(cause, Flags::GATEWAY_TIME);
        if mode == Mode::Refusing && at == 0 {
            out.push(*point, wall_ns, &Value::None, Quality::INVALID.with(Quality::BAD_REFERENCE), flags);
        } else {
            out.push(*point, wall_ns, &value_of(*point, *counter), Quality::GOOD, flags);
        }
    }
    if mode == Mode::Lying {
        // A point of somebody else, and one that never existed: must reach nothing.
        let foreign = all.iter().max().map_or(9_999, |last| last + 1);
        for point in [foreign, 4_000_000] {
            out.push(point, wall_ns, &Value::Float64(-1.0), Quality::GOOD, Flags::new(cause, 0));
        }
    }
    out
}
