//! The shipped configuration, with the ports that are in use.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use toml_edit::{Array, DocumentMut, Item, value};

/// Used where the working directory has no `plugins.toml`, so that an installed binary can show itself too.
const SHIPPED: &str = include_str!("../../../plugins.toml");

/// The configuration of this run.
#[derive(Debug)]
pub(crate) struct Site {
    document: DocumentMut,
    origin: PathBuf,
    folder: TempDir,
    /// What had to be changed, for people.
    changes: Vec<String>,
}

impl Site {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let (text, origin) = match std::fs::read_to_string(path) {
            Ok(text) => (text, path.to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (SHIPPED.to_owned(), PathBuf::from("plugins.toml (built in)"))
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let document = text.parse().map_err(|error| format!("{}: {error}", origin.display()))?;
        let folder =
            TempDir::with_prefix("busbar-demo-").map_err(|error| format!("no temporary folder: {error}"))?;
        Ok(Self { document, origin, folder, changes: Vec::new() })
    }

    /// Name of the gateway.
    pub(crate) fn host(&self) -> &str {
        self.document.get("host").and_then(|host| host.get("name")?.as_str()).unwrap_or("demo")
    }

    /// Where the configuration came from.
    pub(crate) fn origin(&self) -> &Path {
        &self.origin
    }

    /// What was changed against it.
    pub(crate) fn changes(&self) -> &[String] {
        &self.changes
    }

    /// The file that the gateway runs.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("plugins.toml")
    }

    /// Where the gateway logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("gateway.log")
    }

    /// The port of a device in the file.
    pub(crate) fn device_port(&mut self, name: &str) -> Option<u16> {
        let port = self.device(name)?.get("connection")?.get("port")?.as_integer()?;
        u16::try_from(port).ok()
    }

    /// Writes the port in use.
    pub(crate) fn set_device_port(&mut self, name: &str, port: u16) {
        let before = self.device_port(name);
        if before == Some(port) {
            return;
        }
        if let Some(place) =
            self.device(name).and_then(|device| device.get_mut("connection")?.get_mut("port"))
        {
            *place = value(i64::from(port));
            self.changes.push(format!("{name}: port {port} instead of {}", before.unwrap_or(0)));
        }
    }

    /// Names of the points of a device, its template's first.
    pub(crate) fn points(&self, device: &str) -> Vec<String> {
        let devices = self.document.get("device").and_then(Item::as_array_of_tables);
        let named = |table: &&toml_edit::Table| table.get("name").and_then(Item::as_str) == Some(device);
        let Some(device) = devices.into_iter().flatten().find(named) else { return Vec::new() };
        let template = device
            .get("template")
            .and_then(Item::as_str)
            .and_then(|name| self.document.get("template")?.get(name)?.get("points"));
        let lists = [template, device.get("points")].into_iter().flatten();
        lists
            .filter_map(Item::as_array)
            .flatten()
            .filter_map(|point| Some(point.as_inline_table()?.get("name")?.as_str()?.to_owned()))
            .collect()
    }

    fn device(&mut self, name: &str) -> Option<&mut toml_edit::Table> {
        let devices = self.document.get_mut("device")?.as_array_of_tables_mut()?;
        devices.iter_mut().find(|device| device.get("name").and_then(Item::as_str) == Some(name))
    }

    /// The port of the first sink's `mqtt://127.0.0.1:PORT`.
    pub(crate) fn broker_port(&mut self) -> Option<u16> {
        self.broker_url()?.as_str()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Writes the broker's address in use.
    pub(crate) fn set_broker(&mut self, address: SocketAddr) {
        let before = self.broker_port();
        if before == Some(address.port()) {
            return;
        }
        if let Some(url) = self.broker_url() {
            *url = value(format!("mqtt://{address}"));
            self.changes.push(format!("broker: port {} instead of {}", address.port(), before.unwrap_or(0)));
        }
    }

    fn broker_url(&mut self) -> Option<&mut Item> {
        let sinks = self.document.get_mut("sink")?.as_array_of_tables_mut()?;
        let sink = sinks.iter_mut().find(|sink| sink.get("plugin").and_then(Item::as_str) == Some("mqtt"))?;
        sink.get_mut("settings")?.get_mut("url")
    }

    /// The address of the admin listener.
    pub(crate) fn admin(&self) -> Option<&str> {
        self.document.get("host")?.get("admin")?.get("listen")?.as_str()
    }

    /// Writes the admin listener's address in use.
    pub(crate) fn set_admin(&mut self, address: SocketAddr) {
        let before = self.admin().unwrap_or_default().to_owned();
        if before == address.to_string() {
            return;
        }
        if let Some(listen) =
            self.document.get_mut("host").and_then(|host| host.get_mut("admin")?.get_mut("listen"))
        {
            *listen = value(address.to_string());
            self.changes.push(format!("admin listener: {address} instead of {before}"));
        }
    }

    /// Writes the copy. Plugins are looked for beside the executable first, then where the file says.
    pub(crate) fn write(&mut self, beside: Option<&Path>) -> Result<(), String> {
        let base = self.origin.parent().map(absolute).unwrap_or_default();
        let configured = |host: &Item| -> Vec<PathBuf> {
            let dirs = host.get("plugin_dirs").and_then(Item::as_array);
            dirs.into_iter().flatten().filter_map(|dir| dir.as_str()).map(|dir| base.join(dir)).collect()
        };
        if let Some(host) = self.document.get_mut("host") {
            let mut dirs = Array::new();
            for dir in beside.map(absolute).into_iter().chain(configured(host)) {
                dirs.push(dir.display().to_string());
            }
            if let Some(host) = host.as_table_like_mut() {
                host.insert("plugin_dirs", value(dirs));
                host.insert("data_dir", value("data"));
            }
        }
        let path = self.config();
        std::fs::write(&path, self.document.to_string())
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_has_everything_the_demo_changes() {
        let mut site = Site::read(Path::new("/nonexistent/plugins.toml")).unwrap();
        assert_eq!(site.host(), "demo");
        for device in crate::plant::DEVICES {
            assert!(site.device_port(device).is_some(), "{device}");
            assert!(site.points(device).len() >= 4, "{device}");
            site.set_device_port(device, 40_000);
            assert_eq!(site.device_port(device), Some(40_000));
        }
        let address: SocketAddr = "127.0.0.1:40001".parse().unwrap();
        site.set_broker(address);
        assert_eq!(site.broker_port(), Some(40_001));
        site.set_admin(address);
        assert_eq!(site.admin(), Some("127.0.0.1:40001"));
        assert_eq!(site.changes().len(), crate::plant::DEVICES.len() + 2);
        site.write(Some(Path::new("/opt/busbar"))).unwrap();
        let text = std::fs::read_to_string(site.config()).unwrap();
        let written: DocumentMut = text.parse().unwrap();
        assert_eq!(written["host"]["plugin_dirs"][0].as_str(), Some("/opt/busbar"));
        assert!(text.contains("# The configuration of `busbar demo`"), "comments stay");
    }
}
