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

use crate::{
    Made, Options,
    findings::{Findings, did_you_mean, show},
    ini::{DEFAULT, Ini, Item, Section},
    link::{self, Link, Links},
    names::{Names, escape},
    plan::{Device, Line, Point, Sink},
    reader::{Reader, defaults},
    register::{self, Address, KINDS, Kind, ONE, TABLES, Table},
    toml,
};

/// Most values of one device.
pub const MAX_ITEMS: usize = 10_000;
/// Longest unit, in bytes; the limit of the configuration.
const MAX_UNIT: usize = 32;

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
    general(findings, &defaults(ini, &empty), &mut made);
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

/// A value that the environment overrides, in quotes.
fn env(name: &str, default: &str, unit: &str) -> String {
    toml::quoted(&format!("${{env:{name}:-{default}}}{unit}"))
}

/// A text of the file as the default of a reference; a closing brace would end it.
fn as_default(findings: &mut Findings, reader: &Reader<'_>, key: &'static str) -> Option<String> {
    let item = reader.text(key)?;
    if item.text.contains('}') || item.text.contains("${") {
        let help = "write this value into the new file by hand";
        findings.error(reader.at(key, item.span), "a value without } and ${", "one of them", help);
        return None;
    }
    Some(item.text)
}

/// `[DEFAULT]` and the environment.
fn general(findings: &mut Findings, reader: &Reader<'_>, made: &mut Made) {
    reader.know(&DEVICE_KEYS);
    let plan = &mut made.plan;
    plan.host.push(log(findings, reader));
    plan.host.push(
        Line::new("only", toml::quoted("device_section=${env:TEST_DEVICE:-}"))
            .note("one device only; empty: all"),
    );
    let interval = reader.seconds(findings, "collection_interval").unwrap_or_else(|| "60".into());
    plan.defaults.push(Line::new("poll_interval", env("COLLECTION_INTERVAL", &interval, "s")));
    plan.defaults.push(Line::new("reconnect", "{ initial = \"5s\", max = \"5m\" }").note("for ever"));
    plan.defaults.push(Line::new("frame_log", env("MODBUS_DEBUG", "0", "")));
    plan.sinks.push(sink(findings, reader, &mut made.has_secret));
    // Says nothing here: see the end of the file.
    reader.number(findings, "max_retries", (0, 1_000_000));
    reader.unknown_keys(findings);
}

fn log(findings: &mut Findings, reader: &Reader<'_>) -> Line {
    const LEVELS: [&str; 8] = ["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET"];
    let level = reader.word(findings, "log_level", &LEVELS).unwrap_or("INFO");
    let file = as_default(findings, reader, "log_file").unwrap_or_else(|| "./log/gateway_ems.log".into());
    let size = log_size(findings, reader).unwrap_or_else(|| "10MB".into());
    let backups = reader.number(findings, "log_backup_count", (0, 100)).unwrap_or(5);
    let table = toml::table(&[
        ("level", env("LOG_LEVEL", level, "")),
        ("debug", env("DEBUG", "0", "")),
        ("file", env("LOG_FILE", &file, "")),
        ("max_size", env("LOG_MAX_SIZE", &size, "")),
        ("backups", env("LOG_BACKUP_COUNT", &backups.to_string(), "")),
    ]);
    Line::new("log", table)
}

/// `10MB`, or bytes.
fn log_size(findings: &mut Findings, reader: &Reader<'_>) -> Option<String> {
    /// Smallest log file that the host takes.
    const SMALLEST: u64 = 64 * 1024;
    let item = reader.text("log_max_size")?;
    let digits = item.text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = item.text.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "" | "B" => Some(1),
        "KB" | "kB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor?));
    if bytes.is_none_or(|bytes| bytes < SMALLEST) {
        let at = reader.at("log_max_size", item.span);
        findings.error(at, "a size of at least 64KiB such as 10MB", show(&item.text), "");
        return None;
    }
    Some(item.text.replace(' ', ""))
}

/// Whole seconds of the API.
const SECONDS: (u64, u64) = (1, 3_600);

fn sink(findings: &mut Findings, reader: &Reader<'_>, has_secret: &mut bool) -> Sink {
    let url = as_default(findings, reader, "api_url").unwrap_or_else(|| "http://localhost:8000".into());
    if let Some(item) = reader.text("api_url")
        && !["http://", "https://"].iter().any(|scheme| item.text.starts_with(scheme))
    {
        let at = reader.at("api_url", item.span);
        findings.error(at, "a URL that starts with http:// or https://", show(&item.text), "");
    }
    let token = as_default(findings, reader, "api_token").unwrap_or_default();
    *has_secret |= !token.is_empty();
    let timeout = reader.number(findings, "api_timeout", SECONDS).unwrap_or(30).to_string();
    let delay = reader.number(findings, "retry_delay", SECONDS).unwrap_or(5).to_string();
    let settings = toml::table(&[
        ("url", env("EMS_API_URL", &url, "")),
        ("token", env("EMS_API_TOKEN", &token, "")),
        ("timeout", env("EMS_API_TIMEOUT", &timeout, "s")),
        ("retry_delay", env("RETRY_DELAY", &delay, "s")),
    ]);
    Sink {
        origin: vec![
            "The API of the EMS. EMS_API_TOKEN_FILE may name a file with the token; for a token that is renewed while the"
                .into(),
            "gateway runs write token_file = \"/path\" instead of token.".into(),
        ],
        lines: vec![
            Line::new("name", toml::quoted("ems")),
            Line::new("plugin", toml::quoted("ems-http")),
            Line::new("settings", settings),
        ],
    }
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

/// One register with what the other lists say about it.
struct OneValue<'a> {
    reader: &'a Reader<'a>,
    index: usize,
    register: &'a Item,
    table: Option<&'a Item>,
    kind: Option<&'a Item>,
    label: Option<&'a Item>,
    unit: Option<&'a Item>,
    factor: Option<&'a Item>,
}

