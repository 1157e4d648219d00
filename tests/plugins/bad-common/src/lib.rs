//! A plugin on the raw waist, without the SDK, so that each bad plugin is bad in one way only.
//!
//! [`Bad`] is a well-behaved plugin whose every part can be replaced. Its runtime is one thread with a bounded queue
//! that answers requests and sends a heartbeat; `init` may follow `shutdown`. [`export_bad!`] makes the root module.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use busbar_abi::{
    ACCEPTED, Batch, HostBox, Instance, InstanceBox, LogRecord, Message, REFUSED,
    abi_stable::{
        sabi_trait::TD_Opaque,
        std_types::{RErr, ROk, RResult, RSlice, RStr, RString, RVec},
    },
};
use busbar_contract::{
    Event, Failure, FailureKind, Problem,
    binary::{Ack, Verdict},
    describe::Open,
    event::{Done, Heartbeat},
    op,
};
use serde_json::{Value as Json, json};

pub use busbar_abi;
pub use busbar_contract;
pub use serde_json;

/// Requests that may wait for the plugin's thread.
const QUEUE: usize = 1024;
const HEARTBEAT: Duration = Duration::from_millis(250);

/// A plugin, part by part.
pub struct Bad {
    /// Its name.
    pub name: &'static str,
    /// Changes the description.
    pub describe: fn(&mut Json),
    /// Called at the beginning of `init`, with the options; not guarded.
    pub init: fn(&Json) -> Result<(), String>,
    /// Called at the beginning of `open`; not guarded.
    pub open: fn(&Open) -> Result<(), String>,
    /// Called for every control but ENDPOINT and CHECK; not guarded.
    pub control: fn(u32, &[u8]) -> Result<Vec<u8>, String>,
    /// Answers CHECK; not guarded.
    pub check: fn(&Json) -> Vec<Problem>,
    /// Called inside `submit`, before the request is queued; not guarded.
    pub submit: fn(&Message) -> u32,
    /// Called inside `deliver`, before the records are queued; not guarded.
    pub deliver: fn(&Batch) -> u32,
    /// Handles a request on the plugin's thread; a panic becomes FAILED.
    pub handle: fn(&Host<'_>, &Message),
}

impl Bad {
    /// Behaves.
    #[must_use]
    pub const fn well_behaved(name: &'static str) -> Self {
        Self {
            name,
            describe: |_| {},
            init: |_| Ok(()),
            open: |_| Ok(()),
            control: |_, body| Ok(body.to_vec()),
            check: |_| Vec::new(),
            submit: |_| ACCEPTED,
            deliver: |_| ACCEPTED,
            handle: |host, request| host.done(request.req),
        }
    }
}

/// The host, as a handler of one instance sees it.
pub struct Host<'a> {
    host: &'a HostBox,
    /// The instance.
    pub inst: u64,
}

impl Host<'_> {
    /// Sends an event of this instance.
    pub fn event(&self, req: u64, event: &Event) -> u32 {
        self.raw_event(self.inst, req, event.op(), event.encode())
    }

    /// Sends any event of any instance.
    pub fn raw_event(&self, inst: u64, req: u64, op: u32, body: Vec<u8>) -> u32 {
        self.host.event(inst, Message { op, req, body: body.into() })
    }

    /// Pushes any batch of any instance.
    pub fn raw_push(&self, inst: u64, batch: Batch) -> u32 {
        self.host.push(inst, batch)
    }

    /// Sends a log record.
    pub fn log(&self, record: &LogRecord<'_>) {
        self.host.log(self.inst, record);
    }

    /// Completes a request.
    pub fn done(&self, req: u64) {
        self.event(req, &Event::Done(Done::default()));
    }
}

enum Job {
    Opened(u64),
    Request(u64, Message),
    Deliver(u64, u64, u32, u32),
    Stop(u64),
    End,
}

struct Runtime {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

fn send(job: Job) -> u32 {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match runtime.as_ref().map(|runtime| runtime.jobs.try_send(job)) {
        Some(Ok(())) => ACCEPTED,
        _ => REFUSED,
    }
}

fn run(bad: &'static Bad, host: &HostBox, jobs: &Receiver<Job>) {
    let mut beat = 0;
    loop {
        match jobs.recv_timeout(HEARTBEAT) {
            Ok(Job::Opened(inst)) => {
                Host { host, inst }.event(0, &Event::Opened);
            }
            Ok(Job::Request(inst, request)) => {
                let host = Host { host, inst };
                let handled = catch_unwind(AssertUnwindSafe(|| (bad.handle)(&host, &request)));
                if let Err(payload) = handled {
                    let text = payload.downcast_ref::<&str>().copied().unwrap_or("panic");
                    let failure = Failure::new(FailureKind::Bug, format!("panicked: {text}"));
                    host.event(request.req, &Event::Failed(failure));
                    std::mem::forget(payload);
                }
            }
            Ok(Job::Deliver(inst, first, lane, count)) => {
                let ack = Ack { first, count, verdict: Verdict::Delivered, reason: 0 };
                Host { host, inst }.event(0, &Event::Ack { lane, acks: vec![ack] });
            }
            Ok(Job::Stop(inst)) => {
                Host { host, inst }.event(0, &Event::Stopped);
            }
            Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                beat += 1;
                Host { host, inst: 0 }.event(0, &Event::Heartbeat(Heartbeat { beat }));
            }
        }
    }
}

struct Handle {
    bad: &'static Bad,
    inst: u64,
}

impl Instance for Handle {
    fn submit(&self, msg: Message) -> u32 {
        match (self.bad.submit)(&msg) {
            ACCEPTED => send(Job::Request(self.inst, msg)),
            other => other,
        }
    }

