//! A backlog whose file is damaged while the gateway is down: it starts, tells it, delivers what is readable, and counts
//! what is not.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Recorder, until};

use super::{Books, Came, LONG, came, check_order, devices, newest, sink};

const DEVICES: usize = 6;
const POINTS: u16 = 20;
const POLL: Duration = Duration::from_millis(50);
/// Records in the backlog, at least.
const BACKLOG: u64 = 20_000;
/// Most records of one transaction (`flush.records`).
const TRANSACTION: u64 = 1_000;
const PAGE: usize = 4096;
const FILE: &str = "broker.db";

/// The files of a queue, by name.
type Files = Vec<(String, Vec<u8>)>;

#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    /// So many pages of the file, anywhere, are noise.
    Pages(u64),
    /// The first page is noise.
    Header,
    /// The second half of the file is gone.
    Half,
    /// One page within the write-ahead log is noise.
    Log,
    /// The head of the write-ahead log is noise.
    LogHead,
}

const CASES: [Damage; 12] = [
    Damage::None,
    Damage::Pages(1),
    Damage::Pages(1),
    Damage::Pages(1),
    Damage::Pages(3),
    Damage::Pages(3),
    Damage::Pages(9),
    Damage::Header,
    Damage::Half,
    Damage::Log,
    Damage::Log,
    Damage::LogHead,
];

