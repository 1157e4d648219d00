//! kill -9 at random moments under load, far sides also down at random: everything that was measured arrives (G7).
//!
//! Every answer of a simulated device carries the number of its request, so the devices know what they served and the
//! far sides know what came. Lost may be only what was served less than `queue.flush` + 100 ms before a kill. First
//! arrivals come in order per device; what comes twice is judged in [`arrivals`]. After every restart the ledger is asked
//! for: it must balance, and nothing is dropped or parked here.
//!
//! The suite runs [`ROUNDS`] interruptions; `cargo task soak survival` the long form.

mod arrivals;

use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::metrics::Metrics;
use busbar_tests::progress::Progress;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Place, Recorder, until};

use self::arrivals::{Came, at_broker, at_ems, check_order, numbers};
use crate::shared::device;

const ROUNDS: u32 = 24;
const DEVICES: usize = 6;
const POINTS: [&str; 3] = ["a", "b", "c"];
const SINKS: [&str; 2] = ["broker", "ems"];
/// Of one poll; what asks for fewer is a probe.
const REGISTERS: u16 = 2 * POINTS.len() as u16;

/// `queue.flush` (50 ms) + 100 ms: what was served later than this before a kill may be lost.
const UNSAFE: Duration = Duration::from_millis(150);
/// From the note of a kill until the process is gone.
const KILLING: Duration = Duration::from_millis(50);
/// Replay of the rest after the last interruption.
const DRAIN: Duration = Duration::from_secs(60);
/// No run is longer than this and [`LIMIT_OF_A_ROUND`] for each round; a round takes one to two seconds.
const LIMIT: Duration = Duration::from_secs(150);
const LIMIT_OF_A_ROUND: Duration = Duration::from_secs(6);

type Span = (Instant, Instant);

/// Who was killed or away: from the note until it was done.
#[derive(Debug, Default)]
struct History {
    gateway: Vec<Span>,
    broker: Vec<Span>,
    ems: Vec<Span>,
}

impl History {
    fn of_gateway(&self) -> Vec<Span> {
        self.gateway.clone()
    }

    fn of_broker(&self) -> Vec<Span> {
        [self.gateway.as_slice(), &self.broker].concat()
    }

    fn of_ems(&self) -> Vec<Span> {
        [self.gateway.as_slice(), &self.ems].concat()
    }

    fn len(&self) -> usize {
        self.gateway.len() + self.broker.len() + self.ems.len()
    }
}

/// Devices, gateway and far sides.
struct Plant {
    devices: Devices,
    broker: Recorder,
    ems: Ems,
    gateway: Gateway,
    history: History,
}

impl Plant {
    fn start() -> Self {
        let devices = Devices::start(&[Manner::Counting; DEVICES]);
        let (broker, ems) = (Recorder::start(), Ems::start());
        let gateway = Gateway::start(&configuration(&devices, &broker, &ems));
        Self { devices, broker, ems, gateway, history: History::default() }
    }

    /// One interruption at a random moment.
    fn interrupt(&mut self, dice: &mut Dice) {
        dice.pause(20, 900);
        let begin = Instant::now();
        match dice.below(10) {
            0..6 => {
                self.kill();
                // Now and then once more while it starts.
                if dice.below(3) == 0 {
                    dice.pause(0, 400);
                    self.kill();
                }
                self.balances();
            }
            6..8 => {
                self.broker.down();
                dice.pause(10, 700);
                self.broker.up();
                self.history.broker.push((begin, Instant::now()));
            }
            _ => {
                self.ems.kill();
                dice.pause(10, 300);
                self.ems.launch();
                self.history.ems.push((begin, Instant::now()));
            }
        }
    }

    fn kill(&mut self) {
        let begin = Instant::now();
        self.gateway.relaunch();
        self.history.gateway.push((begin, Instant::now()));
    }

    /// The ledger of both sinks, as soon as the gateway answers. Returns what waits.
    fn balances(&self) -> f64 {
        let metrics = until("the gateway to say its ledger", PATIENCE, || {
            let answer = self.gateway.get("/metrics").ok().filter(|answer| answer.status == 200)?;
            let metrics = Metrics::parse(&answer.body);
            let there = SINKS
                .iter()
                .all(|sink| metrics.of("busbar_sink_accepted_total", &[("sink", sink)]).next().is_some());
            there.then_some(metrics)
        });
        SINKS.iter().map(|sink| balance(&metrics, sink)).sum()
    }
}

