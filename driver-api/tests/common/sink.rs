//! What tests of a sink need beside the [`Rig`].

use busbar_contract::{
    Cause, Event, Flags, Quality, Request, Samples, Value,
    binary::{Ack, Verdict},
    request::{OfDevice, Points, SinkPoint},
};
use busbar_loader::Instance;
use serde_json::Value as Json;

use super::{LONG_MS, Rig};

/// CONNECT and PROBE of a sink are about its far side.
pub const FAR_SIDE: OfDevice = OfDevice { device: None, deadline_ms: LONG_MS };

impl Rig {
    /// Routes these points and no others.
    pub fn route(&mut self, instance: &Instance, points: Vec<SinkPoint>) {
        self.done(instance, &Request::Points(Points { replace: true, points, removed: vec![] }));
    }

    /// Acknowledgements until `count` records are settled, sorted, neighbours merged. (A delivery that comes while there
    /// is no connection is answered with "retry" by the SDK, which settles nothing.)
    pub fn acks(&mut self, count: u32) -> Vec<Ack> {
        let (mut all, mut total): (Vec<Ack>, u32) = (Vec::new(), 0);
        while total < count {
            let (_, event) = self.event(|event| matches!(event, Event::Ack { .. }));
            let Event::Ack { lane: 0, acks } = event else { panic!("{event:?}") };
            let ends = acks.into_iter().filter(|ack| ack.verdict != Verdict::Retry);
            for ack in ends {
                total += ack.count;
                all.push(ack);
            }
        }
        all.sort_by_key(|ack| ack.first);
        let mut merged: Vec<Ack> = Vec::new();
        for ack in all {
            match merged.last_mut() {
                Some(last)
                    if last.first + u64::from(last.count) == ack.first
                        && (last.verdict, last.reason) == (ack.verdict, ack.reason) =>
                {
                    last.count += ack.count;
                }
                _ => merged.push(ack),
            }
        }
        merged
    }

    /// The reason why the connection ended.
    pub fn lost(&mut self) -> String {
        match self.event(|event| matches!(event, Event::State(state) if !state.up)).1 {
            Event::State(state) => state.reason,
            other => panic!("{other:?}"),
        }
    }

    /// Code and text of an alarm.
    pub fn fault(&mut self) -> (String, String) {
        match self.event(|event| matches!(event, Event::Fault(_))).1 {
            Event::Fault(fault) => (fault.code, fault.text),
            other => panic!("{other:?}"),
        }
    }
}

pub fn delivered(first: u64, count: u32) -> Ack {
    Ack { first, count, verdict: Verdict::Delivered, reason: 0 }
}

pub fn rejected(first: u64, count: u32, reason: u16) -> Ack {
    Ack { first, count, verdict: Verdict::Rejected, reason }
}

/// A routed point, in volts.
pub fn routed(number: u32, device: &str, name: &str) -> SinkPoint {
    SinkPoint {
        point: number,
        device: device.into(),
        name: name.into(),
        unit: "V".into(),
        description: String::new(),
        metadata: Json::Null,
        writable: true,
        map: vec![],
    }
}

/// A good sample of a poll, stamped by the gateway.
pub fn polled(samples: &mut Samples, point: u32, ts_ns: i64, value: &Value) {
    samples.push(point, ts_ns, value, Quality::GOOD, Flags::new(Cause::Poll, Flags::GATEWAY_TIME));
}
