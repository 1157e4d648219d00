//! One value of a device: its register, and what the parallel lists say about it at the same place.

use crate::{
    Options,
    findings::{Findings, did_you_mean, show},
    ini::Item,
    names::{Names, escape},
    plan::Point,
    reader::Reader,
    register::{self, Address, KINDS, Kind, ONE, TABLES, Table},
};

/// Longest unit, in bytes; the limit of the configuration.
const MAX_UNIT: usize = 32;

/// One register with what the other lists say about it.
pub(super) struct OneValue<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) index: usize,
    pub(super) register: &'a Item,
    pub(super) table: Option<&'a Item>,
    pub(super) kind: Option<&'a Item>,
    pub(super) label: Option<&'a Item>,
    pub(super) unit: Option<&'a Item>,
    pub(super) factor: Option<&'a Item>,
}

impl OneValue<'_> {
    pub(super) fn point(
        &self,
        findings: &mut Findings,
        options: &Options,
        names: &mut Names,
    ) -> Option<Point> {
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