impl OneValue<'_> {
    fn point(&self, findings: &mut Findings, options: &Options, names: &mut Names) -> Option<Point> {
        let before = findings.errors();
        let table = self.table(findings);
        let kind = self.kind(findings);
        let address = if before == findings.errors() { self.address(findings, options, table) } else { None };
        let scale = self.scale(findings);
        let unit = self.unit(findings);
        let label = self.label.filter(|label| !label.text.is_empty());
        if let (None, Some(empty)) = (label, self.label) {
            self.error(findings, "labels", empty, "a label", "");
        }
        if let (Some(address), Some(kind)) = (address, kind) {
            self.fits(findings, address, kind);
        }
        let (label, address, kind) = (label?, address?, kind?);
        if before != findings.errors() {
            return None;
        }
        let name = names.give(&label.text, &format!("value_{}", self.index));
        if name != escape(&label.text) && !escape(&label.text).is_empty() {
            let at = self.reader.at("labels", label.span).item(self.index, label.span);
            let help = format!("the point is named {name}");
            findings.warning(at, "a label that no other value of the device has", show(&label.text), &help);
        }
        let note = format!("{} {}", self.register.text, self.table.map_or("", |table| table.text.as_str()));
        Some(Point {
            name,
            original: label.text.clone(),
            address,
            hex: false,
            kind,
            unit,
            scale: scale?,
            note,
        })
    }

    fn error(&self, findings: &mut Findings, key: &str, item: &Item, expected: &str, help: &str) {
        let at = self.reader.at(key, item.span).item(self.index, item.span);
        findings.error(at, expected, show(&item.text), help);
    }

    fn table(&self, findings: &mut Findings) -> Option<Table> {
        let item = self.table?;
        let table = Table::read(&item.text);
        if table.is_none() {
            let help = did_you_mean(&item.text, TABLES);
            self.error(findings, "register_types", item, &TABLES.join(", "), &help);
        }
        table
    }

    fn kind(&self, findings: &mut Findings) -> Option<Kind> {
        let item = self.kind?;
        match Kind::read(&item.text) {
            Some(Kind::Text(0)) => {
                let help = "the old file does not say how long it is; write STRING:8 for eight registers";
                self.error(findings, "data_types", item, "STRING:N with N registers, 1 to 125", help);
                None
            }
            None => {
                let help = did_you_mean(&item.text, KINDS);
                self.error(findings, "data_types", item, &KINDS.join(", "), &help);
                None
            }
            kind => kind,
        }
    }

    fn address(&self, findings: &mut Findings, options: &Options, table: Option<Table>) -> Option<Address> {
        match register::resolve(&self.register.text, table, options.address_mode) {
            Err(expected) => {
                self.error(findings, "registers", self.register, &expected, "");
                None
            }
            Ok(resolved) => {
                if let (Some(doubt), Some(table)) = (resolved.doubt, self.table) {
                    let at =
                        self.reader.at("registers", self.register.span).item(self.index, self.register.span);
                    let expected = format!("a number that fits register type {}", table.text);
                    let found = format!(
                        "{}, read as {}; the other reading: {doubt}",
                        self.register.text, resolved.address
                    );
                    findings.warning(
                        at,
                        expected,
                        found,
                        "--address-mode entity or offset says which is meant",
                    );
                }
                Some(resolved.address)
            }
        }
    }

    fn scale(&self, findings: &mut Findings) -> Option<String> {
        let Some(item) = self.factor.filter(|item| !item.text.is_empty()) else { return Some(ONE.into()) };
        let factor = register::factor(&item.text);
        if factor.is_none() {
            let expected = "a number other than 0 with a point and at most 18 digits";
            self.error(findings, "scaling_factors", item, expected, "");
        }
        factor
    }

    fn unit(&self, findings: &mut Findings) -> String {
        let Some(item) = self.unit else { return String::new() };
        if item.text.len() > MAX_UNIT {
            self.error(findings, "units", item, &format!("a unit of at most {MAX_UNIT} bytes"), "");
        }
        item.text.clone()
    }

    /// Type and table go together, and the value ends within the table.
    fn fits(&self, findings: &mut Findings, address: Address, kind: Kind) {
        let item = self.kind.unwrap_or(self.register);
        if address.table.is_bits() && kind != Kind::Bool {
            let expected = format!("BOOL in table {}", address.table.name());
            self.error(
                findings,
                "data_types",
                item,
                &expected,
                "numbers live in INPUT and HOLDING registers",
            );
        } else if kind == Kind::Bool && !address.table.is_bits() {
            let at = self.reader.at("data_types", item.span).item(self.index, item.span);
            let found = format!("BOOL in {address}");
            let help = "bit 0 of the register is read; change bit in the new file if another is meant";
            findings.warning(at, "a coil or discrete input for BOOL", found, help);
        }
        let last = u32::from(address.offset) + u32::from(kind.width()) - 1;
        if last > u32::from(u16::MAX) {
            let expected = "a value that ends at offset 65535 or before";
            self.error(findings, "registers", self.register, expected, "");
        }
    }
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
