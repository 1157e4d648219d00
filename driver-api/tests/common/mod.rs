//! A small host: loads a plugin through the real loader and sees everything it says.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "each test binary uses a part of it"
)]

pub mod artifacts;
pub mod build;
pub mod sink;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use busbar_contract::{
    Event, Failure, Request, Value,
    describe::{InitOptions, Open},
    event::{Done, StateEntry},
    request::{AnswerTo, Attach, Bind, BindGroup, BindPoint, Command, OfDevice},
};
use busbar_loader::{
    Admission, Arrival, Delivery, Expect, HostCallbacks, Instance, Isolation, Launcher, LogEntry, Plugin,
    Push, Pushed, probe, stage,
};
use serde_json::{Value as Json, json};

/// Nothing in these tests takes nearly as long, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(30);
/// As the deadline of a request that is served at once.
pub const LONG_MS: u64 = 30_000;
/// More than any test hears before it listens.
const MOST_SAID: usize = 16_384;
pub const BOTH: [Isolation; 2] = [Isolation::InProcess, Isolation::Process];

/// Something the plugin said.
#[derive(Debug)]
pub enum Said {
    Push(u64, Push),
    Event(u64, u64, Event),
    Log(u64, LogEntry),
    Malformed(u64, u64, String),
    Down(String),
}

/// The callbacks: everything goes into a channel; pushes may be refused.
pub struct Ears {
    said: mpsc::SyncSender<Said>,
    /// Unsolicited pushes to refuse before one is taken.
    pub refuse: AtomicU32,
    pub refused: AtomicU32,
    pub beats: AtomicU64,
}

impl Ears {
    fn say(&self, said: Said) {
        if let Err(mpsc::TrySendError::Full(said)) = self.said.try_send(said) {
            panic!("a test did not expect so much: {said:?}");
        }
    }
}

impl HostCallbacks for Ears {
    fn push(&self, inst: u64, push: Push) -> Pushed {
        let refuse = self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refuse.is_ok() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Pushed::Refused(push);
        }
        self.say(Said::Push(inst, push));
        Pushed::Accepted
    }

    fn event(&self, inst: u64, req: u64, arrival: Arrival) -> Admission {
        match arrival {
            Arrival::Event(Event::Heartbeat(beat)) => {
                self.beats.store(beat.beat, Ordering::SeqCst);
            }
            Arrival::Event(event) => self.say(Said::Event(inst, req, event)),
            Arrival::Malformed(malformed) => self.say(Said::Malformed(inst, req, malformed.to_string())),
            Arrival::Lost { samples, last } => {
                self.say(Said::Malformed(inst, req, format!("lost {samples}, last {last}")));
            }
        }
        Admission::Accepted
    }

    fn log(&self, inst: u64, entry: LogEntry) {
        self.say(Said::Log(inst, entry));
    }

    fn down(&self, reason: &str) {
        self.say(Said::Down(reason.to_owned()));
    }
}

/// A plugin in one of its rounds.
pub struct Rig {
    pub plugin: Plugin,
    pub ears: Arc<Ears>,
    said: mpsc::Receiver<Said>,
    kept: VecDeque<Said>,
    logs: Vec<(u64, LogEntry)>,
    next: u64,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A plugin has one runtime per process: tests of one binary take turns.
static TURN: Mutex<()> = Mutex::new(());
/// Instance numbers are never used twice in a process.
static INSTANCE: AtomicU64 = AtomicU64::new(1);

impl Rig {
    /// Loads `file` and starts it.
    pub fn start(file: &Path, isolation: Isolation) -> Self {
        let mut rig = Self::load(file, isolation);
        rig.init();
        rig
    }

    pub fn load(file: &Path, isolation: Isolation) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let launcher = Launcher::program(artifacts::loader_child());
        let staged = stage(dir.path(), "fake", file, None).unwrap();
        let probed = probe(&launcher, &staged, Expect::default()).unwrap();
        let plugin = Plugin::load(&probed, isolation, &launcher).unwrap();
        let (sender, said) = mpsc::sync_channel(MOST_SAID);
        let ears = Arc::new(Ears {
            said: sender,
            refuse: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            beats: AtomicU64::new(0),
        });
        Self { plugin, ears, said, kept: VecDeque::new(), logs: Vec::new(), next: 1, _dir: dir, _turn: turn }
    }

