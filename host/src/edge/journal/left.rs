//! Queue files that no sink of the configuration owns: a sink was renamed or removed, and what waited for it waits still.
//! Nobody opens them, so they are looked at from outside, and said: at the start, in `busbar queue`, by the API.

use std::path::{Path, PathBuf};

use busbar_core::journal::Ledger;

/// Files listed (G9).
const MAX_LEFT: usize = 1_000;

/// A file that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// The sink it was made for.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Ledger and bytes waiting, or why they cannot be told.
    pub(crate) holds: Result<(Ledger, u64), String>,
}

impl Left {
    /// What an operator can do about it.
    pub(crate) fn advice(&self) -> String {
        let (name, path) = (&self.name, self.path.display());
        let trouble = self.holds.as_ref().err().map(|error| format!("{error}; ")).unwrap_or_default();
        format!(
            "{trouble}no sink {name} is configured: configure it again to deliver what waits, or remove {path} and the files \
             beside it whose names begin with it"
        )
    }

    /// For the log at the start.
    pub(crate) fn say(&self) {
        let (waiting, parked) = match &self.holds {
            Ok((ledger, _)) => (ledger.pending, ledger.parked_total()),
            Err(_) => (0, 0),
        };
        tracing::warn!(sink = self.name, waiting, parked, "a queue is left on disk: {}", self.advice());
    }
}

/// The files in `dir` whose name is none of `configured`, by name. Those that `busy` names are still open here: what they
/// hold is not known from outside.
pub(crate) fn left(dir: &Path, configured: &[String], busy: &[String]) -> Vec<Left> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".db")?.to_owned()))
        .filter(|name| !name.is_empty() && !configured.contains(name))
        .take(MAX_LEFT)
        .collect();
    names.sort();
    let look = |name: String| {
        let path = super::file_of(dir, &name);
        let holds = match busy.contains(&name) {
            true => Err("its file is open until the gateway stops".to_owned()),
            false => busbar_queue::look(&path),
        };
        Left { name, path, holds }
    };
    names.into_iter().map(look).collect()
}
