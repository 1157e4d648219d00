//! From the configuration file to something that can run: read, probe the plugins, check.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use busbar_config::{HostSettings, Loaded, NoPlugins, Options};
use busbar_core::model::{Plugin, Site};
use busbar_loader::{Launcher, Probed};

use super::{Context, EXIT_CONFIG, Failure};
use crate::{
    catalog::{Catalog, StageDir},
    edge::upgrade::begin::{Beginning, begin, running},
};

/// A configuration with everything that is known about its plugins.
pub(crate) struct Prepared {
    /// What the start decided about versions; only for a start.
    pub(crate) beginning: Beginning,
    pub(crate) loaded: Loaded,
    pub(crate) catalog: Catalog,
}

/// A configuration without errors.
pub(crate) struct Sound {
    /// What the start decided about versions.
    pub(crate) beginning: Beginning,
    pub(crate) site: Site,
    pub(crate) probed: Vec<Result<Probed, String>>,
    pub(crate) host: HostSettings,
}

/// Reads the file for `[host]` only: where the data is, without asking any plugin.
pub(crate) fn first_look(context: &Context) -> Loaded {
    busbar_config::load(&context.config, &NoPlugins, &Options::default())
}

/// Reads and checks the configuration with its plugins as they lie in the directories.
pub(crate) fn prepare(
    context: &Context,
    strict: bool,
    stage: fn(&busbar_config::HostSettings) -> StageDir,
) -> Prepared {
    prepare_with(&context.config, strict, stage, |_, _| Beginning::default())
}

/// The same for a start: with the accepted versions.
pub(crate) fn prepare_start(context: &Context) -> Prepared {
    prepare_with(&context.config, false, StageDir::of_host, |host, plugins| begin(&host.data_dir, plugins))
}

/// The same for a reload of the host that runs with `host`: its folders and its accepted versions, whatever the files say
/// now.
pub(crate) fn prepare_reload(config: &Path, host: &HostSettings) -> Prepared {
    let own = host.clone();
    prepare_in(config, false, move |_, plugins| Places {
        plugin_dirs: own.plugin_dirs.clone(),
        stage: StageDir::of_host(&own),
        beginning: running(&own.data_dir, plugins),
    })
}

fn prepare_with(
    config: &Path,
    strict: bool,
    stage: fn(&busbar_config::HostSettings) -> StageDir,
    versions: fn(&HostSettings, &[Plugin]) -> Beginning,
) -> Prepared {
    prepare_in(config, strict, |host, plugins| Places {
        plugin_dirs: host.plugin_dirs.clone(),
        stage: stage(host),
        beginning: versions(host, plugins),
    })
}

/// Where plugins are, and which versions of them count.
struct Places {
    plugin_dirs: Vec<PathBuf>,
    stage: StageDir,
    beginning: Beginning,
}

fn prepare_in(
    config: &Path,
    strict: bool,
    places: impl FnOnce(&HostSettings, &[Plugin]) -> Places,
) -> Prepared {
    let Loaded { site, host, .. } = busbar_config::load(config, &NoPlugins, &Options::default());
    let plugins = site.map(|site| site.plugins).unwrap_or_default();
    let Places { plugin_dirs, stage, beginning } = places(&host, &plugins);
    let catalog =
        Catalog::new(&plugin_dirs, &plugins, stage, Launcher::default()).with_copies(&beginning.copies);
    catalog.examine_all(&plugins);
    let options = Options { strict, ..Options::default() };
    let loaded = busbar_config::load(config, &catalog, &options);
    Prepared { loaded, catalog, beginning }
}

/// Lists all problems on standard error; the site when there is no error among them.
pub(crate) fn checked<'a>(context: &Context, loaded: &'a Loaded) -> Result<&'a Site, Failure> {
    if !loaded.problems.is_empty() {
        let mut err = std::io::stderr().lock();
        let colours = err.is_terminal() && context.out.colour;
        let _ = err.write_all(loaded.render(colours).as_bytes());
    }
    loaded.site.as_ref().ok_or(Failure::Told(EXIT_CONFIG))
}

/// Goes on with a configuration that has no errors.
pub(crate) fn sound(context: &Context, prepared: Prepared) -> Result<Sound, Failure> {
    let Prepared { mut loaded, catalog, beginning } = prepared;
    checked(context, &loaded)?;
    let Some(site) = loaded.site.take() else { return Err(Failure::Told(EXIT_CONFIG)) };
    // Sources and notes of a large site are as large as the site itself: they are not kept.
    let host = loaded.host;
    let probed = catalog.probed(&site.plugins);
    Ok(Sound { site, probed, host, beginning })
}
