//! A random small plant whose sinks have their queues on disk.

use std::time::Duration;

use busbar_contract::describe::PluginKind;
use busbar_core::model::*;

use crate::common::plugin;
use crate::rng::Rng;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Plugin 0 is the driver, 1 the sink.
pub(crate) fn site(rng: &mut Rng) -> Site {
    let long = Duration::from_secs(7200);
    let devices: Vec<Device> = (0..rng.range(1, 5))
        .map(|at| Device {
            name: format!("d{at}"),
            driver: "drv".into(),
            reconnect: Backoff { initial: ms(50), max: ms(200) },
            probe_interval: long,
            points: (0..rng.range(1, 5))
                .map(|at| Point {
                    name: format!("p{at}"),
                    unit: "V".into(),
                    poll_interval: long,
                    stale_after: long,
                    invalid_after: long,
                    ..Point::default()
                })
                .collect(),
            ..Device::default()
        })
        .collect();
    let sinks = (0..rng.range(1, 3)).map(|at| sink(rng, at, &devices)).collect();
    Site {
        plugins: vec![plugin("drv", PluginKind::Driver), plugin("snk", PluginKind::Sink)],
        devices,
        sinks,
        ..Site::default()
    }
}

fn sink(rng: &mut Rng, at: u64, devices: &[Device]) -> Sink {
    let mut routes = Vec::new();
    for (at, device) in devices.iter().enumerate() {
        for point in 0..device.points.len() {
            routes.push(Route { device: at, point, map: Vec::new() });
        }
    }
    Sink {
        name: format!("s{at}"),
        plugin: "snk".into(),
        history: true,
        queue: Queue {
            on_disk: true,
            in_flight: rng.range(1, 40) as usize,
            retry: Backoff { initial: ms(50), max: ms(400) },
            flush_every: ms(*rng.pick(&[20, 50, 200])),
            flush_records: rng.range(1, 60) as usize,
            order: if rng.chance(35) { Order::LiveFirst } else { Order::Fifo },
            replay_rate: rng.chance(20).then(|| rng.range(100, 1000) as u32),
            window: rng.range(4, 120) as usize,
            ..Queue::default()
        },
        reconnect: Backoff { initial: ms(50), max: ms(500) },
        routes,
        ..Sink::default()
    }
}

/// The same plant after somebody edited its configuration.
pub(crate) fn edited(rng: &mut Rng, site: &Site) -> Site {
    let mut site = site.clone();
    let sinks = site.sinks.len() as u64;
    match rng.below(3) {
        0 => {
            let sink = &mut site.sinks[rng.below(sinks) as usize];
            if sink.routes.len() > 1 {
                sink.routes.remove(rng.below(sink.routes.len() as u64) as usize);
            }
        }
        1 => {
            let device = rng.below(site.devices.len() as u64) as usize;
            site.devices[device].points[0].unit = format!("V{}", rng.below(3));
        }
        _ => {
            let sink = &mut site.sinks[rng.below(sinks) as usize];
            sink.queue.window = rng.range(4, 120) as usize;
        }
    }
    site
}
