//! Serves a driver's instance: devices, groups, the session, and what each outcome means for them.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use busbar_abi::Sample;
use busbar_contract::{
    Answer, Cause, Event, FailureKind, Kind, Reason, Request, Value, batch, binary,
    event::{BoundGroup, Done, Rejected, State},
    request::{
        Attach, Bind, BlockRead, BlockWrite as BlockWriteBody, Browse, Command as CommandBody, FrameLog,
        OfDevice, PointValue, Subscribe,
    },
};
use tracing::{Instrument, Span};

use super::{
    Engine,
    port::{Item, Outcome, Port, Work},
};
use crate::{
    BlockWrite, BoundPoint, Command, Context, Device, Driver, Error, Group, Pages, Plan, PointInfo, Progress,
    Readings, Result, check,
    context::Shared,
    guard::{guard, guarded_drop},
    reading::{REFUSED, unanswered},
    time, trace,
};

/// Time limit of plugin code that the host gave none: COMMITTED, closing an unused session.
const CALLBACK_LIMIT: Duration = Duration::from_secs(10);

struct Slot<D: Driver> {
    device: Device<D>,
    connected: bool,
    span: Span,
    by_number: HashMap<u32, BoundPoint<D>>,
    /// Points whose refusal was logged.
    told: HashSet<u32>,
}

struct GroupSlot<D: Driver> {
    device: u32,
    points: Vec<BoundPoint<D>>,
    plan: D::Plan,
    /// One slot per bound point, then the points that BIND rejected.
    template: Vec<Sample>,
}

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

