//! What an answer means. Pure: status, headers and a bounded body in, a verdict out.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | accepted, but for the records that the body names |
//! | 409 | seen before: accepted |
//! | 400, 422 | a record is wrong for ever: the body may name it |
//! | 401, 403 | the token is refused |
//! | 413 | too large: half of it |
//! | 429; 503 with `Retry-After` | wait |
//! | everything else (5xx, 3xx, 404, ...) | not taken: the same batch again, later |
//!
//! Trust: a body is hostile until it is read. Indexes outside the batch, numbers where a list belongs, missing indexes:
//! then something was refused and nobody knows what, and the batch is halved to find out. A 2xx whose body cannot be read
//! at all (a login page of some proxy) confirms nothing, unless [`AnswerForm::status_only`].

use std::time::Duration;

use serde_json::Value as Json;

use crate::time::retry_after;

/// Largest body of an answer that is read, bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Longest reason or text of the far side that is kept.
const MAX_TEXT: usize = 200;

/// Where the body of an answer names what was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerForm {
    /// Member that lists the refused records.
    pub rejected: String,
    /// Member of an entry with the index in the batch.
    pub index: String,
    /// Member of an entry with the reason.
    pub reason: String,
    /// Index of the first record.
    pub first_index: u64,
    /// A 2xx accepts everything, whatever its body is.
    pub status_only: bool,
}

impl Default for AnswerForm {
    fn default() -> Self {
        Self {
            rejected: "rejected".into(),
            index: "index".into(),
            reason: "reason".into(),
            first_index: 0,
            status_only: false,
        }
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// `Location`, host only, of a redirect.
    pub location: Option<String>,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
    /// There was more.
    pub overflow: bool,
}

/// The refused records of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejections {
    /// Index in the batch and reason, sorted, each index once.
    list: Vec<(usize, String)>,
    /// Something was refused that cannot be attributed.
    unclear: bool,
}

impl Rejections {
    /// From ready entries, as tests like to write it.
    #[must_use]
    pub fn of(mut list: Vec<(usize, String)>) -> Self {
        list.sort_by_key(|(at, _)| *at);
        list.dedup_by_key(|(at, _)| *at);
        Self { list, unclear: false }
    }

    /// Something was refused, and it is not said what.
    #[must_use]
    pub const fn unclear() -> Self {
        Self { list: Vec::new(), unclear: true }
    }

    /// Something was refused in a batch of `size` records that cannot be attributed.
    #[must_use]
    pub fn is_unclear(&self, size: usize) -> bool {
        self.unclear || self.list.iter().any(|(at, _)| *at >= size)
    }

    /// A record of a batch of `size` records is named.
    #[must_use]
    pub fn names_any(&self, size: usize) -> bool {
        self.list.iter().any(|(at, _)| *at < size)
    }

    /// Why the record at this index was refused, if it was.
    #[must_use]
    pub fn reason(&self, index: usize) -> Option<&str> {
        let at = self.list.binary_search_by_key(&index, |(at, _)| *at).ok()?;
        self.list.get(at).map(|(_, reason)| reason.as_str())
    }

    /// Nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.unclear
    }
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, but for these.
    Accepted(Rejections),
    /// Accepted before, but for these.
    Seen(Rejections),
    /// A record is wrong for ever.
    Bad {
        /// Which ones, when the answer says so.
        rejections: Rejections,
        /// The far side's words.
        text: String,
    },
    /// The batch is too large.
    TooLarge,
    /// The token is refused.
    Unauthorized,
    /// Come back later.
    Wait {
        /// When it says so.
        after: Option<Duration>,
    },
    /// Not taken; one sentence for the operator.
    Failed(String),
}

/// Reads an answer. `now_ns`: wall clock, nanoseconds UTC.
#[must_use]
pub fn classify(reply: &Reply, form: &AnswerForm, now_ns: i64) -> Answer {
    let after = || reply.retry_after.as_deref().and_then(|text| retry_after(text, now_ns));
    match reply.status {
        200..300 => accepted(reply, form),
        409 => Answer::Seen(json(reply).map(|body| rejections(&body, form)).unwrap_or_default()),
        400 | 422 => Answer::Bad {
            rejections: json(reply).map(|body| rejections(&body, form)).unwrap_or_default(),
            text: words(reply),
        },
        401 | 403 => Answer::Unauthorized,
        413 => Answer::TooLarge,
        429 => Answer::Wait { after: after() },
        503 => match after() {
            Some(after) => Answer::Wait { after: Some(after) },
            None => Answer::Failed(words(reply)),
        },
        300..400 => Answer::Failed(format!(
            "the EMS answers {} and points to {}: redirects are not followed because of the token, set url to the right \
             address",
            reply.status,
            reply.location.as_deref().unwrap_or("nowhere")
        )),
        404 | 405 | 410 => Answer::Failed(format!("{}: expected the path of the ingestion", words(reply))),
        _ => Answer::Failed(words(reply)),
    }
}

