//! CHECK: what is wrong with the settings beyond types and names, all at once. Pure: files are not opened here.

use std::collections::HashMap;
use std::time::Duration;

use busbar_driver_api::{Problem, SinkCheck};
use busbar_ems_http::backoff::MAX_PAUSE;
use busbar_ems_http::client::{header, header_name};
use busbar_ems_http::{Body, Endpoint};
use busbar_sink_kit::check::{self, Mapped, is_id, is_loopback, told};

use crate::settings::{Map, Settings};
use crate::sink::Ems;

const BATCH_MAX: std::ops::RangeInclusive<usize> = 1..=10_000;
const BATCH_WAIT: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
const RETRY_DELAY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=MAX_PAUSE;
const TOKEN_RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
/// Most further headers.
const MAX_HEADERS: usize = 32;
/// Longest name of a member of an answer, and of the gateway.
const MAX_NAME: usize = 128;
/// Collisions shown; the rest shows after the first are corrected.
const MAX_SHOWN: usize = 20;

pub(crate) fn check(input: &SinkCheck<'_, Ems>) -> Vec<Problem> {
    let mut problems = map(&input.map, input.routed);
    collisions(&input.map, input.routed, &mut problems);
    if let Some(settings) = input.settings {
        urls(settings, &mut problems);
        numbers(settings, &mut problems);
        token(settings, &mut problems);
        headers(settings, &mut problems);
        check::tls(settings.tls.as_ref(), &settings.url, ("https://", "http://"), &mut problems);
        body(settings, &mut problems);
    }
    problems
}

fn urls(settings: &Settings, problems: &mut Vec<Problem>) {
    check::count_of_urls(&settings.url, problems);
    if let Err(text) = Endpoint::parse("https://any.example", &settings.path) {
        problems.push(told("/settings/path", &text));
        return;
    }
    let secret = settings.token.is_some() || settings.token_file.is_some() || !settings.headers.is_empty();
    for (pointer, url) in settings.url.list() {
        match Endpoint::parse(url, &settings.path) {
            Ok(endpoint) if secret && !endpoint.is_tls() && !is_loopback(endpoint.host()) => problems.push(
                Problem::warning(&pointer, "https:// beside a token or headers", endpoint.to_string())
                    .hint("without TLS they cross the network in clear text"),
            ),
            Ok(_) => {}
            Err(text) => problems.push(told(&pointer, &text)),
        }
    }
}

fn numbers(settings: &Settings, problems: &mut Vec<Problem>) {
    if !BATCH_MAX.contains(&settings.batch_max) {
        let expected = format!("a number of {} to {}", BATCH_MAX.start(), BATCH_MAX.end());
        problems.push(Problem::error("/settings/batch_max", expected, settings.batch_max.to_string()));
    }
    for (key, text, range) in [
        ("batch_wait", &settings.batch_wait, &BATCH_WAIT),
        ("timeout", &settings.timeout, &TIMEOUT),
        ("retry_delay", &settings.retry_delay, &RETRY_DELAY),
        ("token_retry", &settings.token_retry, &TOKEN_RETRY),
    ] {
        check::time(&format!("/settings/{key}"), text, range, false, problems);
    }
    if let Some(id) = &settings.gateway_id {
        check::id("/settings/gateway_id", id, MAX_NAME, problems);
    }
    let answer = &settings.answer;
    for (key, name) in [("rejected", &answer.rejected), ("index", &answer.index), ("reason", &answer.reason)]
    {
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            let expected = format!("the name of a member, 1 to {MAX_NAME} bytes");
            problems.push(Problem::error(format!("/settings/answer/{key}"), expected, "another text"));
        }
    }
}

fn token(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.token.is_some() && settings.token_file.is_some() {
        problems.push(
            Problem::error("/settings/token_file", "token or token_file", "both")
                .hint("token_file is read again before every request, token only with the configuration"),
        );
    }
    if settings
        .token
        .as_ref()
        .is_some_and(|token| header("X-Token", token.expose()).is_err() || token.is_empty())
    {
        problems.push(Problem::error(
            "/settings/token",
            "one line of printable ASCII",
            "a value that is not shown",
        ));
    }
    if header("X-Token", &settings.token_prefix).is_err() {
        problems.push(Problem::error(
            "/settings/token_prefix",
            "printable ASCII",
            settings.token_prefix.as_str(),
        ));
    }
}

