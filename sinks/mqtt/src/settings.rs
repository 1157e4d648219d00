//! The `settings` table and one entry of `map`.

use busbar_driver_api::Secret;
use busbar_sink_kit::settings::{Prefer, Tls, Urls};
use schemars::JsonSchema;
use serde::Deserialize;

/// The `settings` table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Broker, or several that are tried in order: `mqtt://host:1883`, `mqtts://host:8883`.
    #[schemars(example = "mqtt://127.0.0.1:1883")]
    pub url: Urls,
    /// Which broker of a list is tried first.
    #[serde(default)]
    pub prefer: Prefer,
    /// What goes out.
    #[serde(default)]
    pub format: Format,
    /// Topic of values with `{host}`, `{device}`, `{point}`; without `{point}` one message per device and poll. Default:
    /// `busbar/{host}/{device}/{point}`. `format = "ems"`: with `{host}`, `{device}`, `{device_id}`, `{identify_device}`.
    #[serde(default)]
    pub topic: Option<String>,
    /// `format = "ems"`, instead of `topic`: stands before `/{device_id}/{identify_device}`. Default: `gatewayems/modbus`.
    #[serde(default)]
    pub base: Option<String>,
    /// `format = "ems"`: the gateway's UUID at the control plane. Default: `[host] name`.
    #[serde(default)]
    pub gateway_uuid: Option<String>,
    /// `format = "ems"`: stands before `/{gateway_uuid}/status`, where the gateway's status is kept. Default: no status.
    #[serde(default)]
    pub status_base: Option<String>,
    /// Topic of the gateway's retained `online` and `offline`, with `{host}`.
    #[serde(default = "topic_status")]
    pub topic_status: String,
    /// Topic of each device's retained `online` and `offline`, with `{host}` and `{device}`. Default: `topic_status`
    /// with `{device}` before its last level.
    #[serde(default)]
    pub topic_device_status: Option<String>,
    /// Quality of service: 0, 1 or 2.
    #[serde(default = "qos")]
    #[schemars(range(max = 2))]
    pub qos: u8,
    /// The broker keeps the last value of each topic.
    #[serde(default)]
    pub retain: bool,
    /// Must be unique at the broker. Default: `busbar-HOST-SINK-` and random digits.
    #[serde(default)]
    pub client_id: Option<String>,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// Password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Version of MQTT.
    #[serde(default)]
    pub version: Version,
    /// Certificates for `mqtts://`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Takes commands on `TOPIC/set` of writable points; needs credentials.
    #[serde(default)]
    pub commands: bool,
    /// Ping after this time, whole seconds: "30s".
    #[serde(default = "keep_alive")]
    pub keep_alive: String,
    /// A message without confirmation for this long ends the connection: "20s".
    #[serde(default = "ack_timeout")]
    pub ack_timeout: String,
    /// Largest message, bytes with unit: "256KiB". Larger ones are parked.
    #[serde(default = "max_packet")]
    pub max_packet: String,
}

/// What goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Busbar's own JSON.
    #[default]
    Json,
    /// Telemetry of single ThingsBoard devices; not built in yet.
    ThingsboardDevice,
    /// The ThingsBoard gateway API; not built in yet.
    ThingsboardGateway,
    /// One record per device and poll, numbers only, as the gateway before this one sent them.
    Ems,
}

impl Format {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::ThingsboardDevice => "thingsboard-device",
            Self::ThingsboardGateway => "thingsboard-gateway",
            Self::Ems => "ems",
        }
    }
}

/// Version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    #[default]
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5
    #[serde(rename = "5")]
    V5,
}

/// One entry of `map`: another name for a point.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Map {
    /// `device/point`
    pub point: String,
    /// Stands for `{point}` in the topic and for the name in grouped messages.
    pub key: String,
}

fn topic_status() -> String {
    "busbar/{host}/status".to_owned()
}

const fn qos() -> u8 {
    1
}

fn keep_alive() -> String {
    "30s".to_owned()
}

fn ack_timeout() -> String {
    "20s".to_owned()
}

fn max_packet() -> String {
    "256KiB".to_owned()
}

/// Default of `topic`.
const TOPIC: &str = "busbar/{host}/{device}/{point}";
/// Default of `base`.
const BASE: &str = "gatewayems/modbus";

impl Settings {
    /// The template of value topics.
    pub(crate) fn value_topic(&self) -> String {
        match (&self.topic, self.format) {
            (Some(topic), _) => topic.clone(),
            (None, Format::Ems) => {
                let base = self.base.as_deref().unwrap_or(BASE);
                format!("{}/{{device_id}}/{{identify_device}}", base.trim_matches('/'))
            }
            (None, _) => TOPIC.to_owned(),
        }
    }

    /// The topic of the status that the control plane reads, where there is one.
    pub(crate) fn gateway_status(&self, host: &str) -> Option<String> {
        let base = self.status_base.as_deref()?.trim_matches('/');
        Some(format!("{base}/{}/status", self.gateway_uuid.as_deref().unwrap_or(host)))
    }

    /// The template of device status topics.
    pub(crate) fn device_status(&self) -> String {
        self.topic_device_status.clone().unwrap_or_else(|| match self.topic_status.rsplit_once('/') {
            Some((head, last)) => format!("{head}/{{device}}/{last}"),
            None => format!("{{device}}/{}", self.topic_status),
        })
    }
}
