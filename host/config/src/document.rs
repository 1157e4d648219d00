//! The main file and what it includes, as one set of tables.
//!
//! `include` takes file names and patterns (`*`, `?`, `[..]` within one path component), relative to the file that
//! names them. Files of one pattern are read in the order of their names. An included file may include others; a file
//! that is reached twice is read once, a loop is an error. `[host]` belongs into the main file: an included file may
//! only have `[host] include`.

use std::{
    collections::BTreeMap,
    path::{Path as FilePath, PathBuf},
    rc::Rc,
};

use globset::GlobBuilder;

use crate::{
    context::Context,
    form, keys,
    problem::{Path, did_you_mean},
    settle,
    source::{self, MAX_FILES, Pos},
    tree::{self, Entry, Node, Table},
};

/// Deepest nesting of includes.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Everything that was configured, not yet interpreted.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) host: Option<Entry>,
    pub(crate) plugins: Vec<Entry>,
    pub(crate) templates: BTreeMap<Rc<str>, Entry>,
    pub(crate) defaults: BTreeMap<Rc<str>, Entry>,
    pub(crate) devices: Vec<Node>,
    pub(crate) sinks: Vec<Node>,
}

/// Reads the main file (or takes `text` for it) and everything it includes.
pub(crate) fn read(cx: &Context<'_>, path: &FilePath, text: Option<&str>) -> Document {
    let mut reader =
        Reader { cx, document: Document::default(), chain: Vec::new(), done: Vec::new(), broken: false };
    let name = path.display().to_string();
    match text.map_or_else(|| source::read_text(path), |text| Ok(text.to_owned())) {
        Ok(text) => reader.file(path, name, &text, 0),
        Err((expected, found)) => {
            cx.problems.error(None, &name, expected, found).help("--config names another file");
        }
    }
    reader.document
}

struct Reader<'a, 'b> {
    cx: &'a Context<'b>,
    document: Document,
    /// Files that are being read, to find loops.
    chain: Vec<PathBuf>,
    done: Vec<PathBuf>,
    /// The current file has syntax errors, so the shape of what was recovered proves nothing.
    broken: bool,
}

impl Reader<'_, '_> {
    fn file(&mut self, path: &FilePath, name: String, text: &str, depth: usize) {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.chain.push(identity.clone());
        self.done.push(identity);
        let source = self.cx.sources.borrow_mut().add(name, path.to_owned(), text);
        let text =
            self.cx.sources.borrow().files().get(source).map(|s| s.text().to_owned()).unwrap_or_default();
        let (mut root, errors) = tree::parse(source, &text);
        settle::document(self.cx, &mut root);
        self.broken = !errors.is_empty();
        for (pos, message) in errors {
            self.cx.problems.error(Some(pos), Path::Root, "valid TOML", message);
        }
        if let Some(table) = root.as_table() {
            form::check_table(self.cx, &Path::Root, table, keys::ROOT, &|_| false);
            self.merge(table, depth);
            self.includes(path, table, depth);
        }
        self.chain.pop();
    }

    fn merge(&mut self, root: &Table, depth: usize) {
        for entry in &root.entries {
            match &*entry.key {
                "host" => self.host(entry, depth),
                "device" => collect(self.cx, entry, &mut self.document.devices, self.broken),
                "sink" => collect(self.cx, entry, &mut self.document.sinks, self.broken),
                "template" => named(self.cx, entry, &mut self.document.templates),
                "defaults" => named(self.cx, entry, &mut self.document.defaults),
                "plugins" => {
                    let mut found = BTreeMap::new();
                    for known in self.document.plugins.drain(..) {
                        found.insert(known.key.clone(), known);
                    }
                    named(self.cx, entry, &mut found);
                    self.document.plugins = found.into_values().collect();
                }
                _ => {}
            }
        }
    }

    fn host(&mut self, entry: &Entry, depth: usize) {
        let path = Path::Root.key("host");
        let Some(table) = entry.value.as_table() else {
            self.cx.problems.error(
                Some(entry.value.pos),
                path,
                "a table [host]",
                self.cx.found(&entry.value),
            );
            return;
        };
        if depth == 0 {
            self.document.host = Some(entry.clone());
            return;
        }
        for other in table.entries.iter().filter(|other| &*other.key != "include") {
            self.cx
                .problems
                .error(
                    Some(other.key_pos),
                    path.key(&other.key),
                    "only `include` in [host] of an included file",
                    format!("{:?}", &*other.key),
                )
                .help("[host] belongs into the main file");
        }
    }

