//! Whether a device is online, where nobody says so: the quality of its points tells.

use busbar_driver_api::Quality;
use busbar_mqtt::payload::Marks;

use crate::memory::Shared;
use crate::points::Points;
use crate::publish::Read;

/// Follows `comm_lost` of the points of devices whose `@online` is not routed; returns the device's new state where it
/// changed.
pub(crate) fn track(read: &Read, points: &mut Points, memory: &Shared) -> Option<(usize, bool)> {
    let point = points.by_number.get_mut(&read.point)?;
    let lost = read.quality.contains(Quality::COMM_LOST);
    let before = point.lost;
    if before == Some(lost) || read.marks != Marks::default() {
        return None;
    }
    let index = point.device;
    let device = points.devices.get_mut(index)?;
    if device.has_online || device.name.starts_with('@') {
        return None;
    }
    point.lost = Some(lost);
    match (before, lost) {
        (None, lost) => {
            device.seen += 1;
            device.lost += u32::from(lost);
        }
        (Some(_), true) => device.lost += 1,
        (Some(_), false) => device.lost -= 1,
    }
    let online = device.lost < device.seen;
    let mut memory = memory.lock();
    if memory.online.get(&device.name) == Some(&online) {
        return None;
    }
    memory.online.insert(device.name.clone(), online);
    Some((index, online))
}
