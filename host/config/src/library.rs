//! Templates and map files, read once however many devices use them.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    rc::Rc,
};

use crate::{
    context::Context,
    csv, document, form,
    keys::DEVICE_ONLY,
    problem::Path,
    settle,
    source::{self, MAX_FILES, Pos},
    template::Repeat,
    tree::{self, Entry, Node, Table},
};

/// A template, read.
pub(crate) struct Template {
    /// Device keys for everybody who uses it.
    pub(crate) keys: Table,
    pub(crate) vars: Table,
    pub(crate) points: Vec<Node>,
    pub(crate) blocks: Vec<Node>,
    pub(crate) repeat: Option<Repeat>,
}

/// A list of points or map entries, from wherever it came.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) items: Vec<Node>,
    /// TOML map files may hold blocks too.
    pub(crate) blocks: Vec<Node>,
}

/// A template slot: the source entry, and what became of it once it was used.
struct Slot<'d> {
    entry: &'d Entry,
    read: OnceCell<Rc<Template>>,
}

pub(crate) struct Library<'d> {
    templates: BTreeMap<&'d str, Slot<'d>>,
    files: RefCell<HashMap<(PathBuf, &'static str), Rc<List>>>,
}

impl<'d> Library<'d> {
    pub(crate) fn new(templates: &'d BTreeMap<Rc<str>, Entry>) -> Self {
        let templates =
            templates.iter().map(|(name, entry)| (&**name, Slot { entry, read: OnceCell::new() })).collect();
        Self { templates, files: RefCell::default() }
    }

    /// A template by name; an unknown name is reported.
    pub(crate) fn template(
        &self,
        cx: &Context<'_>,
        path: &Path<'_>,
        pos: Pos,
        name: &str,
    ) -> Option<Rc<Template>> {
        let Some(slot) = self.templates.get(name) else {
            cx.problems
                .error(Some(pos), path, "the name of a [template]", format!("{name:?}"))
                .help(document::unknown(name, self.templates.keys()));
            return None;
        };
        Some(slot.read.get_or_init(|| Rc::new(self.read(cx, slot.entry))).clone())
    }

    /// Warns about templates that no device uses, and checks their keys all the same.
    pub(crate) fn report_unused(&self, cx: &Context<'_>) {
        for (name, slot) in self.templates.iter().filter(|(_, slot)| slot.read.get().is_none()) {
            self.read(cx, slot.entry);
            if cx.problems.errors() > 0 {
                continue;
            }
            cx.problems.warning(
                Some(slot.entry.key_pos),
                Path::Root.key("template").key(name),
                "a device that uses this template",
                "none",
            );
        }
    }

    fn read(&self, cx: &Context<'_>, entry: &Entry) -> Template {
        let root = Path::Root.key("template");
        let path = root.named(&entry.key);
        let empty = Table::default();
        let table = entry.value.as_table().unwrap_or(&empty);
        let mut keys = Table::default();
        for inner in &table.entries {
            match &*inner.key {
                "points" | "blocks" | "vars" | "repeat" => {}
                name if DEVICE_ONLY.contains(&name) => {
                    let expected = "keys that several devices can share";
                    cx.problems.error(Some(inner.key_pos), path.key(name), expected, format!("{name:?}"));
                }
                _ => keys.set(inner.clone()),
            }
        }
        if let Some(vars) = table.get("vars") {
            form::check(cx, &path.key("vars"), vars, &form::Form::Labels);
        }
        let list = self.list(cx, &path, table.get("points"), "points");
        let blocks = table.get("blocks").and_then(Node::as_array).unwrap_or_default();
        Template {
            keys,
            vars: table.table("vars").cloned().unwrap_or_default(),
            points: list.items,
            blocks: list.blocks.into_iter().chain(blocks.iter().cloned()).collect(),
            repeat: table.get("repeat").and_then(|node| Repeat::read(cx, &path, node)),
        }
    }

