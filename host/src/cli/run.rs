//! `busbar run`: check, start, serve, stop in order.
//!
//! The main thread carries a small single-threaded runtime with everything that talks to people and machines around
//! the gateway: signals, control socket, admin listener, service manager. Acquisition is not among them.

use std::{
    process,
    time::{Duration, Instant},
};

use busbar_config::{HostSettings, LogFormat};
use busbar_contract::Origin;
use busbar_loader::Launcher;
use clap::Args;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{
    Context, EXIT_BUG, Failure, Outcome, complain, once,
    prepare::{self, Sound},
};
use crate::{
    admin::{
        api::{self, App},
        auth::Token,
        http::Listener,
    },
    catalog::StageDir,
    control::server::ControlSocket,
    edge::{CoreHandle, Edge, Start, upgrade},
    good, lock,
    logging::{self, Format},
    memory,
    notify::{self, Notifier},
    reload::{Reloader, Watched},
};

/// How often readiness at start is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// At the end the check of a configuration that a reload began gets this long.
const BLOCKING_TIME: Duration = Duration::from_secs(2);
/// How often the host looks whether the core thread has ended, which it never should: rarely, because it is a wake.
const CORE_LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One cycle: read every point once, deliver, print, end
    #[arg(long)]
    once: bool,
    /// Only this device (with --once; may be repeated)
    #[arg(long, value_name = "NAME", requires = "once")]
    device: Vec<String>,
    /// Time limit of the cycle, seconds (with --once)
    #[arg(long, value_name = "SECONDS", requires = "once", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

impl Arguments {
    pub(super) const fn is_once(&self) -> bool {
        self.once
    }
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    if arguments.once {
        return once::run(context, &arguments.device, Duration::from_secs(arguments.timeout));
    }
    let prepared = prepare::prepare_start(context);
    let mut loaded = prepared.loaded.clone();
    // Only the files are wanted; the site of a large plant is large.
    loaded.site = None;
    let sound = prepare::sound(context, prepared).inspect_err(|_| {
        if let Some(text) = good::differences(&loaded.host.data_dir, &loaded) {
            complain(&text, context.out.json);
        }
    })?;
    let host = sound.host.clone();
    let format = match host.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let _log =
        logging::init(host.log.level.as_str(), format, host.log.file.clone()).map_err(Failure::Config)?;
    let _lock = lock::acquire(&host.data_dir).map_err(|error| Failure::Config(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Config(format!("no runtime could be started: {error}")))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = process::id(),
        config = %context.config.display(),
        devices = sound.site.devices.len(),
        sinks = sound.site.sinks.len(),
        "busbar starts"
    );
    let notifier = Notifier::from_env();
    let services = runtime.block_on(Services::bind(&host)).map_err(Failure::Config)?;
    let mut edge = start_edge(sound, &host)?;
    if let Err(error) = good::keep(&host.data_dir, &loaded) {
        tracing::warn!("the configuration could not be kept in {}: {error}", host.data_dir.display());
    }
    let files = Watched::of(&loaded.sources);
    drop(loaded);
    let reloader = edge
        .take_wishes()
        .map(|wishes| Reloader::new(context.config.clone(), edge.handle(), host.clone(), wishes, files));
    let ended = runtime.block_on(services.serve(&edge, &notifier, reloader));
    let outcome = stop(&runtime, edge, &notifier, ended);
    let begun = Instant::now();
    runtime.shutdown_timeout(BLOCKING_TIME);
    if begun.elapsed() >= BLOCKING_TIME {
        tracing::error!("the check of a configuration did not end in time and is left behind");
    }
    outcome
}

fn start_edge(sound: Sound, host: &HostSettings) -> Result<Edge, Failure> {
    let Sound { site, probed, beginning, .. } = sound;
    let settings = upgrade::Settings {
        data_dir: host.data_dir.clone(),
        stage_dir: StageDir::of_host(host).path().to_owned(),
        plugin_dirs: host.plugin_dirs.clone(),
        watch: host.watch_plugins,
        timeout: host.upgrade_timeout,
        launcher: Launcher::default(),
    };
    Edge::start(Start {
        site,
        probed,
        data_dir: &host.data_dir,
        launcher: Launcher::default(),
        log_level: host.log.level.as_str().to_owned(),
        upgrade: Some((settings, beginning)),
    })
    .map_err(Failure::Config)
}

