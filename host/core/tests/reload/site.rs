//! A random configuration, and random changes to it.

use std::sync::Arc;
use std::time::Duration;

use busbar_core::model::*;
use serde_json::json;

use crate::common::plugin;
use crate::rng::Rng;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn point(rng: &mut Rng, name: String) -> Point {
    let interval = *rng.pick(&[200, 500, 1000]);
    Point {
        name,
        spec: json!({ "address": rng.below(3) }).into(),
        poll_interval: ms(interval),
        stale_after: ms(interval * 3 + 500),
        invalid_after: ms(interval * 9),
        writable: rng.chance(30),
        event: rng.chance(20),
        unit: (*rng.pick(&["", "V"])).into(),
        ..Point::default()
    }
}

fn device(rng: &mut Rng, name: &str) -> Device {
    let count = rng.range(1, 5);
    Device {
        name: name.into(),
        driver: (*rng.pick(&["one", "one", "two"])).into(),
        connection: json!({ "host": (*rng.pick(&["line", "line", name])), "unit": rng.below(2) }),
        response_timeout: ms(300),
        probe_interval: ms(1000),
        reconnect: Backoff { initial: ms(200), max: ms(1000) },
        integrity: ms(1000),
        points: (0..count).map(|at| point(rng, format!("p{at}"))).collect(),
        ..Device::default()
    }
}

fn sink(rng: &mut Rng, name: &str) -> Sink {
    Sink {
        name: name.into(),
        plugin: (*rng.pick(&["durable", "durable", "live"])).into(),
        reconnect: Backoff { initial: ms(100), max: ms(500) },
        queue: Queue { in_flight: 100, ..Queue::default() },
        ..Sink::default()
    }
}

/// The devices that may exist, beside the quiet one.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(crate) fn first(rng: &mut Rng) -> Site {
    let mut quiet = device(rng, "quiet");
    quiet.driver = "still".into();
    quiet.connection = json!({ "host": "quiet" });
    let mut site = Site { devices: vec![quiet], ..Site::default() };
    site.host.reload_timeout = ms(4_000);
    for name in NAMES.into_iter().take(3) {
        let device = device(rng, name);
        site.devices.push(device);
    }
    site.sinks = vec![sink(rng, "s"), sink(rng, "t")];
    finish(rng, &mut site);
    site
}

/// What follows from the rest: plugins and routes.
fn finish(rng: &mut Rng, site: &mut Site) {
    site.plugins = vec![plugin("still", PluginKind::Driver)];
    for name in ["one", "two"] {
        if site.devices.iter().any(|device| device.driver == name) {
            site.plugins.push(plugin(name, PluginKind::Driver));
        }
    }
    for name in ["durable", "live"] {
        if site.sinks.iter().any(|sink| sink.plugin == name) {
            site.plugins.push(plugin(name, PluginKind::Sink));
        }
    }
    let names: Vec<(String, usize)> =
        site.devices.iter().map(|device| (device.name.clone(), device.points.len())).collect();
    for sink in &mut site.sinks {
        let skip = rng.below(4) as usize;
        sink.routes.clear();
        for (device, (_, points)) in names.iter().enumerate() {
            let routed = (0..*points).filter(|point| (device + point) % 4 != skip);
            sink.routes.extend(routed.map(|point| Route { device, point, map: Vec::new() }));
        }
        sink.system = names
            .iter()
            .map(|(name, _)| SystemRoute { name: format!("{name}/@online"), map: Vec::new() })
            .collect();
    }
}

/// Another configuration: some changes, of which few cannot run. The quiet device is left alone.
pub(crate) fn mutate(rng: &mut Rng, site: &Site) -> Site {
    let mut new = site.clone();
    for _ in 0..rng.range(1, 4) {
        change(rng, &mut new);
    }
    finish(rng, &mut new);
    new
}

fn change(rng: &mut Rng, site: &mut Site) {
    let count = site.devices.len();
    let any = 1 + rng.below(count.saturating_sub(1).max(1) as u64) as usize;
    match rng.below(14) {
        0 => {
            let name = *rng.pick(&NAMES);
            if !site.devices.iter().any(|device| device.name == name) {
                let device = device(rng, name);
                site.devices.push(device);
            }
        }
        1 if count > 2 => drop(site.devices.remove(any)),
        2 => {
            let name = *rng.pick(&["s", "t", "u"]);
            match site.sinks.iter().position(|sink| sink.name == name) {
                Some(at) if site.sinks.len() > 1 => drop(site.sinks.remove(at)),
                Some(_) => {}
                None => {
                    let sink = sink(rng, name);
                    site.sinks.push(sink);
                }
            }
        }
        3 => {
            let at = rng.below(site.sinks.len() as u64) as usize;
            site.sinks[at].settings = json!({ "version": rng.below(100), "poison": rng.chance(15) });
        }
        4 => {
            let at = rng.below(site.sinks.len() as u64) as usize;
            site.sinks[at].send = *rng.pick(&[Send::Every, Send::Changes, Send::Interval(ms(300))]);
        }
        _ if any >= count => {}
        5 => {
            site.devices[any].connection =
                json!({ "host": (*rng.pick(&["line", "other"])), "unit": rng.below(3) })
        }
        6 => site.devices[any].connection["poison"] = json!(rng.chance(40)),
        7 => site.devices[any].paused ^= true,
        8 => site.devices[any].enabled ^= true,
        9 => site.devices[any].response_timeout = ms(rng.range(200, 400)),
        10 => {
            let name = format!("q{}", rng.below(4));
            if site.devices[any].points.iter().all(|point| point.name != name) {
                let point = point(rng, name);
                site.devices[any].points.push(point);
            }
        }
        11 if site.devices[any].points.len() > 1 => {
            let at = rng.below(site.devices[any].points.len() as u64) as usize;
            site.devices[any].points.remove(at);
        }
        _ => {
            let at = rng.below(site.devices[any].points.len() as u64) as usize;
            let point = &mut site.devices[any].points[at];
            match rng.below(6) {
                0 => point.spec = json!({ "address": rng.below(5), "poison": rng.chance(15) }).into(),
                1 => point.poll_interval = ms(*rng.pick(&[200, 500, 1000])),
                2 => point.unit = (*rng.pick(&["", "V", "A"])).into(),
                3 => point.scale = busbar_core::decimal::Decimal::ONE,
                4 => point.range = Some([0.0, 1e18]),
                _ => point.writable ^= true,
            }
        }
    }
}

/// Everything that cannot run is taken out.
pub(crate) fn cure(site: &mut Site) {
    for device in site.devices.iter_mut().skip(1) {
        device.connection["poison"] = json!(false);
        for point in &mut device.points {
            Arc::make_mut(&mut point.spec)["poison"] = json!(false);
        }
    }
    for sink in &mut site.sinks {
        sink.settings["poison"] = json!(false);
    }
}
