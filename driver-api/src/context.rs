//! The way from plugin code to the host: [`Context`] for drivers, [`SinkContext`] for sinks.
//!
//! Everything goes through one bounded outbox per instance, which the instance's task empties into the host in order
//! (R1). A full outbox makes the caller wait: that is how a congested host stops a plugin from reading its socket (R9).
//! Both types are cheap to clone and may be moved into tasks of the plugin's own.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use busbar_contract::{
    Answer, Cause, Event, Quality, Value,
    binary::{Ack, Verdict},
    event::{Fault, Fetch, Gap, Metadata, Metric, Page, SinkCommand, State, StateEntry, WriteBlock},
    request::AnswerTo,
    value::{hex, unhex},
};
use serde_json::Value as Json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::Instrument;

use crate::{Error, Result, Update};

/// Longest key of the durable state, bytes.
pub(crate) const MAX_STATE_KEY: usize = 128;
/// Largest value of the durable state, bytes.
pub(crate) const MAX_STATE_VALUE: usize = 1024 * 1024;
/// Entries per page of a browse.
const PAGE_ENTRIES: usize = 100;
/// Answers to one command that may wait for the plugin; a command has at most three stages.
const ANSWER_QUEUE: usize = 8;

/// What the instance's task carries to the host.
#[derive(Debug)]
pub(crate) enum Out {
    /// Samples that nobody asked for.
    Update(Update),
    /// An event; number of the request it belongs to, or 0.
    Event(u64, Event),
    /// An event that the host answers by ANSWER; without a sender the answer goes to `Sink::answered`.
    Ask(u64, Event, Option<mpsc::Sender<AnswerTo>>),
}

/// Shared by all contexts of an instance.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) out: mpsc::Sender<Out>,
    pub(crate) cancel: watch::Receiver<bool>,
    pub(crate) asks: AtomicU64,
    pub(crate) tasks: Tasks,
    pub(crate) cache_dir: PathBuf,
    pub(crate) host_minor: u32,
}

/// Tasks started by plugin code. None outlives its session.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task.in_current_span());
    }

    /// Ends them all, and waits until they are gone.
    pub(crate) async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Ends them all, soon.
    pub(crate) fn abort(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl Shared {
    async fn send(&self, out: Out) -> Result<()> {
        self.out.send(out).await.map_err(|_| stopping())
    }

    async fn event(&self, event: Event) -> Result<()> {
        self.send(Out::Event(0, event)).await
    }

    async fn ask(&self, event: Event) -> Result<Answers> {
        let (sender, receiver) = mpsc::channel(ANSWER_QUEUE);
        let number = self.asks.fetch_add(1, Ordering::Relaxed);
        self.send(Out::Ask(number, event, Some(sender))).await?;
        Ok(Answers { receiver })
    }

    async fn state_put(&self, device: Option<u32>, key: &str, value: Option<&[u8]>) -> Result<()> {
        check_entry(key, value)?;
        let entry = StateEntry { device, key: key.to_owned(), value: value.map(hex) };
        match self.ask(Event::StatePut(entry)).await?.next_raw().await? {
            AnswerTo::StatePut { error } if error.is_empty() => Ok(()),
            AnswerTo::StatePut { error } => Err(Error::refused(error)),
            other => Err(unexpected("STATE_PUT", &other)),
        }
    }

    async fn state_get(&self, device: Option<u32>, key: &str) -> Result<Option<Vec<u8>>> {
        check_entry(key, None)?;
        let entry = StateEntry { device, key: key.to_owned(), value: None };
        match self.ask(Event::StateGet(entry)).await?.next_raw().await? {
            AnswerTo::StateGet { value: None } => Ok(None),
            AnswerTo::StateGet { value: Some(text) } => match unhex(&text) {
                Some(bytes) => Ok(Some(bytes)),
                None => Err(Error::bug("the host answered STATE_GET with something other than hex text")),
            },
            other => Err(unexpected("STATE_GET", &other)),
        }
    }

    async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        // An error means that the instance's task is gone: as good as cancelled.
        let _ = cancel.wait_for(|cancelled| *cancelled).await;
    }

    fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }
}

fn stopping() -> Error {
    Error::cancelled("the instance is stopping")
}

fn unexpected(what: &str, answer: &AnswerTo) -> Error {
    Error::bug(format!("{what}: expected its own answer, found {answer:?}"))
}

fn check_entry(key: &str, value: Option<&[u8]>) -> Result<()> {
    if key.is_empty() || key.len() > MAX_STATE_KEY {
        return Err(Error::bug(format!(
            "state key: expected 1 to {MAX_STATE_KEY} bytes, found {}",
            key.len()
        )));
    }
    match value {
        Some(value) if value.len() > MAX_STATE_VALUE => Err(Error::bug(format!(
            "state value {key}: expected at most {MAX_STATE_VALUE} bytes, found {}",
            value.len()
        ))),
        _ => Ok(()),
    }
}

/// A driver's way to the host, for one device (or, from [`Context::endpoint`], for the whole endpoint).
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) device: Option<u32>,
}

