//! Body skeletons: JSON with placeholders, since each EMS differs.
//!
//! A skeleton is any JSON. A text that is exactly one placeholder (`"{value}"`) is replaced by the JSON value, whatever its
//! type; a placeholder inside a longer text (`"site/{device}"`) by its characters. `{{` stands for a plain `{`. Names of
//! members are taken as they are. Skeletons are checked once and flattened into pieces, so that rendering copies bytes and
//! cannot fail.
//!
//! | skeleton | placeholders |
//! |---|---|
//! | batch | `gateway_id batch_id count`, and `records` exactly once |
//! | record | `gateway_id device timestamp timestamp_ms timestamp_s seq history label:NAME`, and `measurements` exactly once |
//! | measurement | `key point value unit quality quality_text` |

use busbar_kit::json::{write_escaped, write_text};
use serde_json::Value as Json;

/// Deepest skeleton.
const MAX_DEPTH: usize = 16;
/// Largest skeleton as JSON text, bytes.
pub const MAX_SKELETON: usize = 16 * 1024;
/// Longest text of an operator's that is shown.
const MAX_SHOWN: usize = 60;

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// The gateway's id at the EMS.
    GatewayId,
    /// The idempotency key.
    BatchId,
    /// Number of records.
    Count,
    /// The list of records.
    Records,
    /// Name of the device.
    Device,
    /// RFC 3339 with milliseconds.
    Timestamp,
    /// Milliseconds since 1970 UTC.
    TimestampMs,
    /// Whole seconds since 1970 UTC.
    TimestampS,
    /// Number of the record's first sample.
    Seq,
    /// From the device's own memory.
    History,
    /// A label of the device; null where it has none.
    Label(String),
    /// The measurements: an object or a list.
    Measurements,
    /// Name of the measurement.
    Key,
    /// Name of the point.
    Point,
    /// The value.
    Value,
    /// The unit.
    Unit,
    /// The EMS's word for the quality.
    Quality,
    /// Busbar's own text of the quality.
    QualityText,
}

/// Which of the three skeletons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The whole body.
    Batch,
    /// One record.
    Record,
    /// One measurement.
    Measurement,
}

impl Level {
    fn slots(self) -> &'static [(&'static str, Slot)] {
        match self {
            Self::Batch => &[
                ("gateway_id", Slot::GatewayId),
                ("batch_id", Slot::BatchId),
                ("count", Slot::Count),
                ("records", Slot::Records),
            ],
            Self::Record => &[
                ("gateway_id", Slot::GatewayId),
                ("device", Slot::Device),
                ("timestamp", Slot::Timestamp),
                ("timestamp_ms", Slot::TimestampMs),
                ("timestamp_s", Slot::TimestampS),
                ("seq", Slot::Seq),
                ("history", Slot::History),
                ("measurements", Slot::Measurements),
            ],
            Self::Measurement => &[
                ("key", Slot::Key),
                ("point", Slot::Point),
                ("value", Slot::Value),
                ("unit", Slot::Unit),
                ("quality", Slot::Quality),
                ("quality_text", Slot::QualityText),
            ],
        }
    }

    /// The placeholder that holds the next level.
    const fn inner(self) -> Option<(&'static str, Slot)> {
        match self {
            Self::Batch => Some(("records", Slot::Records)),
            Self::Record => Some(("measurements", Slot::Measurements)),
            Self::Measurement => None,
        }
    }

    fn find(self, name: &str) -> Option<Slot> {
        if let (Self::Record, Some(label)) = (self, name.strip_prefix("label:")) {
            return (!label.is_empty()).then(|| Slot::Label(label.to_owned()));
        }
        self.slots().iter().find(|(known, _)| *known == name).map(|(_, slot)| slot.clone())
    }

    fn known(self) -> String {
        let mut names: Vec<String> = self.slots().iter().map(|(name, _)| format!("{{{name}}}")).collect();
        if self == Self::Record {
            names.push("{label:NAME}".to_owned());
        }
        names.join(" ")
    }
}

/// What is wrong with a skeleton, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: expected {expected}, found {found}")]
pub struct TemplateError {
    /// JSON pointer within the skeleton.
    pub pointer: String,
    /// What it must look like.
    pub expected: String,
    /// What was found.
    pub found: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// `inside`: within a longer text.
    Slot {
        slot: Slot,
        inside: bool,
    },
}

