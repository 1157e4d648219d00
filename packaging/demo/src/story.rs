//! What the demo promises, and whether the broker has seen it. Pure: a clock and images in, words and deeds out.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{
    plant::{Plant, VICTIM},
    watch::{Device, Image, values},
};

/// Quality of a lost device.
const LOST: &str = "invalid|comm_lost";
/// How long everything is shown before the device dies, and how long it stays dead.
const PAUSE: Duration = Duration::from_secs(5);
/// With a time limit: this part of it at most.
const PAUSE_PART: u32 = 5;
/// Without a time limit: the device dies again after this.
const CALM: Duration = Duration::from_secs(20);

/// One thing that must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    AllGood,
    Moving,
    Lost,
    Kept,
    Undisturbed,
    Back,
}

impl Promise {
    const ALL: [Self; 6] =
        [Self::AllGood, Self::Moving, Self::Lost, Self::Kept, Self::Undisturbed, Self::Back];

    const fn text(self) -> &'static str {
        match self {
            Self::AllGood => "every point of every device is good",
            Self::Moving => "values of every device move",
            Self::Lost => "every point of the dead device is invalid|comm_lost and the device is offline",
            Self::Kept => "the last values of the dead device are kept",
            Self::Undisturbed => "the other devices did not notice",
            Self::Back => "the device is back: every point is good again",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Showing,
    Dying,
    Dead,
    Returning,
    Calm,
}

/// The plant as the story moves it.
pub(crate) trait Stage {
    fn set_online(&self, name: &str, online: bool);
}

impl Stage for Plant {
    fn set_online(&self, name: &str, online: bool) {
        Self::set_online(self, name, online);
    }
}

/// The story.
pub(crate) struct Story {
    begun: Instant,
    limit: Option<Duration>,
    phase: Phase,
    since: Duration,
    now: Duration,
    kept: Vec<Promise>,
    disturbed: Option<String>,
    last_values: HashMap<String, Json>,
}

impl Story {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self {
            begun: Instant::now(),
            limit,
            phase: Phase::Starting,
            since: Duration::ZERO,
            now: Duration::ZERO,
            kept: Vec::new(),
            disturbed: None,
            last_values: HashMap::new(),
        }
    }

    pub(crate) const fn elapsed(&self) -> Duration {
        self.now
    }

