//! The way of a one-shot command to a device: through the running host, or directly when none runs.
//!
//! Directly means the same core, the same plugins and the same rules (writable, range, lock-out, audit) in this
//! process, with the one device it is about and without sinks.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use busbar_core::{
    model::Site,
    view::{DeviceState, PluginState},
};
use busbar_loader::Launcher;
use tokio::runtime::Runtime;

use super::{
    Context, Failure,
    prepare::{self, Sound},
};
use crate::{
    catalog::StageDir,
    control::{
        client::Client,
        protocol::{Call, Line},
        server::local_origin,
        service,
    },
    edge::{CoreHandle, Edge, Start},
    lock::{self, DataDirLock, LockError},
};

/// How often a direct command looks whether its device is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The way.
pub(crate) enum Access {
    /// A host runs.
    Host(Client),
    /// None runs.
    Direct(Box<Direct>),
}

/// The gateway of one command.
pub(crate) struct Direct {
    edge: Edge,
    runtime: Runtime,
    _lock: DataDirLock,
}

impl Access {
    /// Opens the way. `devices` are the ones a direct command needs, with their interlocks; none for a switch of the
    /// host itself. Within `limit` they must be online; zero: nobody waits for that.
    pub(crate) fn open(context: &Context, devices: &[&str], limit: Duration) -> Result<Self, Failure> {
        let look = prepare::first_look(context);
        let lock = match lock::acquire(&look.host.data_dir) {
            Ok(lock) => lock,
            Err(LockError::Held { data_dir, pid }) => return through_host(&data_dir, &pid).map(Self::Host),
            Err(error @ LockError::Unusable { .. }) => return Err(Failure::Config(error.to_string())),
        };
        let sound = if devices.is_empty() {
            // A switch of the host: must work whatever is wrong with devices and plugins.
            Sound {
                site: Site::default(),
                probed: Vec::new(),
                host: look.host,
                beginning: Default::default(),
            }
        } else {
            prepare::sound(context, prepare::prepare(context, false, StageDir::of_host))?
        };
        Direct::start(sound, lock, devices, limit).map(|direct| Self::Direct(Box::new(direct)))
    }

    /// Opens the way for switches of operators: nothing is connected for them.
    pub(crate) fn for_switches(context: &Context) -> Result<Self, Failure> {
        let look = prepare::first_look(context);
        match lock::acquire(&look.host.data_dir) {
            Ok(lock) => {
                // Without the plugins nothing can be said about them, so only errors are told.
                let mut site = match &look.site {
                    Some(site) => site.clone(),
                    None => prepare::checked(context, &look)?.clone(),
                };
                site.sinks.clear();
                site.plugins.clear();
                let sound =
                    Sound { site, probed: Vec::new(), host: look.host, beginning: Default::default() };
                Direct::start(sound, lock, &[], Duration::ZERO).map(|direct| Self::Direct(Box::new(direct)))
            }
            Err(LockError::Held { data_dir, pid }) => through_host(&data_dir, &pid).map(Self::Host),
            Err(error @ LockError::Unusable { .. }) => Err(Failure::Config(error.to_string())),
        }
    }

    /// Makes a call and hands each line of the answer to `take`; gives back the last one.
    pub(crate) fn call(&mut self, call: Call, mut take: impl FnMut(&Line)) -> Result<Line, Failure> {
        let mut next: Box<dyn FnMut() -> Result<Line, Failure> + '_> = match self {
            Self::Host(client) => {
                let broken = |error: std::io::Error| {
                    Failure::Device(format!("the running host did not answer: {error}"))
                };
                client.send(&call).map_err(broken)?;
                Box::new(move || client.receive().map_err(broken))
            }
            Self::Direct(direct) => {
                let Direct { edge, runtime, .. } = &**direct;
                let mut running = runtime.block_on(service::start(&edge.handle(), call, local_origin()));
                Box::new(move || {
                    runtime
                        .block_on(running.next())
                        .ok_or_else(|| Failure::Device("no answer: this is a bug of Busbar".into()))
                })
            }
        };
        loop {
            let line = next()?;
            take(&line);
            if line.is_last() {
                return match line {
                    Line::Failed { text, usage: true } => Err(Failure::Config(text)),
                    Line::Failed { text, usage: false } => Err(Failure::Device(text)),
                    line => Ok(line),
                };
            }
        }
    }

    /// Ends the way in order.
    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Host(_) => Ok(()),
            Self::Direct(direct) => direct.edge.stop().map_err(Failure::Device),
        }
    }
}

fn through_host(data_dir: &Path, pid: &str) -> Result<Client, Failure> {
    Client::connect(data_dir).map_err(|error| {
        Failure::Device(format!(
            "{} is in use by process {pid}, which does not answer on its control socket ({error}): it is starting or \
             stopping, or you may not use it (group of the socket); try again",
            data_dir.display()
        ))
    })
}

