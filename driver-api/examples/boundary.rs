//! What a sample costs on its way from a driver's code into the host's hands: loads the fake driver and prints JSON.
//!
//! `boundary [FILE.so] [in-process|process]`; without a file it takes the fake driver beside itself. Build both with the
//! release profile: `cargo build --release -p busbar-driver-fake && cargo run --release -p busbar-driver-api --example boundary`.
//!
//! Two paths are measured, each through everything: the real `.so`, the SDK's queues, tasks and deadlines, the loader's
//! checks, and a host that looks at every sample.
//!
//! * `read`: READ requests, [`CHUNK`] at a time (as a scheduler's tick submits them), each answered by one batch; the time
//!   contains the request's own cost: queue, deadline, completion. An empty group gives that cost alone (`request_ns`);
//!   what a batch costs beyond it is `boundary`.
//! * `update`: batches that the driver publishes by itself.
//!
//! All times are CPU time of this process (every thread, also the one that submits), so that other work on the machine
//! disturbs little; of an isolated plugin they show the host's share only. `wall` is what passed on the clock.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measuring program: it prints its result and stops at the first surprise"
)]

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Condvar, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use busbar_contract::{
    Action, Cause, Event, Origin, Request, Value,
    binary::Read,
    describe::{InitOptions, Open},
    request::{Attach, Bind, BindGroup, BindPoint, Command, OfDevice},
};
use busbar_loader::{
    Admission, Arrival, Expect, HostCallbacks, Instance, Isolation, Launcher, LogEntry, Plugin, Push, Pushed,
    child_main, probe, stage,
};
use serde_json::json;

const BATCHES: [u32; 4] = [1, 10, 100, 1000];
/// Samples per measurement.
const SAMPLES: u32 = 2_000_000;
/// Batches per measurement at least and at most.
const ROUNDS: std::ops::RangeInclusive<u32> = 2_000..=200_000;
const REPEATS: usize = 5;
/// Requests submitted together; the plugin's queue holds them all.
const CHUNK: u32 = 200;
const DEADLINE_MS: u32 = 60_000;

/// Looks at every sample and counts; wakes the measuring thread only when everything it waits for has come.
#[derive(Default)]
struct Host {
    samples: AtomicU64,
    checksum: AtomicU64,
    completed: AtomicU64,
    /// Wanted completions and samples.
    goal: (AtomicU64, AtomicU64),
    waiting: Mutex<()>,
    reached: Condvar,
}

impl Host {
    fn is_reached(&self) -> bool {
        self.completed.load(Ordering::SeqCst) >= self.goal.0.load(Ordering::SeqCst)
            && self.samples.load(Ordering::SeqCst) >= self.goal.1.load(Ordering::SeqCst)
    }

    fn counted(&self) {
        if self.is_reached() {
            drop(self.waiting.lock().unwrap());
            self.reached.notify_one();
        }
    }

    /// So many completions and samples more than now.
    fn expect(&self, completions: u64, samples: u64) {
        self.goal.0.store(self.completed.load(Ordering::SeqCst) + completions, Ordering::SeqCst);
        self.goal.1.store(self.samples.load(Ordering::SeqCst) + samples, Ordering::SeqCst);
    }

    fn wait(&self) {
        let waiting = self.waiting.lock().unwrap();
        drop(self.reached.wait_while(waiting, |()| !self.is_reached()).unwrap());
    }
}

impl HostCallbacks for Host {
    fn push(&self, _: u64, push: Push) -> Pushed {
        let sum = push.samples.samples.iter().fold(0_u64, |sum, sample| {
            sum.wrapping_add(sample.bits ^ u64::from(sample.point) ^ u64::from(sample.quality))
        });
        self.checksum.fetch_add(sum, Ordering::Relaxed);
        self.samples.fetch_add(push.samples.samples.len() as u64, Ordering::SeqCst);
        self.completed.fetch_add(u64::from(push.id != 0), Ordering::SeqCst);
        self.counted();
        Pushed::Accepted
    }

    fn event(&self, _: u64, req: u64, arrival: Arrival) -> Admission {
        match arrival {
            Arrival::Event(Event::Failed(failure)) => panic!("{failure:?}"),
            Arrival::Event(Event::Done(_)) if req != 0 => {
                self.completed.fetch_add(1, Ordering::SeqCst);
                self.counted();
            }
            _ => {}
        }
        Admission::Accepted
    }

    fn log(&self, _: u64, _: LogEntry) {}

    fn down(&self, reason: &str) {
        panic!("{reason}");
    }
}

struct Bench {
    host: Arc<Host>,
    instance: Instance,
    next: u64,
}

impl Bench {
    fn submit(&mut self, request: &Request) {
        self.next += 1;
        assert!(self.instance.submit(self.next, request).is_taken());
    }

    fn ask(&mut self, request: &Request) {
        self.host.expect(1, 0);
        self.submit(request);
        self.host.wait();
    }

    /// Cost of one read of a group.
    fn read(&mut self, group: u32, rounds: u32) -> Cost {
        let request = Request::Read(Read { group, deadline_ms: DEADLINE_MS, cause: Cause::Poll });
        let chunks = rounds.div_ceil(CHUNK);
        let began = Cost::now();
        for _ in 0..chunks {
            self.host.expect(u64::from(CHUNK), 0);
            (0..CHUNK).for_each(|_| self.submit(&request));
            self.host.wait();
        }
        began.elapsed(chunks * CHUNK)
    }

