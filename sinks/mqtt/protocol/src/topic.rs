//! Topic templates: `busbar/{host}/{device}/{point}`.
//!
//! A template is checked once, when the configuration is read; rendering cannot fail and cannot leave its levels: what
//! a placeholder brings in is one piece of one level, every `/ + #`, control character and space in it becomes `_`.
//! So a device name can never move a value to the topic of another device.
//!
//! Rules for topic names: MQTT 3.1.1 section 4.7 and MQTT 5.0 section 4.7 (no wildcards in a name, at most 65,535
//! bytes). Empty levels are legal there and refused here: they are always a mistake in a template.

use std::fmt;

/// Longest template and longest rendered topic, bytes. MQTT allows 65,535; brokers in the field allow less.
pub const MAX_TOPIC: usize = 1024;

/// What a template may contain besides literal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// Name of the gateway.
    Host,
    /// Name of the device.
    Device,
    /// Name of the point within the device.
    Point,
    /// `format = "ems"`: unit id of the device.
    DeviceId,
    /// `format = "ems"`: UUID of the device.
    IdentifyDevice,
}

impl Placeholder {
    const ALL: [(&'static str, Self); 5] = [
        ("host", Self::Host),
        ("device", Self::Device),
        ("point", Self::Point),
        ("device_id", Self::DeviceId),
        ("identify_device", Self::IdentifyDevice),
    ];
}

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct TopicError {
    /// What a template must look like.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl TopicError {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

/// A checked topic template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// The names that fill the placeholders of a template.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Name of the gateway.
    pub host: &'a str,
    /// Name of the device.
    pub device: &'a str,
    /// Name of the point.
    pub point: &'a str,
    /// Unit id of the device (`format = "ems"`).
    pub device_id: &'a str,
    /// UUID of the device (`format = "ems"`).
    pub identify_device: &'a str,
}

impl Template {
    /// Reads a template in which only `allowed` placeholders may stand.
    pub fn parse(text: &str, allowed: &[Placeholder]) -> Result<Self, TopicError> {
        check_levels(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, after) = rest.split_at(open);
            push_text(&mut parts, before)?;
            let Some((name, tail)) = after.get(1..).and_then(|after| after.split_once('}')) else {
                return Err(TopicError::new("a closing } after {", after));
            };
            parts.push(Part::Value(placeholder(name, allowed)?));
            rest = tail;
        }
        push_text(&mut parts, rest)?;
        Ok(Self { parts })
    }

    /// True when the template has this placeholder.
    #[must_use]
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Value(placeholder))
    }

    /// The topic with these names.
    #[must_use]
    pub fn render(&self, names: &Names<'_>) -> String {
        let mut out = String::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(Placeholder::Host) => push_level(&mut out, names.host),
                Part::Value(Placeholder::Device) => push_level(&mut out, names.device),
                Part::Value(Placeholder::Point) => push_level(&mut out, names.point),
                Part::Value(Placeholder::DeviceId) => push_level(&mut out, names.device_id),
                Part::Value(Placeholder::IdentifyDevice) => push_level(&mut out, names.identify_device),
            }
        }
        if out.len() > MAX_TOPIC {
            let mut end = MAX_TOPIC;
            while !out.is_char_boundary(end) {
                end -= 1;
            }
            out.truncate(end);
        }
        out
    }

    /// The subscription that covers every topic of this template with this `host`, followed by `suffix` (which begins
    /// with `/`). A level with `{device}` or `{point}` becomes `+`.
    #[must_use]
    pub fn filter(&self, host: &str, suffix: &str) -> String {
        const MARK: char = '\u{1}';
        let mut marked = String::with_capacity(64);
        for part in &self.parts {
            match part {
                Part::Text(text) => marked.push_str(text),
                Part::Value(Placeholder::Host) => push_level(&mut marked, host),
                Part::Value(_) => marked.push(MARK),
            }
        }
        let levels = marked.split('/').map(|level| if level.contains(MARK) { "+" } else { level });
        let mut filter = levels.collect::<Vec<_>>().join("/");
        filter.push_str(suffix);
        filter
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Value(value) => {
                let name =
                    Placeholder::ALL.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name);
                write!(f, "{{{name}}}")
            }
        })
    }
}

