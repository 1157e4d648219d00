//! The admin listener: what is open, what needs the token, what it shows.

use busbar_tests::gateway::Site;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Peer, admin, until};
use serde_json::json;

use crate::shared::{device, mqtt_sink, quality};

fn running() -> (Peer, Broker, Gateway) {
    let peer = Peer::single("tcp", &json!({ "holding": { "0": [7] } }));
    let broker = Broker::start();
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\", unit = \"A\" }".to_owned()];
    let meter = device("meter", &peer.place(0).connection("tcp", 1), "poll_interval = \"300ms\"", &points);
    let gateway = Gateway::start(&(meter + &mqtt_sink(&broker.url())));
    gateway.point_until("meter/p", "to be good", PATIENCE, |point| quality(point) == "good");
    (peer, broker, gateway)
}

#[test]
fn health_and_metrics_are_open_the_api_is_not() {
    let (_peer, _broker, gateway) = running();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.get(path).unwrap().status, 200, "{path}");
    }
    for path in ["/api/v1/points", "/api/v1/devices", "/api/v1/plugins", "/api/v1/sinks"] {
        assert_eq!(gateway.get(path).unwrap().status, 401, "{path}");
        let wrong = admin::request(gateway.site.admin, "GET", path, Some("not the token"), None).unwrap();
        assert_eq!(wrong.status, 401, "{path}");
        assert!(gateway.api(path).as_array().is_some_and(|list| !list.is_empty()), "{path}");
    }
    assert_eq!(gateway.get("/nothing-here").unwrap().status, 404);
}

#[test]
fn the_api_shows_points_devices_plugins_and_sinks() {
    let (_peer, _broker, gateway) = running();
    let point = gateway.point("meter/p").unwrap();
    assert_eq!(
        (&point["value"], &point["unit"], quality(&point)),
        (&json!(7), &json!("A"), "good"),
        "{point}"
    );
    assert!(point["ts"].as_i64().is_some_and(|ts| ts > 1_600_000_000_000), "{point}");
    let path = "/api/v1/points?device=nobody";
    let nobody = admin::request(gateway.site.admin, "GET", path, Some(&gateway.token()), None).unwrap();
    assert_eq!(nobody.status, 404, "a device that is not configured is no empty list: {nobody:?}");
    assert!(gateway.api("/api/v1/points?device=meter").as_array().is_some_and(|list| !list.is_empty()));

    let devices = gateway.api("/api/v1/devices");
    assert_eq!((&devices[0]["name"], &devices[0]["state"]), (&json!("meter"), &json!("online")), "{devices}");
    let plugins = gateway.api("/api/v1/plugins");
    for name in ["modbus", "mqtt"] {
        let plugin = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap();
        assert_eq!(plugin["state"], json!("running"), "{plugin}");
        assert_eq!(plugin["sha256"].as_str().map(str::len), Some(64), "{plugin}");
    }
    let sinks = gateway.api("/api/v1/sinks");
    assert_eq!((&sinks[0]["name"], &sinks[0]["connected"]), (&json!("broker"), &json!(true)), "{sinks}");
}

#[test]
fn metrics_speak_of_polls_and_records() {
    let (_peer, _broker, gateway) = running();
    // The first values come with the resync, before the first scheduled read.
    let metrics = until("a scheduled read", PATIENCE, || {
        let metrics = gateway.metrics();
        (metrics.sum("busbar_polls_done_total", &[("device", "meter")]) >= 1.0).then_some(metrics)
    });
    assert!(metrics.sum("busbar_poll_duration_seconds_count", &[("plugin", "modbus")]) >= 1.0);
    assert!(metrics.sum("busbar_sink_accepted_total", &[("sink", "broker")]) >= 1.0);
    assert!(
        metrics
            .0
            .iter()
            .all(|series| series.name.starts_with("busbar_") || series.name.starts_with("process_"))
    );
}

/// One host per data folder: the second refuses and names the first.
#[test]
fn a_second_host_on_the_same_data_is_refused() {
    let (_peer, _broker, gateway) = running();
    let done = gateway.cli(&["run"]);
    assert_ne!(done.code, Some(0), "{done:?}");
    let pid = gateway.process.id().to_string();
    assert!(done.text().contains(&pid), "names the process {pid} that holds the lock: {done:?}");
    assert_eq!(gateway.get("/healthz").unwrap().status, 200);
}

#[test]
fn beyond_loopback_only_with_tls() {
    let site = Site::new("");
    let text = std::fs::read_to_string(site.config()).unwrap().replace("127.0.0.1:", "0.0.0.0:");
    std::fs::write(site.config(), text).unwrap();
    let done = site.cli(&["check"]).expect(1);
    assert!(done.text().contains("tls"), "{done:?}");
}

/// A wrong file never replaces and never starts; the list names file, line and key of everything at once.
#[test]
fn nothing_starts_on_a_wrong_configuration() {
    let body = "[[device]]\nname = \"a\"\ndriver = \"modbus\"\npol_interval = \"1s\"\n\
                connection = { transport = \"tcp\", host = \"127.0.0.1\", unit_id = 900 }\n\
                points = [{ name = \"p\", address = \"holdng:0\", type = \"uint16\" }]\n";
    let site = Site::new(body);
    for command in ["run", "check"] {
        let done = site.cli(&[command]).expect(1);
        let text = done.text();
        for word in ["plugins.toml:", "pol_interval", "poll_interval", "unit_id", "holdng:0"] {
            assert!(text.contains(word), "{command}: expected {word} in:\n{text}");
        }
    }
}
