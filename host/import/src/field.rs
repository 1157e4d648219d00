//! The second generation: `config.ini` with `[MAINMODBUS]` and sections that name JSON maps.
//!
//! | old | new |
//! |---|---|
//! | `devicesnames` | which sections become devices |
//! | `device_id = 11,12,13` | one device per unit id, `SECTION_11`, ...; a single one keeps the name of the section |
//! | `identify_device`, `device_type`, section, `device_id` | labels of these names (section: `device_section`), for `format = "ems"` |
//! | `mapfile`, `modbus_function` | a template per map and function |
//! | `interval`, `start_hour`, `stop_hour` | `poll_interval` and `active` of all devices |
//! | `modbusconnect`, `modbusread` | `enabled`, `read` |
//! | `blockreading = false` | `max_gap = 0` |
//! | `mqtt_*` or `[MQTT]`, if `mqtt_active` | a sink `mqtt` with `format = "ems"` |
//!
//! Nothing of the environment was ever read by this generation, and nothing is here.

use std::{collections::HashMap, rc::Rc};

use crate::{
    Files, Made, Options,
    findings::{At, Findings, Span, did_you_mean, show},
    ini::{DEFAULT, Ini, Item, Section},
    link::{self, Link, Links},
    map::{self, Map},
    names::Names,
    outputs,
    plan::{Device, Line, Plan},
    reader::{Reader, defaults},
    register::Table,
    text, toml,
};

/// The section by which this generation is known.
pub(crate) const MAIN: &str = "MAINMODBUS";
/// Most maps that one file names.
const MAX_MAPS: usize = 500;

/// Every key of a device.
const DEVICE_KEYS: [&str; 18] = [
    "identify_device",
    "device_type",
    "devicetype",
    "protocol",
    "serialport",
    "baudrate",
    "host",
    "port",
    "mapfile",
    "device_id",
    "modbus_function",
    "blockreading",
    "modbusconnect",
    "modbusread",
    "parity",
    "bytesize",
    "stopbits",
    "name",
];

/// Reads the whole file.
pub(crate) fn plan(
    findings: &mut Findings,
    name: &str,
    ini: &Ini,
    files: &dyn Files,
    options: &Options,
) -> Made {
    let mut made = Made::default();
    made.plan.head.push(format!(
        "Made by `busbar import ems-ini` from {name}. Check it with `busbar check`, change it as you like."
    ));
    let empty = Section { name: DEFAULT.into(), span: Span::default(), entries: Vec::new() };
    let general = defaults(ini, &empty);
    general.know(&DEVICE_KEYS);
    let Some(section) = ini.section(MAIN) else { return made };
    let main = Reader::new(ini, section);
    made.plan.host.extend(log(findings, &general));
    made.plan.defaults.extend(schedule(findings, &main, options));
    let mut field = Field {
        findings,
        ini,
        files,
        options,
        plan: &mut made.plan,
        names: Names::default(),
        template_names: Names::default(),
        links: Links::default(),
        maps: HashMap::new(),
    };
    let listed = field.devices(&main);
    made.has_secret = outputs::plan(findings, ini, &main, &general, &mut made.plan);
    others(findings, ini, &listed);
    general.unknown_keys_except(findings, outputs::is_foreign);
    main.unknown_keys_except(findings, outputs::is_foreign);
    made
}

fn log(findings: &mut Findings, reader: &Reader<'_>) -> Option<Line> {
    const LEVELS: [(&str, &str); 8] = [
        ("DEBUG", "debug"),
        ("INFO", "info"),
        ("WARNING", "warn"),
        ("WARN", "warn"),
        ("ERROR", "error"),
        ("CRITICAL", "error"),
        ("FATAL", "error"),
        ("NOTSET", "trace"),
    ];
    /// Bytes; the smallest log file that the host takes.
    const SIZES: (u64, u64) = (64 * 1024, 1 << 40);
    let level = reader.word(findings, "loglevel", &LEVELS.map(|(word, _)| word));
    let level = level.and_then(|word| LEVELS.iter().find(|(old, _)| *old == word)).map(|(_, new)| *new);
    let to_stdout = reader.switch(findings, "logstdout");
    let size = reader.number(findings, "max_size_bytes", SIZES);
    let backups = reader.number(findings, "backup_count", (0, 100));
    let file = reader.text("logfile");
    let mut pairs = vec![("level", toml::quoted(level.unwrap_or("info")))];
    if let Some(file) = &file {
        pairs.push(("file", toml::text(&file.text)));
        pairs.extend(size.map(|size| ("max_size", toml::quoted(&format!("{size}B")))));
        pairs.extend(backups.map(|backups| ("backups", backups.to_string())));
        if to_stdout == Some(true) {
            let at = reader.at("logfile", file.span);
            let help = "left as the file; without log.file it goes to standard error";
            findings.warning(at, "a file or the standard output", "both", help);
        }
    }
    let anything = level.is_some() || file.is_some();
    anything.then(|| Line::new("log", toml::table(&pairs)))
}

