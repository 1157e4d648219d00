//! Templates: device maps with variables and repetition.
//!
//! Variables. `{name}` in any text of a point or block is replaced by the device's `vars`, else by the template's
//! `vars`; `{device}` is the device's name, `{n}` the number of a repetition; `{{` stands for a plain `{`. A text that
//! is nothing but one variable takes the variable's value with its type: `bit = "{n}"` is a number.
//!
//! Repetition. `repeat = { count, stride, name, start }` stands at a point (`name` is the whole name: `"w{n}"`) or at a
//! template (`name` is a prefix: `"w{n}"` makes `w1_flag` of `flag`; `{name}` puts it elsewhere). `{n}` counts from
//! `start` (1). `stride x (0, 1, 2, ..)` is added to the **last whole number of `address`**, an optional `.bit` behind
//! it left alone: `holding:0x2006`, `D6000`, `CIO100.05`, `E0_100`, `400123`; hexadecimal stays hexadecimal. An address
//! that contains `{n}` places itself, so the stride leaves it alone. Names in blocks are renamed with their points.

use std::{borrow::Cow, rc::Rc};

use crate::{
    context::{Context, MAX_POINTS_PER_DEVICE},
    form, keys,
    problem::{Path, did_you_mean},
    source::Pos,
    tree::{Data, Entry, Node, Table},
};

/// Most elements that one `repeat` makes.
pub const MAX_REPEAT: i128 = 10_000;

/// The variables in force.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) device: &'a str,
    /// The first table that knows a name wins.
    pub(crate) vars: &'a [&'a Table],
    pub(crate) n: Option<i128>,
    /// Only in the `name` of `repeat`.
    pub(crate) name: Option<&'a str>,
}

/// `repeat`, read.
pub(crate) struct Repeat {
    pub(crate) count: i128,
    stride: i128,
    start: i128,
    name: Rc<str>,
    pos: Pos,
}

impl Repeat {
    /// Reads and checks; `None` when it is unusable (reported).
    pub(crate) fn read(cx: &Context<'_>, path: &Path<'_>, node: &Node) -> Option<Self> {
        let before = cx.problems.errors();
        let path = path.key("repeat");
        form::check(cx, &path, node, &form::Form::Table(keys::REPEAT));
        let table = node.as_table()?;
        let integer = |key: &str, default| table.get(key).map_or(Some(default), Node::as_integer);
        let repeat = Self {
            count: integer("count", 0)?,
            stride: integer("stride", 0)?,
            start: integer("start", 1)?,
            name: table.get("name")?.raw_text()?.clone(),
            pos: node.pos,
        };
        if !repeat.name.contains("{n}") && repeat.count > 1 {
            cx.problems.error(Some(repeat.pos), path, "a name with {n}", format!("{:?}", &*repeat.name));
        }
        (before == cx.problems.errors() && repeat.count <= MAX_REPEAT).then_some(repeat)
    }

    /// (`k` from 0, `n` from `start`).
    fn turns(&self) -> impl Iterator<Item = (i128, i128)> + use<> {
        let start = self.start;
        (0..self.count).map(move |k| (k, start + k))
    }

    /// The name of one element. A template's pattern without `{name}` is a prefix.
    fn rename(&self, own: &str, n: i128, prefix: bool) -> String {
        let pattern = if prefix && !self.name.contains("{name}") {
            Cow::Owned(format!("{}_{{name}}", self.name))
        } else {
            Cow::Borrowed(&*self.name)
        };
        pattern.replace("{name}", own).replace("{n}", &n.to_string())
    }
}

/// All points that a list makes in this scope, with a template's repetition.
pub(crate) fn points(
    cx: &Context<'_>,
    path: &Path<'_>,
    list: &[Node],
    scope: Scope<'_>,
    repeat: Option<&Repeat>,
) -> Vec<Node> {
    let mut out = Vec::with_capacity(list.len());
    match repeat {
        None => list.iter().for_each(|node| point(cx, path, node, scope, &mut out)),
        Some(repeat) => {
            for (k, n) in repeat.turns() {
                if out.len() > MAX_POINTS_PER_DEVICE {
                    break;
                }
                for node in list {
                    let from = out.len();
                    point(cx, path, node, Scope { n: Some(n), ..scope }, &mut out);
                    let own_place = places_itself(node);
                    for made in out.iter_mut().skip(from) {
                        rename(made, |own| repeat.rename(own, n, true));
                        if !own_place {
                            shift(cx, path, made, repeat.stride * k);
                        }
                    }
                }
            }
        }
    }
    out
}

