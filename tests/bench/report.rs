//! `target/bench/report.md` for people, `report.json` for comparisons.

use std::fmt::Write as _;
use std::path::PathBuf;

use busbar_tests::built;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::measure::{Load, Outcome};

pub(crate) struct Report {
    seconds: u64,
    boundary: Option<Value>,
    queue: Option<Value>,
    loads: Vec<(Contender, Outcome)>,
    ramps: Vec<(Contender, u64, Outcome)>,
    crowd: Option<Outcome>,
}

impl Report {
    pub(crate) const fn new(seconds: u64) -> Self {
        Self { seconds, boundary: None, queue: None, loads: Vec::new(), ramps: Vec::new(), crowd: None }
    }

    pub(crate) fn boundary(&mut self, result: Value) {
        self.boundary = Some(result);
    }

    pub(crate) fn queue(&mut self, result: Value) {
        self.queue = Some(result);
    }

    pub(crate) fn load(&mut self, contender: Contender, outcome: Outcome) {
        self.loads.push((contender, outcome));
    }

    pub(crate) fn ramp(&mut self, contender: Contender, load: &Load, outcome: Outcome) {
        self.ramps.push((contender, load.points_per_second(), outcome));
    }

    pub(crate) fn crowd(&mut self, outcome: Outcome) {
        self.crowd = Some(outcome);
    }

    pub(crate) fn place(&self) -> PathBuf {
        built::target().join("bench/report.md")
    }

