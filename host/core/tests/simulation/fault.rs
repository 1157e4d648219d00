//! Bad luck, and its end.

use std::collections::BTreeSet;

use busbar_contract::{
    Cause, Event, Flags, Quality, Samples,
    event::{Gap, State},
};
use busbar_core::{
    Input,
    input::{Ask, Operator, Push},
};

use crate::{
    driver::{self, Mode},
    sink::Far,
    site::{DRIVER, DURABLE, VOLATILE},
    world::{Ahead, MS, World},
};

const MODES: [Mode; 11] = [
    Mode::Healthy,
    Mode::Healthy,
    Mode::Healthy,
    Mode::Slow,
    Mode::Silent,
    Mode::Silent,
    Mode::Gone,
    Mode::Refusing,
    Mode::Stuck,
    Mode::Hung,
    Mode::Lying,
];

/// One piece of bad luck.
pub(crate) fn strike(world: &mut World) {
    match world.rng.between(0, 19) {
        0..=7 => device(world),
        8 => session_ends(world),
        9 | 10 => far_side(world),
        11 => plugin_dies(world),
        12 => {
            let plugin = *world.rng.pick(&[DRIVER, DURABLE, VOLATILE]);
            world.plugins[plugin].mute_until = world.now.mono_ns + world.rng.between(200, 4_000) * MS;
            world.checks.disturb_all();
        }
        13 => {
            let step = world.rng.between(1, 7_200_000) as i64 * MS as i64;
            world.now.wall_ns += if world.rng.one_in(2) { step } else { -step };
        }
        14 => {
            let synchronised = world.rng.one_in(2);
            world.step(Input::Clock { synchronised });
        }
        15 => {
            // The host itself is late: suspended, or starved.
            let late = world.rng.between(10, 1_500);
            world.checks.disturb_all();
            world.pass(late * MS);
        }
        16 => world.audit_broken = !world.audit_broken,
        17 => flood(world),
        18 => nonsense(world),
        _ => gap(world),
    }
}

fn device(world: &mut World) {
    let at = world.rng.between(0, world.behind.len() as u64 - 1) as usize;
    let mode = *world.rng.pick(&MODES);
    let before = world.behind[at].mode;
    world.behind[at].mode = mode;
    if !driver::is_good(mode) {
        world.checks.disturb(&world.site, at);
    }
    if before == Mode::Hung {
        let ids: Vec<u64> = world.instances.keys().copied().collect();
        ids.into_iter().for_each(|id| unhang(world, id));
    }
}

/// A plugin that came back completes what it owes.
fn unhang(world: &mut World, instance: u64) {
    if world.instances.get(&instance).is_some_and(|open| open.stopping) {
        world.finish(instance);
    } else {
        world.cancel_pending(instance);
    }
}

fn session_ends(world: &mut World) {
    let ids: Vec<u64> = world.instances.keys().copied().collect();
    let Some(id) = ids.first().map(|_| *world.rng.pick(&ids)) else { return };
    let Some(open) = world.instances.get_mut(&id) else { return };
    for device in open.devices.values_mut() {
        device.connected = false;
    }
    let indices: BTreeSet<usize> = open.devices.values().map(|device| device.index).collect();
    for index in indices {
        world.checks.disturb(&world.site, index);
    }
    let state = State { device: None, up: false, reason: "simulated: reset by peer".into() };
    world.step(driver::event(id, 0, Event::State(state)));
}

fn far_side(world: &mut World) {
    let at = world.rng.between(0, 1) as usize;
    let far = *world.rng.pick(&[Far::Healthy, Far::Withholding, Far::Moody, Far::Down]);
    let before = std::mem::replace(&mut world.sinks[at].far, far);
    world.sinks[at].well_since = None;
    let plan = match (before, far) {
        (_, Far::Down) => world.sinks[at].drop_connection(),
        (Far::Withholding, _) => world.sinks[at].release(),
        _ => vec![],
    };
    world.plan(plan);
}

fn plugin_dies(world: &mut World) {
    let plugin = *world.rng.pick(&[DRIVER, DURABLE, VOLATILE]);
    if !world.plugins[plugin].loaded {
        return;
    }
    world.plugins[plugin].loaded = false;
    if plugin == DRIVER {
        world.instances.clear();
        world.checks.disturb_all();
    } else {
        world.sinks[plugin - DURABLE].gone();
        world.clients.sink_died(plugin - DURABLE);
    }
    world.step(Input::PluginFailed { plugin, reason: "simulated: worker ended by SIGSEGV".into() });
    let back = world.rng.between(100, 2_000);
    world.after(back, Ahead::Reload(plugin));
}

