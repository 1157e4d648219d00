//! `busbar import`: configuration files of older gateways as `plugins.toml`.
//!
//! Nothing is half done: while something of the old file was not understood, nothing is written unless `--partial` says
//! that the rest is wanted, and the exit code stays 1 even then.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use busbar_import::{AddressMode, Files, Import, MAX_FILE_SIZE, MapNumbers, Options, human};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Context, EXIT_CONFIG, Failure, Outcome, out};

/// Standard output.
const STDOUT: &str = "-";

#[derive(Debug, Subcommand)]
pub(super) enum ImportVerb {
    /// An INI file of an EMS gateway, with the maps that it names
    EmsIni(IniArguments),
    /// A JSON map of an EMS gateway, as a template
    EmsMap(MapArguments),
}

#[derive(Debug, Args)]
pub(super) struct IniArguments {
    #[command(flatten)]
    common: Common,
    /// How plain numbers of register lists are read
    #[arg(long, value_enum, default_value_t)]
    address_mode: Mode,
    /// Time zone of start_hour and stop_hour, such as Europe/Madrid
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct MapArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// The old file
    file: PathBuf,
    /// Folder for the new file, or - for standard output
    #[arg(long, value_name = "DIR", default_value = STDOUT)]
    output: PathBuf,
    /// Write what was understood although something was not
    #[arg(long)]
    partial: bool,
    /// Replace the new file if it exists
    #[arg(long)]
    force: bool,
    /// How plain numbers of JSON maps are read; 0x is always hexadecimal
    #[arg(long, value_enum, default_value_t)]
    map_numbers: Numbers,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Mode {
    /// Entity numbers (30001) where they can be one, else offsets; doubts are told
    #[default]
    Auto,
    /// Entity numbers
    Entity,
    /// Offsets, counted from 0
    Offset,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Numbers {
    /// As the old readme said; doubts are told
    #[default]
    Decimal,
    /// As the old gateway did
    Hex,
}

impl Numbers {
    const fn of_import(self) -> MapNumbers {
        match self {
            Self::Decimal => MapNumbers::Decimal,
            Self::Hex => MapNumbers::Hex,
        }
    }
}

pub(super) fn run(context: &Context, verb: &ImportVerb) -> Outcome {
    let (common, address_mode, zone) = match verb {
        ImportVerb::EmsIni(arguments) => (&arguments.common, arguments.address_mode, arguments.zone.clone()),
        ImportVerb::EmsMap(arguments) => (&arguments.common, Mode::Auto, None),
    };
    let address_mode = match address_mode {
        Mode::Auto => AddressMode::Auto,
        Mode::Entity => AddressMode::Entity,
        Mode::Offset => AddressMode::Offset,
    };
    let options = Options { address_mode, map_numbers: common.map_numbers.of_import(), zone };
    let bytes = read(&common.file).map_err(Failure::Config)?;
    let name = common.file.display().to_string();
    let (made, target) = match verb {
        ImportVerb::EmsIni(_) => {
            let made = busbar_import::ini(&name, &bytes, &Beside(&common.file), &options);
            (made, "plugins.toml".to_owned())
        }
        ImportVerb::EmsMap(_) => {
            (busbar_import::map(&name, &bytes, &options), format!("{}.toml", busbar_import::stem(&name)))
        }
    };
    deliver(context, common, &made, &common.output.join(target))
}

/// Tells what was found and writes what may be written.
fn deliver(context: &Context, common: &Common, made: &Import, target: &Path) -> Outcome {
    let to_stdout = common.output == Path::new(STDOUT);
    let wanted = !made.failed() || common.partial;
    if !context.out.json {
        let mut err = io::stderr().lock();
        let colours = err.is_terminal() && context.out.colour;
        let _ = err.write_all(human(&made.findings, &made.sources, colours).as_bytes());
        if !wanted {
            let _ = writeln!(err, "nothing was written; --partial writes what was understood");
        }
    }
    let mut written = None;
    if wanted && !to_stdout {
        write(target, made, common.force).map_err(Failure::Config)?;
        written = Some(target.display().to_string());
    }
    if context.out.json {
        let problems: Vec<_> = made.findings.iter().map(busbar_import::Finding::json).collect();
        let toml = (wanted && to_stdout).then_some(&made.toml);
        context.out.document(
            &json!({ "ok": !made.failed(), "problems": problems, "written": written, "toml": toml }),
        );
    } else if let Some(written) = written {
        let secret = if made.has_secret { " (it holds a password of the old file: mode 0600)" } else { "" };
        context.out.line(&format!("wrote {}{secret}", out::printable(&written)));
    } else if wanted {
        context.out.text(&made.toml);
    }
    if made.failed() { Err(Failure::Told(EXIT_CONFIG)) } else { Ok(()) }
}

/// Written beside and renamed, so that no half file is ever found there.
fn write(target: &Path, made: &Import, force: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", target.display());
    if target.exists() && !force {
        return Err(format!(
            "expected a new file, found {} already there; --force replaces it",
            target.display()
        ));
    }
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let beside = target.with_extension(format!("toml.{}", std::process::id()));
    let mode = if made.has_secret { 0o600 } else { 0o644 };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    let done = file.write_all(made.toml.as_bytes()).and_then(|()| file.sync_all());
    let done = done.and_then(|()| std::fs::rename(&beside, target));
    done.map_err(|error| {
        // What is left over would only be in the way; the first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}

/// At most one byte more than is allowed, so that the importer says what is wrong with it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("expected a readable file, found {}: no such file", path.display())
        }
        _ => format!("expected a readable file, found {}: {error}", path.display()),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_SIZE).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// Maps that an INI file names: from its folder, from the folder above (where old gateways were started), or from here.
struct Beside<'p>(&'p Path);

impl Files for Beside<'_> {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let folder = self.0.parent().unwrap_or(Path::new(""));
        let places = [folder.join(name), folder.join("..").join(name), PathBuf::from(name)];
        let found = places.iter().find(|place| place.is_file());
        match found {
            Some(place) => read(place),
            None => Err(format!("{name}: no such file")),
        }
    }
}
