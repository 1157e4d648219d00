//! The point list, prepared once per list.

use std::collections::HashMap;
use std::sync::Arc;

use busbar_driver_api::Link;

use crate::sink::Ems;

/// Labels of a device.
pub(crate) type Labels = Arc<[(String, String)]>;

/// One point.
#[derive(Debug)]
pub(crate) struct Point {
    pub device: Arc<str>,
    pub labels: Labels,
    /// Name of the measurement.
    pub key: Box<str>,
    /// Name of the point.
    pub name: Box<str>,
    pub unit: Box<str>,
    /// A system point that nobody mapped: it goes nowhere.
    pub silent: bool,
    /// Differs in every record: the one this point was last put into.
    pub record: u64,
}

/// The list of `link`, by number.
pub(crate) fn prepare(link: &Link<Ems>) -> HashMap<u32, Point> {
    let mut devices: HashMap<&str, (Arc<str>, Labels)> = HashMap::new();
    // System points know no labels of their device, and the list has no order.
    let labels: HashMap<&str, &serde_json::Value> = link
        .points
        .iter()
        .filter_map(|routed| Some((&*routed.device, routed.metadata.pointer("/device/labels")?)))
        .collect();
    let mut points = HashMap::with_capacity(link.points.len());
    for routed in link.points.iter() {
        let (device, labels) = devices.entry(&routed.device).or_insert_with(|| {
            let labels = labels.get(&*routed.device).and_then(|labels| labels.as_object());
            let text =
                |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let labels =
                labels.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
            (routed.device.as_str().into(), labels)
        });
        let mapped = routed.map.first().map(|entry| entry.key.as_str());
        let system = routed.device.starts_with('@') || routed.name.starts_with('@');
        points.insert(
            routed.number,
            Point {
                device: Arc::clone(device),
                labels: Arc::clone(labels),
                key: mapped.unwrap_or(&routed.name).into(),
                name: routed.name.as_str().into(),
                unit: routed.unit.as_str().into(),
                silent: system && mapped.is_none(),
                record: 0,
            },
        );
    }
    points
}
