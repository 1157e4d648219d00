//! What differs between two configurations, by name. Pure: the same for `busbar reload --dry-run` and for the reload.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value as Json;

use crate::model::{Device, Host, Plugin, Point, Sink, Site};

/// What differs between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Names of new devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices_added: Vec<String>,
    /// Names of devices that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices_removed: Vec<String>,
    /// Devices that stay and differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices_changed: Vec<Changed>,
    /// Names of new sinks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks_added: Vec<String>,
    /// Names of sinks that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks_removed: Vec<String>,
    /// Sinks that stay and differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks_changed: Vec<Changed>,
    /// Plugins needed for the first time, as `driver modbus`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins_added: Vec<String>,
    /// Plugins that nothing needs any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins_removed: Vec<String>,
    /// Keys that differ and are not applied before a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

/// A device or sink that stays and differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// The keys that differ; points as counts.
    pub what: Vec<String>,
    /// Its connection is ended and made again.
    pub reopened: bool,
}

/// A configuration in the order of its file, wherever its parts are: a copy of a large one stops the core for too long.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) host: &'a Host,
    pub(crate) plugins: Vec<&'a Plugin>,
    pub(crate) devices: Vec<&'a Device>,
    pub(crate) sinks: Vec<&'a Sink>,
}

impl<'a> From<&'a Site> for Parts<'a> {
    fn from(site: &'a Site) -> Self {
        Self {
            host: &site.host,
            plugins: site.plugins.iter().collect(),
            devices: site.devices.iter().collect(),
            sinks: site.sinks.iter().collect(),
        }
    }
}

impl Difference {
    /// From `old` to `new`.
    #[must_use]
    pub fn of(old: &Site, new: &Site) -> Self {
        Self::between(&old.into(), &new.into())
    }

    pub(crate) fn between(old: &Parts<'_>, new: &Parts<'_>) -> Self {
        let mut out = Self::default();
        out.devices(old, new);
        out.sinks(old, new);
        out.plugins(old, new);
        host(old.host, new.host, &mut out.needs_restart);
        out
    }

    /// Nothing would be applied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { needs_restart: _, plugins_added: _, plugins_removed: _, .. } = self;
        self.devices_added.is_empty()
            && self.devices_removed.is_empty()
            && self.devices_changed.is_empty()
            && self.sinks_added.is_empty()
            && self.sinks_removed.is_empty()
            && self.sinks_changed.is_empty()
    }

    fn devices(&mut self, old: &Parts<'_>, new: &Parts<'_>) {
        let before: HashMap<&str, &Device> =
            old.devices.iter().map(|device| (device.name.as_str(), *device)).collect();
        let after: HashMap<&str, &Device> =
            new.devices.iter().map(|device| (device.name.as_str(), *device)).collect();
        for device in &new.devices {
            match before.get(device.name.as_str()) {
                None => self.devices_added.push(device.name.clone()),
                Some(known) if known != device => {
                    let (what, reopened) = device_words(known, device);
                    self.devices_changed.push(Changed { name: device.name.clone(), what, reopened });
                }
                Some(_) => {}
            }
        }
        let gone = old.devices.iter().filter(|device| !after.contains_key(device.name.as_str()));
        self.devices_removed.extend(gone.map(|device| device.name.clone()));
    }

    fn sinks(&mut self, old: &Parts<'_>, new: &Parts<'_>) {
        let places = same_places(old, new);
        for sink in &new.sinks {
            match old.sinks.iter().find(|known| known.name == sink.name) {
                None => self.sinks_added.push(sink.name.clone()),
                Some(known) => {
                    let (what, reopened) = sink_words((old, known), (new, sink), places);
                    if !what.is_empty() {
                        self.sinks_changed.push(Changed { name: sink.name.clone(), what, reopened });
                    }
                }
            }
        }
        let gone = old.sinks.iter().filter(|sink| !new.sinks.iter().any(|other| other.name == sink.name));
        self.sinks_removed.extend(gone.map(|sink| sink.name.clone()));
    }

    /// A plugin as [`Self::plugins_added`] and [`Self::plugins_removed`] name it.
    #[must_use]
    pub fn plugin_word(plugin: &Plugin) -> String {
        format!("{} {}", plugin.kind.as_str(), plugin.name)
    }

    fn plugins(&mut self, old: &Parts<'_>, new: &Parts<'_>) {
        let same = |a: &Plugin, b: &Plugin| a.name == b.name && a.kind == b.kind;
        let word = Self::plugin_word;
        for plugin in &new.plugins {
            match old.plugins.iter().find(|known| same(known, plugin)) {
                None => self.plugins_added.push(word(plugin)),
                Some(known) if known != plugin => self.needs_restart.push(format!("plugins.{}", plugin.name)),
                Some(_) => {}
            }
        }
        let gone = old.plugins.iter().filter(|plugin| !new.plugins.iter().any(|other| same(other, plugin)));
        self.plugins_removed.extend(gone.map(|plugin| word(plugin)));
    }
}

