//! The model of a device from its engineering file (IEC 61850-6: ICD, CID, IID, SCD), without the device.
//!
//! The file is read by `iec61850-rs`; what comes out here is the same [`Model`] discovery gives, so addresses are
//! checked and points are listed by the same code offline and online. Its signature is that of the file: it never
//! equals a device's, so a model from a file is never taken for one that was discovered.

use std::collections::BTreeMap;

use iec61850_rs::model::{BType, DataAttribute, DataObject, IedModel, LogicalNode as SclNode};
use iec61850_rs::scl::Scl;

use crate::kind::{Kind, Member};
use crate::limits::MAX_DEPTH;
use crate::model::{DataSet, LogicalDevice, LogicalNode, Model, Signer};
use crate::name::{Fc, Name};
use crate::request::Identity;

/// Octets of an engineering file, at most. Those of the largest stations have some tens of megabytes.
pub const MAX_FILE: usize = 128 * 1024 * 1024;

/// IEDs named in a message.
const LISTED: usize = 12;

/// One IED of an engineering file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Name of the IED in the file.
    pub name: String,
    /// Its address, where the file has a communication section.
    pub host: Option<String>,
    /// What it has. Its report control blocks have names but no attributes: those are read from the device.
    pub model: Model,
    /// Texts of enumerations, by variable.
    pub labels: BTreeMap<Name, Vec<(i64, String)>>,
    /// What is wrong or doubtful in the file, in its reader's words.
    pub findings: Vec<String>,
}

/// Reads every IED of a file, or the one named.
///
/// # Errors
/// One sentence: what is wrong with the file, or which IEDs it has.
pub fn read(xml: &str, ied: Option<&str>) -> Result<Vec<Described>, String> {
    if xml.len() > MAX_FILE {
        return Err(format!("expected a file of at most {MAX_FILE} octets, got {}", xml.len()));
    }
    let file = Scl::parse(xml).map_err(|error| format!("expected an SCL file: {error}"))?;
    let names = file.ied_names();
    let wanted: Vec<&String> =
        names.iter().filter(|name| ied.is_none_or(|ied| ied == name.as_str())).collect();
    if wanted.is_empty() {
        let have: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        return Err(match ied {
            Some(ied) => format!("the file has no IED {ied}; it has {have}"),
            None => "the file describes no IED".to_owned(),
        });
    }
    wanted
        .into_iter()
        .map(|name| {
            let model = file.model(Some(name)).map_err(|error| format!("IED {name}: {error}"))?;
            Ok(describe(&model))
        })
        .collect()
}

fn describe(ied: &IedModel) -> Described {
    let mut signer = Signer::default();
    signer.line('F', &ied.name);
    let mut labels = BTreeMap::new();
    let mut devices = Vec::new();
    for device in &ied.logical_devices {
        signer.line('D', &device.name);
        let mut data_sets = Vec::new();
        let mut nodes = Vec::new();
        for node in &device.logical_nodes {
            signer.line('N', &node.name);
            nodes.push(convert(node));
            data_sets.extend(sets(ied, &device.name, node));
            for object in &node.data_objects {
                object_labels(
                    ied,
                    &Name::new(device.name.clone(), node.name.clone()),
                    &[],
                    object,
                    &mut labels,
                );
            }
        }
        devices.push(LogicalDevice { name: device.name.clone(), nodes, data_sets });
    }
    let identity = Identity {
        vendor: ied.manufacturer.clone().unwrap_or_default(),
        model: ied.ied_type.clone().unwrap_or_default(),
        revision: ied.config_version.clone().unwrap_or_default(),
    };
    Described {
        name: ied.name.clone(),
        host: ied.osi_address(None).and_then(|address| address.ip.clone()),
        model: Model { signature: signer.finish(), identity, devices },
        labels,
        findings: ied
            .diagnostics
            .iter()
            .map(|finding| format!("{}: {}", finding.at, finding.message))
            .collect(),
    }
}

fn convert(node: &SclNode) -> LogicalNode {
    let mut constraints: Vec<Fc> = Vec::new();
    for object in &node.data_objects {
        constraints_of(object, &mut constraints);
    }
    let mut converted = LogicalNode { name: node.name.clone(), groups: Vec::new() };
    for fc in constraints {
        let objects = node.data_objects.iter().filter_map(|object| under(object, fc, 0));
        converted.insert(fc, &[], Kind::Structure(objects.collect()));
    }
    for block in &node.report_controls {
        let fc = if block.buffered { Fc::BR } else { Fc::RP };
        for name in block.instance_names() {
            converted.insert(fc, &[&name], Kind::Structure(Vec::new()));
        }
    }
    converted
}

