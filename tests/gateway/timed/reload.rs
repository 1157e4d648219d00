//! Twenty devices at 200 ms run on while others come, go and change beside them: no gap longer than two intervals.

use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Place, until};

use crate::shared::{device, mqtt_sink};

const INTERVAL: Duration = Duration::from_millis(200);
const UNTOUCHED: usize = 20;
const OTHERS: usize = 5;

#[test]
fn what_a_reload_does_not_touch_sees_no_gap() {
    let devices = Devices::start(&[Manner::Counting; UNTOUCHED + OTHERS]);
    let broker = Broker::start();
    let one = |i: usize, points: usize, unit: u8| {
        let points: Vec<String> = (0..points)
            .map(|p| format!("{{ name = \"p{p}\", address = \"holding:{}\", type = \"float32\" }}", 2 * p))
            .collect();
        let connection = Place::Tcp(devices.list[i].address).connection("tcp", unit);
        device(&format!("d{i}"), &connection, "poll_interval = \"200ms\"", &points)
    };
    let body = |round: usize| {
        let mut body: String = (0..UNTOUCHED).map(|i| one(i, 10, 1)).collect();
        // Each round another one is missing, another has more points, another another unit.
        for i in (UNTOUCHED..UNTOUCHED + OTHERS).filter(|i| i % OTHERS != round % OTHERS) {
            let unit = if i % OTHERS == (round + 2) % OTHERS { 2 } else { 1 };
            body += &one(i, 3 + (i + round) % 3, unit);
        }
        body + &mqtt_sink(&broker.url())
    };
    let gateway = Gateway::start(&body(0));
    let good = &devices.list[..UNTOUCHED];
    until("every device to be polled", PATIENCE, || {
        good.iter().all(|device| device.seen.requests() > 5).then_some(())
    });
    let begin = Instant::now();
    for round in 1..=8 {
        gateway.site.write("", &body(round));
        let _ = gateway.cli(&["reload"]).expect(0);
    }
    let end = Instant::now();
    for (i, device) in good.iter().enumerate() {
        let times: Vec<Instant> =
            device.seen.times().into_iter().filter(|time| (begin..=end).contains(time)).collect();
        let longest = times.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap();
        assert!(longest < 2 * INTERVAL, "d{i} waited {longest:?} for its next poll of {INTERVAL:?}");
    }
    let api = gateway.api("/api/v1/devices");
    for device in api.as_array().unwrap().iter().take(UNTOUCHED) {
        let counters = &device["counters"];
        assert_eq!(
            (counters["connects"].as_u64(), counters["losses"].as_u64()),
            (Some(1), Some(0)),
            "{device}"
        );
    }
}
