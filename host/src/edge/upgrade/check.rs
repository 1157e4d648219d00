//! CHECK of a new version against the configuration that runs, in its probe child, before anything moves. All reasons at
//! once; the endpoints too, because a version that names none for a device cannot take it over.

use busbar_contract::{CheckInput, Problem, Severity, describe::PluginKind};
use busbar_core::model::{Device, Point, Sink, Site};
use busbar_loader::Probe;
use serde_json::{Map, Value as Json};

/// Reasons that are listed; further ones are counted (G9).
const MAX_REASONS: usize = 50;

/// A device or sink as CHECK gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subject {
    /// `device meter-01`, `sink broker`.
    pub(crate) name: String,
    /// What is checked.
    pub(crate) input: CheckInput,
}

/// How many subjects a plugin has.
pub(crate) fn count(site: &Site, kind: PluginKind, name: &str) -> usize {
    match kind {
        PluginKind::Driver => site.devices.iter().filter(|device| device.driver == name).count(),
        PluginKind::Sink => site.sinks.iter().filter(|sink| sink.plugin == name).count(),
    }
}

/// One of them: asked for one at a time, because the core waits meanwhile.
pub(crate) fn subject(site: &Site, kind: PluginKind, name: &str, index: usize) -> Option<Subject> {
    match kind {
        PluginKind::Driver => {
            site.devices.iter().filter(|device| device.driver == name).nth(index).map(device)
        }
        PluginKind::Sink => {
            site.sinks.iter().filter(|sink| sink.plugin == name).nth(index).map(|one| sink(site, one))
        }
    }
}

fn device(device: &Device) -> Subject {
    let input = CheckInput {
        connection: device.connection.clone(),
        device: device.settings.clone(),
        points: device.points.iter().map(point).collect(),
        ..CheckInput::default()
    };
    Subject { name: format!("device {}", device.name), input }
}

fn point(point: &Point) -> Json {
    let mut map = Map::new();
    map.insert("name".into(), point.name.clone().into());
    map.insert("writable".into(), point.writable.into());
    if let Some(spec) = point.spec.as_object() {
        map.extend(spec.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Json::Object(map)
}

fn sink(site: &Site, sink: &Sink) -> Subject {
    let name = |device: usize, point: usize| {
        let device = site.devices.get(device)?;
        Some(format!("{}/{}", device.name, device.points.get(point)?.name))
    };
    let input = CheckInput {
        settings: sink.settings.clone(),
        map: sink.routes.iter().flat_map(|route| route.map.iter().cloned()).collect(),
        routed: sink.routes.iter().filter_map(|route| name(route.device, route.point)).collect(),
        ..CheckInput::default()
    };
    Subject { name: format!("sink {}", sink.name), input }
}

/// What one subject says against the version.
pub(crate) fn ask(probe: &mut Probe, kind: PluginKind, subject: &Subject, reasons: &mut Vec<String>) {
    let mut say = |text: String| reasons.push(format!("{}: {text}", subject.name));
    if kind == PluginKind::Driver
        && let Err(error) = probe.endpoint(&subject.input.connection)
    {
        say(error.to_string());
    }
    match probe.check(&subject.input) {
        Err(error) => say(error.to_string()),
        Ok(problems) => {
            problems.iter().filter(|problem| problem.severity == Severity::Error).for_each(|problem| {
                say(words(problem));
            });
        }
    }
}

fn words(problem: &Problem) -> String {
    let Problem { pointer, expected, found, hint, .. } = problem;
    let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
    format!("{pointer}: expected {expected}, found {found}{hint}")
}

/// All reasons as one text.
pub(crate) fn sentence(mut reasons: Vec<String>) -> Option<String> {
    if reasons.is_empty() {
        return None;
    }
    let more = reasons.len().saturating_sub(MAX_REASONS);
    reasons.truncate(MAX_REASONS);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    Some(format!("it does not accept the configuration that runs: {}", reasons.join(" | ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_said_and_bounded() {
        assert_eq!(sentence(Vec::new()), None);
        let text = sentence(vec!["device a: x".into(), "device b: y".into()]).unwrap();
        assert!(text.contains("device a: x | device b: y"), "{text}");
        let text = sentence(vec!["z".into(); 200]).unwrap();
        assert!(text.ends_with("and 150 more"), "{text}");
    }

    #[test]
    fn subjects_are_those_of_the_plugin() {
        let device = |name: &str, driver: &str| Device {
            name: name.into(),
            driver: driver.into(),
            points: vec![Point {
                name: "p".into(),
                spec: serde_json::json!({ "address": "x" }).into(),
                ..Point::default()
            }],
            ..Device::default()
        };
        let site = Site { devices: vec![device("a", "x"), device("b", "y")], ..Site::default() };
        assert_eq!(count(&site, PluginKind::Driver, "y"), 1);
        let subject = subject(&site, PluginKind::Driver, "y", 0).unwrap();
        assert_eq!(subject.name, "device b");
        assert_eq!(
            subject.input.points[0],
            serde_json::json!({ "name": "p", "writable": false, "address": "x" })
        );
        assert_eq!(super::subject(&site, PluginKind::Driver, "y", 1), None);
    }
}
