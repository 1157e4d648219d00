//! The point list, prepared: topics, names and units as the bytes that go out, made once per point list.

use std::collections::HashMap;
use std::sync::Arc;

use busbar_driver_api::{Link, tracing};
use busbar_mqtt::ems::{self, Frame, Identity};
use busbar_mqtt::payload::{name_fragment, unit_fragment};
use busbar_mqtt::topic::{Names, Placeholder, SetTopics};

use crate::check::Topics;
use crate::settings::Format;
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
    /// What its records have in common; only with `format = "ems"`, and not for system points.
    pub frame: Option<Arc<Frame>>,
    /// Its last record had values (`format = "ems"`).
    pub reading: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Points {
    pub by_number: HashMap<u32, Point>,
    pub devices: Vec<Device>,
    pub set: SetTopics,
    /// One message per device and poll.
    pub grouped: bool,
    /// `format = "ems"`.
    pub ems: bool,
    /// The point with the version of the configuration, and its value (`format = "ems"`).
    pub version: (Option<u32>, Option<i64>),
}

impl Points {
    /// Prepares the list of `link`.
    pub(crate) fn prepare(link: &Link<Mqtt>, topics: &Topics) -> Self {
        let ems = link.settings.format == Format::Ems;
        let mut points = Self { grouped: !topics.value.has(Placeholder::Point), ems, ..Self::default() };
        let mut devices = HashMap::new();
        // System points know no labels of their device, and the list has no order.
        let labels: HashMap<&str, &serde_json::Value> = link
            .points
            .iter()
            .filter(|_| ems)
            .filter_map(|routed| Some((&*routed.device, routed.metadata.pointer("/device/labels")?)))
            .collect();
        for routed in link.points.iter() {
            if routed.device == "@host" && routed.name == "config_version" {
                points.version.0 = Some(routed.number);
            }
            let source = Source {
                number: routed.number,
                host: &link.host,
                device: &routed.device,
                name: &routed.name,
                key: routed.map.first().map_or(&routed.name, |entry| &entry.key),
                unit: &routed.unit,
                // Also of points that are not writable: the host refuses those by name and audits it.
                commands: link.settings.commands,
                labels: Labels(labels.get(&*routed.device).copied()),
            };
            points.add(&source, topics, &mut devices);
        }
        if ems {
            points.warn_of_twins();
        }
        points
    }

    /// Takes over what was learned with the list before: the host does not tell points anew that stay.
    pub(crate) fn inherit(&mut self, before: &Self) {
        for (number, point) in &mut self.by_number {
            point.lost = before.by_number.get(number).and_then(|before| before.lost);
            if let (Some(lost), Some(device)) = (point.lost, self.devices.get_mut(point.device)) {
                device.seen += 1;
                device.lost += u32::from(lost);
            }
        }
        let reading: HashMap<&str, bool> =
            before.devices.iter().map(|device| (&*device.name, device.reading)).collect();
        for device in &mut self.devices {
            device.reading = reading.get(&*device.name).copied().unwrap_or(false);
        }
        if self.version.0 == before.version.0 {
            self.version.1 = before.version.1;
        }
    }

    /// The topics of records are made of labels: two devices with the same ones cannot be told apart by their consumers.
    fn warn_of_twins(&self) {
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for device in self.devices.iter().filter(|device| device.frame.is_some()) {
            if let Some(other) = owners.insert(&device.topic, &device.name) {
                let (topic, device) = (&*device.topic, &*device.name);
                tracing::warn!(topic, device, other, "two devices share a topic: give them different labels");
            }
        }
    }

    fn add<'a>(&mut self, source: &Source<'a>, topics: &Topics, devices: &mut HashMap<&'a str, usize>) {
        let section = source.labels.get("device_section").unwrap_or(source.device);
        let identify = source
            .labels
            .get("identify_device")
            .map_or_else(|| ems::identify_default(section, source.labels.get("device_id")), str::to_owned);
        let identity = Identity {
            device_name: source.labels.get("device_name").unwrap_or(source.device),
            device_id: source.labels.get("device_id"),
            identify_device: &identify,
            device_type: source.labels.get("device_type").unwrap_or(ems::UNKNOWN_TYPE),
            device_section: section,
        };
        let names = Names {
            host: source.host,
            device: source.device,
            point: source.key,
            device_id: level(identity.device_id.unwrap_or_default()),
            identify_device: level(identity.identify_device),
        };
        let topic = topics.value.render(&names);
        let device = *devices.entry(source.device).or_insert_with(|| {
            self.devices.push(Device {
                name: source.device.into(),
                topic: topic.as_str().into(),
                status_topic: topics.device.render(&names).into(),
                has_online: false,
                seen: 0,
                lost: 0,
                frame: (self.ems && !source.device.starts_with('@')).then(|| Arc::new(Frame::new(&identity))),
                reading: false,
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
    labels: Labels<'a>,
}

/// Labels of a device that say who it is for the consumers of `format = "ems"`.
#[derive(Clone, Copy)]
struct Labels<'a>(Option<&'a serde_json::Value>);

impl<'a> Labels<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        self.0?.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// A level of the topic of a record is never empty.
fn level(text: &str) -> &str {
    if text.is_empty() { ems::UNKNOWN } else { text }
}
