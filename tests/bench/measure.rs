//! One measurement: devices, broker, subscriber, one contender, one window.

use std::time::{Duration, Instant};

use busbar_tests::Broker;
use busbar_tests::device::{Devices, Manner};
use busbar_tests::proc::Process;

use crate::contender::Contender;
use crate::subscriber::Subscriber;

/// Time from the first value of every device to the begin of the window: the gateway reads the deployed plugin files once,
/// ten seconds after its start.
const WARM_UP: Duration = Duration::from_secs(10);
/// Longest wait for the first values.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What is asked of a contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) devices: usize,
    pub(crate) points: usize,
    pub(crate) interval: Duration,
    pub(crate) seconds: u64,
}

impl Load {
    pub(crate) fn points_per_second(&self) -> u64 {
        ((self.devices * self.points) as f64 / self.interval.as_secs_f64()).round() as u64
    }
}

/// What one contender did.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Points asked for in the window.
    pub(crate) asked: u64,
    /// Points read (bare loop) or delivered.
    pub(crate) got: u64,
    /// CPU seconds of the contender in the window.
    pub(crate) cpu: f64,
    /// CPU seconds of the broker in the window.
    pub(crate) broker_cpu: f64,
    /// Length of the window, seconds.
    pub(crate) seconds: f64,
    /// Resident memory at the end, MiB.
    pub(crate) rss: f64,
    /// Of it not backed by a file: heap and stacks.
    pub(crate) anonymous: f64,
    pub(crate) threads: u64,
    /// Device answer to subscriber, seconds, sorted; empty when nothing is published.
    pub(crate) latencies: Vec<f64>,
    /// Why it was not measured.
    pub(crate) failed: Option<String>,
}

impl Outcome {
    fn failed(reason: String) -> Self {
        Self {
            asked: 0,
            got: 0,
            cpu: 0.0,
            broker_cpu: 0.0,
            seconds: 0.0,
            rss: 0.0,
            anonymous: 0.0,
            threads: 0,
            latencies: Vec::new(),
            failed: Some(reason),
        }
    }

    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.cpu / (self.got as f64 / 1e6)
    }

    pub(crate) fn delivered(&self) -> f64 {
        self.got as f64 / self.asked as f64
    }

    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((last as f64 * q).round() as usize).copied()
    }

    /// 95 % delivered within the window, p99 below a second.
    pub(crate) fn held(&self) -> bool {
        self.failed.is_none() && self.delivered() >= 0.95 && self.quantile(0.99).is_some_and(|p99| p99 < 1.0)
    }
}

/// Devices, broker and subscriber are new for every measurement.
pub(crate) fn run(contender: Contender, load: &Load) -> Outcome {
    let devices = Devices::start(&vec![Manner::Counting; load.devices]);
    let addresses: Vec<_> = devices.list.iter().map(|device| device.address).collect();
    let mut broker = Broker::start();
    let subscriber = Subscriber::start(broker.port);
    let dir = tempfile::tempdir().unwrap();
    let mut process =
        Process::new(contender.name(), contender.start(dir.path(), load, &addresses, broker.port));

    let ready = |subscriber: &Subscriber| {
        devices.list.iter().all(|device| device.seen.requests() > 0)
            && (!contender.publishes() || subscriber.devices() == load.devices)
    };
    let started = Instant::now();
    while !ready(&subscriber) {
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        if let Some(status) = process.ended() {
            return Outcome::failed(format!("ended with {status}: {}", tail(&log())));
        }
        if started.elapsed() > START_LIMIT {
            let seen = subscriber.devices();
            return Outcome::failed(format!(
                "values of {seen} of {} devices after 60 s: {}",
                load.devices,
                tail(&log())
            ));
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    rest(WARM_UP);

    let requests = || devices.list.iter().map(|device| device.seen.requests()).sum::<u64>();
    let (begin, cpu, broker_cpu, read) = (Instant::now(), process.cpu(), broker.process().cpu(), requests());
    rest(Duration::from_secs(load.seconds));
    let (end, read) = (Instant::now(), requests() - read);
    if process.ended().is_some() {
        return Outcome::failed("ended while it was measured".to_owned());
    }
    let (cpu, broker_cpu) = (process.cpu() - cpu, broker.process().cpu() - broker_cpu);
    let mib = |key: &str| process.status(key) as f64 / 1024.0;
    let (rss, anonymous, threads) = (mib("VmRSS"), mib("RssAnon"), process.status("Threads"));

    let arrivals = subscriber.between(begin, end);
    let mut latencies: Vec<f64> = arrivals
        .iter()
        .filter_map(|arrival| {
            let answered = devices.list[arrival.device as usize].seen.time(arrival.number)?;
            Some(arrival.at.duration_since(answered).as_secs_f64())
        })
        .collect();
    latencies.sort_by(f64::total_cmp);
    let published: u64 = arrivals.iter().map(|arrival| u64::from(arrival.points)).sum();
    let seconds = end.duration_since(begin).as_secs_f64();
    Outcome {
        asked: (load.points_per_second() as f64 * seconds).round() as u64,
        got: if contender.publishes() { published } else { read * load.points as u64 },
        cpu: cpu.as_secs_f64(),
        broker_cpu: broker_cpu.as_secs_f64(),
        seconds,
        rss,
        anonymous,
        threads,
        latencies,
        failed: None,
    }
}

/// Sockets of a thousand devices need more files than the usual soft limit.
pub(crate) fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[allow(unsafe_code, reason = "two system calls that the standard library does not offer")]
    // SAFETY: both calls only read or write the struct behind the pointer, which lives on this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(65_536);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The window of a measurement; nothing is waited for.
fn rest(duration: Duration) {
    let begin = Instant::now();
    while let Some(left) = duration.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