/// Accepted = delivered + pending + parked + dropped, and nothing of it parked or dropped. Returns what waits.
fn balance(metrics: &Metrics, sink: &str) -> f64 {
    let of = |name: &str| metrics.sum(&format!("busbar_sink_{name}"), &[("sink", sink)]);
    let (accepted, delivered, pending) = (of("accepted_total"), of("delivered_total"), of("pending_records"));
    let (parked, dropped) = (of("parked_total"), of("dropped_total"));
    let labels = [("sink", sink)];
    let reasons: Vec<_> =
        metrics.of("busbar_sink_dropped_total", &labels).filter(|series| series.value > 0.0).collect();
    assert_eq!(
        accepted,
        delivered + pending + parked + dropped,
        "{sink}: accepted = delivered {delivered} + pending {pending} + parked {parked} + dropped {reasons:?}"
    );
    assert_eq!(
        (parked, dropped),
        (0.0, 0.0),
        "{sink}: the queue has room and the far side refuses nothing: {reasons:?}"
    );
    pending
}

#[test]
fn what_was_measured_arrives_whatever_is_killed() {
    let seed = setting("BUSBAR_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = setting("BUSBAR_TEST_ROUNDS").unwrap_or(u64::from(ROUNDS));
    println!("BUSBAR_TEST_SEED={seed} BUSBAR_TEST_ROUNDS={rounds}");
    let mut dice = Dice(seed | 1);
    let limit = LIMIT + LIMIT_OF_A_ROUND * u32::try_from(rounds).unwrap();
    let mut progress = Progress::start("interruptions", rounds);

    let mut plant = Plant::start();
    for _ in 0..rounds {
        plant.interrupt(&mut dice);
        progress.step();
        assert!(progress.elapsed() < limit, "expected {rounds} rounds within {limit:?}");
    }
    progress.end();

    let served: Vec<u64> = plant.devices.list.iter().map(|device| device.seen.requests()).collect();
    let clock = plant.ems.clock();
    let came =
        |plant: &Plant| (at_broker(&plant.broker, &plant.history), at_ems(&plant.ems, clock, &plant.history));
    until("everything to arrive", DRAIN, || {
        let (broker, ems) = came(&plant);
        (has_all(&broker, &served) && has_all(&ems, &served)).then_some(())
    });
    plant.balances();
    if let Ok(file) = std::env::var("BUSBAR_TEST_DUMP") {
        dump(&plant, &file);
    }
    let (broker, ems) = came(&plant);
    for (sink, came, spans) in
        [("broker", &broker, plant.history.of_broker()), ("ems", &ems, plant.history.of_ems())]
    {
        let lost = check_complete(&plant, came, &served);
        let twice = check_order(came, &spans).unwrap_or_else(|wrong| panic!("{sink}: {wrong}"));
        report(sink, &served, lost, twice, &plant.history);
    }
}

/// Everything up to what was served has come, or something newer.
fn has_all(came: &Came, served: &[u64]) -> bool {
    (0..DEVICES).all(|at| {
        POINTS.iter().all(|point| {
            numbers(came, &format!("d{at}"), point).last().is_some_and(|newest| *newest >= served[at])
        })
    })
}

/// Everything that came, for looking at a failure.
fn dump(plant: &Plant, file: &str) {
    use std::fmt::Write as _;
    let mut text = String::new();
    for message in plant.broker.written() {
        let kills = plant.history.gateway.iter().filter(|(kill, _)| *kill < message.at).count();
        writeln!(text, "{kills} {} {}", message.topic, message.payload).unwrap();
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

/// How many never came; each must have been served right before a kill.
fn check_complete(plant: &Plant, came: &Came, served: &[u64]) -> u64 {
    let mut lost = 0;
    let kills = &plant.history.gateway;
    for (at, simulated) in plant.devices.list.iter().enumerate() {
        for point in POINTS {
            let there = numbers(came, &format!("d{at}"), point);
            let polls =
                (1..=served[at]).filter(|number| simulated.seen.registers(*number) == Some(REGISTERS));
            for number in polls.filter(|number| !there.contains(number)) {
                lost += 1;
                let time = simulated.seen.time(number).unwrap();
                let near = kills.iter().any(|(kill, _)| time + UNSAFE > *kill && time < *kill + KILLING);
                let next = kills.iter().find(|(kill, _)| *kill > time).map(|(kill, _)| *kill - time);
                assert!(
                    near,
                    "d{at}/{point}: {number} never came; it was served {next:?} before the next kill"
                );
            }
        }
    }
    lost
}

#[allow(clippy::print_stdout, reason = "the figures of a run")]
fn report(sink: &str, served: &[u64], lost: u64, twice: u64, history: &History) {
    let total: u64 = served.iter().sum::<u64>() * POINTS.len() as u64;
    println!(
        "{sink}: of {total} samples served {lost} not delivered, all served within {UNSAFE:?} before one of {} kills; {twice} \
         came twice because their confirmation was lost; {} interruptions",
        history.gateway.len(),
        history.len()
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
