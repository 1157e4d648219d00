//! From an address to a [`Point`]: functional constraint, value, quality and time by the model.

use super::{Cdc, Meaning, Part, Point};
use crate::kind::Kind;
use crate::model::{LogicalNode, Model};
use crate::name::{Address, Fc, Name};

/// Constraints in the order in which an address without one is looked for.
const ORDER: [Fc; 12] =
    [Fc::ST, Fc::MX, Fc::SP, Fc::SG, Fc::SV, Fc::CF, Fc::DC, Fc::EX, Fc::OR, Fc::BL, Fc::SR, Fc::SE];

/// Names listed in a message.
const LISTED: usize = 12;

/// Finds the value an address means.
///
/// The address may end at a value, at a data object (its value by class), at a sub object, or at an analogue value
/// or vector. `asserted` is the class the configuration expects.
///
/// # Errors
/// One sentence: what is not there, and what is.
pub fn resolve(model: &Model, address: &Address, asserted: Option<Cdc>) -> Result<Point, String> {
    let device = model.device(&address.domain).ok_or_else(|| {
        let have = list(model.devices.iter().map(|device| device.name.as_str()));
        format!("{address}: the device has no logical device {}; it has {have}", address.domain)
    })?;
    let node = device.node(&address.node).ok_or_else(|| {
        let have = list(device.nodes.iter().map(|node| node.name.as_str()));
        format!("{address}: {} has no logical node {}; it has {have}", address.domain, address.node)
    })?;
    let path: Vec<&str> = address.path.iter().map(String::as_str).collect();
    let (fc, path) = leaf(node, address, &path)?;
    let point = build(node, &address.domain, fc, &path)
        .ok_or_else(|| format!("{address}: its type is none that a point can have"))?;
    match asserted {
        Some(expected) if !point.cdc.agrees_with(expected) => {
            Err(format!("{address}: expected class {expected}, the device has {}", point.cdc))
        }
        _ => Ok(point),
    }
}

/// Constraint and full path of the value.
fn leaf<'a>(node: &LogicalNode, address: &Address, path: &[&'a str]) -> Result<(Fc, Vec<&'a str>), String> {
    let constraints: Vec<Fc> = match address.fc {
        Some(fc) => vec![fc],
        None => ORDER.into_iter().filter(|fc| node.at(*fc, path.iter().copied()).is_some()).collect(),
    };
    let found: Vec<(Fc, &Kind)> =
        constraints.iter().filter_map(|fc| Some((*fc, node.at(*fc, path.iter().copied())?))).collect();
    if found.is_empty() {
        return Err(missing(node, address, path));
    }
    if let Some((fc, _)) = found.iter().find(|(_, kind)| meaning(kind, false).is_some()) {
        return Ok((*fc, path.to_vec()));
    }
    let cdc = Cdc::of(node, path);
    let by_class = cdc.values().iter().map(|(fc, rest)| (*fc, *rest));
    let by_shape = [&["f"][..], &["i"], &["mag", "f"], &["mag", "i"], &["posVal"]];
    let by_shape = found.iter().flat_map(|(fc, _)| by_shape.iter().map(move |rest| (*fc, *rest)));
    for (fc, rest) in by_class.chain(by_shape) {
        let full: Vec<&str> = path.iter().copied().chain(rest.iter().copied()).collect();
        let leaf = node.at(fc, full.iter().copied()).is_some_and(|kind| meaning(kind, false).is_some());
        if leaf && (address.fc.is_none() || address.fc == Some(fc)) {
            return Ok((fc, full));
        }
    }
    let members = found.iter().flat_map(|(_, kind)| kind.members()).map(|member| member.name.as_str());
    Err(format!("{address}: class {cdc} has several values; name one of {}", list(members)))
}

