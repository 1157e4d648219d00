//! A random site: one model driver with a few endpoints, one absent driver, a durable and a volatile sink.

use std::time::Duration;

use busbar_core::model::{
    Backoff, Block, Device, Host, Interlock, Isolation, Plugin, PluginKind, Point, Queue, Route, Send, Sink,
    Site, SystemRoute,
};
use serde_json::json;

use crate::rng::Rng;

/// Index of the model driver.
pub(crate) const DRIVER: usize = 0;
/// Index of the driver that is never there.
pub(crate) const GHOST: usize = 1;
/// Index of the plugin of the durable sink.
pub(crate) const DURABLE: usize = 2;
/// Index of the plugin of the volatile sink.
pub(crate) const VOLATILE: usize = 3;

const MS: fn(u64) -> Duration = Duration::from_millis;

pub(crate) fn site(rng: &mut Rng) -> Site {
    let mut devices: Vec<Device> = (0..rng.between(1, 5)).map(|n| device(rng, n)).collect();
    if rng.one_in(4) {
        devices.push(Device { driver: "ghost".into(), ..device(rng, 90) });
    }
    let routes: Vec<Route> = devices
        .iter()
        .enumerate()
        .flat_map(|(device, d)| (0..d.points.len()).map(move |point| Route { device, point, map: vec![] }))
        .collect();
    let system: Vec<SystemRoute> =
        devices.iter().map(|d| SystemRoute { name: format!("{}/@online", d.name), map: vec![] }).collect();
    let send = if rng.one_in(2) { Send::Every } else { Send::Changes };
    let sink = |name: &str, send, queue| Sink {
        name: name.into(),
        plugin: name.into(),
        send,
        queue,
        routes: routes.clone(),
        system: system.clone(),
        commands: true,
        reconnect: Backoff { initial: MS(200), max: MS(2_000) },
        ..Sink::default()
    };
    let in_flight = rng.between(20, 2_000) as usize;
    let queue = Queue { in_flight, retry: Backoff { initial: MS(100), max: MS(1_000) }, ..Queue::default() };
    let sinks = vec![sink("durable", Send::Every, queue), sink("volatile", send, queue)];
    let plugin = |name: &str, kind| Plugin {
        name: name.into(),
        kind,
        path: None,
        sha256: None,
        isolation: Isolation::InProcess,
        workers: 1,
    };
    Site {
        host: Host { name: "sim".into(), resync_parallel: rng.between(1, 20) as u32, ..Host::default() },
        plugins: vec![
            plugin("sim", PluginKind::Driver),
            plugin("ghost", PluginKind::Driver),
            plugin("durable", PluginKind::Sink),
            plugin("volatile", PluginKind::Sink),
        ],
        devices,
        sinks,
    }
}

fn device(rng: &mut Rng, n: u64) -> Device {
    let interval = MS(*rng.pick(&[100, 200, 500, 1_000]));
    let slow = interval * 3;
    let points = (0..rng.between(1, 8))
        .map(|p| {
            let poll_interval = if rng.one_in(4) { slow } else { interval };
            let stale_after = (poll_interval * 3).max(Duration::from_secs(3));
            Point {
                name: format!("p{p}"),
                spec: json!({ "address": p }),
                writable: p < 2,
                write_range: Some([0.0, 1e12]),
                poll_interval,
                stale_after,
                invalid_after: stale_after * 10,
                interlock: (p == 1)
                    .then(|| Interlock { point: format!("d{n}/p0"), equals: json!(-1.0) })
                    .filter(|_| rng.one_in(8)),
                ..Point::default()
            }
        })
        .collect::<Vec<_>>();
    let blocks = vec![Block {
        name: "all".into(),
        points: (0..points.len()).collect(),
        gate: None,
        commit: None,
        writable: false,
    }];
    Device {
        name: format!("d{n}"),
        driver: "sim".into(),
        connection: json!({ "endpoint": rng.between(0, 2), "unit": n }),
        poll_interval: interval,
        response_timeout: MS(*rng.pick(&[100, 300, 1_000])),
        retries: rng.between(0, 1) as u32,
        probe_interval: MS(2_000),
        reconnect: Backoff { initial: MS(200), max: MS(2_000) },
        points,
        blocks,
        ..Device::default()
    }
}
