//! What a correct configuration becomes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may panic and print"
)]

mod support;

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use busbar_config::{Loaded, MASK, NoPlugins, Options, load, load_text, schema};
use busbar_core::{
    decimal::Decimal,
    model::{Backoff, Deadband, Device, Isolation, Order, PluginKind, Send, Sink, Sync, Timestamp},
};
use serde_json::json;
use support::{Plugins, options};

/// The sample of the documentation, word for word.
const DESIGN_SAMPLE: &str = include_str!("design.toml");

/// The sample with what it leaves to the reader: a hash, and the device its last sink refers to.
fn design_sample() -> String {
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    DESIGN_SAMPLE.replace("\"...\"", &format!("\"{hash}\""))
        + "
[[device]]
name = 'bay-1'
driver = 'modbus'
connection = { transport = 'tcp', host = '127.0.0.1', port = 5021, unit_id = 1 }
points = [ { name = 'breaker', address = 'discrete:0' } ]
"
}

fn loaded(text: &str) -> Loaded {
    let loaded = load_text(Path::new("plugins.toml"), text, &Plugins::new(), &options());
    assert!(!loaded.failed(), "{}", loaded.render(false));
    loaded
}

fn devices(text: &str) -> Vec<Device> {
    loaded(text).site.unwrap().devices
}

fn device(text: &str) -> Device {
    devices(text).remove(0)
}

fn sinks(text: &str) -> Vec<Sink> {
    loaded(text).site.unwrap().sinks
}

const CONNECTION: &str = "connection = { transport = 'tcp', host = '127.0.0.1', unit_id = 1 }\n";

fn one_device(points: &str) -> String {
    format!("[[device]]\nname = 'm'\ndriver = 'modbus'\n{CONNECTION}points = [ {points} ]\n")
}

#[test]
fn the_sample_of_the_design_is_understood() {
    let verbatim = load_text(Path::new("plugins.toml"), DESIGN_SAMPLE, &Plugins::new(), &options());
    let open: Vec<&str> = verbatim.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(open, ["plugins.modbus.sha256", "sink[scada].map[0].point"], "{}", verbatim.render(false));
    let loaded = load_text(Path::new("plugins.toml"), &design_sample(), &Plugins::new(), &options());
    assert!(!loaded.failed(), "{}", loaded.render(false));
    assert!(loaded.problems.is_empty(), "{}", loaded.render(false));
    let site = loaded.site.unwrap();
    assert_eq!(site.host.name, "site-7");
    let meter = &site.devices[0];
    assert_eq!(meter.poll_interval, Duration::from_secs(1));
    assert_eq!(meter.response_timeout, Duration::from_secs(3));
    assert_eq!(meter.retries, 0);
    assert_eq!(meter.reconnect, Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(10) });
    assert_eq!(meter.connection["port"], json!(5020));
    let point = &meter.points[0];
    assert_eq!(*point.spec, json!({ "address": "holding:0x2006", "type": "float32" }));
    assert_eq!((point.unit.as_str(), point.range), ("V", Some([0.0, 300.0])));
    assert_eq!((point.stale_after, point.invalid_after), (Duration::from_secs(5), Duration::from_secs(50)));
    let broker = &site.sinks[0];
    assert_eq!(broker.queue.max_bytes, 256 << 20);
    assert_eq!(broker.routes.len(), 1);
    assert_eq!(broker.system[0].name, "meter-01/@online");
    let scada = &site.sinks[1];
    assert_eq!(scada.send, Send::Changes);
    assert_eq!(scada.routes[0].map, [json!({ "point": "bay-1/breaker", "ioa": 4097, "type": "M_DP_TB_1" })]);
    assert!(scada.system.is_empty(), "a sink that needs addresses gets only what is mapped");
    let modbus = site.plugins.iter().find(|plugin| plugin.name == "modbus").unwrap();
    assert_eq!(modbus.isolation, Isolation::InProcess);
    assert_eq!(modbus.path.as_deref(), Some("/opt/site/libmodbus.so"));
    assert_eq!(loaded.host.admin.unwrap().listen.to_string(), "127.0.0.1:8080");
    assert_eq!(loaded.host.plugin_dirs, [Path::new("target/release")]);
}

#[test]
fn the_shipped_configuration_has_no_problems() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins.toml"));
    let loaded = load(path, &Plugins::new(), &options());
    assert!(loaded.problems.is_empty(), "{}", loaded.render(false));
    let site = loaded.site.unwrap();
    assert!(site.devices.len() >= 3 && site.sinks.len() == 1);
    assert!(site.sinks[0].routes.len() >= 10, "everything goes to the broker");
    assert!(loaded.host.admin.unwrap().listen.ip().is_loopback());
}

