//! What operators switched: survives restarts as one document, key [`KEY`] of owner [`OWNER`] in the durable store.
//!
//! The edge reads it before the core starts and gives it to `Core::new`; the core writes it back whole by
//! `Output::Store` after each change, so that there is never a half-applied set.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Owner in the durable store.
pub const OWNER: &str = "host";
/// Key in the durable store.
pub const KEY: &str = "switches";

/// The operator's switches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switches {
    /// Commands locked (true) or enabled (false) by an operator; `None`: as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Blocked points, `device/point`.
    pub blocked: BTreeSet<String>,
    /// Substituted points with their value, JSON form.
    pub substituted: BTreeMap<String, Json>,
    /// Kind of each substituted value: nothing was read yet when it is laid over the point after a restart. Absent in
    /// documents of older versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub substituted_kinds: BTreeMap<String, String>,
    /// Maintenance of devices, where an operator switched it.
    pub maintenance: BTreeMap<String, bool>,
    /// Pause of devices, where an operator switched it. Absent in documents of older versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub paused: BTreeMap<String, bool>,
}

impl Switches {
    /// Reads the stored document. The error is for the operator: a host that cannot read it must start with
    /// [`Switches::locked_down`].
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes)
            .map_err(|error| format!("operator switches: expected the stored JSON document, found {error}"))
    }

    /// The document to store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only maps with keys that are no text can fail, and there are none.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Commands locked, nothing else: the safe start when the stored switches cannot be read.
    #[must_use]
    pub fn locked_down() -> Self {
        Self { locked: Some(true), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_survive_a_restart() {
        let switches = Switches {
            locked: Some(true),
            blocked: ["a/b".to_owned()].into(),
            substituted: [("a/c".to_owned(), Json::from(1.5))].into(),
            substituted_kinds: [("a/c".to_owned(), "float32".to_owned())].into(),
            maintenance: [("d".to_owned(), true)].into(),
            paused: [("e".to_owned(), true)].into(),
        };
        assert_eq!(Switches::parse(&switches.to_bytes()), Ok(switches));
        assert!(Switches::parse(b"{").unwrap_err().contains("expected"));
        assert_eq!(Switches::parse(b"{}"), Ok(Switches::default()));
    }
}