impl Direct {
    fn start(sound: Sound, lock: DataDirLock, devices: &[&str], limit: Duration) -> Result<Self, Failure> {
        let Sound { mut site, probed, host, .. } = sound;
        for device in devices {
            unknown_device(&site, device)?;
        }
        let probed = if devices.is_empty() { probed } else { reduce(&mut site, probed, devices) };
        let log_level = host.log.level.as_str().to_owned();
        let data_dir = &host.data_dir;
        let start = Start { site, probed, data_dir, launcher: Launcher::default(), log_level, upgrade: None };
        let edge = Edge::start(start).map_err(Failure::Config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Failure::Config(format!("no runtime could be started: {error}")))?;
        let direct = Self { edge, runtime, _lock: lock };
        let deadline = Instant::now() + limit;
        for device in devices.iter().filter(|_| !limit.is_zero()) {
            if let Err(failure) = wait_online(&direct.edge.handle(), device, deadline) {
                // What went wrong is already known; a second failure while stopping adds nothing.
                let _ = direct.edge.stop();
                return Err(failure);
            }
        }
        Ok(direct)
    }
}

/// Refuses a name that is not that of a device, with those that are.
pub(super) fn unknown_device(site: &Site, name: &str) -> Result<(), Failure> {
    if site.devices.iter().any(|known| known.name == name) {
        return Ok(());
    }
    let known: Vec<&str> = site.devices.iter().map(|device| device.name.as_str()).collect();
    let text =
        format!("expected the name of a configured device, found {name}; there are: {}", known.join(", "));
    Err(Failure::Config(text))
}

/// Leaves only what the devices need: themselves, the devices of their interlocks, their drivers; no sinks.
fn reduce<T>(site: &mut Site, probed: Vec<T>, devices: &[&str]) -> Vec<T> {
    let interlocks: Vec<String> = site
        .devices
        .iter()
        .filter(|device| devices.contains(&device.name.as_str()))
        .flat_map(|device| &device.points)
        .filter_map(|point| Some(point.interlock.as_ref()?.point.split_once('/')?.0.to_owned()))
        .collect();
    site.sinks.clear();
    site.devices
        .retain(|device| devices.contains(&device.name.as_str()) || interlocks.contains(&device.name));
    let needed: Vec<bool> = site
        .plugins
        .iter()
        .map(|plugin| {
            plugin.kind == busbar_core::model::PluginKind::Driver
                && site.devices.iter().any(|device| device.driver == plugin.name)
        })
        .collect();
    let mut keep = needed.iter().copied();
    site.plugins.retain(|_| keep.next().unwrap_or(false));
    probed.into_iter().zip(needed).filter(|(_, needed)| *needed).map(|(probed, _)| probed).collect()
}

/// What a look at a device found.
pub(super) enum Look {
    Online,
    Waiting(String),
    Failed(String),
}

fn wait_online(core: &CoreHandle, device: &str, deadline: Instant) -> Result<(), Failure> {
    let pause = crossbeam_channel::tick(LOOK_EVERY);
    loop {
        let name = device.to_owned();
        let look = core.query_blocking(move |core, _| look(core, &name));
        match look.map_err(|error| Failure::Device(error.to_string()))? {
            Look::Online => return Ok(()),
            Look::Failed(reason) => return Err(Failure::Device(format!("{device}: {reason}"))),
            Look::Waiting(state) if Instant::now() >= deadline => {
                return Err(Failure::Device(format!(
                    "{device}: expected it online in time, found it {state}"
                )));
            }
            Look::Waiting(_) => {}
        }
        // A tick or the end of the channel, which never ends: both go on to the next look.
        let _ = pause.recv();
    }
}

/// How a device is, for a command that makes one attempt.
pub(super) fn look(core: &busbar_core::Core, name: &str) -> Look {
    let devices = core.devices();
    let Some(device) = devices.iter().find(|device| device.name == name) else {
        return Look::Failed("not configured".into());
    };
    let failed_plugin = core
        .plugins()
        .iter()
        .find(|plugin| plugin.name == device.driver && plugin.state == PluginState::Failed)
        .map(|plugin| plugin.reason.clone());
    match device.state {
        _ if failed_plugin.is_some() => Look::Failed(failed_plugin.unwrap_or_default()),
        DeviceState::Online => Look::Online,
        DeviceState::Maintenance => Look::Failed("in maintenance: switch it off first".into()),
        DeviceState::Disabled | DeviceState::Inactive | DeviceState::Paused => {
            Look::Failed(format!("{}: {}", device.state.as_str(), device.reason))
        }
        // A one-shot command makes one attempt; the running host is the one that tries for ever.
        DeviceState::Failed | DeviceState::Lost => Look::Failed(device.reason.to_owned()),
        DeviceState::Connecting if !device.reason.is_empty() => Look::Failed(device.reason.to_owned()),
        DeviceState::Connecting | DeviceState::Resync | DeviceState::Handover => {
            Look::Waiting(device.state.as_str().to_owned())
        }
    }
}
