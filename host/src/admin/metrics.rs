//! `/metrics`: what the core counts, and what the host knows of itself.

use std::time::Duration;

use busbar_core::metrics::{BOUNDS, Histogram, Metric, MetricValue};

use super::{
    process::Process,
    prometheus::{Exposition, Kind},
};
use crate::edge::{PluginFacts, TurnFigures};

/// Content type of the document.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the document is made of.
#[derive(Debug, Default)]
pub struct Figures {
    /// What the core counts.
    pub core: Vec<Metric>,
    /// Names of the plugins with their facts.
    pub plugins: Vec<(String, PluginFacts)>,
    /// Figures of the core thread.
    pub turns: TurnFigures,
    /// What the kernel says.
    pub process: Process,
    /// Time since start.
    pub uptime: Duration,
}

/// The document.
#[must_use]
pub fn render(mut figures: Figures) -> String {
    let mut out = Exposition::default();
    // A family must stand together; the core may list by device.
    figures.core.sort_by_key(|metric| metric.name);
    let mut family = "";
    for metric in &figures.core {
        if metric.name != family {
            family = metric.name;
            out.family(metric.name, kind(&metric.value), metric.help);
        }
        sample(&mut out, metric);
    }
    boundary(&mut out, &figures.plugins);
    workers(&mut out, &figures.plugins);
    host(&mut out, &figures);
    out.finish()
}

const fn kind(value: &MetricValue) -> Kind {
    match value {
        MetricValue::Counter(_) => Kind::Counter,
        MetricValue::Gauge(_) => Kind::Gauge,
        MetricValue::Histogram(_) => Kind::Histogram,
    }
}

fn sample(out: &mut Exposition, metric: &Metric) {
    let labels: Vec<(&str, &str)> = metric.labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
    match &metric.value {
        MetricValue::Counter(value) | MetricValue::Gauge(value) => out.sample(metric.name, &labels, value),
        MetricValue::Histogram(histogram) => buckets(out, metric.name, &labels, histogram),
    }
}

fn buckets(out: &mut Exposition, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
    let mut below = 0;
    let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(histogram.counts) {
        below += count;
        let mut labels = labels.to_vec();
        labels.push(("le", &bound));
        out.sample(&format!("{name}_bucket"), &labels, below);
    }
    out.sample(&format!("{name}_sum"), labels, histogram.sum);
    out.sample(&format!("{name}_count"), labels, histogram.count);
}

fn boundary(out: &mut Exposition, plugins: &[(String, PluginFacts)]) {
    let name = "busbar_plugin_boundary_faults_total";
    out.family(
        name,
        Kind::Counter,
        "What plugins said against the contract, dropped or repaired by the host.",
    );
    for (plugin, facts) in plugins {
        let stats = facts.boundary;
        for (reason, count) in [
            ("unknown_instance", stats.unknown_instance),
            ("malformed", stats.malformed),
            ("unknown_ops", stats.unknown_ops),
            ("unknown_bits", stats.unknown_bits),
            ("bad_samples", stats.bad_samples),
            ("lost_samples", stats.lost_samples),
            ("host_panics", stats.host_panics),
        ] {
            out.sample(name, &[("plugin", plugin), ("reason", reason)], count);
        }
    }
}

/// Plugins with `isolation = "process"`.
fn workers(out: &mut Exposition, plugins: &[(String, PluginFacts)]) {
    type Read = fn(&PluginFacts) -> Option<u64>;
    let families: [(&str, Kind, &str, Read); 3] = [
        ("busbar_plugin_restarts_total", Kind::Counter, "Times its worker was started again.", |facts| {
            Some(facts.restarts)
        }),
        ("busbar_plugin_memory_bytes", Kind::Gauge, "Resident memory of its worker.", |facts| {
            facts.worker_memory
        }),
        ("busbar_plugin_memory_limit_bytes", Kind::Gauge, "Private memory its worker may have.", |facts| {
            facts.memory_limit
        }),
    ];
    for (name, kind, help, read) in families {
        out.family(name, kind, help);
        for (plugin, facts) in plugins.iter().filter(|(_, facts)| facts.memory_limit.is_some()) {
            if let Some(value) = read(facts) {
                out.sample(name, &[("plugin", plugin)], value);
            }
        }
    }
}

fn host(out: &mut Exposition, figures: &Figures) {
    let Figures { turns, process, uptime, .. } = figures;
    out.family("busbar_build_info", Kind::Gauge, "Always 1; the version is in the label.");
    out.sample("busbar_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let (counter, gauge) = (Kind::Counter, Kind::Gauge);
    out.single("busbar_uptime_seconds", gauge, "Time since the host started.", uptime.as_secs_f64());
    out.single("busbar_core_turns_total", counter, "Wake-ups of the core thread.", turns.turns);
    out.single("busbar_core_inputs_total", counter, "Inputs taken by the core.", turns.inputs);
    out.single("busbar_core_inputs_waiting", gauge, "Inputs waiting for the core now.", turns.waiting);
    out.single(
        "busbar_core_longest_turn_seconds",
        gauge,
        "Longest turn of the core thread.",
        turns.longest_seconds,
    );
    out.single(
        "busbar_log_dropped_lines_total",
        counter,
        "Log lines that could not be written, or not fast enough.",
        crate::logging::dropped_lines(),
    );
    out.single("busbar_process_cpu_seconds_total", counter, "User and system time.", process.cpu_seconds);
    out.single("busbar_process_resident_memory_bytes", gauge, "Resident memory.", process.resident_bytes);
    out.single("busbar_process_threads", gauge, "Threads.", process.threads);
    out.single("busbar_process_open_fds", gauge, "Open file descriptors.", process.open_fds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together_and_histograms_are_cumulative() {
        let metric = |name, device: &str, value| Metric {
            name,
            help: "h",
            labels: vec![("device", device.to_owned())],
            value,
        };
        let mut histogram = Histogram::default();
        histogram.observe_ns(2_000_000);
        histogram.observe_ns(3_000_000);
        histogram.observe_ns(60_000_000_000);
        let text = render(Figures {
            core: vec![
                metric("busbar_b_total", "x", MetricValue::Counter(1.0)),
                metric("busbar_a_seconds", "x", MetricValue::Histogram(histogram)),
                metric("busbar_b_total", "y", MetricValue::Counter(2.5)),
            ],
            plugins: vec![("modbus".into(), PluginFacts::default())],
            ..Figures::default()
        });
        assert_eq!(text.matches("# TYPE busbar_b_total counter").count(), 1);
        assert!(text.contains("busbar_b_total{device=\"x\"} 1\nbusbar_b_total{device=\"y\"} 2.5\n"));
        assert!(text.contains("busbar_a_seconds_bucket{device=\"x\",le=\"0.001\"} 0\n"));
        assert!(text.contains("busbar_a_seconds_bucket{device=\"x\",le=\"0.005\"} 2\n"));
        assert!(text.contains("busbar_a_seconds_bucket{device=\"x\",le=\"30\"} 2\n"));
        assert!(text.contains("busbar_a_seconds_bucket{device=\"x\",le=\"+Inf\"} 3\n"));
        assert!(text.contains("busbar_a_seconds_count{device=\"x\"} 3\n"));
        assert!(text.contains("reason=\"lost_samples\"} 0\n"));
        // Every line of a sample has a family above it, and every family is declared once.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let declared = |name: &str| text.matches(&format!("# TYPE {name} ")).count();
            assert_eq!(declared(family).max(declared(name)), 1, "{line}");
        }
    }
}
