//! The worker process: loads the copy, and is the host to it.
//!
//! Three threads: a reader (socket -> bounded channel), the main thread (calls into the plugin, one after another),
//! a writer ([`Outbox`]). The plugin's own calls (`push`, `event`, `log`) only put frames into the outbox, bounded.
//! A request or batch that the plugin refuses cannot be refused to the host any more (it left long ago), so the worker
//! completes it in the plugin's place: FAILED, or ACK with "retry" (R4).
//!
//! The worker never outlives its host: the end of the socket ends it, also when the plugin hangs in a call.

use std::{
    collections::HashMap,
    io::{self, BufReader, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RResult, RSlice, RStr},
};
use busbar_abi::{Batch, Host, HostBox, InstanceBox, LogRecord, Message, Module_Ref};
use busbar_contract::{
    Event, Failure, FailureKind, batch,
    binary::{Ack, Verdict},
    event::Fault,
};

use crate::{
    call::{Caller, guard},
    frame::{Frame, read_frame},
    host::Admission,
    judge::Expect,
    launcher::take_stdin_socket,
    load,
    outbox::Outbox,
    receive::{MAX_BODY, entry},
};

/// Frames between the reader and the main thread.
const MAX_FRAMES: usize = 64;
/// For the plugin to end after the host is gone.
const LAST_DEADLINE: Duration = Duration::from_secs(1);
/// For the main thread to end after the host is gone; then the process ends without it.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How long a report of congestion holds.
const PRESSURE_HOLDS: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(5);

/// Runs `--worker COPY`.
pub(crate) fn main(copy: &Path) -> ExitCode {
    ignore_stop_signals();
    match take_stdin_socket() {
        Ok(Some(socket)) => match run(copy, &socket) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error.to_string()),
        },
        Ok(None) => complain("--worker is for Busbar itself: expected a socket as standard input"),
        Err(error) => complain(&error.to_string()),
    }
}

/// A service manager signals every process of the unit at once; the host ends its workers in order, and a worker ends
/// with the host's socket anyway.
#[allow(unsafe_code, reason = "signal(2) has no safe form in std")]
fn ignore_stop_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
        // SAFETY: SIG_IGN installs no handler function; nothing else in this process has set these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn complain(text: &str) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "worker: {text}");
    ExitCode::FAILURE
}

fn run(copy: &Path, socket: &UnixStream) -> io::Result<()> {
    let outbox = Arc::<Outbox>::default();
    let (output, queue) = (socket.try_clone()?, Arc::clone(&outbox));
    let writer = thread::Builder::new().name("worker-writer".into()).spawn(move || {
        // The reader sees the same end of the socket.
        let _ = queue.write_to(output);
    })?;
    let (sender, frames) = sync_channel(MAX_FRAMES);
    let done = Arc::new(AtomicBool::new(false));
    let (input, ended) = (socket.try_clone()?, Arc::clone(&done));
    thread::Builder::new().name("worker-reader".into()).spawn(move || read(&input, sender, &ended))?;
    let mut worker = Worker::new(copy, Arc::clone(&outbox));
    worker.serve(&frames);
    outbox.close();
    let _ = writer.join();
    done.store(true, Ordering::Release);
    Ok(())
}

/// Socket -> channel. The end of the socket closes the channel, which ends the main thread; if that hangs in a call,
/// the process ends without it.
fn read(socket: &UnixStream, sender: SyncSender<Frame>, done: &AtomicBool) {
    let mut input = BufReader::new(socket);
    while let Ok(Some(frame)) = read_frame(&mut input) {
        if !forward(socket, &sender, frame) {
            break;
        }
    }
    drop(sender);
    let until = Instant::now() + LAST_PATIENCE;
    while !done.load(Ordering::Acquire) {
        if Instant::now() >= until {
            end_now();
        }
        thread::park_timeout(STEP);
    }
}

/// False when the host or the main thread is gone. A full channel must not hide the end of the socket.
fn forward(socket: &UnixStream, sender: &SyncSender<Frame>, mut frame: Frame) -> bool {
    loop {
        match sender.try_send(frame) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(_)) if is_hung_up(socket) => return false,
            Err(TrySendError::Full(back)) => frame = back,
        }
        thread::park_timeout(STEP);
    }
}

#[allow(unsafe_code, reason = "poll(2) has no safe form in std")]
fn is_hung_up(socket: &UnixStream) -> bool {
    let mut query = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `query` is one valid structure and outlives the call; the time-out of 0 returns at once.
    let ready = unsafe { libc::poll(&raw mut query, 1, 0) };
    ready > 0 && query.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Without destructors: a thread of the plugin hangs, and they could wait for it.
#[allow(unsafe_code, reason = "_exit(2) has no safe form in std")]
fn end_now() -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(1) }
}

