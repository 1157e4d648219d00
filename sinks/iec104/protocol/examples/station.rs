//! A controlled station to try a master against: 1,000 points of each type, commands that always succeed, one event a
//! second of every type. `cargo run -p busbar-iec104 --features server --example station -- 127.0.0.1:2404`
//!
//! Object addresses: 10000 x n + 1 to 1000 for types 30 to 37 (n = 0 to 7); commands 1 (single), 2 (double, select
//! required), 3 (set point, short floating point).
#![allow(clippy::print_stdout, reason = "a command line")]

use std::time::{Duration, SystemTime};

use busbar_iec104::asdu::{Counter, Element, Kind, Qds, Reason, Stamp, TypeId};
use busbar_iec104::map;
use busbar_iec104::server::{Access, Network, Options, Server, Told};
use busbar_iec104::station::{
    Action, CommandPoint, Config, Event, Lane, Output, Point, Progress, SelectMode, Station,
};

const POINTS: u32 = 1_000;

fn utc() -> Stamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Stamp::utc(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn config() -> Config {
    let mut config = Config::default();
    for (block, type_id) in (30..=37).enumerate() {
        let base = u32::try_from(block).unwrap_or(0) * 10_000;
        config.points.extend((1..=POINTS).map(|n| Point {
            common_address: 1,
            ioa: base + n,
            type_id: TypeId(type_id),
            group: Some((n % 4 + 1) as u8),
        }));
    }
    for (ioa, type_id, select) in [
        (1, TypeId::C_SC_NA_1, SelectMode::Direct),
        (2, TypeId::C_DC_NA_1, SelectMode::Required),
        (3, TypeId::C_SE_NC_1, SelectMode::Direct),
    ] {
        config.commands.push(CommandPoint { common_address: 1, ioa, type_id, select, qualifier: None });
    }
    config.lanes = vec![Lane { name: "any".into(), commands: true }];
    config
}

fn element(type_id: TypeId, number: i64) -> Option<Element> {
    let (kind, _) = type_id.layout()?;
    let value = match kind {
        Kind::Single => map::Value::Bool(number % 2 == 1),
        Kind::Double => map::Value::Double((number % 4) as u8),
        Kind::Step => map::Value::Step((number % 64) as i8, false),
        Kind::Bits => map::Value::Bits(number as u32),
        Kind::Counter => {
            return Some(Element::Counter(Counter { value: number as i32, ..Counter::default() }));
        }
        _ => map::Value::Float(number as f64 / 8.0),
    };
    map::element(kind, value, 10_000.0, Qds::GOOD)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2404".into());
    let listen = listen.parse().map_err(|_| format!("expected an address and a port, found {listen}"))?;
    let station = Station::new(config()).map_err(|errors| format!("{errors:?}"))?;
    let access = vec![Access { networks: Network::ANY.to_vec(), lane: 0 }];
    let options = Options { listen, access, tls: None, clock: Box::new(utc) };
    let mut server = Server::bind(station, options).await?;
    println!("listening on {}", server.address());
    let points = server.station().config().points.clone();
    for (place, point) in points.iter().enumerate() {
        if let Some(element) = element(point.type_id, i64::from(point.ioa % 10_000)) {
            server.update(place, element, false).map_err(|error| error.to_string())?;
        }
    }
    let mut record = 0;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => {
                for (place, point) in points.iter().enumerate().filter(|(_, point)| point.ioa % 10_000 == 1) {
                    let Some(element) = element(point.type_id, record) else { continue };
                    let event = Event {
                        record: record as u64, point: place, element, stamp: utc(), reason: Reason::SPONTANEOUS,
                        test: false,
                    };
                    server.update(place, element, false).map_err(|error| error.to_string())?;
                    server.event(0, event).map_err(|error| error.to_string())?;
                }
                record += 1;
                server.flush();
            }
            told = server.next() => {
                println!("{told:?}");
                if let Told::Station(Output::Command(request)) = told {
                    let end = if request.action == Action::Select { Progress::Selected } else { Progress::Finished };
                    server.progress(request.id, end);
                }
            }
        }
    }
}
