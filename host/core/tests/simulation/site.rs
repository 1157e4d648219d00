//! A random small plant.

use std::time::Duration;

use busbar_contract::{Endpoint, describe::PluginKind};
use busbar_core::model::*;

use crate::common::plugin;
use crate::rng::Rng;

pub(crate) struct Plant {
    pub(crate) site: Site,
    /// Endpoint of each device.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Per plugin: durable sink.
    pub(crate) durable: Vec<bool>,
    /// Per sink: never rejects, never overflows.
    pub(crate) strict: Vec<bool>,
    /// Per device: always healthy, on an endpoint of its own, in the quiet plugin.
    pub(crate) healthy: Vec<bool>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Plugin 0 is the quiet driver, 1 the wild driver, 2 the durable sink, 3 the other sink.
pub(crate) fn plant(rng: &mut Rng) -> Plant {
    let plugins = vec![
        plugin("quiet", PluginKind::Driver),
        plugin("wild", PluginKind::Driver),
        plugin("durable", PluginKind::Sink),
        plugin("live", PluginKind::Sink),
    ];
    let mut devices = Vec::new();
    let mut endpoints = Vec::new();
    let mut healthy = Vec::new();
    let count = rng.range(2, 7);
    for index in 0..count {
        let quiet = index == 0 || rng.chance(20);
        let driver = if quiet { "quiet" } else { "wild" };
        devices.push(device(rng, index, driver));
        let shared = !quiet && rng.chance(35);
        let key = match (shared, rng.chance(15)) {
            (true, _) => "line".to_owned(),
            (false, true) if index > 0 => "common".to_owned(),
            _ => format!("tcp:{index}"),
        };
        healthy.push(index == 0);
        let exclusive = key == "common" && rng.chance(50);
        let parallel = if key == "line" { 1 } else { rng.range(1, 4) as u32 };
        endpoints.push(Endpoint { key, exclusive, parallel, lock_path: None });
    }
    let mut sinks = Vec::new();
    let mut strict = Vec::new();
    for (name, plugin, is_strict) in [
        ("safe", "durable", true),
        ("mild", "live", true),
        ("rough", "durable", false),
        ("tight", "live", false),
    ] {
        if !is_strict && rng.chance(40) {
            continue;
        }
        sinks.push(sink(rng, name, plugin, is_strict, &devices));
        strict.push(is_strict);
    }
    let host = Host {
        name: "sim".into(),
        resync_parallel: *rng.pick(&[1, 2, 20]),
        select_timeout: ms(rng.range(500, 3000)),
        ..Host::default()
    };
    let site = Site { host, plugins, devices, sinks };
    Plant { site, endpoints, durable: vec![false, false, true, false], strict, healthy }
}

fn device(rng: &mut Rng, index: u64, driver: &str) -> Device {
    let poll = *rng.pick(&[100, 200, 500, 1000]);
    let name = format!("d{index}");
    let count = if index == 0 { rng.range(1, 6) } else { rng.range(0, 6) };
    let points = (0..count)
        .map(|at| {
            let interval = if rng.chance(25) { poll * 2 } else { poll };
            let stale = interval * 3 + 500;
            Point {
                name: format!("p{at}"),
                writable: at % 2 == 0,
                event: at % 3 == 2,
                poll_interval: ms(interval),
                stale_after: ms(stale),
                invalid_after: ms(stale * 3),
                write_range: (at == 0).then_some([0.0, 1e15]),
                interlock: (at == 4)
                    .then(|| Interlock { point: format!("{name}/p1"), equals: serde_json::json!(-1) }),
                ..Point::default()
            }
        })
        .collect::<Vec<_>>();
    let blocks = if points.len() > 2 {
        vec![Block { name: "b".into(), points: vec![0, 2], gate: None, commit: None, writable: true }]
    } else {
        Vec::new()
    };
    Device {
        name,
        driver: driver.into(),
        poll_interval: ms(poll),
        response_timeout: ms(rng.range(200, 500)),
        retries: rng.below(2) as u32,
        probe_interval: ms(rng.range(500, 1500)),
        reconnect: Backoff { initial: ms(200), max: ms(1500) },
        max_skew: rng.chance(20).then(|| Duration::from_secs(3600)),
        gateway_time: rng.chance(10),
        integrity: ms(if rng.chance(50) { 1000 } else { 0 }),
        points,
        blocks,
        ..Device::default()
    }
}

fn sink(rng: &mut Rng, name: &str, plugin: &str, strict: bool, devices: &[Device]) -> Sink {
    let mut routes = Vec::new();
    let mut system = Vec::new();
    for (at, device) in devices.iter().enumerate() {
        for point in 0..device.points.len() {
            if strict || rng.chance(70) {
                routes.push(Route { device: at, point, map: Vec::new() });
            }
        }
        system.push(SystemRoute { name: format!("{}/@online", device.name), map: Vec::new() });
        system.push(SystemRoute { name: format!("{}/@gap", device.name), map: Vec::new() });
    }
    let send = match rng.below(3) {
        0 => Send::Every,
        1 => Send::Changes,
        _ => Send::Interval(ms(700)),
    };
    let queue = if strict {
        Queue { in_flight: 200, ..Queue::default() }
    } else {
        Queue {
            max_bytes: rng.range(500, 20_000),
            max_age: Duration::from_secs(rng.range(1, 20)),
            in_flight: rng.range(1, 60) as usize,
            retry: Backoff { initial: ms(50), max: ms(500) },
            ..Queue::default()
        }
    };
    // Faults of files are the other simulation's.
    let on_disk = plugin == "durable" && rng.chance(60);
    let queue = Queue { on_disk, window: rng.range(20, 2000) as usize, ..queue };
    Sink {
        name: name.into(),
        plugin: plugin.into(),
        send,
        queue,
        reconnect: Backoff { initial: ms(100), max: ms(1000) },
        routes,
        system,
        commands: name == "safe" || rng.chance(50),
        history: rng.chance(50),
        ..Sink::default()
    }
}