    /// Cost of one of `rounds` batches that the driver sends by itself.
    fn update(&mut self, script: u32, batch: u32, rounds: u32) -> Cost {
        let count = batch * rounds;
        let step = Value::Json(json!({ "flood": { "point": 1, "count": count, "batch": batch } }));
        let request = Request::Command(Command {
            device: 1,
            point: script,
            action: Action::Operate,
            value: step,
            origin: Origin::default(),
            qualifier: 0,
            interlock_check: false,
            synchro_check: false,
            test: false,
            issued_ns: 0,
            deadline_ms: u64::from(DEADLINE_MS),
        });
        let began = Cost::now();
        self.host.expect(1, u64::from(count));
        self.submit(&request);
        self.host.wait();
        began.elapsed(rounds)
    }
}

/// Nanoseconds.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

impl Cost {
    fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let cpu = tasks.filter_map(|task| {
            // First field: time on a CPU, ns. A thread may end meanwhile.
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse::<f64>().ok()
        });
        Self { cpu: cpu.sum(), wall: START.elapsed().as_nanos() as f64 }
    }

    fn elapsed(self, rounds: u32) -> Self {
        let now = Self::now();
        let each = |from: f64, to: f64| (to - from) / f64::from(rounds);
        Self { cpu: each(self.cpu, now.cpu), wall: each(self.wall, now.wall) }
    }
}

/// The median of each part.
fn median(measure: impl FnMut(usize) -> Cost) -> Cost {
    let costs: Vec<Cost> = (0..REPEATS).map(measure).collect();
    let middle = |part: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost { cpu: middle(|cost| cost.cpu), wall: middle(|cost| cost.wall) }
}

/// A device whose group N has N points.
fn bind() -> Request {
    let mut points = Vec::new();
    let mut groups = Vec::new();
    let mut next = 1;
    let spec = |address: &str| json!({ "address": address });
    let mut add = |address: &str| {
        let name = format!("p{next}");
        points.push(BindPoint { point: next, name, spec: spec(address), writable: true });
        next += 1;
        next - 1
    };
    let script = add("script");
    assert_eq!(script, SCRIPT);
    for batch in [0, 1, 10, 100, 1000] {
        groups.push(BindGroup { group: batch, points: (0..batch).map(|_| add("const:231.4")).collect() });
    }
    Request::Bind(Bind { device: 1, points, groups })
}

const SCRIPT: u32 = 1;

fn main() -> ExitCode {
    if let Some(code) = child_main(std::env::args_os().skip(1)) {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    let beside = || {
        let exe = std::env::current_exe().unwrap();
        exe.parent().unwrap().parent().unwrap().join("libbusbar_driver_fake.so")
    };
    let file = arguments.next().map_or_else(beside, PathBuf::from);
    let isolation = match arguments.next().as_deref() {
        Some("process") => Isolation::Process,
        _ => Isolation::InProcess,
    };
    let folder = tempfile::tempdir().unwrap();
    let staged = stage(folder.path(), "fake", &file, None).unwrap();
    let probed = probe(&Launcher::default(), &staged, Expect::default()).unwrap();
    let plugin = Plugin::load(&probed, isolation, &Launcher::default()).unwrap();
    let host = Arc::new(Host::default());
    let callbacks: Arc<dyn HostCallbacks> = Arc::<Host>::clone(&host);
    plugin.init(callbacks, &InitOptions::default()).unwrap();
    let connection = json!({ "endpoint": "bench" });
    let open = Open::Driver { endpoint: "bench".into(), connection: connection.clone() };
    let instance = plugin.open(1, &open).unwrap();
    let mut bench = Bench { host, instance, next: 0 };
    bench.ask(&Request::Attach(Attach {
        device: 1,
        name: "bench".into(),
        connection,
        settings: json!({}),
        response_timeout_ms: 1000,
        retries: 0,
    }));
    bench.ask(&bind());
    bench.ask(&Request::Connect(OfDevice { device: Some(1), deadline_ms: u64::from(DEADLINE_MS) }));

    let request = median(|_| bench.read(0, *ROUNDS.end()));
    let mut rows = Vec::new();
    for batch in BATCHES {
        let rounds = (SAMPLES / batch).clamp(*ROUNDS.start(), *ROUNDS.end());
        let read = median(|_| bench.read(batch, rounds));
        let update = median(|_| bench.update(SCRIPT, batch, rounds));
        let per_sample = |ns: f64| (ns / f64::from(batch) * 10.0).round() / 10.0;
        rows.push(json!({
            "batch": batch,
            "boundary_ns_per_sample": per_sample((read.cpu - request.cpu).max(0.0)),
            "read_ns_per_sample": per_sample(read.cpu),
            "read_wall_ns_per_sample": per_sample(read.wall),
            "update_ns_per_sample": per_sample(update.cpu),
            "update_wall_ns_per_sample": per_sample(update.wall),
        }));
    }
    bench.instance.stop(std::time::Duration::from_secs(5));
    let ended = plugin.shutdown(std::time::Duration::from_secs(10));
    let result = json!({
        "what": "driver code -> SDK -> .so boundary -> loader's checks -> host reads every sample; medians",
        "isolation": isolation, "requests_at_once": CHUNK, "repeats": REPEATS, "profile": profile(), "request_ns": request.cpu.round(), "request_wall_ns": request.wall.round(), "rows": rows,
    });
    println!("{result}");
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
