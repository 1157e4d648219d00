//! What the host must still take, in order; and what happens when it does not.

use std::time::Duration;

use busbar_abi::{ACCEPTED, Batch, CONGESTED, HostBox, Message, REFUSED};
use busbar_contract::{Event, Request, Samples, batch, event::Gap, op::request as op, request::Committed};

use super::{Item, Port, Work};
use crate::{Readings, Update, runtime::stats::STATS, time};

/// After the host said "congested", unsolicited samples pause for this time.
const PAUSE: Duration = Duration::from_millis(5);
/// Unsolicited samples are dropped after the host refused them for this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something the host must still take.
pub(super) enum Wire {
    Batch {
        id: u64,
        token: u32,
        flags: u32,
        samples: Samples,
        device: Option<u32>,
        give_up: Option<Duration>,
    },
    Event {
        op: u32,
        request: u64,
        body: Vec<u8>,
    },
}

impl Port {
    /// Completes a read. The readings stay the caller's, so that nothing is lost when the host refuses.
    pub(crate) fn complete_read(&mut self, request: u64, flags: u32, readings: &Readings) {
        STATS.completions.add(1);
        let flags = flags | batch::LAST;
        self.flush();
        if self.wire.is_empty() {
            let batch = Batch {
                id: request,
                op: 0,
                flags,
                samples: readings.samples.as_slice().into(),
                blob: readings.blob.as_slice().into(),
            };
            STATS.samples.add(readings.samples.len() as u64);
            if self.host.push(self.inst, batch) != REFUSED {
                return;
            }
        }
        let samples = Samples { samples: readings.samples.clone(), blob: readings.blob.clone() };
        self.wire.push_back(Wire::Batch {
            id: request,
            token: 0,
            flags,
            samples,
            device: None,
            give_up: None,
        });
    }

    /// Sends unsolicited samples, in parts of at most [`batch::MAX_SAMPLES`]; only the last part carries the token.
    pub(crate) fn publish(&mut self, update: Update) {
        let Update { device, mut samples, token, flags, .. } = update;
        if samples.samples.is_empty() {
            return;
        }
        let give_up = Some(time::monotonic() + PATIENCE);
        while samples.samples.len() > batch::MAX_SAMPLES && flags & batch::BLOCK == 0 {
            let rest = samples.samples.split_off(batch::MAX_SAMPLES);
            let blob = samples.blob.clone();
            let first = std::mem::replace(&mut samples, Samples { samples: rest, blob });
            self.wire.push_back(Wire::Batch { id: 0, token: 0, flags, samples: first, device, give_up });
        }
        self.wire.push_back(Wire::Batch { id: 0, token, flags, samples, device, give_up });
        self.flush();
    }

    /// Offers the host what waits, oldest first, until it refuses.
    pub(super) fn flush(&mut self) {
        while let Some(item) = self.wire.front() {
            let code = item.offer(self.inst, &self.host);
            if code == REFUSED {
                STATS.refused_by_host.add(1);
                if let Some(dropped) = item.given_up(time::monotonic()) {
                    self.give_up(dropped);
                }
                return;
            }
            if code == CONGESTED {
                self.paused_until = time::monotonic() + PAUSE;
            } else if code != ACCEPTED {
                STATS.unsupported_by_host.add(1);
            }
            if let Some(Wire::Batch { samples, .. }) = self.wire.pop_front() {
                STATS.samples.add(samples.samples.len() as u64);
            }
        }
    }

    /// The oldest samples make room for the news of their loss (R9); their commit token failed.
    fn give_up(&mut self, dropped: Dropped) {
        STATS.dropped_samples.add(dropped.samples);
        if let Some(front) = self.wire.front_mut() {
            *front = dropped.gap;
        }
        if let Some(device) = dropped.device.filter(|_| dropped.token != 0) {
            let request = Request::Committed(Committed { device, token: dropped.token, ok: false });
            let item = Item { op: op::COMMITTED, request: 0, deadline: None, work: Work::Request(request) };
            self.queue.push_back(item);
        }
    }
}

impl Wire {
    fn offer(&self, inst: u64, host: &HostBox) -> u32 {
        match self {
            Self::Batch { id, token, flags, samples, .. } => host.push(
                inst,
                Batch {
                    id: *id,
                    op: *token,
                    flags: *flags,
                    samples: samples.samples.as_slice().into(),
                    blob: samples.blob.as_slice().into(),
                },
            ),
            Self::Event { op, request, body } => {
                host.event(inst, Message { op: *op, req: *request, body: body.as_slice().into() })
            }
        }
    }

    /// What takes the place of samples that were refused for too long.
    fn given_up(&self, now: Duration) -> Option<Dropped> {
        let Self::Batch { token, samples, device, give_up: Some(give_up), .. } = self else {
            return None;
        };
        if now < *give_up {
            return None;
        }
        let mut points: Vec<u32> = samples.samples.iter().map(|sample| sample.point).collect();
        points.sort_unstable();
        points.dedup();
        let count = samples.samples.len() as u64;
        let reason = format!("the host refused {count} samples for {} s", PATIENCE.as_secs());
        tracing::warn!(
            samples = count,
            "the host is congested: samples were dropped, the points will be read again"
        );
        let event = Event::Gap(Gap { device: device.unwrap_or(u32::MAX), reason, points });
        let gap = Self::Event { op: event.op(), request: 0, body: event.encode() };
        Some(Dropped { gap, samples: count, token: *token, device: *device })
    }
}

/// Samples that were given up.
struct Dropped {
    gap: Wire,
    samples: u64,
    token: u32,
    device: Option<u32>,
}