#[test]
fn defaults_of_a_bare_device_and_point() {
    let device = device(&one_device("{ name = 'p', address = 'holding:0' }"));
    let expected = Device { name: "m".into(), driver: "modbus".into(), ..Device::default() };
    assert_eq!(
        (
            device.poll_interval,
            device.response_timeout,
            device.retries,
            device.probe_interval,
            device.reconnect
        ),
        (expected.poll_interval, expected.response_timeout, 0, expected.probe_interval, expected.reconnect)
    );
    let point = &device.points[0];
    assert_eq!((point.poll_interval, point.stale_after), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!(point.invalid_after, Duration::from_secs(30));
    assert_eq!((point.scale, point.offset), (Decimal::ONE, Decimal::ZERO));
    assert_eq!((point.writable, point.invert, point.event), (false, false, false));
}

#[test]
fn stale_after_follows_the_points_own_interval() {
    let text = one_device(
        "{ name = 'a', address = 'holding:0', poll_interval = '10s' },
         { name = 'b', address = 'holding:1', poll_interval = '100ms' },
         { name = 'c', address = 'holding:2', stale_after = '7s', invalid_after = '8s' },
         { name = 'd', address = 'holding:3' }",
    ) + "stale_after = '4s'\n";
    let points = device(&text).points;
    let times: Vec<(u64, u64)> =
        points.iter().map(|p| (p.stale_after.as_secs(), p.invalid_after.as_secs())).collect();
    assert_eq!(times, [(30, 300), (3, 30), (7, 8), (4, 40)]);
}

#[test]
fn decimals_keep_their_digits() {
    let text =
        one_device("{ name = 'a', address = 'holding:0', type = 'int16', scale = 0.1, offset = -273.15 }");
    let point = &device(&text).points[0];
    assert_eq!((point.scale, point.offset), (Decimal::new(1, -1), Decimal::new(-27_315, -2)));
    let text = one_device("{ name = 'a', address = 'holding:0', scale = 0.123456789012345678 }");
    assert_eq!(device(&text).points[0].scale, "0.123456789012345678".parse().unwrap());
}

#[test]
fn deadbands_in_percent_are_of_the_span() {
    let text = one_device(
        "{ name = 'a', address = 'holding:0', range = [-50, 150], deadband = '1%' },
         { name = 'b', address = 'holding:1', deadband = 0.5 },
         { name = 'c', address = 'holding:2', deadband = 0 }",
    );
    let deadbands: Vec<Deadband> = device(&text).points.iter().map(|p| p.deadband).collect();
    assert_eq!(deadbands, [Deadband::Absolute(2.0), Deadband::Absolute(0.5), Deadband::None]);
}

#[test]
fn serial_lines_get_retries() {
    let text = "[[device]]\nname = 'm'\ndriver = 'modbus'\nconnection = { transport = 'rtu', path = '/dev/ttyS0', unit_id = 1 }\n";
    assert_eq!(device(text).retries, 2);
    assert_eq!(device(&format!("{text}retries = 5\n")).retries, 5);
}

#[test]
fn layers_win_in_their_order_and_tables_merge() {
    let text = "
[defaults.device]
poll_interval = '2s'
response_timeout = '4s'
labels = { site = 'x', row = 1 }
[defaults.modbus]
response_timeout = '5s'
connection = { transport = 'tcp', port = 1502 }
[template.t]
poll_interval = '3s'
probe_interval = '9s'
[[device]]
name = 'a'
driver = 'modbus'
template = 't'
probe_interval = '8s'
connection = { host = 'h', unit_id = 7 }
labels = { row = 2 }
";
    let device = device(text);
    assert_eq!(device.poll_interval, Duration::from_secs(3));
    assert_eq!(device.response_timeout, Duration::from_secs(5));
    assert_eq!(device.probe_interval, Duration::from_secs(8));
    assert_eq!(device.connection, json!({ "transport": "tcp", "port": 1502, "host": "h", "unit_id": 7 }));
    assert_eq!(device.labels, [("site".into(), "x".into()), ("row".into(), "2".into())]);
}

#[test]
fn templates_take_variables_and_devices_override_by_name() {
    let text = format!(
        "
[template.t]
vars = {{ table = 'holding', first = 5 }}
points = [
  {{ name = 'u', address = '{{table}}:{{first}}', unit = 'V', description = 'of {{device}}, {{{{plain}}}}' }},
  {{ name = 'i', address = '{{table}}:6', bit = '{{first}}' }},
  {{ name = 'f', address = '{{table}}:7' }},
]
[[device]]
name = 'a'
driver = 'modbus'
{CONNECTION}template = 't'
vars = {{ table = 'input' }}
points = [
  {{ name = 'u', unit = 'kV', scale = 0.001 }},
  {{ name = 'f', enabled = false }},
  {{ name = 'own', address = '{{table}}:9' }},
]
"
    );
    let points = device(&text).points;
    let names: Vec<&str> = points.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["u", "i", "own"]);
    assert_eq!(*points[0].spec, json!({ "address": "input:5" }));
    assert_eq!((points[0].unit.as_str(), points[0].scale), ("kV", Decimal::new(1, -3)));
    assert_eq!(*points[0].metadata, json!({ "description": "of a, {plain}" }));
    assert_eq!(points[1].spec["bit"], json!(5), "a lone variable keeps its type");
    assert_eq!(*points[2].spec, json!({ "address": "input:9" }));
}

