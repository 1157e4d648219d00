//! Devices that name the same host in different lists.
//!
//! Devices share a connection when their endpoint keys are equal, and a key is made of the whole list of hosts. The
//! lists `["a", "b"]` and `"a"` are two endpoints and so two connections to one device, which many devices refuse or
//! answer in turns.

use std::collections::HashMap;

use busbar_contract::describe::PluginKind;
use busbar_core::model::Device;
use serde_json::Value as Json;

use crate::{context::Context, device::Made, dialect::Place, problem::Path};

/// One host as a driver is told to reach it: driver, host, port.
type Target<'d> = (&'d str, String, Option<Json>);

/// Warns about every list that shares a host, but not the connection, with an earlier device.
pub(crate) fn check(cx: &Context<'_>, devices: &[Made]) {
    let mut first: HashMap<Target<'_>, &Made> = HashMap::new();
    for made in devices {
        let hosts = hosts(&made.model);
        let port = port(cx, &made.model);
        let mut told = false;
        for host in &hosts {
            let target = (made.model.driver.as_str(), host.clone(), port.clone());
            let Some(other) = first.get(&target) else {
                first.insert(target, made);
                continue;
            };
            if !told && self::hosts(&other.model) != hosts && two_endpoints(cx, &other.model, &made.model) {
                told = true;
                report(cx, made, other, host);
            }
        }
    }
}

fn report(cx: &Context<'_>, made: &Made, other: &Made, host: &str) {
    let path = Path::Root.key("device");
    let (path, other_path) = (path.named(&made.model.name), path.named(&other.model.name));
    let (path, other_path) = (path.key("connection"), other_path.key("connection"));
    let (key, other_key) = (path.key("host").to_string(), other_path.key("host").to_string());
    let masked = cx.masked.borrow();
    let secret = [&key, &other_key].iter().any(|key| {
        masked
            .iter()
            .any(|masked| masked.strip_prefix(key.as_str()).is_some_and(|rest| !rest.starts_with('.')))
    });
    let host = if secret { "one of the hosts".to_owned() } else { format!("{host:?}") };
    drop(masked);
    let expected = format!("the same list of hosts as device {:?}", other.model.name);
    let found = format!("another list with {host}, which is also at {}", cx.place(other.pos));
    cx.problems
        .warning(Some(made.pos), key, expected, found)
        .help("two lists are two connections to one device; write the same list in both, in the same order");
}

/// The configured hosts, as they compare.
fn hosts(device: &Device) -> Vec<String> {
    let text = |json: &Json| json.as_str().map(|text| text.trim().to_ascii_lowercase());
    match device.connection.get("host") {
        Some(Json::Array(items)) => items.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The configured port, or the default in the driver's schema.
fn port(cx: &Context<'_>, device: &Device) -> Option<Json> {
    let own = device.connection.get("port").cloned();
    own.or_else(|| {
        let plugin = cx.plugins.describe(PluginKind::Driver, &device.driver)?;
        Place::at(&plugin.schemas.connection, "/port").find("default").cloned()
    })
}

/// Over the same kind of transport, and not one endpoint. A driver that cannot be asked is not known to have two.
fn two_endpoints(cx: &Context<'_>, one: &Device, two: &Device) -> bool {
    let key = |device: &Device| {
        cx.plugins.endpoint(&device.driver, &device.connection).map(|endpoint| endpoint.key)
    };
    let (Some(one), Some(two)) = (key(one), key(two)) else { return false };
    let transport = |key: &str| key.split(':').next().map(str::to_owned);
    one != two && transport(&one) == transport(&two)
}
