//! What a device offers, as points ready to be configured.

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::model::{LogicalNode, Model};
use crate::name::{Address, Fc};
use crate::point::{Cdc, Point, resolve};

/// Octets a point's name may have.
const MAX_POINT_NAME: usize = 64;

/// One point a device offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// A name for it: unique here, of letters, digits, dots and underscores.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its class; none for a single attribute.
    pub cdc: Option<Cdc>,
    /// It can be commanded.
    pub controllable: bool,
    /// Where it is.
    pub point: Point,
}

/// Constraints whose objects are listed: states, measurements, settings.
const LISTED: [Fc; 4] = [Fc::ST, Fc::MX, Fc::SP, Fc::SG];

/// Lists every data object with a value, in the device's order; the phases of objects that have several; and the
/// attributes of objects of no known class.
#[must_use]
pub fn list(model: &Model) -> Vec<Offer> {
    let mut offers = Vec::new();
    let mut names = BTreeSet::new();
    for device in &model.devices {
        let prefix = if model.devices.len() > 1 { format!("{}.", device.name) } else { String::new() };
        for node in &device.nodes {
            for path in objects(node) {
                let address = format!("{}/{}.{}", device.name, node.name, path.join("."));
                let Ok(parsed) = Address::parse(&address) else { continue };
                let Ok(point) = resolve(model, &parsed, None) else { continue };
                let wanted = format!("{prefix}{}.{}", node.name, path.join("."));
                let object: Vec<&str> = path.iter().take(1).copied().collect();
                offers.push(Offer {
                    name: unique(&mut names, &wanted),
                    address,
                    cdc: Some(point.cdc).filter(|cdc| *cdc != Cdc::Other),
                    controllable: path.len() == 1
                        && node.at(Fc::CO, object).is_some_and(|kind| kind.member("Oper").is_some()),
                    point,
                });
            }
        }
    }
    offers
}

/// Paths of everything in a node that has one value.
fn objects(node: &LogicalNode) -> Vec<Vec<&str>> {
    let mut paths: Vec<Vec<&str>> = Vec::new();
    for fc in LISTED {
        for object in node.group(fc).map_or(&[][..], Kind::members) {
            let path = vec![object.name.as_str()];
            if !paths.iter().any(|known| known.first() == path.first()) {
                collect(node, path, &object.kind, &mut paths);
            }
        }
    }
    paths
}

fn collect<'a>(node: &'a LogicalNode, path: Vec<&'a str>, kind: &'a Kind, into: &mut Vec<Vec<&'a str>>) {
    let class = Cdc::of(node, &path);
    if !class.values().is_empty() {
        into.push(path);
        return;
    }
    match kind {
        Kind::Structure(members) => {
            for member in members.iter().filter(|member| !matches!(member.name.as_str(), "q" | "t")) {
                let below: Vec<&str> = path.iter().copied().chain([member.name.as_str()]).collect();
                collect(node, below, &member.kind, into);
            }
        }
        Kind::Array { .. } | Kind::EntryTime | Kind::Other(_) => {}
        _ => into.push(path),
    }
}

fn unique(names: &mut BTreeSet<String>, wanted: &str) -> String {
    let fits = |suffix: &str| {
        let room = MAX_POINT_NAME.saturating_sub(suffix.len());
        let kept: String = wanted.chars().take(room).collect();
        kept + suffix
    };
    let mut name = fits("");
    let mut number = 2_u32;
    while !names.insert(name.clone()) {
        name = fits(&format!("_{number}"));
        number += 1;
    }
    name
}
