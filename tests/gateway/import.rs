//! Sites of the older EMS gateways, taken over: their files are imported, and their values arrive.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, Place, ports};
use serde_json::{Value, json};

use crate::shared::{float, quality};

/// Requests that may wait until the test looks at them.
const WAITING: usize = 1_000;

/// An EMS that takes everything: gives its address, and the bodies it got.
fn ems() -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, bodies) = sync_channel(WAITING);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream, |body| sender.send(body).is_ok()));
        }
    });
    (address, bodies)
}

/// Answers requests of one connection until it ends.
fn serve(stream: TcpStream, take: impl Fn(Value) -> bool) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || reader.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        let count = body["records"].as_array().map_or(0, Vec::len);
        let answer = json!({ "accepted": count, "rejected": [] }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        if !take(body) || reader.get_mut().write_all((head + &answer).as_bytes()).is_err() {
            return;
        }
    }
}

fn seed(device: SocketAddr, ems: SocketAddr, absent: u16) -> String {
    format!(
        "[DEFAULT]\n\
         log_level = INFO\n\
         log_file = gateway.log\n\
         api_url = http://{ems}\n\
         api_timeout = 30\n\
         collection_interval = 1\n\
         \n\
         [DEVICE_1]\n\
         name = Medidor principal\n\
         type = ENERGY_METER\n\
         protocol = TCP\n\
         host = {}\n\
         port = {}\n\
         slave_id = 1\n\
         timeout = 3\n\
         registers = 30001, 30003, 40003, 1\n\
         register_types = INPUT, INPUT, HOLDING, COIL\n\
         data_types = FLOAT32, UINT16, INT16, BOOL\n\
         labels = Voltage_L1, Energía total, Temperature, Relay\n\
         units = V, kWh, C,\n\
         scaling_factors = 1, 0.1, 0.01, 1\n\
         \n\
         [DEVICE_2]\n\
         protocol = TCP\n\
         host = 127.0.0.1\n\
         port = {absent}\n\
         slave_id = 1\n\
         registers = 40001\n\
         register_types = HOLDING\n\
         data_types = INT16\n\
         labels = Nothing\n",
        device.ip(),
        device.port(),
    )
}

/// Imports `ini`, with `map` beside it, and starts what came of it, with an admin listener for the test.
fn take_over(ini: &str, map: &str) -> Gateway {
    let site = Site::new("");
    let folder = site.dir.path();
    std::fs::write(folder.join("config.ini"), ini).unwrap();
    std::fs::write(folder.join("map.json"), map).unwrap();
    let done = site.cli(&["import", "ems-ini", "config.ini", "--output", "."]);
    assert_eq!(done.code, Some(1), "an existing file is not replaced: {}", done.text());
    let _ = site.cli(&["import", "ems-ini", "config.ini", "--output", ".", "--force"]).expect(0);
    let _ = site.cli(&["check", "--strict"]).expect(0);
    let written = std::fs::read_to_string(site.config()).unwrap();
    // A file of the second generation may say nothing of the host.
    let host = if written.contains("\n[host]\n") { "" } else { "[host]\n" };
    let listener = format!("\n{host}[host.admin]\nlisten = \"{}\"\n", site.admin);
    std::fs::write(site.config(), written + &listener).unwrap();
    Gateway::start_site(site)
}

#[test]
fn an_imported_site_sends_what_it_reads() {
    let tables = json!({
        "input": { "0": float(231.4), "2": [12345] },
        "holding": { "2": [2150] },
        "coil": { "0": [1] },
    });
    let peer = Peer::single("tcp", &tables);
    let Place::Tcp(device) = peer.place(0).clone() else { panic!("a TCP server") };
    let (ems, bodies) = ems();
    let gateway = take_over(&seed(device, ems, ports::free()), "{}");
    for (point, value) in [
        ("Voltage_L1", json!(231.4)),
        ("Energia_total", json!(1234.5)),
        ("Temperature", json!(21.5)),
        ("Relay", json!(true)),
    ] {
        gateway.point_until(&format!("Medidor_principal/{point}"), "as configured", PATIENCE, |found| {
            found["value"] == value && quality(found) == "good"
        });
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let body = bodies.recv_timeout(left).expect("a batch with all values, within the test's patience");
        let all = body["records"].as_array().unwrap().iter().any(|record| {
            let measured = &record["measurements"];
            record["device_id"] == "Medidor_principal"
                && measured["Voltage_L1"] == json!({ "value": 231.4, "unit": "V", "quality": "GOOD" })
                && measured["Energía total"] == json!({ "value": 1234.5, "unit": "kWh", "quality": "GOOD" })
        });
        if all {
            return;
        }
    }
}

#[test]
fn units_of_one_map_keep_their_values() {
    let unit = |volts: f32, energy: u16| {
        let [a, b] = float(volts);
        json!({ "holding": { "8198": [a, b], "16422": [0, energy] } })
    };
    let units = json!({ "11": unit(231.5, 1000), "12": unit(118.25, 2000) });
    let peer = Peer::start(&json!([{ "transport": "tcp", "units": units }]));
    let Place::Tcp(device) = peer.place(0).clone() else { panic!("a TCP server") };
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let port = broker.url().rsplit_once(':').unwrap().1.to_owned();
    let ini = format!(
        "[MAINMODBUS]\ndevicesnames = Meters\ninterval = 1\nMQTT_ACTIVE = 1\nmqtt_host = 127.0.0.1\nmqtt_port = {port}\n\
         mqtt_topic = site/modbus\n[Meters]\nprotocol = TCP\nhost = {}\nport = {}\n\
         mapfile = map.json\ndevice_id = 11,12\nidentify_device = one,two\nmodbusconnect = True\nmodbusread = True\n",
        device.ip(),
        device.port()
    );
    let map = json!({
        "VOLTAGE_A": { "address": "0x2006", "data_type": "f", "gain": "1", "unit": "V" },
        "ENERGY": { "address": "0x4026", "data_type": "I", "gain": "0.001" },
    });
    let gateway = take_over(&ini, &map.to_string());
    for (point, value) in [
        ("Meters_11/VOLTAGE_A", json!(231.5)),
        ("Meters_11/ENERGY", json!(1.0)),
        ("Meters_12/VOLTAGE_A", json!(118.25)),
        ("Meters_12/ENERGY", json!(2.0)),
    ] {
        gateway.point_until(point, "as the map says", PATIENCE, |found| {
            found["value"] == value && quality(found) == "good"
        });
    }
    for (unit, identity, volts) in [(11, "one", 231.5), (12, "two", 118.25)] {
        let topic = format!("site/modbus/{unit}/{identity}");
        observer.wait_for("the old gateway's record", 0, &topic, PATIENCE, |message| {
            let record = &message.payload;
            record["device_id"] == unit
                && record["identify_device"] == identity
                && record["device_name"] == "Meters"
                && record["device_section"] == "Meters"
                && record["data"]["VOLTAGE_A"] == volts
                && record["success"] == true
        });
    }
}
