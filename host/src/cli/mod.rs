//! The command line: one verb per file.
//!
//! Exit codes: 0 ok, 1 configuration or usage, 2 device or far side, 70 a bug of Busbar.

mod access;
mod adhoc;
mod browse;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod device;
mod frames;
mod health;
mod import;
mod lock;
mod map;
mod once;
mod operate;
mod out;
mod plugin_check;
mod plugin_upgrade;
mod plugins;
mod prepare;
mod print_config;
mod queue;
mod read;
mod reload;
mod run;
mod state;
mod write;

use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use self::out::Out;
pub(crate) use self::prepare::{Prepared, prepare_reload};
use crate::memory;

/// Configuration or usage is wrong.
pub const EXIT_CONFIG: u8 = 1;
/// A device or the far side did not do it.
pub const EXIT_DEVICE: u8 = 2;
/// A bug of Busbar (EX_SOFTWARE of sysexits.h): the service manager starts it again.
pub const EXIT_BUG: u8 = 70;

/// Used when no `--config` is given and the working directory has no `plugins.toml`.
const SYSTEM_CONFIG: &str = "/etc/busbar/plugins.toml";

/// A protocol gateway for energy and plant sites.
#[derive(Debug, Parser)]
#[command(name = "busbar", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    /// The configuration [default: plugins.toml here, else /etc/busbar/plugins.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON, for machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Run(run::Arguments),
    /// Check the configuration and list all problems
    Check(check::Arguments),
    /// Show the plugins: name, kind, version, file, state
    Plugins(plugins::Arguments),
    /// Examine a plugin file before it is installed
    Plugin {
        #[command(subcommand)]
        verb: PluginVerb,
    },
    /// Read values from a device now
    Read(read::Arguments),
    /// Write a value to a point
    Write(write::Arguments),
    /// Show what a device offers, as points to paste into the configuration
    Browse(browse::Arguments),
    /// Print the effective configuration, secrets masked
    PrintConfig,
    /// Print the point list of a sink as CSV, for the control centre
    Map(map::Arguments),
    /// Show the frames of a device as they come
    Frames(frames::Arguments),
    /// Make a point invalid at every sink until it is unblocked
    Block(operate::OnPoint),
    /// Show the device's own value of a point again
    Unblock(operate::OnPoint),
    /// Enter the value of a point by hand
    Substitute(operate::Substitute),
    /// Stop reading a device, or read it again
    Maintenance(operate::Maintenance),
    /// Switch a device off or on: enable, disable, pause, resume
    Device(device::Arguments),
    /// Apply the changed configuration to the running gateway
    Reload(reload::Arguments),
    /// Show what waits for the sinks, what they refused, what was given up
    Queue(queue::Arguments),
    /// The stored state of devices and sinks
    State {
        #[command(subcommand)]
        verb: state::StateVerb,
    },
    /// Exit code 0 when the gateway is ready
    Health(health::Arguments),
    /// Turn the files of an older gateway into a configuration
    Import {
        #[command(subcommand)]
        verb: import::ImportVerb,
    },
    /// Refuse all commands until unlocked
    Lock,
    /// Let commands pass again
    Unlock,
    /// Show Busbar at work: simulated devices, a broker, a device that dies and comes back
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
}

#[derive(Debug, Subcommand)]
enum PluginVerb {
    /// Load the file in a child process and report what it is
    Check {
        /// The plugin file (.so)
        file: PathBuf,
    },
    /// Start the worker process of a plugin again
    Restart(operate::Restart),
    /// Try a new version in the running gateway; everything returns if it is not good
    Upgrade(plugin_upgrade::Upgrade),
    /// Go back to the version before, in the same way
    Rollback(plugin_upgrade::Rollback),
}

/// Time limit of a one-shot command.
#[derive(Debug, Clone, Copy, Args)]
struct Limit {
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

impl Limit {
    const fn duration(self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    const fn millis(self) -> u64 {
        self.timeout * 1000
    }
}

/// Why a command failed; the text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// Configuration or usage.
    Config(String),
    /// Device or far side.
    Device(String),
    /// Everything was said already.
    Told(u8),
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Device(_) => EXIT_DEVICE,
            Self::Told(code) => *code,
        }
    }
}

type Outcome = Result<(), Failure>;

/// What every verb gets.
#[derive(Debug)]
struct Context {
    config: PathBuf,
    out: Out,
}

