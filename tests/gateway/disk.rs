//! Queues on disk under the whole gateway, when something is wrong with the disk, the file or the configuration (G7).
//!
//! Every point of a simulated device holds the number of the request that read it. So what is missing at the far side is
//! known by number, and can be compared with what the ledger says was dropped.

mod damaged;
mod full;
mod renamed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use busbar_tests::device::Devices;
use busbar_tests::metrics::Metrics;
use busbar_tests::{Gateway, Place, Recorder};
use serde_json::Value;

use crate::shared::{device, quality};

/// Deadline for a queue to fill or to drain on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(100);

/// Numbers per device and point, in order of arrival.
pub(crate) type Came = BTreeMap<(String, String), Vec<u64>>;

/// One `[[device]]` per simulated device, `d0` and so on, each with the points `p0` and so on.
pub(crate) fn devices(simulated: &Devices, points: u16, poll: Duration) -> String {
    let points: Vec<String> = (0..points)
        .map(|at| {
            format!(
                "{{ name = \"p{at}\", address = \"holding:{}\", type = \"float32\", unit = \"V\" }}",
                2 * at
            )
        })
        .collect();
    let keys = format!("poll_interval = \"{}ms\"", poll.as_millis());
    let one = |(at, simulated): (usize, &busbar_tests::device::Device)| {
        device(&format!("d{at}"), &Place::Tcp(simulated.address).connection("tcp", 1), &keys, &points)
    };
    simulated.list.iter().enumerate().map(one).collect()
}

/// The sink `broker`: one message per device and poll.
pub(crate) fn sink(recorder: &Recorder, queue: &str) -> String {
    format!(
        "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nreconnect = {{ initial = \"50ms\", max = \"200ms\" }}\n\
         queue = {{ {queue} }}\n\
         settings = {{ url = \"mqtt://{}\", format = \"json\", topic = \"busbar/{{host}}/{{device}}\" }}\n",
        recorder.address
    )
}

/// Everything good that came. What is not good carries no number of its own.
pub(crate) fn came(recorder: &Recorder) -> Came {
    let mut came = Came::new();
    for message in recorder.written() {
        let Some(device) = message.topic.rsplit('/').next() else { continue };
        let Some(points) = message.payload["points"].as_object() else { continue };
        for (point, sample) in points.iter().filter(|(_, sample)| quality(sample) == "good") {
            came.entry((device.to_owned(), point.clone())).or_default().push(number(&sample["value"]));
        }
    }
    came
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests")]
pub(crate) fn number(value: &Value) -> u64 {
    value.as_f64().unwrap() as u64
}

/// The books of the sink `broker`, out of one scrape.
#[derive(Debug, Clone)]
pub(crate) struct Books(Metrics);

impl Books {
    /// As they are now; they must balance at any moment (G7).
    pub(crate) fn of(gateway: &Gateway) -> Self {
        let books = Self(gateway.metrics());
        let ended = books.sum("delivered_total")
            + books.sum("parked_total")
            + books.sum("dropped_total")
            + books.sum("pending_records");
        assert!((books.sum("accepted_total") - ended).abs() < 0.5, "the ledger does not balance: {books:?}");
        books
    }

    fn sum(&self, name: &str) -> f64 {
        self.0.sum(&format!("busbar_sink_{name}"), &[("sink", "broker")])
    }

    pub(crate) fn accepted(&self) -> u64 {
        count(self.sum("accepted_total"))
    }

    pub(crate) fn pending(&self) -> u64 {
        count(self.sum("pending_records"))
    }

    pub(crate) fn delivered(&self) -> u64 {
        count(self.sum("delivered_total"))
    }

    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        let labels = [("sink", "broker"), ("reason", reason)];
        count(self.0.sum("busbar_sink_dropped_total", &labels))
    }

    pub(crate) fn dropped_at_all(&self) -> u64 {
        count(self.sum("dropped_total"))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
fn count(value: f64) -> u64 {
    value as u64
}

/// First arrivals come in order at every point. Gives back how many numbers came more than once.
pub(crate) fn check_order(came: &Came) -> u64 {
    let mut twice = 0;
    for (point, numbers) in came {
        let mut seen = BTreeSet::new();
        let mut newest = 0;
        for number in numbers {
            if !seen.insert(*number) {
                twice += 1;
                continue;
            }
            assert!(*number > newest, "{point:?}: {number} came first after {newest}");
            newest = *number;
        }
    }
    twice
}

/// How many numbers of polls are missing below the newest that came; `registers` is what a poll asks for.
pub(crate) fn missing(came: &Came, simulated: &Devices, registers: u16) -> u64 {
    let of = |((device, _), numbers): (&(String, String), &Vec<u64>)| {
        let seen = &simulated.list[device[1..].parse::<usize>().unwrap()].seen;
        let there: BTreeSet<u64> = numbers.iter().copied().collect();
        let newest = there.last().copied().unwrap_or(0);
        let polls = (1..newest).filter(|number| seen.registers(*number) == Some(registers));
        polls.filter(|number| !there.contains(number)).count() as u64
    };
    came.iter().map(of).sum()
}

/// The newest number of a point.
pub(crate) fn newest(came: &Came, device: &str, point: &str) -> u64 {
    let list = came.get(&(device.to_owned(), point.to_owned()));
    list.and_then(|list| list.iter().max()).copied().unwrap_or(0)
}
