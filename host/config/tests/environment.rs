//! Values that come from the environment: precedence, types, files, and what print-config tells about them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod support;

use std::{collections::BTreeMap, path::Path, time::Duration};

use busbar_config::{Loaded, LogLevel, Options, load_text};
use serde_json::json;
use support::Plugins;

const SITE: &str = r#"
[host]
name = 'site'
log = { level = "${env:LOG_LEVEL:-info}" }
resync_parallel = "${env:PARALLEL:-7}"

[host.admin]
listen = "127.0.0.1:${env:ADMIN_PORT:-8080}"
anonymous_read = "${env:OPEN:-no}"

[defaults.device]
poll_interval = "${env:COLLECTION_INTERVAL:-60}s"
retries = "${env:RETRIES:-2}"

[[device]]
name = 'm'
driver = 'modbus'
connection = { transport = 'tcp', host = "${env:METER}", port = "${env:PORT:-502}", unit_id = "${env:UNIT:-1}" }
points = [
  { name = 'v', address = 'holding:1', type = 'int16', scale = "${env:SCALE:-0.1}", writable = "${env:WRITE:-0}", range = [0, 10] },
]

[[sink]]
name = 's'
plugin = 'mqtt'
settings = { url = "${env:URL:-mqtt://localhost}", retain = "${env:RETAIN:-false}", qos = "${env:QOS:-1}", format = "${env:FORMAT:-json}", password = "${env:WORD:-hunter2}", username = "${env:WHO:-}", topic = "" }
queue = { max_size = "${env:BYTES:-1048576}" }
"#;

fn load(env: &[(&str, &str)]) -> Loaded {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_text(Path::new("p.toml"), SITE, &Plugins::new(), &Options { strict: false, env: Some(env) })
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_hold_where_the_environment_is_silent() {
    let loaded = load(&[("METER", "10.0.0.1"), ("PORT", "")]);
    let site = loaded.site.as_ref().unwrap_or_else(|| panic!("{}", loaded.render(false)));
    assert_eq!(site.host.resync_parallel, 7);
    let device = &site.devices[0];
    assert_eq!(device.poll_interval, Duration::from_secs(60));
    assert_eq!(device.retries, 2);
    assert_eq!(device.connection, json!({"transport": "tcp", "host": "10.0.0.1", "port": 502, "unit_id": 1}));
    let point = &device.points[0];
    assert_eq!(point.scale, "0.1".parse().unwrap());
    assert!(!point.writable);
    assert_eq!(site.sinks[0].queue.max_bytes, 1_048_576);
    let settings = &site.sinks[0].settings;
    assert_eq!(settings["retain"], json!(false));
    assert_eq!(settings.get("username"), None, "an empty reference takes its key away");
    assert_eq!(settings["topic"], json!(""), "an empty text does not");
    assert_eq!(loaded.host.log.level, LogLevel::Info);
}

#[test]
fn the_environment_wins_and_has_no_types() {
    let loaded = load(&[
        ("METER", "10.0.0.1"),
        ("LOG_LEVEL", "WARNING"),
        ("PARALLEL", "0x10"),
        ("OPEN", "1"),
        ("COLLECTION_INTERVAL", "5"),
        ("RETRIES", "0"),
        ("PORT", "1502"),
        ("SCALE", "2"),
        ("WRITE", "yes"),
        ("QOS", "2"),
        ("BYTES", "2MiB"),
    ]);
    let site = loaded.site.as_ref().unwrap_or_else(|| panic!("{}", loaded.render(false)));
    assert_eq!(loaded.host.log.level, LogLevel::Warn);
    assert_eq!(site.host.resync_parallel, 16);
    assert!(loaded.host.admin.as_ref().unwrap().anonymous_read);
    let device = &site.devices[0];
    assert_eq!((device.poll_interval, device.retries), (Duration::from_secs(5), 0));
    assert_eq!(device.connection["port"], json!(1502));
    assert!(device.points[0].writable);
    assert_eq!(site.sinks[0].settings["qos"], json!(2));
    assert_eq!(site.sinks[0].queue.max_bytes, 2 << 20);
}

#[test]
fn what_does_not_fit_is_named_with_its_place_and_never_shown() {
    let loaded = load(&[("RETRIES", "many"), ("PORT", "fast"), ("WRITE", "perhaps"), ("PARALLEL", "-1")]);
    let texts = texts(&loaded);
    for start in [
        "p.toml:5:19: error: host.resync_parallel: expected a whole number from 1 to 100000",
        "p.toml:13:11: error: device[m].retries: expected a whole number from 0 to 100, found something else behind",
        "p.toml:18:42: error: device[m].connection.host: expected the environment variable METER to be set, found it is \
         not set (set METER, or METER_FILE with the name of a file",
        "p.toml:18:65: error: device[m].connection.port: expected a whole number",
        "p.toml:20:96: error: device[m].points[v].writable: expected true or false",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(start)), "{start}\nin {texts:#?}");
    }
    assert!(!texts.concat().contains("fast") && !texts.concat().contains("perhaps"), "{texts:#?}");
    assert!(!loaded.render(false).contains("hunter2"), "{}", loaded.render(false));
}