/// One point, or what its own `repeat` makes of it.
fn point(cx: &Context<'_>, path: &Path<'_>, node: &Node, scope: Scope<'_>, out: &mut Vec<Node>) {
    let Some(table) = node.as_table() else {
        cx.problems.error(Some(node.pos), path, "a table { name = .. }", cx.found(node));
        return;
    };
    let Some(repeat) = table.get("repeat") else {
        out.push(substitute(cx, path, node, scope));
        return;
    };
    let Some(repeat) = Repeat::read(cx, path, repeat) else { return };
    let mut plain = table.clone();
    plain.remove("repeat");
    // The name comes from the pattern; the point's own name only feeds {name}.
    let own = plain.remove("name");
    let own_name =
        own.as_ref().and_then(|entry| entry.value.raw_text().cloned()).unwrap_or_else(|| Rc::from(""));
    let own_place = places_itself(node);
    let plain = Node::new(node.pos, Data::Table(plain));
    for (k, n) in repeat.turns() {
        if out.len() > MAX_POINTS_PER_DEVICE {
            break;
        }
        let mut made = substitute(cx, path, &plain, Scope { n: Some(n), ..scope });
        if let Data::Table(table) = &mut made.data {
            let name = repeat.rename(&own_name, n, false);
            let value = substitute(
                cx,
                path,
                &Node::new(repeat.pos, Data::Text(Rc::from(name))),
                Scope { n: Some(n), ..scope },
            );
            table.entries.insert(0, Entry { key: Rc::from("name"), key_pos: repeat.pos, value });
        }
        if !own_place {
            shift(cx, path, &mut made, repeat.stride * k);
        }
        out.push(made);
    }
}

/// The blocks of a list in this scope.
pub(crate) fn blocks(
    cx: &Context<'_>,
    path: &Path<'_>,
    list: &[Node],
    scope: Scope<'_>,
    repeat: Option<&Repeat>,
) -> Vec<Node> {
    let Some(repeat) = repeat else {
        return list.iter().map(|node| substitute(cx, path, node, scope)).collect();
    };
    let mut out = Vec::new();
    for (_, n) in repeat.turns().take(MAX_POINTS_PER_DEVICE / list.len().max(1)) {
        for node in list {
            let mut made = substitute(cx, path, node, Scope { n: Some(n), ..scope });
            let original = node.as_table();
            rename_in_block(&mut made, original, &|own| repeat.rename(own, n, true));
            out.push(made);
        }
    }
    out
}

/// Renames a block and the points it names, except where the template says `{n}` itself.
fn rename_in_block(made: &mut Node, original: Option<&Table>, new_name: &dyn Fn(&str) -> String) {
    let Data::Table(table) = &mut made.data else { return };
    for entry in &mut table.entries {
        let before = original.and_then(|table| table.get(&entry.key));
        match (&*entry.key, &mut entry.value.data) {
            ("name" | "points", Data::Text(_)) => rename_text(&mut entry.value, before, new_name),
            ("points", Data::Array(items)) => {
                let old = before.and_then(Node::as_array).unwrap_or_default();
                items.iter_mut().enumerate().for_each(|(at, item)| rename_text(item, old.get(at), new_name));
            }
            ("gate" | "commit", Data::Table(inner)) => {
                let old = before.and_then(Node::as_table);
                for entry in inner.entries.iter_mut().filter(|entry| &*entry.key == "point") {
                    rename_text(&mut entry.value, old.and_then(|old| old.get("point")), new_name);
                }
            }
            _ => {}
        }
    }
}

