//! Configuration errors, all at once, each with its JSON pointer.
//!
//! serde stops at its first error. [`parse`] therefore notes the error, repairs a copy of the input at that place
//! (removes the unknown key, puts in something acceptable) and reads again, until it succeeds or no repair helps. Missing
//! keys of the table itself come from its JSON Schema first, because serde speaks of them last. Only an input that needed
//! no repair gives a value.

use std::collections::HashSet;

use busbar_contract::Problem;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use serde_path_to_error::{Path, Segment};

/// Problems reported for one table; the rest shows after the first are corrected.
const MAX_PROBLEMS: usize = 50;
/// Longest value shown in a problem, characters.
const MAX_SHOWN: usize = 60;
/// Names nearer than this (Damerau-Levenshtein, 0 to 1) are suggested.
const SIMILAR: f64 = 0.5;
/// Words in a key whose value is never shown.
const SECRET_WORDS: [&str; 6] = ["password", "passwd", "secret", "token", "key", "credential"];

/// Reads `input` as a `T`. `base` is put before every pointer.
pub(crate) fn parse<T: DeserializeOwned + JsonSchema>(base: &str, input: &Json) -> (Option<T>, Vec<Problem>) {
    let is_table = input.is_object();
    if is_table && let Ok(value) = T::deserialize(input) {
        return (Some(value), Vec::new());
    }
    let schema = schemars::schema_for!(T).to_value();
    if !is_table && schema.get("type").is_some_and(|kind| kind == "object") {
        // serde would take a list for a table.
        return (None, vec![Problem::error(base, "a table", shown(input))]);
    }
    let mut repair = Repair { input: input.clone(), schema, tried: HashSet::new(), problems: Vec::new() };
    repair.missing();
    // Each repaired place may need as many readings as there are substitutes.
    for _ in 0..MAX_PROBLEMS * (SUBSTITUTES + 1) {
        match serde_path_to_error::deserialize::<_, T>(&repair.input) {
            Ok(value) => return (repair.problems.is_empty().then_some(value), repair.finish(base)),
            Err(error) => {
                let text = error.inner().to_string();
                if !repair.step(error.path(), &text, input) {
                    break;
                }
            }
        }
    }
    (None, repair.finish(base))
}

/// Reads `input` as a `T`, or gives all problems as one text.
pub(crate) fn parse_or_text<T: DeserializeOwned + JsonSchema>(base: &str, input: &Json) -> Result<T, String> {
    let (value, problems) = parse(base, input);
    value.ok_or_else(|| problems.iter().map(sentence).collect::<Vec<_>>().join("; "))
}

fn sentence(problem: &Problem) -> String {
    let hint = if problem.hint.is_empty() { String::new() } else { format!(" ({})", problem.hint) };
    format!("{}: expected {}, found {}{hint}", problem.pointer, problem.expected, problem.found)
}

struct Repair {
    input: Json,
    schema: Json,
    /// Place and number of the substitute already tried there.
    tried: HashSet<(String, usize)>,
    problems: Vec<Problem>,
}

/// Number of things tried at a place that serde refuses.
const SUBSTITUTES: usize = 8;

fn substitute(number: usize, expected: &[String], example: Option<&Json>) -> Json {
    match number {
        0 => match (example, expected.first()) {
            (Some(example), _) => example.clone(),
            (None, Some(word)) => json!(word),
            (None, None) => json!("x"),
        },
        1 => json!(1),
        2 => json!(true),
        3 => json!(1.5),
        4 => json!([]),
        5 => json!({}),
        6 => json!("1"),
        _ => Json::Null,
    }
}

impl Repair {
    /// Notes the keys that the schema of the table itself requires.
    fn missing(&mut self) {
        let required = self.schema.get("required").and_then(Json::as_array).cloned().unwrap_or_default();
        let Some(table) = self.input.as_object() else {
            return;
        };
        let absent: Vec<String> = required
            .iter()
            .filter_map(Json::as_str)
            .filter(|key| !table.contains_key(*key))
            .take(MAX_PROBLEMS)
            .map(|key| format!("/{}", escape(key)))
            .collect();
        for place in absent {
            self.problems.push(Problem::error(&place, self.described(&place), "nothing"));
            self.tried.insert((place.clone(), 0));
            let example = self.example(&place).cloned();
            put(&mut self.input, &place, substitute(0, &[], example.as_ref()));
        }
    }

    fn property(&self, place: &str) -> Option<&Json> {
        self.schema.get("properties")?.get(place.strip_prefix('/')?)
    }

    /// Something that the author of the type calls acceptable.
    fn example(&self, place: &str) -> Option<&Json> {
        let property = self.property(place)?;
        property.pointer("/examples/0").or_else(|| property.get("default"))
    }

