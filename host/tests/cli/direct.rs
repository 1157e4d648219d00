//! read, write, browse: directly and through a running host, with the same answers and the same rules.

use serde_json::json;

use crate::common::{Done, POINTS, Site, fake_device, quality, until};

fn site() -> Site {
    let refused = "  { name = \"gone\", address = \"refused\" },";
    let guarded = "  { name = \"guarded\", address = \"value:g\", type = \"bool\", writable = true, interlock = { point = \"m/fixed\", equals = 1 } },";
    Site::new("", &fake_device(&[POINTS, refused, guarded].join("\n")))
}

/// Runs the same checks twice: without and with a running host.
fn both(check: impl Fn(&Site)) {
    let direct = site();
    check(&direct);
    let served = site();
    let _gateway = served.start();
    until("the device to be online", || (served.busbar(&["read", "m/fixed"]).code == Some(0)).then_some(()));
    check(&served);
}

#[test]
fn read_one_point_or_the_device() {
    both(|site| {
        let rows = site.busbar(&["read", "m/fixed", "--json"]).expect(0).json();
        assert_eq!(rows.as_array().unwrap().len(), 1);
        assert_eq!(
            (&rows[0]["point"], &rows[0]["value"], &rows[0]["unit"], quality(&rows[0]).as_str()),
            (&json!("m/fixed"), &json!(231.4), &json!("V"), "good")
        );
        // A point that the device refuses is shown, and a script notices.
        let all = site.busbar(&["read", "m"]).expect(2);
        assert!(all.out.starts_with("POINT") && all.out.contains("231.4"), "{all:?}");
        assert!(all.out.contains("invalid|bad_reference"), "{all:?}");
    });
}

#[test]
fn names_that_do_not_exist_are_usage_errors_with_the_ones_that_do() {
    both(|site| {
        let device = site.busbar(&["read", "x"]).expect(1);
        assert!(device.err.contains("found x") && device.err.contains("m"), "{device:?}");
        let point = site.busbar(&["read", "m/x"]).expect(1);
        assert!(point.err.contains("found x") && point.err.contains("fixed"), "{point:?}");
        site.busbar(&["write", "m/x", "1", "--yes"]).expect(1);
        site.busbar(&["write", "m", "1", "--yes"]).expect(1);
    });
}

#[test]
fn write_reaches_the_device_and_is_audited() {
    both(|site| {
        let written = site.busbar(&["write", "m/set", "25.5", "--yes", "--json"]).expect(0).json();
        assert_eq!((&written["point"], &written["stage"]), (&json!("m/set"), &json!("finished")));
        // The line of the request is there before it leaves; the line of the answer follows it.
        let begin = &site.audit()[0];
        assert_eq!(
            (&begin["event"], &begin["point"], &begin["value"]),
            (&json!("request"), &json!("m/set"), &json!(25.5))
        );
        assert_eq!(begin["origin"]["sink"], "cli", "{begin}");
        until("the answer in the audit log", || {
            site.audit().into_iter().find(|line| line["event"] == "answer" && line["stage"] == "finished")
        });
    });
}

#[test]
fn write_obeys_the_rules() {
    both(|site| {
        let refused = |done: Done, reason: &str| assert!(done.text().contains(reason), "{done:?}");
        refused(site.busbar(&["write", "m/fixed", "1", "--yes"]).expect(1), "not_writable");
        refused(site.busbar(&["write", "m/set", "101", "--yes"]).expect(1), "out_of_range");
        refused(site.busbar(&["write", "m/set", "-1", "--yes"]).expect(1), "out_of_range");
        refused(site.busbar(&["write", "m/guarded", "true", "--yes"]).expect(1), "local_mode");
        // Nobody was asked: nothing is written.
        refused(site.busbar(&["write", "m/set", "1"]).expect(1), "--yes");
        site.busbar(&["lock"]).expect(0);
        refused(site.busbar(&["write", "m/set", "1", "--yes"]).expect(1), "locked_out");
        site.busbar(&["unlock"]).expect(0);
        site.busbar(&["write", "m/set", "1", "--yes"]).expect(0);
    });
}

#[test]
fn a_lock_without_a_host_holds_when_one_starts() {
    let site = site();
    site.busbar(&["lock", "--json"]).expect(0);
    let gateway = site.start();
    let refused = site.busbar(&["write", "m/set", "1", "--yes"]).expect(1);
    assert!(refused.text().contains("locked_out"), "{refused:?}");
    site.busbar(&["unlock"]).expect(0);
    site.busbar(&["write", "m/set", "1", "--yes"]).expect(0);
    drop(gateway);
    site.busbar(&["write", "m/set", "2", "--yes"]).expect(0);
}

#[test]
fn without_an_audit_log_nothing_is_commanded() {
    let site = site();
    let gateway = site.start();
    // A directory in the place of the log cannot be written by anybody, root included.
    std::fs::create_dir(site.data().join("audit.log")).unwrap();
    let done = site.busbar(&["write", "m/set", "1", "--yes"]);
    assert_ne!(done.code, Some(0), "{done:?}");
    assert!(done.text().contains("audit"), "{done:?}");
    assert!(gateway.log().contains("audit"), "{}", gateway.log());
    // Acquisition goes on, and with the log the commands come back.
    site.busbar(&["read", "m/fixed"]).expect(0);
    std::fs::remove_dir(site.data().join("audit.log")).unwrap();
    site.busbar(&["write", "m/set", "1", "--yes"]).expect(0);
}

#[test]
fn browse_gives_points_to_paste() {
    both(|site| {
        let found = site.busbar(&["browse", "m"]).expect(0);
        let parsed: toml::Table = toml::from_str(&found.out).unwrap();
        assert_eq!(parsed["points"].as_array().unwrap().len(), 3, "{found:?}");
        let rows = site.busbar(&["browse", "m", "--json"]).expect(0).json();
        assert_eq!(rows.as_array().unwrap().len(), 3);
    });
}

#[test]
fn a_device_that_does_not_answer_is_exit_code_two() {
    let body = fake_device(POINTS).replace("browse = 3", "acts = { connect = \"session\" }");
    let site = Site::new("", &body);
    let done = site.busbar(&["read", "m", "--timeout", "5"]).expect(2);
    assert!(done.err.contains('m'), "{done:?}");
}
