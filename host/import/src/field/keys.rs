//! The keys of one section: how its devices are reached, which units and identities they have, what is switched off.

use crate::{
    findings::show,
    ini::Item,
    link::{self, Link},
    plan::Line,
    reader::Reader,
    register::Table,
};

use super::Field;

impl Field<'_> {
    pub(super) fn link(&mut self, reader: &Reader<'_>) -> Option<Link> {
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

    pub(super) fn table(&mut self, reader: &Reader<'_>) -> Option<Table> {
        if reader.text("modbus_function").is_none() {
            return Some(Table::Holding);
        }
        match reader.word(self.findings, "modbus_function", &["3", "4"])? {
            "4" => Some(Table::Input),
            _ => Some(Table::Holding),
        }
    }

    pub(super) fn units(&mut self, reader: &Reader<'_>, serial: bool) -> Vec<u8> {
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
    pub(super) fn identities(&mut self, reader: &Reader<'_>, units: usize) -> Vec<String> {
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

    pub(super) fn kind(&mut self, reader: &Reader<'_>) -> Option<String> {
        if let Some(item) = reader.text("device_type") {
            return Some(item.text);
        }
        let item = reader.text("devicetype")?;
        let help = "taken as device_type; the old gateway did not know this key and sent \"Unknown\"";
        self.findings.warning(reader.at("devicetype", item.span), "device_type", "devicetype", help);
        Some(item.text)
    }

    /// `modbusconnect` and `modbusread`; reading without connecting was set to neither by the old gateway.
    pub(super) fn switches(&mut self, reader: &Reader<'_>) -> Vec<Line> {
        let connect = reader.switch(self.findings, "modbusconnect").unwrap_or(true);
        let read = reader.switch(self.findings, "modbusread").unwrap_or(true);
        match (connect, read) {
            (true, true) => Vec::new(),
            (true, false) => vec![Line::new("read", "false").note("modbusread = false")],
            (false, _) => vec![Line::new("enabled", "false").note("modbusconnect = false")],
        }
    }
}