/// Runs the command line. Child modes (probe, worker) come first: they must not parse arguments or make threads.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    memory::begin();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = busbar_loader::child_main(arguments.iter().skip(1).cloned()) {
        return code;
    }
    match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { EXIT_CONFIG } else { 0 })
        }
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    let context = Context { config: cli.config.unwrap_or_else(default_config), out: Out::new(cli.json) };
    if !matches!(&cli.verb, Verb::Run(arguments) if !arguments.is_once()) {
        crate::logging::init_quiet();
    }
    let outcome = match cli.verb {
        Verb::Run(arguments) => run::run(&context, &arguments),
        Verb::Check(arguments) => check::run(&context, &arguments),
        Verb::Plugins(arguments) => plugins::run(&context, &arguments),
        Verb::Plugin { verb: PluginVerb::Check { file } } => plugin_check::run(&context, &file),
        Verb::Plugin { verb: PluginVerb::Restart(arguments) } => operate::restart(&context, &arguments),
        Verb::Plugin { verb: PluginVerb::Upgrade(arguments) } => {
            plugin_upgrade::upgrade(&context, &arguments)
        }
        Verb::Plugin { verb: PluginVerb::Rollback(arguments) } => {
            plugin_upgrade::rollback(&context, &arguments)
        }
        Verb::Read(arguments) => read::run(&context, &arguments),
        Verb::Write(arguments) => write::run(&context, &arguments),
        Verb::Browse(arguments) => browse::run(&context, &arguments),
        Verb::PrintConfig => print_config::run(&context),
        Verb::Map(arguments) => map::run(&context, &arguments),
        Verb::Frames(arguments) => frames::run(&context, &arguments),
        Verb::Block(arguments) => operate::block(&context, &arguments),
        Verb::Unblock(arguments) => operate::unblock(&context, &arguments),
        Verb::Substitute(arguments) => operate::substitute(&context, &arguments),
        Verb::Maintenance(arguments) => operate::maintenance(&context, &arguments),
        Verb::Device(arguments) => device::run(&context, &arguments),
        Verb::Reload(arguments) => reload::run(&context, &arguments),
        Verb::Queue(arguments) => queue::run(&context, &arguments),
        Verb::State { verb } => state::run(&context, &verb),
        Verb::Health(arguments) => health::run(&context, &arguments),
        Verb::Import { verb } => import::run(&context, &verb),
        Verb::Lock => lock::run(&context, true),
        Verb::Unlock => lock::run(&context, false),
        #[cfg(feature = "demo")]
        Verb::Demo(arguments) => demo::run(&context, &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Config(text) | Failure::Device(text) = &failure {
                complain(text, context.out.json);
            }
            ExitCode::from(failure.code())
        }
    }
}

fn default_config() -> PathBuf {
    let here = PathBuf::from("plugins.toml");
    let system = PathBuf::from(SYSTEM_CONFIG);
    if !here.exists() && system.exists() { system } else { here }
}

/// One error on standard error.
fn complain(text: &str, json: bool) {
    let mut err = std::io::stderr().lock();
    let _ = if json {
        writeln!(err, "{}", serde_json::json!({ "error": text }))
    } else {
        writeln!(err, "busbar: {}", out::printable(text))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn verbs_take_their_arguments() {
        for line in [
            "run --config x.toml",
            "check --schema",
            "check --strict --json",
            "plugins",
            "plugins --history modbus",
            "plugin check a.so",
            "plugin upgrade modbus a.so --json",
            "plugin rollback mqtt --kind sink",
            "read meter-01/voltage",
            "read meter-01 --timeout 3 --json",
            "read --driver modbus --connection host=h,port=502 --address 30001 --address 30003 --type float32 --with order=CDAB",
            "read --driver modbus --connection host=h",
            "write m/p -12.5 --yes",
            "browse m holding:0-99 input:0-9",
            "print-config",
            "map scada",
            "import ems-ini old.ini --output etc --address-mode entity --map-numbers hex --partial",
            "import ems-map map.json --force --json",
            "lock",
            "unlock",
            "run --once",
            "run --once --device a --device b --timeout 5",
            "frames m --for 5m --json",
            "frames m --log off",
            "block m/p --yes",
            "unblock m/p",
            "substitute m/p -2.5 -y",
            "maintenance m on",
            "device m pause --yes",
            "reload",
            "reload --dry-run --json",
            "health --strict",
            "plugin restart modbus --kind driver",
        ] {
            let words = std::iter::once("busbar").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "",
            "read",
            "write m/p",
            "read m --timeout 0",
            "read m --driver d",
            "read --address 1",
            "frobnicate",
            "plugin",
            "run --device a",
            "frames m --for 2h",
        ] {
            let words = std::iter::once("busbar").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
