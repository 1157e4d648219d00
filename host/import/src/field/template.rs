//! The template of a section: its map, read once, with its function.

use std::rc::Rc;

use crate::{
    findings::show,
    ini::Item,
    map::{self, Map},
    reader::Reader,
    register::Table,
    text,
};

use super::Field;

/// Most maps that one file names.
const MAX_MAPS: usize = 500;

impl Field<'_> {
    /// The template of a section: its map with its function.
    pub(super) fn template(&mut self, reader: &Reader<'_>, table: Table) -> Option<usize> {
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
