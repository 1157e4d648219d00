//! The harness itself: a broken peer must not look like a broken gateway, nor hide one.

use std::process::Command;

use busbar_tests::broker::Demands;
use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Observer, Peer, built, peer};
use serde_json::json;

/// Our simulated device counts only while a client that nobody here wrote reads it.
#[test]
fn an_independent_client_reads_the_simulated_device() {
    let devices = Devices::start(&[Manner::Counting]);
    let output = Command::new(peer::python())
        .arg(built::root().join("tests/peers/modbus_client.py"))
        .args([devices.list[0].address.port().to_string().as_str(), "0", "50", "3"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let polls: Vec<Vec<f64>> = serde_json::from_str(&text).unwrap();
    assert_eq!(polls, [vec![1.0; 50], vec![2.0; 50], vec![3.0; 50]]);
    assert_eq!(devices.list[0].seen.requests(), 3);
    assert!(devices.list[0].seen.time(3).is_some() && devices.list[0].seen.time(4).is_none());
}

#[test]
fn the_peer_obeys() {
    let mut peer = Peer::single("tcp", &json!({ "holding": { "5": [7, 8] } }));
    assert_eq!(peer.get("holding", 6), 8);
    peer.set("holding", 6, &[9]);
    assert_eq!(peer.get("holding", 6), 9);
    assert_eq!((peer.requests(0), peer.writes(0).len()), (0, 0), "control is no traffic");
}

#[test]
fn the_broker_returns_on_its_port_and_asks_for_passwords() {
    let mut broker = Broker::start();
    let observer = Observer::start(&broker);
    observer.publish("busbar/x", "{\"a\":1}", true);
    let seen = observer.wait_for("the live message", 0, "busbar/x", PATIENCE, |message| !message.retain);
    assert_eq!(seen.payload, json!({ "a": 1 }));
    drop(observer);
    let port = broker.port;
    broker.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "it is gone");
    broker.launch();
    let _ = Observer::start(&broker);

    let closed = Broker::demanding(&Demands { login: Some(("a", "b")), tls: true });
    let refused = std::panic::catch_unwind(|| Observer::start(&closed));
    assert!(refused.is_err(), "anonymous clients are refused");
    let _ = Observer::login(&closed, Some(("a", "b")));
}
