//! Configuration of the fake driver.

use std::{borrow::Cow, collections::HashMap};

use busbar_driver_api::{Kind, Quality, Secret, schemars};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::act::Act;

/// The `connection` table.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connection {
    /// Name of the endpoint; devices with equal names share it.
    pub(crate) endpoint: String,
    /// Closed before it is opened again.
    #[serde(default)]
    pub(crate) exclusive: bool,
    /// Never shown.
    #[serde(default)]
    pub(crate) password: Option<Secret>,
    /// Behaviour per operation: `open, connect, read, probe, command, block_read, block_write, subscribe, unsubscribe,
    /// browse, next, committed, disconnect, close, plan`.
    #[serde(default)]
    pub(crate) acts: HashMap<String, Act>,
    /// Entries that a browse gives.
    #[serde(default)]
    pub(crate) browse: u32,
    /// Points whose address is `report:NAME` are sent by subscription, every so many milliseconds; 0 = only by script.
    #[serde(default)]
    pub(crate) report_ms: u64,
    /// Operate needs a selection by the same client.
    #[serde(default)]
    pub(crate) select_required: bool,
}

/// Further keys of a device.
#[derive(Debug, Clone, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Returned by CONNECT as what the peer says about itself.
    #[serde(default)]
    pub(crate) model: String,
}

/// A point.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    /// `const:NUMBER`, `counter`, `value:NAME`, `sticky:NAME` (takes no write), `report:NAME`, `refused`, `silent`,
    /// `act:OPERATION` (write a behaviour), `script` (write JSON), `committed` (what became of tokens).
    pub(crate) address: Address,
    /// Kind of the value.
    #[serde(default, rename = "type")]
    pub(crate) kind: KindName,
    /// Quality of every answer.
    #[serde(default)]
    pub(crate) quality: QualityText,
    /// Source time of every answer, nanoseconds UTC.
    #[serde(default)]
    pub(crate) source_time: Option<i64>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Address {
    Const(f64),
    Counter,
    Value(String),
    Sticky(String),
    Report(String),
    Refused,
    Silent,
    Act(String),
    Script,
    Committed,
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("expected const:NUMBER, counter, value:NAME or the like, found {text:?}");
        Ok(match text.split_once(':') {
            Some(("const", number)) => Self::Const(number.parse().map_err(|_| bad())?),
            Some(("value", name)) => Self::Value(name.to_owned()),
            Some(("sticky", name)) => Self::Sticky(name.to_owned()),
            Some(("report", name)) => Self::Report(name.to_owned()),
            Some(("act", name)) => Self::Act(name.to_owned()),
            None if text == "counter" => Self::Counter,
            None if text == "refused" => Self::Refused,
            None if text == "silent" => Self::Silent,
            None if text == "script" => Self::Script,
            None if text == "committed" => Self::Committed,
            _ => return Err(bad()),
        })
    }
}

/// Name of a value kind.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct KindName(pub(crate) Kind);

impl Default for KindName {
    fn default() -> Self {
        Self(Kind::Float64)
    }
}

impl TryFrom<String> for KindName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Kind::from_name(&text).map(Self).ok_or_else(|| format!("expected a kind of value, found {text:?}"))
    }
}

/// Text form of a quality.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct QualityText(pub(crate) Quality);

impl TryFrom<String> for QualityText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Quality::parse(&text).map(Self).map_err(|error| error.to_string())
    }
}

macro_rules! text_schema {
    ($($name:ident)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string" })
            }
        }
    )*};
}

text_schema!(Address KindName QualityText);
