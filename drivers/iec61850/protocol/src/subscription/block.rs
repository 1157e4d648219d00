//! Attributes of a report control block (IEC 61850-7-2 clause 17, 8-1 tables 35 and 36), read as one structure
//! by the names of the device's model: editions differ in which there are and in their order.

use iec61850_rs::proto::data::Value;

use crate::data;
use crate::kind::Kind;
use crate::name::{Fc, Name};
use crate::report::{OptFlds, TrgOps};

/// Whether a block may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    /// Nobody has it.
    Free,
    /// Engineered for some client, or still reserved after an association was lost; it may be ours, and the device
    /// decides when we try.
    Preassigned,
    /// Another client has it.
    Busy,
}

/// One control block, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name (`LD/LN$BR$brcb01`).
    pub name: Name,
    /// Buffered (BRCB).
    pub buffered: bool,
    /// What its reports are called; where the attribute is empty, the reference of the block (8-1 17.1.1.2).
    pub id: String,
    /// `RptEna`.
    pub enabled: bool,
    /// `Resv` of an unbuffered block.
    pub reserved: Option<bool>,
    /// `ResvTms` of a buffered block of edition 2: 0 free, -1 preassigned, else the seconds of a reservation.
    pub reserve_seconds: Option<i64>,
    /// `Owner`, where the device has it and it names somebody.
    pub owner: Option<Vec<u8>>,
    /// Its data set, where it has one.
    pub data_set: Option<Name>,
    /// `ConfRev`.
    pub revision: Option<u32>,
    /// `OptFlds`.
    pub options: OptFlds,
    /// `TrgOps`.
    pub triggers: TrgOps,
    /// `IntgPd` in ms; 0 for none.
    pub integrity_ms: u32,
    /// Bits of `SqNum`.
    pub sequence_bits: u8,
    /// Attributes the device has.
    pub attributes: Vec<String>,
}

impl Block {
    /// Reads a block. `None` where it has no `RptEna`, so is no control block.
    #[must_use]
    pub fn read(name: &Name, kind: &Kind, value: &Value) -> Option<Self> {
        let at = |attribute: &str| kind.member(attribute).and_then(|(place, _)| value.member(place));
        let text = |attribute: &str| at(attribute).and_then(data::text).filter(|text| !text.is_empty());
        let owner =
            at("Owner").and_then(data::octets).filter(|octets| octets.iter().any(|octet| *octet != 0));
        Some(Self {
            name: name.clone(),
            buffered: name.components().nth(1) == Some(Fc::BR.as_str()),
            id: text("RptID").map_or_else(|| name.to_string(), str::to_owned),
            enabled: at("RptEna").and_then(data::boolean)?,
            reserved: at("Resv").and_then(data::boolean),
            reserve_seconds: at("ResvTms").and_then(data::integer),
            owner: owner.map(<[u8]>::to_vec),
            data_set: text("DatSet").and_then(Name::parse),
            revision: at("ConfRev").and_then(data::unsigned32),
            options: at("OptFlds").and_then(OptFlds::from_value).unwrap_or_default(),
            triggers: at("TrgOps").and_then(TrgOps::from_value).unwrap_or_default(),
            integrity_ms: at("IntgPd").and_then(data::unsigned32).unwrap_or(0),
            sequence_bits: match kind.member("SqNum") {
                Some((_, Kind::Unsigned(bits) | Kind::Integer(bits))) => *bits,
                _ => 16,
            },
            attributes: kind.members().iter().map(|member| member.name.clone()).collect(),
        })
    }

    /// Whether it may be taken.
    #[must_use]
    pub fn availability(&self) -> Availability {
        if self.enabled || self.reserved == Some(true) {
            Availability::Busy
        } else if self.reserve_seconds.is_some_and(|seconds| seconds != 0) || self.owner.is_some() {
            Availability::Preassigned
        } else {
            Availability::Free
        }
    }

    /// True where the device has this attribute.
    #[must_use]
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|have| have == attribute)
    }
}
