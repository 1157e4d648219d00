//! The broker dies and returns: polling never pauses, delivery resumes (G5).

use std::time::{Duration, Instant};

use busbar_tests::device::{Devices, Grid, Manner};
use busbar_tests::wait::PATIENCE;
use busbar_tests::{Broker, Gateway, Observer, until};

use crate::shared::{device, mqtt_sink, quality, topic};

const POLL: Duration = Duration::from_millis(200);
const OUTAGE: Duration = Duration::from_secs(6);

/// Longest time after the broker is back until values flow again: back-off of the sink (1 s doubling, not beyond the
/// outage itself), connect, one poll.
const RESUME: Duration = Duration::from_secs(15);

#[test]
fn polling_never_pauses_and_delivery_resumes() {
    let devices = Devices::start(&[Manner::Counting; 4]);
    let mut broker = Broker::start();
    let observer = Observer::start(&broker);
    let mut body = String::new();
    for (i, simulated) in devices.list.iter().enumerate() {
        let place = busbar_tests::Place::Tcp(simulated.address);
        let points = ["{ name = \"n\", address = \"holding:0\", type = \"float32\" }".to_owned()];
        body += &device(&format!("d{i}"), &place.connection("tcp", 1), "poll_interval = \"200ms\"", &points);
    }
    let gateway = Gateway::start(&(body + &mqtt_sink(&broker.url())));
    for i in 0..devices.list.len() {
        observer.wait_for("a first value", 0, &topic(&format!("d{i}"), "n"), PATIENCE, |m| {
            quality(&m.payload) == "good"
        });
    }
    let begin = Instant::now();
    drop(observer);
    broker.kill();
    until("the outage to pass", PATIENCE, || (begin.elapsed() > OUTAGE).then_some(()));
    assert_eq!(gateway.get("/healthz").unwrap().status, 200);
    let read_during = devices.list[0].seen.requests();
    broker.launch();
    let observer = Observer::start(&broker);
    for i in 0..devices.list.len() {
        // Newer than the outage: what was read while the broker was away may come too, but this must.
        observer.wait_for(
            "a value read after the outage",
            0,
            &topic(&format!("d{i}"), "n"),
            RESUME,
            |message| {
                #[allow(clippy::cast_precision_loss, reason = "request numbers stay far below 2^24")]
                let newest = read_during as f64;
                quality(&message.payload) == "good"
                    && message.payload["value"].as_f64().is_some_and(|n| n > newest)
            },
        );
    }

    let mut grid = Grid::default();
    for simulated in &devices.list {
        let times: Vec<Instant> = simulated.seen.times().into_iter().filter(|time| *time >= begin).collect();
        let longest = times.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap();
        assert!(longest < 3 * POLL, "a device waited {longest:?} for its next poll of {POLL:?}");
        grid.add(Grid::of(&times, POLL));
    }
    assert!(grid.kept() >= 0.99, "{} of {} polls", grid.came, grid.due);

    // Nothing vanished without a name: accepted = delivered + pending + parked + dropped.
    let metrics = gateway.metrics();
    let of = |name: &str| metrics.sum(name, &[("sink", "broker")]);
    let accounted = of("busbar_sink_delivered_total")
        + of("busbar_sink_pending_records")
        + of("busbar_sink_parked_total")
        + of("busbar_sink_dropped_total");
    let accepted = of("busbar_sink_accepted_total");
    assert!(accepted > 0.0, "no counter of accepted records");
    assert!((accepted - accounted).abs() < 0.5, "accepted {accepted}, accounted for {accounted}");
}
