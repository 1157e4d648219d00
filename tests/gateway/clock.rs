//! The wall clock jumps under load: two years forward, three years back, with the EMS and the broker away in between and a
//! restart. Nothing stops, nothing is lost, no quality changes, intervals go on (SEMANTICS.md section 2).
//!
//! libfaketime changes the wall clock of one process, from a file that is read at every look; the monotonic clock stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Place, Recorder, until};

use crate::shared::{device, now_ms, quality};

const DEVICES: usize = 3;
const POLL: Duration = Duration::from_millis(100);
/// Registers of a poll.
const REGISTERS: u16 = 4;
const DAY_MS: i64 = 86_400_000;
/// Where Debian has it; the folder names the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join(LIBRARY)).filter(|library| library.exists());
    found.next().unwrap_or_else(|| panic!("no {LIBRARY} below /usr/lib: run `cargo task setup`"))
}

/// The wall clock of the gateway.
struct Clock {
    file: PathBuf,
    days: i64,
}

impl Clock {
    fn new(dir: &Path) -> Self {
        let mut clock = Self { file: dir.join("clock"), days: 0 };
        clock.jump(0);
        clock
    }

    /// So many days away from the true time.
    fn jump(&mut self, days: i64) {
        let temporary = self.file.with_extension("new");
        fs::write(&temporary, format!("{days:+}d\n")).unwrap();
        fs::rename(&temporary, &self.file).unwrap();
        self.days = days;
    }

    fn env(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// This time stamp is of the clock as it stands.
    fn is_now(&self, ms: i64) -> bool {
        (ms - now_ms() - self.days * DAY_MS).abs() < 60_000
    }
}

struct Plant {
    devices: Devices,
    broker: Recorder,
    ems: Ems,
    gateway: Gateway,
}

impl Plant {
    fn start(clock: &Clock) -> Self {
        let devices = Devices::start(&[Manner::Counting; DEVICES]);
        let (broker, ems) = (Recorder::start(), Ems::start());
        let mut body = String::new();
        for (at, simulated) in devices.list.iter().enumerate() {
            let points = ["a", "b"].iter().zip([0, 2]).map(|(name, address)| {
                format!("{{ name = \"{name}\", address = \"holding:{address}\", type = \"float32\" }}")
            });
            let keys = format!("poll_interval = \"{}ms\"", POLL.as_millis());
            let place = Place::Tcp(simulated.address).connection("tcp", 1);
            body += &device(&format!("d{at}"), &place, &keys, &points.collect::<Vec<_>>());
        }
        let pace = "reconnect = { initial = \"50ms\", max = \"200ms\" }\nqueue = { max_age = \"7d\" }";
        body += &format!(
            "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\n{pace}\n\
             settings = {{ url = \"mqtt://{}\", format = \"json\", topic = \"busbar/{{host}}/{{device}}\" }}\n\n\
             [[sink]]\nname = \"ems\"\nplugin = \"ems-http\"\n{pace}\n\
             settings = {{ url = \"{}\", token = \"{TOKEN}\", batch_wait = \"100ms\", retry_delay = \"50ms\" }}\n",
            broker.address,
            ems.url()
        );
        let mut site = Site::new(&body);
        site.env = clock.env();
        let gateway = Gateway::start_site(site);
        Self { devices, broker, ems, gateway }
    }

    fn served(&self) -> Vec<u64> {
        self.devices.list.iter().map(|device| device.seen.requests()).collect()
    }

    /// Some seconds of load at the usual pace, seen at the devices.
    fn goes_on(&self, what: &str) {
        let before = self.served();
        let begin = std::time::Instant::now();
        until(&format!("polls {what}"), PATIENCE, || {
            self.served().iter().zip(&before).all(|(now, before)| now - before >= 30).then_some(())
        });
        // A clock that a schedule followed would give none, or all at once.
        let took = begin.elapsed();
        assert!(took > POLL * 20, "30 polls of {POLL:?} in {took:?} {what}");
        self.balances();
    }

    /// The equation of both sinks holds; nothing dropped or parked.
    fn balances(&self) {
        let metrics = self.gateway.metrics();
        for sink in ["broker", "ems"] {
            let of = |name: &str| metrics.sum(&format!("busbar_sink_{name}"), &[("sink", sink)]);
            let ended = of("delivered_total") + of("pending_records");
            assert_eq!(of("accepted_total"), ended, "{sink}");
            assert_eq!((of("parked_total"), of("dropped_total")), (0.0, 0.0), "{sink}");
        }
    }