/// What all devices share.
fn schedule(findings: &mut Findings, main: &Reader<'_>, options: &Options) -> Vec<Line> {
    let interval = main.seconds(findings, "interval").unwrap_or_else(|| "1".into());
    let mut lines = vec![Line::new("poll_interval", toml::quoted(&format!("{interval}s")))];
    let start = main.number(findings, "start_hour", (0, 23));
    let stop = main.number(findings, "stop_hour", (0, 23));
    let (from, last) = (start.unwrap_or(0), stop.unwrap_or(23));
    if (start.is_none() && stop.is_none()) || (from, last) == (0, 23) {
        return lines;
    }
    // The old stop hour counts to its end.
    let to = last + 1;
    if last < from
        && let Some(item) = main.text("stop_hour")
    {
        let found = format!("{from} to {last}");
        let help = "the old gateway never read in such a window; here it is a window over midnight";
        findings.warning(main.at("stop_hour", item.span), "a stop hour behind the start hour", found, help);
    }
    if to == from {
        return lines;
    }
    if let (None, Some(item)) = (&options.zone, main.text("start_hour").or_else(|| main.text("stop_hour"))) {
        let help = "UTC is taken; --zone Europe/Madrid says which zone the old gateway lived in";
        findings.warning(main.at("start_hour", item.span), "the zone of these hours", "none", help);
    }
    let active = toml::table(&[
        ("from", toml::quoted(&format!("{from:02}:00"))),
        ("to", toml::quoted(&format!("{to:02}:00"))),
        ("zone", toml::text(options.zone.as_deref().unwrap_or("UTC"))),
    ]);
    lines.push(Line::new("active", active).note(format!("start_hour {from}, stop_hour {last} to its end")));
    lines
}

/// Sections that are neither devices nor known for something else.
fn others(findings: &mut Findings, ini: &Ini, listed: &[String]) {
    for section in &ini.sections {
        let name = section.name.as_str();
        if name == DEFAULT
            || name == MAIN
            || outputs::is_known(name)
            || listed.iter().any(|known| known == name)
        {
            continue;
        }
        let at = At { span: Some(section.span), section: name, ..At::default() };
        if section.get("device_id").is_some() || section.get("mapfile").is_some() {
            let help = "left out, as the old gateway did";
            findings.warning(at, "every device in devicesnames", format!("{name} is not there"), help);
        } else {
            let help = did_you_mean(name, listed.iter().map(String::as_str));
            findings.error(at, "the section of a device, or a known one", show(name), &help);
        }
    }
}

struct Field<'a> {
    findings: &'a mut Findings,
    ini: &'a Ini,
    files: &'a dyn Files,
    options: &'a Options,
    plan: &'a mut Plan,
    names: Names,
    template_names: Names,
    links: Links,
    /// Maps that were read, by file name; `None`: they were no maps.
    maps: HashMap<String, Option<Rc<Map>>>,
}

/// What the units of a section share.
struct Common {
    link: Link,
    template: usize,
    kind: Option<String>,
    switches: Vec<Line>,
    small_blocks: bool,
}

