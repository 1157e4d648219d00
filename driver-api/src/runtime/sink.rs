//! Serves a sink's instance: the point list, the connection, deliveries.
//!
//! The point list is the SDK's and outlives connections. A delivery without a connection is answered with "retry": the
//! host's queue keeps the records.

use std::{future::pending, time::Duration};

use busbar_abi::Batch;
use busbar_contract::{
    Event, FailureKind, Request, Samples, batch,
    binary::{Ack, Verdict},
    event::{Done, State},
    request::{AnswerTo, Points, SinkPoint},
};
use tracing::{Instrument, Span};

use super::{
    Engine,
    port::{Item, Outcome, Port, Work},
    stats::STATS,
};
use crate::{
    Delivery, Error, Link, PointsChange, Result, RoutedPoint, Sink, check, guard::guarded_drop, time, trace,
};

/// Time limit of plugin code that the host gave none. A sink that has no room for this long is as good as disconnected.
const CALLBACK_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct SinkEngine<S: Sink> {
    span: Span,
    link: Link<S>,
    session: Option<S>,
}

impl<S: Sink> SinkEngine<S> {
    pub(crate) fn new(inst: u64, link: Link<S>) -> Self {
        Self { span: trace::device_span(inst, trace::NO_DEVICE), link, session: None }
    }

    fn settle<T>(&mut self, outcome: Outcome<Result<T>>, what: &str) -> Result<T> {
        let result = match outcome {
            Outcome::Done(result) => result,
            Outcome::Panicked(panic) => Err(Error::bug(format!("bug in the sink, panic in {what}: {panic}"))),
            Outcome::Deadline => Err(Error::deadline(format!(
                "{what} was not complete by its deadline; the connection was dropped"
            ))),
            Outcome::Stopped | Outcome::Interrupted => {
                self.drop_session();
                Err(Error::cancelled("the instance is stopping"))
            }
        };
        if result.as_ref().is_err_and(Error::ends_session) {
            self.drop_session();
        }
        result
    }

    fn drop_session(&mut self) {
        if let Some(session) = self.session.take() {
            let _entered = self.span.enter();
            guarded_drop(session);
            self.link.ctx.shared.tasks.abort();
        }
    }

    async fn serve_request(&mut self, port: &mut Port, item: &Item, request: &Request) -> Result<Done> {
        match request {
            Request::Connect(_) => self.connect(port, item).await?,
            Request::Disconnect(_) => self.disconnect(port, item).await,
            Request::Probe(_) => {
                let session = self.session.as_mut().ok_or_else(not_connected)?;
                let probing = session.probe(&self.link).instrument(self.span.clone());
                let outcome = port.drive(item.request, item.deadline, probing).await;
                self.settle(outcome, "the liveness probe")?;
            }
            Request::Points(points) => self.points(port, points).await?,
            _ => return Err(Error::unsupported("a sink does not serve this operation")),
        }
        Ok(Done::default())
    }

    async fn connect(&mut self, port: &mut Port, item: &Item) -> Result<()> {
        self.disconnect(port, item).await;
        let opening = S::open(&self.link).instrument(self.span.clone());
        let outcome = port.drive(item.request, item.deadline, opening).await;
        self.session = Some(self.settle(outcome, "connecting")?);
        Ok(())
    }

    async fn disconnect(&mut self, port: &mut Port, item: &Item) {
        if let Some(session) = self.session.take() {
            let closing = session.close(&self.link).instrument(self.span.clone());
            if let Outcome::Panicked(panic) = port.drive(item.request, item.deadline, closing).await {
                tracing::error!(panic, "bug in the sink: panic while closing the connection");
            }
            self.link.ctx.shared.tasks.end().await;
        }
    }

    async fn points(&mut self, port: &mut Port, body: &Points) -> Result<()> {
        let mut change = PointsChange { replaced: body.replace, ..PointsChange::default() };
        let mut problems = Vec::new();
        let mut fresh = Vec::with_capacity(body.points.len());
        for point in &body.points {
            match routed(point) {
                Ok(point) => fresh.push(point),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Error::configuration(problems.join("; ")));
        }
        if body.replace {
            self.link.points.by_number.clear();
        }
        for number in &body.removed {
            if self.link.points.by_number.remove(number).is_some() {
                change.removed.push(*number);
            }
        }
        for point in fresh {
            change.changed.push(point.number);
            self.link.points.by_number.insert(point.number, point);
        }
        self.tell(port, "the new point list", async |session, link| session.points(link, &change).await)
            .await;
        Ok(())
    }

    /// Runs a callback of a live connection; its loss is told as STATE.
    async fn tell(
        &mut self,
        port: &mut Port,
        what: &str,
        callback: impl AsyncFnOnce(&mut S, &Link<S>) -> Result<()>,
    ) {
        let Some(session) = self.session.as_mut() else {
            return;
        };
        let limit = Some(time::monotonic() + CALLBACK_LIMIT);
        let outcome = port.drive(0, limit, callback(session, &self.link).instrument(self.span.clone())).await;
        if let Err(error) = self.settle(outcome, what) {
            self.lost(port, &error);
        }
    }

