//! The simulated devices of demo and driver tests, asked by a client nobody here wrote.

use std::process::Command;

use busbar_modbus::simulator::{Bank, Simulator};
use busbar_tests::{built, peer};
use serde_json::{Value, json};

fn asked_by_pymodbus(transport: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bank = Bank::new()
        .coils(0, &[false; 10])
        .discretes(0, &[false, true, false, true, false, true, false, true, false, true])
        .holding(0, &[100, 101, 102, 103, 104, 105, 106, 107, 108, 109])
        .input(0, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 65535]);
    let simulator = Simulator::builder().unit(1, bank).build();
    let address = runtime.block_on(async {
        match transport {
            "tcp" => simulator.bind_tcp("127.0.0.1:0").await,
            _ => simulator.bind_rtu_over_tcp("127.0.0.1:0").await,
        }
    });
    let output = Command::new(peer::python())
        .arg(built::root().join("tests/peers/modbus_functions.py"))
        .args([address.unwrap().port().to_string().as_str(), transport])
        .output()
        .unwrap();
    assert!(output.status.success(), "{transport}: {}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        found,
        json!({
            "1": vec![false; 10],
            "2": [true, false, true, false, true],
            "3": [100, 101, 102, 103, 104, 105, 106, 107, 108, 109],
            "4": [65535],
            "hole": "exception 2",
            "5, 15": [false, true, false, false, true, false, true, false, false, false],
            "6, 16": [100, 101, 0xBEEF, 103, 104, 1, 2, 3, 108, 109],
            "write to a hole": "exception 2",
        }),
        "{transport}"
    );
}

#[test]
fn every_function_over_tcp() {
    asked_by_pymodbus("tcp");
}

#[test]
fn every_function_over_rtu_in_tcp() {
    asked_by_pymodbus("rtu-over-tcp");
}