/// Changes that a device reports by itself, some of them late.
fn flood(world: &mut World) {
    let Some((id, points)) = connected_points(world) else { return };
    let mut samples = Samples::default();
    for _ in 0..world.rng.between(1, 50) {
        let point = *world.rng.pick(&points);
        world.counter += 1;
        let age = if world.rng.one_in(5) { world.rng.between(0, 3_000) * MS } else { 0 };
        let ts = world.now.wall_ns - age as i64;
        let value = driver::value_of(point, world.counter);
        samples.push(point, ts, &value, Quality::GOOD, Flags::new(Cause::DataChange, 0));
    }
    world.step(Input::Push(Push { instance: id, request: 0, token: 0, flags: 0, samples }));
}

/// Answers nobody asked for, from instances nobody knows.
fn nonsense(world: &mut World) {
    let instance = world.instances.keys().next().copied().unwrap_or(7) + world.rng.between(0, 2) * 1_000;
    let request = world.rng.between(0, 5_000);
    if world.instances.get(&instance).is_some_and(|open| open.pending.contains(&request)) {
        return;
    }
    let mut samples = Samples::default();
    samples.push(1, 0, &busbar_contract::Value::Float64(-1.0), Quality::GOOD, Flags::default());
    let flags = busbar_contract::batch::LAST;
    let known = world.instances.contains_key(&instance);
    if !known || request != 0 {
        world.step(Input::Push(Push { instance, request, token: 0, flags, samples }));
    }
    world.step(driver::event(instance, request.max(1), Event::Done(Default::default())));
}

fn gap(world: &mut World) {
    let found = world.instances.iter().find_map(|(id, open)| Some((*id, *open.devices.keys().next()?)));
    let Some((id, device)) = found else { return };
    let gap = Gap { device, reason: "simulated".into(), points: vec![] };
    world.step(driver::event(id, 0, Event::Gap(gap)));
}

fn connected_points(world: &World) -> Option<(u64, Vec<u32>)> {
    world.instances.iter().filter(|(_, open)| !open.stopping).find_map(|(id, open)| {
        let device = open.devices.values().find(|d| d.connected && !d.points.is_empty())?;
        Some((*id, device.points.clone()))
    })
}

/// Everything comes back, and nothing bad happens any more.
pub(crate) fn heal(world: &mut World) {
    world.healing = true;
    world.audit_broken = false;
    let refusing: Vec<usize> = (0..world.behind.len()).filter(|at| world.checks.was_disturbed(*at)).collect();
    for behind in &mut world.behind {
        behind.mode = Mode::Healthy;
    }
    let ids: Vec<u64> = world.instances.keys().copied().collect();
    for id in ids {
        unhang(world, id);
        // A refused point is asked again only after ten minutes; a new session asks at once.
        let again = world.instances.get(&id).is_some_and(|open| {
            !open.stopping && open.devices.values().any(|device| refusing.contains(&device.index))
        });
        if again {
            if let Some(open) = world.instances.get_mut(&id) {
                open.devices.values_mut().for_each(|device| device.connected = false);
            }
            let state = State { device: None, up: false, reason: "simulated: last reset".into() };
            world.step(driver::event(id, 0, Event::State(state)));
        }
    }
    for plugin in [DRIVER, DURABLE, VOLATILE] {
        world.plugins[plugin].mute_until = 0;
        world.after(1, Ahead::Reload(plugin));
    }
    for at in 0..2 {
        world.sinks[at].far = Far::Healthy;
        world.sinks[at].well_since = None;
        let plan = world.sinks[at].release();
        world.plan(plan);
    }
    world.step(Input::Clock { synchronised: true });
    let origin = busbar_contract::Origin::default();
    let blocked = world.clients.operated();
    for (id, name) in (1_000_000..).zip(blocked) {
        world.step(Input::Operator(Operator { id, ask: Ask::Unblock(name, origin.clone()) }));
    }
    world.step(Input::Operator(Operator { id: 999_999, ask: Ask::Unlock(origin) }));
}
