//! CHECK: what is wrong with the settings beyond types and names, all at once. Pure: files are not opened here.

use std::collections::HashMap;
use std::time::Duration;

use busbar_driver_api::{Problem, SinkCheck};
use busbar_mqtt::Url;
use busbar_mqtt::options::MAX_CLIENT_ID;
use busbar_mqtt::topic::{Names, Placeholder, Template, TopicError};
use busbar_sink_kit::check::{self, Mapped, is_loopback};
use busbar_sink_kit::settings::size;

use crate::settings::{Format, Map, Settings};
use crate::sink::Mqtt;

/// MQTT 3.1.1 section 3.1.2.10: the keep-alive time is a 16-bit number of seconds.
const KEEP_ALIVE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(65_535);
const ACK_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
const MAX_PACKET: std::ops::RangeInclusive<usize> = 1024..=16 * 1024 * 1024;
/// Stands for the gateway's name, which CHECK does not know.
const ANY_HOST: &str = "host";

/// The three templates, checked.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub value: Template,
    pub status: Template,
    pub device: Template,
}

impl Topics {
    /// Reads the templates; every problem with its JSON pointer.
    pub(crate) fn parse(settings: &Settings) -> Result<Self, Vec<Problem>> {
        use Placeholder::{Device, DeviceId, Host, IdentifyDevice, Point};
        let mut problems = Vec::new();
        let mut parse = |pointer: &str, text: &str, allowed: &[Placeholder]| {
            Template::parse(text, allowed)
                .map_err(|TopicError { expected, found }| {
                    problems.push(Problem::error(pointer, expected, found))
                })
                .ok()
        };
        let allowed: &[Placeholder] = match settings.format {
            Format::Ems => &[Host, Device, DeviceId, IdentifyDevice],
            _ => &[Host, Device, Point],
        };
        let pointer = if settings.base.is_some() { "/settings/base" } else { "/settings/topic" };
        let value = parse(pointer, &settings.value_topic(), allowed);
        let status = parse("/settings/topic_status", &settings.topic_status, &[Host]);
        let device = match settings.topic_device_status.is_none() && status.is_none() {
            // Derived from a broken one: one problem is enough.
            true => None,
            false => parse("/settings/topic_device_status", &settings.device_status(), &[Host, Device]),
        };
        match (value, status, device) {
            (Some(value), Some(status), Some(device)) => Ok(Self { value, status, device }),
            _ => Err(problems),
        }
    }
}

pub(crate) fn check(input: &SinkCheck<'_, Mqtt>) -> Vec<Problem> {
    let mut problems = map(&input.map, input.routed);
    if let Some(settings) = input.settings {
        urls(settings, &mut problems);
        format(settings, &mut problems);
        numbers(settings, &mut problems);
        identity(settings, &mut problems);
        check::tls(settings.tls.as_ref(), &settings.url, ("mqtts://", "mqtt://"), &mut problems);
        match Topics::parse(settings) {
            Err(found) => problems.extend(found),
            Ok(topics) => {
                commands(settings, &topics, &mut problems);
                collisions(settings, &topics, &input.map, input.routed, &mut problems);
            }
        }
    }
    problems
}

fn urls(settings: &Settings, problems: &mut Vec<Problem>) {
    check::count_of_urls(&settings.url, problems);
    for (pointer, url) in settings.url.list() {
        match Url::parse(url) {
            Ok(url) if settings.password.is_some() && !url.tls && !is_loopback(&url.host) => problems.push(
                Problem::warning(&pointer, "mqtts:// beside a password", url.to_string())
                    .hint("without TLS the password crosses the network in clear text"),
            ),
            Ok(_) => {}
            Err(text) => problems.push(check::told(&pointer, &text)),
        }
    }
}

fn format(settings: &Settings, problems: &mut Vec<Problem>) {
    if !matches!(settings.format, Format::Json | Format::Ems) {
        problems.push(
            Problem::error("/settings/format", "json or ems", settings.format.as_str())
                .hint("this version of the plugin builds no other format"),
        );
    }
    if settings.format == Format::Ems {
        return ems(settings, problems);
    }
    for (key, value) in [
        ("base", &settings.base),
        ("gateway_uuid", &settings.gateway_uuid),
        ("status_base", &settings.status_base),
    ] {
        if value.is_some() {
            problems.push(Problem::error(
                format!("/settings/{key}"),
                "format = \"ems\" beside it",
                settings.format.as_str(),
            ));
        }
    }
}

