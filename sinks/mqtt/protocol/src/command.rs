//! Commands on set topics: `{"id":"42","value":true,"expires":1767225605000}` and the answers to them.
//!
//! A command is executed at most once and never late. So a request is refused when it was retained, when `expires` is
//! missing or past, or when its id was used before on the same topic. Ids are remembered until they expire: until then
//! the broker may deliver the same request again, later it is refused as expired. The memory is bounded; when it is
//! full of ids that have not expired, new commands are refused, because forgetting one would allow a repetition.
//! A restart is no excuse to forget: [`Gate::unsaved`] is what must be on disk before an admitted request is executed,
//! [`Gate::restore`] takes it back.
//!
//! `expires`: milliseconds UTC as a whole number, or RFC 3339 text. Unknown keys are refused: a misspelt key of a
//! command must not be ignored.

use std::collections::HashMap;

use busbar_kit::json::{write_number, write_text};
use busbar_kit::time::{parse_rfc3339, rfc3339};

/// Longest id, bytes.
pub const MAX_ID: usize = 128;
/// Longest payload of a request, bytes.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Most ids remembered. All of them are written before a command is executed, so this bounds that write to 64 KiB.
pub const MAX_REMEMBERED: usize = 4096;
/// Bytes of one remembered id on disk: hash and expiry, little endian.
const ENTRY: usize = 16;

/// A request that may be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Chosen by the client; stands in every answer.
    pub id: String,
    /// In engineering units: bool, number or text.
    pub value: serde_json::Value,
    /// Refuse after this time, nanoseconds UTC.
    pub expires_ns: i64,
}

/// Why a request is refused before it reaches the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Stored by the broker: nobody knows how old it is.
    Retained,
    /// Not a request.
    Malformed,
    /// No `expires`.
    NoExpires,
    /// `expires` is past.
    Expired,
    /// The id was used before.
    Repeated,
    /// Too many ids that have not expired.
    Busy,
    /// The id could not be written to disk, so a restart would forget it.
    NotStored,
}

impl Reason {
    /// The word in the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Malformed => "malformed",
            Self::NoExpires => "no_expires",
            Self::Expired => "expired",
            Self::Repeated => "repeated",
            Self::Busy => "busy",
            Self::NotStored => "not_stored",
        }
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The id, where the request had a readable one.
    pub id: Option<String>,
    /// Why.
    pub reason: Reason,
    /// For the operator.
    pub text: String,
}

/// Decides about requests; remembers ids.
#[derive(Debug, Default)]
pub struct Gate {
    /// Hash of topic and id -> expiry. A collision refuses one command out of 2^64.
    seen: HashMap<u64, i64>,
    /// Nothing remembered expires before this time.
    earliest_ns: i64,
    /// Ids admitted, and how many of them are on disk.
    admitted: u64,
    saved: u64,
}

impl Gate {
    /// Reads a request that arrived on `topic` at `now_ns` (UTC).
    pub fn admit(
        &mut self,
        topic: &str,
        payload: &[u8],
        retained: bool,
        now_ns: i64,
    ) -> Result<Request, Refused> {
        let request = parse(payload)?;
        let refuse = |reason, text: String| Refused { id: Some(request.id.clone()), reason, text };
        if retained {
            let text =
                "expected a message that is not retained: publish commands with retain = false".to_owned();
            return Err(refuse(Reason::Retained, text));
        }
        if request.expires_ns <= now_ns {
            let text = format!(
                "expected expires in the future, found {} at {}: check the client's clock and the unit (milliseconds UTC)",
                rfc3339(request.expires_ns),
                rfc3339(now_ns)
            );
            return Err(refuse(Reason::Expired, text));
        }
        let key = hash(topic, &request.id);
        self.forget_expired(now_ns);
        if self.seen.contains_key(&key) {
            let text =
                "expected a new id, found one that was used before: a command is never repeated".to_owned();
            return Err(refuse(Reason::Repeated, text));
        }
        if self.seen.len() >= MAX_REMEMBERED {
            let text = format!("{MAX_REMEMBERED} commands have not expired yet: use a nearer expires");
            return Err(refuse(Reason::Busy, text));
        }
        if self.seen.is_empty() || request.expires_ns < self.earliest_ns {
            self.earliest_ns = request.expires_ns;
        }
        self.seen.insert(key, request.expires_ns);
        self.admitted += 1;
        Ok(request)
    }