    pub fn init(&mut self) {
        let options = InitOptions { log_level: "debug".into(), ..InitOptions::default() };
        let ears: Arc<dyn HostCallbacks> = Arc::<Ears>::clone(&self.ears);
        self.plugin.init(ears, &options).unwrap();
    }

    /// Ends the round; everything must end in time.
    pub fn end(self) {
        assert!(self.plugin.shutdown(LONG), "the plugin did not end in time");
    }

    pub fn open(&mut self, config: &Open) -> Instance {
        let instance = self.open_only(config);
        let opened = self.wait(|said| matches!(said, Said::Event(_, 0, Event::Opened | Event::Failed(_))));
        assert!(matches!(opened, Said::Event(inst, 0, Event::Opened) if inst == instance.id()), "{opened:?}");
        instance
    }

    pub fn open_only(&mut self, config: &Open) -> Instance {
        self.plugin.open(INSTANCE.fetch_add(1, Ordering::SeqCst), config).unwrap()
    }

    /// The next thing for which `wanted` holds; others are kept in order.
    pub fn wait(&mut self, mut wanted: impl FnMut(&Said) -> bool) -> Said {
        self.wait_for(LONG, &mut wanted).unwrap_or_else(|| panic!("nothing came; kept: {:#?}", self.kept))
    }

    /// As [`Rig::wait`], or nothing within `limit`.
    pub fn wait_for(&mut self, limit: Duration, wanted: &mut dyn FnMut(&Said) -> bool) -> Option<Said> {
        if let Some(at) = self.kept.iter().position(&mut *wanted) {
            return self.kept.remove(at);
        }
        let until = Instant::now() + limit;
        loop {
            let said = self.said.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            match said {
                Said::Log(inst, entry) if !wanted(&Said::Log(inst, entry.clone())) => {
                    self.logs.push((inst, entry))
                }
                said if wanted(&said) => return Some(said),
                said => self.kept.push_back(said),
            }
        }
    }

    /// Everything that came and nobody waited for, but logs.
    pub fn leftovers(&mut self) -> Vec<Said> {
        while let Ok(said) = self.said.try_recv() {
            match said {
                Said::Log(inst, entry) => self.logs.push((inst, entry)),
                said => self.kept.push_back(said),
            }
        }
        std::mem::take(&mut self.kept).into()
    }

    /// A log record, also one that came earlier.
    pub fn log(&mut self, wanted: impl Fn(&LogEntry) -> bool) -> (u64, LogEntry) {
        if let Some(at) = self.logs.iter().position(|(_, entry)| wanted(entry)) {
            return self.logs.remove(at);
        }
        match self.wait(|said| matches!(said, Said::Log(_, entry) if wanted(entry))) {
            Said::Log(inst, entry) => (inst, entry),
            other => panic!("{other:?}"),
        }
    }

    pub fn logs(&self) -> &[(u64, LogEntry)] {
        &self.logs
    }

    /// Sends a request without waiting.
    pub fn send(&mut self, instance: &Instance, request: &Request) -> u64 {
        let number = self.next;
        self.next += 1;
        let admission = instance.submit(number, request);
        assert!(admission.is_taken(), "{admission:?} {request:?}");
        number
    }

    /// The completion of a request (R4).
    pub fn completion(&mut self, number: u64) -> Said {
        self.wait(|said| match said {
            Said::Push(_, push) => push.id == number && push.flags & busbar_contract::batch::LAST != 0,
            Said::Event(_, req, Event::Done(_) | Event::Failed(_)) => *req == number,
            Said::Malformed(_, req, _) => *req == number,
            _ => false,
        })
    }

    pub fn ask(&mut self, instance: &Instance, request: &Request) -> Said {
        let number = self.send(instance, request);
        self.completion(number)
    }

