//! What came at a far side, and whether it may have come like that.
//!
//! Both far sides say of each arrival from which moment on its confirmation is certain: it left the far side, nobody was
//! killed meanwhile, and the gateway had [`ON_DISK`] to write it down. After that moment the record may not come again,
//! unless as the latest state, which follows the backlog once after each connect (SEMANTICS.md section 8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use busbar_tests::Recorder;
use busbar_tests::ems::Ems;

use super::History;
use crate::shared::quality;

/// A confirmation that left the far side is on disk at the gateway: `queue.flush` (50 ms) and a transaction on a busy
/// machine.
const ON_DISK: Duration = Duration::from_secs(1);

/// One value that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Request of the device that it answers.
    pub(super) number: u64,
    /// When it was written down.
    pub(super) at: Instant,
    /// From when on the gateway knows that it came; `None` when the confirmation may have been lost.
    pub(super) certain: Option<Instant>,
}

/// Per device, in order of arrival.
pub(super) type Came = BTreeMap<String, Vec<(String, Arrival)>>;

/// Spans in which something was killed or away.
pub(super) type Spans = [(Instant, Instant)];

/// From when on a confirmation that left at `answered` is certain, for what was written down at `at`.
fn certain(at: Instant, answered: Instant, spans: &Spans) -> Option<Instant> {
    let end = answered + ON_DISK;
    let disturbed = spans.iter().any(|(from, to)| at <= *to && *from <= end);
    (!disturbed).then_some(end)
}

/// What came at the broker, which confirms where it writes down. What is not good carries no number of its own.
pub(super) fn at_broker(broker: &Recorder, history: &History) -> Came {
    let spans = history.of_broker();
    let mut came = Came::new();
    for message in broker.written() {
        let Some(device) = message.topic.rsplit('/').next() else { continue };
        let Some(points) = message.payload["points"].as_object() else { continue };
        let certain = certain(message.at, message.at, &spans);
        for (point, sample) in points.iter().filter(|(_, sample)| quality(sample) == "good") {
            let arrival = Arrival { number: number(&sample["value"]), at: message.at, certain };
            came.entry(device.to_owned()).or_default().push((point.clone(), arrival));
        }
    }
    came
}

