//! A station, its masters, and a clock that goes on only when told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use busbar_iec104::apci::{Decoded, Seq, decode, supervision};
use busbar_iec104::asdu::{Asdu, Cause, Element, Object, Qds, Reason, Stamp, Tag, TypeId};
use busbar_iec104::link::{Input, Link, Output as LinkOutput, Parameters, Role};
use busbar_iec104::station::{
    CommandPoint, Config, ConnectionId, Event, Lane, Now, Output, Point, SelectMode, Station,
};

/// 2026-02-28 23:59:58.123 UTC.
pub(crate) const UTC: i64 = 1_772_323_198_123_000_000;

pub(crate) struct Master {
    link: Link,
    /// ASDUs that came.
    pub(crate) asdus: Vec<Vec<u8>>,
    received: u16,
    pub(crate) open: bool,
}

pub(crate) struct Bench {
    pub(crate) station: Station,
    pub(crate) now: Duration,
    pub(crate) masters: BTreeMap<u64, Master>,
    /// What is for the host.
    pub(crate) host: Vec<Output>,
    /// Bytes under way, in their order: to the master, or to the station.
    wire: VecDeque<(bool, u64, Vec<u8>)>,
}

pub(crate) fn point(ioa: u32, type_id: TypeId) -> Point {
    Point { common_address: 1, ioa, type_id, group: None }
}

pub(crate) fn command(ioa: u32, type_id: TypeId) -> CommandPoint {
    CommandPoint { common_address: 1, ioa, type_id, select: SelectMode::Direct, qualifier: None }
}

pub(crate) fn config(lanes: usize) -> Config {
    let lanes = (0..lanes).map(|n| Lane { name: format!("lane {n}"), commands: true }).collect();
    Config { lanes, end_of_initialisation: false, common_addresses: vec![1], ..Config::default() }
}

