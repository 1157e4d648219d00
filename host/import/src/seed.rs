//! The first generation: one section per device with parallel comma lists, and variables of the environment.
//!
//! | old | new |
//! |---|---|
//! | section, `name` | device; `name` gives its name, the section is the label `device_section` |
//! | `type` | label `device_type` |
//! | `registers` + `register_types` | `address`, see `register` |
//! | `data_types`, `labels`, `units`, `scaling_factors` | `type`, `name`, `unit`, `scale` |
//! | `[DEFAULT] collection_interval`, `COLLECTION_INTERVAL` | `poll_interval` of all devices |
//! | `timeout`, on RTU also `SERIAL_TIMEOUT` | `response_timeout` |
//! | `api_*`, `EMS_API_*`, `RETRY_DELAY` | the sink `ems` |
//! | `log_*`, `LOG_*`, `DEBUG` | `[host] log` |
//! | `MODBUS_DEBUG`, `TEST_DEVICE` | `frame_log` of all devices, `[host] only` |
//!
//! A variable stays a variable: the value of the file becomes the default of its reference, so that the environment
//! wins as before. Values of several registers are read most significant word first
//! (ABCD), since the old file knew no order.

mod general;
mod value;

use general::env;
use value::OneValue;

use crate::{
    Made, Options,
    findings::{Findings, did_you_mean, show},
    ini::{DEFAULT, Ini, Item, Section},
    link::{self, Link, Links},
    names::{Names, escape},
    plan::{Device, Line, Point},
    reader::{Reader, defaults},
    toml,
};

/// Most values of one device.
pub const MAX_ITEMS: usize = 10_000;

/// Every key of a device.
const DEVICE_KEYS: [&str; 17] = [
    "name",
    "type",
    "protocol",
    "host",
    "port",
    "baudrate",
    "parity",
    "stopbits",
    "databits",
    "slave_id",
    "timeout",
    "registers",
    "register_types",
    "data_types",
    "labels",
    "units",
    "scaling_factors",
];
/// Lists beside `registers`, and whether they must be there.
const LISTS: [(&str, bool); 5] = [
    ("register_types", false),
    ("data_types", true),
    ("labels", true),
    ("units", false),
    ("scaling_factors", false),
];

/// Reads the whole file.
pub(crate) fn plan(findings: &mut Findings, name: &str, ini: &Ini, options: &Options) -> Made {
    let mut made = Made::default();
    made.plan.head = vec![
        format!("Made by `busbar import ems-ini` from {name}. Check it with `busbar check`, change it as you like."),
        "${env:NAME:-value} is the environment variable NAME where it is set, else the value of the old file.".into(),
    ];
    let empty = Section { name: DEFAULT.into(), span: crate::findings::Span::default(), entries: Vec::new() };
    general::plan(findings, &defaults(ini, &empty), &mut made);
    let mut seed =
        Seed { findings, ini, options, names: Names::default(), links: Links::default(), unequal: false };
    for section in ini.sections.iter().filter(|section| section.name != DEFAULT) {
        let device = seed.device(section);
        made.plan.devices.extend(device);
    }
    if ini.sections.iter().all(|section| section.name == DEFAULT) {
        let at = crate::findings::At { span: Some(crate::findings::Span::default()), ..Default::default() };
        findings.error(at, "a section per device, or [MAINMODBUS]", "no section", "is this the right file?");
    }
    made.plan.tail = vec![
        "MAX_RETRIES limited the attempts of one sending round; here nothing is given up: what was not sent stays on".into(),
        "disk and is tried again after RETRY_DELAY, twice that, and so on up to 5 minutes. TEST_REAL_DEVICES chose tests;".into(),
        "`busbar read DEVICE` reads a real device.".into(),
    ];
    made
}

struct Seed<'a> {
    findings: &'a mut Findings,
    ini: &'a Ini,
    options: &'a Options,
    names: Names,
    links: Links,
    /// The lists of the device at hand do not belong together.
    unequal: bool,
}

/// The lists of a device; empty where there is none.
struct Lists {
    registers: Vec<Item>,
    tables: Vec<Item>,
    kinds: Vec<Item>,
    labels: Vec<Item>,
    units: Vec<Item>,
    factors: Vec<Item>,
}

