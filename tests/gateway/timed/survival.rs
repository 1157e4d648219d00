//! kill -9 at random moments under load, far sides also down at random: everything that was measured arrives (G7).
//!
//! Every answer of a simulated device carries the number of its request, so the devices know what they served and the
//! far side knows what came. Lost may be only what was served less than `queue.flush` + 100 ms before a kill. Numbers
//! come in order per point; one that comes twice has an interruption between its two arrivals, or is the latest state that
//! follows the backlog once after each connect (SEMANTICS.md section 8).
//!
//! The suite runs [`ROUNDS`] interruptions; `BUSBAR_TEST_ROUNDS=200` and `BUSBAR_TEST_SEED` run the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::{Gateway, Place, Recorder, until};

use crate::shared::{device, quality};

const ROUNDS: u32 = 24;
const DEVICES: usize = 6;
const POINTS: [&str; 3] = ["a", "b", "c"];
/// Of one poll; what asks for fewer is a probe.
const REGISTERS: u16 = 2 * POINTS.len() as u16;

/// `queue.flush` (50 ms) + 100 ms: what was served later than this before a kill may be lost.
const UNSAFE: Duration = Duration::from_millis(150);
/// From the note of a kill until the process is gone.
const KILLING: Duration = Duration::from_millis(50);
/// Replay of the rest after the last interruption.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct History {
    kills: Vec<Instant>,
    /// Kills, and far sides taken down: from the note until it was done.
    interruptions: Vec<(Instant, Instant)>,
}