#[test]
fn repetition_of_points_and_of_templates() {
    let text = format!(
        "
[template.slot]
repeat = {{ count = 2, stride = 100, name = 'w{{n}}' }}
points = [
  {{ name = 'flag', address = 'holding:8', type = 'uint16' }},
  {{ name = 'x', address = 'holding:0x10', repeat = {{ count = 3, stride = 2, name = 'x{{n}}', start = 0 }} }},
  {{ name = 'fixed', address = 'coil:{{n}}' }},
]
blocks = [ {{ name = 'write', points = ['x*'], gate = {{ point = 'flag', equals = 1 }}, commit = {{ point = 'flag', value = 0 }}, writable = true }} ]
[[device]]
name = 'a'
driver = 'modbus'
{CONNECTION}templates = ['slot']
"
    );
    let device = device(&text);
    let points: Vec<(&str, &str)> =
        device.points.iter().map(|p| (p.name.as_str(), p.spec["address"].as_str().unwrap())).collect();
    assert_eq!(
        points,
        [
            ("w1_flag", "holding:8"),
            ("w1_x0", "holding:0x10"),
            ("w1_x1", "holding:0x12"),
            ("w1_x2", "holding:0x14"),
            ("w1_fixed", "coil:1"),
            ("w2_flag", "holding:108"),
            ("w2_x0", "holding:0x74"),
            ("w2_x1", "holding:0x76"),
            ("w2_x2", "holding:0x78"),
            ("w2_fixed", "coil:2"),
        ]
    );
    assert_eq!(device.blocks.len(), 2);
    assert_eq!((device.blocks[1].name.as_str(), &device.blocks[1].points), ("w2_write", &vec![6, 7, 8]));
    assert_eq!(device.blocks[1].gate, Some((5, json!(1))));
    assert_eq!(device.blocks[1].commit, Some((5, json!(0))));
}

#[test]
fn map_files_includes_and_their_relative_paths() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("plugins.toml", "[host]\nname = 's'\ninclude = ['conf.d/*.toml']\n");
    write(
        "conf.d/b.toml",
        &format!("[[device]]\nname = 'b'\ndriver = 'modbus'\n{CONNECTION}points = ['../maps/more.toml']\n"),
    );
    write(
        "conf.d/a.toml",
        &format!(
            "\u{feff}[template.t]\r\npoints = '../maps/t.csv'\r\n[[device]]\r\nname = 'a'\r\ndriver = 'modbus'\r\ntemplate = 't'\r\n{CONNECTION}"
        ),
    );
    write("conf.d/ignored.txt", "not toml");
    write(
        "maps/t.csv",
        "\u{feff}name;address;type;unit;scale;range;writable;bit;labels.phase;iec104.ioa\r\n\
         # voltages\r\n\
         u1;holding:0x2006;float32;V;0.1;0..300;;;L1;12\r\n\
         \r\n\
         \"on\";400123;;;;;true;3;;\r\n",
    );
    write(
        "maps/more.toml",
        "points = [ { name = 'x', address = 'coil:1' } ]\nblocks = [ { name = 'k', points = 'x' } ]\n",
    );
    let loaded = load(&dir.path().join("plugins.toml"), &Plugins::new(), &options());
    assert!(!loaded.failed(), "{}", loaded.render(false));
    let site = loaded.site.unwrap();
    assert_eq!(site.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let points = &site.devices[0].points;
    assert_eq!(*points[0].spec, json!({ "address": "holding:0x2006", "type": "float32" }));
    assert_eq!((points[0].scale, points[0].range), (Decimal::new(1, -1), Some([0.0, 300.0])));
    let limits = json!({ "range": [0.0, 300.0] });
    assert_eq!(*points[0].metadata, json!({ "labels": { "phase": "L1" }, "limits": limits }));
    assert_eq!(*points[1].spec, json!({ "address": "400123", "bit": 3 }));
    assert!(points[1].writable);
    assert_eq!(site.devices[1].blocks[0].points, [0]);
}

const GENERATED: &str = "
[template.bay]
points = [
  { name = 'pos', address = 'discrete:1', iec104 = { ioa = 12, type = 'M_DP_TB_1' } },
  { name = 'u', address = 'holding:1', iec104 = [ { ioa = 13, type = 'M_ME_NC_1' }, { ioa = 14, type = 'M_ME_TF_1', common_address = 9 } ] },
  { name = 'none', address = 'holding:2' },
]
[[device]]
name = 'bay-1'
driver = 'modbus'
template = 'bay'
connection = { transport = 'tcp', host = '127.0.0.1', unit_id = 1 }
iec104 = { ioa_base = 20000, common_address = 7 }
[[device]]
name = 'bay-2'
driver = 'modbus'
template = 'bay'
connection = { transport = 'tcp', host = '127.0.0.1', unit_id = 2 }
iec104 = { ioa_base = 30000, common_address = 7 }
points = [ { name = 'pos', iec104 = false } ]
";