    /// New values carry the clock's time, and are good.
    fn stamps(&self, clock: &Clock) {
        for at in 0..DEVICES {
            self.gateway.point_until(&format!("d{at}/a"), "to carry the new time", PATIENCE, |point| {
                assert_eq!(quality(point), "good", "a step of the clock changes no quality: {point}");
                clock.is_now(point["ts"].as_i64().unwrap())
            });
        }
    }
}

/// Numbers of `device/a` that came good at each far side.
fn came(plant: &Plant, device: &str) -> [BTreeSet<u64>; 2] {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests")]
    let number = |value: &serde_json::Value| value.as_f64().map(|number| number as u64);
    let broker = plant.broker.written();
    let messages = broker.iter().filter(|message| message.topic.ends_with(&format!("/{device}")));
    let good =
        messages.map(|message| &message.payload["points"]["a"]).filter(|sample| quality(sample) == "good");
    let records = plant.ems.records();
    let measurements = records
        .iter()
        .filter(|record| record["device_id"] == device)
        .map(|record| &record["measurements"]["a"]);
    let taken = measurements.filter(|measurement| measurement["quality"] == "GOOD");
    [
        good.filter_map(|sample| number(&sample["value"])).collect(),
        taken.filter_map(|m| number(&m["value"])).collect(),
    ]
}

#[test]
fn the_wall_clock_jumps_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(dir.path());
    let mut plant = Plant::start(&clock);
    let pid = plant.gateway.process.id();
    plant.goes_on("before any jump");
    plant.stamps(&clock);

    clock.jump(730);
    plant.goes_on("after two years forward");
    plant.stamps(&clock);
    // What waits is not older than before: nothing reaches `max_age` by a step.
    plant.broker.down();
    plant.ems.kill();
    plant.goes_on("without far sides");
    clock.jump(-365);
    plant.goes_on("after three years back");
    plant.stamps(&clock);
    clock.jump(730);
    plant.goes_on("after three years forward again");
    clock.jump(-365);
    plant.broker.up();
    plant.ems.launch();
    plant.goes_on("with far sides again");
    assert_eq!(plant.gateway.process.id(), pid);
    assert!(plant.gateway.process.ended().is_none(), "no stop");

    // And with a restart between two times: what was left on disk was accepted three years from now.
    plant.broker.down();
    plant.ems.kill();
    clock.jump(730);
    plant.goes_on("before the restart");
    let status = plant.gateway.process.terminate(PATIENCE);
    assert!(status.success(), "{status}");
    clock.jump(-365);
    plant.gateway.restart();
    plant.goes_on("after a restart three years earlier");
    plant.stamps(&clock);
    plant.broker.up();
    plant.ems.launch();

    let served = plant.served();
    for (at, newest) in served.iter().enumerate() {
        let name = format!("d{at}");
        until("everything to arrive", PATIENCE, || {
            came(&plant, &name).iter().all(|came| came.last() >= Some(newest)).then_some(())
        });
        let seen = &plant.devices.list[at].seen;
        for (sink, came) in ["broker", "ems"].iter().zip(came(&plant, &name)) {
            let polls = (1..=*newest).filter(|number| seen.registers(*number) == Some(REGISTERS));
            let missing: Vec<u64> = polls.filter(|number| !came.contains(number)).collect();
            // The one that was on its way when the gateway was told to stop.
            assert!(missing.len() <= 1, "{name} at the {sink}: {missing:?} of {newest} never came");
        }
    }
    plant.balances();
    // Every quality that ever reached the broker: routine says nothing else while nothing was lost.
    let restarted = plant.broker.written();
    let bad = restarted.iter().filter_map(|message| message.payload["points"].as_object());
    let bad: BTreeSet<String> =
        bad.flat_map(|points| points.values().map(|sample| quality(sample).to_owned())).collect();
    let allowed = ["good", "invalid|comm_lost"].map(str::to_owned);
    assert!(bad.iter().all(|quality| allowed.contains(quality)), "{bad:?}");
}