fn ems(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.base.is_some() && settings.topic.is_some() {
        problems.push(Problem::error("/settings/base", "base or topic", "both"));
    }
    if settings.gateway_uuid.as_ref().is_some_and(|uuid| !is_level(uuid)) {
        problems.push(Problem::error("/settings/gateway_uuid", LEVEL, "another text"));
    }
    if let Some(topic) = settings.gateway_status(ANY_HOST)
        && let Err(TopicError { expected, found }) = Template::parse(&topic, &[])
    {
        problems.push(Problem::error("/settings/status_base", expected, found));
    }
    // Consumers subscribe BASE/+/+ and take everything there for a record.
    let values = settings.value_topic();
    let status = settings.topic_status.as_str();
    let same = |a: &str, b: &str| a == b || a.contains('{') || b.contains('{');
    let shadows = |status: &str| {
        values.split('/').count() == status.split('/').count()
            && values.split('/').zip(status.split('/')).all(|(a, b)| same(a, b))
    };
    if shadows(status) || shadows(&settings.device_status()) {
        problems.push(
            Problem::error("/settings/topic_status", "a topic that is not one of the records", status)
                .hint("consumers subscribe to all records at once and would take a status for one"),
        );
    }
}

fn numbers(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.qos > 2 {
        problems.push(Problem::error("/settings/qos", "0, 1 or 2", settings.qos.to_string()));
    }
    if settings.qos == 0 {
        problems.push(
            Problem::warning("/settings/qos", "1 or 2", "0")
                .hint("the broker confirms nothing: what is on its way when the connection breaks is lost"),
        );
    }
    check::time("/settings/keep_alive", &settings.keep_alive, &KEEP_ALIVE, true, problems);
    check::time("/settings/ack_timeout", &settings.ack_timeout, &ACK_TIMEOUT, false, problems);
    if !size(&settings.max_packet).is_some_and(|size| MAX_PACKET.contains(&size)) {
        problems.push(Problem::error(
            "/settings/max_packet",
            "a size of 1KiB to 16MiB, as \"256KiB\"",
            settings.max_packet.as_str(),
        ));
    }
}

fn identity(settings: &Settings, problems: &mut Vec<Problem>) {
    if let Some(id) = &settings.client_id {
        check::id("/settings/client_id", id, MAX_CLIENT_ID, problems);
    }
    if settings.password.is_some() && settings.username.is_none() {
        problems.push(
            Problem::error("/settings/password", "username beside password", "no username")
                .hint("MQTT 3.1.1 knows no password without a user name"),
        );
    }
    if settings.username.as_ref().is_some_and(String::is_empty) {
        problems.push(Problem::error("/settings/username", "a user name", "an empty text"));
    }
}

fn commands(settings: &Settings, topics: &Topics, problems: &mut Vec<Problem>) {
    if !settings.commands {
        return;
    }
    let certificate = settings.tls.as_ref().is_some_and(|tls| tls.cert.is_some());
    if settings.username.is_none() && !certificate {
        problems.push(
            Problem::error("/settings/commands", "username and password, or tls.cert and tls.key", "neither")
                .hint("a broker that admits anybody would let anybody command the plant"),
        );
    }
    if !topics.value.has(Placeholder::Point) {
        problems.push(
            Problem::error("/settings/commands", "a topic with {point}", settings.value_topic())
                .hint("commands arrive on TOPIC/set of a single point"),
        );
    }
}

fn map(entries: &[(String, &Map)], routed: &[String]) -> Vec<Problem> {
    let entries =
        entries.iter().map(|(pointer, entry)| Mapped { pointer, point: &entry.point, key: &entry.key });
    check::map(entries, routed, (LEVEL, is_level))
}

/// What a name must be that stands for a level of a topic.
const LEVEL: &str = "a name without / + # and control characters";

fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#']) && !name.chars().any(char::is_control)
}

/// Two things on one topic would overwrite each other (G4), whatever the template looks like.
fn collisions(
    settings: &Settings,
    topics: &Topics,
    entries: &[(String, &Map)],
    routed: &[String],
    problems: &mut Vec<Problem>,
) {
    /// The rest shows after the first are corrected.
    const MAX_SHOWN: usize = 20;
    let keys: HashMap<&str, &str> =
        entries.iter().map(|(_, entry)| (entry.point.as_str(), entry.key.as_str())).collect();
    let grouped = !topics.value.has(Placeholder::Point);
    let mut owners: HashMap<String, String> = HashMap::new();
    let mut shown = 0;
    let mut claim = |topic: String, owner: String, pointer: &str| {
        let other = owners.entry(topic.clone()).or_insert_with(|| owner.clone());
        if *other != owner && shown < MAX_SHOWN {
            shown += 1;
            problems.push(
                Problem::error(pointer, format!("one topic for {other} and another for {owner}"), topic)
                    .hint("put {device} and {point} into the topics, or rename a point with map"),
            );
        }
    };
    let names = |device, point| Names { host: ANY_HOST, device, point, ..Names::default() };
    claim(topics.status.render(&names("", "")), "the gateway's status".to_owned(), "/settings/topic_status");
    for name in routed {
        let Some((device, point)) = name.rsplit_once('/') else { continue };
        if !device.starts_with('@') {
            let topic = topics.device.render(&names(device, ""));
            claim(topic, format!("the status of {device}"), device_status_pointer(settings));
        }
        if point == crate::points::ONLINE {
            continue;
        }
        let key = keys.get(name.as_str()).copied().unwrap_or(point);
        // The topics of records are made of labels, which CHECK does not see.
        if settings.format != Format::Ems {
            let owner = if grouped { device.to_owned() } else { name.clone() };
            claim(topics.value.render(&names(device, key)), owner, "/settings/topic");
        }
        if grouped {
            // Two names in one message: the topic cannot help, the key must.
            claim(format!("{device}\0{key}"), name.clone(), "/map");
        }
    }
}