#[test]
fn print_config_shows_references_and_where_values_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("interval");
    std::fs::write(&file, "30\n").unwrap();
    let file = file.display().to_string();
    let env = [("METER", "10.0.0.1"), ("PORT", "1502"), ("COLLECTION_INTERVAL_FILE", file.as_str())];
    let loaded = load(&env);
    let printed = loaded.effective().unwrap();
    for line in [
        "resync_parallel = \"${env:PARALLEL:-7}\" # default, PARALLEL is not set",
        "anonymous_read = \"${env:OPEN:-no}\" # default, OPEN is not set",
        "poll_interval = \"${env:COLLECTION_INTERVAL:-60}s\" # from the file in COLLECTION_INTERVAL_FILE",
        "connection = { transport = \"tcp\", host = \"${env:METER}\", port = \"${env:PORT:-502}\", unit_id = \"${env:UNIT:-1}\" } \
         # host: from METER; port: from PORT; unit_id: default, UNIT is not set",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line}\nin\n{printed}");
    }
    assert!(printed.contains("format = \"${env:FORMAT:-json}\""), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    let env: BTreeMap<String, String> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = Options { strict: false, env: Some(env) };
    let again =
        load_text(Path::new("p.toml"), &printed.replace("***", "mqtt://x"), &Plugins::new(), &options);
    let site = again.site.as_ref().unwrap_or_else(|| panic!("{}\n{printed}", again.render(false)));
    assert_eq!(site.devices[0].connection["port"], json!(1502));
    assert_eq!(site.devices[0].poll_interval, Duration::from_secs(30));
}

#[test]
fn references_of_settings_are_quoted_unless_they_lead_to_a_secret() {
    let text = r#"
[host]
name = 'site'
[[device]]
name = 'm'
driver = 'modbus'
connection = { transport = 'tcp', host = 'h', unit_id = 1 }
points = [{ name = 'v', address = 'holding:1', type = 'int16' }]
[[sink]]
name = 's'
plugin = 'mqtt'
settings = { url = "${env:URL:-mqtt://me:hunter2@localhost}", username = "${env:MQTT_TOKEN:-hunter2}", pin = "${env:PIN:-4711}", topic = "${env:TOP:-busbar}/x" }
"#;
    for env in [&[][..], &[("URL", "mqtt://you:hunter2@h"), ("TOP", "hunter2"), ("PIN", "0815")]] {
        let printed = devices(text, env).effective().unwrap();
        for secret in ["hunter2", "4711", "0815"] {
            assert!(!printed.contains(secret), "{secret} in\n{printed}");
        }
        let settings = "settings = { url = \"${env:URL:-mqtt://me:***@localhost}\", username = \"***\", pin = \"***\", \
                        topic = \"${env:TOP:-busbar}/x\"";
        assert!(printed.contains(settings), "{settings}\nin\n{printed}");
    }
}

