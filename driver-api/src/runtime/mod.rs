//! The plugin's own runtime: one per `.so`, one task per instance, started by `init` and ended by `shutdown`.
//!
//! A library is never unloaded, so both may be called again and again (an upgrade that is rolled back uses the same
//! handle). Everything of one round lives in [`Global`]; only the tracing subscriber, the panic hook and the rustls provider
//! are installed once.

pub(crate) mod driver;
pub(crate) mod port;
pub(crate) mod sink;
pub(crate) mod stats;

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use busbar_abi::{ACCEPTED, Batch, CONGESTED, HostBox, Instance, Message, REFUSED, UNSUPPORTED};
use busbar_contract::{
    Event, Failure, FailureKind,
    describe::{HOST_POINT_KEYS, InitOptions},
    event::Heartbeat,
    op,
};
use serde_json::Value as Json;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::Instrument;

use self::{
    port::{Ends, Inbox, Item, OUTBOX, Port, REQUEST_QUEUE, URGENT_QUEUE},
    stats::STATS,
};
use crate::{
    context::{Shared, Tasks},
    guard::{Caught, guard},
    time, trace,
};

/// Period of the heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// A submit that leaves less than this part of the queue free is answered "congested".
const CONGESTED_BELOW: usize = REQUEST_QUEUE / 4;
/// Most worker threads of one plugin.
const MAX_WORKERS: usize = 64;

/// What serves the items of one instance. Implemented for drivers and for sinks.
pub(crate) trait Engine: Send + 'static {
    /// Serves one item and completes it.
    fn serve(&mut self, port: &mut Port, item: Item) -> impl Future<Output = ()> + Send;
    /// Runs the session's own work until there is an item.
    fn idle(&mut self, port: &mut Port) -> impl Future<Output = ()> + Send;
    /// Ends the session in an orderly way.
    fn shut(&mut self, port: &mut Port) -> impl Future<Output = ()> + Send;
}

/// One round between `init` and `shutdown`.
struct Global {
    runtime: Runtime,
    host: Arc<HostBox>,
    options: InitOptions,
    instances: HashMap<u64, (watch::Sender<Option<u64>>, JoinHandle<()>)>,
}

static GLOBAL: Mutex<Option<Global>> = Mutex::new(None);

