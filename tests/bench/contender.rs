//! Who is measured, and how each is started on a set of devices.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use busbar_tests::{Place, built, peer};

use crate::measure::Load;

/// One way to get values from the devices to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    GatewayGrouped,
    GatewayPerPoint,
    ScriptGrouped,
    ScriptPerPoint,
    BareLoop,
}

impl Contender {
    pub(crate) const ALL: [Self; 5] = [
        Self::BareLoop,
        Self::GatewayGrouped,
        Self::ScriptGrouped,
        Self::GatewayPerPoint,
        Self::ScriptPerPoint,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::GatewayGrouped => "busbar, message per device",
            Self::GatewayPerPoint => "busbar, message per point",
            Self::ScriptGrouped => "asyncio pymodbus + paho, message per device",
            Self::ScriptPerPoint => "asyncio pymodbus + paho, message per point",
            Self::BareLoop => "bare tokio-modbus poll loop, no sink",
        }
    }

    /// Does it publish at all?
    pub(crate) const fn publishes(self) -> bool {
        !matches!(self, Self::BareLoop)
    }

    const fn grouped(self) -> bool {
        matches!(self, Self::GatewayGrouped | Self::ScriptGrouped)
    }

    /// Starts it; its output goes to `dir/log`.
    pub(crate) fn start(self, dir: &Path, load: &Load, devices: &[SocketAddr], broker: u16) -> Child {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = match self {
            Self::GatewayGrouped | Self::GatewayPerPoint => {
                std::fs::write(dir.join("plugins.toml"), self.configuration(load, devices, broker)).unwrap();
                let mut command = Command::new(built::gateway());
                command.arg("run");
                command
            }
            Self::ScriptGrouped | Self::ScriptPerPoint => {
                let mut command = Command::new(peer::python());
                command.arg(built::root().join("tests/peers/bench_asyncio.py"));
                command.arg(broker.to_string()).arg(if self.grouped() { "grouped" } else { "per-point" });
                self.common(&mut command, load, devices);
                command
            }
            Self::BareLoop => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("bare-loop");
                self.common(&mut command, load, devices);
                command
            }
        };
        command.current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    fn common(self, command: &mut Command, load: &Load, devices: &[SocketAddr]) {
        command.arg(load.interval.as_secs_f64().to_string()).arg(load.points.to_string());
        command.args(devices.iter().map(|device| device.port().to_string()));
    }

    fn configuration(self, load: &Load, devices: &[SocketAddr], broker: u16) -> String {
        let plugins = built::folder();
        let mut text = format!(
            "[host]\nname = \"site\"\ndata_dir = \"data\"\nplugin_dirs = [\"{}\"]\nlog = {{ level = \"warn\" }}\n\n\
             [template.meter]\npoints = [\n",
            plugins.display()
        );
        for point in 0..load.points {
            let address = 2 * point;
            let _ = writeln!(
                text,
                "  {{ name = \"p{point}\", address = \"holding:{address}\", type = \"float32\" }},"
            );
        }
        text.push_str("]\n\n");
        for (number, device) in devices.iter().enumerate() {
            let connection = Place::Tcp(*device).connection("tcp", 1);
            let interval = load.interval.as_millis();
            let _ = writeln!(
                text,
                "[[device]]\nname = \"d{number}\"\ndriver = \"modbus\"\ntemplate = \"meter\"\npoll_interval = \
                 \"{interval}ms\"\nconnection = {connection}\n"
            );
        }
        let topic = if self.grouped() { "busbar/{host}/{device}" } else { "busbar/{host}/{device}/{point}" };
        let url = format!("mqtt://127.0.0.1:{broker}");
        let _ = writeln!(
            text,
            "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nsettings = {{ url = \"{url}\", topic = \"{topic}\" }}"
        );
        text
    }
}
