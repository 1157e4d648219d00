use std::collections::BTreeSet;

use busbar_config::{NoPlugins, Options, load, load_text};

use super::*;
use crate::edge::upgrade::Trial;

#[test]
fn a_changed_file_and_a_new_neighbour_show_also_where_there_was_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (main, conf) = (dir.path().join("plugins.toml"), dir.path().join("conf.d"));
    let watched = || Watched::of(&load(&main, &NoPlugins, &Options::default()).sources);
    std::fs::write(&main, "[host]\ninclude = \"conf.d/*.toml\"\n").unwrap();
    // Not there yet.
    let absent = watched();
    let first = absent.fingerprint();
    assert_eq!(absent.fingerprint(), first);
    std::fs::create_dir(&conf).unwrap();
    assert_ne!(absent.fingerprint(), first);
    // Empty.
    let empty = watched();
    let second = empty.fingerprint();
    std::fs::write(conf.join("a.toml"), "").unwrap();
    assert_ne!(empty.fingerprint(), second);
    // With a file, which changes, and gets a neighbour.
    let full = watched();
    assert_eq!(full.files, [main.clone(), conf.join("a.toml")]);
    let third = full.fingerprint();
    std::fs::write(conf.join("a.toml"), "# longer\n").unwrap();
    let fourth = full.fingerprint();
    assert_ne!(fourth, third);
    std::fs::write(conf.join("b.toml"), "").unwrap();
    assert_ne!(full.fingerprint(), fourth);
}

/// A channel that is closed is ready at once, for ever: taken for "nothing came" it would be asked again and again.
#[tokio::test]
async fn when_nobody_can_wish_any_more_that_is_the_end_and_no_look() {
    let (wish, mut wishes) = mpsc::channel::<Wish>(1);
    drop(wish);
    for watch in [false, true] {
        assert!(matches!(next(&mut wishes, watch).await, Next::Closed));
    }
}

#[test]
fn a_reload_waits_for_the_end_of_an_upgrade() {
    let board = Board::default();
    assert_eq!(upgrading(&board), None);
    board.edit("driver/modbus", |shown| shown.trial = Some(Trial::default()));
    let text = upgrading(&board).unwrap();
    assert!(text.contains("driver/modbus") && text.contains("again"), "{text}");
    board.edit("driver/modbus", |shown| shown.trial = None);
    assert_eq!(upgrading(&board), None);
}

/// What becomes of a key of `[host]` that was changed.
#[derive(Clone, Copy)]
enum Fate {
    /// Named in the answer under this name.
    Restart(&'static str),
    /// By the process around the core.
    Process,
    /// By the core.
    Core,
    /// It says which devices there are, and shows in what differs of them.
    Devices,
}

const KEYS: &[(&str, &str, Fate)] = &[
    ("name", "name = 'other'", Fate::Restart("host.name")),
    ("data_dir", "data_dir = 'elsewhere'", Fate::Restart("host.data_dir")),
    ("plugin_dirs", "plugin_dirs = ['x']", Fate::Restart("host.plugin_dirs")),
    ("stage_dir", "stage_dir = 'x'", Fate::Restart("host.stage_dir")),
    ("log.level", "log = { level = 'debug' }", Fate::Process),
    ("log.debug", "log = { debug = true }", Fate::Process),
    ("log.format", "log = { format = 'json' }", Fate::Restart("host.log.format")),
    ("log.file", "log = { file = 'a' }", Fate::Restart("host.log.file")),
    ("log.max_size", "log = { file = 'a', max_size = '1MiB' }", Fate::Restart("host.log.file")),
    ("log.backups", "log = { file = 'a', backups = 9 }", Fate::Restart("host.log.file")),
    ("include", "include = 'more/*.toml'", Fate::Devices),
    ("only", "only = ''", Fate::Devices),
    ("admin.listen", "admin = { listen = '127.0.0.1:8080' }", Fate::Restart("host.admin")),
    (
        "admin.anonymous_read",
        "admin = { listen = '127.0.0.1:8080', anonymous_read = true }",
        Fate::Restart("host.admin"),
    ),
    (
        "admin.tls.cert",
        "admin = { listen = '127.0.0.1:8080', tls = { cert = 'plugins.toml', key = 'plugins.toml' } }",
        Fate::Restart("host.admin"),
    ),
    (
        "admin.tls.key",
        "admin = { listen = '127.0.0.1:8080', tls = { cert = 'plugins.toml', key = 'plugins.toml' } }",
        Fate::Restart("host.admin"),
    ),
    ("tick", "tick = '40ms'", Fate::Restart("host.tick")),
    ("resync_parallel", "resync_parallel = 7", Fate::Restart("host.resync_parallel")),
    ("commands", "commands = 'locked'", Fate::Restart("host.commands")),
    ("select_timeout", "select_timeout = '7s'", Fate::Restart("host.select_timeout")),
    ("upgrade_timeout", "upgrade_timeout = '7s'", Fate::Process),
    ("watch_plugins", "watch_plugins = false", Fate::Process),
    ("reload_timeout", "reload_timeout = '7s'", Fate::Core),
    ("watch_config", "watch_config = true", Fate::Process),
];

/// The keys of a table in the schema, those of tables in it with their path.
fn keys_of(schema: &Json, path: &str, out: &mut BTreeSet<String>) {
    for (key, inner) in schema["properties"].as_object().unwrap() {
        let path = format!("{path}{key}");
        if inner["properties"].is_object() {
            keys_of(inner, &format!("{path}."), out);
        } else {
            out.insert(path);
        }
    }
}

#[test]
fn every_key_of_the_host_is_applied_or_named() {
    let schema = busbar_config::schema(&NoPlugins);
    let mut known = BTreeSet::new();
    keys_of(&schema["$defs"]["host"], "", &mut known);
    let listed: BTreeSet<String> = KEYS.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(listed, known, "a key was added: say here what a reload does with it");

    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("plugins.toml");
    std::fs::write(&main, "").unwrap();
    let read = |key: &str| {
        let text = format!("[host]\n{key}\n");
        let loaded = load_text(&main, &text, &NoPlugins, &Options::default());
        assert!(loaded.site.is_some(), "{}", loaded.render(false));
        loaded
    };
    let old = read("");
    for (key, text, fate) in KEYS {
        let new = read(text);
        let mut named = Difference::of(old.site.as_ref().unwrap(), new.site.as_ref().unwrap()).needs_restart;
        named.extend(restart_keys(&old.host, &new.host));
        let mut taken = old.host.clone();
        let words = take_over(&mut taken, &new.host);
        match fate {
            Fate::Restart(name) => assert_eq!(named, [*name], "{key}"),
            Fate::Process => {
                assert!(named.is_empty(), "{key}: {named:?}");
                // Switched by `set_level`.
                taken.log.level = new.host.log.level;
                assert_eq!(taken, new.host, "{key}");
                assert_ne!(taken, old.host, "{key} did not differ");
                assert!(key.starts_with("log.") || words.len() == 1, "{key}: {words:?}");
            }
            Fate::Core => {
                assert!(named.is_empty(), "{key}: {named:?}");
                assert_ne!(old.site.as_ref().unwrap().host, new.site.as_ref().unwrap().host, "{key}");
            }
            Fate::Devices => assert!(named.is_empty() && words.is_empty(), "{key}: {named:?}"),
        }
    }
}
