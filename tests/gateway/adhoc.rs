//! A device from the command line, in no configuration: commissioning with nothing but an address.

use busbar_tests::gateway::Site;
use busbar_tests::{Peer, Place, ports};
use serde_json::json;

use crate::shared::{float, quality};

#[test]
fn a_device_is_read_without_any_configuration() {
    let [a, b] = float(220.5);
    let peer = Peer::single("tcp", &json!({ "holding": { "8198": [b, a] }, "input": { "0": [0xFFF4] } }));
    let Place::Tcp(at) = peer.place(0).clone() else { panic!("a TCP server") };
    let site = Site::new("");
    let connection = format!("host={},port={},unit_id=1", at.ip(), at.port());
    let device = ["read", "--driver", "modbus", "--connection", &connection];
    let run = |more: &[&str]| site.cli(&[&device, more].concat());

    assert_eq!(run(&[]).expect(0).out, "online\n");
    let read = run(&["--address", "holding:0x2006", "--type", "float32", "--with", "order=CDAB", "--json"]);
    let rows = read.expect(0).json();
    assert_eq!(rows[0]["point"], "device/1-holding_0x2006");
    assert_eq!((&rows[0]["value"], quality(&rows[0])), (&json!(220.5), "good"));
    let two = run(&[
        "--address",
        "30001",
        "--address",
        "input:0",
        "--type",
        "int16",
        "--with",
        "scale=0.1",
        "--json",
    ]);
    let rows = two.expect(0).json();
    assert_eq!((&rows[0]["value"], &rows[1]["value"]), (&json!(-1.2), &json!(-1.2)));

    let wrong = run(&["--address", "holdng:1"]).expect(1);
    assert!(wrong.err.contains("found 'holdng:1'"), "{}", wrong.err);
    let nobody = format!("host=127.0.0.1,port={}", ports::free());
    let nobody = site.cli(&["read", "--driver", "modbus", "--connection", &nobody]).expect(2);
    assert!(nobody.err.starts_with("busbar: device: "), "{}", nobody.err);
    let unknown = site.cli(&["read", "--driver", "modbuss", "--connection", "host=h"]);
    assert_ne!(unknown.code, Some(0));
    assert!(unknown.text().contains("modbus"), "{}", unknown.text());
}
