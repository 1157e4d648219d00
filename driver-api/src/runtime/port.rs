//! One instance's connection to the host: its queues, its deadlines, and what still has to be sent.
//!
//! Everything an instance sends goes through [`Port`], which only the instance's task holds: so push and event form one
//! sequence (R1). While plugin code runs, [`Port::drive`] keeps serving the queues around it: answers and cancels reach it,
//! its outbox is emptied, requests that wait too long are completed at their deadline, a stop cuts it off.
//!
//! Sending never blocks. What the host refuses stays at the head of `wire` and is tried again every [`RETRY`]; meanwhile no
//! request starts and the outbox is not emptied, so that plugin code waits in `publish` (R9). Completions are never given
//! up before the instance's own stop; unsolicited samples are, after [`PATIENCE`], and leave a GAP event in their place.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};

use busbar_abi::{ACCEPTED, Batch, CONGESTED, HostBox, Message, REFUSED};
use busbar_contract::{
    Action, Answer, Event, Failure, FailureKind, Malformed, Reason, Request, Samples, Stage, batch,
    event::Done,
    event::Gap,
    op::request as op,
    request::{AnswerTo, Committed},
};
use tokio::sync::{mpsc, watch};

use super::stats::STATS;
use crate::{
    Readings, Update,
    context::{Out, Shared},
    guard::Caught,
    time,
};

/// Requests and deliveries of one instance that wait for their turn; further ones are refused.
pub(crate) const REQUEST_QUEUE: usize = 256;
/// Answers and cancels on the way to one instance.
pub(crate) const URGENT_QUEUE: usize = 256;
/// Updates and events of one instance on the way to the host; plugin code waits when it is full.
pub(crate) const OUTBOX: usize = 256;
/// Questions of a plugin that wait for the host's answer.
const MAX_ASKS: usize = 1024;
/// What the host refused is offered again after this time.
const RETRY: Duration = Duration::from_millis(5);
/// After the host said "congested", unsolicited samples pause for this time.
const PAUSE: Duration = Duration::from_millis(5);
/// Unsolicited samples are dropped after the host refused them for this long.
const PATIENCE: Duration = Duration::from_secs(3);
/// Stopping without a deadline (the host just let go of the instance).
const LET_GO_MS: u64 = 1000;
/// The host gets at least this long to take the last events of a stopped instance.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the host's threads put into the queue.
pub(crate) enum Inbox {
    /// A request and the time of its arrival.
    Message(Message, Duration),
    /// A delivery.
    Batch(Batch),
}

/// Something to serve.
pub(crate) enum Work {
    Request(Request),
    Bad(Malformed),
    Batch(Batch),
    Answered(u64, AnswerTo),
}

/// One entry of the queue.
pub(crate) struct Item {
    pub(crate) op: u32,
    pub(crate) request: u64,
    pub(crate) deadline: Option<Duration>,
    pub(crate) work: Work,
}

/// How a call into plugin code ended.
pub(crate) enum Outcome<T> {
    Done(T),
    Panicked(String),
    Deadline,
    Stopped,
    /// Only for [`Port::idle`]: there is work.
    Interrupted,
}

/// Something the host must still take.
enum Wire {
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

/// A question of the plugin that waits for the host's answer.
struct Ask {
    /// Without one the answer goes to `Sink::answered`.
    reader: Option<mpsc::Sender<AnswerTo>>,
    /// A selection ends with the stage `selected`; for an operation that is only a step.
    select: bool,
}

/// The queues that the host's threads fill.
pub(crate) struct Ends {
    pub(crate) inbox: mpsc::Receiver<Inbox>,
    pub(crate) urgent: mpsc::Receiver<Message>,
    pub(crate) stop: watch::Receiver<Option<u64>>,
}

pub(crate) struct Port {
    inst: u64,
    host: Arc<HostBox>,
    ends: Ends,
    outbox: mpsc::Receiver<Out>,
    cancel: watch::Sender<bool>,
    pub(crate) shared: Arc<Shared>,
    queue: VecDeque<Item>,
    /// No item of the queue is due before this; possibly earlier than the true earliest deadline, never later.
    due: Option<Duration>,
    wire: VecDeque<Wire>,
    asks: HashMap<u64, Ask>,
    running: u64,
    paused_until: Duration,
    stop_at: Option<Duration>,
    run_until: Option<Duration>,
}

impl Port {
    pub(crate) fn new(
        inst: u64,
        host: Arc<HostBox>,
        ends: Ends,
        outbox: mpsc::Receiver<Out>,
        cancel: watch::Sender<bool>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            inst,
            host,
            ends,
            outbox,
            cancel,
            shared,
            queue: VecDeque::new(),
            due: None,
            wire: VecDeque::new(),
            asks: HashMap::new(),
            running: 0,
            paused_until: Duration::ZERO,
            stop_at: None,
            run_until: None,
        }
    }

