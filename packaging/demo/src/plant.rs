//! The simulated plant: two meters and a pump behind real sockets, and the broker.

use std::{
    f64::consts::PI,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use busbar_modbus::{
    Address, Order, Table, Type,
    simulator::{Bank, Simulator, Wave},
};
use busbar_mqtt::broker::Broker;
use tokio::net::TcpListener;

use crate::site::Site;

/// Names of the devices in `plugins.toml` that are simulated.
pub(crate) const DEVICES: [&str; 3] = ["meter-01", "meter-02", "pump-01"];
/// The one that dies.
pub(crate) const VICTIM: &str = "meter-02";

/// Everything the gateway talks to.
pub(crate) struct Plant {
    devices: Vec<(&'static str, Simulator, SocketAddr)>,
    broker: Broker,
}

impl Plant {
    /// Starts everything and writes the ports in use into `site`.
    pub(crate) async fn start(site: &mut Site) -> Result<Self, String> {
        let mut devices = Vec::new();
        for name in DEVICES {
            let port = site.device_port(name).ok_or_else(|| {
                format!("expected a device {name} with connection.port in the configuration")
            })?;
            let simulator = simulator(name);
            let address = bind(&simulator, name, port).await?;
            site.set_device_port(name, address.port());
            devices.push((name, simulator, address));
        }
        let port = site
            .broker_port()
            .ok_or("expected a sink with plugin = \"mqtt\" and settings.url = mqtt://HOST:PORT")?;
        let broker = match Broker::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(broker) => broker,
            Err(_) => {
                Broker::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| format!("no broker: {error}"))?
            }
        };
        site.set_broker(broker.address());
        free_admin(site).await;
        Ok(Self { devices, broker })
    }

    /// The devices' names.
    pub(crate) fn devices(&self) -> Vec<&'static str> {
        self.devices.iter().map(|(name, ..)| *name).collect()
    }

    /// Name and address of each device.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        self.devices.iter().map(|(name, _, address)| (*name, *address))
    }

    /// The broker.
    pub(crate) fn broker_url(&self) -> String {
        format!("mqtt://{}", self.broker.address())
    }

    /// Takes a device off the network, or puts it back.
    pub(crate) fn set_online(&self, name: &str, online: bool) {
        for (_, simulator, _) in self.devices.iter().filter(|(known, ..)| *known == name) {
            simulator.set_online(online);
        }
    }
}

/// The configured port, or a free one where somebody has it.
async fn bind(simulator: &Simulator, name: &str, port: u16) -> Result<SocketAddr, String> {
    let mut last = String::new();
    for port in [port, 0] {
        let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let bound = if name.starts_with("pump") {
            simulator.bind_rtu_over_tcp(&address).await
        } else {
            simulator.bind_tcp(&address).await
        };
        match bound {
            Ok(address) => return Ok(address),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("{name}: no port could be opened: {last}"))
}

/// The gateway binds its admin listener itself: only a port that is taken is replaced.
async fn free_admin(site: &mut Site) {
    let Some(wanted) = site.admin().and_then(|admin| admin.parse::<SocketAddr>().ok()) else { return };
    if TcpListener::bind(wanted).await.is_ok() {
        return;
    }
    if let Ok(Ok(free)) =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map(|listener| listener.local_addr())
    {
        site.set_admin(free);
    }
}

fn simulator(name: &str) -> Simulator {
    match name {
        "meter-01" => Simulator::builder().unit(1, meter(0.0)).build(),
        "meter-02" => Simulator::builder().unit(1, meter(1.0)).build(),
        _ => Simulator::builder().unit(7, pump()).build(),
    }
}

const fn holding(offset: u16) -> Address {
    Address { table: Table::Holding, offset }
}

/// Registers of a DTSU666: float32, most of them with an implicit factor.
fn meter(shift: f64) -> Bank {
    let wave = |centre: f64, amplitude: f64, seconds: f64| Wave {
        centre,
        amplitude,
        period: Duration::from_secs_f64(seconds),
    };
    let float =
        |bank: Bank, offset: u16, wave: Wave| bank.wave(holding(offset), Type::Float32, Order::Abcd, wave);
    let bank = float(Bank::new(), 0x2006, wave(2300.0 + 4.0 * shift, 25.0, 17.0));
    let bank = float(bank, 0x2008, wave(2310.0 + 4.0 * shift, 20.0, 19.0));
    let bank = float(bank, 0x200A, wave(2295.0 + 4.0 * shift, 22.0, 23.0));
    let bank = float(bank, 0x200C, wave(12_500.0 + 900.0 * shift, 3_000.0, 11.0));
    let bank = float(bank, 0x2012, wave(86_000.0 + 5_000.0 * shift, 20_000.0, 11.0));
    let bank = float(bank, 0x2044, wave(5_000.0, 2.0, 7.0));
    // Grows over hours: a part of a very slow swing.
    float(bank, 0x401E, wave(1_000.0 + 100.0 * shift, 500.0, 3_600.0 * PI))
}

fn pump() -> Bank {
    let whole = |centre: f64, amplitude: f64, seconds: u64| Wave {
        centre,
        amplitude,
        period: Duration::from_secs(seconds),
    };
    let input = |offset| Address { table: Table::Input, offset };
    Bank::new()
        .coils(0, &[true])
        .holding(0, &[1450])
        .wave(input(0), Type::UInt16, Order::Abcd, whole(1450.0, 20.0, 9))
        .wave(input(1), Type::Int16, Order::Abcd, whole(320.0, 40.0, 13))
}
