//! The configuration changes while a backlog waits: what was measured before keeps the name and unit of its time.

use std::collections::BTreeSet;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::ems::{Ems, TOKEN};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Gateway, Place, until};
use serde_json::Value;

use super::{LONG, number};
use crate::shared::device;

const DEVICES: usize = 3;
/// Polls of each device that wait when the configuration changes.
const WAITING: u64 = 30;

fn configuration(simulated: &Devices, ems: &Ems, skip: &[usize], point: &str, unit: &str) -> String {
    let mut body = String::new();
    for (at, simulated) in simulated.list.iter().enumerate().filter(|(at, _)| !skip.contains(at)) {
        let point = format!(
            "{{ name = \"{point}\", address = \"holding:0\", type = \"float32\", unit = \"{unit}\" }}"
        );
        let place = Place::Tcp(simulated.address);
        body +=
            &device(&format!("d{at}"), &place.connection("tcp", 1), "poll_interval = \"100ms\"", &[point]);
    }
    body + &format!(
        "[[sink]]\nname = \"ems\"\nplugin = \"ems-http\"\nreconnect = {{ initial = \"100ms\", max = \"300ms\" }}\n\
         settings = {{ url = \"{}\", token = \"{TOKEN}\", batch_wait = \"100ms\", retry_delay = \"100ms\" }}\n",
        ems.url()
    )
}

/// Number, point and unit of everything good of a device, in order of arrival.
fn of_device(records: &[Value], device: &str) -> Vec<(u64, String, String)> {
    let records = records.iter().filter(|record| record["device_id"] == device);
    let measurements = records.flat_map(|record| record["measurements"].as_object().unwrap().clone());
    measurements
        .filter(|(_, measurement)| measurement["quality"] == "GOOD")
        .map(|(point, measurement)| {
            (number(&measurement["value"]), point, measurement["unit"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn a_backlog_keeps_the_names_and_units_of_its_time() {
    let simulated = Devices::start(&[Manner::Counting; DEVICES]);
    let mut ems = Ems::start();
    let mut gateway = Gateway::start(&configuration(&simulated, &ems, &[], "u", "V"));
    ems.wait("values of every device", PATIENCE, |records| {
        (0..DEVICES).all(|at| !of_device(records, &format!("d{at}")).is_empty()).then_some(())
    });
    ems.kill();
    let polled = |more: u64| {
        let now: Vec<u64> = simulated.list.iter().map(|device| device.seen.requests()).collect();
        until("every device to be polled", PATIENCE, || {
            simulated.list.iter().zip(&now).all(|(device, n)| device.seen.requests() > n + more).then_some(())
        });
    };
    polled(WAITING);
    // What is answered now is on disk before the flush that follows the next polls.
    let before: Vec<u64> = simulated.list.iter().map(|device| device.seen.requests()).collect();
    polled(4);
    gateway.process.kill();

    // The last device is gone; the point has another name at the middle one by having another name everywhere, and
    // another unit.
    gateway.site.write("", &configuration(&simulated, &ems, &[DEVICES - 1], "v", "kV"));
    gateway.restart();
    polled_without_last(&simulated);
    ems.launch();
    ems.wait("new values of the devices that stayed", LONG, |records| {
        (0..DEVICES - 1)
            .all(|at| of_device(records, &format!("d{at}")).iter().any(|(_, point, _)| point == "v"))
            .then_some(())
    });
    let records = ems.records();
    for (at, before) in before.iter().enumerate() {
        let came = of_device(&records, &format!("d{at}"));
        let old: BTreeSet<u64> =
            came.iter().filter(|(_, point, unit)| point == "u" && unit == "V").map(|(n, ..)| *n).collect();
        let first = *old.first().unwrap();
        let missing: Vec<u64> = (first..=*before)
            .filter(|n| simulated.list[at].seen.registers(*n) == Some(2) && !old.contains(n))
            .collect();
        assert!(missing.is_empty(), "d{at}: {missing:?} of the backlog never came as u in V: {came:?}");
        assert!(
            came.iter().all(|(_, point, unit)| (point == "u") == (unit == "V")),
            "d{at}: names and units of two times are mixed: {came:?}"
        );
        assert!(came.is_sorted_by(|a, b| a.0 <= b.0), "d{at}: out of order: {came:?}");
    }
}

fn polled_without_last(simulated: &Devices) {
    let list = &simulated.list[..DEVICES - 1];
    let now: Vec<u64> = list.iter().map(|device| device.seen.requests()).collect();
    until("the devices that stayed to be polled", PATIENCE, || {
        list.iter().zip(&now).all(|(device, n)| device.seen.requests() > n + 4).then_some(())
    });
}
