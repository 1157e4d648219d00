//! JSON maps of the second generation: `{"NAME": {"address": "0x2006", "data_type": "f", "gain": "1", "unit"?,
//! "register_type"?}}`.
//!
//! Addresses are offsets. `0x` is hexadecimal; a plain text was promised to be decimal by the old readme and read as
//! hexadecimal by the old gateway, so it is a warning with both readings, and [`MapNumbers`] says which is meant. A JSON
//! number is decimal: the old gateway could not read one at all. Values of 32 bits have the high word first (ABCD).

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    MapNumbers, Options,
    findings::{At, Findings, Span, did_you_mean, show},
    names::{Names, escape},
    plan::{Point, Template},
    register::{self, Address, Kind, LETTERS, ONE, Table, hex_digits},
};

/// Most variables of a map.
pub const MAX_VARIABLES: usize = 10_000;
/// Longest unit, in bytes; the limit of the configuration.
const MAX_UNIT: usize = 32;
/// Keys of a variable.
const KEYS: [&str; 5] = ["address", "data_type", "gain", "unit", "register_type"];

/// A map, read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Map {
    pub(crate) variables: Vec<Variable>,
}

/// One variable.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) span: Span,
    offset: u16,
    kind: Kind,
    factor: String,
    unit: String,
    /// Where the map itself says it.
    pub(crate) table: Option<Table>,
    note: String,
}

/// An object whose keys keep their order and whose values keep their place.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Reader).map(Pairs)
    }
}

/// A file name without folder and `.json`, as the name of a template; never empty.
#[must_use]
pub fn stem(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let name = escape(name.strip_suffix(".json").unwrap_or(name));
    if name.is_empty() { "map".into() } else { name }
}

/// Reads a map that was added to the sources; `None` where it is no map at all.
pub(crate) fn read(findings: &mut Findings, source: usize, text: &str, options: &Options) -> Option<Map> {
    let Pairs(pairs) = match serde_json::from_str(text) {
        Ok(pairs) => pairs,
        Err(error) => {
            let at = offset(text, error.line(), error.column());
            let span = Span { source, start: at, end: at + 1 };
            let found = error.to_string();
            let found = found.split(" at line ").next().unwrap_or_default().to_owned();
            let expected = "a JSON object {\"NAME\": {\"address\": .., \"data_type\": .., \"gain\": ..}}";
            findings.error(At { span: Some(span), ..At::default() }, expected, found, "");
            return None;
        }
    };
    let mut reader = Reader { findings, source, text, options };
    let mut map = Map::default();
    let mut known: HashMap<String, Span> = HashMap::new();
    if pairs.is_empty() {
        reader.findings.error(
            At { span: Some(Span { source, start: 0, end: 1 }), ..At::default() },
            "variables",
            "none",
            "",
        );
    }
    for (name, value) in pairs {
        let span = reader.key_span(value);
        if let Some(first) = known.get(&name) {
            let line = reader.findings.place(Some(*first)).1;
            let found = format!("{} again, first in line {line}", show(&name));
            reader.findings.error(
                At { span: Some(span), section: &name, ..At::default() },
                "every variable once",
                found,
                "",
            );
            continue;
        }
        if known.len() >= MAX_VARIABLES {
            let expected = format!("at most {MAX_VARIABLES} variables");
            reader.findings.error(
                At { span: Some(span), section: &name, ..At::default() },
                expected,
                "more",
                "",
            );
            break;
        }
        known.insert(name.clone(), span);
        map.variables.extend(reader.variable(name, span, value));
    }
    Some(map)
}

/// Byte of a line and column (bytes, from 1).
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

struct Reader<'a> {
    findings: &'a mut Findings,
    source: usize,
    text: &'a str,
    options: &'a Options,
}

/// One value of a variable.
#[derive(Clone, Copy)]
struct Part<'a> {
    variable: &'a str,
    key: &'a str,
    raw: &'a RawValue,
}