fn accepted(reply: &Reply, form: &AnswerForm) -> Answer {
    if form.status_only || (reply.body.is_empty() && !reply.overflow) {
        return Answer::Accepted(Rejections::default());
    }
    match json(reply) {
        Some(body) => Answer::Accepted(rejections(&body, form)),
        None => Answer::Failed(format!(
            "the EMS answers {} with a body that is no JSON object: {}; is this the EMS, or a proxy before it?",
            reply.status,
            if reply.overflow { format!("more than {MAX_BODY} bytes") } else { excerpt(&reply.body) }
        )),
    }
}

/// The body, where it is a JSON object.
fn json(reply: &Reply) -> Option<Json> {
    if reply.overflow {
        return None;
    }
    serde_json::from_slice::<Json>(&reply.body).ok().filter(Json::is_object)
}

fn rejections(body: &Json, form: &AnswerForm) -> Rejections {
    let entries = match body.get(&form.rejected) {
        None | Some(Json::Null) => return Rejections::default(),
        Some(Json::Array(entries)) => entries,
        // A count instead of a list.
        Some(Json::Number(number)) if number.as_f64() == Some(0.0) => return Rejections::default(),
        Some(_) => return Rejections::unclear(),
    };
    let mut unclear = false;
    let list = entries.iter().filter_map(|entry| {
        let read = entry_of(entry, form);
        unclear |= read.is_none();
        read
    });
    let mut found = Rejections::of(list.collect());
    found.unclear = unclear;
    found
}

/// `{ "index": 3, "reason": "..." }`, or the bare index.
fn entry_of(entry: &Json, form: &AnswerForm) -> Option<(usize, String)> {
    let index = if entry.is_object() { entry.get(&form.index)? } else { entry };
    let index = index.as_u64()?.checked_sub(form.first_index)?;
    let reason = match entry.get(&form.reason) {
        None | Some(Json::Null) => String::from("no reason given"),
        Some(Json::String(text)) => excerpt(text.as_bytes()),
        Some(other) => excerpt(other.to_string().as_bytes()),
    };
    Some((usize::try_from(index).ok()?, reason))
}

/// Status and the beginning of the body.
fn words(reply: &Reply) -> String {
    match excerpt(&reply.body) {
        text if text.is_empty() => format!("the EMS answers {}", reply.status),
        text => format!("the EMS answers {}: {text}", reply.status),
    }
}

