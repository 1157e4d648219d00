//! Common data classes (IEC 61850-7-3 clause 7), told from the members of a data object: a device does not say
//! them on the wire.

use std::fmt;

use crate::kind::Kind;
use crate::model::LogicalNode;
use crate::name::Fc;

/// A common data class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the standard")]
pub enum Cdc {
    Sps,
    Dps,
    Ins,
    Ens,
    Act,
    Acd,
    Bcr,
    Mv,
    Cmv,
    Wye,
    Del,
    Seq,
    Spc,
    Dpc,
    Inc,
    Enc,
    Bsc,
    Isc,
    Apc,
    Bac,
    Spg,
    Ing,
    Asg,
    /// None of those: its attributes can be read one by one.
    Other,
}

impl Cdc {
    const ALL: [(Self, &'static str); 24] = [
        (Self::Sps, "SPS"),
        (Self::Dps, "DPS"),
        (Self::Ins, "INS"),
        (Self::Ens, "ENS"),
        (Self::Act, "ACT"),
        (Self::Acd, "ACD"),
        (Self::Bcr, "BCR"),
        (Self::Mv, "MV"),
        (Self::Cmv, "CMV"),
        (Self::Wye, "WYE"),
        (Self::Del, "DEL"),
        (Self::Seq, "SEQ"),
        (Self::Spc, "SPC"),
        (Self::Dpc, "DPC"),
        (Self::Inc, "INC"),
        (Self::Enc, "ENC"),
        (Self::Bsc, "BSC"),
        (Self::Isc, "ISC"),
        (Self::Apc, "APC"),
        (Self::Bac, "BAC"),
        (Self::Spg, "SPG"),
        (Self::Ing, "ING"),
        (Self::Asg, "ASG"),
        (Self::Other, "other"),
    ];

    /// The class of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(cdc, text)| *text == name && *cdc != Self::Other).map(|(cdc, _)| *cdc)
    }

    /// The standard's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(cdc, _)| *cdc == self).map_or("other", |(_, text)| text)
    }

    /// True for the classes that can be told apart only by what their enumerations mean.
    #[must_use]
    pub fn agrees_with(self, asserted: Self) -> bool {
        let enumerated = |cdc| match cdc {
            Self::Ens => Self::Ins,
            Self::Enc => Self::Inc,
            Self::Bac => Self::Apc,
            Self::Isc => Self::Bsc,
            other => other,
        };
        self == asserted || enumerated(self) == enumerated(asserted)
    }

    /// Tells the class of the object at `path` of a node.
    #[must_use]
    pub fn of(node: &LogicalNode, path: &[&str]) -> Self {
        let at = |fc| node.at(fc, path.iter().copied());
        let member = |fc, name: &str| at(fc).and_then(|kind| kind.member(name)).map(|(_, kind)| kind);
        let controlled = member(Fc::CO, "Oper").is_some() || member(Fc::CF, "ctlModel").is_some();
        let has = |fc, name: &str| member(fc, name).is_some();
        if let Some(state) = member(Fc::ST, "stVal") {
            return Self::of_state(state, controlled);
        }
        if has(Fc::ST, "general") {
            return if has(Fc::ST, "dirGeneral") { Self::Acd } else { Self::Act };
        }
        if has(Fc::ST, "valWTr") {
            let oper = member(Fc::CO, "Oper").and_then(|oper| oper.member("ctlVal"));
            return if matches!(oper, Some((_, Kind::Integer(_)))) { Self::Isc } else { Self::Bsc };
        }
        if has(Fc::ST, "actVal") || has(Fc::ST, "frVal") {
            return Self::Bcr;
        }
        Self::of_measurement(&has)
    }

    fn of_state(state: &Kind, controlled: bool) -> Self {
        match (state, controlled) {
            (Kind::Boolean, false) => Self::Sps,
            (Kind::Boolean, true) => Self::Spc,
            (Kind::Bits(2 | -2), false) => Self::Dps,
            (Kind::Bits(2 | -2), true) => Self::Dpc,
            // 8-1 table on enumerations: they travel as integers of 8 bits.
            (Kind::Integer(8), false) => Self::Ens,
            (Kind::Integer(8), true) => Self::Enc,
            (Kind::Integer(_) | Kind::Unsigned(_), false) => Self::Ins,
            (Kind::Integer(_) | Kind::Unsigned(_), true) => Self::Inc,
            _ => Self::Other,
        }
    }

    fn of_measurement(has: &dyn Fn(Fc, &str) -> bool) -> Self {
        let any = |fc, names: &[&str]| names.iter().any(|name| has(fc, name));
        if any(Fc::MX, &["mag", "instMag"]) {
            Self::Mv
        } else if any(Fc::MX, &["cVal", "instCVal"]) {
            Self::Cmv
        } else if has(Fc::MX, "mxVal") {
            if has(Fc::CF, "persistent") { Self::Bac } else { Self::Apc }
        } else if any(Fc::MX, &["phsA", "phsB", "phsC", "neut", "net", "res"]) {
            Self::Wye
        } else if any(Fc::MX, &["phsAB", "phsBC", "phsCA"]) {
            Self::Del
        } else if any(Fc::MX, &["c1", "c2", "c3"]) {
            Self::Seq
        } else if any(Fc::SP, &["setMag"]) || any(Fc::SG, &["setMag"]) {
            Self::Asg
        } else {
            Self::Other
        }
    }

    /// Where the value of an object of this class is, best first. Empty where the object has several values and
    /// one must be named.
    #[must_use]
    pub const fn values(self) -> &'static [(Fc, &'static [&'static str])] {
        match self {
            Self::Sps | Self::Dps | Self::Ins | Self::Ens | Self::Spc | Self::Dpc | Self::Inc | Self::Enc => {
                &[(Fc::ST, &["stVal"])]
            }
            Self::Act | Self::Acd => &[(Fc::ST, &["general"])],
            Self::Bsc | Self::Isc => &[(Fc::ST, &["valWTr", "posVal"])],
            Self::Bcr => &[(Fc::ST, &["actVal"]), (Fc::ST, &["frVal"])],
            Self::Mv => &[
                (Fc::MX, &["mag", "f"]),
                (Fc::MX, &["mag", "i"]),
                (Fc::MX, &["instMag", "f"]),
                (Fc::MX, &["instMag", "i"]),
            ],
            Self::Cmv => &[
                (Fc::MX, &["cVal", "mag", "f"]),
                (Fc::MX, &["cVal", "mag", "i"]),
                (Fc::MX, &["instCVal", "mag", "f"]),
                (Fc::MX, &["instCVal", "mag", "i"]),
            ],
            Self::Apc | Self::Bac => &[(Fc::MX, &["mxVal", "f"]), (Fc::MX, &["mxVal", "i"])],
            Self::Asg => &[
                (Fc::SP, &["setMag", "f"]),
                (Fc::SP, &["setMag", "i"]),
                (Fc::SG, &["setMag", "f"]),
                (Fc::SG, &["setMag", "i"]),
            ],
            Self::Spg | Self::Ing => &[(Fc::SP, &["setVal"]), (Fc::SG, &["setVal"])],
            Self::Wye | Self::Del | Self::Seq | Self::Other => &[],
        }
    }
}

impl fmt::Display for Cdc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
