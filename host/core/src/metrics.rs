//! Metrics as plain data: the admin listener turns them into Prometheus text.
//!
//! Names are `busbar_*` with the unit last. Labels: `device`, `sink`, `plugin`, `reason`. Bounded: one entry per
//! configured thing and name.

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

#[cfg(test)]
mod tests {
    use super::*;

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