#[test]
fn sink_maps_are_generated_and_overridden() {
    let text = format!(
        "{GENERATED}
[[sink]]
name = 'scada'
plugin = 'iec104'
settings = {{ listen = '0.0.0.0:2404', common_address = 1 }}
map = [ {{ point = 'bay-2/u', ioa = 5 }}, {{ point = '@host/clock_synced', ioa = 6 }} ]
"
    );
    let loaded = loaded(&text);
    let sink = &loaded.site.as_ref().unwrap().sinks[0];
    let maps: Vec<_> =
        sink.routes.iter().map(|route| (route.device, route.point, route.map.clone())).collect();
    assert_eq!(
        maps,
        [
            (
                0,
                0,
                vec![json!({ "point": "bay-1/pos", "common_address": 7, "ioa": 20012, "type": "M_DP_TB_1" })]
            ),
            (
                0,
                1,
                vec![
                    json!({ "point": "bay-1/u", "common_address": 7, "ioa": 20013, "type": "M_ME_NC_1" }),
                    json!({ "point": "bay-1/u", "common_address": 9, "ioa": 20014, "type": "M_ME_TF_1" })
                ]
            ),
            (1, 1, vec![json!({ "point": "bay-2/u", "ioa": 5 })]),
        ]
    );
    assert_eq!(sink.system[0].name, "@host/clock_synced");
    let list = loaded.map_list("scada").unwrap();
    assert_eq!(
        list,
        "point,unit,description,writable,common_address,ioa,type\n\
         bay-1/pos,,,false,7,20012,M_DP_TB_1\n\
         bay-1/u,,,false,7,20013,M_ME_NC_1\n\
         bay-1/u,,,false,9,20014,M_ME_TF_1\n\
         bay-2/u,,,false,,5,\n\
         @host/clock_synced,,,false,,6,\n"
    );
    assert_eq!(loaded.map_list("other"), None);
}

#[test]
fn globs_and_system_points() {
    let base =
        one_device("{ name = 'u_l1', address = 'holding:0' }, { name = 'i_l1', address = 'holding:2' }");
    let routes = |points: &str| {
        let text = format!(
            "{base}[[sink]]\nname = 's'\nplugin = 'mqtt'\nsettings = {{ url = 'mqtt://x' }}\n{points}\n"
        );
        let sink = sinks(&text).remove(0);
        let system: Vec<String> = sink.system.iter().map(|route| route.name.clone()).collect();
        (sink.routes.iter().map(|route| route.point).collect::<Vec<_>>(), system)
    };
    assert_eq!(routes(""), (vec![0, 1], vec!["m/@online".into()]));
    assert_eq!(routes("points = 'm'"), (vec![0, 1], vec!["m/@online".into()]));
    assert_eq!(routes("points = ['*/u_*']"), (vec![0], vec!["m/@online".into()]));
    assert_eq!(
        routes("points = ['m/i_l1', '@sink/s/pending', '*/@gap']"),
        (vec![1], vec!["m/@online".into(), "@sink/s/pending".into(), "m/@gap".into()])
    );
}

#[test]
fn keys_of_sinks() {
    let text = one_device("{ name = 'u', address = 'holding:0', writable = true, range = [0, 1] }")
        + "[[sink]]
name = 's'
plugin = 'mqtt'
send = 'interval'
every = '60s'
timestamp = 'received'
bad_value = 'null'
test = 'suppress'
history = true
max_silence = '1h'
queue = { max_size = '64MiB', max_age = '1d', in_flight = 10, retry = { initial = '2s', max = '3s' }, flush = { every = '10ms', records = 7 }, sync = 'checkpoint', replay_rate = 9, window = 300 }
reconnect = { max = '500ms' }
settings = { url = 'mqtt://x', commands = true, username = 'u', password = '${env:WORD}' }
map = [ { device = 'm', token = 'abc', name = 'Meter' } ]
";
    let sink = sinks(&text).remove(0);
    assert_eq!(sink.send, Send::Interval(Duration::from_secs(60)));
    assert_eq!(sink.timestamp, Timestamp::Received);
    assert_eq!((sink.bad_value.as_str(), sink.test.as_str(), sink.history), ("null", "suppress", true));
    assert_eq!(sink.max_silence, Some(Duration::from_secs(3600)));
    assert_eq!((sink.queue.max_bytes, sink.queue.in_flight), (64 << 20, 10));
    assert!(sink.queue.on_disk);
    assert_eq!((sink.queue.flush_every, sink.queue.flush_records), (Duration::from_millis(10), 7));
    assert_eq!((sink.queue.sync, sink.queue.order), (Sync::Checkpoint, Order::Fifo));
    assert_eq!((sink.queue.replay_rate, sink.queue.window), (Some(9), 300));
    assert_eq!(sink.queue.retry, Backoff { initial: Duration::from_secs(2), max: Duration::from_secs(3) });
    assert_eq!(
        sink.reconnect,
        Backoff { initial: Duration::from_millis(500), max: Duration::from_millis(500) }
    );
    assert!(sink.commands);
    assert_eq!(sink.settings["password"], json!("hunter2"));
    assert_eq!(sink.routes[0].map, [json!({ "device": "m", "token": "abc", "name": "Meter" })]);
}