fn check_levels(text: &str) -> Result<(), TopicError> {
    if text.is_empty() || text.len() > MAX_TOPIC {
        return Err(TopicError::new(
            format!("a topic of 1 to {MAX_TOPIC} bytes"),
            format!("{} bytes", text.len()),
        ));
    }
    if text.split('/').any(str::is_empty) {
        return Err(TopicError::new("no empty level (no leading, trailing or double /)", text));
    }
    if let Some(bad) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
        return Err(TopicError::new(
            "a topic without + # and control characters",
            bad.escape_default().to_string(),
        ));
    }
    Ok(())
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), TopicError> {
    if text.contains('}') {
        return Err(TopicError::new("an opening { before }", text));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str, allowed: &[Placeholder]) -> Result<Placeholder, TopicError> {
    let known = Placeholder::ALL.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    known.filter(|value| allowed.contains(value)).ok_or_else(|| {
        let words: Vec<String> = Placeholder::ALL
            .iter()
            .filter(|(_, value)| allowed.contains(value))
            .map(|(name, _)| format!("{{{name}}}"))
            .collect();
        TopicError::new(format!("one of {}", words.join(" ")), format!("{{{name}}}"))
    })
}

/// Appends one name as a piece of one level.
fn push_level(out: &mut String, name: &str) {
    let start = out.len();
    out.extend(name.chars().map(|c| {
        let bad = matches!(c, '/' | '+' | '#') || c.is_control() || c.is_whitespace();
        if bad { '_' } else { c }
    }));
    // An empty name must not make an empty level; a topic that begins with $ belongs to the broker.
    if out.len() == start {
        out.push('_');
    } else if start == 0 && out.starts_with('$') {
        out.replace_range(0..1, "_");
    }
}

/// Finds the point of an incoming set topic: the exact rendered topics, nothing else.
#[derive(Debug, Clone, Default)]
pub struct SetTopics {
    by_topic: std::collections::HashMap<String, u32>,
}

/// Last level of the topic on which commands for a point arrive.
pub const SET: &str = "/set";
/// Levels after the point's topic on which answers to commands go out.
pub const SET_RESULT: &str = "/set/result";

impl SetTopics {
    /// Point `point` takes commands on `topic` + [`SET`]. Returns the point that already has this topic, if any.
    pub fn insert(&mut self, topic: &str, point: u32) -> Option<u32> {
        self.by_topic.insert(format!("{topic}{SET}"), point)
    }

    /// The point whose set topic this is.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<u32> {
        self.by_topic.get(topic).copied()
    }

    /// Forgets a point.
    pub fn remove(&mut self, point: u32) {
        self.by_topic.retain(|_, known| *known != point);
    }

    /// True when no point takes commands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Placeholder; 3] = [Placeholder::Host, Placeholder::Device, Placeholder::Point];

    fn names<'a>(device: &'a str, point: &'a str) -> Names<'a> {
        Names { host: "site-7", device, point, ..Names::default() }
    }

    #[test]
    fn renders_the_default() {
        let template = Template::parse("busbar/{host}/{device}/{point}", &ALL).unwrap();
        assert_eq!(template.render(&names("meter-01", "voltage_l1")), "busbar/site-7/meter-01/voltage_l1");
        assert_eq!(template.to_string(), "busbar/{host}/{device}/{point}");
        assert!(template.has(Placeholder::Point));
    }

    #[test]
    fn names_cannot_inject_levels_or_wildcards() {
        let template = Template::parse("{host}/{device}/x{point}", &ALL).unwrap();
        let hostile = Names { host: "$SYS", device: "a/b", point: "+#\u{0}\n \u{7f}", ..Names::default() };
        assert_eq!(template.render(&hostile), "_SYS/a_b/x______");
        assert_eq!(template.render(&Names::default()), "_/_/x_");
        let long = "é".repeat(2000);
        let topic = template.render(&names(&long, "p"));
        assert!(topic.len() <= MAX_TOPIC, "{}", topic.len());
    }

    #[test]
    fn bad_templates_are_refused_with_both_sides() {
        for (text, words) in [
            ("", "found 0 bytes"),
            ("/a", "no empty level"),
            ("a//b", "no empty level"),
            ("a/", "no empty level"),
            ("a/+/b", "found +"),
            ("a/#", "found #"),
            ("a/\u{0}", "found \\u{0}"),
            ("a/{poin}", "expected one of {host} {device} {point}, found {poin}"),
            ("a/{point", "closing }"),
            ("a/point}", "opening {"),
            ("a/{}", "found {}"),
        ] {
            let error = Template::parse(text, &ALL).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let error = Template::parse("a/{point}", &[Placeholder::Host]).unwrap_err().to_string();
        assert_eq!(error, "expected one of {host}, found {point}");
    }

    #[test]
    fn filter_covers_devices_and_points_of_this_host_only() {
        let template = Template::parse("busbar/{host}/{device}/p-{point}/v", &ALL).unwrap();
        assert_eq!(template.filter("site-7", SET), "busbar/site-7/+/+/v/set");
    }

    #[test]
    fn set_topics_match_exactly() {
        let mut topics = SetTopics::default();
        assert_eq!(topics.insert("busbar/h/d/p", 4), None);
        assert_eq!(topics.insert("busbar/h/d/p2", 5), None);
        assert_eq!(topics.insert("busbar/h/d/p", 6), Some(4));
        assert_eq!(topics.find("busbar/h/d/p/set"), Some(6));
        for other in ["busbar/h/d/p", "busbar/h/d/p/set/result", "busbar/h/d/P/set", "/busbar/h/d/p/set"] {
            assert_eq!(topics.find(other), None, "{other}");
        }
        topics.remove(6);
        assert_eq!(topics.find("busbar/h/d/p/set"), None);
    }
}