/// The beginning of a text that came from outside: one line, printable, bounded.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_TEXT * 4).unwrap_or(bytes));
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = shown.take(MAX_TEXT).collect();
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, location: None, body: body.into(), overflow: false }
    }

    fn read(status: u16, body: &str) -> Answer {
        classify(&reply(status, body), &AnswerForm::default(), 0)
    }

    fn named(list: &[(usize, &str)]) -> Rejections {
        Rejections::of(list.iter().map(|(at, reason)| (*at, (*reason).to_owned())).collect())
    }

    #[test]
    fn every_status() {
        let none = Rejections::default;
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(read(status, ""), Answer::Accepted(none()), "{status}");
        }
        assert_eq!(read(409, "whatever"), Answer::Seen(none()));
        for status in [400, 422] {
            assert!(
                matches!(read(status, "nope"), Answer::Bad { rejections, text } if rejections.is_empty() && text.contains("nope"))
            );
        }
        assert_eq!((read(401, ""), read(403, "")), (Answer::Unauthorized, Answer::Unauthorized));
        assert_eq!(read(413, ""), Answer::TooLarge);
        assert_eq!(read(429, ""), Answer::Wait { after: None });
        for status in
            [100, 301, 302, 307, 308, 402, 404, 405, 408, 410, 415, 418, 425, 500, 502, 503, 504, 599, 999]
        {
            assert!(
                matches!(read(status, ""), Answer::Failed(text) if text.contains(&status.to_string())),
                "{status}"
            );
        }
    }

    #[test]
    fn waiting_as_told() {
        for status in [429, 503] {
            let asks = Reply { retry_after: Some("30".into()), ..reply(status, "") };
            let wait = Answer::Wait { after: Some(Duration::from_secs(30)) };
            assert_eq!(classify(&asks, &AnswerForm::default(), 0), wait);
        }
        let nonsense = Reply { retry_after: Some("soon".into()), ..reply(503, "") };
        assert!(matches!(classify(&nonsense, &AnswerForm::default(), 0), Answer::Failed(_)));
        // 500 with Retry-After is no promise of anything.
        let other = Reply { retry_after: Some("30".into()), ..reply(500, "") };
        assert!(matches!(classify(&other, &AnswerForm::default(), 0), Answer::Failed(_)));
    }

    #[test]
    fn refused_records_are_read() {
        let body = r#"{"accepted":1,"rejected":[{"index":3,"reason":"unknown device"},{"index":0},2,{"index":3,"reason":"again"}]}"#;
        let list = named(&[(0, "no reason given"), (2, "no reason given"), (3, "unknown device")]);
        assert_eq!(read(202, body), Answer::Accepted(list.clone()));
        assert!(matches!(read(422, body), Answer::Bad { rejections, .. } if rejections == list));
        assert_eq!((list.reason(3), list.reason(1)), (Some("unknown device"), None));
        for nothing in
            ["{}", r#"{"rejected":[]}"#, r#"{"rejected":null}"#, r#"{"accepted":-5}"#, r#"{"rejected":0}"#]
        {
            assert_eq!(read(200, nothing), Answer::Accepted(Rejections::default()), "{nothing}");
        }
    }

    #[test]
    fn other_names_and_first_index() {
        let form = AnswerForm {
            rejected: "errors".into(),
            index: "row".into(),
            reason: "msg".into(),
            first_index: 1,
            status_only: false,
        };
        let body = r#"{"errors":[{"row":1,"msg":{"code":7}}]}"#;
        let found = classify(&reply(200, body), &form, 0);
        assert_eq!(found, Answer::Accepted(named(&[(0, r#"{"code":7}"#)])));
        let zero = classify(&reply(200, r#"{"errors":[{"row":0}]}"#), &form, 0);
        assert!(matches!(zero, Answer::Accepted(rejections) if rejections.is_unclear(5)));
    }

    #[test]
    fn what_cannot_be_attributed_is_unclear() {
        for body in [
            r#"{"rejected":[{"index":-1}]}"#,
            r#"{"rejected":[{"index":"2"}]}"#,
            r#"{"rejected":[{"index":1.5}]}"#,
            r#"{"rejected":[{}]}"#,
            r#"{"rejected":[null]}"#,
            r#"{"rejected":["x"]}"#,
            r#"{"rejected":[{"index":100}]}"#,
            r#"{"rejected":[{"index":18446744073709551615}]}"#,
            r#"{"rejected":3}"#,
            r#"{"rejected":-3}"#,
            r#"{"rejected":{"index":1}}"#,
            r#"{"rejected":"all"}"#,
        ] {
            let Answer::Accepted(rejections) = read(200, body) else { panic!("{body}") };
            assert!(rejections.is_unclear(100), "{body}");
        }
    }

    #[test]
    fn a_2xx_that_cannot_be_read_confirms_nothing() {
        for body in ["<html>login</html>", "OK", "[]", "7", "{\"accepted\":", "\u{0}\u{1}"] {
            assert!(
                matches!(read(200, body), Answer::Failed(text) if text.contains("no JSON object")),
                "{body}"
            );
            let status_only = AnswerForm { status_only: true, ..AnswerForm::default() };
            assert_eq!(classify(&reply(200, body), &status_only, 0), Answer::Accepted(Rejections::default()));
        }
        let huge = Reply { overflow: true, ..reply(200, "{}") };
        assert!(matches!(classify(&huge, &AnswerForm::default(), 0), Answer::Failed(_)));
    }

    #[test]
    fn words_of_the_far_side_are_one_bounded_line() {
        let long = format!("a\r\nb\u{1b}[31m{}", "x".repeat(5000));
        let Answer::Failed(text) = read(500, &long) else { panic!() };
        assert!(text.len() < 300 && !text.chars().any(char::is_control), "{text}");
        assert!(matches!(read(500, "\u{fffd}\u{20ac}"), Answer::Failed(_)));
        let redirect = Reply { location: Some("evil.example".into()), ..reply(307, "") };
        assert!(
            matches!(classify(&redirect, &AnswerForm::default(), 0), Answer::Failed(text) if text.contains("evil.example"))
        );
    }
}
