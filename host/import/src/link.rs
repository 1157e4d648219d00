//! How a device is reached, in both generations: host and port, or a serial port with its settings.
//!
//! Sections may share a host or a line; Busbar gives them one connection. Sections that share a line must agree on its
//! settings, which the old gateways never noticed: the first one won, or the last.

use std::collections::BTreeMap;

use crate::{
    findings::{Findings, Span, show},
    ini::Item,
    reader::Reader,
    toml,
};

/// Limits of the driver.
const BAUD_RATES: (u64, u64) = (300, 4_000_000);
/// The port of Modbus TCP.
const PORT: u64 = 502;

/// A way to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Tcp { host: String, port: u64 },
    Serial { path: String, line: Line },
}

/// Settings of a serial line, as the file has them; `None` where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) baud_rate: Option<u64>,
    pub(crate) parity: Option<&'static str>,
    pub(crate) data_bits: u64,
    pub(crate) stop_bits: u64,
}

impl Link {
    /// Keys of `connection`, apart from the unit id. `env` makes a value that the environment may override.
    pub(crate) fn connection(
        &self,
        env: impl Fn(&str, &str) -> Option<String>,
    ) -> Vec<(&'static str, String)> {
        match self {
            Self::Tcp { host, port } => vec![
                ("transport", toml::quoted("tcp")),
                ("host", toml::text(host)),
                ("port", port.to_string()),
            ],
            Self::Serial { path, line } => {
                let baud_rate = line.baud_rate.unwrap_or(9600).to_string();
                let parity = line.parity.unwrap_or("N");
                let mut pairs = vec![("transport", toml::quoted("rtu")), ("path", toml::text(path))];
                pairs.push(("baud_rate", env("SERIAL_BAUDRATE", &baud_rate).unwrap_or(baud_rate)));
                pairs.push(("parity", env("SERIAL_PARITY", parity).unwrap_or_else(|| toml::quoted(parity))));
                pairs.push(("data_bits", line.data_bits.to_string()));
                pairs.push(("stop_bits", line.stop_bits.to_string()));
                pairs
            }
        }
    }

    pub(crate) const fn is_serial(&self) -> bool {
        matches!(self, Self::Serial { .. })
    }

    fn key(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{}:{port}", host.to_ascii_lowercase()),
            Self::Serial { path, .. } => path.clone(),
        }
    }
}

/// A host without anything around it.
pub(crate) fn host(reader: &Reader<'_>, findings: &mut Findings) -> Option<String> {
    let item = reader.required(findings, "host")?;
    let bad = |symbol: char| {
        symbol.is_whitespace() || symbol.is_control() || matches!(symbol, '/' | '@' | ',' | '"')
    };
    let has_port = item.text.matches(':').count() == 1;
    if item.text.contains(bad) || has_port {
        let at = reader.at("host", item.span);
        findings.error(
            at,
            "a host name or address without port",
            show(&item.text),
            "the port has a key of its own",
        );
        return None;
    }
    Some(item.text)
}

/// A TCP port; 502 where there is none.
pub(crate) fn port(reader: &Reader<'_>, findings: &mut Findings) -> Option<u64> {
    if let Some(item) = reader.text("port").filter(|item| is_path(&item.text)) {
        let at = reader.at("port", item.span);
        findings.error(
            at,
            "a TCP port from 1 to 65535",
            show(&item.text),
            "a device path needs protocol = RTU",
        );
        return None;
    }
    match reader.text("port") {
        Some(_) => reader.number(findings, "port", (1, 65_535)),
        None => Some(PORT),
    }
}