    /// A request that must succeed.
    pub fn done(&mut self, instance: &Instance, request: &Request) -> Done {
        match self.ask(instance, request) {
            Said::Event(_, _, Event::Done(done)) => done,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// A request that must fail.
    pub fn failed(&mut self, instance: &Instance, request: &Request) -> Failure {
        match self.ask(instance, request) {
            Said::Event(_, _, Event::Failed(failure)) => failure,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// A read or block read that must succeed.
    pub fn samples(&mut self, instance: &Instance, request: &Request) -> Push {
        match self.ask(instance, request) {
            Said::Push(_, push) => push,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// The next event of this instance that answers no request, chosen by `wanted`.
    pub fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> (u64, Event) {
        match self.wait(|said| matches!(said, Said::Event(_, _, event) if wanted(event))) {
            Said::Event(_, req, event) => (req, event),
            other => panic!("{other:?}"),
        }
    }

    pub fn push(&mut self) -> Push {
        match self.wait(|said| matches!(said, Said::Push(_, push) if push.id == 0)) {
            Said::Push(_, push) => push,
            other => panic!("{other:?}"),
        }
    }

    /// Answers a question of the plugin.
    pub fn answer(&mut self, instance: &Instance, number: u64, answer: AnswerTo) {
        let admission = instance.submit(number, &Request::Answer(answer));
        assert!(admission.is_taken(), "{admission:?}");
    }

    /// Answers the next STATE_PUT or STATE_GET and gives its entry.
    pub fn state(&mut self, instance: &Instance, answer: AnswerTo) -> StateEntry {
        let (number, event) = self.event(|event| matches!(event, Event::StatePut(_) | Event::StateGet(_)));
        self.answer(instance, number, answer);
        match event {
            Event::StatePut(entry) | Event::StateGet(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    pub fn stop(&mut self, instance: &Instance) {
        instance.stop(LONG);
        let id = instance.id();
        self.wait(|said| matches!(said, Said::Event(inst, 0, Event::Stopped) if *inst == id));
    }
}

/// A driver's instance on an endpoint with a name of its own.
pub fn driver(connection: &Json) -> Open {
    Open::Driver { endpoint: "test".into(), connection: connection.clone() }
}

/// A connection whose endpoint is used by this test only.
pub fn connection(more: Json) -> Json {
    static NAME: AtomicU64 = AtomicU64::new(1);
    let name = format!("endpoint-{}", NAME.fetch_add(1, Ordering::SeqCst));
    let mut connection = json!({ "endpoint": name });
    if let (Some(table), Json::Object(more)) = (connection.as_object_mut(), more) {
        table.extend(more);
    }
    connection
}

pub fn attach(device: u32, connection: &Json) -> Request {
    Request::Attach(Attach {
        device,
        name: format!("device-{device}"),
        connection: connection.clone(),
        settings: json!({ "model": format!("model-{device}") }),
        response_timeout_ms: 1000,
        retries: 0,
    })
}

/// Points `address` or `address kind`, numbered from `first`; all in one group with the number of the device.
pub fn bind(device: u32, first: u32, addresses: &[&str]) -> Request {
    let points = addresses.iter().zip(first..).map(|(address, point)| {
        let (address, kind) = address.split_once(' ').unwrap_or((address, "float64"));
        BindPoint {
            point,
            name: format!("p{point}"),
            spec: json!({ "address": address, "type": kind }),
            writable: true,
        }
    });
    let points: Vec<BindPoint> = points.collect();
    let numbers = points.iter().map(|point| point.point).collect();
    Request::Bind(Bind { device, points, groups: vec![BindGroup { group: device, points: numbers }] })
}

pub fn of(device: u32) -> OfDevice {
    OfDevice { device: Some(device), deadline_ms: LONG_MS }
}

pub fn read(group: u32, deadline_ms: u32) -> Request {
    let cause = busbar_contract::Cause::Poll;
    Request::Read(busbar_contract::binary::Read { group, deadline_ms, cause })
}

pub fn command(device: u32, point: u32, value: Value) -> Command {
    Command {
        device,
        point,
        action: busbar_contract::Action::Operate,
        value,
        origin: busbar_contract::Origin {
            sink: "test".into(),
            client: "me".into(),
            category: 2,
            ident: "x".into(),
        },
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: 1,
        deadline_ms: LONG_MS,
    }
}

/// Values of a batch, in order.
pub fn values(push: &Push) -> Vec<Value> {
    push.samples.samples.iter().map(|sample| push.samples.value(sample).unwrap()).collect()
}

pub fn delivery(first: u64, lane: u32, flags: u32, samples: busbar_contract::Samples) -> Delivery {
    Delivery { first, lane, flags, samples }
}