/// A checked skeleton, flattened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What fills a slot.
#[derive(Debug, Clone, Copy)]
pub enum Fill<'a> {
    /// A text.
    Text(&'a str),
    /// Ready JSON.
    Json(&'a [u8]),
}

impl Template {
    /// Checks and flattens a skeleton; all problems at once.
    pub fn compile(skeleton: &Json, level: Level) -> Result<Self, Vec<TemplateError>> {
        let mut flat = Flattener { level, pieces: Vec::new(), problems: Vec::new(), inner: 0 };
        if skeleton.to_string().len() > MAX_SKELETON {
            flat.problem("", format!("at most {MAX_SKELETON} bytes of JSON"), "more");
        } else {
            flat.walk(skeleton, "", 0);
            if let Some((name, _)) = level.inner()
                && flat.inner != 1
            {
                flat.problem("", format!("\"{{{name}}}\" exactly once"), format!("it {} times", flat.inner));
            }
        }
        if flat.problems.is_empty() { Ok(Self { pieces: flat.pieces }) } else { Err(flat.problems) }
    }

    /// Whether the slot is anywhere in it.
    #[must_use]
    pub fn has(&self, wanted: &Slot) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Slot { slot, .. } if slot == wanted))
    }

    /// Renders the pieces; `fill` is asked for every slot.
    pub fn render<'a>(&'a self, out: &mut Vec<u8>, mut fill: impl FnMut(&'a Slot) -> Fill<'a>) {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Slot { slot, inside } => write(out, fill(slot), *inside),
            }
        }
    }

    /// What stands before and after the slot that holds the next level.
    #[must_use]
    pub fn split(self, inner: &Slot) -> (Self, Self) {
        let at =
            self.pieces.iter().position(|piece| matches!(piece, Piece::Slot { slot, .. } if slot == inner));
        let mut head = self.pieces;
        let tail = head.split_off(at.unwrap_or(head.len()));
        (Self { pieces: head }, Self { pieces: tail.into_iter().skip(1).collect() })
    }
}

fn write(out: &mut Vec<u8>, fill: Fill<'_>, inside: bool) {
    match (fill, inside) {
        (Fill::Text(text), false) => write_text(out, text),
        (Fill::Text(text), true) => write_escaped(out, text),
        (Fill::Json(json), false) => out.extend_from_slice(json),
        (Fill::Json(json), true) => match json {
            b"null" => {}
            // A JSON text is escaped already.
            [b'"', text @ .., b'"'] => out.extend_from_slice(text),
            other => write_escaped(out, &String::from_utf8_lossy(other)),
        },
    }
}

/// The skeleton of a measurement without a value: members that show `{value}` are left out. `None` when nothing is left
/// that could be shown.
#[must_use]
pub fn without_value(skeleton: &Json) -> Option<Json> {
    match skeleton {
        Json::String(text) => (!mentions_value(text)).then(|| skeleton.clone()),
        Json::Object(members) => {
            let kept: serde_json::Map<_, _> = members
                .iter()
                .filter_map(|(name, member)| Some((name.clone(), without_value(member)?)))
                .collect();
            (!kept.is_empty()).then_some(Json::Object(kept))
        }
        Json::Array(items) => {
            let kept: Vec<Json> = items.iter().filter_map(without_value).collect();
            // A place in a list has a meaning: a list that lost one is left out as a whole.
            (kept.len() == items.len()).then_some(Json::Array(kept))
        }
        other => Some(other.clone()),
    }
}

fn mentions_value(text: &str) -> bool {
    text.replace("{{", "").contains("{value}")
}

struct Flattener {
    level: Level,
    pieces: Vec<Piece>,
    problems: Vec<TemplateError>,
    /// How often the placeholder of the next level stands somewhere.
    inner: usize,
}

impl Flattener {
    fn problem(&mut self, pointer: &str, expected: impl Into<String>, found: impl Into<String>) {
        let found: String = found.into().chars().take(MAX_SHOWN).collect();
        self.problems.push(TemplateError { pointer: pointer.to_owned(), expected: expected.into(), found });
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Bytes(bytes.to_vec())),
        }
    }

    fn walk(&mut self, json: &Json, pointer: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.problem(pointer, format!("at most {MAX_DEPTH} levels"), "more");
        }
        match json {
            Json::String(text) => self.text(text, pointer),
            Json::Array(items) => {
                self.bytes(b"[");
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.bytes(b",");
                    }
                    self.walk(item, &format!("{pointer}/{at}"), depth + 1);
                }
                self.bytes(b"]");
            }
            Json::Object(members) => {
                self.bytes(b"{");
                for (at, (name, member)) in members.iter().enumerate() {
                    if at > 0 {
                        self.bytes(b",");
                    }
                    let mut quoted = Vec::new();
                    write_text(&mut quoted, name);
                    quoted.push(b':');
                    self.bytes(&quoted);
                    let name = name.replace('~', "~0").replace('/', "~1");
                    self.walk(member, &format!("{pointer}/{name}"), depth + 1);
                }
                self.bytes(b"}");
            }
            other => self.bytes(other.to_string().as_bytes()),
        }
    }

    fn text(&mut self, text: &str, pointer: &str) {
        let parts = match parts(text) {
            Ok(parts) => parts,
            Err(found) => return self.problem(pointer, "a closing } after {, or {{ for a plain {", found),
        };
        if let [Part::Name(name)] = parts.as_slice() {
            if let Some(slot) = self.slot(name, pointer) {
                self.inner += usize::from(self.is_inner(&slot));
                self.pieces.push(Piece::Slot { slot, inside: false });
            }
            return;
        }
        self.bytes(b"\"");
        for part in parts {
            match part {
                Part::Plain(plain) => {
                    let mut escaped = Vec::new();
                    write_escaped(&mut escaped, &plain);
                    self.bytes(&escaped);
                }
                Part::Name(name) => {
                    let Some(slot) = self.slot(&name, pointer) else { continue };
                    if self.is_inner(&slot) {
                        self.problem(pointer, format!("\"{{{name}}}\" alone"), text);
                        self.inner += 1;
                    }
                    self.pieces.push(Piece::Slot { slot, inside: true });
                }
            }
        }
        self.bytes(b"\"");
    }

    fn is_inner(&self, slot: &Slot) -> bool {
        self.level.inner().is_some_and(|(_, inner)| inner == *slot)
    }

    fn slot(&mut self, name: &str, pointer: &str) -> Option<Slot> {
        let slot = self.level.find(name);
        if slot.is_none() {
            self.problem(pointer, format!("one of {}", self.level.known()), format!("{{{name}}}"));
        }
        slot
    }
}

