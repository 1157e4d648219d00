//! `busbar run --once`: one cycle for commissioning and for jobs. Every device is connected and every point read once,
//! the values are delivered to the sinks, printed, and the gateway ends.
//!
//! One attempt each: what cannot be reached is named, and costs at most `--timeout`. The gateway is the same as that
//! which runs for ever, so what a sink gets is the same too, including `invalid|comm_lost` when the gateway ends.

use std::time::{Duration, Instant};

use busbar_core::{
    Core,
    model::{Route, Site, SystemRoute},
    view::{DeviceState, DeviceView, SinkView},
};
use busbar_loader::{Launcher, Probed};
use serde_json::{Value as Json, json};

use super::{
    Context, EXIT_DEVICE, Failure, Outcome,
    access::{Look, look, unknown_device},
    prepare::{self, Sound},
    read,
};
use crate::{
    edge::{CoreHandle, Edge, Start},
    lock::{self, LockError},
    rows,
};

/// How often devices and sinks are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For a far side that is not connected when all devices are through.
const SINK_PATIENCE: Duration = Duration::from_secs(5);

/// What came of the cycle.
struct Cycle {
    points: Vec<Json>,
    /// Names and reasons of devices and sinks.
    failed: Vec<(String, String)>,
}

pub(super) fn run(context: &Context, devices: &[String], limit: Duration) -> Outcome {
    let Sound { site, probed, host, .. } = prepare::sound(context, prepare::prepare_start(context))?;
    let _lock = lock::acquire(&host.data_dir).map_err(|error| match error {
        LockError::Held { .. } => Failure::Config(format!("{error}; or use `busbar read DEVICE`")),
        LockError::Unusable { .. } => Failure::Config(error.to_string()),
    })?;
    let (site, probed) = reduce(site, probed, devices)?;
    let log_level = host.log.level.as_str().to_owned();
    let data_dir = &host.data_dir;
    let start = Start { site, probed, data_dir, launcher: Launcher::default(), log_level, upgrade: None };
    let edge = Edge::start(start).map_err(Failure::Config)?;
    let cycle = cycle(&edge.handle(), Instant::now() + limit);
    let stopped = edge.stop();
    let Cycle { points, failed } = cycle?;
    stopped.map_err(Failure::Device)?;
    show(context, &points, &failed);
    if failed.is_empty() { Ok(()) } else { Err(Failure::Told(EXIT_DEVICE)) }
}

fn show(context: &Context, points: &[Json], failed: &[(String, String)]) {
    if context.out.json {
        let failed: Vec<Json> =
            failed.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect();
        return context.out.document(&json!({ "points": points, "failed": failed }));
    }
    read::show(&context.out, points);
    for (name, reason) in failed {
        super::complain(&format!("{name}: {reason}"), false);
    }
}

/// Leaves the named devices and the drivers they need; all sinks stay, with what is left for them. No name: everything.
fn reduce(
    mut site: Site,
    probed: Vec<Result<Probed, String>>,
    names: &[String],
) -> Result<(Site, Vec<Result<Probed, String>>), Failure> {
    if names.is_empty() {
        return Ok((site, probed));
    }
    for name in names {
        unknown_device(&site, name)?;
    }
    let kept: Vec<bool> = site.devices.iter().map(|device| names.contains(&device.name)).collect();
    // The new number of each device that stays.
    let mut next = 0;
    let numbers: Vec<Option<usize>> = kept
        .iter()
        .map(|kept| {
            let number = kept.then_some(next);
            next += usize::from(*kept);
            number
        })
        .collect();
    let is_left = |system: &SystemRoute| {
        system.name.starts_with('@')
            || system.name.split('/').next().is_some_and(|d| names.iter().any(|n| n == d))
    };
    for sink in &mut site.sinks {
        let routes = std::mem::take(&mut sink.routes).into_iter();
        sink.routes = routes
            .filter_map(|route| {
                let device = numbers.get(route.device).copied().flatten()?;
                Some(Route { device, ..route })
            })
            .collect();
        sink.system.retain(&is_left);
    }
    let mut kept = kept.into_iter();
    site.devices.retain(|_| kept.next().unwrap_or(false));
    let needed: Vec<bool> = site
        .plugins
        .iter()
        .map(|plugin| {
            let used = |device: &busbar_core::model::Device| device.driver == plugin.name;
            plugin.kind == busbar_core::model::PluginKind::Sink || site.devices.iter().any(used)
        })
        .collect();
    let mut needed_plugins = needed.iter().copied();
    site.plugins.retain(|_| needed_plugins.next().unwrap_or(false));
    let probed = probed.into_iter().zip(needed).filter(|(_, needed)| *needed).map(|(probed, _)| probed);
    Ok((site, probed.collect()))
}