    /// What must be written before the requests admitted so far are executed, with the mark to give to [`Self::saved`];
    /// `None` where all of it is on disk.
    #[must_use]
    pub fn unsaved(&self, now_ns: i64) -> Option<(u64, Vec<u8>)> {
        if self.admitted == self.saved {
            return None;
        }
        let valid = self.seen.iter().filter(|(_, expires)| **expires > now_ns);
        let bytes = valid.flat_map(|(key, expires)| [key.to_le_bytes(), expires.to_le_bytes()]).flatten();
        Some((self.admitted, bytes.collect()))
    }

    /// What [`Self::unsaved`] gave with this mark is on disk.
    pub fn saved(&mut self, mark: u64) {
        self.saved = self.saved.max(mark);
    }

    /// Takes back what an earlier process wrote. False: the bytes are not what [`Self::unsaved`] gives.
    #[must_use]
    pub fn restore(&mut self, bytes: &[u8], now_ns: i64) -> bool {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        for entry in entries.iter().take(MAX_REMEMBERED) {
            let (key, expires) = entry.split_at(ENTRY / 2);
            let number =
                |half: &[u8]| half.iter().rev().fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
            let expires_ns = number(expires).cast_signed();
            if expires_ns > now_ns {
                self.seen.insert(number(key), expires_ns);
            }
        }
        self.earliest_ns = self.seen.values().copied().min().unwrap_or(i64::MAX);
        rest.is_empty() && entries.len() <= MAX_REMEMBERED
    }

    /// Only when the memory is full and something in it has expired: otherwise remembering longer does no harm.
    fn forget_expired(&mut self, now_ns: i64) {
        if self.seen.len() >= MAX_REMEMBERED && self.earliest_ns <= now_ns {
            self.seen.retain(|_, expires| *expires > now_ns);
            self.earliest_ns = self.seen.values().copied().min().unwrap_or(i64::MAX);
        }
    }
}

/// FNV-1a, 64 bits: the same in every process and version, because it is written to disk.
fn hash(topic: &str, id: &str) -> u64 {
    let bytes = topic.bytes().chain([0]).chain(id.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    id: Option<serde_json::Value>,
    value: Option<serde_json::Value>,
    expires: Option<serde_json::Value>,
}

fn parse(payload: &[u8]) -> Result<Request, Refused> {
    const SHAPE: &str = r#"expected {"id":"...","value":...,"expires":milliseconds UTC}"#;
    let malformed = |id: Option<String>, found: String| Refused {
        id,
        reason: Reason::Malformed,
        text: format!("{SHAPE}, found {found}"),
    };
    if payload.len() > MAX_REQUEST {
        return Err(malformed(None, format!("{} bytes", payload.len())));
    }
    let wire: Wire = serde_json::from_slice(payload).map_err(|error| malformed(None, error.to_string()))?;
    let id = match wire.id {
        Some(serde_json::Value::String(id)) if (1..=MAX_ID).contains(&id.len()) => id,
        Some(serde_json::Value::Number(id)) => id.to_string(),
        Some(_) => return Err(malformed(None, format!("an id that is no text of 1 to {MAX_ID} bytes"))),
        None => return Err(malformed(None, "no id".to_owned())),
    };
    let value = match wire.value {
        Some(
            value
            @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_)),
        ) => value,
        Some(_) => return Err(malformed(Some(id), "a value that is no bool, number or text".to_owned())),
        None => return Err(malformed(Some(id), "no value".to_owned())),
    };
    let Some(expires) = wire.expires else {
        let text = format!("{SHAPE}, found no expires");
        return Err(Refused { id: Some(id), reason: Reason::NoExpires, text });
    };
    let Some(expires_ns) = expiry(&expires) else {
        return Err(malformed(Some(id), "an expires that is no time".to_owned()));
    };
    Ok(Request { id, value, expires_ns })
}

