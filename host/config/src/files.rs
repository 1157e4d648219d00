//! Files that the configuration names for somebody else: certificates, keys, lists.
//!
//! A plugin's CHECK is pure and opens nothing, so a misspelt `tls.ca` would only be noticed when the plugin connects.
//! Values that a plugin's schema marks with `"format": "path"` are therefore looked at here. They start at the folder of
//! the main file like every other path, and reach the plugin that way: it does not know that folder. What is missing is
//! a warning, because certificates may be put in place later than the configuration.

use std::{fs, path::Path as FilePath};

use serde_json::Value as Json;

use crate::{context::Context, dialect, source, source::Pos};

/// Makes the marked paths in `value` start at the main file's folder. `locate` finds place and key of a pointer.
pub(crate) fn settle(
    cx: &Context<'_>,
    schema: &Json,
    value: &mut Json,
    locate: impl Fn(&str) -> (Pos, String),
) {
    for pointer in dialect::paths(schema, value) {
        let Some(Json::String(text)) = value.pointer_mut(&pointer) else { continue };
        if text.is_empty() {
            continue;
        }
        let file = cx.vault.base.join(&*text);
        let file = std::path::absolute(&file).unwrap_or(file);
        *text = file.display().to_string();
        let (pos, key) = locate(&pointer);
        look(cx, pos, &key, &file);
    }
}

/// Warns when `file` cannot be read.
pub(crate) fn look(cx: &Context<'_>, pos: Pos, key: &str, file: &FilePath) {
    let Err(reason) = readable(file) else { return };
    let secret = cx.masked.borrow().contains(key) || cx.references.borrow().contains_key(key);
    let shown = if secret { "the file behind a reference".to_owned() } else { file.display().to_string() };
    cx.problems
        .warning(Some(pos), key, "a file that can be read", format!("{shown}: {reason}"))
        .help("put the file there, readable for the user that runs busbar, or correct the path");
}

fn readable(file: &FilePath) -> Result<(), String> {
    let facts = fs::metadata(file).map_err(|error| source::plain(&error))?;
    if facts.is_dir() {
        return Err("is a directory".into());
    }
    // Opening a pipe may block and opening a device may act on it.
    if facts.is_file() {
        fs::File::open(file).map_err(|error| source::plain(&error))?;
    }
    Ok(())
}