    /// The host wants this instance to end.
    pub(crate) const fn stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    /// The next thing to serve, in order; nothing while the host does not take what is already answered.
    pub(crate) fn take(&mut self) -> Option<Item> {
        self.flush();
        if !self.wire.is_empty() {
            return None;
        }
        while let Ok(inbox) = self.ends.inbox.try_recv() {
            self.admit(inbox);
            if self.queue.len() >= REQUEST_QUEUE {
                break;
            }
        }
        self.expire();
        self.queue.pop_front()
    }

    /// Runs plugin code for `request` until `limit`.
    pub(crate) async fn drive<F: Future>(
        &mut self,
        request: u64,
        limit: Option<Duration>,
        future: F,
    ) -> Outcome<F::Output> {
        self.running = request;
        let outcome = self.serve_around(limit, false, future).await;
        self.running = 0;
        if !self.stopping() {
            self.cancel.send_if_modified(|cancelled| std::mem::replace(cancelled, false));
        }
        outcome
    }

    /// Runs plugin code until there is something to serve; it is dropped then. While the host is congested, the plugin
    /// code is not polled at all, so that it does not read its socket.
    pub(crate) async fn idle<F: Future>(&mut self, future: F) -> Outcome<F::Output> {
        if self.wire.is_empty() && time::monotonic() >= self.paused_until {
            self.serve_around(None, true, future).await
        } else {
            let until = if self.wire.is_empty() { self.paused_until } else { time::monotonic() + RETRY };
            match self.serve_around(None, true, time::sleep_until(until)).await {
                Outcome::Stopped => Outcome::Stopped,
                _ => Outcome::Interrupted,
            }
        }
    }

    async fn serve_around<F: Future>(
        &mut self,
        limit: Option<Duration>,
        interruptible: bool,
        future: F,
    ) -> Outcome<F::Output> {
        let mut future = Caught::new(future);
        loop {
            if interruptible && self.stopping() {
                return Outcome::Stopped;
            }
            if interruptible && !self.queue.is_empty() && self.wire.is_empty() {
                return Outcome::Interrupted;
            }
            let wake = self.wake(limit);
            tokio::select! {
                biased;
                _ = self.ends.stop.changed(), if self.stop_at.is_none() => self.begin_stop(),
                Some(message) = self.ends.urgent.recv() => self.urgent(message),
                inbox = self.ends.inbox.recv(), if self.queue.len() < REQUEST_QUEUE && self.stop_at.is_none() => {
                    match inbox {
                        Some(inbox) => self.admit(inbox),
                        None => self.begin_stop(),
                    }
                }
                Some(out) = self.outbox.recv(), if self.wire.is_empty() => self.carry(out),
                result = &mut future => {
                    self.drain_outbox();
                    return match result {
                        Ok(output) => Outcome::Done(output),
                        Err(panic) => {
                            STATS.panics.add(1);
                            Outcome::Panicked(panic)
                        }
                    };
                }
                () = sleep_until(wake) => {}
            }
            self.flush();
            self.expire();
            let now = time::monotonic();
            if limit.is_some_and(|limit| limit <= now) {
                STATS.deadlines.add(1);
                self.drain_outbox();
                return Outcome::Deadline;
            }
            if !interruptible && self.run_until.is_some_and(|until| until <= now) {
                self.drain_outbox();
                return Outcome::Stopped;
            }
        }
    }

    /// When something must happen even if nothing arrives.
    fn wake(&self, limit: Option<Duration>) -> Option<Duration> {
        let retry = (!self.wire.is_empty()).then(|| time::monotonic() + RETRY);
        [limit, self.run_until, self.due, retry].into_iter().flatten().min()
    }

