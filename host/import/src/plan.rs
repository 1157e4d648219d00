//! What was understood, and how it is written down as `plugins.toml`.
//!
//! Every part carries a comment that says what of the old file it came from. The same input makes the same bytes: nothing
//! here depends on time, on the machine or on the order of a hash map.

use std::fmt::Write;

use crate::{
    register::{Address, Kind, ONE, Table},
    toml,
};

/// `key = value  # note`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: &'static str,
    /// As TOML.
    pub(crate) value: String,
    /// May be empty.
    pub(crate) note: String,
}

impl Line {
    pub(crate) fn new(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), note: String::new() }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// A point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: String,
    /// The label or variable of the old file.
    pub(crate) original: String,
    pub(crate) address: Address,
    /// The offset is written in hexadecimal.
    pub(crate) hex: bool,
    pub(crate) kind: Kind,
    pub(crate) unit: String,
    /// As TOML; `1.0` is not written.
    pub(crate) scale: String,
    pub(crate) note: String,
}

impl Point {
    fn write(&self, out: &mut String) {
        let mut pairs = vec![("name", toml::quoted(&self.name))];
        let Address { table, offset } = self.address;
        let hex = format!("{}:0x{offset:04X}", table.name());
        pairs.push(("address", toml::quoted(&if self.hex { hex } else { self.address.to_string() })));
        pairs.push(("type", toml::quoted(self.kind.word())));
        if let Kind::Text(length) = self.kind {
            pairs.push(("length", length.to_string()));
        }
        if self.kind == Kind::Bool && !self.address.table.is_bits() {
            pairs.push(("bit", "0".into()));
        }
        if !self.unit.is_empty() {
            pairs.push(("unit", toml::point_text(&self.unit)));
        }
        if self.scale != ONE {
            pairs.push(("scale", self.scale.clone()));
        }
        if self.original != self.name {
            pairs.push(("description", toml::point_text(&self.original)));
        }
        let note =
            if self.note.is_empty() { String::new() } else { format!(" {}", toml::comment(&self.note)) };
        line(out, &format!("  {},{note}", toml::table(&pairs)));
    }
}

/// `[template.NAME]`.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) origin: Vec<String>,
    pub(crate) name: String,
    /// The map file and its default table, to find it again.
    pub(crate) key: (String, Table),
    pub(crate) points: Vec<Point>,
}

/// `[[device]]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) origin: Vec<String>,
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
    /// Its own points; empty where a template has them.
    pub(crate) points: Vec<Point>,
    pub(crate) template: Option<usize>,
}

/// `[[sink]]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink {
    pub(crate) origin: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) head: Vec<String>,
    pub(crate) host: Vec<Line>,
    /// `[defaults.device]`.
    pub(crate) defaults: Vec<Line>,
    pub(crate) templates: Vec<Template>,
    pub(crate) devices: Vec<Device>,
    pub(crate) sinks: Vec<Sink>,
    /// Said at the end, as comments.
    pub(crate) tail: Vec<String>,
}

impl Plan {
    /// The file.
    pub(crate) fn write(&self) -> String {
        let mut out = String::new();
        comments(&mut out, &self.head);
        for (title, lines) in [("[host]", &self.host), ("[defaults.device]", &self.defaults)] {
            if !lines.is_empty() {
                line(&mut out, &format!("\n{title}"));
                keys(&mut out, lines);
            }
        }
        for template in &self.templates {
            out.push('\n');
            comments(&mut out, &template.origin);
            line(&mut out, &format!("[template.{}]", key(&template.name)));
            points(&mut out, &template.points);
        }
        for device in &self.devices {
            out.push('\n');
            comments(&mut out, &device.origin);
            line(&mut out, "[[device]]");
            keys(&mut out, &device.lines);
            if device.template.is_none() {
                points(&mut out, &device.points);
            }
        }
        for sink in &self.sinks {
            out.push('\n');
            comments(&mut out, &sink.origin);
            line(&mut out, "[[sink]]");
            keys(&mut out, &sink.lines);
            self.renames(&mut out);
        }
        if !self.tail.is_empty() {
            out.push('\n');
            comments(&mut out, &self.tail);
        }
        out
    }

    /// Points whose old name is no name in Busbar keep it on the wire.
    fn renames(&self, out: &mut String) {
        let entries: Vec<String> = self
            .devices
            .iter()
            .flat_map(|device| {
                let shared = device.template.and_then(|at| self.templates.get(at));
                let points = shared.map_or(&device.points, |template| &template.points);
                points.iter().filter(|point| point.original != point.name).map(|point| {
                    let name = toml::quoted(&format!("{}/{}", device.name, point.name));
                    toml::table(&[("point", name), ("key", toml::text(&point.original))])
                })
            })
            .collect();
        if !entries.is_empty() {
            line(out, "# Labels that are no names here keep their text in what is sent.");
            line(out, &format!("map = [\n  {},\n]", entries.join(",\n  ")));
        }
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn comments(out: &mut String, texts: &[String]) {
    texts.iter().for_each(|text| line(out, &toml::comment(text)));
}

fn keys(out: &mut String, lines: &[Line]) {
    for Line { key, value, note } in lines {
        let note = if note.is_empty() { String::new() } else { format!(" {}", toml::comment(note)) };
        line(out, &format!("{key} = {value}{note}"));
    }
}

fn points(out: &mut String, points: &[Point]) {
    line(out, "points = [");
    points.iter().for_each(|point| point.write(out));
    line(out, "]");
}

/// A name as a bare key where it can be one.
fn key(name: &str) -> String {
    if name.contains('.') { toml::quoted(name) } else { name.to_owned() }
}
