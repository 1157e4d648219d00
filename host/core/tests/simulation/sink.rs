//! Model of a sink plugin with its far side.

use std::collections::BTreeMap;

use busbar_contract::{
    Event, Failure, FailureKind, Samples,
    binary::{Ack, Verdict},
    event::{Done, State},
    request::{Points, Request},
};
use busbar_core::Input;

use crate::rng::Rng;

/// What the far side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Far {
    /// Confirms at once.
    Healthy,
    /// Takes everything, confirms nothing.
    Withholding,
    /// Confirms some, rejects some, asks for some again, in any order.
    Moody,
    /// Cannot be reached.
    Down,
}

/// The last record of one point as the far side has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Image {
    pub(crate) value: Option<f64>,
    pub(crate) quality: u16,
    pub(crate) ts_ns: i64,
}

/// One sink instance and what its far side has seen.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) plugin: usize,
    pub(crate) instance: Option<u64>,
    pub(crate) connected: bool,
    pub(crate) far: Far,
    /// Simulated time since which it has been connected and healthy, nanoseconds.
    pub(crate) well_since: Option<u64>,
    pub(crate) names: BTreeMap<u32, (String, String)>,
    pub(crate) image: BTreeMap<u32, Image>,
    /// Highest record number seen per lane.
    pub(crate) highest: BTreeMap<u32, u64>,
    /// Records delivered and not answered.
    pub(crate) withheld: Vec<(u32, u64, u32)>,
}

/// What the sink will do: inputs with their delay, milliseconds.
pub(crate) type Plan = Vec<(u64, Input)>;

impl Model {
    pub(crate) fn new(plugin: usize) -> Self {
        Self {
            plugin,
            instance: None,
            connected: false,
            far: Far::Healthy,
            well_since: None,
            names: BTreeMap::new(),
            image: BTreeMap::new(),
            highest: BTreeMap::new(),
            withheld: Vec::new(),
        }
    }

    /// The instance is gone: crash, stop, upgrade.
    pub(crate) fn gone(&mut self) {
        self.instance = None;
        self.connected = false;
        self.well_since = None;
        self.withheld.clear();
    }

    pub(crate) fn event(&self, instance: u64, request: u64, event: Event) -> Input {
        Input::Event { plugin: self.plugin, instance, request, event }
    }

    pub(crate) fn answer(&mut self, id: u64, request: u64, body: &Request) -> Plan {
        let done = self.event(id, request, Event::Done(Done::default()));
        match body {
            Request::Points(points) => {
                self.points(points);
                if request == 0 { vec![] } else { vec![(1, done)] }
            }
            Request::Connect(_) if self.far == Far::Down => {
                let failure = Failure::new(FailureKind::Session, "simulated: cannot be reached");
                vec![(5, self.event(id, request, Event::Failed(failure)))]
            }
            Request::Connect(_) => {
                self.connected = true;
                vec![(2, done)]
            }
            Request::Disconnect(_) => {
                self.connected = false;
                vec![(1, done)]
            }
            Request::Answer(_) => vec![],
            _ if request == 0 => vec![],
            _ => vec![(1, done)],
        }
    }

    fn points(&mut self, points: &Points) {
        if points.replace {
            self.names.clear();
        }
        for point in &points.points {
            self.names.insert(point.point, (point.device.clone(), point.name.clone()));
        }
        for number in &points.removed {
            self.names.remove(number);
        }
    }

    /// Takes a delivery; returns what the far side says to it.
    pub(crate) fn deliver(
        &mut self,
        rng: &mut Rng,
        id: u64,
        lane: u32,
        first: u64,
        samples: &Samples,
    ) -> Plan {
        let count = samples.samples.len() as u32;
        for (at, sample) in samples.samples.iter().enumerate() {
            let number = first + at as u64;
            let highest = self.highest.entry(lane).or_insert(0);
            // A redelivery repeats old numbers; the far side's image is what the newest record says.
            if number < *highest {
                continue;
            }
            *highest = number;
            let value = samples.value(sample).ok().and_then(|value| value.as_f64());
            self.image.insert(sample.point, Image { value, quality: sample.quality, ts_ns: sample.ts_ns });
        }
        let verdict = |verdict, first, count, reason| Ack { first, count, verdict, reason };
        let ack = |acks| Event::Ack { lane, acks };
        match self.far {
            Far::Healthy => {
                vec![(1, self.event(id, 0, ack(vec![verdict(Verdict::Delivered, first, count, 0)])))]
            }
            Far::Withholding | Far::Down => {
                self.withheld.push((lane, first, count));
                vec![]
            }
            Far::Moody => (0..u64::from(count))
                .map(|at| {
                    let (kind, reason) = match rng.between(0, 9) {
                        0 => (Verdict::Rejected, 1),
                        1 => (Verdict::Retry, 0),
                        _ => (Verdict::Delivered, 0),
                    };
                    (rng.between(1, 40), self.event(id, 0, ack(vec![verdict(kind, first + at, 1, reason)])))
                })
                .collect(),
        }
    }

    /// The far side confirms what it kept back.
    pub(crate) fn release(&mut self) -> Plan {
        let Some(id) = self.instance else { return vec![] };
        std::mem::take(&mut self.withheld)
            .into_iter()
            .map(|(lane, first, count)| {
                let acks = vec![Ack { first, count, verdict: Verdict::Delivered, reason: 0 }];
                (1, self.event(id, 0, Event::Ack { lane, acks }))
            })
            .collect()
    }

    /// The far side breaks the connection.
    pub(crate) fn drop_connection(&mut self) -> Plan {
        self.connected = false;
        self.well_since = None;
        self.withheld.clear();
        let Some(id) = self.instance else { return vec![] };
        let state = State { device: None, up: false, reason: "simulated: connection lost".into() };
        vec![(1, self.event(id, 0, Event::State(state)))]
    }
}
