//! Metrics as plain data: the admin listener turns them into Prometheus text.
//!
//! Names are `busbar_*` with the unit last. Labels: `device`, `sink`, `plugin`, `reason`. Bounded: one entry per
//! configured thing and name.

use busbar_contract::FailureKind;

/// How a metric is read.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricValue {
    /// Only goes up.
    Counter(f64),
    /// Goes up and down.
    Gauge(f64),
    /// Distribution.
    Histogram(Histogram),
}

/// One metric with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// `busbar_poll_duration_seconds`, ...
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: MetricValue,
}

/// Upper bounds of the buckets, seconds; the last bucket is open.
pub const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A distribution over fixed buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Observations per bucket (not cumulative); one more than [`BOUNDS`].
    pub counts: [u64; BOUNDS.len() + 1],
    /// Sum of all observations, seconds.
    pub sum: f64,
    /// Number of observations.
    pub count: u64,
}

impl Histogram {
    /// Adds one observation.
    pub fn observe_ns(&mut self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// Upper bound of the bucket that holds the quantile `q` (0 to 1), seconds; infinity in the open bucket.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let wanted = (self.count as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return BOUNDS.get(bucket).copied().unwrap_or(f64::INFINITY);
            }
        }
        f64::INFINITY
    }
}

/// Failed requests of a device by kind, as `/metrics` names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors {
    /// The device refused (an exception, an error code).
    pub refused: u64,
    /// No answer to any attempt.
    pub no_answer: u64,
    /// The session ended.
    pub session: u64,
    /// Not complete by the deadline.
    pub deadline: u64,
    /// The configuration does not fit the device.
    pub configuration: u64,
    /// The driver cannot do it.
    pub unsupported: u64,
    /// A bug of the driver.
    pub bug: u64,
}

impl Errors {
    /// Counts one; what was cancelled is no error.
    pub const fn count(&mut self, kind: FailureKind) {
        let counter = match kind {
            FailureKind::Refused => &mut self.refused,
            FailureKind::NoAnswer => &mut self.no_answer,
            FailureKind::Session => &mut self.session,
            FailureKind::Deadline => &mut self.deadline,
            FailureKind::Configuration => &mut self.configuration,
            FailureKind::Unsupported => &mut self.unsupported,
            FailureKind::Bug => &mut self.bug,
            FailureKind::Cancelled => return,
        };
        *counter += 1;
    }

    /// All of them with their names.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("refused", self.refused),
            ("no_answer", self.no_answer),
            ("session", self.session),
            ("deadline", self.deadline),
            ("configuration", self.configuration),
            ("unsupported", self.unsupported),
            ("bug", self.bug),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind() {
        let mut errors = Errors::default();
        for kind in [FailureKind::NoAnswer, FailureKind::NoAnswer, FailureKind::Bug, FailureKind::Cancelled] {
            errors.count(kind);
        }
        let counted: Vec<_> = errors.named().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("no_answer", 2), ("bug", 1)]);
    }

    #[test]
    fn quantiles_name_the_bucket() {
        let mut histogram = Histogram::default();
        for _ in 0..99 {
            histogram.observe_ns(1_500_000);
        }
        histogram.observe_ns(40_000_000_000);
        assert_eq!(histogram.quantile(0.5), 0.0025);
        assert_eq!(histogram.quantile(0.99), 0.0025);
        assert_eq!(histogram.quantile(1.0), f64::INFINITY);
        assert_eq!(histogram.count, 100);
    }
}