    /// Whatever the error is called: records may be half delivered, so the connection is over.
    fn lost(&mut self, port: &mut Port, error: &Error) {
        self.drop_session();
        if error.kind() != FailureKind::Cancelled {
            let state = State { device: None, up: false, reason: error.to_string() };
            port.send_event(0, &Event::State(state));
        }
    }

    async fn deliver(&mut self, port: &mut Port, batch: &Batch) {
        let delivery = match delivery(batch) {
            Ok(delivery) => delivery,
            Err(error) => {
                STATS.dropped_deliveries.add(1);
                tracing::error!(%error, "the host delivered a batch that breaks the contract; it was not acknowledged");
                return;
            }
        };
        if self.session.is_none() {
            let ack = Ack {
                first: delivery.first,
                count: u32::try_from(delivery.len()).unwrap_or(u32::MAX),
                verdict: Verdict::Retry,
                reason: 0,
            };
            port.send_event(0, &Event::Ack { lane: delivery.lane, acks: vec![ack] });
            return;
        }
        self.tell(port, "a delivery", async |session, link| session.deliver(link, &delivery).await).await;
    }

    async fn answered(&mut self, port: &mut Port, request: u64, answer: &AnswerTo) {
        self.tell(port, "an answer", async |session, link| session.answered(link, request, answer).await)
            .await;
    }
}

impl<S: Sink> Engine for SinkEngine<S> {
    async fn serve(&mut self, port: &mut Port, item: Item) {
        match &item.work {
            Work::Batch(batch) => self.deliver(port, batch).await,
            Work::Answered(request, answer) => self.answered(port, *request, answer).await,
            Work::Bad(malformed) => {
                port.fail(item.request, Error::unsupported(malformed.to_string()).into_failure())
            }
            Work::Request(request) => match self.serve_request(port, &item, request).await {
                Ok(done) => port.complete(item.request, &Event::Done(done)),
                Err(error) => port.fail(item.request, error.into_failure()),
            },
        }
    }

    async fn idle(&mut self, port: &mut Port) {
        let Some(session) = self.session.as_mut() else {
            port.idle(pending::<()>()).await;
            return;
        };
        match port.idle(session.next(&self.link).instrument(self.span.clone())).await {
            Outcome::Done(Err(error)) => self.lost(port, &Error::session(error.to_string())),
            Outcome::Panicked(panic) => {
                self.lost(port, &Error::bug(format!("bug in the sink, panic in next: {panic}")));
            }
            // A `next` that is always ready must not keep the others of this runtime waiting.
            Outcome::Done(Ok(())) => tokio::task::yield_now().await,
            Outcome::Interrupted | Outcome::Stopped | Outcome::Deadline => {}
        }
    }

    async fn shut(&mut self, port: &mut Port) {
        if let Some(session) = self.session.take() {
            let until = port.close_until();
            let closing = session.close(&self.link).instrument(self.span.clone());
            if let Outcome::Panicked(panic) = port.last(until, closing).await {
                tracing::error!(panic, "bug in the sink: panic while closing the connection");
            }
        }
    }
}

fn not_connected() -> Error {
    Error::session("the sink has no connection; CONNECT comes first")
}

fn routed<S: Sink>(point: &SinkPoint) -> Result<RoutedPoint<S>, String> {
    let map = point
        .map
        .iter()
        .map(|entry| check::parse_or_text("", entry))
        .collect::<Result<_, _>>()
        .map_err(|problem| format!("map entry of {}/{}: {problem}", point.device, point.name))?;
    Ok(RoutedPoint {
        number: point.point,
        device: point.device.clone(),
        name: point.name.clone(),
        unit: point.unit.clone(),
        description: point.description.clone(),
        metadata: point.metadata.clone(),
        writable: point.writable,
        map,
    })
}

/// Checks a delivery as if it came from outside (R8).
fn delivery(batch: &Batch) -> Result<Delivery> {
    let (samples, blob) = (batch.samples.as_slice(), batch.blob.as_slice());
    if samples.len() > batch::MAX_SAMPLES || blob.len() > batch::MAX_BLOB {
        return Err(Error::bug(format!(
            "a batch of {} samples and {} bytes is too large",
            samples.len(),
            blob.len()
        )));
    }
    let mut samples = Samples { samples: samples.to_vec(), blob: blob.to_vec() };
    let mut times = if batch.flags & batch::TIMES != 0 { samples.take_times()? } else { Vec::new() };
    times.sort_unstable();
    Ok(Delivery { lane: batch.op, first: batch.id, flags: batch.flags, samples, times })
}
