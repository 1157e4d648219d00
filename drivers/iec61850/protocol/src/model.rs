//! What a device has: logical devices, nodes, objects by functional constraint, data sets.
//!
//! A model can be kept in a file and used again while its signature is that of the device: a hash over the
//! device's identity, every name it lists, and the configuration revision of every logical device. A device that
//! is engineered anew changes at least one of them.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::kind::{Kind, Member};
use crate::name::{Fc, Name};
use crate::request::Identity;

/// Hash over identity, names and configuration revisions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Signature(pub String);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything a device has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Model {
    /// What it was made from.
    pub signature: Signature,
    /// What the device says about itself.
    pub identity: Identity,
    /// Logical devices, by name.
    pub devices: Vec<LogicalDevice>,
}

/// One logical device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogicalDevice {
    /// Its name in full, the MMS domain.
    pub name: String,
    /// Its logical nodes.
    pub nodes: Vec<LogicalNode>,
    /// Its data sets.
    pub data_sets: Vec<DataSet>,
}

/// One logical node.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogicalNode {
    /// Its name with prefix and instance.
    pub name: String,
    /// Its objects, by functional constraint.
    pub groups: Vec<Group>,
}

/// The objects of a node under one functional constraint.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Group {
    /// The constraint.
    #[serde(with = "fc_text")]
    pub fc: Fc,
    /// A structure with one member per object.
    pub objects: Kind,
}

/// One data set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DataSet {
    /// Its name.
    pub name: Name,
    /// Its members in order; `None` for one that is no variable of a logical device.
    pub members: Vec<Option<Name>>,
}

mod fc_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Fc;

    pub(super) fn serialize<S: Serializer>(fc: &Fc, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(fc.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fc, D::Error> {
        let text = String::deserialize(deserializer)?;
        Fc::parse(&text).ok_or_else(|| serde::de::Error::custom("no functional constraint"))
    }
}

impl Model {
    /// The logical device of this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&LogicalDevice> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The type of a variable.
    #[must_use]
    pub fn kind(&self, name: &Name) -> Option<&Kind> {
        let mut parts = name.components();
        let node = self.device(&name.domain)?.node(parts.next()?)?;
        node.group(Fc::parse(parts.next()?)?)?.at(parts)
    }

    /// The data set of this name.
    #[must_use]
    pub fn data_set(&self, name: &Name) -> Option<&DataSet> {
        self.device(&name.domain)?.data_sets.iter().find(|set| set.name == *name)
    }

    /// Report control blocks in any logical node, buffered ones first, in the device's order.
    #[must_use]
    pub fn report_blocks(&self) -> Vec<Name> {
        let mut found = Vec::new();
        for fc in [Fc::BR, Fc::RP] {
            for device in &self.devices {
                for node in &device.nodes {
                    for block in node.group(fc).map_or(&[][..], Kind::members) {
                        found.push(Name::new(
                            device.name.clone(),
                            format!("{}${fc}${}", node.name, block.name),
                        ));
                    }
                }
            }
        }
        found
    }
}

impl LogicalDevice {
    /// The logical node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&LogicalNode> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl LogicalNode {
    /// The structure of the objects under `fc`.
    #[must_use]
    pub fn group(&self, fc: Fc) -> Option<&Kind> {
        self.groups.iter().find(|group| group.fc == fc).map(|group| &group.objects)
    }

    /// The type of an object or a part of it under `fc`.
    #[must_use]
    pub fn at<'a>(&self, fc: Fc, path: impl IntoIterator<Item = &'a str>) -> Option<&Kind> {
        self.group(fc)?.at(path)
    }

    /// Adds what is known of `path` under `fc`, making the structures above.
    pub(crate) fn insert(&mut self, fc: Fc, path: &[&str], kind: Kind) {
        let place = self.groups.iter().position(|group| group.fc == fc).unwrap_or_else(|| {
            self.groups.push(Group { fc, objects: Kind::Structure(Vec::new()) });
            self.groups.len() - 1
        });
        if let Some(group) = self.groups.get_mut(place) {
            insert(&mut group.objects, path, kind);
        }
    }
}

fn insert(into: &mut Kind, path: &[&str], kind: Kind) {
    let Some((first, rest)) = path.split_first() else {
        *into = kind;
        return;
    };
    let Kind::Structure(members) = into else { return };
    let place = members.iter().position(|member| member.name == *first).unwrap_or_else(|| {
        members.push(Member { name: (*first).to_owned(), kind: Kind::Structure(Vec::new()) });
        members.len() - 1
    });
    if let Some(member) = members.get_mut(place) {
        insert(&mut member.kind, rest, kind);
    }
}

/// Makes a [`Signature`] line by line.
#[derive(Default)]
pub(crate) struct Signer(Sha256);

impl Signer {
    pub(crate) fn line(&mut self, kind: char, text: &str) {
        let mut mark = [0; 4];
        self.0.update(kind.encode_utf8(&mut mark).as_bytes());
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn finish(self) -> Signature {
        Signature(self.0.finalize().iter().map(|octet| format!("{octet:02x}")).collect())
    }
}