impl Seed<'_> {
    fn device(&mut self, section: &Section) -> Option<Device> {
        let reader = Reader::new(self.ini, section);
        reader.know(&DEVICE_KEYS);
        let before = self.findings.errors();
        if !section.entries.iter().any(|entry| DEVICE_KEYS.contains(&entry.key.as_str())) {
            let help = did_you_mean(&section.name, [DEFAULT, crate::field::MAIN]);
            self.findings.error(reader.here(), "a section of a device", show(&section.name), &help);
            return None;
        }
        let mut origin = vec![reader.origin(self.findings)];
        let link = self.link(&reader);
        let unit_id = self.unit_id(&reader);
        let timeout = reader.seconds(self.findings, "timeout");
        let shared =
            link.as_ref().and_then(|link| self.links.add(self.findings, &reader, section.span, link));
        let sound = before == self.findings.errors();
        // Lists of unequal length are looked through all the same: what else is wrong in them is to be found now.
        let points = self.lists(&reader).map(|lists| self.points(&reader, &lists)).unwrap_or_default();
        let unequal = self.unequal;
        reader.unknown_keys(self.findings);
        let (link, unit_id, shared) = (link?, unit_id?, shared?);
        if points.is_empty() || !sound || unequal {
            return None;
        }
        origin.extend((!shared.is_empty()).then_some(shared));
        let text =
            reader.text("name").unwrap_or_else(|| Item { text: section.name.clone(), span: section.span });
        let name = self.names.give(&text.text, "device");
        if escape(&text.text) != name {
            let at = reader.at("name", text.span);
            let help = format!("the device is named {name}");
            self.findings.warning(at, "a name that no other device has", show(&text.text), &help);
        }
        Some(Device {
            origin,
            lines: device_lines(&reader, &name, &text.text, &link, unit_id, timeout),
            name,
            points,
            template: None,
        })
    }

    fn link(&mut self, reader: &Reader<'_>) -> Option<Link> {
        reader.required(self.findings, "protocol")?;
        match reader.word(self.findings, "protocol", &["TCP", "RTU"])? {
            "TCP" => {
                let (host, port) = (link::host(reader, self.findings), link::port(reader, self.findings));
                for key in ["baudrate", "parity", "stopbits", "databits"] {
                    if let Some(item) = reader.own(key) {
                        let at = reader.at(key, item.span);
                        self.findings.warning(
                            at,
                            "no serial settings with protocol TCP",
                            show(&item.text),
                            "left out",
                        );
                    }
                }
                Some(Link::Tcp { host: host?, port: port? })
            }
            _ => {
                let path = link::path(reader, self.findings, "port");
                let line = link::line(reader, self.findings, "databits");
                if let Some(item) = reader.own("host") {
                    let at = reader.at("host", item.span);
                    self.findings.warning(at, "no host with protocol RTU", show(&item.text), "left out");
                }
                Some(Link::Serial { path: path?, line: line? })
            }
        }
    }

    fn unit_id(&mut self, reader: &Reader<'_>) -> Option<u8> {
        let serial = link::is_serial(reader);
        let Some(item) = reader.text("slave_id") else {
            self.findings.warning(reader.here(), "the key slave_id", "none", "1 is taken");
            return Some(1);
        };
        link::unit_id(reader, self.findings, "slave_id", &item, serial, None)
    }

    /// The lists, if they belong together.
    fn lists(&mut self, reader: &Reader<'_>) -> Option<Lists> {
        reader.required(self.findings, "registers")?;
        let registers = without_end(reader.list("registers")?, None);
        let count = registers.len();
        if count > MAX_ITEMS {
            let at = reader.at("registers", registers.get(MAX_ITEMS)?.span);
            self.findings.error(at, format!("at most {MAX_ITEMS} values of a device"), count.to_string(), "");
            return None;
        }
        self.unequal = false;
        let [tables, kinds, labels, units, factors] =
            LISTS.map(|(key, required)| self.list(reader, key, required, count));
        Some(Lists { registers, tables, kinds, labels, units, factors })
    }

    fn list(&mut self, reader: &Reader<'_>, key: &'static str, required: bool, count: usize) -> Vec<Item> {
        let Some(items) = reader.list(key) else {
            if required {
                reader.required(self.findings, key);
                self.unequal = true;
            }
            return Vec::new();
        };
        let items = without_end(items, Some(count));
        if items.len() == count {
            return items;
        }
        self.unequal = true;
        let entry = self.ini.get(reader.section, key).map(|entry| entry.value.whole());
        let span = entry.map_or(reader.section.span, |whole| whole.span);
        let expected = format!("{count} values, as many as registers");
        let help = "what belongs to which register cannot be told; the device is left out";
        self.findings.error(reader.at(key, span), expected, items.len().to_string(), help);
        items.into_iter().take(count).collect()
    }

    fn points(&mut self, reader: &Reader<'_>, lists: &Lists) -> Vec<Point> {
        let mut names = Names::default();
        let mut points = Vec::with_capacity(lists.registers.len());
        for (at, register) in lists.registers.iter().enumerate() {
            let value = OneValue {
                reader,
                index: at + 1,
                register,
                table: lists.tables.get(at),
                kind: lists.kinds.get(at),
                label: lists.labels.get(at),
                unit: lists.units.get(at),
                factor: lists.factors.get(at),
            };
            points.extend(value.point(self.findings, self.options, &mut names));
        }
        points
    }
}

/// Takes away what a comma at the end of a list makes, where it is one too many.
fn without_end(mut items: Vec<Item>, count: Option<usize>) -> Vec<Item> {
    let empty_end = items.last().is_some_and(|item| item.text.is_empty());
    if empty_end && count.is_none_or(|count| items.len() == count + 1) {
        items.pop();
    }
    items
}

/// The keys of a device apart from its points.
fn device_lines(
    reader: &Reader<'_>,
    name: &str,
    original: &str,
    link: &Link,
    unit_id: u8,
    timeout: Option<String>,
) -> Vec<Line> {
    let mut lines = vec![Line::new("name", toml::quoted(name)), Line::new("driver", toml::quoted("modbus"))];
    if original != name {
        lines.push(Line::new("description", toml::text(original)));
    }
    let mut labels = vec![("device_section", toml::text(&reader.section.name))];
    labels.extend(reader.text("type").map(|item| ("device_type", toml::text(&item.text))));
    lines.push(Line::new("labels", toml::table(&labels)));
    let timeout = match (timeout, link.is_serial()) {
        (timeout, true) => Some(env("SERIAL_TIMEOUT", timeout.as_deref().unwrap_or("3"), "s")),
        (timeout, false) => timeout.map(|seconds| toml::quoted(&format!("{seconds}s"))),
    };
    lines.extend(timeout.map(|timeout| Line::new("response_timeout", timeout)));
    let mut connection = link.connection(|name, default| Some(env(name, default, "")));
    connection.push(("unit_id", unit_id.to_string()));
    lines.push(Line::new("connection", toml::table(&connection)));
    lines
}
