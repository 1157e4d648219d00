//! One instance's connection to the host: its queues, its deadlines, and what still has to be sent.
//!
//! Everything an instance sends goes through [`Port`], which only the instance's task holds: so push and event form one
//! sequence (R1). While plugin code runs, [`Port::drive`] keeps serving the queues around it: answers and cancels reach it,
//! its outbox is emptied, requests that wait too long are completed at their deadline, a stop cuts it off.
//!
//! Sending never blocks. What the host refuses stays at the head of `wire` and is tried again every [`RETRY`]; meanwhile no
//! request starts and the outbox is not emptied, so that plugin code waits in `publish` (R9). Completions are never given
//! up before the instance's own stop; unsolicited samples are, after some seconds, and leave a GAP event in their place.

mod urgent;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};

use busbar_abi::{Batch, HostBox, Message};
use busbar_contract::{
    Answer, Event, Failure, FailureKind, Malformed, Reason, Request, event::Done, op::request as op,
    request::AnswerTo,
};
use tokio::sync::{mpsc, watch};

use self::{urgent::Ask, wire::Wire};
use super::stats::STATS;
use crate::{
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
/// What the host refused is offered again after this time.
const RETRY: Duration = Duration::from_millis(5);
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

    /// Takes over what plugin code wants to send.
    pub(crate) fn carry(&mut self, out: Out) {
        match out {
            Out::Update(update) => self.publish(update),
            Out::Event(request, event) => self.send_event(request, &event),
            Out::Ask(number, event, reader) => self.ask(number, &event, reader),
        }
    }

    pub(crate) fn drain_outbox(&mut self) {
        while let Ok(out) = self.outbox.try_recv() {
            self.carry(out);
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