/// The main thread's state.
struct Worker<'a> {
    copy: &'a Path,
    outbox: Arc<Outbox>,
    pressure: Arc<Pressure>,
    root: Option<Module_Ref>,
    instances: HashMap<u64, InstanceBox>,
}

impl<'a> Worker<'a> {
    fn new(copy: &'a Path, outbox: Arc<Outbox>) -> Self {
        Self { copy, outbox, pressure: Arc::default(), root: None, instances: HashMap::new() }
    }

    /// Until SHUTDOWN or the end of the socket.
    fn serve(&mut self, frames: &Receiver<Frame>) {
        while let Ok(frame) = frames.recv() {
            match frame {
                Frame::Init { call, options } => {
                    let result = self.init(&options);
                    self.reply(call, result);
                }
                Frame::Open { inst, call, config } => {
                    let result = self.open(inst, &config);
                    self.reply(call, result);
                }
                Frame::Control { call, op, body } => {
                    let result = self.control(op, &body);
                    self.reply(call, result);
                }
                Frame::Shutdown { call, deadline_ms } => {
                    let ended = self.shutdown(deadline_ms);
                    return self.reply(call, Ok(vec![u8::from(ended)]));
                }
                Frame::Submit { inst, op, req, body } => self.submit(inst, op, req, body),
                Frame::Deliver { inst, batch } => self.deliver(inst, batch),
                Frame::Stop { inst, deadline_ms } => self.stop(inst, deadline_ms),
                Frame::Close { inst } => {
                    self.pressure.forget(inst);
                    if let Some(instance) = self.instances.remove(&inst) {
                        let _ = guard(|| drop(instance));
                    }
                }
                Frame::Pressure { inst } => self.pressure.report(inst),
                // Frames of a worker: the host does not send them.
                Frame::Reply { .. } | Frame::Push { .. } | Frame::Event { .. } | Frame::Log { .. } => {}
            }
        }
        self.shutdown(u64::try_from(LAST_DEADLINE.as_millis()).unwrap_or(u64::MAX));
    }

    fn reply(&self, call: u64, result: Result<Vec<u8>, String>) {
        self.outbox.control(Frame::Reply { call, result }.encode());
    }

    fn init(&mut self, options: &[u8]) -> Result<Vec<u8>, String> {
        if self.root.is_some() {
            return Err("already started".into());
        }
        let options = std::str::from_utf8(options).map_err(|error| error.to_string())?;
        let caller = Caller::default();
        let root = load::open_root(self.copy, self.copy, &caller).map_err(|error| error.text)?;
        load::describe(root, self.copy, Expect::default(), &caller).map_err(|error| error.text)?;
        let remote = RemoteHost { outbox: Arc::clone(&self.outbox), pressure: Arc::clone(&self.pressure) };
        guard(|| {
            let host = HostBox::from_value(remote, TD_Opaque);
            root.init()(host, RStr::from_str(options)).into_result().map_err(String::from)
        })??;
        self.root = Some(root);
        Ok(Vec::new())
    }

    fn root(&self) -> Result<Module_Ref, String> {
        self.root.ok_or_else(|| "not started".into())
    }

    fn open(&mut self, inst: u64, config: &[u8]) -> Result<Vec<u8>, String> {
        let root = self.root()?;
        let config = std::str::from_utf8(config).map_err(|error| error.to_string())?;
        let opened = guard(|| root.open()(inst, RStr::from_str(config)).into_result().map_err(String::from));
        self.instances.insert(inst, opened??);
        Ok(Vec::new())
    }

    fn control(&self, op: u32, body: &[u8]) -> Result<Vec<u8>, String> {
        let root = self.root()?;
        guard(|| match root.control()(op, RSlice::from_slice(body)) {
            RResult::ROk(answer) => Ok(answer.into_vec()),
            RResult::RErr(text) => Err(text.into_string()),
        })?
    }

    fn shutdown(&mut self, deadline_ms: u64) -> bool {
        let Some(root) = self.root.take() else { return true };
        let instances = std::mem::take(&mut self.instances);
        let _ = guard(|| drop(instances));
        guard(|| root.shutdown()(deadline_ms)).unwrap_or(false)
    }