/// A sink of writable points with these lines.
fn commanding(lines: &str) -> String {
    one_device("{ name = 'u', address = 'holding:0', writable = true, range = [0, 1] }")
        + "[[sink]]\nname = 's'\n"
        + lines
}

#[test]
fn the_sinks_commands_reach_a_plugin_that_knows_the_key() {
    let settings = "url = 'mqtt://x', username = 'u', password = 'p'";
    let sink = |lines: String| {
        let sink = sinks(&commanding(&lines)).remove(0);
        (sink.commands, sink.settings["commands"].clone())
    };
    let plain = format!("plugin = 'mqtt'\nsettings = {{ {settings} }}\n");
    assert_eq!(sink(plain.clone() + "commands = true"), (true, json!(true)));
    assert_eq!(sink(plain.clone() + "commands = false"), (false, json!(false)));
    assert_eq!(sink(plain), (false, json!(false)));
    let inner = format!("plugin = 'mqtt'\nsettings = {{ {settings}, commands = true }}\n");
    assert_eq!(sink(inner), (true, json!(true)));
    let other = "plugin = 'iec104'\nsettings = { listen = 'x', masters = ['a'] }\nmap = [{ point = 'm/u', ioa = 1 }]\ncommands = true";
    assert_eq!(sink(other.into()), (true, json!(null)), "this schema does not name the key");
}

#[test]
fn a_driver_and_a_sink_of_one_name_do_not_mix() {
    let devices = "[[device]]
name = 'm'
driver = 'twin'
connection = { transport = 'tcp', host = 'h', unit_id = 1 }
points = [{ name = 'u', address = 'holding:0' }]
[[sink]]
name = 's'
plugin = 'twin'
settings = { url = 'mqtt://x' }
";
    let table = |keys: &str| format!("{devices}[plugins.twin]\n{keys}\n");
    let text = table("path = '/x/driver.so'\nkind = 'driver'\nisolation = 'process'\nworkers = 2");
    let first = loaded(&text);
    let plugins = first.site.as_ref().unwrap().plugins.clone();
    let paths: Vec<_> = plugins.iter().map(|plugin| (plugin.kind, plugin.path.as_deref())).collect();
    assert_eq!(paths, [(PluginKind::Driver, Some("/x/driver.so")), (PluginKind::Sink, None)]);
    assert!(plugins.iter().all(|plugin| plugin.isolation == Isolation::Process && plugin.workers == 2));
    let second = loaded(&first.effective().unwrap());
    assert_eq!(second.site.unwrap().plugins, plugins, "{}", first.effective().unwrap());
    let text = table("path = '/x/driver.so'");
    let ambiguous = load_text(Path::new("plugins.toml"), &text, &Plugins::new(), &options());
    assert!(ambiguous.failed());
    assert_eq!(ambiguous.problems[0].found, "a driver and a sink named \"twin\"");
}

#[test]
fn metadata_tells_limits_decimals_and_the_device() {
    let text = "[[device]]
name = 'm'
driver = 'modbus'
description = 'feeder 1'
labels = { bay = 'E01', floor = 2 }
connection = { transport = 'tcp', host = 'h', unit_id = 1 }
points = [
  { name = 'u', address = 'holding:0', type = 'uint16', scale = 0.001, decimals = 1, range = [0, 300], description = 'U', labels = { phase = 'L1' } },
  { name = 'w', address = 'holding:1', type = 'uint16', writable = true, range = [0, 9], write_range = [1, 5] },
  { name = 'x', address = 'holding:2', type = 'uint16' },
]
";
    let device = device(text);
    let about = json!({ "description": "feeder 1", "labels": { "bay": "E01", "floor": "2" } });
    let metadata: Vec<_> = device.points.iter().map(|point| (*point.metadata).clone()).collect();
    assert_eq!(
        metadata,
        [
            json!({ "description": "U", "labels": { "phase": "L1" }, "decimals": 1,
                "limits": { "range": [0.0, 300.0] }, "device": about }),
            json!({ "limits": { "range": [0.0, 9.0], "write_range": [1.0, 5.0] }, "device": about }),
            json!({ "device": about }),
        ]
    );
    assert_eq!(device.points[0].scale, "0.001".parse().unwrap(), "decimals are for displays only");
    assert_eq!(
        *self::device(&one_device("{ name = 'u', address = 'holding:0' }")).points[0].metadata,
        json!(null)
    );
}