fn headers(settings: &Settings, problems: &mut Vec<Problem>) {
    let mut taken: HashMap<String, &str> = HashMap::new();
    for (key, name) in [("token_header", &settings.token_header), ("key_header", &settings.key_header)] {
        match header_name(name) {
            Err(text) => problems.push(told(&format!("/settings/{key}"), &text)),
            Ok(name) => {
                if let Some(other) = taken.insert(name.as_str().to_owned(), key) {
                    let expected = format!("another header than {other}");
                    problems.push(Problem::error(format!("/settings/{key}"), expected, name.as_str()));
                }
            }
        }
    }
    let with_token = settings.token.is_some() || settings.token_file.is_some();
    if settings.headers.len() > MAX_HEADERS {
        let expected = format!("at most {MAX_HEADERS} headers");
        problems.push(Problem::error("/settings/headers", expected, settings.headers.len().to_string()));
    }
    for (name, value) in &settings.headers {
        let pointer = format!("/settings/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        match header(name, value.expose()) {
            Err(text) => problems.push(told(&pointer, &text)),
            Ok((parsed, _)) => match taken.get(parsed.as_str()) {
                Some(&"token_header") if !with_token => {}
                Some(key) => {
                    problems.push(Problem::error(
                        pointer,
                        format!("another header than {key}"),
                        parsed.as_str(),
                    ));
                }
                None => {}
            },
        }
    }
}

fn body(settings: &Settings, problems: &mut Vec<Problem>) {
    if let Err(found) = Body::new(&settings.body.skeleton()) {
        problems.extend(found.into_iter().map(|problem| {
            Problem::error(format!("/settings/body{}", problem.pointer), problem.expected, problem.found)
        }));
    }
}

fn map(entries: &[(String, &Map)], routed: &[String]) -> Vec<Problem> {
    let entries =
        entries.iter().map(|(pointer, entry)| Mapped { pointer, point: &entry.point, key: &entry.key });
    let expected = format!("a name of 1 to {MAX_NAME} bytes without control characters");
    check::map(entries, routed, (&expected, |key: &str| is_id(key, MAX_NAME)))
}