fn host(old: &Host, new: &Host, out: &mut Vec<String>) {
    let before = out.len();
    for (key, differs) in [
        ("name", old.name != new.name),
        ("tick", old.tick != new.tick),
        ("resync_parallel", old.resync_parallel != new.resync_parallel),
        ("commands", old.commands != new.commands),
        ("select_timeout", old.select_timeout != new.select_timeout),
    ] {
        if differs {
            out.push(format!("host.{key}"));
        }
    }
    let rest = Host { reload_timeout: old.reload_timeout, ..new.clone() };
    if out.len() == before && *old != rest {
        out.push("host".into());
    }
}

/// What the driver is told by ATTACH: a difference ends the device's session.
pub(crate) fn attach_differs(old: &Device, new: &Device) -> bool {
    old.connection != new.connection
        || old.settings != new.settings
        || old.response_timeout != new.response_timeout
        || old.retries != new.retries
}

/// Another address, type or scale makes another point: what was read means something else.
pub(crate) fn same_point(old: &Point, new: &Point) -> bool {
    old.name == new.name
        && old.spec == new.spec
        && old.scale == new.scale
        && old.offset == new.offset
        && old.invert == new.invert
}

fn device_words(old: &Device, new: &Device) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    for (word, differs) in [
        ("driver", old.driver != new.driver),
        ("connection", old.connection != new.connection),
        ("keys of the driver", old.settings != new.settings),
        ("response_timeout", old.response_timeout != new.response_timeout),
        ("retries", old.retries != new.retries),
        ("poll_interval", old.poll_interval != new.poll_interval),
        ("probe_interval", old.probe_interval != new.probe_interval),
        ("reconnect", old.reconnect != new.reconnect),
        ("integrity", old.integrity != new.integrity),
        ("max_skew", old.max_skew != new.max_skew),
        ("time_source", old.gateway_time != new.gateway_time),
        ("maintenance", old.maintenance != new.maintenance),
        ("frame_log", old.frame_log != new.frame_log),
        ("enabled", old.enabled != new.enabled),
        ("read", old.paused != new.paused),
        ("active", old.active != new.active),
        ("blocks", old.blocks != new.blocks),
        ("description", old.description != new.description),
        ("labels", old.labels != new.labels),
    ] {
        if differs {
            words.push(word.to_owned());
        }
    }
    words.extend(point_words(old, new));
    if words.is_empty() {
        words.push("order of points".to_owned());
    }
    (words, old.driver != new.driver || attach_differs(old, new))
}

