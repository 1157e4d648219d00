//! Pieces of configuration and data that several stories use.

use busbar_tests::Gateway;
use serde_json::Value;

/// The two registers of a float32, most significant first (ABCD).
pub(crate) fn float(value: f32) -> [u16; 2] {
    let [a, b, c, d] = value.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// A `[[sink]]` that publishes every point as JSON.
pub(crate) fn mqtt_sink(url: &str) -> String {
    format!(
        "[[sink]]\nname = \"broker\"\nplugin = \"mqtt\"\nsettings = {{ url = \"{url}\", format = \"json\" }}\n"
    )
}

/// A `[[device]]`: further lines in `keys`, points as inline tables.
pub(crate) fn device(name: &str, connection: &str, keys: &str, points: &[String]) -> String {
    let points = points.join(",\n  ");
    format!(
        "[[device]]\nname = \"{name}\"\ndriver = \"modbus\"\nconnection = {connection}\n{keys}\npoints = [\n  {points}\n]\n\n"
    )
}

/// Topic of a point, or of a status with `point = "status"`.
pub(crate) fn topic(device: &str, point: &str) -> String {
    format!("busbar/{}/{device}/{point}", busbar_tests::gateway::HOST)
}

/// The quality text of a sample, without what it says about the clock of the machine under test: `clock_unsynced` speaks
/// about time only and is the last word where it stands (SEMANTICS.md section 4).
pub(crate) fn quality(sample: &Value) -> &str {
    let text = sample["quality"].as_str().unwrap_or_default();
    text.strip_suffix("|clock_unsynced").unwrap_or(text)
}

/// Milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A device of the fake driver whose behaviour commands change: `read_act`, `command_act`; `set` takes a number, `n`
/// counts its reads. `more` goes into `connection`.
pub(crate) fn crashing(name: &str, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!(
        "[[device]]\nname = \"{name}\"\ndriver = \"fake\"\npoll_interval = \"200ms\"\n\
         connection = {{ endpoint = \"{name}\"{more} }}\npoints = [\n  \
         {{ name = \"n\", address = \"counter\", type = \"uint64\" }},\n  \
         {{ name = \"set\", address = \"value:set\", type = \"float64\", writable = true, range = [0, 100] }},\n  \
         {{ name = \"read_act\", address = \"act:read\", type = \"text\", writable = true }},\n  \
         {{ name = \"command_act\", address = \"act:command\", type = \"text\", writable = true }},\n]\n\n"
    )
}

/// What the API says of a plugin.
pub(crate) fn plugin(gateway: &Gateway, name: &str) -> Value {
    let plugins = gateway.api("/api/v1/plugins");
    let found = plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == name);
    found.cloned().unwrap_or_else(|| panic!("{name} is not in {plugins}"))
}