enum Part {
    Plain(String),
    Name(String),
}

/// Takes a text apart; `Err`: the piece with an open brace.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('{') {
            plain.push('{');
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else { return Err(format!("{{{after}")) };
        if !plain.is_empty() {
            parts.push(Part::Plain(std::mem::take(&mut plain)));
        }
        parts.push(Part::Name(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Plain(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(skeleton: &Json) -> String {
        let template = Template::compile(skeleton, Level::Measurement).unwrap();
        let mut out = Vec::new();
        template.render(&mut out, |slot| match slot {
            Slot::Key => Fill::Text("a\"b"),
            Slot::Value => Fill::Json(b"231.4"),
            Slot::Unit => Fill::Json(b"null"),
            Slot::Quality => Fill::Json(b"\"GO\\\"OD\""),
            Slot::QualityText => Fill::Json(b"{\"a\":1}"),
            _ => Fill::Json(b"0"),
        });
        assert!(serde_json::from_slice::<Json>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn whole_texts_become_values_and_longer_texts_stay_texts() {
        for (skeleton, text) in [
            (json!("{value}"), "231.4"),
            (json!({ "v": "{value}", "n": 7, "x": [true, null] }), r#"{"v":231.4,"n":7,"x":[true,null]}"#),
            (json!("{key}/{value}{unit}"), r#""a\"b/231.4""#),
            (json!("<{quality}> {quality_text}"), r#""<GO\"OD> {\"a\":1}""#),
            (json!("{{value}"), r#""{value}""#),
            (json!("a\nb"), r#""a\nb""#),
            (json!(""), r#""""#),
            (json!({ "{key}": 1 }), r#"{"{key}":1}"#),
        ] {
            assert_eq!(rendered(&skeleton), text);
        }
    }

    #[test]
    fn wrong_skeletons_are_explained() {
        let problems = |skeleton: Json, level| {
            Template::compile(&skeleton, level)
                .unwrap_err()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let found = problems(json!({ "a": "{valeu}", "b": ["{unit"] }), Level::Measurement);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("/a: expected one of {key} {point} {value}"), "{found:?}");
        assert!(found[1].starts_with("/b/0: expected a closing }"), "{found:?}");
        assert!(problems(json!({}), Level::Batch)[0].contains("\"{records}\" exactly once"));
        assert!(problems(json!(["{records}", "{records}"]), Level::Batch)[0].contains("2 times"));
        assert!(problems(json!("x{measurements}"), Level::Record)[0].contains("alone"));
        assert!(problems(json!(["{measurements}", "{label:}"]), Level::Record)[0].contains("{label:NAME}"));
        let mut deep = json!("{records}");
        for _ in 0..30 {
            deep = json!([deep]);
        }
        assert!(problems(deep, Level::Batch)[0].contains("levels"));
        assert!(problems(json!("x".repeat(MAX_SKELETON)), Level::Measurement)[0].contains("bytes"));
    }

    #[test]
    fn a_measurement_without_its_value() {
        let skeleton =
            json!({ "value": "{value}", "both": "{value}{unit}", "unit": "{unit}", "plain": "{{value}" });
        assert_eq!(without_value(&skeleton), Some(json!({ "unit": "{unit}", "plain": "{{value}" })));
        assert_eq!(without_value(&json!("{value}")), None);
        assert_eq!(without_value(&json!(["{key}", "{value}"])), None);
        assert_eq!(without_value(&json!({ "v": "{value}" })), None);
        assert_eq!(without_value(&json!(["{key}", 1])), Some(json!(["{key}", 1])));
    }
}
