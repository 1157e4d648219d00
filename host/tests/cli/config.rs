//! check, print-config, map, plugins, plugin check: what works without a device.

use crate::common::{POINTS, Site, fake_device, fake_driver, plugin_dir};

#[test]
fn check_lists_all_problems_and_run_refuses_them() {
    let site = Site::new("tick = \"soon\"\ncolour = 1", "[[sink]]\nname = \"s\"\n");
    for verb in ["check", "run"] {
        let text = site.busbar(&[verb]).expect(1).text();
        for word in ["plugins.toml:4", "tick", "colour", "plugin"] {
            assert!(text.contains(word), "{verb}: expected {word} in {text}");
        }
    }
    let done = site.busbar(&["check", "--json"]).expect(1);
    let report = done.json();
    assert_eq!(report["ok"], false);
    assert!(report["problems"].as_array().unwrap().len() >= 3, "{report}");
}

#[test]
fn a_missing_file_is_said_with_its_name() {
    let site = Site::new("", "");
    let done = site.busbar(&["check", "--config", "nowhere.toml"]).expect(1);
    assert!(done.text().contains("nowhere.toml"), "{done:?}");
}

#[test]
fn an_absent_plugin_is_a_warning_unless_strict() {
    let device = "[[device]]\nname = \"d\"\ndriver = \"nonesuch\"\nconnection = {}\npoints = []\n";
    let site = Site::new("", device);
    assert!(site.busbar(&["check"]).expect(0).text().contains("nonesuch"));
    assert!(site.busbar(&["check", "--strict"]).expect(1).text().contains("nonesuch"));
    let gateway = site.start();
    assert_eq!(site.api("/plugins")[0]["state"], "failed");
    assert!(site.api("/plugins")[0]["reason"].as_str().unwrap().contains("not found"));
    assert_eq!(site.http("GET", "/readyz?strict", None, "").unwrap().0, 503);
    drop(gateway);
}

#[test]
fn looking_leaves_nothing_behind() {
    let site = Site::new("", &fake_device(POINTS));
    for verb in [&["check"][..], &["plugins"], &["print-config"], &["check", "--schema"]] {
        site.busbar(verb).expect(0);
    }
    let left: Vec<_> = std::fs::read_dir(site.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["plugins.toml"]);
}

#[test]
fn print_config_can_be_read_back_and_hides_secrets() {
    let device = fake_device(POINTS).replace("browse = 3", "password = \"pa55word\"");
    let site = Site::new("", &device);
    let printed = site.busbar(&["print-config"]).expect(0);
    assert!(!printed.text().contains("pa55word"), "{printed:?}");
    toml::from_str::<toml::Table>(&printed.out).unwrap();
    let document = site.busbar(&["print-config", "--json"]).expect(0).json();
    assert_eq!(document["device"][0]["name"], "m");
}

#[test]
fn the_schema_is_json_and_knows_the_plugins() {
    let site = Site::new("", &fake_device(POINTS));
    let schema = site.busbar(&["check", "--schema"]).expect(0).json();
    assert!(schema["$schema"].as_str().unwrap().contains("2020-12"), "{schema}");
}

#[test]
fn plugins_are_shown_before_and_beside_a_running_host() {
    let site = Site::new("", &fake_device(POINTS));
    let find = |rows: &serde_json::Value| {
        rows.as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == "fake" && row["kind"] == "driver")
            .cloned()
            .unwrap()
    };
    let before = find(&site.busbar(&["plugins", "--json"]).expect(0).json());
    assert_eq!((&before["state"], &before["isolation"]), (&"ok".into(), &"in-process".into()));
    assert_eq!(before["sha256"].as_str().unwrap().len(), 64);
    let _gateway = site.start();
    let beside = find(&site.busbar(&["plugins", "--json"]).expect(0).json());
    assert!(["loaded", "running"].contains(&beside["state"].as_str().unwrap()), "{beside}");
    assert_eq!(before["sha256"], beside["sha256"]);
    let table = site.busbar(&["plugins"]).expect(0).out;
    assert!(table.starts_with("NAME") && table.contains("fake"), "{table}");
}

#[test]
fn plugin_check_tells_a_plugin_from_other_files() {
    fake_driver();
    let site = Site::new("", "");
    let file = plugin_dir().join("libbusbar_driver_fake.so");
    let good = site.busbar(&["plugin", "check", file.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(
        (&good["name"], &good["kind"], &good["state"]),
        (&"fake".into(), &"driver".into(), &"ok".into())
    );
    std::fs::write(site.dir.path().join("text.so"), "not a plugin").unwrap();
    let bad = site.busbar(&["plugin", "check", "text.so"]).expect(1);
    assert!(bad.err.contains("text.so") && bad.err.lines().count() == 1, "{bad:?}");
    let gone = site.busbar(&["plugin", "check", "gone.so"]).expect(1);
    assert!(gone.err.contains("gone.so"), "{gone:?}");
}

#[test]
fn map_names_the_sinks_when_asked_for_another() {
    let site = Site::new("", "");
    let done = site.busbar(&["map", "scada"]).expect(1);
    assert!(done.err.contains("scada"), "{done:?}");
}

#[test]
fn usage_errors_are_exit_code_one() {
    let site = Site::new("", "");
    site.busbar(&["frobnicate"]).expect(1);
    site.busbar(&["read"]).expect(1);
    site.busbar(&["--help"]).expect(0);
    site.busbar(&["--version"]).expect(0);
}
