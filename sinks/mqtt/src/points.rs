//! The point list, prepared: topics, names and units as the bytes that go out, made once per point list.

use std::collections::HashMap;

use busbar_driver_api::Link;
use busbar_mqtt::payload::{name_fragment, unit_fragment};
use busbar_mqtt::topic::{Names, Placeholder, SetTopics};

use crate::check::Topics;
use crate::sink::Mqtt;

/// The system point that tells whether a device is online.
pub(crate) const ONLINE: &str = "@online";

/// One point.
#[derive(Debug)]
pub(crate) struct Point {
    /// Index into [`Points::devices`].
    pub device: usize,
    /// Topic of its values; empty when values are grouped by device.
    pub topic: Box<str>,
    /// `"name":`
    pub name: Box<[u8]>,
    /// `,"unit":"V"`
    pub unit: Box<[u8]>,
    /// It is `@online` of its device.
    pub is_online: bool,
    /// Its last sample said that the device cannot be reached; `None` before the first.
    pub lost: Option<bool>,
    /// Differs in every group: the group this point was last put into.
    pub group: u64,
}

/// One device, or the owner of system points (`@host`).
#[derive(Debug)]
pub(crate) struct Device {
    pub name: Box<str>,
    /// Topic of grouped values.
    pub topic: Box<str>,
    pub status_topic: Box<str>,
    /// `@online` is routed; without it the quality of the points tells.
    pub has_online: bool,
    /// Points that were seen, and how many of them say `comm_lost`.
    pub seen: u32,
    pub lost: u32,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Points {
    pub by_number: HashMap<u32, Point>,
    pub devices: Vec<Device>,
    pub set: SetTopics,
    /// One message per device and poll.
    pub grouped: bool,
}

impl Points {
    /// Prepares the list of `link`.
    pub(crate) fn prepare(link: &Link<Mqtt>, topics: &Topics) -> Self {
        let mut points = Self { grouped: !topics.value.has(Placeholder::Point), ..Self::default() };
        let mut devices = HashMap::new();
        for routed in link.points.iter() {
            let source = Source {
                number: routed.number,
                host: &link.host,
                device: &routed.device,
                name: &routed.name,
                key: routed.map.first().map_or(&routed.name, |entry| &entry.key),
                unit: &routed.unit,
                // Also of points that are not writable: the host refuses those by name and audits it.
                commands: link.settings.commands,
            };
            points.add(&source, topics, &mut devices);
        }
        points
    }

    fn add<'a>(&mut self, source: &Source<'a>, topics: &Topics, devices: &mut HashMap<&'a str, usize>) {
        let names = Names { host: source.host, device: source.device, point: source.key };
        let topic = topics.value.render(&names);
        let device = *devices.entry(source.device).or_insert_with(|| {
            self.devices.push(Device {
                name: source.device.into(),
                topic: topic.as_str().into(),
                status_topic: topics.device.render(&names).into(),
                has_online: false,
                seen: 0,
                lost: 0,
            });
            self.devices.len() - 1
        });
        let is_online = source.name == ONLINE;
        if is_online && let Some(device) = self.devices.get_mut(device) {
            device.has_online = true;
        }
        if source.commands && !is_online {
            self.set.insert(&topic, source.number);
        }
        let point = Point {
            device,
            topic: if self.grouped { "".into() } else { topic.into() },
            name: name_fragment(source.key).into(),
            unit: unit_fragment(source.unit).into(),
            is_online,
            lost: None,
            group: 0,
        };
        self.by_number.insert(source.number, point);
    }
}

struct Source<'a> {
    number: u32,
    host: &'a str,
    device: &'a str,
    name: &'a str,
    key: &'a str,
    unit: &'a str,
    commands: bool,
}
