//! What a command prints: tables and lines for people, JSON for machines, colours only on a terminal.

use std::io::{self, IsTerminal, Write};

use serde_json::Value as Json;

/// Standard output of one command. A reader that goes away (`| head`) is no error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    /// `--json`.
    pub(super) json: bool,
    /// Standard output is a terminal that wants colours.
    pub(super) colour: bool,
}

/// How a cell is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "usual names")]
pub(super) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
    Faint,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Doubtful => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }

    /// Of a quality text.
    #[must_use]
    pub(super) fn of_quality(quality: &str) -> Self {
        match quality.split('|').next() {
            Some("good") => Self::Good,
            Some("questionable") => Self::Doubtful,
            _ => Self::Bad,
        }
    }

    /// Of a state word of a device, plugin or sink.
    #[must_use]
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "online" | "running" => Self::Good,
            "failed" | "lost" => Self::Bad,
            "degraded" | "resync" | "maintenance" | "disabled" | "paused" => Self::Doubtful,
            _ => Self::Plain,
        }
    }
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell(pub(super) String, pub(super) Tone);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Tone::Plain)
    }
}

impl Out {
    /// For this process.
    #[must_use]
    pub(super) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: wanted && io::stdout().is_terminal() }
    }

    /// One line.
    pub(super) fn line(&self, text: &str) {
        let _ = writeln!(io::stdout().lock(), "{text}");
    }

    /// Text that ends with its own line break.
    pub(super) fn text(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// One JSON document, indented on a terminal.
    pub(super) fn document(&self, document: &Json) {
        let mut out = io::stdout().lock();
        let written = if io::stdout().is_terminal() {
            serde_json::to_writer_pretty(&mut out, document)
        } else {
            serde_json::to_writer(&mut out, document)
        };
        let _ = written.map_err(io::Error::from).and_then(|()| writeln!(out));
    }

    /// An aligned table.
    pub(super) fn table(&self, head: &[&str], rows: &[Vec<Cell>]) {
        self.text(&table(head, rows, self.colour));
    }
}

/// An aligned table as text; columns without any content are left out.
#[must_use]
pub(super) fn table(head: &[&str], rows: &[Vec<Cell>], colour: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count()).max();
        let title = head.get(column).map_or(0, |title| title.chars().count());
        match cells {
            Some(0) | None => 0,
            Some(cells) => cells.max(title),
        }
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let titles: Vec<Cell> = head.iter().map(|title| Cell(title.to_uppercase(), Tone::Faint)).collect();
    let mut out = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        let mut pad = 0;
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.push_str(&" ".repeat(pad));
            let (start, end) =
                if colour && cell.1 != Tone::Plain { (cell.1.code(), "\x1b[0m") } else { ("", "") };
            line.push_str(start);
            line.push_str(&printable(&cell.0));
            line.push_str(end);
            pad = width - cell.0.chars().count() + 2;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Names and texts come from devices too: control characters must not reach the terminal.
#[must_use]
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_empty_columns_vanish() {
        let rows = vec![
            vec!["a".into(), Cell::from(""), Cell("good".into(), Tone::Good)],
            vec!["longer".into(), Cell::from(""), Cell("bad".into(), Tone::Bad)],
        ];
        assert_eq!(
            table(&["name", "none", "quality"], &rows, false),
            "NAME    QUALITY\na       good\nlonger  bad\n"
        );
        let coloured = table(&["name", "none", "quality"], &rows, true);
        assert!(coloured.contains("\x1b[32mgood\x1b[0m"));
    }

    #[test]
    fn escape_sequences_of_devices_are_not_printed() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