    pub(crate) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.now >= limit)
    }

    /// One line about where the story is.
    pub(crate) const fn chapter(&self) -> &'static str {
        match self.phase {
            Phase::Starting => "starting: the gateway connects to its devices",
            Phase::Showing | Phase::Calm => "all devices deliver",
            Phase::Dying => "a device was cut off the network",
            Phase::Dead => "a device is lost, the others go on",
            Phase::Returning => "the device is on the network again",
        }
    }

    /// Looks at the image, moves on, and gives back what there is to tell.
    pub(crate) fn look(&mut self, image: &Image, stage: &impl Stage) -> Vec<String> {
        self.at(self.begun.elapsed(), image, stage)
    }

    fn at(&mut self, now: Duration, image: &Image, stage: &impl Stage) -> Vec<String> {
        self.now = now;
        let Some(victim) = image.devices.iter().find(|device| device.name == VICTIM) else {
            return Vec::new();
        };
        if matches!(self.phase, Phase::Dying | Phase::Dead | Phase::Returning) {
            self.watch_others(image);
        }
        let waited = now.saturating_sub(self.since);
        match self.phase {
            Phase::Starting if image.devices.iter().all(is_good) => {
                self.go(Phase::Showing, &[Promise::AllGood]);
                vec![Promise::AllGood.text().to_owned()]
            }
            Phase::Showing if waited >= self.pause() && image.devices.iter().all(moves) => {
                self.go(Phase::Dying, &[Promise::Moving]);
                self.last_values = values(victim);
                stage.set_online(VICTIM, false);
                vec![Promise::Moving.text().to_owned(), format!("{VICTIM} is cut off the network")]
            }
            Phase::Dying if is_lost(victim) => {
                self.go(Phase::Dead, &[Promise::Lost]);
                let mut words = vec![format!(
                    "{VICTIM} is lost after {:.1} s: all its points are {LOST}",
                    waited.as_secs_f64()
                )];
                if keeps(victim, &self.last_values) {
                    self.keep(Promise::Kept);
                    words.push(Promise::Kept.text().to_owned());
                }
                words
            }
            Phase::Dead if waited >= self.pause() => {
                self.go(Phase::Returning, &[]);
                stage.set_online(VICTIM, true);
                vec![format!("{VICTIM} is on the network again")]
            }
            Phase::Returning if is_good(victim) => {
                let undisturbed = self.disturbed.is_none();
                self.go(
                    Phase::Calm,
                    if undisturbed { &[Promise::Back, Promise::Undisturbed] } else { &[Promise::Back] },
                );
                let mut words = vec![format!(
                    "{VICTIM} is back after {:.1} s: every point is good",
                    waited.as_secs_f64()
                )];
                words.extend(undisturbed.then(|| Promise::Undisturbed.text().to_owned()));
                words
            }
            Phase::Calm if self.limit.is_none() && waited >= CALM => {
                self.go(Phase::Showing, &[]);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Everything was seen, or what was not.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let missing: Vec<&str> = Promise::ALL
            .iter()
            .filter(|promise| !self.kept.contains(promise))
            .map(|promise| promise.text())
            .collect();
        match (&self.disturbed, missing.is_empty()) {
            (None, true) => Ok(()),
            (Some(disturbed), true) => Err(format!("promised and broken: {disturbed}")),
            (_, false) => {
                let seconds = self.now.as_secs();
                Err(format!("promised and not seen on the broker within {seconds} s: {}", missing.join("; ")))
            }
        }
    }

    fn pause(&self) -> Duration {
        self.limit.map_or(PAUSE, |limit| PAUSE.min(limit / PAUSE_PART))
    }

    fn go(&mut self, phase: Phase, kept: &[Promise]) {
        self.phase = phase;
        self.since = self.now;
        for promise in kept {
            self.keep(*promise);
        }
    }

    fn keep(&mut self, promise: Promise) {
        if !self.kept.contains(&promise) {
            self.kept.push(promise);
        }
    }

    fn watch_others(&mut self, image: &Image) {
        let others = image.devices.iter().filter(|device| device.name != VICTIM);
        if let Some(device) = others.into_iter().find(|device| !is_good(device)) {
            let bad = device
                .points
                .iter()
                .find(|(_, point)| !point.as_ref().is_some_and(super::watch::Point::is_good));
            let name = bad.map_or("?", |(name, _)| name);
            self.disturbed.get_or_insert_with(|| {
                format!("{}/{name} was disturbed while {VICTIM} was away", device.name)
            });
        }
    }
}

fn is_good(device: &Device) -> bool {
    device.status == "online"
        && device.points.iter().all(|(_, point)| point.as_ref().is_some_and(super::watch::Point::is_good))
}

fn moves(device: &Device) -> bool {
    device.points.iter().any(|(_, point)| point.as_ref().is_some_and(|point| point.changes > 0))
}

fn is_lost(device: &Device) -> bool {
    device.status == "offline"
        && device.points.iter().all(|(_, point)| point.as_ref().is_some_and(|point| point.of_value() == LOST))
}

/// A value may have moved once more between the last look and the cut; what counts is that none is gone.
fn keeps(device: &Device, before: &HashMap<String, Json>) -> bool {
    values(device).iter().all(|(name, value)| !value.is_null() && before.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::device_of;
    use serde_json::json;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Deeds(RefCell<Vec<(String, bool)>>);

    impl Stage for Deeds {
        fn set_online(&self, name: &str, online: bool) {
            self.0.borrow_mut().push((name.to_owned(), online));
        }
    }

    fn image(victim: (&str, &str), other: &str) -> Image {
        let devices = vec![
            device_of("meter-01", "online", &[("p", json!(1), other)]),
            device_of(VICTIM, victim.0, &[("p", json!(2), victim.1)]),
        ];
        Image { devices, ..Image::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_whole_story_keeps_every_promise() {
        let (mut story, deeds) = (Story::new(Some(seconds(30))), Deeds::default());
        let good = image(("online", "good"), "good");
        let lost = image(("offline", LOST), "good");
        assert!(story.at(seconds(0), &Image::default(), &deeds).is_empty());
        story.at(seconds(1), &good, &deeds);
        assert!(story.at(seconds(2), &good, &deeds).is_empty());
        story.at(seconds(7), &good, &deeds);
        assert_eq!(*deeds.0.borrow(), [(VICTIM.to_owned(), false)]);
        assert!(story.at(seconds(8), &image(("online", LOST), "good"), &deeds).is_empty());
        assert_eq!(story.at(seconds(9), &lost, &deeds).len(), 2);
        story.at(seconds(15), &lost, &deeds);
        story.at(seconds(18), &good, &deeds);
        assert_eq!(deeds.0.borrow().last(), Some(&(VICTIM.to_owned(), true)));
        assert!(!story.is_over());
        story.at(seconds(30), &good, &deeds);
        assert!(story.is_over());
        assert_eq!(story.verdict(), Ok(()));
    }

    #[test]
    fn what_was_not_seen_is_named() {
        let (mut story, deeds) = (Story::new(Some(seconds(30))), Deeds::default());
        story.at(seconds(1), &image(("online", "good"), "good"), &deeds);
        story.at(seconds(30), &image(("online", "good"), "good"), &deeds);
        let text = story.verdict().unwrap_err();
        assert!(text.contains("comm_lost") && text.contains("within 30 s"), "{text}");
        assert!(!text.contains(Promise::AllGood.text()), "{text}");
    }

    #[test]
    fn a_disturbed_neighbour_breaks_the_promise() {
        let (mut story, deeds) = (Story::new(Some(seconds(30))), Deeds::default());
        let good = image(("online", "good"), "good");
        for (at, image) in [(1, &good), (7, &good), (8, &image(("offline", LOST), "questionable|old_data"))] {
            story.at(seconds(at), image, &deeds);
        }
        story.at(seconds(15), &image(("offline", LOST), "good"), &deeds);
        story.at(seconds(16), &good, &deeds);
        assert!(story.verdict().unwrap_err().contains("did not notice"));
    }

    #[test]
    fn a_lost_value_breaks_the_promise() {
        let lost = device_of(VICTIM, "offline", &[("p", Json::Null, LOST)]);
        assert!(!keeps(&lost, &HashMap::from([("p".to_owned(), json!(1))])));
    }
}