    /// Written after each part: a run that is broken off keeps what it measured.
    pub(crate) fn write(&self) {
        let place = self.place();
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, self.markdown()).unwrap();
        std::fs::write(place.with_extension("json"), self.json().to_string()).unwrap();
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "# Benchmark\n\nMachine: {}. Windows of {} s. Ratios within one run count, absolute figures belong to the \
             machine.\n",
            machine(),
            self.seconds
        );
        self.write_boundary(&mut text);
        self.write_queue(&mut text);
        self.write_loads(&mut text);
        self.write_ramps(&mut text);
        if let Some(crowd) = &self.crowd {
            text.push_str("\n## 1,000 devices x 10 float32 at 1 s\n\n");
            let _ = match &crowd.failed {
                Some(reason) => writeln!(text, "not measured: {reason}"),
                None => writeln!(
                    text,
                    "{} threads, {:.1} MiB resident, {:.1} % of one core, {:.1} % delivered, p99 {}",
                    crowd.threads,
                    crowd.rss,
                    100.0 * crowd.cpu / crowd.seconds,
                    100.0 * crowd.delivered(),
                    milliseconds(crowd.quantile(0.99))
                ),
            };
        }
        text
    }

    fn write_boundary(&self, text: &mut String) {
        let Some(boundary) = &self.boundary else { return };
        text.push_str("\n## Plugin boundary, driver to host\n\n");
        let Some(rows) = boundary["rows"].as_array() else {
            let _ = writeln!(text, "not measured: {}", boundary.as_str().unwrap_or("no rows"));
            return;
        };
        let request = boundary["request_ns"].as_f64().unwrap_or_default() / 1e3;
        let _ = writeln!(
            text,
            "CPU time of all threads; one READ request without samples costs {request:.1} us (queue, deadline, completion).\n\n\
             | samples per batch | boundary alone, ns per sample | with its share of the READ request | published by the \
             driver itself |\n|---:|---:|---:|---:|"
        );
        for row in rows {
            let ns = |key: &str| row[key].as_f64().unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {:.1} | {:.1} | {:.1} |",
                row["batch"],
                ns("boundary_ns_per_sample"),
                ns("read_ns_per_sample"),
                ns("update_ns_per_sample")
            );
        }
    }

    fn write_queue(&self, text: &mut String) {
        let Some(queue) = &self.queue else { return };
        text.push_str("\n## Queue on disk beside a bare SQLite insert loop\n\n");
        let Some(modes) = queue["modes"].as_array() else {
            let _ = writeln!(text, "not measured: {}", queue.as_str().unwrap_or("no modes"));
            return;
        };
        let _ = writeln!(
            text,
            "{} records in {} rows per transaction, {} bytes of payload per row; medians of {} rounds in turns.\n\n\
             | sync | bare insert, records/s | append | append + confirm | share of the bare loop |\n|---|---:|---:|---:|---:|",
            queue["records_per_transaction"],
            queue["rows_per_transaction"],
            queue["payload_bytes_per_row"],
            queue["rounds"]
        );
        for mode in modes {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.0} % |",
                mode["sync"].as_str().unwrap_or_default(),
                mode["bare"],
                mode["append"],
                mode["append_confirm"],
                100.0 * mode["ratio"].as_f64().unwrap_or_default()
            );
        }
        let _ = writeln!(
            text,
            "\nBacklog of {} records: {} bytes of the file per record; read back and confirmed at {} records/s.",
            queue["backlog_records"], queue["file_bytes_per_record"], queue["replay_records_per_second"]
        );
    }

    fn write_loads(&self, text: &mut String) {
        if self.loads.is_empty() {
            return;
        }
        text.push_str(
            "\n## 100 Modbus devices x 50 float32 at 1 s\n\n| | CPU s per million points | MiB resident (anonymous) | threads | p50 | p99 | \
             delivered |\n|---|---:|---:|---:|---:|---:|---:|\n",
        );
        for (contender, outcome) in &self.loads {
            let name = contender.name();
            let _ = match &outcome.failed {
                Some(reason) => writeln!(text, "| {name} | not measured: {reason} | | | | | |"),
                None => writeln!(
                    text,
                    "| {name} | {:.2} | {:.1} ({:.1}) | {} | {} | {} | {:.1} % |",
                    outcome.cpu_per_million(),
                    outcome.rss,
                    outcome.anonymous,
                    outcome.threads,
                    milliseconds(outcome.quantile(0.5)),
                    milliseconds(outcome.quantile(0.99)),
                    100.0 * outcome.delivered()
                ),
            };
        }
    }

    fn write_ramps(&self, text: &mut String) {
        if self.ramps.is_empty() {
            return;
        }
        text.push_str(
            "\n## Highest load held (95 % delivered, p99 < 1 s), 50 float32 per device at 100 ms\n\nDevices, broker, \
             subscriber and contender share the machine.\n\n| | points/s | held | delivered | p99 | contender cores | \
             broker cores | MiB |\n|---|---:|---|---:|---:|---:|---:|---:|\n",
        );
        for (contender, points, outcome) in &self.ramps {
            let name = contender.name();
            let _ = match &outcome.failed {
                Some(reason) => writeln!(text, "| {name} | {points} | no: {reason} | | | | | |"),
                None => writeln!(
                    text,
                    "| {name} | {points} | {} | {:.1} % | {} | {:.2} | {:.2} | {:.1} |",
                    if outcome.held() { "yes" } else { "no" },
                    100.0 * outcome.delivered(),
                    milliseconds(outcome.quantile(0.99)),
                    outcome.cpu / outcome.seconds,
                    outcome.broker_cpu / outcome.seconds,
                    outcome.rss
                ),
            };
        }
    }

    fn json(&self) -> Value {
        let loads: Vec<Value> =
            self.loads.iter().map(|(contender, outcome)| row(*contender, None, outcome)).collect();
        let ramps: Vec<Value> = self
            .ramps
            .iter()
            .map(|(contender, points, outcome)| row(*contender, Some(*points), outcome))
            .collect();
        let crowd = self.crowd.as_ref().map(|outcome| row(Contender::GatewayGrouped, None, outcome));
        json!({ "machine": machine(), "seconds": self.seconds, "boundary": self.boundary, "queue": self.queue, "load": loads,
            "ramp": ramps, "crowd": crowd })
    }
}

fn row(contender: Contender, points: Option<u64>, outcome: &Outcome) -> Value {
    json!({
        "name": contender.name(),
        "points_per_second": points,
        "failed": outcome.failed,
        "asked": outcome.asked,
        "got": outcome.got,
        "cpu_seconds": outcome.cpu,
        "broker_cpu_seconds": outcome.broker_cpu,
        "seconds": outcome.seconds,
        "rss_mib": outcome.rss,
        "anonymous_mib": outcome.anonymous,
        "threads": outcome.threads,
        "p50_seconds": outcome.quantile(0.5),
        "p99_seconds": outcome.quantile(0.99),
        "held": outcome.held(),
    })
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} x {}", model.trim())
}
