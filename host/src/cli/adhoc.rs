//! A device from the command line, for commissioning: `busbar read --driver modbus --connection host=192.0.2.10 --address
//! holding:0x2006 --type float32`. Nothing of it is specific to a driver, and without an address it is a test of the
//! connection.
//!
//! The device becomes a configuration in a folder of its own, so that checks, plugins and sessions are those of every other
//! device; the folder goes away with the command. Of the real configuration only the plugin folders are used.

use std::{
    fmt::Write as _,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Context, Failure, prepare};

/// Name of the device.
pub(super) const DEVICE: &str = "device";
/// Its file, as messages show it.
const FILE: &str = "command-line.toml";

#[derive(Debug, Args)]
#[group(id = "adhoc", multiple = true)]
pub(super) struct Arguments {
    /// Read a device that is in no configuration: its driver
    #[arg(long, value_name = "NAME", conflicts_with = "what", requires = "connection")]
    driver: Option<String>,
    /// Its connection: host=192.0.2.10,port=502,unit_id=1
    #[arg(long, value_name = "KEY=VALUE,..", requires = "driver")]
    connection: Vec<String>,
    /// What to read, in the driver's words; several times for several. None: only test the connection
    #[arg(long, value_name = "ADDRESS", requires = "driver")]
    address: Vec<String>,
    /// Type of the values, in the driver's words
    #[arg(long = "type", value_name = "TYPE", requires = "address")]
    kind: Option<String>,
    /// Further keys of the points: order=CDAB,scale=0.1
    #[arg(long, value_name = "KEY=VALUE,..", requires = "address")]
    with: Vec<String>,
}

impl Arguments {
    /// The driver, where there is one.
    pub(super) fn driver(&self) -> Option<&str> {
        self.driver.as_deref()
    }

    /// Nothing is to be read.
    pub(super) fn is_test(&self) -> bool {
        self.address.is_empty()
    }

    /// The configuration with this device.
    fn text(&self, host: &busbar_config::HostSettings) -> Result<String, String> {
        let path = |path: &Path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            quoted(&path.display().to_string().replace("${", "$${"))
        };
        let dirs: Vec<String> = host.plugin_dirs.iter().map(|dir| path(dir)).collect();
        let mut text = format!("[host]\ndata_dir = \"data\"\nplugin_dirs = [{}]\n", dirs.join(", "));
        if let Some(dir) = &host.stage_dir {
            let _ = writeln!(text, "stage_dir = {}", path(dir));
        }
        let driver = quoted(self.driver().unwrap_or_default());
        let connection = table(&pairs(&self.connection)?);
        let _ =
            writeln!(text, "\n[[device]]\nname = \"{DEVICE}\"\ndriver = {driver}\nconnection = {connection}");
        text.push_str("points = [\n");
        let more = pairs(&self.with)?;
        for (at, address) in self.address.iter().enumerate() {
            let mut point = vec![
                ("name".to_owned(), quoted(&name(address, at))),
                ("address".to_owned(), quoted(address)),
            ];
            point.extend(self.kind.iter().map(|kind| ("type".to_owned(), quoted(kind))));
            point.extend(more.iter().cloned());
            let _ = writeln!(text, "  {},", table(&point));
        }
        text.push_str("]\n");
        Ok(text)
    }
}

/// The configuration on disk; gone when dropped.
pub(super) struct Temporary {
    folder: PathBuf,
    /// For the commands that take a configuration.
    pub(super) context: Context,
}

impl Temporary {
    pub(super) fn new(context: &Context, arguments: &Arguments) -> Result<Self, Failure> {
        let look = prepare::first_look(context);
        let text = arguments.text(&look.host).map_err(Failure::Config)?;
        let folder = std::env::temp_dir().join(format!("busbar-{}", std::process::id()));
        let failed = |error: std::io::Error| {
            Failure::Config(format!(
                "expected a folder for temporary files, found {}: {error}",
                folder.display()
            ))
        };
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let config = folder.join(FILE);
        let made =
            Self { folder: folder.clone(), context: Context { config: config.clone(), out: context.out } };
        std::fs::write(&config, text).map_err(failed)?;
        Ok(made)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `a=1,b=x` -> keys and TOML values. A part without `=` belongs to the value before it: `host=["a","b"]`.
fn pairs(texts: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in texts.iter().flat_map(|text| text.split(',')) {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) if !key.trim().is_empty() => {
                pairs.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part);
            }
            _ => return Err(format!("expected KEY=VALUE,KEY=VALUE, found {part:?}")),
        }
    }
    Ok(pairs.into_iter().map(|(key, text)| (key, value(&text))).collect())
}

/// A number, switch, list or quoted text as it is; anything else is a text.
fn value(text: &str) -> String {
    let parsed = format!("x = {text}").parse::<toml::Table>().ok();
    let plain = parsed.filter(|table| table.len() == 1).is_some_and(|table| {
        table.get("x").is_some_and(|value| !matches!(value, toml::Value::Datetime(_) | toml::Value::Table(_)))
    });
    if plain && !text.contains('\n') { text.to_owned() } else { quoted(text) }
}

fn table(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{} = {value}", quoted(key))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A point's name: its address, as far as a name can show it.
fn name(address: &str, at: usize) -> String {
    let plain: String = address
        .chars()
        .map(
            |symbol| if symbol.is_ascii_alphanumeric() || matches!(symbol, '.' | '-') { symbol } else { '_' },
        )
        .take(busbar_config::MAX_NAME - 4)
        .collect();
    // Addresses that differ in their signs only, and the same address twice.
    format!("{}-{plain}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_where_they_look_like_it() {
        let texts =
            ["host=[\"a\",\"b\"],port=502".to_owned(), "x = 192.0.2.1 ,b=true,f=0.5,s=\"1\"".to_owned()];
        let shown: Vec<String> =
            pairs(&texts).unwrap().iter().map(|(key, value)| format!("{key}:{value}")).collect();
        assert_eq!(
            shown,
            ["host:[\"a\",\"b\"]", "port:502", "x:\"192.0.2.1\"", "b:true", "f:0.5", "s:\"1\""]
        );
        assert_eq!(value("2026-01-01"), "\"2026-01-01\"");
        assert_eq!(value("1\ny = 2"), quoted("1\ny = 2"));
        assert!(pairs(&["=1".to_owned()]).is_err() && pairs(&["host".to_owned()]).is_err());
    }

    #[test]
    fn the_device_is_a_configuration() {
        let arguments = Arguments {
            driver: Some("modbus".into()),
            connection: vec!["host=192.0.2.1,unit_id=3".into()],
            address: vec!["holding:0x2006".into(), "holding:0x2006".into()],
            kind: Some("float32".into()),
            with: vec!["order=CDAB".into()],
        };
        let host = busbar_config::HostSettings { plugin_dirs: vec!["/p".into()], ..Default::default() };
        let text = arguments.text(&host).unwrap();
        let loaded = busbar_config::load_text(
            Path::new(FILE),
            &text,
            &busbar_config::NoPlugins,
            &busbar_config::Options::default(),
        );
        let site = loaded.site.as_ref().unwrap();
        assert_eq!(site.devices[0].connection["unit_id"], 3);
        assert_eq!(site.devices[0].points[1].name, "2-holding_0x2006");
        assert_eq!(site.devices[0].points[1].spec["order"], "CDAB");
    }
}
