//! Prometheus text exposition format 0.0.4.

use std::fmt::{Display, Write};

/// Kind of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "usual names")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A document being written. Families are written one after another, each with its samples.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.text, "# HELP {name} ");
        escape(&mut self.text, help, false);
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
    }

    /// One sample of the current family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            escape(&mut self.text, text, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family with a single sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The document.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        out.single("busbar_up", Kind::Gauge, "a \\ b\nc \"d\"", 1);
        out.family("busbar_x_total", Kind::Counter, "x");
        out.sample("busbar_x_total", &[("device", "a\"\\\n"), ("reason", "full")], 2.5);
        assert_eq!(
            out.finish(),
            "# HELP busbar_up a \\\\ b\\nc \"d\"\n# TYPE busbar_up gauge\nbusbar_up 1\n\
             # HELP busbar_x_total x\n# TYPE busbar_x_total counter\n\
             busbar_x_total{device=\"a\\\"\\\\\\n\",reason=\"full\"} 2.5\n"
        );
    }
}