#[test]
fn decimals_have_a_span() {
    for (decimals, good) in [("0", true), ("15", true), ("16", false), ("-1", false), ("1.5", false)] {
        let text = one_device(&format!("{{ name = 'u', address = 'holding:0', decimals = {decimals} }}"));
        let loaded = load_text(Path::new("plugins.toml"), &text, &Plugins::new(), &options());
        assert_eq!(!loaded.failed(), good, "{decimals}");
    }
}

#[test]
fn files_of_plugins_start_at_the_main_file_and_must_be_readable() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), "x").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let text = |tls: &str| {
        one_device("{ name = 'u', address = 'holding:0' }")
            + &format!(
                "[[sink]]\nname = 's'\nplugin = 'mqtt'\nsettings = {{ url = 'mqtts://x', tls = {{ {tls} }} }}\n"
            )
    };
    let main = dir.path().join("plugins.toml");
    let load = |text: &str| load_text(&main, text, &Plugins::new(), &options());
    let good = load(&text("ca = 'ca.pem'"));
    assert!(good.problems.is_empty(), "{}", good.render(false));
    let ca = dir.path().join("ca.pem").display().to_string();
    assert_eq!(good.site.unwrap().sinks[0].settings["tls"]["ca"], json!(ca));
    let bad = load(&text("ca = 'nope.pem', cert = 'folder', key = '${env:WORD}'"));
    assert!(!bad.failed(), "warnings only: {}", bad.render(false));
    let found: Vec<_> =
        bad.problems.iter().map(|problem| (problem.key.as_str(), problem.found.as_str())).collect();
    let nope = dir.path().join("nope.pem").display().to_string() + ": no such file";
    let folder = dir.path().join("folder").display().to_string() + ": is a directory";
    assert_eq!(
        found,
        [
            ("sink[s].settings.tls.ca", nope.as_str()),
            ("sink[s].settings.tls.cert", folder.as_str()),
            ("sink[s].settings.tls.key", "the file behind a reference: no such file"),
        ]
    );
    assert!(bad.problems.iter().all(|problem| problem.line > 0 && !problem.suggestion.is_empty()));
    let admin = "[host.admin]\nlisten = '127.0.0.1:0'\ntls = { cert = 'ca.pem', key = 'nope.pem' }\n"
        .to_owned()
        + &one_device("{ name = 'u', address = 'holding:0' }");
    let admin = load(&admin);
    assert_eq!(admin.problems.len(), 1, "{}", admin.render(false));
    assert_eq!(
        (admin.problems[0].key.as_str(), admin.problems[0].found.as_str()),
        ("host.admin.tls.key", nope.as_str())
    );
}

#[test]
fn one_host_in_two_lists_is_a_warning() {
    let text = |one: &str, two: &str| {
        ["a", "b"]
            .iter()
            .zip([one, two])
            .map(|(name, connection)| {
                format!(
                    "[[device]]\nname = '{name}'\ndriver = 'modbus'\nconnection = {{ transport = 'tcp', unit_id = 1, {connection} }}\npoints = [{{ name = 'u', address = 'holding:0' }}]\n"
                )
            })
            .collect::<String>()
    };
    for (one, two, warned) in [
        ("host = ['x', 'y']", "host = 'x'", true),
        ("host = ['x', 'y']", "host = ['y', 'x']", true),
        ("host = ['x', 'y'], port = 502", "host = 'Y'", true),
        ("host = ['x', 'y']", "host = ['x', 'y']", false),
        ("host = ['x', 'y'], port = 503", "host = 'x'", false),
        ("host = 'x'", "host = 'y'", false),
    ] {
        let loaded = load_text(Path::new("plugins.toml"), &text(one, two), &Plugins::new(), &options());
        assert!(!loaded.failed());
        let keys: Vec<_> = loaded.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, if warned { vec!["device[b].connection.host"] } else { vec![] }, "{one} {two}");
    }
}

#[test]
fn a_queue_is_on_disk_where_the_plugin_or_the_configuration_says_so() {
    let queue = |plugin: &str, queue: &str| {
        let settings = if plugin == "mqtt" { "url = 'mqtt://x'" } else { "listen = '0.0.0.0:2404'" };
        let text =
            format!("[[sink]]\nname = 's'\nplugin = '{plugin}'\nsettings = {{ {settings} }}\n{queue}\n");
        let loaded = load_text(Path::new("plugins.toml"), &text, &Plugins::new(), &options());
        let wrong = loaded.problems.iter().any(|problem| problem.key.as_str() == "sink[s].queue.order");
        (loaded.site.map(|site| site.sinks[0].queue), wrong)
    };
    assert!(queue("mqtt", "").0.unwrap().on_disk);
    assert!(!queue("iec104", "").0.unwrap().on_disk);
    assert!(queue("iec104", "queue = {}").0.unwrap().on_disk);
    let (durable, wrong) = queue("mqtt", "queue = { order = 'live-first' }");
    assert_eq!((durable.unwrap().order, wrong), (Order::LiveFirst, false));
    assert!(queue("iec104", "queue = { order = 'live-first' }").1);
}

