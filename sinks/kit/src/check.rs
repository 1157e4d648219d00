//! What is wrong with common settings beyond types and names. Pure: files are not opened here.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use busbar_driver_api::Problem;

use crate::settings::{Tls, Urls, duration};

/// Most URLs of a list: so many can be tried within one connect.
pub const MAX_URLS: usize = 8;

/// A text that says "expected ..., found ...", as a problem.
#[must_use]
pub fn told(pointer: &str, text: &str) -> Problem {
    let (expected, found) = text.split_once(", found ").unwrap_or((text, "another text"));
    Problem::error(pointer, expected.trim_start_matches("expected "), found)
}

/// A list of URLs has something in it, and not too much.
pub fn count_of_urls(urls: &Urls, problems: &mut Vec<Problem>) {
    let count = urls.list().len();
    if count == 0 {
        problems.push(Problem::error("/settings/url", "at least one URL", "an empty list"));
    }
    if count > MAX_URLS {
        problems.push(Problem::error("/settings/url", format!("at most {MAX_URLS} URLs"), count.to_string()));
    }
}

/// Nothing that is sent to this host crosses a network.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `text` is a time within `range`, of whole seconds where `whole`.
pub fn time(
    pointer: &str,
    text: &str,
    range: &RangeInclusive<Duration>,
    whole: bool,
    problems: &mut Vec<Problem>,
) {
    let fits =
        duration(text).is_some_and(|time| range.contains(&time) && (!whole || time.subsec_nanos() == 0));
    if !fits {
        let expected = format!("a time of {:?} to {:?}, as \"30s\"", range.start(), range.end());
        problems.push(Problem::error(pointer, expected, text));
    }
}

/// A name of ours at the far side: 1 to `longest` bytes without control characters.
pub fn id(pointer: &str, text: &str, longest: usize, problems: &mut Vec<Problem>) {
    if !is_id(text, longest) {
        let expected = format!("1 to {longest} bytes without control characters");
        problems.push(Problem::error(pointer, expected, format!("{} bytes", text.len())));
    }
}

/// 1 to `longest` bytes without control characters.
#[must_use]
pub fn is_id(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}

/// Certificate and key come together, and are used: some URL begins with `scheme` (`"https://"`). `plain`: the scheme
/// without TLS.
pub fn tls(tls: Option<&Tls>, urls: &Urls, (scheme, plain): (&str, &str), problems: &mut Vec<Problem>) {
    let Some(Tls { cert, key, .. }) = tls else { return };
    match (cert, key) {
        (Some(_), None) => problems.push(Problem::error("/settings/tls", "key beside cert", "no key")),
        (None, Some(_)) => problems.push(Problem::error("/settings/tls", "cert beside key", "no cert")),
        _ => {}
    }
    let begins = |url: &str| url.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    if !urls.list().iter().any(|(_, url)| begins(url)) {
        problems.push(
            Problem::error("/settings/tls", format!("{scheme} in url"), plain)
                .hint("the certificates would not be used: the connection is not encrypted"),
        );
    }
}

/// One entry of `map` that gives a point another name.
#[derive(Debug, Clone, Copy)]
pub struct Mapped<'a> {
    /// JSON pointer of the entry.
    pub pointer: &'a str,
    /// `device/point`
    pub point: &'a str,
    /// Its name at the far side.
    pub key: &'a str,
}

/// What is wrong with the entries of `map`: keys that are not a name, points that are not `routed`, points with two keys.
/// `name`: what a key must be, in words and as a judgement. System points (`m1/@online`) are not in `routed`; the host has
/// judged them.
#[must_use]
pub fn map<'a>(
    entries: impl Iterator<Item = Mapped<'a>>,
    routed: &[String],
    name: (&str, impl Fn(&str) -> bool),
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = HashMap::new();
    let routed: HashSet<&str> = routed.iter().map(String::as_str).collect();
    for Mapped { pointer, point, key } in entries {
        if !name.1(key) {
            problems.push(Problem::error(format!("{pointer}/key"), name.0, key));
        }
        let at = || format!("{pointer}/point");
        if !routed.contains(point) && !point.contains('@') {
            problems.push(Problem::error(at(), "a point routed to this sink", point));
        }
        if seen.insert(point, key).is_some_and(|other| other != key) {
            problems.push(Problem::error(at(), "one key per point", point));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_used_whatever_the_case_of_the_scheme() {
        let tls_of = |url: &str| {
            let mut problems = Vec::new();
            let urls = Urls::Many(vec!["mqtt://a".into(), url.into()]);
            tls(Some(&Tls::default()), &urls, ("mqtts://", "mqtt://"), &mut problems);
            problems
        };
        assert_eq!(tls_of("mqtts://b"), []);
        assert_eq!(tls_of("MQTTS://b"), []);
        for url in ["mqtt://b", "mqtt", "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}"] {
            assert_eq!(tls_of(url).len(), 1, "{url}");
        }
    }

    #[test]
    fn lists_of_urls_are_bounded() {
        for (count, expected) in [(0, 1), (1, 0), (MAX_URLS, 0), (MAX_URLS + 1, 1)] {
            let mut problems = Vec::new();
            count_of_urls(&Urls::Many(vec!["mqtt://b".into(); count]), &mut problems);
            assert_eq!(problems.len(), expected, "{count}");
        }
    }

    #[test]
    fn entries_of_map() {
        let routed = ["m1/u".to_owned(), "m1/i".to_owned()];
        let entries = [
            ("/map/0", "m1/u", ""),
            ("/map/1", "m9/u", "x"),
            ("/map/2", "m1/i", "x"),
            ("/map/3", "m1/i", "y"),
            ("/map/4", "@host/clock_synced", "clock"),
        ];
        let entries = entries.iter().map(|&(pointer, point, key)| Mapped { pointer, point, key });
        let problems = map(entries, &routed, ("a name", |key: &str| is_id(key, 10)));
        let found: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(found, ["/map/0/key", "/map/1/point", "/map/3/point"]);
    }

    #[test]
    fn sentences_become_problems() {
        let problem = told("/settings/url", "expected mqtt:// or mqtts://, found tcp://");
        assert_eq!((problem.expected.as_str(), problem.found.as_str()), ("mqtt:// or mqtts://", "tcp://"));
        assert_eq!(told("/x", "expected more").found, "another text");
    }
}