impl Field<'_> {
    /// Devices of all sections in the list; gives their names.
    fn devices(&mut self, main: &Reader<'_>) -> Vec<String> {
        let items = main.list("devicesnames").unwrap_or_default();
        let items: Vec<Item> = items.into_iter().filter(|item| !item.text.is_empty()).collect();
        if items.is_empty() {
            let help = "the old gateway waited to be provisioned; add devices to the new file";
            self.findings.warning(main.here(), "devicesnames with sections of devices", "none", help);
        }
        let mut listed: Vec<String> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let place = main.at("devicesnames", item.span).item(at + 1, item.span);
            if listed.contains(&item.text) {
                self.findings.error(place, "every device once", show(&item.text), "");
                continue;
            }
            listed.push(item.text.clone());
            let Some(section) = self.ini.section(&item.text) else {
                let known = self.ini.sections.iter().map(|section| section.name.as_str());
                let help = did_you_mean(&item.text, known);
                self.findings.error(place, "the name of a section", show(&item.text), &help);
                continue;
            };
            self.section(section);
        }
        listed
    }

    fn section(&mut self, section: &Section) {
        let reader = Reader::new(self.ini, section);
        reader.know(&DEVICE_KEYS);
        let before = self.findings.errors();
        let link = self.link(&reader);
        let table = self.table(&reader);
        let template = self.template(&reader, table.unwrap_or(Table::Holding));
        let serial = link::is_serial(&reader);
        let units = self.units(&reader, serial);
        let identities = self.identities(&reader, units.len());
        let kind = self.kind(&reader);
        let switches = self.switches(&reader);
        let small_blocks = reader.switch(self.findings, "blockreading") == Some(false);
        let shared =
            link.as_ref().and_then(|link| self.links.add(self.findings, &reader, section.span, link));
        reader.unknown_keys(self.findings);
        let (Some(link), Some(template), Some(shared)) = (link, template, shared) else { return };
        if before != self.findings.errors() || table.is_none() {
            return;
        }
        let common = Common { link, template, kind, switches, small_blocks };
        for (at, unit) in units.iter().enumerate() {
            let mut origin = vec![reader.origin(self.findings)];
            if units.len() > 1 {
                origin.push(format!("unit {} of {}", at + 1, units.len()));
            }
            origin.extend((!shared.is_empty() && at == 0).then(|| shared.clone()));
            let name =
                if units.len() == 1 { section.name.clone() } else { format!("{}_{unit}", section.name) };
            let identity = identities.get(at).cloned().unwrap_or_else(|| format!("{}_{unit}", section.name));
            self.unit(&reader, &common, origin, &name, &identity, *unit);
        }
    }

    fn unit(
        &mut self,
        reader: &Reader<'_>,
        common: &Common,
        origin: Vec<String>,
        text: &str,
        identity: &str,
        unit: u8,
    ) {
        let name = self.names.give(text, "device");
        let mut lines =
            vec![Line::new("name", toml::quoted(&name)), Line::new("driver", toml::quoted("modbus"))];
        if name != text {
            lines.push(Line::new("description", toml::text(text)));
        }
        let mut labels = vec![
            ("identify_device", toml::text(identity)),
            ("device_type", toml::text(common.kind.as_deref().unwrap_or("Unknown"))),
            ("device_section", toml::text(&reader.section.name)),
            ("device_id", toml::quoted(&unit.to_string())),
        ];
        // In the old records all units of a section have its name.
        if name != reader.section.name {
            labels.push(("device_name", toml::text(&reader.section.name)));
        }
        lines.push(Line::new("labels", toml::table(&labels)));
        let template = self.plan.templates.get(common.template).map(|template| template.name.clone());
        lines.push(Line::new("template", toml::quoted(&template.unwrap_or_default())));
        let mut connection = common.link.connection(|_, _| None);
        connection.push(("unit_id", unit.to_string()));
        if common.small_blocks {
            connection.push(("max_gap", "0".into()));
        }
        let mut line = Line::new("connection", toml::table(&connection));
        if common.small_blocks {
            line = line.note("blockreading = false: nothing is read that was not asked for");
        }
        lines.push(line);
        lines.extend(common.switches.iter().cloned());
        self.plan.devices.push(Device {
            origin,
            name,
            lines,
            points: Vec::new(),
            template: Some(common.template),
        });
    }

    fn link(&mut self, reader: &Reader<'_>) -> Option<Link> {
        reader.required(self.findings, "protocol")?;
        match reader.word(self.findings, "protocol", &["RTU", "TCP"])? {
            "TCP" => {
                let (host, port) = (link::host(reader, self.findings), link::port(reader, self.findings));
                Some(Link::Tcp { host: host?, port: port? })
            }
            _ => {
                let path = link::path(reader, self.findings, "serialport");
                let line = link::line(reader, self.findings, "bytesize");
                for (key, usual) in [("parity", "N"), ("bytesize", "8"), ("stopbits", "1")] {
                    if let Some(item) = reader.text(key).filter(|item| !item.text.eq_ignore_ascii_case(usual))
                    {
                        let help = format!("taken; the old gateway always used {usual}");
                        let at = reader.at(key, item.span);
                        self.findings.warning(at, usual, show(&item.text), &help);
                    }
                }
                Some(Link::Serial { path: path?, line: line? })
            }
        }
    }

    fn table(&mut self, reader: &Reader<'_>) -> Option<Table> {
        if reader.text("modbus_function").is_none() {
            return Some(Table::Holding);
        }
        match reader.word(self.findings, "modbus_function", &["3", "4"])? {
            "4" => Some(Table::Input),
            _ => Some(Table::Holding),
        }
    }

    fn units(&mut self, reader: &Reader<'_>, serial: bool) -> Vec<u8> {
        if reader.required(self.findings, "device_id").is_none() {
            return Vec::new();
        }
        let items: Vec<Item> = reader.list("device_id").unwrap_or_default();
        let mut units = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let index = (items.len() > 1).then_some(at + 1);
            let Some(unit) = link::unit_id(reader, self.findings, "device_id", item, serial, index) else {
                continue;
            };
            if units.contains(&unit) {
                let at = reader.at("device_id", item.span).item(at + 1, item.span);
                self.findings.error(at, "every unit id once", show(&item.text), "");
            } else {
                units.push(unit);
            }
        }
        units
    }

    /// One identity per unit, or none at all where the file has none.
    fn identities(&mut self, reader: &Reader<'_>, units: usize) -> Vec<String> {
        let items = reader.list("identify_device").unwrap_or_default();
        let texts: Vec<String> = items.iter().map(|item| item.text.clone()).collect();
        match (texts.first(), items.first()) {
            (Some(text), Some(item)) if texts.len() == 1 && units > 1 => {
                let found = format!("one for {units} units");
                let help = "all units carry it, as before; write one per unit, separated by commas";
                self.findings.warning(
                    reader.at("identify_device", item.span),
                    "an identity per unit",
                    found,
                    help,
                );
                vec![text.clone(); units]
            }
            (Some(_), Some(item)) if texts.len() != units && units > 0 => {
                let expected = format!("{units} identities, as many as device_id");
                self.findings.error(
                    reader.at("identify_device", item.span),
                    expected,
                    texts.len().to_string(),
                    "",
                );
                Vec::new()
            }
            _ => texts,
        }
    }

    fn kind(&mut self, reader: &Reader<'_>) -> Option<String> {
        if let Some(item) = reader.text("device_type") {
            return Some(item.text);
        }
        let item = reader.text("devicetype")?;
        let help = "taken as device_type; the old gateway did not know this key and sent \"Unknown\"";
        self.findings.warning(reader.at("devicetype", item.span), "device_type", "devicetype", help);
        Some(item.text)
    }

    /// `modbusconnect` and `modbusread`; reading without connecting was set to neither by the old gateway.
    fn switches(&mut self, reader: &Reader<'_>) -> Vec<Line> {
        let connect = reader.switch(self.findings, "modbusconnect").unwrap_or(true);
        let read = reader.switch(self.findings, "modbusread").unwrap_or(true);
        match (connect, read) {
            (true, true) => Vec::new(),
            (true, false) => vec![Line::new("read", "false").note("modbusread = false")],
            (false, _) => vec![Line::new("enabled", "false").note("modbusconnect = false")],
        }
    }

    /// The template of a section: its map with its function.
    fn template(&mut self, reader: &Reader<'_>, table: Table) -> Option<usize> {
        let item = reader.required(self.findings, "mapfile")?;
        let map = self.map(reader, &item)?;
        let key = (item.text.clone(), table);
        if let Some(known) = self.plan.templates.iter().position(|template| template.key == key) {
            return Some(known);
        }
        let stated = reader.text("modbus_function");
        let contradicts = |named: Option<Table>| named.is_some_and(|named| named != table);
        if let (Some(stated), Some(variable)) =
            (stated, map.variables.iter().find(|variable| contradicts(variable.table)))
        {
            let found =
                format!("modbus_function {} and register_type of {}", stated.text, show(&variable.name));
            let help = "register_type of the map is taken; the old gateway took modbus_function";
            self.findings.warning(
                reader.at("modbus_function", stated.span),
                "one register type",
                found,
                help,
            );
        }
        let stem = map::stem(&item.text);
        let name = if table == Table::Input { format!("{stem}_input") } else { stem };
        let template = map::template(self.findings, &map, &item.text, &mut self.template_names, &name, table);
        self.plan.templates.push(template);
        Some(self.plan.templates.len() - 1)
    }

    fn map(&mut self, reader: &Reader<'_>, item: &Item) -> Option<Rc<Map>> {
        if let Some(known) = self.maps.get(&item.text) {
            return known.clone();
        }
        if self.maps.len() >= MAX_MAPS {
            let at = reader.at("mapfile", item.span);
            self.findings.error(at, format!("at most {MAX_MAPS} maps"), "more", "");
            return None;
        }
        let map = self.fetch(reader, item).map(Rc::new);
        self.maps.insert(item.text.clone(), map.clone());
        map
    }

    fn fetch(&mut self, reader: &Reader<'_>, item: &Item) -> Option<Map> {
        let bytes = match self.files.read(&item.text) {
            Ok(bytes) => bytes,
            Err(found) => {
                let at = reader.at("mapfile", item.span);
                self.findings.error(
                    at,
                    "a readable map file",
                    found,
                    "relative names start at the folder of the INI file",
                );
                return None;
            }
        };
        match text::decode(&item.text, &bytes) {
            Ok(text) => {
                let source = self.findings.sources.add(item.text.clone(), item.text.clone().into(), &text);
                map::read(self.findings, source, &text, self.options).filter(|map| !map.variables.is_empty())
            }
            Err(problem) => {
                self.findings.file(*problem);
                None
            }
        }
    }
}
