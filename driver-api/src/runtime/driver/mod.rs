//! Serves a driver's instance: devices, groups, the session, and what each outcome means for them.

mod connect;
mod devices;
mod exchange;
mod operate;

use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};

use busbar_contract::{
    Event, FailureKind, Request,
    event::{Done, State},
    request::OfDevice,
};
use tracing::{Instrument, Span};

use self::devices::{GroupSlot, Slot};
use super::{
    Engine,
    port::{Item, Outcome, Port, Work},
};
use crate::{Driver, Error, Readings, Result, context::Shared, guard::guarded_drop, trace};

/// Time limit of plugin code that the host gave none: COMMITTED, closing an unused session.
const CALLBACK_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct DriverEngine<D: Driver> {
    inst: u64,
    shared: Arc<Shared>,
    span: Span,
    session: Option<D>,
    devices: HashMap<u32, Slot<D>>,
    groups: HashMap<u32, GroupSlot<D>>,
    readings: Readings,
    /// The session or device that a command cost; told after the command's completion.
    lost_by_command: Option<State>,
}

/// What a served request leads to.
type Served = Result<Option<Event>>;

fn done() -> Served {
    Ok(Some(Event::Done(Done::default())))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl<D: Driver> DriverEngine<D> {
    pub(crate) fn new(inst: u64, shared: Arc<Shared>) -> Self {
        Self {
            inst,
            shared,
            span: trace::device_span(inst, trace::NO_DEVICE),
            session: None,
            devices: HashMap::new(),
            groups: HashMap::new(),
            readings: Readings::default(),
            lost_by_command: None,
        }
    }

    /// The outcome of plugin code, with its consequence for session and device.
    fn settle<T>(&mut self, outcome: Outcome<Result<T>>, device: Option<u32>, what: &str) -> Result<T> {
        let result = match outcome {
            Outcome::Done(result) => result,
            Outcome::Panicked(panic) => {
                Err(Error::bug(format!("bug in the driver, panic in {what}: {panic}")))
            }
            Outcome::Deadline => Err(Error::deadline(format!(
                "{what} was not complete by its deadline; the session was dropped"
            ))),
            Outcome::Stopped | Outcome::Interrupted => {
                self.drop_session();
                Err(Error::cancelled("the instance is stopping"))
            }
        };
        if let Err(error) = &result {
            if error.ends_session() {
                self.drop_session();
            } else if error.kind() == FailureKind::NoAnswer
                && let Some(slot) = device.and_then(|device| self.devices.get_mut(&device))
            {
                slot.connected = false;
            }
        }
        result
    }

    fn drop_session(&mut self) {
        for slot in self.devices.values_mut() {
            slot.connected = false;
        }
        if let Some(session) = self.session.take() {
            let _entered = self.span.enter();
            guarded_drop(session);
            self.shared.tasks.abort();
        }
    }

    fn any_connected(&self) -> bool {
        self.devices.values().any(|slot| slot.connected)
    }

    async fn serve_request(&mut self, port: &mut Port, item: &Item, request: &Request) -> Served {
        match request {
            Request::Attach(body) => self.attach(body),
            Request::Detach(body) => self.detach(port, item, body).await,
            Request::Bind(body) => self.bind(body),
            Request::FrameLog(body) => self.frame_log(body),
            Request::Connect(body) => self.connect(port, item, body).await,
            Request::Disconnect(body) => self.disconnect(port, item, body).await,
            Request::Read(body) => self.read(port, item, body).await,
            Request::BlockRead(body) => self.block_read(port, item, body).await,
            Request::Probe(body) => self.probe(port, item, body).await,
            Request::Subscribe(body) => self.subscribe(port, item, body).await,
            Request::Unsubscribe(body) => self.unsubscribe(port, item, body).await,
            Request::Browse(body) => self.browse(port, item, body).await,
            Request::Command(_) | Request::BlockWrite(_) => {
                let answer = self.operate(port, item, request).await?;
                Ok(Some(Event::Done(Done { answer: Some(answer), ..Done::default() })))
            }
            Request::Committed(body) => {
                self.committed(port, body.device, body.token, body.ok).await;
                done()
            }
            // Served by the port, or meant for sinks and refused at submit.
            Request::Cancel(_) | Request::Answer(_) | Request::Points(_) => {
                Err(Error::unsupported("a driver does not serve this operation"))
            }
        }
    }
}

impl<D: Driver> Engine for DriverEngine<D> {
    async fn serve(&mut self, port: &mut Port, item: Item) {
        let event = match &item.work {
            Work::Request(request) => self.serve_request(port, &item, request).await,
            Work::Bad(malformed) => Err(Error::unsupported(malformed.to_string())),
            Work::Batch(_) | Work::Answered(..) => Ok(None),
        };
        match event {
            Ok(Some(event)) => port.complete(item.request, &event),
            Ok(None) => {}
            Err(error) => port.fail(item.request, error.into_failure()),
        }
        if let Some(state) = self.lost_by_command.take() {
            port.send_event(0, &Event::State(state));
        }
        if self.session.is_some() && !self.any_connected() {
            // Its last device gave no answer: what still comes on this channel belongs to no request any more.
            self.drop_session();
        }
    }

    async fn idle(&mut self, port: &mut Port) {
        if !self.any_connected() {
            port.idle(pending::<()>()).await;
            return;
        }
        let Some(session) = self.session.as_mut() else {
            port.idle(pending::<()>()).await;
            return;
        };
        let outcome = match port.idle(session.next().instrument(self.span.clone())).await {
            Outcome::Interrupted | Outcome::Stopped => return,
            Outcome::Done(Ok(update)) if update.is_empty() => {
                tokio::task::yield_now().await;
                return;
            }
            Outcome::Done(Ok(update)) => {
                port.publish(update);
                return;
            }
            // Whatever it is called: the driver cannot say what comes next.
            Outcome::Done(Err(error)) => Err::<(), _>(Error::session(error.to_string())),
            Outcome::Panicked(panic) => Err(Error::bug(format!("bug in the driver, panic in next: {panic}"))),
            Outcome::Deadline => return,
        };
        if let Err(error) = outcome {
            self.drop_session();
            let state = State { device: None, up: false, reason: error.to_string() };
            port.send_event(0, &Event::State(state));
        }
    }

    async fn shut(&mut self, port: &mut Port) {
        if let Some(session) = self.session.take() {
            let until = port.close_until();
            if let Outcome::Panicked(panic) =
                port.last(until, session.close().instrument(self.span.clone())).await
            {
                tracing::error!(panic, "bug in the driver: panic while closing the session");
            }
        }
        self.groups.clear();
        self.devices.clear();
    }
}

/// The session and a device that may use it.
fn live<'a, D: Driver>(
    session: &'a mut Option<D>,
    devices: &'a HashMap<u32, Slot<D>>,
    number: u32,
) -> Result<(&'a mut D, &'a Slot<D>)> {
    let slot = devices.get(&number).ok_or_else(|| unknown_device(number))?;
    match session.as_mut() {
        None => Err(Error::session("the endpoint has no session; CONNECT comes first")),
        Some(_) if !slot.connected => {
            Err(Error::no_answer("the device is not connected; CONNECT comes first"))
        }
        Some(session) => Ok((session, slot)),
    }
}

fn of(body: &OfDevice) -> Result<u32> {
    body.device.ok_or_else(|| Error::configuration("device: expected a number, found none"))
}

fn unknown_device(number: u32) -> Error {
    Error::configuration(format!(
        "device {number}: expected an attached device, found none; ATTACH comes first"
    ))
}

fn unknown_point(number: u32) -> Error {
    Error::configuration(format!("point {number}: expected a bound point, found none; BIND comes first"))
}
