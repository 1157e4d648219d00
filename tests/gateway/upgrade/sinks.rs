//! A bad version of a sink is taken back, and nothing of the queue is lost meanwhile.

use std::collections::BTreeSet;
use std::fs;

use busbar_tests::built;
use busbar_tests::gateway::HOST;
use busbar_tests::wait::{PATIENCE, until};

use super::{MQTT, Plant, TRIAL};
use crate::shared::{plugin, quality};

/// Registers of a poll; what asks for fewer is a probe.
const POLL: u16 = 4;

/// Tries the bad version until it has been taken back.
fn bad_sink(fault: &str) -> Plant {
    let plant = Plant::start_with(3, "in-process", TRIAL, &[("BUSBAR_TEST_FAULT", fault)]);
    let pid = plant.gateway.process.id();
    let first = plant.accepted("mqtt");
    plant.plugins.install(MQTT, &fs::read(built::folder().join("libbusbar_sink_bad_version.so")).unwrap());
    let reason = plant.failure("mqtt", PATIENCE * 4);
    assert_eq!(plant.gateway.process.id(), pid, "the host never stopped");
    assert_eq!(plant.accepted("mqtt"), first);
    assert_eq!(plugin(&plant.gateway, "mqtt")["state"], "running", "{reason}");
    let history = plant.gateway.cli(&["plugins", "--history", "mqtt", "--json"]).expect(0).json();
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!(
        (last["event"].as_str(), last["reason"].as_str()),
        (Some("taken_back"), Some(reason.as_str()))
    );
    plant.is_well();
    plant
}

impl Plant {
    fn book(&self, name: &str) -> f64 {
        self.gateway.metrics().sum(&format!("busbar_sink_{name}"), &[("sink", "broker")])
    }

    /// Every number that the meters served up to now arrives; nothing is dropped or parked.
    fn nothing_is_missing(&self) {
        for (number, device) in self.devices.list.iter().enumerate() {
            let newest = device.seen.requests();
            let topic = format!("busbar/{HOST}/m{number:02}/a");
            // What was parked and is sent again is overtaken by newer values.
            until(&format!("every number of {topic}"), PATIENCE, || {
                let messages = self.observer.since(0, &topic);
                let good = messages.iter().filter(|message| quality(&message.payload) == "good");
                let came: BTreeSet<u64> =
                    good.map(|message| message.payload["value"].as_f64().unwrap() as u64).collect();
                let first = *came.first()?;
                let mut polls =
                    (first..=newest).filter(|wanted| device.seen.registers(*wanted) == Some(POLL));
                polls.all(|wanted| came.contains(&wanted)).then_some(())
            });
        }
        assert_eq!((self.book("dropped_total"), self.book("parked_total")), (0.0, 0.0));
    }
}

#[test]
fn a_sink_that_confirms_nothing_is_taken_back_and_all_of_it_arrives() {
    bad_sink("mute").nothing_is_missing();
}

#[test]
fn a_sink_that_crashes_is_taken_back_and_all_of_it_arrives() {
    bad_sink("crash").nothing_is_missing();
}

#[test]
fn a_sink_that_hangs_in_its_stop_is_taken_back() {
    // It confirms what it is given before it hangs: that is delivered and gone, as far as anybody can know.
    let plant = bad_sink("stuck");
    assert_eq!((plant.book("dropped_total"), plant.book("parked_total")), (0.0, 0.0));
}

/// What it refused for ever is parked, visible, and sent by the good version when the operator asks.
#[test]
fn a_sink_that_refuses_everything_is_taken_back_and_what_it_refused_is_kept() {
    let plant = bad_sink("refuse");
    assert!(plant.book("parked_total") > 0.0, "it was given something");
    assert_eq!(plant.book("dropped_total"), 0.0);
    let shown = plant.gateway.cli(&["queue", "broker", "--parked"]).expect(0).text();
    assert!(shown.contains("m00/a"), "{shown}");
    let _ = plant.gateway.cli(&["queue", "broker", "--retry-parked", "--yes"]).expect(0);
    until("nothing to be parked", PATIENCE, || (plant.book("parked_total") == 0.0).then_some(()));
    plant.nothing_is_missing();
}