/// A serial port under `key`.
pub(crate) fn path(reader: &Reader<'_>, findings: &mut Findings, key: &'static str) -> Option<String> {
    let item = reader.required(findings, key)?;
    if !is_path(&item.text) || item.text.contains(char::is_whitespace) {
        let at = reader.at(key, item.span);
        findings.error(at, "a serial device such as /dev/ttyUSB0", show(&item.text), "");
        return None;
    }
    if !item.text.starts_with('/') {
        let at = reader.at(key, item.span);
        findings.warning(
            at,
            "a serial device such as /dev/ttyUSB0",
            show(&item.text),
            "taken as it is, but Linux knows no port of this name",
        );
    }
    Some(item.text)
}

fn is_path(text: &str) -> bool {
    let com = text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("com"));
    text.starts_with('/') || (com && text.len() > 3 && text.bytes().skip(3).all(|byte| byte.is_ascii_digit()))
}

/// The settings of a line.
pub(crate) fn line(reader: &Reader<'_>, findings: &mut Findings, data_bits: &'static str) -> Option<Line> {
    let before = findings.errors();
    let line = Line {
        baud_rate: reader.number(findings, "baudrate", BAUD_RATES),
        parity: parity(reader, findings),
        data_bits: reader.number(findings, data_bits, (7, 8)).unwrap_or(8),
        stop_bits: reader.number(findings, "stopbits", (1, 2)).unwrap_or(1),
    };
    (before == findings.errors()).then_some(line)
}

fn parity(reader: &Reader<'_>, findings: &mut Findings) -> Option<&'static str> {
    const WORDS: [&str; 6] = ["N", "E", "O", "NONE", "EVEN", "ODD"];
    let word = reader.word(findings, "parity", &WORDS)?;
    WORDS.iter().find(|known| word.starts_with(**known)).copied()
}

/// Who uses which channel, to find lines that are set in two ways.
#[derive(Debug, Default)]
pub(crate) struct Links {
    known: BTreeMap<String, (Link, String)>,
}

impl Links {
    /// Notes a device; says in words with which section it shares its channel. `None`: the two disagree (reported).
    pub(crate) fn add(
        &mut self,
        findings: &mut Findings,
        reader: &Reader<'_>,
        span: Span,
        link: &Link,
    ) -> Option<String> {
        let section = &reader.section.name;
        let Some((first, owner)) = self.known.get(&link.key()) else {
            self.known.insert(link.key(), (link.clone(), section.clone()));
            return Some(String::new());
        };
        if first == link {
            return Some(format!("shares its connection with [{owner}]"));
        }
        let (Link::Serial { line: one, .. }, Link::Serial { line: two, .. }) = (first, link) else {
            return Some(String::new());
        };
        let found = format!("{} beside {} in [{owner}]", describe(two), describe(one));
        let help = "one line has one speed and one format; correct one of the two";
        findings.error(reader.at("", span), "the same settings in all sections of a line", found, help);
        None
    }
}

fn describe(line: &Line) -> String {
    let (rate, parity) = (line.baud_rate.unwrap_or(9600), line.parity.unwrap_or("N"));
    format!("{rate} {}{parity}{}", line.data_bits, line.stop_bits)
}

/// What the section says about itself, also where the rest of its connection is wrong.
pub(crate) fn is_serial(reader: &Reader<'_>) -> bool {
    reader.text("protocol").is_some_and(|item| item.text.eq_ignore_ascii_case("rtu"))
}

/// A unit id; 0 and 255 only on TCP.
pub(crate) fn unit_id(
    reader: &Reader<'_>,
    findings: &mut Findings,
    key: &'static str,
    item: &Item,
    serial: bool,
    index: Option<usize>,
) -> Option<u8> {
    let number = item.text.parse::<u8>().ok();
    let good = number.filter(|unit| (1..=247).contains(unit) || (!serial && matches!(unit, 0 | 255)));
    if good.is_none() {
        let expected =
            if serial { "a unit id from 1 to 247" } else { "a unit id from 1 to 247, or 0 or 255" };
        let mut at = reader.at(key, item.span);
        at.index = index;
        findings.error(at, expected, show(&item.text), "");
    }
    good
}
