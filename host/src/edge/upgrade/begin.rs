//! What a start decides: the accepted versions, not the deployed files. A trial that did not end, and a version with
//! which the host died twice soon after its promotion, mean the previous version, and it is said.

use std::{collections::BTreeMap, path::Path};

use busbar_core::model;

use super::{
    active::{Active, Failed, Record, key},
    history::{Event, now},
};

/// Hosts that may die soon after a promotion before the previous version starts.
const MAX_DEATHS: u32 = 2;

/// The decision, before anything is written.
#[derive(Debug, Default)]
pub struct Beginning {
    /// What will be written.
    pub active: Active,
    /// Sha256 of the copy to start, by [`key`].
    pub copies: BTreeMap<String, String>,
    /// To be logged and added to the history.
    pub events: Vec<Event>,
    /// For the log only.
    pub notes: Vec<String>,
}

/// Decides for the plugins of a configuration at a start. Reads only.
#[must_use]
pub fn begin(data_dir: &Path, plugins: &[model::Plugin]) -> Beginning {
    decide(data_dir, plugins, settle)
}

/// The same for a host that runs: what is marked as running and on trial is alive, nothing of it is a death.
#[must_use]
pub fn running(data_dir: &Path, plugins: &[model::Plugin]) -> Beginning {
    decide(data_dir, plugins, |_, _| Vec::new())
}

fn decide(
    data_dir: &Path,
    plugins: &[model::Plugin],
    settle: fn(&str, &mut Record) -> Vec<Event>,
) -> Beginning {
    let (active, problem) = Active::read(data_dir);
    let mut beginning = Beginning { active, notes: problem.into_iter().collect(), ..Beginning::default() };
    for plugin in plugins {
        let key = key(plugin.kind, &plugin.name);
        let Some(record) = beginning.active.plugin.get_mut(&key) else { continue };
        beginning.events.extend(settle(&key, record));
        let accepted = record.accepted.sha256.clone();
        match &plugin.sha256 {
            _ if accepted.is_empty() => {}
            Some(pinned) if !pinned.trim().eq_ignore_ascii_case(&accepted) => {
                let text = format!(
                    "plugin {}: the configuration pins another sha256 than the accepted version; the deployed file is used",
                    plugin.name
                );
                beginning.notes.push(text);
            }
            _ => {
                beginning.copies.insert(key, accepted);
            }
        }
    }
    beginning
}

/// Ends what a dead host left open.
fn settle(key: &str, record: &mut Record) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(trial) = record.trial.take() {
        let reason = "the host ended in the middle of its trial; the version before it is started";
        events.push(Event::new(key, "previous", &trial.version, &trial.sha256, reason));
        record.remember(Failed {
            sha256: trial.sha256,
            version: trial.version,
            since: now(),
            reason: "the host ended in the middle of its trial".into(),
        });
    }
    if let Some(fresh) = &mut record.fresh {
        fresh.deaths += u32::from(fresh.running);
        fresh.running = true;
        let (deaths, previous) = (fresh.deaths, record.previous.clone());
        if let (true, Some(previous)) = (deaths >= MAX_DEATHS, previous) {
            let reason = format!("the host died {deaths} times soon after this version was accepted");
            let bad = std::mem::replace(&mut record.accepted, previous);
            let said = format!("{reason}; version {} is started", record.accepted.version);
            events.push(Event::new(key, "previous", &bad.version, &bad.sha256, &said));
            record.previous = None;
            record.fresh = None;
            let since = now();
            record.remember(Failed { sha256: bad.sha256, version: bad.version, since, reason });
        }
    }
    events
}

/// An orderly end is no death.
pub(crate) fn orderly_end(active: &mut Active) -> bool {
    let mut news = false;
    for fresh in active.plugin.values_mut().filter_map(|record| record.fresh.as_mut()) {
        news |= std::mem::replace(&mut fresh.running, false);
    }
    news
}

#[cfg(test)]
mod tests {
    use busbar_core::model::{Isolation, PluginKind};

    use super::{
        super::active::{Fresh, Version},
        *,
    };

    fn plugin(sha256: Option<&str>) -> model::Plugin {
        model::Plugin {
            name: "modbus".into(),
            kind: PluginKind::Driver,
            path: None,
            sha256: sha256.map(Into::into),
            isolation: Isolation::InProcess,
            workers: 1,
            memory_limit: model::MEMORY_LIMIT,
        }
    }

