//! `cargo task bench`: the gateway beside its peers on the same simulated devices, the same broker, in the same run.
//!
//! A report, not a test: absolute figures belong to the machine, ratios within one run are what counts. CPU time is read
//! from `/proc/PID/stat` of each contender, so that devices, broker and this program do not count. Every simulated value
//! is the number of the request that read it, and the simulation writes down when it answered: the time from the answer
//! at the device to the arrival at a subscriber needs no clock but one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring program: whatever goes wrong must end it at once, and it talks on its terminal"
)]

mod bare;
mod boundary;
mod contender;
mod measure;
mod options;
mod queue;
mod report;
mod subscriber;

use std::process::ExitCode;
use std::time::Duration;

use contender::Contender;
use measure::Load;
use options::Options;
use report::Report;

/// The load of DESIGN: a metering room.
const DEVICES: usize = 100;
const POINTS: usize = 50;
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval of the ramp; the number of devices grows.
const RAMP_INTERVAL: Duration = Duration::from_millis(100);
const RAMP_DEVICES: [usize; 9] = [50, 100, 200, 300, 400, 600, 800, 1000, 1200];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "bare-loop") {
        bare::run(&words[1..]);
        return ExitCode::SUCCESS;
    }
    match Options::parse(&words) {
        Ok(options) => {
            run(&options);
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) {
    measure::raise_file_limit();
    let mut report = Report::new(options.seconds);
    if options.wants("boundary") {
        report.boundary(boundary::run());
    }
    if options.wants("queue") {
        report.queue(queue::run());
        report.write();
    }
    if options.wants("load") {
        let load = Load { devices: DEVICES, points: POINTS, interval: INTERVAL, seconds: options.seconds };
        for contender in Contender::ALL {
            step(&format!("{DEVICES} devices x {POINTS} at 1 s: {}", contender.name()));
            report.load(contender, measure::run(contender, &load));
            report.write();
        }
    }
    if options.wants("ramp") {
        for contender in [Contender::GatewayGrouped, Contender::ScriptGrouped] {
            ramp(contender, options, &mut report);
        }
    }
    if options.wants("crowd") {
        step("1,000 devices at 1 s: threads");
        let load = Load { devices: 1000, points: 10, interval: INTERVAL, seconds: options.seconds.min(20) };
        report.crowd(measure::run(Contender::GatewayGrouped, &load));
    }
    report.write();
    println!("{}", report.markdown());
    println!("written: {}", report.place().display());
}

/// Raises the load until a level is not held.
fn ramp(contender: Contender, options: &Options, report: &mut Report) {
    for devices in RAMP_DEVICES {
        let load = Load { devices, points: POINTS, interval: RAMP_INTERVAL, seconds: options.ramp_seconds };
        step(&format!("{} points/s: {}", load.points_per_second(), contender.name()));
        let result = measure::run(contender, &load);
        let held = result.held();
        report.ramp(contender, &load, result);
        report.write();
        if !held {
            return;
        }
    }
}

fn step(text: &str) {
    eprintln!("measuring {text} ...");
}