    fn submit(&self, inst: u64, op: u32, req: u64, body: Vec<u8>) {
        let Some(instance) = self.instances.get(&inst) else { return };
        let answer = guard(|| instance.submit(Message { op, req, body: body.into() }));
        let failure = match answer.map(Admission::from_code) {
            Ok(Admission::Accepted | Admission::Congested) => return,
            Ok(Admission::Unsupported) => {
                Failure::new(FailureKind::Unsupported, format!("the plugin does not know operation {op}"))
            }
            Ok(Admission::Refused) => Failure::new(
                FailureKind::Cancelled,
                "the plugin's queue is full, or the instance has stopped",
            ),
            Err(text) => Failure::new(FailureKind::Bug, text),
        };
        self.event(inst, req, &Event::Failed(failure));
    }

    fn deliver(&self, inst: u64, batch: Batch) {
        let Some(instance) = self.instances.get(&inst) else { return };
        let (first, lane) = (batch.id, batch.op);
        let records = u32::try_from(batch.samples.len()).unwrap_or(u32::MAX);
        let taken = guard(|| instance.deliver(batch)).is_ok_and(|code| Admission::from_code(code).is_taken());
        if !taken {
            let retry = Ack { first, count: records, verdict: Verdict::Retry, reason: 0 };
            self.event(inst, 0, &Event::Ack { lane, acks: vec![retry] });
        }
    }

    fn stop(&self, inst: u64, deadline_ms: u64) {
        if let Some(instance) = self.instances.get(&inst) {
            let _ = guard(|| instance.stop(deadline_ms));
        }
    }

    fn event(&self, inst: u64, req: u64, event: &Event) {
        let frame = Frame::Event { inst, op: event.op(), req, body: event.encode() };
        self.outbox.control(frame.encode());
    }
}

/// The host as the plugin in this process sees it. Nothing is checked here: the host checks what arrives.
struct RemoteHost {
    outbox: Arc<Outbox>,
    pressure: Arc<Pressure>,
}

impl RemoteHost {
    /// What is too large for the host is not sent: it would take the frame for an attack and end this process.
    fn instead(&self, inst: u64, req: u64, text: String) -> Admission {
        let text = format!("{text}, which is more than the contract allows; this is a bug of the plugin");
        let event = if req == 0 {
            Event::Fault(Fault { device: None, code: "oversized".into(), text })
        } else {
            Event::Failed(Failure::new(FailureKind::Bug, text))
        };
        self.outbox.control(Frame::Event { inst, op: event.op(), req, body: event.encode() }.encode())
    }
}

impl Host for RemoteHost {
    fn push(&self, inst: u64, batch: Batch) -> u32 {
        guard(|| {
            let (samples, bytes) = (batch.samples.len(), batch.blob.len());
            if samples > batch::MAX_SAMPLES || bytes > batch::MAX_BLOB {
                let text = format!("pushed a batch of {samples} samples and {bytes} bytes");
                return self.instead(inst, batch.id, text);
            }
            let admission = self.outbox.bulk(Frame::Push { inst, batch }.encode());
            let slow = admission == Admission::Accepted && self.pressure.is_on(inst);
            if slow { Admission::Congested } else { admission }
        })
        .unwrap_or(Admission::Refused)
        .code()
    }

    fn event(&self, inst: u64, msg: Message) -> u32 {
        guard(|| {
            let Message { op, req, body } = msg;
            if !busbar_contract::op::ALL.contains(&op) {
                return Admission::Unsupported;
            }
            if body.len() > MAX_BODY {
                return self.instead(inst, req, format!("sent an event {op} of {} bytes", body.len()));
            }
            self.outbox.control(Frame::Event { inst, op, req, body: body.into_vec() }.encode())
        })
        .unwrap_or(Admission::Refused)
        .code()
    }

    fn log(&self, inst: u64, rec: &LogRecord<'_>) {
        // A record that does not fit is dropped: nothing waits for it.
        let _ = guard(|| {
            let entry = serde_json::to_vec(&entry(rec)).unwrap_or_default();
            self.outbox.bulk(Frame::Log { inst, entry }.encode())
        });
    }
}

/// Instances whose batches the host takes slowly.
#[derive(Default)]
struct Pressure {
    /// Spares the lock while nobody is under pressure.
    any: AtomicBool,
    until: Mutex<HashMap<u64, Instant>>,
}

impl Pressure {
    fn report(&self, inst: u64) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.insert(inst, Instant::now() + PRESSURE_HOLDS);
        self.any.store(true, Ordering::Release);
    }

    fn is_on(&self, inst: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until > now);
        self.any.store(!until.is_empty(), Ordering::Release);
        until.contains_key(&inst)
    }

    fn forget(&self, inst: u64) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).remove(&inst);
    }
}
