//! What a key may hold.
//!
//! One description per key serves three readers: the check with its error texts, the "did you mean", and the JSON
//! Schema for editors. The tables themselves are in [`crate::keys`].

use std::fmt::Display;

use crate::{
    context::Context,
    explain::KNOWN_KEY,
    problem::{Path, did_you_mean},
    tree::{Data, Node, Table},
    units,
};

/// Longest name of a device, point, sink or block, in bytes.
pub const MAX_NAME: usize = 64;

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// Any text.
    Text,
    /// The name of a file; whether it can be read is looked at where its folder is known.
    Path,
    /// `[A-Za-z0-9_.-]`, 1 to 64 bytes, no leading `@`.
    Name,
    Bool,
    /// A whole number within limits.
    Integer(i64, i64),
    /// A decimal that keeps its digits.
    Decimal,
    /// A time span of at least so many milliseconds.
    Duration(u64),
    /// A number of bytes.
    Size,
    /// One of these words.
    Words(&'static [&'static str]),
    /// `[min, max]`.
    Range,
    /// A number of at least 0, or a percentage.
    Deadband,
    /// Bool, number or text.
    Scalar,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table whose values are texts, numbers or bools.
    Labels,
    /// A table whose keys belong to somebody else.
    Open,
    /// A list.
    List(&'static Form),
    /// A value, or a list of them.
    OneOrList(&'static Form),
    /// Tables or file names; looked at elsewhere.
    Elsewhere,
}

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) doc: &'static str,
    /// As TOML; empty = none, or it depends.
    pub(crate) default: &'static str,
    pub(crate) required: bool,
}

/// A key without a default.
pub(crate) const fn key(name: &'static str, form: Form, doc: &'static str) -> Key {
    Key { name, form, doc, default: "", required: false }
}

impl Key {
    pub(crate) const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// The description of `name` in `keys`.
pub(crate) fn find<'k>(keys: &'k [Key], name: &str) -> Option<&'k Key> {
    keys.iter().find(|key| key.name == name)
}

/// Checks every key and value of a table against `keys`; keys for which `other` is true belong to somebody else.
pub(crate) fn check_table(
    cx: &Context<'_>,
    path: &Path<'_>,
    table: &Table,
    keys: &'static [Key],
    other: &dyn Fn(&str) -> bool,
) {
    for entry in &table.entries {
        match find(keys, &entry.key) {
            Some(key) => {
                check(cx, &path.key(&entry.key), &entry.value, &key.form);
            }
            None if other(&entry.key) => {}
            None => {
                cx.problems
                    .error(Some(entry.key_pos), path.key(&entry.key), KNOWN_KEY, format!("{:?}", &*entry.key))
                    .help(did_you_mean(&entry.key, keys.iter().map(|key| key.name)));
            }
        }
    }
}

/// Reports required keys that are not there.
pub(crate) fn check_required(cx: &Context<'_>, path: &Path<'_>, node: &Node, keys: &'static [Key]) {
    let Some(table) = node.as_table() else { return };
    for key in keys.iter().filter(|key| key.required && table.get(key.name).is_none()) {
        cx.problems
            .error(Some(node.pos), path.key(key.name), format!("the key {:?}", key.name), "none")
            .help(key.doc);
    }
}

/// Checks one value; reports what is wrong and returns whether it is right.
pub(crate) fn check(cx: &Context<'_>, path: &Path<'_>, node: &Node, form: &Form) -> bool {
    cx.note_settled(path, node.pos);
    match form {
        Form::Elsewhere => true,
        Form::Table(keys) => match node.as_table() {
            Some(table) => {
                check_table(cx, path, table, keys, &|_| false);
                check_required(cx, path, node, keys);
                true
            }
            None => wrong(cx, path, node, form, ""),
        },
        Form::List(item) => match node.as_array() {
            Some(items) => check_items(cx, path, items, item),
            None => wrong(cx, path, node, form, ""),
        },
        Form::OneOrList(item) => match node.as_array() {
            Some(items) => check_items(cx, path, items, item),
            None => check(cx, path, node, item),
        },
        Form::Labels => match node.as_table() {
            Some(table) => table
                .entries
                .iter()
                .all(|entry| check(cx, &path.key(&entry.key), &entry.value, &Form::Scalar)),
            None => wrong(cx, path, node, form, ""),
        },
        _ => check_plain(cx, path, node, form),
    }
}

fn check_items(cx: &Context<'_>, path: &Path<'_>, items: &[Node], form: &Form) -> bool {
    items
        .iter()
        .enumerate()
        .fold(true, |good, (index, item)| check(cx, &path.index(index), item, form) && good)
}

