//! One opened endpoint or sink, in-process or in a worker.

use std::{sync::Arc, time::Duration};

use busbar_abi::{InstanceBox, Message};
use busbar_contract::{Request, Samples, batch};

use crate::{
    call::guard,
    host::Admission,
    receive::{MAX_BODY, Receiver},
};

/// Records for a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Record number of the first sample; the others count on.
    pub first: u64,
    /// Lane of the sink's queue.
    pub lane: u32,
    /// Bit set of `busbar_contract::batch`.
    pub flags: u32,
    /// The records.
    pub samples: Samples,
}

/// An instance. Every call only enqueues and returns (R2); dropping it only releases memory (R7), so stop it first
/// and wait for `Event::Stopped`.
///
/// In-process a plugin that breaks R2 blocks the thread that calls it: call each plugin from a thread of its own.
pub struct Instance {
    inst: u64,
    receiver: Arc<Receiver>,
    side: Side,
}

pub(crate) enum Side {
    Local(InstanceBox),
    Remote(Arc<dyn Remote>),
}

/// The far end of an instance in a worker process.
pub(crate) trait Remote: Send + Sync {
    fn submit(&self, inst: u64, op: u32, req: u64, body: Vec<u8>) -> Admission;
    fn deliver(&self, inst: u64, delivery: Delivery) -> Admission;
    fn stop(&self, inst: u64, deadline: Duration);
    fn close(&self, inst: u64);
}

impl Instance {
    pub(crate) const fn new(inst: u64, receiver: Arc<Receiver>, side: Side) -> Self {
        Self { inst, receiver, side }
    }

    /// Number given at `open`.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.inst
    }

    /// Sends a request. When taken, exactly one completion follows (R4) with the same `req`, which must not be 0
    /// and not be in use.
    pub fn submit(&self, req: u64, request: &Request) -> Admission {
        let (op, body) = (request.op(), request.encode());
        if body.len() > MAX_BODY {
            tracing::error!(
                op,
                bytes = body.len(),
                limit = MAX_BODY,
                "a request is too large and was not sent"
            );
            return Admission::Refused;
        }
        match &self.side {
            Side::Local(instance) => {
                answer(guard(|| instance.submit(Message { op, req, body: body.into() })))
            }
            Side::Remote(worker) => worker.submit(self.inst, op, req, body),
        }
    }

    /// Hands records to a sink; its verdicts come as `Event::Ack`. More than `batch::MAX_SAMPLES` records or
    /// `batch::MAX_BLOB` bytes are refused.
    pub fn deliver(&self, delivery: Delivery) -> Admission {
        let (samples, bytes) = (delivery.samples.samples.len(), delivery.samples.blob.len());
        if samples > batch::MAX_SAMPLES || bytes > batch::MAX_BLOB {
            tracing::error!(samples, bytes, "a delivery is too large and was not sent");
            return Admission::Refused;
        }
        match &self.side {
            Side::Local(instance) => {
                let Delivery { first, lane, flags, samples } = delivery;
                answer(guard(|| instance.deliver(samples.into_batch(first, lane, flags))))
            }
            Side::Remote(worker) => worker.deliver(self.inst, delivery),
        }
    }

    /// Asks for an orderly end; `Event::Stopped` follows.
    pub fn stop(&self, deadline: Duration) {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        match &self.side {
            Side::Local(instance) => {
                let _ = answer(guard(|| {
                    instance.stop(deadline_ms);
                    0
                }));
            }
            Side::Remote(worker) => worker.stop(self.inst, deadline),
        }
    }

    /// Drops whatever still arrives from this instance, also before it said STOPPED (R3). For an instance that did
    /// not stop in time.
    pub fn abandon(&self) {
        self.receiver.unregister(self.inst);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Side::Remote(worker) = &self.side {
            worker.close(self.inst);
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("inst", &self.inst).finish_non_exhaustive()
    }
}

fn answer(code: Result<u32, String>) -> Admission {
    code.map_or_else(
        |text| {
            tracing::error!(panic = text, "a call into a plugin panicked on the host's side");
            Admission::Refused
        },
        Admission::from_code,
    )
}
