//! The far side of one sink, with the plugin in between: what it was told, what it has.

use std::collections::{BTreeMap, BTreeSet};

use busbar_contract::{
    Cause, Request, Samples, batch,
    binary::{Ack, Verdict},
    request::SinkPoint,
};
use busbar_core::journal::Name;

use crate::{file::is_tracked, rng::Rng};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Confirms within 30 ms.
    Prompt,
    /// Confirms within two seconds.
    Slow,
    /// Confirms nothing.
    Withholds,
    /// Rejects, asks again, confirms out of order and twice.
    Odd,
    /// Asks again for everything of one device.
    Poison(u64),
    /// Gone.
    Down,
}

/// An answer on its way to the core.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) at_ns: u64,
    pub(crate) acks: Vec<Ack>,
    /// Values that it confirms.
    pub(crate) values: Vec<u64>,
    /// Connection on which it was given.
    pub(crate) connection: u64,
}

#[derive(Debug)]
pub(crate) struct Far {
    pub(crate) mood: Mood,
    pub(crate) instance: u64,
    pub(crate) stopped: bool,
    pub(crate) asked_to_stop: bool,
    /// Counts up with each end of a connection.
    pub(crate) connection: u64,
    /// It takes nothing until the core knows.
    pub(crate) refusing: bool,
    points: BTreeMap<u32, Name>,
    /// Name under which each value was measured.
    pub(crate) expected: BTreeMap<u64, Name>,
    /// What it has: how often it came.
    pub(crate) got: BTreeMap<u64, u32>,
    pub(crate) refused: BTreeSet<u64>,
    /// Confirmed, and the core knows.
    pub(crate) known: BTreeSet<u64>,
    /// Newest value per device, of all and of the backlog.
    newest: BTreeMap<String, u64>,
    newest_replayed: BTreeMap<String, u64>,
    /// What each point shows: bits, quality.
    pub(crate) shown: BTreeMap<Name, (u64, u16)>,
    /// Devices of which it takes nothing until the core knows that it must come again.
    blocked: BTreeMap<String, u64>,
    pub(crate) ordered: bool,
    live_first: bool,
    pub(crate) duplicates: u64,
    pub(crate) ghosts: u64,
}

impl Far {
    pub(crate) fn new(live_first: bool) -> Self {
        Self {
            mood: Mood::Prompt,
            instance: 0,
            stopped: false,
            asked_to_stop: false,
            connection: 0,
            refusing: false,
            points: BTreeMap::new(),
            expected: BTreeMap::new(),
            got: BTreeMap::new(),
            refused: BTreeSet::new(),
            known: BTreeSet::new(),
            newest: BTreeMap::new(),
            newest_replayed: BTreeMap::new(),
            shown: BTreeMap::new(),
            blocked: BTreeMap::new(),
            ordered: true,
            live_first,
            duplicates: 0,
            ghosts: 0,
        }
    }

    pub(crate) fn opened(&mut self, instance: u64) {
        self.instance = instance;
        (self.stopped, self.asked_to_stop) = (false, false);
        self.refusing = false;
        self.connection += 1;
        self.points.clear();
        self.blocked.clear();
    }

    /// The gateway died: what it knew is what its file says.
    pub(crate) fn gateway_died(&mut self) {
        self.instance = 0;
        self.known.clear();
        self.blocked.clear();
    }

    pub(crate) fn points(&mut self, body: &Request) -> Result<(), String> {
        if let Request::Connect(_) = body {
            self.blocked.clear();
        }
        let Request::Points(list) = body else { return Ok(()) };
        if list.replace {
            self.points.clear();
        }
        for point in &list.removed {
            if self.points.remove(point).is_none() {
                return Err(format!("point {point} is removed and was never told"));
            }
        }
        for point in &list.points {
            if point.point >= 1 << 31 {
                self.ghosts += 1;
            }
            if self.points.insert(point.point, name_of(point)).is_some() {
                return Err(format!("point {} is announced twice", point.point));
            }
        }
        Ok(())
    }

