//! Types of MMS variables (ISO 9506-2 `TypeSpecification`), as this client needs and keeps them.

use iec61850_rs::proto::mms::typespec::TypeSpec;

/// The type of a variable or of a part of it. Lengths below zero mean "at most".
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Named members in the order in which values come.
    Structure(Vec<Member>),
    /// Equal elements.
    Array {
        /// How many.
        count: u32,
        /// Of what.
        element: Box<Kind>,
    },
    /// Boolean.
    Boolean,
    /// Bit string of so many bits.
    Bits(i32),
    /// Signed integer of so many bits.
    Integer(u8),
    /// Unsigned integer of so many bits.
    Unsigned(u8),
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
    /// Octet string of so many octets.
    Octets(i32),
    /// Visible or UTF-8 string of so many octets.
    Text(i32),
    /// Binary time, as in reports.
    EntryTime,
    /// UTC time with its quality.
    Time,
    /// Anything else, by its tag.
    Other(u32),
}

/// One member of a structure.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
}

impl Kind {
    /// Members of a structure; none of anything else.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        if let Self::Structure(members) = self { members } else { &[] }
    }

    /// Place and type of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<(usize, &Self)> {
        self.members().iter().enumerate().find(|(_, m)| m.name == name).map(|(place, m)| (place, &m.kind))
    }

    /// Type at the end of a path of names.
    #[must_use]
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |kind, name| kind.member(name).map(|(_, kind)| kind))
    }

    /// Places of a path of names.
    #[must_use]
    pub fn places<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<Vec<usize>> {
        let mut kind = self;
        let mut places = Vec::new();
        for name in path {
            let (place, member) = kind.member(name)?;
            places.push(place);
            kind = member;
        }
        Some(places)
    }
}

impl From<&TypeSpec> for Kind {
    /// The depth was bounded when the specification was decoded.
    fn from(spec: &TypeSpec) -> Self {
        match spec {
            TypeSpec::Structure { components, .. } => Self::Structure(
                components
                    .iter()
                    .map(|c| Member {
                        name: c.name.clone().unwrap_or_default(),
                        kind: Self::from(&c.type_spec),
                    })
                    .collect(),
            ),
            TypeSpec::Array { elements, element_type, .. } => {
                Self::Array { count: *elements, element: Box::new(Self::from(&**element_type)) }
            }
            TypeSpec::Boolean => Self::Boolean,
            TypeSpec::BitString(length) => Self::Bits(*length),
            TypeSpec::Integer(bits) => Self::Integer(*bits),
            TypeSpec::Unsigned(bits) => Self::Unsigned(*bits),
            TypeSpec::FloatingPoint { format_width: 64, .. } => Self::Float64,
            TypeSpec::FloatingPoint { .. } => Self::Float32,
            TypeSpec::OctetString(length) => Self::Octets(*length),
            TypeSpec::VisibleString(length) | TypeSpec::MmsString(length) => Self::Text(*length),
            TypeSpec::BinaryTime(_) => Self::EntryTime,
            TypeSpec::UtcTime => Self::Time,
            TypeSpec::GeneralizedTime => Self::Other(11),
            TypeSpec::Bcd(_) => Self::Other(13),
            TypeSpec::Other(tag) => Self::Other(*tag),
            _ => Self::Other(0),
        }
    }
}