    fn deliver(&self, batch: Batch) -> u32 {
        let code = (self.bad.deliver)(&batch);
        if code != ACCEPTED {
            return code;
        }
        let count = u32::try_from(batch.samples.len()).unwrap_or(0);
        send(Job::Deliver(self.inst, batch.id, batch.op, count))
    }

    fn stop(&self, _deadline_ms: u64) {
        send(Job::Stop(self.inst));
    }
}

/// Body of `describe`.
#[must_use]
pub fn describe(bad: &'static Bad, unwind: bool) -> RString {
    let mut json = json!({
        "name": bad.name,
        "kind": "driver",
        "version": "0.1.0",
        "description": "A bad plugin for tests",
        "protocol": busbar_contract::PROTOCOL,
        "sdk": "none",
        "unwind": unwind,
        "ops": op::ALL.to_vec(),
    });
    (bad.describe)(&mut json);
    json.to_string().into()
}

/// Body of `init`.
pub fn init(bad: &'static Bad, host: HostBox, options: RStr<'_>) -> RResult<(), RString> {
    let options: Json = serde_json::from_str(options.as_str()).unwrap_or(Json::Null);
    if let Err(text) = (bad.init)(&options) {
        return RErr(text.into());
    }
    let (jobs, queue) = sync_channel(QUEUE);
    let host = Arc::new(host);
    match thread::Builder::new().name(bad.name.into()).spawn(move || run(bad, &host, &queue)) {
        Ok(thread) => {
            *RUNTIME.lock().unwrap_or_else(PoisonError::into_inner) = Some(Runtime { jobs, thread });
            ROk(())
        }
        Err(error) => RErr(error.to_string().into()),
    }
}

/// Body of `open`.
pub fn open(bad: &'static Bad, inst: u64, config: RStr<'_>) -> RResult<InstanceBox, RString> {
    let opened = serde_json::from_str::<Open>(config.as_str())
        .map_err(|error| error.to_string())
        .and_then(|config| (bad.open)(&config));
    match opened {
        Ok(()) => {
            send(Job::Opened(inst));
            ROk(InstanceBox::from_value(Handle { bad, inst }, TD_Opaque))
        }
        Err(text) => RErr(text.into()),
    }
}

/// Body of `control`.
pub fn control(bad: &'static Bad, op: u32, body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
    let body = body.as_slice();
    let answer = match op {
        op::control::ENDPOINT => serde_json::from_slice::<Json>(body)
            .map_err(|error| error.to_string())
            .and_then(|connection| match connection.get("host").and_then(Json::as_str) {
                Some(host) => {
                    Ok(json!({ "key": format!("tcp:{host}"), "parallel": 1 }).to_string().into_bytes())
                }
                None => Err("connection.host: expected a host name, found none".into()),
            }),
        op::control::CHECK => {
            let input = serde_json::from_slice(body).unwrap_or(Json::Null);
            serde_json::to_vec(&(bad.check)(&input)).map_err(|error| error.to_string())
        }
        op => (bad.control)(op, body),
    };
    match answer {
        Ok(answer) => ROk(answer.into()),
        Err(text) => RErr(text.into()),
    }
}

/// Body of `shutdown`.
pub fn shutdown() -> bool {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Runtime { jobs, thread }) = runtime else { return true };
    // Blocks while the queue is full; the thread empties it.
    jobs.send(Job::End).is_ok() && thread.join().is_ok()
}

/// Changes an existing value of a description.
pub fn set(describe: &mut Json, pointer: &str, value: Json) {
    if let Some(place) = describe.pointer_mut(pointer) {
        *place = value;
    }
}

/// Never returns.
pub fn forever() -> ! {
    loop {
        thread::park();
    }
}

/// Makes the root module of a [`Bad`] plugin; the argument is a `static`.
#[macro_export]
macro_rules! export_bad {
    ($bad:ident) => {
        mod root {
            use $crate::busbar_abi::{
                HostBox, InstanceBox, Module, Module_Ref,
                abi_stable::{
                    library::CheckTypeLayout,
                    library::{__call_root_module_loader, LibHeader, RootModuleResult},
                    prefix_type::PrefixTypeTrait,
                    std_types::{RResult, RSlice, RStr, RString, RVec},
                },
            };

            extern "C" fn describe() -> RString {
                $crate::describe(&super::$bad, cfg!(panic = "unwind"))
            }
            extern "C" fn init(host: HostBox, options: RStr<'_>) -> RResult<(), RString> {
                $crate::init(&super::$bad, host, options)
            }
            extern "C" fn open(inst: u64, config: RStr<'_>) -> RResult<InstanceBox, RString> {
                $crate::open(&super::$bad, inst, config)
            }
            extern "C" fn control(op: u32, body: RSlice<'_, u8>) -> RResult<RVec<u8>, RString> {
                $crate::control(&super::$bad, op, body)
            }
            extern "C" fn shutdown(_deadline_ms: u64) -> bool {
                $crate::shutdown()
            }
            fn root() -> Module_Ref {
                Module { describe, init, open, control, shutdown }.leak_into_prefix()
            }
            extern "C" fn erased() -> RootModuleResult {
                __call_root_module_loader(root)
            }

            #[allow(unsafe_code, reason = "the root symbol of a plugin without the SDK")]
            // SAFETY: the name is abi_stable's; the constructor returns a `Module_Ref`.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static HEADER: LibHeader =
                unsafe { LibHeader::from_constructor::<Module_Ref>(erased, CheckTypeLayout::Yes) };
        }
    };
}
