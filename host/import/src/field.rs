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

mod general;
mod keys;
mod template;

use std::{collections::HashMap, rc::Rc};

use busbar_config::MAX_POINTS;

use crate::{
    Files, Made, Options,
    findings::{At, Findings, Span, did_you_mean, show},
    ini::{DEFAULT, Ini, Item, MAX_SECTIONS, Section},
    link::{self, Link, Links},
    map::Map,
    names::Names,
    outputs,
    plan::{Device, Line, Plan},
    reader::{Reader, defaults},
    register::Table,
    toml,
};

/// The section by which this generation is known.
pub(crate) const MAIN: &str = "MAINMODBUS";

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
    let shared = defaults(ini, &empty);
    shared.know(&DEVICE_KEYS);
    let Some(section) = ini.section(MAIN) else { return made };
    let main = Reader::new(ini, section);
    made.plan.host.extend(general::log(findings, &shared));
    made.plan.defaults.extend(general::schedule(findings, &main, options));
    let mut field = Field {
        findings,
        ini,
        files,
        options,
        plan: &mut made.plan,
        names: Names::default(),
        template_names: Names::default(),
        links: Links::default(),
        points: 0,
        maps: HashMap::new(),
    };
    let listed = field.devices(&main);
    made.has_secret = outputs::plan(findings, ini, &main, &shared, &mut made.plan);
    others(findings, ini, &listed);
    shared.unknown_keys_except(findings, outputs::is_foreign);
    main.unknown_keys_except(findings, outputs::is_foreign);
    made
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
    /// Points of all devices so far.
    points: usize,
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
            if at >= MAX_SECTIONS {
                let expected = format!("at most {MAX_SECTIONS} devices");
                self.findings.error(place, expected, items.len().to_string(), "");
                break;
            }
            if listed.contains(&item.text) {
                self.findings.error(place, "every device once", show(&item.text), "");
                continue;
            }
            listed.push(item.text.clone());
            let Some(section) = self.ini.section(&item.text) else {
                let known = self.ini.sections.iter().map(|section| section.name.as_str());
                let help =
                    if self.findings.is_full() { String::new() } else { did_you_mean(&item.text, known) };
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
        if !self.has_room(&reader, template, units.len()) {
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

    /// A list of unit ids times a map is soon more than any gateway holds.
    fn has_room(&mut self, reader: &Reader<'_>, template: usize, units: usize) -> bool {
        let each = self.plan.templates.get(template).map_or(0, |template| template.points.len());
        self.points = self.points.saturating_add(each.saturating_mul(units));
        if self.points <= MAX_POINTS {
            return true;
        }
        let expected = format!("at most {MAX_POINTS} points of all devices");
        self.findings.error(reader.here(), expected, "more", "fewer units, or shorter maps");
        false
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
}
