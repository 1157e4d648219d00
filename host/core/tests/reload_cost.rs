//! What a reload of a large site costs the core thread: a report, not a timed test (`cargo test --release -p busbar-core
//! --test reload_cost -- --nocapture`), and a check that what was given is what runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use busbar_contract::{Endpoint, Origin, describe::PluginKind};
use busbar_core::{
    Core, Input, Now, Output, Switches, model::*, output::Reply, reload::Difference, reload::Outcome,
    reload::Reload,
};
use serde_json::json;

mod common;

use common::plugin;

const DEVICES: usize = 200;
const POINTS: usize = 300;

fn device(number: usize) -> Device {
    let point = |at: usize| Point {
        name: format!("some_quantity_{at}"),
        spec: json!({ "address": format!("holding:{}", 2 * at), "type": "float32" }).into(),
        unit: "kWh".into(),
        metadata: json!({ "description": format!("Quantity {at} of the meter") }).into(),
        ..Point::default()
    };
    Device {
        name: format!("meter-{number:03}"),
        driver: "drv".into(),
        connection: json!({ "transport": "tcp", "host": format!("10.0.0.{number}"), "unit_id": 1 }),
        points: (0..POINTS).map(point).collect(),
        ..Device::default()
    }
}

fn site(devices: usize) -> Site {
    let devices: Vec<Device> = (0..devices).map(device).collect();
    let routes = (0..devices.len())
        .flat_map(|device| (0..POINTS).map(move |point| Route { device, point, map: vec![] }));
    let sink = |name: &str, routes: Vec<Route>| Sink {
        name: name.into(),
        plugin: "snk".into(),
        routes,
        ..Sink::default()
    };
    let routes: Vec<Route> = routes.collect();
    Site {
        plugins: vec![plugin("drv", PluginKind::Driver), plugin("snk", PluginKind::Sink)],
        sinks: vec![sink("broker", routes.clone()), sink("ems", routes)],
        devices,
        ..Site::default()
    }
}

/// Nothing but the core decides here: the plugins are absent, so nothing must prove itself.
fn reload(core: &mut Core, new: &Site) -> (Outcome, Duration) {
    let endpoints: BTreeMap<String, Result<Endpoint, String>> = BTreeMap::new();
    let absent = vec![(PluginKind::Driver, "drv".to_owned()), (PluginKind::Sink, "snk".to_owned())];
    let reload = Reload { id: 1, site: Box::new(new.clone()), endpoints, absent, origin: Origin::default() };
    let (mut out, input) = (Vec::new(), Input::Reload(Box::new(reload)));
    let begun = Instant::now();
    core.step(Now::default(), input, &mut out);
    let spent = begun.elapsed();
    let outcome = out.iter().find_map(|output| match output {
        Output::Reply { reply: Reply::Reload(summary), .. } => Some(summary.outcome),
        _ => None,
    });
    (outcome.unwrap(), spent)
}

#[test]
fn a_large_site_is_reloaded_and_what_it_costs_is_said() {
    let mut core = Core::new(site(DEVICES), Switches::default(), 1, Now::default());
    let mut say = |what: &str, new: &Site| {
        let begun = Instant::now();
        let running = core.configured();
        let cloned = begun.elapsed();
        let begun = Instant::now();
        let difference = Difference::of(&running, new);
        let compared = begun.elapsed();
        let (outcome, spent) = reload(&mut core, new);
        println!(
            "{DEVICES} devices of {POINTS} points, {what}: {:.1} ms on the core thread; alone: copy {:.1} ms, difference {:.1} ms",
            spent.as_secs_f64() * 1e3,
            cloned.as_secs_f64() * 1e3,
            compared.as_secs_f64() * 1e3
        );
        assert_eq!(outcome == Outcome::Unchanged, difference.is_empty(), "{what}");
        assert_eq!(&core.configured(), new, "{what}");
    };
    say("nothing differs", &site(DEVICES));
    let mut new = site(DEVICES);
    new.devices[7].points[7].unit = "MWh".into();
    say("a unit", &new);
    new.devices[8].points[8].spec = json!({ "address": "holding:9999" }).into();
    say("an address", &new);
    say("a further device", &site(DEVICES + 1));
    let mut new = site(DEVICES);
    for device in &mut new.devices {
        device.points.pop();
    }
    new.sinks.iter_mut().for_each(|sink| sink.routes.retain(|route| route.point + 1 < POINTS));
    say("a point of every device goes", &new);
}