const fn device_status_pointer(settings: &Settings) -> &'static str {
    if settings.topic_device_status.is_some() {
        "/settings/topic_device_status"
    } else {
        "/settings/topic_status"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_driver_api::Severity;
    use serde_json::{Value as Json, json};

    fn run(settings: Json, map: Vec<Json>, routed: &[&str]) -> Vec<Problem> {
        let settings: Settings = serde_json::from_value(settings).unwrap();
        let map: Vec<Map> = map.into_iter().map(|entry| serde_json::from_value(entry).unwrap()).collect();
        let routed: Vec<String> = routed.iter().map(|name| (*name).to_owned()).collect();
        let map = map.iter().enumerate().map(|(at, entry)| (format!("/map/{at}"), entry)).collect();
        check(&SinkCheck { settings: Some(&settings), map, routed: &routed })
    }

    fn pointers(problems: &[Problem]) -> Vec<(&str, Severity)> {
        problems.iter().map(|problem| (problem.pointer.as_str(), problem.severity)).collect()
    }

    #[test]
    fn the_defaults_are_good() {
        let routed = ["m1/u", "m1/i", "m2/u", "m1/@online", "@host/clock_synced", "@sink/a/pending"];
        assert_eq!(run(json!({ "url": "mqtt://b" }), vec![], &routed), []);
    }

    #[test]
    fn the_sample_is_good_and_stands_in_the_readme() {
        const SAMPLE: &str = include_str!("../sample.toml");
        let readme = include_str!("../README.md");
        assert!(readme.contains(&format!("```toml\n{SAMPLE}```\n")), "README.md and sample.toml differ");
        let sample: Json = toml::from_str(SAMPLE).unwrap();
        let sinks = sample["sink"].as_array().unwrap();
        assert_eq!(sinks.len(), 4);
        for sink in sinks {
            let map = sink.get("map").map_or(vec![], |map| map.as_array().unwrap().clone());
            let routed = ["meter-01/voltage_l1", "meter-01/current_l1", "pump-01/running"];
            assert_eq!(run(sink["settings"].clone(), map, &routed), [], "{}", sink["name"]);
        }
    }

    #[test]
    fn every_setting_is_in_the_readme() {
        let readme = include_str!("../README.md");
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(readme.contains(&format!("`{key}`")), "{key} is missing in README.md");
        }
    }

    #[test]
    fn files_are_marked_so_that_the_host_looks_at_them() {
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        for key in ["ca", "cert", "key"] {
            assert_eq!(schema["$defs"]["Tls"]["properties"][key]["format"], "path", "{key}");
        }
    }

    #[test]
    fn all_problems_at_once() {
        let settings = json!({
            "url": ["mqtt://b", "tcp://b"], "format": "thingsboard-device", "topic": "a/{poin}", "topic_status": "a//b", "qos": 0,
            "client_id": "", "password": "hunter2", "commands": true, "keep_alive": "1500ms", "ack_timeout": "soon",
            "max_packet": "1B", "tls": { "cert": "c.pem" }
        });
        let problems = run(settings, vec![], &[]);
        let found = pointers(&problems);
        for pointer in [
            "/settings/url/1",
            "/settings/format",
            "/settings/topic",
            "/settings/topic_status",
            "/settings/client_id",
            "/settings/password",
            "/settings/keep_alive",
            "/settings/ack_timeout",
            "/settings/max_packet",
            "/settings/tls",
        ] {
            assert!(found.contains(&(pointer, Severity::Error)), "{pointer}: {found:?}");
        }
        assert!(found.contains(&("/settings/qos", Severity::Warning)));
        assert!(found.contains(&("/settings/url/0", Severity::Warning)), "a password in clear text");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }

    #[test]
    fn commands_need_credentials_and_single_points() {
        let problems = run(json!({ "url": "mqtt://b", "commands": true }), vec![], &["d/p"]);
        assert_eq!(pointers(&problems), [("/settings/commands", Severity::Error)]);
        assert!(problems[0].expected.contains("username"), "{problems:?}");
        let with_user =
            json!({ "url": "mqtt://127.0.0.1", "commands": true, "username": "u", "password": "p" });
        assert_eq!(run(with_user, vec![], &["d/p"]), []);
        let with_certificate = json!({
            "url": "mqtts://b", "commands": true, "tls": { "cert": "c", "key": "k" }
        });
        assert_eq!(run(with_certificate, vec![], &["d/p"]), []);
        let grouped = json!({
            "url": "mqtt://127.0.0.1", "commands": true, "username": "u", "password": "p", "topic": "a/{device}"
        });
        assert_eq!(pointers(&run(grouped, vec![], &["d/p"])), [("/settings/commands", Severity::Error)]);
    }

    #[test]
    fn two_owners_of_one_topic_are_named() {
        let problems =
            run(json!({ "url": "mqtt://b", "topic": "a/{point}" }), vec![], &["m1/u", "m2/u", "m1/i"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].expected.contains("m1/u") && problems[0].expected.contains("m2/u"),
            "{problems:?}"
        );
        let grouped = run(json!({ "url": "mqtt://b", "topic": "all" }), vec![], &["m1/u", "m1/i", "m2/u"]);
        assert_eq!(pointers(&grouped), [("/settings/topic", Severity::Error)]);
        assert_eq!(run(json!({ "url": "mqtt://b", "topic": "all" }), vec![], &["m1/u", "m1/i"]), []);
        let status = run(json!({ "url": "mqtt://b" }), vec![], &["m1/status"]);
        assert!(status[0].expected.contains("the status of m1"), "{status:?}");
        let renamed = run(
            json!({ "url": "mqtt://b" }),
            vec![json!({ "point": "m1/status", "key": "state" })],
            &["m1/status"],
        );
        assert_eq!(renamed, []);
    }

    #[test]
    fn records_of_the_old_gateway() {
        let ems = |more: Json| {
            let mut settings = json!({ "url": "mqtt://b", "format": "ems" });
            settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            pointers(&run(settings, vec![], &["m1/u", "m2/u", "m1/@online"]))
                .iter()
                .map(|(pointer, _)| (*pointer).to_owned())
                .collect::<Vec<_>>()
        };
        for good in [
            json!({}),
            json!({ "base": "a/b" }),
            json!({ "topic": "a/{device_id}/{identify_device}" }),
            json!({ "status_base": "crm", "gateway_uuid": "u" }),
        ] {
            assert!(ems(good.clone()).is_empty(), "{good}");
        }
        for (bad, pointer) in [
            (json!({ "base": "a", "topic": "b/{device_id}" }), "/settings/base"),
            (json!({ "base": "a/+" }), "/settings/base"),
            (json!({ "topic": "a/{point}" }), "/settings/topic"),
            (json!({ "status_base": "a//b" }), "/settings/status_base"),
            (json!({ "gateway_uuid": "a/b" }), "/settings/gateway_uuid"),
            (json!({ "base": "busbar" }), "/settings/topic_status"),
            (json!({ "commands": true, "username": "u" }), "/settings/commands"),
        ] {
            assert!(ems(bad.clone()).iter().any(|found| found == pointer), "{bad}: {:?}", ems(bad.clone()));
        }
        let json_format = json!({ "url": "mqtt://b", "base": "x", "gateway_uuid": "u", "status_base": "s" });
        assert_eq!(run(json_format, vec![], &[]).len(), 3);
        let placeholder = json!({ "url": "mqtt://b", "topic": "a/{device_id}" });
        assert_eq!(pointers(&run(placeholder, vec![], &[])), [("/settings/topic", Severity::Error)]);
    }

    #[test]
    fn map_entries() {
        let entries = vec![
            json!({ "point": "m1/u", "key": "a/b" }),
            json!({ "point": "m9/u", "key": "x" }),
            json!({ "point": "m1/i", "key": "x" }),
            json!({ "point": "m1/i", "key": "y" }),
        ];
        let problems = run(json!({ "url": "mqtt://b", "topic": "a/{device}" }), entries, &["m1/u", "m1/i"]);
        let found = pointers(&problems);
        assert_eq!(
            found,
            [
                ("/map/0/key", Severity::Error),
                ("/map/1/point", Severity::Error),
                ("/map/3/point", Severity::Error)
            ]
        );
        let twins = vec![json!({ "point": "m1/u", "key": "i" })];
        let problems = run(json!({ "url": "mqtt://b", "topic": "a/{device}" }), twins, &["m1/u", "m1/i"]);
        assert_eq!(pointers(&problems), [("/map", Severity::Error)]);
    }
}