fn global() -> MutexGuard<'static, Option<Global>> {
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the runtime.
pub(crate) fn init(name: &str, host: HostBox, options: &str) -> Result<(), String> {
    let options: InitOptions = serde_json::from_str(options)
        .map_err(|error| format!("init options: expected a JSON object: {error}"))?;
    trace::set_level(&options.log_level)?;
    let mut global = global();
    if global.is_some() {
        return Err("init: expected a plugin at rest, found a running one; call shutdown first".to_owned());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(options.workers.clamp(1, MAX_WORKERS))
        .thread_name(format!("bb-{name}"))
        .enable_all()
        .build()
        .map_err(|error| format!("the plugin's runtime could not start: {error}"))?;
    let host = Arc::new(host);
    trace::attach(Some(Arc::clone(&host)));
    install_tls();
    runtime.spawn(heartbeat(Arc::clone(&host)));
    *global = Some(Global { runtime, host, options, instances: HashMap::new() });
    Ok(())
}

fn install_tls() {
    // Fails only when a provider is installed already, by an earlier round.
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn heartbeat(host: Arc<HostBox>) {
    // Real time, whatever the plugin's clock does: the host's watchdog runs on it.
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut beat = 0;
    loop {
        ticks.tick().await;
        beat += 1;
        let event = Event::Heartbeat(Heartbeat { beat });
        host.event(0, Message { op: event.op(), req: 0, body: event.encode().into() });
    }
}

/// Ends every instance, then the runtime; true when everything ended in time.
pub(crate) fn shutdown(deadline_ms: u64) -> bool {
    let until = Instant::now() + Duration::from_millis(deadline_ms);
    let Some(taken) = global().take() else {
        return true;
    };
    for (stop, _) in taken.instances.values() {
        stop.send_if_modified(|at| at.is_none() && at.replace(deadline_ms).is_none());
    }
    let tasks: Vec<_> = taken.instances.into_values().map(|(_, task)| task).collect();
    // Waits on a channel of the standard library: plugin code that never yields may hold the only thread that drives
    // tokio's timers.
    let (ended, all_ended) = std::sync::mpsc::sync_channel(1);
    taken.runtime.spawn(async move {
        for task in tasks {
            // A task that panicked has ended too.
            let _ = task.await;
        }
        let _ = ended.send(());
    });
    let in_time = all_ended.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok();
    taken.runtime.shutdown_timeout(until.saturating_duration_since(Instant::now()).max(LEAST_SHUTDOWN));
    trace::attach(None);
    in_time
}

/// Worker threads get at least this long to see that the runtime ended.
const LEAST_SHUTDOWN: Duration = Duration::from_millis(100);

/// Starts the task of one instance. `engine` gets what plugin code needs to reach the host; an `Err` of it is a
/// configuration that cannot run: the instance lives, says so, and refuses everything.
pub(crate) fn open<E: Engine>(
    inst: u64,
    engine: impl FnOnce(Arc<Shared>) -> Result<E, String> + Send + 'static,
    requests: &'static [u32],
) -> Result<Handle, String> {
    let mut global = global();
    let Some(global) = global.as_mut() else {
        return Err("open: expected a running plugin; call init first".to_owned());
    };
    global.instances.retain(|_, (_, task)| !task.is_finished());
    if global.instances.contains_key(&inst) {
        return Err(format!("instance {inst}: expected a new number, found a living one"));
    }
    let (inbox, inbox_end) = mpsc::channel(REQUEST_QUEUE);
    let (urgent, urgent_end) = mpsc::channel(URGENT_QUEUE);
    let (stop, stop_end) = watch::channel(None);
    let (out, outbox) = mpsc::channel(OUTBOX);
    let (cancel, cancelled) = watch::channel(false);
    let shared = Arc::new(Shared {
        out,
        cancel: cancelled,
        asks: AtomicU64::new(1),
        tasks: Tasks::default(),
        cache_dir: PathBuf::from(&global.options.cache_dir),
        host_minor: global.options.host_minor,
    });
    let ends = Ends { inbox: inbox_end, urgent: urgent_end, stop: stop_end };
    let port = Port::new(inst, Arc::clone(&global.host), ends, outbox, cancel, Arc::clone(&shared));
    let task = run(port, move || engine(shared)).instrument(trace::device_span(inst, trace::NO_DEVICE));
    let task = global.runtime.spawn(task);
    global.instances.insert(inst, (stop.clone(), task));
    Ok(Handle { inbox, urgent, stop, requests })
}

async fn run<E: Engine>(mut port: Port, engine: impl FnOnce() -> Result<E, String> + Send) {
    match guard(engine)
        .unwrap_or_else(|panic| Err(format!("bug in the plugin, panic while opening: {panic}")))
    {
        Ok(mut engine) => {
            port.send_event(0, &Event::Opened);
            if let Err(panic) = Caught::new(serve(&mut engine, &mut port)).await {
                let text = format!("bug in the plugin, its instance cannot go on: {panic}");
                port.send_event(0, &Event::Failed(Failure::new(FailureKind::Bug, text)));
                crate::guard::guarded_drop(engine);
            }
        }
        Err(text) => {
            port.send_event(0, &Event::Failed(Failure::new(FailureKind::Configuration, text.as_str())));
            refuse_all(&mut port, &text).await;
        }
    }
    port.shared.tasks.end().await;
    port.finish().await;
}

async fn serve<E: Engine>(engine: &mut E, port: &mut Port) {
    while !port.stopping() {
        match port.take() {
            Some(item) => engine.serve(port, item).await,
            None => engine.idle(port).await,
        }
    }
    engine.shut(port).await;
}

async fn refuse_all(port: &mut Port, why: &str) {
    while !port.stopping() {
        match port.take() {
            Some(item) => port.turn_away(&item, FailureKind::Configuration, why),
            None => {
                port.idle(std::future::pending::<()>()).await;
            }
        }
    }
}

/// What the host holds of an instance. Its calls only enqueue (R2); dropping it lets the instance end by itself (R7).
pub(crate) struct Handle {
    inbox: mpsc::Sender<Inbox>,
    urgent: mpsc::Sender<Message>,
    stop: watch::Sender<Option<u64>>,
    requests: &'static [u32],
}

impl Handle {
    fn enqueue(&self, inbox: Inbox) -> u32 {
        if self.stop.borrow().is_some() || self.inbox.try_send(inbox).is_err() {
            STATS.refused_submits.add(1);
            return REFUSED;
        }
        STATS.submitted.add(1);
        if self.inbox.capacity() < CONGESTED_BELOW { CONGESTED } else { ACCEPTED }
    }

    fn accept(&self, message: Message) -> u32 {
        match message.op {
            op::request::CANCEL | op::request::ANSWER => {
                if self.urgent.try_send(message).is_ok() {
                    ACCEPTED
                } else {
                    REFUSED
                }
            }
            known if self.requests.contains(&known) => {
                self.enqueue(Inbox::Message(message, time::monotonic()))
            }
            _ => UNSUPPORTED,
        }
    }
}

impl Instance for Handle {
    fn submit(&self, msg: Message) -> u32 {
        guard(|| self.accept(msg)).unwrap_or(REFUSED)
    }

    fn deliver(&self, batch: Batch) -> u32 {
        let takes = self.requests.contains(&op::request::POINTS);
        guard(|| if takes { self.enqueue(Inbox::Batch(batch)) } else { UNSUPPORTED }).unwrap_or(REFUSED)
    }

    fn stop(&self, deadline_ms: u64) {
        // The first deadline counts.
        let _ = guard(|| self.stop.send_if_modified(|at| at.is_none() && at.replace(deadline_ms).is_none()));
    }
}

/// The part of a point's table that is the driver's.
pub(crate) fn driver_keys(spec: &Json) -> Json {
    let mut spec = or_table(spec);
    if let Some(table) = spec.as_object_mut() {
        table.retain(|key, _| !HOST_POINT_KEYS.contains(&key.as_str()));
    }
    spec
}

/// An absent table is an empty one.
pub(crate) fn or_table(table: &Json) -> Json {
    if table.is_null() { Json::Object(serde_json::Map::new()) } else { table.clone() }
}