    /// `points` or `map`: tables, a file name, or a list of both.
    pub(crate) fn list(
        &self,
        cx: &Context<'_>,
        path: &Path<'_>,
        node: Option<&Node>,
        key: &'static str,
    ) -> List {
        let mut list = List::default();
        let Some(node) = node else { return list };
        let path = path.key(key);
        for item in node.as_array().unwrap_or(std::slice::from_ref(node)) {
            if item.as_table().is_some() && node.as_array().is_some() {
                list.items.push(item.clone());
            } else if item.raw_text().is_some() {
                if let Some(file) = self.file(cx, &path, item, key) {
                    list.items.extend(file.items.iter().cloned());
                    list.blocks.extend(file.blocks.iter().cloned());
                }
            } else {
                let expected = "a list of tables, or the name of a .csv or .toml file";
                cx.problems.error(Some(item.pos), path, expected, cx.found(item));
            }
        }
        list
    }

    fn file(&self, cx: &Context<'_>, path: &Path<'_>, node: &Node, key: &'static str) -> Option<Rc<List>> {
        let name = cx.text(path, node)?;
        let folder = cx
            .sources
            .borrow()
            .get(node.pos)
            .and_then(|source| source.path.parent().map(std::path::Path::to_owned))
            .unwrap_or_default();
        let file = folder.join(&*name);
        let id = (file.clone(), key);
        if let Some(known) = self.files.borrow().get(&id) {
            return Some(known.clone());
        }
        let kind = file.extension().and_then(|kind| kind.to_str()).map(str::to_ascii_lowercase);
        let Some(kind @ ("csv" | "toml")) = kind.as_deref() else {
            cx.problems.error(Some(node.pos), path, "the name of a .csv or .toml file", cx.found(node));
            return None;
        };
        if cx.sources.borrow().files().len() >= MAX_FILES {
            cx.problems.error(Some(node.pos), path, format!("at most {MAX_FILES} files"), "more");
            return None;
        }
        let list = match source::read_text(&file) {
            Ok(text) => {
                let source = cx.sources.borrow_mut().add(file.display().to_string(), file, &text);
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                if kind == "csv" {
                    List { items: csv::read(cx, source, text), blocks: Vec::new() }
                } else {
                    toml_list(cx, source, text, key)
                }
            }
            Err((expected, found)) => {
                cx.problems.error(Some(node.pos), path, expected, found);
                List::default()
            }
        };
        let list = Rc::new(list);
        self.files.borrow_mut().insert(id, list.clone());
        Some(list)
    }
}

/// A TOML map file: `points = [..]` (with `blocks`) or `map = [..]`.
fn toml_list(cx: &Context<'_>, source: usize, text: &str, key: &'static str) -> List {
    let (mut root, errors) = tree::parse(source, text);
    settle::document(cx, &mut root);
    for (pos, message) in errors {
        cx.problems.error(Some(pos), Path::Root, "valid TOML", message);
    }
    let mut list = List::default();
    for entry in root.as_table().into_iter().flat_map(|table| &table.entries) {
        let items = entry.value.as_array();
        match (&*entry.key, items) {
            (name, Some(items)) if name == key => list.items = items.to_vec(),
            ("blocks", Some(items)) if key == "points" => list.blocks = items.to_vec(),
            (name, _) => {
                cx.problems
                    .error(
                        Some(entry.key_pos),
                        name,
                        format!("{key} = [ .. ] in a map file"),
                        format!("{name:?}"),
                    )
                    .help(crate::problem::did_you_mean(name, [key]));
            }
        }
    }
    list
}

/// The device keys of `[defaults.device]` and `[defaults.DRIVER]`, checked for keys that make no sense there.
pub(crate) fn check_defaults(cx: &Context<'_>, defaults: &BTreeMap<Rc<str>, Entry>, drivers: &[&str]) {
    let root = Path::Root.key("defaults");
    for (name, entry) in defaults {
        let path = root.key(name);
        for inner in entry.value.as_table().into_iter().flat_map(|table| &table.entries) {
            if DEVICE_ONLY.contains(&&*inner.key) || matches!(&*inner.key, "points" | "blocks") {
                let expected = "keys that all devices can share";
                cx.problems.error(
                    Some(inner.key_pos),
                    path.key(&inner.key),
                    expected,
                    format!("{:?}", &*inner.key),
                );
            }
        }
        if &**name != "device" && !drivers.contains(&&**name) {
            let known = drivers.iter().copied().chain(["device"]);
            cx.problems
                .warning(
                    Some(entry.key_pos),
                    path,
                    "\"device\" or the driver of a device",
                    format!("{name:?}"),
                )
                .help(document::unknown(name, known));
        }
    }
}
