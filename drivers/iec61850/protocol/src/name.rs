//! Object references of IEC 61850-7-2 and the MMS names of IEC 61850-8-1 7.3.
//!
//! `LD/LN.DO.DA` has no functional constraint, `LD/LN$FC$DO$DA` has: the first is completed by the model
//! ([`crate::point`]). Names are compared whole and exactly, so `Ind1` never matches `Ind10`.

use std::fmt;

pub use iec61850_rs::Fc;

use crate::limits::MAX_NAME;

/// A variable or list at the peer: domain (logical device) and item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Name {
    /// The logical device, in full (`BCU1CTRL`).
    pub domain: String,
    /// The item (`CSWI1$ST$Pos`).
    pub item: String,
}

impl Name {
    /// A name of its parts.
    #[must_use]
    pub fn new(domain: impl Into<String>, item: impl Into<String>) -> Self {
        Self { domain: domain.into(), item: item.into() }
    }

    /// Reads `LD/LN$FC$DO`, as data set references and control objects are written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (domain, item) = text.split_once('/')?;
        (is_text(domain) && is_text(item)).then(|| Self::new(domain, item))
    }

    /// The name with one more component.
    #[must_use]
    pub fn child(&self, component: &str) -> Self {
        Self::new(self.domain.clone(), format!("{}${component}", self.item))
    }

    /// The components of the item.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.item.split('$')
    }

    /// True where `self` is `other` or contains it: the same domain, and whole components.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.domain == other.domain
            && other
                .item
                .strip_prefix(self.item.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('$'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.item)
    }
}

/// True for what may stand in a name at all.
fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The configured address of a point or control.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Logical device, in full.
    pub domain: String,
    /// Logical node.
    pub node: String,
    /// Functional constraint, where the address says it.
    pub fc: Option<Fc>,
    /// Data object, sub data objects and attributes; never empty.
    pub path: Vec<String>,
}

/// What an address looks like, for messages.
const EXPECTED: &str = "expected LD/LN.DO[.DA...] or LD/LN$FC$DO[$DA...]";

impl Address {
    /// Reads `LD/LN.DO[.DA...]`, `LD/LN$FC$DO[$DA...]` or `LD/LN.DO[.DA...][FC]`.
    ///
    /// # Errors
    /// One sentence with what was expected and what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{EXPECTED}, got {text:?}: {what}");
        if text.len() > 2 * MAX_NAME {
            return Err(wrong("too long"));
        }
        let (domain, rest) = text.split_once('/').ok_or_else(|| wrong("no '/' after the logical device"))?;
        let (rest, bracket) = match rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((rest, fc)) => (rest, Some(fc)),
            None => (rest, None),
        };
        let mms = rest.contains('$');
        let mut parts = rest.split(if mms { '$' } else { '.' });
        let node = parts.next().unwrap_or_default();
        let fc = if mms { parts.next() } else { bracket };
        let fc = match fc {
            Some(fc) => {
                Some(Fc::parse(fc).ok_or_else(|| wrong(&format!("{fc:?} is no functional constraint")))?)
            }
            None => None,
        };
        let path: Vec<String> = parts.map(str::to_owned).collect();
        for (part, what) in [(domain, "logical device"), (node, "logical node")] {
            if !is_component(part) {
                return Err(wrong(&format!("{part:?} is no name of a {what}")));
            }
        }
        if path.is_empty() {
            return Err(wrong("no data object"));
        }
        if let Some(part) = path.iter().find(|part| !is_component(part)) {
            return Err(wrong(&format!("{part:?} is no name of an object or attribute")));
        }
        Ok(Self { domain: domain.to_owned(), node: node.to_owned(), fc, path })
    }

    /// The name of the first `depth` path components under `fc`.
    #[must_use]
    pub fn name(&self, fc: Fc, depth: usize) -> Name {
        let mut item = format!("{}${fc}", self.node);
        for part in self.path.iter().take(depth) {
            item.push('$');
            item.push_str(part);
        }
        Name::new(self.domain.clone(), item)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.node)?;
        let separator = if let Some(fc) = self.fc {
            write!(f, "${fc}")?;
            '$'
        } else {
            '.'
        };
        self.path.iter().try_for_each(|part| write!(f, "{separator}{part}"))
    }
}

/// One component: letters, digits, underscore.
fn is_component(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notations_mean_the_same() {
        let dots = Address::parse("BCU1CTRL/CSWI1.Pos.stVal").unwrap();
        let mms = Address::parse("BCU1CTRL/CSWI1$ST$Pos$stVal").unwrap();
        let bracket = Address::parse("BCU1CTRL/CSWI1.Pos.stVal[ST]").unwrap();
        assert_eq!(dots.fc, None);
        assert_eq!(mms, bracket);
        assert_eq!(mms.name(Fc::ST, 1).to_string(), "BCU1CTRL/CSWI1$ST$Pos");
        assert_eq!(dots.name(Fc::ST, 9).to_string(), "BCU1CTRL/CSWI1$ST$Pos$stVal");
        assert_eq!(mms.to_string(), "BCU1CTRL/CSWI1$ST$Pos$stVal");
        assert_eq!(dots.to_string(), "BCU1CTRL/CSWI1.Pos.stVal");
    }

    #[test]
    fn wrong_addresses_say_why() {
        for (text, part) in [
            ("CSWI1.Pos", "no '/' after"),
            ("LD/CSWI1", "no data object"),
            ("LD/CSWI1$XY$Pos", "\"XY\" is no functional constraint"),
            ("LD/CSWI1.Pos..q", "\"\" is no name of an object"),
            ("/CSWI1.Pos", "logical device"),
            ("LD/CSWI1.Po s", "\"Po s\""),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(part) && error.starts_with(EXPECTED), "{error}");
        }
    }

    #[test]
    fn names_contain_whole_components_only() {
        let ind1 = Name::new("LD", "GGIO1$ST$Ind1");
        assert!(ind1.contains(&ind1.child("stVal")) && ind1.contains(&ind1));
        assert!(!ind1.contains(&Name::new("LD", "GGIO1$ST$Ind10$stVal")));
        assert!(!ind1.contains(&Name::new("LD2", "GGIO1$ST$Ind1$stVal")));
        assert_eq!(Name::parse("LD/LLN0$ds").unwrap(), Name::new("LD", "LLN0$ds"));
        assert_eq!(Name::parse("LLN0$ds"), None);
        assert_eq!(Name::parse("LD/ds\n"), None);
    }
}
