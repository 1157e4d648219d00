//! As a service and a container run it: no root, no capabilities, the group of the serial port. And the files of the
//! container image, as far as they can be checked without a container engine.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use busbar_tests::gateway::Site;
use busbar_tests::proc::Process;
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Peer, Place, built, until};
use serde_json::json;

use crate::shared::device;

/// "nonroot" of the image.
const USER: u32 = 65532;
/// `dialout` on Debian.
const SERIAL: u32 = 20;

/// `busbar` as that user, in the groups given; the test itself must be root to become somebody else.
fn busbar(site: &Site, groups: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
    command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
    if groups.is_empty() {
        command.arg("--clear-groups");
    } else {
        command.arg(format!("--groups={groups}"));
    }
    command.arg(site.dir.path().join("busbar")).current_dir(site.dir.path()).env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

/// A folder of that user with the gateway and the driver in it.
fn site(body: &str) -> Site {
    let site = Site::new(body);
    let driver = "libbusbar_driver_modbus.so";
    fs::copy(built::gateway(), site.dir.path().join("busbar")).unwrap();
    fs::copy(built::folder().join(driver), site.dir.path().join(driver)).unwrap();
    let text = fs::read_to_string(site.config()).unwrap();
    let plugins = built::folder().display().to_string();
    fs::write(site.config(), text.replace(&plugins, &site.dir.path().display().to_string())).unwrap();
    chown(site.dir.path(), Some(USER), Some(USER)).unwrap();
    site
}

#[test]
fn a_serial_port_needs_its_group_and_nothing_more() {
    let peer = Peer::single("rtu", &json!({ "holding": { "0": [7] } }));
    let Place::Serial(port) = peer.place(0) else { panic!("no serial port") };
    chown(port, Some(0), Some(SERIAL)).unwrap();
    fs::set_permissions(port, fs::Permissions::from_mode(0o660)).unwrap();
    let points = ["{ name = \"p\", address = \"holding:0\", type = \"uint16\" }".to_owned()];
    let body = "[plugins.modbus]\nisolation = \"process\"\n\n".to_owned()
        + &device("m", &peer.place(0).connection("rtu", 1), "", &points);
    let site = site(&body);

    let refused = busbar(&site, "").args(["read", "m"]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("Permission denied"), "{text}");

    let group = SERIAL.to_string();
    let log = File::create(site.dir.path().join("log")).unwrap();
    let child =
        busbar(&site, &group).arg("run").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut gateway = Process::new("busbar", child);
    let ok = |verb: &[&str]| busbar(&site, &group).args(verb).output().unwrap();
    until("the gateway to be healthy", PATIENCE, || {
        ok(&["health", "--strict"]).status.success().then_some(())
    });
    // The port is opened beside the start: the first reads may come too early.
    let rows: serde_json::Value = until("a value", PATIENCE, || {
        let read = ok(&["read", "m", "--json"]);
        read.status.success().then(|| serde_json::from_slice(&read.stdout).unwrap())
    });
    assert_eq!(rows[0]["value"], json!(7), "{rows}");
    assert!(gateway.terminate(PATIENCE).success());
}

/// What can be checked of the image without an engine: it starts what exists, as nobody.
#[test]
fn the_image_starts_what_exists() {
    let root = built::root();
    let folder = root.join("packaging/container");
    let image = fs::read_to_string(folder.join("Containerfile")).unwrap();
    let line =
        |begin: &str| image.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}"));
    assert_eq!(line("USER "), format!("USER {USER}:{USER}"));
    assert!(line("HEALTHCHECK ").ends_with("CMD [\"/usr/bin/busbar\", \"health\"]"));
    assert!(image.contains("cargo build --workspace --locked --profile dist"));
    let plugins = line("ARG PLUGINS=").trim_start_matches("ARG PLUGINS=").trim_matches('"').to_owned();
    let mut listed: Vec<String> = plugins.split(' ').map(str::to_owned).collect();
    listed.sort();
    let mut there = Vec::new();
    for kind in ["driver", "sink"] {
        for entry in fs::read_dir(root.join(format!("{kind}s"))).unwrap().map(|entry| entry.unwrap()) {
            // Folders beside the plugins hold what they share, and protocols whose plugin is to come.
            let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
            if manifest.contains("cdylib") {
                there.push(format!("{kind}_{}", entry.file_name().to_string_lossy().replace('-', "_")));
            }
        }
    }
    there.sort();
    assert_eq!(listed, there, "every driver and sink of this repository is in the image");
    for word in image.split_whitespace().filter(|word| word.starts_with("packaging/")) {
        assert!(root.join(word).exists(), "{word}");
    }
    let config = folder.join("plugins.toml");
    let checked = busbar_tests::cli::busbar(Path::new("/"), &["check", "--config", config.to_str().unwrap()]);
    let _ = checked.expect(0);
}