/// How a command ended; `Err`: it never reached the driver.
type Operated = Result<Outcome<Result<Answer>>, Answer>;

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
                let answer = self.operate(port, item, request).await;
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

    fn attach(&mut self, body: &Attach) -> Served {
        if self.devices.contains_key(&body.device) {
            let text =
                format!("device {}: expected a new number, found one that is attached already", body.device);
            return Err(Error::configuration(text));
        }
        let connection =
            check::parse_or_text("/connection", &body.connection).map_err(Error::configuration)?;
        let settings = check::parse_or_text("/device", &super::or_table(&body.settings))
            .map_err(Error::configuration)?;
        let device = Device {
            number: body.device,
            name: body.name.clone(),
            connection,
            settings,
            response_timeout: ms(body.response_timeout_ms),
            retries: body.retries,
            ctx: Context { shared: Arc::clone(&self.shared), device: Some(body.device) },
            points: Vec::new(),
            frame_log: Arc::new(AtomicBool::new(false)),
        };
        let slot = Slot {
            device,
            connected: false,
            span: trace::device_span(self.inst, body.device),
            by_number: HashMap::new(),
            told: HashSet::new(),
        };
        self.devices.insert(body.device, slot);
        done()
    }

    async fn detach(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        // The device leaves in any case; how its session ended is only worth a line.
        if let Err(error) = self.disconnect(port, item, body).await {
            tracing::debug!(%error, device = number, "the device left without an orderly end of its session");
        }
        self.groups.retain(|_, group| group.device != number);
        self.devices.remove(&number);
        done()
    }

    fn bind(&mut self, body: &Bind) -> Served {
        let Some(slot) = self.devices.get_mut(&body.device) else {
            return Err(unknown_device(body.device));
        };
        let mut rejected = Vec::new();
        let mut bound = HashMap::new();
        let mut points = Vec::new();
        for point in &body.points {
            match check::parse_or_text::<D::Point>("", &super::driver_keys(&point.spec)) {
                Ok(spec) => {
                    let info = PointInfo {
                        number: point.point,
                        name: point.name.clone(),
                        spec,
                        writable: point.writable,
                    };
                    let info = BoundPoint(Arc::new(info));
                    bound.insert(point.point, info.clone());
                    points.push(info);
                }
                Err(reason) => rejected.push(Rejected { point: point.point, reason }),
            }
        }
        let mut groups = HashMap::new();
        for group in &body.groups {
            let slot = group_slot::<D>(body.device, &slot.device.connection, &group.points, &bound)?;
            groups.insert(group.group, slot);
        }
        slot.by_number = bound;
        slot.device.points = points;
        slot.told.clear();
        self.groups.retain(|_, group| group.device != body.device);
        let mut costs: Vec<BoundGroup> = groups
            .iter()
            .map(|(number, slot)| BoundGroup { group: *number, exchanges: slot.plan.exchanges() })
            .collect();
        costs.sort_unstable_by_key(|cost| cost.group);
        self.groups.extend(groups);
        Ok(Some(Event::Done(Done { groups: costs, rejected, ..Done::default() })))
    }

    fn frame_log(&self, body: &FrameLog) -> Served {
        let slot = self.devices.get(&body.device).ok_or_else(|| unknown_device(body.device))?;
        slot.device.frame_log.store(body.on, Ordering::Relaxed);
        done()
    }

    async fn connect(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let Some(slot) = self.devices.get(&number) else {
            return Err(unknown_device(number));
        };
        if self.session.is_none() {
            let opening = D::open(&slot.device).instrument(slot.span.clone());
            let outcome = port.drive(item.request, item.deadline, opening).await;
            self.session = Some(self.settle(outcome, None, "opening the connection")?);
        }
        let (Some(session), Some(slot)) = (self.session.as_mut(), self.devices.get(&number)) else {
            return Err(Error::bug("the session vanished while a device connected"));
        };
        let connecting = session.connect(&slot.device).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, connecting).await;
        match self.settle(outcome, Some(number), "connecting") {
            Ok(peer) => {
                if let Some(slot) = self.devices.get_mut(&number) {
                    slot.connected = true;
                }
                Ok(Some(Event::Done(Done { peer, ..Done::default() })))
            }
            Err(error) => {
                self.close_unused(port).await;
                Err(error)
            }
        }
    }

    async fn disconnect(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let Some(slot) = self.devices.get_mut(&number) else {
            return Err(unknown_device(number));
        };
        let was_connected = std::mem::replace(&mut slot.connected, false);
        let mut result = Ok(());
        if let Some(session) = self.session.as_mut().filter(|_| was_connected) {
            let ending = session.disconnect(&slot.device).instrument(slot.span.clone());
            let outcome = port.drive(item.request, item.deadline, ending).await;
            result = self.settle(outcome, Some(number), "disconnecting");
        }
        self.close_unused(port).await;
        result.and_then(|()| done())
    }

    /// A session that no device uses is closed: the next CONNECT begins afresh.
    async fn close_unused(&mut self, port: &mut Port) {
        if self.any_connected() {
            return;
        }
        if let Some(session) = self.session.take() {
            let closing = session.close().instrument(self.span.clone());
            let limit = time::monotonic() + CALLBACK_LIMIT;
            if let Outcome::Panicked(panic) = port.drive(0, Some(limit), closing).await {
                tracing::error!(panic, "bug in the driver: panic while closing the session");
            }
            self.shared.tasks.end().await;
        }
    }

    async fn read(&mut self, port: &mut Port, item: &Item, body: &binary::Read) -> Served {
        let Some(group) = self.groups.get_mut(&body.group) else {
            let text = format!("group {}: expected a bound group, found none; BIND comes first", body.group);
            return Err(Error::configuration(text));
        };
        let number = group.device;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        self.readings.begin(&group.template, group.points.len(), body.cause);
        let mut view =
            Group { device: &slot.device, plan: &mut group.plan, cause: body.cause, points: &group.points };
        let reading = session.read(&mut view, &mut self.readings).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, reading).await;
        let expected = group.template.len();
        self.settle(outcome, Some(number), "reading")?;
        self.complete_read(
            port,
            item,
            number,
            expected,
            if body.cause == Cause::Resync { batch::RESYNC } else { 0 },
        )
    }

    fn complete_read(
        &mut self,
        port: &mut Port,
        item: &Item,
        device: u32,
        expected: usize,
        flags: u32,
    ) -> Served {
        if self.readings.samples.len() != expected {
            let found = self.readings.samples.len();
            self.drop_session();
            return Err(Error::bug(format!("the driver's answer: expected {expected} slots, found {found}")));
        }
        self.readings.finish(time::now());
        if let Some(slot) = self.devices.get_mut(&device) {
            slot.tell_refusals(&mut self.readings);
        }
        if item.request != 0 {
            port.complete_read(item.request, flags, &self.readings);
        }
        Ok(None)
    }

    async fn block_read(&mut self, port: &mut Port, item: &Item, body: &BlockRead) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let points = slot.resolve(&body.points)?;
        let template: Vec<Sample> = points.iter().map(|point| unanswered(point.number)).collect();
        self.readings.begin(&template, points.len(), Cause::Poll);
        let reading =
            session.block_read(&slot.device, &points, &mut self.readings).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, reading).await;
        self.settle(outcome, Some(body.device), "reading a block")?;
        let missing = self.readings.samples.iter().filter(|sample| sample.kind == Kind::None as u8).count();
        if missing > 0 {
            let text =
                format!("a block is all or nothing: {missing} of {} points gave no value", points.len());
            return Err(Error::refused(text));
        }
        self.complete_read(port, item, body.device, template.len(), batch::BLOCK)
    }

    async fn probe(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        let outcome = port
            .drive(item.request, item.deadline, session.probe(&slot.device).instrument(slot.span.clone()))
            .await;
        self.settle(outcome, Some(number), "the liveness probe")?;
        done()
    }

    async fn subscribe(&mut self, port: &mut Port, item: &Item, body: &Subscribe) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let points = slot.resolve(&body.points)?;
        let integrity = (body.integrity_ms > 0).then(|| ms(body.integrity_ms));
        let asking = session.subscribe(&slot.device, &points, integrity).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, asking).await;
        let answer = self.settle(outcome, Some(body.device), "subscribing")?;
        let rejected =
            answer.rejected.into_iter().map(|(point, reason)| Rejected { point, reason }).collect();
        let integrity_ms =
            answer.integrity.map_or(0, |period| u64::try_from(period.as_millis()).unwrap_or(0));
        let subscribed = answer.subscribed;
        Ok(Some(Event::Done(Done { subscribed, rejected, integrity_ms, ..Done::default() })))
    }

    async fn unsubscribe(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        let ending = session.unsubscribe(&slot.device).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, ending).await;
        self.settle(outcome, Some(number), "ending the subscription")?;
        done()
    }

    async fn browse(&mut self, port: &mut Port, item: &Item, body: &Browse) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let mut pages =
            Pages { shared: Arc::clone(&port.shared), request: item.request, entries: Vec::new() };
        let browsing = async {
            session.browse(&slot.device, &body.arguments, &mut pages).await?;
            pages.flush().await
        };
        let outcome = port.drive(item.request, item.deadline, browsing.instrument(slot.span.clone())).await;
        self.settle(outcome, Some(body.device), "browsing")?;
        done()
    }

    /// COMMAND and BLOCK_WRITE always end with an answer; what it cost the session follows as STATE.
    async fn operate(&mut self, port: &mut Port, item: &Item, request: &Request) -> Answer {
        let (device, what, outcome) = match request {
            Request::Command(body) => (body.device, "the command", self.command(port, item, body).await),
            Request::BlockWrite(body) => {
                (body.device, "writing the block", self.block_write(port, item, body).await)
            }
            _ => return Answer::refused(Reason::Unsupported, "not a command"),
        };
        match outcome.map(|outcome| self.settle(outcome, Some(device), what)) {
            Ok(Ok(answer)) | Err(answer) => answer,
            Ok(Err(error)) => {
                self.lost_by_command = lost_by(&error, device);
                answer_of(&error)
            }
        }
    }

    async fn command(&mut self, port: &mut Port, item: &Item, body: &CommandBody) -> Operated {
        let (session, slot) =
            live(&mut self.session, &self.devices, body.device).map_err(|error| lost(&error))?;
        let command = Command {
            point: slot.point(body.point).map_err(|error| not_writable(&error))?,
            action: body.action,
            value: &body.value,
            origin: &body.origin,
            qualifier: body.qualifier,
            interlock_check: body.interlock_check,
            synchro_check: body.synchro_check,
            test: body.test,
            issued_ns: body.issued_ns,
            progress: Progress { shared: Arc::clone(&self.shared), request: item.request },
        };
        let operating = session.command(&slot.device, &command).instrument(slot.span.clone());
        Ok(port.drive(item.request, item.deadline, operating).await)
    }

    async fn block_write(&mut self, port: &mut Port, item: &Item, body: &BlockWriteBody) -> Operated {
        let (session, slot) =
            live(&mut self.session, &self.devices, body.device).map_err(|error| lost(&error))?;
        let values = body.values.iter().map(|entry| slot.named(entry)).collect::<Result<_>>();
        let commit = body.commit.as_ref().map(|entry| slot.named(entry)).transpose();
        let write = BlockWrite {
            values: values.map_err(|error| not_writable(&error))?,
            commit: commit.map_err(|error| not_writable(&error))?,
            origin: &body.origin,
        };
        let writing = session.block_write(&slot.device, &write).instrument(slot.span.clone());
        Ok(port.drive(item.request, item.deadline, writing).await)
    }

    async fn committed(&mut self, port: &mut Port, device: u32, token: u32, ok: bool) {
        let Ok((session, slot)) = live(&mut self.session, &self.devices, device) else {
            // Without a session the driver learns from its durable state that it was not committed.
            return;
        };
        let limit = Some(time::monotonic() + CALLBACK_LIMIT);
        let telling = session.committed(&slot.device, token, ok).instrument(slot.span.clone());
        let outcome = port.drive(0, limit, telling).await;
        if let Err(error) = self.settle(outcome, Some(device), "taking a commit") {
            self.lost_by_command = lost_by(&error, device);
            tracing::warn!(%error, token, "the driver did not take the commit");
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

impl<D: Driver> Slot<D> {
    fn point(&self, number: u32) -> Result<&BoundPoint<D>> {
        self.by_number.get(&number).ok_or_else(|| unknown_point(number))
    }

    fn named<'a>(&'a self, entry: &'a PointValue) -> Result<(&'a BoundPoint<D>, &'a Value)> {
        Ok((self.point(entry.point)?, &entry.value))
    }

    fn resolve(&self, numbers: &[u32]) -> Result<Vec<BoundPoint<D>>> {
        numbers.iter().map(|number| self.point(*number).cloned()).collect()
    }

    /// A refused point is worth one line, and one when it answers again.
    fn tell_refusals(&mut self, readings: &mut Readings) {
        if !self.told.is_empty() {
            for sample in readings.samples.iter().filter(|sample| sample.quality != REFUSED.0) {
                if self.told.remove(&sample.point)
                    && let Some(point) = self.by_number.get(&sample.point)
                {
                    let _entered = self.span.enter();
                    tracing::info!(point = %point.name, "the device answers this point again");
                }
            }
        }
        for (number, why) in readings.refusals.drain(..) {
            if self.told.insert(number)
                && let Some(point) = self.by_number.get(&number)
            {
                let _entered = self.span.enter();
                tracing::warn!(point = %point.name, reason = %why, "the device refuses this point");
            }
        }
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

fn group_slot<D: Driver>(
    device: u32,
    connection: &D::Connection,
    numbers: &[u32],
    bound: &HashMap<u32, BoundPoint<D>>,
) -> Result<GroupSlot<D>> {
    if numbers.len() > batch::MAX_SAMPLES {
        let text =
            format!("a group: expected at most {} points, found {}", batch::MAX_SAMPLES, numbers.len());
        return Err(Error::configuration(text));
    }
    let points: Vec<BoundPoint<D>> = numbers.iter().filter_map(|number| bound.get(number).cloned()).collect();
    let mut template: Vec<Sample> = points.iter().map(|point| unanswered(point.number)).collect();
    let rejected = numbers.iter().filter(|number| !bound.contains_key(number));
    template.extend(rejected.map(|number| Sample { quality: REFUSED.0, ..unanswered(*number) }));
    let plan = guard(|| D::plan(connection, &points))
        .map_err(|panic| Error::configuration(format!("bug in the driver, panic while planning: {panic}")))?;
    Ok(GroupSlot { device, points, plan, template })
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

fn lost(error: &Error) -> Answer {
    Answer::refused(Reason::DeviceLost, error.text())
}

fn not_writable(error: &Error) -> Answer {
    Answer::refused(Reason::NotWritable, error.text())
}

/// What an error in the middle of a command tells about the command.
fn answer_of(error: &Error) -> Answer {
    let text = error.to_string();
    match error.kind() {
        FailureKind::Refused | FailureKind::Configuration => Answer::refused(Reason::DeviceRefused, text),
        FailureKind::Unsupported => Answer::refused(Reason::Unsupported, text),
        FailureKind::NoAnswer | FailureKind::Deadline | FailureKind::Cancelled => {
            Answer::unknown(Reason::Timeout, text)
        }
        FailureKind::Session | FailureKind::Bug => Answer::unknown(Reason::DeviceLost, text),
    }
}

/// What an error in the middle of a command tells about the session.
fn lost_by(error: &Error, device: u32) -> Option<State> {
    let reason = error.to_string();
    if error.ends_session() {
        Some(State { device: None, up: false, reason })
    } else if error.kind() == FailureKind::NoAnswer {
        Some(State { device: Some(device), up: false, reason })
    } else {
        None
    }
}