fn missing(node: &LogicalNode, address: &Address, path: &[&str]) -> String {
    let groups = || node.groups.iter().filter(|group| address.fc.is_none_or(|fc| fc == group.fc));
    for depth in (0..path.len()).rev() {
        let above = path.get(..depth).unwrap_or_default();
        let mut have: Vec<&str> = groups()
            .filter_map(|group| group.objects.at(above.iter().copied()))
            .flat_map(Kind::members)
            .map(|member| member.name.as_str())
            .collect();
        if !have.is_empty() {
            have.sort_unstable();
            have.dedup();
            let name = path.get(depth).copied().unwrap_or_default();
            let below = above.join(".");
            let place = if below.is_empty() { node.name.clone() } else { format!("{}.{below}", node.name) };
            return format!("{address}: {place} has no {name}; it has {}", list(have.into_iter()));
        }
    }
    format!("{address}: nothing there under this functional constraint")
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let mut text = names.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

fn build(node: &LogicalNode, domain: &str, fc: Fc, path: &[&str]) -> Option<Point> {
    let (object, inside) = path.split_first()?;
    let kind = node.at(fc, [*object])?;
    let leaf = kind.at(inside.iter().copied())?;
    let object_name = Name::new(domain, format!("{}${fc}${object}", node.name));
    let part = |path: &[&str]| {
        let places = kind.places(path.iter().copied())?;
        let name = path.iter().fold(object_name.clone(), |name, component| name.child(component));
        Some(Part { name, places })
    };
    let sibling =
        |names: &[&str], fits: fn(&Kind) -> bool| nearest(kind, inside, names, fits).and_then(|p| part(&p));
    let frozen = inside.last() == Some(&"frVal");
    let times: &[&str] = if frozen { &["frTm", "t"] } else { &["t"] };
    let qualities: &[&str] = if fc == Fc::SV { &["subQ"] } else { &["q"] };
    let step = inside.ends_with(&["posVal"]);
    let level = class_level(node, fc, path);
    let has = |fc: Fc, name: &str| {
        let level = path.get(..level).unwrap_or_default();
        node.at(fc, level.iter().copied()).is_some_and(|kind| kind.member(name).is_some()).then(|| {
            let item = level.iter().fold(format!("{}${fc}", node.name), |item, part| item + "$" + part);
            Name::new(domain, item + "$" + name)
        })
    };
    let raw = inside.last() == Some(&"i");
    Some(Point {
        cdc: Cdc::of(node, path.get(..level)?),
        fc,
        value: part(inside)?,
        quality: sibling(qualities, |kind| matches!(kind, Kind::Bits(_))),
        time: times.iter().find_map(|name| sibling(&[name], |kind| matches!(kind, Kind::Time))),
        transient: if step { sibling(&["transInd"], |kind| matches!(kind, Kind::Boolean)) } else { None },
        meaning: meaning(leaf, step)?,
        scaling: if raw { scaling(path, &has) } else { None },
        units: has(Fc::CF, "units"),
        object: object_name,
    })
}

/// `sVC` of a magnitude, `angSVC` of an angle.
fn scaling(path: &[&str], has: &dyn Fn(Fc, &str) -> Option<Name>) -> Option<Name> {
    if path.contains(&"ang") {
        has(Fc::CF, "angSVC")
    } else {
        has(Fc::CF, "sVC").or_else(|| has(Fc::CF, "magSVC"))
    }
}

/// Number of path components of the innermost object around the value: the one that has a quality.
fn class_level(node: &LogicalNode, fc: Fc, path: &[&str]) -> usize {
    let has_quality = |depth: &usize| {
        let level = path.get(..*depth).unwrap_or_default();
        node.at(fc, level.iter().copied()).and_then(|kind| kind.member("q")).is_some()
    };
    (1..path.len()).rev().find(has_quality).unwrap_or(1)
}

/// Path of the first of `names` that stands beside the value, or beside what holds it, going outwards.
fn nearest<'a>(
    object: &Kind,
    path: &[&'a str],
    names: &[&'a str],
    fits: fn(&Kind) -> bool,
) -> Option<Vec<&'a str>> {
    for depth in (0..path.len()).rev() {
        let above = path.get(..depth)?;
        let kind = object.at(above.iter().copied())?;
        let name = names.iter().find(|name| kind.member(name).is_some_and(|(_, kind)| fits(kind)));
        if let Some(name) = name {
            return Some(above.iter().copied().chain([*name]).collect());
        }
    }
    None
}

/// How a value of this type is read; `None` for what is no single value.
const fn meaning(kind: &Kind, step: bool) -> Option<Meaning> {
    Some(match kind {
        Kind::Boolean => Meaning::Bool,
        Kind::Bits(2 | -2) => Meaning::DoublePoint,
        Kind::Bits(-32..=32) => Meaning::Bits,
        Kind::Integer(_) if step => Meaning::Step,
        Kind::Integer(_) => Meaning::Integer,
        Kind::Unsigned(_) => Meaning::Unsigned,
        Kind::Float32 => Meaning::Float32,
        Kind::Float64 => Meaning::Float64,
        Kind::Text(_) => Meaning::Text,
        Kind::Octets(_) => Meaning::Octets,
        Kind::Time => Meaning::Time,
        _ => return None,
    })
}
