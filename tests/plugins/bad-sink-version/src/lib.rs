//! A new version of the MQTT sink that is wrong. It loads, describes itself and connects; what it does then stands in the
//! environment variable `BUSBAR_TEST_FAULT` of the gateway: `refuse` (every record is refused for ever), `mute` (no record
//! is ever confirmed), `crash` (SIGSEGV with the first record), `stuck` (its stop never returns).

use std::{collections::BTreeMap, time::Duration};

use busbar_driver_api::{Delivery, Error, Link, Result, Sink, SinkTraits, export_sink};
use serde_json::Value;

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
struct Settings {
    #[serde(flatten)]
    _rest: BTreeMap<String, Value>,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Map {
    #[serde(flatten)]
    _rest: BTreeMap<String, Value>,
}

struct Bad {
    fault: String,
}

impl Sink for Bad {
    const NAME: &'static str = "mqtt";
    const REASONS: &'static [&'static str] = &["refused by the bad version"];
    type Settings = Settings;
    type Map = Map;

    fn traits() -> SinkTraits {
        SinkTraits { durable: true, ..SinkTraits::default() }
    }

    async fn open(_: &Link<Self>) -> Result<Self> {
        Ok(Self { fault: std::env::var("BUSBAR_TEST_FAULT").unwrap_or_default() })
    }

    async fn deliver(&mut self, link: &Link<Self>, delivery: &Delivery) -> Result<()> {
        let count = u32::try_from(delivery.len()).map_err(|error| Error::bug(error.to_string()))?;
        match self.fault.as_str() {
            "refuse" => link.ctx.rejected(delivery.lane, delivery.first, count, 1).await,
            "mute" => Ok(()),
            "crash" => {
                #[allow(unsafe_code, reason = "this is the fault")]
                // SAFETY: none: the process is meant to die of SIGSEGV. `raise` is what a wild pointer would end in.
                unsafe {
                    libc::raise(libc::SIGSEGV);
                }
                Err(Error::refused("still alive"))
            }
            _ => link.ctx.delivered(delivery.lane, delivery.first, count).await,
        }
    }

    async fn close(self, _: &Link<Self>) {
        let hangs = self.fault == "stuck";
        for _ in std::iter::repeat_n((), if hangs { usize::MAX } else { 0 }) {
            #[allow(clippy::disallowed_methods, reason = "this is the fault")]
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

export_sink!(Bad);