impl Reader<'_> {
    /// A raw value is a slice of the text, so its place is the distance of the two.
    fn span(&self, raw: &RawValue) -> Span {
        let start = (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        Span { source: self.source, start, end: start + raw.get().len() }
    }

    /// The key before a value.
    fn key_span(&self, raw: &RawValue) -> Span {
        let value = self.span(raw);
        let before =
            self.text.get(..value.start).unwrap_or_default().trim_end().trim_end_matches(':').trim_end();
        let inner = before.strip_suffix('"').unwrap_or(before);
        let open = inner.match_indices('"').rev().map(|(at, _)| at).find(|at| {
            let slashes =
                inner.get(..*at).unwrap_or_default().bytes().rev().take_while(|byte| *byte == b'\\').count();
            slashes % 2 == 0
        });
        Span { source: self.source, start: open.unwrap_or(0), end: before.len() }
    }

    fn error(&mut self, part: Part<'_>, expected: impl Into<String>, found: String, help: &str) {
        let at = At { span: Some(self.span(part.raw)), section: part.variable, key: part.key, index: None };
        self.findings.error(at, expected, found, help);
    }

    fn variable(&mut self, name: String, span: Span, value: &RawValue) -> Option<Variable> {
        let before = self.findings.errors();
        let Ok(Pairs(pairs)) = serde_json::from_str(value.get()) else {
            let whole = Part { variable: &name, key: "", raw: value };
            self.error(whole, "an object with address, data_type, gain", shown(value), "");
            return None;
        };
        // Slices of a slice of the text: their places hold.
        let mut found: [Option<&RawValue>; KEYS.len()] = [None; KEYS.len()];
        for (key, raw) in &pairs {
            let part = Part { variable: &name, key, raw };
            match KEYS.iter().position(|known| known == key).and_then(|at| found.get_mut(at)) {
                Some(slot) if slot.is_none() => *slot = Some(raw),
                Some(_) => self.error(part, "every key once", format!("{key} again"), ""),
                None => {
                    let help = did_you_mean(key, KEYS);
                    let at = At { span: Some(self.key_span(raw)), section: &name, key, index: None };
                    self.findings.error(at, KEYS.join(", "), show(key), &help);
                }
            }
        }
        let [address, kind, gain, unit, table] = found;
        for (key, value) in [("address", address), ("data_type", kind)] {
            if value.is_none() {
                let at = At { span: Some(span), section: &name, key, index: None };
                self.findings.error(at, format!("the key {key}"), "none", "");
            }
        }
        let part = |key, raw| Part { variable: &name, key, raw };
        let offset = address.and_then(|raw| self.address(part("address", raw)));
        let kind = kind.and_then(|raw| self.kind(part("data_type", raw)));
        let factor = gain.map_or(Some(ONE.into()), |raw| self.factor(part("gain", raw)));
        let unit = unit.map_or(Some(String::new()), |raw| self.unit(part("unit", raw)));
        let table = table.map_or(Some(None), |raw| self.table(part("register_type", raw)).map(Some));
        if let (Some(offset), Some(kind), Some(raw)) = (offset, kind, address)
            && u32::from(offset) + u32::from(kind.width()) > u32::from(u16::MAX) + 1
        {
            self.error(part("address", raw), "a value that ends at offset 65535 or before", shown(raw), "");
        }
        let is_hex = |raw: &&RawValue| hex_digits(raw.get().trim_matches('"')).is_some();
        let note = address.filter(|raw| !is_hex(raw)).map(|raw| format!("address {}", raw.get()));
        let note = note.unwrap_or_default();
        let (offset, kind, factor, unit, table) = (offset?, kind?, factor?, unit?, table?);
        (before == self.findings.errors()).then_some(Variable {
            name,
            span,
            offset,
            kind,
            factor,
            unit,
            table,
            note,
        })
    }

    fn text(&mut self, part: Part<'_>) -> Option<String> {
        let text = serde_json::from_str::<String>(part.raw.get()).ok();
        if text.is_none() {
            self.error(part, "a text", shown(part.raw), "");
        }
        text
    }

    fn address(&mut self, part: Part<'_>) -> Option<u16> {
        const EXPECTED: &str = "an offset from 0 to 65535 such as \"0x2006\"";
        if let Ok(number) = serde_json::from_str::<u16>(part.raw.get()) {
            return Some(number);
        }
        let Ok(text) = serde_json::from_str::<String>(part.raw.get()) else {
            self.error(part, EXPECTED, shown(part.raw), "");
            return None;
        };
        let text = text.trim();
        if let Some(hex) = hex_digits(text) {
            let offset = u16::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'));
            if offset.is_none() {
                self.error(part, EXPECTED, show(text), "");
            }
            return offset;
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let decimal = text.parse::<u16>().ok().filter(|_| digits);
        let hex = u16::from_str_radix(text, 16).ok().filter(|_| digits);
        match (self.options.map_numbers, decimal, hex) {
            (MapNumbers::Hex, _, Some(hex)) => Some(hex),
            (MapNumbers::Decimal, Some(decimal), hex) => {
                // Up to 9 both readings are one.
                if hex != Some(decimal) {
                    let at = At {
                        span: Some(self.span(part.raw)),
                        section: part.variable,
                        key: part.key,
                        index: None,
                    };
                    let other =
                        hex.map_or(String::new(), |hex| format!("; the old gateway read 0x{text} = {hex}"));
                    let found = format!("{text}, read as decimal {decimal} = 0x{decimal:04X}{other}");
                    self.findings.warning(
                        at,
                        "0x before a hexadecimal number",
                        found,
                        "--map-numbers hex reads it as before",
                    );
                }
                Some(decimal)
            }
            (MapNumbers::Decimal, None, Some(_)) => {
                let help = "the old gateway read it as hexadecimal: --map-numbers hex does so too";
                self.error(part, EXPECTED, show(text), help);
                None
            }
            _ => {
                self.error(part, EXPECTED, show(text), "");
                None
            }
        }
    }

    fn kind(&mut self, part: Part<'_>) -> Option<Kind> {
        let text = self.text(part)?;
        let kind = Kind::of_letter(&text);
        if kind.is_none() {
            let help = Kind::read(&text)
                .map_or(String::new(), |_| "f float32, h int16, H uint16, i int32, I uint32".to_owned());
            self.error(part, LETTERS.join(", "), show(&text), &help);
        }
        kind
    }

    fn factor(&mut self, part: Part<'_>) -> Option<String> {
        let text =
            serde_json::from_str::<String>(part.raw.get()).unwrap_or_else(|_| part.raw.get().to_owned());
        let factor = register::factor(&text);
        if factor.is_none() {
            let expected = "a number other than 0 with a point and at most 18 digits";
            self.error(part, expected, shown(part.raw), "");
        }
        factor
    }

    fn unit(&mut self, part: Part<'_>) -> Option<String> {
        if part.raw.get() == "null" {
            return Some(String::new());
        }
        let unit = self.text(part)?;
        if unit.len() > MAX_UNIT {
            self.error(part, format!("a unit of at most {MAX_UNIT} bytes"), show(&unit), "");
            return None;
        }
        Some(unit.trim().to_owned())
    }

    fn table(&mut self, part: Part<'_>) -> Option<Table> {
        let text = self.text(part)?;
        let table = Table::read(&text).filter(|table| !table.is_bits());
        if table.is_none() {
            self.error(part, "holding, input", show(&text), &did_you_mean(&text, ["holding", "input"]));
        }
        table
    }
}

/// A value as it is shown: texts as texts, all else as it stands there.
fn shown(raw: &RawValue) -> String {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => show(&text),
        Err(_) => show(raw.get()).trim_matches('"').to_owned(),
    }
}

