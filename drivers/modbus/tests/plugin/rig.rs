//! A small host: builds and loads the real `.so`, sends requests, waits for their completions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use busbar_contract::describe::{CheckInput, InitOptions, Open, Problem};
use busbar_contract::event::{Done, Page};
use busbar_contract::request::{
    Attach, Bind, BindGroup, BindPoint, BlockRead, Command as CommandBody, OfDevice,
};
use busbar_contract::{Action, Answer, Event, Failure, Origin, Request, Value, batch, binary};
use busbar_loader::{
    Admission, Arrival, Expect, HostCallbacks, Instance, Isolation, Launcher, LogEntry, Plugin, Probe, Push,
    Pushed, probe, stage,
};
use serde_json::{Value as Json, json};

/// Nothing in these tests takes nearly as long, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Response time-out of the devices: long where an answer is expected.
pub(crate) const PATIENT: u64 = 20_000;

#[derive(Debug)]
enum Said {
    Push(Push),
    Event(u64, Box<Event>),
}

struct Ears(Mutex<mpsc::SyncSender<Said>>);

impl Ears {
    fn say(&self, said: Said) {
        // The test may have ended.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).try_send(said);
    }
}

impl HostCallbacks for Ears {
    fn push(&self, _: u64, push: Push) -> Pushed {
        self.say(Said::Push(push));
        Pushed::Accepted
    }

    fn event(&self, _: u64, req: u64, arrival: Arrival) -> Admission {
        match arrival {
            Arrival::Event(Event::Heartbeat(_)) => {}
            Arrival::Event(event) => self.say(Said::Event(req, Box::new(event))),
            other => panic!("the plugin broke the contract: {other:?}"),
        }
        Admission::Accepted
    }

    fn log(&self, _: u64, _: LogEntry) {}

    fn down(&self, reason: &str) {
        panic!("the plugin went down: {reason}");
    }
}

/// The driver, loaded; one instance at a time.
pub(crate) struct Rig {
    plugin: Plugin,
    said: mpsc::Receiver<Said>,
    pub(crate) pages: Vec<Json>,
    /// METADATA as it came.
    pub(crate) metadata: Vec<(u32, Json)>,
    next: u64,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A plugin has one runtime per process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());
static INSTANCE: AtomicU64 = AtomicU64::new(1);