fn expiry(expires: &serde_json::Value) -> Option<i64> {
    match expires {
        // Far beyond the year 2262 stays far in the future.
        serde_json::Value::Number(ms) => ms.as_i64().map(|ms| ms.saturating_mul(1_000_000)),
        serde_json::Value::String(text) => parse_rfc3339(text),
        _ => None,
    }
}

/// Appends the answer `{"id":"42","result":"refused","reason":"busy","text":"...","ts":1767225600123}`; empty `reason`
/// and `text` are left out, an unknown id is null.
pub fn write_result(
    out: &mut Vec<u8>,
    id: Option<&str>,
    result: &str,
    reason: &str,
    text: &str,
    now_ns: i64,
) {
    out.extend_from_slice(b"{\"id\":");
    match id {
        Some(id) => write_text(out, id),
        None => out.extend_from_slice(b"null"),
    }
    for (key, value) in [("result", result), ("reason", reason), ("text", text)] {
        if !value.is_empty() {
            out.push(b',');
            write_text(out, key);
            out.push(b':');
            write_text(out, value);
        }
    }
    out.extend_from_slice(b",\"ts\":");
    write_number(out, now_ns.div_euclid(1_000_000));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000_000_000;
    const TOPIC: &str = "busbar/h/d/p/set";

    fn admit(gate: &mut Gate, payload: &str) -> Result<Request, Refused> {
        gate.admit(TOPIC, payload.as_bytes(), false, NOW)
    }

    fn reason(payload: &str) -> Reason {
        admit(&mut Gate::default(), payload).unwrap_err().reason
    }

    #[test]
    fn a_good_request_passes_once() {
        let mut gate = Gate::default();
        let text = r#"{"id":"42","value":true,"expires":1767225605000}"#;
        let request = admit(&mut gate, text).unwrap();
        assert_eq!(request.id, "42");
        assert_eq!(request.value, serde_json::json!(true));
        assert_eq!(request.expires_ns, NOW + 5_000_000_000);
        let refused = admit(&mut gate, text).unwrap_err();
        assert_eq!((refused.reason, refused.id.as_deref()), (Reason::Repeated, Some("42")));
        assert!(gate.admit("busbar/h/d/other/set", text.as_bytes(), false, NOW).is_ok(), "ids are per topic");
    }

    #[test]
    fn expires_may_be_a_date_and_ids_numbers() {
        let mut gate = Gate::default();
        let request = admit(&mut gate, r#"{"id":7,"value":-1.5,"expires":"2026-01-01T00:00:10Z"}"#).unwrap();
        assert_eq!((request.id.as_str(), request.expires_ns), ("7", NOW + 10_000_000_000));
        assert!(admit(&mut gate, r#"{"id":"far","value":"on","expires":9223372036854775807}"#).is_ok());
    }

    #[test]
    fn what_must_be_refused_is_refused() {
        for (payload, expected) in [
            (r#"{"id":"1","value":1}"#, Reason::NoExpires),
            (r#"{"id":"1","value":1,"expires":null}"#, Reason::NoExpires),
            (r#"{"id":"1","value":1,"expires":1767225600000}"#, Reason::Expired),
            (r#"{"id":"1","value":1,"expires":1767225605}"#, Reason::Expired),
            (r#"{"id":"1","value":1,"expires":"soon"}"#, Reason::Malformed),
            (r#"{"id":"1","value":1,"expires":1e300}"#, Reason::Malformed),
            (r#"{"id":"1","expires":1767225605000}"#, Reason::Malformed),
            (r#"{"id":"1","value":null,"expires":1767225605000}"#, Reason::Malformed),
            (r#"{"id":"1","value":[1],"expires":1767225605000}"#, Reason::Malformed),
            (r#"{"id":"","value":1,"expires":1767225605000}"#, Reason::Malformed),
            (r#"{"value":1,"expires":1767225605000}"#, Reason::Malformed),
            (r#"{"id":"1","value":1,"expires":1767225605000,"selct":true}"#, Reason::Malformed),
            (r#"{"id":"1","id":"2","value":1,"expires":1767225605000}"#, Reason::Malformed),
            ("1", Reason::Malformed),
            ("", Reason::Malformed),
            ("\u{0}\u{1}", Reason::Malformed),
        ] {
            assert_eq!(reason(payload), expected, "{payload}");
        }
        let long = format!(r#"{{"id":"1","value":"{}","expires":1767225605000}}"#, "x".repeat(MAX_REQUEST));
        assert_eq!(reason(&long), Reason::Malformed);
        assert_eq!(reason(&"[".repeat(10_000)), Reason::Malformed);
    }

    #[test]
    fn retained_is_refused_and_does_not_burn_the_id() {
        let mut gate = Gate::default();
        let text = br#"{"id":"1","value":1,"expires":1767225605000}"#;
        assert_eq!(gate.admit(TOPIC, text, true, NOW).unwrap_err().reason, Reason::Retained);
        assert!(gate.admit(TOPIC, text, false, NOW).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_refuses_rather_than_forgets() {
        let mut gate = Gate::default();
        for n in 0..MAX_REMEMBERED {
            let expires = 1_767_225_605_000_u64 + n as u64;
            assert!(admit(&mut gate, &format!(r#"{{"id":"{n}","value":1,"expires":{expires}}}"#)).is_ok());
        }
        let more = r#"{"id":"more","value":1,"expires":1767225999000}"#;
        assert_eq!(admit(&mut gate, more).unwrap_err().reason, Reason::Busy);
        let later = NOW + 5_001_000_000;
        assert!(gate.admit(TOPIC, more.as_bytes(), false, later).is_ok());
        assert_eq!(gate.admit(TOPIC, more.as_bytes(), false, later).unwrap_err().reason, Reason::Repeated);
    }

    #[test]
    fn a_restart_forgets_no_id() {
        let mut gate = Gate::default();
        assert_eq!(gate.unsaved(NOW), None);
        let long = r#"{"id":"42","value":true,"expires":1767225605000}"#;
        let short = r#"{"id":"43","value":true,"expires":1767225601000}"#;
        assert!(admit(&mut gate, long).is_ok() && admit(&mut gate, short).is_ok());
        let (mark, bytes) = gate.unsaved(NOW).unwrap();
        assert_eq!(bytes.len(), 2 * ENTRY);
        gate.saved(mark);
        assert_eq!(gate.unsaved(NOW), None);

        let later = NOW + 2_000_000_000;
        let mut next = Gate::default();
        assert!(next.restore(&bytes, later));
        assert_eq!(next.unsaved(later), None, "that is on disk already");
        let again = next.admit(TOPIC, long.as_bytes(), false, later).unwrap_err();
        assert_eq!(again.reason, Reason::Repeated);
        // What expired meanwhile is neither kept nor written again.
        let new = r#"{"id":"44","value":true,"expires":1767225605000}"#;
        assert!(next.admit(TOPIC, new.as_bytes(), false, later).is_ok());
        assert_eq!(next.unsaved(later).unwrap().1.len(), 2 * ENTRY);
        assert!(!Gate::default().restore(&bytes[1..], NOW), "damaged");
        assert!(Gate::default().restore(&[], NOW));
    }

    #[test]
    fn results() {
        let mut out = Vec::new();
        write_result(&mut out, Some("4\"2"), "refused", "busy", "", NOW + 123_999_999);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"id":"4\"2","result":"refused","reason":"busy","ts":1767225600123}"#
        );
        let mut out = Vec::new();
        write_result(&mut out, None, "finished", "", "", NOW);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":null,"result":"finished","ts":1767225600000}"#);
    }
}
