//! Start, signals, stop, the service manager, and two hosts on one folder.

use std::{fs::File, io::Read, os::unix::net::UnixDatagram};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::{POINTS, Site, done, fake_device, until};

#[test]
fn sigterm_and_sigint_stop_in_order() {
    for name in ["TERM", "INT"] {
        let site = Site::new("", &fake_device(POINTS));
        let mut gateway = site.start();
        gateway.signal(name);
        assert_eq!(gateway.wait(), Some(0), "{}", gateway.log());
        assert!(gateway.log().contains("stopped"), "{}", gateway.log());
        assert!(!site.data().join("busbar.sock").exists());
        // The folder is free again.
        site.busbar(&["read", "m/fixed"]).expect(0);
    }
}

#[test]
fn sighup_reloads_and_the_log_says_what_came_of_it() {
    let site = Site::new("", "");
    let gateway = site.start();
    gateway.signal("HUP");
    until("the log to speak of the reload", || {
        let log = gateway.log();
        (log.contains("reload") && log.contains("unchanged")).then_some(())
    });
    assert_eq!(site.http("GET", "/healthz", None, "").unwrap().0, 200);
}

#[test]
fn a_second_host_is_refused_with_the_pid_of_the_first() {
    let site = Site::new("", "");
    let gateway = site.start();
    let second = site.busbar(&["run"]).expect(1);
    assert!(second.text().contains(&gateway.child.id().to_string()), "{second:?}");
    assert_eq!(site.http("GET", "/healthz", None, "").unwrap().0, 200);
}

#[test]
fn a_killed_host_leaves_nothing_that_hinders_the_next() {
    let site = Site::new("", "");
    let mut gateway = site.start();
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    assert!(site.data().join("busbar.sock").exists(), "kill -9 cannot clean up");
    drop(gateway);
    let _again = site.start();
    site.busbar(&["lock"]).expect(0);
}

#[test]
fn the_service_manager_hears_ready_watchdog_and_stopping() {
    let site = Site::new("", "");
    let path = site.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    let mut command = site.command(&["run"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let hear = || {
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap();
        String::from_utf8_lossy(&state[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    until("STOPPING", || (hear() == "STOPPING=1").then_some(()));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_worker_that_is_killed_comes_back_with_its_device() {
    let body = format!("[plugins.fake]\nisolation = \"process\"\n{}", fake_device(POINTS));
    let site = Site::new("", &body);
    let gateway = site.start();
    let state = || site.api("/devices")[0]["state"].as_str().map(str::to_owned);
    let online = || (state().as_deref() == Some("online")).then_some(());
    until("the device to be online", online);
    let worker = site.api("/plugins")[0]["worker_pid"].as_u64().unwrap();
    assert_ne!(worker, u64::from(gateway.child.id()));
    assert!(std::process::Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap().success());
    let next = until("another worker", || {
        site.api("/plugins")[0]["worker_pid"].as_u64().filter(|pid| *pid != worker)
    });
    until("the device to be online again", online);
    assert!(gateway.log().contains("started again"), "{}", gateway.log());
    // Five deaths in a minute are enough.
    let mut last = next;
    until("the plugin to stay down", || {
        let _ = std::process::Command::new("kill").args(["-9", &last.to_string()]).output();
        let plugin = &site.api("/plugins")[0];
        last = plugin["worker_pid"].as_u64().unwrap_or(last);
        plugin["reason"].as_str().is_some_and(|reason| reason.contains("stays down")).then_some(())
    });
    assert_eq!(site.http("GET", "/healthz", None, "").unwrap().0, 200);
}

#[test]
fn a_deep_data_dir_has_a_control_socket_too() {
    let deep = "d".repeat(120);
    let site = Site::new(&format!("data_dir = \"{deep}/data\""), "");
    let _gateway = site.start();
    assert!(site.busbar(&["lock"]).expect(0).out.contains("locked"));
    assert!(site.dir.path().join(deep).join("data/busbar.sock").exists());
}

#[test]
fn logs_are_json_when_asked() {
    let site = Site::new("log = { format = \"json\" }", "");
    let mut gateway = site.start();
    gateway.signal("TERM");
    gateway.wait();
    let log = gateway.log();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
fn a_data_dir_that_cannot_be_made_is_a_configuration_error() {
    let site = Site::new("data_dir = \"plugins.toml/data\"", "");
    let failed = done(site.command(&["run"]).output().unwrap()).expect(1);
    assert!(failed.err.contains("plugins.toml"), "{failed:?}");
}

#[test]
fn on_a_terminal_there_are_colours_unless_unwanted() {
    let site = Site::new("colour = 1", "");
    for (no_color, wanted) in [("", true), ("1", false)] {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = site.command(&["check"]);
        command.env("NO_COLOR", no_color).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let mut child = command.spawn().unwrap();
        // Keeps no copy of the far side, so that reading ends with the command.
        drop(command);
        let mut text = Vec::new();
        // The end of a pseudo-terminal is an error (EIO) on Linux.
        let _ = File::from(ours).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
        assert!(text.contains("colour"), "{text}");
        assert_eq!(text.contains('\u{1b}'), wanted, "{text}");
    }
}
