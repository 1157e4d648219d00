//! What one turn of the core thread does with a reload and what comes behind it.

use std::{collections::VecDeque, time::Instant};

use busbar_core::{Core, Switches, model};
use busbar_loader::Launcher;

use super::{
    super::{
        clock::Clock,
        core_thread::CoreThread,
        disk::Disk,
        inbox::{Inbox, Item},
        instances::Instances,
        journal::Journals,
        operators::Operators,
        plugins::{Plugins, Shared},
        store::Store,
        upgrade::bridge::Versions,
    },
    *,
};

fn thread(dir: &std::path::Path) -> CoreThread {
    let (inbox, clock) = (Inbox::new(), Clock::new());
    let shared = Shared {
        inbox: inbox.clone(),
        names: Default::default(),
        launcher: Launcher::default(),
        log_level: String::new(),
        cache_dir: dir.to_owned(),
    };
    CoreThread {
        core: Core::new(Site::default(), Switches::default(), 1, clock.now()),
        clock,
        items: VecDeque::new(),
        collect: false,
        inbox,
        names: shared.names.clone(),
        plugins: Plugins::new(&Site::default(), Vec::new(), shared),
        disk: Disk::start(dir, Store::new(dir), |_| ()).unwrap(),
        journals: Journals::new(dir, clock, |_| ()),
        instances: Instances::default(),
        operators: Operators::default(),
        examined: Vec::new(),
        versions: Versions::default(),
        turns: Default::default(),
        backlog: VecDeque::new(),
        outputs: Vec::new(),
        next_clock_check: Instant::now(),
        synchronised: None,
        stop_at: None,
    }
}

fn with_driver(name: &str) -> Wanted {
    let plugin = model::Plugin {
        name: name.into(),
        kind: PluginKind::Driver,
        path: None,
        sha256: None,
        isolation: model::Isolation::Process,
        workers: 1,
        memory_limit: model::MEMORY_LIMIT,
    };
    let device = model::Device { name: name.into(), driver: name.into(), ..model::Device::default() };
    let config = NewConfig {
        site: Site { plugins: vec![plugin], devices: vec![device], ..Site::default() },
        probed: vec![Err(format!("{name} is not there"))],
        endpoints: BTreeMap::new(),
        origin: Origin::default(),
    };
    Wanted { config, replies: mpsc::channel(1).0 }
}

/// A version that an upgrade starts takes the next number at once. So a plugin of a reload that was taken before it in
/// the same turn must have its number by then, and what the probes said of it must not be replaced by the next reload.
#[test]
fn a_plugin_that_a_reload_brings_has_its_place_before_the_next_item() {
    let dir = tempfile::tempdir().unwrap();
    let mut thread = thread(dir.path());
    thread.items.push_back(Item::Reload(Box::new(with_driver("a"))));
    assert_eq!(thread.plugins.len(), 0);
    thread.take_all();
    assert_eq!((thread.plugins.len(), thread.core.plugins().len()), (1, 1));
    assert_eq!(thread.core.plugins()[0].name, "a");
}
