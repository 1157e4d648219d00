//! CSV files of points and of sink maps, with the place of every cell.
//!
//! RFC 4180 with what spreadsheets really write: a byte order mark, CRLF, `;` instead of `,` (decided by the header
//! line). The first line names the keys; `a.b` makes a table `a` with the key `b`. An empty cell is an absent key.
//! Blank lines and lines that start with `#` are skipped. What a cell means is decided by its key.

use std::rc::Rc;

use crate::{
    context::Context,
    problem::Path,
    redact,
    source::Pos,
    tree::{Data, Entry, Node, Table},
};

/// Most columns of a file.
const MAX_COLUMNS: usize = 200;

/// One cell: its text and its bytes in the file, quotes included.
struct Cell {
    text: String,
    start: usize,
    end: usize,
}

/// All rows as tables.
pub(crate) fn read(cx: &Context<'_>, source: usize, text: &str) -> Vec<Node> {
    let mut rows = rows(cx, source, text).into_iter();
    let Some(header) = rows.next() else { return Vec::new() };
    let header = check_header(cx, source, header);
    rows.map(|row| table(cx, source, &header, row)).collect()
}

fn check_header(cx: &Context<'_>, source: usize, header: Vec<Cell>) -> Vec<(Rc<str>, Pos)> {
    let mut names: Vec<(Rc<str>, Pos)> = Vec::with_capacity(header.len());
    for cell in header {
        let pos = Pos::new(source, cell.start, cell.end);
        let name = cell.text.trim();
        if names.iter().any(|(known, _)| &**known == name) && !name.is_empty() {
            cx.problems.error(
                Some(pos),
                Path::Root,
                "a column name that comes once",
                format!("{name:?} again"),
            );
        }
        if names.len() == MAX_COLUMNS {
            cx.problems.error(Some(pos), Path::Root, format!("at most {MAX_COLUMNS} columns"), "more");
            break;
        }
        names.push((Rc::from(name), pos));
    }
    names
}

fn table(cx: &Context<'_>, source: usize, header: &[(Rc<str>, Pos)], row: Vec<Cell>) -> Node {
    let start = row.first().map_or(0, |cell| cell.start);
    let end = row.last().map_or(start, |cell| cell.end);
    let row_pos = Pos::new(source, start, end);
    let mut table = Table::default();
    let mut header = header.iter();
    for cell in row {
        let pos = Pos::new(source, cell.start, cell.end);
        let Some((name, _)) = header.next() else {
            if !cell.text.trim().is_empty() {
                cx.problems
                    .error(Some(pos), Path::Root, "no more cells than columns", format!("{:?}", cell.text))
                    .help("put text with separators in double quotes");
            }
            break;
        };
        let text = cell.text.trim();
        if text.is_empty() || name.is_empty() {
            continue;
        }
        if redact::telling(name) {
            cx.sources.borrow_mut().hide(pos);
        }
        insert(&mut table, name, pos, Node::new(pos, Data::Cell(Rc::from(text))));
    }
    Node::new(row_pos, Data::Table(table))
}

/// Puts a cell under its dotted name; one level of tables is enough for every key there is.
fn insert(table: &mut Table, name: &Rc<str>, pos: Pos, value: Node) {
    let Some((outer, inner)) = name.split_once('.') else {
        table.set(Entry { key: name.clone(), key_pos: pos, value });
        return;
    };
    if table.table(outer).is_none() {
        let empty = Node::new(pos, Data::Table(Table::default()));
        table.set(Entry { key: Rc::from(outer), key_pos: pos, value: empty });
    }
    let found = table.entries.iter_mut().find(|entry| &*entry.key == outer);
    if let Some(Entry { value: Node { data: Data::Table(nested), .. }, .. }) = found {
        nested.set(Entry { key: Rc::from(inner), key_pos: pos, value });
    }
}

/// Splits the text into rows of cells.
fn rows(cx: &Context<'_>, source: usize, text: &str) -> Vec<Vec<Cell>> {
    let separator = separator(text);
    let mut rows = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            at += line.len() + 1;
            continue;
        }
        let (row, next) = row(cx, source, text, at, separator);
        rows.push(row);
        at = next;
    }
    rows
}

/// `;` where the first line has more of them than `,`.
fn separator(text: &str) -> char {
    let header =
        text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let count = |symbol| header.matches(symbol).count();
    if count(';') > count(',') { ';' } else { ',' }
}

/// One row from `at`; returns it and the start of the next one.
fn row(cx: &Context<'_>, source: usize, text: &str, mut at: usize, separator: char) -> (Vec<Cell>, usize) {
    let mut cells = Vec::new();
    loop {
        let (cell, next) = cell(cx, source, text, at, separator);
        cells.push(cell);
        let mut rest = text.get(next..).unwrap_or_default().chars();
        match rest.next() {
            Some(symbol) if symbol == separator => at = next + symbol.len_utf8(),
            Some('\r') if rest.next() == Some('\n') => return (cells, next + 2),
            Some(_) => return (cells, next + 1),
            None => return (cells, text.len()),
        }
    }
}

/// One cell from `at`; returns it and the place of what ended it.
fn cell(cx: &Context<'_>, source: usize, text: &str, at: usize, separator: char) -> (Cell, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let ends = |symbol: char| symbol == separator || symbol == '\n' || symbol == '\r';
    let Some(inner) = rest.strip_prefix('"') else {
        let length = rest.find(ends).unwrap_or(rest.len());
        let raw = rest.get(..length).unwrap_or_default();
        return (Cell { text: raw.to_owned(), start: at, end: at + length }, at + length);
    };
    let mut value = String::new();
    let mut symbols = inner.char_indices().peekable();
    while let Some((offset, symbol)) = symbols.next() {
        if symbol != '"' {
            value.push(symbol);
            continue;
        }
        if symbols.next_if(|(_, next)| *next == '"').is_some() {
            value.push('"');
            continue;
        }
        let end = at + 1 + offset + 1;
        let tail = text.get(end..).unwrap_or_default();
        let junk = tail.find(ends).unwrap_or(tail.len());
        if tail.get(..junk).is_some_and(|junk| !junk.trim().is_empty()) {
            let pos = Pos::new(source, end, end + junk);
            cx.problems.error(Some(pos), Path::Root, "a separator behind the closing quote", "more text");
        }
        return (Cell { text: value, start: at, end }, end + junk);
    }
    let pos = Pos::new(source, at, at + 1);
    cx.problems.error(Some(pos), Path::Root, "a closing double quote", "the end of the file");
    (Cell { text: value, start: at, end: text.len() }, text.len())
}
