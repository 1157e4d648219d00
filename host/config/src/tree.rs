//! The configuration as a tree in which every key and every value knows its place.
//!
//! Numbers keep their text: `scale = 0.1` must become the decimal 0.1 and not the double next to it. Cells of CSV
//! files are nodes too ([`Data::Cell`]); what a cell means is decided by whoever reads it. Texts and keys are shared
//! (`Rc`), because templates are copied into hundreds of devices.

use std::rc::Rc;

use busbar_core::decimal::Decimal;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{redact, source::Pos};

/// Most keys of one table; looking one up is linear.
const MAX_KEYS: usize = 10_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    pub(crate) data: Data,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Text(Rc<str>),
    /// A cell of a CSV file: text whose type is open.
    Cell(Rc<str>),
    Integer(i128),
    /// Its text in the file, without underscores.
    Float(Rc<str>),
    Bool(bool),
    /// A TOML date or time; no key takes one.
    Time,
    Array(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

/// One `key = value`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) key_pos: Pos,
    pub(crate) value: Node,
}

impl Table {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn table(&self, key: &str) -> Option<&Table> {
        self.get(key).and_then(Node::as_table)
    }

    /// Sets or replaces.
    pub(crate) fn set(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| &*entry.key == key)?;
        Some(self.entries.remove(at))
    }

    /// Lays `over` on top: its keys win; the tables named in `deep` are merged key by key.
    pub(crate) fn overlay(&mut self, over: &Table, deep: &[&str]) {
        for entry in &over.entries {
            let below = self.entries.iter_mut().find(|old| old.key == entry.key);
            match (below, entry.value.as_table()) {
                (Some(old), Some(new)) if deep.contains(&&*entry.key) => {
                    if let Data::Table(table) = &mut old.value.data {
                        table.overlay(new, &[]);
                        old.key_pos = entry.key_pos;
                        old.value.pos = entry.value.pos;
                    } else {
                        *old = entry.clone();
                    }
                }
                (Some(old), _) => *old = entry.clone(),
                (None, _) => self.entries.push(entry.clone()),
            }
        }
    }
}

