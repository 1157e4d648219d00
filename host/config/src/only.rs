//! `[host] only`: some of the configured devices, for commissioning and for tests on site.
//!
//! Everything is read and checked as without it; then the devices that were not chosen are taken out, with their routes.
//! So a mistake in a device that does not run is found all the same, and maps and patterns of sinks keep their meaning.
//! A device whose point is somebody's interlock stays, because without it every command would be refused.

use std::collections::HashSet;

use busbar_core::model::{Device, Site};
use globset::{GlobBuilder, GlobMatcher};

use crate::{
    context::Context,
    problem::{Path, did_you_mean},
    tree::{Entry, Node},
};

/// One entry of `only`.
enum Choice {
    /// A name, or a pattern.
    Name(GlobMatcher),
    /// A label with its value.
    Label(String, String),
}

impl Choice {
    /// `None` for a text that counts for nothing.
    fn read(text: &str) -> Option<Result<Self, globset::Error>> {
        let text = text.trim();
        match text.split_once('=') {
            Some((_, "")) => None,
            Some((label, value)) => Some(Ok(Self::Label(label.trim().to_owned(), value.trim().to_owned()))),
            None if text.is_empty() => None,
            None => Some(GlobBuilder::new(text).build().map(|glob| Self::Name(glob.compile_matcher()))),
        }
    }

    fn takes(&self, device: &Device) -> bool {
        match self {
            Self::Name(glob) => glob.is_match(&device.name),
            Self::Label(label, value) => {
                device.labels.iter().any(|(found, text)| found == label && text == value)
            }
        }
    }
}

/// Takes out what `[host] only` does not choose; says of each device whether it was kept, nothing when all were.
pub(crate) fn apply(cx: &Context<'_>, host: Option<&Entry>, site: &mut Site) -> Vec<bool> {
    let Some(node) = host.and_then(|host| host.value.as_table()?.get("only")) else { return Vec::new() };
    let host = Path::Root.key("host");
    let path = host.key("only");
    let mut choices = Vec::new();
    for item in node.as_array().unwrap_or(std::slice::from_ref(node)) {
        let Some(text) = cx.text(&path, item) else { continue };
        match Choice::read(&text) {
            None => {}
            Some(Err(error)) => {
                cx.problems.error(
                    Some(item.pos),
                    path,
                    "a device, a pattern or label=value",
                    error.kind().to_string(),
                );
            }
            Some(Ok(choice)) => {
                if !site.devices.iter().any(|device| choice.takes(device)) {
                    let known = site.devices.iter().map(|device| device.name.as_str());
                    cx.problems
                        .error(Some(item.pos), path, "a configured device", cx.found(item))
                        .help(did_you_mean(&text, known));
                }
                choices.push(choice);
            }
        }
    }
    if choices.is_empty() { Vec::new() } else { reduce(cx, &path, node, &choices, site) }
}

fn reduce(cx: &Context<'_>, path: &Path<'_>, node: &Node, choices: &[Choice], site: &mut Site) -> Vec<bool> {
    let chosen: Vec<bool> =
        site.devices.iter().map(|device| choices.iter().any(|choice| choice.takes(device))).collect();
    let interlocks: HashSet<String> = (site.devices.iter().zip(&chosen))
        .filter(|(_, chosen)| **chosen)
        .flat_map(|(device, _)| &device.points)
        .filter_map(|point| Some(point.interlock.as_ref()?.point.split_once('/')?.0.to_owned()))
        .collect();
    let kept: Vec<bool> = (site.devices.iter().zip(&chosen))
        .map(|(device, chosen)| *chosen || interlocks.contains(&device.name))
        .collect();
    let mut place = 0;
    let places: Vec<Option<usize>> = kept
        .iter()
        .map(|kept| {
            let here = kept.then_some(place);
            place += usize::from(*kept);
            here
        })
        .collect();
    let gone: HashSet<String> = (site.devices.iter().zip(&kept))
        .filter(|(_, kept)| !**kept)
        .map(|(device, _)| device.name.clone())
        .collect();
    for sink in &mut site.sinks {
        sink.routes.retain_mut(|route| {
            let place = places.get(route.device).copied().flatten();
            route.device = place.unwrap_or_default();
            place.is_some()
        });
        sink.system.retain(|route| route.name.split_once('/').is_none_or(|(owner, _)| !gone.contains(owner)));
    }
    let all = site.devices.len();
    let mut keep = kept.iter().copied();
    site.devices.retain(|_| keep.next().unwrap_or(true));
    if !gone.is_empty() {
        let found = format!("{} of {all}", site.devices.len());
        cx.problems
            .warning(Some(node.pos), path, "all devices to run", found)
            .help("empty `only`, or its variable, to run all of them");
    }
    kept
}
