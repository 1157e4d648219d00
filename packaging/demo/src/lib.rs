//! `busbar demo`: simulated devices, a small broker and the gateway, on one machine, with nothing installed.
//!
//! Everything is real except the devices: the simulators speak Modbus over TCP sockets ([`plant`]), the broker speaks
//! MQTT, and the gateway is a child process of the same binary that runs the shipped `plugins.toml` and loads the
//! plugins like on any site ([`gateway`]). The demo itself is an ordinary MQTT client ([`watch`]): what it shows has
//! gone the whole way from a register to a subscriber.
//!
//! Ports: the configured ones are taken where they are free, so that other clients find the broker and the devices where
//! `plugins.toml` says; otherwise free ones. The gateway runs a copy of the file in a temporary folder with the ports
//! in use, its own `data_dir`, and the plugins beside the executable ([`site`]).
//!
//! The story ([`story`]) is a list of promises: values move; a device dies and its points become
//! `invalid|comm_lost` with the last value kept; the others do not notice; it comes back and is good again. With a time
//! limit the demo succeeds only if it saw all of them on the broker.

mod gateway;
mod plant;
mod screen;
mod site;
mod story;
mod watch;

use std::{path::PathBuf, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use crate::{gateway::Gateway, plant::Plant, screen::Screen, site::Site, story::Story, watch::Watch};

/// How often the screen and the story are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `busbar` binary.
    pub program: PathBuf,
    /// The configuration to show; the shipped one where the file does not exist.
    pub config: PathBuf,
    /// End after this time and judge; `None`: until Ctrl-C.
    pub limit: Option<Duration>,
    /// A live table; otherwise plain lines.
    pub live: bool,
}

/// Runs the demo to its end.
///
/// # Errors
/// One text for the operator: what could not be started, or what was promised and not seen.
pub fn run(options: &Options) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime could be started: {error}"))?
        .block_on(show(options))
}

async fn show(options: &Options) -> Result<(), String> {
    let mut site = Site::read(&options.config)?;
    let plant = Plant::start(&mut site).await?;
    let program = &options.program;
    site.write(program.parent())?;
    let expected: Vec<_> = plant.devices().into_iter().map(|device| (device, site.points(device))).collect();
    let watch = Watch::start(&plant.broker_url(), site.host(), &expected).await?;
    let gateway = Gateway::start(program, &site)?;
    let mut screen = Screen::new(options.live);
    screen.begin(&site, &plant);
    let outcome = act(options, &plant, &watch, gateway, &mut screen).await;
    screen.end();
    outcome
}

async fn act(
    options: &Options,
    plant: &Plant,
    watch: &Watch,
    mut gateway: Gateway,
    screen: &mut Screen,
) -> Result<(), String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("signals: {error}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("signals: {error}"))?;
    let mut story = Story::new(options.limit);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let outcome = loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
        }
        if let Some(reason) = gateway.ended() {
            break Err(reason);
        }
        let image = watch.image();
        for word in story.look(&image, plant) {
            screen.say(story.elapsed(), &word);
        }
        screen.draw(&story, &image);
        if story.is_over() {
            break story.verdict();
        }
    };
    gateway.stop().await;
    if let (Ok(()), Some(_)) = (&outcome, options.limit) {
        screen.say(story.elapsed(), "everything promised was seen on the broker");
    }
    outcome
}