impl Node {
    pub(crate) fn new(pos: Pos, data: Data) -> Self {
        Self { pos, data }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node]> {
        match &self.data {
            Data::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text as written; references (`${env:..}`) are not followed.
    pub(crate) fn raw_text(&self) -> Option<&Rc<str>> {
        match &self.data {
            Data::Text(text) | Data::Cell(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match &self.data {
            Data::Bool(value) => Some(*value),
            Data::Cell(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Some(true),
                "false" | "no" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i128> {
        match &self.data {
            Data::Integer(value) => Some(*value),
            Data::Cell(text) => parse_integer(text),
            _ => None,
        }
    }

    /// The exact decimal.
    pub(crate) fn as_decimal(&self) -> Option<Decimal> {
        match &self.data {
            Data::Integer(value) => value.to_string().parse().ok(),
            Data::Float(text) | Data::Cell(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A finite number.
    pub(crate) fn as_number(&self) -> Option<f64> {
        let number = match &self.data {
            Data::Integer(value) => *value as f64,
            Data::Float(text) | Data::Cell(text) => text.parse().ok()?,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    /// What it is, for `found`: the value where it is short, else its type. Callers keep secrets away from here.
    pub(crate) fn describe(&self) -> String {
        const SHOWN: usize = 60;
        match &self.data {
            Data::Text(text) | Data::Cell(text) => {
                // Masked before it is cut: half a URL does not show what its password is.
                let text = redact::urls(text);
                if text.chars().count() <= SHOWN {
                    format!("{text:?}")
                } else {
                    format!("{:?}...", text.chars().take(SHOWN).collect::<String>())
                }
            }
            Data::Integer(value) => value.to_string(),
            Data::Float(text) => text.to_string(),
            Data::Bool(value) => value.to_string(),
            Data::Time => "a date or time".to_owned(),
            Data::Array(items) => format!("a list of {}", items.len()),
            Data::Table(_) => "a table".to_owned(),
        }
    }
}

/// Decimal or `0x`, `0o`, `0b`, with `_` between digits.
pub(crate) fn parse_integer(text: &str) -> Option<i128> {
    let clean = text.trim().replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = clean.strip_prefix(prefix) {
            return i128::from_str_radix(digits, radix).ok();
        }
    }
    clean.parse().ok()
}

/// A syntax error: place and text.
pub(crate) type Syntax = (Pos, String);

/// Parses a TOML document as far as it goes; all syntax errors at once.
pub(crate) fn parse(source: usize, text: &str) -> (Node, Vec<Syntax>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<Syntax> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            (Pos::new(source, span.start, span.end), error.message().to_owned())
        })
        .collect();
    let span = document.span();
    let table = convert_table(source, document.get_ref(), &mut errors);
    (Node::new(Pos::new(source, span.start, span.end), Data::Table(table)), errors)
}

/// The value in a CSV cell that is written like a TOML list, table or text.
pub(crate) fn parse_value(pos: Pos, text: &str) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let mut node = convert(0, &value, &mut Vec::new());
    place_all(&mut node, pos);
    Some(node)
}

fn place_all(node: &mut Node, pos: Pos) {
    node.pos = pos;
    match &mut node.data {
        Data::Array(items) => items.iter_mut().for_each(|item| place_all(item, pos)),
        Data::Table(table) => table.entries.iter_mut().for_each(|entry| {
            entry.key_pos = pos;
            place_all(&mut entry.value, pos);
        }),
        _ => {}
    }
}

// The parser refuses nesting deeper than 80, so recursion is bounded.
fn convert_table(source: usize, table: &DeTable<'_>, errors: &mut Vec<Syntax>) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| {
            let span = key.span();
            Entry {
                key: Rc::from(key.get_ref().as_ref()),
                key_pos: Pos::new(source, span.start, span.end),
                value: convert(source, value, errors),
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_pos.start);
    if let Some(first) = entries.get(MAX_KEYS) {
        errors.push((first.key_pos, format!("more than {MAX_KEYS} keys in one table")));
        entries.truncate(MAX_KEYS);
    }
    Table { entries }
}

fn convert(source: usize, value: &Spanned<DeValue<'_>>, errors: &mut Vec<Syntax>) -> Node {
    let span = value.span();
    let data = match value.get_ref() {
        DeValue::String(text) => Data::Text(Rc::from(text.as_ref())),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Data::Float(Rc::from(integer.as_str())), Data::Integer),
        DeValue::Float(float) => Data::Float(Rc::from(float.as_str())),
        DeValue::Boolean(value) => Data::Bool(*value),
        DeValue::Datetime(_) => Data::Time,
        DeValue::Array(items) => {
            Data::Array(items.iter().map(|item| convert(source, item, errors)).collect())
        }
        DeValue::Table(table) => Data::Table(convert_table(source, table, errors)),
    };
    Node::new(Pos::new(source, span.start, span.end), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_keys_and_values() {
        let text = "a = 0x10\n[b]\nc.d = 0.100\n[[e]]\nf = [1, 'x']\n";
        let (root, errors) = parse(3, text);
        assert!(errors.is_empty());
        let root = root.as_table().unwrap();
        assert_eq!(root.get("a").unwrap().as_integer(), Some(16));
        let d = root.table("b").unwrap().table("c").unwrap().entry("d").unwrap();
        assert_eq!(&text[d.key_pos.start as usize..d.key_pos.end as usize], "d");
        assert_eq!(&text[d.value.pos.start as usize..d.value.pos.end as usize], "0.100");
        assert_eq!(d.value.as_decimal(), "0.1".parse().ok());
        assert_eq!(d.value.pos.source, 3);
        let e = root.get("e").unwrap().as_array().unwrap();
        assert_eq!(e[0].as_table().unwrap().get("f").unwrap().as_array().unwrap().len(), 2);
    }

    #[test]
    fn several_syntax_errors_are_found_and_the_rest_is_kept() {
        let (root, errors) = parse(0, "a = \nb = 1\nc = = 2\nd = 3\n");
        assert!(errors.len() >= 2, "{errors:?}");
        assert_eq!(root.as_table().unwrap().get("d").unwrap().as_integer(), Some(3));
    }

    #[test]
    fn overlay_merges_named_tables_only() {
        let table = |text| parse(0, text).0.as_table().unwrap().clone();
        let mut low = table("x = 1\nconnection = { host = 'a', port = 1 }\nr = { a = 1 }");
        low.overlay(&table("connection = { port = 2 }\nr = { b = 1 }\ny = 2"), &["connection"]);
        assert_eq!(low.table("connection").unwrap().get("port").unwrap().as_integer(), Some(2));
        assert_eq!(low.table("connection").unwrap().get("host").unwrap().raw_text().map(|t| &**t), Some("a"));
        assert!(low.table("r").unwrap().get("a").is_none());
    }
}