    /// Takes a delivery; the answers it will give.
    pub(crate) fn deliver(
        &mut self,
        rng: &mut Rng,
        now_ns: u64,
        (first, flags): (u64, u32),
        samples: &Samples,
        delivered: &dyn Fn(u64) -> bool,
    ) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::new();
        for (number, sample) in (first..).zip(&samples.samples) {
            let name = self
                .points
                .get(&sample.point)
                .ok_or(format!("record {number} names point {}, which was not announced", sample.point))?
                .clone();
            let at_ns = now_ns + self.delay(rng);
            let verdict = self.judge(rng, now_ns, at_ns, &name, sample.flags);
            let tracked = is_tracked(sample.flags);
            let value = sample.bits;
            if tracked && (self.known.contains(&value) || delivered(value)) {
                return Err(format!("value {value} comes again though its confirmation was known"));
            }
            if tracked && self.expected.get(&value) != Some(&name) {
                return Err(format!("value {value} comes as {name:?}, was {:?}", self.expected.get(&value)));
            }
            match verdict {
                Verdict::Delivered => {
                    if tracked {
                        self.take(&name.device, value, flags)?;
                    }
                    if Cause::of(sample.flags) != Cause::History {
                        self.shown.insert(name, (value, sample.quality));
                    }
                }
                Verdict::Rejected if tracked => {
                    self.refused.insert(value);
                }
                Verdict::Rejected | Verdict::Retry => {}
            }
            if matches!(self.mood, Mood::Withholds | Mood::Down) {
                continue;
            }
            let ack = Ack { first: number, count: 1, verdict, reason: 1 };
            let values = (tracked && verdict != Verdict::Retry).then_some(value).into_iter().collect();
            answers.push(Answer { at_ns, acks: vec![ack], values, connection: self.connection });
        }
        if !matches!(self.mood, Mood::Odd | Mood::Slow) && !answers.is_empty() {
            // One answer for all of it.
            let at_ns = answers.iter().map(|answer| answer.at_ns).max().unwrap_or(now_ns);
            let acks = answers.iter().flat_map(|answer| answer.acks.clone()).collect();
            let values = answers.iter().flat_map(|answer| answer.values.clone()).collect();
            for blocked in self.blocked.values_mut() {
                *blocked = (*blocked).max(at_ns);
            }
            answers = vec![Answer { at_ns, acks, values, connection: self.connection }];
        }
        Ok(answers)
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let most = if self.mood == Mood::Slow { 2_000 } else { 30 };
        rng.range(1, most) * 1_000_000
    }

    fn judge(&mut self, rng: &mut Rng, now_ns: u64, at_ns: u64, name: &Name, flags: u8) -> Verdict {
        self.blocked.retain(|_, until| *until >= now_ns);
        let poisoned = matches!(self.mood, Mood::Poison(device) if name.device == format!("d{device}"));
        let verdict = match self.mood {
            _ if self.blocked.contains_key(&name.device) => Verdict::Retry,
            _ if !is_tracked(flags) => Verdict::Delivered,
            _ if poisoned => Verdict::Retry,
            Mood::Odd if rng.chance(8) => Verdict::Rejected,
            Mood::Odd if rng.chance(8) => Verdict::Retry,
            _ => Verdict::Delivered,
        };
        if verdict == Verdict::Retry {
            // Without an answer nothing of the device is taken before the next connection.
            let at_ns = if matches!(self.mood, Mood::Withholds | Mood::Down) { u64::MAX } else { at_ns };
            let until = self.blocked.entry(name.device.clone()).or_default();
            *until = (*until).max(at_ns);
        }
        verdict
    }

    fn take(&mut self, device: &str, value: u64, flags: u32) -> Result<(), String> {
        let count = self.got.entry(value).or_default();
        *count += 1;
        if *count > 1 {
            self.duplicates += 1;
            return Ok(());
        }
        let replayed = flags & batch::REPLAY != 0;
        let newest = match (self.live_first, replayed) {
            (true, true) => &mut self.newest_replayed,
            (true, false) => return Ok(()),
            (false, _) => &mut self.newest,
        };
        let newest = newest.entry(device.to_owned()).or_default();
        // What it refused before, and the gateway forgot, it may take now.
        if self.ordered && value < *newest && !self.refused.contains(&value) {
            return Err(format!("order: {device} {value} comes after {newest}"));
        }
        *newest = (*newest).max(value);
        Ok(())
    }
}

fn name_of(point: &SinkPoint) -> Name {
    Name { device: point.device.clone(), point: point.name.clone(), unit: point.unit.clone() }
}