fn rename_text(node: &mut Node, original: Option<&Node>, new_name: &dyn Fn(&str) -> String) {
    let says_n = original.and_then(Node::raw_text).is_some_and(|text| text.contains("{n}"));
    if let (Data::Text(text), false) = (&mut node.data, says_n) {
        *text = Rc::from(new_name(text));
    }
}

fn rename(made: &mut Node, new_name: impl Fn(&str) -> String) {
    let Data::Table(table) = &mut made.data else { return };
    for entry in table.entries.iter_mut().filter(|entry| &*entry.key == "name") {
        if let Data::Text(text) | Data::Cell(text) = &mut entry.value.data {
            *text = Rc::from(new_name(text));
        }
    }
}

/// The address contains `{n}`.
fn places_itself(node: &Node) -> bool {
    let address = node.as_table().and_then(|table| table.get("address")).and_then(Node::raw_text);
    address.is_some_and(|text| text.contains("{n}"))
}

/// Adds to the number in `address`.
fn shift(cx: &Context<'_>, path: &Path<'_>, made: &mut Node, by: i128) {
    if by == 0 {
        return;
    }
    let Data::Table(table) = &mut made.data else { return };
    let Some(entry) = table.entries.iter_mut().find(|entry| &*entry.key == "address") else { return };
    let moved = match &entry.value.data {
        Data::Integer(number) => number.checked_add(by).map(Data::Integer),
        Data::Text(text) => shifted(text, by).map(|text| Data::Text(Rc::from(text))),
        Data::Cell(text) => shifted(text, by).map(|text| Data::Cell(Rc::from(text))),
        _ => None,
    };
    match moved {
        Some(data) => entry.value.data = data,
        None => {
            cx.lose(entry.value.pos);
            cx.problems
                .error(
                    Some(entry.value.pos),
                    path.key("address"),
                    "an address whose last number can take the stride",
                    cx.found(&entry.value),
                )
                .help("leave out `stride` and use {n} in the address");
        }
    }
}

/// `D6000` + 100 = `D6100`; see the module's head for the rule.
fn shifted(address: &str, by: i128) -> Option<String> {
    let digits_end = match address.rsplit_once('.') {
        Some((front, bit))
            if !bit.is_empty()
                && bit.bytes().all(|byte| byte.is_ascii_digit())
                && front.ends_with(|symbol: char| symbol.is_ascii_digit()) =>
        {
            front.len()
        }
        _ => address.len(),
    };
    let (front, tail) = address.split_at_checked(digits_end)?;
    if let Some(at) = front.to_ascii_lowercase().rfind("0x") {
        let (before, number) = front.split_at_checked(at)?;
        let digits = number.get(2..)?;
        let moved = i128::from_str_radix(digits, 16).ok()?.checked_add(by).filter(|moved| *moved >= 0)?;
        let prefix = number.get(..2)?;
        let upper = digits.bytes().any(|byte| byte.is_ascii_uppercase());
        let width = digits.len();
        return Some(if upper {
            format!("{before}{prefix}{moved:0width$X}{tail}")
        } else {
            format!("{before}{prefix}{moved:0width$x}{tail}")
        });
    }
    let start = front.trim_end_matches(|symbol: char| symbol.is_ascii_digit()).len();
    let (before, digits) = front.split_at_checked(start)?;
    let moved = digits.parse::<i128>().ok()?.checked_add(by).filter(|moved| *moved >= 0)?;
    let width = if digits.starts_with('0') { digits.len() } else { 0 };
    Some(format!("{before}{moved:0width$}{tail}"))
}

/// A copy of a node with all variables replaced.
pub(crate) fn substitute(cx: &Context<'_>, path: &Path<'_>, node: &Node, scope: Scope<'_>) -> Node {
    let data = match &node.data {
        Data::Text(text) if text.contains(['{', '}']) => {
            text_data(cx, path, node.pos, text, scope, Data::Text)
        }
        Data::Cell(text) if text.contains(['{', '}']) => {
            text_data(cx, path, node.pos, text, scope, Data::Cell)
        }
        Data::Array(items) => Data::Array(
            items.iter().enumerate().map(|(at, item)| substitute(cx, &path.index(at), item, scope)).collect(),
        ),
        Data::Table(table) => Data::Table(Table {
            entries: table
                .entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    key_pos: entry.key_pos,
                    value: substitute(cx, &path.key(&entry.key), &entry.value, scope),
                })
                .collect(),
        }),
        other => other.clone(),
    };
    Node::new(node.pos, data)
}