#[test]
fn a_refused_plugin_is_not_taken_for_a_misspelling_of_itself() {
    struct Refused;
    impl busbar_config::PluginInfo for Refused {
        fn describe(&self, _: PluginKind, _: &str) -> Option<&busbar_contract::Describe> {
            None
        }
        fn check(
            &self,
            _: PluginKind,
            _: &str,
            _: &busbar_contract::CheckInput,
        ) -> Result<Vec<busbar_contract::Problem>, String> {
            Err("refused".into())
        }
        fn why_absent(&self, _: PluginKind, _: &str) -> Option<String> {
            Some("built for another ABI".into())
        }
        fn names(&self, _: PluginKind) -> Vec<String> {
            vec!["modbus".into()]
        }
    }
    let text = one_device("{ name = 'u', address = 'holding:0' }");
    let loaded = load_text(Path::new("plugins.toml"), &text, &Refused, &options());
    assert_eq!(loaded.problems[0].found, "\"modbus\": built for another ABI");
    assert_eq!(loaded.problems[0].suggestion, "its file is there but cannot be used; replace the file");
}

const SECRETS: &str = "
[host]
name = '${env:SITE}'
[[device]]
name = 'm'
driver = 'modbus'
connection = { transport = 'tcp', host = '${env:WORD}', unit_id = 1 }
description = 'braces {{}} and $${env:X}'
labels = { site = 'west' }
stale_after = '7s'
invalid_after = '1m'
points = [
  { name = 'u', address = 'holding:0x2006', type = 'float32', scale = 0.1, decimals = 2, unit = '{{%}}', deadband = '1%', range = [0, 300] },
  { name = 'b', address = 'coil:1', type = 'bool', invert = true, writable = true, interlock = { point = 'm/u', equals = 1.5 }, class = 'event', labels = { a = '{{x}}' } },
]
blocks = [ { name = 'k', points = '*', gate = { point = 'u', equals = 'x' } } ]
[[sink]]
name = 's'
plugin = 'mqtt'
points = ['m/*', '@host/clock_synced']
settings = { url = 'mqtt://me:indiscreet@x', username = 'me', password = 'openly', pin = '1234', topic = 'a/{host}/$${x}' }
commands = true
queue = { sync = 'checkpoint', flush = { every = '20ms', records = 500 }, order = 'fifo', replay_rate = 2000 }
map = [ { device = 'm', token = 'sesame' }, { point = 'm/u', key = 'U' } ]
[[sink]]
name = 't'
plugin = 'iec104'
settings = { listen = '0.0.0.0:2404' }
map = [ { point = 'm/u', ioa = 1 } ]
";

