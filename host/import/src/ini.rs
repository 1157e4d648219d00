//! INI files as Python's `configparser` reads them, which is what both old gateways used; every value knows its place.
//!
//! `[section]`, `key = value` or `key: value`, keys without regard to case, `#` and `;` at the start of a line for
//! comments, values continued on lines that are indented deeper than their key, `[DEFAULT]` for all sections, `%%` for
//! a percent sign. Repeated sections and keys are errors there and here.
//!
//! Two things are stricter. A comment behind a value was part of the value for `configparser`; here it is taken away
//! with a warning, because nobody meant it to be there - but not from a password, which may hold any sign. `%(name)s` is
//! refused: values put together from others lose their place.
//!
//! Values of keys with a telling name are never shown, whether the key is known or not.
//!
//! Bounds: [`MAX_SECTIONS`], [`MAX_KEYS`] and those of `text`.

use busbar_config::is_telling;

use crate::findings::{At, Findings, Span, show};

/// Most sections of a file: one per device.
pub const MAX_SECTIONS: usize = 2_000;
/// Most keys of one section.
pub const MAX_KEYS: usize = 500;
/// The section whose keys hold for all others.
pub(crate) const DEFAULT: &str = "DEFAULT";

/// A parsed file.
#[derive(Debug, Default)]
pub(crate) struct Ini {
    pub(crate) sections: Vec<Section>,
}

/// `[name]`.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) entries: Vec<Entry>,
}

/// `key = value`.
#[derive(Debug)]
pub(crate) struct Entry {
    /// In lower case.
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Value,
}

/// A value of one or more lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Value {
    /// The lines without indentation, joined by line breaks.
    pub(crate) text: String,
    source: usize,
    /// Where in `text` a line starts, and where that is in the file.
    lines: Vec<(usize, usize)>,
}

/// A part of a value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Ini {
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Value of a key in a section or, where it is not there, in `[DEFAULT]`.
    pub(crate) fn get<'i>(&'i self, section: &'i Section, key: &str) -> Option<&'i Entry> {
        section.get(key).or_else(|| self.section(DEFAULT)?.get(key))
    }
}

impl Section {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Value {
    fn push(&mut self, text: &str, offset: usize) {
        if !self.lines.is_empty() {
            self.text.push('\n');
        }
        self.lines.push((self.text.len(), offset));
        self.text.push_str(text);
    }

    /// Place of bytes of `text`; ends with its first line.
    fn span(&self, start: usize, end: usize) -> Span {
        // Lines are in order, and there may be as many of them as values.
        let behind = self.lines.partition_point(|(from, _)| *from <= start);
        let line = behind.checked_sub(1).and_then(|at| self.lines.get(at)).copied().unwrap_or((0, 0));
        let next = self.lines.get(behind).map(|(from, _)| *from);
        let end = next.map_or(end, |next| end.min(next - 1)).max(start);
        let place = |at: usize| line.1 + (at - line.0);
        Span { source: self.source, start: place(start), end: place(end) }
    }

    /// The whole, without surrounding blanks.
    pub(crate) fn whole(&self) -> Item {
        self.part(0, self.text.len())
    }

    /// The elements of a comma list, empty ones too. A comma at the very end does not make another element. An empty
    /// value has no element.
    pub(crate) fn items(&self) -> Vec<Item> {
        if self.text.trim().is_empty() {
            return Vec::new();
        }
        let mut start = 0;
        let mut items = Vec::new();
        let commas = self.text.match_indices(',').map(|(at, _)| at);
        for end in commas.chain([self.text.len()]) {
            items.push(self.part(start, end));
            start = end + 1;
        }
        items
    }

    fn part(&self, start: usize, end: usize) -> Item {
        let raw = self.text.get(start..end).unwrap_or_default();
        let text = raw.trim();
        let start = start + (raw.len() - raw.trim_start().len()).min(raw.len());
        let text = text.replace("%%", "%").replace('\n', " ");
        Item { span: self.span(start.min(end), start + raw.trim().len()), text }
    }
}

/// Parses a file that was added to the sources; goes on behind every mistake.
pub(crate) fn parse(findings: &mut Findings, source: usize, text: &str) -> Ini {
    let mut parser = Parser {
        findings,
        source,
        ini: Ini::default(),
        indent: 0,
        open: false,
        secret: false,
        skipping: false,
    };
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        parser.line(line.trim_end_matches(['\n', '\r']), offset);
        offset += line.len();
    }
    parser.ini
}

/// The value of this key is secret by the key's name, also where the name is no known one (`mqtt_pass`).
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    is_telling(&key) || key.contains("pass") || key.contains("pwd") || key.ends_with("key")
}

