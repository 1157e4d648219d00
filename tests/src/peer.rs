//! Modbus servers on pymodbus, in a process of their own (`peers/modbus_peer.py`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::built;
use crate::proc::Process;

/// Where a server is reached.
#[derive(Debug, Clone)]
pub enum Place {
    /// TCP on loopback.
    Tcp(SocketAddr),
    /// Serial line.
    Serial(String),
}

impl Place {
    /// The `connection` table of a device there.
    #[must_use]
    pub fn connection(&self, transport: &str, unit: u8) -> String {
        match self {
            Self::Tcp(at) => {
                let (host, port) = (at.ip(), at.port());
                format!(
                    "{{ transport = \"{transport}\", host = \"{host}\", port = {port}, unit_id = {unit} }}"
                )
            }
            Self::Serial(path) => {
                format!(
                    "{{ transport = \"{transport}\", path = \"{path}\", baud_rate = 19200, unit_id = {unit} }}"
                )
            }
        }
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    /// The process: stop and resume it here.
    pub process: Process,
    answers: BufReader<ChildStdout>,
    places: Vec<Place>,
}

impl Peer {
    /// Starts one process with these servers (see the head of `modbus_peer.py` for their shape).
    ///
    /// # Panics
    /// When the peers are not installed or do not start.
    #[must_use]
    pub fn start(servers: &Value) -> Self {
        let python = python();
        let script = built::root().join("tests/peers/modbus_peer.py");
        let mut child = Command::new(&python)
            .arg(&script)
            .arg(json!({ "servers": servers }).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let process = Process::new("modbus peer", child);
        let ready = line(&mut answers);
        let places = ready["ready"].as_array().unwrap().iter().map(place).collect();
        Self { process, answers, places }
    }

    /// One server of one unit.
    #[must_use]
    pub fn single(transport: &str, tables: &Value) -> Self {
        Self::start(&json!([{ "transport": transport, "units": { "1": tables } }]))
    }

    /// Where server `index` is reached.
    #[must_use]
    pub fn place(&self, index: usize) -> &Place {
        &self.places[index]
    }

    /// Writes cells of unit 1 of server 0.
    pub fn set(&mut self, table: &str, address: u16, values: &[u16]) {
        self.set_at(0, 1, table, address, values);
    }

    /// Writes cells.
    pub fn set_at(&mut self, server: usize, unit: u8, table: &str, address: u16, values: &[u16]) {
        self.ask(&json!({ "op": "set", "server": server, "unit": unit, "table": table, "address": address,
            "values": values }));
    }

    /// Reads one cell of unit 1 of server 0.
    ///
    /// # Panics
    /// When there is no such cell.
    pub fn get(&mut self, table: &str, address: u16) -> u64 {
        let answer = self
            .ask(&json!({ "op": "get", "server": 0, "unit": 1, "table": table, "address": address,
            "count": 1 }));
        answer["values"][0].as_u64().unwrap()
    }

    /// Changes behaviour of server `index`: `delay`, `share`, `silent`, `refuse`.
    pub fn behave(&mut self, index: usize, mut behaviour: Value) {
        behaviour["op"] = json!("behave");
        behaviour["server"] = json!(index);
        self.ask(&behaviour);
    }

    /// Counters and writes of server `index`.
    pub fn stats(&mut self, index: usize) -> Value {
        self.ask(&json!({ "op": "stats", "server": index }))
    }

    /// Requests that reached server `index`.
    ///
    /// # Panics
    /// When the peer is broken.
    pub fn requests(&mut self, index: usize) -> u64 {
        self.stats(index)["requests"].as_u64().unwrap()
    }

    /// Every write that reached server `index`, as `[unit, table, address, [values]]`.
    ///
    /// # Panics
    /// When the peer is broken.
    pub fn writes(&mut self, index: usize) -> Vec<Value> {
        self.stats(index)["writes"].as_array().unwrap().clone()
    }

    fn ask(&mut self, command: &Value) -> Value {
        let stdin = self.process.child().stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        let answer = line(&mut self.answers);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }
}

/// Python with the pinned peers.
///
/// # Panics
/// When they are not installed.
#[must_use]
pub fn python() -> PathBuf {
    let python = built::target().join("peers/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo task setup`", python.display());
    python
}

fn line(reader: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the peer said {text:?}: {error}"))
}

fn place(value: &Value) -> Place {
    value["port"].as_u64().map_or_else(
        || Place::Serial(value["path"].as_str().unwrap().to_owned()),
        |port| Place::Tcp(([127, 0, 0, 1], u16::try_from(port).unwrap()).into()),
    )
}