impl Context {
    /// The same for the whole endpoint: its states and faults name no device.
    #[must_use]
    pub fn endpoint(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), device: None }
    }

    /// Starts a collection of samples that this device reported by itself.
    #[must_use]
    pub fn update(&self, cause: Cause) -> Update {
        Update::new(self.device, cause)
    }

    /// Hands samples to the host, in order. Waits while the host is congested; what the host refuses for too long is
    /// dropped, counted, and reported as a gap, so that the host reads the device again (R9).
    pub async fn publish(&self, update: Update) -> Result<()> {
        if update.is_empty() { Ok(()) } else { self.shared.send(Out::Update(update)).await }
    }

    /// The device's session (or the whole endpoint) came up or went down by itself.
    pub async fn state(&self, up: bool, reason: impl Into<String>) -> Result<()> {
        let state = State { device: self.device, up, reason: reason.into() };
        self.shared.event(Event::State(state)).await
    }

    /// Samples were lost before they reached the driver (sequence gap, buffer overflow at the device). `points` empty: all.
    pub async fn gap(&self, reason: impl Into<String>, points: Vec<u32>) -> Result<()> {
        let device =
            self.device.ok_or_else(|| Error::bug("a gap belongs to a device, not to the endpoint"))?;
        self.shared.event(Event::Gap(Gap { device, reason: reason.into(), points })).await
    }

    /// Something the operator must know that ends nothing. `code`: one word, `unexpected_answer`.
    pub async fn fault(&self, code: impl Into<String>, text: impl Into<String>) -> Result<()> {
        let fault = Fault { device: self.device, code: code.into(), text: text.into() };
        self.shared.event(Event::Fault(fault)).await
    }

    /// What is known of points: number -> `{ unit, kind, texts, limits, description }`. Send it when known or changed.
    pub async fn metadata(&self, points: Vec<(u32, Json)>) -> Result<()> {
        self.shared.event(Event::Metadata(Metadata { points })).await
    }

    /// Counters of the driver, by name, for `/metrics`.
    pub async fn metric(&self, values: Vec<(String, f64)>) -> Result<()> {
        self.shared.event(Event::Metric(Metric { device: self.device, values })).await
    }

    /// Reads the durable state of this device; `None` where the key is unknown.
    pub async fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.shared.state_get(self.device, key).await
    }

    /// Stores into the durable state of this device; returns after it is synced to disk.
    pub async fn state_put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.shared.state_put(self.device, key, Some(value)).await
    }

    /// Removes from the durable state of this device.
    pub async fn state_delete(&self, key: &str) -> Result<()> {
        self.shared.state_put(self.device, key, None).await
    }

    /// Ready when the host wishes that the running request ends early. The request may still end normally.
    pub async fn cancelled(&self) {
        self.shared.cancelled().await;
    }

    /// The host wishes that the running request ends early.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }

    /// Starts a task of the plugin's own, in the plugin's runtime and with the device's logs. It is aborted when the
    /// session ends: sockets that it holds do not outlive the session.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(task);
    }

    /// Folder for large expendable files of this plugin; empty when the host gives none.
    #[must_use]
    pub fn cache_dir(&self) -> &Path {
        &self.shared.cache_dir
    }

    /// Minor of the host's protocol.
    #[must_use]
    pub fn host_minor(&self) -> u32 {
        self.shared.host_minor
    }
}

/// A sink's way to the host.
#[derive(Debug, Clone)]
pub struct SinkContext {
    pub(crate) shared: Arc<Shared>,
}

impl SinkContext {
    /// The far side confirmed `count` records from `first` on.
    pub async fn delivered(&self, lane: u32, first: u64, count: u32) -> Result<()> {
        self.ack(lane, vec![Ack { first, count, verdict: Verdict::Delivered, reason: 0 }]).await
    }

    /// The far side will never take these records. `reason`: number in [`crate::Sink::REASONS`], first = 1.
    pub async fn rejected(&self, lane: u32, first: u64, count: u32, reason: u16) -> Result<()> {
        self.ack(lane, vec![Ack { first, count, verdict: Verdict::Rejected, reason }]).await
    }

    /// Not now: deliver these records again.
    pub async fn retry(&self, lane: u32, first: u64, count: u32, reason: u16) -> Result<()> {
        self.ack(lane, vec![Ack { first, count, verdict: Verdict::Retry, reason }]).await
    }

    /// Several verdicts at once.
    pub async fn ack(&self, lane: u32, acks: Vec<Ack>) -> Result<()> {
        self.shared.event(Event::Ack { lane, acks }).await
    }

    /// The far side came up or went down by itself. After `up = false` the host connects again.
    pub async fn state(&self, up: bool, reason: impl Into<String>) -> Result<()> {
        self.shared.event(Event::State(State { device: None, up, reason: reason.into() })).await
    }

    /// Something the operator must know that ends nothing. `code`: one word, `take_over`.
    pub async fn fault(&self, code: impl Into<String>, text: impl Into<String>) -> Result<()> {
        let fault = Fault { device: None, code: code.into(), text: text.into() };
        self.shared.event(Event::Fault(fault)).await
    }