fn cycle(core: &CoreHandle, deadline: Instant) -> Result<Cycle, Failure> {
    let failure = |error: crate::edge::NotAnswered| Failure::Device(error.to_string());
    let devices = wait(core, deadline, |core| {
        let found: Vec<(String, Look)> =
            core.devices().iter().map(|device| (device.name.to_owned(), once(core, device))).collect();
        let waiting = found.iter().any(|(_, look)| matches!(look, Look::Waiting(_)));
        (found, !waiting)
    })
    .map_err(failure)?;
    // What was read until here is what must arrive; polls go on meanwhile.
    let wanted = core.query_blocking(|core, _| wanted(core)).map_err(failure)?;
    let points = core.query_blocking(|core, _| rows::points(core, None, false)).map_err(failure)?;
    let patience = Instant::now() + SINK_PATIENCE;
    let sinks = wait(core, deadline, move |core| {
        let late = Instant::now() >= patience;
        let found: Vec<(String, Result<(), String>)> = core
            .sinks()
            .iter()
            .zip(&wanted)
            .map(|(sink, wanted)| (sink.name.to_owned(), delivered(sink, wanted)))
            .collect();
        let waiting = core
            .sinks()
            .iter()
            .zip(&found)
            .any(|(sink, (_, delivered))| delivered.is_err() && (sink.connected || !late));
        (found, !waiting)
    })
    .map_err(failure)?;
    let mut failed: Vec<(String, String)> = devices
        .into_iter()
        .filter_map(|(name, look)| match look {
            Look::Online => None,
            Look::Failed(reason) => Some((name, reason)),
            Look::Waiting(state) => Some((name, format!("expected it online in time, found it {state}"))),
        })
        .collect();
    failed.extend(sinks.into_iter().filter_map(|(name, delivered)| Some((name, delivered.err()?))));
    Ok(Cycle { points, failed })
}

/// A device that is switched off on purpose has not failed.
fn once(core: &Core, device: &DeviceView<'_>) -> Look {
    use DeviceState::{Disabled, Inactive, Maintenance, Paused};
    let off = matches!(device.state, Maintenance | Disabled | Inactive | Paused);
    if off { Look::Online } else { look(core, device.name) }
}

/// Records accepted so far, and those that were refused or dropped, per sink.
fn wanted(core: &Core) -> Vec<(u64, u64)> {
    let sinks = core.sinks();
    sinks.iter().map(|sink| (sink.ledger.accepted, sink.ledger.parked_total())).collect()
}

fn delivered(sink: &SinkView<'_>, (accepted, parked): &(u64, u64)) -> Result<(), String> {
    let ledger = &sink.ledger;
    let settled = ledger.delivered + ledger.parked_total() + ledger.dropped_total();
    if ledger.parked_total() > *parked {
        return Err(format!("{} records were refused by the far side", ledger.parked_total() - parked));
    }
    if settled >= *accepted && sink.connected {
        return Ok(());
    }
    let left = accepted.saturating_sub(settled);
    Err(match (sink.connected, sink.reason) {
        (true, _) | (false, "") => format!("{left} records were not confirmed in time"),
        (false, reason) => format!("{reason}; {left} records were not delivered"),
    })
}

/// Looks until it is over or the time is; gives what was seen last.
fn wait<T: Send + 'static>(
    core: &CoreHandle,
    deadline: Instant,
    look: impl Fn(&Core) -> (T, bool) + Send + Clone + 'static,
) -> Result<T, crate::edge::NotAnswered> {
    let pause = crossbeam_channel::tick(LOOK_EVERY);
    loop {
        let late = Instant::now() >= deadline;
        let again = look.clone();
        let (found, over) = core.query_blocking(move |core, _| again(core))?;
        if over || late {
            return Ok(found);
        }
        // A tick or the end of the channel, which never ends: both go on to the next look.
        let _ = pause.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_core::model::{Device, Sink};

    #[test]
    fn routes_follow_the_devices_that_stay() {
        let device = |name: &str| Device { name: name.into(), driver: "d".into(), ..Device::default() };
        let route = |device| Route { device, point: 0, map: Vec::new() };
        let system = |name: &str| SystemRoute { name: name.into(), map: Vec::new() };
        let sink = Sink {
            routes: vec![route(0), route(1), route(2)],
            system: vec![system("a/@online"), system("c/@online"), system("@host/clock_synced")],
            ..Sink::default()
        };
        let site = Site {
            devices: vec![device("a"), device("b"), device("c")],
            sinks: vec![sink],
            ..Site::default()
        };
        let (reduced, _) = reduce(site.clone(), Vec::new(), &["c".to_owned()]).unwrap();
        assert_eq!(reduced.devices.len(), 1);
        let sink = &reduced.sinks[0];
        assert_eq!(sink.routes, [route(0)]);
        let names: Vec<&str> = sink.system.iter().map(|system| system.name.as_str()).collect();
        assert_eq!(names, ["c/@online", "@host/clock_synced"]);
        assert!(reduce(site, Vec::new(), &["x".to_owned()]).is_err());
    }
}
