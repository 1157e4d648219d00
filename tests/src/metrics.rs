//! Prometheus text, read back.

use std::collections::BTreeMap;

/// One line: name, labels, value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Metric name.
    pub name: String,
    /// Labels in order of name.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// All series of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics(pub Vec<Series>);

impl Metrics {
    /// Parses the text exposition format.
    ///
    /// # Panics
    /// When a line is malformed: that is a defect of the gateway.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| series(line).unwrap_or_else(|| panic!("no metric: {line:?}"))).collect())
    }

    /// Sum of a metric over all series that carry these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|series| series.value).sum()
    }

    /// Series of a metric that carry these labels.
    pub fn of<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |series| {
            series.name == name
                && labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|have| have == value))
        })
    }
}

fn series(line: &str) -> Option<Series> {
    let (left, value) = line.rsplit_once(' ')?;
    let (name, labels) = match left.split_once('{') {
        None => (left, BTreeMap::new()),
        Some((name, rest)) => (name, pairs(rest.strip_suffix('}')?)?),
    };
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().ok()? };
    Some(Series { name: name.to_owned(), labels, value })
}

fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (_, '\\') => value.push(chars.next()?.1),
                (at, '"') => break at,
                (_, c) => value.push(c),
            }
        };
        found.insert(key.trim_start_matches(',').to_owned(), value);
        rest = &after[end + 1..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_labels() {
        let text = "# TYPE a counter\na 3\nb{device=\"m\\\"1\",le=\"+Inf\"} 4.5\nb{device=\"m2\"} 1\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[]), 3.0);
        assert_eq!(metrics.sum("b", &[("device", "m\"1")]), 4.5);
        assert_eq!(metrics.sum("b", &[]), 5.5);
    }
}