fn point_words(old: &Device, new: &Device) -> Option<String> {
    let before: HashMap<&str, &Point> = old.points.iter().map(|point| (point.name.as_str(), point)).collect();
    let (mut added, mut replaced, mut changed, mut kept) = (0, 0, 0, 0);
    for point in &new.points {
        match before.get(point.name.as_str()) {
            None => added += 1,
            Some(known) => {
                kept += 1;
                replaced += usize::from(!same_point(known, point));
                changed += usize::from(same_point(known, point) && *known != point);
            }
        }
    }
    let removed = old.points.len() - kept;
    let parts: Vec<String> = [
        (added, "added"),
        (removed, "removed"),
        (replaced, "with another address, type or scale"),
        (changed, "changed in place"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    (!parts.is_empty()).then(|| format!("points: {}", parts.join(", ")))
}

/// What the plugin is told when it is opened.
pub(crate) fn open_differs(old: &Sink, new: &Sink) -> bool {
    old.plugin != new.plugin
        || old.settings != new.settings
        || old.bad_value != new.bad_value
        || old.test != new.test
}

/// Map entries by name of the point: device part and point part, of a system point the whole in the first.
type Routes<'a> = HashMap<(&'a str, &'a str), Vec<&'a Json>>;

fn routes<'a>(site: &Parts<'a>, sink: &'a Sink) -> Routes<'a> {
    let mut out = Routes::with_capacity(sink.routes.len() + sink.system.len());
    for route in &sink.routes {
        let device = site.devices.get(route.device);
        let point = device.and_then(|device| Some((device, device.points.get(route.point)?)));
        if let Some((device, point)) = point {
            out.entry((&device.name, &point.name)).or_default().extend(&route.map);
        }
    }
    for system in &sink.system {
        // A system point of a device may be named by a route of it, too.
        let parts = system.name.rsplit_once('/').unwrap_or((&system.name, ""));
        out.entry(parts).or_default().extend(&system.map);
    }
    out
}

/// Every device and every point is where it was, so that equal numbers are equal names.
fn same_places(old: &Parts<'_>, new: &Parts<'_>) -> bool {
    let named = |a: &Device, b: &Device| {
        a.name == b.name
            && a.points.len() == b.points.len()
            && a.points.iter().zip(&b.points).all(|(a, b)| a.name == b.name)
    };
    old.devices.len() == new.devices.len() && old.devices.iter().zip(&new.devices).all(|(a, b)| named(a, b))
}

/// `places`: see [`same_places`].
fn sink_words(
    (old_site, old): (&Parts<'_>, &Sink),
    (new_site, new): (&Parts<'_>, &Sink),
    places: bool,
) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let same = places && old.routes == new.routes && old.system == new.system;
    let (before, after) =
        if same { (Routes::new(), Routes::new()) } else { (routes(old_site, old), routes(new_site, new)) };
    let mapped = after.iter().any(|(name, map)| before.get(name).is_some_and(|known| known != map));
    for (word, differs) in [
        ("plugin", old.plugin != new.plugin),
        ("settings", old.settings != new.settings),
        ("bad_value", old.bad_value != new.bad_value),
        ("test", old.test != new.test),
        ("map", mapped),
        ("send", old.send != new.send),
        ("timestamp", old.timestamp != new.timestamp),
        ("history", old.history != new.history),
        ("max_silence", old.max_silence != new.max_silence),
        ("queue", old.queue != new.queue),
        ("reconnect", old.reconnect != new.reconnect),
        ("commands", old.commands != new.commands),
    ] {
        if differs {
            words.push(word.to_owned());
        }
    }
    let added = after.keys().filter(|name| !before.contains_key(*name)).count();
    let removed = before.keys().filter(|name| !after.contains_key(*name)).count();
    if added + removed > 0 {
        words.push(format!("points: {added} added, {removed} removed"));
    }
    (words, mapped || open_differs(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Route;

    fn site() -> Site {
        let point = |name: &str, address: u32| Point {
            name: name.into(),
            spec: serde_json::json!({ "address": address }).into(),
            ..Point::default()
        };
        Site {
            devices: vec![Device {
                name: "d".into(),
                driver: "x".into(),
                points: vec![point("a", 1), point("b", 2), point("c", 3)],
                ..Device::default()
            }],
            sinks: vec![Sink {
                name: "s".into(),
                routes: (0..3).map(|point| Route { device: 0, point, map: Vec::new() }).collect(),
                ..Sink::default()
            }],
            ..Site::default()
        }
    }

    #[test]
    fn equal_configurations_do_not_differ() {
        assert_eq!(Difference::of(&site(), &site()), Difference::default());
        assert!(Difference::default().is_empty());
    }

    #[test]
    fn points_are_counted_by_what_happens_to_them() {
        let mut new = site();
        let points = &mut new.devices[0].points;
        points[0].spec = serde_json::json!({ "address": 9 }).into();
        points[1].unit = "V".into();
        points.remove(2);
        let mut more = points[1].clone();
        more.name = "e".into();
        points.push(more);
        let words = &Difference::of(&site(), &new).devices_changed[0];
        let text = "points: 1 added, 1 removed, 1 with another address, type or scale, 1 changed in place";
        assert_eq!((words.what.as_slice(), words.reopened), (&[text.to_owned()][..], false));
        let sinks = Difference::of(&site(), &new).sinks_changed;
        assert_eq!(sinks[0].what, ["points: 1 added, 1 removed"]);
    }

    #[test]
    fn what_needs_a_restart_is_named_and_is_no_change_by_itself() {
        let mut new = site();
        new.host.tick = std::time::Duration::from_millis(50);
        let difference = Difference::of(&site(), &new);
        assert_eq!(difference.needs_restart, ["host.tick"]);
        assert!(difference.is_empty());
    }

    #[test]
    fn a_map_entry_reopens_the_sink_and_a_route_does_not() {
        let mut new = site();
        new.sinks[0].routes[0].map = vec![serde_json::json!({ "ioa": 1 })];
        new.sinks[0].routes.pop();
        let changed = &Difference::of(&site(), &new).sinks_changed[0];
        assert!(changed.reopened);
        assert_eq!(changed.what, ["map", "points: 0 added, 1 removed"]);
    }
}
