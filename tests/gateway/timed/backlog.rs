//! A long outage in fast motion: the far side is away while records come at full speed; then it returns and everything
//! arrives, complete and in order (G7). Prints rates, memory and disk.
//!
//! The suite takes [`RECORDS`]; `BUSBAR_BACKLOG_RECORDS=5000000` is the long form, `cargo task soak outage`: what
//! fifty-eight points that change every second make in a day.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner, measured};
use busbar_tests::{Gateway, Recorder, until};
use serde_json::{Value, json};

use crate::disk::{Books, devices, sink};
use crate::shared::quality;

/// Records of the outage when nothing else is asked.
const RECORDS: u64 = 100_000;
const DEVICES: usize = 100;
const POINTS: u16 = 50;
/// 50,000 records a second, as far as the machine carries it.
const POLL: Duration = Duration::from_millis(100);
/// Nothing may be given up: the file may become as large as it must.
const QUEUE: &str = "max_size = \"16GiB\"";
/// Far above what a broken gateway would leave; the records set the time.
const DEADLINE: Duration = Duration::from_secs(1_800);
/// What the memory may grow by while the backlog does, KiB: the window (20,000 records) and what is on its way, not the
/// backlog. A million records in memory are more than 100 MiB.
const GROWTH_KIB: u64 = 64 << 10;

#[test]
fn everything_of_an_outage_arrives() {
    let asked = std::env::var("BUSBAR_BACKLOG_RECORDS").ok().and_then(|text| text.parse().ok());
    let records: u64 = asked.unwrap_or(RECORDS);
    let simulated = Devices::start(&[Manner::Measuring; DEVICES]);
    let mut recorder = Recorder::with_digest(digest);
    let gateway = Gateway::start(&(devices(&simulated, POINTS, POLL) + &sink(&recorder, QUEUE)));
    until("values of every device", DEADLINE, || (arrived(&recorder).len() == DEVICES).then_some(()));

    let mut figures = Figures { start_kib: gateway.process.status("VmRSS"), ..Figures::default() };
    recorder.down();
    let (begin, before) = (Instant::now(), Books::of(&gateway).accepted());
    until("the records of the outage", DEADLINE, || (Books::of(&gateway).pending() >= records).then_some(()));
    figures.outage = begin.elapsed();
    figures.accepted = Books::of(&gateway).accepted() - before;
    figures.outage_kib = gateway.process.status("VmHWM");
    // The plant falls silent, so that what is replayed has an end and its rate is its own.
    let seen: Vec<_> = simulated.list.iter().map(|device| std::sync::Arc::clone(&device.seen)).collect();
    drop(simulated);
    figures.pending = Books::of(&gateway).pending();
    figures.bytes = bytes(&gateway.site.dir.path().join("data/queue"));

    let (begin, before) = (Instant::now(), Books::of(&gateway).delivered());
    recorder.up();
    let books = until("the backlog to be delivered", DEADLINE, || {
        let books = Books::of(&gateway);
        (books.pending() == 0).then_some(books)
    });
    figures.replay = begin.elapsed();
    figures.delivered = books.delivered() - before;
    figures.replay_kib = gateway.process.status("VmHWM");
    figures.end_kib = gateway.process.status("VmRSS");
    figures.print();

    assert_eq!(books.dropped_at_all(), 0, "given up: {books:?}");
    let arrived = arrived(&recorder);
    for (at, seen) in seen.iter().enumerate() {
        let numbers = &arrived[&format!("d{at}")];
        let polls = (1..seen.requests()).filter(|number| seen.registers(*number) == Some(2 * POINTS));
        let missing: Vec<u64> = polls.filter(|number| numbers.binary_search(number).is_err()).collect();
        assert!(missing.is_empty(), "d{at}: {missing:?} of {} never came", seen.requests());
    }
    let growth = figures.replay_kib.saturating_sub(figures.start_kib);
    assert!(growth < GROWTH_KIB, "the memory grew by {growth} KiB: it must not grow with the backlog");
}

/// Of a message with all points of a device, the number of its poll; null when they are not good.
#[allow(clippy::cast_possible_truncation, reason = "a float32 as decimal digits")]
fn digest(payload: Value) -> Value {
    let Some(points) = payload["points"].as_object() else { return Value::Null };
    if points.values().any(|sample| quality(sample) != "good") {
        return Value::Null;
    }
    let value = |at: u16| points.get(&format!("p{at}")).and_then(|sample| sample["value"].as_f64());
    let Some(number) = value(0).map(whole) else { return Value::Null };
    let same = (0..POINTS).all(|at| value(at).map(|value| value as f32) == Some(measured(number, 2 * at)));
    if same { json!([number]) } else { json!({ "torn": payload }) }
}

/// Numbers per device, first arrivals only, which must be in order; every message whole.
fn arrived(recorder: &Recorder) -> BTreeMap<String, Vec<u64>> {
    let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in recorder.written() {
        let torn = &message.payload["torn"];
        assert!(torn.is_null(), "{}: not the values of one poll in one message: {torn}", message.topic);
        let Some(number) = message.payload[0].as_u64() else { continue };
        let device = message.topic.rsplit('/').next().unwrap().to_owned();
        let numbers = arrived.entry(device).or_default();
        let newest = numbers.last().copied().unwrap_or(0);
        if number > newest {
            numbers.push(number);
        } else {
            // Sent before the far side went, not confirmed, and sent again.
            let again = numbers.binary_search(&number).is_ok();
            assert!(again, "{}: {number} came first after {newest}", message.topic);
        }
    }
    arrived
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Bytes of the queue's files, without the room that is kept back.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let counted = entries.filter(|entry| !entry.file_name().to_str().unwrap().ends_with(".reserve"));
    counted.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[derive(Debug, Default)]
struct Figures {
    outage: Duration,
    accepted: u64,
    pending: u64,
    bytes: u64,
    replay: Duration,
    delivered: u64,
    start_kib: u64,
    outage_kib: u64,
    replay_kib: u64,
    end_kib: u64,
}

impl Figures {
    #[allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "the figures of a run")]
    fn print(&self) {
        let per_second = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!(
            "outage: {} records accepted in {:.1} s ({:.0}/s), {} waiting, {:.1} MiB on disk, {:.1} bytes per record",
            self.accepted,
            self.outage.as_secs_f64(),
            per_second(self.accepted, self.outage),
            self.pending,
            self.bytes as f64 / f64::from(1 << 20),
            self.bytes as f64 / self.pending as f64,
        );
        println!(
            "replay: {} records in {:.1} s ({:.0}/s)",
            self.delivered,
            self.replay.as_secs_f64(),
            per_second(self.delivered, self.replay)
        );
        println!(
            "memory: {:.1} MiB before the outage, at most {:.1} MiB until its end, at most {:.1} MiB until everything had \
             arrived, {:.1} MiB then",
            mib(self.start_kib),
            mib(self.outage_kib),
            mib(self.replay_kib),
            mib(self.end_kib)
        );
    }
}
