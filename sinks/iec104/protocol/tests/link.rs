//! Two ends over a channel that keeps order and takes its time, hundreds of seeded histories.
//!
//! Checked in every one: what is delivered is exactly what was sent, in order; no more than k are open; what is
//! acknowledged was delivered; nothing closes while the channel is quicker than t1 - t2; and a channel that stands
//! still for longer than t3 + t1 closes both ends.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use busbar_iec104::apci::{Decoded, decode};
use busbar_iec104::link::{Input, Link, Output, Parameters, Phase, Role};
use common::Random;

struct End {
    link: Link,
    k: usize,
    sent: u32,
    delivered: u32,
    acknowledged: u32,
    /// Bytes under way to this end, with the moment they arrive.
    inbox: VecDeque<(Duration, Vec<u8>)>,
    stream: Vec<u8>,
    closed: bool,
}

impl End {
    fn new(role: Role, parameters: Parameters) -> Self {
        let link = Link::new(role, parameters, Duration::ZERO);
        let (inbox, stream) = (VecDeque::new(), Vec::new());
        Self {
            link,
            k: parameters.k.into(),
            sent: 0,
            delivered: 0,
            acknowledged: 0,
            inbox,
            stream,
            closed: false,
        }
    }
}

struct World {
    ends: [End; 2],
    now: Duration,
    random: Random,
    /// Longest time a piece of bytes is under way.
    latency: u64,
    stalled: bool,
}

impl World {
    fn new(seed: u64, parameters: Parameters, latency: u64) -> Self {
        let ends = [End::new(Role::Controlled, parameters), End::new(Role::Controlling, parameters)];
        Self { ends, now: Duration::ZERO, random: Random(seed), latency, stalled: false }
    }

    fn apply(&mut self, end: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Transmit(bytes) => {
                    let earliest = self.ends[1 - end].inbox.back().map_or(Duration::ZERO, |(at, _)| *at);
                    let mut at = self.now + Duration::from_millis(self.random.below(self.latency + 1));
                    for piece in bytes.chunks(1 + self.random.below(8) as usize) {
                        at = at.max(earliest);
                        self.ends[1 - end].inbox.push_back((at, piece.to_vec()));
                    }
                }
                Output::Deliver(asdu) => {
                    let number = u32::from_le_bytes(asdu.try_into().unwrap());
                    assert_eq!(number, self.ends[end].delivered, "in order, once");
                    self.ends[end].delivered += 1;
                }
                Output::Acknowledged(count) => self.ends[end].acknowledged += count as u32,
                Output::Started | Output::Stopped => {}
                Output::Close(fault) => {
                    assert!(self.stalled, "closed on a good channel: {fault}");
                    self.ends[end].closed = true;
                }
            }
        }
        let [a, b] = &self.ends;
        for (me, other) in [(a, b), (b, a)] {
            assert!(me.link.unacknowledged() <= me.k);
            assert!(me.acknowledged <= other.delivered, "acknowledged, but never delivered");
        }
    }

    fn receive(&mut self, end: usize) {
        while !self.stalled && self.ends[end].inbox.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, bytes) = self.ends[end].inbox.pop_front().unwrap();
            self.ends[end].stream.extend_from_slice(&bytes);
            if self.random.below(4) == 0 {
                break;
            }
        }
        let mut stream = std::mem::take(&mut self.ends[end].stream);
        let mut out = Vec::new();
        while let Ok(Decoded::Frame { apdu, used }) = decode(&stream) {
            self.ends[end].link.step(self.now, Input::Frame(apdu), &mut out);
            stream.drain(..used);
        }
        assert!(stream.len() < 255);
        self.ends[end].stream = stream;
        self.apply(end, out);
    }

    fn send(&mut self, end: usize) {
        let mut out = Vec::new();
        let number = self.ends[end].sent;
        if self.ends[end].link.send(self.now, &number.to_le_bytes(), &mut out) {
            self.ends[end].sent += 1;
        }
        self.apply(end, out);
    }

    fn step(&mut self, end: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.ends[end].link.step(self.now, input, &mut out);
        self.apply(end, out);
    }

    /// Goes on to the next moment at which anything is due, or by a little.
    fn pass(&mut self) {
        let stalled = self.stalled;
        let due = |end: &End| {
            let arrival = end.inbox.front().filter(|_| !stalled).map(|(at, _)| *at);
            [end.link.deadline(), arrival].into_iter().flatten().min()
        };
        let next = self.ends.iter().filter_map(due).min();
        let little = self.now + Duration::from_millis(1 + self.random.below(400));
        self.now = next.map_or(little, |at| at.clamp(self.now, little));
        for end in 0..2 {
            if self.ends[end].link.deadline().is_some_and(|at| at <= self.now) {
                self.step(end, Input::Tick);
            }
        }
    }

    fn turn(&mut self) {
        match self.random.below(100) {
            0..=29 => self.send(0),
            30..=44 => self.send(1),
            45..=46 => self.step(1, Input::Start),
            47 => self.step(1, Input::Stop),
            48..=89 => {
                let end = self.random.below(2) as usize;
                self.receive(end);
            }
            _ => {}
        }
        self.pass();
    }
}

fn parameters(random: &mut Random) -> Parameters {
    let k = 1 + random.below(20) as u16;
    Parameters { k, w: 1 + random.below(u64::from(k)) as u16, ..Parameters::default() }
}

#[test]
fn nothing_is_lost_doubled_or_reordered() {
    let mut moved = 0;
    for seed in 0..250 {
        let parameters = parameters(&mut Random(seed));
        let mut world = World::new(seed, parameters, 600);
        world.step(1, Input::Start);
        for _ in 0..1_500 {
            world.turn();
        }
        // Let everything arrive, and every acknowledgement come by t2.
        let end = world.now + Duration::from_secs(60);
        while world.now < end {
            world.receive(0);
            world.receive(1);
            world.pass();
        }
        for (me, other) in [(0, 1), (1, 0)] {
            assert_eq!(world.ends[me].sent, world.ends[other].delivered, "seed {seed}");
            assert_eq!(world.ends[me].sent, world.ends[me].acknowledged, "seed {seed}");
        }
        moved += world.ends[0].sent;
    }
    assert!(moved > 10_000, "the histories move data: {moved}");
}

#[test]
fn a_channel_that_stands_still_closes_both_ends() {
    for seed in 0..200 {
        let parameters = parameters(&mut Random(seed));
        let mut world = World::new(seed, parameters, 200);
        world.step(1, Input::Start);
        for _ in 0..300 {
            world.turn();
        }
        world.stalled = true;
        let end = world.now + Duration::from_secs(36);
        while world.now < end {
            world.pass();
        }
        for end in &world.ends {
            assert!(end.closed && end.link.phase() == Phase::Closed, "seed {seed}");
        }
    }
}
