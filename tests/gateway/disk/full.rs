//! A disk of a few megabytes that is full: nothing stops, what cannot be kept is counted, and it ends by itself.

use std::io::Write as _;
use std::time::Duration;

use busbar_tests::device::{Devices, Manner};
use busbar_tests::gateway::Site;
use busbar_tests::wait::{PATIENCE, load_for};
use busbar_tests::{Gateway, Recorder, SmallDisk, until};
use serde_json::Value;

use super::{Books, LONG, came, check_order, devices, missing, newest, number, sink};
use crate::shared::quality;

const DEVICES: usize = 12;
const POINTS: u16 = 50;
const POLL: Duration = Duration::from_millis(100);
/// Room for what is kept back (2 MiB), the log, and some ten thousand records.
const DISK: u64 = 4 << 20;
/// Room for the staged plugins too, whatever the build made of them.
const DATA_DISK: u64 = 256 << 20;
/// Little memory to bridge it.
const QUEUE: &str = "window = 1000, max_size = \"8MiB\"";

struct Place {
    devices: Devices,
    recorder: Recorder,
    gateway: Gateway,
    disk: SmallDisk,
}

/// A gateway of which the folder `small` is the small disk, with values of every device at the far side.
fn start(small: &str, size: u64) -> Place {
    let (devices_, recorder) = (Devices::start(&[Manner::Counting; DEVICES]), Recorder::start());
    let mut site = Site::new(&(devices(&devices_, POINTS, POLL) + &sink(&recorder, QUEUE)));
    let disk = SmallDisk::mount(&site.dir.path().join(small), size);
    site.before = disk.enter(site.dir.path());
    let gateway = Gateway::start_site(site);
    let place = Place { devices: devices_, recorder, gateway, disk };
    place.values_come();
    place
}

impl Place {
    /// A value of every device that is read from now on arrives.
    fn values_come(&self) {
        let now: Vec<u64> = self.devices.list.iter().map(|device| device.seen.requests()).collect();
        until("a new value of every device at the far side", LONG, || {
            let came = came(&self.recorder);
            now.iter().enumerate().all(|(at, n)| newest(&came, &format!("d{at}"), "p0") > *n).then_some(())
        });
    }

    /// The far side goes and stays away until the disk is full and records are given up for it.
    fn fill(&mut self) {
        let before = Books::of(&self.gateway).dropped("disk_full");
        self.recorder.down();
        until("records dropped because the disk is full", LONG, || {
            (Books::of(&self.gateway).dropped("disk_full") > before + 5_000).then_some(())
        });
    }

    /// Fills the disk that holds the data folder with something else, but for the room that the queue has elsewhere.
    fn leave_room(&self) {
        let path = self.disk.outside(&self.gateway.site.dir.path().join("data/ballast"));
        let mut ballast = std::fs::File::create(path).unwrap();
        let mut written = 0;
        while ballast.write_all(&[0x5a; 65_536]).is_ok() {
            written += 65_536;
        }
        ballast.set_len(written - DISK / 2).unwrap();
    }

    /// Nothing waits any more but what was read just now.
    fn drained(&self) -> Books {
        until("the backlog to be delivered", LONG, || {
            let books = Books::of(&self.gateway);
            (books.pending() < u64::from(POINTS) * DEVICES as u64 * 2).then_some(books)
        })
    }

    /// Polling goes on: every device is asked a few times more.
    fn is_polled(&self) {
        let now: Vec<u64> = self.devices.list.iter().map(|device| device.seen.requests()).collect();
        until("every device to be polled on", PATIENCE, || {
            self.devices.list.iter().zip(&now).all(|(device, n)| device.seen.requests() > n + 5).then_some(())
        });
    }
}

/// What the sink says of its queue; empty when all is well.
fn state(gateway: &Gateway) -> String {
    gateway.api("/api/v1/sinks")[0]["queue"].as_str().unwrap().to_owned()
}

/// A point whose value is this request or a newer one, and good.
fn is_fresh(point: &Value, from: u64) -> bool {
    quality(point) == "good" && point["value"].is_number() && number(&point["value"]) > from
}

#[test]
fn what_a_full_disk_costs_is_counted_to_the_record() {
    let mut place = start("data/queue", DISK);
    assert_eq!(state(&place.gateway), "");
    place.fill();
    assert!(state(&place.gateway).contains("full"), "{:?}", state(&place.gateway));
    assert_eq!(place.gateway.get("/healthz").unwrap().status, 200);
    for (at, device) in place.devices.list.iter().enumerate() {
        let from = device.seen.requests();
        place.gateway.point_until(&format!("d{at}/p49"), "fresh", PATIENCE, |point| is_fresh(point, from));
    }

    place.recorder.up();
    let books = place.drained();
    place.values_come();
    until("the queue to be in order", PATIENCE, || state(&place.gateway).is_empty().then_some(()));
    let given_up = Books::of(&place.gateway);
    load_for(10 * POLL);
    let came = came(&place.recorder);
    check_order(&came);
    // Dropped is what did not come, to the record, and for no other reason.
    let dropped = Books::of(&place.gateway).dropped("disk_full");
    assert_eq!(dropped, given_up.dropped("disk_full"), "still dropping: {books:?}");
    assert_eq!(missing(&came, &place.devices, 2 * POINTS), dropped);
    assert_eq!(Books::of(&place.gateway).dropped_at_all(), dropped);
    let log = place.gateway.log();
    assert!(log.lines().any(|line| line.contains("full") && line.contains("broker")), "nothing in the log");
}

#[test]
fn a_gateway_killed_on_a_full_disk_starts_on_it_and_delivers_what_it_holds() {
    let mut place = start("data/queue", DISK);
    place.fill();
    let before = Books::of(&place.gateway);
    place.gateway.restart();
    let after = until("the queue to be open", PATIENCE, || {
        (!state(&place.gateway).contains("being opened")).then(|| Books::of(&place.gateway))
    });
    assert!(after.pending() > 10_000, "the backlog is gone: before {before:?}, after {after:?}");
    place.is_polled();
    place.recorder.up();
    place.drained();
    place.values_come();
    check_order(&came(&place.recorder));
    let delivered = Books::of(&place.gateway).delivered();
    assert!(delivered >= after.pending(), "{delivered} of {} delivered", after.pending());
    until("the queue to be in order", PATIENCE, || state(&place.gateway).is_empty().then_some(()));
}

/// Staged plugins, audit log, durable state and queue on one full disk; and a start on it.
#[test]
fn a_data_folder_on_a_full_disk_stops_nothing() {
    let mut place = start("data", DATA_DISK);
    place.leave_room();
    place.fill();
    place.is_polled();
    assert_eq!(place.gateway.get("/healthz").unwrap().status, 200);
    place.recorder.up();
    place.drained();
    place.values_come();
    let arrived = came(&place.recorder);
    check_order(&arrived);
    let dropped = Books::of(&place.gateway).dropped("disk_full");
    assert_eq!(missing(&arrived, &place.devices, 2 * POINTS), dropped);

    place.fill();
    place.gateway.restart();
    place.is_polled();
    place.recorder.up();
    place.values_come();
    check_order(&came(&place.recorder));
}