/// The points of a map; `table` is where values are that do not say it themselves.
pub(crate) fn template(
    findings: &mut Findings,
    map: &Map,
    file: &str,
    names: &mut Names,
    name: &str,
    table: Table,
) -> Template {
    let mut of_points = Names::default();
    let points = map
        .variables
        .iter()
        .enumerate()
        .map(|(at, variable)| {
            let name = of_points.give(&variable.name, &format!("value_{}", at + 1));
            if name != escape(&variable.name) && !escape(&variable.name).is_empty() {
                let at = At { span: Some(variable.span), section: &variable.name, ..At::default() };
                let help = format!("the point is named {name}");
                findings.warning(at, "a name that no other variable has", show(&variable.name), &help);
            }
            Point {
                name,
                original: variable.name.clone(),
                address: Address { table: variable.table.unwrap_or(table), offset: variable.offset },
                hex: true,
                kind: variable.kind,
                unit: variable.unit.clone(),
                scale: variable.factor.clone(),
                note: variable.note.clone(),
            }
        })
        .collect();
    let function = if table == Table::Input { 4 } else { 3 };
    let origin = vec![format!("{file}, read with function {function}")];
    Template { origin, name: names.give(name, "map"), key: (file.to_owned(), table), points }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, options: Options) -> (Vec<String>, Vec<String>) {
        let mut findings = Findings::default();
        let source = findings.sources.add("m.json".into(), "m.json".into(), text);
        let map = read(&mut findings, source, text, &options).unwrap_or_default();
        let template = template(&mut findings, &map, "m.json", &mut Names::default(), "m", Table::Holding);
        let points = template.points.iter().map(|point| {
            format!("{} {} {} x {} {}", point.name, point.address, point.kind.word(), point.scale, point.unit)
        });
        let points = points.collect();
        (points, findings.finish().0.iter().map(|finding| finding.problem.to_string()).collect())
    }

    #[test]
    fn variables() {
        let text = r#"{
  "VOLTAGE_A": {"address": "0x2006", "data_type": "f", "gain": "1"},
  "Potencia (W)": {"address": 10, "data_type": "i", "gain": 0.1, "unit": "W", "register_type": "input"},
  "Status": {"address": "0x00", "data_type": "H"}
}"#;
        let (points, findings) = run(text, Options::default());
        assert_eq!(findings, [""; 0]);
        assert_eq!(
            points,
            [
                "VOLTAGE_A holding:8198 float32 x 1.0 ",
                "Potencia_W input:10 int32 x 0.1 W",
                "Status holding:0 uint16 x 1.0 ",
            ]
        );
    }

    #[test]
    fn numbers_without_0x_have_two_readings() {
        let text =
            r#"{"a": {"address": "8198", "data_type": "f"}, "b": {"address": "20A6", "data_type": "f"}}"#;
        let (points, findings) = run(text, Options::default());
        assert_eq!(points, ["a holding:8198 float32 x 1.0 "]);
        assert_eq!(
            findings,
            [
                "m.json:1:19: warning: [a] address: expected 0x before a hexadecimal number, found 8198, read as decimal 8198 = \
                 0x2006; the old gateway read 0x8198 = 33176 (--map-numbers hex reads it as before)",
                "m.json:1:63: error: [b] address: expected an offset from 0 to 65535 such as \"0x2006\", found \"20A6\" (the old \
                 gateway read it as hexadecimal: --map-numbers hex does so too)",
            ]
        );
        let (points, findings) = run(text, Options { map_numbers: MapNumbers::Hex, ..Options::default() });
        assert_eq!(points, ["a holding:33176 float32 x 1.0 ", "b holding:8358 float32 x 1.0 "]);
        assert_eq!(findings, [""; 0]);
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        let text = "{\n \"a\": {\"address\": \"0x10000\", \"data_type\": \"F\", \"gain\": \"0,1\"},\n \"b\": 5,\n \"c\": \
                    {\"adress\": \"0x1\", \"data_type\": \"f\"},\n \"d\": {\"address\": \"0xFFFF\", \"data_type\": \"f\"},\n \
                    \"d\": {}, \"e\": {\"address\": -1, \"data_type\": 7, \"unit\": [], \"register_type\": \"coil\"}}";
        let (points, findings) = run(text, Options::default());
        assert_eq!(points, [""; 0]);
        let starts = [
            "m.json:2:19: error: [a] address: expected an offset",
            "m.json:2:43: error: [a] data_type: expected f, h, H, i, I, found \"F\"",
            "m.json:2:56: error: [a] gain: expected a number other than 0",
            "m.json:3:7: error: [b]: expected an object",
            "m.json:4:2: error: [c] address: expected the key address, found none",
            "m.json:4:8: error: [c] adress: expected address, data_type, gain, unit, register_type, found \"adress\" (did you \
             mean address?)",
            "m.json:5:19: error: [d] address: expected a value that ends",
            "m.json:6:2: error: [d]: expected every variable once, found \"d\" again, first in line 5",
            "m.json:6:28: error: [e] address",
            "m.json:6:45: error: [e] data_type: expected a text, found 7",
            "m.json:6:56: error: [e] unit: expected a text",
            "m.json:6:77: error: [e] register_type: expected holding, input, found \"coil\"",
        ];
        assert_eq!(findings.len(), starts.len(), "{findings:#?}");
        for (finding, start) in findings.iter().zip(starts) {
            assert!(finding.starts_with(start), "{start}\n{findings:#?}");
        }
    }

    #[test]
    fn no_json_is_named_with_its_place() {
        for (text, start) in [
            ("{\n \"a\": {},\n}", "m.json:3:1: error: expected a JSON object {\"NAME\""),
            ("[]", "m.json:1:1: error"),
            ("", "m.json:1:1: error"),
            ("{}", "m.json:1:1: error: expected variables, found none"),
            ("{\"é\": ", "m.json:1:6: error"),
        ] {
            let (_, findings) = run(text, Options::default());
            assert!(findings[0].starts_with(start), "{text}: {findings:?}");
        }
    }
}
