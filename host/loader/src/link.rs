//! One life of a worker process: its socket, its reader and writer threads, the calls that wait for it.
//!
//! The end is seen by the reader, in this order: the reason is recorded, calls that wait are answered, the host is told
//! (unless the end was wanted). Whoever finds the outbox closed therefore waits for the reason.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, BufReader},
    net::Shutdown,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use busbar_contract::batch;

use crate::{
    LoadError, Step,
    call::human,
    frame::{Frame, read_frame},
    host::{Admission, Arrival, LogEntry, Push},
    instance::{Delivery, Remote},
    launcher::{Launcher, WORKER, how_it_ended, peak_memory},
    outbox::Outbox,
    receive::Receiver,
    stage::Staged,
    words::{LastWords, is_about_memory},
    worker::REFUSAL_PATIENCE,
};

/// Pause between two offers.
const REFUSAL_STEP: Duration = Duration::from_millis(2);
/// For a worker that closed its socket to end.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// Share of the memory limit (4 of 5) that tells that a death has to do with memory.
const NEARLY_ALL: (u64, u64) = (5, 4);
const MEBIBYTE: u64 = 1024 * 1024;

/// One life of the process.
pub(crate) struct Link {
    name: String,
    outbox: Arc<Outbox>,
    receiver: Arc<Receiver>,
    child: Mutex<Child>,
    pid: u32,
    memory_limit: u64,
    words: LastWords,
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

impl Link {
    /// Starts the process and its threads.
    pub(crate) fn start(
        launcher: &Launcher,
        staged: &Staged,
        name: &str,
        receiver: Arc<Receiver>,
    ) -> io::Result<Arc<Self>> {
        let (mut child, socket) = launcher.spawn(WORKER, &staged.path, Stdio::piped())?;
        let words = LastWords::listen(name, child.stderr.take(), Arc::clone(&receiver));
        let link = Arc::new(Self {
            name: name.to_owned(),
            outbox: Arc::default(),
            receiver,
            memory_limit: launcher.memory_limit(),
            words,
            pid: child.id(),
            child: Mutex::new(child),
            socket,
            calls: Mutex::default(),
            next_call: AtomicU64::new(1),
        });
        let started = link.start_threads();
        if started.is_err() {
            link.kill();
        }
        started.map(|()| link)
    }

    fn start_threads(self: &Arc<Self>) -> io::Result<()> {
        let (input, output) = (self.socket.try_clone()?, self.socket.try_clone()?);
        let (reader, outbox) = (Arc::clone(self), Arc::clone(&self.outbox));
        thread::Builder::new().name(format!("{}-writer", self.name)).spawn(move || {
            // The reader sees the same end of the socket and reports it.
            let _ = outbox.write_to(output);
        })?;
        let started =
            thread::Builder::new().name(format!("{}-reader", self.name)).spawn(move || reader.read(input));
        if started.is_err() {
            self.outbox.close();
        }
        started.map(|_| ())
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) const fn receiver(&self) -> &Arc<Receiver> {
        &self.receiver
    }

    /// Why it ended; `None` while it runs.
    pub(crate) fn end(&self) -> Option<String> {
        lock(&self.calls).over.clone()
    }

    /// From now on the end is told to the host; `Err` when it was before, and unannounced.
    pub(crate) fn announce_end(&self) -> Result<(), String> {
        let mut calls = lock(&self.calls);
        if let Some(reason) = &calls.over {
            return Err(reason.clone());
        }
        calls.announce_end = true;
        Ok(())
    }

    /// The end is wanted: it is not told.
    pub(crate) fn expect_end(&self) {
        lock(&self.calls).announce_end = false;
    }

    /// After the shutdown call: sends what is queued, waits, and ends the process. True when it ended by itself.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        self.outbox.close();
        let ended = wait_shared(&self.child, Instant::now() + patience).is_some();
        self.kill();
        ended
    }

    /// Sends a question and waits for its reply. A worker that does not answer in time is ended.
    pub(crate) fn call(
        &self,
        what: &str,
        limit: Duration,
        frame: impl FnOnce(u64) -> Frame,
    ) -> Result<Vec<u8>, String> {
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
        let deadline = Instant::now() + EXIT_PATIENCE;
        let peak = wait_dead(self.pid, deadline);
        let status = wait_shared(&self.child, deadline);
        if status.is_none() {
            self.kill();
        }
        let reason = reason.unwrap_or_else(|| {
            status.map_or_else(
                || "its worker closed its channel and had to be ended".into(),
                |status| self.reason(status, peak),
            )
        });
        let announce = {
            let mut calls = lock(&self.calls);
            calls.over = Some(reason.clone());
            // Dropping the senders answers everybody who waits.
            calls.waiting.clear();
            calls.announce_end
        };
        self.outbox.close();
        if announce {
            let error = LoadError::new(Step::Call, self.name.as_ref(), &reason);
            self.receiver.down(&error.text);
        } else {
            self.receiver.close();
        }
    }

    /// How it died, in its own words where it left some, and whether memory is the likely cause.
    fn reason(&self, status: ExitStatus, peak: Option<u64>) -> String {
        let mut text = format!("its worker {}", how_it_ended(status));
        let cause = self.words.cause();
        if !cause.is_empty() {
            let _ = write!(text, ": {cause}");
        }
        let crashed = status.signal().is_some();
        let full = peak.is_some_and(|peak| peak / NEARLY_ALL.1 >= self.memory_limit / NEARLY_ALL.0);
        if crashed && (full || is_about_memory(&cause)) {
            let limit = self.memory_limit / MEBIBYTE;
            let _ = write!(text, "; it probably reached its memory_limit of {limit} MiB");
            if let Some(peak) = peak {
                let _ = write!(text, " (at most {} MiB were resident)", peak / MEBIBYTE);
            }
        }
        text
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
            _ => return Err("its worker sent a frame of the host".into()),
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

    /// A completion that is dropped in the end is one the host waits for in vain: its own deadline ends the request.
    fn event(&self, inst: u64, op: u32, req: u64, body: &[u8]) {
        let until = Instant::now() + REFUSAL_PATIENCE;
        while self.receiver.event(inst, op, req, body) == Admission::Refused && self.receiver.is_live(inst) {
            if Instant::now() >= until {
                return self.receiver.count_lost_event();
            }
            thread::park_timeout(REFUSAL_STEP);
        }
    }

    fn pressure(&self, inst: u64) {
        // Advice only: a full queue loses nothing by dropping it.
        self.outbox.bulk(Frame::Pressure { inst }.encode());
    }

    pub(crate) fn kill(&self) {
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
fn wait_shared(child: &Mutex<Child>, deadline: Instant) -> Option<ExitStatus> {
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

/// Waits until the child is dead and says how much memory it had; somebody else may have waited for it already.
fn wait_dead(pid: u32, deadline: Instant) -> Option<u64> {
    loop {
        match peak_memory(pid) {
            None if Instant::now() < deadline && is_there(pid) => {
                thread::park_timeout(Duration::from_millis(1))
            }
            found => return found,
        }
    }
}

/// A process or its remains have the number; it is ours until it was waited for.
fn is_there(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}