    /// What the author says about a key.
    fn described(&self, place: &str) -> String {
        let text =
            self.property(place).and_then(|property| property.get("description")).and_then(Json::as_str);
        text.map_or_else(|| "a value".to_owned(), str::to_owned)
    }

    /// Notes one error and repairs its place; false when nothing helps.
    fn step(&mut self, path: &Path, text: &str, original: &Json) -> bool {
        let mut place = pointer(path);
        let error = Explained::read(text);
        if let Some(key) = &error.key {
            // serde names the key in its text; the path ends at the key or at its table.
            if !place.ends_with(&format!("/{}", escape(key))) || error.missing {
                place = format!("{place}/{}", escape(key));
            }
        }
        let known = self.tried.iter().any(|(tried, _)| *tried == place);
        if !known {
            if self.problems.len() >= MAX_PROBLEMS {
                return false;
            }
            self.problems.push(error.problem(&place, original));
        }
        if error.unknown_key {
            return self.tried.insert((place.clone(), 0)) && remove(&mut self.input, &place);
        }
        let next = (0..SUBSTITUTES).find(|number| !self.tried.contains(&(place.clone(), *number)));
        match next {
            Some(number) => {
                self.tried.insert((place.clone(), number));
                let example = self.example(&place).cloned();
                put(&mut self.input, &place, substitute(number, &error.words, example.as_ref()))
            }
            // Nothing is acceptable here: without the key, serde at least comes to the others.
            None => self.tried.insert((place.clone(), SUBSTITUTES)) && remove(&mut self.input, &place),
        }
    }

    fn finish(mut self, base: &str) -> Vec<Problem> {
        for problem in &mut self.problems {
            problem.pointer = format!("{base}{}", problem.pointer);
        }
        self.problems
    }
}

/// serde's text, taken apart.
struct Explained {
    expected: String,
    found: Option<String>,
    key: Option<String>,
    unknown_key: bool,
    missing: bool,
    /// Words that serde would accept here.
    words: Vec<String>,
}

impl Explained {
    fn read(text: &str) -> Self {
        let plain = |expected: String, found: Option<String>| Self {
            expected,
            found,
            key: None,
            unknown_key: false,
            missing: false,
            words: Vec::new(),
        };
        if let Some(rest) = text.strip_prefix("unknown field ") {
            let words = quoted(rest);
            let (key, words) =
                words.split_first().map_or((None, &[][..]), |(key, rest)| (Some(key.clone()), rest));
            let expected = list("one of the keys", words, "no key here");
            return Self { key, unknown_key: true, words: words.to_vec(), ..plain(expected, None) };
        }
        if let Some(rest) = text.strip_prefix("missing field ") {
            return Self {
                key: quoted(rest).into_iter().next(),
                missing: true,
                ..plain("a value".into(), None)
            };
        }
        if let Some(rest) = text.strip_prefix("unknown variant ") {
            let words = quoted(rest);
            let words = words.get(1..).unwrap_or_default().to_vec();
            return Self { words: words.clone(), ..plain(list("one of", &words, "nothing"), None) };
        }
        match text.rsplit_once(", expected ") {
            Some((found, expected)) => {
                let found = found.split_once(": ").map_or(found, |(_, found)| found);
                plain(in_words(expected), Some(found.to_owned()))
            }
            None => match text.strip_prefix("expected ").and_then(|rest| rest.split_once(", found ")) {
                Some((expected, found)) => plain(expected.to_owned(), Some(found.to_owned())),
                None => plain(text.to_owned(), None),
            },
        }
    }

    fn problem(&self, place: &str, original: &Json) -> Problem {
        let there = original.pointer(place);
        let found = match (there, &self.found) {
            _ if self.missing => "nothing".to_owned(),
            (Some(_), _) if hides(place) || self.expected.contains("secret") => {
                "a value that is not shown".to_owned()
            }
            (_, _) if self.unknown_key => format!("`{}`", self.key.as_deref().unwrap_or_default()),
            (Some(value), _) => shown(value),
            (None, Some(found)) => found.clone(),
            (None, None) => "nothing".to_owned(),
        };
        let near =
            if self.unknown_key { self.key.clone() } else { there.and_then(Json::as_str).map(str::to_owned) };
        let problem = Problem::error(place, self.expected.clone(), found);
        match near.as_deref().and_then(|name| nearest(name, &self.words)) {
            Some(word) => problem.hint(format!("did you mean `{word}`?")),
            None if self.unknown_key => problem.hint("remove the key, or correct its name"),
            None => problem,
        }
    }
}