/// What a name stands for.
enum Value<'a> {
    Node(&'a Node),
    Text(String),
    Number(i128),
}

fn lookup<'a>(name: &str, scope: &Scope<'a>) -> Option<Value<'a>> {
    match (name, scope.n, scope.name) {
        ("n", Some(n), _) => return Some(Value::Number(n)),
        ("name", _, Some(own)) => return Some(Value::Text(own.to_owned())),
        ("device", ..) => return Some(Value::Text(scope.device.to_owned())),
        _ => {}
    }
    scope.vars.iter().find_map(|table| table.get(name)).map(Value::Node)
}

fn text_data(
    cx: &Context<'_>,
    path: &Path<'_>,
    pos: Pos,
    text: &Rc<str>,
    scope: Scope<'_>,
    wrap: fn(Rc<str>) -> Data,
) -> Data {
    // Exactly one variable: it keeps its type.
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
        && !name.contains(['{', '}'])
    {
        match lookup(name, &scope) {
            Some(Value::Node(node)) => return node.data.clone(),
            Some(Value::Number(number)) => return Data::Integer(number),
            _ => {}
        }
    }
    wrap(Rc::from(replace(cx, path, pos, text, scope)))
}

/// Replaces every `{name}`; `{{` and `}}` are plain braces, `${..}` is left alone.
fn replace(cx: &Context<'_>, path: &Path<'_>, pos: Pos, text: &str, scope: Scope<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = tail.strip_prefix("{{").or_else(|| tail.strip_prefix("}}")) {
            out.push_str(tail.get(..1).unwrap_or_default());
            rest = after;
        } else if let (Some(inner), Some((name, after))) = (tail.strip_prefix('{'), tail.split_once('}')) {
            let name = name.get(1..).unwrap_or_default();
            let _ = inner;
            if before.ends_with('$') {
                out.push('{');
                out.push_str(name);
                out.push('}');
            } else {
                out.push_str(&variable(cx, path, pos, name, &scope));
            }
            rest = after;
        } else {
            out.push_str(tail.get(..1).unwrap_or_default());
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

fn variable(cx: &Context<'_>, path: &Path<'_>, pos: Pos, name: &str, scope: &Scope<'_>) -> String {
    match lookup(name, scope) {
        Some(Value::Text(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Node(node)) => match &node.data {
            Data::Text(text) | Data::Cell(text) | Data::Float(text) => text.to_string(),
            Data::Integer(number) => number.to_string(),
            Data::Bool(value) => value.to_string(),
            // Reported by the check of `vars`.
            _ => String::new(),
        },
        None => {
            let known = scope.vars.iter().flat_map(|table| table.entries.iter().map(|entry| &*entry.key));
            let help = did_you_mean(name, known.chain(["device"]));
            cx.problems
                .error(
                    Some(pos),
                    path,
                    "a variable in the device's or the template's vars",
                    format!("{{{name}}}"),
                )
                .help(if help.is_empty() { "write {{ for a plain {".to_owned() } else { help });
            cx.lose(pos);
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_moves_the_last_number() {
        for (address, by, expected) in [
            ("holding:0x2006", 0x10, "holding:0x2016"),
            ("holding:0x0A", 1, "holding:0x0B"),
            ("holding:8", 100, "holding:108"),
            ("D6000", 100, "D6100"),
            ("CIO100.05", 1, "CIO101.05"),
            ("E0_100", 5, "E0_105"),
            ("400123", 2, "400125"),
            ("W010", 1, "W011"),
            ("D100", -50, "D50"),
        ] {
            assert_eq!(shifted(address, by).as_deref(), Some(expected), "{address}");
        }
        for address in ["LD/LN1.Pos", "", "holding:", "D5.x"] {
            assert_eq!(shifted(address, 1), None, "{address}");
        }
        assert_eq!(shifted("D5", -6), None);
    }
}
