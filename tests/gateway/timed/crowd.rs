//! Fifty devices, ten refuse the connection, five hang: the others keep their interval (G5).

use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Grid, Manner, refusing};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Place, until};

use crate::shared::{device, mqtt_sink};

const INTERVAL: Duration = Duration::from_millis(500);
const WATCHED: Duration = Duration::from_secs(20);
const GOOD: usize = 35;
const HANGING: usize = 5;
const REFUSING: usize = 10;

#[test]
fn dead_devices_delay_nobody() {
    let manners: Vec<Manner> =
        [vec![Manner::Counting; GOOD], vec![Manner::Hanging; HANGING]].into_iter().flatten().collect();
    let devices = Devices::start(&manners);
    let broker = Broker::start();
    let places = devices.list.iter().map(|device| device.address).chain((0..REFUSING).map(|_| refusing()));
    let mut body = String::new();
    for (i, address) in places.enumerate() {
        let points: Vec<String> = (0..10)
            .map(|p| format!("{{ name = \"p{p}\", address = \"holding:{}\", type = \"float32\" }}", 2 * p))
            .collect();
        let connection = Place::Tcp(address).connection("tcp", 1);
        body += &device(&format!("d{i}"), &connection, "poll_interval = \"500ms\"", &points);
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    let good = &devices.list[..GOOD];
    until("every living device to be polled", PATIENCE, || {
        good.iter().all(|device| device.seen.requests() > 2).then_some(())
    });

    let begin = Instant::now();
    until("the watched time to pass", 2 * WATCHED, || (begin.elapsed() > WATCHED).then_some(()));
    let end = Instant::now();
    let mut grid = Grid::default();
    for device in good {
        let times: Vec<Instant> =
            device.seen.times().into_iter().filter(|time| (begin..=end).contains(time)).collect();
        // A device whose polls stop half way has a perfect grid up to there: its end must reach the window's end.
        let silence = end.duration_since(*times.last().unwrap());
        assert!(silence < 3 * INTERVAL, "a device was last polled {silence:?} ago");
        grid.add(Grid::of(&times, INTERVAL));
    }
    let (kept, p99) = (grid.kept(), grid.p99());
    assert!(kept >= 0.99, "{} of {} due polls came", grid.came, grid.due);
    assert!(p99 < Duration::from_millis(100), "p99 of the start delay is {p99:?}");

    // And what is dead is shown as dead, with a reason, while the rest is ready.
    let devices = gateway.api("/api/v1/devices");
    let state = |i: usize| {
        let found =
            devices.as_array().unwrap().iter().find(|device| device["name"] == format!("d{i}")).unwrap();
        (found["state"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(state(0).0, "online");
    for i in GOOD..GOOD + HANGING + REFUSING {
        let (word, reason) = state(i);
        assert_ne!(word, "online", "d{i}");
        assert!(!reason.is_empty(), "d{i} is {word} without a reason");
    }
}