    fn admit(&mut self, inbox: Inbox) {
        let item = match inbox {
            Inbox::Batch(batch) => Item { op: 0, request: 0, deadline: None, work: Work::Batch(batch) },
            Inbox::Message(message, arrived) => {
                let work = match Request::decode(message.op, &message.body) {
                    Ok(request) => Work::Request(request),
                    Err(malformed) => Work::Bad(malformed),
                };
                let deadline = match &work {
                    Work::Request(request) => deadline_of(request).map(|limit| arrived.saturating_add(limit)),
                    _ => None,
                };
                Item { op: message.op, request: message.req, deadline, work }
            }
        };
        if self.stopping() {
            self.turn_away(&item, FailureKind::Cancelled, STOPPING);
        } else {
            self.due = self.due.into_iter().chain(item.deadline).min();
            self.queue.push_back(item);
        }
    }

    fn urgent(&mut self, message: Message) {
        match Request::decode(message.op, &message.body) {
            Ok(Request::Cancel(cancel)) => {
                self.cancel_request(cancel.request);
                self.complete(message.req, &Event::Done(Done::default()));
            }
            Ok(Request::Answer(answer)) => self.answered(message.req, answer),
            Ok(_) => {}
            Err(malformed) => {
                tracing::warn!(error = %malformed, "the host sent a body that this plugin cannot read");
                if message.op != op::ANSWER {
                    self.fail(message.req, Failure::new(FailureKind::Unsupported, malformed.to_string()));
                }
            }
        }
    }

    fn cancel_request(&mut self, request: u64) {
        if request != 0 && request == self.running {
            self.cancel.send_replace(true);
            return;
        }
        // It may still be on its way through the inbox.
        while let Ok(inbox) = self.ends.inbox.try_recv() {
            self.admit(inbox);
        }
        let at = self.queue.iter().position(|item| item.request == request && request != 0);
        if let Some(item) = at.and_then(|at| self.queue.remove(at)) {
            self.turn_away(&item, FailureKind::Cancelled, "cancelled before it was begun");
        }
    }

    fn answered(&mut self, number: u64, answer: AnswerTo) {
        let Some(ask) = self.asks.get(&number) else {
            STATS.unknown_answers.add(1);
            return;
        };
        let last = match &answer {
            AnswerTo::Command(answer) => {
                answer.stage.is_last() || (ask.select && answer.stage == Stage::Selected)
            }
            _ => true,
        };
        match &ask.reader {
            // A full channel or one that nobody reads any more loses the answer; its reader gave up.
            Some(reader) => drop(reader.try_send(answer)),
            None => self.queue.push_back(Item {
                op: op::ANSWER,
                request: 0,
                deadline: None,
                work: Work::Answered(number, answer),
            }),
        }
        if last {
            self.asks.remove(&number);
        }
    }

    /// Completes everything in the queue whose deadline has passed. Looks at the queue only when something may be due.
    fn expire(&mut self) {
        let Some(due) = self.due else {
            return;
        };
        let now = time::monotonic();
        if due > now {
            return;
        }
        let is_late = |item: &Item| item.deadline.is_some_and(|deadline| deadline <= now);
        while let Some(at) = self.queue.iter().position(is_late) {
            if let Some(item) = self.queue.remove(at) {
                STATS.deadlines.add(1);
                let why = "its deadline passed while earlier requests of the endpoint were served";
                self.turn_away(&item, FailureKind::Deadline, why);
            }
        }
        self.due = self.queue.iter().filter_map(|item| item.deadline).min();
    }

    fn begin_stop(&mut self) {
        let limit = Duration::from_millis(self.ends.stop.borrow_and_update().unwrap_or(LET_GO_MS));
        let now = time::monotonic();
        self.stop_at = Some(now + limit);
        self.run_until = Some(now + limit / 2);
        self.ends.inbox.close();
        self.cancel.send_replace(true);
        while let Ok(inbox) = self.ends.inbox.try_recv() {
            self.admit(inbox);
        }
        for item in std::mem::take(&mut self.queue) {
            self.turn_away(&item, FailureKind::Cancelled, STOPPING);
        }
    }

