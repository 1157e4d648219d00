//! The files a configuration was read from, and places in them.
//!
//! Every value keeps a [`Pos`]: which file, and which bytes of it. Lines and columns are computed only when a problem
//! is reported, because a site has hundreds of thousands of values and a handful of problems.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::redact;

/// Largest configuration or map file that is read.
pub const MAX_FILE_SIZE: u64 = 64 * 1024 * 1024;
/// Most files of one configuration: the main file, includes and map files.
pub const MAX_FILES: usize = 2_000;

/// Bytes `start..end` of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Pos {
    pub(crate) source: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Pos {
    pub(crate) fn new(source: usize, start: usize, end: usize) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { source: narrow(source), start: narrow(start), end: narrow(end) }
    }
}

/// One file that was read. Its `Debug` does not show the text.
#[derive(Clone)]
pub struct Source {
    /// As shown to people: relative to the main file's own name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    text: String,
    line_starts: Vec<usize>,
    secrets: Vec<(usize, usize)>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Source {
    fn new(name: String, path: PathBuf, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, path, text, line_starts, secrets: Vec::new() }
    }

    /// Its text, without a byte order mark. May contain secrets: never print it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        (line, column)
    }

    /// A line (from 1) with everything that may be a secret replaced by `*`; safe to print.
    #[must_use]
    pub fn printable_line(&self, line: usize) -> Option<String> {
        let start = *self.line_starts.get(line.checked_sub(1)?)?;
        let rest = self.text.get(start..)?;
        let text = rest.split('\n').next()?.trim_end_matches('\r');
        let hidden: Vec<(usize, usize)> = self
            .secrets
            .iter()
            .filter(|(from, to)| *from < start + text.len() && *to > start)
            .filter(|(from, to)| !self.text.get(*from..*to).is_some_and(redact::is_reference))
            .map(|(from, to)| (from.saturating_sub(start), to - start))
            .collect();
        Some(redact::line(text, &hidden))
    }
}

/// All files of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    list: Vec<Source>,
    folders: Vec<PathBuf>,
}

impl Sources {
    /// The files, the main file first.
    #[must_use]
    pub fn files(&self) -> &[Source] {
        &self.list
    }

    /// Folders in which patterns of includes look for files, also those that are empty or not there yet.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    pub(crate) fn look_in(&mut self, folder: &Path) {
        if self.folders.len() < MAX_FILES && !self.folders.iter().any(|known| known == folder) {
            self.folders.push(folder.to_owned());
        }
    }

    /// The file with this display name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Source> {
        self.list.iter().find(|source| source.name == name)
    }

    pub(crate) fn get(&self, pos: Pos) -> Option<&Source> {
        self.list.get(pos.source as usize)
    }

    /// Adds a file, without its byte order mark; gives its index in [`Sources::files`]. Line and column of a byte are
    /// what [`Source::line_column`] says.
    pub fn add(&mut self, name: String, path: PathBuf, text: &str) -> usize {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        self.list.push(Source::new(name, path, text));
        self.list.len() - 1
    }

    pub(crate) fn hide(&mut self, pos: Pos) {
        self.hide_bytes(pos.source as usize, pos.start as usize, pos.end as usize);
    }

    /// Bytes `start..end` of a file of [`Sources::files`] hold a secret: [`Source::printable_line`] never shows them.
    pub fn hide_bytes(&mut self, source: usize, start: usize, end: usize) {
        if let Some(source) = self.list.get_mut(source) {
            source.secrets.push((start, end));
        }
    }

    /// `file:line:column` of a place.
    pub(crate) fn place(&self, pos: Pos) -> (String, usize, usize) {
        self.get(pos).map_or_else(
            || (String::new(), 0, 0),
            |source| {
                let (line, column) = source.line_column(pos.start as usize);
                (source.name.clone(), line, column)
            },
        )
    }
}

/// Reads a file, bounded, as text. The error is (expected, found).
pub(crate) fn read_text(path: &Path) -> Result<String, (String, String)> {
    let readable = || "a readable file".to_owned();
    let file =
        File::open(path).map_err(|error| (readable(), format!("{}: {}", path.display(), plain(&error))))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err((readable(), format!("{} is a directory", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| (readable(), format!("{}: {}", path.display(), plain(&error))))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err((
            format!("a file of at most {} MiB", MAX_FILE_SIZE / 1024 / 1024),
            format!("{} is larger", path.display()),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        ("UTF-8 text".to_owned(), format!("another encoding in line {line} of {}", path.display()))
    })
}

/// An I/O error as an operator would say it.
pub(crate) fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => "no such file".to_owned(),
        Kind::PermissionDenied => "permission denied".to_owned(),
        Kind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let mut sources = Sources::default();
        let at = sources.add("a".into(), "a".into(), "\u{feff}x = 1\r\nö = \"é\"\n");
        let source = &sources.files()[at];
        assert_eq!(source.line_column(0), (1, 1));
        assert_eq!(source.line_column(4), (1, 5));
        let umlaut = source.text().find('é').unwrap();
        assert_eq!(source.line_column(umlaut), (2, 6));
        assert_eq!(source.line_column(9_999), (3, 1));
        assert_eq!(source.printable_line(1).as_deref(), Some("x = 1"));
        assert_eq!(source.printable_line(99), None);
    }

    #[test]
    fn other_encodings_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, b"a = 1\nb = \"\xfc\"\n").unwrap();
        let (expected, found) = read_text(&path).unwrap_err();
        assert_eq!(expected, "UTF-8 text");
        assert!(found.starts_with("another encoding in line 2"), "{found}");
    }
}
