//! `isolation = "process"`: the host's side of a plugin in a process of its own.
//!
//! The worker is the same binary (`--worker COPY`), its standard input a socket with frames in both directions
//! ([`crate::frame`]). One reader and one writer thread per worker here; what it says passes the same checks as what an
//! in-process plugin says ([`crate::receive`]).
//!
//! Its death (SIGKILL, SIGSEGV, abort, memory exhaustion, broken frames, a call that does not return) is seen at the
//! end of its socket: calls that wait are answered, [`HostCallbacks::down`] is told once, all instances are gone. When
//! to start it again, and how often, is the host's decision: [`crate::Plugin::init`] starts a new process.
//!
//! Flow: the socket is read at the pace of the host. A batch that the host refuses is offered again for
//! [`REFUSAL_PATIENCE`], meanwhile the worker's own queue fills and its plugin is told to slow down; then it is
//! dropped, counted and reported as [`Arrival::Lost`].

use std::{
    collections::HashMap,
    io::{self, BufReader},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use busbar_contract::{
    Describe, batch,
    describe::{InitOptions, Open},
};

use crate::{
    LoadError, Step,
    call::{GUARDED_SHUTDOWN_GRACE, human},
    frame::{Frame, read_frame},
    host::{Admission, Arrival, HostCallbacks, LogEntry, Push},
    instance::{Delivery, Instance, Remote, Side},
    launcher::{Launcher, WORKER, how_it_ended},
    outbox::Outbox,
    receive::{BoundaryStats, Receiver, StatsCell},
    stage::Staged,
};

/// How long a batch or event that the host refuses is offered again.
pub const REFUSAL_PATIENCE: Duration = Duration::from_millis(100);
/// Pause between two offers.
const REFUSAL_STEP: Duration = Duration::from_millis(2);
/// For a worker that closed its socket to end.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// A plugin in a process of its own; not running until `init`.
pub(crate) struct Worker {
    launcher: Launcher,
    staged: Staged,
    describe: Describe,
    stats: Arc<StatsCell>,
    link: Mutex<Option<Arc<Link>>>,
    /// One start at a time.
    starting: Mutex<()>,
}

/// One life of the process.
struct Link {
    name: String,
    outbox: Arc<Outbox>,
    receiver: Arc<Receiver>,
    child: Mutex<Child>,
    pid: u32,
    socket: UnixStream,
    calls: Mutex<Calls>,
    next_call: AtomicU64,
}

/// Calls that wait for their reply, or why none will come.
#[derive(Default)]
struct Calls {
    waiting: HashMap<u64, SyncSender<Result<Vec<u8>, String>>>,
    over: Option<String>,
    /// `init` succeeded and no end is wanted: an end is told by `down`.
    announce_end: bool,
}

impl Worker {
    pub(crate) fn new(launcher: &Launcher, staged: &Staged, describe: &Describe) -> Self {
        Self {
            launcher: launcher.clone(),
            staged: staged.clone(),
            describe: describe.clone(),
            stats: Arc::default(),
            link: Mutex::new(None),
            starting: Mutex::new(()),
        }
    }

    pub(crate) const fn describe(&self) -> &Describe {
        &self.describe
    }

    pub(crate) fn stats(&self) -> BoundaryStats {
        self.stats.snapshot()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.alive().map(|link| link.pid)
    }

    fn alive(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone().filter(|link| lock(&link.calls).over.is_none())
    }

    fn error(&self, step: Step, text: impl AsRef<str>) -> LoadError {
        LoadError::new(step, self.describe.name.as_ref(), text)
    }

    pub(crate) fn init(
        &self,
        callbacks: Arc<dyn HostCallbacks>,
        options: &InitOptions,
        limit: Duration,
    ) -> Result<(), LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let _one_at_a_time = lock(&self.starting);
        if self.alive().is_some() {
            return Err(fail("already started; stop it first"));
        }
        let options = serde_json::to_vec(options).map_err(|error| fail(&error.to_string()))?;
        let link = self.spawn(callbacks).map_err(|error| {
            fail(&format!("no worker process could be started: {}", crate::stage::plain(&error)))
        })?;
        match link.call("start", limit, |call| Frame::Init { call, options }) {
            Ok(_) => {
                let mut calls = lock(&link.calls);
                // It may have died between its reply and here, unannounced.
                if let Some(reason) = &calls.over {
                    return Err(fail(reason));
                }
                calls.announce_end = true;
                drop(calls);
                *lock(&self.link) = Some(link);
                Ok(())
            }
            Err(text) => {
                link.kill();
                Err(fail(&text))
            }
        }
    }

    fn spawn(&self, callbacks: Arc<dyn HostCallbacks>) -> io::Result<Arc<Link>> {
        let (child, socket) = self.launcher.spawn(WORKER, &self.staged.path, Stdio::inherit())?;
        let name = self.describe.name.clone();
        let (input, output) = (socket.try_clone()?, socket.try_clone()?);
        let link = Arc::new(Link {
            name: name.clone(),
            outbox: Arc::default(),
            receiver: Receiver::new(callbacks, Arc::clone(&self.stats)),
            pid: child.id(),
            child: Mutex::new(child),
            socket,
            calls: Mutex::default(),
            next_call: AtomicU64::new(1),
        });
        let outbox = Arc::clone(&link.outbox);
        let write = move || {
            // The reader sees the same end of the socket and reports it.
            let _ = outbox.write_to(output);
        };
        let reader = Arc::clone(&link);
        let started = thread::Builder::new().name(format!("{name}-writer")).spawn(write).and_then(|_| {
            thread::Builder::new().name(format!("{name}-reader")).spawn(move || reader.read(input))
        });
        if let Err(error) = started {
            link.kill();
            return Err(error);
        }
        Ok(link)
    }

    pub(crate) fn open(&self, inst: u64, config: &Open, limit: Duration) -> Result<Instance, LoadError> {
        let fail = |text: &str| self.error(Step::Start, text);
        let link = self.alive().ok_or_else(|| fail("not started"))?;
        let config = serde_json::to_vec(config).map_err(|error| fail(&error.to_string()))?;
        if !link.receiver.register(inst) {
            return Err(fail(&format!("instance {inst} is 0 or open already; this is a bug of Busbar")));
        }
        match link.call("open", limit, |call| Frame::Open { inst, call, config }) {
            Ok(_) => Ok(Instance::new(inst, Arc::clone(&link.receiver), Side::Remote(link))),
            Err(text) => {
                link.receiver.unregister(inst);
                Err(fail(&text))
            }
        }
    }

    pub(crate) fn control(&self, op: u32, body: &[u8], limit: Duration) -> Result<Vec<u8>, LoadError> {
        let link = self.alive().ok_or_else(|| self.error(Step::Call, "not started"))?;
        let body = body.to_vec();
        link.call("control", limit, |call| Frame::Control { call, op, body })
            .map_err(|text| self.error(Step::Call, text))
    }

    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        let Some(link) = lock(&self.link).take() else { return true };
        lock(&link.calls).announce_end = false;
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let limit = deadline.saturating_add(GUARDED_SHUTDOWN_GRACE);
        let answer = link.call("shutdown", limit, |call| Frame::Shutdown { call, deadline_ms });
        link.outbox.close();
        let ended = wait_shared(&link.child, Instant::now() + GUARDED_SHUTDOWN_GRACE).is_some();
        link.kill();
        ended && answer.is_ok_and(|answer| answer == [1])
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(link) = lock(&self.link).take() {
            lock(&link.calls).announce_end = false;
            link.kill();
        }
    }
}