/// What the EMS took. A batch is confirmed by any answer to its key that left it: 202, or 409 to the same batch later.
pub(super) fn at_ems(ems: &Ems, clock: Instant, history: &History) -> Came {
    // Only the gateway can lose an answer that has left.
    let spans = history.of_gateway();
    let moment = |seconds: f64| clock + Duration::from_secs_f64(seconds);
    let (requests, answered) = (ems.requests(), ems.answered());
    let mut confirmed: BTreeMap<&str, Instant> = BTreeMap::new();
    for request in &requests {
        let taken = matches!(request["status"].as_u64(), Some(202 | 409));
        let left = answered.get(&request["n"].as_u64().unwrap()).filter(|_| taken);
        let (at, key) = (moment(request["at"].as_f64().unwrap()), request["key"].as_str().unwrap());
        if let Some(end) = left.and_then(|left| certain(at, moment(*left), &spans)) {
            let first = confirmed.entry(key).or_insert(end);
            *first = end.min(*first);
        }
    }
    let mut came = Came::new();
    for request in &requests {
        let at = moment(request["at"].as_f64().unwrap());
        let certain = confirmed.get(request["key"].as_str().unwrap()).copied();
        for record in request["taken"].as_array().unwrap() {
            let device = record["device_id"].as_str().unwrap();
            let measurements = record["measurements"].as_object().unwrap();
            for (point, measurement) in measurements.iter().filter(|(_, m)| m["quality"] == "GOOD") {
                let arrival = Arrival { number: number(&measurement["value"]), at, certain };
                came.entry(device.to_owned()).or_default().push((point.clone(), arrival));
            }
        }
    }
    came
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests")]
fn number(value: &serde_json::Value) -> u64 {
    value.as_f64().unwrap() as u64
}

/// Numbers of one point.
pub(super) fn numbers(came: &Came, device: &str, point: &str) -> BTreeSet<u64> {
    let list = came.get(device).into_iter().flatten();
    list.filter(|(name, _)| name == point).map(|(_, arrival)| arrival.number).collect()
}

/// First arrivals of a device in order, over all its points; second ones only where the confirmation was lost. How many
/// came twice, or what may not be.
///
/// `spans`: what makes the gateway connect anew, and so send the latest state once more.
pub(super) fn check_order(came: &Came, spans: &Spans) -> Result<u64, String> {
    came.iter().map(|(device, list)| check_device(device, list, spans)).sum()
}

fn check_device(device: &str, list: &[(String, Arrival)], spans: &Spans) -> Result<u64, String> {
    let mut twice = 0;
    let mut newest_of_all = 0;
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut certain: BTreeMap<(&str, u64), Option<Instant>> = BTreeMap::new();
    let mut images: BTreeMap<&str, Instant> = BTreeMap::new();
    for (point, arrival) in list {
        let Arrival { number, at, .. } = *arrival;
        let newest = newest.entry(point).or_default();
        let Some(known) = certain.get_mut(&(point.as_str(), number)) else {
            if number <= *newest || number < newest_of_all {
                return Err(format!(
                    "{device}/{point}: {number} came first after {newest_of_all} of the device"
                ));
            }
            (*newest, newest_of_all) = (number, number);
            certain.insert((point, number), arrival.certain);
            continue;
        };
        if known.is_none_or(|certain| at < certain) {
            twice += 1;
            *known = earlier(*known, arrival.certain);
            continue;
        }
        // The latest state, once more behind the backlog.
        if number != *newest {
            return Err(format!(
                "{device}/{point}: {number} came twice although its first arrival was confirmed"
            ));
        }
        let before = images.insert(point, at);
        if before.is_some_and(|before| !spans.iter().any(|(from, to)| before <= *to && *from <= at)) {
            return Err(format!("{device}/{point}: a second image after one connect, {number}"));
        }
    }
    Ok(twice)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

mod tests {
    use super::*;

    fn list(begin: Instant, entries: &[(u64, u64, Option<u64>)]) -> Came {
        let moment = |ms| begin + Duration::from_millis(ms);
        let arrival = |&(number, at, certain): &(u64, u64, Option<u64>)| {
            ("a".to_owned(), Arrival { number, at: moment(at), certain: certain.map(moment) })
        };
        Came::from([("d".to_owned(), entries.iter().map(arrival).collect())])
    }

    fn verdict(entries: &[(u64, u64, Option<u64>)], spans: &[(u64, u64)]) -> Result<u64, String> {
        let begin = Instant::now();
        let came = list(begin, entries);
        let moment = |ms: &u64| begin + Duration::from_millis(*ms);
        let spans: Vec<_> = spans.iter().map(|(from, to)| (moment(from), moment(to))).collect();
        check_order(&came, &spans)
    }

    /// The judge can say no.
    #[test]
    fn what_may_come_twice() {
        let lost =
            verdict(&[(1, 0, Some(1000)), (2, 10, None), (2, 5000, Some(6000)), (3, 5010, Some(6010))], &[]);
        assert_eq!(lost, Ok(1), "its confirmation was lost");
        let spans = [(9000, 9010)];
        let image = [(1, 0, Some(1000)), (2, 10, Some(1010)), (2, 5000, Some(6000)), (2, 9500, Some(10_500))];
        assert_eq!(verdict(&image, &spans), Ok(0), "the latest state, once for each connect");
        assert!(verdict(&image, &[]).unwrap_err().contains("a second image"));
        let old = verdict(&[(1, 0, Some(1000)), (2, 10, Some(1010)), (1, 5000, None)], &spans);
        assert!(old.unwrap_err().contains("its first arrival was confirmed"));
        let late = verdict(&[(2, 0, Some(1000)), (1, 5000, None)], &spans);
        assert!(late.unwrap_err().contains("1 came first after 2"));
    }

    #[test]
    fn a_confirmation_is_certain_when_nothing_disturbed_it() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(certain(at(0), at(10), &[]), Some(at(1010)));
        assert_eq!(certain(at(0), at(10), &[(at(900), at(950))]), None);
        assert_eq!(certain(at(0), at(10), &[(at(1100), at(1200))]), Some(at(1010)));
    }
}
