//! The `settings` table and one entry of `map`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use busbar_driver_api::Secret;
use busbar_ems_http::AnswerForm;
use busbar_ems_http::body::Skeleton;
use busbar_sink_kit::settings::{Prefer, Tls, Urls};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::memory::Memory;

/// The `settings` table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// EMS, or several that are tried in order: `https://host[:port][/base]`.
    #[schemars(example = "https://ems.example")]
    pub url: Urls,
    /// Which one of a list is tried first after a failure.
    #[serde(default)]
    pub prefer: Prefer,
    /// Path of the ingestion, appended to `url`.
    #[serde(default = "path")]
    pub path: String,
    /// Token; read once, when the configuration is read.
    #[serde(default)]
    pub token: Option<Secret>,
    /// File with the token; read again before every request, so that a renewed token needs no reload.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub token_file: Option<PathBuf>,
    /// Header of the token.
    #[serde(default = "token_header")]
    pub token_header: String,
    /// Stands before the token.
    #[serde(default = "token_prefix")]
    pub token_prefix: String,
    /// Header of the idempotency key.
    #[serde(default = "key_header")]
    pub key_header: String,
    /// The gateway's id at the EMS. Default: `[host] name`.
    #[serde(default)]
    pub gateway_id: Option<String>,
    /// Most records of a batch.
    #[serde(default = "batch_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_max: usize,
    /// Longest time a record waits for its batch to fill: "5s".
    #[serde(default = "batch_wait")]
    pub batch_wait: String,
    /// Of one request, answer included: "30s".
    #[serde(default = "timeout")]
    pub timeout: String,
    /// First pause after a failure, doubled each time up to 5 minutes: "5s".
    #[serde(default = "retry_delay")]
    pub retry_delay: String,
    /// Pause after a refused token: "60s".
    #[serde(default = "token_retry")]
    pub token_retry: String,
    /// Further headers; their values are never shown.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Compress bodies.
    #[serde(default)]
    pub gzip: bool,
    /// Certificates for `https://`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The EMS's words for qualities.
    #[serde(default)]
    pub quality: Names,
    /// How a request looks.
    #[serde(default)]
    pub body: BodyForm,
    /// How an answer is read.
    #[serde(default)]
    pub answer: Answers,
    /// What outlives a connection of this instance. Not a setting: a table is read once per instance, so this is the
    /// instance's own.
    #[serde(skip)]
    pub memory: Memory,
}

/// A word or a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Word {
    /// A word.
    Text(String),
    /// A number.
    Number(i64),
}

impl Word {
    pub(crate) fn json(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => Json::from(text.as_str()).to_string().into_bytes(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }
}

fn word(text: &str) -> Word {
    Word::Text(text.to_owned())
}

/// The EMS's words for qualities.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Names {
    /// Use it.
    pub good: Word,
    /// Outside the range, or overflow.
    pub bad_range: Word,
    /// The device cannot be reached, or failed.
    pub bad_comm: Word,
    /// The device does not know the address.
    pub bad_config: Word,
    /// Not refreshed in time.
    pub stale: Word,
    /// Questionable for another reason.
    pub uncertain: Word,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            good: word("GOOD"),
            bad_range: word("BAD_RANGE"),
            bad_comm: word("BAD_COMM"),
            bad_config: word("BAD_CONFIG"),
            stale: word("STALE"),
            uncertain: word("UNCERTAIN"),
        }
    }
}

/// Measurements of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measurements {
    /// An object: name -> measurement.
    #[default]
    Object,
    /// A list.
    List,
}

/// How a request looks: JSON with placeholders.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BodyForm {
    /// The whole: `{gateway_id} {batch_id} {count}`, and `{records}` once.
    pub batch: Option<Json>,
    /// One record: `{gateway_id} {device} {timestamp} {timestamp_ms} {timestamp_s} {seq} {history} {label:NAME}`, and
    /// `{measurements}` once.
    pub record: Option<Json>,
    /// One measurement: `{key} {point} {value} {unit} {quality} {quality_text}`.
    pub measurement: Option<Json>,
    /// Whether `{measurements}` is an object or a list.
    pub measurements: Measurements,
}

impl BodyForm {
    pub(crate) fn skeleton(&self) -> Skeleton {
        let default = Skeleton::default();
        Skeleton {
            batch: self.batch.clone().unwrap_or(default.batch),
            record: self.record.clone().unwrap_or(default.record),
            measurement: self.measurement.clone().unwrap_or(default.measurement),
            list: self.measurements == Measurements::List,
        }
    }
}

/// What confirms a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Confirms {
    /// A 2xx without a body or with a JSON object.
    #[default]
    Json,
    /// Any 2xx; its body is not read.
    Status,
}

/// How an answer is read.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answers {
    /// What confirms a batch.
    pub confirms: Confirms,
    /// Member that lists the refused records. Default: `rejected`.
    pub rejected: Option<String>,
    /// Member of an entry with the record's index. Default: `index`.
    pub index: Option<String>,
    /// Member of an entry with the reason. Default: `reason`.
    pub reason: Option<String>,
    /// Index of the first record.
    pub first_index: u64,
}

impl Answers {
    pub(crate) fn form(&self) -> AnswerForm {
        let default = AnswerForm::default();
        AnswerForm {
            rejected: self.rejected.clone().unwrap_or(default.rejected),
            index: self.index.clone().unwrap_or(default.index),
            reason: self.reason.clone().unwrap_or(default.reason),
            first_index: self.first_index,
            status_only: self.confirms == Confirms::Status,
        }
    }
}

/// One entry of `map`: another name for a point.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Map {
    /// `device/point`
    pub point: String,
    /// Name of the measurement at the EMS.
    pub key: String,
}

fn path() -> String {
    "/api/v1/measurements:batch".to_owned()
}

fn token_header() -> String {
    "Authorization".to_owned()
}

fn token_prefix() -> String {
    "Bearer ".to_owned()
}

fn key_header() -> String {
    "Idempotency-Key".to_owned()
}

const fn batch_max() -> usize {
    100
}

fn batch_wait() -> String {
    "5s".to_owned()
}

fn timeout() -> String {
    "30s".to_owned()
}

fn retry_delay() -> String {
    "5s".to_owned()
}

fn token_retry() -> String {
    "60s".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "url": "https://e", "token": "hunter2", "headers": { "X-Key": "hunter3" }
        }))
        .unwrap();
        settings.memory.lock().refused = Some(Secret::new("hunter4".into()));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