/// The known name that is most like `name`, if any is.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(name, word), word.as_str()))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// Rust's names of types in the operator's words.
fn in_words(expected: &str) -> String {
    let whole = |from: &str, to: &str| format!("a whole number from {from} to {to}");
    match expected {
        "u8" => whole("0", "255"),
        "u16" => whole("0", "65535"),
        "u32" => whole("0", "4294967295"),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" => whole("-128", "127"),
        "i16" => whole("-32768", "32767"),
        "i32" => whole("-2147483648", "2147483647"),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn list(before: &str, words: &[String], none: &str) -> String {
    if words.is_empty() { none.to_owned() } else { format!("{before} {}", words.join(", ")) }
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn hides(place: &str) -> bool {
    let key = place.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

fn shown(value: &Json) -> String {
    let value = match value {
        Json::Object(_) => return "a table".to_owned(),
        Json::Array(_) => return "a list".to_owned(),
        Json::Null => return "nothing".to_owned(),
        value => value.to_string(),
    };
    if value.chars().count() > MAX_SHOWN {
        value.chars().take(MAX_SHOWN).chain("...".chars()).collect()
    } else {
        value
    }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &Path) -> String {
    path.iter().fold(String::new(), |mut out, segment| {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => out.push_str(&format!("/{}", escape(key))),
            // The variant is the key of a table of its own; an unknown place adds nothing.
            Segment::Enum { variant } => out.push_str(&format!("/{}", escape(variant))),
            Segment::Unknown => {}
        }
        out
    })
}

fn split(place: &str) -> Option<(&str, String)> {
    let (parent, key) = place.rsplit_once('/')?;
    Some((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn remove(input: &mut Json, place: &str) -> bool {
    let Some((parent, key)) = split(place) else {
        return false;
    };
    let table = input.pointer_mut(parent).and_then(Json::as_object_mut);
    table.is_some_and(|table| table.remove(&key).is_some())
}

fn put(input: &mut Json, place: &str, value: Json) -> bool {
    if let Some(there) = input.pointer_mut(place) {
        *there = value;
        return true;
    }
    let Some((parent, key)) = split(place) else {
        return false;
    };
    match input.pointer_mut(parent) {
        Some(Json::Object(table)) => {
            table.insert(key, value);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, JsonSchema, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by serde")]
    struct Connection {
        /// host name or address
        host: String,
        #[serde(default)]
        port: u16,
        parity: Option<Parity>,
        password: Option<crate::Secret>,
        #[serde(default)]
        address: Address,
        #[serde(default)]
        list: Vec<u8>,
    }

    #[derive(serde::Deserialize, JsonSchema, Debug, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Parity {
        None,
        Even,
    }

    #[derive(serde::Deserialize, JsonSchema, Debug, PartialEq, Default)]
    #[serde(try_from = "String")]
    struct Address(u32);

    impl TryFrom<String> for Address {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            text.strip_prefix("D")
                .and_then(|rest| rest.parse().ok())
                .map(Self)
                .ok_or_else(|| format!("expected D and a number, found {text:?}"))
        }
    }

    fn problems(input: Json) -> Vec<(String, String, String, String)> {
        let (value, problems) = parse::<Connection>("/connection", &input);
        assert_eq!(value.is_none(), !problems.is_empty());
        problems.into_iter().map(|p| (p.pointer, p.expected, p.found, p.hint)).collect()
    }

    #[test]
    fn all_problems_come_at_once_with_their_places() {
        assert_eq!(problems(json!({ "host": "a", "address": "D7" })), []);
        let found = problems(json!({
            "prot": 502, "port": 70_000, "parity": "evn", "address": "X1", "list": [1, "two", 3, 4000],
            "password": 12345,
        }));
        let find = |place: &str| {
            found
                .iter()
                .find(|p| p.0 == format!("/connection{place}"))
                .unwrap_or_else(|| panic!("{place}: {found:?}"))
        };
        assert_eq!(find("/prot").3, "did you mean `port`?");
        assert_eq!(find("/host").1, "host name or address");
        let port = find("/port");
        assert_eq!((port.1.as_str(), port.2.as_str()), ("a whole number from 0 to 65535", "70000"));
        assert_eq!(find("/parity").3, "did you mean `even`?");
        assert_eq!(find("/list/1").1, "a whole number from 0 to 255");
        assert_eq!(find("/list/3").2, "4000");
        assert!(!format!("{found:?}").contains("12345"), "{found:?}");
        assert_eq!(find("/password").1, "a secret text");
        let address = problems(json!({ "host": "a", "address": "X1" }));
        assert_eq!(address[0].1, "D and a number");
        assert_eq!(address[0].2, "\"X1\"");
    }

    #[test]
    fn a_wrong_whole_is_one_problem() {
        assert_eq!(problems(json!([])).len(), 1);
        assert_eq!(problems(json!("x")).len(), 1);
        assert_eq!(problems(Json::Null).len(), 1);
    }

    #[test]
    fn the_number_of_problems_is_bounded() {
        let many: serde_json::Map<_, _> = (0..1000).map(|i| (format!("k{i}"), Json::Null)).collect();
        assert!(problems(Json::Object(many)).len() <= MAX_PROBLEMS);
    }
}