    /// Counters of the sink, by name, for `/metrics`.
    pub async fn metric(&self, values: Vec<(String, f64)>) -> Result<()> {
        self.shared.event(Event::Metric(Metric { device: None, values })).await
    }

    /// Issues a command; its answers come to [`crate::Sink::answered`] with the returned number.
    pub async fn command(&self, command: SinkCommand) -> Result<u64> {
        let number = self.shared.asks.fetch_add(1, Ordering::Relaxed);
        self.shared.send(Out::Ask(number, Event::Command(command), None)).await?;
        Ok(number)
    }

    /// Issues a command and gives its answers to the caller, for a task of the sink's own.
    pub async fn command_answers(&self, command: SinkCommand) -> Result<Answers> {
        self.shared.ask(Event::Command(command)).await
    }

    /// Fresh values of points or of a block, with one time stamp; all or an error. Not cancel safe: not inside `next`.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        match self.shared.ask(Event::Fetch(fetch)).await?.next_raw().await? {
            AnswerTo::Fetch { ts_ns, values } => Ok(Fetched { ts_ns, values }),
            AnswerTo::FetchFailed { reason } => Err(Error::refused(reason)),
            other => Err(unexpected("FETCH", &other)),
        }
    }

    /// Writes a block and waits for the last answer. Not cancel safe: not inside `next`.
    pub async fn write_block(&self, write: WriteBlock) -> Result<Answer> {
        let mut answers = self.shared.ask(Event::WriteBlock(write)).await?;
        loop {
            match answers.next().await? {
                Some(answer) if answer.stage.is_last() => return Ok(answer),
                Some(_) => {}
                None => return Err(stopping()),
            }
        }
    }

    /// Reads the sink's durable state; `None` where the key is unknown.
    pub async fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.shared.state_get(None, key).await
    }

    /// Stores into the sink's durable state; returns after it is synced to disk.
    pub async fn state_put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.shared.state_put(None, key, Some(value)).await
    }

    /// Removes from the sink's durable state.
    pub async fn state_delete(&self, key: &str) -> Result<()> {
        self.shared.state_put(None, key, None).await
    }

    /// Ready when the instance stops.
    pub async fn cancelled(&self) {
        self.shared.cancelled().await;
    }

    /// Starts a task of the plugin's own, in the plugin's runtime and with the device's logs. It is aborted when the
    /// session ends: sockets that it holds do not outlive the session.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(task);
    }

    /// Folder for large expendable files of this plugin; empty when the host gives none.
    #[must_use]
    pub fn cache_dir(&self) -> &Path {
        &self.shared.cache_dir
    }

    /// Minor of the host's protocol.
    #[must_use]
    pub fn host_minor(&self) -> u32 {
        self.shared.host_minor
    }
}

/// Fresh values with one time stamp.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// Nanoseconds since 1970-01-01 UTC.
    pub ts_ns: i64,
    /// Point, value, quality, in the order asked.
    pub values: Vec<(u32, Value, Quality)>,
}

/// The answers to one command, as they come.
#[derive(Debug)]
pub struct Answers {
    receiver: mpsc::Receiver<AnswerTo>,
}

impl Answers {
    async fn next_raw(&mut self) -> Result<AnswerTo> {
        self.receiver.recv().await.ok_or_else(stopping)
    }

    /// The next stage; `None` when the instance stops before a last one came.
    pub async fn next(&mut self) -> Result<Option<Answer>> {
        match self.receiver.recv().await {
            None => Ok(None),
            Some(AnswerTo::Command(answer)) => Ok(Some(answer)),
            Some(other) => Err(unexpected("COMMAND", &other)),
        }
    }
}

/// Reports stages of a running command.
#[derive(Debug, Clone)]
pub struct Progress {
    pub(crate) shared: Arc<Shared>,
    pub(crate) request: u64,
}

impl Progress {
    /// Sends one stage; a last stage is returned by the driver instead.
    pub async fn report(&self, answer: Answer) {
        // Fails only when the instance stops; its completion says so.
        let _ = self.shared.send(Out::Event(self.request, Event::Progress(answer))).await;
    }
}

/// Collects the answer to a browse and sends it page by page.
#[derive(Debug)]
pub struct Pages {
    pub(crate) shared: Arc<Shared>,
    pub(crate) request: u64,
    pub(crate) entries: Vec<Json>,
}

impl Pages {
    /// Adds one entry: `{ name, address, type, unit, description, value }`. Fails with [`Error::cancelled`] once the host
    /// wishes that the browse ends; pass that on.
    pub async fn push(&mut self, entry: Json) -> Result<()> {
        if self.shared.is_cancelled() {
            return Err(Error::cancelled("the browse was cancelled"));
        }
        self.entries.push(entry);
        if self.entries.len() >= PAGE_ENTRIES { self.flush().await } else { Ok(()) }
    }

    /// Sends what is collected so far.
    pub async fn flush(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        self.shared.send(Out::Event(self.request, Event::Page(Page { entries }))).await
    }
}