/// Two points of a device under one name would overwrite each other.
fn collisions(entries: &[(String, &Map)], routed: &[String], problems: &mut Vec<Problem>) {
    let keys: HashMap<&str, (&str, &str)> = entries
        .iter()
        .map(|(pointer, entry)| (entry.point.as_str(), (entry.key.as_str(), pointer.as_str())))
        .collect();
    let mut owners: HashMap<(&str, &str), &str> = HashMap::new();
    let mut shown = 0;
    for name in routed {
        let Some((device, point)) = name.rsplit_once('/') else { continue };
        let entry = keys.get(name.as_str());
        if point.starts_with('@') && entry.is_none() {
            continue;
        }
        let key = entry.map_or(point, |(key, _)| key);
        if let Some(other) = owners.insert((device, key), name)
            && shown < MAX_SHOWN
        {
            shown += 1;
            let pointer = entry.or_else(|| keys.get(other)).map_or("/map", |(_, pointer)| pointer);
            let expected = format!("one name for {other} and another for {name}");
            problems.push(Problem::error(
                format!("{pointer}/key").replace("/map/key", "/map"),
                expected,
                key,
            ));
        }
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
        assert_eq!(run(json!({ "url": "https://e" }), vec![], &["m1/u", "m2/u", "m1/@online"]), []);
    }

    #[test]
    fn the_sample_is_good_and_stands_in_the_readme() {
        const SAMPLE: &str = include_str!("../sample.toml");
        let readme = include_str!("../README.md");
        assert!(readme.contains(&format!("```toml\n{SAMPLE}```\n")), "README.md and sample.toml differ");
        let sample: Json = toml::from_str(SAMPLE).unwrap();
        let sinks = sample["sink"].as_array().unwrap();
        assert_eq!(sinks.len(), 3);
        for sink in sinks {
            let map = sink.get("map").map_or(vec![], |map| map.as_array().unwrap().clone());
            assert_eq!(run(sink["settings"].clone(), map, &["meter-01/voltage_l1"]), [], "{}", sink["name"]);
        }
    }

    #[test]
    fn every_setting_and_placeholder_is_in_the_readme() {
        let readme = include_str!("../README.md");
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        let tables = ["Names", "BodyForm", "Answers"].map(|name| &schema["$defs"][name]);
        for table in std::iter::once(&schema).chain(tables) {
            for key in table["properties"].as_object().unwrap().keys() {
                assert!(readme.contains(&format!("`{key}`")), "{key} is missing in README.md");
            }
        }
        assert!(schema["properties"].get("memory").is_none());
        for slot in "gateway_id batch_id count records device timestamp timestamp_ms timestamp_s seq history label:NAME \
                     measurements key point value unit quality quality_text"
            .split_whitespace()
        {
            assert!(readme.contains(&format!("`{{{slot}}}`")), "{slot} is missing in README.md");
        }
    }

    #[test]
    fn files_are_marked_so_that_the_host_looks_at_them() {
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        assert_eq!(schema["properties"]["token_file"]["format"], "path");
        for key in ["ca", "cert", "key"] {
            assert_eq!(schema["$defs"]["Tls"]["properties"][key]["format"], "path", "{key}");
        }
    }

    #[test]
    fn all_problems_at_once() {
        let settings = json!({
            "url": ["http://e", "https://u:hunter2@e", "mqtt://e"], "token": "hunter2\n", "token_file": "t",
            "token_header": "a b", "token_prefix": "\u{e4}\n", "key_header": "Content-Length", "gateway_id": "",
            "batch_max": 0, "batch_wait": "soon", "timeout": "1h", "retry_delay": "0s", "token_retry": "30",
            "headers": { "Host": "hunter2", "X": "hunter2\n" }, "tls": { "cert": "c.pem" },
            "body": { "batch": {}, "record": { "x": "{nothing}", "m": "{measurements}" }, "measurement": "{value" },
            "answer": { "rejected": "" }
        });
        let problems = run(settings, vec![], &[]);
        let found = pointers(&problems);
        for pointer in [
            "/settings/url/1",
            "/settings/url/2",
            "/settings/token",
            "/settings/token_file",
            "/settings/token_header",
            "/settings/token_prefix",
            "/settings/key_header",
            "/settings/gateway_id",
            "/settings/batch_max",
            "/settings/batch_wait",
            "/settings/timeout",
            "/settings/retry_delay",
            "/settings/token_retry",
            "/settings/headers/Host",
            "/settings/headers/X",
            "/settings/tls",
            "/settings/body/batch",
            "/settings/body/record/x",
            "/settings/body/measurement",
            "/settings/answer/rejected",
        ] {
            assert!(found.contains(&(pointer, Severity::Error)), "{pointer}: {found:?}");
        }
        assert!(found.contains(&("/settings/url/0", Severity::Warning)), "a token in clear text");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
        assert!(problems.iter().all(|problem| !problem.expected.is_empty() && !problem.found.is_empty()));
    }

    #[test]
    fn headers_do_not_collide() {
        let with_token = json!({ "url": "https://e", "token": "t", "headers": { "authorization": "x" } });
        assert_eq!(
            pointers(&run(with_token, vec![], &[])),
            [("/settings/headers/authorization", Severity::Error)]
        );
        let without = json!({ "url": "https://e", "headers": { "authorization": "x" } });
        assert_eq!(run(without, vec![], &[]), []);
        let key = json!({ "url": "https://e", "token_header": "X", "key_header": "x" });
        assert_eq!(pointers(&run(key, vec![], &[])), [("/settings/key_header", Severity::Error)]);
        let tls = json!({ "url": "http://127.0.0.1", "token": "t", "tls": { "ca": "x" } });
        assert_eq!(pointers(&run(tls, vec![], &[])), [("/settings/tls", Severity::Error)]);
        let none = json!({ "url": [] });
        assert_eq!(pointers(&run(none, vec![], &[])), [("/settings/url", Severity::Error)]);
    }

    #[test]
    fn map_entries() {
        let entries = vec![
            json!({ "point": "m1/u", "key": "" }),
            json!({ "point": "m9/u", "key": "x" }),
            json!({ "point": "m1/i", "key": "x" }),
            json!({ "point": "m1/i", "key": "y" }),
        ];
        let problems = run(json!({ "url": "https://e" }), entries, &["m1/u", "m1/i"]);
        let errors = ["/map/0/key", "/map/1/point", "/map/3/point"].map(|at| (at, Severity::Error));
        assert_eq!(pointers(&problems), errors);
        let twins = vec![json!({ "point": "m1/u", "key": "i" })];
        let problems = run(json!({ "url": "https://e" }), twins.clone(), &["m1/u", "m1/i"]);
        assert_eq!(pointers(&problems), [("/map/0/key", Severity::Error)]);
        assert!(
            problems[0].expected.contains("m1/u") && problems[0].expected.contains("m1/i"),
            "{problems:?}"
        );
        assert_eq!(run(json!({ "url": "https://e" }), twins, &["m1/u", "m2/i"]), []);
    }
}
