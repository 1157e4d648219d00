//! An operator's switches: block, unblock, substitute, maintenance; with a gateway and without one; and by the API.

use serde_json::json;

use crate::common::{POINTS, Site, fake_device, quality, until};

fn site() -> Site {
    Site::new("", &fake_device(POINTS))
}

fn point(site: &Site, name: &str) -> serde_json::Value {
    let rows = site.api("/points?device=m");
    rows.as_array().unwrap().iter().find(|row| row["point"] == format!("m/{name}")).unwrap().clone()
}

fn wait_for(site: &Site, name: &str, wanted: &str) -> serde_json::Value {
    until(&format!("m/{name} to be {wanted}"), || {
        Some(point(site, name)).filter(|row| quality(row) == wanted)
    })
}

#[test]
fn points_are_blocked_substituted_and_shown_again() {
    let site = site();
    let gateway = site.start();
    wait_for(&site, "fixed", "good");
    site.busbar(&["block", "m/fixed", "--yes"]).expect(0);
    wait_for(&site, "fixed", "invalid|operator_blocked");
    site.busbar(&["substitute", "m/fixed", "-12.5", "--yes"]).expect(0);
    let row = until("the substitute", || {
        Some(point(&site, "fixed")).filter(|row| row["quality"].as_str().unwrap().contains("substituted"))
    });
    assert_eq!(row["value"], json!(-12.5), "{row}");
    let said = site.busbar(&["unblock", "m/fixed", "--yes", "--json"]).expect(0);
    assert!(said.json()["done"].as_str().unwrap().contains("m/fixed"));
    assert_eq!(wait_for(&site, "fixed", "good")["value"], json!(231.4));
    let events: Vec<String> =
        site.audit().iter().filter_map(|line| Some(line["event"].as_str()?.to_owned())).collect();
    assert_eq!(events, ["block", "substitute", "unblock"]);
    let wrong = site.busbar(&["block", "m/nothing", "--yes"]).expect(1);
    assert!(wrong.err.contains("there are: set, fixed"), "{wrong:?}");
    // Nobody can be asked without a terminal.
    let unasked = site.busbar(&["block", "m/fixed"]).expect(1);
    assert!(unasked.err.contains("--yes"), "{unasked:?}");
    drop(gateway);
}

#[test]
fn a_device_goes_into_maintenance_and_back() {
    let site = site();
    let _gateway = site.start();
    wait_for(&site, "fixed", "good");
    site.busbar(&["maintenance", "m", "on", "--yes"]).expect(0);
    wait_for(&site, "fixed", "invalid|operator_blocked");
    assert_eq!(site.api("/devices")[0]["state"], "maintenance");
    site.busbar(&["maintenance", "m", "off", "--yes"]).expect(0);
    wait_for(&site, "fixed", "good");
}

/// Thrown while no gateway runs, a switch holds when one starts.
#[test]
fn switches_without_a_gateway_hold_when_one_starts() {
    let site = site();
    site.busbar(&["maintenance", "m", "on", "--yes"]).expect(0);
    let wrong = site.busbar(&["maintenance", "nobody", "on", "--yes"]).expect(1);
    assert!(wrong.err.contains("there are: m"), "{wrong:?}");
    {
        let _gateway = site.start();
        assert_eq!(site.api("/devices")[0]["state"], "maintenance");
    }
    site.busbar(&["maintenance", "m", "off", "--yes"]).expect(0);
    site.busbar(&["substitute", "m/set", "7", "--yes"]).expect(0);
    let _gateway = site.start();
    wait_for(&site, "fixed", "good");
    assert_eq!(point(&site, "set")["value"], json!(7.0));
    assert_eq!(site.audit().len(), 3);
}

#[test]
fn the_api_throws_the_same_switches() {
    let site = site();
    let _gateway = site.start();
    wait_for(&site, "fixed", "good");
    let token = site.token();
    let post =
        |path: &str, body: &str| site.http("POST", &format!("/api/v1{path}"), Some(&token), body).unwrap();
    assert_eq!(site.http("POST", "/api/v1/points/m/fixed/block", None, "").unwrap().0, 401);
    assert_eq!(post("/points/m/fixed/block", "").0, 200);
    wait_for(&site, "fixed", "invalid|operator_blocked");
    assert_eq!(post("/points/m/fixed/substitute", "{\"value\":3}").0, 200);
    assert_eq!(post("/points/m/fixed/substitute", "{}").0, 400);
    assert_eq!(post("/points/m/fixed/unblock", "").0, 200);
    wait_for(&site, "fixed", "good");
    assert_eq!(post("/devices/m/maintenance", "{\"on\":true}").0, 200);
    wait_for(&site, "fixed", "invalid|operator_blocked");
    assert_eq!(post("/devices/m/maintenance", "{\"on\":false}").0, 200);
    assert_eq!(post("/devices/nobody/maintenance", "{\"on\":false}").0, 404);
    let (status, body) = post("/plugins/fake/restart", "");
    assert!(status == 404 && body.contains("host's own process"), "{status} {body}");
    let audit = site.audit();
    assert!(audit.iter().all(|line| line["origin"]["sink"] == "api"), "{audit:?}");
    assert_eq!(audit.len(), 5);
}

/// What belongs to a device is counted by device.
#[test]
fn metrics_tell_errors_and_times_per_device() {
    let body = fake_device(POINTS)
        + &fake_device(POINTS)
            .replace("name = \"m\"", "name = \"dead\"")
            .replace("endpoint = \"e\"", "endpoint = \"dead\", acts = { read = \"no_answer\" }");
    let site = Site::new("", &body);
    let _gateway = site.start();
    let text = until("errors and successes in the metrics", || {
        let (_, text) = site.http("GET", "/metrics", None, "").unwrap();
        let has = |line: &str| text.lines().any(|found| found.starts_with(line) && !found.ends_with(" 0"));
        (has("busbar_device_errors_total{device=\"dead\",kind=\"no_answer\"}")
            && has("busbar_device_poll_duration_seconds_count{device=\"m\"}"))
        .then_some(text)
    });
    let value = |line: &str| -> f64 {
        let found = text.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{line}"));
        found.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!(value("busbar_devices{state=\"online\"}"), 1.0);
    assert_eq!(value("busbar_device_errors_total{device=\"m\",kind=\"no_answer\"}"), 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let success = value("busbar_device_last_success_timestamp_seconds{device=\"m\"}");
    assert!((now - success).abs() < 60.0, "{success}");
    assert_eq!(value("busbar_log_dropped_lines_total"), 0.0);
}