fn check_plain(cx: &Context<'_>, path: &Path<'_>, node: &Node, form: &Form) -> bool {
    // A reference that leads nowhere has been reported by following it.
    let text = match node.raw_text() {
        Some(_) => match cx.text(path, node) {
            Some(text) => Some(text),
            None => return true,
        },
        None => None,
    };
    let text = text.as_deref();
    let help = match form {
        Form::Text | Form::Path => return text.is_some() || wrong(cx, path, node, form, ""),
        Form::Name if text.is_some_and(is_name) => return true,
        Form::Bool if node.as_bool().is_some() => return true,
        Form::Integer(min, max)
            if node.as_integer().is_some_and(|n| (i128::from(*min)..=i128::from(*max)).contains(&n)) =>
        {
            return true;
        }
        Form::Decimal if node.as_decimal().is_some() => return true,
        Form::Duration(min)
            if text.and_then(units::duration).is_some_and(|d| d.as_millis() >= u128::from(*min)) =>
        {
            return true;
        }
        Form::Size if text.and_then(units::size).is_some() => return true,
        Form::Words(words) => match text {
            Some(text) if words.contains(&text) => return true,
            Some(text) => crate::problem::nearest(text, words.iter().copied())
                .map(|word| format!("did you mean {word:?}?"))
                .unwrap_or_default(),
            None => String::new(),
        },
        Form::Range if read_range(node).is_some() => return true,
        Form::Deadband if read_deadband(node).is_some() => return true,
        Form::Scalar if !matches!(node.data, Data::Array(_) | Data::Table(_) | Data::Time) => return true,
        Form::Open if node.as_table().is_some() => return true,
        _ => advice(form, node, text),
    };
    wrong(cx, path, node, form, help)
}

/// What to do about a value that is nearly right.
fn advice(form: &Form, node: &Node, text: Option<&str>) -> String {
    match form {
        Form::Duration(_) => node.as_integer().map(|n| format!("write \"{n}s\"")).unwrap_or_default(),
        Form::Size => node.as_integer().map(|n| format!("write \"{n}B\"")).unwrap_or_default(),
        Form::Bool => match text {
            Some("true" | "false") => "without quotes".into(),
            _ => String::new(),
        },
        Form::Decimal | Form::Integer(..) if text.is_some_and(|text| text.parse::<f64>().is_ok()) => {
            "without quotes".into()
        }
        _ => String::new(),
    }
}

fn wrong(cx: &Context<'_>, path: &Path<'_>, node: &Node, form: &Form, help: impl Into<String>) -> bool {
    let help = help.into();
    cx.problems.error(Some(node.pos), path, expected(form), cx.found(node)).help(help);
    false
}

/// The form in words.
pub(crate) fn expected(form: &Form) -> String {
    match form {
        Form::Text => "text".into(),
        Form::Path => "the name of a file".into(),
        Form::Name => format!("a name of 1 to {MAX_NAME} letters, digits, '_', '.', '-'"),
        Form::Bool => "true or false".into(),
        Form::Integer(min, max) => format!("a whole number from {min} to {max}"),
        Form::Decimal => "a decimal number with at most 18 digits".into(),
        Form::Duration(0) => "a duration such as \"1s\", \"500ms\", \"5m\", \"7d\"".into(),
        Form::Duration(min) => format!("a duration of at least {min} ms such as \"1s\", \"500ms\", \"5m\""),
        Form::Size => "a size such as \"64MiB\"".into(),
        Form::Words(words) => one_of(words),
        Form::Range => "[min, max] with min below max".into(),
        Form::Deadband => "a number of at least 0, or a percentage such as \"1%\"".into(),
        Form::Scalar => "true, false, a number or a text".into(),
        Form::Table(_) | Form::Labels | Form::Open => "a table".into(),
        Form::List(Form::Text) => "a list of texts".into(),
        Form::List(item) => format!("a list, each {}", expected(item)),
        Form::OneOrList(item) => format!("{}, or a list of them", expected(item)),
        Form::Elsewhere => "a table or a file name".into(),
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of<T: Display>(words: &[T]) -> String {
    match words {
        [] => "nothing".into(),
        [only] => format!("\"{only}\""),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

/// `[A-Za-z0-9_.-]`, 1 to 64 bytes.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// `[min, max]`, or `min..max` in a CSV cell.
pub(crate) fn read_range(node: &Node) -> Option<[f64; 2]> {
    let range = match &node.data {
        Data::Array(items) => match items.as_slice() {
            [min, max] => [min.as_number()?, max.as_number()?],
            _ => return None,
        },
        Data::Cell(text) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let (min, max) = inner.split_once("..").or_else(|| inner.split_once([',', ';', ' ']))?;
            [min.trim().parse().ok()?, max.trim().parse().ok()?]
        }
        _ => return None,
    };
    let [min, max] = range;
    (min.is_finite() && max.is_finite() && min < max).then_some(range)
}

/// A deadband as configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RawDeadband {
    Absolute(f64),
    /// Of the span of `range`.
    Percent(f64),
}

pub(crate) fn read_deadband(node: &Node) -> Option<RawDeadband> {
    if let Some(number) = node.as_number() {
        return (number >= 0.0).then_some(RawDeadband::Absolute(number));
    }
    let percent: f64 = node.raw_text()?.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(RawDeadband::Percent(percent))
}
