//! Reading and checking `plugins.toml`.
//!
//! [`load`] turns the main file, its includes and its map files into a [`Site`], the plain data that the core runs. The
//! way there, one module per step:
//!
//! ```text
//! source, tree, csv            files -> nodes that know their place
//! secret, settle               references to the environment and to files
//! document                     main file + includes -> devices, sinks, templates, defaults
//! template, library            variables, repetition, map files -> the points of one device
//! device, merge, point, block  layers and defaults, the driver's keys -> devices
//! sink, route, map             patterns and map entries -> sinks
//! shared                       one host in two lists
//! only                         the devices that are to run, where not all are
//! site                         what refers to something else, plugins -> Site
//! judge, explain, dialect      the plugin's JSON Schema and its CHECK, mapped back to the places
//! render, effective, schema, map_list  output: problems, print-config, editors, control centre
//! ```
//!
//! Invariants
//! * All problems are found at once; reading never stops at the first one. A [`Site`] exists only without errors (G11).
//! * Every problem names file, line, column and key, also through templates, includes, repetition and CSV cells.
//! * A secret never gets into a problem, a source line or print-config: see `redact`.
//! * Everything that input can make large has a named bound; no input makes this crate panic.
//!
//! Who checks what. Keys of the host are checked against `keys`. What belongs to a plugin is checked against the JSON
//! Schema it exports, then by its CHECK. What CHECK says about a place that the schema complained about is left out, so
//! that nothing is reported twice. A key that the schema does not name is an error even if the plugin forgot to say
//! `additionalProperties: false`.
//!
//! Annotations in a plugin's schemas that speak to the host: `"x-busbar-unique": ["common_address", "ioa"]` of a sink's
//! `map` (two points with equal values there are a collision; a value that is absent comes from `settings`);
//! `writeOnly: true` on any property marks a secret; `"format": "path"` in `connection`, `settings` or a device's keys
//! marks a file that must be readable (see `files`).
//!
//! Relative paths in `data_dir`, `plugin_dirs`, `path`, `stage_dir`, certificates of the listener and whatever a plugin
//! marks as a path start at the folder of the main file; map files and includes at the folder of the file that names
//! them.

mod active;
mod block;
mod context;
mod csv;
mod device;
mod dialect;
mod document;
mod effective;
mod explain;
mod files;
mod form;
mod host;
mod index;
mod judge;
mod keys;
mod library;
mod map;
mod map_list;
mod merge;
mod only;
mod pattern;
mod plugin;
mod point;
mod problem;
mod redact;
pub mod render;
mod route;
mod schema;
mod secret;
mod settle;
mod shared;
mod sink;
mod site;
mod source;
mod system;
mod template;
mod tree;
mod units;
mod write;

use std::{collections::BTreeMap, fmt, path::Path};

pub use busbar_core::model::Site;

pub use crate::{
    context::{MAX_BLOCKS_PER_DEVICE, MAX_POINTS, MAX_POINTS_PER_DEVICE},
    form::MAX_NAME,
    host::{Admin, HostSettings, Log, LogFile, LogFormat, LogLevel, Tls},
    plugin::{NoPlugins, PluginInfo},
    problem::{MAX_PROBLEMS, Problem, Severity},
    redact::{MASK, telling as is_telling, urls as without_passwords},
    source::{MAX_FILE_SIZE, MAX_FILES, Source, Sources},
    template::MAX_REPEAT,
};

/// How to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// An absent plugin is an error instead of a warning.
    pub strict: bool,
    /// Stands for the process environment (`${env:..}`, `CREDENTIALS_DIRECTORY`); for tests and the demo.
    pub env: Option<BTreeMap<String, String>>,
}

/// What came of loading. Its `Debug` shows no values, because the site holds secrets.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration to run; `None` when there is an error.
    pub site: Option<Site>,
    /// What the host itself needs; defaults where it was not readable.
    pub host: HostSettings,
    /// All problems in the order of files and lines.
    pub problems: Vec<Problem>,
    /// The files that were read.
    pub sources: Sources,
    notes: effective::Notes,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("host", &self.host)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// There is at least one error.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.site.is_none()
    }

    /// The effective configuration as TOML, every default filled in, secrets as [`MASK`]; `None` with errors. It reads
    /// back as the same site, apart from the secrets.
    #[must_use]
    pub fn effective(&self) -> Option<String> {
        Some(effective::write(self.site.as_ref()?, &self.host, &self.notes))
    }

    /// The points of a sink with their map entries as CSV; `None` with errors or when there is no such sink.
    #[must_use]
    pub fn map_list(&self, sink: &str) -> Option<String> {
        let site = self.site.as_ref()?;
        let sink = site.sinks.iter().find(|known| known.name == sink)?;
        Some(map_list::csv(site, sink, &self.notes.masked))
    }

    /// All problems for people; see [`render::human`].
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        render::human(&self.problems, &self.sources, colours)
    }
}

/// JSON Schema (draft 2020-12) of the whole file, for editors; `plugins` adds what its drivers and sinks export.
#[must_use]
pub fn schema(plugins: &dyn PluginInfo) -> serde_json::Value {
    schema::build(plugins)
}

/// Loads a configuration from its main file.
#[must_use]
pub fn load(path: &Path, plugins: &dyn PluginInfo, options: &Options) -> Loaded {
    load_inner(path, None, plugins, options)
}

/// Loads a configuration from a text that stands for the file `path` (which need not exist; relative paths start at its
/// folder).
#[must_use]
pub fn load_text(path: &Path, text: &str, plugins: &dyn PluginInfo, options: &Options) -> Loaded {
    load_inner(path, Some(text), plugins, options)
}

fn load_inner(path: &Path, text: Option<&str>, plugins: &dyn PluginInfo, options: &Options) -> Loaded {
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    let vault = secret::Vault { env: options.env.clone(), base: base.clone() };
    let cx = context::Context::new(vault, plugins, options.strict);
    let document = document::read(&cx, path, text);
    let (core_host, host) = host::build(&cx, &base, document.host.as_ref());
    let made = site::build(&cx, &document, core_host, &base);
    let failed = cx.problems.errors() > 0;
    let sources = cx.sources.into_inner();
    let notes = effective::Notes {
        masked: cx.masked.into_inner(),
        references: cx.references.into_inner(),
        quoted: cx.quoted.into_inner(),
        origins: cx.origins.into_inner(),
        devices: made.devices,
        sinks: made.sinks,
    };
    let problems = cx.problems.finish(&sources);
    Loaded { site: (!failed).then_some(made.site), host, problems, sources, notes }
}