#[test]
fn what_was_measured_arrives_whatever_is_killed() {
    let seed = setting("BUSBAR_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("BUSBAR_TEST_ROUNDS").unwrap_or(u64::from(ROUNDS));
    println!("BUSBAR_TEST_SEED={seed} BUSBAR_TEST_ROUNDS={rounds}");
    let mut dice = Dice(seed | 1);

    let devices = Devices::start(&[Manner::Counting; DEVICES]);
    let (mut broker, mut ems) = (Recorder::start(), Ems::start());
    let mut gateway = Gateway::start(&configuration(&devices, &broker, &ems));
    let mut history = History::default();
    for _ in 0..rounds {
        dice.pause(20, 900);
        let begin = Instant::now();
        match dice.below(10) {
            0..6 => {
                history.kills.push(begin);
                gateway.relaunch();
            }
            6..8 => {
                broker.down();
                dice.pause(10, 700);
                broker.up();
            }
            _ => {
                ems.kill();
                dice.pause(10, 300);
                ems.launch();
            }
        }
        history.interruptions.push((begin, Instant::now()));
    }

    let served: Vec<u64> = devices.list.iter().map(|device| device.seen.requests()).collect();
    until("everything to arrive", DRAIN, || {
        (has_all(&by_point(&broker), &served) && has_all(&by_point_of(&ems), &served)).then_some(())
    });
    for sink in ["broker", "ems"] {
        until("the books to agree", DRAIN, || (balance(&gateway, sink) == Some(0.0)).then_some(()));
    }
    if let Ok(file) = std::env::var("BUSBAR_TEST_DUMP") {
        dump(&broker, &history, &file);
    }
    let (at_broker, at_ems) = (by_point(&broker), by_point_of(&ems));
    let lost = check_complete(&devices, &at_broker, &history, &served)
        + check_complete(&devices, &at_ems, &history, &served);
    let twice = check_order(&at_broker, &history) + check_order(&at_ems, &history);
    report(&served, lost, twice, &history);
}

/// Everything up to what was served has come, or something newer.
fn has_all<T>(came: &Came<T>, served: &[u64]) -> bool {
    let newest = |at: usize, point: &str| {
        let list = came.get(&(format!("d{at}"), point.to_owned()));
        list.and_then(|list| list.iter().map(|(number, _)| *number).max()).unwrap_or(0)
    };
    (0..DEVICES).all(|at| POINTS.iter().all(|point| newest(at, point) >= served[at]))
}

/// Everything that came, for looking at a failure.
fn dump(broker: &Recorder, history: &History, file: &str) {
    use std::fmt::Write as _;
    let mut text = String::new();
    for message in broker.written() {
        let kills = history.kills.iter().filter(|kill| **kill < message.at).count();
        let breaks = history.interruptions.iter().filter(|(begin, _)| *begin < message.at).count();
        writeln!(text, "{kills} {breaks} {} {}", message.topic, message.payload).unwrap();
    }
    std::fs::write(file, text).unwrap();
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn configuration(devices: &Devices, broker: &Recorder, ems: &Ems) -> String {
    let mut body = String::new();
    for (at, simulated) in devices.list.iter().enumerate() {
        let points: Vec<String> = (0..)
            .step_by(2)
            .zip(POINTS)
            .map(|(address, name)| {
                format!("{{ name = \"{name}\", address = \"holding:{address}\", type = \"float32\" }}")
            })
            .collect();
        let keys = "poll_interval = \"60ms\"\nreconnect = { initial = \"50ms\", max = \"200ms\" }";
        body +=
            &device(&format!("d{at}"), &Place::Tcp(simulated.address).connection("tcp", 1), keys, &points);
    }
    body + &format!(
        "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nreconnect = {{ initial = \"50ms\", max = \"200ms\" }}\n\
         settings = {{ url = \"mqtt://{}\", format = \"json\", topic = \"busbar/{{host}}/{{device}}\" }}\n\n\
         [[sink]]\nname = \"ems\"\nplugin = \"ems-http\"\nreconnect = {{ initial = \"50ms\", max = \"200ms\" }}\n\
         settings = {{ url = \"{}\", token = \"{TOKEN}\", batch_wait = \"100ms\", retry_delay = \"50ms\" }}\n",
        broker.address,
        ems.url()
    )
}

/// Per device and point, in order of arrival: number of the request, and when it came where that is known.
type Came<T> = BTreeMap<(String, String), Vec<(u64, T)>>;

/// What came at the broker. What is not good carries no number of its own.
fn by_point(broker: &Recorder) -> Came<Instant> {
    let mut came = Came::new();
    for message in broker.written() {
        let Some(device) = message.topic.rsplit('/').next() else { continue };
        let Some(points) = message.payload["points"].as_object() else { continue };
        for (point, sample) in points.iter().filter(|(_, sample)| quality(sample) == "good") {
            let number = number(&sample["value"]);
            came.entry((device.to_owned(), point.clone())).or_default().push((number, message.at));
        }
    }
    came
}

/// What the EMS took; it knows no times of its own.
fn by_point_of(ems: &Ems) -> Came<()> {
    let mut came = Came::new();
    for record in ems.records() {
        let device = record["device_id"].as_str().unwrap().to_owned();
        let measurements = record["measurements"].as_object().unwrap();
        for (point, measurement) in measurements.iter().filter(|(_, m)| m["quality"] == "GOOD") {
            let number = number(&measurement["value"]);
            came.entry((device.clone(), point.clone())).or_default().push((number, ()));
        }
    }
    came
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests")]
fn number(value: &serde_json::Value) -> u64 {
    value.as_f64().unwrap() as u64
}

/// What the ledger of a sink leaves unexplained; `None` while nobody answers.
fn balance(gateway: &Gateway, sink: &str) -> Option<f64> {
    let answer = gateway.get("/metrics").ok().filter(|answer| answer.status == 200)?;
    let metrics = busbar_tests::metrics::Metrics::parse(&answer.body);
    let of = |name: &str| metrics.sum(name, &[("sink", sink)]);
    let ended = of("busbar_sink_delivered_total")
        + of("busbar_sink_parked_total")
        + of("busbar_sink_dropped_total")
        + of("busbar_sink_pending_records");
    let accepted = of("busbar_sink_accepted_total");
    (accepted > 0.0).then_some(accepted - ended)
}

/// How many never came; each must have been served right before a kill.
fn check_complete<T>(devices: &Devices, came: &Came<T>, history: &History, served: &[u64]) -> u64 {
    let mut lost = 0;
    for (at, simulated) in devices.list.iter().enumerate() {
        for point in POINTS {
            let list = &came[&(format!("d{at}"), point.to_owned())];
            let there: BTreeSet<u64> = list.iter().map(|(number, _)| *number).collect();
            let polls =
                (1..=served[at]).filter(|number| simulated.seen.registers(*number) == Some(REGISTERS));
            for number in polls.filter(|number| !there.contains(number)) {
                lost += 1;
                let time = simulated.seen.time(number).unwrap();
                let near = history.kills.iter().any(|kill| time + UNSAFE > *kill && time < *kill + KILLING);
                let next = history.kills.iter().find(|kill| **kill > time).map(|kill| *kill - time);
                assert!(
                    near,
                    "d{at}/{point}: {number} never came; it was served {next:?} before the next kill"
                );
            }
        }
    }
    lost
}

/// A time that may be unknown.
trait Arrival: Copy {
    /// Whether something lies between two arrivals; unknown = it may.
    fn between(self, later: Self, interruptions: &[(Instant, Instant)]) -> bool;
}

impl Arrival for Instant {
    fn between(self, later: Self, interruptions: &[(Instant, Instant)]) -> bool {
        interruptions.iter().any(|(begin, end)| self <= *end && *begin <= later)
    }
}

impl Arrival for () {
    fn between(self, (): Self, interruptions: &[(Instant, Instant)]) -> bool {
        !interruptions.is_empty()
    }
}

/// First arrivals in order, second ones only where something came between. How many came twice.
fn check_order<T: Arrival>(came: &Came<T>, history: &History) -> u64 {
    let mut twice = 0;
    for ((device, point), list) in came {
        let mut first: BTreeMap<u64, T> = BTreeMap::new();
        let (mut newest, mut image) = (0, None);
        for (number, arrived) in list {
            let Some(before) = first.get(number).copied() else {
                assert!(*number > newest, "{device}/{point}: {number} came first after {newest}");
                first.insert(*number, *arrived);
                newest = *number;
                continue;
            };
            if before.between(*arrived, &history.interruptions) {
                twice += 1;
                continue;
            }
            // The latest state, once more behind the backlog.
            assert_eq!(*number, newest, "{device}/{point}: came twice without an interruption");
            let again = image
                .replace(*arrived)
                .is_some_and(|image: T| !image.between(*arrived, &history.interruptions));
            assert!(!again, "{device}/{point}: a second image after one interruption, {number}");
        }
    }
    twice
}

#[allow(clippy::print_stdout, reason = "the figures of a run")]
fn report(served: &[u64], lost: u64, twice: u64, history: &History) {
    let total: u64 = served.iter().sum::<u64>() * POINTS.len() as u64;
    println!(
        "{total} samples served to two sinks, {lost} not delivered, all served within {UNSAFE:?} before one of {} kills; \
         {twice} came twice after one of {} interruptions",
        history.kills.len(),
        history.interruptions.len()
    );
}

/// xorshift64: the same seed gives the same moments, as far as the machine allows.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Lets the load run for a random time.
    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        busbar_tests::wait::load_for(Duration::from_millis(from_ms + self.below(to_ms - from_ms)));
    }
}