impl Rig {
    pub(crate) fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (driver, child) = built();
        let dir = tempfile::tempdir().unwrap();
        let launcher = Launcher::program(child.clone());
        let staged = stage(dir.path(), "modbus", driver, None).unwrap();
        let probed = probe(&launcher, &staged, Expect::default()).unwrap();
        let plugin = Plugin::load(&probed, Isolation::InProcess, &launcher).unwrap();
        let (sender, said) = mpsc::sync_channel(10_000);
        let ears: Arc<dyn HostCallbacks> = Arc::new(Ears(Mutex::new(sender)));
        plugin.init(ears, &InitOptions::default()).unwrap();
        Self { plugin, said, pages: Vec::new(), metadata: Vec::new(), next: 1, _dir: dir, _turn: turn }
    }

    /// An instance with these devices attached and their points bound; device `n` has group `n`, its points are
    /// numbered from `100 * n`.
    pub(crate) fn open(&mut self, devices: &[(Json, Json)], response_timeout_ms: u64) -> Instance {
        let (first, _) = &devices[0];
        let config = Open::Driver { endpoint: "test".into(), connection: first.clone() };
        let instance = self.plugin.open(INSTANCE.fetch_add(1, Ordering::SeqCst), &config).unwrap();
        for (number, (connection, points)) in (1..).zip(devices) {
            self.done(
                &instance,
                &Request::Attach(Attach {
                    device: number,
                    name: format!("device-{number}"),
                    connection: connection.clone(),
                    settings: json!({}),
                    response_timeout_ms,
                    retries: 0,
                }),
            );
            let points: Vec<BindPoint> = (100 * number..)
                .zip(points.as_array().unwrap())
                .map(|(point, spec)| BindPoint {
                    point,
                    name: format!("p{point}"),
                    spec: spec.clone(),
                    writable: true,
                })
                .collect();
            let group = BindGroup { group: number, points: points.iter().map(|point| point.point).collect() };
            let bound =
                self.done(&instance, &Request::Bind(Bind { device: number, points, groups: vec![group] }));
            assert_eq!(bound.rejected, []);
        }
        instance
    }

    /// The completion of a request: its last batch, or DONE or FAILED.
    fn ask(&mut self, instance: &Instance, request: &Request) -> Result<(Option<Push>, Done), Failure> {
        let number = self.next;
        self.next += 1;
        let admission = instance.submit(number, request);
        assert!(admission.is_taken(), "{admission:?} {request:?}");
        loop {
            match self.said.recv_timeout(LONG).unwrap_or_else(|_| panic!("no completion of {request:?}")) {
                Said::Push(push) if push.id == number && push.flags & batch::LAST != 0 => {
                    return Ok((Some(push), Done::default()));
                }
                Said::Event(0, event) => {
                    if let Event::Metadata(metadata) = *event {
                        self.metadata.extend(metadata.points);
                    }
                }
                Said::Event(req, event) if req == number => match *event {
                    Event::Done(done) => return Ok((None, done)),
                    Event::Failed(failure) => return Err(failure),
                    Event::Page(Page { entries }) => self.pages.extend(entries),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    pub(crate) fn done(&mut self, instance: &Instance, request: &Request) -> Done {
        self.ask(instance, request).unwrap_or_else(|failure| panic!("{request:?}: {failure:?}")).1
    }

    pub(crate) fn connect(&mut self, instance: &Instance, device: u32) -> Result<(), Failure> {
        self.ask(instance, &Request::Connect(of(device))).map(|_| ())
    }

    pub(crate) fn probe(&mut self, instance: &Instance, device: u32) -> Result<(), Failure> {
        self.ask(instance, &Request::Probe(of(device))).map(|_| ())
    }

    /// Values and quality texts of a group.
    pub(crate) fn read(&mut self, instance: &Instance, group: u32) -> Result<Vec<(Value, String)>, Failure> {
        let cause = busbar_contract::Cause::Poll;
        let read = Request::Read(binary::Read { group, deadline_ms: 60_000, cause });
        self.ask(instance, &read).map(|(push, _)| samples(&push.unwrap()))
    }

    pub(crate) fn block_read(
        &mut self,
        instance: &Instance,
        points: &[u32],
    ) -> Result<Vec<(Value, String)>, Failure> {
        let read = Request::BlockRead(BlockRead { device: 1, points: points.to_vec(), deadline_ms: 60_000 });
        self.ask(instance, &read).map(|(push, _)| samples(&push.unwrap()))
    }

    pub(crate) fn answer(&mut self, instance: &Instance, request: &Request) -> Answer {
        self.done(instance, request).answer.unwrap()
    }

    pub(crate) fn failure(&mut self, instance: &Instance, request: &Request) -> Failure {
        self.ask(instance, request).map(|_| ()).unwrap_err()
    }

    pub(crate) fn write(&mut self, instance: &Instance, point: u32, value: Value) -> Answer {
        self.answer(instance, &command(point, value))
    }

    pub(crate) fn end(self) {
        assert!(self.plugin.shutdown(LONG), "the plugin did not end in time");
    }
}

/// CHECK, in the probe child as the gateway asks it.
pub(crate) fn check(input: &CheckInput) -> Vec<Problem> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (driver, child) = built();
    let dir = tempfile::tempdir().unwrap();
    let launcher = Launcher::program(child.clone());
    let staged = stage(dir.path(), "modbus", driver, None).unwrap();
    let mut probe = Probe::start(&launcher, &staged, Expect::default()).unwrap();
    probe.check(input).unwrap()
}

pub(crate) fn of(device: u32) -> OfDevice {
    OfDevice { device: Some(device), deadline_ms: 60_000 }
}

pub(crate) fn command(point: u32, value: Value) -> Request {
    Request::Command(CommandBody {
        device: point / 100,
        point,
        action: Action::Operate,
        value,
        origin: Origin::default(),
        qualifier: 0,
        interlock_check: false,
        synchro_check: false,
        test: false,
        issued_ns: 1,
        deadline_ms: 60_000,
    })
}

fn samples(push: &Push) -> Vec<(Value, String)> {
    let text = |quality: u16| busbar_contract::Quality(quality).to_string();
    let value = |sample| push.samples.value(sample).unwrap();
    push.samples.samples.iter().map(|sample| (value(sample), text(sample.quality))).collect()
}

/// The driver's `.so` and the program that probes it. `cargo test` builds neither, so cargo is asked once per run;
/// it does nothing where both are up to date.
fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let profile = exe.parent().and_then(Path::parent).unwrap();
        cargo(profile, &["-p", "busbar-driver-modbus"]);
        cargo(profile, &["-p", "busbar-loader", "--example", "loader_child"]);
        (profile.join("libbusbar_driver_modbus.so"), profile.join("examples/loader_child"))
    })
}

fn cargo(profile: &Path, arguments: &[&str]) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("build").args(arguments);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // Of the test runner: they would change the fingerprints of what is built.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "cargo build {arguments:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