pub(crate) fn good(on: bool) -> Element {
    Element::Single(on, Qds::GOOD)
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let station = Station::new(config).expect("a good configuration");
        Self {
            station,
            now: Duration::ZERO,
            masters: BTreeMap::new(),
            host: Vec::new(),
            wire: VecDeque::new(),
        }
    }

    /// A station with one started master, number 1.
    pub(crate) fn started(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.open(1, 0);
        bench.start(1);
        bench.host.clear();
        bench
    }

    pub(crate) fn now(&self) -> Now {
        let utc = UTC + i64::try_from(self.now.as_nanos()).unwrap();
        Now { elapsed: self.now, utc: Stamp::utc(utc) }
    }

    /// A master that acknowledges at once.
    pub(crate) fn open(&mut self, id: u64, lane: usize) {
        self.open_with(id, lane, 1);
    }

    /// A master that acknowledges after `w` ASDUs.
    pub(crate) fn open_with(&mut self, id: u64, lane: usize, w: u16) {
        assert!(self.station.opened(self.now(), ConnectionId(id), lane));
        let parameters = Parameters { k: 30_000, w, ..Parameters::default() };
        let link = Link::new(Role::Controlling, parameters, self.now);
        let master = Master { link, asdus: Vec::new(), received: 0, open: true };
        self.masters.insert(id, master);
    }

    pub(crate) fn start(&mut self, id: u64) {
        self.link(id, Input::Start);
    }

    pub(crate) fn link(&mut self, id: u64, input: Input<'_>) {
        let mut out = Vec::new();
        let now = self.now;
        self.master(id).link.step(now, input, &mut out);
        self.read(id, out);
    }

    pub(crate) fn master(&mut self, id: u64) -> &mut Master {
        self.masters.get_mut(&id).expect("a master")
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, id: u64) {
        self.masters.remove(&id);
        let mut out = Vec::new();
        self.station.closed(self.now(), ConnectionId(id), &mut out);
        self.deliver(out);
    }

    pub(crate) fn raw(&mut self, id: u64, bytes: &[u8]) {
        self.wire.push_back((false, id, bytes.to_vec()));
        self.run();
    }

    /// The frame of an ASDU, which is not sent.
    pub(crate) fn frame(&mut self, id: u64, asdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let now = self.now;
        assert!(self.master(id).link.send(now, asdu, &mut out), "the master may not send");
        match out.pop() {
            Some(LinkOutput::Transmit(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn acknowledge(&mut self, id: u64) {
        let received = self.master(id).received;
        self.raw(id, &supervision(Seq::new(received)));
    }

    pub(crate) fn send(&mut self, id: u64, asdu: &[u8]) {
        let frame = self.frame(id, asdu);
        self.raw(id, &frame);
    }

    /// Sends, and gives what came back.
    pub(crate) fn ask(&mut self, id: u64, asdu: &[u8]) -> Vec<Vec<u8>> {
        self.take(id);
        self.send(id, asdu);
        self.take(id)
    }

    pub(crate) fn take(&mut self, id: u64) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.master(id).asdus)
    }

    pub(crate) fn update(&mut self, point: usize, element: Element) {
        self.station.update(point, element, false).unwrap();
    }

    pub(crate) fn event(&mut self, lane: usize, record: u64, point: usize, element: Element) {
        let mut out = Vec::new();
        let stamp = self.now().utc;
        let event = Event { record, point, element, stamp, reason: Reason::SPONTANEOUS, test: false };
        self.station.update(point, element, false).unwrap();
        self.station.event(lane, event, &mut out).unwrap();
        self.deliver(out);
    }

    pub(crate) fn flush(&mut self) {
        let mut out = Vec::new();
        self.station.flush(self.now(), &mut out);
        self.deliver(out);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut out = Vec::new();
        self.station.tick(self.now(), &mut out);
        self.deliver(out);
    }

    pub(crate) fn deliver(&mut self, out: Vec<Output>) {
        self.sort(out);
        self.run();
    }

    fn sort(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Transmit { connection, bytes } => self.wire.push_back((true, connection.0, bytes)),
                Output::Close { connection, .. } => {
                    if let Some(master) = self.masters.get_mut(&connection.0) {
                        master.open = false;
                    }
                    self.host.push(output);
                }
                other => self.host.push(other),
            }
        }
    }

    /// Everything that is under way arrives, and what follows from it.
    fn run(&mut self) {
        while let Some((to_master, id, bytes)) = self.wire.pop_front() {
            if to_master {
                self.write(id, &bytes);
            } else {
                let mut out = Vec::new();
                self.station.received(self.now(), ConnectionId(id), &bytes, &mut out);
                self.sort(out);
            }
        }
    }

    fn write(&mut self, id: u64, bytes: &[u8]) {
        let now = self.now;
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Ok(Decoded::Frame { apdu, used }) = decode(bytes) else { panic!("no frame: {bytes:02x?}") };
        assert_eq!(used, bytes.len(), "one frame at a time");
        let mut out = Vec::new();
        master.link.step(now, Input::Frame(apdu), &mut out);
        self.sort_master(id, out);
    }

    fn read(&mut self, id: u64, out: Vec<LinkOutput>) {
        self.sort_master(id, out);
        self.run();
    }

    fn sort_master(&mut self, id: u64, out: Vec<LinkOutput>) {
        for output in out {
            match output {
                LinkOutput::Transmit(bytes) => self.wire.push_back((false, id, bytes)),
                LinkOutput::Deliver(asdu) => {
                    let master = self.master(id);
                    master.received = (master.received + 1) % Seq::MODULUS;
                    master.asdus.push(asdu);
                }
                LinkOutput::Close(fault) => panic!("master {id}: {fault}"),
                _ => {}
            }
        }
    }
}

/// One ASDU of a master with originator 7.
pub(crate) fn asdu(
    type_id: TypeId,
    reason: Reason,
    common_address: u16,
    ioa: u32,
    element: Element,
) -> Vec<u8> {
    tagged(type_id, reason, common_address, ioa, element, Tag::None)
}

pub(crate) fn tagged(
    type_id: TypeId,
    reason: Reason,
    ca: u16,
    ioa: u32,
    element: Element,
    tag: Tag,
) -> Vec<u8> {
    Asdu::single(type_id, Cause::new(reason, 7), ca, Object { ioa, element, tag }).unwrap()
}

/// The same with another reason and P/N.
pub(crate) fn answered(request: &[u8], reason: Reason, negative: bool) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[2] = reason.0 | if negative { 0x40 } else { 0 };
    answer
}

pub(crate) fn objects(asdus: &[Vec<u8>]) -> Vec<(TypeId, Reason, Object)> {
    let decoded = asdus.iter().map(|octets| Asdu::decode(octets).unwrap());
    decoded
        .flat_map(|asdu| {
            asdu.objects.into_iter().map(move |o| (asdu.header.type_id, asdu.header.cause.reason, o))
        })
        .collect()
}