const DEVICES: &str = r#"
[host]
name = 'site'
only = "kind=${env:TEST_DEVICE:-}"
log = { level = "${env:LOG_LEVEL:-info}", debug = "${env:DEBUG:-0}", file = "${env:LOG_FILE:-}", backups = "${env:KEEP:-3}" }

[template.t]
points = [{ name = 'p', address = 'coil:1', type = 'bool' }]

[[device]]
name = 'a'
driver = 'modbus'
template = 't'
labels = { kind = 'A' }
connection = { transport = 'tcp', host = 'h', unit_id = 1 }

[[device]]
name = 'b'
driver = 'modbus'
template = 't'
labels = { kind = 'B' }
connection = { transport = 'tcp', host = 'h', unit_id = 2 }

[[device]]
name = 'c'
driver = 'modbus'
connection = { transport = 'tcp', host = 'h', unit_id = 3 }
points = [{ name = 'q', address = 'coil:2', type = 'bool', writable = true, interlock = { point = 'b/p', equals = true } }]

[[sink]]
name = 's'
plugin = 'mqtt'
points = ['*', '*/@online']
settings = { url = 'mqtt://x' }
map = [{ point = 'a/p', key = 'first' }]
"#;

fn devices(text: &str, env: &[(&str, &str)]) -> Loaded {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_text(Path::new("p.toml"), text, &Plugins::new(), &Options { strict: false, env: Some(env) })
}

fn names(loaded: &Loaded) -> Vec<&str> {
    let site = loaded.site.as_ref().unwrap_or_else(|| panic!("{}", loaded.render(false)));
    site.devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn only_takes_devices_with_their_routes() {
    let all = devices(DEVICES, &[]);
    assert_eq!(names(&all), ["a", "b", "c"]);
    assert!(all.problems.is_empty(), "{}", all.render(false));
    let one = devices(DEVICES, &[("TEST_DEVICE", "B")]);
    assert_eq!(names(&one), ["b"]);
    let sink = &one.site.as_ref().unwrap().sinks[0];
    assert_eq!(sink.routes.iter().map(|route| (route.device, route.point)).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(sink.system.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["b/@online"]);
    assert_eq!(
        texts(&one),
        [
            "p.toml:4:8: warning: host.only: expected all devices to run, found 1 of 3 (empty `only`, or its variable, to run \
          all of them)"
        ]
    );
    let printed = one.effective().unwrap();
    let again = load_text(Path::new("p.toml"), &printed, &Plugins::new(), &Options::default());
    assert_eq!(again.site, one.site, "{printed}");
}

#[test]
fn only_takes_names_and_patterns_and_keeps_interlocks() {
    let with = |only: &str| devices(&DEVICES.replace("\"kind=${env:TEST_DEVICE:-}\"", only), &[]);
    assert_eq!(names(&with("['', 'c']")), ["b", "c"], "c's interlock is a point of b");
    assert_eq!(names(&with("'[ab]'")), ["a", "b"]);
    assert_eq!(names(&with("[]")), ["a", "b", "c"]);
    let wrong = with("['a', 'd']");
    let found = texts(&wrong);
    let wanted = "error: host.only: expected a configured device, found \"d\"";
    assert!(found.iter().any(|text| text.contains(wanted)), "{found:#?}");
}

#[test]
fn debug_raises_the_level_and_an_empty_file_is_none() {
    let log = |env: &[(&str, &str)]| devices(DEVICES, env).host.log;
    assert_eq!((log(&[]).level, log(&[]).file), (LogLevel::Info, None));
    assert_eq!(log(&[("DEBUG", "1")]).level, LogLevel::Debug);
    assert_eq!(log(&[("DEBUG", "1"), ("LOG_LEVEL", "TRACE")]).level, LogLevel::Trace);
    assert_eq!(log(&[("DEBUG", "0"), ("LOG_LEVEL", "ERROR")]).level, LogLevel::Error);
    assert_eq!(log(&[("LOG_FILE", "x.log"), ("KEEP", "7")]).file.unwrap().backups, 7);
}
