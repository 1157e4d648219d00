//! The broker's demands: passwords, TLS with client certificates, client ids, both protocol versions.

use std::time::Duration;

use busbar_tests::broker::Demands;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, Peer, until};
use serde_json::json;

use crate::shared::{device, quality, topic};

const LOGIN: (&str, &str) = ("plant", "right");

fn meter(peer: &Peer) -> String {
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    device("meter", &peer.place(0).connection("tcp", 1), "poll_interval = \"300ms\"", &points)
}

fn peer() -> Peer {
    Peer::single("tcp", &json!({ "holding": { "0": [7] } }))
}

fn sink(settings: &str) -> String {
    format!("[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\n[sink.settings]\n{settings}\n")
}

fn value_arrives(observer: &Observer, mark: usize) {
    let what = "a good value at the broker";
    let message =
        observer.wait_for(what, mark, &topic("meter", "p"), PATIENCE, |m| quality(&m.payload) == "good");
    assert_eq!(message.payload["value"], json!(7));
}

/// The sink says why it is not connected; waits until it does.
fn refusal(gateway: &Gateway) -> String {
    until("the sink to say why it is not connected", PATIENCE, || {
        let sinks = gateway.api("/api/v1/sinks");
        let reason = sinks[0]["reason"].as_str()?.to_owned();
        let tried = !matches!(reason.as_str(), "" | "starting");
        (sinks[0]["connected"] == json!(false) && tried).then_some(reason)
    })
}

#[test]
fn password_right_and_wrong() {
    let peer = peer();
    let broker = Broker::demanding(&Demands { login: Some(LOGIN), tls: false });
    let observer = Observer::login(&broker, Some(LOGIN));
    let (user, password, url) = (LOGIN.0, LOGIN.1, broker.url());
    let good = format!("url = \"{url}\"\nusername = \"{user}\"\npassword = \"{password}\"");
    let gateway = Gateway::start(&(meter(&peer) + &sink(&good)));
    value_arrives(&observer, 0);
    drop(gateway);

    let wrong = format!("url = \"{url}\"\nusername = \"{user}\"\npassword = \"wr0ng-and-secret\"");
    let gateway = Gateway::start(&(meter(&peer) + &sink(&wrong)));
    let reason = refusal(&gateway);
    assert!(
        reason.to_lowercase().contains("password") || reason.to_lowercase().contains("authori"),
        "{reason}"
    );
    assert!(!gateway.log().contains("wr0ng-and-secret"), "a password in the log");
    // The device is read all the same (G5).
    gateway.point_until("meter/p", "to be good", PATIENCE, |point| quality(point) == "good");
}

#[test]
fn tls_with_client_certificate() {
    let peer = peer();
    let broker = Broker::demanding(&Demands { login: None, tls: true });
    let observer = Observer::start(&broker);
    let made = broker.certificates.as_ref().unwrap();
    let port = broker.tls_port.unwrap();
    let tls = |ca: &std::path::Path| {
        let (ca, cert, key) = (ca.display(), made.client.0.display(), made.client.1.display());
        format!(
            "url = \"mqtts://localhost:{port}\"\ntls = {{ ca = \"{ca}\", cert = \"{cert}\", key = \"{key}\" }}"
        )
    };
    let gateway = Gateway::start(&(meter(&peer) + &sink(&tls(&made.ca))));
    value_arrives(&observer, 0);
    drop(gateway);

    // An authority that did not sign this broker: no connection, and the reason says certificate.
    let gateway = Gateway::start(&(meter(&peer) + &sink(&tls(&made.other_ca))));
    let reason = refusal(&gateway);
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
    drop(gateway);

    // No client certificate where the broker wants one.
    let without = format!("url = \"mqtts://localhost:{port}\"\ntls = {{ ca = \"{}\" }}", made.ca.display());
    let gateway = Gateway::start(&(meter(&peer) + &sink(&without)));
    assert!(!refusal(&gateway).is_empty());
}

#[test]
fn version_5() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let settings = format!("url = \"{}\"\nversion = \"5\"", broker.url());
    let _gateway = Gateway::start(&(meter(&peer) + &sink(&settings)));
    value_arrives(&observer, 0);
}

/// The will: a gateway that dies without a word is shown as offline by the broker.
#[test]
fn a_killed_gateway_is_offline_at_the_broker() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut gateway = Gateway::start(&(meter(&peer) + &sink(&format!("url = \"{}\"", broker.url()))));
    value_arrives(&observer, 0);
    let mark = observer.mark();
    gateway.process.kill();
    observer.wait_for("offline", mark, "busbar/site/status", PATIENCE, |m| m.payload == json!("offline"));
}

/// An orderly stop says so itself, and ends in time.
#[test]
fn an_orderly_stop_says_offline() {
    let peer = peer();
    let broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut gateway = Gateway::start(&(meter(&peer) + &sink(&format!("url = \"{}\"", broker.url()))));
    value_arrives(&observer, 0);
    let mark = observer.mark();
    let status = gateway.process.terminate(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    for status in ["busbar/site/status".to_owned(), topic("meter", "status")] {
        observer.wait_for("offline", mark, &status, PATIENCE, |message| message.payload == json!("offline"));
    }
}

/// Two gateways with one client id throw each other out; both must say so instead of looking like a bad network.
#[test]
fn a_client_id_used_twice_is_named() {
    let peer = peer();
    let broker = Broker::start();
    let settings = format!("url = \"{}\"\nclient_id = \"same\"", broker.url());
    let first = Gateway::start(&(meter(&peer) + &sink(&settings)));
    let second = Gateway::start(&(meter(&peer) + &sink(&settings)));
    until("a warning about the client id", Duration::from_secs(60), || {
        [&first, &second]
            .iter()
            .any(|gateway| gateway.log().contains("same") && gateway.log().contains("client id"))
            .then_some(())
    });
}