fn constraints_of(object: &DataObject, into: &mut Vec<Fc>) {
    for attribute in &object.attributes {
        if !into.contains(&attribute.fc) {
            into.push(attribute.fc);
        }
    }
    for below in &object.sub_objects {
        constraints_of(below, into);
    }
}

/// The part of an object under one constraint; `None` where there is none.
fn under(object: &DataObject, fc: Fc, depth: usize) -> Option<Member> {
    if depth > MAX_DEPTH {
        return None;
    }
    let attributes = object.attributes.iter().filter(|attribute| attribute.fc == fc).map(attribute);
    let objects = object.sub_objects.iter().filter_map(|below| under(below, fc, depth + 1));
    let members: Vec<Member> = attributes.chain(objects).collect();
    if members.is_empty() {
        return None;
    }
    Some(Member { name: object.name.clone(), kind: repeated(Kind::Structure(members), object.count) })
}

fn attribute(attribute: &DataAttribute) -> Member {
    let kind = if attribute.children.is_empty() {
        basic(&attribute.btype)
    } else {
        Kind::Structure(attribute.children.iter().map(self::attribute).collect())
    };
    Member { name: attribute.name.clone(), kind: repeated(kind, attribute.count) }
}

fn repeated(kind: Kind, count: Option<u32>) -> Kind {
    match count {
        Some(count) => Kind::Array { count, element: Box::new(kind) },
        None => kind,
    }
}

/// MMS types of basic types (IEC 61850-8-1 table 2).
const fn basic(kind: &BType) -> Kind {
    match kind {
        BType::Boolean => Kind::Boolean,
        BType::Int8 | BType::Enum => Kind::Integer(8),
        BType::Int16 => Kind::Integer(16),
        BType::Int24 => Kind::Integer(24),
        BType::Int32 => Kind::Integer(32),
        BType::Int64 => Kind::Integer(64),
        BType::Int8U => Kind::Unsigned(8),
        BType::Int16U => Kind::Unsigned(16),
        BType::Int24U => Kind::Unsigned(24),
        BType::Int32U => Kind::Unsigned(32),
        BType::Float32 => Kind::Float32,
        BType::Float64 => Kind::Float64,
        BType::Dbpos | BType::Tcmd => Kind::Bits(2),
        BType::Quality => Kind::Bits(-13),
        BType::Check => Kind::Bits(-2),
        BType::TrgOps => Kind::Bits(-6),
        BType::OptFlds => Kind::Bits(-10),
        BType::SvOptFlds | BType::LogOptFlds => Kind::Bits(-8),
        BType::Timestamp => Kind::Time,
        BType::EntryTime => Kind::EntryTime,
        BType::VisString32 => Kind::Text(-32),
        BType::VisString64 => Kind::Text(-64),
        BType::VisString65 => Kind::Text(-65),
        BType::VisString129 | BType::ObjRef => Kind::Text(-129),
        BType::VisString255 | BType::Unicode255 => Kind::Text(-255),
        BType::Currency => Kind::Text(-3),
        BType::Octet64 => Kind::Octets(-64),
        BType::EntryID => Kind::Octets(-8),
        BType::Octet6 => Kind::Octets(6),
        BType::Octet16 => Kind::Octets(16),
        _ => Kind::Structure(Vec::new()),
    }
}

fn sets(ied: &IedModel, device: &str, node: &SclNode) -> Vec<DataSet> {
    node.data_sets
        .iter()
        .map(|set| DataSet {
            name: Name::new(device, format!("{}${}", node.name, set.name)),
            members: set.members.iter().map(|fcda| Name::parse(&ied.fcda_reference(device, fcda))).collect(),
        })
        .collect()
}

fn object_labels(
    ied: &IedModel,
    node: &Name,
    above: &[&str],
    object: &DataObject,
    labels: &mut BTreeMap<Name, Vec<(i64, String)>>,
) {
    let path: Vec<&str> = above.iter().copied().chain([object.name.as_str()]).collect();
    for attribute in &object.attributes {
        let values = attribute.type_id.as_deref().and_then(|id| ied.enum_type(id));
        if let Some(values) = values.filter(|_| attribute.btype == BType::Enum) {
            let base = format!("{}${}", node.item, attribute.fc);
            let item = path.iter().fold(base, |item, part| item + "$" + part);
            let name = Name::new(node.domain.clone(), item).child(&attribute.name);
            labels.insert(name, values.values.clone());
        }
    }
    if path.len() <= MAX_DEPTH {
        for below in &object.sub_objects {
            object_labels(ied, node, &path, below, labels);
        }
    }
}
