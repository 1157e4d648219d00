//! What the API and the command line show of versions and upgrades.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use serde::Serialize;

use super::{
    active::{Active, Failed, Version},
    history::{Event, History},
};

/// Events of one plugin that are shown.
const SHOWN: usize = 50;

/// Of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// What starts.
    pub accepted: Version,
    /// What was accepted before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
    /// On trial now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// What was refused or taken back last, if that is not the version that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// Where the accepted version runs against the configuration, and why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Serves until the restart although it failed: it could not be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adrift: Option<Failed>,
    /// Newest first.
    pub history: Vec<Event>,
}

/// An upgrade under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Of the file.
    pub sha256: String,
    /// As it calls itself.
    pub version: String,
    /// RFC 3339.
    pub since: String,
    /// What happens now.
    pub step: String,
}

/// By [`super::active::key`].
#[derive(Debug, Default)]
pub struct Board(RwLock<BTreeMap<String, Versions>>);

impl Board {
    /// Of one plugin.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<Versions> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The plugin whose upgrade is under way. Between its hand-overs the core does not know of it: a reload asks here.
    #[must_use]
    pub fn upgrading(&self) -> Option<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(_, shown)| shown.trial.is_some()).map(|(key, _)| key.clone())
    }

    pub(crate) fn edit(&self, key: &str, edit: impl FnOnce(&mut Versions)) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        edit(all.entry(key.to_owned()).or_default());
    }

    /// Takes over what is on disk.
    pub(crate) fn show(&self, active: &Active, history: &History) {
        for (key, record) in &active.plugin {
            self.edit(key, |shown| {
                shown.accepted = record.accepted.clone();
                shown.previous.clone_from(&record.previous);
                shown.failed = record.failed.last().cloned();
                shown.history = history.of(key).rev().take(SHOWN).cloned().collect();
            });
        }
    }
}