    fn includes(&mut self, path: &FilePath, root: &Table, depth: usize) {
        let Some(include) = root.table("host").and_then(|host| host.get("include")) else { return };
        let host = Path::Root.key("host");
        let key = host.key("include");
        let folder = path.parent().unwrap_or(FilePath::new(""));
        let patterns = include.as_array().unwrap_or(std::slice::from_ref(include));
        for pattern in patterns {
            // Anything but text is reported by the check of [host].
            let Some(text) = self.cx.text(&key, pattern) else { continue };
            if depth >= MAX_INCLUDE_DEPTH {
                let expected = format!("includes at most {MAX_INCLUDE_DEPTH} deep");
                self.cx.problems.error(Some(pattern.pos), key, expected, "more");
                continue;
            }
            let mut looked = |path: &FilePath| self.cx.sources.borrow_mut().look_in(path);
            match expand(folder, &text, &mut looked) {
                Ok(files) => files.iter().for_each(|file| self.include(file, &key, pattern.pos, depth)),
                Err((expected, found)) => {
                    self.cx.problems.error(Some(pattern.pos), key, expected, found);
                }
            }
        }
    }

    fn include(&mut self, file: &FilePath, key: &Path<'_>, pos: Pos, depth: usize) {
        let identity = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        if self.chain.contains(&identity) {
            self.cx.problems.error(Some(pos), key, "no loop", format!("{} includes itself", file.display()));
            return;
        }
        if self.done.contains(&identity) {
            return;
        }
        if self.cx.sources.borrow().files().len() >= MAX_FILES {
            self.cx.problems.error(Some(pos), key, format!("at most {MAX_FILES} files"), "more");
            return;
        }
        match source::read_text(file) {
            Ok(text) => self.file(file, file.display().to_string(), &text, depth + 1),
            Err((expected, found)) => {
                self.cx.problems.error(Some(pos), key, expected, found);
            }
        }
    }
}

/// `[[name]]` tables.
fn collect(cx: &Context<'_>, entry: &Entry, into: &mut Vec<Node>, broken: bool) {
    let items = entry.value.as_array().unwrap_or(std::slice::from_ref(&entry.value));
    let is_list = entry.value.as_array().is_some();
    for item in items {
        if is_list && item.as_table().is_some() {
            into.push(item.clone());
        } else if !broken {
            cx.problems
                .error(Some(entry.key_pos), &entry.key, format!("tables [[{}]]", entry.key), cx.found(item))
                .help(format!("write [[{}]] with two brackets", entry.key));
        }
    }
}

/// `[outer.NAME]` tables.
fn named(cx: &Context<'_>, entry: &Entry, into: &mut BTreeMap<Rc<str>, Entry>) {
    let path = Path::Root.key(&entry.key);
    let Some(table) = entry.value.as_table() else {
        cx.problems.error(
            Some(entry.value.pos),
            path,
            format!("tables [{}.NAME]", entry.key),
            cx.found(&entry.value),
        );
        return;
    };
    for inner in &table.entries {
        if inner.value.as_table().is_none() {
            cx.problems.error(
                Some(inner.value.pos),
                path.key(&inner.key),
                format!("a table [{}.{}]", entry.key, inner.key),
                cx.found(&inner.value),
            );
        } else if let Some(first) = into.get(&inner.key) {
            cx.problems.error(
                Some(inner.key_pos),
                path.key(&inner.key),
                "a name that comes once",
                format!("{:?}, first at {}", &*inner.key, cx.place(first.key_pos)),
            );
        } else {
            into.insert(inner.key.clone(), inner.clone());
        }
    }
}

/// The files that a name or pattern means, sorted; `looked` hears of every folder whose content decides it.
fn expand(
    folder: &FilePath,
    pattern: &str,
    looked: &mut dyn FnMut(&FilePath),
) -> Result<Vec<PathBuf>, (String, String)> {
    let is_pattern = |text: &str| text.contains(['*', '?', '[']);
    if !is_pattern(pattern) {
        return Ok(vec![folder.join(pattern)]);
    }
    let bad = |found: String| ("a file name or a pattern such as \"conf.d/*.toml\"".to_owned(), found);
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { folder.to_owned() }];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if part == "**" {
            return Err(bad("\"**\"".into()));
        }
        if !is_pattern(part) {
            let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) =
                found.into_iter().map(|path| path.join(part)).partition(|path| path.exists());
            absent.iter().for_each(|path| looked(path));
            found = there;
            continue;
        }
        let glob = GlobBuilder::new(part)
            .literal_separator(true)
            .build()
            .map_err(|error| bad(format!("{pattern:?}: {}", error.kind())))?
            .compile_matcher();
        let mut next = Vec::new();
        for path in found {
            let shown = if path.as_os_str().is_empty() { FilePath::new(".") } else { path.as_path() };
            looked(shown);
            let Ok(entries) = std::fs::read_dir(shown) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name()).filter(|name| {
                glob.is_match(FilePath::new(name)) && !name.as_encoded_bytes().starts_with(b".")
            });
            next.extend(names.take(MAX_FILES).map(|name| path.join(name)));
        }
        next.sort();
        found = next;
    }
    Ok(found)
}

/// What to say about a template or default nobody knows.
pub(crate) fn unknown(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let known: Vec<_> = known.collect();
    did_you_mean(name, known.iter().map(AsRef::as_ref))
}