    /// Completes a request that never reached the plugin.
    pub(crate) fn turn_away(&mut self, item: &Item, kind: FailureKind, why: &str) {
        if item.op == op::COMMAND || item.op == op::BLOCK_WRITE {
            let reason = match kind {
                FailureKind::Cancelled if self.stopping() => Reason::Handover,
                FailureKind::Deadline | FailureKind::Cancelled => Reason::Timeout,
                _ => Reason::DeviceLost,
            };
            let answer = Some(Answer::refused(reason, why));
            self.complete(item.request, &Event::Done(Done { answer, ..Done::default() }));
        } else {
            self.fail(item.request, Failure::new(kind, why));
        }
    }

    /// Completes a request with FAILED.
    pub(crate) fn fail(&mut self, request: u64, failure: Failure) {
        self.complete(request, &Event::Failed(failure));
    }

    /// Completes a request; number 0 is answered by nobody.
    pub(crate) fn complete(&mut self, request: u64, event: &Event) {
        if request != 0 {
            STATS.completions.add(1);
            self.send_event(request, event);
        }
    }

    /// Sends an event that completes nothing.
    pub(crate) fn send_event(&mut self, request: u64, event: &Event) {
        self.wire.push_back(Wire::Event { op: event.op(), request, body: event.encode() });
        self.flush();
    }

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

    /// Takes over what plugin code wants to send.
    pub(crate) fn carry(&mut self, out: Out) {
        match out {
            Out::Update(update) => self.publish(update),
            Out::Event(request, event) => self.send_event(request, &event),
            Out::Ask(number, event, reader) => self.ask(number, &event, reader),
        }
    }

    fn ask(&mut self, number: u64, event: &Event, reader: Option<mpsc::Sender<AnswerTo>>) {
        self.asks.retain(|_, ask| ask.reader.as_ref().is_none_or(|reader| !reader.is_closed()));
        let select = matches!(event, Event::Command(command) if command.action == Action::Select);
        if self.asks.len() < MAX_ASKS {
            self.asks.insert(number, Ask { reader, select });
            self.send_event(number, event);
        } else if reader.is_none() {
            // A reader sees its channel closed; a callback must be told.
            let answer =
                Answer::refused(Reason::Busy, format!("{MAX_ASKS} commands already wait for answers"));
            self.asks.insert(number, Ask { reader, select });
            self.answered(number, AnswerTo::Command(answer));
        }
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

    pub(crate) fn drain_outbox(&mut self) {
        while let Ok(out) = self.outbox.try_recv() {
            self.carry(out);
        }
    }

    /// Offers the host what waits, oldest first, until it refuses.
    fn flush(&mut self) {
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

    /// The last words of an instance: what still waits, then STOPPED.
    pub(crate) async fn finish(mut self) {
        if !self.stopping() {
            self.begin_stop();
        }
        self.outbox.close();
        self.drain_outbox();
        self.send_event(0, &Event::Stopped);
        let until = self.stop_at.unwrap_or_default().max(time::monotonic() + LAST_WORDS);
        while !self.wire.is_empty() && time::monotonic() < until {
            time::sleep(RETRY).await;
            self.flush();
        }
    }

    /// Time left for an orderly end.
    pub(crate) fn close_until(&self) -> Duration {
        self.stop_at.unwrap_or_else(|| time::monotonic() + Duration::from_millis(LET_GO_MS))
    }

    /// Runs the last plugin code of the instance: nothing cuts it off but `until`.
    pub(crate) async fn last<F: Future>(&mut self, until: Duration, future: F) -> Outcome<F::Output> {
        self.run_until = None;
        self.serve_around(Some(until), false, future).await
    }
}

const STOPPING: &str = "the instance is stopping";

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

async fn sleep_until(at: Option<Duration>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn deadline_of(request: &Request) -> Option<Duration> {
    let ms = match request {
        Request::Connect(body)
        | Request::Disconnect(body)
        | Request::Detach(body)
        | Request::Unsubscribe(body)
        | Request::Probe(body) => body.deadline_ms,
        Request::Read(body) => u64::from(body.deadline_ms),
        Request::Subscribe(body) => body.deadline_ms,
        Request::Command(body) => body.deadline_ms,
        Request::Browse(body) => body.deadline_ms,
        Request::BlockRead(body) => body.deadline_ms,
        Request::BlockWrite(body) => body.deadline_ms,
        Request::Attach(_)
        | Request::Bind(_)
        | Request::Cancel(_)
        | Request::Committed(_)
        | Request::FrameLog(_)
        | Request::Points(_)
        | Request::Answer(_) => return None,
    };
    Some(Duration::from_millis(ms))
}