#[test]
fn readable_rows_of_a_damaged_file_arrive_and_the_rest_is_counted() {
    let seed = std::env::var("BUSBAR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let simulated = Devices::start(&[Manner::Counting; DEVICES]);
    let body = devices(&simulated, POINTS, POLL);
    let (mut gateway, files) = backlog(&simulated, &body);
    // From here on only the backlog is good.
    drop(simulated);

    let mut whole = BTreeSet::new();
    let mut report = format!("BUSBAR_TEST_SEED={seed}\n");
    for damage in CASES {
        let outcome = start_with(&mut gateway, &body, &files, damage, &mut dice);
        if matches!(damage, Damage::None) {
            whole = outcome.arrived.clone();
        }
        writeln!(report, "{damage:?}: {}", outcome.summary(&whole)).unwrap();
        outcome.check(damage, &whole, &report);
    }
    show(&report);
}

#[allow(clippy::print_stdout, reason = "the figures of a run")]
fn show(report: &str) {
    println!("{report}");
}

/// A gateway that was killed with a backlog, and the files that it left.
fn backlog(simulated: &Devices, body: &str) -> (Gateway, Files) {
    let mut recorder = Recorder::start();
    let mut gateway = Gateway::start(&(body.to_owned() + &sink(&recorder, "")));
    until("values of every device at the far side", PATIENCE, || {
        let came = came(&recorder);
        (0..simulated.list.len()).all(|at| newest(&came, &format!("d{at}"), "p0") > 0).then_some(())
    });
    recorder.down();
    until("a backlog", LONG, || (Books::of(&gateway).pending() >= BACKLOG).then_some(()));
    gateway.process.kill();
    let folder = gateway.site.dir.path().join("data/queue");
    let read =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let files = fs::read_dir(&folder).unwrap().map(|entry| read(entry.unwrap())).collect();
    (gateway, files)
}

/// What one start with damaged files led to.
#[derive(Debug)]
struct Outcome {
    arrived: BTreeSet<(String, String, u64)>,
    damaged: u64,
    kept_aside: bool,
    log: String,
}

fn start_with(gateway: &mut Gateway, body: &str, files: &Files, damage: Damage, dice: &mut Dice) -> Outcome {
    gateway.process.kill();
    let folder = gateway.site.dir.path().join("data/queue");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    spoil(&folder, damage, dice);
    let recorder = Recorder::start();
    gateway.site.write("", &(body.to_owned() + &sink(&recorder, "")));
    let logged = gateway.log().len();
    gateway.restart();
    until("the backlog to be delivered", LONG, || {
        let sink = &gateway.api("/api/v1/sinks")[0];
        // Before the file is open, nothing of it is known.
        (sink["queue"] == "" && sink["connected"] == true && sink["pending"] == 0).then_some(())
    });
    let came = came(&recorder);
    assert_eq!(check_order(&came), 0, "a record twice");
    let kept = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    Outcome {
        arrived: set(&came),
        damaged: Books::of(gateway).dropped("damaged"),
        kept_aside: kept.into_iter().any(|name| name.to_str().unwrap().contains(".damaged-")),
        log: gateway.log()[logged..].to_owned(),
    }
}

fn set(came: &Came) -> BTreeSet<(String, String, u64)> {
    let of = |((device, point), numbers): (&(String, String), &Vec<u64>)| {
        numbers.iter().map(|number| (device.clone(), point.clone(), *number)).collect::<Vec<_>>()
    };
    came.iter().flat_map(of).collect()
}

impl Outcome {
    fn lost(&self, whole: &BTreeSet<(String, String, u64)>) -> u64 {
        whole.difference(&self.arrived).count() as u64
    }

    fn summary(&self, whole: &BTreeSet<(String, String, u64)>) -> String {
        let (lost, more) = (self.lost(whole), self.arrived.difference(whole).count());
        let told: Vec<&str> = self.log.lines().filter(|line| line.contains(FILE)).collect();
        format!(
            "{} of {} arrived, {lost} lost, {more} more, {} counted as damaged, aside {}\n  {}",
            self.arrived.len(),
            whole.len(),
            self.damaged,
            self.kept_aside,
            told.join("\n  ")
        )
    }

    fn check(&self, damage: Damage, whole: &BTreeSet<(String, String, u64)>, report: &str) {
        let lost = self.lost(whole);
        let told = |word: &str| self.log.lines().any(|line| line.contains(FILE) && line.contains(word));
        if matches!(damage, Damage::None) {
            assert!(lost == 0 && whole.len() as u64 >= BACKLOG && !self.kept_aside, "{report}");
            return;
        }
        assert_eq!(told("kept aside"), self.kept_aside, "{report}");
        // What is lost with the log is told; how many records that were is not known. The last transaction of a log looks
        // like one that was never finished.
        let log = matches!(damage, Damage::Log | Damage::LogHead);
        let unfinished = if log { TRANSACTION } else { 0 };
        assert!(lost <= unfinished || told("lost"), "{lost} lost in silence:\n{report}");
        if told("not known") || log {
            return;
        }
        assert_eq!(self.damaged, lost, "{report}");
    }
}

fn spoil(folder: &Path, damage: Damage, dice: &mut Dice) {
    let (file, log) = (folder.join(FILE), folder.join(format!("{FILE}-wal")));
    let mut edit = |path: &Path, change: &mut dyn FnMut(&mut Vec<u8>, &mut Dice)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes, dice);
        fs::write(path, bytes).unwrap();
    };
    match damage {
        Damage::None => {}
        Damage::Pages(count) => edit(&file, &mut |bytes, dice| {
            for _ in 0..count {
                let page = dice.below(bytes.len() / PAGE);
                dice.noise(&mut bytes[page * PAGE..(page + 1) * PAGE]);
            }
        }),
        Damage::Header => edit(&file, &mut |bytes, dice| dice.noise(&mut bytes[..PAGE])),
        Damage::Half => edit(&file, &mut |bytes, _| bytes.truncate(bytes.len() / PAGE / 2 * PAGE)),
        Damage::Log => edit(&log, &mut |bytes, dice| {
            let at = 32 + dice.below((bytes.len() - 32) / (PAGE + 24)) * (PAGE + 24);
            dice.noise(&mut bytes[at..at + PAGE]);
        }),
        Damage::LogHead => edit(&log, &mut |bytes, dice| dice.noise(&mut bytes[..32])),
    }
}

/// xorshift64: the same seed gives the same damage to the same file.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[allow(clippy::cast_possible_truncation, reason = "of a remainder")]
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn noise(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            let noise = self.next().to_le_bytes();
            eight.copy_from_slice(&noise[..eight.len()]);
        }
    }
}