impl Link {
    /// Sends a question and waits for its reply. A worker that does not answer in time is ended.
    fn call(&self, what: &str, limit: Duration, frame: impl FnOnce(u64) -> Frame) -> Result<Vec<u8>, String> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        {
            let mut calls = lock(&self.calls);
            if let Some(reason) = &calls.over {
                return Err(format!("{what} failed: {reason}"));
            }
            calls.waiting.insert(call, sender);
        }
        // Closed: the worker is dying, and the reader is about to say how.
        if !self.outbox.control(frame(call).encode()).is_taken() && !self.outbox.is_closed() {
            lock(&self.calls).waiting.remove(&call);
            return Err(format!("{what}: the worker takes nothing more"));
        }
        let answer = receiver.recv_timeout(limit);
        lock(&self.calls).waiting.remove(&call);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(text)) => Err(format!("{what} failed: {text}")),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("{what} did not return within {}; its worker was ended", human(limit));
                self.kill();
                Err(text)
            }
            Err(RecvTimeoutError::Disconnected) => {
                let over = lock(&self.calls).over.clone();
                Err(format!("{what} failed: {}", over.unwrap_or_else(|| "the worker is gone".into())))
            }
        }
    }

    /// The reader thread, until the worker is gone.
    fn read(&self, input: UnixStream) {
        let mut input = BufReader::new(input);
        let reason = loop {
            match read_frame(&mut input) {
                Ok(Some(frame)) => {
                    if let Err(reason) = self.take(frame) {
                        break Some(reason);
                    }
                }
                Ok(None) => break None,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    break Some(format!("its worker broke the frame format: {error}"));
                }
                // Reset, or an end inside a frame: it died while writing.
                Err(_) => break None,
            }
        };
        self.over(reason);
    }

    fn over(&self, reason: Option<String>) {
        if reason.is_some() {
            self.kill();
        }
        let status = wait_shared(&self.child, Instant::now() + EXIT_PATIENCE);
        if status.is_none() {
            self.kill();
        }
        let reason = reason.unwrap_or_else(|| {
            status.map_or_else(
                || "its worker closed its channel and had to be ended".into(),
                |status| format!("its worker {}", how_it_ended(status)),
            )
        });
        self.outbox.close();
        let announce = {
            let mut calls = lock(&self.calls);
            calls.over = Some(reason.clone());
            // Dropping the senders answers everybody who waits.
            calls.waiting.clear();
            calls.announce_end
        };
        if announce {
            let error = LoadError::new(Step::Call, self.name.as_ref(), &reason);
            self.receiver.down(&error.text);
        } else {
            self.receiver.close();
        }
    }

    /// Handles a frame of the worker; `Err` ends it.
    fn take(&self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Push { inst, batch } => self.push(inst, batch),
            Frame::Event { inst, op, req, body } => self.event(inst, op, req, &body),
            Frame::Log { inst, entry } => match serde_json::from_slice::<LogEntry>(&entry) {
                Ok(entry) => self.receiver.log(inst, entry),
                Err(_) => self.receiver.count_malformed(),
            },
            Frame::Reply { call, result } => {
                if let Some(waiting) = lock(&self.calls).waiting.remove(&call) {
                    // A caller that gave up meanwhile has ended the worker.
                    let _ = waiting.try_send(result);
                }
            }
            other => return Err(format!("its worker sent a frame of the host: {other:?}")),
        }
        Ok(())
    }

    fn push(&self, inst: u64, batch: busbar_abi::Batch) {
        let until = Instant::now() + REFUSAL_PATIENCE;
        let mut offered = self.receiver.push(inst, batch);
        loop {
            match offered {
                Ok(Admission::Congested) => return self.pressure(inst),
                Ok(_) => return,
                Err(push) if Instant::now() < until => {
                    self.pressure(inst);
                    thread::park_timeout(REFUSAL_STEP);
                    offered = self.receiver.offer(inst, push);
                }
                Err(push) => return self.lost(inst, &push),
            }
        }
    }

    fn lost(&self, inst: u64, push: &Push) {
        let samples = push.samples.samples.len();
        self.receiver.count_lost(samples);
        let last = push.flags & batch::LAST != 0;
        self.receiver.arrival(inst, push.id, Arrival::Lost { samples, last });
    }

    fn event(&self, inst: u64, op: u32, req: u64, body: &[u8]) {
        let until = Instant::now() + REFUSAL_PATIENCE;
        while self.receiver.event(inst, op, req, body) == Admission::Refused
            && self.receiver.is_live(inst)
            && Instant::now() < until
        {
            thread::park_timeout(REFUSAL_STEP);
        }
    }

    fn pressure(&self, inst: u64) {
        // Advice only: a full queue loses nothing by dropping it.
        self.outbox.bulk(Frame::Pressure { inst }.encode());
    }

    fn kill(&self) {
        let mut child = lock(&self.child);
        // Already dead is fine.
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Remote for Link {
    fn submit(&self, inst: u64, op: u32, req: u64, body: Vec<u8>) -> Admission {
        self.outbox.bulk(Frame::Submit { inst, op, req, body }.encode())
    }

    fn deliver(&self, inst: u64, delivery: Delivery) -> Admission {
        let Delivery { first, lane, flags, samples } = delivery;
        let batch = samples.into_batch(first, lane, flags);
        self.outbox.bulk(Frame::Deliver { inst, batch }.encode())
    }

    fn stop(&self, inst: u64, deadline: Duration) {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.outbox.control(Frame::Stop { inst, deadline_ms }.encode());
    }

    fn close(&self, inst: u64) {
        self.outbox.control(Frame::Close { inst }.encode());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of the child without holding the lock, so that it can be killed meanwhile.
fn wait_shared(child: &Mutex<Child>, deadline: Instant) -> Option<std::process::ExitStatus> {
    const STEP: Duration = Duration::from_millis(1);
    loop {
        match lock(child).try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) | Err(_) => return None,
        }
        thread::park_timeout(STEP);
    }
}