struct Parser<'f> {
    findings: &'f mut Findings,
    source: usize,
    ini: Ini,
    /// Indentation of the key whose value may go on.
    indent: usize,
    /// A value may go on.
    open: bool,
    /// That value is never shown.
    secret: bool,
    /// What follows belongs to a section that was refused.
    skipping: bool,
}

impl Parser<'_> {
    fn line(&mut self, line: &str, offset: usize) {
        let text = line.trim();
        let indent = line.len() - line.trim_start().len();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return;
        }
        let at = Span { source: self.source, start: offset + indent, end: offset + indent + text.len() };
        if self.open && indent > self.indent {
            if self.secret {
                self.hidden(at);
            }
            let text = self.without_comment(text, at);
            let value = self.ini.sections.last_mut().and_then(|section| section.entries.last_mut());
            if let (Some(entry), false) = (value, self.skipping) {
                entry.value.push(text, at.start);
            }
            return;
        }
        self.indent = indent;
        if text.starts_with('[') {
            self.header(text, at);
        } else {
            self.entry(text, at);
        }
    }

    fn header(&mut self, text: &str, at: Span) {
        self.open = false;
        self.skipping = true;
        let name = text.strip_prefix('[').and_then(|rest| Some(rest.split_once(']')?.0.trim()));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            self.error(at, "", "", "[SECTION]", show(text), "");
            return;
        };
        if let Some(first) = self.ini.section(name) {
            let found = format!("[{name}] again, first in line {}", self.findings.place(Some(first.span)).1);
            self.error(at, name, "", "every section once", found, "put the keys into one section");
            return;
        }
        if self.ini.sections.len() >= MAX_SECTIONS {
            let expected = format!("at most {MAX_SECTIONS} sections");
            self.error(at, name, "", &expected, "more".into(), "");
            return;
        }
        self.skipping = false;
        self.ini.sections.push(Section { name: name.to_owned(), span: at, entries: Vec::new() });
    }

    fn entry(&mut self, text: &str, at: Span) {
        self.open = false;
        let section = self.ini.sections.last().map(|section| section.name.clone()).unwrap_or_default();
        let Some(equals) = text.find(['=', ':']) else {
            let found = if is_secret(text) { self.hidden(at) } else { show(text) };
            self.error(at, &section, "", "key = value", found, "");
            return;
        };
        let (key, rest) = text.split_at(equals);
        let key = key.trim_end();
        let key_span = Span { end: at.start + key.len(), ..at };
        let rest = rest.get(1..).unwrap_or_default();
        let value_start = at.start + equals + 1 + (rest.len() - rest.trim_start().len());
        let key = key.to_ascii_lowercase();
        self.secret = is_secret(&key);
        if self.secret {
            self.hidden(Span { start: value_start, ..at });
        }
        if self.ini.sections.is_empty() && !self.skipping {
            self.error(at, "", &key, "a [SECTION] before the first key", show(&key), "");
            return;
        }
        self.open = true;
        if self.skipping {
            return;
        }
        let rest = rest.trim();
        let rest =
            self.without_comment(rest, Span { start: value_start, end: value_start + rest.len(), ..at });
        if let Some(percent) = rest.find("%(") {
            let span = Span { start: value_start + percent, end: value_start + rest.len(), ..at };
            let help = "write the value itself";
            self.error(
                span,
                &section,
                &key,
                "a value without %(..)s",
                "a reference to another key".into(),
                help,
            );
        }
        let mut value = Value { source: self.source, ..Value::default() };
        value.push(rest, value_start);
        let Some(open) = self.ini.sections.last_mut() else { return };
        let first = open.get(&key).map(|entry| entry.key_span);
        let full = open.entries.len() >= MAX_KEYS;
        if first.is_none() && !full {
            open.entries.push(Entry { key, key_span, value });
            return;
        }
        self.open = false;
        match first {
            Some(first) => {
                let found = format!("{key} again, first in line {}", self.findings.place(Some(first)).1);
                self.error(key_span, &section, &key, "every key once", found, "remove one of the two");
            }
            None => {
                let expected = format!("at most {MAX_KEYS} keys in a section");
                self.error(key_span, &section, &key, &expected, "more".into(), "");
            }
        }
    }

    /// Never shows these bytes; gives the words that stand for them.
    fn hidden(&mut self, at: Span) -> String {
        self.findings.sources.hide_bytes(at.source, at.start, at.end);
        "a text that is not shown".into()
    }

    /// Takes a comment behind a value away.
    fn without_comment<'t>(&mut self, text: &'t str, at: Span) -> &'t str {
        if self.secret {
            return text;
        }
        let comment = text
            .char_indices()
            .zip(text.char_indices().skip(1))
            .find(|((_, before), (_, symbol))| before.is_whitespace() && matches!(symbol, '#' | ';'));
        let Some((_, (start, _))) = comment else { return text };
        let section = self.ini.sections.last().map(|section| section.name.clone()).unwrap_or_default();
        let span = Span { start: at.start + start, ..at };
        let at = At { span: Some(span), section: &section, ..At::default() };
        let found = show(text.get(start..).unwrap_or_default());
        self.findings.warning(
            at,
            "a comment in a line of its own",
            found,
            "read as a comment; the old gateway took it for a part of the value",
        );
        text.get(..start).unwrap_or_default().trim_end()
    }

    fn error(&mut self, span: Span, section: &str, key: &str, expected: &str, found: String, help: &str) {
        let at = At { span: Some(span), section, key, index: None };
        self.findings.error(at, expected, found, help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Ini, Findings) {
        let mut findings = Findings::default();
        let source = findings.sources.add("c.ini".into(), "c.ini".into(), text);
        let ini = parse(&mut findings, source, text);
        (ini, findings)
    }

    fn texts(findings: Findings) -> Vec<String> {
        findings.finish().0.iter().map(|finding| finding.problem.to_string()).collect()
    }

    #[test]
    fn values_know_their_place() {
        let text = "; c\n[DEFAULT]\r\nA: 1\n[ D 1 ]\nlist = x,\n  # c\n  yy ,,\n\n  z%%\nport=5\n";
        let (ini, findings) = read(text);
        assert_eq!(findings.errors(), 0);
        let section = &ini.sections[1];
        assert_eq!(section.name, "D 1");
        assert_eq!(ini.get(section, "a").unwrap().value.whole().text, "1");
        let items = section.get("list").unwrap().value.items();
        let shown: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        assert_eq!(shown, ["x", "yy", "", "z%"]);
        let place = |item: &Item| {
            let (_, line, column, _) = findings.place(Some(item.span));
            (line, column)
        };
        assert_eq!((place(&items[0]), place(&items[1]), place(&items[3])), ((5, 8), (7, 3), (9, 3)));
        assert_eq!(section.get("port").unwrap().value.whole().text, "5");
    }

    #[test]
    fn passwords_are_whole_and_never_shown() {
        let text = "[a]\nmqtt_password = hun #ter2, \n  hunter3 ; x\nmqtt_pass: hunter4\nmqtt_pass: hunter5\ntoken hunter6\n\
                    api_key = %(hunter7)s\n";
        let (ini, findings) = read(text);
        let value = &ini.sections[0].get("mqtt_password").unwrap().value;
        assert_eq!(value.whole().text, "hun #ter2, hunter3 ; x");
        let (list, sources) = findings.finish();
        let shown = crate::findings::human(&list, &sources, false);
        assert!(
            list.len() == 3 && !shown.contains("hun") && !format!("{list:?}").contains("hunter"),
            "{shown}"
        );
    }

    /// As many lines as values: their places must not cost the square of it.
    #[test]
    fn a_list_of_many_lines() {
        let (ini, findings) = read(&format!("[a]\nlist = 0\n{}", "  ,1\n".repeat(200_000)));
        let items = ini.sections[0].get("list").unwrap().value.items();
        assert_eq!(items.len(), 200_001);
        assert_eq!(findings.place(Some(items[200_000].span)).1, 200_002);
    }

    #[test]
    fn mistakes_do_not_hide_what_follows() {
        let (ini, findings) =
            read("x = 1\n[a]\nb\nc = 1\nC = 2\n[a]\nd = 1\n[\n[e]\nf = %(c)s\ng = 1 ; note\n");
        assert_eq!(ini.sections.len(), 2);
        assert_eq!(ini.section("e").unwrap().get("g").unwrap().value.whole().text, "1");
        assert_eq!(
            texts(findings),
            [
                "c.ini:1:1: error: x: expected a [SECTION] before the first key, found \"x\"",
                "c.ini:3:1: error: [a]: expected key = value, found \"b\"",
                "c.ini:5:1: error: [a] c: expected every key once, found c again, first in line 4 (remove one of the two)",
                "c.ini:6:1: error: [a]: expected every section once, found [a] again, first in line 2 (put the keys into one \
                 section)",
                "c.ini:8:1: error: expected [SECTION], found \"[\"",
                "c.ini:10:5: error: [e] f: expected a value without %(..)s, found a reference to another key (write the value \
                 itself)",
                "c.ini:11:7: warning: [e]: expected a comment in a line of its own, found \"; note\" (read as a comment; the old \
                 gateway took it for a part of the value)",
            ]
        );
    }
}