/// What made the host end.
enum Ended {
    Signal(&'static str),
    CoreDied,
}

fn stop(runtime: &Runtime, edge: Edge, notifier: &Notifier, ended: Ended) -> Outcome {
    notifier.send("STOPPING=1");
    let outcome = match ended {
        Ended::Signal(name) => {
            tracing::info!(signal = name, "busbar stops: devices first, then sinks");
            edge.stop()
        }
        Ended::CoreDied => {
            edge.stop().and(Err("the core thread ended by itself: this is a bug of Busbar".into()))
        }
    };
    // Connections under way are cut; their clients see it.
    let _ = runtime;
    match outcome {
        Ok(()) => {
            tracing::info!("busbar stopped");
            Ok(())
        }
        Err(reason) => {
            tracing::error!("{reason}");
            Err(Failure::Told(EXIT_BUG))
        }
    }
}

/// Everything around the core that listens.
struct Services {
    control: ControlSocket,
    admin: Option<(Listener, bool)>,
    token: Token,
    signals: Signals,
}

impl Services {
    /// Binds everything before the first device is touched, so that a wrong address stops the start.
    async fn bind(host: &HostSettings) -> Result<Self, String> {
        let signals = Signals::new().map_err(|error| format!("signals could not be handled: {error}"))?;
        let token = Token::load_or_create(&host.data_dir)?;
        let control = ControlSocket::bind(&host.data_dir)?;
        let admin = match &host.admin {
            None => None,
            Some(admin) => {
                let listener = Listener::bind(admin).await?;
                if let Ok(address) = listener.address() {
                    tracing::info!(%address, tls = admin.tls.is_some(), "admin listener");
                }
                Some((listener, admin.anonymous_read))
            }
        };
        Ok(Self { control, admin, token, signals })
    }

    /// Serves until a signal comes or the core dies.
    async fn serve(self, edge: &Edge, notifier: &Notifier, reloader: Option<Reloader>) -> Ended {
        let Self { control, admin, token, mut signals } = self;
        let (stop, stopped) = watch::channel(false);
        let core = edge.handle();
        let mut tasks = vec![tokio::spawn(control.serve(core.clone(), stopped.clone()))];
        if let Some((listener, anonymous_read)) = admin {
            let app = App { core: core.clone(), token, anonymous_read, started: Instant::now() };
            tasks.push(tokio::spawn(listener.serve(api::router(app), stopped)));
        }
        let ended = tokio::select! {
            name = signals.end(&core) => Ended::Signal(name),
            () = reload_when_asked(reloader, notifier) => Ended::CoreDied,
            () = core_died(edge) => Ended::CoreDied,
            () = speak_to_manager(&core, notifier) => Ended::CoreDied,
        };
        let _ = stop.send(true);
        for task in tasks {
            let _ = task.await;
        }
        ended
    }
}

/// Never ends.
async fn reload_when_asked(reloader: Option<Reloader>, notifier: &Notifier) {
    match reloader {
        Some(reloader) => reloader.serve(notifier).await,
        None => std::future::pending().await,
    }
}

async fn core_died(edge: &Edge) {
    while !edge.is_finished() {
        tokio::time::sleep(CORE_LOOK_EVERY).await;
    }
}

/// READY once every plugin is loaded or has failed with a reason, then signs of life for the watchdog, which only a core
/// that answers sends. Never ends.
async fn speak_to_manager(core: &CoreHandle, notifier: &Notifier) {
    while !matches!(core.query(|core, _| core.ready(false)).await, Ok(Ok(()))) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    notifier.send("READY=1");
    tracing::info!("ready: every plugin is loaded or has failed with a reason");
    memory::give_back();
    let Some(period) = notify::watchdog_period() else { return std::future::pending().await };
    loop {
        if core.query(|_, _| ()).await.is_ok() {
            notifier.send("WATCHDOG=1");
        }
        tokio::time::sleep(period).await;
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }

    /// The name of the signal that ends the host.
    async fn end(&mut self, core: &CoreHandle) -> &'static str {
        loop {
            tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.int.recv() => return "SIGINT",
                _ = self.usr1.recv() => logging::reopen(),
                _ = self.hup.recv() => {
                    let core = core.clone();
                    tokio::spawn(async move {
                        let origin = Origin { sink: "SIGHUP".into(), ..Origin::default() };
                        // What came of it is in the log.
                        core.wish_reload(false, origin).await;
                    });
                }
            }
        }
    }
}