#[test]
fn the_effective_configuration_hides_secrets_and_reads_back() {
    let first = loaded(SECRETS);
    let text = first.effective().unwrap();
    for secret in ["hunter2", "openly", "1234", "sesame", "indiscreet"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    for shown in [
        "name = \"${env:SITE}\"",
        "host = \"${env:WORD}\"",
        "password = \"***\"",
        "pin = \"***\"",
        "username = \"me\"",
        "poll_interval = \"1s\"",
        "deadband = 3.0",
        "url = \"mqtt://me:***@x\"",
        "max_size = \"256MiB\"",
        "flush = { every = \"20ms\", records = 500 }, sync = \"checkpoint\", order = \"fifo\", replay_rate = 2000",
        "\nstale_after = \"7s\"\ninvalid_after = \"1m\"\n",
        "\ncommands = true\n",
        "decimals = 2",
    ] {
        assert!(text.contains(shown), "{shown} not in\n{text}");
    }
    let second = loaded(&text);
    let mut expected = first.site.unwrap();
    expected.sinks[0].settings["password"] = MASK.into();
    expected.sinks[0].settings["pin"] = MASK.into();
    expected.sinks[0].settings["url"] = "mqtt://me:***@x".into();
    for route in &mut expected.sinks[0].routes {
        for entry in route.map.iter_mut().filter(|entry| entry["token"].is_string()) {
            entry["token"] = MASK.into();
        }
    }
    assert_eq!(second.site.as_ref(), Some(&expected));
    assert_eq!(second.effective().unwrap(), text, "a fixed point");
}

#[test]
fn debug_output_of_a_loaded_configuration_shows_no_secret() {
    let loaded = loaded(SECRETS);
    let shown = format!("{loaded:?} {:?}", loaded.sources);
    assert!(!shown.contains("hunter2") && !shown.contains("openly"), "{shown}");
}

#[test]
fn an_absent_plugin_is_a_warning_unless_strict() {
    let text = one_device("{ name = 'u', address = 'anything at all', own_key = 5 }");
    let path = Path::new("plugins.toml");
    let loaded = load_text(path, &text, &NoPlugins, &Options::default());
    assert!(!loaded.failed());
    assert_eq!(loaded.problems.len(), 1, "{}", loaded.render(false));
    assert_eq!(loaded.site.unwrap().devices[0].points[0].spec["own_key"], json!(5));
    let strict = load_text(path, &text, &NoPlugins, &Options { strict: true, env: None });
    assert!(strict.failed());
}

#[test]
fn a_plugin_that_cannot_be_asked_is_a_warning() {
    let mut plugins = Plugins::new();
    plugins.silent = true;
    let text = one_device("{ name = 'u', address = 'holding:0' }");
    let loaded = load_text(Path::new("plugins.toml"), &text, &plugins, &options());
    assert!(!loaded.failed());
    assert_eq!(loaded.problems[0].found, "the probe did not answer within 5s");
}

fn large(devices: usize, points: usize) -> String {
    let mut text = String::from("[template.t]\npoints = [\n");
    for n in 0..points {
        let _ = writeln!(
            text,
            "  {{ name = 'p{n}', address = 'holding:{n}', type = 'float32', unit = 'V', scale = 0.1, range = [0, 400], description = '{{device}} {n}', iec104 = {{ ioa = {} }} }},",
            n + 1
        );
    }
    text.push_str("]\n[[sink]]\nname = 's'\nplugin = 'mqtt'\nsettings = { url = 'mqtt://x' }\n");
    text.push_str("[[sink]]\nname = 'scada'\nplugin = 'iec104'\nsettings = { listen = '0.0.0.0:2404' }\n");
    for n in 0..devices {
        let _ = write!(
            text,
            "[[device]]\nname = 'd{n}'\ndriver = 'modbus'\ntemplate = 't'\niec104 = {{ ioa_base = {} }}\nconnection = {{ transport = 'tcp', host = '10.0.0.{}', unit_id = 1 }}\n",
            n * 1000,
            n % 250
        );
    }
    text
}

#[test]
fn two_hundred_devices_with_three_hundred_points_load_quickly() {
    let text = large(200, 300);
    let start = Instant::now();
    let loaded = loaded(&text);
    let took = start.elapsed();
    assert_eq!(loaded.site.unwrap().sinks[0].routes.len(), 60_000);
    println!("60,000 points in {took:?}");
    // Well under a second in release; unoptimised on a busy machine far more is allowed.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn one_mistake_in_a_template_is_one_problem() {
    let text = large(50, 3).replace("'holding:1'", "'holdin:1'");
    let loaded = load_text(Path::new("plugins.toml"), &text, &Plugins::new(), &options());
    assert_eq!(loaded.problems.len(), 1, "{}", loaded.render(false));
    assert_eq!(loaded.problems[0].repeated, 49);
}

#[test]
fn the_schema_accepts_the_sample_and_refuses_a_misspelt_key() {
    let schema = schema(&Plugins::new());
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::options().build(&schema).unwrap();
    let errors = |text: &str| -> Vec<String> {
        let value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    for good in [&*design_sample(), SECRETS, GENERATED, &large(2, 3)] {
        assert_eq!(errors(good), Vec::<String>::new());
    }
    for (from, to) in [
        ("poll_interval = ", "pol_interval = "),
        ("data_dir", "datadir"),
        ("unit = ", "unti = "),
        ("unit_id = ", "unitid = "),
        ("format = \"json\"", "fromat = \"json\""),
        ("ioa = ", "iao = "),
        ("type = \"float32\"", "tpye = \"float32\""),
        ("send = \"every\"", "send = \"evry\""),
        ("anonymous_read", "anonymous"),
        ("isolation = ", "isolatoin = "),
        ("response_timeout = \"3s\"", "response_timeout = 3"),
    ] {
        assert!(DESIGN_SAMPLE.contains(from), "{from}");
        let bad = DESIGN_SAMPLE.replacen(from, to, 1);
        assert!(!errors(&bad).is_empty(), "{to} was accepted");
    }
}

#[test]
fn every_host_key_in_the_schema_has_a_description() {
    fn walk(schema: &serde_json::Value, at: &str, missing: &mut Vec<String>) {
        let properties = schema.get("properties").and_then(|properties| properties.as_object());
        for (key, value) in properties.into_iter().flatten() {
            if value.get("description").is_none() {
                missing.push(format!("{at}.{key}"));
            }
            walk(value, &format!("{at}.{key}"), missing);
        }
    }
    let schema = schema(&NoPlugins);
    let mut missing = Vec::new();
    walk(&schema, "", &mut missing);
    for def in ["host", "device", "template", "sink", "point"] {
        walk(&schema["$defs"][def], def, &mut missing);
    }
    assert!(missing.is_empty(), "{missing:?}");
}