    fn version(sha256: &str) -> Version {
        Version { sha256: sha256.into(), version: "1".into(), since: String::new() }
    }

    fn active(record: Record) -> (tempfile::TempDir, Active) {
        let dir = tempfile::tempdir().unwrap();
        let mut active = Active::default();
        active.plugin.insert("driver/modbus".into(), record);
        active.write(dir.path()).unwrap();
        (dir, active)
    }

    #[test]
    fn the_accepted_version_starts_unless_the_configuration_pins_another() {
        let (dir, _) = active(Record { accepted: version("aa"), ..Record::default() });
        assert_eq!(begin(dir.path(), &[plugin(None)]).copies["driver/modbus"], "aa");
        assert_eq!(begin(dir.path(), &[plugin(Some("AA"))]).copies["driver/modbus"], "aa");
        let pinned = begin(dir.path(), &[plugin(Some("bb"))]);
        assert!(pinned.copies.is_empty() && pinned.notes[0].contains("pins"));
        assert!(begin(tempfile::tempdir().unwrap().path(), &[plugin(None)]).copies.is_empty());
    }

    #[test]
    fn an_unfinished_trial_means_the_version_before_it() {
        let record = Record { accepted: version("aa"), trial: Some(version("bb")), ..Record::default() };
        let (dir, _) = active(record);
        let beginning = begin(dir.path(), &[plugin(None)]);
        assert_eq!(beginning.copies["driver/modbus"], "aa");
        assert_eq!(beginning.events[0].event, "previous");
        let record = &beginning.active.plugin["driver/modbus"];
        assert!(record.trial.is_none() && record.has_failed("bb"));
    }

    #[test]
    fn two_deaths_soon_after_a_promotion_mean_the_previous_version() {
        let record = Record {
            accepted: version("bb"),
            previous: Some(version("aa")),
            fresh: Some(Fresh { deaths: 0, running: true }),
            ..Record::default()
        };
        let (dir, _) = active(record);
        let first = begin(dir.path(), &[plugin(None)]);
        assert_eq!(first.copies["driver/modbus"], "bb", "once is no pattern");
        first.active.write(dir.path()).unwrap();
        let second = begin(dir.path(), &[plugin(None)]);
        assert_eq!(second.copies["driver/modbus"], "aa");
        assert!(second.events[0].reason.contains("died 2 times"), "{:?}", second.events);
        assert!(second.active.plugin["driver/modbus"].has_failed("bb"));
    }

    #[test]
    fn a_reload_within_the_life_of_the_host_is_no_death() {
        let record = Record {
            accepted: version("bb"),
            previous: Some(version("aa")),
            fresh: Some(Fresh { deaths: 1, running: true }),
            ..Record::default()
        };
        let (dir, _) = active(record);
        assert_eq!(begin(dir.path(), &[plugin(None)]).copies["driver/modbus"], "aa", "a start judges");
        let running = running(dir.path(), &[plugin(None)]);
        assert_eq!(running.copies["driver/modbus"], "bb");
        assert!(running.events.is_empty(), "{:?}", running.events);
    }

    #[test]
    fn an_orderly_end_and_a_long_life_are_no_deaths() {
        let record = Record {
            accepted: version("bb"),
            previous: Some(version("aa")),
            fresh: Some(Fresh { deaths: 0, running: true }),
            ..Record::default()
        };
        let (dir, mut state) = active(record);
        for _ in 0..5 {
            assert!(orderly_end(&mut state));
            assert!(!orderly_end(&mut state));
            state.write(dir.path()).unwrap();
            let beginning = begin(dir.path(), &[plugin(None)]);
            assert_eq!(beginning.copies["driver/modbus"], "bb");
            state = beginning.active;
        }
        state.plugin.get_mut("driver/modbus").unwrap().fresh = None;
        state.write(dir.path()).unwrap();
        for _ in 0..5 {
            let beginning = begin(dir.path(), &[plugin(None)]);
            assert_eq!(beginning.copies["driver/modbus"], "bb");
            beginning.active.write(dir.path()).unwrap();
        }
    }
}
