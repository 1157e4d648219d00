//! From the configuration file to something that can run: read, probe the plugins, check.

use std::{
    io::{IsTerminal, Write},
    path::Path,
};

use busbar_config::{HostSettings, Loaded, NoPlugins, Options};
use busbar_core::model::Site;
use busbar_loader::{Launcher, Probed};

use super::{Context, EXIT_CONFIG, Failure};
use crate::catalog::{Catalog, StageDir};

/// A configuration with everything that is known about its plugins.
pub(crate) struct Prepared {
    pub(crate) loaded: Loaded,
    pub(crate) catalog: Catalog,
}

/// A configuration without errors.
pub(crate) struct Sound {
    pub(crate) site: Site,
    pub(crate) probed: Vec<Result<Probed, String>>,
    pub(crate) host: HostSettings,
}

/// Reads the file for `[host]` only: where the data is, without asking any plugin.
pub(crate) fn first_look(context: &Context) -> Loaded {
    busbar_config::load(&context.config, &NoPlugins, &Options::default())
}

/// Reads and checks the configuration with its plugins.
pub(crate) fn prepare(
    context: &Context,
    strict: bool,
    stage: fn(&busbar_config::HostSettings) -> StageDir,
) -> Prepared {
    prepare_file(&context.config, strict, stage)
}

/// The same for a file.
pub(crate) fn prepare_file(
    config: &Path,
    strict: bool,
    stage: fn(&busbar_config::HostSettings) -> StageDir,
) -> Prepared {
    let Loaded { site, host, .. } = busbar_config::load(config, &NoPlugins, &Options::default());
    let plugins = site.map(|site| site.plugins).unwrap_or_default();
    let catalog = Catalog::new(&host.plugin_dirs, &plugins, stage(&host), Launcher::default());
    catalog.examine_all(&plugins);
    let options = Options { strict, ..Options::default() };
    let loaded = busbar_config::load(config, &catalog, &options);
    Prepared { loaded, catalog }
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
    let Prepared { mut loaded, catalog } = prepared;
    checked(context, &loaded)?;
    let Some(site) = loaded.site.take() else { return Err(Failure::Told(EXIT_CONFIG)) };
    // Sources and notes of a large site are as large as the site itself: they are not kept.
    let host = loaded.host;
    let probed = catalog.probed(&site.plugins);
    Ok(Sound { site, probed, host })
}
